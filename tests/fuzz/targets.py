"""Every reader with its hostile input, and what must hold whatever that is.

A target reads one input in an empty folder, examines and draws what came of it as the program would, and
raises AssertionError where a promise of SECURITY.md is broken.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, ContextManager, Iterator, Mapping, NamedTuple, Sequence
from unittest import mock

import msgspec
from hypothesis import strategies as st

from fuzz import inputs
from fuzz.watch import in_time, is_loading, watched
from llm_doctor import cli, comparison, freshness, ranks, registry, saved, settings
from llm_doctor.examination import Request, examine
from llm_doctor.fixes import undo
from llm_doctor.formats import FORMATS, renderer
from llm_doctor.host import Host, Recorder, RecordingError, real_host, replay_host
from llm_doctor.logs.reading import triage_logs
from llm_doctor.model import Report
from llm_doctor.patient import inventory
from llm_doctor.reading import Reading
from llm_doctor.redact import Redactor, redactor
from llm_doctor.render import comparison as compared
from llm_doctor.render import triage as triaged
from llm_doctor.render.json import encoded
from llm_doctor.workload.data import Workload
from llm_doctor.workload.launch import is_launch
from llm_doctor.workload.reading import NoWorkload, read_workload


class Target(NamedTuple):
    """A reader, what it is given, and what gives it."""

    name: str
    inputs: Callable[[], st.SearchStrategy[Any]]
    read: Callable[[Any], None]


# --- What must hold ------------------------------------------------------------------------------------

_WILD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""Controls but for line breaks and tabs, and surrogates, which no file can hold."""


def tame(text: str) -> str:
    """The text, in which nothing steers the terminal or breaks a file."""
    found = _WILD.search(text)
    assert not found, f"{found[0]!r} in {text[max(0, found.start() - 60) : found.start() + 20]!r}"
    return text


@functools.lru_cache(maxsize=None)
def _redactor() -> Redactor:
    return redactor()


def sound(report: Report) -> None:
    """Nothing of the doctor broke over it, and it can be shown and kept."""
    for check in report.checks:
        assert check.outcome not in ("crashed", "timeout"), f"{check.name}: {check.reason}"
    for name, fact in msgspec.structs.asdict(report.facts).items():
        assert not str(fact.reason).startswith("the doctor could not read it"), f"{name}: {fact.reason}"
    assert saved.read_report(encoded(report)).verdict == report.verdict
    shown = _redactor().report(report)
    for name in ("text", "markdown"):
        tame(renderer(name, width=80, color=False)(shown))


@contextlib.contextmanager
def harmless(files: Mapping[str, bytes], *named: str) -> Iterator[None]:
    """These files in an empty folder, the current one, and the promises about what is done with them.

    A file elsewhere may be opened only where the input names it: by its name, or as a module."""
    _redactor(), recording(), checks()  # what is made once is not of this input
    words = b"\n".join([*files.values(), *(it.encode("utf-8", "surrogatepass") for it in named)])
    former = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        gc.disable()  # as cli.main does
        try:
            for name, data in files.items():
                Path(name).parent.mkdir(parents=True, exist_ok=True)
                Path(name).write_bytes(data)
            before = _listing(folder)
            with _home_is_here(), in_time(), watched() as watch:
                yield
            assert not watch.breaches, watch.breaches
            for path in watch.opened:
                stem = os.fsencode(os.path.basename(path).lstrip(".").partition(".")[0])
                named = bool(stem) and stem in words
                assert path.startswith(folder) or is_loading(path) or named, f"it opened {path}"
            assert _listing(folder) == before
        finally:
            gc.enable()
            os.chdir(former)


def _home_is_here() -> ContextManager[Any]:
    """Where accelerate and llm-doctor keep what a run may fall back on."""
    return mock.patch.dict(os.environ, {"HF_HOME": os.getcwd(), "XDG_CACHE_HOME": os.getcwd()})


def _listing(folder: str) -> dict[str, int]:
    paths = (os.path.join(parent, name) for parent, _, files in os.walk(folder) for name in files)
    return {path: os.lstat(path).st_mtime_ns for path in paths}


# --- A machine to examine them on ------------------------------------------------------------------------

GPU = {
    "name": "Tesla V100-SXM2-32GB",
    "uuid": "GPU-8a2f1c3e-1111-2222-3333-444455556661",
    "pci_bus_id": "00000000:3B:00.0",
    "compute_capability": [7, 0],
    "memory_total_bytes": 32 << 30,
    "memory_free_bytes": 31 << 30,
    "processes": [{"pid": 77, "memory_bytes": 1 << 30}],
    "compute_mode": "default",
    "persistence": True,
    "ecc": True,
    "ecc_errors_volatile": 0,
    "ecc_errors_aggregate": 1,
    "remapped_rows": {"correctable": 0, "uncorrectable": 1, "pending": True, "failed": False},
    "throttle_reasons": ["gpu-idle"],
    "pcie_generation": 3,
    "pcie_generation_max": 3,
    "pcie_width": 16,
    "pcie_width_max": 16,
    "nvlinks_active": 6,
    "nvlinks_inactive": 0,
}
NVML = {"driver": "470.82.01", "driver_cuda": "11.4", "gpus": [{"index": 0, **GPU}, {"index": 1, **GPU}]}
INSTALLED = {
    "torch": "2.1.0+cu118",
    "transformers": "4.29.2",
    "peft": "0.3.0",
    "accelerate": "0.20.0",
    "bitsandbytes": "0.39.0",
    "deepspeed": "0.9.5",
    "nvidia-ml-py": "12.535.133",
    "pynvml": "11.5.0",
}


@functools.lru_cache(maxsize=None)
def recording() -> dict[str, Any]:
    """This machine, recorded, with GPUs and a stack of 2023."""
    recorder = Recorder()
    Reading(Host(recorder.ask), sys.executable).facts()
    machine = recorder.recording(sys.executable)
    for entry in machine["answers"]:
        if entry["asked"][0] == "inventory":
            listed = json.loads(entry["answer"]["result"])
            entry["answer"]["result"] = json.dumps({**listed, "installed": INSTALLED, "requires": REQUIRES})
        elif entry["asked"][0] == "nvml":
            entry["answer"] = NVML
    return machine


REQUIRES = {"torch": ["numpy>=1.21; python_version >= '3.8'"], "peft": ["transformers<4.0", "accelerate"]}


@functools.lru_cache(maxsize=None)
def checks() -> list[registry.Registered]:
    """All of them."""
    return registry.registered()


def examined(machine: dict[str, Any], workload: Workload | None = None) -> Report:
    """The report of a recorded machine."""
    host, python = replay_host(json.dumps(machine))
    return _report(host, python, workload)


def _report(host: Host, python: str | None, workload: Workload | None) -> Report:
    request = Request(checks=checks(), no_probes="it is fuzzed", workload=workload)
    return examine(request, Reading(host, python), lambda doing: None)


# --- What a user names -----------------------------------------------------------------------------------


def read_workload_of(*words: str) -> None:
    host, _ = replay_host(json.dumps(recording()))
    try:
        workload = read_workload(host, words)
    except NoWorkload:
        return
    assert workload.files or workload.launches or workload.problems
    sound(examined(recording(), workload))


def file_named(name: str) -> Callable[[bytes], None]:
    """What reads a file of this name, in the folder of a job."""

    def read(data: bytes) -> None:
        with harmless({**JOB, name: data}):
            read_workload_of(name, ".")

    return read


DEEPSPEED = (inputs.JOB / "ds_config.json").read_text()
JOB = {
    "train.py": inputs.PYTHON.encode(),
    "job.sh": inputs.SHELL.encode(),
    "config.yaml": inputs.YAML.encode(),
    "ds_config.json": DEEPSPEED.encode(),
}


def read_launch(words: Sequence[str]) -> None:
    with harmless(JOB, *words):
        is_launch(words)
        read_workload_of(*words)


def _argv(data: bytes) -> list[str]:
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    with contextlib.suppress(ValueError):
        return shlex.split(text) or ["x"]
    return text.split() or ["x"]


def read_settings(data: bytes) -> None:
    for name in settings.FILES:
        with harmless({name: data, ".git/x": b""}), contextlib.suppress(settings.BadSettings):
            settings.read(real_host()).silences("bf16-unsupported", "legacy/a.py")


def read_log(data: bytes) -> None:
    with harmless({"job.log": data}):
        found = triage_logs(["job.log"])
        for shown in (found, _redactor().struct(found)):
            encoded(shown)
            tame(triaged.text(shown, width=80, color=False))
            tame(triaged.markdown(shown))


@functools.lru_cache(maxsize=None)
def _whole() -> Report:
    return examined(recording())


def read_report(data: bytes) -> None:
    with harmless({"report.json": data}):
        try:
            report = saved.read_report(Path("report.json").read_bytes())
        except saved.BadReport as error:
            tame(str(error))
            return
        for name in FORMATS:
            tame(renderer(name, width=80, color=False, verbose=True)(report))
        found = comparison.compare([_whole(), report], ["a", "b"])
        tame(compared.text(found, width=80, color=False))
        tame(compared.markdown(found))


# --- What the machine says ---------------------------------------------------------------------------------


def read_recording(data: bytes) -> None:
    with harmless({"machine.json": data}):
        try:
            host, python = replay_host(data.decode("utf-8", "replace"))
        except RecordingError:
            return
        sound(_report(host, python, None))


def _recorded(kind: str) -> list[int]:
    return [at for at, entry in enumerate(recording()["answers"]) if entry["asked"][0] == kind]


def machine_files() -> st.SearchStrategy[bytes]:
    """The machine with the text of one file of /proc, /sys or /etc mutated."""
    read = [at for at in _recorded("read") if recording()["answers"][at]["answer"].get("text")]

    def with_text(at: int) -> st.SearchStrategy[bytes]:
        text = recording()["answers"][at]["answer"]["text"][:4000]

        def made(data: bytes) -> bytes:
            machine = json.loads(json.dumps(recording()))
            machine["answers"][at]["answer"]["text"] = data.decode("utf-8", "replace")
            return json.dumps(machine).encode()

        return inputs.mutated([text], inputs.words_of("text")).map(made)

    return st.sampled_from(read).flatmap(with_text)


def machine_answers(kind: str, field: str | None = None) -> st.SearchStrategy[bytes]:
    """The machine with anything in its answer to this kind of question; `field` holds JSON of its own."""
    (at, *_) = _recorded(kind)
    answer = recording()["answers"][at]["answer"]
    seed = json.loads(answer[field]) if field else answer

    def made(tree: Any) -> bytes:
        machine = json.loads(json.dumps(recording()))
        machine["answers"][at]["answer"] = {**answer, field: json.dumps(tree)} if field else tree
        return json.dumps(machine).encode()

    return inputs.changed(seed, inputs.paths(seed)[1:]).map(made)


def read_metadata(files: Sequence[bytes]) -> None:
    """The patient's own inventory, of a folder of packages like these."""
    names = ("a/METADATA", "a/RECORD", "a/top_level.txt", "a/entry_points.txt", "b/METADATA", "b/RECORD")
    written = {name.replace("/", "-1.dist-info/"): data for name, data in zip(names, files)}
    machine = json.loads(json.dumps(recording()))
    with harmless(written), mock.patch.object(sys, "path", [os.getcwd()]):
        importlib.invalidate_caches()
        found = inventory.inventory()
        (at, *_) = _recorded("inventory")
        machine["answers"][at]["answer"]["result"] = json.dumps(found)
        sound(examined(machine))


def read_entry_points(data: bytes) -> None:
    """The doctor's own environment, with a package whose entry points are damaged."""
    written = {"x-1.dist-info/METADATA": inputs.METADATA.encode(), "x-1.dist-info/entry_points.txt": data}
    with harmless(written), mock.patch.object(sys, "path", [*sys.path, os.getcwd()]):
        importlib.invalidate_caches()
        assert len(registry.registered()) >= len(checks())


# --- What is kept between two runs -----------------------------------------------------------------------


def read_answer(data: bytes) -> None:
    """`run --max-age` with what another run has kept."""
    with harmless({"llm-doctor/answers/key.json": data, "report.json": b"{}"}):
        answer = freshness.recall("key", 3600.0)
        if answer is not None:
            tame(answer.line + answer.report)


def read_verdict(files: tuple[bytes, bytes]) -> None:
    """A rank whose launch has left this lock and this verdict."""
    job = {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3", "MASTER_PORT": "29500"}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "ranks"
        with ranks.once_per_node({**job, "LOCAL_RANK": "0"}, folder) as turn:
            turn.publish(b"x")
        (lock,) = folder.glob("*.lock")
        lock.write_bytes(files[0].replace(b"NOW", str(time.clock_gettime(time.CLOCK_BOOTTIME)).encode()))
        lock.with_suffix("").write_bytes(files[1])
        with in_time(), ranks.once_per_node(job, folder, limit_s=5.0) as turn:
            if not turn.mine:
                code, line = cli._verdict_of(turn.verdict)
                assert isinstance(code, int) and isinstance(line, str)


def read_undo(data: bytes) -> None:
    """`fix --undo` with a record like this one: the folder is not the one it was made in."""
    kept = {"record.json": data, "0": b"x"}
    with harmless({f"llm-doctor/undo/0001-1/{name}": it for name, it in kept.items()}):
        undo.undo()


UNDO = {
    "folder": "HERE",
    "files": [{"path": "a.py", "file": "/nowhere/a.py", "mode": 420, "after": "0" * 64, "before": "0"}],
}
ANSWER = {"line": "PASS: 0 errors", "report": "report.json", "files": {"report.json": [1, 2]}}


def _text(name: str) -> str:
    return (inputs.JOB / name).read_text()


def _as_report() -> Any:
    return json.loads(msgspec.json.encode(_whole()))


_noisy = inputs.noisy
_LOCKS = st.sampled_from([b"NOW 0", b"NOW 0 x", b"1e999 0", b"nan 0", b"", b"\xff\xff 0"])
_BOOK = json.dumps(inputs.NOTEBOOK, indent=1)
_PACKAGE = (inputs.METADATA, inputs.RECORD, "torch\n", "[x]\na = b:c\n")

# Made when they are asked for: some rest on a recording of this machine.
TARGETS = {
    it.name: it
    for it in (
        Target("launch", lambda: _noisy("shell", *inputs.LAUNCHES).map(_argv), read_launch),
        Target("python", lambda: _noisy("python", inputs.PYTHON, _text("train.py")), file_named("train.py")),
        Target(
            "notebook",
            lambda: _noisy("json", _BOOK) | inputs.changed_json(inputs.NOTEBOOK),
            file_named("train.ipynb"),
        ),
        Target(
            "json",
            lambda: _noisy("json", DEEPSPEED) | inputs.changed_json(json.loads(DEEPSPEED)),
            file_named("ds_config.json"),
        ),
        Target("yaml", lambda: _noisy("yaml", inputs.YAML, DEEPSPEED), file_named("config.yaml")),
        Target("shell", lambda: _noisy("shell", inputs.SHELL, _text("job.sbatch")), file_named("job.sh")),
        Target("requirements", lambda: _noisy("text", inputs.REQUIREMENTS), file_named("requirements.txt")),
        Target("lock", lambda: _noisy("toml", inputs.LOCK), file_named("uv.lock")),
        Target("pipfile", lambda: _noisy("json", inputs.PIPFILE), file_named("Pipfile.lock")),
        Target("conda", lambda: _noisy("yaml", inputs.CONDA), file_named("environment.yaml")),
        Target("settings", lambda: _noisy("toml", *inputs.SETTINGS), read_settings),
        Target("log", lambda: inputs.packed(_noisy("log", *inputs.LOGS)), read_log),
        Target(
            "report",
            lambda: inputs.changed_json(_as_report()) | _noisy("json", json.dumps(_as_report())),
            read_report,
        ),
        Target(
            "recording",
            lambda: inputs.changed_json(recording()) | _noisy("json", json.dumps(NVML)),
            read_recording,
        ),
        Target("machine-files", machine_files, read_recording),
        Target("nvml", lambda: machine_answers("nvml"), read_recording),
        Target("inventory", lambda: machine_answers("inventory", "result"), read_recording),
        Target("metadata", lambda: st.lists(_noisy("text", *_PACKAGE), min_size=1), read_metadata),
        Target("entry-points", lambda: _noisy("text", f"[{registry.GROUP}]\na = b:c\n"), read_entry_points),
        Target(
            "kept-answer",
            lambda: inputs.changed_json(ANSWER) | _noisy("json", json.dumps(ANSWER)),
            read_answer,
        ),
        Target("kept-verdict", lambda: st.tuples(_LOCKS, _noisy("json", '[0, "PASS"]')), read_verdict),
        Target(
            "kept-changes", lambda: inputs.changed_json(UNDO) | _noisy("json", json.dumps(UNDO)), read_undo
        ),
    )
}
