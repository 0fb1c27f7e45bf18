"""Asked in a child of the doctor: how much room there is at some paths, written as JSON.

argv: seconds for each path, the paths as JSON, the descriptor to write on. Every path has a thread:
a dead network mount answers never, and must cost no other path its answer.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from typing import Any

ENDLESS_BYTES = 1 << 60


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
    nearest = os.path.abspath(path)
    while not os.path.lexists(nearest) and nearest != "/":
        nearest = os.path.dirname(nearest)
    if not _is_there(nearest):  # nobody who makes a folder makes what a link points to
        raise FileNotFoundError(errno.ENOENT, f"a link to {os.readlink(nearest)}, which is not there")
    nearest = os.path.realpath(nearest)
    room = os.statvfs(nearest)
    total, free = room.f_blocks * room.f_frsize, room.f_bavail * room.f_frsize
    # /proc has no size, and object stores claim to be endless.
    has_size = 0 < total < ENDLESS_BYTES and 0 <= free <= total
    # File systems that make inodes as they go say 0 of 0, and Ceph that -1 are free.
    has_inodes = 0 <= room.f_favail <= room.f_files and room.f_files > 0
    return {
        "exists": _is_there(path),
        "nearest": nearest,
        "is_folder": os.path.isdir(nearest),
        "writable": os.access(nearest, os.W_OK | os.X_OK) and not room.f_flag & os.ST_RDONLY,
        "total_bytes": total if has_size else None,
        "free_bytes": free if has_size else None,
        "inodes": room.f_files if has_inodes else None,
        "inodes_free": room.f_favail if has_inodes else None,
    }


def _is_there(path: str) -> bool:
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True  # every other error is the answer


main()
