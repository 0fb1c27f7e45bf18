"""The checks on the stack that this environment has, for real, and on sick copies of it."""

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


def on_the_cpu(report: dict[str, Any], check: str) -> dict[str, Any]:
    trial = trial_of(report, check)
    if trial["device"] != "cpu":
        pytest.skip(f"this machine tries it on {trial['device']}: see tests/gpu")
    return trial


def test_bfloat16_is_exact_on_this_cpu_and_trains(report: dict[str, Any]) -> None:
    trial = on_the_cpu(report, "bf16-unsupported")
    product, step = trial["cases"]
    assert trial["status"] == product["status"] == step["status"] == "refuted"
    measured = product["broken"]["measured"]
    assert 2**-12 < measured["relative_error"] < 2**-6, "it was rounded to bfloat16, and to nothing coarser"
    assert measured["torch_says"] == {"is_bf16_supported": False, "native": False}
    assert measured["float16_relative_error"] < 2**-9 < measured["relative_error"]
    assert measured["float16_tflops_per_s"] > 0
    assert product["fixed"]["measured"]["relative_error"] < 1e-6
    assert step["broken"]["measured"]["output_dtype"] == "bfloat16"
    assert step["broken"]["measured"]["tensors_changed"] == 4


def test_eight_bits_are_loaded_without_a_device_map(report: dict[str, Any]) -> None:
    trial = on_the_cpu(report, "int8-without-device-map")
    (case,) = trial["cases"]
    assert case["combination"] == {"interface": "quantization_config"}, "load_in_8bit= was removed in 5.0"
    assert case["status"] == "refuted"
    for arm in (case["broken"], case["fixed"]):
        measured = arm["measured"]
        assert measured["int8_parameters"] == 14 and measured["devices"] == ["cpu"]
        assert measured["parameter_bytes"] < 0.6 * measured["float16_bytes"]


def test_an_int8_product_is_right(report: dict[str, Any]) -> None:
    (case,) = on_the_cpu(report, "int8-product-broken")["cases"]
    assert case["status"] == "refuted"
    measured = case["broken"]["measured"]
    assert measured["weight_dtype"] == "int8" and 1e-4 < measured["relative_error"] < 0.05
    assert measured["weight_bytes"] * 4 == case["fixed"]["measured"]["weight_bytes"]


def test_the_default_cache_is_tried_and_its_room_told(report: dict[str, Any]) -> None:
    check = check_of(report, "cache-dir-too-small")
    (case,) = check["trials"][0]["cases"]
    measured = case["broken"]["measured"]
    assert measured["written_bytes"] == 64 << 20 and measured["links"] is True
    assert measured["write_mb_per_s"] > 0 and measured["read_mb_per_s"] > 0
    assert "billion parameters in fp16" in check["reason"] and " MB/s, read at " in check["reason"]


def test_deepspeeds_buckets_are_told_where_no_gpu_can_hold_them(report: dict[str, Any]) -> None:
    stages = report["answers"]["zero-buckets"]["value"]["stages"]
    assert {stage["reduce_bucket_elements"] for stage in stages.values()} == {500_000_000}
    assert [stages[name]["overlap_comm"] for name in "123"] == [False, False, True]
    check = check_of(report, "zero-bucket-oom")
    if report["facts"]["gpus"]["value"]:
        pytest.skip("this machine has GPUs: see tests/gpu")
    assert check["outcome"] == "skipped"
    assert "gradient buckets of 954 MiB, 1.9 GiB in ZeRO-1 and ZeRO-2 with overlap_comm" in check["reason"]


def test_overlap_comm_holds_two_buckets_in_an_engine_of_stage_1_and_2_alone() -> None:
    """A real engine on the CPU: the published factor of 4.5 is nowhere to be seen."""
    arguments = ("--only", "zero-bucket-oom", "--deep", "--python", sys.executable)
    report = report_of(run_doctor("run", "--format", "json", *arguments))
    if report["facts"]["gpus"]["value"]:
        pytest.skip("this machine has GPUs: see tests/gpu")
    held = {
        case["combination"]["stage"]: [case[arm]["measured"]["buckets_held"] for arm in ("broken", "fixed")]
        for case in trial_of(report, "zero-bucket-oom")["cases"]
    }
    assert held == {1: [2, 1], 2: [2, 1], 3: [1, 1]}
    assert [finding["message"] for finding in check_of(report, "zero-bucket-oom")["findings"]] == [
        "ZeRO-1: overlap_comm holds 2 reduce buckets, not one",
        "ZeRO-2: overlap_comm holds 2 reduce buckets, not one",
    ]


# --- Caches that are in a bad way, on the real program ----------------------------------------------------


def cache_check(environment: dict[str, str | None], *arguments: str) -> dict[str, Any]:
    report = report_of(
        run_doctor(
            "run", "--format", "json", "--no-redact", "--only", "cache-dir-too-small",
            "--python", sys.executable, *arguments, env=environment,
        )
    )  # fmt: skip
    return {**check_of(report, "cache-dir-too-small"), "exit_code": report["exit_code"]}


def test_a_missing_cache_is_made_by_nobody(tmp_path: Path) -> None:
    check = cache_check({"HF_HOME": str(tmp_path / "not" / "there")})
    assert (check["outcome"] in ("pass", "findings") and not check["reason"]) or "not there yet" in check[
        "reason"
    ]
    assert list(tmp_path.iterdir()) == [], "and nothing of the trial is left"


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    check = cache_check({"HF_HOME": str(tmp_path / "file")})
    (finding,) = check["findings"]
    assert check["exit_code"] == 1
    assert finding["message"].endswith("which cannot be used: it is a file, not a folder")


def test_a_cache_where_nothing_can_be_written() -> None:
    check = cache_check({"HF_HOME": "/proc/nowhere"})
    (finding,) = check["findings"]
    assert check["exit_code"] == 1 and finding["confidence"] == "proven"
    assert finding["message"].startswith(
        "downloads go to /proc/nowhere/hub (HF_HOME), where a download fails"
    )


def test_a_token_where_a_folder_should_be_is_named_and_not_shown() -> None:
    token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
    done = run_doctor("run", "--only", "cache-dir-too-small", "--verbose", env={"HF_HOME": token})
    assert done.returncode == 1 and token not in done.stdout
    assert "HF_HOME holds an access token, not a folder" in done.stdout
    assert 'export HF_TOKEN="$HF_HOME"' in done.stdout


def test_a_model_larger_than_the_disk(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--org--huge"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    index = '{"metadata": {"total_size": 900000000000000}, "weight_map": {}}'
    (repository / "snapshots" / "abc" / "model.safetensors.index.json").write_text(index)
    check = cache_check({"HF_HOME": str(tmp_path)}, "--model", "org/huge")
    assert check["exit_code"] == 1
    assert any("org/huge needs 900 TB more" in finding["message"] for finding in check["findings"])


def test_the_old_variable_moves_nothing_in_transformers_5(tmp_path: Path) -> None:
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", "--python", sys.executable,
                                  env={"TRANSFORMERS_CACHE": str(tmp_path), "HF_HOME": None}))  # fmt: skip
    (models,) = (it for it in report["facts"]["hf_caches"]["value"]["folders"] if it["purpose"] == "models")
    assert models["path"].endswith("huggingface/hub") and models["decided_by"] != "TRANSFORMERS_CACHE"


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
