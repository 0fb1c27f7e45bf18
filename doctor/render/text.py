"""The report for a terminal, a pipe or a log: readable at 80 columns, with and without colour."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from llm_doctor.model import CheckResult, Finding, Fix, Report, TrialResult
from llm_doctor.render import words

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}
_VERDICTS = {
    "pass": ("PASS", "bold green"),
    "warn": ("WARN", "bold yellow"),
    "fail": ("FAIL", "bold red"),
    "incomplete": ("INCOMPLETE", "bold magenta"),
}
_OUTCOMES = {
    "pass": ("pass", "green"),
    "findings": ("found", "yellow"),
    "skipped": ("skip", "dim"),
    "crashed": ("crash", "magenta"),
    "timeout": ("late", "magenta"),
}


def render(report: Report, *, width: int, color: bool, verbose: bool = False, quiet: bool = False) -> str:
    """The report as text; with `quiet` one line when nothing is wrong."""
    stream = io.StringIO()
    console = Console(
        file=stream,
        width=max(width, 20),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )
    if quiet and report.verdict == "pass":
        _verdict(console, report)
        return stream.getvalue()
    console.print(Text(words.stack_line(report)))
    _verdict(console, report)
    if not quiet:
        _preamble(console, report)
    for check, finding in words.findings(report):
        if finding.severity != "note":
            _finding(console, check, finding)
    notes = report.count("note")
    if notes and not quiet:
        for check in report.checks:
            _notes(console, check, verbose)
    _checks(console, report, quiet)
    if verbose and not quiet:
        _details(console, report)
    elif notes and not quiet:
        console.print(Text("\n--verbose shows every proof, fact and fix.", style="dim"))
    return "\n".join(line.rstrip() for line in stream.getvalue().split("\n"))


def _verdict(console: Console, report: Report) -> None:
    word, style = _VERDICTS[report.verdict]
    console.print(Text.assemble((word, style), f": {words.counts(report)}"))


def _preamble(console: Console, report: Report) -> None:
    patient = report.patient
    if patient.version is None:
        console.print(
            Text(f"The patient could not be examined: {report.facts.python.reason}.", style="bold red")
        )
    else:
        console.print(Text(f"Patient: {patient.python} (by {patient.chosen_by})", style="dim"))
    sentence = words.gpu_sentence(report.facts)
    if sentence:
        console.print(Text(sentence, style="dim"))


def _finding(console: Console, check: CheckResult, finding: Finding) -> None:
    console.print()
    console.print(Text.assemble((finding.severity, _STYLES[finding.severity]), f" {check.name}"))
    _indented(console, finding.message)
    where = words.place(finding)
    if where:
        _labelled(console, "where", where)
    _labelled(console, "proof", words.proof_line(finding))
    for fix in finding.fixes:
        _fix(console, fix)


def _fix(console: Console, fix: Fix) -> None:
    caution = "" if fix.applicability == "safe" else f", {fix.applicability}"
    _labelled(console, "fix", f"{fix.title} ({words.verified(fix.verified)}{caution})")
    for line in fix.preview.splitlines():
        # Never wrapped: it is there to be copied.
        console.print(Text(f"           {line}"), soft_wrap=True)


def _notes(console: Console, check: CheckResult, verbose: bool) -> None:
    notes = [finding for finding in check.findings if finding.severity == "note"]
    if not notes:
        return
    console.print()
    console.print(Text.assemble(("note", _STYLES["note"]), f" {check.name}"))
    for finding in notes:
        _indented(console, f"- {finding.message}", hanging=2)
        if verbose:
            _labelled(console, "proof", words.proof_line(finding))
            for fix in finding.fixes:
                _fix(console, fix)
    shared = {finding.fixes[:1] for finding in notes}
    if not verbose and len(shared) == 1:  # one remedy for all of them is worth a line
        for fix in shared.pop():
            _fix(console, fix)


def _checks(console: Console, report: Report, quiet: bool) -> None:
    shown = [check for check in report.checks if not quiet or check.outcome in ("crashed", "timeout")]
    if shown:
        console.print()
    for check in shown:
        word, style = _OUTCOMES[check.outcome]
        why = check.reason or "; ".join(map(_trial_words, check.trials))
        console.print(Text.assemble((f"{word:<6}", style), check.name))
        if why:
            _indented(console, why, hanging=4, style="dim")


def _trial_words(trial: TrialResult) -> str:
    total = len(trial.cases)
    number = sum(case.status == trial.status for case in trial.cases)
    count = f" in {number} of {total} cases" if total > 1 else ""
    said = f"{trial.status}{count} on {trial.device}, {trial.seconds:.1f} s"
    spoke = trial.status in ("reproduced", "refuted")  # of the others, finding or check tell the reason
    return f"{said} ({trial.reason})" if spoke and trial.reason else said


def _details(console: Console, report: Report) -> None:
    console.print(Text("\nTrials", style="bold"))
    for check in report.checks:
        for trial in check.trials:
            console.print(Text(f"{trial.name} on {trial.device}: {trial.status}, {trial.seconds:.2f} s"))
            if trial.reason:
                _indented(console, trial.reason)
            for case in trial.cases:
                _indented(console, words.case_line(case))
    console.print(Text("\nFacts", style="bold"))
    for name, fact in msgspec.to_builtins(report.facts).items():
        console.print(Text(f"{name}  ({fact['source']}, {fact['seconds']:.2f} s)"))
        if fact["status"] == "ok":
            for key, value in fact["value"].items():
                _indented(console, f"{key}: {words.plain(value)}")
        else:
            _indented(console, f"unavailable: {fact['reason']}")
    if report.answers:
        console.print(Text("\nAnswers of the installed libraries", style="bold"))
    for name, answer in report.answers.items():
        console.print(Text(f"{name}  ({answer.seconds:.2f} s)"))
        if answer.status != "ok":
            _indented(console, f"unavailable: {answer.reason}")
        elif isinstance(answer.value, dict):
            for key, value in answer.value.items():
                _indented(console, f"{key}: {words.plain(value)}")


def _labelled(console: Console, label: str, text: str) -> None:
    _indented(console, f"{label + ':':<7}{text}", hanging=7)


def _indented(console: Console, text: str, hanging: int = 0, style: str = "") -> None:
    """Two columns in; what wraps goes `hanging` columns further."""
    lines = Text(text, style=style).wrap(console, max(10, console.width - 2 - hanging))
    for number, line in enumerate(lines):
        line.rstrip()
        console.print(Padding(line, (0, 0, 0, 2 + (hanging if number else 0))))
