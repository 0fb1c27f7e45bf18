"""The three checks on the stack that this environment has, for real, and on sick copies of it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import NEUTRAL, check_of, processes_with, report_of, run_doctor

pytestmark = pytest.mark.usefixtures("stack_site")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return report_of(run_doctor("run", "--format", "json", "--python", sys.executable))


def trial_of(report: dict[str, Any], check: str) -> dict[str, Any]:
    (trial,) = check_of(report, check)["trials"]
    return dict(trial)


def test_lora_is_tried_in_every_combination(report: dict[str, Any]) -> None:
    trial = trial_of(report, "lora-without-input-grads")
    combinations = {tuple(case["combination"].items()) for case in trial["cases"]}
    assert combinations == {
        (("order", order), ("use_reentrant", reentrant), ("modules_to_save", saved))
        for order in ("before-wrapping", "after-wrapping")
        for reentrant in (True, False)
        for saved in (True, False)
    }
    for case in trial["cases"]:
        measured = case["fixed"]["measured"]
        assert measured["adapter_tensors_with_gradient"] == measured["adapter_tensors"] == 8


def test_transformers_5_takes_care_of_input_grads(report: dict[str, Any]) -> None:
    check = check_of(report, "lora-without-input-grads")
    assert {case["status"] for case in check["trials"][0]["cases"]} == {"refuted"}
    assert (check["outcome"], check["findings"]) == ("pass", [])


def test_mixed_dtypes_raise_outside_autocast_alone(report: dict[str, Any]) -> None:
    check = check_of(report, "half-float-mismatch")
    status = {
        (case["combination"]["situation"], case["combination"]["autocast"]): case["status"]
        for case in check["trials"][0]["cases"]
    }
    assert status == {
        ("fp16-weights-fp32-input", False): "reproduced",
        ("fp16-weights-fp32-input", True): "refuted",
        ("fp32-adapters-fp16-base", False): "refuted",
        ("fp32-adapters-fp16-base", True): "refuted",
        ("fp32-norms-after-prepare", False): "refuted",
        ("fp32-norms-after-prepare", True): "refuted",
    }
    for finding in check["findings"]:
        assert finding["severity"] == "note" and finding["confidence"] == "proven"
        first = finding["fixes"][0]
        assert first["preview"].startswith("with torch.autocast(") and first["verified"] is True


def test_a_prepare_call_doubles_a_float16_model(report: dict[str, Any]) -> None:
    check = check_of(report, "fp16-with-int8-prepare")
    (case,) = check["trials"][0]["cases"]
    assert case["combination"] == {"function": "prepare_model_for_kbit_training"}
    before, after = case["broken"]["measured"], case["fixed"]["measured"]
    assert before["parameter_bytes_after"] == 2 * before["parameter_bytes_before"]
    assert before["dtypes"] == ["float32"] and after["dtypes"] == ["float16"]
    assert after["parameter_bytes_after"] == after["parameter_bytes_before"]
    assert [finding["message"] for finding in check["findings"]] == [
        "prepare_model_for_kbit_training() on fp16: 2.0 x the memory"
    ]


def test_a_scaler_refuses_a_float16_model_and_takes_pefts_adapters(report: dict[str, Any]) -> None:
    check = check_of(report, "fp16-weights-under-amp")
    cases = {case["combination"]["trainable"]: case for case in check["trials"][0]["cases"]}
    refused, taken = cases["fp16-model"], cases["lora-on-fp16-base"]
    assert refused["status"] == "reproduced"
    assert refused["broken"]["error"] == "ValueError: Attempting to unscale FP16 gradients."
    assert refused["fixed"]["measured"]["trainable_dtypes"] == ["float32"]
    assert taken["status"] == "refuted" and taken["broken"]["measured"]["tensors_changed"] > 0
    assert len(check["findings"]) == 1


def test_a_cpu_build_of_torch_has_nothing_to_mismatch(report: dict[str, Any]) -> None:
    build = report["facts"]["torch_build"]["value"]
    if build["kind"] != "cpu":
        pytest.skip(f"this torch is built for {build['kind']}")
    check = check_of(report, "cuda-toolkit-mismatch")
    assert check["outcome"] == "skipped" and "is built for the CPU" in check["reason"]


def test_ds_report_is_asked_and_shown(report: dict[str, Any]) -> None:
    answer = report["answers"]["ds-report"]
    assert answer["status"] == "ok" and answer["value"]["crashed"] is None
    assert "DeepSpeed general environment info" in answer["value"]["text"]
    assert "\x1b" not in answer["value"]["text"]


def test_a_run_leaves_nothing_behind(tmp_path: Path) -> None:
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    environment: dict[str, str | None] = {"HOME": str(home), "TMPDIR": str(temporary)}
    environment.update(XDG_CACHE_HOME=None, HF_HOME=None)
    done = run_doctor(
        "run", "--python", sys.executable, env={**environment, "LLM_DOCTOR_TEST": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [str(path) for folder in (home, temporary) for path in folder.rglob("*")] == []
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_report_and_no_child(stop: signal.Signals, tmp_path: Path) -> None:
    marker = f"LLM_DOCTOR_TEST={tmp_path}"
    process = subprocess.Popen(
        [sys.executable, "-m", "llm_doctor", "run", "--format", "json", "--python", sys.executable],
        env={**NEUTRAL, "LLM_DOCTOR_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(processes_with(marker)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.5)  # importing, or trying
    process.send_signal(stop)
    stdout, stderr = process.communicate(timeout=60)
    report = report_of(subprocess.CompletedProcess([], process.returncode, stdout, stderr))
    assert process.returncode == report["exit_code"] == 130
    assert report["verdict"] == "incomplete"
    assert report["facts"]["packages"]["status"] == "ok"
    assert "interrupted" in {trial["reason"] for check in report["checks"] for trial in check["trials"]}
    assert processes_with(marker) == []


# --- Sick copies: the real packages with a part missing ------------------------------------------------


def without(stack_site: str, package: str, missing: str, folder: Path) -> Path:
    """A folder with a copy of the package made of links, in which files of this name are missing."""
    copy = folder / "overlay"
    shutil.copytree(
        Path(stack_site) / package,
        copy / package,
        copy_function=os.symlink,
        ignore=shutil.ignore_patterns(missing, "__pycache__"),
    )
    return copy


def test_a_torch_without_its_library(
    stack_site: str, make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    overlay = without(stack_site, "torch", "libtorch_cpu.so", tmp_path)
    # The library must be missing for good: loaders also look beside the links' targets.
    core = overlay / "torch" / "lib" / "libtorch_python.so"
    shutil.copy(core.resolve(), core.with_suffix(".copy"))
    os.replace(core.with_suffix(".copy"), core)
    extension = next((overlay / "torch").glob("_C.*.so"))
    shutil.copy(extension.resolve(), extension.with_suffix(".copy"))
    os.replace(extension.with_suffix(".copy"), extension)
    python = make_patient(behind=(str(overlay), stack_site))
    done = run_doctor("run", "--format", "json", "--python", str(python))
    report = report_of(done)
    (finding,) = (f for f in check_of(report, "stack-import-broken")["findings"] if f["severity"] == "error")
    assert done.returncode == 1 and finding["subject"]["package"] == "torch"
    assert "libtorch_cpu.so: cannot open shared object file" in finding["message"]
    for name in ("half-float-mismatch", "lora-without-input-grads"):
        assert check_of(report, name)["outcome"] == "skipped"
        assert trial_of(report, name)["status"] == "not-run"
        assert "libtorch_cpu.so: cannot open shared object file" in trial_of(report, name)["reason"]
    assert report["facts"]["torch_build"]["value"]["version"].startswith("2.")


def test_a_bitsandbytes_without_its_library_costs_no_other_trial(
    stack_site: str, make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    overlay = without(stack_site, "bitsandbytes", "*.so", tmp_path)
    python = make_patient(behind=(str(overlay), stack_site))
    report = report_of(run_doctor("run", "--format", "json", "--python", str(python)))
    assert trial_of(report, "half-float-mismatch")["status"] == "reproduced"
    assert trial_of(report, "lora-without-input-grads")["status"] == "refuted"


def test_a_deepspeed_that_cannot_be_imported_is_reported_by_ds_report(
    stack_site: str, make_patient: Callable[..., Path], tmp_path: Path
) -> None:
    overlay = without(stack_site, "deepspeed", "git_version_info.py", tmp_path)
    python = make_patient(behind=(str(overlay), stack_site))
    program = python.parent / "ds_report"
    program.write_text(f"#!{python}\nfrom deepspeed.env_report import cli_main\ncli_main()\n")
    program.chmod(0o755)
    report = report_of(run_doctor("run", "--format", "json", "--python", str(python)))
    (finding,) = check_of(report, "cuda-toolkit-mismatch")["findings"]
    assert finding["severity"] == "warning"
    assert finding["message"].startswith("ds_report crashes here: ModuleNotFoundError: No module named")
    assert trial_of(report, "lora-without-input-grads")["status"] == "refuted"


def test_a_stack_without_peft_is_skipped_by_name(stack_site: str, make_patient: Callable[..., Path]) -> None:
    python = make_patient(packages={"torch": "2.13.0", "transformers": "5.23.0"})
    report = report_of(run_doctor("run", "--format", "json", "--python", str(python)))
    assert check_of(report, "half-float-mismatch")["reason"] == "peft is not installed"


def test_a_small_budget_leaves_trials_not_run() -> None:
    done = run_doctor("run", "--format", "json", "--python", sys.executable, "--budget", "0.05")
    report = report_of(done)
    trials = [trial for check in report["checks"] for trial in check["trials"]]
    assert {trial["status"] for trial in trials} == {"not-run"}
    assert {trial["reason"] for trial in trials} == {"the budget was spent"}
    assert done.returncode == 0, "a trial the budget did not reach is no failure"
