"""What the fixes of a report come to in the files as they stand, for formats that let an editor make them."""

from __future__ import annotations

import bisect
import difflib
import re
from typing import Callable, Iterator, List, Tuple

import msgspec

from llm_doctor.fixes.apply import Change, Workbench
from llm_doctor.fixes.draft import HeldBack, line_starts
from llm_doctor.model import CheckResult, Finding, Fix, Replacement, Report


def added(report: Report, original: Report, clean: Callable[[str], str]) -> Report:
    """The report with the replacements of its fixes, each worked out by itself in the files as they stand.

    `original` is the report before `clean` has redacted it. A fix that cannot be carried out here gets none,
    and so does one with a text that `clean` changes: a stand-in must not be written into a file."""

    def of_check(check: CheckResult, plain: CheckResult) -> CheckResult:
        return msgspec.structs.replace(check, findings=tuple(map(of_finding, check.findings, plain.findings)))

    def of_finding(finding: Finding, plain: Finding) -> Finding:
        return msgspec.structs.replace(finding, fixes=tuple(map(of_fix, finding.fixes, plain.fixes)))

    def of_fix(fix: Fix, plain: Fix) -> Fix:
        found = _replacements(plain)
        if any(clean(it.text) != it.text for it in found):
            return fix
        cleaned = tuple(msgspec.structs.replace(it, path=clean(it.path)) for it in found)
        return msgspec.structs.replace(fix, replacements=cleaned)

    return msgspec.structs.replace(report, checks=tuple(map(of_check, report.checks, original.checks)))


def _replacements(fix: Fix) -> Tuple[Replacement, ...]:
    if not fix.edits or fix.applicability == "manual" or fix.verified is False:
        return ()
    workbench = Workbench()
    try:
        workbench.try_fix(fix.edits)
        return tuple(it for change in workbench.changes() for it in _of_change(change))
    except (HeldBack, UnicodeDecodeError):
        return ()


def _of_change(change: Change) -> Iterator[Replacement]:
    before, after = (data.decode("utf-8-sig") for data in (change.before, change.after))
    starts = line_starts(before)

    def place(at: int) -> Tuple[int, int]:
        line = bisect.bisect_right(starts, at)
        return line, at - starts[line - 1] + 1

    for start, end, text in _differences(before, after):
        (line, column), (end_line, end_column) = place(start), place(end)
        yield Replacement(
            path=change.path,
            line=line,
            column=column,
            end_line=end_line,
            end_column=end_column,
            text=text,
        )


def _differences(before: str, after: str) -> Iterator[Tuple[int, int, str]]:
    """The stretches of a text that another one has not, by their offsets, and what that has there."""
    old, new = _lines(before), _lines(after)
    starts = [0]
    for line in old:
        starts.append(starts[-1] + len(line))
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        # As many lines as before: each by itself, so that what stays between them is not written again.
        alike = tag == "replace" and i2 - i1 == j2 - j1
        spans = [(i1 + n, i1 + n + 1, j1 + n, j1 + n + 1) for n in range(i2 - i1)] if alike else []
        for i, to_i, j, to_j in spans or ([] if tag == "equal" else [(i1, i2, j1, j2)]):
            one, other = "".join(old[i:to_i]), "".join(new[j:to_j])
            first, last = _common(one, other)
            if one != other:
                yield starts[i] + first, starts[to_i] - last, other[first : len(other) - last]


def _lines(text: str) -> List[str]:
    starts = [*line_starts(text), len(text)]
    return [text[start:end] for start, end in zip(starts, starts[1:])]


def _common(one: str, other: str) -> Tuple[int, int]:
    """How many characters are the same at the beginning and at the end, in whole words."""
    words, others = (re.findall(r"[\w-]+|[^\w-]", text) for text in (one, other))
    count = _same(words, others)
    last = _same(words[count:][::-1], others[count:][::-1])
    return len("".join(words[:count])), len("".join(words[len(words) - last :]))


def _same(words: List[str], others: List[str]) -> int:
    """How many words both begin with."""
    pairs = enumerate(zip(words, others))
    return next((n for n, (word, other) in pairs if word != other), min(len(words), len(others)))
