"""Times llm-doctor beside its peers on one patient, round by round; --write keeps the table in docs/speed.md.

    .venv/bin/python docs/bench.py --write
    .venv/bin/python docs/bench.py --python ~/envs/train --also "env-doctor=~/other/bin/env-doctor check"

The doctor is the one installed for the interpreter that runs this. A peer that is not installed beside the
patient is named with --also, once for each. One that must not change the patient's packages gets an
environment of its own, with the Python of the patient, that sees the patient's packages after its own:

    python -m venv ~/other
    ~/other/bin/pip install env-doctor
    ~/envs/train/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
        > ~/other/lib/python3.11/site-packages/patient.pth
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import re
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

DOCS = Path(__file__).resolve().parent
LEAST_ROUNDS = 5
TIME_LIMIT_S = 600.0
SAMPLE_S = 0.005
MIB = 1 << 20

RATIO_TO_FASTEST = 0.2
MEMORY_MIB = 80
RATIO_TO_IMPORTS = 1.3
UNNEEDED = frozenset({"msgspec", "numpy", "packaging", "pynvml", "rich", "torch"})
"""Top-level packages that the command line has no use for before it knows its command."""

STACK = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "deepspeed")
FACTS_ONLY, FULL, IMPORTS = "llm-doctor run --no-probes", "llm-doctor run", "bare imports"

_VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_SCRIPT_IMPORTS = """
import json
from llm_doctor import registry
checks = [entry.check for entry in registry.registered() if entry.check]
print(json.dumps({it.name: it.imports for check in checks for it in (*check.questions, *check.trials)}))
"""
_BARE_IMPORTS = """
import contextlib, importlib, sys
for module in sys.argv[1:]:
    with contextlib.suppress(Exception):
        importlib.import_module(module)
print("imported")
"""


class Command(NamedTuple):
    """Something to run; `absent` says why it cannot be. A doctor that has findings ends with 1."""

    name: str
    argv: tuple[str, ...]
    title: str
    absent: str | None = None
    good_exits: tuple[int, ...] = (0,)


class Ran(NamedTuple):
    """One run. `largest` is the peak resident memory of the largest process, `together` the largest sum
    over all processes that was seen at one moment (0 when nobody looked)."""

    seconds: float
    largest: int
    together: int
    exit_code: int
    output: str
    errors: str


class Row(NamedTuple):
    """A command, its counted runs, the one that was watched for memory, and why there are none."""

    command: Command
    runs: tuple[Ran, ...] = ()
    watched: Ran | None = None
    problem: str | None = None

    @property
    def median(self) -> float:
        """The median of the wall times."""
        return statistics.median(run.seconds for run in self.runs)

    @property
    def least(self) -> float:
        """The least of the wall times."""
        return min(run.seconds for run in self.runs)

    @property
    def largest(self) -> int:
        """Peak resident memory of the largest process, in any run."""
        return max(run.largest for run in self.runs)

    @property
    def together(self) -> int:
        """Peak of all processes together."""
        return max(self.watched.together if self.watched else 0, self.largest)


class Target(NamedTuple):
    """What is to be reached, what was measured, and whether that reaches it (None: not measured)."""

    aim: str
    measured: str
    reached: bool | None


# --- What is run --------------------------------------------------------------------------------------


def peers(python: str, also: Sequence[str]) -> tuple[Command, ...]:
    """The commands that people run to have their environment told, as installed beside the patient."""
    folder = Path(python).parent
    found = {
        "ds_report": _script(folder, "ds_report", ("ds_report",)),
        "collect_env": Command(
            "collect_env",
            (python, "-m", "torch.utils.collect_env"),
            "python -m torch.utils.collect_env",
        ),
        "transformers env": _script(folder, "transformers env", ("transformers", "transformers-cli"), "env"),
        "accelerate env": _script(folder, "accelerate env", ("accelerate",), "env"),
        "bitsandbytes": Command("bitsandbytes", (python, "-m", "bitsandbytes"), "python -m bitsandbytes"),
        "env-doctor": _script(folder, "env-doctor", ("env-doctor",), "check"),
    }
    for item in also:
        name, equals, line = item.partition("=")
        program, *arguments = [os.path.expanduser(word) for word in shlex.split(line)] or [""]
        if not equals or not program:
            raise ValueError(f"--also {item}: NAME=COMMAND is wanted")
        title = shlex.join([os.path.basename(program), *arguments])
        absent = None if os.access(program, os.X_OK) else "there is no such program"
        found[name] = Command(name, (os.path.abspath(program), *arguments), title, absent)
    return tuple(found.values())


def _script(folder: Path, name: str, programs: Sequence[str], *arguments: str) -> Command:
    for program in programs:
        if os.access(folder / program, os.X_OK):
            return Command(name, (str(folder / program), *arguments), shlex.join([program, *arguments]))
    title = shlex.join([programs[0], *arguments])
    return Command(name, (), title, absent="not installed beside the patient")


def doctor(python: str, *options: str) -> Command:
    """A run of the doctor that is installed for this interpreter."""
    title = shlex.join(["llm-doctor", "run", *options])
    return Command(title, (*doctor_program(), "run", "--python", python, *options), title, good_exits=(0, 1))


def doctor_program() -> tuple[str, ...]:
    """How the doctor of this interpreter is started."""
    program = Path(sys.executable).parent / "llm-doctor"
    return (str(program),) if os.access(program, os.X_OK) else (sys.executable, "-m", "llm_doctor")


@contextlib.contextmanager
def workplace(python: str) -> Iterator[tuple[dict[str, str], str]]:
    """Environment and folder for the commands: a home and caches that are thrown away, and no network.

    The patient's programs come first on PATH, as in an environment that was activated. Bytecode is kept, as
    pip compiles what it installs: an editable install has none before its first run. Connections are
    refused at once, so that nobody is timed waiting for a server."""
    with tempfile.TemporaryDirectory(prefix="llm-doctor-bench-", ignore_cleanup_errors=True) as folder:
        home, empty = Path(folder, "home"), Path(folder, "empty")
        home.mkdir()
        empty.mkdir()
        refusing = "http://127.0.0.1:9"
        environment = {
            **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
            "PATH": f"{Path(python).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "HOME": str(home),
            "XDG_CACHE_HOME": str(home / "cache"),
            "HF_HOME": str(home / "huggingface"),
            "TRITON_CACHE_DIR": str(home / "triton"),
            "TORCH_EXTENSIONS_DIR": str(home / "torch-extensions"),
            "HF_HUB_OFFLINE": "1",
            "HTTP_PROXY": refusing,
            "HTTPS_PROXY": refusing,
            "http_proxy": refusing,
            "https_proxy": refusing,
        }
        yield environment, str(empty)


# --- Running ------------------------------------------------------------------------------------------


def execute(argv: Sequence[str], environment: Mapping[str, str], folder: str, watch: bool = False) -> Ran:
    """Runs a command to its end. With `watch` its processes are sampled, which costs it some time."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
        )
        timer = threading.Timer(TIME_LIMIT_S, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        together = 0
        try:
            ended, status, usage = os.wait4(process.pid, os.WNOHANG if watch else 0)
            while not ended:
                together = max(together, _resident(process.pid))
                time.sleep(SAMPLE_S)
                ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - began
        process.returncode = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        output.seek(0)
        errors.seek(0)
        return Ran(
            seconds=seconds,
            largest=usage.ru_maxrss * 1024,
            together=together,
            exit_code=process.returncode,
            output=output.read().decode("utf-8", "replace"),
            errors=errors.read().decode("utf-8", "replace"),
        )


def _resident(root: int) -> int:
    """Resident bytes of a process and of all below it, pages that they share counted once."""
    children: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, IndexError):
            parent = Path("/proc", name, "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(name))
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        waiting += children.get(process, ())
        with contextlib.suppress(OSError):
            found = re.search(
                r"^Pss:\s+(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text(), re.MULTILINE
            )
            total += int(found.group(1)) * 1024 if found else 0
    return total


def problem(command: Command, ran: Ran) -> str | None:
    """Why a run does not count, in one line without paths."""
    if ran.exit_code in command.good_exits and ran.output.strip():
        return None
    said = [line.strip() for line in (ran.errors or ran.output).splitlines() if line.strip()]
    how = f"signal {-ran.exit_code}" if ran.exit_code < 0 else f"exit code {ran.exit_code}"
    last = re.sub(r"/[^\s:'\"]*/", "", said[-1])[:160] if said else "it says nothing"
    return f"{how}: {last}"


def measure(
    commands: Iterable[Command], environment: Mapping[str, str], folder: str, rounds: int
) -> list[Row]:
    """Every command once a round, each round beginning with another one, after a round for memory alone."""
    rows = [Row(command, problem=command.absent) for command in commands]
    for number in range(rounds + 1):
        turn = number % len(rows)
        for index in [*range(turn, len(rows)), *range(turn)]:
            row = rows[index]
            if row.problem is not None:
                continue
            print(f"round {number} of {rounds}: {row.command.title}", file=sys.stderr)
            ran = execute(row.command.argv, environment, folder, watch=number == 0)
            kept = row._replace(watched=ran) if number == 0 else row._replace(runs=(*row.runs, ran))
            rows[index] = kept._replace(problem=problem(row.command, ran))
    return rows


# --- What the doctor imports --------------------------------------------------------------------------


def report(command: Command, environment: Mapping[str, str], folder: str) -> dict[str, Any]:
    """The doctor's report. Raises RuntimeError when there is none."""
    ran = execute((*command.argv, "--format", "json"), environment, folder)
    try:
        return dict(json.loads(ran.output))
    except ValueError:
        raise RuntimeError(f"{command.title} --format json: {problem(command, ran)}") from None


def imported(examined: Mapping[str, Any], environment: Mapping[str, str], folder: str) -> tuple[str, ...]:
    """What a full run imported into the patient: the imports of each question it asked and trial it ran."""
    ran = execute((sys.executable, "-c", _SCRIPT_IMPORTS), environment, folder)
    imports: dict[str, list[str]] = json.loads(ran.output)
    trials = [trial for check in examined["checks"] for trial in check["trials"]]
    names = [*examined["answers"], *(trial["name"] for trial in trials if trial["status"] != "not-run")]
    return tuple(dict.fromkeys(module for name in names for module in imports.get(name, ())))


def loaded_by_the_command_line(environment: Mapping[str, str], folder: str) -> frozenset[str]:
    """The modules that `-X importtime` sees llm_doctor.cli load, less those of the bare interpreter."""
    seen = []
    for code in ("pass", "import llm_doctor.cli"):
        ran = execute((sys.executable, "-X", "importtime", "-c", code), environment, folder)
        if ran.exit_code:
            raise RuntimeError(f"{code}: {ran.errors.strip().splitlines()[-1]}")
        seen.append(set(re.findall(r"^import time: +\d+ \| +\d+ \| *(\S+)$", ran.errors, re.MULTILINE)))
    return frozenset(seen[1] - seen[0])


# --- The page -----------------------------------------------------------------------------------------


def versions(python: str, *names: str) -> dict[str, str]:
    """The versions of an interpreter and of those packages that it has; empty when it does not start."""
    done = subprocess.run([python, "-c", _VERSIONS, *names], stdout=subprocess.PIPE, check=False)
    return dict(json.loads(done.stdout)) if done.returncode == 0 else {}


def versions_elsewhere(commands: Iterable[Command], python: str) -> dict[str, str]:
    """The versions of the peers that are not installed beside the patient, by their packages' names."""
    found: dict[str, str] = {}
    for command in commands:
        beside = Path(command.argv[0]).parent / "python" if command.argv else Path(python)
        if beside.parent != Path(python).parent and beside.is_file():
            found.update(versions(str(beside), command.name))
            found.pop("Python")
    return found


def in_words(items: Mapping[str, str]) -> str:
    """Names with their versions."""
    return ", ".join(f"{name} {version}" for name, version in items.items())


def stack(python: str, examined: Mapping[str, Any]) -> str:
    """The patient's versions; torch's with the tag of its build."""
    build = examined["facts"]["torch_build"]["value"]
    return in_words({**versions(python, *STACK), **({"torch": build["version"]} if build else {})})


def machine(examined: Mapping[str, Any]) -> str:
    """Processor, memory and GPUs, with nothing that names this one machine."""
    cores = len(os.sched_getaffinity(0))
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    gpus = (examined["facts"]["gpus"]["value"] or {}).get("gpus", ())
    names = ", ".join(str(gpu["name"]) for gpu in gpus) or "no NVIDIA GPU"
    model = found.group(1) if found else "an unknown processor"
    return f"{cores} cores of {model}, {memory:.0f} GiB of memory, {names}"


def targets(rows: Sequence[Row], loaded: frozenset[str]) -> Iterator[Target]:
    """What the project wants to reach, held against what was measured."""
    good = {row.command.name: row for row in rows if row.problem is None}
    facts, full, imports = (good.get(name) for name in (FACTS_ONLY, FULL, IMPORTS))
    others = [row for name, row in good.items() if name not in (FACTS_ONLY, FULL, IMPORTS)]
    aim = f"`{FACTS_ONLY}` takes at most {RATIO_TO_FASTEST} of the time of the fastest peer"
    if facts and others:
        fastest = min(others, key=lambda row: row.median)
        ratio, least = facts.median / fastest.median, facts.least / min(row.least for row in others)
        words = f"{ratio:.2f} of `{fastest.command.title}` by the medians, {least:.2f} by the least times"
        yield Target(aim, words, ratio <= RATIO_TO_FASTEST)
    else:
        yield Target(aim, "not measured", None)
    aim = f"and less than {MEMORY_MIB} MiB"
    if facts:
        words = f"{_mib(facts.largest)} MiB its largest process, {_mib(facts.together)} MiB all together"
        yield Target(aim, words, facts.together < MEMORY_MIB * MIB)
    else:
        yield Target(aim, "not measured", None)
    aim = f"`{FULL}` takes at most {RATIO_TO_IMPORTS} times as long as the bare imports"
    if full and imports:
        ratio, least = full.median / imports.median, full.least / imports.least
        words = f"{ratio:.2f} by the medians, {least:.2f} by the least times"
        yield Target(aim, words, ratio <= RATIO_TO_IMPORTS)
    else:
        yield Target(aim, "not measured", None)
    tops = [name.partition(".")[0] for name in loaded]
    words = (
        f"{len(loaded)} modules beyond the bare interpreter's, {tops.count('click')} of them click's and"
        f" {tops.count('llm_doctor')} the doctor's"
    )
    too_many = sorted(UNNEEDED & set(tops))
    words += f"; {', '.join(too_many)} among them" if too_many else ""
    aim = f"importing the command line loads none of {', '.join(sorted(UNNEEDED))} (`-X importtime`)"
    yield Target(aim, words, not too_many)


def table(rows: Sequence[Row]) -> str:
    """The measurements in Markdown, the fastest first, then what failed."""
    lines = [
        "| command | median, s | least, s | largest process, MiB | all processes, MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted((row for row in rows if row.problem is None), key=lambda row: row.median):
        cells = f"{row.median:.2f} | {row.least:.2f} | {_mib(row.largest)} | {_mib(row.together)}"
        lines.append(f"| `{row.command.title}` | {cells} |")
    for row in rows:
        if row.problem is not None:
            why = row.problem if row.command.absent else f"failed, {row.problem}"
            lines.append(f"| `{row.command.title}`: {why} | | | | |")
    return "\n".join(lines)


def _mib(size: int) -> str:
    return f"{size / MIB:.0f}"


_PAGE = """# Speed

Made on {date} by `make bench` (`docs/bench.py`), in {rounds} rounds.

- Machine: {machine}; load average {load:.1f} before the first round.
- Patient: {patient}.
- Doctor: {doctor}.{others}

{table}

![Time of one run](charts/speed.svg)
![Memory of all processes together](charts/memory.svg)

| to reach | measured | |
| --- | --- | --- |
{targets}

## How it was measured

A round runs every command once, one after the other, and each round begins with another one. A round
before the first warms the caches and is not counted. Every command starts in an empty folder, with a home
folder and caches that are thrown away afterwards, `HF_HUB_OFFLINE=1`, and connections that are refused at
once, so that nobody is timed waiting for a server.

The time is wall time from start to exit. The largest process is what `wait4` tells: the peak resident
memory of the largest one among the command and the processes that it waited for. All processes is the
largest sum that was seen at one moment, in the round that is not counted, by looking every
{sample:.0f} ms; a page that several processes share is counted once among them (Linux's proportional set
size).

The bare imports are one Python process that imports what `{full}` imported into the patient, and
does nothing else: {imports}.
"""


def page(
    rows: Sequence[Row],
    aims: Sequence[Target],
    python: str,
    examined: Mapping[str, Any],
    modules: Sequence[str],
    load: float,
) -> str:
    """docs/speed.md."""
    own = versions(sys.executable)
    others = versions_elsewhere((row.command for row in rows if row.command.good_exits == (0,)), python)
    told = {True: "reached", False: "**not reached**", None: "not measured"}
    return _PAGE.format(
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        rounds=max((len(row.runs) for row in rows), default=0),
        machine=machine(examined),
        load=load,
        patient=stack(python, examined),
        doctor=f"llm-doctor {examined['doctor']['version']} on Python {own['Python']}",
        others=f"\n- Peers from elsewhere: {in_words(others)}." if others else "",
        table=table(rows),
        targets="\n".join(f"| {aim.aim} | {aim.measured} | {told[aim.reached]} |" for aim in aims),
        sample=SAMPLE_S * 1000,
        full=FULL,
        imports=", ".join(f"`{module}`" for module in modules),
    )


def draw(rows: Sequence[Row]) -> None:
    """The two charts of the page: time and memory."""
    sys.path.insert(0, str(DOCS))
    import charts

    ran = [row for row in rows if row.problem is None]
    ours = (FACTS_ONLY, FULL)
    times = [(row.command.title, row.median, row.command.name in ours) for row in ran]
    charts.bars("speed", "Time of one run, median", "seconds", times)
    sizes = [(row.command.title, row.together / MIB, row.command.name in ours) for row in ran]
    charts.bars("memory", "Memory of all processes together, at most", "MiB", sizes)


def main() -> None:
    """Measures, prints the page, and writes it with --write."""
    arguments = parser(__doc__ or "")
    arguments.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="the patient (default: this)"
    )
    arguments.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="default: %(default)s")
    options = arguments.parse_args()
    if options.rounds < (LEAST_ROUNDS if options.write else 1):
        arguments.error(f"--write wants at least {LEAST_ROUNDS} rounds")
    python = interpreter(options.python, arguments)
    load = os.getloadavg()[0]
    with workplace(python) as (environment, folder):
        try:
            others = peers(python, options.also)
            examined = report(doctor(python), environment, folder)
            loaded = loaded_by_the_command_line(environment, folder)
        except (RuntimeError, ValueError) as error:
            arguments.error(str(error))
        modules = imported(examined, environment, folder)
        bare = Command(IMPORTS, (python, "-c", _BARE_IMPORTS, *modules), IMPORTS)
        commands = (*others, bare, doctor(python, "--no-probes"), doctor(python))
        rows = measure(commands, environment, folder, options.rounds)
        aims = tuple(targets(rows, loaded))
        text = page(rows, aims, python, examined, modules, load)
    print(text)
    if options.write:
        (DOCS / "speed.md").write_text(text, encoding="utf-8")
        draw(rows)


def parser(description: str) -> argparse.ArgumentParser:
    """The options that both scripts have, but for --python."""
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--also", action="append", default=[], metavar="NAME=COMMAND", help="another peer")
    arguments.add_argument("--write", action="store_true", help="write the page in docs/")
    return arguments


def interpreter(path: str, arguments: argparse.ArgumentParser) -> str:
    """The absolute path of a patient, links kept: the link is what makes it an environment's."""
    path = os.path.abspath(os.path.expanduser(path))
    if not (os.path.isfile(path) and os.access(path, os.X_OK)):
        arguments.error(f"--python {path}: there is no such interpreter")
    return path


if __name__ == "__main__":
    main()
