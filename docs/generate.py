"""Writes what is made from the code: pages of checks, schemas, man page; --check finds stale ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Iterator

import manpage

from llm_doctor import registry
from llm_doctor.check import Check, Symptom
from llm_doctor.logs import data
from llm_doctor.model import json_schema

DOCS = Path(__file__).resolve().parent
_KINDS = {"healthy": "healthy", "sick": "sick", "cannot-tell": "cannot tell"}


def pages() -> Iterator[tuple[Path, str]]:
    """Each file and its text."""
    entries = registry.registered(logs=True)
    checks = [entry.check for entry in entries if entry.check and entry.origin == "built in"]
    for check in checks:
        yield DOCS / "checks" / f"{check.name}.md", page(check)
    rows = [f"| [{check.name}]({check.name}.md) | {check.summary()} |" for check in checks]
    index = ["# Checks", "", "Made from the checks' own docstrings by `make docs`.", "", "| check | fault |"]
    yield DOCS / "checks" / "README.md", "\n".join([*index, "| --- | --- |", *rows]) + "\n"
    yield DOCS / "report.schema.json", json.dumps(json_schema(), indent=2) + "\n"
    yield DOCS / "man" / "llm-doctor.1", manpage.page()
    yield DOCS / "triage.schema.json", json.dumps(data.json_schema(), indent=2) + "\n"


def page(check: type[Check]) -> str:
    """The docstring, then the examples, which are the check's tests."""
    lines = [f"# {check.name}", "", check.documentation().rstrip(), ""]
    if check.symptoms:
        lines += ["## In a log", "", *(f"- {_code(it)}" for it in check.symptoms), ""]
    lines += [] if check.of_log else ["## Examples", ""]
    for example in check().examples():
        lines.append(f"- **{_KINDS[example.kind]}**: {example.title}")
        said = [*example.says, *([f"skipped: {example.reason}"] if example.reason else [])]
        lines += [f"  - {sentence}" for sentence in said]
    facts = f"Topic `{check.topic}`, since {check.since}."
    return "\n".join([*lines, "", facts]) + "\n"


def _code(symptom: Symptom) -> str:
    example = " ".join(symptom.example.split())
    return f"`` {example[:200]} ``"


def main() -> None:
    """Writes the pages, or with --check names the stale ones and fails."""
    wanted = dict(pages())
    present = set((DOCS / "checks").glob("*.md"))
    stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
    left_over = sorted(present - set(wanted))
    if "--check" in sys.argv:
        for path in (*stale, *left_over):
            print(f"stale: {path.relative_to(DOCS.parent)} (make docs writes it)")
        sys.exit(1 if stale or left_over else 0)
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8")
    for path in left_over:
        path.unlink()


if __name__ == "__main__":
    main()
