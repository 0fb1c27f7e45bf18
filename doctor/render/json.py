"""The original: the whole report as JSON (llm-doctor/report/v1)."""

from __future__ import annotations

import msgspec

from llm_doctor.model import Report


def render(report: Report) -> str:
    """Indented JSON, keys in the order of the model."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n"
