"""Logs by their names, and standard input: opened, unpacked and decoded as a stream."""

from __future__ import annotations

import codecs
import os
import select
import stat
import sys
import zlib
from typing import IO, Iterable, Iterator, List, Sequence

from llm_doctor import __version__
from llm_doctor.logs.data import Log, Triage
from llm_doctor.logs.triager import Triager
from llm_doctor.model import Doctor

PIECE = 1 << 18
"""Bytes that are read at once."""
UNPACKED = 1 << 15
"""Bytes that are unpacked at once: what comes right before damage is not lost."""
SILENCE_S = 30.0
"""Seconds after which a named pipe that says nothing more is left. Standard input may take its time."""
_NO_TEXT = bytes(it for it in range(32) if it not in b"\t\n\r\b\f\x1b")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(Exception):
    """A log of which nothing, or no more, can be read; the message says why."""


def triage_logs(paths: Sequence[str]) -> Triage:
    """What is made of the logs of these names, `-` for standard input. Never raises for what is in them."""
    return _triage([_read(path) for path in paths])


def triage_text(text: str, name: str = "-") -> Triage:
    """The same of a text."""
    return _triage([_made(name, [text.encode("utf-8", "replace")])])


def triage_output(data: bytes, lines_before: int) -> Triage:
    """The same of the last output of a process that had said some lines before."""
    return _triage([_made("output", [data], lines_before)])


def _triage(logs: List[Log]) -> Triage:
    return Triage(schema="llm-doctor/triage/v1", doctor=Doctor(version=__version__), logs=tuple(logs))


def _read(path: str) -> Log:
    if "\0" in path:
        return Log(path=path, problem="it is no path")
    try:
        with _opened(path) as stream:
            return _made(path, _decoded(_pieces(path, stream)))
    except OSError as error:
        return Log(path=path, problem=error.strerror or str(error))
    except Unreadable as error:
        return Log(path=path, problem=str(error))


def _made(path: str, pieces: Iterable[bytes], lines_before: int = 0) -> Log:
    triager = Triager(lines_before)
    problem = None
    empty = True
    try:
        for piece in pieces:
            triager.feed(piece)
            empty = empty and not piece.strip()
    except Unreadable as error:  # what came before it is judged all the same
        problem = str(error)
    except OSError as error:
        problem = error.strerror or str(error)
    diagnoses, unknown = triager.finish()
    if empty and problem is None:
        problem = "it is empty"
    return Log(path=path, diagnoses=diagnoses, unknown=unknown, problem=problem)


def _opened(path: str) -> IO[bytes]:
    if path == "-":
        if sys.stdin is None:
            raise Unreadable("standard input is closed")
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    # Looked at before it is opened: opening sets some devices off, a watchdog for one.
    mode = os.stat(path).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise Unreadable("it is a folder" if stat.S_ISDIR(mode) else "it is a device or socket, not a log")
    # Without blocking: a named pipe that nobody writes to would never open.
    return open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0)


def _pieces(path: str, stream: IO[bytes]) -> Iterator[bytes]:
    """The bytes as they come. A named pipe that nothing comes from is left after a while."""
    patient = path == "-"
    pipe = not patient and stat.S_ISFIFO(os.fstat(stream.fileno()).st_mode)
    if pipe:
        poll = select.poll()
        poll.register(stream, select.POLLIN | select.POLLHUP)
    while True:
        if pipe and not poll.poll(SILENCE_S * 1000):
            raise Unreadable(f"it is a pipe that said nothing for {SILENCE_S:g} s: judged by what had come")
        piece = stream.read(PIECE)
        if not piece:
            return
        yield piece


def _decoded(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """UTF-8 of what is compressed by gzip, or UTF-16. Raises Unreadable for what is no text."""
    first = next(pieces, b"")
    while 0 < len(first) < 4:
        more = next(pieces, b"")
        if not more:
            break
        first += more
    if first.startswith(b"\x1f\x8b"):
        pieces = _unpacked(first, pieces)
        first = next(pieces, b"")
    encoding = _encoding(first)
    if encoding is None:
        yield first
        yield from pieces
        return
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    yield decoder.decode(first).encode("utf-8", "replace")
    for piece in pieces:
        yield decoder.decode(piece).encode("utf-8", "replace")


def _unpacked(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip packed, member by member."""
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        for piece in _with_first(first, pieces):
            while piece:
                yield unpack.decompress(piece, UNPACKED)
                piece = unpack.unconsumed_tail
                if unpack.eof:
                    piece = unpack.unused_data.lstrip(b"\0")
                    if piece:
                        unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    except zlib.error as error:
        raise Unreadable("its gzip data is damaged: judged by what came before") from error
    if not unpack.eof:
        raise Unreadable("its gzip data ends early: judged by what is there")


def _with_first(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from pieces


def _encoding(first: bytes) -> str | None:
    """What a log is written in, if not in UTF-8 or something near it. Raises Unreadable."""
    for mark, name in _MARKS:
        if first.startswith(mark):
            return name
    head = first[:4096]
    if not head.count(0):
        return None
    halves = [head[0::2].count(0), head[1::2].count(0)]
    most = len(head) // 2 * 0.7
    if halves[1] > most and not halves[0]:
        return "utf-16-le"
    if halves[0] > most and not halves[1]:
        return "utf-16-be"
    if len(head) - len(head.translate(None, _NO_TEXT)) > len(head) // 20:
        raise Unreadable("it is a binary file")
    return None
