"""The one doorway to the machine: every fact is asked here, so that it can be recorded and replayed.

A question to the machine is a tuple of strings, its answer a JSON object; `{"error": ...}` is a refusal.
Everything that could hang runs in a child with a time limit and bounded output.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import functools
import itertools
import json
import os
import queue
import re
import resource
import selectors
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

from llm_doctor.variables import OF_JOB, OF_STACK

PATIENT_CODE = Path(__file__).resolve().parent / "patient"
OUTPUT_LIMIT = 1 << 20
"""Bytes of each stream that are kept of a command; one that writes more is ended."""
FILE_LIMIT_S = 5.0
"""For one question to a file system; a dead mount answers never."""
NVML_LIMIT_S = 20.0
"""For the whole of NVML; a node of 16 GPUs without persistence takes several seconds to wake up."""
RECORDING_SCHEMA = "llm-doctor/recording/v1"

INTERRUPTED = threading.Event()
"""Set by Ctrl-C: what is running ends at once, and so does what is begun later. The KeyboardInterrupt alone
does not do: raised inside a destructor it is lost."""

_COMMAND = "LLM_DOCTOR_COMMAND"
_COMMANDS = itertools.count(1)
"""Every command that is run has a number in its environment, by which its daemons are known."""

Answer = Mapping[str, Any]
Ask = Callable[..., Answer]


_ALLOWED_VARIABLE = re.compile(f"{OF_STACK}|{OF_JOB}")
SECRET_VARIABLE = re.compile(r"(?i)(token(?!iz)|secret|pass|(api|access|private)_?key|credential|cookie|jwt)")
"""Names of environment variables whose values are secrets."""
_NOBODYS_BUSINESS = re.compile(
    SECRET_VARIABLE.pattern + r"|(ADDR|HOST|HOSTS|NODELIST|NODE_ALIASES|USER|COMMENT|ACCOUNT|JOB_NAME)$"
)
"""The same, and those that name machines, people or projects."""


class Unavailable(Exception):
    """The machine cannot tell; the message is the reason, fit to print."""


class RecordingError(Exception):
    """A recording that cannot be replayed; the message says why in one line."""


class Completed(NamedTuple):
    """A command that ended. `problem` says why there is no exit status worth reading."""

    returncode: int | None
    stdout: str
    stderr: str
    result: str = ""
    problem: str | None = None


class Host:
    """Typed questions on top of `ask`. A real machine, a recording or a test stands behind it."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def env(self, name: str) -> str | None:
        """The value of an environment variable; None when unset."""
        return self._text("env", name)

    def which(self, program: str) -> str | None:
        """Where PATH finds a program."""
        return self._text("which", program)

    def read(self, path: str) -> str:
        """The text of a file, 1 MiB at most. Raises Unavailable with the system's reason."""
        return str(self._checked("read", path).get("text", ""))

    def exists(self, path: str) -> bool:
        """Whether something is there."""
        return bool(self._ask("exists", path).get("value"))

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there."""
        return bool(self._ask("is-folder", path).get("value"))

    def usable(self, path: str) -> bool | None:
        """Whether this process may read and write what is there; it is not opened. None where unknown."""
        value = self._ask("usable", path).get("value")
        return value if isinstance(value, bool) else None

    def runs(self, program: str) -> bool | None:
        """Whether a process of this name runs; None where the processes of others cannot be seen."""
        value = self._ask("runs", program).get("value")
        return value if isinstance(value, bool) else None

    def names(self, folder: str) -> list[str]:
        """The sorted names in a folder; empty when it is absent or unreadable."""
        return list(map(str, self._ask("names", folder).get("names", ())))

    def absolute(self, path: str) -> str:
        """The path from the root on, `~` resolved."""
        return self._text("absolute", path) or path

    def user_file(self, path: str, limit: int) -> bytes:
        """The bytes of a file that the user named; no recording has them. Raises Unavailable."""
        answer = _in_time(lambda: _answer(functools.partial(_user_file, limit), path))
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        data = answer["bytes"]
        assert isinstance(data, bytes)
        return data

    def user_files(self, paths: Sequence[str], limit: int) -> dict[str, bytes]:
        """The bytes of those of these files that can be read at once: `user_file` says why one cannot."""
        answer = _in_time(lambda: {"bytes": _readable(limit, paths)})
        return dict(answer.get("bytes", {}))

    def files_below(self, folder: str, suffixes: tuple[str, ...], limit: int) -> list[str]:
        """Files below a folder that the user named, with these suffixes, links not followed; `limit` at most.

        Folders of packages, caches and results are left out. Raises Unavailable."""
        answer = _in_time(lambda: _answer(functools.partial(_files_below, suffixes, limit), folder))
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        return list(answer["names"])

    def port(self, number: int) -> str | None:
        """Whether a server could listen at a TCP port: `free`, `taken` or `forbidden`; None if unknown."""
        return self._text("port", str(number))

    def resolve(self, name: str) -> tuple[bool | None, bool | None]:
        """Whether the system's resolver knows a host name, and whether it means this machine."""
        answer = self._ask("resolve", name)
        known, own = answer.get("value"), answer.get("own")
        return (known if isinstance(known, bool) else None, own if isinstance(own, bool) else None)

    def real(self, path: str) -> str:
        """The path with links resolved."""
        return self._text("real", path) or path

    def platform(self) -> Mapping[str, Any]:
        """`sys.platform`, the kernel release and machine as uname tells them, and the C library."""
        return self._ask("platform")

    def own_python(self) -> str:
        """The interpreter that the doctor itself runs in."""
        return self._text("own-python") or "python"

    def environment(self) -> dict[str, str]:
        """The variables of the allow list that are set. No other one is ever looked at."""
        variables = self._ask("environment").get("variables")
        return {str(k): str(v) for k, v in variables.items()} if isinstance(variables, dict) else {}

    def disks(self, paths: Sequence[str]) -> dict[str, Answer]:
        """Of each path what disks.py tells, asked in a child; one that does not answer has an `error`."""
        answers = self._checked("disks", *paths).get("disks")
        return (
            {str(k): v for k, v in answers.items() if isinstance(v, dict)}
            if isinstance(answers, dict)
            else {}
        )

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of the files below each folder in this one, links not followed."""
        return self._numbers("sizes", folder)

    def file_sizes(self, folder: str) -> dict[str, int]:
        """Bytes of each file in a folder, links followed; empty when it is absent or unreadable."""
        return self._numbers("file-sizes", folder)

    def locks(self, folder: str) -> list[tuple[str, float, bool | None]]:
        """The files called `lock` up to two folders below this one: path, seconds of age, whether held."""
        found = self._checked("locks", folder).get("locks")
        return [
            (str(lock["path"]), float(lock["age_s"]), lock.get("held"))
            for lock in (found if isinstance(found, list) else ())
        ]

    def kernel_log(self) -> list[str]:
        """Xid messages that NVIDIA's driver wrote to the kernel's log: few_of_each. Raises Unavailable."""
        return list(map(str, self._checked("kernel-log").get("lines", ())))

    def run(self, argv: Sequence[str], *, seconds: float) -> Completed:
        """Runs a command without a shell, its input empty, ended at the time limit."""
        return self._completed("run", str(seconds), *argv)

    def inventory(self, python: str, *, seconds: float) -> Completed:
        """Runs patient/inventory.py in an interpreter; `result` is what it wrote on its own descriptor."""
        return self._completed("inventory", str(seconds), python)

    def nvml(self) -> Answer:
        """What NVML says of driver and GPUs, asked in a child. Raises Unavailable."""
        return self._checked("nvml")

    # What comes back may be a recording that somebody has edited: nothing of its shape is taken for granted.

    def _text(self, *question: str) -> str | None:
        value = self._ask(*question).get("value")
        return value if isinstance(value, str) else None

    def _numbers(self, *question: str) -> dict[str, int]:
        sizes = self._ask(*question).get("sizes")
        known = sizes.items() if isinstance(sizes, dict) else ()
        return {str(name): size for name, size in known if isinstance(size, int)}

    def _completed(self, *question: str) -> Completed:
        answer = self._ask(*question)
        returncode, problem = answer.get("returncode"), answer.get("problem")
        return Completed(
            returncode=returncode if isinstance(returncode, int) else None,
            stdout=str(answer.get("stdout", "")),
            stderr=str(answer.get("stderr", "")),
            result=str(answer.get("result", "")),
            problem=problem if isinstance(problem, str) else None,
        )

    def _checked(self, *question: str) -> Answer:
        answer = self._ask(*question)
        if "error" in answer:
            raise Unavailable(str(answer["error"]))
        return answer


def allowed_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that decide how training runs; of a secret one only that it is set."""
    return {
        name: "(set)" if _NOBODYS_BUSINESS.search(name) and not name.endswith("_PATH") else value
        for name, value in sorted(environ.items())
        if _ALLOWED_VARIABLE.fullmatch(name)
    }


def real_host() -> Host:
    """The machine we are on."""
    return Host(_ask_machine)


class Recorder:
    """Asks the machine and keeps every answer; `recording()` is replayable JSON."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, ...], Answer] = {}

    def ask(self, *question: str) -> Answer:
        """The machine's answer, kept."""
        answer = _ask_machine(*question)
        if question[0] != "resolve":  # it names a machine
            self._answers[question] = answer
        return answer

    def recording(self, python: str | None) -> dict[str, Any]:
        """All that was asked, in order of question, and which patient was asked for."""
        answers = [
            {"asked": list(question), "answer": dict(answer)}
            for question, answer in sorted(self._answers.items())
        ]
        return {"schema": RECORDING_SCHEMA, "python": python, "answers": answers}


def replay_host(text: str) -> tuple[Host, str | None]:
    """The machine of a recording, and the patient that was asked for.

    Raises RecordingError when the text is none."""
    try:
        recording = json.loads(text)
        if recording["schema"] != RECORDING_SCHEMA:
            raise RecordingError(f"its schema is {recording['schema']!r}, not {RECORDING_SCHEMA!r}")
        answers = {tuple(map(str, entry["asked"])): dict(entry["answer"]) for entry in recording["answers"]}
        python = recording["python"]
        if not isinstance(python, (str, type(None))):
            raise RecordingError(f"its patient is {python!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordingError(f"not a recording ({type(error).__name__}: {error})") from error

    def ask(*question: str) -> Answer:
        if question in answers:
            return answers[question]
        reason = "not in the recording"
        if question[0] in ("run", "inventory"):
            return Completed(None, "", "", problem=reason)._asdict()
        return {"error": reason, "value": None}

    return Host(ask), python


# --- The real machine --------------------------------------------------------------------------------


_MOST_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
_SLOTS = threading.Semaphore(max(1, _MOST_FILES // 10 - 1) if _MOST_FILES != resource.RLIM_INFINITY else 100)
"""Questions at a time: one opens up to ten descriptors, and where a process may open few of them, the rest of
the doctor is still being loaded."""


def _ask_machine(*question: str) -> Answer:
    kind, arguments = question[0], question[1:]
    with _SLOTS:
        if kind in _FILE_QUESTIONS:
            return _in_time(lambda: _answer(_FILE_QUESTIONS[kind], *arguments))
        return _answer(_QUESTIONS[kind], *arguments)


def _answer(question: Callable[..., Answer], *arguments: str) -> Answer:
    try:
        return question(*arguments)
    except (OSError, ValueError, MemoryError) as error:  # ValueError: a path with a NUL in it
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return {"error": reason, "value": None}


class _Helper:
    """A thread that asks what may never be answered. One that hangs is left behind."""

    def __init__(self) -> None:
        self._questions: queue.SimpleQueue[Callable[[], Answer]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._answers.put(self._questions.get()())

    def ask(self, question: Callable[[], Answer]) -> Answer | None:
        """The answer; None where there was none in time, or Ctrl-C came before it."""
        self._questions.put(question)
        deadline = time.monotonic() + FILE_LIMIT_S
        while time.monotonic() < deadline and not INTERRUPTED.is_set():
            with contextlib.suppress(queue.Empty):
                return self._answers.get(timeout=0.1)
        return None


_HELPERS = threading.local()


def _in_time(ask: Callable[[], Answer]) -> Answer:
    """Asks through the helper of the thread that wants to know."""
    if not hasattr(_HELPERS, "mine"):
        try:
            _HELPERS.mine = _Helper()
        except RuntimeError:  # no further thread may be started
            return ask()
    answer: Answer | None = _HELPERS.mine.ask(ask)
    if answer is not None:
        return answer
    del _HELPERS.mine
    late = "was interrupted" if INTERRUPTED.is_set() else f"did not answer within {FILE_LIMIT_S:g} s"
    return {"error": late, "value": None}


def _read(path: str) -> Answer:
    with open(path, "rb") as file:
        return {"text": file.read(OUTPUT_LIMIT).decode("utf-8", "replace")}


def _user_file(limit: int, path: str) -> Answer:
    # Looked at before it is opened: opening sets some devices off, a watchdog for one.
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "folder" if stat.S_ISDIR(mode) else "device, pipe or socket"
        return {"error": f"it is a {kind}, not a file"}
    # Without blocking: files of /proc and /sys may have nothing to say yet.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_size > limit:
            return {
                "error": f"it is larger than {limit >> 20} MiB ({status.st_size / 1e6:.0f} MB): that is data"
            }
        return {"bytes": file.read(limit + 1) or b""}


def _readable(limit: int, paths: Sequence[str]) -> dict[str, bytes]:
    answers = {path: _answer(functools.partial(_user_file, limit), path) for path in paths}
    return {path: answer["bytes"] for path, answer in answers.items() if "error" not in answer}


_LEFT_OUT = frozenset(
    """
    __pycache__ node_modules site-packages venv env build dist wandb outputs runs checkpoints
    """.split()
)


def _files_below(suffixes: tuple[str, ...], limit: int, folder: str) -> Answer:
    found: list[str] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(it for it in folders if not it.startswith(".") and it not in _LEFT_OUT)
        for name in sorted(files):
            path = os.path.join(parent, name)
            if name.lower().endswith(suffixes) and not os.path.islink(path):
                found.append(os.path.normpath(path))
                if len(found) >= limit:
                    return {"names": found}
    return {"names": found}


def _platform() -> Answer:
    uname = os.uname()
    answer = {"platform": sys.platform, "kernel": uname.release, "machine": uname.machine}
    with contextlib.suppress(ValueError, OSError):  # musl and macOS know no such name
        answer["c_library"] = os.confstr("CS_GNU_LIBC_VERSION") or ""
    return answer


def _sizes(folder: str) -> Answer:
    sizes = {}
    with os.scandir(folder) as entries:
        folders = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    for path in folders:
        total = 0
        for parent, _, files in os.walk(path):
            for name in files:
                with contextlib.suppress(OSError):
                    info = os.lstat(os.path.join(parent, name))
                    total += info.st_size if stat.S_ISREG(info.st_mode) else 0
        sizes[os.path.basename(path)] = total
    return {"sizes": sizes}


def _file_sizes(folder: str) -> Answer:
    sizes = {}
    for name in os.listdir(folder):
        with contextlib.suppress(OSError):  # a link whose target is gone
            info = os.stat(os.path.join(folder, name))
            if stat.S_ISREG(info.st_mode):
                sizes[name] = info.st_size
    return {"sizes": sizes}


def _locks(folder: str) -> Answer:
    # torch/utils/file_baton.py makes the file anew, keeps it open while it builds, and removes it.
    locks = []
    for pattern in ("*/lock", "*/*/lock"):
        for path in Path(folder).glob(pattern):
            with contextlib.suppress(OSError):  # removed meanwhile
                status = path.stat()
                age = round(max(0.0, time.time() - status.st_mtime), 1)
                locks.append({"path": str(path), "age_s": age, "held": _is_open(status)})
    return {"locks": sorted(locks, key=lambda lock: str(lock["path"]))}


_PIDS_OF_THE_NODE = f"pid:[{0xEFFFFFFC}]"
"""PROC_PID_INIT_INO of Linux's include/linux/proc_ns.h."""


def _is_open(file: os.stat_result) -> bool | None:
    """Whether a process has this file open; None where some of them cannot be looked at."""
    hidden: bool | None = None
    with contextlib.suppress(OSError):
        # A container sees neither the processes of another one nor the node's.
        hidden = False if os.readlink("/proc/self/ns/pid") == _PIDS_OF_THE_NODE else None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            for descriptor in os.scandir(process / "fd"):
                with contextlib.suppress(OSError):
                    other = descriptor.stat()
                    if (other.st_dev, other.st_ino) == (file.st_dev, file.st_ino):
                        return True
        except PermissionError:
            # Nobody else builds in a folder that is ours.
            with contextlib.suppress(OSError):
                hidden = None if process.stat().st_uid == file.st_uid else hidden
        except OSError:
            continue
    return hidden


def _kernel_log() -> Answer:
    log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return {"lines": few_of_each(_records(log))}
    finally:
        os.close(log)


def _records(log: int) -> Iterator[str]:
    # Each read gives one record; without waiting, EAGAIN is the end and EPIPE a record that was overwritten.
    while True:
        try:
            record = os.read(log, 1 << 14).decode("utf-8", "replace")
        except BlockingIOError:
            return
        except BrokenPipeError:
            continue
        if not record:  # no log at all: a container may have /dev/null there
            raise OSError("/dev/kmsg is empty")
        yield record


KEPT_OF_EACH_XID = 20


def few_of_each(records: Iterable[str]) -> list[str]:
    """The Xid messages among records of /dev/kmsg, in their order: the last KEPT_OF_EACH_XID of each number
    and GPU, so that a program which fails for ever does not push out what was said of hardware."""
    kept: dict[str, collections.deque[tuple[int, str]]] = {}
    for at, record in enumerate(records):
        text = record.partition(";")[2].partition("\n")[0]
        xid = re.search(r"NVRM: Xid \([^)]*\): \d+", text)
        if xid is not None:
            kept.setdefault(xid[0], collections.deque(maxlen=KEPT_OF_EACH_XID)).append((at, text))
    return [text for _, text in sorted(itertools.chain.from_iterable(kept.values()))]


def _runs(program: str) -> Answer:
    # The kernel keeps 15 characters of a name. Only that one name is compared: others are nobody's business.
    processes = [name for name in os.listdir("/proc") if name.isdigit()]
    for process in processes:
        with contextlib.suppress(OSError), open(f"/proc/{process}/comm", "rb") as file:
            if file.read().strip().decode("utf-8", "replace") == program[:15]:
                return {"value": True}
    return {"value": False if "1" in processes else None}  # hidepid=2 hides the first one too


def _port(number: str) -> Answer:
    # As torch's TCPStore listens (torch/csrc/distributed/c10d/socket.cpp): on every address, IPv6 and then
    # IPv4, with SO_REUSEADDR. The port is given back at once.
    refusals = set()
    for family, address in ((socket.AF_INET6, "::"), (socket.AF_INET, "0.0.0.0")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as server:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                server.bind((address, int(number)))
                return {"value": "free"}
        except (OSError, OverflowError) as error:
            refusals.add(getattr(error, "errno", None))
    if errno.EADDRINUSE in refusals:
        return {"value": "taken"}
    return {"value": "forbidden" if errno.EACCES in refusals else None}


def _resolve(name: str) -> Answer:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            return {"value": False}
        return {"error": str(error), "value": None}  # the resolver does not answer: nothing is known
    except UnicodeError:  # a label is empty or too long
        return {"value": False}
    return {"value": True, "own": any(_is_own(family, address[0]) for family, _, _, _, address in found)}


def _is_own(family: int, address: Any) -> bool:
    """Only addresses of this machine can be bound to."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
            return True
    except OSError:
        return False


def _disks(*paths: str) -> Answer:
    # In a child: a process that waits for a dead mount may be impossible to end.
    script = Path(__file__).resolve().parent / "disks.py"
    disks: dict[str, Any] = {}
    for first in range(0, len(paths), 200):  # a node of Kubernetes has more than an argument may hold
        some = json.dumps(paths[first : first + 200])
        argv = [sys.executable, "-I", "-S", str(script), str(FILE_LIMIT_S), some]
        done = run_bounded(argv, seconds=FILE_LIMIT_S + 3.0, own_descriptor=True)
        try:
            disks.update(json.loads(done.result))
        except ValueError:
            return {"error": f"file systems: {done.problem or describe_status(done.returncode)}"}
    return {"disks": disks}


def _run(seconds: str, *argv: str) -> Answer:
    return run_bounded(argv, seconds=float(seconds))._asdict()


def _inventory(seconds: str, python: str) -> Answer:
    argv = [python, str(PATIENT_CODE / "inventory.py")]
    return run_bounded(argv, seconds=float(seconds), own_descriptor=True)._asdict()


def _nvml() -> Answer:
    # In a child: a driver that hangs or a library that crashes must not take the doctor along.
    # -I -S keeps the child's start at a few milliseconds; it gets our import path instead.
    script = Path(__file__).resolve().parent / "nvml.py"
    argv = [sys.executable, "-I", "-S", str(script), json.dumps(sys.path)]
    done = run_bounded(argv, seconds=NVML_LIMIT_S, own_descriptor=True)
    if done.problem is not None:
        return {"error": f"NVML {done.problem}"}
    try:
        answer: Answer = json.loads(done.result)
    except ValueError:
        return {"error": f"NVML ended with {describe_status(done.returncode)}"}
    return answer


_FILE_QUESTIONS: dict[str, Callable[..., Answer]] = {
    "which": lambda program: {"value": shutil.which(program)},
    "read": _read,
    "exists": lambda path: {"value": os.path.exists(path)},
    "is-folder": lambda path: {"value": os.path.isdir(path)},
    "usable": lambda path: {"value": os.access(path, os.R_OK | os.W_OK)},
    "runs": _runs,
    "sizes": _sizes,
    "file-sizes": _file_sizes,
    "kernel-log": _kernel_log,
    "locks": _locks,
    "port": _port,
    "resolve": _resolve,
    "names": lambda folder: {"names": sorted(os.listdir(folder))},
    "absolute": lambda path: {"value": os.path.abspath(os.path.expanduser(path))},
    "real": lambda path: {"value": os.path.realpath(path)},
}
_QUESTIONS: dict[str, Callable[..., Answer]] = {
    "env": lambda name: {"value": os.environ.get(name)},
    "environment": lambda: {"variables": allowed_variables(os.environ)},
    "platform": _platform,
    "disks": _disks,
    "own-python": lambda: {"value": sys.executable},
    "run": _run,
    "inventory": _inventory,
    "nvml": _nvml,
}


def describe_status(returncode: int | None) -> str:
    """An exit status in words: `exit status 3`, or `signal SIGSEGV`."""
    if returncode is None:
        return "no exit status"
    if returncode >= 0:
        return f"exit status {returncode}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-returncode).name}"
    return f"signal {-returncode}"


def run_bounded(argv: Sequence[str], *, seconds: float, own_descriptor: bool = False) -> Completed:
    """Runs argv in a session of its own; ends the whole session at the time limit or the output limit.

    With `own_descriptor` the number of a writable descriptor is appended to argv, and what is written
    there comes back as `result`, whatever the program prints."""
    pass_fds: tuple[int, ...] = ()
    streams: dict[int, bytearray] = {}
    result_read = -1
    arguments = list(argv)
    mark = f"{os.getpid()}-{next(_COMMANDS)}"
    there = _in_time(lambda: _answer(_FILE_QUESTIONS["exists"], arguments[0]))
    if "error" in there:  # on a dead mount: the kernel would never be done with starting it
        return Completed(None, "", "", problem=str(there["error"]))
    if own_descriptor:
        result_read, result_write = os.pipe()
        pass_fds = (result_write,)
        arguments.append(str(result_write))
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            # A Python that is started so leaves no compiled files beside its sitecustomize.
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", _COMMAND: mark},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        for descriptor in (result_read, *pass_fds):
            if descriptor >= 0:
                os.close(descriptor)
        reason = getattr(error, "strerror", None) or str(error)
        return Completed(None, "", "", problem=f"could not be started: {reason}")
    for descriptor in pass_fds:
        os.close(descriptor)
    assert process.stdout is not None and process.stderr is not None
    try:
        problem = None
        with selectors.DefaultSelector() as selector:
            watched = [process.stdout.fileno(), process.stderr.fileno()]
            watched += [result_read] if own_descriptor else []
            for descriptor in watched:
                streams[descriptor] = bytearray()
                selector.register(descriptor, selectors.EVENT_READ)
            problem = _collect(process, selector, streams, time.monotonic() + seconds, seconds)
    finally:
        end_session(process)
        _end_daemons(process.pid, f"{_COMMAND}={mark}")
        process.stdout.close()
        process.stderr.close()
        if result_read >= 0:
            os.close(result_read)
    texts = [bytes(stream).decode("utf-8", "replace") for stream in streams.values()]
    return Completed(process.returncode, texts[0], texts[1], "".join(texts[2:]), problem)


def _collect(
    process: subprocess.Popen[bytes],
    selector: selectors.BaseSelector,
    streams: dict[int, bytearray],
    deadline: float,
    seconds: float,
) -> str | None:
    while selector.get_map():
        remaining = deadline - time.monotonic()
        if INTERRUPTED.is_set():
            return "was interrupted"
        if remaining <= 0:
            return f"did not end within {seconds:g} s"
        for key, _ in selector.select(min(remaining, 0.2)):
            chunk = os.read(key.fd, 1 << 16)
            streams[key.fd] += chunk
            if not chunk:
                selector.unregister(key.fd)
            elif len(streams[key.fd]) > OUTPUT_LIMIT:
                return f"wrote more than {OUTPUT_LIMIT >> 20} MiB"
        if process.poll() is not None and not selector.select(0):
            return None  # ended; a grandchild may keep the pipes open for ever
    while process.poll() is None:  # it has closed its descriptors and goes on
        if INTERRUPTED.is_set():
            return "was interrupted"
        if time.monotonic() > deadline:
            return f"did not end within {seconds:g} s"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    return None


def end_session(process: subprocess.Popen[bytes]) -> None:
    """Kills a process started in a session of its own, with all that it started, and reaps it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds on to it: left behind
        process.wait(5.0)


def _end_daemons(parent: int, mark: str) -> None:
    """Kills what a command started in sessions of their own; its environment still tells where it is from.

    Only later numbers are looked at: a node has thousands of processes, and theirs wrap rarely."""
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) > parent:
                with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
                    if mark.encode() in file.read().split(b"\0"):
                        os.kill(int(name), signal.SIGKILL)


# --- The worker in the patient -------------------------------------------------------------------------

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
_CACHE_VARIABLES = (
    "CUDA_CACHE_PATH",
    "HF_HOME",
    "TORCH_EXTENSIONS_DIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "TRITON_CACHE_DIR",
    "XDG_CACHE_HOME",
    "MPLCONFIGDIR",
)
_OVERRIDING_CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE", "HF_MODULES_CACHE")


@contextlib.contextmanager
def temporary_folder() -> Iterator[str]:
    """A folder that is gone afterwards. Raises Unavailable when none can be made."""
    try:
        folder = tempfile.mkdtemp(prefix="llm-doctor-")
    except OSError as error:
        raise Unavailable(f"no temporary folder can be written ({error.strerror or error})") from error
    try:
        yield folder
    finally:
        remove_scratch_folders(folder)
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch_folders(folder: str) -> None:
    """Removes what killed arms left outside the temporary folder; see scratch_folder() in patient/arms.py."""
    with contextlib.suppress(OSError), open(os.path.join(folder, "scratch-folders")) as made:
        for path in made.read().splitlines():
            if os.path.basename(path).startswith(".llm-doctor-"):
                shutil.rmtree(path, ignore_errors=True)


def worker_environment(folder: str) -> dict[str, str]:
    """The environment of a worker: one thread an arm, no network, every cache in a temporary folder.

    One thread: thirty arms take 1-2 s so and 7-8 s otherwise, and no thread pool is there to be lost in
    a fork."""
    environment = {k: v for k, v in os.environ.items() if k not in (*_OVERRIDING_CACHES, "LLM_DOCTOR_GPU")}
    environment.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    environment.update({name: os.path.join(folder, name.lower()) for name in _CACHE_VARIABLES})
    environment.update(
        TMPDIR=folder,
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        TOKENIZERS_PARALLELISM="false",
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONUNBUFFERED="1",
    )
    return environment


def _current_folder_is_there() -> bool:
    try:
        return os.access(os.getcwd(), os.R_OK | os.X_OK)
    except OSError:
        return False


class WorkerProcess:
    """patient/worker.py, running in the patient: commands go in and events come out as JSON lines."""

    def __init__(self, python: str, folder: str) -> None:
        """Starts it. Raises Unavailable when the interpreter cannot be started."""
        events_read, events_write = os.pipe()
        self._tail = bytearray()
        try:
            self._process = subprocess.Popen(
                [python, str(PATIENT_CODE / "worker.py"), str(events_write)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(events_write,),
                env=worker_environment(folder),
                # Not a library is loaded where the current folder cannot be told.
                cwd=None if _current_folder_is_there() else folder,
                start_new_session=True,
            )
        except OSError as error:
            os.close(events_read)
            raise Unavailable(f"could not be started: {error.strerror or error}") from error
        finally:
            os.close(events_write)
        self._events = events_read
        self._buffer = bytearray()
        self._groups: set[int] = set()
        self._drainer = threading.Thread(target=self._drain, daemon=True)
        self._drainer.start()

    def _drain(self) -> None:
        stderr = self._process.stderr
        assert stderr is not None
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stderr.fileno(), 1 << 16):
                self._tail = (self._tail + chunk)[-4096:]

    def send(self, command: Mapping[str, Any]) -> None:
        """Hands the worker a command; one that has died is noticed by `receive`."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next event; None when none came in time. Raises EOFError when the worker is gone."""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                remaining = deadline - time.monotonic()
                if INTERRUPTED.is_set():
                    raise KeyboardInterrupt
                if remaining <= 0:
                    return None
                if not selector.select(min(remaining, 0.5)):
                    continue
                chunk = os.read(self._events, 1 << 16)
                if not chunk:
                    raise EOFError(self.describe_end())
                self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            event: dict[str, Any] = json.loads(line)
            if "group" in event:
                self._groups.add(int(event["group"]))
        except (ValueError, TypeError):
            return {"event": "unreadable"}
        return event

    def work_done(self) -> int | None:
        """Grows while the worker and what it started compute or read; None where that cannot be seen."""
        total = None
        with contextlib.suppress(OSError):
            for name in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    with open(f"/proc/{name}/stat", "rb") as file:
                        fields = file.read().rpartition(b")")[2].split()
                    if int(fields[3]) == self._process.pid:  # its session
                        total = (total or 0) + int(fields[11]) + int(fields[12])
                        with open(f"/proc/{name}/io", "rb") as file:
                            total += int(file.readline().split()[1])
        return total

    def describe_end(self) -> str:
        """How the worker ended, with the last line that it wrote."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        lines = bytes(self._tail).decode("utf-8", "replace").strip().splitlines()
        last = f" ({lines[-1].strip()[:300]})" if lines else ""
        return describe_status(self._process.poll()) + last

    def _is_ours(self, group: int) -> bool:
        """Whether it is not somebody else's by now; nobody gets its number while it has members."""
        try:
            return os.getsid(group) == self._process.pid
        except ProcessLookupError:  # its leader has ended
            return True

    def stop(self) -> None:
        """Ends the worker and every process that it started."""
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        # Asked first, so that it can end what its jobs started in sessions of their own.
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(2.0)
        end_session(self._process)
        for group in filter(self._is_ours, self._groups):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
        self._drainer.join(2.0)
        if self._process.stderr is not None:
            self._process.stderr.close()
        os.close(self._events)
