"""The GPU does not accept another process, or others hold its memory."""

from __future__ import annotations

from typing import Iterable, Iterator

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
from llm_doctor.checks.visible_devices_wrong import job_gpus
from llm_doctor.model import Environment, Finding, Fix, Gpu, GpuProcess, Gpus, Severity, Subject
from llm_doctor.places import IDLE_FREE
from llm_doctor.units import gib


class GpuBusy(Check):
    """The GPU does not accept another process, or others hold its memory.

    ## What it finds

    Of the GPUs that the job may use and that MIG does not divide: those in compute mode prohibited, those in
    mode exclusive-process that a process already has, and those of whose memory more than a quarter is in
    use, by processes that can be seen or, from within a container, cannot. In a log: CUDA error 46, devices
    that are busy or unavailable.

    ## Why it breaks

    In compute mode EXCLUSIVE_PROCESS one process alone may use a GPU; in PROHIBITED none. A process that
    hangs keeps it, and what it holds of the memory is missing to the next one. The message of the log comes
    from a GPU in a broken MIG state as well, and from WSL and containers whose driver does not fit.

    ## How it is proven

    By what the driver counts. A GPU that somebody uses is left alone: nothing is tried there.

    ## Fix

    End what holds the GPU, use another, or set the compute mode back.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html (nvmlComputeMode_t)
    - https://github.com/NVIDIA/DIGITS/issues/2005
    - https://github.com/cositools/cosipy/issues/631
    """

    name = "gpu-busy"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (Gpus,)
    url = "https://github.com/NVIDIA/DIGITS/issues/2005"
    symptoms = (
        Symptom(
            pattern=r"all (?:CUDA|cuda)-capable devices are busy or unavailable",
            example="RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
            counter_example="CUDA error: out of memory",
        ),
        Symptom(
            pattern=r"CUDA-capable device(?:\(s\))? is/are busy or unavailable",
            example="RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            counter_example="CUDA error: out of memory",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_DEVICE_UNAVAILABLE|cudaErrorDevicesUnavailable|"
            r"cudaErrorDeviceAlreadyInUse|CUDA error: exclusive-thread device already in "
            r"use",
            example="CUDA_ERROR_DEVICE_UNAVAILABLE: CUDA-capable device(s) is/are busy or unavailable",
            counter_example="CUDA_ERROR_OUT_OF_MEMORY",
        ),
        Symptom(
            pattern=r"NVMLError_InUse|CUDA error: MPS (?:server is not ready to accept new|"
            r"client failed to connect to the MPS)|CUDA error: the remote procedural "
            r"call between the MPS",
            example="RuntimeError: CUDA error: MPS client failed to connect to the MPS control "
            "daemon or the MPS server",
            counter_example="Started MPS control daemon",
            cause="CUDA's multi-process service does not accept this process",
            fixes=(remedy("stop the service, or start it anew", "echo quit | nvidia-cuda-mps-control"),),
        ),
    )
    remedies = (
        remedy(
            "see who holds the GPUs, and their compute mode",
            "nvidia-smi --query-gpu=index,compute_mode,mig.mode.current --format=csv && nvidia-smi "
            "--query-compute-apps=pid,gpu_uuid,used_memory --format=csv",
        ),
        remedy("use one that is free", "export CUDA_VISIBLE_DEVICES=1", "environment"),
        remedy("allow more than one process again", "sudo nvidia-smi -c DEFAULT"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Each GPU that the job may use; of the others nobody asked."""
        gpus = case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        mine = job_gpus(case)
        free = [gpu.index for gpu in gpus.gpus if gpu.problem is None and not gpu.mig and not _in_use(gpu)]
        for gpu in gpus.gpus:
            # The parts of a divided GPU belong to other jobs, and NVML counts memory and processes of all.
            if gpu.index in mine and gpu.problem is None and not gpu.mig:
                for finding in _judged(gpu, free):
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _in_use(gpu: Gpu) -> bool:
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    return bool(gpu.processes) or (bool(total) and free is not None and free < IDLE_FREE * (total or 0))


def _judged(gpu: Gpu, free: list[int]) -> Iterator[Finding]:
    others = gpu.processes or ()
    what = f"GPU {gpu.index} ({gpu.name})"
    shared = remedy("allow more than one process again", f"sudo nvidia-smi -i {gpu.index} -c DEFAULT")
    if gpu.compute_mode == "prohibited":
        yield _finding(
            gpu, "error", f"{what} is in compute mode prohibited: no process may use it", (shared,)
        )
        return
    if gpu.compute_mode in ("exclusive-process", "exclusive-thread") and others:
        message = (
            f"{what} is in compute mode {gpu.compute_mode}, and {_named(others)} has it: no other may use it"
        )
        yield _finding(gpu, "error", message, (shared,))
        return
    total, left = gpu.memory_total_bytes, gpu.memory_free_bytes
    if not _in_use(gpu) or total is None or left is None or left >= IDLE_FREE * total:
        return  # a process that holds next to nothing, as a display does
    by = f"held by {_named(others)}" if others else "and who holds the rest cannot be seen from here"
    choose = [
        remedy("use one that is free", f"export CUDA_VISIBLE_DEVICES={number}", "environment")
        for number in free[:1]
    ]
    end = [remedy("end it, where it is yours and of no use any more", f"kill {it.pid}") for it in others[:1]]
    yield _finding(gpu, "warning", f"{what}: {gib(left)} of {gib(total)} are free, {by}", (*choose, *end))


def _finding(gpu: Gpu, severity: Severity, message: str, fixes: tuple[Fix, ...]) -> Finding:
    return Finding(
        severity=severity,
        confidence="certain",
        message=message,
        subject=Subject(kind="gpu", gpu=gpu.index),
        evidence={"processes": [it.pid for it in gpu.processes or ()], "free_bytes": gpu.memory_free_bytes},
        fixes=fixes,
    )


def _named(processes: tuple[GpuProcess, ...]) -> str:
    first = processes[0]
    memory = f" ({gib(first.memory_bytes)})" if first.memory_bytes else ""
    more = f" and {len(processes) - 1} more" if len(processes) > 1 else ""
    return f"process {first.pid}{memory}{more}"


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(free_gib: int, *pids: int, mode: str = "default") -> Gpus:
        processes = tuple(GpuProcess(pid=pid, memory_bytes=20 << 30) for pid in pids)
        busy, idle = (
            Gpu(
                index=index,
                name="Tesla V100-SXM2-32GB",
                memory_total_bytes=32 << 30,
                memory_free_bytes=left << 30,
                processes=holders,
                compute_mode=mode,
            )
            for index, left, holders in ((0, free_gib, processes), (1, 32, ()))
        )
        return Gpus(driver="535.183.01", gpus=(busy, idle) if mode == "default" else (busy,))

    yield healthy("two idle GPUs", case_of(node(32)))
    yield healthy("a display holds a little", case_of(node(31, 900)))
    yield healthy(
        "the one in use is hidden from the job",
        case_of(node(12, 4242), Environment(variables={"CUDA_VISIBLE_DEVICES": "1"})),
    )
    yield sick(
        "another job is on it",
        case_of(node(12, 4242)),
        "warning: GPU 0 (Tesla V100-SXM2-32GB): 12 GiB of 32 GiB are free, held by process 4242 (20 GiB)",
    )
    yield sick(
        "a container does not see who it is",
        case_of(node(2)),
        "warning: GPU 0 (Tesla V100-SXM2-32GB): 2 GiB of 32 GiB are free, and who holds the rest cannot be"
        " seen from here",
    )
    yield sick(
        "one process alone may use it, and one does",
        case_of(node(30, 4242, mode="exclusive-process")),
        "error: GPU 0 (Tesla V100-SXM2-32GB) is in compute mode exclusive-process, and process 4242 (20 GiB)"
        " has it: no other may use it",
    )
    yield sick(
        "nobody may use it",
        case_of(node(32, mode="prohibited")),
        "error: GPU 0 (Tesla V100-SXM2-32GB) is in compute mode prohibited: no process may use it",
    )
    yield cannot_tell("no GPU", case_of(Gpus(driver="535.183.01")), "there is no NVIDIA GPU here")
