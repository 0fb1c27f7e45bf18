"""Runs inside the patient: which Python this is, what is installed, where modules would come from.

argv: the descriptor to write one JSON object on. Nothing of the stack is imported.
"""

import sys

# Our own folder must not shadow anything of the patient's, nor the current one (it is not importable so).
_HERE = __file__.rpartition("/")[0]
sys.path[:] = [entry for entry in sys.path if entry not in (_HERE, "")]

import importlib.metadata  # noqa: E402
import importlib.util  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import sysconfig  # noqa: E402
from typing import Any, Dict, List, Set  # noqa: E402

MODULES = ("torch", "deepspeed", "bitsandbytes", "transformers", "huggingface_hub", "datasets", "pynvml")
NOBODYS = ("test", "tests", "docs", "example", "examples", "scripts", "benchmarks")
"""Top-level names that distributions leave behind by mistake; nobody imports them."""


class Distributions:
    """What importlib.metadata sees, by normalised name. The first of a name on sys.path is imported."""

    def __init__(self) -> None:
        self.versions: Dict[str, str] = {}
        self.requires: Dict[str, List[str]] = {}
        self.twice: Set[str] = set()
        self._found: Dict[str, Any] = {}
        for distribution in importlib.metadata.distributions():
            try:
                self._add(distribution)
            except Exception:  # one damaged distribution must not hide the others
                continue

    def _add(self, distribution: Any) -> None:
        # The headers as text: parsing every METADATA as a mail message takes ten times as long.
        text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
        headers = text.split("\n\n", 1)[0]
        found = [re.search(r"(?mi)^%s:[ \t]*(\S+)" % field, headers) for field in ("name", "version")]
        name, version = [match.group(1) if match else "" for match in found]
        name = re.sub(r"[-_.]+", "-", name).lower()
        if name in self.versions and self.versions[name] != version:
            self.twice.add(name)
        if not name or not version or name in self.versions:
            return
        self.versions[name] = version
        self._found[name] = distribution
        wanted = re.findall(r"(?mi)^Requires-Dist:[ \t]*(.+?)[ \t]*$", headers)
        # Of optional dependencies nobody knows whether they are wanted.
        self.requires[name] = [line for line in wanted if not re.search(r";.*\bextra\b", line)]

    def shared_modules(self) -> Dict[str, List[str]]:
        """The modules that several distributions bring a file for. Sharing a namespace is no fault."""
        providers: Dict[str, List[str]] = {}
        for name, distribution in self._found.items():
            listed = _text(distribution, "top_level.txt")
            for module in listed.split() or _modules(distribution):
                providers.setdefault(module, []).append(name)
        shared = {}
        for module, names in providers.items():
            if len(names) > 1 and module not in NOBODYS:
                names = [name for name in names if module in _modules(self._found[name])]
                if len(names) > 1:
                    shared[module] = sorted(names)
        return shared

    def half_removed(self) -> List[str]:
        """Distributions that are listed and whose modules are all gone: none of their own files is there."""
        gone = []
        for name, distribution in self._found.items():
            files = re.finditer(_MODULE_FILE, _text(distribution, "RECORD"))
            # One after the other: the first is there, mostly, and torch lists twelve thousand files.
            there = (os.path.exists(distribution.locate_file(file.group(1))) for file in files)
            if not next(there, True) and not any(there):
                gone.append(name)
        return sorted(gone)


def _left_behind() -> List[str]:
    """What pip renames before it removes it, and leaves so when it is interrupted: `~orch`."""
    found: Set[str] = set()
    for folder in sys.path:
        try:
            found.update(name for name in os.listdir(folder or ".") if name.startswith("~"))
        except OSError:
            continue
    return sorted(found)


_MODULE_FILE = r"(?m)^(([^/,\s]+?)(?:/__init__\.py|\.py|(?:\.[\w-]+)?\.so)),"
"""A line of RECORD that is a module's own file, and the module."""


def _modules(distribution: Any) -> Set[str]:
    """The modules whose own file is on a distribution's list of files."""
    return {module for _, module in re.findall(_MODULE_FILE, _text(distribution, "RECORD"))}


def _text(distribution: Any, file: str) -> str:
    try:
        return distribution.read_text(file) or ""
    except Exception:
        return ""


def _markers() -> Dict[str, str]:
    """What the markers of a requirement are held against (PEP 508)."""
    version = platform.python_version()
    return {
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": version,
        "platform_python_implementation": platform.python_implementation(),
        "python_version": "%d.%d" % sys.version_info[:2],
        "sys_platform": sys.platform,
    }


def inventory() -> Dict[str, Any]:
    """Interpreter, distributions, their requirements, module files."""
    distributions = Distributions()
    modules = {}
    for name in MODULES:
        try:
            spec = importlib.util.find_spec(name)  # finds editable installs too, and imports nothing
        except Exception:
            continue
        if spec is not None and spec.origin is not None:
            modules[name] = spec.origin
    return {
        "executable": sys.executable or "",
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "prefix": sys.prefix,
        "installed": distributions.versions,
        "modules": modules,
        "requires": distributions.requires,
        "twice": sorted(distributions.twice),
        "shared_modules": distributions.shared_modules(),
        "half_removed": distributions.half_removed(),
        "left_behind": _left_behind(),
        "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
        "markers": _markers(),
    }


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "w") as results:
        json.dump(inventory(), results)
