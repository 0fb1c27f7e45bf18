"""The report for a bug ticket: verdict, findings with proofs, environment. Safe inside a GitHub issue."""

from __future__ import annotations

import re

import msgspec

from llm_doctor.model import CheckResult, Finding, Fix, Report
from llm_doctor.render import words


def render(report: Report) -> str:
    """GitHub-flavoured Markdown."""
    patient = report.patient
    parts = [
        f"### llm-doctor {report.doctor.version}: {report.verdict.upper()}",
        plain(words.counts(report)),
        "",
        plain(", ".join([*words.stack(report), words.system(report.facts)])),
        "",
    ]
    if patient.version is None:
        parts.append(plain(f"The patient could not be examined: {report.facts.python.reason}."))
    else:
        python = f"Patient: {code(patient.python)}, Python {plain(patient.version)}"
        parts.append(f"{python} (by {plain(patient.chosen_by)}); {report.started}.")
    parts += [line for said in words.workload_lines(report) for line in ("", plain(said))]
    sentence = words.gpu_sentence(report.facts)
    if sentence:
        parts += ["", plain(sentence)]
    for check, finding in words.findings(report):
        if finding.severity != "note":
            parts += ["", f"#### {finding.severity}: {check.name}", "", *_finding(finding)]
    for check in report.checks:
        parts += _notes(check)
    parts += ["", "#### Checks", "", "| check | outcome | why |", "| --- | --- | --- |"]
    for check in report.checks:
        trials = "; ".join(f"{t.name}: {t.status} on {t.device}" for t in check.trials)
        parts.append(f"| {plain(check.name)} | {check.outcome} | {plain(check.reason or trials)} |")
    parts += ["", *_trials(report), "", *_ds_report(report), "", *_facts(report)]
    return "\n".join(parts).rstrip() + "\n"


def _finding(finding: Finding) -> list[str]:
    lines = [plain(finding.message), ""]
    where = words.place(finding)
    if where:
        lines.append(f"- where: {code(where)}")
    lines.append(f"- proof: {plain(words.proof_line(finding))}")
    for fix in finding.fixes:
        lines += _fix(fix)
    return lines


def _notes(check: CheckResult) -> list[str]:
    notes = [finding for finding in check.findings if finding.severity == "note"]
    if not notes:
        return []
    lines = ["", f"#### note: {check.name}", ""]
    for note in notes:
        where = f"{code(words.place(note))}: " if note.subject.line is not None else ""
        lines.append(f"- {where}{plain(note.message)}; {plain(words.proof_line(note))}")
    for fix in dict.fromkeys(fix for note in notes for fix in note.fixes):  # each once
        lines += _fix(fix)
    return lines


def _fix(fix: Fix) -> list[str]:
    language = {"command": "sh", "environment": "sh", "edit": "python"}.get(fix.kind, "")
    title = f"- fix ({fix.applicability}, {words.verified(fix.verified)}): {plain(fix.title)}"
    return [title, "", *_block(fix.preview, language)]


def _ds_report(report: Report) -> list[str]:
    answer = report.answers.get("ds-report")
    if answer is None:
        return []
    said = answer.value.get("text", "") if isinstance(answer.value, dict) else answer.reason or ""
    return _folded("ds_report", _block(str(said).strip()))


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
        lines.append(f"{name} ({fact['source']}):")
        lines += [f"  {line}" for line in "\n".join(words.shown(fact["value"])).splitlines()]
    return _folded("Environment", _block("\n".join(lines)))


def _folded(title: str, inner: list[str]) -> list[str]:
    return [f"<details><summary>{title}</summary>", "", *inner, "", "</details>"]


def _block(text: str, language: str = "") -> list[str]:
    # The fence must be longer than any run of backticks inside.
    runs = [len(run) for run in re.findall(r"`+", text)]
    fence = "`" * max(3, max(runs, default=0) + 1)
    return [f"{fence}{language}", *text.splitlines(), fence]


def code(text: str) -> str:
    """Text in backticks."""
    fence = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence}{text}{fence}"


def fenced(text: str) -> str:
    """A block of text as it is."""
    fence = "`" * max(3, max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    return f"{fence}text\n{text}\n{fence}"


def plain(text: str) -> str:
    """Text that Markdown leaves alone: no emphasis, no tags, no @mention, no issue reference."""
    escaped = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text.replace("\n", " "))
    return re.sub(r"(?<!\w)([@#])(?=\w)", "\\1\u200b", escaped)
