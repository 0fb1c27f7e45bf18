"""Reads the files that fixes are for, tries the fixes on them, and writes what came of it: all or none."""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import stat
import tempfile
import tokenize
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import msgspec

from llm_doctor.fixes import config, python, shell
from llm_doctor.fixes.draft import Draft, HeldBack
from llm_doctor.model import Edit
from llm_doctor.workload.launch import COMMAND_LINE

SIZE_LIMIT = 512 << 10
"""Bytes. A script is smaller; LibCST needs ten seconds for a megabyte."""
_SHELL = (".sh", ".bash", ".sbatch", ".slurm", ".pbs", ".job")
_CONFIG = (".json", ".jsonc", ".yaml", ".yml")


class WriteError(Exception):
    """Nothing was written; the message says of which file, and why."""


class Change(NamedTuple):
    """A file before and after. `path` is as the user would write it, `file` the real one behind links."""

    path: str
    file: str
    before: bytes
    after: bytes
    mode: int


class Workbench:
    """Files with the fixes that were tried on them so far; nothing is written."""

    def __init__(self) -> None:
        self._files: Dict[str, _File] = {}
        self._drafts: Dict[str, Draft] = {}
        self._done: set[Edit] = set()

    def try_fix(self, edits: Sequence[Edit]) -> None:
        """Carries out all edits of a fix, or none: raises HeldBack with the reason.

        An edit that another fix has made already is not made again."""
        drafts: Dict[str, Draft] = {}
        touched: List[Tuple[str, Edit]] = []
        for edit in edits:
            if edit in self._done:
                continue
            file = self._opened(edit.path)
            before = self._drafts[file.file]
            with _about(edit.path):
                filled = _filled(file, before, edit)
                drafts[file.file] = _edited(file, drafts.get(file.file, before), filled)
            touched.append((file.file, edit))
        if touched and all(drafts[name].text == self._files[name].text for name, _ in touched):
            raise HeldBack(f"{edits[0].path}: it reads so already")
        for name, edit in touched:
            with _about(edit.path):
                _check(self._files[name], drafts[name])
        self._drafts.update(drafts)
        self._done.update(edits)

    def line_now(self, path: str, line: int) -> int:
        """The line on which this line of a file begins after the fixes."""
        file = os.path.realpath(path)
        return self._drafts[file].line_now(line) if file in self._drafts else line

    def changes(self) -> List[Change]:
        """The files that the fixes changed."""
        return [
            Change(file.path, name, file.data, file.encoded(self._drafts[name].text), file.mode)
            for name, file in self._files.items()
            if self._drafts[name].text != file.text
        ]

    def _opened(self, path: str) -> _File:
        if path == COMMAND_LINE:
            raise HeldBack("it stands on the command line")
        name = os.path.realpath(path)
        if name not in self._files:
            with _about(path):
                self._files[name] = _read(path, name)
            self._drafts[name] = Draft(self._files[name].text)
        return self._files[name]


class _File(NamedTuple):
    path: str
    file: str
    kind: str
    data: bytes
    mode: int
    mark: bytes
    """The byte order mark; empty without one."""
    encoding: str
    text: str

    def encoded(self, text: str) -> bytes:
        return self.mark + text.encode(self.encoding, "surrogateescape")


@contextlib.contextmanager
def _about(path: str) -> Iterator[None]:
    try:
        yield
    except HeldBack as error:
        raise HeldBack(f"{path}: {error}") from error


def _read(path: str, name: str) -> _File:
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):
            raise HeldBack("it is no regular file")
        if status.st_size > SIZE_LIMIT:
            raise HeldBack(f"it is larger than {SIZE_LIMIT >> 10} KiB")
        data = Path(name).read_bytes()
    except OSError as error:
        raise HeldBack(error.strerror or str(error)) from error
    except ValueError as error:  # a NUL in the path
        raise HeldBack("there is no such file") from error
    mark = codecs.BOM_UTF8 if data.startswith(codecs.BOM_UTF8) else b""
    encoding, kind = "utf-8", _kind(path, data)
    try:
        if kind == "python":
            encoding = tokenize.detect_encoding(io.BytesIO(data).readline)[0].replace("utf-8-sig", "utf-8")
        # A script's stray bytes are kept as they are.
        text = data[len(mark) :].decode(encoding, "surrogateescape" if kind == "shell" else "strict")
        if text.encode(encoding, "surrogateescape") != data[len(mark) :]:
            raise HeldBack(f"its {encoding} would not be written as it was read")
    except (SyntaxError, UnicodeError, LookupError) as error:
        raise HeldBack(f"it is no {encoding} text") from error
    return _File(path, name, kind, data, stat.S_IMODE(status.st_mode), mark, encoding, text)


def _kind(path: str, data: bytes) -> str:
    suffix = os.path.splitext(path)[1].lower()
    first = data.partition(b"\n")[0]
    if suffix == ".ipynb":
        raise HeldBack("it is a notebook: change the cell there")
    if suffix in _CONFIG:
        return "config"
    if suffix == ".py" or (not suffix and first.startswith(b"#!") and b"python" in first):
        return "python"
    if suffix in _SHELL or (first.startswith(b"#!") and first.rstrip().endswith(b"sh")):
        return "shell"
    raise HeldBack("files of this kind are not edited")


def _filled(file: _File, draft: Draft, edit: Edit) -> Edit:
    """The edit with `{keyword}` in its text replaced, as it was before the fix that the edit is part of."""
    if file.kind != "python" or edit.action != "set-keyword" or "{" not in edit.text:
        return edit
    at = draft.offset(edit.line, edit.column)
    return msgspec.structs.replace(edit, text=python.filled(draft.text, at, edit.text))


def _edited(file: _File, draft: Draft, edit: Edit) -> Draft:
    renames = edit.action in ("rename-keyword", "rename-name")
    if renames and draft.replacement(edit.line, edit.column) == edit.text.rpartition(".")[2]:
        return draft  # by another fix, which renamed it wherever it is
    at = draft.offset(edit.line, edit.column)
    if file.kind == "python":
        splices = python.splices(draft.text, at, edit, draft.newline)
    elif file.kind == "config":
        splices = config.splices(file.path, draft.text, at, edit, draft.newline)
    else:
        splices = shell.splices(draft.text, at, edit)
    return draft.spliced(splices)


def _check(file: _File, draft: Draft) -> None:
    if file.kind == "python":
        parses = python.parses(draft.text)
    elif file.kind == "config":
        parses = config.parses(file.path, draft.text)
    else:
        parses = shell.parses(draft.text) or not shell.parses(draft.original)
    if not parses:
        raise HeldBack("it could not be parsed afterwards")
    try:
        file.encoded(draft.text)
    except UnicodeError:
        raise HeldBack(f"{file.encoding} has no letters for it") from None


# --- Writing ------------------------------------------------------------------------------------------


def verify(changes: Sequence[Change]) -> None:
    """Raises WriteError unless every file is still what was read, and may be written."""
    for change in changes:
        try:
            now = Path(change.file).read_bytes()
            mode = stat.S_IMODE(os.stat(change.file).st_mode)
        except OSError as error:
            raise WriteError(f"{change.path}: {error.strerror or error}") from error
        if now != change.before:
            raise WriteError(f"{change.path}: it has changed since the diff was made")
        if not mode & 0o222 or not os.access(change.file, os.W_OK):
            raise WriteError(f"{change.path}: it is read-only")
        folder = os.path.dirname(change.file)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise WriteError(f"{change.path}: its folder is read-only")


def write(changes: Sequence[Change]) -> None:
    """Replaces every file by what it is after, each at once; when one fails, all are as they were.

    Raises WriteError."""
    verify(changes)
    beside: List[str] = []
    done: List[Change] = []
    try:
        for change in changes:
            with _told(change.path):
                beside.append(_written_beside(change.file, change.after, change.mode))
        verify(changes)
        for change, new in zip(changes, beside):
            with _told(change.path):
                os.replace(new, change.file)
            done.append(change)
    except BaseException:
        for change in done:
            with contextlib.suppress(OSError):
                os.replace(_written_beside(change.file, change.before, change.mode), change.file)
        raise
    finally:
        for new in beside:
            with contextlib.suppress(OSError):
                os.unlink(new)


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: {error.strerror or error}") from error


def _written_beside(file: str, data: bytes, mode: int) -> str:
    """A new file in the same folder, so that one step puts it in the place of the old one."""
    owner = os.stat(file)
    descriptor, new = tempfile.mkstemp(prefix=".llm-doctor-", dir=os.path.dirname(file))
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                with contextlib.suppress(OSError):
                    os.fchown(stream.fileno(), owner.st_uid, owner.st_gid)
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
    return new
