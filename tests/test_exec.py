"""`llm-doctor exec`: the job is what it would be without it, and its failure is triaged."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

EXEC = [sys.executable, "-m", "llm_doctor", "exec", "--no-preflight", "--"]


def job(*words: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*EXEC, *words], capture_output=True, timeout=60, **options)  # type: ignore[call-overload,no-any-return]


def python(program: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return job(sys.executable, "-c", program, **options)


def started(*words: str, **options: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*EXEC, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def test_every_byte_of_both_streams_passes_unchanged() -> None:
    program = (
        "import os; os.write(1, bytes(range(256)) * 400 + b'\\r\\x1b[31m no end of line');"
        " os.write(2, b'\\xff\\x00 said\\n')"
    )
    done = python(program)
    assert done.returncode == 0
    assert done.stdout == bytes(range(256)) * 400 + b"\r\x1b[31m no end of line"
    assert done.stderr == b"\xff\x00 said\n"


def test_the_order_of_two_streams_in_one_file_is_kept(tmp_path: Path) -> None:
    program = "import os\nfor n in range(300): os.write(1 + n % 2, b'%d\\n' % n)"
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([*EXEC, sys.executable, "-c", program], stdout=log, stderr=log, timeout=60, check=True)
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(300)]


def test_standard_input_is_the_job_s() -> None:
    done = python("import sys; print(sys.stdin.read()[::-1], end='')", input=b"abc" * 90_000)
    assert done.stdout == b"cba" * 90_000


@pytest.mark.parametrize("code", [0, 1, 3, 42, 130, 255])
def test_the_exit_code_is_the_job_s(code: int) -> None:
    assert python(f"raise SystemExit({code})").returncode == code


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_job_that_a_signal_ends_ends_us_by_the_same(signum: signal.Signals, tmp_path: Path) -> None:
    done = python(f"import os; os.kill(os.getpid(), {int(signum)})", cwd=tmp_path)
    assert done.returncode == -signum
    assert list(tmp_path.iterdir()) == []  # no core of ours


def test_what_cannot_be_started_is_told_as_a_shell_does(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("text")
    absent, forbidden = job("no-such-program-here"), job(str(plain))
    assert (absent.returncode, absent.stderr) == (
        127,
        b"llm-doctor: no-such-program-here: No such file or directory\n",
    )
    assert (forbidden.returncode, forbidden.stdout) == (126, b"")


def test_no_command_is_a_usage_error() -> None:
    done = job()
    assert done.returncode == 2 and b"which command?" in done.stderr


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_signals_reach_the_job(signum: signal.Signals) -> None:
    program = (
        "import signal, sys, time\n"
        f"signal.signal({int(signum)}, lambda *_: (print('saved', flush=True), sys.exit(7)))\n"
        "print('ready', flush=True)\ntime.sleep(30)"
    )
    with started(sys.executable, "-c", program, start_new_session=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signum)
        assert process.communicate(timeout=20)[0] == b"saved\n"
    assert process.returncode == 7


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    program = "import signal; print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN)"
    words = " ".join([*EXEC, sys.executable, "-c", f"'{program}'"])
    done = subprocess.run(["sh", "-c", f"trap '' HUP; {words}"], capture_output=True, timeout=60)
    assert done.stdout == b"True\n"


def test_a_reader_that_goes_away_ends_the_job_as_it_would_have() -> None:
    words = " ".join([*EXEC, "yes"])
    script = f"{words} | head -n 2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
    assert done.stdout == b"y\ny\n141\n"


def test_a_process_that_the_job_leaves_behind_neither_holds_us_nor_loses_its_words() -> None:
    began = time.monotonic()
    with started("sh", "-c", "(sleep 6; echo late) & echo early") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"early\n"
        assert process.wait(timeout=5) == 0
        assert time.monotonic() - began < 6
        assert process.stdout.read() == b"late\n"


def test_on_a_terminal_the_job_has_one() -> None:
    program = (
        "import os, sys; print(os.isatty(1), os.isatty(2), os.get_terminal_size().columns);"
        " sys.stdout.flush(); os.write(2, b'bar\\r')"
    )
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 97, 0, 0))
    process = subprocess.Popen([*EXEC, sys.executable, "-c", program], stdout=theirs, stderr=theirs)
    assert process.wait(timeout=60) == 0
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):
        while select.select([ours], [], [], 1)[0]:
            said += os.read(ours, 1000)
    os.close(ours)
    assert said == b"True True 97\r\nbar\r"


def test_a_failure_is_triaged_on_standard_error_and_nowhere_else() -> None:
    program = (
        "import sys\nprint('loss 0.5')\n"
        "sys.exit('RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half')"
    )
    done = python(program)
    assert done.returncode == 1
    assert done.stdout == b"loss 0.5\n"
    first, *rest = done.stderr.decode().splitlines()
    assert first == "RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half"
    assert rest[:2] == ["", "cause half-float-mismatch output:2"]


def test_a_failure_that_nobody_knows_names_the_frame() -> None:
    done = python("row = {}\ndef train():\n    return row['text']\ntrain()")
    assert done.returncode == 1
    assert done.stderr.decode().endswith("line 4: KeyError: 'text' (<string>:3, in train)\n")


def test_ctrl_c_is_no_failure_to_be_explained() -> None:
    done = python("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    assert done.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in done.stderr and b"nothing known here" not in done.stderr


def test_of_a_long_output_the_tail_is_kept_and_lines_are_counted_from_the_start() -> None:
    program = (
        "import sys\nfor n in range(200_000): print('step', n, 'x' * 40)\nsys.stdout.flush()\n"
        "sys.exit('RuntimeError: mat1 and mat2 must have the same dtype, but got Float and Half')"
    )
    done = python(program)
    assert done.stdout.count(b"\n") == 200_000
    assert b"cause half-float-mismatch output:200001" in done.stderr


def test_before_the_job_the_node_is_examined_and_the_job_runs_whatever_is_found(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('trained')\n")
    (tmp_path / "llm-doctor.toml").write_text('only = ["launcher-conflict", "open-nothing"]\n')
    words = [sys.executable, "-m", "llm_doctor", "exec", "--", sys.executable, str(script)]
    done = subprocess.run(words, capture_output=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"trained\n")
    assert done.stderr.startswith(b"llm-doctor: not examined: ")  # a check of that name does not exist


def test_what_a_shell_is_told_by_c_is_no_file_to_be_examined(tmp_path: Path) -> None:
    (tmp_path / "llm-doctor.toml").write_text('only = ["launcher-conflict"]\n')
    words = [sys.executable, "-m", "llm_doctor", "exec", "--", "bash", "-c", "echo ran"]
    done = subprocess.run(words, capture_output=True, timeout=120, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, b"ran\n")
    assert b"Not examined" not in done.stderr
