"""Finds checks: the package llm_doctor.checks and the entry points "llm_doctor.checks" of plugins."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import os.path
import pkgutil
import re
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Iterable, Iterator, NamedTuple, Sequence, Type

from llm_doctor.check import HEADINGS, TOPICS, Check

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP = "llm_doctor.checks"


class Registered(NamedTuple):
    """A check and where it comes from; `problem` says why a plugin has no check to run.

    `left_out` is the topic of a check of workloads that was not loaded, because there is no workload."""

    name: str
    origin: str
    check: Type[Check] | None
    problem: str | None = None
    left_out: str = ""


class UnknownCheck(Exception):
    """A name that no check has, with the nearest; or names that leave no check to run."""


def registered(workload: bool = True, logs: bool = False) -> list[Registered]:
    """Every check, built in or from a plugin, by name. A broken plugin never raises.

    Without a workload those that examine nothing else are named and not loaded: there are many of them. Those
    that are known by what stands in logs alone are only there with `logs`."""
    found: dict[str, Registered] = {}
    for entry in [*_built_in(workload, logs), *_plugins()]:
        if entry.check is not None and entry.check.of_log and not logs:
            continue
        if entry.name in found:
            problem = f"its name is taken by the check of {found[entry.name].origin}"
            entry = Registered(f"{entry.name} ({entry.origin})", entry.origin, None, problem)
        found[entry.name] = entry
    return [found[name] for name in sorted(found)]


def select(
    entries: Sequence[Registered], only: Sequence[str] = (), skip: Sequence[str] = ()
) -> list[Registered]:
    """Those named by `only` (all when empty) without those named by `skip`. Raises UnknownCheck."""
    names = [entry.name for entry in entries]
    for name in (*only, *skip):
        if name not in names:
            if any(entry.name == name for entry in registered(logs=True)):
                raise UnknownCheck(f"{name} is known from logs alone: llm-doctor triage LOG")
            near = [n for n in names if name in n] or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UnknownCheck(f"there is no check named {name!r}{hint} (llm-doctor list shows them all)")
    chosen = [e for e in entries if (not only or e.name in only) and e.name not in skip]
    if not chosen:
        raise UnknownCheck("no check is left to run")
    return chosen


def _built_in(workload: bool, logs: bool) -> Iterator[Registered]:
    package = importlib.import_module(GROUP)
    for module in pkgutil.iter_modules(package.__path__):
        text = "" if workload and logs else _text(module.module_finder, module.name)
        if not logs and "\n    of_log = True\n" in text:
            continue
        left_out = None if workload else _of_workload(text)
        if left_out is not None:
            yield left_out
            continue
        try:
            checks = _checks_in(importlib.import_module(f"{GROUP}.{module.name}"))
        except Exception as error:  # a half-removed or half-written check must not stop the others
            reason = f"it could not be loaded: {described(error)}"
            yield Registered(module.name.replace("_", "-"), "built in", None, reason)
            continue
        for check in checks:
            yield Registered(check.name, "built in", check)


def _text(finder: object, module: str) -> str:
    """The text of a check's file, to know what kind it is without loading it; empty where there is none."""
    folder = getattr(finder, "path", None)  # unknown in a zip file
    try:
        with open(os.path.join(folder or "", f"{module}.py"), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _of_workload(text: str) -> Registered | None:
    """The check of a file that says that it examines workloads alone, by the text of the file."""
    name, topic = (re.search(rf'^    {field} = "(.+)"$', text, re.MULTILINE) for field in ("name", "topic"))
    if "\n    of_workload = True\n" not in text or name is None or topic is None:
        return None
    return Registered(name[1], "built in", None, left_out=topic[1])


def described(error: BaseException) -> str:
    """The kind of an error and what it says; a plugin's own may not be able to."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _plugins() -> Iterator[Registered]:
    for point in _entry_points():
        origin = _distribution(point)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # standard output is the report's
                loaded = point.load()
            checks = _checks_in(loaded) if isinstance(loaded, ModuleType) else [loaded]
            if not checks:
                raise TypeError(f"{point.value} holds no check")
            for check in checks:
                _validate(check)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin's sys.exit() too
            reason = f"the plugin could not be loaded: {described(error)}"
            yield Registered(point.name, origin, None, reason)
            continue
        for check in checks:
            yield Registered(check.name, origin, check)


def _entry_points() -> list[EntryPoint]:
    if not any(map(_may_have_plugins, sys.path)):
        return []
    import importlib.metadata

    points: Iterable[EntryPoint]
    try:
        if sys.version_info >= (3, 10):
            points = importlib.metadata.entry_points(group=GROUP)
        else:
            points = set(importlib.metadata.entry_points().get(GROUP, ()))
    except Exception:  # one damaged file among all that are installed: the others are read without it
        points = [it for each in importlib.metadata.distributions() for it in _points_of(each)]
    return sorted(points, key=lambda point: point.name)


def _points_of(distribution: Distribution) -> list[EntryPoint]:
    with contextlib.suppress(Exception):
        return [point for point in distribution.entry_points if point.group == GROUP]
    return []


def _may_have_plugins(folder: str) -> bool:
    """Whether a distribution in this folder names our group. Loading importlib.metadata to be told that there
    is no plugin takes as long as half of the facts."""
    if os.path.isfile(folder):  # a zip file: importlib.metadata knows how to look into it
        return True
    try:
        names = os.listdir(folder)
    except OSError:
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info", ".egg")):
            for inside in ("entry_points.txt", "EGG-INFO/entry_points.txt"):
                try:
                    with open(os.path.join(folder, name, inside), "rb") as file:
                        if GROUP.encode() in file.read():
                            return True
                except OSError:
                    continue
    return False


def _distribution(point: EntryPoint) -> str:
    distribution = getattr(point, "dist", None)  # unknown before Python 3.10
    if distribution is None:
        return f"plugin {point.value.partition(':')[0]}"
    return _named(distribution)


@functools.lru_cache(maxsize=None)
def _named(distribution: Distribution) -> str:
    """The plugin's name; its metadata is read once for all its checks."""
    return f"plugin {distribution.metadata['Name']} {distribution.version}"


def _checks_in(module: ModuleType) -> list[Type[Check]]:
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Check) and value.__module__ == module.__name__
    ]


def _validate(check: object) -> None:
    if not (isinstance(check, type) and issubclass(check, Check)):
        raise TypeError(f"{check!r} is no subclass of llm_doctor.check.Check")
    for field in ("name", "topic", "severity", "since"):
        if not isinstance(getattr(check, field, None), str):
            raise TypeError(f"{check.__name__} has no {field}")
    if check.topic not in TOPICS:
        raise TypeError(f"{check.name}: unknown topic {check.topic!r}")
    missing = [heading for heading in HEADINGS if f"## {heading}" not in check.documentation()]
    if missing:
        raise TypeError(f"{check.name}: its docstring has no heading {missing[0]!r}")
