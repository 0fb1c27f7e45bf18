"""No more processes or threads may be started."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class ProcessLimitReached(Check):
    """No more processes or threads may be started.

    ## What it finds

    In a log: "Resource temporarily unavailable" of fork and of threads, "can't start new thread", and what
    OpenBLAS, OpenMP and Rust's thread pools say of it.

    ## Why it breaks

    Threads count as processes. Each worker and each rank starts a pool as wide as the machine for OpenBLAS,
    OpenMP and the tokenizer; 8 ranks with 8 workers on 128 cores want thousands, over the user's limit, or
    over the one of the container's or the job's cgroup.

    ## How it is proven

    By the log alone.

    ## Fix

    Fewer threads for each process, or a higher limit.

    ## References

    - https://github.com/OpenMathLib/OpenBLAS/blob/v0.3.21/driver/others/blas_server.c
    - https://github.com/MIC-DKFZ/nnUNet/issues/1343
    """

    name = "process-limit-reached"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/OpenMathLib/OpenBLAS"
    symptoms = (
        Symptom(
            pattern=r"RLIMIT_NPROC (?P<limit>-?\d+) current",
            example="OpenBLAS blas_thread_init: RLIMIT_NPROC 4096 current, 513046 max",
            counter_example="ulimit -u 4096",
            cause="OpenBLAS could not start a thread; this user may have {limit} processes and threads "
            "(-1: no such limit,"
            " so it is the cgroup's)",
        ),
        Symptom(
            pattern=r"pthread_create failed",
            example="OpenBLAS blas_thread_init: pthread_create failed for thread 50 of 64: Resource "
            "temporarily unavailable",
            counter_example="pthread_create is available",
        ),
        Symptom(
            pattern=r"can`t start new thread",
            example="RuntimeError: can't start new thread",
            counter_example="start new thread",
        ),
        Symptom(
            pattern=r"\[Errno 11\] Resource temporarily unavailable",
            example="BlockingIOError: [Errno 11] Resource temporarily unavailable",
            counter_example="503 Service Temporarily Unavailable",
        ),
        Symptom(
            pattern=r"[Rr]esource temporarily unavailable",
            example="bash: fork: retry: Resource temporarily unavailable",
            counter_example="503 Service Temporarily Unavailable",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"fork: (?:retry: )?(?:Cannot allocate memory|Resource temporarily unavailable|No "
            r"child processes)",
            example="bash: fork: Cannot allocate memory",
            counter_example="fork: ok",
        ),
        Symptom(
            pattern=r"The global thread pool has not been initialized",
            example="thread '<unnamed>' panicked: The global thread pool has not been initialized.: "
            "ThreadPoolBuildError",
            counter_example="thread pool initialized",
            cause="The tokenizer's thread pool could not start: no more threads may be started",
        ),
        Symptom(
            pattern=r"libgomp: Thread creation failed",
            example="libgomp: Thread creation failed: Resource temporarily unavailable",
            counter_example="libgomp.so.1: cannot open shared object file",
        ),
        Symptom(
            pattern=r"unable to allocate necessary resources for OMP thread",
            example="OMP: Error #34: System unable to allocate necessary resources for OMP thread:",
            counter_example="OMP: Info #155: KMP_AFFINITY",
        ),
        Symptom(
            pattern=r"NCCL WARN [^\n]{0,30}(?:pthread_create|Thread creation) failed",
            example="misc/utils.cc:50 NCCL WARN Call to pthread_create failed: Resource temporarily "
            "unavailable",
            counter_example="NCCL WARN Call to ibv_create_cq failed",
        ),
    )
    remedies = (
        remedy(
            "fewer threads for each process",
            "OMP_NUM_THREADS=4 OPENBLAS_NUM_THREADS=4 TOKENIZERS_PARALLELISM=false",
            "environment",
        ),
        remedy("raise the limit before the job starts", "ulimit -u 65535"),
        remedy("in a container", "docker run --pids-limit=-1 ..."),
        remedy("fewer DataLoader workers", "dataloader_num_workers=2", "edit"),
    )
