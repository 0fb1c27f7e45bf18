"""GPUs through the real pynvml, on a false driver library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor

from llm_doctor import host
from llm_doctor.examination import idle_gpu, read_facts
from llm_doctor.model import Gpu, Gpus


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
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FALSE_NVML", "busy")
    gpus = read_facts(host.real_host(), None)[0].gpus.value
    assert gpus is not None and [process.pid for process in gpus.gpus[0].processes] == [4242]
    assert idle_gpu(gpus, None) == (1, "GPU-8a2f1c3e-1111-2222-3333-444455556662")


def test_it_is_said_when_there_is_no_gpu_to_try_on(driver: Path, stack_site: str) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": ""}
    arguments = ("run", "--format", "json", "--only", "half-float-mismatch")
    (trial,) = check_of(report_of(run_doctor(*arguments, env=environment)), "half-float-mismatch")["trials"]
    assert trial["reason"] == (
        "every GPU is busy, broken or hidden by CUDA_VISIBLE_DEVICES: tried on the CPU"
    )


def idle(index: int, uuid: str, **changes: Any) -> Gpu:
    sizes = {"memory_total_bytes": 32 << 30, "memory_free_bytes": 31 << 30, "processes": ()}
    return Gpu(index=index, uuid=uuid, **{**sizes, **changes})


@pytest.mark.parametrize(
    "changes",
    [{"processes": None}, {"memory_free_bytes": 1 << 30}, {"memory_free_bytes": None}, {"problem": "lost"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_gpu_that_may_be_in_use_is_left_alone(changes: dict[str, Any]) -> None:
    assert idle_gpu(Gpus(driver="1", gpus=(idle(0, "GPU-aaaa-1", **changes),)), None) is None


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        (None, 0),
        ("0,1", 0),
        ("1", 1),
        (" 1 ,0", 0),
        ("GPU-bbbb", 1),
        ("GPU-cccc", None),
        ("", None),
        ("-1", None),
    ],
)
def test_a_gpu_that_the_job_may_not_use_is_left_alone(visible: str | None, index: int | None) -> None:
    gpus = Gpus(driver="1", gpus=(idle(0, "GPU-aaaa-1"), idle(1, "GPU-bbbb-2")))
    chosen = idle_gpu(gpus, visible)
    assert (chosen and chosen[0]) == index


def test_a_gpu_that_torch_cannot_use_is_not_claimed(driver: Path, stack_site: str) -> None:
    """This torch has no CUDA: the trials run on the CPU, and say so."""
    build = report_of(run_doctor("run", "--no-probes", "--format", "json"))["facts"]["torch_build"]["value"]
    if build["kind"] != "cpu":
        pytest.skip(f"this torch is built for {build['kind']}")
    environment = {"LD_LIBRARY_PATH": str(driver)}
    arguments = ("run", "--format", "json", "--only", "half-float-mismatch")
    (trial,) = check_of(report_of(run_doctor(*arguments, env=environment)), "half-float-mismatch")["trials"]
    assert trial["device"] == "cpu" and trial["status"] == "reproduced"
    assert trial["reason"] == "torch did not use GPU 0: tried on the CPU"


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
    assert "'torch==2.8.0+cu126' --index-url https://download.pytorch.org/whl/cu126" in fix["preview"]
