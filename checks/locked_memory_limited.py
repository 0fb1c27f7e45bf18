"""The limit of locked memory is too small for InfiniBand or pinned buffers."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class LockedMemoryLimited(Check):
    """The limit of locked memory is too small for InfiniBand or pinned buffers.

    ## What it finds

    In a log: registrations of memory that fail with "Cannot allocate memory" in NCCL, UCX, libfabric and
    MPI, and their warnings about memlock.

    ## Why it breaks

    A network adapter reads and writes memory by itself, so that memory is locked. Most systems allow 64 KiB
    or 8 MiB of it, and a daemon such as slurmd hands its own limit on, whatever limits.conf says.

    ## How it is proven

    By the log alone.

    ## Fix

    No limit, for the user and for the daemon that starts the job.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/misc/ibvwrap.cc
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    - https://github.com/NVIDIA/nccl-tests/issues/206
    """

    name = "locked-memory-limited"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    of_log = True
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
        remedy(
            "for good, in /etc/security/limits.conf, then log in again",
            "* soft memlock unlimited\n* hard memlock unlimited",
            "config",
        ),
        remedy(
            "for slurmd, docker and other daemons",
            "LimitMEMLOCK=infinity   # in the [Service] part, or docker run --ulimit memlock=-1",
            "config",
        ),
    )
