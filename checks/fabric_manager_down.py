"""The GPUs hang on NVSwitch and the fabric manager does not run, so CUDA cannot start."""

from __future__ import annotations

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
)
from llm_doctor.checks.gpu_arch_not_in_wheel import LAUNCH, by_launch
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Gpu,
    Gpus,
    NvidiaModule,
    ProofStatus,
    Severity,
    Subject,
    System,
    TorchBuild,
    TrialCase,
    TrialResult,
)

_START = remedy("start the service, now and at boot", "sudo systemctl enable --now nvidia-fabricmanager")
_ON_THE_HOST = remedy(
    "in a virtual machine the service runs on the host: pass the GPUs on with their NVSwitches, or one GPU"
    " without NVLink"
)


class FabricManagerDown(Check):
    """The GPUs hang on NVSwitch and the fabric manager does not run, so CUDA cannot start.

    ## What it finds

    NVSwitches that the kernel module drives, and no process nv-fabricmanager; GPUs (from the H100 on) whose
    fabric is not set up, as NVML tells. In a log: CUDA error 802, "system not yet initialized", and what the
    fabric manager says itself.

    ## Why it breaks

    On HGX and DGX machines the service nvidia-fabricmanager programs the NVSwitches at start. Until
    then nvidia-smi works and every CUDA call fails. It starts only when its version is exactly the
    driver's. In a virtual machine that was given one GPU of eight it runs on the host.

    ## How it is proven

    By the process list and NVML's state of the fabric. Where either says that it is down, or where neither
    can be seen, as from within a container, a kernel of torch is launched on every idle GPU.

    ## Fix

    Start the service; install the package whose version equals the driver's. From a container this is to be
    done on the host.

    ## References

    - https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html
    - https://docs.nvidia.com/deploy/nvml-api/structnvmlGpuFabricInfo__t.html
    - https://github.com/pytorch/pytorch/issues/35710
    - https://github.com/hiyouga/LlamaFactory/issues/7888
    - https://ai-infrastructure.net/fabric-manager/
    """

    name = "fabric-manager-down"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (NvidiaModule, Gpus)
    trials = (LAUNCH,)
    url = "https://docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/index.html"
    symptoms = (
        Symptom(
            pattern=r"[Ss]ystem not yet initialized",
            example="RuntimeError: cuda runtime error (802) : system not yet initialized",
            counter_example="Default process group has not been initialized",
            cause='CUDA says "system not yet initialized" (802): the NVSwitches are not set up, '
            "nvidia-fabricmanager does not run",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_SYSTEM_NOT_READY|cudaErrorSystemNotReady",
            example="CUDA_ERROR_SYSTEM_NOT_READY",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"fabric manager NVIDIA GPU driver interface version "
            r"(?P<manager>[\d.]{5,20}) don't match with driver version "
            r"(?P<driver>[\d.]*\d)",
            example="fabric manager NVIDIA GPU driver interface version 535.104.05 don't match "
            "with driver version 535.129.03. Please update with matching NVIDIA driver "
            "package.",
            counter_example="Fabric Manager version is 535.129.03",
            cause="The fabric manager is {manager} and the driver {driver}: they have to be of one version",
        ),
        Symptom(
            pattern=r"[Nn]vidia-fabricmanager\.service: (?:Failed with result|Control process "
            r"exited)",
            example="nvidia-fabricmanager.service: Failed with result 'exit-code'.",
            counter_example="Started nvidia-fabricmanager.service",
            cause="The service nvidia-fabricmanager failed",
        ),
    )
    remedies = (
        _START,
        remedy(
            "where it refuses, install the one whose version equals the driver's",
            'v=$(cat /sys/module/nvidia/version); sudo apt-get install "nvidia-fabricmanager-${v%%.*}=$v-*"',
        ),
        _ON_THE_HOST,
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The fabric's own state first; then whether the service runs, where processes can be seen."""
        module, gpus = case.fact(NvidiaModule), case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        down = [gpu for gpu in gpus.gpus if _is_down(gpu)]
        if down:
            state = down[0].fabric_status if down[0].fabric_state == "completed" else down[0].fabric_state
            numbers = ", ".join(str(gpu.index) for gpu in down)
            yield _suspicion(case, module, f"the NVLink fabric of GPU {numbers} is not set up ({state})")
            return
        if not module.nvswitches or all(gpu.fabric_state == "completed" for gpu in gpus.gpus):
            return
        system = case.known(System)
        switches = f"{len(module.nvswitches)} NVSwitch{'es' if len(module.nvswitches) > 1 else ''}"
        contained = system is not None and system.container
        if module.fabric_manager is False and not contained:
            yield _suspicion(case, module, f"this node has {switches}, and nv-fabricmanager does not run")
        elif not module.fabric_manager:
            if not _can_launch(case):
                where = f"from this container ({contained})" if contained else "by this user"
                raise CannotTell(
                    f"this node has {switches}; whether nv-fabricmanager runs cannot be seen {where}"
                )
            yield _suspicion(case, module, f"{switches}, and CUDA does not start", "note")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What was read stands unless a kernel ran; what could not be seen is told by a launch alone."""
        if finding.severity != "note":
            return by_launch(type(self), finding, results)
        return [
            msgspec.structs.replace(it, severity="error")
            for it in by_launch(type(self), finding, results)
            if it.proof is not None and it.proof.status == "reproduced"
        ]

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _is_down(gpu: Gpu) -> bool:
    if gpu.fabric_state == "completed":
        return gpu.fabric_status not in (None, "success")
    return gpu.fabric_state in ("not-started", "in-progress")


def _can_launch(case: Case) -> bool:
    torch = case.known(TorchBuild)
    return torch is not None and torch.kind == "cuda"


def _suspicion(case: Case, module: NvidiaModule, message: str, severity: Severity = "error") -> Suspicion:
    finding = Finding(
        severity=severity,
        confidence="certain",
        message=message if severity == "note" else f"{message}: CUDA fails with error 802",
        subject=Subject(kind="driver"),
        evidence={"nvswitches": list(module.nvswitches), "fabric_manager": module.fabric_manager},
        fixes=_fixes(case, module.version),
    )
    return Suspicion(finding, (TrialRequest(LAUNCH),) if _can_launch(case) else ())


def _fixes(case: Case, driver: str) -> tuple[Fix, ...]:
    """`-*` fits the revisions of NVIDIA's packages (580.65.06-1) and Ubuntu's (580.65.06-0ubuntu0.24.04.1):
    to apt a version that ends in `*` is the beginning of one (apt-pkg/versionmatch.cc)."""
    branch = driver.partition(".")[0]
    fixes: tuple[Fix, ...] = (
        _START,
        remedy(
            f"where it refuses, install the one whose version equals the driver's ({driver})",
            f"sudo apt-get install 'nvidia-fabricmanager-{branch}={driver}-*'",
        ),
    )
    system = case.known(System)
    if system is not None and system.container:
        fixes = tuple(msgspec.structs.replace(fix, title=f"on the host: {fix.title}") for fix in fixes)
    return (*fixes, _ON_THE_HOST)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(switches: int, running: bool | None = None) -> NvidiaModule:
        addresses = tuple(f"0000:c{n}:00.0" for n in range(switches))
        return NvidiaModule(version="580.65.06", nvswitches=addresses, fabric_manager=running)

    def gpus(state: str | None = None, status: str | None = None) -> Gpus:
        both = [
            Gpu(index=n, name="NVIDIA H100 80GB HBM3", fabric_state=state, fabric_status=status)
            for n in range(2)
        ]
        return Gpus(driver="580.65.06", gpus=tuple(both))

    def launched(status: ProofStatus, error: str | None = None) -> TrialResult:
        arm = Arm(outcome="raised", error=error) if error else Arm(outcome="passed")
        shown = TrialCase(
            combination={"operation": "sum"}, status=status, broken=arm, fixed=Arm(outcome="passed")
        )
        return TrialResult(name=LAUNCH.name, device="cuda:0", status=status, seconds=0.1, cases=(shown,))

    torch = TorchBuild(version="2.13.0+cu130", cuda="13.0", kind="cuda")
    inside = System(os="Ubuntu 24.04", kernel="6.8", machine="x86_64", container="docker")
    not_ready = "RuntimeError: CUDA error: system not yet initialized"
    yield healthy("no NVSwitch", case_of(node(0, False), gpus()))
    yield healthy("the service runs", case_of(node(4, True), gpus()))
    yield healthy("the fabric is set up", case_of(node(4, False), gpus("completed", "success"), inside))
    yield healthy(
        "in a container, where CUDA starts",
        case_of(node(4, False), gpus(), inside, torch),
        launched("refuted"),
    )
    yield sick(
        "the service does not run",
        case_of(node(6, False), gpus()),
        "error: this node has 6 NVSwitches, and nv-fabricmanager does not run: CUDA fails with error 802",
    )
    yield sick(
        "the fabric waits for it",
        case_of(node(0), gpus("in-progress"), torch),
        "error: the NVLink fabric of GPU 0, 1 is not set up (in-progress): CUDA fails with error 802. On"
        f" cuda:0: {not_ready}",
        trials=(launched("reproduced", not_ready),),
    )
    yield sick(
        "in a container, where CUDA does not start",
        case_of(node(4, False), gpus(), inside, torch),
        f"error: 4 NVSwitches, and CUDA does not start. On cuda:0: {not_ready}",
        trials=(launched("reproduced", not_ready),),
    )
    yield cannot_tell(
        "in a container, and nothing to try it with",
        case_of(node(4, False), gpus(), inside),
        "this node has 4 NVSwitches; whether nv-fabricmanager runs cannot be seen from this container"
        " (docker)",
    )
