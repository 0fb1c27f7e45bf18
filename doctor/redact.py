"""Takes secrets and names out of a report or a recording, by value, and leaves fixes that can be pasted.

The home folder becomes `~`, the user `$USER`, the host `<host-1>`; tokens, passwords in addresses,
network addresses and GPU serials become stand-ins, the same one for the same value.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import re
from typing import Any, Iterable, Literal, Mapping, Tuple, Type, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from llm_doctor.host import SECRET_VARIABLE
from llm_doctor.model import CheckResult, Mount, Proof, Report, TrialResult

_NOT_SECRET = frozenset(
    re.findall(
        r"\S+",
        "root ubuntu user users admin vm localhost debian centos ec2-user host node home docker runner nobody"
        " linux python torch cuda cpu",
    )
)
_TOKENS = re.compile(
    r"""
      \bhf_(?:oauth_|jwt_)[A-Za-z0-9._-]{16,} | \bhf_[A-Za-z0-9]{16,} | \bapi_org_[A-Za-z0-9]{16,}
    | \b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|glpat-[A-Za-z0-9_-]{16,})
    | \b(?:sk|nvapi|xox[abps])-[A-Za-z0-9_-]{20,}
    | \b(?:npm_[A-Za-z0-9]{30,}|pypi-[A-Za-z0-9_-]{40,}|AIza[A-Za-z0-9_-]{30,})
    | \b(?:AKIA|ASIA)[A-Z0-9]{16}\b
    | \beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*
    | (?<=[Bb]earer\ )[A-Za-z0-9._~+/-]{12,}=*
    | -----BEGIN\ [A-Z ]*PRIVATE\ KEY-----.*?(?:-----END\ [A-Z ]*PRIVATE\ KEY-----|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
_PASSWORD = re.compile(
    r"""(?ix)(?:(?<=pass=) | (?<=passwd=) | (?<=password=) | (?<=token=) | (?<=secret=) | (?<=[?&]sig=))
    (?!"?\$\w)\S+  # what another variable holds is not said here"""
)
_URL_CREDENTIALS = re.compile(r"(?<=://)[^\s/'\"]+(?=@)")
_IPV4 = r"\d{1,3}(?:\.\d{1,3}){3}"
_NUMBERED = (
    ("mac", re.compile(r"\b[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}\b")),
    ("gpu-id", re.compile(r"\b(?:GPU|MIG)-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")),
    ("user", re.compile(r"(?:(?<=/home/)|(?<=/Users/))[^/\s:'\"]+")),
    ("address", re.compile(r"\b(?:192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d{1,3}\.\d{1,3}\b")),
    ("address", re.compile(r"(?i)\b(?:[0-9a-f]{1,4}:){4,7}[0-9a-f]{1,4}\b|\bfe80::[0-9a-f:]+")),
    # Others only where something says that it is an address: 12.4.5.8 is also a version of a CUDA wheel.
    ("address", re.compile(rf"(?:(?<=://)|(?<=@)){_IPV4}\b|\b{_IPV4}(?=:[\d/]|@)")),
)
_IDENTIFIERS = {(CheckResult, "name"), (CheckResult, "topic"), (TrialResult, "name"), (Proof, "trial")}

S = TypeVar("S", bound=msgspec.Struct)


class Redactor:
    """Replaces whole tokens; equal values get equal stand-ins within one redactor."""

    def __init__(
        self,
        environ: Mapping[str, str],
        host_name: str,
        users: Iterable[str] = (),
        homes: Iterable[str] = (),
        addresses: Iterable[str] = (),
    ) -> None:
        self._secrets: list[re.Pattern[str]] = []
        self._names: list[Tuple[re.Pattern[str], str]] = []
        self._numbers: dict[Tuple[str, str], str] = {}
        for name, value in environ.items():
            # A path that a variable of such a name holds is a place, not a secret.
            if SECRET_VARIABLE.search(name) and len(value) >= 6 and not value.startswith("/"):
                self._secrets.append(re.compile(re.escape(value)))
        for home in (environ.get("HOME", ""), *homes):
            if len(home.rstrip("/")) > 1:
                self._names.append((re.compile(rf"{re.escape(home.rstrip('/'))}(?![\w.-])"), "~"))
        given = (environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER"))
        for user in (*given, *users, os.path.basename(environ.get("HOME", "").rstrip("/"))):
            self._name(user, "$USER")
        for host in (host_name, host_name.partition(".")[0]):
            self._name(host, "<host-1>")
        for address in addresses:
            self._name(address, self._number("address", address))

    def _name(self, value: str, stand_in: str) -> None:
        if len(value) > 2 and value.lower() not in _NOT_SECRET:
            pattern = rf"(?<![\w.]){re.escape(value)}(?!\w)"
            self._names.append((re.compile(pattern, re.IGNORECASE), stand_in))

    def _number(self, kind: str, value: str) -> str:
        if value in ("127.0.0.1", "0.0.0.0") or value in _NOT_SECRET:  # nobody's
            return value
        count = sum(known == kind for known, _ in self._numbers)
        return self._numbers.setdefault((kind, value), f"<{kind}-{count + 1}>")

    def _without_secrets(self, text: str) -> str:
        for pattern in self._secrets:
            text = pattern.sub("<secret>", text)
        text = _URL_CREDENTIALS.sub("<credentials>", text)
        return _PASSWORD.sub("<secret>", _TOKENS.sub("<token>", text))

    def text(self, text: str) -> str:
        """The text without them."""
        text = self._without_secrets(text)
        for pattern, stand_in in self._names:
            text = pattern.sub(lambda match, stand_in=stand_in: stand_in, text)  # type: ignore[misc]
        for kind, pattern in _NUMBERED:
            text = pattern.sub(lambda match, kind=kind: self._number(kind, match.group()), text)  # type: ignore[misc]
        return text

    def value(self, value: Any) -> Any:
        """The same for every string in a JSON value. Of keys only secrets: names of packages stay."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, msgspec.Struct):
            return self.struct(value)
        if isinstance(value, dict):
            return {self._key(key): self.value(item) for key, item in value.items()}
        if isinstance(value, tuple):
            return tuple(map(self.value, value))
        if isinstance(value, list):
            return list(map(self.value, value))
        return value

    def _key(self, key: Any) -> Any:
        if not isinstance(key, str):
            return key
        return self.text(key) if "/" in key else self._without_secrets(key)

    def struct(self, value: S) -> S:
        """The same for a part of a report; words of a fixed vocabulary and names of checks stay."""
        kept = _kept_fields(type(value))
        if isinstance(value, Mount) and value.kind == "network":  # server, share and user in one
            value = msgspec.structs.replace(value, device=self._number("server", value.device))
        changes = {
            name: self.value(getattr(value, name)) for name in value.__struct_fields__ if name not in kept
        }
        return msgspec.structs.replace(value, **changes)

    def report(self, report: Report) -> Report:
        """The report without them."""
        return self.struct(report)


@functools.lru_cache(maxsize=None)
def _kept_fields(kind: Type[Any]) -> frozenset[str]:
    vocabulary = {
        name
        for name, hint in get_type_hints(kind).items()
        if any(get_origin(part) is Literal for part in (hint, *get_args(hint)))
    }
    named = {name for owner, name in _IDENTIFIERS if owner is kind}
    return frozenset(vocabulary | named | set(getattr(kind, "identifiers", ())))


def redactor() -> Redactor:
    """The redactor for this machine and this user."""
    users, homes = [], []
    with contextlib.suppress(KeyError):  # a container's user need not be in the password file
        entry = pwd.getpwuid(os.getuid())
        users.append(entry.pw_name)
        homes.append(entry.pw_dir)
    return Redactor(dict(os.environ), os.uname().nodename, users, homes, _own_addresses())


def _own_addresses() -> set[str]:
    with contextlib.suppress(OSError), open("/proc/net/fib_trie") as file:
        found = set(re.findall(rf"\|-- ({_IPV4})\s+/32 host LOCAL", file.read()))
        return {address for address in found if not address.startswith("127.")}
    return set()
