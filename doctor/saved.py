"""Reports that were kept: reads one from a file, and keeps those of this node in the doctor's own cache."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

import msgspec

from llm_doctor import cache
from llm_doctor.model import SCHEMA, Facts, Report
from llm_doctor.render.json import encoded

KEPT = 50
"""How many reports of each node are kept."""
SIZE_LIMIT = 32 << 20
"""Bytes of a report that is read; real ones have a tenth of a megabyte, one with 200 findings a whole one."""
_DEPTH = 64
_NUMBER = 1 << 64


class BadReport(ValueError):
    """A file that holds no report that can be read; the message says why, in one line."""


# --- One report ------------------------------------------------------------------------------------


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    message: str
    line: Optional[int]
    column: Optional[int]


class _Launch(msgspec.Struct, frozen=True, kw_only=True):
    path: str
    line: int
    launcher: str
    program: Optional[str]
    processes_per_node: Optional[int]
    nodes: Optional[int]


class _Workload(msgspec.Struct, frozen=True, kw_only=True):
    """What every reader of a report's workload counts on."""

    files: List[str]
    launches: List[_Launch]
    problems: List[_Problem]


def read_report(data: bytes) -> Report:
    """The report, whichever minor version wrote it. Raises BadReport."""
    raw = _json(data)
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if not isinstance(raw, dict) or not isinstance(schema, str):
        raise BadReport("it is JSON, but not a report of llm-doctor (no schema)")
    if schema != SCHEMA:
        raise BadReport(_other_schema(schema))
    _fill_facts(raw)
    try:
        report = msgspec.convert(raw, Report)
        if report.workload is not None:
            msgspec.convert(report.workload, _Workload)
        for name, fact in msgspec.structs.asdict(report.facts).items():
            if fact.status == "ok" and fact.value is None:
                raise ValueError(f"no value of a fact that is ok - at `$.facts.{name}`")
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadReport(f"it is not a whole {SCHEMA}: {_one_line(str(error))}") from error
    return report


def _json(data: bytes) -> Any:
    if len(data) > SIZE_LIMIT:
        raise BadReport(f"it is larger than {SIZE_LIMIT >> 20} MiB, and so not a report")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):  # what PowerShell's > makes
        with contextlib.suppress(UnicodeDecodeError):
            data = data.decode("utf-16").encode()
    data = data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    if not data.strip():
        raise BadReport("it is empty")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # A character that the end of the file cuts in two.
        if error.reason == "unexpected end of data" and data.lstrip()[:1] == b"{":
            raise BadReport("it is truncated: its JSON ends in the middle") from error
        raise BadReport("it is binary, not a report in JSON") from error
    if "\0" in text:
        raise BadReport("it is binary, not a report in JSON")
    try:
        raw = msgspec.json.decode(data)
    except RecursionError as error:
        raise BadReport("it is nested too deeply to be a report") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise BadReport(_not_json(data, str(error))) from error
    _limit(raw)
    return raw


def _not_json(data: bytes, why: str) -> str:
    at = re.search(r"\(byte (\d+)\)", why)
    if at is None and "truncated" in why and data.lstrip()[:1] in (b"{", b"["):
        return "it is truncated: its JSON ends in the middle"
    if at is None:
        return f"it is not JSON: {_one_line(why)}"
    trailing = "trailing" in why  # it is told one too far
    before = data[: int(at[1]) - trailing].decode(errors="replace")
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    what = "something follows the report" if trailing else "invalid character"
    return f"it is not JSON: {what} in line {line}, column {column}"


def _limit(value: Any) -> None:
    """Raises BadReport for what no report holds, and no format could draw."""
    level: List[Any] = [value]
    for _ in range(_DEPTH):
        inner = (it.values() if isinstance(it, dict) else it for it in level if isinstance(it, (dict, list)))
        level = [item for items in inner for item in items]
        if any(isinstance(it, int) and abs(it) > _NUMBER for it in level):
            raise BadReport("it holds a number that is too large for a report")
        if not level:
            return
    raise BadReport("it is nested too deeply to be a report")


def _other_schema(schema: str) -> str:
    later = re.fullmatch(r"llm-doctor/report/v(\d{1,9})", schema)
    if later and int(later[1]) > int(SCHEMA.rpartition("v")[2]):
        return f"it is a {schema}, which a newer llm-doctor wrote; this one reads {SCHEMA}"
    return f"it is no report: its schema is {_one_line(schema)!r}, not {SCHEMA}"


def _fill_facts(raw: Dict[str, Any]) -> None:
    """Facts that were not known yet to the version that wrote the report are unavailable."""
    facts = raw.get("facts")
    if not isinstance(facts, dict):
        return
    for name in Facts.__struct_fields__:
        reason = "the report is of an earlier llm-doctor"
        facts.setdefault(name, {"status": "unavailable", "source": "none", "seconds": 0.0, "reason": reason})


def _one_line(text: str, limit: int = 160) -> str:
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= limit else line[: limit - 3] + "..."


# --- The store -------------------------------------------------------------------------------------


def save(report: Report) -> Path:
    """Keeps a report of this node. Raises OSError, whose text says which folder, and why."""
    folder = cache.folder("reports")
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
    path = folder / f"{now}-{_node()}.json"
    draft = folder / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        folder.chmod(0o700)  # a former one may be of another mode, or of somebody else
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                stream.write(encoded(report))
            draft.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
    except OSError as error:
        raise OSError(f"{folder}: {error.strerror or error}") from error
    for old in latest(sys.maxsize)[:-KEPT]:
        with contextlib.suppress(OSError):
            old.unlink()
    return path


def latest(count: int) -> List[Path]:
    """The last reports of this node, the newest last; fewer where there are no more."""
    with contextlib.suppress(OSError):
        return sorted(cache.folder("reports").glob(f"[0-9]*-{_node()}.json"))[-count:]
    return []


def _node() -> str:
    return hashlib.sha256(os.uname().nodename.encode(errors="surrogateescape")).hexdigest()[:16]
