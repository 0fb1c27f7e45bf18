"""What is different between reports, for a terminal, for a ticket and for a machine."""

from __future__ import annotations

import bisect
import itertools
from typing import Iterable, Mapping, Sequence

from rich.console import Console
from rich.text import Text

from llm_doctor.comparison import Change, Comparison, Examined, Group
from llm_doctor.render.console import console as empty
from llm_doctor.render.console import drawn
from llm_doctor.render.json import indented
from llm_doctor.render.words import one_line

LIMIT = 60_000
"""Characters of a ticket; GitHub takes 65,536."""
SHOWN = 40
"""Changes of a kind that get a line each; of more there are the names."""
OF_ODD = 8
"""Changes that are shown of each odd group; two reports compared alone show all."""
NAMED = 12
"""Names of alike reports that are shown."""

_HEADINGS = {
    "finding": "Findings",
    "driver": "Driver and CUDA",
    "cuda": "Driver and CUDA",
    "package": "Packages",
    "gpu": "GPUs",
    "environment": "Environment",
    "limit": "Limits",
    "trial": "Trials",
    "memory": "Memory and disks",
    "mount": "Memory and disks",
    "cache": "Downloads",
    "system": "System",
    "check": "Checks",
    "examination": "How it was examined",
}


def text(comparison: Comparison, *, width: int, color: bool) -> str:
    """For people, at any width."""
    console = empty(width=width, color=color)
    _line(console, comparison.sentence, style="bold", hanging=0)
    if comparison.groups:
        for number, group in enumerate(comparison.groups):
            console.print()
            _group(console, comparison.groups[0], group, odd=number > 0)
    else:
        for report in comparison.reports:
            _line(console, _examined(report), indent=2, hanging=2)
        for heading, changes in _sections(comparison.changes):
            console.print()
            _section(console, heading, changes)
    return drawn(console)


def _section(console: Console, heading: str, changes: Sequence[Change]) -> None:
    if heading == "Checks":
        _line(console, heading, style="bold")
        for said, names in _together(changes).items():
            _line(console, f"{said}: {', '.join(names)}", indent=2, hanging=2)
        return
    if changes[0].kind == "finding":
        for number, change in enumerate(changes):
            if number:
                console.print()
            _finding(console, change)
        return
    _line(console, heading, style="bold")
    room = min(max(len(_clean(change.name)) for change in changes[:SHOWN]), console.width // 3)
    for change, following in zip(changes[:SHOWN], [*changes[1:], None]):
        _line(
            console, f"{_clean(change.name):<{room}}  {_value(change)}", indent=2, hanging=min(room + 2, 20)
        )
        if change.message:
            _line(console, one_line(change.message), indent=4, hanging=2)
        # Said once for all that may come from the same.
        if change.explained_by and (following is None or following.explained_by != change.explained_by):
            _line(console, f"may come from: {'; '.join(change.explained_by)}", indent=4, hanging=2)
    if len(changes) > SHOWN:
        others = ", ".join(change.name for change in changes[SHOWN:])
        _line(console, f"and {len(changes) - SHOWN} more: {others}", indent=2, hanging=2)


def _finding(console: Console, change: Change) -> None:
    style = "green" if change.after is None else {"error": "bold red", "note": "bold cyan"}.get(change.after)
    _line(console, _severity(change), rest=f" {change.name}{change.times}", style=style or "bold magenta")
    if change.message:
        _line(console, one_line(change.message, 400), indent=2, hanging=2)
    if change.explained_by:
        _line(console, f"may come from: {'; '.join(change.explained_by)}", indent=2, hanging=2)


def _group(console: Console, usual: Group, group: Group, *, odd: bool) -> None:
    _line(console, _title(group, odd), style="bold" if odd else "")
    for change in group.changes[:OF_ODD]:
        _line(console, _of_odd(change), indent=2, hanging=2)
    if len(group.changes) > OF_ODD:
        names = f"llm-doctor compare {usual.names[0]} {group.names[0]}"
        _line(console, f"and {len(group.changes) - OF_ODD} more: {names}", indent=2, hanging=2)


def markdown(comparison: Comparison) -> str:
    """For a ticket: GitHub-flavoured, with nothing in it that would be a link or a mention."""
    parts = [f"### {_plain(comparison.sentence)}"]
    if not comparison.groups:
        parts += ["", *(f"- {_plain(_examined(report))}" for report in comparison.reports)]
    for number, group in enumerate(comparison.groups):
        parts += ["", f"**{_plain(_title(group, number > 0))}**"]
        parts += [""] if group.changes else []
        parts += [f"- {_plain(_of_odd(change))}" for change in group.changes[:OF_ODD]]
        if len(group.changes) > OF_ODD:
            parts.append(f"- and {len(group.changes) - OF_ODD} more")
    for heading, changes in _sections(comparison.changes):
        parts += ["", f"#### {heading}", ""]
        if heading == "Checks":
            parts += [
                f"- {_plain(said)}: {_plain(', '.join(names))}" for said, names in _together(changes).items()
            ]
        elif changes[0].kind == "finding":
            parts += [line for change in changes for line in _marked_finding(change)]
        else:
            parts += _table(changes)
    return _fitting(parts)


def _fitting(lines: Sequence[str]) -> str:
    """As many of the lines as a ticket takes: the most suspicious stand first."""
    ends = list(itertools.accumulate(len(line) + 1 for line in lines))
    count = bisect.bisect_right(ends, LIMIT)
    left = len(lines) - count
    more = ["", f"{left} more lines are left out."] if left else []
    return "\n".join([*lines[:count], *more]).rstrip() + "\n"


def _marked_finding(change: Change) -> list[str]:
    message = f": {_plain(one_line(change.message, 400))}" if change.message else ""
    lines = [f"- **{_plain(f'{_severity(change)} {change.name}')}**{change.times}{message}"]
    if change.explained_by:
        lines.append(f"  - may come from: {_plain('; '.join(change.explained_by))}")
    return lines


def _table(changes: Sequence[Change]) -> list[str]:
    rows = [
        f"| {' | '.join(_plain(one_line(cell, 200)) for cell in (c.name, _side(c.before), _side(c.after)))} |"
        for c in changes
    ]
    return ["| what | before | after |", "| --- | --- | --- |", *rows]


def json(comparison: Comparison) -> str:
    """Everything, as llm-doctor/comparison/v1."""
    return indented(comparison)


# --- The sentences that they share ------------------------------------------------------------------


def _sections(changes: Iterable[Change]) -> list[tuple[str, list[Change]]]:
    """The changes by heading, the headings in the order of their most suspicious change."""
    found: dict[str, list[Change]] = {}
    for change in changes:
        heading = "New errors" if change.is_new_error else _HEADINGS[change.kind]
        found.setdefault(heading, []).append(change)
    return list(found.items())


def _examined(report: Examined) -> str:
    counted = ((report.errors, "error"), (report.warnings, "warning"), (report.notes, "note"))
    counts = ", ".join(f"{number} {what}{'' if number == 1 else 's'}" for number, what in counted)
    return f"{report.name}: {report.started}, {report.verdict.upper()}, {counts}"


def _severity(change: Change) -> str:
    if change.before is None:
        return f"new {change.after}"
    if not change.examined:
        return f"not examined now: {change.before}"
    return f"gone {change.before}" if change.after is None else f"{change.before} -> {change.after}"


def _value(change: Change) -> str:
    if change.before is not None and change.after is not None:
        return f"{one_line(change.before)} -> {one_line(change.after)}"
    value, verb = (change.before, "gone") if change.after is None else (change.after, "new")
    return f"{verb}: {one_line(value)}" if value else verb


def _side(value: str | None) -> str:
    return "-" if value is None else value or "yes"


def _title(group: Group, odd: bool) -> str:
    more = f" and {len(group.names) - NAMED} more" if len(group.names) > NAMED else ""
    names = ", ".join(group.names[:NAMED]) + more
    if odd:
        return f"{names}: {group.verdict.upper()}"
    if len(group.names) == 1:
        return f"No two are alike; the others are held against {names}: {group.verdict.upper()}"
    return f"{len(group.names)} alike, {group.verdict.upper()}: {names}"


def _of_odd(change: Change) -> str:
    message = f": {one_line(change.message)}" if change.is_new_error and change.message else ""
    return change.said_of_odd() + message


def _together(changes: Sequence[Change]) -> Mapping[str, list[str]]:
    """The checks whose outcome changed alike for one reason."""
    found: dict[str, list[str]] = {}
    for change in changes:
        reason = f" ({one_line(change.message)})" if change.message else ""
        both = change.before is not None and change.after is not None
        said = _value(change) if both else "gone" if change.after is None else "new"
        found.setdefault(f"{said}{reason}", []).append(change.name)
    return found


def _plain(text: str) -> str:
    from llm_doctor.render.markdown import plain

    return plain(_clean(text))


def _clean(text: str) -> str:
    """Nothing that a terminal would obey: a report may come from anywhere."""
    return "".join(c if c.isprintable() else " " for c in text)


def _line(
    console: Console, text: str, *, rest: str = "", style: str = "", indent: int = 0, hanging: int = 4
) -> None:
    """A paragraph; what wraps goes `hanging` columns further in."""
    whole = Text.assemble((_clean(text), style), _clean(rest))
    room = console.width - indent
    if len(whole) <= room:
        console.print(Text(" " * indent).append_text(whole))
        return
    first = whole.wrap(console, max(10, room))[0]
    console.print(Text(" " * indent).append_text(first))
    left = whole[len(first) :]
    left = left[len(left.plain) - len(left.plain.lstrip()) :]
    for line in left.wrap(console, max(10, room - hanging)):
        console.print(Text(" " * (indent + hanging)).append_text(line))
