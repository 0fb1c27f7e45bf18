"""The checks of GPUs and driver: their rules, against torch's own where it has them, and whole runs."""

from __future__ import annotations

import collections
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import check_of, report_of, run_doctor
from false_node import Driver
from hypothesis import given
from hypothesis import strategies as st
from test_facts import machine

from llm_doctor import registry
from llm_doctor.check import Case, case_of, facts_of
from llm_doctor.checks.driver_too_old import DriverTooOld
from llm_doctor.checks.gpu_arch_not_in_wheel import runs_on
from llm_doctor.checks.gpu_unhealthy import GpuUnhealthy
from llm_doctor.checks.visible_devices_wrong import Seen, job_gpus, seen
from llm_doctor.examination import check_case
from llm_doctor.facts import nvidia_module
from llm_doctor.host import KEPT_OF_EACH_XID, Host, few_of_each, real_host
from llm_doctor.model import (
    Accelerators,
    CheckResult,
    Environment,
    Gpu,
    GpuProcess,
    Gpus,
    NvidiaModule,
    Packages,
    RemappedRows,
    Requirements,
    System,
    TorchBuild,
)
from llm_doctor.places import places
from llm_doctor.workload.data import UNKNOWN, Launch, Place, Value, Workload

NAMES = (
    "driver-too-old",
    "gpu-arch-not-in-wheel",
    "gpu-unhealthy",
    "gpu-degraded-link",
    "gpu-busy",
    "torch-cpu-build-on-gpu-node",
    "fabric-manager-down",
    "device-nodes-missing",
    "visible-devices-wrong",
    "nvml-package-conflict",
)
CHECKS = {entry.name: entry.check for entry in registry.registered() if entry.check is not None}


def result(name: str, case: Case) -> CheckResult:
    return check_case(CHECKS[name], case, ())


def node(count: int, **settings: Any) -> Gpus:
    gpus = tuple(
        Gpu(
            index=index,
            name="NVIDIA H100 80GB HBM3",
            uuid=f"GPU-{index:08x}-1111-2222-3333-444455556666",
            pci_bus_id=f"00000000:{index + 16:02X}:00.0",
            compute_capability=(9, 0),
            **{**HEALTHY, **settings},
        )
        for index in range(count)
    )
    return Gpus(driver="580.65.06", driver_cuda="13.0", gpus=gpus)


HEALTHY: dict[str, Any] = {
    "memory_total_bytes": 80 << 30,
    "memory_free_bytes": 79 << 30,
    "processes": (),
    "compute_mode": "default",
    "mig": False,
    "ecc": True,
    "ecc_errors_volatile": 0,
    "ecc_errors_aggregate": 0,
    "remapped_rows": RemappedRows(correctable=0, uncorrectable=0, pending=False, failed=False),
    "throttle_reasons": ("gpu-idle",),
    "pcie_generation": 1,
    "pcie_generation_max": 5,
    "pcie_width": 16,
    "pcie_width_max": 16,
    "nvlinks_active": 18,
    "nvlinks_inactive": 0,
    "fabric_state": "completed",
    "fabric_status": "success",
}
MODULE = NvidiaModule(
    version="580.65.06",
    gpus=("0000:10:00.0 NVIDIA H100",),
    device_nodes={"/dev/nvidia0": True, "/dev/nvidiactl": True, "/dev/nvidia-uvm": True},
    uvm_loaded=True,
    nvswitches=("0000:c0:00.0",),
    fabric_manager=True,
)
TORCH = TorchBuild(version="2.13.0+cu130", cuda="13.0", kind="cuda")
PACKAGES = Packages(installed={"torch": "2.13.0", "nvidia-ml-py": "13.580.65"}, modules={})


# --- Nodes without a fault, and without a GPU -------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_said_of_a_healthy_node(name: str) -> None:
    """A trial that was not run is no pass; a finding it is not either."""
    archs = {"architectures": ["sm_80", "sm_90"]}
    case = case_of(node(8), MODULE, TORCH, PACKAGES, Requirements(), torch_architectures=archs)
    said = result(name, case)
    assert said.findings == ()
    expected = (
        ("skipped", "not-run: not in this example") if name == "gpu-arch-not-in-wheel" else ("pass", None)
    )
    assert (said.outcome, said.reason) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("driver", [True, False], ids=["a driver that lists no GPU", "no driver"])
def test_nothing_is_said_of_a_node_without_a_gpu(name: str, driver: bool) -> None:
    module = NvidiaModule(version="580.65.06", device_nodes={"/dev/nvidiactl": True})
    facts = [Accelerators(), System(os="x", kernel="6", machine="x86_64"), TORCH, PACKAGES, Requirements()]
    hides = Environment(variables={"CUDA_VISIBLE_DEVICES": "7,7"})
    case = case_of(*facts, hides, *((Gpus(driver="580.65.06"), module) if driver else ()))
    said = result(name, case)
    assert said.findings == () and said.outcome == "skipped" and said.reason


def test_this_machine_gets_no_finding_from_them_where_it_has_no_gpu() -> None:
    arguments = [it for name in NAMES for it in ("--only", name)]
    report = report_of(run_doctor("run", "--format", "json", *arguments))
    if report["facts"]["gpus"]["value"] is not None or report["facts"]["nvidia_module"]["value"] is not None:
        pytest.skip("this machine has an NVIDIA driver")
    assert {check["name"]: check["outcome"] for check in report["checks"]} == dict.fromkeys(NAMES, "skipped")
    assert report["exit_code"] == 0


# --- CUDA_VISIBLE_DEVICES -------------------------------------------------------------------------------

FOUR = node(4)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("0", (0,)),
        (" 2 ,1", (2, 1)),
        ("1gpu2,2ampere", (1, 2)),
        ("+3", (3,)),
        ("0,2,-1,1", (0, 2)),
        ("0,,1", (0,)),
        ("0 1", (0,)),
        ("1;2", (1,)),
        ("0-3", (0,)),
        ("0,1,", (0, 1)),
        ("all", ()),
        ("cuda:0", ()),
        ("1,1", ()),
        ("1,+1", ()),
        ("1,GPU-00000001", ()),
        ("GPU-0000000", ()),
        ("gpu-00000001", ()),
        ("MIG-77ab", ()),
        ("", ()),
        ("NoDevFiles", ()),
    ],
)
def test_cuda_stops_at_the_first_entry_that_names_no_gpu(value: str, shown: tuple[int, ...]) -> None:
    assert seen(value, FOUR).gpus == shown


def test_what_cannot_be_told_is_not_judged() -> None:
    unnamed = Gpus(driver="assumed", gpus=(Gpu(index=0), Gpu(index=1)))
    lost = Gpus(driver="1", gpus=(*node(1).gpus, Gpu(index=1, problem="GPU is lost")))
    unlisted = node(1, mig=True)
    for value, gpus in [("GPU-aa", unnamed), ("GPU-99", lost), ("MIG-99", lost), ("MIG-99", unlisted)]:
        assert seen(value, gpus) == Seen(None)
        case = case_of(gpus, Environment(variables={"CUDA_VISIBLE_DEVICES": value}))
        assert result("visible-devices-wrong", case).outcome == "pass"


@given(st.text())
def test_any_value_is_read(value: str) -> None:
    shown = seen(value, FOUR)
    assert shown.gpus is None or set(shown.gpus) <= {0, 1, 2, 3}
    assert len(set(shown.gpus or ())) == len(shown.gpus or ())


@pytest.fixture(scope="session")
def torch_cuda() -> Any:
    return pytest.importorskip("torch.cuda", reason="the stack is not installed (make test installs it)")


@given(
    numbers=st.lists(st.integers(-2, 3), min_size=1, max_size=6),
    separator=st.sampled_from([",", ", ", " ", ";", ":", "."]),
)
def test_numbers_are_read_as_torch_reads_them(torch_cuda: Any, numbers: list[int], separator: str) -> None:
    if not hasattr(torch_cuda, "_parse_visible_devices"):
        pytest.skip("this torch does not read the variable itself")
    value = separator.join(map(str, numbers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", value)
        theirs = torch_cuda._parse_visible_devices()
    assert list(seen(value, FOUR).gpus or ()) == theirs


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0 1", "CUDA_VISIBLE_DEVICES=0 1: CUDA reads '0 1' as 0, so it sees only GPU 0"),
        ("0,1-3", "CUDA_VISIBLE_DEVICES=0,1-3: CUDA reads '1-3' as 1, so it sees only GPUs 0 and 1"),
        ("2;3,1,0", "CUDA_VISIBLE_DEVICES=2;3,1,0: CUDA reads '2;3' as 2, so it sees only GPUs 2, 1 and 0"),
        (
            "0,1,2,4",
            "CUDA_VISIBLE_DEVICES=0,1,2,4: '4' is no device (this node has GPUs 0 to 3), so CUDA sees only"
            " GPUs 0, 1 and 2",
        ),
        (
            "0 1,9",
            "CUDA_VISIBLE_DEVICES=0 1,9: '9' is no device (this node has GPUs 0 to 3), so CUDA sees only"
            " GPU 0",
        ),
    ],
)
def test_it_is_said_which_gpus_are_seen(value: str, message: str) -> None:
    (finding,) = result(
        "visible-devices-wrong", case_of(FOUR, Environment(variables={"CUDA_VISIBLE_DEVICES": value}))
    ).findings
    assert (finding.severity, finding.message) == ("warning", message)
    assert [fix.preview for fix in finding.fixes] == ["export CUDA_VISIBLE_DEVICES=0,1,2,3"]


def launched(value: object) -> Workload:
    place = Place("train.sh", 2)
    given = {} if value is None else {"CUDA_VISIBLE_DEVICES": Value(value, place)}
    return Workload(files=("train.sh",), launches=(Launch(place, "torchrun", environment=given),))


@pytest.mark.parametrize(
    ("outer", "inner", "used"),
    [
        (None, None, {0, 1, 2, 3}),
        ("1,2", None, {1, 2}),
        ("1,2", "3", {3}),
        ("1", UNKNOWN, {0, 1, 2, 3}),
        ("", None, set()),
        (None, 2, {2}),
    ],
)
def test_the_launch_line_decides_before_the_environment(
    outer: str | None, inner: object, used: set[int]
) -> None:
    variables = {} if outer is None else {"CUDA_VISIBLE_DEVICES": outer}
    case = Case(facts=facts_of(FOUR, Environment(variables=variables)), workload=launched(inner))
    assert job_gpus(case) == used


def test_numbers_of_unlike_gpus_are_not_trusted() -> None:
    """CUDA counts them from the fastest on, the driver along the bus."""
    gpus = Gpus(driver="1", gpus=(Gpu(index=0, name="Tesla T4"), Gpu(index=1, name="NVIDIA A100")))
    case = case_of(gpus, Environment(variables={"CUDA_VISIBLE_DEVICES": "0"}))
    assert job_gpus(case) == {0, 1}


@pytest.mark.parametrize(("visible", "tried"), [("0", []), ("1", []), ("1,0", [0, 1]), ("GPU-b", [1])])
def test_nothing_is_tried_on_a_gpu_that_may_be_hidden(visible: str, tried: list[int]) -> None:
    sizes: Any = {"memory_total_bytes": 4 << 30, "memory_free_bytes": 4 << 30, "processes": ()}
    unlike = (
        Gpu(index=0, name="NVIDIA T400", uuid="GPU-a", **sizes),
        Gpu(index=1, name="NVIDIA RTX A6000", uuid="GPU-b", **sizes),
    )
    where = places(Gpus(driver="1", gpus=unlike), visible)
    assert [place.gpu for place in where.idle] == tried
    assert tried or "CUDA counts unlike GPUs from the fastest on" in str(where.why_cpu)


def divided(**second: Any) -> Gpus:
    """Two GPUs, the first in three parts of which other jobs use two."""
    uuids = tuple(f"MIG-{part}bcd-1111" for part in range(3))
    parts: Any = {"mig": True, "mig_uuids": uuids, "memory_free_bytes": 20 << 30}
    return Gpus(driver="580.65.06", gpus=(node(1, **parts).gpus[0], node(2, **second).gpus[1]))


def test_a_job_on_a_part_of_a_gpu_meets_that_gpu_alone() -> None:
    for value in ("MIG-1bcd-1111", "MIG-1bcd-1111,MIG-2bcd-1111"):
        case = case_of(divided(), Environment(variables={"CUDA_VISIBLE_DEVICES": value}))
        assert job_gpus(case) == {0}
        assert result("visible-devices-wrong", case).outcome == "pass"


def test_it_is_said_that_only_a_part_is_seen() -> None:
    mine = Environment(variables={"CUDA_VISIBLE_DEVICES": "MIG-1bcd-1111,MIG-9"})
    (finding,) = result("visible-devices-wrong", case_of(divided(), mine)).findings
    assert finding.message == (
        "CUDA_VISIBLE_DEVICES=MIG-1bcd-1111,MIG-9: 'MIG-9' is no device (no MIG device has this UUID), so"
        " CUDA sees only a part of GPU 0"
    )


def test_the_other_parts_of_a_gpu_are_other_jobs_own() -> None:
    busy = {"memory_free_bytes": 1 << 30, "processes": (GpuProcess(pid=4242, memory_bytes=79 << 30),)}
    mine = Environment(variables={"CUDA_VISIBLE_DEVICES": "MIG-1bcd-1111"})
    assert result("gpu-busy", case_of(divided(), mine)).findings == ()
    assert result("gpu-busy", case_of(divided(**busy), mine)).findings == ()
    assert len(result("gpu-busy", case_of(divided(**busy))).findings) == 1


@pytest.mark.parametrize("name", ["gpu-unhealthy", "gpu-degraded-link", "gpu-busy"])
def test_a_gpu_that_the_workload_cannot_meet_is_no_more_than_a_note(name: str) -> None:
    whole = node(2)
    sick = {
        "remapped_rows": RemappedRows(correctable=0, uncorrectable=9, pending=False, failed=True),
        "pcie_width": 4,
        "memory_free_bytes": 1 << 30,
        "processes": (GpuProcess(pid=4242, memory_bytes=79 << 30),),
    }
    gpus = Gpus(driver="1", gpus=(node(1, **sick).gpus[0], whole.gpus[1]))
    met = check_case(CHECKS[name], Case(facts=facts_of(gpus), workload=launched("0,1")), ())
    other = check_case(CHECKS[name], Case(facts=facts_of(gpus), workload=launched("1")), ())
    assert met.outcome == "findings" and other.outcome == "pass"
    assert {it.severity for it in other.findings} <= {"note"}


# --- Driver and architectures ---------------------------------------------------------------------------

versions = st.tuples(st.integers(11, 20), st.integers(0, 30))


@given(versions, versions)
def test_within_a_major_version_every_driver_is_new_enough(driver: Any, built: Any) -> None:
    gpus = Gpus(driver="999.1", driver_cuda="{}.{}".format(*driver), gpus=(Gpu(index=0),))
    torch = TorchBuild(version="x", cuda="{}.{}".format(*built), kind="cuda")
    said = check_case(DriverTooOld, case_of(gpus, torch), ())
    assert said.outcome == ("pass" if driver[0] >= built[0] else "findings")


@pytest.mark.parametrize(
    ("driver", "cuda", "outcome"),
    [
        ("525.60.13", "12.9", "pass"),
        ("520.61.05", "12.0", "findings"),
        ("1000.1", "13.0", "pass"),
        ("418.87", "10.1", "pass"),
        ("418.87", "10.2", "findings"),
        ("580.65", "14.0", "skipped"),
        ("assumed", "12.0", "skipped"),
        ("580.65", "nightly", "skipped"),
    ],
)
def test_a_driver_that_does_not_tell_its_cuda_is_judged_by_its_number(
    driver: str, cuda: str, outcome: str
) -> None:
    gpus = Gpus(driver=driver, gpus=(Gpu(index=0),))
    said = check_case(DriverTooOld, case_of(gpus, TorchBuild(version="x", cuda=cuda, kind="cuda")), ())
    assert said.outcome == outcome


def test_a_forward_compatibility_library_that_is_not_loaded_is_offered() -> None:
    gpus = Gpus(driver="535.183.01", driver_cuda="12.2", gpus=(Gpu(index=0),))
    libraries = ("/usr/local/cuda/compat/libcuda.so.580.65.06",)
    module = NvidiaModule(version="535.183.01", compat_libraries=libraries)
    (finding,) = check_case(DriverTooOld, case_of(gpus, TORCH, module), ()).findings
    assert "export LD_LIBRARY_PATH=/usr/local/cuda/compat" in [fix.preview for fix in finding.fixes]


def test_one_that_is_loaded_is_named() -> None:
    gpus = Gpus(driver="535.183.01", driver_cuda="13.0", gpus=(Gpu(index=0),))
    said = check_case(DriverTooOld, case_of(gpus, TORCH), ())
    assert said.reason == "driver 535.183.01 speaks CUDA 13.0 through a forward compatibility library"


@pytest.mark.parametrize(
    ("architecture", "capability", "runs"),
    [
        ("sm_80", (8, 6), True),
        ("sm_86", (8, 0), False),
        ("sm_80", (9, 0), False),
        ("compute_80", (9, 0), True),
        ("compute_90", (8, 9), False),
        ("sm_90a", (9, 0), True),
        ("sm_100a", (10, 3), False),
        ("sm_100f", (10, 3), True),
        ("compute_90a", (10, 0), False),
        ("sm_80", (8, 7), False),
        ("sm_120", (12, 1), True),
        ("gfx942", (9, 0), None),
    ],
)
def test_what_runs_where(architecture: str, capability: tuple[int, int], runs: bool | None) -> None:
    assert runs_on(architecture, capability) is runs


def test_what_runs_where_is_what_torch_says(torch_cuda: Any) -> None:
    table = getattr(torch_cuda, "DEVICE_REQUIREMENT", None)
    if table is None:
        pytest.skip("this torch has no such table")
    devices = [50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 89, 90, 100, 103, 120, 121]
    for code in (it for it in table if it != 101):  # it got a second name, 11.0
        for device in devices:
            assert runs_on(f"sm_{code}", divmod(device, 10)) is (device in table[code]), (code, device)


def test_torch_is_asked_for_its_architectures_without_a_gpu(stack_site: str) -> None:
    import torch

    code = "from llm_doctor.patient.questions.torch_architectures import answer; print(answer({}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    assert done.stdout.strip() == str({"architectures": flags().split() if flags else None}), done.stderr


# --- Links and clocks --------------------------------------------------------------------------------------


def linked(*links: int, **settings: Any) -> list[str]:
    """What is said of GPUs with so many of 12 NVLinks up."""
    gpus = tuple(
        it for at, up in enumerate(links)
        for it in node(at + 1, nvlinks_active=up, nvlinks_inactive=12 - up, **settings).gpus[at:]
    )  # fmt: skip
    return [
        f"{it.severity} {it.subject.gpu}"
        for it in result("gpu-degraded-link", case_of(Gpus(driver="1", gpus=gpus))).findings
    ]


def test_bridges_join_cards_in_pairs() -> None:
    """Those that nobody bought a bridge for are no fault; one GPU alone that has lost its links is."""
    assert linked(12, 12, 0, 0) == linked(12, 12, 0) == linked(0, 0, 0) == []
    assert linked(12, 12, 12, 12, 12, 12, 12, 0) == ["warning 7"]
    assert linked(12, 12, 0, 0, 12, 11) == ["warning 5"]


def test_a_divided_gpu_needs_no_nvlinks() -> None:
    """It has no peer-to-peer; on a DGX A100 its links are off."""
    divided = node(1, mig=True, nvlinks_active=0, nvlinks_inactive=18).gpus
    gpus = (*divided, *node(8).gpus[1:])
    assert result("gpu-degraded-link", case_of(Gpus(driver="1", gpus=gpus))).findings == ()


@pytest.mark.parametrize(
    ("clocks", "others", "said"),
    [
        (("gpu-idle",), (), "note likely"),
        (None, (), "note likely"),
        ((), (), "warning certain"),
        (("gpu-idle",), (("gpu-idle",),), "warning likely"),
        (("gpu-idle",), ((),), "note likely"),
    ],
)
def test_an_idle_gpu_may_have_given_lanes_back(clocks: Any, others: Any, said: str) -> None:
    """Its siblings tell whether GPUs of this kind do."""
    narrow = node(1, pcie_width=4, throttle_reasons=clocks).gpus
    wide = tuple(node(at + 2, throttle_reasons=it).gpus[-1] for at, it in enumerate(others))
    (finding,) = result("gpu-degraded-link", case_of(Gpus(driver="1", gpus=narrow + wide))).findings
    assert f"{finding.severity} {finding.confidence}" == said


@pytest.mark.parametrize("reasons", [("hw-slowdown",), ("gpu-idle", "hw-slowdown")])
def test_a_slowdown_without_a_reason_may_be_a_change_of_clocks(reasons: tuple[str, ...]) -> None:
    assert result("gpu-unhealthy", case_of(node(2, throttle_reasons=reasons), MODULE)).findings == ()


# --- The kernel's log and the module ----------------------------------------------------------------------


def said_of(*lines: str) -> list[str]:
    module = NvidiaModule(version="580.65.06", xid_lines=lines)
    found = check_case(GpuUnhealthy, case_of(node(2), module), ()).findings
    return [f"{it.severity} {it.confidence}: {it.message}" for it in found]


def test_xids_are_counted_by_gpu_and_number() -> None:
    assert said_of(
        "NVRM: Xid (PCI:0000:10:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
        "NVRM: Xid (PCI:0000:11:00.0): 31, pid=1, MMU Fault",
        "NVRM: Xid (0000:11:00): 31, pid=2, MMU Fault",
        "NVRM: Xid (PCI:0000:77:00): 999, what nobody knows yet",
        "NVRM: Xid (PCI:0000:10:00): 154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot"
        " Required)",
    ) == [
        "warning likely: GPU 0: the driver reported Xid 79 since the machine started: the GPU fell off the"
        " bus. The driver says: Node Reboot Required",
        "note likely: GPU 1: the driver reported Xid 31 since the machine started, 2 times: a program touched"
        " memory that it has not",
        "note likely: the GPU at 0000:77:00: the driver reported Xid 999 since the machine started: see"
        " NVIDIA's catalogue for what it means",
    ]


def lost(*indices: int, known: tuple[str, ...] = MODULE.gpus, **settings: Any) -> list[str]:
    """What is said of four GPUs of which these are lost, and of all of which the log has an Xid 79."""
    gpus = tuple(
        Gpu(index=it.index, problem="GPU is lost") if it.index in indices else it for it in node(4).gpus
    )
    lines = tuple(f"NVRM: Xid (PCI:0000:{16 + it:02x}:00): 79, GPU has fallen off the bus." for it in indices)
    module = NvidiaModule(version="580.65.06", gpus=known, xid_lines=lines)
    found = check_case(GpuUnhealthy, case_of(Gpus(driver="580.65.06", gpus=gpus), module), ()).findings
    return [f"{it.severity} {it.subject.gpu}: {it.message}" for it in found]


def test_a_lost_gpu_and_its_xid_are_one_finding() -> None:
    """The driver's list of GPUs has its place on the bus, where NVML has it no more."""
    all_four = tuple(f"0000:{16 + it:02x}:00.0 NVIDIA H100" for it in range(4))
    off = (
        "does not answer: GPU is lost; the driver reported Xid 79 since the machine started: the GPU fell off"
        " the bus"
    )
    assert lost(2, known=()) == [f"error 2: GPU 2 {off}"]
    assert lost(2, known=all_four) == [f"error 2: GPU 2 {off}"]
    assert lost(1, 3, known=all_four) == [f"error 1: GPU 1 {off}", f"error 3: GPU 3 {off}"]


def test_an_xid_of_a_gpu_that_is_none_of_these_names_it_in_the_reset() -> None:
    """Two GPUs are lost and one wrote to the log: which of them it was is not known."""
    gpus = tuple(
        Gpu(index=it.index, problem="GPU is lost") if it.index in (1, 2) else it for it in node(4).gpus
    )
    line = "NVRM: Xid (PCI:0000:12:00): 79, GPU has fallen off the bus."
    module = NvidiaModule(version="580.65.06", xid_lines=(line,))
    *_, finding = check_case(GpuUnhealthy, case_of(Gpus(driver="1", gpus=gpus), module), ()).findings
    assert finding.message.startswith("the GPU at 0000:12:00: the driver reported Xid 79")
    assert finding.fixes[-1].preview == "sudo nvidia-smi --gpu-reset -i 0000:12:00.0"


def test_a_reset_is_of_one_gpu() -> None:
    module = NvidiaModule(version="580.65.06", xid_lines=("NVRM: Xid (PCI:0000:11:00): 119, GSP timeout",))
    (finding,) = check_case(GpuUnhealthy, case_of(node(2), module), ()).findings
    assert finding.fixes[-1].preview == "sudo nvidia-smi --gpu-reset -i 0000:11:00.0"


def test_the_fabric_manager_is_installed_of_the_driver_s_version_and_on_the_host() -> None:
    """`-*` fits NVIDIA's packages (580.65.06-1) and Ubuntu's (580.65.06-0ubuntu0.24.04.1)."""
    down = node(2, fabric_state="in-progress", fabric_status=None)
    fixes = {}
    for container in (None, "docker"):
        system = System(os="Ubuntu 24.04", kernel="6.8", machine="x86_64", container=container)
        (finding,) = result("fabric-manager-down", case_of(down, MODULE, system)).findings
        fixes[container] = [(fix.title, fix.preview) for fix in finding.fixes]
    start, install, _ = fixes[None]
    assert start == ("start the service, now and at boot", "sudo systemctl enable --now nvidia-fabricmanager")
    assert install == (
        "where it refuses, install the one whose version equals the driver's (580.65.06)",
        "sudo apt-get install 'nvidia-fabricmanager-580=580.65.06-*'",
    )
    assert [title.partition(":")[0] for title, _ in fixes["docker"][:2]] == ["on the host"] * 2
    assert [preview for _, preview in fixes["docker"]] == [preview for _, preview in fixes[None]]


def test_a_fault_that_comes_after_a_recovery_counts() -> None:
    line = "NVRM: Xid (PCI:0000:10:00): {}, pid=1"
    recovered = line.format(154) + ", GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)"
    (found,) = said_of(line.format(48), recovered, line.format(119))
    assert "Xid 119" in found


def test_an_xid_of_a_part_of_a_gpu_is_the_gpu_s() -> None:
    (found,) = said_of(
        "NVRM: Xid (PCI:0000:10:00 GPU-I:05): 95, pid=7194, Uncontained",
        "NVRM: Xid (PCI:0000:10:00 GPU-I:06 GPU-CI:00): 95, pid=7195, Uncontained",
    )
    assert found == (
        "warning likely: GPU 0: the driver reported Xid 95 since the machine started, 2 times: an uncontained"
        " memory error"
    )


def test_an_nvlink_that_went_down_may_have_been_meant_to() -> None:
    (found,) = said_of("NVRM: Xid (PCI:0000:10:00): 155, NVLINK: SW Defined Error")
    assert found.startswith("note likely: GPU 0: the driver reported Xid 155")


def test_a_fault_of_hardware_is_not_lost_behind_those_of_programs(tmp_path: Path) -> None:
    hardware = "NVRM: Xid (PCI:0000:10:00): 48, pid=1, DBE"
    of_programs = [f"NVRM: Xid (PCI:0000:11:00): 13, pid={pid}, Graphics Exception" for pid in range(300)]
    records = (f"4,{at},{at},-;{line}\n" for at, line in enumerate([hardware, *of_programs, "NVRM: loading"]))
    kept = collections.Counter(line.partition(",")[0] for line in few_of_each(records))
    assert kept == {"NVRM: Xid (PCI:0000:10:00): 48": 1, "NVRM: Xid (PCI:0000:11:00): 13": KEPT_OF_EACH_XID}
    first, second = said_of(hardware, *of_programs[-KEPT_OF_EACH_XID:])
    assert "Xid 48 since the machine started: a double-bit" in first
    assert f"Xid 13 since the machine started, {KEPT_OF_EACH_XID} times or more: a program" in second


@pytest.mark.parametrize(
    ("xid", "hardware"),
    [
        ("48, pid=1, DBE (double bit error) ECC Error", True),
        ("79, GPU has fallen off the bus.", True),
        ("94, pid=7194, Contained", True),
        ("154, GPU recovery action changed from 0x0 (None) to 0x2 (Node Reboot Required)", True),
        ("154, GPU recovery action changed from 0x2 (Node Reboot Required) to 0x0 (None)", False),
        ("155, NVLINK: SW Defined Error", False),
        ("121, C2C Error", False),
        ("106, SMBPBI Test Message", False),
        ("141, CUDA Fast Path Error", False),
        ("88, pid=1, NVDEC3 Error", False),
        ("13, pid=1, Graphics Exception", False),
    ],
)
@pytest.mark.parametrize("part", ["", " GPU-I:05", " GPU-I:05 GPU-CI:00"])
def test_a_log_s_xids_are_of_hardware_where_nvidia_s_catalogue_says_so(
    xid: str, hardware: bool, part: str
) -> None:
    """https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, Immediate Action"""
    line = f"[ 1.5] NVRM: Xid (PCI:0000:3b:00{part}): {xid}"
    (symptom,) = (it for it in GpuUnhealthy.symptoms if "Xid {xid}" in it.cause)
    found = re.search(symptom.pattern, line)
    assert (found is not None) is hardware
    assert found is None or found["gpu"] == "0000:3b:00"


@given(st.lists(st.text(alphabet="Xid (PCI:0f.)17954,\n", max_size=60), max_size=5))
def test_any_kernel_log_is_read(lines: list[str]) -> None:
    said_of(*lines)


def test_a_kernel_log_that_cannot_be_read_is_said() -> None:
    problem = "the kernel's log cannot be read: Operation not permitted"
    said = check_case(GpuUnhealthy, case_of(node(1), NvidiaModule(version="580", log_problem=problem)), ())
    assert (said.outcome, said.reason) == ("pass", problem)


def test_switches_nodes_and_services_are_read() -> None:
    files = {
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun",
        "/proc/driver/nvidia-nvswitch/devices/0000:c1:00.0/information": "",
        "/proc/driver/nvidia-nvswitch/permissions": "",
        "/dev/nvidia0": "",
        "/dev/nvidiactl": "",
        "/dev/nvidia-modeset": "",
        "/dev/nvidia-caps/nvidia-cap1": "",
        "/usr/bin/nvidia-modprobe": "",
        "/usr/local/cuda/compat/libcuda.so.580.65.06": "",
        "/usr/local/cuda/compat/libcuda.so.1": "",
    }
    plain = machine(files)

    def ask(kind: str, *arguments: str) -> Any:
        if kind == "usable":
            return {"value": arguments[0] != "/dev/nvidiactl"}
        if kind == "runs":
            return {"value": {"nv-fabricmanager": True}.get(arguments[0])}
        return plain._ask(kind, *arguments)

    module = nvidia_module.read(Host(ask))
    assert module.device_nodes == {"/dev/nvidia0": True, "/dev/nvidiactl": False}
    assert (module.uvm_loaded, module.makes_nodes, module.fabric_manager) == (False, True, True)
    assert module.nvswitches == ("0000:c1:00.0",)
    assert module.compat_libraries == ("/usr/local/cuda/compat/libcuda.so.580.65.06",)


def test_a_running_program_is_found_by_its_name(tmp_path: Path) -> None:
    program = tmp_path / "nv-fabricmanager-of-a-test"
    program.symlink_to("/bin/sleep")
    host = real_host()
    assert host.runs("nv-fabricmanager-of-a-test") is not True
    with subprocess.Popen([str(program), "60"]) as process:
        deadline = time.monotonic() + 10  # the kernel gives it the name a moment after the start
        while not host.runs("nv-fabricmanager-of-a-test") and time.monotonic() < deadline:
            time.sleep(0.01)
        assert host.runs("nv-fabricmanager-of-a-test") is True
        process.kill()
    assert host.runs("nv-fabricmanager-of-a-test") is not True


def test_a_file_that_may_not_be_opened_is_not_usable(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    assert real_host().usable(str(tmp_path / "mine")) is True
    assert real_host().usable(str(tmp_path / "absent")) is False
    if os.geteuid() == 0:
        return  # root may open what it likes
    (tmp_path / "mine").chmod(0)
    assert real_host().usable(str(tmp_path / "mine")) is False


# --- Whole runs on two false V100s ------------------------------------------------------------------------


TORCH_FILES = {
    "torch/__init__.py": "class _C:\n    _cuda_getArchFlags = staticmethod(lambda: 'sm_75 sm_80 sm_90')\n",
    "torch/version.py": "__version__ = '2.8.0+cu128'\ncuda = '12.8'\n",
}


def test_the_patients_torch_says_what_it_was_compiled_for(
    false_driver: Driver, make_patient: Callable[..., Path]
) -> None:
    python = make_patient(modules=TORCH_FILES, packages={"torch": "2.8.0"})
    arguments = ("run", "--format", "json", "--python", str(python))
    only = ("--only", "gpu-arch-not-in-wheel", "--only", "driver-too-old")
    report = report_of(run_doctor(*arguments, *only, env=false_driver.play("v100", count=2)))
    (finding,) = check_of(report, "gpu-arch-not-in-wheel")["findings"]
    assert finding["message"] == (
        "2 x Tesla V100-SXM2-32GB (sm_70): torch 2.8.0+cu128 has machine code for sm_75, sm_80, sm_90 alone"
    )
    assert (finding["severity"], finding["subject"]["gpu"]) == ("error", 0)
    # The fix is one that driver 12.2 and a V100 run.
    assert "'torch==2.8.0+cu126'" in finding["fixes"][0]["preview"]
    # Driver 12.2 runs a torch for 12.8.
    assert check_of(report, "driver-too-old")["outcome"] == "pass"
    assert {trial["device"] for trial in check_of(report, "gpu-arch-not-in-wheel")["trials"]} <= {
        "cuda:0",
        "cuda:1",
    }


def test_a_launch_line_that_names_a_gpu_too_many(false_driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "train.sh").write_text(
        "#!/bin/bash\nCUDA_VISIBLE_DEVICES=1,2 torchrun --nproc_per_node 2 train.py\n"
    )
    arguments = ("run", "--no-probes", "--format", "json", "--only", "visible-devices-wrong", "train.sh")
    report = report_of(run_doctor(*arguments, env=false_driver.play("v100", count=2), cwd=tmp_path))
    (finding,) = check_of(report, "visible-devices-wrong")["findings"]
    assert finding["message"] == (
        "CUDA_VISIBLE_DEVICES=1,2: '2' is no device (this node has GPUs 0 to 1), so CUDA sees only GPU 1"
    )
    assert (finding["subject"]["path"], finding["subject"]["line"]) == ("train.sh", 2)


def test_two_packages_called_pynvml(false_driver: Driver, make_patient: Callable[..., Path]) -> None:
    """The old one's folder goes before NVIDIA's file."""
    files = {"pynvml.py": "", "pynvml/__init__.py": ""}
    for name, version, record in (
        ("nvidia_ml_py", "12.560.30", "pynvml.py,sha,1\n"),
        ("pynvml", "11.5.3", "pynvml/__init__.py,sha,1\n"),
    ):
        info = f"{name}-{version}.dist-info"
        files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        files[f"{info}/RECORD"] = record
    python = make_patient(modules=files)
    arguments = ("run", "--no-probes", "--format", "json", "--python", str(python))
    report = report_of(
        run_doctor(*arguments, "--only", "nvml-package-conflict", env=false_driver.play("v100", count=2))
    )
    (finding,) = check_of(report, "nvml-package-conflict")["findings"]
    assert finding["severity"] == "warning"
    assert finding["message"] == (
        "pynvml 11.5.3 and nvidia-ml-py 12.560.30 both bring the module pynvml, and an import takes that of"
        " pynvml 11.5.3"
    )
