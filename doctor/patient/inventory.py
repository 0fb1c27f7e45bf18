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
import pathlib  # noqa: E402
import platform  # noqa: E402
import re  # noqa: E402
import sysconfig  # noqa: E402
from typing import Any, Dict, Iterator, List, Set, Tuple  # noqa: E402

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
        for distribution in _distributions():
            try:
                self._add(distribution)
            except Exception:  # one damaged distribution must not hide the others
                continue

    def _add(self, distribution: Any) -> None:
        # The headers as text: parsing every METADATA as a mail message takes ten times as long.
        text = _text(distribution, "METADATA") or _text(distribution, "PKG-INFO")
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
        wanted = [line.strip() for line in re.findall(r"(?mi)^Requires-Dist:(.*)", headers)]
        # Of optional dependencies nobody knows whether they are wanted.
        self.requires[name] = [it for it in wanted if not re.search(r"\bextra\b", it.partition(";")[2])]

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
                files = {name: _modules(self._found[name]).get(module) for name in names}
                names = [name for name in names if files[name] is not None]
                # The same file is no fault either: NVIDIA's wheels all bring an empty nvidia/__init__.py.
                if len({files[name] or name for name in names}) > 1:
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


def _distributions() -> Iterator[Any]:
    """As importlib.metadata.distributions(), where one finder that raises does not hide what others find."""
    context = importlib.metadata.DistributionFinder.Context()
    for finder in sys.meta_path:
        try:
            yield from getattr(finder, "find_distributions", lambda _: ())(context)
        except Exception:
            continue


def _left_behind() -> Tuple[List[str], List[str]]:
    """What pip renames before it removes it, and leaves so when it is interrupted: `~orch`.

    And the folders that may hold packages and cannot be listed: importlib.metadata takes them for empty."""
    found: Set[str] = set()
    unreadable = []
    paths = sysconfig.get_paths()
    for folder in dict.fromkeys([*sys.path, paths["purelib"], paths["platlib"]]):
        try:
            found.update(name for name in os.listdir(folder) if name.startswith("~"))
        except OSError as error:
            if isinstance(error, PermissionError) or os.path.isdir(folder):
                unreadable.append(folder)
    return sorted(found), unreadable


_MODULE_FILE = r"(?m)^(([^/,\s]+?)(?:/__init__\.py|\.py|(?:\.[\w-]+)?\.so)),"
"""A line of RECORD that is a module's own file, and the module."""


def _modules(distribution: Any) -> Dict[str, str]:
    """The modules whose own file is on a distribution's list of files, with that line if it has a hash."""
    lines = re.findall(_MODULE_FILE + r"(.*)", _text(distribution, "RECORD"))
    return {module: file + hashed if hashed.strip(",") else "" for file, module, hashed in lines}


def _text(distribution: Any, file: str) -> str:
    try:
        folder = getattr(distribution, "_path", None)
        # A pipe that nobody writes to, or a device, would be read for ever.
        if isinstance(folder, pathlib.Path) and not (folder / file).is_file():
            return ""
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
    left_behind, unreadable = _left_behind()
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
        "left_behind": left_behind,
        "unreadable": unreadable,
        "headers": os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")),
        "markers": _markers(),
    }


if __name__ == "__main__":
    # Names of files need not be UTF-8, what is written here has to be.
    text = json.dumps(inventory(), ensure_ascii=False)
    with os.fdopen(int(sys.argv[1]), "wb") as results:
        results.write(text.encode("utf-8", "replace"))
