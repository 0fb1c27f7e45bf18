"""/dev/shm has no room for NCCL's segments."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NcclSharedMemoryTooSmall(Check):
    """/dev/shm has no room for NCCL's segments.

    ## What it finds

    In a log: NCCL's own lines about a shared memory segment that it cannot extend, create, map or attach to.

    ## Why it breaks

    Ranks of one node talk over files in /dev/shm, some 10 MB for each pair and channel. A container has 64 MB
    there unless it is told otherwise, on docker and on Kubernetes alike. Older NCCL tells the failure as
    "invalid argument" or as an unhandled system error only.

    ## How it is proven

    By the log alone.

    ## Fix

    Give the container more of it.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/misc/shmutils.cc
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory
    - https://github.com/NVIDIA/nccl/issues/1518
    """

    name = "nccl-shared-memory-too-small"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#shared-memory"
    symptoms = (
        Symptom(
            pattern=r"failed to extend (?P<file>/dev/shm/nccl-\w{1,20}) to (?P<asked>\d{1,15}) bytes",
            example="misc/shmutils.cc:88 NCCL WARN Error: failed to extend /dev/shm/nccl-WU88OE to 9637892 "
            "bytes, "
            "error: No space left on device (28)",
            counter_example="NCCL INFO Channel 00 : 0[0] -> 1[1] via SHM/direct/direct",
            cause="/dev/shm is full: NCCL needs {asked} bytes more for one segment",
        ),
        Symptom(
            pattern=r"Error while (?:creating|attaching to) shared memory segment (?P<file>[\w/.-]{1,60}) "
            r"\(size (?P<asked>\d{1,15})\)",
            example="misc/shmutils.cc:132 NCCL WARN Error while creating shared memory segment "
            "/dev/shm/nccl-NzwJ7O "
            "(size 9637888)",
            counter_example="unable to open shared memory object </torch_1_2> in read-write mode",
            cause="/dev/shm is full: NCCL could not get a segment of {asked} bytes there",
        ),
        Symptom(
            pattern=r"Error while (?:creating|attaching to) shared memory segment",
            example="include/shm.h:48 NCCL WARN Error while creating shared memory segment nccl-shm-recv-4c0",
            counter_example="unable to open shared memory object </torch_1_2> in read-write mode",
        ),
        Symptom(
            pattern=r"(?:Call to (?:posix_fallocate|shm_open|mmap|ftruncate)|shm_open|posix_fallocate) "
            r"failed ?: "
            r"(?:No space left on device|Cannot allocate memory|File exists)",
            example="include/shm.h:28 NCCL WARN Call to posix_fallocate failed : No space left on device",
            counter_example="NCCL WARN Call to ibv_create_cq failed",
        ),
        Symptom(
            pattern=r"NCCL WARN [^\n]{0,80}/dev/shm/nccl-",
            example="misc/shmutils.cc:82 NCCL WARN Could not map /dev/shm/nccl-yx0vNw size 9637892, error: "
            "Cannot "
            "allocate memory",
            counter_example="NCCL INFO Using /dev/shm/nccl-yx0vNw",
        ),
        Symptom(
            pattern=r"/dev/shm/nccl-[^\n]{0,80}No space left on device",
            example="OSError: /dev/shm/nccl-Xb1dYq: No space left on device",
            counter_example="No space left on device: '/home/me/.cache'",
        ),
    )
    remedies = (
        remedy(
            "give the container more shared memory (Kubernetes: an emptyDir of `medium: Memory` at /dev/shm)",
            "docker run --shm-size=8g ...   # or --ipc=host",
        ),
        remedy("remove what killed jobs left behind", "rm -f /dev/shm/nccl-*   # with no job running"),
        remedy("go without it, slower", "NCCL_SHM_DISABLE=1", "environment"),
    )
