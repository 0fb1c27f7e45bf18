"""Which GPUs trials run on, and what is said of the others; test_nodes.py has the facts that NVML tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor
from false_node import Driver

from llm_doctor import host, probes
from llm_doctor.check import Trial, TrialRequest
from llm_doctor.model import Gpu, Gpus
from llm_doctor.places import places
from llm_doctor.reading import Reading


def examined(driver: Driver, node: str, *arguments: str) -> dict[str, Any]:
    environment = driver.play(node, count=2)
    return report_of(run_doctor("run", "--no-probes", "--format", "json", *arguments, env=environment))


def test_a_busy_gpu_is_left_alone(false_driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in false_driver.play("busy", count=2).items():
        monkeypatch.setenv(name, value)
    gpus = Reading(host.real_host()).facts()[0].gpus.value
    assert gpus is not None and [process.pid for process in gpus.gpus[0].processes] == [4242]
    where = places(gpus, None)
    assert where.idle == [(1, gpus.gpus[1].uuid)]
    assert where.left_alone == [(0, "used by process 4242, 20 GiB")]


def test_it_is_said_when_there_is_no_gpu_to_try_on(false_driver: Driver, stack_site: str) -> None:
    environment = {**false_driver.play("v100", count=2), "CUDA_VISIBLE_DEVICES": ""}
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


def test_a_gpu_that_torch_cannot_use_is_not_claimed(false_driver: Driver, stack_site: str) -> None:
    """This torch has no CUDA: the trials run on the CPU, and say so."""
    build = report_of(run_doctor("run", "--no-probes", "--format", "json"))["facts"]["torch_build"]["value"]
    if build["kind"] != "cpu":
        pytest.skip(f"this torch is built for {build['kind']}")
    environment = false_driver.play("v100", count=2)
    arguments = ("run", "--format", "json", "--only", "half-float-mismatch")
    (trial,) = check_of(report_of(run_doctor(*arguments, env=environment)), "half-float-mismatch")["trials"]
    assert trial["device"] == "cpu" and trial["status"] == "reproduced"
    assert trial["reason"] == "torch did not use GPU 0: tried on the CPU"


def test_a_cpu_build_of_torch_beside_gpus_is_an_error(
    false_driver: Driver, make_patient: Callable[..., Path]
) -> None:
    python = make_patient(
        modules={"torch/__init__.py": "", "torch/version.py": "__version__ = '2.8.0+cpu'\ncuda = None\n"},
        packages={"torch": "2.8.0"},
    )
    report = examined(false_driver, "v100", "--python", str(python))
    (finding,) = check_of(report, "torch-cpu-build-on-gpu-node")["findings"]
    assert finding["severity"] == "error" and report["exit_code"] == 1
    assert "2 NVIDIA GPUs (Tesla V100-SXM2-32GB)" in finding["message"]
    # Driver 12.2 runs every 12.x; a V100 has no kernels in this release's wheel for 12.8.
    (fix,) = finding["fixes"]
    assert "'torch==2.8.0+cu126' --index-url https://download.pytorch.org/whl/cu126" in fix["preview"]


def test_each_gpu_that_is_left_alone_is_named_with_the_reason(false_driver: Driver, stack_site: str) -> None:
    environment = false_driver.play("busy", count=2)
    arguments = ("run", "--format", "json", "--only", "bf16-unsupported", "--only", "zero-bucket-oom")
    report = report_of(run_doctor(*arguments, env=environment))
    for name in ("bf16-unsupported", "zero-bucket-oom"):
        results = {trial["device"]: trial for trial in check_of(report, name)["trials"]}
        assert results["cuda:0"]["status"] == "not-run"
        assert results["cuda:0"]["reason"] == "left alone: used by process 4242, 20 GiB"
    shown = run_doctor(*arguments[:1], *arguments[3:], env=environment).stdout
    assert "not-run on cuda:0: left alone: used by process 4242, 20 GiB" in " ".join(shown.split())


def test_v100s_have_neither_native_bfloat16_nor_int8_tensor_cores(false_driver: Driver) -> None:
    report = examined(false_driver, "v100")
    if "torch" not in report["facts"]["packages"]["value"]["installed"]:
        pytest.skip("the stack is not installed")
    (finding,) = check_of(report, "bf16-unsupported")["findings"]
    assert finding["message"] == "2 x Tesla V100-SXM2-32GB (compute capability 7.0): no native bfloat16"
    assert (finding["severity"], finding["confidence"]) == ("note", "certain")
    assert finding["evidence"]["gpus"] == [0, 1] and finding["subject"] == {"kind": "gpu", "gpu": 0}
    (slow,) = check_of(report, "int8-product-broken")["findings"]
    assert "no int8 tensor cores" in slow["message"]


def test_a_torch_that_uses_no_gpu_is_tried_once(false_driver: Driver, stack_site: str) -> None:
    arguments = ("run", "--format", "json", "--only", "bf16-unsupported")
    report = report_of(run_doctor(*arguments, env=false_driver.play("v100", count=2)))
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


def test_gpus_for_one_process_at_a_time_are_named(false_driver: Driver) -> None:
    environment = false_driver.play("exclusive", count=2)
    shown = run_doctor("run", "--no-probes", env=environment).stdout
    assert "GPU 0, 1: compute mode exclusive-process, for one process at a time." in shown
