"""GPUs through the real pynvml, on a false driver library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor

from llm_doctor import host
from llm_doctor.examination import read_facts


@pytest.fixture
def driver(compile_library: Callable[[str, str], Path]) -> Path:
    return compile_library("false_nvml.c", "libnvidia-ml.so.1")


def examined(driver: Path, fault: str = "", *arguments: str) -> dict[str, Any]:
    environment = {"LD_LIBRARY_PATH": str(driver), "FALSE_NVML": fault}
    return report_of(run_doctor("run", "--no-probes", "--format", "json", *arguments, env=environment))


def test_driver_and_gpus_are_read(driver: Path) -> None:
    gpus = examined(driver, "", "--no-redact")["facts"]["gpus"]["value"]
    assert (gpus["driver"], gpus["driver_cuda"]) == ("535.183.01", "12.2")
    assert gpus["gpus"] == [
        {
            "index": index,
            "name": "Tesla V100-SXM2-32GB",
            "uuid": f"GPU-8a2f1c3e-1111-2222-3333-44445555666{index + 1}",
            "compute_capability": [7, 0],
            "memory_total_bytes": 32 << 30,
            "memory_free_bytes": 31 << 30,
            "processes": [],
            "problem": None,
        }
        for index in (0, 1)
    ]


def test_serial_numbers_are_not_shown(driver: Path) -> None:
    uuids = [gpu["uuid"] for gpu in examined(driver)["facts"]["gpus"]["value"]["gpus"]]
    assert uuids == ["<gpu-id-1>", "<gpu-id-2>"]


def test_one_lost_gpu_hides_no_other(driver: Path) -> None:
    gpus = examined(driver, "lost")["facts"]["gpus"]["value"]["gpus"]
    assert gpus[0]["problem"] is None and gpus[0]["name"] == "Tesla V100-SXM2-32GB"
    assert (gpus[1]["problem"], gpus[1]["name"]) == ("GPU is lost", None)


def test_a_busy_gpu_is_left_alone(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_doctor.examination import idle_gpu

    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FALSE_NVML", "busy")
    facts = read_facts(host.real_host(), None)[0]
    assert facts.gpus.value is not None
    assert [process.pid for process in facts.gpus.value.gpus[0].processes] == [4242]
    assert idle_gpu(facts) == (1, "GPU-8a2f1c3e-1111-2222-3333-444455556662")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("mismatch", "NVML: RM has detected an NVML/RM version mismatch"),
        ("crash", "NVML ended with signal SIGABRT"),
    ],
)
def test_a_sick_driver_is_a_fact_with_a_reason(driver: Path, fault: str, reason: str) -> None:
    report = examined(driver, fault)
    assert report["facts"]["gpus"]["reason"] == reason
    assert report["facts"]["system"]["status"] == "ok" and report["exit_code"] == 0


def test_a_driver_that_hangs_is_given_up(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "NVML_LIMIT_S", 1.0)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FALSE_NVML", "hang")
    with pytest.raises(host.Unavailable, match="NVML did not end within 1 s"):
        host.real_host().nvml()


def test_a_cpu_build_of_torch_beside_gpus_is_an_error(
    driver: Path, make_patient: Callable[..., Path]
) -> None:
    python = make_patient(
        modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '2.8.0+cpu'\ncuda = None\n"},
        packages={"torch": "2.8.0"},
    )
    report = examined(driver, "", "--python", str(python))
    (finding,) = check_of(report, "cuda-toolkit-mismatch")["findings"]
    assert finding["severity"] == "error" and report["exit_code"] == 1
    assert "2 NVIDIA GPUs (Tesla V100-SXM2-32GB)" in finding["message"]
    # Driver 12.2 runs every 12.x; a V100 has no kernels in this release's wheel for 12.8.
    (fix,) = finding["fixes"]
    assert "'torch==2.8.0' --index-url https://download.pytorch.org/whl/cu126" in fix["preview"]
