"""The shared memory of the container (/dev/shm) is too small for the data loader's workers."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class SharedMemoryTooSmall(Check):
    """The shared memory of the container (/dev/shm) is too small for the data loader's workers.

    ## What it finds

    In a log: workers that die of a bus error, and shared memory that cannot be made or written.

    ## Why it breaks

    A data loader's workers hand batches over through files in /dev/shm. Docker and Kubernetes give a
    container 64 MB there; what is written beyond that ends in SIGBUS, which kills the worker without a
    word of its own.

    ## How it is proven

    By the log alone.

    ## Fix

    More shared memory for the container, or no workers.

    ## References

    - https://github.com/pytorch/pytorch/issues/5040
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/utils/data/_utils/signal_handling.py
    - https://pytorch.org/docs/stable/multiprocessing.html
    """

    name = "shared-memory-too-small"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    of_log = True
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
