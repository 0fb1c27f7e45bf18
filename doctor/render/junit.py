"""The report as JUnit XML, for the test pages of Jenkins, GitLab and their like: one test case a check."""

from __future__ import annotations

import re
from typing import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from llm_doctor.model import SEVERITIES, CheckResult, Finding, Report, TrialResult
from llm_doctor.render import words

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no XML document may hold, not even escaped."""


def render(report: Report) -> str:
    """One test suite: errors and warnings are failures; checks that did not end and a patient that could not
    be examined are errors. What was noted and tried is the output of its check."""
    cases = [*_lost(report), *map(_case, report.checks)]
    counts = {"tests": str(len(cases))}
    for tag, plural in (("failure", "failures"), ("error", "errors")):
        counts[plural] = str(sum(case.find(tag) is not None for case in cases))
    total = {"name": "llm-doctor", **counts, "time": f"{report.seconds:.3f}"}
    root = Element("testsuites", total)
    suite = SubElement(
        root,
        "testsuite",
        {
            **total,
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            "timestamp": _legal(report.started.rstrip("Z")),  # without a zone, which some readers refuse
        },
    )
    properties = SubElement(suite, "properties")
    for name, value in _properties(report):
        SubElement(properties, "property", name=_legal(name), value=_legal(value))
    suite.extend(cases)
    left_out = [line for line in words.workload_lines(report) if line.startswith("Not examined: ")]
    if left_out:
        SubElement(suite, "system-err").text = _legal("\n".join(left_out))
    for element in (root, suite, properties, *suite, *properties):
        element.tail = "\n"
    root.text = suite.text = properties.text = "\n"
    declaration = '<?xml version="1.0" encoding="UTF-8"?>\n'
    return declaration + ElementTree.tostring(root, encoding="unicode")


def _lost(report: Report) -> Iterator[Element]:
    if report.patient.version is None:
        case = Element("testcase", classname="llm-doctor.patient", name="patient", time="0.000")
        reason = f"The patient could not be examined: {report.facts.python.reason}"
        SubElement(case, "error", type="patient", message=_legal(reason))
        yield case


def _case(check: CheckResult) -> Element:
    name = {"classname": f"llm-doctor.{check.topic}", "name": check.name}
    case = Element(
        "testcase", {**{key: _legal(it) for key, it in name.items()}, "time": f"{check.seconds:.3f}"}
    )
    findings = sorted(check.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    serious = [finding for finding in findings if finding.severity != "note"]
    if check.outcome in ("crashed", "timeout"):
        SubElement(case, "error", type=check.outcome, message=_legal(check.reason or check.outcome))
    elif check.outcome == "skipped":
        SubElement(case, "skipped", message=_legal(check.reason or ""))
    if serious:
        more = f" (and {len(serious) - 1} more)" if len(serious) > 1 else ""
        failure = SubElement(
            case, "failure", type=serious[0].severity, message=_legal(serious[0].message + more)
        )
        failure.text = _legal("\n\n".join("\n".join(_said(finding)) for finding in serious))
    told = [*map(_said, findings[len(serious) :]), *map(_tried, check.trials)]
    if told:
        SubElement(case, "system-out").text = _legal("\n\n".join(map("\n".join, told)))
    return case


def _said(finding: Finding) -> Iterator[str]:
    yield f"{finding.severity}: {finding.message}"
    if words.place(finding):
        yield f"where: {words.place(finding)}"
    yield f"proof: {words.proof_line(finding)}"
    for fix in finding.fixes:
        yield f"fix ({words.verified(fix.verified)}): {fix.title}"
        yield from fix.preview.splitlines()


def _tried(trial: TrialResult) -> Iterator[str]:
    reason = f" ({trial.reason})" if trial.reason else ""
    yield f"trial {trial.name} on {trial.device}: {trial.status}, {trial.seconds:.1f} s{reason}"
    yield from map(words.case_line, trial.cases)


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "llm-doctor", report.doctor.version
    yield "verdict", words.verdict_line(report)
    yield "system", words.system(report.facts)
    yield "python", report.patient.version or "not examined"
    gpus, *packages = words.stack(report)
    yield "gpus", gpus
    if report.facts.gpus.value is not None:
        yield "driver", report.facts.gpus.value.driver
    for package in packages:
        name, _, version = package.partition(" ")
        yield name, version


def _legal(text: str) -> str:
    return _NOT_XML.sub("", text)
