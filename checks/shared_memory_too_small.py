"""The shared memory of the container (/dev/shm) is too small for the data loader's workers."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import Finding, Fix, Gpu, Gpus, Mount, Mounts, Subject, System
from llm_doctor.units import gib
from llm_doctor.workload.data import Place, Training, Value, Workload
from llm_doctor.workload.models import loads_in_workers

SHM = "/dev/shm"
SMALL_BYTES = 64 << 20


class SharedMemoryTooSmall(Check):
    """The shared memory of the container (/dev/shm) is too small for the data loader's workers.

    ## What it finds

    A /dev/shm with no more than 64 MiB of room, which is what Docker and Kubernetes give a container that
    asks for nothing, or that others have filled: a warning where it will be met (several GPUs, which NCCL
    joins through it; a data loader with workers in the workload), else a note. In a log: workers that die of
    a bus error, and shared memory that cannot be made or written.

    ## Why it breaks

    A data loader's workers hand batches over through files in /dev/shm, each worker two batches ahead. NCCL
    puts buffers of some 10 MB for each pair of GPUs and channel there wherever they have no peer access.
    What is written beyond the room ends in SIGBUS, which kills the worker without a word of its own.

    ## How it is proven

    The room is read from the file system, as `df /dev/shm` does. Nothing is filled to try it: what other
    processes keep there would be hit. What NCCL needs is tried by process-group-broken.

    ## Fix

    More shared memory for the container, or no workers.

    ## References

    - https://github.com/pytorch/pytorch/issues/5040
    - https://docs.docker.com/reference/cli/docker/container/run/ (`--shm-size`, 64 MB by default)
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html (shared memory)
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/utils/data/_utils/signal_handling.py
    - https://pytorch.org/docs/stable/multiprocessing.html
    """

    name = "shared-memory-too-small"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    url = "https://github.com/pytorch/pytorch#docker-image"
    symptoms = (
        Symptom(
            pattern=r"DataLoader worker \(pid(?:\(s\))? [\d,\x20]{1,60}\) is killed by signal: Bus error",
            example="RuntimeError: DataLoader worker (pid 13) is killed by signal: Bus error.",
            counter_example="RuntimeError: DataLoader worker (pid 13) is killed by signal: Killed.",
        ),
        Symptom(
            pattern=r"is killed by signal: Bus error",
            example="is killed by signal: Bus error. It is possible that dataloader's workers are out of"
            " shared memory.",
            counter_example="is killed by signal: Killed.",
        ),
        Symptom(
            pattern=r"insufficient shared memory \(shm\)",
            example="ERROR: Unexpected bus error encountered in worker. This might be caused by"
            " insufficient shared memory (shm).",
            counter_example="shared memory is enough",
        ),
        Symptom(
            pattern=r"dataloader`s workers are out of shared memory",
            example="It is possible that dataloader's workers are out of shared memory. Please try to"
            " raise your shared memory limit.",
            counter_example="the workers share memory",
        ),
        Symptom(
            pattern=r"unable to (?:write to|open shared memory object|allocate shared memory\(shm\)"
            r" for|resize|mmap|open) ?(?:file|object)?"
            r" ?<(?P<file>/?(?:dev/shm/)?torch_\w{1,60}|/[\w/.-]{1,80})>"
            r"[^\n]{0,40}: No space left on device|unable to write to file </torch_",
            example="RuntimeError: unable to write to file </torch_18692_1954506624>",
            counter_example="unable to open shared memory object </torch_1_2> in read-write mode: Too"
            " many open files (24)",
        ),
        Symptom(
            pattern=r"unable to allocate shared memory\(shm\) for file",
            example="RuntimeError: unable to allocate shared memory(shm) for file </torch_2_3_1>: No"
            " space left on device (28)",
            counter_example="unable to allocate memory for the file",
        ),
        Symptom(
            pattern=r"unable to open shared memory object <(?P<file>[^>\n]{1,120})> in read-write"
            r" mode(?!: Too many open files)",
            example="RuntimeError: unable to open shared memory object </torch_1_2> in read-write mode:"
            " No space left on device (28)",
            counter_example="unable to open shared memory object </torch_1_2> in read-write mode: Too"
            " many open files (24)",
            sure="likely",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Bus error \(core dumped\)|(?:signal 7|Signal 7|SIGBUS)\b[^\n]{0,60}",
            example="Bus error (core dumped)",
            counter_example="Segmentation fault (core dumped)",
            sure="likely",
            standing="aftermath",
            cause="A process died of a bus error: shared memory (/dev/shm) ran out, or a mapped file"
            " became shorter",
        ),
        Symptom(
            pattern=r"No space left on device:"
            r" `/dev/shm|multiprocessing/(?:synchronize|context|shared_memory|heap)\.py[\s\S]{0,300}?No"
            r" space left on device",
            example="OSError: [Errno 28] No space left on device: '/dev/shm/psm_1a2b'",
            counter_example="OSError: [Errno 28] No space left on device: '/root/.cache'",
        ),
        Symptom(
            pattern=r"The object store is using /tmp/ray instead of /dev/shm because /dev/shm has only"
            r" (?P<free>\d{1,15}) bytes available",
            example="WARNING: The object store is using /tmp/ray instead of /dev/shm because /dev/shm has"
            " only 67108864 bytes available.",
            counter_example="The object store uses /dev/shm",
            standing="hint",
            cause="/dev/shm has only {free} bytes: Ray uses the disk in its place",
        ),
    )
    remedies = (
        remedy("give the container more", "docker run --shm-size=16g ...   # or --ipc=host"),
        remedy(
            "in Kubernetes mount memory there",
            "volumes:\n- name: shm\n  emptyDir: {{medium: Memory}}\nvolumeMounts:\n- {{name: shm,"
            " mountPath: /dev/shm}}",
            "config",
        ),
        remedy("load in the main process", "--dataloader_num_workers 0"),
        remedy("see how much there is", "df -h /dev/shm"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """By the room that is left; what will meet it decides how bad that is."""
        shm = next((mount for mount in case.fact(Mounts).mounts if mount.path == SHM), None)
        if shm is None:
            raise CannotTell(f"nothing is mounted at {SHM}")
        if shm.total_bytes is None or shm.free_bytes is None:
            raise CannotTell(f"{SHM}: {shm.problem or 'its size is not known'}")
        if shm.free_bytes > SMALL_BYTES:
            return
        gpus = case.known(Gpus)
        joined = len(gpus.gpus) if gpus is not None else 0
        workers = case.workload is not None and loads_in_workers(case.workload) is True
        needs = "a data loader's workers and NCCL" if joined > 1 else "a data loader's workers"
        room = f"{gib(shm.free_bytes)} of {gib(shm.total_bytes)} are free in {SHM}"
        if shm.total_bytes <= SMALL_BYTES:
            room = f"{SHM} holds {gib(shm.total_bytes)}"
        yield Suspicion(
            Finding(
                severity="warning" if joined > 1 or workers else "note",
                confidence="certain" if workers else "likely",
                message=f"{room}: little for {needs}",
                subject=Subject(kind="limit", path=SHM),
                evidence={"total_bytes": shm.total_bytes, "free_bytes": shm.free_bytes, "gpus": joined},
                fixes=tuple(_fixes(case, shm)),
            )
        )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """A workload of one process without workers needs none."""
        alone = bool(workload.launches) and all(it.world_size == 1 for it in workload.launches)
        return not (alone and loads_in_workers(workload) is False)

    def remark(self, case: Case, results: object) -> str | None:
        """The room that there is."""
        shm = case.fact(Mounts).of(SHM)
        return f"{gib(shm.free_bytes)} are free" if shm is not None and shm.free_bytes is not None else None

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _fixes(case: Case, shm: Mount) -> Iterator[Fix]:
    if shm.total_bytes is not None and shm.total_bytes > SMALL_BYTES:
        yield Fix(
            title="see what fills it, and remove what jobs that have ended left there",
            kind="command",
            applicability="manual",
            preview=f"ls -la {SHM}",
        )
        return
    system = case.known(System)
    container = system.container if system is not None else None
    if container == "kubernetes":
        preview = "volumes:\n- name: shm\n  emptyDir: {medium: Memory}"
        preview += f"\nvolumeMounts:\n- {{name: shm, mountPath: {SHM}}}"
        yield Fix(title="mount memory there", kind="config", applicability="manual", preview=preview)
    elif container in ("docker", "podman"):
        preview = f"{container} run --shm-size=16g ...   # or --ipc=host"
        yield Fix(title="give the container more", kind="command", applicability="manual", preview=preview)
    else:
        yield Fix(
            title="make it larger",
            kind="command",
            applicability="manual",
            preview=f"sudo mount -o remount,size=16g {SHM}",
        )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def mounted(total: int, free: int) -> Mounts:
        shm = Mount(
            path=SHM,
            filesystem="tmpfs",
            device="shm",
            kind="memory",
            read_only=False,
            total_bytes=total,
            free_bytes=free,
        )
        return Mounts(mounts=(shm,))

    docker = System(os="Debian", kernel="6.1", machine="x86_64", container="docker")
    two = Gpus(driver="580.65", gpus=(Gpu(index=0), Gpu(index=1)))
    here = Place("train.py", 3)
    training = Training(place=here, settings={"dataloader_num_workers": Value(4, here)})
    yield healthy("half of the memory", case_of(mounted(32 << 30, 32 << 30), two))
    yield sick(
        "a container of Docker without GPUs",
        case_of(mounted(64 << 20, 64 << 20), docker),
        "note: /dev/shm holds 64 MiB: little for a data loader's workers",
    )
    yield sick(
        "the same, and workers in the workload",
        msgspec.structs.replace(
            case_of(mounted(64 << 20, 64 << 20), docker), workload=Workload(trainings=(training,))
        ),
        "warning: /dev/shm holds 64 MiB: little for a data loader's workers",
    )
    yield sick(
        "filled by jobs that have ended, beside two GPUs",
        case_of(mounted(32 << 30, 1 << 20), two),
        "warning: 1 MiB of 32 GiB are free in /dev/shm: little for a data loader's workers and NCCL",
    )
    yield cannot_tell("no such mount", case_of(Mounts()), "nothing is mounted at /dev/shm")
