"""What the interpreter does while a reader reads: Python's own audit hook sees it (PEP 578)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Iterator

HANGS_AFTER_S = 60.0
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CODE = tuple({os.path.realpath(it) for it in (sys.prefix, sys.base_prefix, Path(__file__).parents[2])})
"""Where the doctor, its libraries and Python lie: what is loaded late is loaded from there."""
_OF_TEMPLATES = ("/dataclasses.py", "/collections/__init__.py", "/typing.py")
"""They write code of the names of fields or types, and run it."""
_FORBIDDEN = frozenset(
    """
    os.mkdir os.remove os.rename os.rmdir os.link os.symlink os.truncate os.chmod os.chown os.utime
    os.kill os.killpg os.putenv subprocess.Popen os.system os.exec os.fork os.forkpty os.posix_spawn os.spawn
    socket.connect socket.bind socket.sendto socket.getaddrinfo socket.gethostbyname
    pickle.find_class marshal.load ctypes.dlopen sys.setprofile sys.settrace
    """.split()
)
"""Events of which reading has none."""


class Hang(BaseException):
    """A reader that does not come to an end."""


class Watch:
    """What was done: files opened and folders listed, and everything that no reader may do, in words."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.breaches: list[str] = []

    def note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """One event of the interpreter."""
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, (str, bytes)):
                self.opened.append(os.path.abspath(os.fsdecode(path)))
                if isinstance(flags, int) and flags & _WRITES:
                    self.breaches.append(f"opened for writing: {path!r}")
        elif event in ("os.listdir", "os.scandir"):
            if isinstance(arguments[0], (str, bytes)):
                self.opened.append(os.path.abspath(os.fsdecode(arguments[0])))
        elif event == "exec":
            code = arguments[0]
            # From _hook, which the one that executes seems to call.
            by = sys._getframe(2).f_code.co_filename
            if isinstance(code, CodeType) and not _is_code(code.co_filename, by):
                self.breaches.append(f"executed: {code.co_filename} by {by}")
        elif event in _FORBIDDEN:
            self.breaches.append(f"{event}{arguments!r}"[:200])


def _is_code(path: str, by: str) -> bool:
    """Whether code is the doctor's, a library's, or what Python makes of a template (`<string>`)."""
    if path.startswith("<"):
        return by.startswith("<frozen importlib") or by.endswith(_OF_TEMPLATES)
    return os.path.realpath(path).startswith(_CODE)


def is_loading(path: str) -> bool:
    """Whether a file that was opened is one of the program itself."""
    return os.path.realpath(path).startswith(_CODE)


_WATCHES: list[Watch] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _WATCHES:
        _WATCHES[-1].note(event, arguments)


_INSTALLED: list[bool] = []


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """Watches this process. A hook cannot be taken away again: it sleeps between two watches."""
    if not _INSTALLED:
        sys.addaudithook(_hook)
        _INSTALLED.append(True)
    watch = Watch()
    _WATCHES.append(watch)
    try:
        yield watch
    finally:
        _WATCHES.remove(watch)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Raises Hang after a minute: no input of a few kilobytes is worth a second."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"no end after {HANGS_AFTER_S:g} s")

    former = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, HANGS_AFTER_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
