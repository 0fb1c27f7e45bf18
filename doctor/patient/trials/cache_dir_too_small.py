"""Writes, syncs, reads back, locks, renames and links 64 MiB where downloads go, and leaves nothing there."""

import fcntl
import hashlib
import os
import time
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, scratch_folder

SIZE_BYTES = 64 << 20
BLOCK_BYTES = 4 << 20


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The cache's folder, or the first above it that is there; `remedy` is where it could go instead."""
    return [{"folder": settings["folder"], "remedy": settings["remedy"]}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Where downloads go."""
    return _used(combination["folder"])


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Where they would go with the fix."""
    return _used(combination["remedy"])


def _used(folder: str) -> Dict[str, Any]:
    room = os.statvfs(folder)
    size = SIZE_BYTES
    if room.f_blocks:  # else its size is not told
        size = min(size, room.f_bavail * room.f_frsize // 2)  # a full disk is not filled for a test
    size -= size % BLOCK_BYTES
    with scratch_folder(folder) as scratch:
        measured: Dict[str, Any] = {"written_bytes": size}
        measured.update(_written(os.path.join(scratch, "data"), size))
        blob = os.path.join(scratch, "blob")
        with open(blob + ".incomplete", "w") as file:
            file.write("llm-doctor")
            measured["locks"] = _can_lock(file)
        os.rename(blob + ".incomplete", blob)
        try:
            os.symlink("blob", os.path.join(scratch, "snapshot"))
            measured["links"] = True
        except OSError:  # the hub then copies, and a cache takes twice the room
            measured["links"] = False
    if os.path.exists(scratch):
        raise Failed("what was written there could not be removed", measured)
    return measured


def _can_lock(file: Any) -> bool:
    """Whether the hub's own kind of lock is to be had; without it the hub takes a softer one."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(file, fcntl.LOCK_UN)
    except OSError:
        return False
    return True


def _written(path: str, size: int) -> Dict[str, Any]:
    block = os.urandom(BLOCK_BYTES)  # a file system that compresses must not look fast
    sent, received = hashlib.sha256(), hashlib.sha256()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.unlink(path)  # the data are gone with us, however we end
        began = time.perf_counter()
        for _ in range(size // BLOCK_BYTES):
            sent.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
        written = time.perf_counter()
        if hasattr(os, "posix_fadvise"):  # else it is memory that is read
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.lseek(descriptor, 0, os.SEEK_SET)
        while True:
            chunk = os.read(descriptor, BLOCK_BYTES)
            if not chunk:
                break
            received.update(chunk)
        read = time.perf_counter()
    finally:
        os.close(descriptor)
    if sent.digest() != received.digest():
        raise Failed("what was read back is not what was written")
    return {
        "write_mb_per_s": round(1e-6 * size / (written - began), 1),
        "read_mb_per_s": round(1e-6 * size / (read - written), 1),
    }
