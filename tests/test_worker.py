"""The worker in the patient: what an arm does to itself costs that arm alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import ROOT, processes_with

from llm_doctor import probes
from llm_doctor.check import Asked, Question, Trial, TrialRequest
from llm_doctor.host import temporary_folder
from llm_doctor.model import TrialResult
from llm_doctor.places import Places

WORKER = ROOT / "doctor" / "patient" / "worker.py"


def question(folder: Path, source: str, *, imports: tuple[str, ...] = (), limit_s: float = 20.0) -> Question:
    """A question whose `answer` has this body."""
    file = folder / f"question_{len(list(folder.iterdir()))}.py"
    body = textwrap.indent(textwrap.dedent(source).strip(), "    ")
    file.write_text(f"def answer(settings):\n{body}\n")
    return Question(name=file.stem, imports=imports, limit_s=limit_s, file=str(file))


def ask(python: str | Path, *questions: Question, budget_s: float = 60.0) -> list[probes.JobResult]:
    """Runs all of them in one worker, each as an arm runs: alone."""
    jobs = [
        probes.Job(q, "answer", {"settings": {}}, needs_imports=q.needs_imports, isolated=True)
        for q in questions
    ]
    with temporary_folder() as folder, probes.worker(str(python), folder, lambda doing: None) as worker:
        return worker.run(jobs, budget_s)


@pytest.mark.parametrize(
    ("source", "outcome", "error"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "killed", "SIGSEGV"),
        ("import ctypes\nctypes.string_at(0)", "killed", "SIGSEGV"),
        ("import os\nos._exit(7)", "killed", "ended without a result (exit status 7)"),
        ("import sys\nsys.exit('not today')", "raised", "SystemExit: not today"),
        ("import time\ntime.sleep(60)", "timeout", "did not end within 2 s"),
        (
            "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass",
            "timeout",
            "did not end",
        ),
        ("raise KeyboardInterrupt", "raised", "KeyboardInterrupt"),
        (
            "blocks = []\nwhile True: blocks.append(b'x' * (64 << 20))",
            "killed",
            "used more than 4 GiB of memory",
        ),
        ("while True: print('x' * 100000)", "timeout", "did not end within 2 s"),
        ("return open('/proc/self/nothing').read()", "raised", "FileNotFoundError"),
    ],
    ids=["kill", "null", "exit", "sys.exit", "sleep", "spin", "ctrl-c", "memory", "flood", "raise"],
)
def test_one_arm_is_lost_and_the_next_one_runs(source: str, outcome: str, error: str, tmp_path: Path) -> None:
    lost, kept = ask(
        sys.executable,
        question(tmp_path, source, limit_s=30.0 if outcome == "killed" else 2.0),
        question(tmp_path, "return {'here': True}"),
    )
    assert (lost.outcome, kept.outcome, kept.value) == (outcome, "passed", {"here": True})
    assert (lost.error or "").startswith(error)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("print('rubbish on stdout')\nreturn 1", 1),
        ("import os\nos.write(1, b'rubbish')\nos.write(2, b'more')\nreturn 2", 2),
        ('import sys\nprint(\'{"event": "done"}\', file=sys.__stdout__, flush=True)\nreturn 3', 3),
        ("return float('nan')", "NaN"),
        ("return {'device': __import__('pathlib').Path('/dev')}", {"device": "/dev"}),
        ("return input()", None),
    ],
    ids=["print", "write", "an event of ours", "nan", "no JSON", "reads stdin"],
)
def test_what_an_arm_prints_or_returns_breaks_nothing(source: str, value: Any, tmp_path: Path) -> None:
    (result,) = ask(sys.executable, question(tmp_path, source))
    assert result.value == value


def test_an_arm_runs_in_one_thread_without_network_and_with_caches_of_its_own(tmp_path: Path) -> None:
    names = (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_HOME",
        "TRITON_CACHE_DIR",
    )
    (result,) = ask(
        sys.executable, question(tmp_path, f"import os\nreturn [os.environ[n] for n in {names!r}]")
    )
    assert result.value[:4] == ["1", "1", "1", "1"]
    for folder in result.value[4:]:
        assert "llm-doctor-" in folder and not os.path.exists(folder), "gone afterwards"


def test_the_folder_of_the_worker_shadows_nothing(tmp_path: Path) -> None:
    (result,) = ask(sys.executable, question(tmp_path, "import sys\nreturn sys.path"))
    assert str(WORKER.parent) not in result.value and "" not in result.value


def test_a_spent_budget_leaves_the_rest_not_run(tmp_path: Path) -> None:
    nap = question(tmp_path, "import time\ntime.sleep(1.5)\nreturn 1")
    results = ask(sys.executable, *[nap] * 40, budget_s=5.0)
    outcomes = [result.outcome for result in results]
    assert "passed" in outcomes and outcomes[-1] == "not-run"
    assert results[-1].error == "the budget was spent"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise OSError('libcudart.so.12: cannot open shared object file')", "OSError: libcudart.so.12"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
        ("import sys\nsys.stderr.write('bad lib\\n')\nimport os\nos.abort()", "signal SIGABRT (bad lib)"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
    ],
    ids=["raises", "segfaults", "aborts", "exits"],
)
def test_an_import_that_breaks_costs_what_needs_it(
    source: str, said: str, make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    python = make_patient(modules={"sick.py": source, "healthy.py": "value = 5"})
    sick, healthy = ask(
        python,
        question(tmp_path, "return 1", imports=("sick",)),
        question(tmp_path, "import healthy\nreturn healthy.value", imports=("healthy",)),
    )
    assert (sick.outcome, healthy.value) == ("not-imported", 5)
    assert sick.error is not None and sick.error.startswith("import sick: ") and said in sick.error


def test_an_import_that_hangs_is_given_up(
    make_patient: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "IMPORT_LIMIT_S", 1.0)
    python = make_patient(modules={"sick.py": "import time\ntime.sleep(600)"})
    sick, healthy = ask(
        python,
        question(tmp_path, "return 1", imports=("sick",)),
        question(tmp_path, "return 2", imports=("json",)),
    )
    assert (sick.outcome, sick.error) == ("not-imported", "import sick: did not end within 1 s")
    assert healthy.value == 2


def test_modules_are_imported_once_for_all_arms(make_patient: Callable[..., Path], tmp_path: Path) -> None:
    python = make_patient(modules={"slow.py": "import os\nimported_in = os.getpid()"})
    which = "import os, slow\nreturn [slow.imported_in, os.getpid()]"
    results = ask(python, *[question(tmp_path, which, imports=("slow",)) for _ in range(3)])
    importers = {result.value[0] for result in results}
    arms = {result.value[1] for result in results}
    assert len(importers) == 1 and len(arms) == 3 and not importers & arms


def test_what_an_arm_imports_late_is_imported_for_the_next_ones(
    make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    python = make_patient(modules={"sympy/__init__.py": "import os\nimported_in = os.getpid()"})
    which = question(tmp_path, "import os, sympy\nreturn [sympy.imported_in, os.getpid()]")
    results = ask(python, *[which] * 12)
    importers = {result.value[0] for result in results}
    themselves = [result for result in results if result.value[0] == result.value[1]]
    assert len(themselves) <= 4, "only the first ones, side by side, imported it themselves"
    assert len(importers) == len(themselves) + 1


# --- The three conditions that make forking sound ---------------------------------------------------------


def start_worker(python: str | Path, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """worker.py itself, in an environment of our choice; the process and the descriptor of its events."""
    events, theirs = os.pipe()
    process = subprocess.Popen(
        [str(python), str(WORKER), str(theirs)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs,),
        env={**os.environ, **env},
        start_new_session=True,
    )
    os.close(theirs)
    return process, events


def talk(process: subprocess.Popen[bytes], events: int, *commands: dict[str, Any]) -> list[dict[str, Any]]:
    """Sends the commands, ends the worker after the last is done, and returns all its events."""
    assert process.stdin is not None
    said = []
    with os.fdopen(events) as lines:
        for command in commands:
            process.stdin.write(json.dumps(command).encode() + b"\n")
            process.stdin.flush()
            for line in lines:
                said.append(json.loads(line))
                if said[-1]["event"] in ("ready", "done"):
                    break
        process.stdin.close()
        process.wait(20)
    return said


def job(number: int, script: Question, call: str = "answer", **changes: Any) -> dict[str, Any]:
    return {
        "id": number,
        "file": script.path,
        "call": call,
        "arguments": {"settings": {}},
        "imports": list(script.imports),
        "needs_imports": True,
        "limit_s": 60,
        "gpu": None,
        "isolated": False,
        **changes,
    }


CALLS_CUINIT = """
import ctypes
ctypes.CDLL("libcuda.so.1").cuInit(0)
"""


def test_nothing_initialises_cuda_before_a_fork(
    compile_library: Callable[[str, str], Path], make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    """With a driver, what calls cuInit on import (bitsandbytes, old peft) is left to the lanes."""
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    log = tmp_path / "cuinit.log"
    python = make_patient(modules={"torch.py": "quiet = True", "bitsandbytes.py": CALLS_CUINIT})
    script = question(tmp_path, "import os\nreturn os.getpid()", imports=("torch", "bitsandbytes"))
    process, events = start_worker(python, {"LD_LIBRARY_PATH": str(driver), "CUINIT_LOG": str(log)})
    said = talk(
        process,
        events,
        {"do": "import", "modules": ["torch", "bitsandbytes"]},
        {"do": "run", "jobs": [job(n, script) for n in range(3)], "budget_s": 60},
    )
    imported = [e["module"] for e in said if e["event"] == "imported" and "lane" not in e]
    lanes = [event["value"] for event in said if event["event"] == "finished"]
    initialisers = [int(line) for line in log.read_text().split()]
    assert imported == ["torch"]
    assert process.pid not in initialisers, "a child of a process that called cuInit cannot use CUDA"
    assert len(lanes) == 3 and len(set(lanes)) == 1, "arms of one GPU share a lane"
    assert initialisers == [lanes[0]], "and the lane initialises CUDA once"


def test_a_lane_that_is_killed_is_started_afresh(
    compile_library: Callable[[str, str], Path], make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    python = make_patient()
    lives = question(tmp_path, "import os\nreturn os.getpid()")
    dies = question(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    hangs = question(tmp_path, "import time\ntime.sleep(60)")
    process, events = start_worker(python, {"LD_LIBRARY_PATH": str(driver)})
    jobs = [job(0, lives), job(1, dies), job(2, lives), job(3, hangs, limit_s=1), job(4, lives)]
    said = talk(process, events, {"do": "run", "jobs": jobs, "budget_s": 60})
    ended = {event["id"]: event for event in said if event["event"] == "finished"}
    assert [ended[n]["outcome"] for n in range(5)] == ["passed", "killed", "passed", "timeout", "passed"]
    assert len({ended[n]["value"] for n in (0, 2, 4)}) == 3


def lanes_on(driver: Path, python: Path, jobs: list[dict[str, Any]], budget_s: float = 60) -> dict[int, Any]:
    """Runs the jobs where a driver is, one after the other in one lane; how each ended."""
    process, events = start_worker(python, {"LD_LIBRARY_PATH": str(driver)})
    said = talk(process, events, {"do": "run", "jobs": jobs, "budget_s": budget_s})
    return {event["id"]: event for event in said if event["event"] == "finished"}


def test_what_a_job_sets_does_not_reach_the_next_one_in_its_lane(
    compile_library: Callable[[str, str], Path], make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    sets = question(
        tmp_path, "import os\nos.environ['CUDA_HOME'] = '/set'\nos.chdir('/')\nreturn os.getpid()"
    )
    looks = question(tmp_path, "import os\nreturn [os.getpid(), os.environ.get('CUDA_HOME'), os.getcwd()]")
    ended = lanes_on(driver, make_patient(), [job(0, sets), job(1, looks)])
    assert ended[1]["value"] == [ended[0]["value"], None, os.getcwd()]


def test_imports_in_a_lane_are_not_counted_against_the_budget(
    compile_library: Callable[[str, str], Path],
    make_patient: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(compile_library("counting_libcuda.c", "libcuda.so.1")))
    python = make_patient(modules={"peft.py": "import time\ntime.sleep(2.5)"})
    file = tmp_path / "small.py"
    file.write_text(
        "def combinations(settings): return [{}]\n"
        "def broken(settings, combination): return {}\n"
        "def fixed(settings, combination): return {}\n"
    )
    request = TrialRequest(Trial(name="small", imports=("peft",), file=str(file)))
    with temporary_folder() as folder, probes.worker(str(python), folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(worker, [request], Places(), 2.0, lambda request, error: False)
    assert result.status == "refuted" and worker.import_seconds > 2


def test_an_import_that_breaks_in_a_lane_is_named_and_not_tried_again(
    compile_library: Callable[[str, str], Path], make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    log = tmp_path / "imports.log"
    crash = f"import os, signal\nopen({str(log)!r}, 'a').write('x')\nos.kill(os.getpid(), signal.SIGSEGV)"
    python = make_patient(modules={"peft.py": crash})
    needs = question(tmp_path, "return 1", imports=("peft",))
    wants = job(2, question(tmp_path, "return 2", imports=("peft",)), needs_imports=False)
    ended = lanes_on(driver, python, [job(0, needs), job(1, needs), wants])
    assert [ended[n]["outcome"] for n in range(3)] == ["not-imported", "not-imported", "passed"]
    assert ended[0]["error"] == ended[1]["error"] == "import peft: SIGSEGV"
    assert log.read_text() == "x"


def test_no_tensor_operation_runs_before_a_fork(
    compile_library: Callable[[str, str], Path], stack_site: str, tmp_path: Path
) -> None:
    """One parallel region in the worker would leave every arm waiting for threads it does not have."""
    shim = compile_library("counting_libgomp.c", "libcounting_gomp.so") / "libcounting_gomp.so"
    log = tmp_path / "gomp.log"
    product = "import os, torch\nx = torch.randn(512, 512)\n(x @ x).tanh()\nreturn os.getpid()"
    script = question(
        tmp_path, product, imports=("torch", "transformers.models.llama.modeling_llama", "peft")
    )
    # Several threads allowed: with one, no region would be opened and nothing could be seen.
    environment = {
        "LD_PRELOAD": str(shim),
        "GOMP_LOG": str(log),
        "OMP_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }
    process, events = start_worker(sys.executable, environment)
    said = talk(
        process,
        events,
        {"do": "import", "modules": list(script.imports)},
        {"do": "run", "jobs": [job(n, script) for n in range(2)], "budget_s": 120},
    )
    arms = {event["value"] for event in said if event["event"] == "finished"}
    regions = {int(line) for line in log.read_text().split()}
    assert arms <= regions, "the arms' own operations are seen: the count works"
    assert process.pid not in regions


# --- Nothing is left behind ---------------------------------------------------------------------------


def test_lanes_end_when_the_doctor_is_killed(tmp_path: Path) -> None:
    marker = f"LLM_DOCTOR_TEST={tmp_path}"
    script = question(
        tmp_path, "import subprocess, time\nsubprocess.Popen(['sleep', '300'])\ntime.sleep(300)"
    )
    process, events = start_worker(sys.executable, {"LLM_DOCTOR_TEST": str(tmp_path)})
    assert process.stdin is not None
    process.stdin.write(json.dumps({"do": "run", "jobs": [job(0, script)], "budget_s": 60}).encode() + b"\n")
    process.stdin.flush()
    deadline = time.monotonic() + 20
    while len(processes_with(marker)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes_with(marker)) == 3, "worker, lane and what the lane started"
    process.stdin.close()  # all that a killed doctor can still do
    process.wait(20)
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.close(events)
    assert processes_with(marker) == []


@pytest.mark.parametrize("own_session", [False, True])
def test_stopping_ends_what_an_arm_started(own_session: bool, tmp_path: Path) -> None:
    start = (
        f"import subprocess\nreturn subprocess.Popen(['sleep', '300'], start_new_session={own_session}).pid"
    )
    (result,) = ask(sys.executable, question(tmp_path, start))
    stat = Path(f"/proc/{result.value}/stat")
    assert not stat.exists() or ") Z " in stat.read_text()


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_outlives_a_doctor_that_is_killed_while_importing(
    kill: signal.Signals, make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    marker = f"LLM_DOCTOR_TEST={tmp_path}"
    python = make_patient(
        modules={"torch.py": "import time\ntime.sleep(300)"},
        packages={"torch": "2.0", "transformers": "4.38.0", "peft": "0.9.0"},
    )
    doctor = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "run", "--python", str(python)],
        env={**os.environ, "LLM_DOCTOR_TEST": str(tmp_path), "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("llm-doctor-*"))) < 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    doctor.send_signal(kill)
    doctor.wait(20)
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(marker) == []
    assert list(tmp_path.glob("llm-doctor-*")) == []


# --- What two arms prove ------------------------------------------------------------------------------

PASSED = probes.JobResult("passed")
SYMPTOM = probes.JobResult("raised", error="RuntimeError: the symptom")
OTHER = probes.JobResult("raised", error="RuntimeError: something else")
FAILED = probes.JobResult("failed", error="the gradient is None")
KILLED = probes.JobResult("killed", error="SIGSEGV")
NOT_RUN = probes.JobResult("not-run", error="the budget was spent")


@pytest.mark.parametrize(
    ("broken", "fixed", "status"),
    [
        (SYMPTOM, PASSED, "reproduced"),
        (FAILED, PASSED, "reproduced"),
        (PASSED, PASSED, "refuted"),
        (PASSED, OTHER, "refuted"),
        (OTHER, PASSED, "inconclusive"),
        (SYMPTOM, OTHER, "inconclusive"),
        (SYMPTOM, FAILED, "inconclusive"),
        (SYMPTOM, None, "inconclusive"),
        (KILLED, PASSED, "inconclusive"),
        (SYMPTOM, KILLED, "inconclusive"),
        (NOT_RUN, NOT_RUN, "not-run"),
        (SYMPTOM, NOT_RUN, "not-run"),
    ],
)
def test_two_arms_prove_no_more_than_they_show(
    broken: probes.JobResult, fixed: probes.JobResult | None, status: str
) -> None:
    judged, reason = probes.judge(broken, fixed, lambda error: "the symptom" in error)
    assert judged == status
    assert (reason is None) == (status in ("reproduced", "refuted"))


def test_half_of_a_trial_refutes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "long_trial.py"
    file.write_text(
        "import time\n"
        "def combinations(settings): return [{'n': n} for n in range(40)]\n"
        "def broken(settings, combination): time.sleep(0.5); return {}\n"
        "fixed = broken\n"
    )
    request = TrialRequest(Trial(name="long-trial", imports=(), file=str(file)))
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(worker, [request], Places(), 3.0, lambda request, error: False)
    statuses = {case.status for case in result.cases}
    assert statuses == {"refuted", "not-run"}
    assert (result.status, result.reason) == ("not-run", "the budget was spent")


def test_a_trial_is_run_case_by_case(tmp_path: Path) -> None:
    file = tmp_path / "small_trial.py"
    file.write_text(
        textwrap.dedent(
            """
            from llm_doctor.patient.arms import Failed

            def combinations(settings):
                names = ("raises", "fails", "runs")
                return [{"case": name} for name in names] + [{"case": "other", "remedy": None}]

            def broken(settings, combination):
                if combination["case"] == "raises":
                    raise RuntimeError("the symptom")
                if combination["case"] == "fails":
                    raise Failed("too large", {"parameter_bytes": settings["bytes"]})
                if combination["case"] == "other":
                    raise RuntimeError("the symptom")
                return {"fine": True}

            def fixed(settings, combination):
                return {}
            """
        )
    )
    request = TrialRequest(Trial(name="small-trial", imports=(), file=str(file)), {"bytes": 5})
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(
            worker, [request], Places(), 60.0, lambda request, error: "the symptom" in error
        )
    assert isinstance(result, TrialResult)
    assert [case.status for case in result.cases] == ["reproduced", "reproduced", "refuted", "inconclusive"]
    assert result.status == "reproduced" and result.device == "cpu"
    failed = result.cases[1].broken
    assert failed is not None and (failed.outcome, failed.measured) == ("failed", {"parameter_bytes": 5})
    assert result.cases[3].fixed is None


def test_a_question_that_crashes_costs_no_other_one_its_answer(tmp_path: Path) -> None:
    """Questions share a process: what kills it is asked no more, and the others are asked in a new one."""
    crash = question(tmp_path, "import os\nos.abort()")
    which = question(tmp_path, "import os\nreturn {'pid': os.getpid()}")
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        answers = probes.ask(
            worker,
            list(map(Asked, (which, crash, question(tmp_path, "return {'here': True}")))),
            Places(),
            60,
        )
    here, lost, also = answers.values()
    assert here.status == "ok" and also.value == {"here": True}
    assert (lost.status, lost.reason) == ("unavailable", "SIGABRT")


def test_an_arm_never_runs_where_something_else_ran(tmp_path: Path) -> None:
    file = tmp_path / "trial.py"
    file.write_text(
        "import os\n"
        "def combinations(settings): return [{'planned_in': os.getpid()}]\n"
        "def broken(settings, combination): return {'pid': os.getpid()}\n"
        "fixed = broken\n"
    )
    request = TrialRequest(Trial(name="trial", imports=(), file=str(file)))
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(worker, [request], Places(), 60.0, lambda request, error: False)
    (case,) = result.cases
    assert case.broken is not None and case.fixed is not None
    pids = {case.combination["planned_in"], case.broken.measured["pid"], case.fixed.measured["pid"]}
    assert len(pids) == 3


@pytest.mark.parametrize("whom", ["getpid", "getppid"], ids=["the arm", "the worker"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
def test_what_an_arm_makes_outside_is_gone_however_it_ends(
    end: signal.Signals, whom: str, tmp_path: Path
) -> None:
    beside = tmp_path / "cache"
    beside.mkdir()
    source = f"""
        import os, time
        from llm_doctor.patient.arms import scratch_folder
        with scratch_folder({str(beside)!r}) as folder:
            open(folder + "/data", "w").write("x")
            os.kill(os.{whom}(), {int(end)})
            time.sleep(2)
    """
    ask(sys.executable, question(tmp_path, source))
    assert list(beside.iterdir()) == []
