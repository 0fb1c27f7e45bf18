"""Which GPUs a trial may run on, and why the others are left alone."""

from __future__ import annotations

from typing import NamedTuple, Sequence

from llm_doctor.model import Gpu, Gpus
from llm_doctor.units import gib

IDLE_FREE = 0.75
"""The part of a GPU's memory that must be free: a container does not see the processes outside of it."""


class Place(NamedTuple):
    """A GPU for a trial: NVML's number of it, and the UUID that CUDA_VISIBLE_DEVICES takes."""

    gpu: int
    uuid: str


class Places(NamedTuple):
    """The GPUs that nobody uses, and of every other one its number and why it is left alone."""

    idle: Sequence[Place] = ()
    left_alone: Sequence[tuple[int, str]] = ()

    @property
    def why_cpu(self) -> str | None:
        """Why trials run on the CPU of a machine that has GPUs."""
        if self.idle or not self.left_alone:
            return None
        numbers: dict[str, list[str]] = {}
        for gpu, reason in self.left_alone:
            numbers.setdefault(reason, []).append(str(gpu))
        whys = [f"GPU {', '.join(gpus)} {reason}" for reason, gpus in numbers.items()]
        return f"tried on the CPU: {'; '.join(whys)}"


def places(gpus: Gpus | None, visible: str | None) -> Places:
    """`visible` is $CUDA_VISIBLE_DEVICES: on a shared node the others are somebody else's."""
    idle, left_alone = [], []
    hidden = {} if visible is None or gpus is None else _hidden(gpus, visible)
    for gpu in gpus.gpus if gpus else ():
        reason = _why_not(gpu, hidden.get(gpu.index))
        if reason is None:
            idle.append(Place(gpu.index, gpu.uuid or ""))
        else:
            left_alone.append((gpu.index, reason))
    return Places(idle, left_alone)


def _hidden(gpus: Gpus, variable: str) -> dict[int, str]:
    """The numbers of the GPUs that it does not show, and why: CUDA stops at the first item that names
    none."""
    everything, shown, by_number = {gpu.index for gpu in gpus.gpus}, set(), False
    for item in map(str.strip, variable.split(",")):
        named = {gpu.index for at, gpu in enumerate(gpus.gpus) if _names(item, at, gpu)}
        if not named:
            break
        shown |= named
        by_number = by_number or item.isdigit()
    if by_number and shown != everything and len({gpu.name for gpu in gpus.gpus}) > 1:
        reason = "perhaps hidden by CUDA_VISIBLE_DEVICES, for CUDA counts unlike GPUs from the fastest on"
        return dict.fromkeys(everything, reason)
    return dict.fromkeys(everything - shown, "hidden by CUDA_VISIBLE_DEVICES")


def _why_not(gpu: Gpu, hidden: str | None) -> str | None:
    if gpu.problem is not None:
        return f"does not answer ({gpu.problem})"
    if hidden is not None:
        return hidden
    if gpu.uuid is None:
        return "without a UUID"
    if gpu.mig:
        return "divided by MIG"
    if gpu.compute_mode == "prohibited":
        return "in compute mode prohibited"
    if gpu.processes:
        first = gpu.processes[0]
        memory = f", {gib(first.memory_bytes)}" if first.memory_bytes else ""
        others = f" and {len(gpu.processes) - 1} more" if len(gpu.processes) > 1 else ""
        return f"used by process {first.pid}{memory}{others}"
    total, free = gpu.memory_total_bytes, gpu.memory_free_bytes
    if gpu.processes is None or total is None or free is None:
        return "perhaps in use: the driver does not tell"
    if free < IDLE_FREE * total:
        return f"in use: {gib(free)} of {gib(total)} are free"
    return None


def _names(item: str, at: int, gpu: Gpu) -> bool:
    """As CUDA reads an item of $CUDA_VISIBLE_DEVICES: a place among the GPUs of the job, from 0, or the
    beginning of a UUID."""
    return item == str(at) or (item.startswith("GPU-") and (gpu.uuid or "").startswith(item))
