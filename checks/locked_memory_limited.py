"""The limit of locked memory is too small for InfiniBand or pinned buffers."""

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
from llm_doctor.model import Finding, Fix, Interface, Limit, Limits, Network, Severity, Subject, System
from llm_doctor.units import gib
from llm_doctor.workload.data import Workload

ENOUGH_BYTES = 1 << 30
_KINDS: tuple[tuple[str, str, Severity], ...] = (
    ("InfiniBand", "InfiniBand", "warning"),
    ("Unspecified", "EFA", "warning"),
    ("Ethernet", "RDMA over Ethernet", "note"),
)
"""By link layer. The card that a cloud's machine has for Ethernet could do RoCE too, and is not used so."""

# By name: a wildcard does not hold for root (limits.conf(5)). `-` is the soft and the hard limit.
_FOR_GOOD = remedy(
    "for good, in /etc/security/limits.conf, with your user's name; then log in again",
    "USER - memlock unlimited",
    "config",
)
_OF_DAEMONS = remedy(
    "for slurmd, docker and other daemons",
    "LimitMEMLOCK=infinity   # in the [Service] part, or docker run --ulimit memlock=-1",
    "config",
)


class LockedMemoryLimited(Check):
    """The limit of locked memory is too small for InfiniBand or pinned buffers.

    ## What it finds

    A limit of locked memory below 1 GiB for a process that has to keep to it (without CAP_IPC_LOCK), on a
    node with an InfiniBand or EFA adapter that has an active port; a note where it is a card for Ethernet
    that could do RoCE. CUDA's pinned buffers do not count against this limit: without an adapter nothing is
    said. In a log: registrations of memory that fail with "Cannot allocate memory" in
    NCCL, UCX, libfabric and MPI, and their warnings about memlock.

    ## Why it breaks

    A network adapter reads and writes memory by itself, so that memory is locked. Most systems allow 64 KiB
    or 8 MiB of it, and a daemon such as slurmd hands its own limit on, whatever limits.conf says.

    ## How it is proven

    By the limit, the adapters and the capabilities of this very process: a job started from another shell or
    by a scheduler may have another limit.

    ## Fix

    No limit, for the user and for the daemon that starts the job.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/misc/ibvwrap.cc
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    - drivers/infiniband/core/umem.c of Linux (`ib_umem_get`: RLIMIT_MEMLOCK, CAP_IPC_LOCK)
    - https://github.com/NVIDIA/nccl-tests/issues/206
    - https://github.com/awslabs/awsome-distributed-ai/issues/647 (EFA)
    """

    name = "locked-memory-limited"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"
    symptoms = (
        Symptom(
            pattern=r"Call to (?P<call>ibv_\w{3,30}) failed with error Cannot allocate memory",
            example="misc/ibvwrap.cc:278 NCCL WARN Call to ibv_reg_mr_iova2 failed with error Cannot "
            "allocate memory",
            counter_example="NCCL WARN Call to ibv_create_cq failed",
            cause="InfiniBand cannot lock memory ({call}): the limit of locked memory is too small",
        ),
        Symptom(
            pattern=r"ibv_(?:reg_mr|create_qp|create_cq|alloc_pd)\w{0,20}[^\n]{0,80} Cannot allocate memory",
            example="[node1:4711] ibv_reg_mr(address=0x7f, length=8192) failed: Cannot allocate memory",
            counter_example="NCCL WARN Call to ibv_create_cq failed",
            cause="InfiniBand cannot lock memory: the limit of locked memory is too small",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"max locked memory \(ulimit -l\) to `unlimited` \(current: (?P<limit>[^)\n]{1,30})\)",
            example="Please set max locked memory (ulimit -l) to 'unlimited' (current: 8192 kbytes)",
            counter_example="max locked memory unlimited",
            cause="Only {limit} of memory may be locked",
            standing="hint",
        ),
    )
    remedies = (
        remedy("take the limit away before the job starts", "ulimit -l unlimited"),
        _FOR_GOOD,
        _OF_DAEMONS,
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Only where an adapter is there to lock memory."""
        limits, network = case.fact(Limits), case.fact(Network)
        limit = limits.locked_memory_bytes.soft
        if not network.infiniband:
            raise CannotTell("there is no InfiniBand or RoCE adapter here, which would lock memory")
        if limits.may_lock or limit is None or limit >= ENOUGH_BYTES:
            return
        kind, severity, adapters = _active(network)
        system = case.known(System)
        yield Suspicion(
            Finding(
                severity=severity,
                confidence="certain" if limits.may_lock is False else "likely",
                message=f"only {gib(limit)} of memory may be locked, too little for {kind}"
                f" ({', '.join(adapters)})",
                subject=Subject(kind="limit"),
                evidence={"locked_memory_bytes": limit, "infiniband": adapters},
                fixes=_fixes(limits.locked_memory_bytes.hard, system.container if system else None),
            )
        )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """A job on one node speaks over NVLink, PCIe or shared memory."""
        return not workload.launches or any(launch.nodes != 1 for launch in workload.launches)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _active(network: Network) -> tuple[str, Severity, list[str]]:
    """What the adapters with an active port are, and which they are; the fastest kind alone."""
    for link, kind, severity in _KINDS:
        adapters = [name for name, its in network.links.items() if its == link]
        if adapters:
            return kind, severity, adapters
    raise CannotTell(f"no active port is known of the adapters here ({', '.join(network.infiniband)})")


def _fixes(hard: int | None, container: str | None) -> tuple[Fix, ...]:
    """In this shell as far as the hard limit goes, then where the limit comes from."""
    fixes = []
    if hard is None:
        fixes.append(remedy("take the limit away before the job starts", "ulimit -l unlimited"))
    elif hard >= ENOUGH_BYTES:
        fixes.append(remedy("raise the limit before the job starts", f"ulimit -l {hard >> 10}"))
    if container in ("docker", "podman"):
        fixes.append(remedy("start the container without it", f"{container} run --ulimit memlock=-1 ..."))
    else:
        fixes += [_FOR_GOOD, _OF_DAEMONS]
    return tuple(fixes)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def limited(soft: int | None, may_lock: bool = False) -> Limits:
        return Limits(
            locked_memory_bytes=Limit(soft=soft, hard=soft),
            open_files=Limit(soft=65536),
            processes=Limit(),
            may_lock=may_lock,
        )

    def adapters(link: str, *names: str) -> Network:
        return Network(
            interfaces=(Interface(name="eth0", up=True),), infiniband=names, links=dict.fromkeys(names, link)
        )

    adapter = adapters("InfiniBand", "mlx5_0", "mlx5_1")
    yield healthy("no limit", case_of(limited(None), adapter))
    yield healthy("a process that may lock beyond it", case_of(limited(65536, may_lock=True), adapter))
    yield sick(
        "the default of many systems",
        case_of(limited(65536), adapter),
        "warning: only 64 KiB of memory may be locked, too little for InfiniBand (mlx5_0, mlx5_1)",
    )
    yield sick(
        "the network card of a cloud's machine",
        case_of(limited(65536), adapters("Ethernet", "mlx5_0")),
        "note: only 64 KiB of memory may be locked, too little for RDMA over Ethernet (mlx5_0)",
    )
    yield sick(
        "EFA",
        case_of(limited(65536), adapters("Unspecified", "rdmap0s31")),
        "warning: only 64 KiB of memory may be locked, too little for EFA (rdmap0s31)",
    )
    yield cannot_tell(
        "an adapter whose cable is out",
        case_of(limited(65536), Network(infiniband=("mlx5_0",))),
        "no active port is known of the adapters here (mlx5_0)",
    )
    yield cannot_tell(
        "a workstation",
        case_of(limited(8 << 20), Network(interfaces=(Interface(name="eth0", up=True),))),
        "there is no InfiniBand or RoCE adapter here, which would lock memory",
    )
