"""Whether a node that passed a while ago may answer at once: only while nothing that counts has changed.

Standard library only, and little of it: the answer has to come sooner than an examination is loaded.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import resource
import shutil
import stat
import sys
import time
from pathlib import Path
from typing import Iterator, List, NamedTuple, Sequence

from llm_doctor import __version__, cache
from llm_doctor.variables import OF_STACK

_VARIABLES = re.compile(f"{OF_STACK}|PATH|HOME|PYTHON\\w+|CC|CXX|(https?|no)_proxy", re.IGNORECASE)
"""What checks and trials go by; a change of one is another question."""
KEPT_S = 7 * 86400.0


class Answer(NamedTuple):
    """What was said of the same question, and how many seconds ago."""

    line: str
    report: str
    seconds: float


def key(question: Sequence[str], python: str | None) -> str:
    """A name for a question to this machine as it is: boot, driver, GPUs, the patient's packages.

    `question` is the command line without what only says where the answer goes."""
    parts: List[object] = [__version__, list(question), python]
    with contextlib.suppress(OSError):
        parts.append(os.getcwd())
    parts.append(sorted(it for it in os.environ.items() if _VARIABLES.fullmatch(it[0])))
    parts.append(_locks())
    parts += [_first_line("/proc/sys/kernel/random/boot_id"), _first_line("/sys/module/nvidia/version")]
    parts += [resource.getrlimit(it) for it in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK)]
    parts.append(sorted(glob.glob("/proc/driver/nvidia/gpus/*")) + sorted(glob.glob("/dev/nvidia*")))
    parts += [_listing(folder) for folder in _packages(python)]
    return hashlib.sha256(json.dumps(parts, default=str).encode("utf-8", "replace")).hexdigest()[:32]


def recall(key: str, max_age_s: float) -> Answer | None:
    """What was kept under this key, if it is not older and the files that were read are the same."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        path = _file(key)
        found = path.lstat()
        age = time.time() - found.st_mtime
        # Where several people share a cache, a pass of somebody else's is not believed.
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.getuid() and 0 <= age <= max_age_s:
            kept = json.loads(path.read_text(encoding="utf-8"))
            answer = Answer(str(kept["line"]), str(kept["report"]), age)
            whole = (answer.line + answer.report).isprintable()
            if whole and all(_stat(name) == state for name, state in kept["files"].items()):
                return answer
    return None


def keep(key: str, line: str, report: str, files: Sequence[str]) -> None:
    """Keeps an answer with the state of the files that it rests on; old ones go. Raises OSError."""
    path = _file(key)
    path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"line": line, "report": report, "files": {it: _stat(it) for it in files}}, file)
    beside.replace(path)
    for other in path.parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime > KEPT_S:
                other.unlink()


def forget(key: str) -> None:
    """Lets go of an answer that no longer holds."""
    with contextlib.suppress(OSError):
        _file(key).unlink()


def _file(key: str) -> Path:
    return cache.folder("answers") / f"{key}.json"


def _locks() -> List[str]:
    """The locks of extension builds, also those that a killed one left: see facts/extension_builds.py."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = glob.escape(os.environ.get("TORCH_EXTENSIONS_DIR") or os.path.join(caches, "torch_extensions"))
    return sorted(
        it for pattern in ("*/lock", "*/*/lock") for it in glob.iglob(os.path.join(folder, pattern))
    )


def _packages(python: str | None) -> Iterator[str]:
    """The folders that may hold the patient's packages."""
    found = shutil.which("python")
    given = [python, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"), found, sys.executable]
    prefixes = [os.environ.get("PYTHONUSERBASE") or os.path.expanduser("~/.local")]
    for path in filter(None, given):
        prefixes.append(path if os.path.isdir(path) else os.path.dirname(os.path.dirname(path)))
    patterns = (os.path.join(glob.escape(it), "lib*", "python3*", "*-packages") for it in prefixes)
    yield from sorted({os.path.realpath(it) for pattern in patterns for it in glob.iglob(pattern)})


def _listing(folder: str) -> object:
    """When the folder and each distribution in it were last changed: the same version may come again."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        infos = [it for it in entries if it.name.endswith((".dist-info", ".egg-info"))]
        changed = sorted((it.name, it.stat().st_mtime_ns) for it in infos)
        return [folder, os.stat(folder).st_mtime_ns, changed]
    return [folder, None]


def _stat(path: str) -> object:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return [found.st_mtime_ns, found.st_size]
    return None


def _first_line(path: str) -> str | None:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.readline().strip()
    return None
