"""The limit of open files is reached."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class OpenFilesLimited(Check):
    """The limit of open files is reached.

    ## What it finds

    In a log: "Too many open files" and what follows from it in torch's DataLoader.

    ## Why it breaks

    A process may have 1024 files open on most systems. Workers of a DataLoader send each tensor as an open
    file, memory-mapped data sets keep one for each shard, and NCCL a socket for each peer and channel.

    ## How it is proven

    By the log alone.

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
    of_log = True
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
