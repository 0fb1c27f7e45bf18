"""Several ranks on a node: one examines, the others get what it found.

Inside `with once_per_node(os.environ, folder(), question) as turn`, a rank whose `turn.mine` is true examines
and hands over what it found with `turn.publish(...)`; for the others it is in `turn.verdict`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import stat
import tempfile
import time
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple

BELIEVED_S = 600.0
"""Ranks of one launch begin within this; what is older was the verdict of something else."""
KEPT_S = 86400.0
_POLL_S = 0.02

_RANKS = (
    ("LOCAL_RANK", ("LOCAL_WORLD_SIZE", "LOCAL_SIZE")),  # torchrun and accelerate; deepspeed
    ("OMPI_COMM_WORLD_LOCAL_RANK", ("OMPI_COMM_WORLD_LOCAL_SIZE",)),
    ("MV2_COMM_WORLD_LOCAL_RANK", ("MV2_COMM_WORLD_LOCAL_SIZE",)),
    ("MPI_LOCALRANKID", ("MPI_LOCALNRANKS",)),  # MPICH and Intel MPI
    ("SLURM_LOCALID", ("SLURM_STEP_TASKS_PER_NODE",)),
    ("PMI_RANK", ()),
    ("RANK", ()),
)
"""What tells one rank of a node from the others, and how many there are. The launcher that is nearest to the
program comes first: a torchrun that srun started leaves SLURM_LOCALID at 0 in all of its ranks."""
_JOB = (
    "SLURM_JOB_ID",
    "SLURM_STEP_ID",
    "SLURM_RESTART_COUNT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "MASTER_ADDR",
    "MASTER_PORT",
    "PMIX_NAMESPACE",
    "OMPI_MCA_ess_base_jobid",
)


class NoVerdict(Exception):
    """The rank that examines did not come to an end."""


class Rank(NamedTuple):
    """One process of a job: the variable that numbers it, its number, its job, how many are on this node."""

    variable: str
    number: str
    job: tuple[str, ...]
    on_node: int | None


class Turn:
    """Whether this rank examines (`mine`), and else the `verdict` of the one that did."""

    def __init__(self, verdict: bytes | None = None, shared: _Shared | None = None) -> None:
        self.mine = verdict is None
        self.verdict = verdict or b""
        self._shared = shared

    def publish(self, verdict: bytes) -> None:
        """Hands the verdict to the other ranks. Where that fails, another of them examines."""
        if self._shared is not None:
            with contextlib.suppress(OSError):
                self._shared.publish(verdict)


@contextlib.contextmanager
def once_per_node(
    environ: Mapping[str, str], folder: Path | None, question: str = "", limit_s: float = BELIEVED_S
) -> Iterator[Turn]:
    """Waits until this rank has to examine or another one has done so. Raises NoVerdict after `limit_s`.

    Only ranks with the same `question` share a verdict. It is everybody's own turn outside of a job, and
    where the folder cannot be used or is not this user's alone."""
    rank = rank_of(environ)
    shared = verdict = None
    if rank is not None and folder is not None:
        with contextlib.suppress(OSError):
            shared = _shared(rank, folder, question, time.monotonic() + limit_s)
            verdict = shared.take()
    try:
        yield Turn(verdict, shared)
    finally:
        if shared is not None:
            shared.release()


def rank_of(environ: Mapping[str, str]) -> Rank | None:
    """What the launcher's variables say; None outside of a job, and for a rank that is alone on its node."""
    for variable, sizes in _RANKS:
        number = environ.get(variable, "")
        if not (number.isascii() and number.isdigit()):  # scripts of old set -1 where there is no launcher
            continue
        if variable == "SLURM_LOCALID" and "SLURM_STEP_ID" not in environ:  # the batch script itself
            continue
        # SLURM writes 8(x2) for two nodes of eight.
        found = [re.fullmatch(r"([0-9]+)(\(x[0-9]+\))?", environ.get(size, "")) for size in sizes]
        on_node = next((int(match[1]) for match in found if match), None)
        job = tuple(environ.get(name, "") for name in _JOB)
        return None if on_node == 1 else Rank(variable, number, job, on_node)
    return None


def folder() -> Path | None:
    """On the node itself, unlike a home folder: the ranks of another node must not share. None where nothing
    can be written."""
    try:
        return Path(tempfile.gettempdir()) / f"llm-doctor-{os.getuid()}"
    except OSError:
        return None


class _Shared:
    """What the ranks of a node share, used only under its lock.

    The lock's file says when the verdict was published and which ranks have it: one that has it and asks
    again wants another."""

    def __init__(self, rank: Rank, launched: float, lock: int, path: Path) -> None:
        self._rank = rank
        self._launched = launched
        self._lock = lock
        self._held = True
        self._path = path
        self._published = False

    def take(self) -> bytes | None:
        """The verdict; None where this rank has to give it."""
        words = os.pread(self._lock, 1 << 20, 0).decode("ascii", "replace").split()
        with contextlib.suppress(OSError, ValueError, IndexError):
            now = _since_boot()
            oldest = max(self._launched, now - BELIEVED_S)
            if oldest <= float(words[0]) <= now and self._rank.number not in words[1:]:
                verdict = self._path.read_bytes()
                self._note([*words, self._rank.number])
                self._published = True
                self.release()
                return verdict
        # At once: whoever is killed from here on must not leave an older verdict to the others.
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.ftruncate(self._lock, 0)
        return None

    def publish(self, verdict: bytes) -> None:
        """Once: the others need not wait for what this rank does with the verdict."""
        beside = self._path.with_suffix(".new")
        try:
            beside.write_bytes(verdict)
            os.replace(beside, self._path)
            self._note([str(_since_boot()), self._rank.number])
            self._published = True
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()
            self.release()

    def release(self) -> None:
        if self._held:
            self._held = False
            if not self._published:  # a usage error, or Ctrl-C
                self._remove()
            os.close(self._lock)

    def _note(self, words: list[str]) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, " ".join(words).encode(), 0)
        if len(words) - 1 == self._rank.on_node:  # nobody else will ask
            self._remove()

    def _remove(self) -> None:
        for path in (self._path, self._path.with_suffix(".lock")):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()


def _shared(rank: Rank, folder: Path, question: str, until: float) -> _Shared:
    launcher, launched = _launcher(rank)
    # A launcher that gives its job no name is known by its process.
    job = rank.job if any(rank.job) else (launcher,)
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    name = hashlib.sha256("\0".join((*job, question, boot)).encode("utf-8", "surrogateescape")).hexdigest()
    path = folder / name[:32]
    lock = None
    while lock is None:
        lock = _lock(path.with_suffix(".lock"))
        if lock is None:
            if time.monotonic() > until:
                raise NoVerdict("another rank is examining this node, and does not come to an end")
            time.sleep(_POLL_S)
    _sweep(folder)
    return _Shared(rank, launched, lock, path)


def _lock(path: Path) -> int | None:
    """The open file once it is locked; None while another process has it."""
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(0o700)
    try:
        status = path.parent.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "it is not this user's alone", str(path.parent))
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:  # the last rank of another job has just removed the folder
        return None
    try:
        # Not flock: a child that outlives a killed rank would hold that on.
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), path.lstat()):  # else the last rank has just removed it
            os.utime(lock)
            return lock
    except (BlockingIOError, PermissionError, FileNotFoundError):
        pass
    except OSError:
        os.close(lock)
        raise
    os.close(lock)
    return None


def _sweep(folder: Path) -> None:
    """Removes what jobs left behind whose ranks did not all ask."""
    with contextlib.suppress(OSError):
        for path in list(folder.iterdir()):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > KEPT_S:
                    path.unlink()


def _launcher(rank: Rank) -> tuple[str, float]:
    """The nearest process above that is no part of this rank, and when it was started, in seconds since boot.

    A verdict from before then is of an earlier launch, even one of the same name."""
    mine = f"{rank.variable}={rank.number}".encode()
    process = os.getppid()
    while process > 0:
        folder = Path("/proc") / str(process)
        try:
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parent, ticks = int(fields[1]), int(fields[19])
        except (OSError, ValueError, IndexError):  # hidden, or ended meanwhile
            return str(process), 0.0
        try:
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # another user's, as slurmstepd
            environ = []
        if mine not in environ:
            return str(process), ticks / os.sysconf("SC_CLK_TCK")
        process = parent
    return "", 0.0


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
