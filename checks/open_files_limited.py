"""The limit of open files is too low."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
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
from llm_doctor.model import Finding, Fix, Limit, Limits, Severity, Subject, System
from llm_doctor.workload.data import Place, Training, Value, Workload
from llm_doctor.workload.models import loads_in_workers

USUAL = 1024
TOO_FEW = 256
"""With eight DataLoader workers torch 2.13 has 49 files open, and one more for each tensor that is kept."""
ENOUGH = 65535


class OpenFilesLimited(Check):
    """The limit of open files is too low.

    ## What it finds

    A limit below 1024 open files, the default of every system, which a service or container has lowered: an
    error below 256. And one of just 1024 where a data loader of the workload has workers (a note). In a log:
    "Too many open files" and what follows from it in torch's DataLoader.

    ## Why it breaks

    A process may have 1024 files open on most systems. Workers of a DataLoader send each tensor as an open
    file, memory-mapped data sets keep one for each shard, and NCCL a socket for each peer and channel.

    ## How it is proven

    The limit is that of this very process; a job started from another shell or by a scheduler may have
    another one.

    ## Fix

    Raise the soft limit in the job script, up to the hard one. The hard one is raised where it comes from:
    the container, the service, or limits.conf, there by the user's name: a wildcard does not hold for root.

    ## References

    - https://pytorch.org/docs/stable/multiprocessing.html#file-descriptor-file-descriptor
    - https://man7.org/linux/man-pages/man5/limits.conf.5.html
    - https://github.com/kuleshov-group/caduceus/issues/58
    """

    name = "open-files-limited"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    url = "https://pytorch.org/docs/stable/multiprocessing.html#sharing-strategies"
    symptoms = (
        Symptom(
            pattern=r"[Tt]oo many open files",
            example="OSError: [Errno 24] Too many open files",
            counter_example="OSError: [Errno 28] No space left on device",
        ),
        Symptom(
            pattern=r"received (?P<got>\d+) items of ancdata",
            example="RuntimeError: received 0 items of ancdata",
            counter_example="received 12 items of the dataset",
            cause="A tensor's file could not be received from a DataLoader worker: the limit of open files "
            "is reached",
        ),
        Symptom(
            pattern=r"(?:OS file watch limit|limit for number of file watchers) reached",
            example="OSError: [Errno 28] inotify watch limit: OS file watch limit reached",
            counter_example="inotify is not available",
            cause="The limit of watched files (inotify) is reached",
            fixes=(remedy("raise it", "sysctl fs.inotify.max_user_watches=524288"),),
        ),
        Symptom(
            pattern=r"[Ii]notify[^\n]{0,60}(?:limit|Too many|No space left)",
            example="OSError: [Errno 28] inotify watch limit reached",
            counter_example="inotify is not available",
            cause="The limit of watched files (inotify) is reached",
            fixes=(
                remedy(
                    "raise it", "sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512"
                ),
            ),
        ),
        Symptom(
            pattern=r"unable to open shared memory object <[^>\n]{1,80}> in read-write mode",
            example="RuntimeError: unable to open shared memory object </torch_4711_1234_0> in read-write "
            "mode: Too many open "
            "files (24)",
            counter_example="unable to open file </torch_4711_1234_0>",
            cause="A DataLoader worker's tensor could not be opened: the limit of open files is reached, "
            "or /dev/shm is full",
            sure="likely",
        ),
    )
    remedies = (
        remedy("raise the limit before the job starts", "ulimit -n 65535"),
        remedy(
            "share tensors by file name instead of open file",
            'torch.multiprocessing.set_sharing_strategy("file_system")',
            "edit",
        ),
        remedy("fewer DataLoader workers", "dataloader_num_workers=2", "edit"),
        remedy("in a container", "docker run --ulimit nofile=65535:65535 ..."),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The soft limit is what holds; up to the hard one a user raises it without help."""
        limit = case.fact(Limits).open_files
        workers = case.workload is not None and loads_in_workers(case.workload) is True
        if limit.soft is None or limit.soft > USUAL or (limit.soft == USUAL and not workers):
            return
        system = case.known(System)
        severity: Severity = "note"
        spoken = "few for a data loader with workers"
        if limit.soft < USUAL:
            severity, spoken = "warning", "few for training"
        if limit.soft < TOO_FEW:
            severity, spoken = "error", "too few for training"
        yield Suspicion(
            Finding(
                severity=severity,
                confidence="likely",
                message=f"a process may have {limit.soft} files open: {spoken}",
                subject=Subject(kind="limit"),
                evidence={"soft": limit.soft, "hard": limit.hard},
                fixes=tuple(_fixes(limit, system.container if system is not None else None)),
            )
        )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _fixes(limit: Limit, container: str | None) -> Iterator[Fix]:
    """In the job script as far as the hard limit goes, then where the limit comes from."""
    if limit.hard != limit.soft:
        raised = ENOUGH if limit.hard is None else min(limit.hard, ENOUGH)
        yield remedy("raise it in the job script, before the job starts", f"ulimit -n {raised}")
    if container in ("docker", "podman"):
        yield remedy(
            "start the container with more", f"{container} run --ulimit nofile={ENOUGH}:{ENOUGH} ..."
        )
        return
    if container is None:
        # By name: a wildcard does not hold for root. `-` is the soft and the hard limit.
        yield remedy(
            "for good, in /etc/security/limits.conf, with your user's name; then log in again",
            f"USER - nofile {ENOUGH}",
            "config",
        )
    yield remedy(
        "for slurmd, containerd and other daemons",
        f"LimitNOFILE={ENOUGH}   # in the [Service] part",
        "config",
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def limited(soft: int, hard: int | None) -> Case:
        unlimited = Limit()
        return case_of(
            Limits(
                locked_memory_bytes=unlimited,
                open_files=Limit(soft=soft, hard=hard),
                processes=unlimited,
            )
        )

    here = Place("train.py", 3)
    training = Training(place=here, settings={"dataloader_num_workers": Value(8, here)})
    yield healthy("the usual limit", limited(1024, 1048576))
    yield sick(
        "a service that lowers it",
        limited(512, 512),
        "warning: a process may have 512 files open: few for training",
    )
    yield sick(
        "a limit for another kind of service",
        limited(64, 4096),
        "error: a process may have 64 files open: too few for training",
    )
    yield sick(
        "the usual limit and a data loader with workers",
        msgspec.structs.replace(limited(1024, 1048576), workload=Workload(trainings=(training,))),
        "note: a process may have 1024 files open: few for a data loader with workers",
    )
    yield cannot_tell("no /proc", case_of(), "not in this example")
