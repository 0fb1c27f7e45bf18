"""Every trial on every GPU of this machine: `make test-gpu`. Skips with its reason where there is none."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, check_of, report_of, run_doctor

PYTHON = os.environ.get("LLM_DOCTOR_PATIENT", sys.executable)
"""The patient: one whose torch can use the GPUs. By default the environment that the tests run in."""
NATIVE_BF16, INT8_TENSOR_CORES = (8, 0), (7, 5)


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    facts = report_of(run_doctor("run", "--no-probes", "--format", "json", "--python", PYTHON))["facts"]
    if not (facts["gpus"]["value"] or {}).get("gpus"):
        pytest.skip(f"there is no GPU here: {facts['gpus']['reason'] or 'NVML knows none'}")
    build = facts["torch_build"]["value"]
    if build is None or build["kind"] != "cuda":
        pytest.skip(
            f"the patient's torch cannot use a GPU ({build and build['version']}): set LLM_DOCTOR_PATIENT"
        )
    return report_of(
        run_doctor("run", "--deep", "--budget", "300", "--format", "json", "--python", PYTHON, timeout=900)
    )


def idle(report: dict[str, Any]) -> list[dict[str, Any]]:
    gpus = [gpu for gpu in report["facts"]["gpus"]["value"]["gpus"] if gpu["processes"] == []]
    if not gpus:
        pytest.skip("every GPU of this machine is in use")
    return gpus


def trials(report: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The results of a trial by device."""
    found = [trial for check in report["checks"] for trial in check["trials"] if trial["name"] == name]
    return {trial["device"]: trial for trial in found}


def test_the_examination_is_complete(report: dict[str, Any]) -> None:
    assert report["verdict"] != "incomplete"
    crashed = [check["name"] for check in report["checks"] if check["outcome"] in ("crashed", "timeout")]
    assert crashed == []


def test_every_gpu_is_described(report: dict[str, Any]) -> None:
    for gpu in idle(report):
        for field in (
            "name",
            "uuid",
            "compute_capability",
            "memory_total_bytes",
            "pcie_width",
            "compute_mode",
        ):
            assert gpu[field] is not None, field
    assert report["facts"]["nvidia_module"]["status"] == "ok"


def test_bfloat16_is_tried_on_every_idle_gpu(report: dict[str, Any]) -> None:
    results = trials(report, "bf16-unsupported")
    for gpu in idle(report):
        result = results[f"cuda:{gpu['index']}"]
        native = tuple(gpu["compute_capability"]) >= NATIVE_BF16
        assert result["status"] == ("refuted" if native else "reproduced")
        product = result["cases"][0]["broken"]["measured"]
        assert product["bfloat16_tflops_per_s"] > 0 and product["float16_tflops_per_s"] > 0


def test_the_buckets_are_allocated_at_full_size_on_every_idle_gpu(report: dict[str, Any]) -> None:
    if "deepspeed" not in report["facts"]["packages"]["value"]["installed"]:
        pytest.skip("deepspeed is not installed in the patient")
    results = trials(report, "zero-bucket-oom")
    for gpu in idle(report):
        for case in results[f"cuda:{gpu['index']}"]["cases"]:
            measured = case["broken"]["measured"]
            assert measured["tried_bytes"] == measured["bucket_bytes"], "--deep allocates all of it"
            assert 0 <= measured["allocated_bytes"] - measured["bucket_bytes"] <= 4 << 20
            assert 64 << 20 < measured["context_bytes"] < 4 << 30


@pytest.mark.parametrize(
    "name",
    ["lora-without-input-grads", "half-float-mismatch", "fp16-weights-under-amp", "int8-without-device-map",
     "int8-product-broken"],
)  # fmt: skip
def test_a_trial_that_wants_a_gpu_runs_on_one(report: dict[str, Any], name: str) -> None:
    results = trials(report, name)
    if not results:
        pytest.skip(
            check_of(report, next(c["name"] for c in report["checks"] if name in c["name"]))["reason"]
        )
    idle(report)
    (device,) = results
    if results[device]["status"] == "not-run":
        pytest.skip(results[device]["reason"])
    assert device.startswith("cuda:")
    assert results[device]["status"] in ("reproduced", "refuted"), results[device]["reason"]


def test_eight_bits_halve_the_weights_on_the_gpu(report: dict[str, Any]) -> None:
    for result in trials(report, "int8-without-device-map").values():
        for case in result["cases"]:
            measured = case["fixed"]["measured"]
            assert measured["int8_parameters"] > 0 and measured["devices"] == ["cuda:0"]


def test_a_gentle_run_takes_no_more_than_256_mib(report: dict[str, Any]) -> None:
    idle(report)
    gentle = report_of(run_doctor("run", "--format", "json", "--python", PYTHON, timeout=900))
    tried = [
        case["broken"]["measured"].get("tried_bytes", 0)
        for check in gentle["checks"]
        for trial in check["trials"]
        for case in trial["cases"]
        if case["broken"]
    ]
    assert max(tried, default=0) <= 256 << 20


@pytest.mark.parametrize(
    "recording", sorted((ROOT / "tests" / "hosts").glob("*.json")), ids=lambda it: it.stem
)
def test_a_recorded_machine_is_examined_again(recording: Path) -> None:
    """Needs no GPU: these are the facts of machines that had one."""
    report = report_of(run_doctor("run", "--format", "json", "--replay", str(recording)))
    assert json.loads(recording.read_text())["schema"] == "llm-doctor/recording/v1"
    assert report["facts"]["gpus"]["value"]["gpus"]
