"""Takes secrets and names out of a report or a recording, by value, and leaves fixes that can be pasted.

The home folder becomes `~`, the user `$USER`, the host `<host-1>`; tokens, passwords in addresses,
network addresses and GPU serials become stand-ins, the same one for the same value.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Mapping, Tuple

import msgspec

from llm_doctor.model import Answer, CheckResult, Facts, Patient, Report

_NOT_SECRET = frozenset(
    [
        "root",
        "ubuntu",
        "user",
        "users",
        "admin",
        "vm",
        "localhost",
        "debian",
        "centos",
        "ec2-user",
        "host",
        "node",
        "home",
        "docker",
        "runner",
        "nobody",
    ]
)
_SECRET_VARIABLE = re.compile(r"(?i)(token|secret|passw|api_?key|access_?key|credential|private_?key)")
_TOKENS = re.compile(
    r"""
      \bhf_[A-Za-z0-9]{16,}
    | \b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,})
    | \bsk-[A-Za-z0-9_-]{20,}
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]+:[^\s/@]+(?=@)")
_NUMBERED = (
    ("mac", re.compile(r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b")),
    ("gpu-id", re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")),
    # Only where something says that it is an address: 12.4.5.8 is also the version of a CUDA wheel.
    ("address", re.compile(r"(?:(?<=://)|(?<=@))\d{1,3}(?:\.\d{1,3}){3}\b|\b\d{1,3}(?:\.\d{1,3}){3}(?=:\d)")),
)


class Redactor:
    """Replaces whole tokens; equal values get equal stand-ins within one redactor."""

    def __init__(self, environ: Mapping[str, str], host_name: str) -> None:
        self._replacements: list[Tuple[re.Pattern[str], str]] = []
        self._numbers: dict[Tuple[str, str], str] = {}
        for name, value in environ.items():
            if _SECRET_VARIABLE.search(name) and len(value) >= 8:
                self._replace(re.escape(value), "<secret>")
        home = environ.get("HOME", "").rstrip("/")
        if len(home) > 1:
            self._replace(rf"{re.escape(home)}(?=/|$|[^\w.-])", "~")
        user = environ.get("USER") or environ.get("LOGNAME") or os.path.basename(home)
        for value, stand_in in (
            (user, "$USER"),
            (host_name, "<host-1>"),
            (host_name.partition(".")[0], "<host-1>"),
        ):
            if len(value) > 2 and value.lower() not in _NOT_SECRET:
                self._replace(rf"(?<!\w){re.escape(value)}(?!\w)", stand_in)

    def _replace(self, pattern: str, stand_in: str) -> None:
        self._replacements.append((re.compile(pattern), stand_in))

    def text(self, text: str) -> str:
        """The text without them."""
        for pattern, stand_in in self._replacements:
            text = pattern.sub(lambda match, stand_in=stand_in: stand_in, text)  # type: ignore[misc]
        text = _TOKENS.sub("<token>", text)
        text = _URL_PASSWORD.sub("<user>:<password>", text)
        for kind, pattern in _NUMBERED:
            text = pattern.sub(lambda match, kind=kind: self._number(kind, match.group()), text)  # type: ignore[misc]
        return text

    def _number(self, kind: str, value: str) -> str:
        if value in ("127.0.0.1", "0.0.0.0"):  # nobody's
            return value
        count = sum(known == kind for known, _ in self._numbers)
        return self._numbers.setdefault((kind, value), f"<{kind}-{count + 1}>")

    def value(self, value: Any) -> Any:
        """The same for every string in a JSON value, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def report(self, report: Report) -> Report:
        """The report without them."""

        def clean(part: Any, kind: Any) -> Any:
            return msgspec.convert(self.value(msgspec.to_builtins(part)), kind)

        return msgspec.structs.replace(
            report,
            patient=clean(report.patient, Patient),
            facts=clean(report.facts, Facts),
            answers=clean(report.answers, Dict[str, Answer]),
            checks=clean(report.checks, Tuple[CheckResult, ...]),
        )


def redactor() -> Redactor:
    """The redactor for this machine and this user."""
    return Redactor(dict(os.environ), os.uname().nodename)
