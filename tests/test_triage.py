"""`llm-doctor triage`: from logs as people have them to causes, and silence where nothing is known."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import jsonschema
import pytest
from conftest import ROOT, Run
from hypothesis import given, settings
from hypothesis import strategies as st

import llm_doctor
from llm_doctor import registry
from llm_doctor.check import Check, Symptom
from llm_doctor.logs import reading, words
from llm_doctor.logs.data import Log, json_schema
from llm_doctor.logs.triager import LINE_LIMIT, Triager
from llm_doctor.redact import redactor

CHECKS = [entry.check for entry in registry.registered(logs=True) if entry.check]
SYMPTOMS = [(check, symptom) for check in CHECKS for symptom in check.symptoms]
FIXTURES = sorted((ROOT / "tests" / "logs").glob("*.log"))

MIXED = "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half"
ASSERTED = "Indexing.cu:1146: block: [85,0,0] Assertion `srcIndex < srcSelectDimSize` failed."


def log_of(text: str | bytes) -> Log:
    triager_input = text if isinstance(text, str) else text.decode("utf-8", "replace")
    (log,) = llm_doctor.triage(triager_input).logs
    return log


def causes(text: str | bytes) -> list[tuple[str, int]]:
    return [(it.check, it.line) for it in log_of(text).diagnoses]


# --- What is said ---------------------------------------------------------------------------------------


def test_a_person_reads_cause_line_and_fix(doctor: Run, tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text(f"loss 0.3\n[rank2]: {MIXED}\n")
    done = doctor("triage", "train.log", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "cause half-float-mismatch train.log:2, rank 2"
    assert lines[1].startswith("  ")
    assert any(
        line.startswith("  log    RuntimeError: mat1 and mat2 must have the same dtype") for line in lines
    )
    assert any(line.startswith("  fix    ") for line in lines)
    assert all(len(line) <= 80 or line.startswith(" " * 11) for line in lines)


def test_several_logs_and_standard_input_in_one_call(doctor: Run, tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(f"{MIXED}\n")
    (tmp_path / "b.log").write_text("epoch 3\n")
    done = doctor(
        "triage", "--format", "json", "a.log", "b.log", "-", "gone.log", cwd=tmp_path, input=ASSERTED
    )
    found = json.loads(done.stdout)
    assert [[it["check"] for it in log["diagnoses"]] for log in found["logs"]] == [
        ["half-float-mismatch"],
        [],
        ["index-out-of-range-on-gpu"],
        [],
    ]
    assert found["logs"][3]["problem"] == "No such file or directory"
    assert done.returncode == 0


def test_json_keeps_its_contract(doctor: Run) -> None:
    done = doctor("triage", "--format", "json", input=f"x\n{MIXED}\n")
    found = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json_schema()).validate(found)
    assert found["schema"] == "llm-doctor/triage/v1"
    (log,) = found["logs"]
    (diagnosis,) = log["diagnoses"]
    assert log["path"] == "-"
    assert {"check", "topic", "confidence", "line", "excerpt", "cause", "fixes"} <= set(diagnosis)
    assert (diagnosis["topic"], diagnosis["line"], diagnosis["excerpt"]) == ("dtype-mismatch", 2, MIXED)


def test_markdown_is_safe_in_a_ticket(doctor: Run) -> None:
    error = f"@someone ```\n{MIXED}\n"
    done = doctor("triage", "--format", "markdown", input=error)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "### llm-doctor triage: `standard input`\n\n#### cause: half-float-mismatch (line 2)\n"
    )
    assert f"```text\n{MIXED}\n```" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "text", "code"),
    [((), MIXED, 0), ((), "KeyError: 'text'", 1), ((), "", 3), (("/",), "", 3), (("--nonsense",), "", 2)],
)
def test_exit_codes(doctor: Run, arguments: tuple[str, ...], text: str, code: int) -> None:
    assert doctor("triage", *arguments, input=text).returncode == code


def test_secrets_and_names_of_a_log_are_taken_out(doctor: Run) -> None:
    token = "hf_" + "a1B2" * 8
    done = doctor("triage", input=f"{MIXED} token={token} in /home/somebody/x\n")
    assert token not in done.stdout and "somebody" not in done.stdout
    assert token in doctor("triage", "--no-redact", input=f"{MIXED} token={token}\n").stdout


# --- Logs as people have them ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        f"\x1b[31;1m{MIXED}\x1b[0m",
        f"[31m{MIXED}[0m",
        f" 12%|█▏ | 3/25 [00:01<00:09]\r 16%|█▌ | 4/25 [00:01<00:09]\r{MIXED}",
        f"[rank7]: {MIXED}",
        f"[default3]:{MIXED}",
        f"[1,3]<stderr>:{MIXED}",
        f"(RayTrainWorker pid=1234, ip=10.0.0.7) {MIXED}",
        f"(pid=1) {MIXED}",
        f"node3: {MIXED}",
        f"gpu-q-13: [rank1]: {MIXED}",
        f" 3: {MIXED}",
        f"2024-05-01T10:11:12.1234567Z {MIXED}",
        f"> {MIXED}",
        f"> > {MIXED}",
        f"```\n{MIXED}\n```",
        f"│ {MIXED} │",
        "╭───────╮\n│ RuntimeError: mat1 and mat2 must   │\n│ have the same dtype, but got  │\n╰─────╯",
        "RuntimeError: mat1 and mat2 must have the\n  same dtype, but got Float and Half",
        "[rank1]: RuntimeError: mat1 and mat2 must\n[rank0]: saving\n[rank1]: have the same dtype, but got",
        f"运行时错误: {MIXED} 见上",
        f"{MIXED}".replace(" ", "\xa0"),
        f"\ufeff{MIXED}",
        f"C:\\Users\\me\\train.py:3: {MIXED}",
        MIXED.replace("mat1 and mat2", "mat1  and  mat2"),
    ],
)
def test_what_stands_around_a_message_hides_it_not(text: str) -> None:
    assert [check for check, _ in causes(f"step 1\n{text}\n")] == ["half-float-mismatch"]


def test_lines_are_those_of_the_log_as_it_is() -> None:
    bars = "\r".join(f" {n}%|#| {n}/100" for n in range(100))
    text = f"first\r\n{bars}\r\n\n```\n[rank0]: {MIXED}\n"
    assert causes(text) == [("half-float-mismatch", 5)]
    assert text.split("\n")[4].endswith(MIXED)


def test_what_several_ranks_say_at_once_is_told_apart() -> None:
    text = "\n".join(
        f"[rank{rank}]: {line}"
        for line in (
            "Traceback (most recent call last):",
            '  File "/w/t.py", line 9, in main',
            "KeyError: 'a'",
        )
        for rank in range(4)
    )
    unknown = log_of(text).unknown
    assert unknown is not None
    assert (unknown.error, unknown.frame) == ("KeyError: 'a'", "/w/t.py:9, in main")


def test_a_message_that_stands_between_two_blocks_is_found() -> None:
    for size in range(1 << 20, (1 << 20) + 200, 13):
        triager = Triager()
        line = b"x" * 99 + b"\n"
        triager.feed(line * (size // 100) + b"y" * (size % 100))
        triager.feed(f"\nRuntimeError: mat1 and mat2\nmust have the same dtype\n{'z' * 99}\n".encode() * 900)
        diagnoses, _ = triager.finish()
        assert [(it.check, it.line) for it in diagnoses] == [("half-float-mismatch", size // 100 + 2)]


def test_a_long_line_is_not_cut_within_a_secret() -> None:
    """What is left of it would not be known as one."""
    secret = "hf_" + "abcdEFGH1234" * 3
    for gap in range(60):
        found = llm_doctor.triage(f"{'x ' * 300}{secret} {'-' * gap} {MIXED} {'y ' * 300}")
        assert [it.check for it in found.logs[0].diagnoses] == ["half-float-mismatch"]
        shown = redactor().struct(found).logs[0].diagnoses[0].excerpt
        assert "must have the same dtype" in shown and secret[-6:] not in shown


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 5000), max_size=30))
def test_it_does_not_matter_in_which_pieces_a_log_comes(sizes: list[int]) -> None:
    bars = "progress 3%\r" * 300
    text = f"loss\r\n{bars}\n[rank1]: {MIXED}\n{ASSERTED}\n" + "more\n" * 3000
    data = text.encode()
    triager = Triager()
    at = 0
    for size in sizes:
        triager.feed(data[at : at + size])
        at += size
    triager.feed(data[at:])
    assert [(it.check, it.line) for it in triager.finish()[0]] == causes(text)


@settings(deadline=None)
@given(st.binary(max_size=3000) | st.text(max_size=3000).map(str.encode))
def test_nothing_that_a_log_holds_breaks_it(data: bytes) -> None:
    log = reading._made("log", reading._decoded(iter([data])))
    assert log.path == "log"


# --- Cause, not loudest line ----------------------------------------------------------------------------


def test_the_cause_is_what_failed_first_not_what_fell_over() -> None:
    text = f"""RuntimeError: CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`
/opt/conda/Indexing.cu:1146: {ASSERTED}
"""
    assert causes(text)[0][0] == "index-out-of-range-on-gpu"


def test_of_two_failures_the_first_is_the_cause() -> None:
    assert [check for check, _ in causes(f"{MIXED}\nx\n{ASSERTED}\n")] == [
        "half-float-mismatch",
        "index-out-of-range-on-gpu",
    ]
    assert causes(f"{ASSERTED}\nx\n{MIXED}\n")[0][0] == "index-out-of-range-on-gpu"


TIMEOUT = (
    "[rank1]:[E321 02:07:08.408 ProcessGroupNCCL.cpp:607] [Rank 1] Watchdog caught collective operation "
    "timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=4, NumelOut=4, Timeout(ms)=600000) ran for "
    "600060 milliseconds before timing out.\n"
)
OUT_OF_MEMORY = (
    "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.50 GiB. GPU 3 has a total "
    "capacity of 79.35 GiB of which 415.19 MiB is free.\n"
)
KEY_ERROR = (
    "[rank0]: Traceback (most recent call last):\n"
    '[rank0]:   File "/w/env/lib/python3.11/site-packages/datasets/formatting.py", line 277, in __getitem__\n'
    "[rank0]:     value = self.data[key]\n[rank0]: KeyError: 'text'\n"
)


def test_a_timeout_after_one_rank_s_failure_is_not_the_cause() -> None:
    (diagnosis,) = log_of(TIMEOUT + OUT_OF_MEMORY + TIMEOUT).diagnoses
    assert (diagnosis.check, diagnosis.rank) == ("gpu-out-of-memory", 3)
    assert "3.50 GiB" in diagnosis.cause and "415.19 MiB" in diagnosis.cause
    assert [check for check, _ in causes(TIMEOUT)] == ["nccl-timeout"]


def test_a_process_that_was_killed_after_the_kernel_said_why() -> None:
    text = """[ 8312.5] Memory cgroup out of memory: Killed process 629 (python) total-vm:141kB
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
 exitcode  : -9 (pid: 629)
"""
    assert causes(text) == [("host-out-of-memory", 1)]
    assert [check for check, _ in causes(" exitcode  : -9 (pid: 629)\n")] == ["host-out-of-memory"]


def test_a_file_that_a_save_under_zero_3_did_not_write() -> None:
    missing = "OSError: Error no file named pytorch_model.bin found in directory out/checkpoint-500.\n"
    saved = (
        "ValueError: Cannot get 16bit model weights because `stage3_gather_16bit_weights_on_model_save` in "
        "DeepSpeed config is False.\n"
    )
    assert causes(saved + missing)[0][1] == 1
    assert [check for check, _ in causes(missing)] == ["weights-missing"]


def test_what_fell_over_after_the_user_s_own_fault_is_no_cause() -> None:
    log = log_of(KEY_ERROR + TIMEOUT)
    assert log.diagnoses == ()
    assert log.unknown is not None and log.unknown.error == "KeyError: 'text'"


def test_a_warning_above_the_user_s_own_fault_is_no_cause() -> None:
    warning = "UserWarning: None of the inputs have requires_grad=True. Gradients will be None\n"
    assert [check for check, _ in causes(warning)] == ["lora-without-input-grads"]
    assert causes(warning + KEY_ERROR) == []


def test_a_line_that_says_that_it_is_harmless_is_none() -> None:
    line = (
        "Installed CUDA version 12.2 does not match the version torch was compiled with 12.1 but since the "
        "APIs are compatible, accepting this combination\n"
    )
    assert causes(line) == []


def test_the_most_telling_frame_is_the_user_s() -> None:
    text = """Traceback (most recent call last):
  File "/home/me/train.py", line 88, in collate
    return pad(rows)
  File "/env/lib/python3.11/site-packages/torch/nn/utils/rnn.py", line 400, in pad
    raise ValueError(x)
ValueError: rows are of unequal length
[E] torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
    unknown = log_of(text).unknown
    assert unknown is not None
    assert (unknown.line, unknown.frame) == (6, "/home/me/train.py:88, in collate")


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: path.stem)
def test_what_the_libraries_really_print(path: Path) -> None:
    wanted = path.stem.partition("--")[0]
    found = [check for check, _ in causes(path.read_bytes())]
    assert found[:1] == ([] if wanted == "none" else [wanted])


# --- Symptoms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("check", "symptom"), SYMPTOMS, ids=lambda it: getattr(it, "pattern", None))
def test_the_example_of_a_symptom_is_diagnosed(check: type[Check], symptom: Symptom) -> None:
    triager = Triager()
    triager.feed(symptom.example.encode())
    diagnoses, _ = triager.finish()
    found = {it.check: it for it in diagnoses}
    assert check.name in {it.known.check.name for it in triager._matches.values()}
    if check.name in found:
        assert re.search(r"\{\w+\}", found[check.name].cause) is None
        assert found[check.name].fixes


@pytest.mark.parametrize(("check", "symptom"), SYMPTOMS, ids=lambda it: getattr(it, "pattern", None))
def test_a_word_by_which_a_symptom_is_looked_for_is_in_its_text(check: type[Check], symptom: Symptom) -> None:
    options = words.needed(symptom.pattern)
    assert options
    text = symptom.search(symptom.example)
    assert text is not None
    for option in options:
        assert any(word.text in text[0] for word in option), option


def hostile(example: str) -> Iterator[str]:
    """Lines that come near to matching, over and over."""
    size = LINE_LIMIT * 10
    for cut in (len(example) // 4, len(example) // 2, len(example) - 1):
        yield (example[:cut] * (size // max(cut, 1) + 1))[:size]
        yield example[:cut] + " " * size
        yield example[:cut] + "1" * size
        yield example[:cut] + "a" * size
        yield example[:cut] + ("." + "9") * (size // 2)
        yield example[:cut] + "\n" * 100 + example[:cut] + " ,'\"`" * (size // 5)


def test_no_pattern_takes_for_ever_on_hostile_lines() -> None:
    def late(signum: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    try:
        for check, symptom in SYMPTOMS:
            for text in hostile(symptom.example):
                signal.setitimer(signal.ITIMER_REAL, 5)  # a pattern that backtracks takes years
                try:
                    symptom.search(text)
                except TimeoutError:
                    pytest.fail(f"{check.name}: {symptom.pattern} on {text[:100]!r}")
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)


# --- Bad input ------------------------------------------------------------------------------------------


def problem(doctor: Run, *names: str, folder: Path, code: int = 3) -> str:
    done = doctor("triage", *names, cwd=folder)
    assert (done.returncode, done.stderr) == (code, "")
    return str(done.stdout).splitlines()[0]


def test_what_is_no_log_costs_one_line_and_the_others_are_read(doctor: Run, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "good").write_text(MIXED)
    assert problem(doctor, "binary", folder=tmp_path) == "binary: it is a binary file"
    assert problem(doctor, "empty", folder=tmp_path) == "empty: it is empty"
    assert problem(doctor, "folder", folder=tmp_path) == "folder: it is a folder"
    assert problem(doctor, "absent", folder=tmp_path) == "absent: No such file or directory"
    assert problem(doctor, "/dev/null", folder=tmp_path) == "/dev/null: it is a device or socket, not a log"
    done = doctor("triage", "binary", "folder", "good", "absent", cwd=tmp_path)
    assert done.returncode == 0 and "cause half-float-mismatch good:1" in done.stdout


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_other_encodings_of_unicode_are_read(doctor: Run, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "log").write_bytes(f"step 1\n{MIXED}\n".encode(encoding))
    assert problem(doctor, "log", folder=tmp_path, code=0) == "cause half-float-mismatch log:2"


def test_gzip_is_unpacked_whole_cut_or_damaged(doctor: Run, tmp_path: Path) -> None:
    filler = "".join(f"step {n} {n * 7919 % 104729}\n" for n in range(50_000))
    packed = gzip.compress(f"{MIXED}\n{filler}".encode())
    (tmp_path / "whole.gz").write_bytes(packed)
    (tmp_path / "two.gz").write_bytes(gzip.compress(b"first\n") + packed)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "damaged.gz").write_bytes(packed[:40_000] + b"\xff" * 400 + packed[40_400:])
    assert problem(doctor, "whole.gz", folder=tmp_path, code=0) == "cause half-float-mismatch whole.gz:1"
    assert problem(doctor, "two.gz", folder=tmp_path, code=0) == "cause half-float-mismatch two.gz:2"
    for name, why in (("cut.gz", "ends early: judged by what is there"), ("damaged.gz", "is damaged: ")):
        done = doctor("triage", name, cwd=tmp_path)
        assert done.returncode == 0
        assert why in done.stdout and "cause half-float-mismatch" in done.stdout


def test_one_line_of_a_hundred_megabytes(doctor: Run, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        for _ in range(50):
            file.write(b"abcdefgh " * 111_111)
        file.write(MIXED.encode())
        for _ in range(50):
            file.write(b" ijklmnop" * 111_111)
        file.write(b"\nKeyError: 'x'\n")
    assert problem(doctor, "log", folder=tmp_path, code=0) == "cause half-float-mismatch log:1"


def test_a_character_that_is_cut_in_two_breaks_nothing() -> None:
    assert causes("步".encode()[:2] + b" " + MIXED.encode() + "步".encode()[:1]) == [
        ("half-float-mismatch", 1)
    ]


def test_a_pipe_that_says_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SILENCE_S", 0.3)
    os.mkfifo(tmp_path / "pipe")
    (log,) = reading.triage_logs([str(tmp_path / "pipe")]).logs
    assert log.problem == "it is a pipe that said nothing for 0.3 s: judged by what had come"
    writer = os.open(tmp_path / "pipe", os.O_RDWR)
    os.write(writer, f"{MIXED}\n".encode())
    (log,) = reading.triage_logs([str(tmp_path / "pipe")]).logs
    os.close(writer)
    assert [it.check for it in log.diagnoses] == ["half-float-mismatch"]


def test_a_terminal_without_a_name_is_a_usage_error() -> None:
    ours, theirs = os.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "llm_doctor", "triage"],
        stdin=theirs,
        capture_output=True,
        text=True,
        timeout=30,
    )
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 2 and "which LOG?" in done.stderr


# --- Python, and this machine ---------------------------------------------------------------------------


def test_a_program_that_asked_for_it_has_the_diagnosis_under_its_traceback() -> None:
    _, _, message = MIXED.partition(": ")
    program = f"import llm_doctor as d\nd.install()\nd.install()\nraise RuntimeError('{message}')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.count("Traceback") == 1
    assert f"{MIXED}\n\ncause half-float-mismatch traceback:3\n" in done.stderr
    assert done.stderr.count("cause half-float-mismatch") == 1


def test_a_program_that_fails_in_its_own_way_only_has_its_traceback() -> None:
    program = "import llm_doctor; llm_doctor.install(); {}['text']"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.endswith("KeyError: 'text'\n")


@pytest.mark.usefixtures("stack_site")
def test_here_the_trial_says_whether_it_is_so_on_this_machine(doctor: Run) -> None:
    done = doctor(
        "triage", "--here", "--python", sys.executable, "--format", "json", input=f"{MIXED}\n{ASSERTED}\n"
    )
    found = {it["check"]: it["here"] for it in json.loads(done.stdout)["logs"][0]["diagnoses"]}
    assert found["half-float-mismatch"]["status"] == "reproduced"
    assert found["index-out-of-range-on-gpu"] == {
        "status": "not-run",
        "sentence": "this check knows logs alone",
    }
    text = doctor("triage", "--here", "--python", sys.executable, input=f"{MIXED}\n").stdout
    assert "  here   and it is so on this machine: reproduced: " in text


def test_a_check_of_logs_examines_no_machine_and_says_so(doctor: Run) -> None:
    done = doctor("run", "--only", "gpu-out-of-memory")
    assert done.returncode == 2
    assert "gpu-out-of-memory is known from logs alone: llm-doctor triage LOG" in done.stderr
    assert "gpu-out-of-memory  [in logs only]" in doctor("list").stdout
    assert "# gpu-out-of-memory" in doctor("explain", "gpu-out-of-memory").stdout
