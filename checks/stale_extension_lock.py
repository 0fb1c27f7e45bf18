"""A lock that a killed build left behind makes every later build of the operator wait for ever."""

from __future__ import annotations

import os.path
import shlex
from typing import Iterable, Iterator

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
from llm_doctor.model import ExtensionBuilds, ExtensionLock, Finding, Fix, Mount, Mounts, Packages, Subject
from llm_doctor.workload.data import Workload
from llm_doctor.workload.models import uses_deepspeed

OLD_S = 3600.0
"""No build of one extension takes longer."""


class StaleExtensionLock(Check):
    """A lock that a killed build left behind makes every later build of the operator wait for ever.

    ## What it finds

    A file called `lock` in the folder where torch builds extensions (`TORCH_EXTENSIONS_DIR`, else
    `~/.cache/torch_extensions`) that no process has open: every job that uses the extension beside it waits
    for ever. In a log: torch's notice that it waits on the lock file of an extension, and a traceback (of the
    interrupted job) that ends in that wait.

    ## Why it breaks

    torch guards the build of an extension with a file called `lock` in its folder and removes it at the
    end. A job killed meanwhile leaves it, and the next waits with no word, at no load.

    ## How it is proven

    A build keeps its lock open from beginning to end, so the open files of all processes are looked through.
    Where some of this user's cannot be looked at, as from a container those of another one, or the folder is
    on a network file system and the build may be another node's, only a lock older than an hour counts.

    ## Fix

    Remove the lock when no build is running.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/file_baton.py (the same in 1.12.1)
    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`_jit_compile`)
    """

    name = "stale-extension-lock"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/file_baton.py"
    symptoms = (
        Symptom(
            pattern=r"Waited on lock file `(?P<lock>[^`\n]{1,300})` for",
            example="UserWarning: Waited on lock file "
            '"/home/me/.cache/torch_extensions/py311_cu128/fused_adam/lock" for 10 '
            "seconds.",
            counter_example="Waiting for lock on the package cache",
            cause="The build of an operator waits for the lock {lock}, which a killed build may have left",
            standing="hint",
            sure="likely",
            fixes=(remedy("where no build is running, remove the lock", "rm -f {lock}"),),
        ),
        Symptom(
            pattern=r"file_baton\.py`, line \d{1,4}, in wait",
            example="  File "
            '"/home/me/env/lib/python3.10/site-packages/torch/utils/file_baton.py", line '
            "42, in wait",
            counter_example="  File "
            '"/home/me/env/lib/python3.10/site-packages/torch/utils/file_baton.py", '
            "line 50, in release",
            cause="The job was waiting for the lock of an operator's build, which a killed build "
            "may have left",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "where no build is running, remove the locks", "find ~/.cache/torch_extensions -name lock -delete"
        ),
        remedy(
            "on a network file system let each node build in a folder of its own",
            "export TORCH_EXTENSIONS_DIR=/tmp/torch_extensions",
            "environment",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """One finding for each lock that nobody holds."""
        builds = case.fact(ExtensionBuilds)
        mounts = case.known(Mounts)
        mount = mounts.of(builds.nearest) if mounts is not None and builds.nearest else None
        shared = mount is None or mount.kind == "network"
        packages = case.known(Packages)
        deepspeed = packages is not None and "deepspeed" in packages.installed
        for lock in builds.locks:
            surely = lock.held is False and not shared
            if lock.held or not (surely or lock.age_s > OLD_S):
                continue
            extension = os.path.basename(os.path.dirname(lock.path))
            state = "held by no process" if surely else "more than a build takes"
            who = "DeepSpeed or another job" if deepspeed else "a job"
            yield Suspicion(
                Finding(
                    severity="warning",
                    confidence="certain" if surely else "likely",
                    message=f"a lock {_age(lock.age_s)} old, {state}: {who} that uses the extension"
                    f" {extension} waits for ever",
                    subject=Subject(kind="lock", path=lock.path),
                    evidence={"age_s": lock.age_s, "held": lock.held, "shared": shared},
                    fixes=(
                        Fix(
                            title="where no build is running, remove the lock",
                            kind="command",
                            applicability="manual",
                            preview=f"rm -f {shlex.quote(lock.path)}",
                        ),
                    ),
                )
            )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """DeepSpeed builds while a job runs, and so do scripts that call torch's cpp_extension."""
        return uses_deepspeed(workload) or any(
            "cpp_extension" in it.module for script in workload.scripts for it in script.imports
        )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _age(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def locked(age_s: float, held: bool | None, kind: str = "local") -> Case:
        folder = "/home/ann/.cache/torch_extensions"
        lock = ExtensionLock(path=f"{folder}/py311_cu128/fused_adam/lock", age_s=age_s, held=held)
        home = Mount(
            path="/home",
            filesystem="nfs4" if kind == "network" else "ext4",
            device="d",
            kind="network" if kind == "network" else "local",
            read_only=False,
        )
        return case_of(
            ExtensionBuilds(folder=folder, nearest=folder, locks=(lock,)),
            Mounts(mounts=(home,)),
            Packages(installed={"deepspeed": "0.16.4"}, modules={}),
        )

    yield healthy("a build that is running", locked(30, True))
    yield healthy("perhaps a build on another node", locked(300, False, "network"))
    yield healthy("perhaps a build in another container", locked(300, None))
    yield sick(
        "a build that was killed",
        locked(200, False),
        "warning: a lock 3 minutes old, held by no process: DeepSpeed or another job that uses the extension"
        " fused_adam waits for ever",
    )
    yield sick(
        "an old one on a network file system",
        locked(3 * 86400, None, "network"),
        "warning: a lock 3 days old, more than a build takes: DeepSpeed or another job that uses the"
        " extension fused_adam waits for ever",
    )
    yield cannot_tell("a folder that does not answer", case_of(), "not in this example")
