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
from typing import Any, Dict, Optional, Tuple  # noqa: E402

MODULES = ("torch", "deepspeed")


def _name_and_version(distribution: Any) -> Tuple[Optional[str], Optional[str]]:
    # The headers as text: parsing every METADATA as a mail message takes ten times as long.
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    headers = text.split("\n\n", 1)[0]
    found = [re.search(r"(?mi)^%s:[ \t]*(\S+)" % field, headers) for field in ("name", "version")]
    return tuple(match.group(1) if match else None for match in found)  # type: ignore[return-value]


def inventory() -> Dict[str, Any]:
    """Interpreter, distributions by normalised name (the first on sys.path wins), module files."""
    installed: Dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        try:
            name, version = _name_and_version(distribution)
        except Exception:  # one damaged distribution must not hide the others
            continue
        if name and version:
            installed.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)
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
        "installed": installed,
        "modules": modules,
    }


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "w") as results:
        json.dump(inventory(), results)
