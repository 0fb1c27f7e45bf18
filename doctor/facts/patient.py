"""Which interpreter is the patient, and what is installed in it."""

from __future__ import annotations

import os.path
import re
from typing import Dict, List, NamedTuple, Optional

import msgspec

from llm_doctor.host import Completed, Host, Unavailable, describe_status
from llm_doctor.model import Interpreter, Packages, Requirements, SharedModule, UnmetRequirement

SOURCE = "importlib.metadata in the patient"
SECONDS = 30.0
"""Time limit for the inventory; a cold start from a network file system takes several seconds."""


class Inventory(msgspec.Struct, frozen=True):
    """What patient/inventory.py writes."""

    version: str
    implementation: str
    prefix: str
    installed: Dict[str, str]
    modules: Dict[str, str]
    requires: Dict[str, List[str]] = {}
    twice: List[str] = []
    shared_modules: Dict[str, List[str]] = {}
    markers: Dict[str, str] = {}
    headers: Optional[bool] = None
    half_removed: List[str] = []
    left_behind: List[str] = []
    unreadable: List[str] = []


class Chosen(NamedTuple):
    """The patient's interpreter, why it is the one, and its inventory or the reason it has none."""

    python: str
    by: str
    inventory: Inventory | None
    problem: str | None


def choose(host: Host, option: str | None) -> Chosen:
    """--python, else $VIRTUAL_ENV or $CONDA_PREFIX, else python on PATH with torch, else our own."""
    if option is not None:
        return _examined(host, _resolved(host, option), "--python")
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        prefix = host.env(variable)
        if prefix:
            return _examined(host, f"{prefix}/bin/python", variable)
    own = host.own_python()
    on_path = host.which("python") or host.which("python3")
    if on_path and on_path != own:
        chosen = _examined(host, on_path, "python on PATH, which has torch")
        if chosen.inventory is not None and "torch" in chosen.inventory.modules:
            return chosen
    return _examined(host, own, "the doctor's own interpreter")


def interpreter(chosen: Chosen) -> Interpreter:
    """Raises Unavailable with the reason why the interpreter cannot be examined."""
    inventory = _inventory(chosen)
    return Interpreter(
        executable=chosen.python,
        version=inventory.version,
        implementation=inventory.implementation,
        prefix=inventory.prefix,
        chosen_by=chosen.by,
        headers=inventory.headers,
    )


def packages(chosen: Chosen) -> Packages:
    """Raises Unavailable with the reason why the interpreter or its packages cannot be examined."""
    inventory = _readable(chosen)
    return Packages(installed=inventory.installed, modules=inventory.modules)


def requirements(chosen: Chosen) -> Requirements:
    """What `pip check` would say, and modules that two distributions bring.

    Raises Unavailable with the reason why the interpreter or its packages cannot be examined."""
    from packaging.requirements import InvalidRequirement, Requirement

    inventory = _readable(chosen)
    markers = {**inventory.markers, "extra": ""}
    unmet = []
    for package, lines in sorted(inventory.requires.items()):
        for line in lines:
            try:
                wanted = Requirement(line)
                if wanted.marker is not None and not wanted.marker.evaluate(markers):
                    continue
                installed = inventory.installed.get(re.sub(r"[-_.]+", "-", wanted.name).lower())
                if installed is None or not wanted.specifier.contains(installed, prereleases=True):
                    requires = f"{wanted.name}{wanted.specifier}"
                    unmet.append(UnmetRequirement(package=package, requires=requires, installed=installed))
            # Nor could pip read it. RecursionError: it is all parentheses.
            except (InvalidRequirement, ValueError, KeyError, RecursionError):
                continue
    shared = inventory.shared_modules.items()
    return Requirements(
        unmet=tuple(unmet),
        shared_modules=tuple(SharedModule(module=m, packages=tuple(p)) for m, p in sorted(shared)),
        twice=tuple(inventory.twice),
        half_removed=tuple(inventory.half_removed),
        left_behind=tuple(inventory.left_behind),
    )


def _resolved(host: Host, option: str) -> str:
    on_path = host.which(option) if os.path.sep not in option else None  # `--python python3.10`
    if on_path is not None:
        return on_path
    path = host.absolute(option)
    # The folder of an environment is as good a name for it as its interpreter.
    return f"{path}/bin/python" if host.exists(f"{path}/bin/python") else path


def _examined(host: Host, python: str, by: str) -> Chosen:
    done = host.inventory(python, seconds=SECONDS)
    try:
        inventory = msgspec.json.decode(done.result, type=Inventory)
    except msgspec.MsgspecError:
        return Chosen(python, by, None, _why_not(host, python, done))
    return Chosen(python, by, inventory, None)


def _why_not(host: Host, python: str, done: Completed) -> str:
    if done.problem is not None:
        if "No such file" in done.problem and not host.exists(python):
            return f"{python} does not exist"
        if host.exists(f"{python}/."):
            return f"{python} is a folder without bin/python"
        return f"{python} {done.problem}"
    # An interpreter too old for our code fails on it; a simple question tells it from no Python at all.
    code = "import sys; sys.stdout.write('python %d.%d.%d' % sys.version_info[:3])"
    answer = host.run([python, "-c", code], seconds=SECONDS)
    version = re.fullmatch(r"python ((\d+)\.(\d+)\.\d+)", answer.stdout.strip())
    if version and (int(version.group(2)), int(version.group(3))) < (3, 8):
        return f"{python} is Python {version.group(1)}; 3.8 is the oldest that can be examined"
    lines = done.stderr.strip().splitlines()
    # Python that cannot begin tells it behind its paths, a traceback in its last line, a shell in its first.
    fatal = [line for line in lines if line.startswith(("Fatal Python error", "ModuleNotFoundError"))]
    told = fatal or (lines[-1:] if lines and lines[0].startswith("Traceback") else lines)
    line = told[0].strip()[:200] if told else ""
    status = describe_status(done.returncode)
    home = host.env("PYTHONHOME")
    where = f" with PYTHONHOME={home}" if home else ""
    return f"{python} is not a Python that works{where} ({status}{': ' if line else ''}{line})"


def _readable(chosen: Chosen) -> Inventory:
    """The inventory, unless the packages may lie where nobody could look; where torch is, it is complete
    enough: from a folder that cannot be read the patient imports nothing either."""
    inventory = _inventory(chosen)
    if inventory.unreadable and "torch" not in inventory.modules:
        raise Unavailable(f"{inventory.unreadable[0]} cannot be read")
    return inventory


def _inventory(chosen: Chosen) -> Inventory:
    if chosen.inventory is None:
        raise Unavailable(chosen.problem or "no inventory")
    return chosen.inventory
