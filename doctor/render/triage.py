"""What was made of logs, for a terminal and for a ticket."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from llm_doctor.logs.data import Diagnosis, Log, Triage
from llm_doctor.model import Fix
from llm_doctor.render.console import console as empty
from llm_doctor.render.console import drawn

_HERE = {
    "reproduced": "and it is so on this machine: reproduced",
    "refuted": "not on this machine: refuted",
    "found": "and it is so on this machine",
    "not-found": "not on this machine",
    "not-run": "this machine cannot tell",
}


def text(triage: Triage, *, width: int, color: bool) -> str:
    """For people, at any width."""
    console = empty(width=width, color=color)
    for number, log in enumerate(triage.logs):
        if number:
            console.print()
        _log(console, log)
    return drawn(console)


def _log(console: Console, log: Log) -> None:
    name = "standard input" if log.path == "-" else log.path
    if log.problem is not None:
        console.print(Text.assemble((name, "bold"), f": {log.problem}"), soft_wrap=True)
    for number, diagnosis in enumerate(log.diagnoses):
        if number:
            console.print()
        rank = f", rank {diagnosis.rank}" if diagnosis.rank is not None else ""
        style = "bold red" if number == 0 else "bold magenta"
        what = "cause" if number == 0 else "also"
        console.print(
            Text.assemble((what, style), f" {diagnosis.check} ", (f"{name}:{diagnosis.line}{rank}", "bold")),
            soft_wrap=True,
        )
        _diagnosis(console, diagnosis)
    if log.diagnoses or (log.problem is not None and log.unknown is None):
        return
    console.print(Text.assemble((name, "bold"), ": nothing known here"), soft_wrap=True)
    if log.unknown is not None:
        where = f" ({log.unknown.frame})" if log.unknown.frame else ""
        _indented(console, f"line {log.unknown.line}: {log.unknown.error}{where}")


def _diagnosis(console: Console, diagnosis: Diagnosis) -> None:
    _indented(console, f"{diagnosis.cause} ({diagnosis.confidence})")
    _labelled(console, "log", diagnosis.excerpt)
    if diagnosis.here is not None:
        _labelled(console, "here", _here(diagnosis))
    for number, fix in enumerate(diagnosis.fixes):
        _labelled(console, "or" if number else "fix", fix.title)
        for line in fix.preview.splitlines():
            # Never wrapped: it is there to be copied.
            console.print(Text(f"           {line}"), soft_wrap=True)
    if diagnosis.url:
        _labelled(console, "more", f"llm-doctor explain {diagnosis.check}")


def _indented(console: Console, sentence: str) -> None:
    console.print(Padding(Text(sentence), (0, 0, 0, 2)))


def _labelled(console: Console, label: str, sentence: str) -> None:
    body = Text(sentence)
    lines = body.wrap(console, max(console.width - 9, 11))
    for number, line in enumerate(lines):
        head = f"  {label:<5}  " if number == 0 else " " * 9
        console.print(Text.assemble((head, "dim"), line))


def _here(diagnosis: Diagnosis) -> str:
    assert diagnosis.here is not None
    sentence = diagnosis.here.sentence
    return _HERE[diagnosis.here.status] + (f": {sentence}" if sentence else "")


def markdown(triage: Triage) -> str:
    """For a ticket: GitHub-flavoured, with nothing in it that would be a link or a mention."""
    from llm_doctor.render.markdown import code, fenced, plain

    parts = []
    for log in triage.logs:
        name = "standard input" if log.path == "-" else log.path
        parts += [f"### llm-doctor triage: {code(name)}", ""]
        if log.problem is not None:
            parts += [plain(f"{log.problem}."), ""]
        for number, diagnosis in enumerate(log.diagnoses):
            rank = f", rank {diagnosis.rank}" if diagnosis.rank is not None else ""
            parts += [
                f"#### {'also' if number else 'cause'}: {diagnosis.check} (line {diagnosis.line}{rank})",
                "",
                plain(f"{diagnosis.cause} ({diagnosis.confidence})."),
                "",
                fenced(diagnosis.excerpt),
                "",
            ]
            if diagnosis.here is not None:
                parts += [f"- here: {plain(_here(diagnosis))}"]
            parts += [line for fix in diagnosis.fixes for line in _fix(fix)]
            parts.append("")
        if not log.diagnoses and log.problem is None:
            parts += ["Nothing known here.", ""]
        if log.unknown is not None:
            where = f" ({log.unknown.frame})" if log.unknown.frame else ""
            parts += [fenced(f"line {log.unknown.line}: {log.unknown.error}{where}"), ""]
    return "\n".join(parts).rstrip() + "\n"


def _fix(fix: Fix) -> list[str]:
    from llm_doctor.render.markdown import fenced, plain

    lines = [f"- fix: {plain(fix.title)}"]
    if fix.preview:
        lines += ["", *(f"  {line}" for line in fenced(fix.preview).splitlines()), ""]
    return lines
