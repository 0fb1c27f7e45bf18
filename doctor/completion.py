"""What a shell completes: names of checks, and files. Asked at every TAB: it loads nothing of the doctor."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Iterator

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


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
    """Those built in: the name of a file is that of its check. A plugin would have to be loaded."""
    from click.shell_completion import CompletionItem

    import llm_doctor.checks

    for folder in llm_doctor.checks.__path__:
        for path in sorted(Path(folder).glob("[!_]*.py")):
            name = path.stem.replace("_", "-")
            if name.startswith(incomplete):
                text = path.read_text(encoding="utf-8")
                summary = re.search(r'^class \w+\(Check\):\n    r?"""(.+)', text, re.MULTILINE)
                if logs or "\n    of_log = True\n" not in text:
                    yield CompletionItem(name, help=summary and summary[1].rstrip('"'))
