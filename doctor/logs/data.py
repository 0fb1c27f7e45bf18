"""What is made of logs: diagnoses, or the most telling frame where nothing is known."""

from __future__ import annotations

from typing import Any, ClassVar, Dict, Literal, Optional, Tuple

import msgspec
from msgspec import Struct

from llm_doctor.model import Doctor, Fix

SCHEMA = "llm-doctor/triage/v1"


class Here(Struct, frozen=True, kw_only=True):
    """What the check of a diagnosis says of this machine."""

    status: Literal["reproduced", "refuted", "found", "not-found", "not-run"]
    sentence: str


class Diagnosis(Struct, frozen=True, kw_only=True):
    """A cause. `line` counts from 1 in the log as it is; `rank` is the one that said it, where lines tell."""

    identifiers: ClassVar[Tuple[str, ...]] = ("check", "topic", "url")
    """Fields that nothing has to be taken out of."""

    check: str
    topic: str
    confidence: Literal["certain", "likely"]
    line: int
    excerpt: str
    cause: str
    fixes: Tuple[Fix, ...] = ()
    rank: Optional[int] = None
    url: Optional[str] = None
    here: Optional[Here] = None


class UnknownError(Struct, frozen=True, kw_only=True):
    """An exception that no check knows, and the frame of its traceback that is nearest to the user's code."""

    line: int
    error: str
    frame: Optional[str] = None


class Log(Struct, frozen=True, kw_only=True):
    """One log: its diagnoses, the best first. `problem` says what of it could not be read."""

    path: str
    diagnoses: Tuple[Diagnosis, ...] = ()
    unknown: Optional[UnknownError] = None
    problem: Optional[str] = None


class Triage(Struct, frozen=True, kw_only=True):
    """What was made of all logs that were asked for."""

    schema: Literal["llm-doctor/triage/v1"]
    doctor: Doctor
    logs: Tuple[Log, ...]

    @property
    def diagnoses(self) -> Tuple[Diagnosis, ...]:
        """Those of all logs, one log after the other."""
        return tuple(it for log in self.logs for it in log.diagnoses)

    @property
    def exit_code(self) -> int:
        """0 at least one diagnosis, 1 nothing known, 3 a log could not be read and nothing was diagnosed."""
        if self.diagnoses:
            return 0
        return 3 if any(log.problem for log in self.logs) else 1


def json_schema() -> Dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a triage."""
    schema = msgspec.json.schema(Triage)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = SCHEMA
    return schema
