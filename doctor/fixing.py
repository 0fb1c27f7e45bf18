"""From the findings of a report to changed files: what is chosen, what is held back, what it helped."""

from __future__ import annotations

import difflib
import os
import re
from typing import Iterator, List, Literal, NamedTuple, Sequence, Tuple

from llm_doctor.fixes import apply, undo
from llm_doctor.fixes.apply import Change, Workbench
from llm_doctor.fixes.draft import HeldBack
from llm_doctor.model import Finding, Fix, Report
from llm_doctor.render import words

Why = Literal["unsafe", "by hand", "not possible"]


class Chosen(NamedTuple):
    """A fix that is carried out, for a finding of a check; `line` is where the finding stands afterwards."""

    check: str
    finding: Finding
    fix: Fix
    line: int | None = None


class Held(NamedTuple):
    """A fix that is held back: for want of --unsafe, for a person to do, or because it cannot be done."""

    check: str
    finding: Finding
    fix: Fix
    why: Why
    reason: str = ""


class Plan(NamedTuple):
    """What the fixes of a report come to: nothing is written yet."""

    changes: Sequence[Change]
    chosen: Sequence[Chosen]
    held: Sequence[Held]

    def held_for(self, why: Why) -> List[Held]:
        """Those that are held back for one reason."""
        return [held for held in self.held if held.why == why]


def plan(report: Report, *, unsafe: bool) -> Plan:
    """Tries one fix for each finding: of alternatives the first that can be done, safe ones first."""
    workbench = Workbench()
    chosen: List[Chosen] = []
    held: List[Held] = []
    for check in report.checks:
        for finding in check.findings:
            outcome = _choose(workbench, check.name, finding, unsafe)
            if isinstance(outcome, Held):
                held.append(outcome)
            elif outcome is not None:
                chosen.append(outcome)
    moved = [it._replace(line=_line_now(workbench, it.finding)) for it in chosen]
    return Plan(workbench.changes(), moved, held)


def _choose(workbench: Workbench, check: str, finding: Finding, unsafe: bool) -> Chosen | Held | None:
    # What was tried here and did not help is no remedy.
    fixes = [fix for fix in finding.fixes if fix.verified is not False]
    ready = [fix for fix in fixes if fix.edits and fix.applicability != "manual"]
    ready.sort(key=lambda fix: fix.applicability == "unsafe")
    allowed = [fix for fix in ready if unsafe or fix.applicability == "safe"]
    reasons: List[str] = []
    for fix in allowed:
        try:
            workbench.try_fix(fix.edits)
        except HeldBack as error:
            reasons.append(str(error))
        else:
            return Chosen(check, finding, fix)
    if reasons:
        return Held(check, finding, allowed[0], "not possible", reasons[0])
    if ready:
        return Held(check, finding, ready[0], "unsafe")
    if fixes and (finding.severity != "note" or finding.subject.path is not None):
        return Held(check, finding, fixes[0], "by hand")
    return None


def _line_now(workbench: Workbench, finding: Finding) -> int | None:
    subject = finding.subject
    if subject.path is None or subject.line is None:
        return None
    return workbench.line_now(subject.path, subject.line)


def problems(report: Report) -> Iterator[str]:
    """The files of the workload that could not be read, a line each."""
    for problem in (report.workload or {}).get("problems", ()):
        where = [problem["path"], problem["line"], problem["column"]]
        yield f"{':'.join(str(it) for it in where if it)}: {problem['message']}"


def summary(plan: Plan) -> str:
    """`3 fixes in 2 files; 1 unsafe held back (--unsafe shows it), 2 for you to do`."""
    count, files = len(plan.chosen), len(plan.changes)
    done = f"{_number(count, 'fix', 'fixes')} in {_number(files, 'file', 'files')}"
    unsafe, left, hand = (len(plan.held_for(why)) for why in ("unsafe", "not possible", "by hand"))
    held = [
        f"{unsafe} unsafe held back (--unsafe shows {'it' if unsafe == 1 else 'them'})" if unsafe else "",
        f"{left} held back" if left else "",
        f"{hand} for you to do" if hand else "",
    ]
    return "; ".join(it for it in (done if count else "nothing to fix", ", ".join(filter(None, held))) if it)


def held_lines(plan: Plan) -> Iterator[str]:
    """Why each fix that is not made is not made, in a line of its own."""
    for held in plan.held:
        where = words.place(held.finding)
        what = f"{where}: {held.fix.title}" if where else held.fix.title
        why = {"unsafe": "unsafe", "by hand": "for you to do", "not possible": "held back"}[held.why]
        yield f"{why}: {what} ({held.check})" + (f": {held.reason}" if held.reason else "")


def _number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def make(changes: Sequence[Change]) -> None:
    """Writes the changes, and keeps what they replace. All or nothing: raises WriteError."""
    apply.verify(changes)
    record = undo.keep(changes)
    try:
        apply.write(changes)
    except BaseException:
        undo.forget(record)
        raise


def diff(changes: Sequence[Change]) -> str:
    """One unified diff of all files, with a/ and b/ before paths from the current folder on."""
    return "".join(line for change in changes for line in _diff(change))


def _diff(change: Change) -> Iterator[str]:
    path = os.path.relpath(os.path.abspath(change.path))
    if path.startswith(".."):
        path = os.path.abspath(change.path).lstrip("/")
    # By their newline alone: a form feed ends no line of a diff.
    before, after = (_lines(data.decode("utf-8", "replace")) for data in (change.before, change.after))
    for line in difflib.unified_diff(before, after, f"a/{path}", f"b/{path}"):
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> List[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def failed(plan: Plan, before: Report, after: Report) -> List[Tuple[Chosen, str]]:
    """The fixes that did not silence their finding, and what their check still says at its place.

    What it said there before of something else is not held against a fix."""
    told: List[Tuple[Chosen, str]] = []
    for chosen in plan.chosen:
        result = next((check for check in after.checks if check.name == chosen.check), None)
        if result is None or result.outcome in ("crashed", "timeout"):
            why = result.reason if result is not None else None
            told.append((chosen, f"it could not be examined again ({why or 'the check is gone'})"))
            continue
        others = {_said(it) for it in _findings(before, chosen.check)} - {_said(chosen.finding)}
        still = next(
            (it for it in result.findings if _is_there(chosen, it) and _said(it) not in others), None
        )
        if still is not None:
            told.append((chosen, still.message))
    return told


def _findings(report: Report, check: str) -> List[Finding]:
    return [finding for result in report.checks if result.name == check for finding in result.findings]


def _is_there(chosen: Chosen, now: Finding) -> bool:
    subject = chosen.finding.subject
    return (now.subject.kind, now.subject.path, now.subject.line) == (subject.kind, subject.path, chosen.line)


def _said(finding: Finding) -> str:
    """The message without the numbers of lines, which fixes move."""
    return re.sub(r"\blines? \d+|:\d+(:\d+)?", "", finding.message)
