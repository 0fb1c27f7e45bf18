"""The scheduler ended the job: its time was up, it was preempted, or somebody cancelled it."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class TimeLimitReached(Check):
    """The scheduler ended the job: its time was up, it was preempted, or somebody cancelled it.

    ## What it finds

    In a log: SLURM's, PBS's and LSF's lines on a job that was cancelled, and torchrun's "got signal" for
    those that only forwarded it.

    ## Why it breaks

    A job ends at the time it asked for, whatever it is doing; what was not saved is lost.

    ## How it is proven

    By the log alone.

    ## Fix

    Ask for more time, or save often and resume from the last checkpoint.

    ## References

    - https://slurm.schedmd.com/sbatch.html
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/elastic/multiprocessing/api.py
    """

    name = "time-limit-reached"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://slurm.schedmd.com/sbatch.html"
    symptoms = (
        Symptom(
            pattern=r"(?:JOB|STEP) (?P<job>[\w.]{1,30}) ON (?P<node>[\w.-]{1,60}) CANCELLED AT (?P<time>"
            r"[\w:-]{8,30}) DUE TO TIME "
            r"LIMIT",
            example="slurmstepd: error: *** JOB 4711 ON node1 CANCELLED AT 2024-05-01T12:00:00 DUE TO TIME "
            "LIMIT ***",
            counter_example="slurmstepd: error: *** JOB 4711 ON node1 CANCELLED AT 2024-05-01T12:00:00 ***",
            cause="SLURM ended job {job} at its time limit ({time})",
        ),
        Symptom(
            pattern=r"DUE TO TIME LIMIT",
            example="slurmstepd: error: *** STEP 4711.0 CANCELLED DUE TO TIME LIMIT ***",
            counter_example="slurmstepd: error: Exceeded job memory limit",
        ),
        Symptom(
            pattern=r"CANCELLED AT [\w:-]{8,30} DUE TO (?P<why>PREEMPTION|NODE FAILURE|JOB REQUEUE)",
            example="slurmstepd: error: *** JOB 4711 ON node1 CANCELLED AT 2024-05-01T12:00:00 DUE TO "
            "PREEMPTION ***",
            counter_example="slurmstepd: error: Exceeded job memory limit",
            cause="SLURM ended the job ({why})",
            fixes=(
                remedy(
                    "let it be queued again, and resume from the last checkpoint",
                    "#SBATCH --requeue",
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:JOB|STEP) (?P<job>[\w.]{1,30}) ON [\w.-]{1,60} CANCELLED AT",
            example="slurmstepd: error: *** JOB 4711 ON node1 CANCELLED AT 2024-05-01T12:00:00 ***",
            counter_example="slurmstepd: error: Exceeded job memory limit",
            cause="Job {job} was cancelled: by somebody, or because another of its tasks failed",
            standing="aftermath",
            fixes=(
                remedy(
                    "look at the first task that failed", "sacct -j JOB --format=JobID,State,ExitCode,MaxRSS"
                ),
            ),
        ),
        Symptom(
            pattern=r"job killed: walltime (?P<used>\d+) exceeded limit (?P<limit>\d+)",
            example="=>> PBS: job killed: walltime 3632 exceeded limit 3600",
            counter_example="PBS: job started",
            cause="PBS ended the job at its limit of {limit} s",
        ),
        Symptom(
            pattern=r"TERM_RUNLIMIT: job killed",
            example="TERM_RUNLIMIT: job killed after reaching LSF run time limit.",
            counter_example="TERM_OWNER: job killed by owner.",
            cause="LSF ended the job at its run time limit",
        ),
        Symptom(
            pattern=r"Process (?P<pid>\d+) got signal: (?P<signal>\d{1,2})",
            example="torch.distributed.elastic.multiprocessing.api.SignalException: Process 4711 got "
            "signal: 15",
            counter_example="Process 4711 exits successfully.",
            cause="torchrun was ended from outside by signal {signal} (15: a scheduler or somebody; 1: the "
            "terminal was closed)",
            standing="aftermath",
            fixes=(
                remedy(
                    "if the terminal was closed, start it so that it outlives it",
                    "tmux new 'torchrun ... train.py'   # or nohup, setsid",
                ),
                remedy("if a scheduler did, ask for more time, or resume from the last checkpoint"),
            ),
        ),
        Symptom(
            pattern=r"died with <Signals\.SIGTERM: 15>",
            example="subprocess.CalledProcessError: Command '['python', 'train.py']' died with "
            "<Signals.SIGTERM: 15>.",
            counter_example="died with <Signals.SIGKILL: 9>.",
            cause="The process was ended from outside (signal 15)",
            standing="aftermath",
        ),
    )
    remedies = (
        remedy("ask for more time", "#SBATCH --time=3-00:00:00", "config"),
        remedy(
            "save often, and go on from the last checkpoint",
            "trainer.train(resume_from_checkpoint=True)",
            "edit",
        ),
    )
