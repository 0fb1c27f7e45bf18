"""The program as a user runs it: options, exit codes, outputs, bad luck."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable

import pytest
from conftest import NEUTRAL, processes_with, report_of, run_doctor
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_doctor import registry
from llm_doctor.examination import Request, examine
from llm_doctor.host import real_host, replay_host
from llm_doctor.reading import Reading

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)
FACTS_ONLY = ("run", "--no-probes")
SUFFIX = {
    "text": "txt",
    "json": "json",
    "markdown": "md",
    "html": "html",
    "sarif": "sarif",
    "junit": "xml",
    "github": "gh",
}


@pytest.mark.parametrize("arguments", [(), ("run",), ("list",), ("explain",), ("schema",)])
def test_help_fits_a_screen_and_shows_examples(arguments: tuple[str, ...]) -> None:
    done = run_doctor(*arguments, "--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "Examples:\n  llm-doctor" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_version() -> None:
    from llm_doctor import __version__

    assert run_doctor("--version").stdout == f"llm-doctor {__version__}\n"


def test_list_names_each_check_and_its_origin() -> None:
    rows = json.loads(run_doctor("list", "--format", "json").stdout)
    built_in = {row["name"] for row in rows if row["origin"] == "built in"}
    assert {"cuda-toolkit-mismatch", "half-float-mismatch", "lora-without-input-grads"} <= built_in
    text = run_doctor("list").stdout
    assert all(row["name"] in text and row["summary"] in " ".join(text.split()) for row in rows)
    assert all(len(line) <= 80 for line in text.splitlines())


def test_explain_prints_the_checks_own_documentation() -> None:
    from llm_doctor.checks.half_float_mismatch import HalfFloatMismatch

    done = run_doctor("explain", "half-float-mismatch")
    assert done.stdout == f"# half-float-mismatch\n\n{HalfFloatMismatch.documentation()}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--only", "half-flaot-mismatch"), "did you mean half-float-mismatch"),
        (("run", "--skip", "bf15"), "there is no check named 'bf15'"),
        (("explain", "lora"), "did you mean lora-without-input-grads"),
        (("run", "--budget", "0"), "0.0 is not in the range x>0"),
        (("run", "--budget", "nan"), "'nan' is not a number of seconds"),
        (("run", "--max-age", "nan"), "'nan' is not a number of seconds"),
        (("run", "--frmat", "json"), "No such option"),
        (("run", "--quiet", "--verbose"), "exclude each other"),
        (("run", "--replay", "/nowhere/x.json"), "No such file or directory"),
        (("run", "--output", "/nowhere/x.json"), "there is no folder /nowhere"),
        (("run", "--output", "/"), "it is a folder"),
        (("run", "--output", "report.docx"), "which --format is that?"),
        (
            ("run", "--only", "half-float-mismatch", "--skip", "half-float-mismatch"),
            "no check is left to run",
        ),
        (("run", "--replay", "x.json", "--python", "y"), "exclude each other"),
        (("frobnicate",), "No such command"),
    ],
)
def test_a_usage_error_is_one_clear_message(arguments: tuple[str, ...], said: str) -> None:
    done = run_doctor(*arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr and "Traceback" not in done.stderr


def test_facts_alone_import_nothing_and_say_what_was_not_tried(make_patient: Callable[..., Path]) -> None:
    python = make_patient(
        modules={
            "torch/__init__.py": "raise SystemExit('torch was imported')",
            "torch/version.py": "__version__ = '1.12.1+cu102'\ncuda = '10.2'\n",
        },
        packages={"torch": "1.12.1", "transformers": "4.29.2", "peft": "0.3.0"},
    )
    report = report_of(run_doctor(*FACTS_ONLY, "--format", "json", "--python", str(python)))
    assert report["facts"]["torch_build"]["value"] == {
        "version": "1.12.1+cu102",
        "cuda": "10.2",
        "kind": "cuda",
    }
    assert report["answers"] == {}
    reasons = {check["name"]: check["reason"] for check in report["checks"] if check["outcome"] == "skipped"}
    assert reasons["lora-without-input-grads"] == "not-run: --no-probes was given"


def test_a_mismatch_ends_with_one_and_never_with_never(
    make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    nvcc = tmp_path / "cuda" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.write_text("#!/bin/sh\necho 'release 13.0, V13.0.88'\n")
    nvcc.chmod(0o755)
    python = make_patient(
        modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '2.9.0+cu128'\ncuda = '12.8'\n"},
        packages={"torch": "2.9.0"},
    )
    environment = {"CUDA_HOME": str(nvcc.parent.parent)}

    def code(*arguments: str) -> int:
        return run_doctor(*FACTS_ONLY, "--python", str(python), *arguments, env=environment).returncode

    assert code("--fail-on", "warning") == 1
    assert code("--fail-on", "error") == 0, "without DeepSpeed it is a warning"
    assert code("--fail-on", "never") == 0
    done = run_doctor(*FACTS_ONLY, "--python", str(python), env=environment)
    assert "torch refuses every CUDA extension that pip builds" in " ".join(done.stdout.split())
    assert "--index-url https://download.pytorch.org/whl/cu130" in done.stdout, "not wrapped: to be copied"


def test_only_and_skip_choose() -> None:
    only = report_of(run_doctor(*FACTS_ONLY, "--format", "json", "--only", "half-float-mismatch"))
    assert [check["name"] for check in only["checks"]] == ["half-float-mismatch"]
    rest = report_of(run_doctor(*FACTS_ONLY, "--format", "json", "--skip", "half-float-mismatch"))
    assert "half-float-mismatch" not in [check["name"] for check in rest["checks"]]


def test_the_output_file_chooses_the_format(tmp_path: Path) -> None:
    for name, start in (("r.json", "{\n"), ("r.md", "### llm-doctor"), ("r.txt", "no NVIDIA GPU")):
        done = run_doctor(*FACTS_ONLY, "--output", str(tmp_path / name))
        text = (tmp_path / name).read_text()
        assert done.stdout == ""
        if name != "r.txt":
            assert text.startswith(start)
        assert "\x1b" not in text


def test_colour_is_for_terminals_or_for_who_asks() -> None:
    assert "\x1b[" not in run_doctor(*FACTS_ONLY).stdout
    assert "\x1b[" in run_doctor(*FACTS_ONLY, "--color", "always").stdout
    assert "\x1b[" not in run_doctor(*FACTS_ONLY, "--color", "never").stdout


def test_quiet_is_one_line_when_nothing_is_wrong(make_patient: Callable[..., Path]) -> None:
    done = run_doctor(*FACTS_ONLY, "--quiet", "--python", str(make_patient()))
    assert done.returncode == 0
    assert done.stdout.startswith("PASS, but nothing could be tried: ") and done.stdout.count("\n") == 1


def test_nothing_goes_to_standard_error_of_a_pipe() -> None:
    assert run_doctor(*FACTS_ONLY).stderr == ""


def test_a_terminal_is_told_what_is_running_and_for_how_long(make_patient: Callable[..., Path]) -> None:
    python = make_patient(
        modules={"torch/__init__.py": "import time\ntime.sleep(1.5)", "peft/__init__.py": ""},
        packages={"torch": "2.0", "transformers": "4.38.0", "peft": "0.9.0"},
    )
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "run", "--python", str(python)],
        env={**NEUTRAL, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that its other end is gone
        while chunk := os.read(terminal, 4096):
            shown += chunk
    os.close(terminal)
    assert process.stdout is not None
    assert b"\x1b[2K" not in process.stdout.read()
    process.stdout.close()
    process.wait(60)
    assert b"importing torch" in shown and b"0:00:01" in shown
    assert shown.rstrip().endswith(b"\x1b[2K") or b"\x1b[?25h" in shown, "the line is taken away again"


def test_ctrl_c_while_facts_are_read_leaves_a_report(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 300\n")
    python.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "run", "--format", "json", "--python", str(python)],
        env={**NEUTRAL, "LLM_DOCTOR_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 30
    while len(processes_with(str(tmp_path))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    report = report_of(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    assert process.returncode == 130 and report["verdict"] == "incomplete"
    assert report["facts"]["python"]["reason"] == f"{python} was interrupted"
    assert report["facts"]["system"]["status"] == "ok"
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize("tenths", range(1, 9))
def test_ctrl_c_ends_it_at_any_moment(tenths: int, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nsleep 300\n")
    python.chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "run", "--python", str(python)],
        env={**NEUTRAL, "LLM_DOCTOR_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    time.sleep(tenths / 20)
    process.send_signal(signal.SIGINT)
    if tenths <= 2:  # before the program has begun Python's own import machinery may swallow it: press again
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode in (130, -signal.SIGINT)  # the latter before the program has begun
    assert processes_with(str(tmp_path)) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_disk_is_a_sentence() -> None:
    with open("/dev/full", "w") as full:
        done = run_doctor(*FACTS_ONLY, stdout=full, stderr=subprocess.PIPE, capture_output=False)
    assert done.returncode == 3
    assert done.stderr == ("llm-doctor: standard output could not be written: No space left on device\n")
    done = run_doctor(*FACTS_ONLY, "--output", "/dev/full")
    assert done.returncode == 3
    assert "/dev/full could not be written: No space left on device" in done.stderr
    assert "PASS" in done.stdout or "FAIL" in done.stdout or "WARN" in done.stdout, "the report is not lost"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_report_that_is_cut_off_is_no_success(unbuffered: str, tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk."""
    command = f"ulimit -f 1; exec {sys.executable} -m llm_doctor run --no-probes --format sarif >{tmp_path}/o"
    done = subprocess.run(
        ["bash", "-c", command],
        env={**NEUTRAL, "PYTHONUNBUFFERED": unbuffered},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr == "llm-doctor: standard output could not be written: File too large\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_is_slow_gets_all_of_a_pipe_that_does_not_block(unbuffered: str) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", *FACTS_ONLY, "--format", "sarif"],
        env={**NEUTRAL, "PYTHONUNBUFFERED": unbuffered},
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
        with open(ours, "rb") as stream:
            said = stream.read()
        assert process.stderr is not None and process.stderr.read() == b""
    assert json.loads(said)["runs"] and len(said) > 1 << 16 and process.returncode in (0, 1)


def test_a_pipe_that_nobody_reads_costs_five_seconds(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    done = run_doctor(*FACTS_ONLY, "--format", "json", "--output", str(tmp_path / "pipe.json"))
    assert report_of(done)["verdict"] and done.returncode == 3
    assert done.stderr == f"llm-doctor: {tmp_path}/pipe.json could not be written: nobody read it for 5 s\n"


def test_a_pipe_that_somebody_reads_gets_the_report(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with open(tmp_path / "read", "wb") as read, subprocess.Popen(
        ["cat", str(tmp_path / "pipe.json")], stdout=read
    ):
        done = run_doctor(*FACTS_ONLY, "--format", "json", "--output", str(tmp_path / "pipe.json"))
    assert json.loads((tmp_path / "read").read_text())["verdict"] and done.returncode in (0, 1)


def test_a_second_signal_does_not_change_how_it_ends(tmp_path: Path) -> None:
    """Python is slow to end here: a module that is loaded when it begins sees to that."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, os, time\natexit.register(time.sleep, 2)\n"
        f"atexit.register(lambda: os.close(os.open({str(tmp_path / 'ends')!r}, os.O_CREAT)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "list"],
        env={**NEUTRAL, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        while not (tmp_path / "ends").exists():
            assert process.poll() is None
            time.sleep(0.01)
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(signum)
        assert process.stderr is not None
        assert (process.wait(30), process.stderr.read()) == (0, b"")


@pytest.mark.parametrize("format_", ["text", "json", "markdown", "html", "sarif", "junit", "github"])
def test_names_that_are_not_utf_8_are_written_with_question_marks(format_: str, tmp_path: Path) -> None:
    folder = os.fsdecode(bytes(tmp_path) + b"/\xff")
    os.mkdir(folder)
    Path(folder, "t\udcff.py").write_text("import torch\n")
    done = run_doctor(
        *FACTS_ONLY, "--verbose", "--format", format_, os.path.join(folder, "t\udcff.py"),
        env={"HOME": folder, "CUDA_HOME": f"{folder}/cuda", "HF_TOKEN": "token\udcff"},
    )  # fmt: skip
    assert done.returncode in (0, 1) and done.stderr == "" and len(done.stdout) > 0
    assert format_ != "json" or "t?.py" in done.stdout
    output = run_doctor(
        *FACTS_ONLY,
        "--format",
        format_,
        "--output",
        str(tmp_path / f"o.{SUFFIX[format_]}"),
        f"{folder}/t\udcff.py",
    )
    assert output.returncode in (0, 1) and "Traceback" not in output.stderr
    (tmp_path / f"o.{SUFFIX[format_]}").read_text(encoding="utf-8")


def test_no_name_keeps_a_report_from_being_written(tmp_path: Path) -> None:
    target = tmp_path / f"{'n' * 250}.json"
    assert run_doctor(*FACTS_ONLY, "--output", str(target)).returncode in (0, 1)
    assert json.loads(target.read_text())["schema"] == "llm-doctor/report/v1"


def test_a_link_that_leads_nowhere_is_replaced_by_the_report(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    target.symlink_to(target)
    assert run_doctor(*FACTS_ONLY, "--output", str(target)).returncode in (0, 1)
    assert json.loads(target.read_text())["schema"] == "llm-doctor/report/v1"


def test_a_file_that_is_written_again_keeps_its_mode(tmp_path: Path) -> None:
    target = tmp_path / "r.json"
    target.write_text("")
    target.chmod(0o640)
    assert run_doctor(*FACTS_ONLY, "--output", str(target)).returncode in (0, 1)
    assert target.stat().st_mode & 0o777 == 0o640 and os.listdir(tmp_path) == ["r.json"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--output", "s.json", "--record", "./s.json"), "--record ./s.json: it is written already"),
        (("run", "--output", "a.txt", "--output", "./a.txt"), "--output ./a.txt: it is written already"),
        (("run", "--format", "markdown", "--output", "t.py", "t.py"), "--output t.py: it is read as well"),
        (("run", "--record", "t.py", "python", "t.py"), "--record t.py: it is read as well"),
        (("run", "--replay", "t.py", "--output", "link.json"), "--output link.json: it is read as"),
        (("show", "t.py", "--format", "json", "--output", "t.py"), "--output t.py: it is read as well"),
    ],
)
def test_nothing_is_written_over_what_is_read(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("import torch\n")
    (tmp_path / "link.json").symlink_to("t.py")
    done = run_doctor(*words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
    assert (tmp_path / "t.py").read_text() == "import torch\n"
    assert sorted(os.listdir(tmp_path)) == ["link.json", "t.py"]


def test_no_room_for_a_temporary_folder_costs_the_trials_alone(
    make_patient: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make_patient(packages={"torch": "2.0", "transformers": "4.38.0", "peft": "0.9.0"})
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    request = Request(checks=registry.registered())
    report = examine(request, Reading(real_host(), str(python)), lambda doing: None)
    trials = [trial for check in report.checks for trial in check.trials]
    assert {trial.status for trial in trials} == {"not-run"}
    assert all("no temporary folder can be written" in str(trial.reason) for trial in trials)
    assert report.facts.packages.status == "ok" and report.exit_code == 0


def test_a_reader_that_leaves_early_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", *FACTS_ONLY, "--verbose"],
        env=NEUTRAL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(60) in (0, 1)


def test_a_full_disk_keeps_the_report_of_yesterday(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk."""
    target = tmp_path / "report.json"
    target.write_text("yesterday")
    command = f"ulimit -f 1; exec {sys.executable} -m llm_doctor run --no-probes --output {target}"
    done = subprocess.run(["bash", "-c", command], env=NEUTRAL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "could not be written: File too large" in done.stderr
    assert target.read_text() == "yesterday" and os.listdir(tmp_path) == ["report.json"]
    assert json.loads(done.stdout)["schema"] == "llm-doctor/report/v1", "it is printed instead"


def test_closed_streams_end_without_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "stderr"
    command = f"{sys.executable} -m llm_doctor run --no-probes <&- >&- 2>{log}"
    done = subprocess.run(["sh", "-c", command], env=NEUTRAL, timeout=60)
    assert done.returncode == 3
    assert log.read_text() == "llm-doctor: standard output could not be written: it is closed\n"
    command = f"{sys.executable} -m llm_doctor run --output {tmp_path / 'r.json'} <&- >&- 2>&-"
    done = subprocess.run(["sh", "-c", command], env=NEUTRAL, timeout=120)
    report = json.loads((tmp_path / "r.json").read_text())
    assert done.returncode == report["exit_code"] and report["patient"]["version"] is not None


def test_an_ascii_terminal_gets_a_report() -> None:
    done = run_doctor(*FACTS_ONLY, env={"LC_ALL": "C", "LANG": None, "PYTHONIOENCODING": "ascii"})
    assert done.returncode in (0, 1) and done.stdout.isascii()


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_every_width_is_kept_but_for_what_is_copied(columns: str) -> None:
    done = run_doctor(*FACTS_ONLY, env={"COLUMNS": columns})
    width = min(int(columns), 120)
    too_wide = [
        line for line in done.stdout.splitlines() if len(line) > width and not line.startswith(" " * 11)
    ]
    assert too_wide == []


def test_no_home_and_no_path_are_survived() -> None:
    report = report_of(
        run_doctor(*FACTS_ONLY, "--format", "json", env={"HOME": None, "PATH": "", "USER": None})
    )
    assert report["facts"]["compilers"]["value"] == {
        "cxx": None,
        "cc": None,
        "ninja": None,
        "not_there": {},
    }


def test_a_recording_is_examined_again_anywhere(tmp_path: Path, make_patient: Callable[..., Path]) -> None:
    python = make_patient(
        modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '2.9.0+cu128'\ncuda = '12.8'\n"},
        packages={"torch": "2.9.0", "transformers": "5.0.0"},
    )
    recording = tmp_path / "node.json"
    home = {"HOME": str(tmp_path)}
    record = ("--python", "~/patient", "--record", str(recording))
    first = report_of(run_doctor(*FACTS_ONLY, *record, "--format", "json", env=home))
    assert str(tmp_path) not in recording.read_text(), "a recording is redacted"
    # Elsewhere: another home, no programs, and the patient is gone.
    python.unlink()
    elsewhere = {"PATH": "/nowhere", "HOME": "/home/somebody-else"}
    again = report_of(run_doctor("run", "--format", "json", "--replay", str(recording), env=elsewhere))
    for report in (first, again):
        for fact in report["facts"].values():
            fact.pop("seconds")
    assert again["facts"] == first["facts"]
    assert [c["outcome"] for c in again["checks"]] == [c["outcome"] for c in first["checks"]]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": "llm-doctor/recording/v1", "answers": [], "python": 5}',
        '{"schema": "other/v9"}',
        '{"schema": 1, "answers": []}',
        "\x00",
    ],
)
def test_a_damaged_recording_is_refused_in_a_line(text: str, tmp_path: Path) -> None:
    recording = tmp_path / "damaged.json"
    recording.write_text(text)
    done = run_doctor("run", "--replay", str(recording))
    assert done.returncode == 2 and "Traceback" not in done.stderr and "--replay" in done.stderr


@given(st.dictionaries(st.sampled_from(["value", "text", "names", "result", "returncode", "problem"]), JSON))
@settings(max_examples=30, deadline=None)
def test_an_edited_recording_is_no_crash(answer: dict[str, object]) -> None:
    questions = [("env", "VIRTUAL_ENV"), ("own-python",), ("platform",), ("nvml",), ("names", "/dev")]
    answers = [{"asked": list(question), "answer": answer} for question in questions]
    recording = {"schema": "llm-doctor/recording/v1", "python": None, "answers": answers}
    machine, python = replay_host(json.dumps(recording))
    report = examine(
        Request(checks=registry.registered(), no_probes="replayed"),
        Reading(machine, python),
        lambda doing: None,
    )
    assert report.schema == "llm-doctor/report/v1"
