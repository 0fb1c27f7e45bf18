"""The original: the whole report as JSON (llm-doctor/report/v1)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from llm_doctor.model import Report


def render(report: Report) -> str:
    """Indented JSON, keys in the order of the model."""
    return indented(report)


def indented(value: Any) -> str:
    """Any of our structs as JSON; what a terminal would obey is escaped."""
    text = msgspec.json.format(encoded(value), indent=2).decode() + "\n"
    return re.sub("[\x7f-\x9f]", lambda control: f"\\u{ord(control[0]):04x}", text)


def encoded(value: Any) -> bytes:
    """The same in one line. Of a file's name that is not UTF-8, JSON can hold a `?` for each such byte."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_utf8(msgspec.to_builtins(value)))


def _utf8(value: Any) -> Any:
    if isinstance(value, dict):
        return {_utf8(key): _utf8(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return list(map(_utf8, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
