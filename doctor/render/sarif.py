"""The report as SARIF 2.1.0, for code scanning and editors: what is found in files stands there."""

from __future__ import annotations

import hashlib
import pkgutil
import posixpath
import re
from typing import Any, Iterator
from urllib.parse import quote

import msgspec

from llm_doctor.model import CheckResult, Edit, Finding, Fix, Report
from llm_doctor.render import words

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def render(report: Report) -> str:
    """One run: a rule for each check, a result for each finding."""
    files = report.workload["files"] if report.workload else []
    run = {
        "tool": {
            "driver": {
                "name": "llm-doctor",
                "version": report.doctor.version,
                "rules": [_rule(check) for check in report.checks],
            }
        },
        "invocations": [_invocation(report)],
        "columnKind": "unicodeCodePoints",
        "results": list(_results(report, files)),
        "properties": {"verdict": report.verdict, "stack": words.stack(report)},
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return msgspec.json.format(msgspec.json.encode(log), indent=2).decode() + "\n"


# --- Checks -------------------------------------------------------------------------------------------


def _rule(check: CheckResult) -> dict[str, Any]:
    page = _page(check.name)
    summary = {"text": page.partition("\n")[0] or check.name}
    help_ = {"text": f"llm-doctor explain {check.name}", **({"markdown": page} if page else {})}
    rule = {
        "id": check.name,
        "name": check.name.title().replace("-", ""),
        "shortDescription": summary,
        "fullDescription": summary,  # code scanning asks for both
        "help": help_,
        "properties": {"tags": [check.topic]},
    }
    # A plugin's page is not here, what its findings refer to is.
    urls = [*re.findall(r"https?://[^\s)]+", page), *(finding.url or "" for finding in check.findings)]
    if urls and re.match("https?://", urls[0]):
        rule["helpUri"] = quote(urls[0], safe=":/?#[]@!$&'()*+,;=%~")
    return rule


def _page(name: str) -> str:
    """A check's documentation out of its file: loading all checks takes longer than all else here.

    There is none of a plugin's: to show a report is no reason to run it."""
    if not re.fullmatch(r"[a-z0-9-]+", name):
        return ""
    try:
        source = pkgutil.get_data("llm_doctor.checks", f"{name.replace('-', '_')}.py") or b""
    except OSError:
        return ""
    found = re.search(r'^class \w+\(Check\):\n    """(.*?)\s*"""', source.decode(), re.MULTILINE | re.DOTALL)
    return re.sub("^    ", "", found[1], flags=re.MULTILINE) if found else ""


def _invocation(report: Report) -> dict[str, Any]:
    failed, left_out = [], []
    if report.patient.version is None:
        lost = f"The patient could not be examined: {report.facts.python.reason}"
        failed.append(_notification("error", lost))
    for check in report.checks:
        rule = {"associatedRule": {"id": check.name}}
        if check.outcome in ("crashed", "timeout"):
            failed.append(_notification("error", f"{check.name}: {check.outcome}: {check.reason}", **rule))
        elif check.outcome == "skipped":
            left_out.append(_notification("note", f"{check.name}: skipped: {check.reason}", **rule))
    for it in report.workload["problems"] if report.workload else ():
        location = {"physicalLocation": _physical(it["path"], it["line"], it["column"])}
        left_out.append(_notification("warning", f"Not examined: {it['message']}", locations=[location]))
    return {
        "executionSuccessful": not failed and report.verdict != "incomplete",
        "exitCode": report.exit_code,
        "exitCodeDescription": words.verdict_line(report),
        "startTimeUtc": report.started,
        "toolExecutionNotifications": failed,
        "toolConfigurationNotifications": left_out,
    }


def _notification(level: str, text: str, **more: Any) -> dict[str, Any]:
    return {"level": level, "message": {"text": text}, **more}


# --- Findings -----------------------------------------------------------------------------------------


def _results(report: Report, files: list[str]) -> Iterator[dict[str, Any]]:
    seen: dict[str, int] = {}
    for index, check in enumerate(report.checks):
        for finding in check.findings:
            same = _fingerprint(check, finding)
            seen[same] = seen.get(same, 0) + 1
            result = {
                "ruleId": check.name,
                "ruleIndex": index,
                "level": finding.severity,
                "message": {"text": _message(finding)},
                "locations": [_location(finding, files)],
                "partialFingerprints": {"llmDoctorFinding/v1": f"{same}:{seen[same]}"},
                "properties": {"confidence": finding.confidence, "proof": words.proof_line(finding)},
            }
            fixes = [it for it in map(_fix, finding.fixes) if it is not None]
            yield {**result, "fixes": fixes} if fixes else result


def _message(finding: Finding) -> str:
    message = finding.message
    said = [message if message.endswith((".", "!", "?")) else f"{message}."]
    said.append(f"Proof: {words.proof_line(finding)}")
    for fix in finding.fixes:
        said += [f"Fix ({words.verified(fix.verified)}): {fix.title}", *fix.preview.splitlines()]
    return "\n".join(said)


def _location(finding: Finding, files: list[str]) -> dict[str, Any]:
    subject = finding.subject
    if subject.path in files:
        return {"physicalLocation": _physical(str(subject.path), subject.line, subject.column)}
    name = words.place(finding) or subject.kind
    thing = {"name": name, "fullyQualifiedName": f"{subject.kind}: {name}", "kind": subject.kind}
    location: dict[str, Any] = {"logicalLocations": [thing]}
    if files:  # code scanning refuses a report as a whole where one location has no file: that of the job
        location["physicalLocation"] = _physical(files[0], 1, None)
    return location


def _physical(path: str, line: int | None, column: int | None) -> dict[str, Any]:
    place: dict[str, Any] = {"artifactLocation": {"uri": _uri(path)}}
    if line:
        place["region"] = {"startLine": line, **({"startColumn": column} if column else {})}
    return place


def _uri(path: str) -> str:
    path = posixpath.normpath(path)
    return f"{'file://' if path.startswith('/') else ''}{quote(path)}"


def _fingerprint(check: CheckResult, finding: Finding) -> str:
    """The same from run to run: of all numbers, lines and sizes, it knows none."""
    it = finding.subject
    parts = (check.name, it.kind, it.path, it.gpu, it.package, re.sub(r"\d+", "", finding.message))
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


# --- Fixes --------------------------------------------------------------------------------------------


def _fix(fix: Fix) -> dict[str, Any] | None:
    """A fix that a program can make without us; None where that takes knowing what stands in the file."""
    replaced = [(edit, _replacement(edit)) for edit in fix.edits]
    if not replaced or fix.applicability == "manual" or fix.verified is False:
        return None
    changes: dict[str, list[dict[str, Any]]] = {}
    for edit, replacement in replaced:
        if replacement is None:
            return None
        changes.setdefault(_uri(edit.path), []).append(replacement)
    return {
        "description": {"text": f"{fix.title} ({fix.applicability}, {words.verified(fix.verified)})."},
        "artifactChanges": [
            {"artifactLocation": {"uri": uri}, "replacements": them} for uri, them in changes.items()
        ],
    }


def _replacement(edit: Edit) -> dict[str, Any] | None:
    """What is written there, and what comes in its place: known where a word is replaced by another.

    Not in a notebook, whose cells are written as JSON."""
    old, new = edit.name, edit.text
    if edit.path.endswith(".ipynb"):
        return None
    if edit.action == "rename-key":
        old = old.rpartition(".")[2]
        if not edit.path.lower().endswith((".yaml", ".yml")):
            old, new = f'"{old}"', f'"{new}"'
    elif edit.action == "rename-flag":
        old, new = (it if it.startswith("-") else f"--{it}" for it in (old, new))
    elif edit.action != "rename-keyword":
        return None
    region = {"startLine": edit.line, "startColumn": edit.column, "endColumn": edit.column + len(old)}
    return {"deletedRegion": region, "insertedContent": {"text": new}}
