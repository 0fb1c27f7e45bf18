"""What a project asks of the doctor: [tool.llm-doctor] in pyproject.toml, or llm-doctor.toml.

The nearest of the two from the current folder upwards counts, up to the first folder that holds a .git.

    [tool.llm-doctor]
    skip = ["cache-dir-too-small"]
    fail-on = "warning"

    [tool.llm-doctor.per-path]
    "legacy/**" = ["removed-api", "deprecated-api"]
"""

from __future__ import annotations

import fnmatch
import os
import sys
from typing import Any, FrozenSet, Mapping, Tuple

import msgspec

from llm_doctor.host import Host, Unavailable

FILES = ("llm-doctor.toml", "pyproject.toml")
_FAIL_ON = ("error", "warning", "note", "never")


class BadSettings(ValueError):
    """A settings file that says something else than the doctor knows; the message names the file."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`per_path` are names of checks (`*`: all) that are silent for the files of a pattern, seen from the
    folder of the settings."""

    path: str = ""
    only: Tuple[str, ...] = ()
    skip: Tuple[str, ...] = ()
    fail_on: str | None = None
    per_path: Mapping[str, FrozenSet[str]] = {}

    def silences(self, check: str, path: str) -> bool:
        """Whether nothing of this check is to be heard about this file."""
        folder = os.path.dirname(os.path.abspath(self.path)) if self.path else ""
        relative = os.path.relpath(os.path.abspath(path), folder) if folder else path
        return any(
            ({check, "*"} & names) and fnmatch.fnmatch(relative, pattern.replace("**", "*"))
            for pattern, names in self.per_path.items()
        )


def read(host: Host) -> Settings:
    """The settings of the current folder's project; empty ones without any. Raises BadSettings."""
    folder = host.absolute(".")
    while True:
        for name in FILES:
            path = os.path.join(folder, name)
            if host.exists(path):
                settings = _of_file(host, path)
                if settings is not None:
                    return settings
        parent = os.path.dirname(folder)
        if parent == folder or host.exists(os.path.join(folder, ".git")):
            return Settings()
        folder = parent


def _of_file(host: Host, path: str) -> Settings | None:
    try:
        text = host.user_file(path, 1 << 20).decode("utf-8", "replace")
    except Unavailable as error:
        raise BadSettings(f"{path}: {error}") from error
    if os.path.basename(path) == "pyproject.toml" and "llm-doctor" not in text:
        return None  # the file of a project that has never heard of us: not ours to judge
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        root: Any = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is another error than any other
        raise BadSettings(f"{path}: {error}") from error
    if os.path.basename(path) == "pyproject.toml":
        tool = root.get("tool")
        root = tool.get("llm-doctor") if isinstance(tool, dict) else None
    if not isinstance(root, dict):
        return None
    found: dict[str, Any] = {"path": path}
    for key, value in root.items():
        if key in ("only", "skip"):
            found[key] = _names(value, f"{path}: {key}")
        elif key == "fail-on":
            if value not in _FAIL_ON:
                raise BadSettings(f"{path}: fail-on is one of {', '.join(_FAIL_ON)}")
            found["fail_on"] = value
        elif key == "per-path" and isinstance(value, dict):
            found["per_path"] = {
                pattern: frozenset(_names(names, f"{path}: per-path {pattern}"))
                for pattern, names in value.items()
            }
        else:
            raise BadSettings(f"{path}: {key!r} is none of only, skip, fail-on, per-path")
    return Settings(**found)


def _names(value: Any, where: str) -> Tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadSettings(f"{where} is a list of names of checks")
    return tuple(value)
