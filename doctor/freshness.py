"""Whether a node that passed a while ago may answer at once: only while nothing that counts has changed.

Standard library only, and little of it: the answer has to come sooner than an examination is loaded.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import resource
import shutil
import sys
import time
from typing import Iterator, List, NamedTuple, Sequence

from llm_doctor import __version__

_VARIABLES = (
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PATH",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HF_HOME",
    "HF_HUB_CACHE",
)
"""What an examination looks at first; a change of one is another question."""


class Answer(NamedTuple):
    """What was said of the same question, and how many seconds ago."""

    line: str
    report: str
    seconds: float


def folder() -> str:
    """Where answers are kept: in the doctor's own cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(cache, "llm-doctor", "answers")


def key(question: Sequence[str], python: str | None) -> str:
    """A name for a question to this machine as it is: boot, driver, GPUs, the patient's packages.

    `question` is the command line without what only says where the answer goes."""
    parts: List[object] = [__version__, list(question), os.getcwd(), python]
    parts += [os.environ.get(name) for name in _VARIABLES]
    parts += [_first_line("/proc/sys/kernel/random/boot_id"), _first_line("/sys/module/nvidia/version")]
    parts += [resource.getrlimit(it) for it in (resource.RLIMIT_NOFILE, resource.RLIMIT_MEMLOCK)]
    parts.append(sorted(glob.glob("/proc/driver/nvidia/gpus/*")) + sorted(glob.glob("/dev/nvidia*")))
    parts += [_listing(folder) for folder in _packages(python)]
    return hashlib.sha256(json.dumps(parts, default=str).encode("utf-8", "replace")).hexdigest()[:32]


def recall(folder: str, key: str, max_age_s: float) -> Answer | None:
    """What was kept under this key, if it is not older and the files that were read are the same."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        path = os.path.join(folder, f"{key}.json")
        age = time.time() - os.stat(path).st_mtime
        if 0 <= age <= max_age_s:
            with open(path, encoding="utf-8") as file:
                kept = json.load(file)
            if all(_stat(path) == state for path, state in kept["files"].items()):
                return Answer(str(kept["line"]), str(kept["report"]), age)
    return None


def keep(folder: str, key: str, line: str, report: str, files: Sequence[str]) -> None:
    """Keeps an answer with the state of the files that it rests on; old ones go. Raises OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    path = os.path.join(folder, f"{key}.json")
    beside = f"{path}.{os.getpid()}"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"line": line, "report": report, "files": {path: _stat(path) for path in files}}, file)
    os.replace(beside, path)
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):
            other = os.path.join(folder, name)
            if time.time() - os.stat(other).st_mtime > 7 * 86400:
                os.unlink(other)


def forget(folder: str, key: str) -> None:
    """Lets go of an answer that no longer holds."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(folder, f"{key}.json"))


def _packages(python: str | None) -> Iterator[str]:
    """The folders that may hold the patient's packages."""
    found = shutil.which("python")
    given = [python, os.environ.get("VIRTUAL_ENV"), os.environ.get("CONDA_PREFIX"), found, sys.executable]
    prefixes = []
    for path in filter(None, given):
        prefixes.append(path if os.path.isdir(path) else os.path.dirname(os.path.dirname(path)))
    for prefix in dict.fromkeys(prefixes):
        yield from sorted(glob.glob(os.path.join(glob.escape(prefix), "lib", "python3*", "*-packages")))


def _listing(folder: str) -> object:
    """Names of distributions with their versions, and when the folder last changed."""
    with contextlib.suppress(OSError):
        names = sorted(name for name in os.listdir(folder) if name.endswith((".dist-info", ".egg-info")))
        return [folder, os.stat(folder).st_mtime_ns, names]
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
