"""Keeps what fixes replaced, byte for byte, and puts it back."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

import msgspec

from llm_doctor import cache
from llm_doctor.fixes.apply import Change, WriteError, write

KEPT = 20
"""How many times of fixing can be taken back."""


class _Kept(msgspec.Struct, frozen=True):
    """One file of a record: what it became, by its hash, and where its former bytes are."""

    path: str
    file: str
    mode: int
    after: str
    before: str


class _Record(msgspec.Struct, frozen=True):
    """What one `fix --apply` replaced, and the folder that it was called in."""

    folder: str
    files: Tuple[_Kept, ...]


class Restored(NamedTuple):
    """What `undo` did: the files that are as before, and for the others why they are not."""

    files: Sequence[str]
    refused: Sequence[str]


def store() -> Path:
    """Where records are kept: the doctor's own cache."""
    return cache.folder("undo")


def keep(changes: Sequence[Change]) -> Path:
    """Keeps what these changes are about to replace. Raises WriteError where that cannot be."""
    folder = store() / f"{time.time_ns():020d}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, mode=0o700)
        files = []
        for number, change in enumerate(changes):
            _private(folder / str(number), change.before)
            files.append(_Kept(change.path, change.file, change.mode, _hash(change.after), str(number)))
        _write_record(folder, _Record(os.getcwd(), tuple(files)))
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        reason = error.strerror or error
        raise WriteError(f"what would be replaced cannot be kept in {store()}: {reason}") from error
    for old in _records()[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


def forget(record: Path) -> None:
    """Drops a record whose changes were not made."""
    shutil.rmtree(record, ignore_errors=True)


def undo() -> Restored | None:
    """Takes back the last fixes that were applied in this folder; None where there are none.

    A file that has changed since then is left alone, and so is one that cannot be written."""
    here = os.getcwd()
    damaged: List[str] = []
    for folder in reversed(_records()):
        try:
            record = _record(folder)
        except (OSError, ValueError, RecursionError):
            damaged.append(f"{folder}/record.json cannot be read; beside it are the files as they were")
            continue
        if record is None or record.folder != here:
            continue
        restored: List[str] = []
        refused: List[str] = []
        left: List[_Kept] = []
        for kept in record.files:
            try:
                _restore(folder, kept)
                restored.append(kept.path)
            except WriteError as error:
                refused.append(str(error))
                left.append(kept)
        if left:
            with contextlib.suppress(OSError):
                _write_record(folder, _Record(here, tuple(left)))
        else:
            forget(folder)
        return Restored(restored, refused)
    return Restored((), damaged) if damaged else None


def _restore(folder: Path, kept: _Kept) -> None:
    try:
        status = os.lstat(kept.file)
        if not stat.S_ISREG(status.st_mode):
            raise WriteError(f"{kept.path}: it is no regular file any more")
        now = Path(kept.file).read_bytes()
        before = (folder / kept.before).read_bytes()
        mode = stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise WriteError(f"{kept.path}: {error.strerror or error}") from error
    if _hash(now) == _hash(before):
        return
    if _hash(now) != kept.after:
        raise WriteError(f"{kept.path}: it has changed since the fix, and is left as it is")
    write([Change(kept.path, kept.file, now, before, mode)])


def _records() -> List[Path]:
    with contextlib.suppress(OSError):
        return sorted(it for it in store().iterdir() if it.is_dir())
    return []


def _record(folder: Path) -> _Record | None:
    """None where a run was ended on the way. Raises OSError, ValueError and RecursionError."""
    path = folder / "record.json"
    return msgspec.convert(json.loads(path.read_bytes()), _Record) if path.exists() else None


def _write_record(folder: Path, record: _Record) -> None:
    # Not by msgspec, which has no place for names that are not UTF-8.
    _private(folder / "record.json", json.dumps(msgspec.to_builtins(record)).encode())


def _private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(data)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
