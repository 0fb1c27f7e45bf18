"""A lock that a killed build left behind makes every later build of the operator wait for ever."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class StaleExtensionLock(Check):
    """A lock that a killed build left behind makes every later build of the operator wait for ever.

    ## What it finds

    In a log: torch's notice that it waits on the lock file of an extension, and a traceback (of the
    interrupted job) that ends in that wait.

    ## Why it breaks

    torch guards the build of an extension with a file called `lock` in its folder and removes it at the
    end. A job killed meanwhile leaves it, and the next waits with no word, at no load.

    ## How it is proven

    By the log alone.

    ## Fix

    Remove the lock when no build is running.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/file_baton.py
    """

    name = "stale-extension-lock"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    of_log = True
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
