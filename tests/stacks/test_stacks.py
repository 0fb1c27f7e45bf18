"""The 2023 stack, for real: `make test-stacks` builds it and says where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import NEUTRAL, ROOT, check_of, report_of, run_doctor
from test_worker import job, question, start_worker, talk

STACK = os.environ.get("LLM_DOCTOR_STACK_2023", "")

pytestmark = pytest.mark.skipif(
    not os.path.exists(STACK), reason="the 2023 stack is not built (make test-stacks; it needs Python 3.8)"
)


@pytest.fixture(scope="module")
def done() -> subprocess.CompletedProcess[str]:
    return run_doctor("run", "--format", "json", "--python", STACK)


@pytest.fixture(scope="module")
def report(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return report_of(done)


def test_lora_fails_in_both_orders_and_its_fix_works(report: dict[str, Any]) -> None:
    check = check_of(report, "lora-without-input-grads")
    shown = {}
    for finding in check["findings"]:
        combination = finding["evidence"]["combination"]
        case = finding["proof"]["case"]
        assert finding["severity"] == "note" and finding["proof"]["status"] == "reproduced"
        assert case["fixed"]["outcome"] == "passed"
        assert case["fixed"]["measured"]["adapter_tensors_with_gradient"] == 8
        assert finding["fixes"][0]["preview"] == "model.enable_input_require_grads()"
        assert finding["fixes"][0]["verified"] is True
        shown[combination["order"], combination["modules_to_save"]] = case["broken"]
    raised = "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn"
    assert shown["before-wrapping", False]["error"] == shown["after-wrapping", False]["error"] == raised
    silent = "8 of 8 LoRA tensors have no gradient, though the loss has one"
    for order in ("before-wrapping", "after-wrapping"):
        assert (shown[order, True]["outcome"], shown[order, True]["error"]) == ("failed", silent)


def test_a_cpu_without_half_kernels_proves_nothing(report: dict[str, Any]) -> None:
    check = check_of(report, "half-float-mismatch")
    assert (check["outcome"], check["findings"]) == ("skipped", [])
    assert check["trials"][0]["status"] == "inconclusive"
    assert "\"addmm_impl_cpu_\" not implemented for 'Half'" in check["reason"]


def test_the_old_prepare_call_doubles_a_float16_model(report: dict[str, Any]) -> None:
    (finding,) = check_of(report, "fp16-with-int8-prepare")["findings"]
    assert finding["message"] == "prepare_model_for_int8_training() on fp16: 2.0 x the memory"


def test_a_scaler_that_is_not_enabled_proves_nothing(report: dict[str, Any]) -> None:
    check = check_of(report, "fp16-weights-under-amp")
    assert check["outcome"] == "skipped" and "no gradient scaler is enabled" in check["reason"]


def test_bfloat16_works_on_this_cpu_too(report: dict[str, Any]) -> None:
    check = check_of(report, "bf16-unsupported")
    assert check["trials"][0]["status"] == "refuted"
    measured = check["trials"][0]["cases"][0]["broken"]["measured"]
    assert "not implemented for 'Half'" in measured["float16_error"]
    says = measured["torch_says"]
    assert says["error"].startswith("Found no NVIDIA driver")


def test_a_missing_device_map_raises_and_the_map_quantises_nothing_on_a_cpu(report: dict[str, Any]) -> None:
    check = check_of(report, "int8-without-device-map")
    cases = {case["combination"]["interface"]: case for case in check["trials"][0]["cases"]}
    assert set(cases) == {"load_in_8bit=True", "quantization_config"}
    broken, fixed = cases["load_in_8bit=True"]["broken"], cases["load_in_8bit=True"]["fixed"]
    assert broken["outcome"] == "raised" and broken["error"].startswith(
        "ValueError: A device map needs to be passed"
    )
    assert (fixed["outcome"], fixed["measured"]["int8_parameters"]) == ("failed", 0)
    assert {case["status"] for case in cases.values()} == {"inconclusive"}
    assert check["outcome"] == "skipped" and "the remedy does not help here" in check["reason"]


def test_an_int8_product_needs_a_driver(report: dict[str, Any]) -> None:
    check = check_of(report, "int8-product-broken")
    assert check["outcome"] == "skipped" and "Found no NVIDIA driver" in check["reason"]


def test_buckets_of_deepspeed_0_9_exist_from_stage_2_on(report: dict[str, Any]) -> None:
    assert report["answers"]["zero-buckets"]["value"]["stage_1_has_buckets"] is False
    assert "1.9 GiB in ZeRO-2 with overlap_comm" in check_of(report, "zero-bucket-oom")["reason"]


def test_transformers_4_29_follows_a_variable_of_its_own() -> None:
    """HF_HUB_CACHE moves huggingface_hub and leaves this transformers where it was."""
    arguments = ("run", "--format", "json", "--only", "cache-dir-too-small", "--python", STACK)
    report = report_of(run_doctor(*arguments, env={"HF_HUB_CACHE": "/data/models", "HF_HOME": None}))
    messages = [finding["message"] for finding in check_of(report, "cache-dir-too-small")["findings"]]
    assert any(it.startswith("HF_HUB_CACHE is not what transformers 4.29.2 follows") for it in messages)
    asked = subprocess.run(
        [STACK, "-c", "from transformers.utils.hub import TRANSFORMERS_CACHE as c; print(c)"],
        env={**NEUTRAL, "HF_HUB_CACHE": "/data/models", "TRANSFORMERS_OFFLINE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (models,) = (it for it in report["facts"]["hf_caches"]["value"]["folders"] if it["purpose"] == "models")
    assert asked.stdout.strip().endswith(models["path"].lstrip("~"))


def test_the_real_mismatch_of_nvcc_and_torch(
    done: subprocess.CompletedProcess[str], report: dict[str, Any]
) -> None:
    toolkits = report["facts"]["cuda_toolkits"]["value"]
    versions = {kit["home"]: kit["version"] for kit in toolkits["toolkits"]}
    toolkit = versions.get(toolkits["chosen_home"])
    if toolkit is None:
        pytest.skip("there is no CUDA toolkit on this machine")
    finding, *others = check_of(report, "cuda-toolkit-mismatch")["findings"]
    assert finding["severity"] == "error" and done.returncode == 1
    # A wrapper of nvcc on PATH, for one, leads to a folder that is no toolkit.
    assert all("there is no cuda_runtime.h in it" in it["message"] for it in others)
    assert finding["evidence"]["toolkit"] == toolkit and finding["evidence"]["torch_cuda"] == "10.2"
    assert f"nvcc is CUDA {toolkit}" in finding["message"] and "CUDA 10.2" in finding["message"]
    assert "silently builds its operators for the CPU alone" in finding["message"], (
        "DeepSpeed 0.9.5 swallows it"
    )
    # The installed DeepSpeed's own assertion, and its ds_report, say the same.
    said = f"Installed CUDA version {toolkit} does not match the version torch was compiled with 10.2"
    assert said in finding["proof"]["case"]["broken"]["error"]
    assert f"nvcc version ..................... {toolkit}" in report["answers"]["ds-report"]["value"]["text"]
    assert finding["evidence"]["ds_report"] == {"nvcc version": toolkit, "torch cuda version": "10.2"}
    assert finding["message"].endswith("(ds_report reads the same versions)")
    assert "DS_SKIP_CUDA_CHECK" not in str(finding["fixes"]), "it does not help across major versions"


@pytest.mark.parametrize("with_driver", [False, True])
def test_other_toolkits_that_match_are_tried_and_offered(
    with_driver: bool, compile_library: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Toolkits of torch's major version beside the chosen one: their exports are fixes, seen to work.

    With a driver all arms share a lane: what one remedy sets must not reach the next broken arm."""
    homes = {}
    for version in ("13.0", "10.2", "10.1"):
        homes[version] = tmp_path / f"cuda-{version}"
        nvcc = homes[version] / "bin" / "nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release {version}, V{version}.89'\n")
        nvcc.chmod(0o755)
    environment = {
        "CUDA_HOME": str(homes["13.0"]),
        "CONDA_PREFIX": str(homes["10.2"]),
        "CUDA_PATH": str(homes["10.1"]),
        "DS_SKIP_CUDA_CHECK": "1",  # hides it from DeepSpeed, and must not hide it from us
    }
    if with_driver:
        environment["LD_LIBRARY_PATH"] = str(compile_library("counting_libcuda.c", "libcuda.so.1"))
    arguments = ("run", "--format", "json", "--no-redact", "--only", "cuda-toolkit-mismatch")
    report = report_of(run_doctor(*arguments, "--python", STACK, env=environment))
    findings = check_of(report, "cuda-toolkit-mismatch")["findings"]
    (mismatch,) = [finding for finding in findings if finding["severity"] == "error"]
    assert mismatch["proof"]["status"] == "reproduced" and mismatch["confidence"] == "proven"
    assert mismatch["proof"]["case"]["fixed"]["measured"]["toolkit"] == "10.2"
    offered = [(fix["preview"], fix["verified"]) for fix in mismatch["fixes"][:2]]
    assert offered == [(f"export CUDA_HOME={homes[version]}", True) for version in ("10.2", "10.1")]


def test_real_libraries_initialise_cuda_in_lanes_alone(
    compile_library: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Importing this bitsandbytes, peft and DeepSpeed calls cuInit; torch and a model class do not."""
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    log = tmp_path / "cuinit.log"
    imports = ("torch", "transformers.models.llama.modeling_llama", "peft", "deepspeed")
    script = question(tmp_path, "import os\nreturn os.getpid()", imports=imports)
    process, events = start_worker(STACK, {"LD_LIBRARY_PATH": str(driver), "CUINIT_LOG": str(log)})
    said = talk(
        process,
        events,
        {"do": "import", "modules": list(imports)},
        {"do": "run", "jobs": [job(0, script)], "budget_s": 60},
    )
    initialisers = {int(line) for line in log.read_text().split()}
    (lane,) = [event["value"] for event in said if event["event"] == "finished"]
    imported = [e["module"] for e in said if e["event"] == "imported" and "lane" not in e]
    assert imported == ["torch", "transformers.models.llama.modeling_llama"]
    assert lane in initialisers, "the count works"
    assert process.pid not in initialisers


def test_the_trials_run_the_same_in_a_lane(
    compile_library: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """With a driver present the arms of a device share one process, and say what they say without."""
    driver = compile_library("counting_libcuda.c", "libcuda.so.1")
    environment = {"LD_LIBRARY_PATH": str(driver), "CUINIT_LOG": str(tmp_path / "log")}
    for python in (STACK, sys.executable):
        with_driver, without = (
            report_of(run_doctor("run", "--format", "json", "--python", python, env=env))
            for env in (environment, {})
        )
        for name in ("lora-without-input-grads", "half-float-mismatch"):
            cases = [check_of(report, name)["trials"][0]["cases"] for report in (with_driver, without)]
            in_lane, apart = ([(case["combination"], case["status"]) for case in it] for it in cases)
            assert in_lane == apart


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--quiet", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    return next(folder.glob("*.whl"))


def test_the_doctor_itself_runs_on_python_3_8(wheel: Path, tmp_path: Path) -> None:
    """It may live in the patient's own environment, with versions of its needs that 3.8 still gets."""
    subprocess.run([STACK, "-m", "venv", str(tmp_path / "env")], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    program = tmp_path / "env" / "bin" / "llm-doctor"
    done = subprocess.run(
        [str(program), "run", "--format", "json", "--python", STACK],
        env=NEUTRAL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert len(check_of(report_of(done), "lora-without-input-grads")["findings"]) == 4
    for arguments in (["list"], ["explain", "half-float-mismatch"], ["schema"], ["--help"], ["run"]):
        again = subprocess.run([str(program), *arguments], env=NEUTRAL, capture_output=True, text=True)
        assert "Traceback" not in again.stderr and again.stdout


def test_the_doctor_reads_a_patient_of_every_python(tmp_path: Path) -> None:
    """Every interpreter of this machine from 3.8 on, as an empty patient."""
    pythons = sorted(Path.home().glob(".pyenv/versions/3.*/bin/python"))
    examined = []
    for python in pythons:
        version = python.parent.parent.name
        if tuple(map(int, version.split(".")[:2])) < (3, 8):
            continue
        report = report_of(run_doctor("run", "--format", "json", "--python", str(python)))
        assert report["patient"]["version"] == version
        examined.append(version)
    if not examined:
        pytest.skip("there is no other Python on this machine")
