"""Processes of this node that add a tensor up between them, each step told, and why it fails where it does.

Ranks are forked (gloo: torch is there already) or started anew (NCCL: a fork cannot use CUDA). Run as a
program this file is one rank: its arguments as JSON in argv.
"""

import sys

if __name__ == "__main__":
    _HERE = __file__.rpartition("/")[0]
    sys.path[:] = [entry for entry in sys.path if entry not in (_HERE, "")]

import ctypes
import datetime
import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from typing import Any, Dict, List, Optional, Tuple

STEPS = {
    "start": "starting",
    "store": "meeting at the store",
    "group": "making the process group",
    "all-reduce": "the all-reduce",
}
NUMBERS = 1 << 20
"""4 MiB: more than fits into the first buffers, so that every transport really carries data."""
ROOM_FOR_NCCL = 64 << 20
"""Bytes in /dev/shm below which a lack of them explains a failure of NCCL."""


def rank_of(rank: int, ranks: int, backend: str, host: str, port: int, limit_s: float, told: int) -> None:
    """One rank's whole life; what it does next, or its error, goes to the descriptor `told`."""

    def tell(**message: Any) -> None:
        os.write(told, (json.dumps(message) + "\n").encode())

    try:
        _die_with_parent()
        import torch
        import torch.distributed as dist

        limit = datetime.timedelta(seconds=limit_s)
        tell(step="store")
        store = dist.TCPStore(host, port, ranks, rank == 0, limit)
        tell(step="group")
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=limit)
        tell(step="all-reduce")
        if backend == "nccl":
            torch.cuda.set_device(rank)
        tensor = torch.full((NUMBERS,), rank + 1.0, device="cuda" if backend == "nccl" else "cpu")
        dist.all_reduce(tensor)
        sums = {float(tensor[0]), float(tensor[-1])}
        if sums != {ranks * (ranks + 1) / 2}:
            raise RuntimeError("the sum is wrong: %s" % sorted(sums))
        dist.barrier()  # nobody leaves while another still reads
        tell(step="done")
    except BaseException as error:
        tell(error=("%s: %s" % (type(error).__name__, str(error).strip()))[:1000])
    finally:
        os._exit(0)  # destructors of a half-made group may wait for ever


def _die_with_parent() -> None:
    try:
        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
    except (OSError, AttributeError):  # not Linux
        pass


class Outcome:
    """What the ranks did within the limit; `error` is empty when all of them got through."""

    def __init__(self, steps: Dict[int, str], errors: Dict[int, str], output: str, seconds: float) -> None:
        self.steps, self.errors, self.output, self.seconds = steps, errors, output, seconds

    @property
    def error(self) -> str:
        """The first rank's error, or where the ranks were when their time was out."""
        if all(step == "done" for step in self.steps.values()):
            return ""
        for rank in sorted(self.errors):
            return "rank %d in %s: %s" % (rank, STEPS[self.steps[rank]], self.errors[rank])
        waiting = [rank for rank in sorted(self.steps) if self.steps[rank] != "done"]
        where = sorted({STEPS[self.steps[rank]] for rank in waiting})
        return "hangs in %s for %.3g s" % (" and ".join(where), self.seconds)


def attempt(backend: str, host: str, ranks: int, limit_s: float, gpus: Optional[List[str]] = None) -> Outcome:
    """Runs the ranks with the environment as it is; none of them outlives the call."""
    began = time.monotonic()
    port = _free_port()
    running: Dict[int, Tuple[int, int]] = {}
    buffers = dict.fromkeys(range(ranks), b"")
    with tempfile.TemporaryFile() as output:
        try:
            for rank in range(ranks):
                told, tells = os.pipe()
                arguments = {
                    "rank": rank,
                    "ranks": ranks,
                    "backend": backend,
                    "host": host,
                    "port": port,
                    "limit_s": limit_s,
                    "told": tells,
                }
                running[rank] = (_started(arguments, output.fileno(), gpus), told)
                os.close(tells)
            waiting = {told: rank for rank, (_, told) in running.items()}
            deadline = began + limit_s + 3.0  # torch's own limit comes first, and says more
            while waiting and time.monotonic() < deadline:
                for told in select.select(list(waiting), [], [], 0.1)[0]:
                    chunk = os.read(told, 1 << 16)
                    buffers[waiting[told]] += chunk
                    if not chunk:
                        del waiting[told]
        finally:
            statuses = {rank: _ended(pid) for rank, (pid, _) in running.items()}
            for _, told in running.values():
                os.close(told)
        output.seek(0)
        text = output.read()[-4096:].decode("utf-8", "replace")
    steps, errors = dict.fromkeys(buffers, "start"), {}
    for rank, said in buffers.items():
        for line in said.splitlines():
            message = json.loads(line)
            steps[rank] = message.get("step", steps[rank])
            if "error" in message:
                errors[rank] = message["error"]
        if steps[rank] != "done" and rank not in errors and statuses[rank] not in ("", "SIGKILL"):
            errors[rank] = "killed by %s" % statuses[rank]
    return Outcome(steps, errors, text, time.monotonic() - began)


def _started(arguments: Dict[str, Any], output: int, gpus: Optional[List[str]]) -> int:
    if gpus is not None:
        return subprocess.Popen(
            [sys.executable, os.path.abspath(__file__), json.dumps(arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(arguments["told"],),
            env=dict(os.environ, CUDA_VISIBLE_DEVICES=",".join(gpus), NCCL_DEBUG="WARN"),
        ).pid
    pid = os.fork()
    if pid == 0:
        os.dup2(output, 1)
        os.dup2(output, 2)
        rank_of(**arguments)
    return pid


def _ended(pid: int) -> str:
    """Ends a rank and reaps it; the signal that ended it, if one did."""
    try:
        os.kill(pid, signal.SIGKILL)
        status = os.waitpid(pid, 0)[1]
    except OSError:
        return ""
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else ""


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("", 0))
        return int(server.getsockname()[1])


# --- Why ------------------------------------------------------------------------------------------------


def why(backend: str, host: str, outcome: Outcome) -> str:
    """The reason of a failure as far as this node shows it; empty where it shows none."""
    if "store" in outcome.steps.values():
        reason = _of_address(host)
        if reason:
            return reason
    variable = "%s_SOCKET_IFNAME" % backend.upper()
    there = _interfaces()
    wanted = os.environ.get(variable, "")
    if wanted and there and not names_one(wanted, there, exact=backend == "gloo"):
        return "%s=%s names no interface of this node (%s)" % (variable, wanted, ", ".join(there))
    if backend == "nccl":
        free = _free_bytes("/dev/shm")
        if free is not None and free < ROOM_FOR_NCCL:
            return "/dev/shm has %d MiB free" % (free >> 20)
        warnings = [line for line in outcome.output.splitlines() if " NCCL WARN " in line]
        return warnings[0].partition(" NCCL WARN ")[2].strip()[:300] if warnings else ""
    return ""


def _of_address(host: str) -> str:
    name = "this node's own name" if host == socket.gethostname() else host
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return "%s does not resolve" % name
    for family, _, _, _, address in found:
        with socket.socket(family, socket.SOCK_STREAM) as server:
            try:
                server.bind((address[0], 0))
            except OSError:
                continue
            server.listen(1)
            try:
                with socket.create_connection(server.getsockname()[:2], timeout=2.0):
                    return ""
            except OSError as error:
                return "a connection from this node to %s fails (%s)" % (name, error)
    return "%s resolves to an address that is not this node's" % name


def _interfaces() -> List[str]:
    try:
        return sorted(os.listdir("/sys/class/net"))
    except OSError:
        return []


def names_one(wanted: str, there: List[str], exact: bool) -> bool:
    """Whether a *_SOCKET_IFNAME leaves an interface to use of those that are there.

    gloo (`exact`) makes a device of every name and fails at one that is not there. NCCL takes what begins
    with one of them, after `=` what is one of them, after `^` all the others; a name ends at a colon."""
    if exact:
        return set(wanted.split(",")) <= set(there)
    others = wanted.startswith("^")
    wanted = wanted[1:] if others else wanted
    if wanted.startswith("="):
        wanted, exact = wanted[1:], True
    names = [name.partition(":")[0] for name in wanted.split(",") if name]
    named = {it for it in there for name in names if it == name or (not exact and it.startswith(name))}
    return bool(set(there) - named if others else named)


def _free_bytes(folder: str) -> Optional[int]:
    try:
        room = os.statvfs(folder)
    except OSError:
        return None
    return room.f_bavail * room.f_frsize


if __name__ == "__main__":
    rank_of(**json.loads(sys.argv[1]))
