"""The report as workflow commands: GitHub Actions shows each finding at its place in the code.

Of each kind it shows ten a step, the first ones: the most severe and the best proven come first.
"""

from __future__ import annotations

import posixpath
import re
from typing import Iterator

from llm_doctor.model import CheckResult, Finding, Report
from llm_doctor.render import words

_COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
_SURE = ("proven", "certain", "likely")


def render(report: Report) -> str:
    """An annotation for each finding and for what could not be examined, and a group with every check."""
    lines = [_line(words.verdict_line(report)), _line(f"Examined: {', '.join(words.stack(report))}")]
    if report.patient.version is None:
        lost = f"The patient could not be examined: {report.facts.python.reason}."
        lines.append(_command("error", lost, title="llm-doctor"))
    for check in report.checks:
        if check.outcome in ("crashed", "timeout"):
            lines.append(_command("warning", check.reason or "", title=f"{check.name}: {check.outcome}"))
    lines += _problems(report)
    files = report.workload["files"] if report.workload else ()
    pairs = sorted(words.findings(report), key=lambda pair: _SURE.index(pair[1].confidence))
    pairs.sort(key=lambda pair: tuple(_COMMANDS).index(pair[1].severity))
    lines += [_annotation(check, finding, finding.subject.path in files) for check, finding in pairs]
    return "\n".join([*lines, *_checks(report)]) + "\n"


def _annotation(check: CheckResult, finding: Finding, in_file: bool) -> str:
    where = words.place(finding)
    said = [finding.message, *([f"where: {where}"] if where and not in_file else [])]
    said.append(f"proof: {words.proof_line(finding)}")
    for fix in finding.fixes:
        said += [f"fix ({words.verified(fix.verified)}): {fix.title}", *fix.preview.splitlines()]
    subject = finding.subject
    place = (subject.path, subject.line, subject.column) if in_file else ()
    return _command(_COMMANDS[finding.severity], "\n".join(said), *place, title=check.name)


def _problems(report: Report) -> Iterator[str]:
    for it in report.workload["problems"] if report.workload else ():
        yield _command("warning", it["message"], it["path"], it["line"], it["column"], title="not examined")


def _checks(report: Report) -> list[str]:
    width = max((len(check.name) for check in report.checks), default=0)
    rows = [f"{it.outcome:<8}  {it.name:<{width}}  {it.reason or ''}" for it in report.checks]
    return [f"::group::{len(rows)} checks", *map(_line, rows), "::endgroup::"]


def _command(
    name: str,
    message: str,
    path: str | None = None,
    line: int | None = None,
    column: int | None = None,
    *,
    title: str,
) -> str:
    place = {"file": posixpath.normpath(path), "line": line, "col": column} if path else {}
    given = [f"{key}={_escaped(str(it), ':,')}" for key, it in {**place, "title": title}.items() if it]
    return f"::{name} {','.join(given)}::{_escaped(message)}"


def _escaped(text: str, also: str = "") -> str:
    text = tame(text)
    for character in f"%\r\n{also}":  # the percent sign first
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def tame(text: str) -> str:
    """What would steer a terminal, and so the page on which a log is shown, is written out."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", _written_out, text)


def _written_out(control: re.Match[str]) -> str:
    return repr(control[0])[1:-1]


def _line(text: str) -> str:
    """A line that is no command: in their older notation those may stand anywhere in it."""
    return re.sub(r"[\r\n]+", " ", tame(text)).rstrip().replace("##[", "## [")
