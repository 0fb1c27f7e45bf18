"""The whole program on nodes that a false driver plays: tests/nodes, tests/false_node.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import msgspec
import pytest
from conftest import check_of, processes_with, report_of, run_doctor
from false_node import NODES, Driver

from llm_doctor.check import case_of
from llm_doctor.checks.visible_devices_wrong import job_gpus
from llm_doctor.model import Environment, Gpus
from llm_doctor.places import places

# Those that judge the state of a node. What cuda-toolkit-mismatch says hangs on this machine's nvcc.
GPU_CHECKS = (
    "device-nodes-missing",
    "driver-library-mismatch",
    "driver-not-loaded",
    "driver-too-old",
    "fabric-manager-down",
    "gpu-arch-not-in-wheel",
    "gpu-busy",
    "gpu-degraded-link",
    "gpu-unhealthy",
    "torch-cpu-build-on-gpu-node",
    "visible-devices-wrong",
)
HANGING = ("gpu-hangs", "init-hangs")


@pytest.fixture
def patient(make_patient: Callable[..., Path]) -> Callable[[str], str]:
    """An environment with a torch of this version, as far as the doctor reads it without importing it."""

    def make(version: str) -> str:
        cuda = version.partition("+cu")[2]
        text = f"__version__ = {version!r}\ncuda = {f'{cuda[:-1]}.{cuda[-1]}' if cuda else None!r}\n"
        return str(
            make_patient(
                modules={
                    "torch/__init__.py": "",
                    "torch/version.py": text,
                    "bitsandbytes/__init__.py": "",
                    "bitsandbytes/libbitsandbytes_cuda126.so": "",
                },
                packages={"torch": version, "bitsandbytes": "0.46.0"},
            )
        )

    return make


def examined(driver: Driver, node: str, *arguments: str, **settings: Any) -> dict[str, Any]:
    environment = {"CUDA_VISIBLE_DEVICES": None, **driver.play(node, **settings)}
    done = run_doctor("run", "--no-probes", "--no-redact", "--format", "json", *arguments, env=environment)
    return report_of(done)


def said(report: dict[str, Any]) -> list[str]:
    """What the checks of GPUs found, in the order of the report."""
    return [
        f"{check['name']}: {finding['severity']}: {finding['message']}"
        for check in report["checks"]
        for finding in check["findings"]
        if check["name"] in GPU_CHECKS
    ]


# --- Facts ------------------------------------------------------------------------------------------------


def test_a_gpu_is_read_whole(false_driver: Driver) -> None:
    gpus = examined(false_driver, "v100")["facts"]["gpus"]["value"]
    assert (gpus["driver"], gpus["driver_cuda"], len(gpus["gpus"])) == ("535.183.01", "12.2", 8)
    assert gpus["gpus"][7] == {
        "index": 7,
        "name": "Tesla V100-SXM2-32GB",
        "uuid": "GPU-cd0b0cdd-ce2a-5257-806e-b3c64b365f0e",
        "pci_bus_id": "00000000:8A:00.0",
        "compute_capability": [7, 0],
        "memory_total_bytes": 32768 << 20,
        "memory_free_bytes": 32765 << 20,
        "processes": [],
        "compute_mode": "default",
        "persistence": True,
        "mig": None,
        "mig_uuids": None,
        "ecc": True,
        "ecc_errors_volatile": 0,
        "ecc_errors_aggregate": 0,
        "remapped_rows": None,
        "retired_pages_pending": False,
        "throttle_reasons": ["gpu-idle"],
        "pcie_generation": 3,
        "pcie_generation_max": 3,
        "pcie_width": 16,
        "pcie_width_max": 16,
        "nvlinks_active": 6,
        "nvlinks_inactive": 0,
        "fabric_state": None,
        "fabric_status": None,
        "problem": None,
    }


@pytest.mark.parametrize(
    ("node", "driver", "count", "name", "capability", "mib", "nvlinks"),
    [
        ("a100", ("535.183.01", "12.2"), 8, "NVIDIA A100-SXM4-80GB", [8, 0], 81920, 12),
        ("h100", ("550.90.07", "12.4"), 8, "NVIDIA H100 80GB HBM3", [9, 0], 81559, 18),
        ("h200", ("570.158.01", "12.8"), 8, "NVIDIA H200", [9, 0], 143771, 18),
        ("t4", ("580.65.06", "13.0"), 1, "Tesla T4", [7, 5], 15360, None),
        ("rtx4090", ("570.124.04", "12.8"), 1, "NVIDIA GeForce RTX 4090", [8, 9], 24564, None),
    ],
)
def test_every_kind_of_gpu_is_known(
    false_driver: Driver,
    node: str,
    driver: tuple[str, str],
    count: int,
    name: str,
    capability: list[int],
    mib: int,
    nvlinks: int | None,
) -> None:
    found = examined(false_driver, node)["facts"]["gpus"]["value"]
    assert (found["driver"], found["driver_cuda"]) == driver
    shown = ("name", "compute_capability", "memory_total_bytes", "nvlinks_active", "problem")
    assert [tuple(gpu[key] for key in shown) for gpu in found["gpus"]] == [
        (name, capability, mib << 20, nvlinks, None)
    ] * count


@pytest.mark.parametrize(
    ("node", "healthy", "differing"),
    [
        ("retired-pages", "v100", {1: {
            "ecc_errors_volatile": 1, "ecc_errors_aggregate": 1, "retired_pages_pending": True}}),
        ("memory-errors", "a100", {
            3: {
                "ecc_errors_volatile": 2,
                "ecc_errors_aggregate": 5,
                "remapped_rows": {"correctable": 0, "uncorrectable": 1, "pending": True, "failed": False},
            },
            6: {
                "ecc_errors_aggregate": 9,
                "remapped_rows": {"correctable": 1, "uncorrectable": 8, "pending": False, "failed": True},
            },
        }),
        ("hot", "a100", {
            2: {
                "throttle_reasons": ["hw-slowdown", "sw-thermal", "hw-thermal"],
                "processes": [{"pid": 4242, "memory_bytes": 70000 << 20}],
                "memory_free_bytes": 11910 << 20,
            },
            3: {
                "throttle_reasons": ["sw-power-cap"],
                "processes": [{"pid": 4243, "memory_bytes": 70000 << 20}],
                "memory_free_bytes": 11910 << 20,
            },
        }),
        ("power-brake", "h100",
         {gpu: {"throttle_reasons": ["hw-slowdown", "hw-power-brake"]} for gpu in range(8)}),
        ("narrow-bus", "a100", {2: {"pcie_generation": 1, "pcie_width": 4}}),
        ("nvlink-down", "v100", {4: {"nvlinks_active": 5, "nvlinks_inactive": 1}}),
        ("no-fabric-manager", "h100",
         {gpu: {"fabric_state": "in-progress", "fabric_status": None} for gpu in range(8)}),
        ("fabric-failed", "h100", {7: {"fabric_status": "Unknown Error"}}),
        ("mig", "a100", {
            0: {"mig": True, "mig_uuids": [f"MIG-6c9d7c3e-2b0a-5f4e-9d1c-0a8b7c6d5e4{n}" for n in range(3)]},
            1: {"mig": True},
        }),
        ("exclusive", "v100", {gpu: {"compute_mode": "exclusive-process"} for gpu in range(8)}),
        ("prohibited", "v100", {0: {"compute_mode": "prohibited"}}),
        ("driver-too-old", "v100", {}),
        ("functions-missing", "v100", {gpu: {"processes": None} for gpu in range(8)}),
    ],
)  # fmt: skip
def test_a_sick_gpu_differs_in_its_sickness_alone(
    false_driver: Driver, node: str, healthy: str, differing: dict[int, dict[str, Any]]
) -> None:
    sick, well = (examined(false_driver, it)["facts"]["gpus"]["value"]["gpus"] for it in (node, healthy))
    found = {
        gpu: {key: a[key] for key in a if a[key] != b[key]} for gpu, (a, b) in enumerate(zip(sick, well))
    }
    assert {gpu: changes for gpu, changes in found.items() if changes} == differing


def test_a_query_that_is_not_supported_is_one_unknown_field(false_driver: Driver) -> None:
    (gpu,) = examined(false_driver, "not-supported")["facts"]["gpus"]["value"]["gpus"]
    assert {key: value for key, value in gpu.items() if value is not None} == {
        "index": 0,
        "name": "GRID A100D-40C",
        "uuid": "GPU-8de69fad-ff1c-5d3e-ad11-5f8f3782404b",
        "compute_capability": [8, 0],
        "memory_total_bytes": 40960 << 20,
        "memory_free_bytes": 37460 << 20,
        "compute_mode": "default",
        "persistence": True,
        "ecc": True,
    }


@pytest.mark.parametrize(
    ("node", "problems"),
    [
        ("lost-gpu", {5: "GPU is lost"}),
        ("lost-while-asked", {1: "GPU is lost"}),
        ("reset-required", {2: "GPU requires restart"}),
    ],
)
def test_a_gpu_that_fails_hides_no_other_and_does_not_look_healthy(
    false_driver: Driver, node: str, problems: dict[int, str]
) -> None:
    gpus = examined(false_driver, node)["facts"]["gpus"]["value"]["gpus"]
    assert [gpu["index"] for gpu in gpus] == list(range(8))
    for gpu in gpus:
        known = {key: value for key, value in gpu.items() if value is not None and key != "index"}
        if gpu["index"] in problems:
            assert known == {"problem": problems[gpu["index"]]}
        else:
            assert gpu["name"] and gpu["uuid"] and gpu["problem"] is None


def test_gpus_that_a_job_may_not_ask_are_none_of_its_own(false_driver: Driver) -> None:
    """Of eight, its cgroup gives it six, which CUDA counts from 0."""
    told = examined(false_driver, "some-forbidden")["facts"]["gpus"]["value"]["gpus"]
    assert [gpu["index"] for gpu in told] == [2, 3, 4, 5, 6, 7]
    gpus = msgspec.convert({"driver": "535.183.01", "gpus": told}, Gpus)
    assert [place.gpu for place in places(gpus, "0,1").idle] == [2, 3]
    mine = case_of(gpus, Environment(variables={"CUDA_VISIBLE_DEVICES": "0,1"}))
    assert job_gpus(mine) == {2, 3}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        ("version-mismatch", "NVML: RM has detected an NVML/RM version mismatch"),
        ("no-permission", "NVML: Insufficient Permissions"),
        ("crash", "NVML ended with signal SIGSEGV"),
    ],
)
def test_a_driver_that_fails_is_a_fact_with_a_reason(false_driver: Driver, node: str, reason: str) -> None:
    report = examined(false_driver, node)
    assert (report["facts"]["gpus"]["status"], report["facts"]["gpus"]["reason"]) == ("unavailable", reason)
    assert report["facts"]["nvidia_module"]["status"] == "ok"
    assert check_of(report, "gpu-unhealthy")["outcome"] == "skipped"
    assert check_of(report, "gpu-unhealthy")["reason"] == reason


def test_what_hangs_costs_its_time_limit_and_nothing_is_left_behind(false_driver: Driver) -> None:
    """Two at once, for each takes as long as its limit: nvmlInit(), and one GPU that hides no other."""
    with ThreadPoolExecutor() as pool:
        one_gpu, everything = pool.map(lambda node: examined(false_driver, node), HANGING)
    assert everything["facts"]["gpus"]["reason"] == "NVML did not end within 20 s"
    gpus = one_gpu["facts"]["gpus"]["value"]["gpus"]
    assert {gpu["index"]: gpu["problem"] for gpu in gpus if gpu["problem"]} == {
        3: "did not answer within 15 s"
    }
    assert [gpu["name"] for gpu in gpus].count("NVIDIA H100 80GB HBM3") == 7
    for node in HANGING:
        assert processes_with(false_driver.play(node)["FALSE_NODE"]) == []


@pytest.mark.parametrize("count", [1, 2, 16])
def test_there_may_be_any_number_of_gpus(false_driver: Driver, count: int) -> None:
    gpus = examined(false_driver, "v100", count=count)["facts"]["gpus"]["value"]["gpus"]
    assert [gpu["index"] for gpu in gpus] == list(range(count))
    assert len({gpu["uuid"] for gpu in gpus}) == count


def test_serial_numbers_are_not_shown(false_driver: Driver) -> None:
    environment = false_driver.play("mig", count=2)
    report = report_of(run_doctor("run", "--no-probes", "--format", "json", env=environment))
    first, second = report["facts"]["gpus"]["value"]["gpus"]
    assert (first["uuid"], second["uuid"]) == ("<gpu-id-1>", "<gpu-id-5>")
    assert first["mig_uuids"] == ["<gpu-id-2>", "<gpu-id-3>", "<gpu-id-4>"]


def test_the_driver_s_own_files_are_read_as_they_are_on_a_node(false_driver: Driver) -> None:
    facts = examined(false_driver, "xid")["facts"]
    module = facts["nvidia_module"]["value"]
    assert module["version"] == "550.90.07"
    assert module["gpus"][0] == "0000:1b:00.0 NVIDIA H100 80GB HBM3" and len(module["gpus"]) == 8
    assert [line.split(",")[0] for line in module["xid_lines"]] == [
        "NVRM: Xid (PCI:0000:1b:00): 31",
        "NVRM: Xid (PCI:0000:c3:00): 119",
    ]
    assert module["log_problem"] is None
    assert {it["vendor"] for it in facts["accelerators"]["value"]["accelerators"]} == {"NVIDIA"}


def test_a_log_that_may_not_be_read_is_said_to_be_so(false_driver: Driver) -> None:
    module = examined(false_driver, "h100")["facts"]["nvidia_module"]["value"]
    assert module["log_problem"] == "the kernel's log cannot be read: Operation not permitted"


# --- Checks -----------------------------------------------------------------------------------------------


SAID = {
    # Healthy ones, and what is no fault: a link that rests, a GPU that is divided, a node without GPUs.
    **dict.fromkeys(("v100", "a100", "h100", "h200", "t4", "rtx4090", "mig", "not-supported", "no-gpus"), ()),
    "busy": (
        "gpu-busy: warning: GPU 0 (Tesla V100-SXM2-32GB): 12.0 GiB of 32 GiB are free, held by process 4242"
        " (20 GiB)",
    ),
    # What NVML's refusal means is said by the fact; see test_a_driver_that_fails_is_a_fact_with_a_reason.
    "crash": (
        "driver-not-loaded: error: the kernel module 550.90.07 drives 8 GPUs, and NVML does not work: NVML"
        " ended with signal SIGSEGV",
    ),
    "driver-too-old": (
        "driver-too-old: error: driver 470.256.02 speaks CUDA 11.4, and torch 2.8.0+cu126 is built for CUDA"
        " 12.6, which needs driver 525 or later",
    ),
    "exclusive": (),
    "fabric-failed": (
        "fabric-manager-down: error: the NVLink fabric of GPU 7 is not set up (Unknown Error): CUDA fails"
        " with error 802",
    ),
    "full": (
        "gpu-busy: warning: GPU 0 (Tesla T4): 360 MiB of 15 GiB are free, and who holds the rest cannot be"
        " seen from here",
    ),
    "functions-missing": (
        "driver-too-old: error: driver 418.226.00 speaks CUDA 10.1, and torch 2.8.0+cu126 is built for CUDA"
        " 12.6, which needs driver 525 or later",
    ),
    "hot": (
        "gpu-busy: warning: GPU 2 (NVIDIA A100-SXM4-80GB): 11.6 GiB of 80 GiB are free, held by process 4242"
        " (68.4 GiB)",
        "gpu-busy: warning: GPU 3 (NVIDIA A100-SXM4-80GB): 11.6 GiB of 80 GiB are free, held by process 4243"
        " (68.4 GiB)",
        "gpu-unhealthy: warning: GPU 2 (NVIDIA A100-SXM4-80GB) is slowed down now (sw-thermal, hw-thermal):"
        " it is too hot",
    ),
    "lost-gpu": (
        "gpu-unhealthy: error: GPU 5 does not answer: GPU is lost; the driver reported Xid 79 since the"
        " machine started: the GPU fell off the bus",
    ),
    "lost-while-asked": ("gpu-unhealthy: error: GPU 1 does not answer: GPU is lost",),
    "memory-errors": (
        "gpu-unhealthy: warning: GPU 3 (NVIDIA A100-SXM4-80GB): failed rows of its memory wait for a reset to"
        " be replaced, after 2 ECC errors that could not be corrected since the driver was loaded",
        "gpu-unhealthy: error: GPU 6 (NVIDIA A100-SXM4-80GB): a row of its memory failed, and there is no"
        " spare one left",
        "gpu-unhealthy: note: GPU 3: the driver reported Xid 63 since the machine started: a memory row or"
        " page was retired",
    ),
    "narrow-bus": (
        "gpu-degraded-link: warning: GPU 2 (NVIDIA A100-SXM4-80GB): its PCIe link has 4 of 16 lanes",
    ),
    "no-fabric-manager": (
        "fabric-manager-down: error: the NVLink fabric of GPU 0, 1, 2, 3, 4, 5, 6, 7 is not set up"
        " (in-progress): CUDA fails with error 802",
    ),
    "no-permission": (
        "device-nodes-missing: error: the device nodes are there, and the driver lets nobody through (NVML:"
        " Insufficient Permissions)",
    ),
    "nvlink-down": (
        "gpu-degraded-link: warning: GPU 4 (Tesla V100-SXM2-32GB): 5 of its NVLinks are up, and another Tesla"
        " V100-SXM2-32GB here has 6",
    ),
    "power-brake": tuple(
        f"gpu-unhealthy: warning: GPU {gpu} (NVIDIA H100 80GB HBM3) is slowed down now"
        " (hw-power-brake): the power supply asks for less"
        for gpu in range(8)
    ),
    "prohibited": (
        "gpu-busy: error: GPU 0 (Tesla V100-SXM2-32GB) is in compute mode prohibited: no process may use it",
    ),
    "reset-required": ("gpu-unhealthy: error: GPU 2 does not answer: GPU requires restart",),
    "retired-pages": (
        "gpu-unhealthy: error: GPU 1 (Tesla V100-SXM2-32GB): 1 ECC error that could not be corrected since"
        " the driver was loaded",
        "gpu-unhealthy: warning: GPU 1 (Tesla V100-SXM2-32GB): failed pages of its memory wait for a reset to"
        " be retired",
        "gpu-unhealthy: warning: GPU 1: the driver reported Xid 48 since the machine started: a double-bit"
        " ECC error",
    ),
    "some-forbidden": (),
    "version-mismatch": (
        "driver-library-mismatch: error: the driver's libraries do not fit its kernel module (NVML: RM has"
        " detected an NVML/RM version mismatch; the loaded kernel module is 535.161.08): no new process gets"
        " a GPU",
    ),
    "xid": (
        "gpu-unhealthy: note: GPU 0: the driver reported Xid 31 since the machine started: a program touched"
        " memory that it has not",
        "gpu-unhealthy: warning: GPU 5: the driver reported Xid 119 since the machine started: its system"
        " processor (GSP) did not answer",
    ),
}


@pytest.mark.parametrize("node", SAID)
def test_what_is_said_of_a_node(false_driver: Driver, node: str, patient: Callable[[str], str]) -> None:
    report = examined(false_driver, node, "--python", patient("2.8.0+cu126"))
    assert said(report) == list(SAID[node])
    assert {check["outcome"] for check in report["checks"]} <= {"pass", "findings", "skipped"}


def test_every_node_is_examined() -> None:
    assert sorted([*SAID, *HANGING, "switches-unmanaged"]) == NODES


def test_switches_without_a_fabric_manager(false_driver: Driver) -> None:
    """A100s do not tell of the fabric: the node's switches and processes do, which no container sees."""
    report = examined(false_driver, "switches-unmanaged")
    assert len(report["facts"]["nvidia_module"]["value"]["nvswitches"]) == 6
    if report["facts"]["system"]["value"]["container"]:
        assert check_of(report, "fabric-manager-down")["outcome"] == "skipped"
    else:
        (finding,) = check_of(report, "fabric-manager-down")["findings"]
        assert finding["message"].startswith("this node has 6 NVSwitches, and nv-fabricmanager does not run")


def test_gpus_before_ampere_have_no_bfloat16_and_before_turing_no_int8(
    false_driver: Driver, patient: Callable[[str], str]
) -> None:
    python = patient("2.8.0+cu126")
    found = {}
    for node in ("v100", "t4", "a100"):
        report = examined(false_driver, node, "--python", python)
        found[node] = [
            f"{finding['severity']}: {finding['message']}"
            for name in ("bf16-unsupported", "int8-product-broken")
            for finding in check_of(report, name)["findings"]
        ]
    assert found == {
        "v100": [
            "note: 8 x Tesla V100-SXM2-32GB (compute capability 7.0): no native bfloat16",
            "note: 8 x Tesla V100-SXM2-32GB (compute capability 7.0): no int8 tensor cores, so LLM.int8()"
            " saves memory and costs time",
        ],
        "t4": ["note: Tesla T4 (compute capability 7.5): no native bfloat16"],
        "a100": [],
    }


@pytest.mark.parametrize(
    ("node", "torch", "messages"),
    [
        # Minor versions of CUDA do not count, major ones do; CUDA 13 has dropped what is older than Turing.
        ("h100", "2.9.0+cu128", []),
        (
            "h200",
            "2.11.0+cu130",
            [
                "driver-too-old: error: driver 570.158.01 speaks CUDA 12.8, and torch 2.11.0+cu130 is built"
                " for CUDA 13.0, which needs driver 580 or later"
            ],
        ),
        ("t4", "2.11.0+cu130", []),
        (
            "v100",
            "2.11.0+cu130",
            [
                "driver-too-old: error: driver 535.183.01 speaks CUDA 12.2, and torch 2.11.0+cu130 is built"
                " for CUDA 13.0, which needs driver 580 or later",
                "gpu-arch-not-in-wheel: error: 8 x Tesla V100-SXM2-32GB (sm_70): torch 2.11.0+cu130 is built"
                " for CUDA 13.0, which has no code for GPUs before sm_75",
            ],
        ),
        (
            "t4",
            "2.8.0+cpu",
            [
                "torch-cpu-build-on-gpu-node: error: torch 2.8.0+cpu is a CPU build on a node with 1 NVIDIA"
                " GPU (Tesla T4): it cannot use them"
            ],
        ),
    ],
)
def test_torch_is_held_against_the_driver_and_the_gpus(
    false_driver: Driver, patient: Callable[[str], str], node: str, torch: str, messages: list[str]
) -> None:
    assert said(examined(false_driver, node, "--python", patient(torch))) == messages


@pytest.mark.parametrize(
    ("node", "visible", "messages"),
    [
        ("h100", "3,1", []),
        (
            "h100",
            "0,9",
            [
                "visible-devices-wrong: warning: CUDA_VISIBLE_DEVICES=0,9: '9' is no device (this node has"
                " GPUs 0 to 7), so CUDA sees only GPU 0"
            ],
        ),
        ("some-forbidden", "0,1,2,3,4,5", []),
        (
            "some-forbidden",
            "6,7",
            [
                "visible-devices-wrong: error: CUDA_VISIBLE_DEVICES=6,7: '6' is no device (this node has"
                " GPUs 0 to 5), so CUDA sees no GPU"
            ],
        ),
        ("mig", "MIG-6c9d7c3e-2b0a-5f4e-9d1c-0a8b7c6d5e41", []),
        (
            "mig",
            "MIG-00000000-2b0a-5f4e-9d1c-0a8b7c6d5e41",
            [
                "visible-devices-wrong: error: CUDA_VISIBLE_DEVICES=MIG-00000000-2b0a-5f4e-9d1c-0a8b7c6d5e41:"
                " 'MIG-00000000-2b0a-5f4e-9d1c-0a8b7c6d5e41' is no device (no MIG device has this UUID), so"
                " CUDA sees no GPU"
            ],
        ),
    ],
)
def test_the_visible_devices_are_held_against_those_of_the_node(
    false_driver: Driver, node: str, visible: str, messages: list[str]
) -> None:
    environment = {**false_driver.play(node), "CUDA_VISIBLE_DEVICES": visible}
    arguments = ("run", "--no-probes", "--no-redact", "--format", "json", "--only", "visible-devices-wrong")
    assert said(report_of(run_doctor(*arguments, env=environment))) == messages


def test_two_packages_that_bring_the_same_module(
    false_driver: Driver, make_patient: Callable[..., Path]
) -> None:
    """The old package pynvml is a folder, and wins over NVIDIA's one file."""
    python = make_patient(
        modules={
            "pynvml/__init__.py": "",
            "pynvml.py": "",
            "pynvml-11.5.3.dist-info/RECORD": "pynvml/__init__.py,,\n",
            "pynvml-11.5.3.dist-info/METADATA": "Metadata-Version: 2.1\nName: pynvml\nVersion: 11.5.3\n",
            "nvidia_ml_py-13.580.65.dist-info/RECORD": "pynvml.py,,\n",
            "nvidia_ml_py-13.580.65.dist-info/METADATA": (
                "Metadata-Version: 2.1\nName: nvidia-ml-py\nVersion: 13.580.65\n"
            ),
        }
    )
    (finding,) = check_of(examined(false_driver, "t4", "--python", str(python)), "nvml-package-conflict")[
        "findings"
    ]
    assert (finding["severity"], finding["message"]) == (
        "warning",
        "pynvml 11.5.3 and nvidia-ml-py 13.580.65 both bring the module pynvml, and an import takes that of"
        " pynvml 11.5.3",
    )


def test_buckets_are_held_against_the_memory_that_is_free(false_driver: Driver, stack_site: str) -> None:
    arguments = ("run", "--format", "json", "--only", "zero-bucket-oom")
    environment = {"CUDA_VISIBLE_DEVICES": None, **false_driver.play("full", memory_mib=900, used_mib=0)}
    report = report_of(run_doctor(*arguments, env=environment))
    if "deepspeed" not in report["facts"]["packages"]["value"]["installed"]:
        pytest.skip("deepspeed is not installed")
    (finding, *_) = check_of(report, "zero-bucket-oom")["findings"]
    assert (finding["severity"], finding["confidence"]) == ("warning", "certain")
    assert finding["message"].startswith("GPU 0 (Tesla T4) has room for 900 MiB: DeepSpeed")
    told = check_of(examined(false_driver, "full"), "zero-bucket-oom")
    assert (told["outcome"], told["reason"]) == ("skipped", "DeepSpeed was not asked for its defaults")
