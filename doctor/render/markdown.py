"""The report for a bug ticket: verdict, findings with proofs, environment. Safe inside a GitHub issue."""

from __future__ import annotations

import re

import msgspec

from llm_doctor.model import CheckResult, Finding, Report
from llm_doctor.render import words


def render(report: Report) -> str:
    """GitHub-flavoured Markdown."""
    parts = [
        f"### llm-doctor {report.doctor.version}: {report.verdict.upper()}",
        f"{_text(words.counts(report))}",
        "",
        f"{_text(words.stack_line(report))}",
    ]
    sentence = words.gpu_sentence(report.facts)
    if report.patient.version is None:
        sentence = f"The patient could not be examined: {report.facts.python.reason}."
    if sentence:
        parts += ["", _text(sentence)]
    for check, finding in words.findings(report):
        parts += ["", *_finding(check, finding)]
    parts += ["", "#### Checks", "", "| check | outcome | why |", "| --- | --- | --- |"]
    for check in report.checks:
        trials = "; ".join(f"{t.name}: {t.status} on {t.device}" for t in check.trials)
        parts.append(f"| {check.name} | {check.outcome} | {_cell(check.reason or trials)} |")
    parts += ["", *_trials(report), "", *_facts(report)]
    return "\n".join(parts).rstrip() + "\n"


def _finding(check: CheckResult, finding: Finding) -> list[str]:
    lines = [f"#### {finding.severity}: {check.name}", "", _text(finding.message), ""]
    where = words.place(finding)
    if where:
        lines.append(f"- where: {_code(where)}")
    lines.append(f"- proof: {_text(words.proof_line(finding))}")
    for fix in finding.fixes:
        lines.append(f"- fix ({fix.applicability}, {words.verified(fix.verified)}): {_text(fix.title)}")
        lines += ["", *_block(fix.preview, "sh" if fix.kind in ("command", "environment") else "")]
    return lines


def _trials(report: Report) -> list[str]:
    cases = [
        f"{trial.name} on {trial.device}: {words.case_line(case)}"
        for check in report.checks
        for trial in check.trials
        for case in trial.cases
    ]
    return _folded("Trials, case by case", _block("\n".join(cases))) if cases else []


def _facts(report: Report) -> list[str]:
    lines = []
    for name, fact in msgspec.to_builtins(report.facts).items():
        if fact["status"] != "ok":
            lines.append(f"{name}: unavailable ({fact['reason']})")
            continue
        lines.append(f"{name}:")
        lines += [f"  {key}: {words.plain(value)}" for key, value in fact["value"].items()]
    return _folded("Environment", _block("\n".join(lines)))


def _folded(title: str, inner: list[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *inner, "", "</details>"]


def _block(text: str, language: str = "") -> list[str]:
    # The fence must be longer than any run of backticks inside.
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return [f"{fence}{language}", *text.splitlines(), fence]


def _code(text: str) -> str:
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}"


def _text(text: str) -> str:
    """Text that Markdown leaves alone: no emphasis, no tags, no @mention, no issue reference."""
    escaped = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)([@#])(?=\w)", "\\1\u200b", escaped)


def _cell(text: str) -> str:
    return _text(text)
