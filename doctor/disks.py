"""Asked in a child of the doctor: how much room there is at some paths, written as JSON.

argv: seconds for each path, the paths as JSON, the descriptor to write on. Every path has a thread:
a dead network mount answers never, and must cost no other path its answer.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from typing import Any


def main() -> None:
    """Writes `{path: {exists, nearest, writable, total_bytes, ...} or {"error"}}`."""
    limit_s, paths = float(sys.argv[1]), json.loads(sys.argv[2])
    late = {"error": f"did not answer within {limit_s:g} s"}
    answers: dict[str, dict[str, Any]] = {}
    threads = [threading.Thread(target=_answer, args=(path, answers), daemon=True) for path in paths]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    text = json.dumps({path: answers.get(path, late) for path in paths})
    with os.fdopen(int(sys.argv[3]), "w") as results:
        results.write(text)
    os._exit(0)  # a thread that waits for a dead mount is not waited for


def _answer(path: str, answers: dict[str, dict[str, Any]]) -> None:
    try:
        answers[path] = disk(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        answers[path] = {"error": getattr(error, "strerror", None) or str(error)}


def disk(path: str) -> dict[str, Any]:
    """Room and rights at this path, or at the first folder above it that is there."""
    nearest = os.path.realpath(path)
    while not _is_there(nearest) and nearest != "/":
        nearest = os.path.dirname(nearest)
    room = os.statvfs(nearest)
    has_size = room.f_blocks > 0  # /proc has none, and some object stores do not tell theirs
    return {
        "exists": _is_there(path),
        "nearest": nearest,
        "is_folder": os.path.isdir(nearest),
        "writable": os.access(nearest, os.W_OK | os.X_OK) and not room.f_flag & os.ST_RDONLY,
        "total_bytes": room.f_blocks * room.f_frsize if has_size else None,
        "free_bytes": room.f_bavail * room.f_frsize if has_size else None,
        # File systems that make inodes as they go (btrfs, many network ones) say 0 of 0.
        "inodes": room.f_files or None,
        "inodes_free": room.f_favail if room.f_files else None,
    }


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True  # every other error is the answer


main()
