"""Runs a job as if nobody stood between it and its caller, and keeps the tail of what it says.

Bytes, order where both streams go to one place, terminals, signals and exit code are passed through. What is
done here may fail; the job does not fail for it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any, Deque, Dict, List, Mapping, NoReturn, Sequence

TAIL = 4 << 20
"""Bytes of output that are kept."""
PIECE = 1 << 16
LINGERING_S = 1.0
"""Seconds that are waited for output after the job has ended: a process of its own may keep the pipe open."""
_FORWARDED = ("SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGCONT")
_OF_TERMINAL = ("SIGINT", "SIGQUIT")
"""A terminal sends these to all processes of its foreground group: the job has its own already."""


class Execution:
    """One job. `run` it, look at `failed` and `tail`, then `end_like_it`."""

    def __init__(self, command: Sequence[str], dispositions: Mapping[int, Any]) -> None:
        self._command = list(command)
        self._dispositions = dispositions
        """How this process was told to take signals when it was started."""
        self._kept: Deque[bytes] = collections.deque()
        self._size = 0
        self.lines_before = 0
        """Lines that were said before what is kept."""
        self.returncode = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._terminals: List[int] = []

    @property
    def tail(self) -> bytes:
        """What the job said last."""
        return b"".join(self._kept)

    @property
    def failed(self) -> bool:
        """Whether it failed by itself, rather than by Ctrl-C."""
        return self.returncode not in (0, -signal.SIGINT, 128 + signal.SIGINT)

    def run(self) -> None:
        """Runs it to its end. Raises OSError where it cannot be started."""
        sys.stdout.flush()
        sys.stderr.flush()
        sources, ends = self._channels()
        before = {signum: signal.signal(signum, handler) for signum, handler in self._handlers().items()}
        try:
            self._process = subprocess.Popen(self._command, stdout=ends[1], stderr=ends[2], close_fds=False)
            for end in set(ends.values()):
                os.close(end)
            self._pump(sources)
            self.returncode = self._process.wait()
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if sources:
            self._leave(sources)

    def end_like_it(self) -> NoReturn:
        """Ends this process as the job ended: by its exit code, or by the signal that ended it."""
        if self.returncode < 0:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one core of the job is enough
            with contextlib.suppress(OSError, ValueError):
                signal.signal(-self.returncode, signal.SIG_DFL)
            with contextlib.suppress(OSError):
                sys.stdout.flush()
                os.kill(os.getpid(), -self.returncode)
            time.sleep(0.2)
        sys.exit(self.returncode if self.returncode >= 0 else 128 - self.returncode)

    # --- Streams ------------------------------------------------------------------------------------------

    def _channels(self) -> tuple[Dict[int, int], Dict[int, int]]:
        """What is read from, each with the stream that it is for; and the job's ends, by stream."""
        sources: Dict[int, int] = {}
        ends: Dict[int, int] = {}
        if _same_file(1, 2):
            source, ends[1] = self._channel(1)
            ends[2] = ends[1]
            sources[source] = 1
        else:
            for stream in (1, 2):
                source, ends[stream] = self._channel(stream)
                sources[source] = stream
        return sources, ends

    def _channel(self, stream: int) -> tuple[int, int]:
        if os.isatty(stream):
            with contextlib.suppress(OSError):
                import pty
                import termios

                ours, theirs = pty.openpty()
                settings = termios.tcgetattr(stream)
                settings[1] &= ~termios.OPOST  # what is written is translated once, by the real terminal
                termios.tcsetattr(theirs, termios.TCSANOW, settings)
                self._terminals.append(ours)
                self._resize()
                return ours, theirs
        return os.pipe()

    def _resize(self) -> None:
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            size = fcntl.ioctl(1 if os.isatty(1) else 2, termios.TIOCGWINSZ, b"\0" * 8)
            for terminal in self._terminals:
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)

    def _pump(self, sources: Dict[int, int]) -> None:
        """Passes on what comes until all streams end, or for a moment after the job did."""
        assert self._process is not None
        ended: float | None = None
        while sources:
            ready, _, _ = select.select(list(sources), [], [], 0.1)
            for source in ready:
                self._pass_on(sources, source)
            if ended is None and not ready and self._process.poll() is not None:
                ended = time.monotonic()
            if ended is not None and not ready and time.monotonic() - ended > LINGERING_S:
                return

    def _pass_on(self, sources: Dict[int, int], source: int) -> None:
        try:
            data = os.read(source, PIECE)
        except OSError:  # EIO: nobody has the terminal open any more
            data = b""
        with contextlib.suppress(OSError):
            if data:
                write_all(sources[source], data)
                self._keep(data)
                return
        # Closed here, the job is told as it would have been: by SIGPIPE.
        os.close(source)
        del sources[source]
        if source in self._terminals:
            self._terminals.remove(source)

    def _keep(self, data: bytes) -> None:
        self._kept.append(data)
        self._size += len(data)
        while self._size > TAIL:
            gone = self._kept.popleft()
            self._size -= len(gone)
            self.lines_before += gone.count(b"\n")

    def _leave(self, sources: Dict[int, int]) -> None:
        """A process that the job left behind still writes: somebody has to pass it on, but not the caller."""
        with contextlib.suppress(OSError):
            if os.fork():
                return
            with contextlib.suppress(BaseException):
                while sources:
                    ready, _, _ = select.select(list(sources), [], [])
                    for source in ready:
                        self._pass_on(sources, source)
            os._exit(0)

    # --- Signals ------------------------------------------------------------------------------------------

    def _handlers(self) -> Dict[int, Any]:
        """What is done with signals while the job runs; what was ignored stays so, for the job as well."""
        found: Dict[int, Any] = {}
        for name in (*_FORWARDED, *_OF_TERMINAL):
            signum = getattr(signal, name)
            ignored = self._dispositions.get(signum, signal.getsignal(signum)) is signal.SIG_IGN
            found[signum] = signal.SIG_IGN if ignored else self._forward
        found[signal.SIGWINCH] = lambda signum, frame: self._resize()
        return found

    def _forward(self, signum: int, frame: FrameType | None) -> None:
        name = signal.Signals(signum).name
        if self._process is None or (name in _OF_TERMINAL and _in_foreground()):
            return
        with contextlib.suppress(OSError):
            self._process.send_signal(signum)


def _same_file(one: int, other: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(one), os.fstat(other))
    return False


def _in_foreground() -> bool:
    """Whether a terminal sends its signals to the group of this process."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def write_all(stream: int, data: bytes) -> None:
    """Writes all of it: one write may take a part only. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(stream, view) :]
        except BlockingIOError:  # the caller's stream does not block: it is waited for here
            select.select([], [stream], [])
