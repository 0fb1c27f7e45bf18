"""The GPU's device nodes are not there or not permitted, though the driver is."""

from __future__ import annotations

import re
from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
    without,
)
from llm_doctor.checks.gpu_arch_not_in_wheel import LAUNCH, by_launch
from llm_doctor.model import (
    Environment,
    Finding,
    Fix,
    Gpu,
    Gpus,
    NvidiaModule,
    Severity,
    Subject,
    System,
    TorchBuild,
    TrialResult,
)


class DeviceNodesMissing(Check):
    """The GPU's device nodes are not there or not permitted, though the driver is.

    ## What it finds

    A kernel module that drives GPUs, and yet: a container without any of their device nodes; no
    /dev/nvidiactl, no /dev/nvidia0 and its like or no /dev/nvidia-uvm; nodes that this user may not open; an
    NVML that is not let through to them. In a log: the "CUDA unknown error" of torch and "Unknown Error" or
    "Insufficient Permissions" of NVML.

    ## Why it breaks

    CUDA opens /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm. The last is made when the module
    nvidia_uvm is loaded. In a container they vanish when systemd reloads its units and rewrites the
    device rules; after suspend the module is stale. Outside of containers the driver's own nvidia-modprobe
    makes what is missing when CUDA first starts: where that program is there, a missing node is a note.

    ## How it is proven

    By what is under /dev and what NVML answers; where it lists GPUs, a kernel of torch is launched on every
    idle one.

    ## Fix

    Load nvidia_uvm, or start the container anew with its devices.

    ## References

    - https://docs.nvidia.com/cuda/cuda-installation-guide-linux/#device-node-verification
    - https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/latest/docker-specialized.html
    - https://github.com/NVIDIA/nvidia-modprobe
    - https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    """

    name = "device-nodes-missing"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (NvidiaModule,)
    trials = (LAUNCH,)
    url = "https://github.com/NVIDIA/nvidia-container-toolkit/issues/48"
    symptoms = (
        Symptom(
            pattern=r"CUDA unknown error - this may be due to an incorrectly set up environment",
            example="RuntimeError: CUDA unknown error - this may be due to an incorrectly set up "
            "environment, e.g. changing env variable CUDA_VISIBLE_DEVICES after program "
            "start. Setting the available devices to be zero.",
            counter_example="RuntimeError: CUDA error: unknown error",
            cause="CUDA cannot be initialised (error 999): mostly /dev/nvidia-uvm is missing or "
            "its module is stale",
            sure="likely",
        ),
        Symptom(
            pattern=r"Failed to initialize NVML: (?P<why>Unknown Error|Insufficient Permissions|"
            r"GPU access blocked by the operating system)",
            example="Failed to initialize NVML: Unknown Error",
            counter_example="Failed to initialize NVML: Driver/library version mismatch",
            cause="The driver does not let this process see a GPU: {why}",
        ),
        Symptom(
            pattern=r"NVMLError_NoPermission: Insufficient Permissions",
            example="pynvml.NVMLError_NoPermission: Insufficient Permissions",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data'",
        ),
        Symptom(
            pattern=r"(?P<node>/dev/nvidia(?:\d{1,2}|ctl|-uvm|-uvm-tools|-modeset|"
            r"-caps/\S{1,20}))`?: (?:No such file or directory|no such file or directory|"
            r"Operation not permitted|Permission denied|Input/output error)",
            example="ls: cannot access '/dev/nvidia-uvm': No such file or directory",
            counter_example="crw-rw-rw- 1 root root 195, 0 /dev/nvidia0",
            cause="The device node {node} is missing or not permitted",
        ),
        Symptom(
            pattern=r"(?:No such file or directory|Permission denied|Operation not permitted): "
            r"`(?P<node>/dev/nvidia[\w/-]{1,30})",
            example="FileNotFoundError: [Errno 2] No such file or directory: '/dev/nvidiactl'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: '/dev/shm/x'",
            cause="The device node {node} is missing or not permitted",
        ),
        Symptom(
            pattern=r"CUDA error: OS call failed or operation not supported on this OS|"
            r"CUDA_ERROR_OPERATING_SYSTEM\b",
            example="RuntimeError: CUDA error: OS call failed or operation not supported on this OS",
            counter_example="CUDA error: operation not supported",
            cause="A call of the operating system failed for CUDA (error 304): mostly a device "
            "node that the container must not open",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA error: unknown error",
            example="RuntimeError: CUDA error: unknown error",
            counter_example="CUDA unknown error - this may be due",
            cause='CUDA says "unknown error" (999): the driver\'s modules are stale or the GPU is not well',
            standing="aftermath",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "load the module and make its node", "sudo modprobe nvidia_uvm && sudo nvidia-modprobe -u -c=0"
        ),
        remedy("after suspend: load it anew", "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"),
        remedy(
            "in a container: start it anew, with its devices named or through CDI",
            "docker run --gpus all --device /dev/nvidia0 --device /dev/nvidiactl --device "
            "/dev/nvidia-uvm ...",
        ),
        remedy(
            "and so that it does not come back",
            "sudo nvidia-ctk system create-dev-char-symlinks --create-all",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The nodes that CUDA opens, one after the other; then NVML's own refusal."""
        module = case.fact(NvidiaModule)
        if module.device_nodes is None:
            raise CannotTell("the device nodes were not looked at")
        if not module.gpus:
            raise CannotTell("NVIDIA's kernel module drives no GPU here")
        finding = _missing(case, module, module.device_nodes) or _refused(case, module.device_nodes)
        if finding is not None:
            gpus, torch = case.known(Gpus), case.known(TorchBuild)
            launch = gpus is not None and gpus.gpus and torch is not None and torch.kind == "cuda"
            yield Suspicion(finding, (TrialRequest(LAUNCH),) if launch else ())

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What is missing stands unless a kernel ran; a note becomes an error where none does."""
        for it in by_launch(type(self), finding, results):
            failed = it.proof is not None and it.proof.status == "reproduced"
            yield msgspec.structs.replace(it, severity="error") if failed else it

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _missing(case: Case, module: NvidiaModule, nodes: dict[str, bool]) -> Finding | None:
    system, variables = case.known(System), case.known(Environment)
    container = system.container if system is not None else None
    gpu_nodes = [node for node in nodes if re.fullmatch(r"/dev/nvidia\d+", node)]
    if container and not (gpu_nodes and "/dev/nvidiactl" in nodes):
        asked = variables.variables.get("NVIDIA_VISIBLE_DEVICES") if variables is not None else None
        return _finding(
            # Whoever writes `void` wants none; a job on the CPU may want none either.
            "note" if asked in ("void", "none") else "warning",
            f"the host has {_counted(module.gpus)} (driver {module.version}),"
            f" and none of them is passed into this container ({container})",
            nodes,
            _PASS_IN,
        )
    absent = [node for node in ("/dev/nvidiactl", "/dev/nvidia-uvm") if node not in nodes]
    absent += [] if gpu_nodes else ["/dev/nvidia0"]
    if not absent:
        return None
    what = f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing"
    if module.makes_nodes and not container:
        return _finding(
            "note", f"{what}: the driver's nvidia-modprobe makes it when CUDA first starts", nodes
        )
    if absent == ["/dev/nvidia-uvm"] and module.uvm_loaded is False:
        what += " (the module nvidia_uvm is not loaded)"
    return _finding("error", f"{what}: CUDA cannot start", nodes, _PASS_IN if container else _MAKE)


def _counted(gpus: tuple[str, ...]) -> str:
    return f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}"


def refuses(said: str) -> bool:
    """Whether these words of NVML say that the driver is there and lets nobody through."""
    return re.search("Unknown Error|Insufficient Permissions|GPU access blocked", said) is not None


def _refused(case: Case, nodes: dict[str, bool]) -> Finding | None:
    # A container may be given the node of one GPU of eight: that the others' are closed is no fault.
    closed = [node for node in ("/dev/nvidiactl", "/dev/nvidia-uvm") if nodes.get(node) is False]
    if closed:
        fix = remedy(
            "see who may open them: mostly a group that this user is not in", "ls -l /dev/nvidia*; id"
        )
        what = f"{' and '.join(closed)} may not be opened by this user"
        return _finding("error", f"{what}: CUDA cannot start", nodes, (fix,))
    said = case.facts.gpus.reason or ""
    if refuses(said):
        message = f"the device nodes are there, and the driver lets nobody through ({said})"
        return _finding("error", message, nodes, _PASS_IN)
    return None


def _finding(
    severity: Severity, message: str, nodes: dict[str, bool], fixes: tuple[Fix, ...] = ()
) -> Finding:
    return Finding(
        severity=severity,
        confidence="certain",
        message=message,
        subject=Subject(kind="driver"),
        evidence={"device_nodes": nodes},
        fixes=fixes,
    )


_MAKE = DeviceNodesMissing.remedies[:1]
_PASS_IN = DeviceNodesMissing.remedies[2:]


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    whole = {"/dev/nvidia0": True, "/dev/nvidiactl": True, "/dev/nvidia-uvm": True}
    a100 = "0000:3b:00.0 NVIDIA A100-SXM4-80GB"

    def module(nodes: dict[str, bool], makes: bool = False, loaded: bool = True) -> NvidiaModule:
        return NvidiaModule(
            version="580.65.06", gpus=(a100,), device_nodes=nodes, makes_nodes=makes, uvm_loaded=loaded
        )

    def system(container: str | None = None) -> System:
        return System(os="Ubuntu 24.04", kernel="6.8", machine="x86_64", container=container)

    def all_but(*names: str) -> dict[str, bool]:
        return {node: usable for node, usable in whole.items() if node.rpartition("/")[2] not in names}

    def refused(reason: str) -> Case:
        return without(Gpus, reason, case_of(module(whole), system("docker")))

    one = Gpus(driver="580.65.06", gpus=(Gpu(index=0, name="NVIDIA A100-SXM4-80GB"),))
    yield healthy("all of them", case_of(module(whole), system(), one))
    yield sick(
        "a container that was started without GPUs",
        case_of(module({}), system("docker")),
        "warning: the host has 1 GPU (driver 580.65.06), and none of them is passed into this container"
        " (docker)",
    )
    yield sick(
        "a container that wants none",
        case_of(module({}), system("docker"), Environment(variables={"NVIDIA_VISIBLE_DEVICES": "void"})),
        "note: the host has 1 GPU (driver 580.65.06), and none of them is passed into this container"
        " (docker)",
    )
    yield sick(
        "nvidia_uvm is not loaded",
        case_of(module(all_but("nvidia-uvm"), loaded=False), system(), one),
        "error: /dev/nvidia-uvm is missing (the module nvidia_uvm is not loaded): CUDA cannot start",
    )
    yield sick(
        "nobody has used CUDA since the machine started",
        case_of(module(all_but("nvidia-uvm"), makes=True, loaded=False), system(), one),
        "note: /dev/nvidia-uvm is missing: the driver's nvidia-modprobe makes it when CUDA first starts",
    )
    yield sick(
        "a user who is not in the group",
        case_of(module({**whole, "/dev/nvidiactl": False}), system()),
        "error: /dev/nvidiactl may not be opened by this user: CUDA cannot start",
    )
    yield sick(
        "systemd took the devices from a running container",
        refused("NVML: Unknown Error"),
        "error: the device nodes are there, and the driver lets nobody through (NVML: Unknown Error)",
    )
    yield cannot_tell(
        "a report of an earlier version",
        case_of(NvidiaModule(version="580.65.06", gpus=(a100,))),
        "the device nodes were not looked at",
    )
