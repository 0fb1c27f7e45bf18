"""The report as SARIF 2.1.0, for code scanning and editors: what is found in files stands there."""

from __future__ import annotations

import hashlib
import pkgutil
import posixpath
import re
from typing import Any, Iterator
from urllib.parse import quote

from llm_doctor.model import CheckResult, Edit, Finding, Fix, Replacement, Report
from llm_doctor.render import words
from llm_doctor.render.json import indented

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
    return indented(log)


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
        end = subject.end_line, subject.end_column
        return {"physicalLocation": _physical(str(subject.path), subject.line, subject.column, *end)}
    name = words.place(finding) or subject.kind
    thing = {"name": name, "fullyQualifiedName": f"{subject.kind}: {name}", "kind": subject.kind}
    location: dict[str, Any] = {"logicalLocations": [thing]}
    if files:  # code scanning refuses a report as a whole where one location has no file: that of the job
        location["physicalLocation"] = _physical(files[0], 1, None)
    return location


def _physical(path: str, *place: int | None) -> dict[str, Any]:
    region = _region(*place)
    return {"artifactLocation": {"uri": _uri(path)}, **({"region": region} if region else {})}


def _region(
    line: int | None, column: int | None, end_line: int | None = None, end_column: int | None = None
) -> dict[str, int]:
    """As much of it as is known. A report that was made by hand may have any number here."""
    if line is None or line < 1:
        return {}
    if column is None or column < 1:
        return {"startLine": line}
    if end_line is None or end_column is None or (end_line, end_column) < (line, column):
        return {"startLine": line, "startColumn": column}
    end = {"endLine": end_line} if end_line != line else {}
    return {"startLine": line, "startColumn": column, **end, "endColumn": max(end_column, 1)}


def _uri(path: str) -> str:
    path = posixpath.normpath(path)
    return f"{'file://' if path.startswith('/') else ''}{quote(path, errors='surrogateescape')}"


def _fingerprint(check: CheckResult, finding: Finding) -> str:
    """The same from run to run: of all numbers, lines and sizes, it knows none."""
    it = finding.subject
    parts = (check.name, it.kind, it.path, it.gpu, it.package, re.sub(r"\d+", "", finding.message))
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:16]


# --- Fixes --------------------------------------------------------------------------------------------


def _fix(fix: Fix) -> dict[str, Any] | None:
    """A fix that a program can make without us; None where that takes knowing what stands in the file."""
    if not fix.edits or fix.applicability == "manual" or fix.verified is False:
        return None
    replacements = fix.replacements or [it for it in map(_renamed, fix.edits) if it is not None]
    if not fix.replacements and len(replacements) < len(fix.edits):
        return None
    changes: dict[str, list[dict[str, Any]]] = {}
    for it in replacements:
        region = _region(it.line, it.column, it.end_line, it.end_column)
        if "endColumn" not in region:
            return None
        replaced = {"deletedRegion": region, "insertedContent": {"text": it.text}}
        changes.setdefault(_uri(it.path), []).append(replaced)
    return {
        "description": {"text": f"{fix.title} ({fix.applicability}, {words.verified(fix.verified)})."},
        "artifactChanges": [
            {"artifactLocation": {"uri": uri}, "replacements": them} for uri, them in changes.items()
        ],
    }


def _renamed(edit: Edit) -> Replacement | None:
    """What comes of an edit in a file that was not looked into: known where a word is replaced by another.

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
    end = edit.column + len(old)
    return Replacement(
        path=edit.path, line=edit.line, column=edit.column, end_line=edit.line, end_column=end, text=new
    )
