"""GPUs through the real pynvml, on a false driver library."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor

from llm_doctor import host, probes
from llm_doctor.check import Trial, TrialRequest
from llm_doctor.model import Gpu, Gpus
from llm_doctor.places import places
from llm_doctor.reading import Reading


@pytest.fixture
def driver(compile_library: Callable[[str, str], Path]) -> Path:
    return compile_library("false_nvml.c", "libnvidia-ml.so.1")


def examined(driver: Path, fault: str = "", *arguments: str) -> dict[str, Any]:
    environment = {"LD_LIBRARY_PATH": str(driver), "FALSE_NVML": fault}
    return report_of(run_doctor("run", "--no-probes", "--format", "json", *arguments, env=environment))


def examined_gpus(driver: Path, fault: str) -> list[dict[str, Any]]:
    gpus: list[dict[str, Any]] = examined(driver, fault)["facts"]["gpus"]["value"]["gpus"]
    return gpus


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    assert one.keys() == other.keys()
    return {key: value for key, value in one.items() if value != other[key]}


def test_driver_and_gpus_are_read(driver: Path) -> None:
    gpus = examined(driver, "", "--no-redact")["facts"]["gpus"]["value"]
    assert (gpus["driver"], gpus["driver_cuda"]) == ("535.183.01", "12.2")
    assert gpus["gpus"] == [
        {
            "index": index,
            "name": "Tesla V100-SXM2-32GB",
            "uuid": f"GPU-8a2f1c3e-1111-2222-3333-44445555666{index + 1}",
            "pci_bus_id": f"00000000:{bus}:00.0",
            "compute_capability": [7, 0],
            "memory_total_bytes": 32 << 30,
            "memory_free_bytes": 31 << 30,
            "processes": [],
            "compute_mode": "default",
            "persistence": True,
            "mig": None,
            "ecc": True,
            "ecc_errors_volatile": 0,
            "ecc_errors_aggregate": 0,
            "remapped_rows": None,
            "throttle_reasons": ["gpu-idle"],
            "pcie_generation": 3,
            "pcie_generation_max": 3,
            "pcie_width": 16,
            "pcie_width_max": 16,
            "nvlinks_active": 6,
            "nvlinks_inactive": 0,
            "problem": None,
        }
        for index, bus in enumerate(("3B", "D8"))
    ]


def test_a_degraded_gpu_shows_its_faults(driver: Path) -> None:
    sick, healthy = examined_gpus(driver, "degraded")
    assert differences(sick, healthy) == {
        "index": 0,
        "uuid": "<gpu-id-1>",
        "pci_bus_id": "00000000:3B:00.0",
        "ecc_errors_volatile": 2,
        "ecc_errors_aggregate": 5,
        "remapped_rows": {"correctable": 0, "uncorrectable": 1, "pending": True, "failed": False},
        "throttle_reasons": ["hw-slowdown", "hw-thermal"],
        "pcie_generation": 1,
        "pcie_width": 4,
        "nvlinks_active": 5,
        "nvlinks_inactive": 1,
    }


@pytest.mark.parametrize(
    ("fault", "modes"),
    [
        ("exclusive", ["exclusive-process", "exclusive-process"]),
        ("prohibited", ["prohibited", "default"]),
    ],
)
def test_compute_modes_have_names(driver: Path, fault: str, modes: list[str]) -> None:
    assert [gpu["compute_mode"] for gpu in examined_gpus(driver, fault)] == modes


def test_a_working_gpu_is_not_throttled(driver: Path) -> None:
    assert [gpu["throttle_reasons"] for gpu in examined_gpus(driver, "busy")] == [[], ["gpu-idle"]]


def test_what_an_old_driver_cannot_tell_is_unknown(driver: Path) -> None:
    """Its throttle reasons are known: they only had another name."""
    for old, new in zip(examined_gpus(driver, "old"), examined_gpus(driver, "")):
        assert differences(old, new) == {"pci_bus_id": None}
        assert (old["mig"], old["remapped_rows"], old["throttle_reasons"]) == (None, None, ["gpu-idle"])


def test_serial_numbers_are_not_shown(driver: Path) -> None:
    uuids = [gpu["uuid"] for gpu in examined(driver)["facts"]["gpus"]["value"]["gpus"]]
    assert uuids == ["<gpu-id-1>", "<gpu-id-2>"]


def test_one_lost_gpu_hides_no_other(driver: Path) -> None:
    gpus = examined_gpus(driver, "lost")
    assert gpus[0]["problem"] is None and gpus[0]["name"] == "Tesla V100-SXM2-32GB"
    assert (gpus[1]["problem"], gpus[1]["name"]) == ("GPU is lost", None)


def test_a_gpu_lost_while_it_is_asked_does_not_look_healthy(driver: Path) -> None:
    first, second = examined_gpus(driver, "lost-later")
    assert first["problem"] is None and first["nvlinks_active"] == 6
    assert {key: value for key, value in second.items() if value is not None} == {
        "index": 1,
        "problem": "GPU is lost",
    }


def test_a_busy_gpu_is_left_alone(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver))
    monkeypatch.setenv("FALSE_NVML", "busy")
    gpus = Reading(host.real_host()).facts()[0].gpus.value
    assert gpus is not None and [process.pid for process in gpus.gpus[0].processes] == [4242]
    where = places(gpus, None)
    assert where.idle == [(1, "GPU-8a2f1c3e-1111-2222-3333-444455556662")]
    assert where.left_alone == [(0, "used by process 4242, 20 GiB")]


def test_it_is_said_when_there_is_no_gpu_to_try_on(driver: Path, stack_site: str) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "CUDA_VISIBLE_DEVICES": ""}
    arguments = ("run", "--format", "json", "--only", "half-float-mismatch")
    (trial,) = check_of(report_of(run_doctor(*arguments, env=environment)), "half-float-mismatch")["trials"]
    assert trial["reason"] == ("tried on the CPU: GPU 0, 1 hidden by CUDA_VISIBLE_DEVICES")


def idle(index: int, uuid: str, **changes: Any) -> Gpu:
    sizes = {"memory_total_bytes": 32 << 30, "memory_free_bytes": 31 << 30, "processes": ()}
    return Gpu(index=index, uuid=uuid, **{**sizes, **changes})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"processes": None}, "perhaps in use: the driver does not tell"),
        ({"memory_free_bytes": 1 << 30}, "in use: 1 GiB of 32 GiB are free"),
        ({"memory_free_bytes": None}, "perhaps in use: the driver does not tell"),
        ({"problem": "GPU is lost"}, "does not answer (GPU is lost)"),
        ({"mig": True}, "divided by MIG"),
        ({"compute_mode": "prohibited"}, "in compute mode prohibited"),
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_gpu_that_may_be_in_use_is_left_alone(changes: dict[str, Any], reason: str) -> None:
    where = places(Gpus(driver="1", gpus=(idle(0, "GPU-aaaa-1", **changes),)), None)
    assert (where.idle, where.left_alone) == ([], [(0, reason)])
    assert where.why_cpu == f"tried on the CPU: GPU 0 {reason}"


@pytest.mark.parametrize(
    ("visible", "index"),
    [
        (None, 0),
        ("0,1", 0),
        ("7,0", None),
        ("-1,0", None),
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
    chosen = places(gpus, visible).idle
    assert (chosen[0].gpu if chosen else None) == index


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


def test_each_gpu_that_is_left_alone_is_named_with_the_reason(driver: Path, stack_site: str) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "FALSE_NVML": "busy"}
    arguments = ("run", "--format", "json", "--only", "bf16-unsupported", "--only", "zero-bucket-oom")
    report = report_of(run_doctor(*arguments, env=environment))
    for name in ("bf16-unsupported", "zero-bucket-oom"):
        results = {trial["device"]: trial for trial in check_of(report, name)["trials"]}
        assert results["cuda:0"]["status"] == "not-run"
        assert results["cuda:0"]["reason"] == "left alone: used by process 4242, 20 GiB"
    shown = run_doctor(*arguments[:1], *arguments[3:], env=environment).stdout
    assert "not-run on cuda:0: left alone: used by process 4242, 20 GiB" in " ".join(shown.split())


def test_v100s_have_neither_native_bfloat16_nor_int8_tensor_cores(driver: Path) -> None:
    report = examined(driver)
    if "torch" not in report["facts"]["packages"]["value"]["installed"]:
        pytest.skip("the stack is not installed")
    (finding,) = check_of(report, "bf16-unsupported")["findings"]
    assert finding["message"] == "2 x Tesla V100-SXM2-32GB (compute capability 7.0): no native bfloat16"
    assert (finding["severity"], finding["confidence"]) == ("note", "certain")
    assert finding["evidence"]["gpus"] == [0, 1] and finding["subject"] == {"kind": "gpu", "gpu": 0}
    (slow,) = check_of(report, "int8-product-broken")["findings"]
    assert "no int8 tensor cores" in slow["message"]


def test_a_torch_that_uses_no_gpu_is_tried_once(driver: Path, stack_site: str) -> None:
    arguments = ("run", "--format", "json", "--only", "bf16-unsupported")
    report = report_of(run_doctor(*arguments, env={"LD_LIBRARY_PATH": str(driver)}))
    build = report["facts"]["torch_build"]["value"]
    if build["kind"] != "cpu":
        pytest.skip(f"this torch is built for {build['kind']}")
    (trial,) = check_of(report, "bf16-unsupported")["trials"]
    assert (trial["device"], trial["reason"]) == ("cpu", "torch did not use GPU 0: tried on the CPU")


class OneGpuFails:
    """A worker's results of a node where CUDA cannot be initialised on the second GPU."""

    import_seconds = 0.0

    def run(self, jobs: list[probes.Job], budget_s: float) -> list[probes.JobResult]:
        results = []
        for job in jobs:
            if job.call == "combinations":
                results.append(probes.JobResult("passed", [{"n": 1}]))
            elif job.gpu == "GPU-aaaa-1":
                results.append(probes.JobResult("passed", {}, on_gpu=True))
            else:
                results.append(probes.JobResult("raised", error="RuntimeError: CUDA error: GPU is lost"))
        return results


def test_a_gpu_that_is_lost_after_nvml_saw_it_is_not_called_the_cpu() -> None:
    where = places(Gpus(driver="1", gpus=(idle(0, "GPU-aaaa-1"), idle(1, "GPU-bbbb-2"))), None)
    request = TrialRequest(Trial(name="t", imports=(), file="t.py", on_every_gpu=True))
    worker: Any = OneGpuFails()
    ((well, lost),) = probes.run_trials(worker, [request], where, 60.0, lambda request, error: False)
    assert (well.device, well.status) == ("cuda:0", "refuted")
    assert (lost.device, lost.status) == ("cuda:1", "inconclusive")
    assert lost.reason == "it failed in another way: RuntimeError: CUDA error: GPU is lost"


def test_gpus_for_one_process_at_a_time_are_named(driver: Path) -> None:
    environment = {"LD_LIBRARY_PATH": str(driver), "FALSE_NVML": "exclusive"}
    shown = run_doctor("run", "--no-probes", env=environment).stdout
    assert "GPU 0, 1: compute mode exclusive-process, for one process at a time." in shown
