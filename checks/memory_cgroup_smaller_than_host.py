"""This container or job may use less memory than the machine has, and most programs see the machine's."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    Case,
    Check,
    Example,
    Suspicion,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.model import Finding, Fix, Memory, Model, Subject, System
from llm_doctor.units import gb, gib

SMALLER = 0.95
"""The part of the machine's memory below which a limit is worth a word."""


class MemoryCgroupSmallerThanHost(Check):
    """This container or job may use less memory than the machine has, and most programs see the machine's.

    ## What it finds

    A memory limit of a cgroup (docker, Kubernetes, SLURM, systemd) below the machine's memory: a note. With
    `--model`, weights that are larger than the limit: a warning.

    ## Why it breaks

    The kernel kills a process that goes beyond the limit, with no word of its own: "exit code 137", "signal
    9". `free`, `psutil.virtual_memory()` and what asks them (DeepSpeed's and accelerate's estimates of what
    may be offloaded) know only the machine. Files in /dev/shm count as well.

    ## How it is proven

    The limits of this process's cgroup and of those above it are read, in both versions of cgroups; the
    smallest one counts.

    ## Fix

    Ask for more: `--mem` of SLURM, `--memory` of docker, `resources.limits.memory` of Kubernetes; or load
    fewer copies of the weights and offload less.

    ## References

    - https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files
    - https://slurm.schedmd.com/cgroups.html
    - https://psutil.readthedocs.io/en/latest/#psutil.virtual_memory
    """

    name = "memory-cgroup-smaller-than-host"
    topic = "host-limits"
    severity = "warning"
    since = "0.1.0"
    url = "https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """A limit by itself is how containers are meant to be."""
        memory = case.fact(Memory)
        limit = memory.cgroup_limit_bytes
        if limit is None or limit > SMALLER * memory.total_bytes:
            return
        model = case.known(Model)
        too_large = model is not None and model.weight_bytes > limit
        message = f"{gib(limit)} of the machine's {gib(memory.total_bytes)} of memory may be used"
        if model is not None and too_large:
            message += f": the weights of {model.name} are {gb(model.weight_bytes)}"
        yield Suspicion(
            Finding(
                severity="warning" if too_large else "note",
                confidence="certain",
                message=message,
                subject=Subject(kind="limit"),
                evidence={
                    "limit_bytes": limit,
                    "used_bytes": memory.cgroup_used_bytes,
                    "total_bytes": memory.total_bytes,
                },
                fixes=(_more(case),) if too_large else (),
            )
        )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _more(case: Case) -> Fix:
    system = case.known(System)
    container = system.container if system is not None else None
    preview = "#SBATCH --mem=0   # all of the node's"
    if container == "kubernetes":
        preview = "resources:\n  limits: {memory: 200Gi}"
    elif container in ("docker", "podman"):
        preview = f"{container} run --memory=200g ..."
    return Fix(title="ask for more memory", kind="config", applicability="manual", preview=preview)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def limited(limit: int | None) -> Memory:
        return Memory(total_bytes=512 << 30, available_bytes=400 << 30, cgroup_limit_bytes=limit)

    large = Model(name="org/large", found_in="cache", weight_bytes=140 * 10**9)
    yield healthy("no limit", case_of(limited(None), large))
    yield healthy("all of the machine", case_of(limited(510 << 30)))
    yield sick(
        "a job of SLURM",
        case_of(limited(64 << 30)),
        "note: 64 GiB of the machine's 512 GiB of memory may be used",
    )
    yield sick(
        "a model that is larger",
        case_of(limited(64 << 30), large),
        "warning: 64 GiB of the machine's 512 GiB of memory may be used: the weights of org/large are 140 GB",
    )
    yield cannot_tell("no /proc", case_of(), "not in this example")
