"""The report for a terminal, a pipe or a log: readable at 80 columns, with and without colour."""

from __future__ import annotations

import msgspec
from rich.console import Console
from rich.text import Text

from llm_doctor.model import EXIT_INTERRUPTED, CheckResult, Finding, Fix, Report, TrialResult
from llm_doctor.render import words
from llm_doctor.render.console import console as empty
from llm_doctor.render.console import drawn

NAMED = 8
"""Checks that are named where they are skipped for one reason; of more there is the number."""
_STYLES = {"error": "bold red", "warning": "bold magenta", "note": "bold"}
_VERDICTS = {"pass": "bold green", "warn": "bold magenta", "fail": "bold red", "incomplete": "bold magenta"}
_OUTCOMES = {
    "pass": ("pass", "green"),
    "findings": ("found", "red"),
    "skipped": ("skip", ""),
    "crashed": ("crash", "magenta"),
    "timeout": ("late", "magenta"),
}


def render(report: Report, *, width: int, color: bool, verbose: bool = False, quiet: bool = False) -> str:
    """The report as text; with `quiet` one line when nothing is wrong."""
    console = empty(width=width, color=color)
    if quiet and report.exit_code == 0 and report.verdict == "pass":
        _verdict(console, report, f" ({words.gpu_line(report.facts)}; {report.patient.python})")
        return drawn(console)
    first_line, rest = words.fitting(words.stack(report), console.width)
    _verdict(console, report)
    console.print(Text(first_line))
    _preamble(console, report, rest)
    serious = [pair for pair in words.findings(report) if pair[1].severity != "note"]
    for check, finding in serious:
        _finding(console, check, finding)
    # --quiet leaves notes out, unless they are why the run failed.
    if not quiet or (report.exit_code == 1 and not serious):
        for check in report.checks:
            _notes(console, check, verbose)
    _checks(console, report, quiet)
    if verbose:
        _details(console, report)
    elif not quiet:
        _hints(console, report)
    return drawn(console)


def _verdict(console: Console, report: Report, rest: str = "") -> None:
    line = Text(words.verdict_line(report) + rest)
    line.stylize(_VERDICTS[report.verdict], 0, len(report.verdict))
    console.print(line, soft_wrap=bool(rest))


def _preamble(console: Console, report: Report, rest: list[str]) -> None:
    patient = report.patient
    if patient.version is None:
        lost = f"The patient could not be examined: {report.facts.python.reason}."
        console.print(Text(lost, style="bold red"))
    else:
        console.print(Text(f"Patient: {patient.python} (by {patient.chosen_by})"))
        also = [*rest, f"Python {patient.version}", words.system(report.facts)]
        console.print(Text(f"Also: {', '.join(also)}"))
    for line in words.workload_lines(report):
        console.print(Text(line))
    sentence = words.gpu_sentence(report.facts)
    if sentence:
        console.print(Text(sentence))
    if report.exit_code == EXIT_INTERRUPTED:
        console.print(Text("Interrupted: what was not reached is not-run.", style="bold"))


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
    if fix.preview:  # never wrapped: it is there to be copied
        lines = [f"           {line}" for line in fix.preview.splitlines()]
        console.print(Text("\n".join(lines)), soft_wrap=True)


def _notes(console: Console, check: CheckResult, verbose: bool) -> None:
    notes = [finding for finding in check.findings if finding.severity == "note"]
    if not notes:
        return
    console.print()
    console.print(Text.assemble(("note", _STYLES["note"]), f" {check.name}"))
    for finding in notes:
        where = f"{words.place(finding)}: " if finding.subject.line is not None else ""
        _indented(console, f"{where}{finding.message}", hanging=2)
        if verbose:
            _labelled(console, "proof", words.proof_line(finding))
    # One remedy for all of them is said once.
    shared = {finding.fixes[:1] for finding in notes}
    if verbose:
        fixes = list(dict.fromkeys(fix for finding in notes for fix in finding.fixes))
    else:
        fixes = list(shared.pop()) if len(shared) == 1 else []
    for fix in fixes:
        _fix(console, fix)


def _checks(console: Console, report: Report, quiet: bool) -> None:
    shown = [check for check in report.checks if not quiet or check.outcome in ("crashed", "timeout")]
    if shown:
        console.print()
    # What is left out for one and the same reason is said once.
    reasons = [check.reason for check in shown if check.outcome == "skipped"]
    together = {reason for reason in reasons if reason and reasons.count(reason) > 1}
    rows = []
    for check in shown:
        if check.outcome == "skipped" and check.reason in together:
            continue
        word, style = _OUTCOMES[check.outcome]
        if check.outcome == "pass" and check.findings:
            word, style = "note", "bold"
        whys = [check.reason] if check.reason else []
        if check.outcome == "pass":
            whys += map(_trial_words, check.trials)
        rows.append((word, style, check.name, "; ".join(whys)))
    for reason in sorted(together):
        names = [check.name for check in shown if check.outcome == "skipped" and check.reason == reason]
        named = f"{', '.join(names)}: " if len(names) <= NAMED else ""
        rows.append(("skip", "", f"{len(names)} checks", f"{named}{reason}"))
    room = max((len(name) for _, _, name, _ in rows), default=0)
    begin = room + 8
    beside = console.width >= begin + 30
    lines = Text()
    for word, style, name, why in rows:
        why = "" if why == report.facts.python.reason else why  # said once, above
        lines.append(f"{word:<6}", style)
        lines.append("\n      ".join(_wrapped(console, name, console.width - 6)))
        for number, line in enumerate(_wrapped(console, why, console.width - (begin if beside else 4))):
            if number or not beside:
                lines.append("\n")
            indent = begin if number else room - len(name) + 2
            lines.append(" " * (indent if beside else 4 if number else 2) + line)
        lines.append("\n")
    console.print(lines, end="", soft_wrap=True)


def _wrapped(console: Console, text: str, width: int) -> list[str]:
    if len(text) <= width and text.isascii():
        return [text] if text else []
    return [line.plain.rstrip() for line in Text(text).wrap(console, max(width, 10))]


def _trial_words(trial: TrialResult) -> str:
    total = len(trial.cases)
    number = sum(case.status == trial.status for case in trial.cases)
    count = f" in {number} of {total} cases" if total > 1 else ""
    if trial.status == "not-run":
        return f"{trial.status} on {trial.device}: {trial.reason}"
    said = f"{trial.status}{count} on {trial.device}, {trial.seconds:.1f} s"
    return f"{said} ({trial.reason})" if trial.reason else said


def _hints(console: Console, report: Report) -> None:
    spoke = [check.name for check in report.checks if check.findings]
    if spoke:
        console.print()
        line = f"llm-doctor explain {spoke[0]} says why; --verbose shows every proof, fact and fix."
        console.print(Text(line, style="dim"))


def _details(console: Console, report: Report) -> None:
    trials = [trial for check in report.checks for trial in check.trials]
    if trials:
        console.print(Text("\nTrials", style="bold"))
    for trial in trials:
        console.print(Text(f"{trial.name} on {trial.device}: {trial.status}, {trial.seconds:.2f} s"))
        if trial.reason:
            _indented(console, trial.reason)
        _indented(console, *map(words.case_line, trial.cases), hanging=2)
    console.print(Text("\nFacts", style="bold"))
    for name, fact in msgspec.to_builtins(report.facts).items():
        console.print(Text(f"{name}  ({fact['source']}, {fact['seconds']:.2f} s)"))
        if fact["status"] == "ok":
            _indented(console, *words.shown(fact["value"]), hanging=2)
        else:
            _indented(console, f"unavailable: {fact['reason']}")
    if report.answers:
        console.print(Text("\nAnswers of the installed libraries", style="bold"))
    for name, answer in report.answers.items():
        console.print(Text(f"{name}  ({answer.seconds:.2f} s)"))
        if answer.status != "ok":
            _indented(console, f"unavailable: {answer.reason}")
        elif isinstance(answer.value, dict):
            lines = "\n".join(words.shown(answer.value)).splitlines()  # a program's own table
            if lines:
                console.print(Text("\n".join(f"  {line}" for line in lines)), soft_wrap=True)


def _labelled(console: Console, label: str, text: str) -> None:
    _indented(console, f"{label + ':':<7}{text}", hanging=7)


def _indented(console: Console, *texts: str, hanging: int = 0) -> None:
    """Two columns in; what wraps goes `hanging` columns further."""
    lines = []
    for paragraph in "\n".join(texts).split("\n") if texts else ():
        room = console.width - 2
        wrapped = _wrapped(console, paragraph, room if len(paragraph) <= room else room - hanging)
        lines += [f"{'':{2 + hanging if number else 2}}{line}" for number, line in enumerate(wrapped or [""])]
    if lines:  # drawn as one: printing takes as long for a line as for all of them
        console.print(Text("\n".join(lines)), soft_wrap=True)
