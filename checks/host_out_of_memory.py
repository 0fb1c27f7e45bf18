"""The host's memory ran out: the kernel or the job's cgroup killed a process, or an allocation failed."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class HostOutOfMemory(Check):
    """The host's memory ran out: the kernel or the job's cgroup killed a process, or an allocation failed.

    ## What it finds

    In a log: lines of the kernel, SLURM, Kubernetes and Ray about a process killed for memory, allocations
    that failed on the CPU, and launchers whose process ended by signal 9.

    ## Why it breaks

    Every rank loads the checkpoint into its own memory unless it is told otherwise, offloading keeps 16 bytes
    for each parameter on the host, each worker of a DataLoader copies the dataset's Python objects, and a job
    may hold less than the machine has. A process killed so prints nothing itself.

    ## How it is proven

    By the log alone. Signal 9 by itself is taken for it only where nothing else failed.

    ## Fix

    Fewer copies: load shard by shard, fewer workers, less offload; or ask the scheduler for more.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/c10/core/impl/alloc_cpu.cpp
    - https://slurm.schedmd.com/cgroups.html
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.14.4/deepspeed/launcher/launch.py
    - https://github.com/deepspeedai/DeepSpeed/issues/4890
    """

    name = "host-out-of-memory"
    topic = "zero-memory"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://slurm.schedmd.com/cgroups.html"
    symptoms = (
        Symptom(
            pattern=r"[Oo]ut of memory: Kill(?:ed)? process (?P<pid>\d+) \((?P<program>[^)\n]{1,40})\)",
            example="[12345.6] Memory cgroup out of memory: Killed process 4711 (python) "
            "total-vm:201326592kB, "
            "anon-rss:129999872kB",
            counter_example="CUDA out of memory. Tried to allocate 2.00 GiB",
            cause="The kernel killed {program} (process {pid}) because memory ran out",
        ),
        Symptom(
            pattern=r"oom-kill:constraint=CONSTRAINT_(?P<limit>\w{3,20})",
            example="oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=job,mems_allowed=0-1",
            counter_example="oom_score_adj=0",
            cause="The kernel killed a process because memory ran out ({limit}: MEMCG is the job's or "
            "container's limit)",
        ),
        Symptom(
            pattern=r"Detected (?P<number>\d+) oom[-_]kill event",
            example="slurmstepd: error: Detected 1 oom-kill event(s) in StepId=4711.batch. Some of your "
            "processes may "
            "have been killed by the cgroup out-of-memory handler.",
            counter_example="slurmstepd: error: *** JOB 4711 CANCELLED DUE TO TIME LIMIT ***",
            cause="SLURM's memory limit killed processes of this job",
            fixes=(
                remedy("ask for more memory", "#SBATCH --mem=0    # all of the node's", "config"),
                remedy(
                    "fewer DataLoader workers, and load the checkpoint shard by shard",
                    "low_cpu_mem_usage=True",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"oom_kill event in",
            example="srun: error: node1: task 0: Out Of Memory; slurmstepd: error: Detected oom_kill event "
            "in StepId=47.0",
            counter_example="srun: error: node1: task 0: Exited with exit code 1",
            cause="SLURM's memory limit killed processes of this job",
        ),
        Symptom(
            pattern=r"Some of the step tasks have been OOM Killed",
            example="slurmstepd: error: Some of the step tasks have been OOM Killed.",
            counter_example="srun: error: node1: task 0: Exited with exit code 1",
            cause="SLURM's memory limit killed processes of this job",
        ),
        Symptom(
            pattern=r"cgroup out-of-memory handler",
            example="Some of your processes may have been killed by the cgroup out-of-memory handler.",
            counter_example="srun: error: node1: task 0: Exited with exit code 1",
            cause="SLURM's memory limit killed processes of this job",
        ),
        Symptom(
            pattern=r"task \d{1,5}: Out Of Memory",
            example="srun: error: node1: task 0: Out Of Memory",
            counter_example="srun: error: node1: task 0: Exited with exit code 1",
            cause="SLURM's memory limit killed a task of this job",
        ),
        Symptom(
            pattern=r"Exceeded (?:job|step) memory limit",
            example="slurmstepd: error: Exceeded job memory limit at some point.",
            counter_example="slurmstepd: error: Exceeded disk quota",
            cause="SLURM's memory limit killed processes of this job",
        ),
        Symptom(
            pattern=r"OOMKilled",
            example="    Reason:       OOMKilled",
            counter_example="    Reason:       Completed",
            cause="Kubernetes killed the container at its memory limit",
            fixes=(
                remedy("raise the container's limit", "resources: {{limits: {{memory: 256Gi}}}}", "config"),
            ),
        ),
        Symptom(
            pattern=r"DefaultCPUAllocator: (?:can`t allocate|not enough) memory: you tried to allocate "
            r"(?P<asked>\d{1,20}) bytes",
            example="RuntimeError: [enforce fail at alloc_cpu.cpp:66] . DefaultCPUAllocator: can't "
            "allocate memory: "
            "you tried to allocate 536870912000 bytes. Error code 12 (Cannot allocate memory)",
            counter_example="CUDA out of memory. Tried to allocate 2.00 GiB",
            cause="The host has no memory for another {asked} bytes",
        ),
        Symptom(
            pattern=r"DefaultCPUAllocator: (?:can`t allocate|not enough) memory",
            example="[enforce fail at CPUAllocator.cpp:64] . DefaultCPUAllocator: can't allocate memory",
            counter_example="CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        Symptom(
            pattern=r"Unable to allocate (?P<asked>[\d.]{1,12} [KMGTP]?i?B) for an array with shape",
            example="numpy.core._exceptions.MemoryError: Unable to allocate 5.25 GiB for an array with "
            "shape (704643072,)"
            " and data type float64",
            counter_example="setting an array element with a sequence.",
            cause="The host has no memory for an array of {asked}",
        ),
        Symptom(
            pattern=r"std::bad_alloc",
            example="terminate called after throwing an instance of 'std::bad_alloc'",
            counter_example="terminate called after throwing an instance of 'c10::Error'",
            sure="likely",
        ),
        Symptom(
            pattern=r"\[Errno 12\] Cannot allocate memory",
            example="OSError: [Errno 12] Cannot allocate memory",
            counter_example="OSError: [Errno 28] No space left on device",
        ),
        Symptom(
            pattern=r"unable to mmap \d{1,18} bytes from file <[^\n]{1,200}>: Cannot allocate memory",
            example="RuntimeError: unable to mmap 9976576152 bytes from file "
            "<pytorch_model-00001-of-00002.bin>: Cannot"
            " allocate memory (12)",
            counter_example="RuntimeError: unable to mmap 64 bytes from file </torch_1_2>: No such file or "
            "directory",
            cause="The host has no memory to map the checkpoint into",
        ),
        Symptom(
            pattern=r"memory allocation of (?P<asked>\d{1,18}) bytes failed",
            example="memory allocation of 17179869184 bytes failed",
            counter_example="memory allocation of 12 MiB finished",
            cause="The host has no memory for another {asked} bytes",
        ),
        Symptom(
            pattern=r"[Pp]aging file is too small for this operation to complete",
            example="OSError: The paging file is too small for this operation to complete. (os error 1455)",
            counter_example="The page file was moved",
            cause="Windows has no memory left: its paging file is too small to load the model",
            fixes=(
                remedy(
                    "make Windows' paging file larger, on a disk with room (System > Advanced > Performance)"
                ),
                remedy(
                    "num_workers=0 in the DataLoader: each worker loads torch's libraries again",
                    "num_workers=0",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"[Ee]rror 1455\b",
            example="OSError: [WinError 1455] Die Auslagerungsdatei ist zu klein, um diesen Vorgang "
            "durchzuführen.",
            counter_example="OSError: [WinError 126] The specified module could not be found.",
            cause="Windows has no memory left: its paging file is too small to load the model",
            fixes=(
                remedy(
                    "make Windows' paging file larger, on a disk with room (System > Advanced > Performance)"
                ),
            ),
        ),
        Symptom(
            pattern=r"MemoryError: (?:Unable to allocate|std::bad_alloc|bad allocation)",
            example="MemoryError: std::bad_alloc",
            counter_example="torch.cuda.OutOfMemoryError: CUDA out of memory.",
        ),
        Symptom(
            pattern=r"DataLoader worker \(pid ?(?:\(s\))? (?P<pid>\d+)\) is killed by signal: Killed",
            example="RuntimeError: DataLoader worker (pid 4711) is killed by signal: Killed.",
            counter_example="RuntimeError: DataLoader worker (pid 4711) is killed by signal: Bus error.",
            cause="A DataLoader worker (process {pid}) was killed: the host's memory ran out",
            sure="likely",
            fixes=(
                remedy("fewer workers", "dataloader_num_workers=0", "edit"),
                remedy(
                    "keep the data in Arrow or numpy, not in lists of Python objects: each worker copies them"
                ),
            ),
        ),
        Symptom(
            pattern=r"DataLoader worker \(pid ?(?:\(s\))? (?P<pid>[\d,\x20]{1,60})\) exited unexpectedly",
            example="RuntimeError: DataLoader worker (pid(s) 4711, 4712) exited unexpectedly",
            counter_example="DataLoader worker started",
            cause="DataLoader workers ({pid}) died: for lack of memory or of room in /dev/shm, or by a "
            "crash of"
            " their own",
            standing="aftermath",
            sure="likely",
            fixes=(
                remedy("see their own error: load in the main process", "dataloader_num_workers=0", "edit"),
            ),
        ),
        Symptom(
            pattern=r"killed due to the node running low on memory",
            example="ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.",
            counter_example="The node is running low on disk",
            cause="Ray killed a task because the node's memory was running out",
            fixes=(
                remedy(
                    "fewer tasks at a time: give each more CPUs or memory",
                    "@ray.remote(memory=32 * 2**30)",
                    "edit",
                ),
                remedy("let Ray allow more", "RAY_memory_usage_threshold=0.98", "environment"),
            ),
        ),
        Symptom(
            pattern=r"Workers \(tasks / actors\) killed due to memory pressure",
            example="2 Workers (tasks / actors) killed due to memory pressure (OOM), 0 Workers crashed due "
            "to other reasons",
            counter_example="0 Workers (tasks / actors) killed",
            cause="Ray's node ran out of memory",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"SIGKILL by (?:the )?OOM killer",
            example="The process receives a SIGKILL. (1) The process is killed by SIGKILL by OOM killer "
            "due to high memory"
            " usage.",
            counter_example="The actor is dead because its owner has died.",
            cause="Ray lost a worker: it was killed, or it crashed",
            standing="hint",
            sure="likely",
        ),
        Symptom(
            pattern=r"Failed to CUDA host alloc (?P<asked>\d{1,18}) bytes",
            example="NCCL WARN Failed to CUDA host alloc 8388608 bytes",
            counter_example="NCCL WARN Failed to CUDA calloc 608 bytes",
            cause="The host has no memory to pin: {asked} bytes were asked",
        ),
        Symptom(
            pattern=r"exits with return code = -9\b",
            example="[ERROR] [launch.py:321:sigkill_handler] ['/usr/bin/python', 'train.py'] exits with "
            "return code = -9",
            counter_example="[launch.py:347:main] Process 4711 exits successfully.",
            cause="A rank was killed (signal 9), most often by the kernel because the host's memory ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"exit ?code ?: -9\b",
            example="failed (exitcode: -9) local_rank: 0 (pid: 4711) of binary: /usr/bin/python",
            counter_example="failed (exitcode: 1) local_rank: 0 (pid: 4711) of binary: /usr/bin/python",
            cause="A rank was killed (signal 9), most often by the kernel because the host's memory ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"Signal 9 \(SIGKILL\) received by PID (?P<pid>\d+)",
            example="  traceback : Signal 9 (SIGKILL) received by PID 4711",
            counter_example="  traceback : Signal 15 (SIGTERM) received by PID 4711",
            cause="Process {pid} was killed (signal 9), most often by the kernel because the host's memory "
            "ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"died with <Signals\.SIGKILL: 9>",
            example="subprocess.CalledProcessError: Command '['python', 'train.py']' died with "
            "<Signals.SIGKILL: 9>.",
            counter_example="died with <Signals.SIGSEGV: 11>.",
            cause="The process was killed (signal 9), most often by the kernel because the host's memory "
            "ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"terminated with signal SIGKILL",
            example="torch.multiprocessing.spawn.ProcessExitedException: process 3 terminated with signal "
            "SIGKILL",
            counter_example="process 3 terminated with signal SIGSEGV",
            cause="A process was killed (signal 9), most often by the kernel because the host's memory ran "
            "out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:it/s|s/it|it/s, [^\n\]]{0,60}) ?\] Killed\b",
            example="Loading checkpoint shards:   0%|          | 0/2 [00:00<?, ?it/s]Killed",
            counter_example="Loading checkpoint shards: 100%|##########| 2/2 [00:09<00:00,  4.9s/it]",
            cause="The process was killed (signal 9), most often by the kernel because the host's memory "
            "ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"exit(?:ed)? (?:with )?(?:code|status|on signal) ?:? ?(?:137\b|9 \(Killed\))",
            example="command terminated with exit code 137",
            counter_example="command terminated with exit code 1",
            cause="The process was killed (signal 9), most often because the memory limit was reached",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:line \d{1,6}:\s{1,4}\d{1,8}|\n|\A|\d{1,8}) Killed(?:\x20{2,}[^\n]{2,200})?(?:\n|\Z)",
            example="train.sh: line 12:  4711 Killed                  python train.py",
            counter_example="Killed 3 workers in 2 s",
            cause="The process was killed (signal 9), most often by the kernel because the host's memory "
            "ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"A process in the process pool was terminated abruptly",
            example="concurrent.futures.process.BrokenProcessPool: A process in the process pool was "
            "terminated abruptly"
            " while the future was running or pending.",
            counter_example="the process pool is running",
            cause="A process of a pool was killed, most often because the host's memory ran out",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"One of the subprocesses has abruptly died during map operation",
            example="RuntimeError: One of the subprocesses has abruptly died during map operation. To "
            "debug the error, "
            "disable multiprocessing.",
            counter_example="Map (num_proc=8): 100%",
            cause="A process of datasets.map was killed, most often because the host's memory ran out",
            standing="aftermath",
            sure="likely",
            fixes=(
                remedy(
                    "fewer processes, and smaller batches to write",
                    "dataset.map(f, num_proc=1, writer_batch_size=100)",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy("see whether the kernel killed it", "dmesg -T | grep -i -E 'out of memory|oom-kill'"),
        remedy("ask for more memory", "#SBATCH --mem=0    # all of the node's", "config"),
        remedy(
            "hold one copy: load shard by shard, offload less, fewer DataLoader workers",
            "from_pretrained(..., low_cpu_mem_usage=True)",
            "edit",
        ),
    )
