"""Pinned versions out of requirements and lock files, for when there is no patient to ask."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Dict, Iterator, Tuple

from llm_doctor.workload.data import Place, Value

# PEP 508 with exactly one clause, which pins: `name[extra]==1.2.3 ; marker`. 1.2.* pins nothing.
_PIN = re.compile(
    r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*===?\s*(?P<version>[^\s;,#*\\\"']+)"
    r"\s*(?P<rest>[;#\\].*|--hash.*)?$"
)
# conda writes one `=`, and may add a build: `- pytorch=2.1.0=py3.11_cuda12.1`.
_CONDA_PIN = re.compile(
    r"\s*-\s*[\"']?(?:[\w.-]+::)?(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*==?\s*(?P<version>[0-9][^\s;,#*=\"']*)"
    r"(?:=[\w.]+)?[\"']?\s*(?:#.*)?$"
)
_CONDA_NAMES = {"pytorch": "torch"}
_LOCKED = re.compile(r'^(?P<key>name|version)\s*=\s*"(?P<value>[^"]*)"')
_PIPFILE_VERSION = re.compile(r'"version"\s*:\s*"==(?P<version>[^"*]+)"')


def versions(path: str, text: str) -> Dict[str, Value]:
    """The versions that a file pins, by canonical name: requirements*.txt, constraints, uv.lock,
    poetry.lock, Pipfile.lock, and a conda environment.

    A package that is pinned to several versions, as behind markers, has none. Never raises on any text."""
    name = path.replace("\\", "/").rpartition("/")[2].lower()
    if name == "pipfile.lock":
        found = _pipfile(text)
    elif name.endswith(".lock"):
        found = _locked(text)
    elif name.endswith((".yaml", ".yml")):
        found = _conda(text)
    else:
        found = _requirements(text)
    return _by_name(path, found)


Found = Iterator[Tuple[str, str, int, int]]
"""Name, version, line and column of the version."""


def _by_name(path: str, found: Found) -> Dict[str, Value]:
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    pinned: Dict[str, Value] = {}
    several = set()
    for name, version, line, column in found:
        with contextlib.suppress(ValueError):  # InvalidVersion, or more digits than Python reads
            Version(version)
            known = canonicalize_name(name)
            place = Place(path, line, column, line, column + len(version))
            if known in pinned and pinned[known].constant != version:
                several.add(known)
            pinned[known] = Value(version, place)
    return {name: value for name, value in pinned.items() if name not in several}


def _requirements(text: str) -> Found:
    for number, line in enumerate(text.splitlines(), 1):
        pin = _PIN.match(line)
        if pin:
            yield pin["name"], pin["version"], number, pin.start("version") + 1


def _conda(text: str) -> Found:
    for number, line in enumerate(text.splitlines(), 1):
        pin = _CONDA_PIN.match(line)
        if pin:
            name = _CONDA_NAMES.get(pin["name"], pin["name"])
            yield name, pin["version"], number, pin.start("version") + 1


def _locked(text: str) -> Found:
    """`[[package]]` tables, in which the name comes before the version."""
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("["):
            name = ""
            continue
        entry = _LOCKED.match(line)
        if entry and entry["key"] == "name":
            name = entry["value"]
        elif entry and name:
            yield name, entry["value"], number, entry.start("value") + 1


def _pipfile(text: str) -> Found:
    try:
        packages = json.loads(text).get("default", {})
    except (ValueError, AttributeError, RecursionError):
        return
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        opened = re.match(r'\s*"([^"]+)"\s*:\s*\{', line)
        if opened and opened[1] in packages:
            name = opened[1]
        version = _PIPFILE_VERSION.search(line)
        if version and name:
            yield name, version["version"], number, version.start("version") + 1
            name = ""
