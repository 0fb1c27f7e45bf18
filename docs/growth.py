"""How the doctor's cost grows: with checks of plugins, scripts, GPUs and processors; --write keeps
docs/growth.md and its charts.

    .venv/bin/python docs/growth.py --write
"""

from __future__ import annotations

import compileall
import datetime
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Iterator, Mapping, NamedTuple, Sequence

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent / "tests")]

import bench  # noqa: E402
import charts  # noqa: E402
import false_node  # noqa: E402

ROUNDS = 7
CHECKS = (0, 10, 100, 1000)
SCRIPTS = (10, 100, 1000, 10_000)
GPUS = (1, 2, 4, 8, 16)

A_CHECK_MS = 0.2
SIXTEEN_GPUS = 1.3
SCRIPT = DOCS.parent / "tests" / "workloads" / "deepspeed_job" / "train.py"

_PLUGIN = '''
"""A check of a plugin that has nothing to say."""

from llm_doctor.check import Check
from llm_doctor.model import System


class Quiet{number}(Check):
    """Number {number} of many.

    ## What it finds
    Nothing.

    ## Why it breaks
    It does not.

    ## How it is proven
    It is not.

    ## Fix
    None.

    ## References
    - https://example.org
    """

    name = "quiet-{number}"
    topic = "disk-space"
    severity = "note"
    since = "1.0"
    needs = (System,)

    def examine(self, case):
        if case.fact(System).os == "none":
            raise AssertionError
        return ()
'''


class Point(NamedTuple):
    """One measurement: how many there are of what grows, and the median time in seconds."""

    number: int
    seconds: float


class Series(NamedTuple):
    """What one chart shows."""

    name: str
    title: str
    counted: str
    command: str
    points: tuple[Point, ...]
    aim: str = ""


def timed(
    runs: Mapping[int, tuple[Sequence[str], Mapping[str, str]]], folder: str, rounds: int = ROUNDS
) -> tuple[Point, ...]:
    """The median of each, round by round, so that a slow minute slows all of them."""
    seconds: dict[int, list[float]] = {number: [] for number in runs}
    for turn in range(rounds + 1):
        for number, (argv, environment) in runs.items():
            ran = bench.execute(argv, environment, folder)
            if ran.exit_code not in (0, 1):
                raise SystemExit(f"{argv}: exit code {ran.exit_code}: {ran.errors}")
            if turn:  # the first one warms the caches
                seconds[number].append(ran.seconds)
    return tuple(Point(number, statistics.median(them)) for number, them in seconds.items())


def checks(environment: Mapping[str, str], folder: str) -> Series:
    """A run without trials beside plugins that bring so many checks, each in a file of its own."""
    runs = {}
    for number in CHECKS:
        plugin = Path(folder, f"plugin-{number}")
        information = plugin / f"many_{number}-1.0.dist-info"
        information.mkdir(parents=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: many-{number}\nVersion: 1.0\n")
        points = "".join(f"quiet_{at} = quiet_{at}\n" for at in range(number))
        (information / "entry_points.txt").write_text(f"[llm_doctor.checks]\n{points}")
        for at in range(number):
            (plugin / f"quiet_{at}.py").write_text(_PLUGIN.format(number=at))
        compileall.compile_dir(plugin, quiet=2)  # as pip does
        runs[number] = (_run(), {**environment, "PYTHONPATH": str(plugin)})
    points = timed(runs, folder)
    each = (points[-1].seconds - points[0].seconds) / points[-1].number * 1000
    return Series(
        "checks",
        "Checks of plugins that have nothing to say",
        "checks",
        "llm-doctor run --no-probes",
        points,
        f"A check costs {each:.2f} ms (wanted: under {A_CHECK_MS} ms), loading its file included.",
    )


def scripts(environment: Mapping[str, str], folder: str) -> Series:
    """A workload of so many scripts; every one is a whole training program."""
    runs = {}
    for number in SCRIPTS:
        place = Path(folder, f"scripts-{number}")
        place.mkdir()
        text = SCRIPT.read_text()
        for at in range(number):
            (place / f"train_{at}.py").write_text(f"# {at}\n{text}")
        runs[number] = (_run(str(place)), environment)
    points = timed(runs, folder, rounds=3)
    each = (points[-1].seconds - points[0].seconds) / (points[-1].number - points[0].number) * 1000
    return Series(
        "scripts",
        "Scripts of a workload",
        "scripts",
        "llm-doctor run --no-probes FOLDER",
        points,
        f"A script costs {each:.1f} ms ({len(SCRIPT.read_text().splitlines())} lines each).",
    )


def gpus(environment: Mapping[str, str], folder: str) -> Series | None:
    """A node with so many GPUs, played by the false driver; a query takes as long as a real one."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    driver = false_node.Driver(compiler, Path(folder, "driver"))
    runs = {
        number: (_run(), {**environment, **driver.play("h100", count=number, delay_us=20)}) for number in GPUS
    }
    points = timed(runs, folder)
    ratio = points[-1].seconds / points[0].seconds
    return Series(
        "gpus",
        "GPUs of the node",
        "GPUs",
        "llm-doctor run --no-probes",
        points,
        f"16 GPUs take {ratio:.2f} times as long as one (wanted: under {SIXTEEN_GPUS}).",
    )


def processors(environment: Mapping[str, str], folder: str) -> Series:
    """A whole run with its trials, on one processor and on more."""
    mine = sorted(os.sched_getaffinity(0))
    numbers = [it for it in (1, 2, 4, 8, 16) if it <= len(mine)]
    chosen = {number: ",".join(map(str, mine[:number])) for number in numbers}
    runs = {
        number: (("taskset", "-c", those, *bench.doctor_program(), "run"), environment)
        for number, those in chosen.items()
    }
    return Series(
        "processors",
        "Processors for the trials",
        "processors",
        "llm-doctor run",
        timed(runs, folder, rounds=3),
    )


def _run(*words: str) -> tuple[str, ...]:
    return (*bench.doctor_program(), "run", "--no-probes", *words)


def page(all_series: Sequence[Series]) -> str:
    """docs/growth.md."""
    return "\n".join(_lines(all_series)) + "\n"


def _lines(all_series: Sequence[Series]) -> Iterator[str]:
    cores = len(os.sched_getaffinity(0))
    yield "# What grows with what\n"
    yield (
        f"Made on {datetime.date.today()} by `make bench` (`docs/growth.py`) on {cores} cores: medians of "
        f"{ROUNDS} runs\n(3 of scripts and processors), round by round."
    )
    for series in all_series:
        yield f"\n## {series.title}\n"
        yield f"`{series.command}`{'. ' + series.aim if series.aim else ''}\n"
        yield f"| {series.counted} | seconds |\n| ---: | ---: |"
        for number, seconds in series.points:
            yield f"| {number:,} | {seconds:.2f} |"
        yield f"\n![{series.title}: seconds by {series.counted}](charts/{series.name}.svg)"


def main() -> None:
    """Measures, prints the page, and with --write keeps it with its charts."""
    options = bench.parser(__doc__ or "").parse_args()
    with bench.workplace(sys.executable) as (environment, _), tempfile.TemporaryDirectory() as folder:
        found = [measure(environment, folder) for measure in (checks, scripts, gpus, processors)]
        all_series = [series for series in found if series is not None]
    text = page(all_series)
    print(text)
    if options.write:
        (DOCS / "growth.md").write_text(text, encoding="utf-8")
        for series in all_series:
            charts.line(series.name, series.title, series.counted, series.points)


if __name__ == "__main__":
    main()
