"""The limit of open files is reached."""

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
from llm_doctor.model import Finding, Fix, Limit, Limits, Subject
from llm_doctor.workload.data import Place, Training, Value, Workload
from llm_doctor.workload.models import loads_in_workers

USUAL = 1024


class OpenFilesLimited(Check):
    """The limit of open files is reached.

    ## What it finds

    A limit below 1024 open files, the default of every system, which a service or container has lowered; and
    one of just 1024 where a data loader of the workload has workers (a note). In a log: "Too many open files"
    and what follows from it in torch's DataLoader.

    ## Why it breaks

    A process may have 1024 files open on most systems. Workers of a DataLoader send each tensor as an open
    file, memory-mapped data sets keep one for each shard, and NCCL a socket for each peer and channel.

    ## How it is proven

    The limit is that of this very process; a job started from another shell or by a scheduler may have
    another one.

    ## Fix

    Raise the limit in the shell or service that starts the job.

    ## References

    - https://pytorch.org/docs/stable/multiprocessing.html#file-descriptor-file-descriptor
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
        may = limit.hard is None or limit.hard > limit.soft
        raised = str(min(limit.hard or 65535, 65535))
        preview = f"ulimit -n {raised}" if may else f"* hard nofile 65535   # {_LIMITS_CONF}"
        fix = Fix(
            title="raise it before the job starts" if may else "raise it for good, as root",
            kind="command" if may else "config",
            applicability="manual",
            preview=preview,
        )
        spoken = "few for training" if limit.soft < USUAL else "few for a data loader with workers"
        yield Suspicion(
            Finding(
                severity="warning" if limit.soft < USUAL else "note",
                confidence="likely",
                message=f"a process may have {limit.soft} files open: {spoken}",
                subject=Subject(kind="limit"),
                evidence={"soft": limit.soft, "hard": limit.hard},
                fixes=(fix,),
            )
        )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


_LIMITS_CONF = "in /etc/security/limits.conf, then log in again"


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
        limited(256, 256),
        "warning: a process may have 256 files open: few for training",
    )
    yield sick(
        "the usual limit and a data loader with workers",
        msgspec.structs.replace(limited(1024, 1048576), workload=Workload(trainings=(training,))),
        "note: a process may have 1024 files open: few for a data loader with workers",
    )
    yield cannot_tell("no /proc", case_of(), "not in this example")
