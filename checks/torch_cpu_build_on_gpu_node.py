"""The installed torch is a build without CUDA."""

from __future__ import annotations

from typing import Iterable, Iterator

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
from llm_doctor.fixes import packages
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interpreter,
    Subject,
    TorchBuild,
    TrialCase,
    TrialResult,
)


class TorchCpuBuildOnGpuNode(Check):
    """The installed torch is a build without CUDA.

    ## What it finds

    A torch built for the CPU, for ROCm or for XPU, on a node with NVIDIA GPUs. In a log: torch that was not
    compiled with CUDA, wherever it is found out.

    ## Why it breaks

    pip on Windows and macOS, conda's solver without the right channel, an index for CPU wheels and
    Python releases too new for a CUDA wheel all yield a torch that knows no GPU. A requirement of
    another package may replace the right one.

    ## How it is proven

    torch/version.py says what it was built for. The trial launches a kernel on an idle GPU; the fixed arm
    does the same on the CPU.

    ## Fix

    Install the build for the driver's CUDA, and look at what replaced it.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py (`_lazy_init`)
    - https://github.com/X-PLUG/MobileAgent/issues/60
    """

    name = "torch-cpu-build-on-gpu-node"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (TorchBuild, Gpus)
    trials = (LAUNCH,)
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py"
    symptoms = (
        Symptom(
            pattern=r"Torch not compiled with CUDA enabled",
            example="AssertionError: Torch not compiled with CUDA enabled",
            counter_example="torch compiled with CUDA 12.1",
        ),
        Symptom(
            pattern=r"PyTorch was compiled without CUDA support|PyTorch is not linked with "
            r"support for cuda devices|Cannot initialize CUDA without ATen_cuda library|"
            r"torch was not compiled with CUDA support",
            example="RuntimeError: PyTorch is not linked with support for cuda devices",
            counter_example="PyTorch was compiled with CUDA 12.1",
        ),
        Symptom(
            pattern=r"Torch not compiled with (?P<what>ROCm|XPU|MPS) enabled",
            example="AssertionError: Torch not compiled with XPU enabled",
            counter_example="Torch not compiled with CUDA enabled",
            cause="The installed torch is a build without {what}",
        ),
        Symptom(
            pattern=r"Tried to instantiate dummy base class (?P<what>\w{3,40})",
            example="RuntimeError: Tried to instantiate dummy base class Stream",
            counter_example="Tried to instantiate the class Model",
            cause="The installed torch is a build without CUDA: it has no {what}",
        ),
        Symptom(
            pattern=r"libcudart functions unavailable",
            example="AssertionError: libcudart functions unavailable. It looks like you have a broken build?",
            counter_example="libcudart.so.12 found",
        ),
        Symptom(
            pattern=r"backend `CUDA`(?: backend)?\.? This could be because|with arguments from "
            r"the `CUDA` backend",
            example="NotImplementedError: Could not run 'aten::empty.memory_format' with "
            "arguments from the 'CUDA' backend. This could be because the operator "
            "doesn't exist for this backend",
            counter_example="Could not run 'aten::foo' with arguments from the 'QuantizedCPU' backend",
            cause="An operator has no CUDA version here: torch, or a package of it, is a build without CUDA",
            sure="likely",
        ),
        Symptom(
            pattern=r"Not compiled with (?:GPU|CUDA) support",
            example="RuntimeError: Not compiled with GPU support",
            counter_example="Compiled with GPU support",
            cause="An extension was built without CUDA: build it again where torch sees a GPU, "
            "or with FORCE_CUDA=1",
            fixes=(
                remedy(
                    "build it again, for CUDA",
                    "FORCE_CUDA=1 pip install --no-build-isolation --force-reinstall .",
                    "command",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "see what is installed", 'python -c "import torch; print(torch.__version__, torch.version.cuda)"'
        ),
        remedy(
            "install the build for the driver's CUDA",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy("on macOS there is no CUDA: use the device mps", 'device = "mps"', "edit"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """By the build; a launch is there to prove it."""
        torch, gpus = case.fact(TorchBuild), case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        if torch.kind == "cuda":
            return
        names = ", ".join(sorted({gpu.name or "a GPU that does not answer" for gpu in gpus.gpus}))
        built = "a CPU build" if torch.kind == "cpu" else f"built for {_NAMES[torch.kind]}"
        count = f"{len(gpus.gpus)} NVIDIA GPU{'s' if len(gpus.gpus) > 1 else ''}"
        finding = Finding(
            severity="error",
            confidence="certain",
            message=f"torch {torch.version} is {built} on a node with {count} ({names}): it cannot use them",
            subject=Subject(kind="package", package="torch"),
            evidence={"driver": gpus.driver, "driver_cuda": gpus.driver_cuda},
            fixes=tuple(_install(case, gpus, torch)),
        )
        yield Suspicion(finding, (TrialRequest(LAUNCH),))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """The build stands unless a kernel ran."""
        return by_launch(type(self), finding, results)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


_NAMES = {"rocm": "AMD's ROCm", "xpu": "Intel's XPU"}


def _install(case: Case, gpus: Gpus, torch: TorchBuild) -> Iterator[Fix]:
    python = case.known(Interpreter)
    if python is None or gpus.driver_cuda is None:
        return
    capabilities = [gpu.compute_capability for gpu in gpus.gpus if gpu.compute_capability]
    line = packages.install_torch(
        packages.runs_on(gpus.driver_cuda, capabilities),
        python=python.executable,
        python_version=python.version,
        torch_version=torch.version,
    )
    if line is not None:
        yield line


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    node = Gpus(driver="580.95.05", driver_cuda="13.0", gpus=(Gpu(index=0, name="NVIDIA H200"),))
    cpu = TorchBuild(version="2.13.0+cpu", cuda=None, kind="cpu")
    says = "AssertionError: Torch not compiled with CUDA enabled"
    shown = TrialCase(
        combination={"operation": "sum"},
        status="reproduced",
        broken=Arm(outcome="raised", error=says),
        fixed=Arm(outcome="passed"),
    )
    launched = TrialResult(
        name=LAUNCH.name, device="cuda:0", status="reproduced", seconds=0.1, cases=(shown,)
    )
    found = "torch 2.13.0+cpu is a CPU build on a node with 1 NVIDIA GPU (NVIDIA H200): it cannot use them"
    yield healthy(
        "a build for CUDA", case_of(TorchBuild(version="2.13.0+cu130", cuda="13.0", kind="cuda"), node)
    )
    yield sick("a CPU build", case_of(cpu, node), f"error: {found}. On cuda:0: {says}", trials=(launched,))
    yield sick("a CPU build, and no trial was run", case_of(cpu, node), f"error: {found}")
    yield sick(
        "a build for AMD",
        case_of(TorchBuild(version="2.9.0+rocm6.4", cuda=None, kind="rocm"), node),
        "error: torch 2.9.0+rocm6.4 is built for AMD's ROCm on a node with 1 NVIDIA GPU (NVIDIA H200): it"
        " cannot use them",
    )
    yield cannot_tell("no GPU", case_of(cpu, Gpus(driver="580.95.05")), "there is no NVIDIA GPU here")
