"""What ds_report says, through its own entry point; the program itself when DeepSpeed cannot be imported."""

import contextlib
import io
import os
import re
import subprocess
import sys
import traceback
from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """`text` without colours, `crashed` with the traceback's last line or None."""
    try:
        from deepspeed import env_report
    except Exception:
        return _program()
    written = io.StringIO()
    crashed = None
    try:
        with contextlib.redirect_stdout(written):
            env_report.main()
    except Exception:
        crashed = traceback.format_exc().strip().splitlines()[-1]
    return {"text": _plain(written.getvalue()), "crashed": crashed}


def _program() -> Dict[str, Any]:
    program = os.path.join(os.path.dirname(sys.executable), "ds_report")
    done = subprocess.run(
        [program], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30
    )
    errors = done.stderr.decode("utf-8", "replace")
    crashed = None
    if "Traceback (most recent call last)" in errors or done.returncode != 0:
        lines = errors.strip().splitlines()
        crashed = lines[-1] if lines else "exit status %d" % done.returncode
    return {"text": _plain(done.stdout.decode("utf-8", "replace")), "crashed": crashed}


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)[-20000:]
