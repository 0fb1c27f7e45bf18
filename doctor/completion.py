"""What a shell completes: names of checks, and files. Asked at every TAB: it loads nothing of the doctor, and
nothing of its plugins."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterator, NamedTuple

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem

GROUP = "llm_doctor.checks"
"""As in registry.py, which is not imported for this."""


def checks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Checks that can be run, for --only and --skip."""
    return list(_checks(incomplete, logs=False))


def all_checks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Those too that are known from logs alone, for explain."""
    return list(_checks(incomplete, logs=True))


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The shell's own completion of files, for what takes more than a path."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def _checks(incomplete: str, logs: bool) -> Iterator[CompletionItem]:
    from click.shell_completion import CompletionItem

    found: dict[str, str] = {}
    for name, summary, of_log in (*_built_in(incomplete), *_plugins()):
        if name.startswith(incomplete) and (logs or not of_log):
            found.setdefault(name, summary)
    for name, summary in sorted(found.items()):
        yield CompletionItem(name, help=summary or None)


class _Known(NamedTuple):
    """What the text of a check's file says of it."""

    name: str
    summary: str
    of_log: bool


def _built_in(incomplete: str) -> Iterator[_Known]:
    """The name of a file is that of its check."""
    import llm_doctor.checks

    for folder in llm_doctor.checks.__path__:
        for path in Path(folder).glob("[!_]*.py"):
            name = path.stem.replace("_", "-")
            if name.startswith(incomplete):
                text = path.read_text(encoding="utf-8")
                summary = re.search(r'^class \w+\(Check\):\n    r?"""(.+)', text, re.MULTILINE)
                told = summary[1].rstrip('"') if summary else ""
                yield _Known(name, told, "\n    of_log = True\n" in text)


def _plugins() -> Iterator[_Known]:
    """Those of plugins, out of their text too: what a plugin does when it is loaded is not waited for.

    One that cannot be read so is known by its entry point, as one that cannot be loaded is."""
    for point, module, holder in _entry_points():
        found: list[_Known] = []
        with contextlib.suppress(Exception):  # whatever finds modules here
            found = [it for name, it in _classes(_source(module)) if holder in ("", name)]
        yield from found or [_Known(point, "", False)]


def _entry_points() -> Iterator[tuple[str, str, str]]:
    """The name, the module and the object in it (may be empty) of each entry point of the group.

    Without importlib.metadata, which takes longer to load than all else here."""
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for info in os.listdir(folder):
                if info.endswith((".dist-info", ".egg-info")):
                    with contextlib.suppress(OSError, UnicodeDecodeError):
                        text = Path(folder, info, "entry_points.txt").read_text(encoding="utf-8")
                        section = re.search(rf"^\[{re.escape(GROUP)}\]$([^[]*)", text, re.MULTILINE)
                        lines = section[1] if section else ""
                        yield from re.findall(r"^(\S+)\s*=\s*([\w.]+)(?::(\w*))?", lines, re.MULTILINE)


def _source(module: str) -> str:
    """The text of a module, which is found and not imported, nor is what it is in."""
    name, folders, text = "", None, None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        specs = (finder.find_spec(name, folders) for finder in sys.meta_path)
        spec = next(spec for spec in specs if spec is not None)
        folders, text = spec.submodule_search_locations, spec.loader
    source: str = text.get_source(name)  # type: ignore[union-attr]
    return source


def _classes(text: str) -> Iterator[tuple[str, _Known]]:
    """The checks of a module, by the names of their classes."""
    import ast

    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef):
            given = [
                it for it in node.body if isinstance(it, ast.Assign) and isinstance(it.value, ast.Constant)
            ]
            fields = {it.targets[0].id: it.value.value for it in given if isinstance(it.targets[0], ast.Name)}  # type: ignore
            if isinstance(fields.get("name"), str) and "topic" in fields:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                yield node.name, _Known(fields["name"], summary, fields.get("of_log") is True)
