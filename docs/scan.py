"""Times reading many scripts beside a bare ast.parse of the same files in one process.

.venv/bin/python docs/scan.py                   a thousand files of the libraries that are installed
.venv/bin/python docs/scan.py FOLDER...         other people's scripts
"""

from __future__ import annotations

import ast
import contextlib
import gc
import statistics
import sys
import sysconfig
import time
import warnings
from pathlib import Path

from llm_doctor.host import real_host
from llm_doctor.workload.reading import read_workload

ROUNDS = 3
WANTED_RATIO = 1.5
WANTED_SCRIPTS = 1000
INSTALLED = ("transformers", "peft", "accelerate", "deepspeed")


def bare(files: list[Path]) -> float:
    """Seconds of ast.parse over all of them."""
    began = time.perf_counter()
    for file in files:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError):
            ast.parse(file.read_bytes())
    return time.perf_counter() - began


def ours(files: list[Path]) -> float:
    """Seconds until the workload of all of them is read."""
    gc.disable()  # as the program does
    began = time.perf_counter()
    read_workload(real_host(), [str(file) for file in files])
    seconds = time.perf_counter() - began
    gc.enable()
    return seconds


def main() -> None:
    """Prints the medians and their ratio."""
    warnings.simplefilter("ignore")
    site = Path(sysconfig.get_path("purelib"))
    folders = [Path(it) for it in sys.argv[1:]] or [site / name for name in INSTALLED]
    files = sorted(file for folder in folders for file in folder.rglob("*.py"))
    if not sys.argv[1:]:
        files = files[:: max(1, len(files) // WANTED_SCRIPTS)]
    size = sum(file.stat().st_size for file in files)
    rounds = [(bare(files), ours(files)) for _ in range(ROUNDS)]
    parse, read = (statistics.median(column) for column in zip(*rounds))
    ratio = statistics.median(one / other for other, one in rounds)
    print(f"{len(files)} scripts, {size / 1e6:.1f} MB: ast.parse {parse:.2f} s, llm-doctor {read:.2f} s")
    print(f"{ratio:.2f} times the bare parse (wanted: {WANTED_RATIO})")


if __name__ == "__main__":
    main()
