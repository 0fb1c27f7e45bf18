"""Runs the doctor on every sick machine of tests/faults and prints what it said; --write keeps the page.

    .venv/bin/python docs/faults.py --write
    .venv/bin/python docs/faults.py --only "a sitecustomize"

Ends with 1 when a promise was not kept that the table does not call open."""

from __future__ import annotations

import argparse
import datetime
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Sequence, Union

DOCS = Path(__file__).resolve().parent
# Before this folder, where the name `faults` is this file.
sys.path.insert(0, str(DOCS.parent / "tests"))

from faults import FAULTS  # noqa: E402
from faults.rig import BUDGET_S, SPARE_S, Fault, Row, examine  # noqa: E402

PAGE = DOCS / "faults.md"
SAID_LENGTH = 160

Result = Union[Row, str]
"""A row, or why the fault could not be made here."""


def result(fault: Fault) -> Result:
    """What came of a fault."""
    why_not = fault.needs()
    row = why_not if why_not is not None else examine(fault)
    print(f"{_verdict(fault, row):10} {fault.name}", file=sys.stderr)
    return row


def _verdict(fault: Fault, result: Result) -> str:
    if isinstance(result, str):
        return "not made"
    if not result.broken:
        return "mended" if fault.known else "kept"
    return "open" if fault.known else "BROKEN"


def page(faults: Sequence[Fault], results: Sequence[Result]) -> str:
    """docs/faults.md."""
    rows = [row for row in results if isinstance(row, Row)]
    verdicts = [_verdict(fault, row) for fault, row in zip(faults, results)]
    longest = max((row.seconds for row in rows), default=0.0)
    lines = [
        "# What the doctor says of sick machines",
        "",
        "Each row is a machine or a patient that was made sick on purpose (tests/faults), and one run of",
        "the whole program on it: `make faults`. Of every run is asked: a report that is whole and valid,",
        "the fault named or what it hides reported as unavailable, an end no later than the budget and",
        f"{SPARE_S:.0f} s ({BUDGET_S + SPARE_S:.0f} s), no process and no file left. `as without it`:",
        "the fault is nothing to the patient, and what was said is what is said of it without the fault.",
        "",
        f"{len(rows)} faults were made on {_date()}, {len(results) - len(rows)} could not be made here;"
        f" {sum(not row.broken for row in rows)} runs kept every promise, {verdicts.count('open')} are open,"
        f" {verdicts.count('BROKEN')} broke one. The longest took {longest:.0f} s. {_versions()}.",
        "",
        "| fault | what the doctor said | seconds | exit code |",
        "| --- | --- | ---: | ---: |",
        *(_line(fault, row) for fault, row in zip(faults, results)),
    ]
    return "\n".join(lines) + "\n"


def _line(fault: Fault, result: Result) -> str:
    if isinstance(result, str):
        return f"| {_cell(fault.name)} | not made: {_cell(result)} | | |"
    said = _cell(result.said)
    if result.broken:
        said = f"**open**: {_cell(fault.known)}" if fault.known else f"**broken**: {_cell(result.broken[0])}"
    return f"| {_cell(fault.name)} | {said} | {result.seconds:.1f} | {result.exit_code} |"


def _cell(text: str) -> str:
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    short = plain if len(plain) <= SAID_LENGTH else plain[: SAID_LENGTH - 3] + "..."
    for mark in ("\\", "|", "*", "_", "<", "`", "~"):
        short = short.replace(mark, f"\\{mark}")
    return short


def _date() -> str:
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


def _versions() -> str:
    said = subprocess.run(
        [sys.executable, "-m", "llm_doctor", "--version"], stdout=subprocess.PIPE, text=True
    )
    found = [
        said.stdout.strip(),
        f"Python {platform.python_version()}",
        f"Linux {platform.release().split('-')[0]}",
    ]
    for package in ("torch", "bitsandbytes", "numpy", "nvidia-ml-py"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Runs the faults, prints the page, and writes it with --write."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--only", default="", metavar="TEXT", help="only faults with this in their name")
    arguments.add_argument("--write", action="store_true", help="write the page")
    options = arguments.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault.name]
    with ThreadPoolExecutor(max_workers=2) as pool:
        results = list(pool.map(result, faults))
    print(page(faults, results))
    if options.write and not options.only:
        PAGE.write_text(page(faults, results), encoding="utf-8")
    for fault, row in zip(faults, results):
        if isinstance(row, Row) and _verdict(fault, row) == "BROKEN":
            print(f"{fault.name}: {'; '.join(row.broken)}", file=sys.stderr)
    sys.exit("BROKEN" in map(_verdict, faults, results))


if __name__ == "__main__":
    main()
