"""Hostile input: the promises of SECURITY.md, each by its name. `make fuzz` looks for longer (tests/fuzz)."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import run_doctor
from fuzz import inputs
from fuzz.targets import JOB, TARGETS, file_named, read_log, read_recording, read_report, tame
from fuzz.watch import watched
from hypothesis import HealthCheck, given, settings

from llm_doctor import cli, freshness
from llm_doctor.host import Unavailable, real_host
from llm_doctor.logs.reading import triage_logs
from llm_doctor.workload.reading import read_workload
from llm_doctor.workload.shell import read_shell

MARK = "open('MARK', 'w').close()\n"


# --- Every reader ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_promise(name: str) -> None:
    # The same inputs each time: what is new is for `make fuzz` to find, not for somebody's pull request.
    @settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(TARGETS[name].inputs())
    def read(it: Any) -> None:
        TARGETS[name].read(it)

    read()


EXTREMES = {
    "brackets": b"[" * 100_000,
    "braces": b'{"a":' * 50_000,
    "parentheses": b"(" * 100_000,
    "mappings": b"a: " * 50_000,
    "nested": b"".join(b" " * n + b"if x:\n" for n in range(400)),
    "substitutions": b"$(" * 20_000,
    "quotes": b"\"'" * 50_000,
    "backslashes": b"\\" * 200_001,
    "blanks": b" \t" * 100_000,
    "lines": b"\r\n" * 100_000,
    "a line": b"x = " + b"a" * 500_000,
    "operators": b"x = " + b"-" * 100_000 + b"1",
    "aliases": b"a: &a [x,x,x,x,x,x,x,x,x]\n"
    + b"".join(
        b"b%d: &b%d [%s]\n" % (n, n, b",".join([b"*b%d" % (n - 1) if n else b"*a"] * 9)) for n in range(9)
    ),
    "merges": b"a: &a {x: 1}\n" + b"".join(b"k%d: &k%d {<<: [*a, *a]}\n" % (n, n) for n in range(3000)),
    "digits": b"9" * 100_000,
    "ranges": b"for x in {1..1000000000}; do python train.py; done\n" * 100,
    "heredocs": b"cat <<A <<B <<C\n" * 3000,
    "nothing": b"",
    "zeros": bytes(100_000),
    "half a character": b'{"a": "\xe2\x82',
    "marks": b"\xef\xbb\xbf" * 1000,
    "compressed": b"\x1f\x8b\x08\x00" + bytes(100),
}


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize(
    "read",
    [
        *(
            pytest.param(file_named(name), id=name)
            for name in (*JOB, "train.ipynb", "uv.lock", "environment.yaml")
        ),
        pytest.param(read_log, id="log"),
        pytest.param(read_report, id="report"),
        pytest.param(read_recording, id="recording"),
    ],
)
def test_no_extreme_is_too_much(read: Callable[[bytes], None], extreme: str) -> None:
    read(EXTREMES[extreme])


def test_what_only_a_name_calls_a_shell_script_ends() -> None:
    """A page that was saved as a script: the parser would take the square of its length, half an hour."""
    launches, problems = read_shell("job.sh", "<script>" * 100_000 + "\npython a.py\n", real_host())
    assert launches == []
    assert [it.message for it in problems] == ["it is not parsed within 3 s: data, not a shell script"]


# --- Nothing of the user's is run; nothing is read or written but what was named -------------------------


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A job in a folder in which everything leaves a mark when it is run, imported or unpickled."""
    job = tmp_path / "job"
    job.mkdir()
    for name in ("torch", "transformers", "conftest", "sitecustomize", "usercustomize", "json", "llm_doctor"):
        (job / f"{name}.py").write_text(MARK)
    (job / "train.py").write_text(f"import torch, helpers\n{MARK}{inputs.PYTHON}")
    (job / "helpers.py").write_text(f"{MARK}SETTINGS = {{}}\n")
    (job / "train.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": f"!touch MARK\n%run helpers.py\n{MARK}"}]})
    )
    (job / "job.sh").write_text("touch MARK\nA=$(touch MARK) B=`touch MARK` python train.py <(touch MARK)\n")
    (job / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch MARK']\nb: !!set {c}\n")
    (job / "ds_config.json").write_text("{\"train_batch_size\": \"__import__('os').system('touch MARK')\"}")
    (job / "setup.py").write_text(MARK)

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, ("MARK", "w"))

    for name in ("pytorch_model.bin", "model.pt", "optimizer.pkl"):
        (job / name).write_bytes(pickle.dumps(Bomb()))
    info = job / "trap-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trap\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[llm_doctor.checks]\ntrap = helpers\n")
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    for name in ("secret.py", "secret.json", "secret.yaml"):
        (secret / name).write_text('{"secret": 1}')
        (job / f"linked-{name}").symlink_to(secret / name)
    (job / "linked").symlink_to(secret)
    return job


PROGRAM = [
    sys.executable,
    "-c",
    "import sys; sys.path[:] = sys.path[1:]; from llm_doctor.cli import main; main()",
]
"""As the installed command starts: without the current folder on its path."""
NAMED = ("job.sh", "train.py", "train.ipynb", "config.yaml", "ds_config.json", ".")


def _files(folder: Path) -> dict[str, int]:
    return {str(it): it.lstat().st_mtime_ns for it in folder.rglob("*") if not it.is_dir()}


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--no-probes", *NAMED),
        (
            "run",
            "--assume",
            "transformers=4.29.2",
            "--format",
            "json",
            "torchrun",
            "train.py",
            "--deepspeed",
            "x.json",
        ),
        ("run", "bash", "job.sh"),
        ("fix", "--no-probes", *NAMED),
        ("triage", "train.py", "pytorch_model.bin"),
        ("show", "pytorch_model.bin"),
        ("list",),
    ],
)
def test_nothing_of_the_users_is_run_imported_or_unpickled(
    trap: Path, arguments: tuple[str, ...], make_patient: Callable[..., Path]
) -> None:
    before = _files(trap.parent)
    environment = {**os.environ, "VIRTUAL_ENV": str(make_patient().parent.parent)}
    before.update(_files(trap.parent))
    done = subprocess.run(
        [*PROGRAM, *arguments], cwd=trap, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode in (0, 1, 2, 3) and "Traceback" not in done.stderr, done.stderr
    assert _files(trap.parent) == before


@pytest.mark.parametrize(
    "text", [f"only = {'9' * 5000}", "[" * 5000, "only = " + "[" * 5000, "tool = 1 # llm-doctor"]
)
@pytest.mark.parametrize("name", ["llm-doctor.toml", "pyproject.toml"])
def test_settings_that_are_none_are_refused_in_a_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"# llm-doctor\n{text}\n")
    done = run_doctor("run", "--no-probes", "--only", "bf16-unsupported", cwd=tmp_path)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr


@pytest.fixture(scope="session")
def strace() -> str:
    """The program; skips where there is none, or it may not trace."""
    found = shutil.which("strace")
    if found is None or subprocess.run([found, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("no strace that may trace a process")
    return found


_CALL = re.compile(r'^\d+ +(\w+)\((?:AT_FDCWD, |\d+, )?"((?:[^"\\]|\\.)*)"(.*)$')


def test_the_system_sees_only_what_was_named(trap: Path, strace: str, tmp_path: Path) -> None:
    """All that the doctor and its children open, change and connect to, as the kernel is asked for it."""
    calls = "open,openat,creat,connect,mkdir,mkdirat,unlink,unlinkat,rename,renameat,renameat2,link,symlink"
    log, scratch = tmp_path / "calls", tmp_path / "scratch"
    scratch.mkdir()
    environment = {
        **os.environ,
        "TMPDIR": str(scratch),
        "XDG_CACHE_HOME": str(scratch),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [strace, "-f", "-qq", "-s", "4096", "-e", f"trace={calls}", "-o", str(log), *PROGRAM]
    done = subprocess.run(
        [*command, "run", "--no-probes", "--python", sys.executable, "--save", *NAMED],
        cwd=trap,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stderr
    opened, written, connected = set(), set(), []
    for line in log.read_text(errors="replace").splitlines():
        if " connect(" in line and "AF_UNIX" not in line:
            connected.append(line)
        call = _CALL.match(line)
        if call is None:
            continue
        path = os.path.normpath(trap / call[2])
        (
            written
            if call[1] not in ("open", "openat") or re.search("O_WRONLY|O_RDWR|O_CREAT", call[3])
            else opened
        ).add(path)
    assert connected == []
    assert not [
        it for it in opened if "elsewhere" in it or "linked" in it or it.endswith((".bin", ".pt", ".pkl"))
    ]
    allowed = (str(scratch), "/dev/null", "/dev/tty", "/dev/shm", "/proc/self", "/dev/nvidia")
    assert not [it for it in written if not it.startswith(allowed)]
    assert [it.name for it in scratch.iterdir()] == ["llm-doctor"]


# --- What is no file -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/tty", "/dev/null", "pipe.py", "socket.py", "folder.py"])
def test_what_is_no_file_is_not_opened(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening is enough to set some devices off."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.py")
    Path("folder.py").mkdir()
    with socket.socket(socket.AF_UNIX) as server, watched() as watch:
        server.bind("socket.py")
        with pytest.raises(Unavailable, match="not a file"):
            real_host().user_file(path, 1000)
        if path != "pipe.py":
            (log,) = triage_logs([path]).logs
            assert log.problem in ("it is a folder", "it is a device or socket, not a log")
    assert os.path.abspath(path) not in watch.opened


def test_a_pipe_that_nobody_writes_to_is_left(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run_doctor("show", "pipe", cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and "it is a pipe that said nothing for 5 s" in done.stderr


def test_a_pipe_that_is_written_to_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_text('{"schema": "other/v1"}'))
    writer.start()
    done = run_doctor("show", "pipe", cwd=tmp_path, timeout=60)
    writer.join()
    assert "its schema is 'other/v1'" in done.stderr


@pytest.mark.parametrize("words", [("show",), ("run", "--replay"), ("compare", "/dev/null")])
def test_an_endless_file_is_refused(words: tuple[str, ...]) -> None:
    done = run_doctor(*words, "/dev/zero")
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr) < 500


def test_files_that_change_and_vanish_while_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            number += 1
            name = (*JOB, "gone.py", "sub/helpers.py")[number % 6]
            with contextlib.suppress(OSError):
                Path("sub").mkdir(exist_ok=True)
                if number % 3 == 0:
                    Path(name).unlink()
                elif number % 3 == 1:
                    Path(name).symlink_to("nowhere" if number % 2 else name)
                else:
                    Path(name).unlink(missing_ok=True)
                    Path(name).write_bytes(JOB.get(name, b"import helpers\n")[: number % 997])

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(60):
            for words in ((".",), ("job.sh",), ("torchrun", "train.py", "--deepspeed", "ds_config.json")):
                workload = read_workload(real_host(), words)
                assert all("\n" not in it.message for it in workload.problems)
    finally:
        over.set()
        thread.join()


# --- What reaches the terminal, and the files of others --------------------------------------------------

WILD = "\x1b[31m\x9b31m\u202e\r\x07"


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """Files whose names and contents would steer a terminal."""
    job = f"from transformers import AutoModel\n{WILD}\nAutoModel.from_pretrained('{WILD}', {WILD}=1)\n"
    for name, text in {
        f"{WILD}.py": job,
        "b.py": job.replace(f"\n{WILD}\n", "\n").replace(f", {WILD}=1", ", load_in_8bit=True"),
        f"{WILD}.json": f'{{"{WILD}": 1}}',
        "ds.json": json.dumps({"zero_optimization": {WILD: 1}, WILD: 1}),
        "x.log": f"RuntimeError: expected scalar type Half but found Float {WILD}\n",
        f"{WILD}.log": f"Traceback (most recent call last):\nKeyError: '{WILD}'\n",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / os.fsdecode(b"\xff.py")).write_text(job)
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        *(
            (
                "run",
                "--no-probes",
                *redact,
                "--assume",
                "transformers=4.29.2",
                "--format",
                form,
                ".",
                f"{WILD}.json",
            )
            for form in ("text", "json", "markdown", "html", "sarif", "junit", "github")
            for redact in ((), ("--no-redact",))
        ),
        ("run", "--only", WILD),
        ("run", "--replay", WILD),
        ("run", "--assume", WILD),
        ("run", "--python", WILD, "--no-probes"),
        ("run", "python", f"{WILD}.py", f"--{WILD}", "--assume"),
        ("fix", "--no-probes", "--assume", "transformers=4.29.2", "."),
        ("triage", "x.log", f"{WILD}.log", f"{WILD}.absent"),
        ("triage", "--format", "json", "x.log", f"{WILD}.log"),
        ("show", f"{WILD}.json"),
        ("compare", f"{WILD}.json", WILD),
        ("explain", WILD),
        ("exec", "--no-preflight", "--", WILD),
    ],
    ids=lambda words: " ".join(words[:7]).encode("ascii", "backslashreplace").decode().replace("\\", ""),
)
def test_nothing_of_the_input_steers_the_terminal(wild: Path, words: tuple[str, ...]) -> None:
    done = run_doctor(*words, cwd=wild, env={"PYTHONIOENCODING": "utf-8"}, text=False)
    assert b"Traceback" not in done.stderr, done.stderr.decode("utf-8", "replace")
    assert done.stdout or done.stderr
    tame(done.stdout.decode())
    tame(done.stderr.decode())


@pytest.mark.parametrize(
    "kept", ["[" * 100_000, '{"files": 3}', json.dumps({"line": WILD, "report": "x", "files": {}})]
)
def test_an_answer_that_was_tampered_with_is_not_given(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = tmp_path / "llm-doctor" / "answers" / "key.json"
    path.parent.mkdir(parents=True)
    path.write_text(kept)
    assert freshness.recall("key", 60.0) is None


def test_an_answer_of_somebody_elses_is_not_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    freshness.keep("key", "PASS", "report.json", [])
    assert freshness.recall("key", 60.0) is not None
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    assert freshness.recall("key", 60.0) is None


def test_a_pipe_in_the_cache_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "llm-doctor" / "answers"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "key.json")
    assert freshness.recall("key", 60.0) is None


@pytest.mark.parametrize("published", [b"", b"{}", b"[0]", b"[" * 100_000, b'["x", 1]', b"\xff"])
def test_a_damaged_verdict_of_another_rank_is_no_pass(published: bytes) -> None:
    assert cli._verdict_of(published) == (3, "the verdict cannot be read")


def test_damaged_entry_points_of_one_package_stop_nothing(make_patient: Callable[..., Path]) -> None:
    """A patient's damaged package beside the doctor's own: as where both live in one environment."""
    python = make_patient(packages={"broken": "1"}, behind=tuple(filter(None, sys.path)))
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    (site / "broken-1.dist-info" / "entry_points.txt").write_text("[llm_doctor.checks]\na = b:c\nno pair]\n")
    done = subprocess.run([python, "-m", "llm_doctor", "list"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "half-float-mismatch" in done.stdout and done.stderr == ""
