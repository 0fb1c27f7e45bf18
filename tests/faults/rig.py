"""Makes one machine sick, runs the real program on it, and sees whether the run kept what is promised.

A fault is a few files, variables and a line of shell. Whatever it is, of every run is asked: whole reports,
the fault named or something reported as unavailable because of it, an end within the budget, no process left,
no file left, no secret told."""

from __future__ import annotations

import functools
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

import jsonschema
import msgspec

from llm_doctor.model import Report, json_schema

BUDGET_S = 60.0
"""The doctor's own default; a run may take SPARE_S longer."""
SPARE_S = 5.0
MARKER = "LLM_DOCTOR_FAULT"
"""Names the scene's folder, in the environment of all that runs in it."""

TORCH = "__version__ = '2.9.0+cpu'\nfull = lambda *_, **__: [3.0]\n"
WELL = {
    "site/torch/__init__.py": TORCH,
    "site/torch/distributed.py": "TCPStore = init_process_group = all_reduce = barrier = lambda *a, **k: 0\n",
    "site/torch/version.py": "__version__ = '2.9.0+cpu'\ncuda = None\n",
    "site/transformers/__init__.py": "",
}
"""A stack that costs no time to import, adds 1 and 2 up as two ranks do, and has nothing wrong."""
WELL_PACKAGES = {"torch": "2.9.0", "transformers": "4.57.0"}

Files = Mapping[str, "str | bytes"]


@dataclass(frozen=True)
class Fault:
    """How the machine or the patient is made sick, and what must be said.

    In `files`, `site/` is the patient's site-packages, `home/`, `cwd/` and `tmp/` are those folders of the
    scene, and `bin/` comes first on PATH; `mnt/` is empty and `out/` is where reports may be written.
    `{scene}` in variables, shell and options is the scene's folder."""

    name: str
    says: str | None = None
    """A pattern of what the doctor must say. None: it must say what it says of the same patient without the
    fault, which is none of the patient's business or cannot be met by a job."""
    files: Files = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=lambda: WELL_PACKAGES)
    env: Mapping[str, str | None] = field(default_factory=dict)
    shell: str = ""
    """Bash that comes before the program, or around it where it says "$@" itself."""
    options: Sequence[str] = ()
    python: str = "{scene}/patient/bin/python"
    """The patient: an interpreter, or the version of one that this machine has."""
    make: Callable[[Path], Mapping[str, str] | None] | None = None
    """What files cannot say; gets the scene's folder, and may give more variables."""
    needs: Callable[[], str | None] = lambda: None
    """Why it cannot be made on this machine."""
    mounts: bool = False
    """Whether the shell mounts something: then it does in a mount namespace of its own."""
    exits: Sequence[int] = (0, 1, 3)
    hides: str = ""
    """A pattern that must stand nowhere in what is printed."""
    slow: bool = False
    known: str = ""
    """What the doctor does not keep yet."""


class Row(NamedTuple):
    """What came of a fault: what was said of it, and every promise that was not kept."""

    fault: Fault
    said: str
    seconds: float
    exit_code: int
    broken: tuple[str, ...]


class Ran(NamedTuple):
    """The program's end, with what stood in its streams and its reports."""

    reports: list[dict[str, Any]]
    problems: list[str]
    seconds: float
    exit_code: int
    errors: str
    output: str


# --- Making it sick ----------------------------------------------------------------------------------------


def scene_of(fault: Fault, scene: Path) -> dict[str, str]:
    """Makes the folders, the patient and the files of a fault; the variables that the program gets."""
    for name in ("home", "cwd", "tmp", "bin", "mnt", "out"):
        (scene / name).mkdir()
    if fault.python.startswith("{scene}/patient"):
        venv.create(scene / "patient", symlinks=True)
        site = next((scene / "patient/lib").glob("python*/site-packages"))
        (scene / "site").symlink_to(site)
        for name, version in fault.packages.items():
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            write(scene, {f"site/{name}-{version}.dist-info/METADATA": metadata})
        write(scene, WELL)
    write(scene, fault.files)
    made = fault.make(scene) if fault.make is not None else None
    return {**environment_of(fault, scene), **(made or {})}


def write(scene: Path, files: Files) -> None:
    """Writes files of a scene; those in a `bin` are programs."""
    for name, content in files.items():
        path = scene / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        if path.parent.name == "bin":
            path.chmod(0o755)


def environment_of(fault: Fault, scene: Path) -> dict[str, str]:
    """Few variables, and none of those that the tests were started with."""
    variables: dict[str, str | None] = {
        "PATH": f"{scene}/bin:/usr/bin:/bin",
        "HOME": f"{scene}/home",
        "TMPDIR": f"{scene}/tmp",
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.environ.get("PYTHONPATH"),  # where these tests found the doctor, it is found again
        MARKER: str(scene),
    }
    variables.update({name: value and _filled(value, scene) for name, value in fault.env.items()})
    return {name: value for name, value in variables.items() if value is not None}


def _filled(text: str, scene: Path) -> str:
    return text.replace("{scene}", str(scene))


def argv_of(fault: Fault, scene: Path) -> list[str]:
    """The program's command line, with what is wrapped around it."""
    patient = fault.python if "/" in fault.python else python_of(fault.python) or ""
    program = [sys.executable, "-m", "llm_doctor", "run", "--python", patient]
    if not any(option.startswith("--output") for option in fault.options):
        program += ["--format", "json"]
    argv = [_filled(word, scene) for word in (*program, *fault.options)]
    if fault.shell:
        shell = _filled(fault.shell, scene)
        argv = ["bash", "-c", shell if '"$@"' in shell else f'{shell}\nexec "$@"', "bash", *argv]
    return [*(namespace() or ()), *argv] if fault.mounts else argv


# --- What a machine has ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def namespace() -> tuple[str, ...] | None:
    """The command that makes a mount namespace in which this user may mount; None where none may."""
    for options in (("--mount",), ("--mount", "--map-root-user")):
        command = ("unshare", *options)
        try:
            done = subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True)
        except OSError:
            return None
        if done.returncode == 0:
            return command
    return None


def can_mount() -> str | None:
    """Why no mount namespace can be made."""
    return None if namespace() else "this user may make no mount namespace"


def has(*programs: str) -> Callable[[], str | None]:
    """Why a fault that needs these programs cannot be made."""

    def missing() -> str | None:
        absent = [program for program in programs if shutil.which(program) is None]
        return f"there is no {', '.join(absent)}" if absent else None

    return missing


@functools.lru_cache(maxsize=None)
def python_of(version: str) -> str | None:
    """An interpreter of this version that answers; a python3.8 on PATH may be a shim that runs nothing."""
    folder = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = [shutil.which(f"python{version}"), *glob.glob(f"{folder}/versions/{version}.*/bin/python")]
    for python in filter(None, found):
        try:
            if subprocess.run([python, "-c", ""], capture_output=True).returncode == 0:
                return python
        except OSError:
            continue
    return None


# --- One run ------------------------------------------------------------------------------------------------


def examine(fault: Fault) -> Row:
    """Runs the program on the sick machine. The row says what was said, and what was not kept."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        scene = Path(folder).resolve()
        environment = scene_of(fault, scene)
        before = _files(scene)
        ran = run(argv_of(fault, scene), environment, scene)
        broken = list(ran.problems)
        if ran.seconds > BUDGET_S + SPARE_S:
            broken.append(f"it took {ran.seconds:.0f} s, {BUDGET_S + SPARE_S:.0f} s are allowed")
        left = _end_processes(str(scene))
        broken += [f"a process is left: {command}" for command in left]
        broken += [f"a file is left: {name}" for name in sorted(_files(scene) - before)]
        if "Traceback" in ran.errors:
            broken.append(f"a traceback: {ran.errors.strip().splitlines()[-1]}")
        if ran.exit_code not in fault.exits:
            broken.append(f"exit code {ran.exit_code}: {ran.errors.strip()[-300:]}")
        if fault.hides and re.search(fault.hides, ran.output + ran.errors + json.dumps(ran.reports)):
            broken.append("a secret is told")
        lines = [line for report in ran.reports for line in spoken(report)] + ran.errors.splitlines()
        said = _said(fault, ran, lines, broken)
        return Row(fault, _without_paths(said, scene), ran.seconds, ran.exit_code, tuple(broken))


def run(argv: Sequence[str], environment: Mapping[str, str], scene: Path) -> Ran:
    """The program's run in a scene, with the reports that it printed or wrote into `out`, all examined."""
    # Into files: a process that is left behind would keep pipes open.
    output, errors = scene / "out/stdout", scene / "out/stderr"
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        began = time.monotonic()
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            env=dict(environment),
            cwd=scene / "cwd",
            start_new_session=True,
        )
        try:
            exit_code = process.wait(3 * BUDGET_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            exit_code = process.wait()
        seconds = time.monotonic() - began
    texts = [path.read_bytes().decode("utf-8", "replace") for path in (output, errors)]
    written = [path.read_text() for path in sorted((scene / "out").glob("*.json"))]
    reports, problems = [], []
    for text in written or texts[:1]:
        try:
            msgspec.json.decode(text, type=Report)
            report = json.loads(text)
            jsonschema.Draft202012Validator(_schema()).validate(report)
            reports.append(report)
        except (ValueError, jsonschema.ValidationError) as error:
            problems.append(f"no whole report: {str(error).splitlines()[0]}")
    return Ran(reports, problems, seconds, exit_code, errors=texts[1], output=texts[0])


@functools.lru_cache(maxsize=None)
def _schema() -> dict[str, Any]:
    return json_schema()


def _files(scene: Path) -> set[str]:
    """All that lies in a scene, without the doctor's own cache and where this rig put its streams."""
    found = set()
    for folder, folders, files in os.walk(scene):
        here = os.path.relpath(folder, scene)
        if here in ("out", "home/.cache/llm-doctor"):
            folders.clear()
        else:
            found.update(os.path.normpath(os.path.join(here, name)) for name in (*folders, *files))
    return found - {"home/.cache", "home/.cache/llm-doctor"}


def _end_processes(marker: str) -> list[str]:
    """Ends the processes whose environment holds this text; their commands. One that dies gets a moment."""
    deadline = time.monotonic() + 2.0
    while processes := list(_processes(marker)):
        if time.monotonic() > deadline:
            for pid, _ in processes:
                os.kill(pid, signal.SIGKILL)
            return [command for _, command in processes]
        time.sleep(0.05)
    return []


def _processes(marker: str) -> Iterator[tuple[int, str]]:
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    yield int(folder.name), (folder / "cmdline").read_bytes().decode().replace("\0", " ")
            except OSError:
                continue


# --- What was said ------------------------------------------------------------------------------------------


def spoken(report: Mapping[str, Any]) -> Iterator[str]:
    """All that a report says, the plainest first: findings, what could not be done and why, facts."""
    for check in report["checks"]:
        for finding in check["findings"]:
            yield f"{finding['severity']}: {finding['message']}"
    for name, fact in report["facts"].items():
        if fact["status"] == "unavailable":
            yield f"{name} unavailable: {fact['reason']}"
    for name, answer in report["answers"].items():
        if answer["status"] == "unavailable":
            yield f"{name} unavailable: {answer['reason']}"
    for check in report["checks"]:
        if check["outcome"] in ("skipped", "crashed", "timeout"):
            yield f"{check['name']} {check['outcome']}: {check['reason']}"
        for trial in check["trials"]:
            if trial["reason"]:
                yield f"{trial['name']} {trial['status']}: {trial['reason']}"
    for name, fact in report["facts"].items():
        yield from (f"{name}.{line}" for line in _scalars(fact["value"]))


def _scalars(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _scalars(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _scalars(inner, f"{path}.{number}")
    else:
        yield f"{path}: {value}"


def _said(fault: Fault, ran: Ran, lines: Sequence[str], broken: list[str]) -> str:
    """What was said of the fault and is not said without it; adds to `broken` where there is nothing."""
    if fault.says is not None:
        # Where the packages alone are the fault, a patient that has others is the healthy one.
        alone = (fault.files, fault.make, fault.shell, fault.env) == ({}, None, "", {})
        packages = WELL_PACKAGES if alone else fault.packages
        before = set(spoken(_healthy(tuple(sorted(packages.items())))))
        line = next((line for line in lines if re.search(fault.says, line) and line not in before), None)
        if line is None:
            broken.append(f"not named; what was said: {' | '.join(lines[:3])[:300]}")
        return line or ""
    healthy = _judgement(_healthy(tuple(sorted(fault.packages.items()))))
    for report in ran.reports:
        odd = set(_judgement(report).items()) ^ set(healthy.items())
        if odd:
            broken.append(f"not as without the fault: {sorted(odd)[:4]}")
    return "as without it"


def _judgement(report: Mapping[str, Any]) -> dict[str, str]:
    """What must not change where a fault is nothing to the patient."""
    checks = {
        check["name"]: f"{check['outcome']} {[finding['message'] for finding in check['findings']]}"
        for check in report["checks"]
    }
    packages = (report["facts"]["packages"]["value"] or {}).get("installed")
    version = report["patient"]["version"]
    return {**checks, "verdict": report["verdict"], "version": str(version), "packages": str(packages)}


@functools.lru_cache(maxsize=None)
def _healthy(packages: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    fault = Fault("none", packages=dict(packages))
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        scene = Path(folder).resolve()
        return run(argv_of(fault, scene), scene_of(fault, scene), scene).reports[0]


def _without_paths(text: str, scene: Path) -> str:
    for path in (str(scene), os.path.expanduser("~"), sys.prefix):
        text = text.replace(f"{path}/", "")
    text = re.sub(r"(~|\.\.)?(/[\w.+-]+){2,}/", "", text)
    return " ".join(text.split())
