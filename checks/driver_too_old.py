"""The NVIDIA driver is too old for the CUDA that torch or the container was built with."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Sequence

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
from llm_doctor.checks.gpu_arch_not_in_wheel import LAUNCH, by_launch, cuda_gpus
from llm_doctor.fixes import environment, packages
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interpreter,
    NvidiaModule,
    ProofStatus,
    Subject,
    TorchBuild,
    TrialCase,
    TrialResult,
)

# The first driver of each CUDA version, and from 11 on of each major one (minor-version compatibility).
# https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
# https://docs.nvidia.com/cuda/cuda-toolkit-release-notes/ (table of drivers)
_FIRST_DRIVER: dict[tuple[int, ...], tuple[int, ...]] = {
    (13,): (580,),
    (12,): (525,),
    (11,): (450,),
    (10, 2): (440, 33),
    (10, 1): (418, 39),
    (10, 0): (410, 48),
    (9, 2): (396, 26),
    (9, 1): (390, 46),
    (9, 0): (384, 81),
}


class DriverTooOld(Check):
    """The NVIDIA driver is too old for the CUDA that torch or the container was built with.

    ## What it finds

    The CUDA version that torch was built for, held against what the driver speaks: NVIDIA's rule of
    minor-version compatibility, by whole numbers. In a log: torch, the CUDA runtime, NVIDIA's container
    runtime and NCCL that say the driver is older than what they were built for; and PTX that the driver
    cannot compile.

    ## Why it breaks

    A driver runs programs built for its own CUDA version and for earlier ones; within one major version
    also for later ones, if they bring machine code for the GPU. CUDA 13 needs driver 580, CUDA 12 needs
    525, CUDA 11 needs 450. torch then sees no GPU at all. So "CUDA Version: 12.2" in nvidia-smi is no fault
    beside a torch for CUDA 12.8; it is one beside a torch for CUDA 13.0.

    ## How it is proven

    What the driver speaks is asked of the libcuda that a program would load here: one of NVIDIA's forward
    compatibility packages counts, where the loader finds it. Where the rule says that the driver is too old,
    a kernel of torch is launched on every idle GPU; a launch that works withdraws the finding.

    ## Fix

    Update the driver, or install the torch built for an earlier CUDA: the number in the message is the
    driver's (12020 is CUDA 12.2).

    ## References

    - https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    - https://docs.nvidia.com/deploy/cuda-compatibility/forward-compatibility.html
    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    """

    name = "driver-too-old"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (TorchBuild, Gpus)
    trials = (LAUNCH,)
    url = "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
    symptoms = (
        Symptom(
            pattern=r"NVIDIA driver on your system is too old \(found version "
            r"(?P<found>\d{4,6})\)",
            example="RuntimeError: The NVIDIA driver on your system is too old (found version "
            "11040). Please update your GPU driver",
            counter_example="Found no NVIDIA driver on your system.",
            cause="The driver is too old for this torch: it speaks CUDA {found} (thousands are "
            "the major version, tens the minor), torch was built for a later one",
        ),
        Symptom(
            pattern=r"NVIDIA driver on your system is too old",
            example="The NVIDIA driver on your system is too old",
            counter_example="Found no NVIDIA driver on your system.",
            cause="The driver is too old for the CUDA that this torch was built with",
        ),
        Symptom(
            pattern=r"CUDA driver version is insufficient for CUDA runtime version",
            example="RuntimeError: cuda runtime error (35) : CUDA driver version is insufficient "
            "for CUDA runtime version at /pytorch/aten/src/THC/THCGeneral.cpp:50",
            counter_example="CUDA Driver Version / Runtime Version          12.2 / 12.1",
            cause="The driver is older than the CUDA runtime that the program brings, or the "
            "program sees no driver at all",
        ),
        Symptom(
            pattern=r"unsatisfied condition: (?P<wanted>(?:cuda|driver|"
            r"brand)\s?[<>=]{1,2}\s?[\w.]{1,20})",
            example="nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5, "
            "please update your driver to a newer version, or use an earlier cuda "
            "container: unknown.",
            counter_example="unsatisfied constraint: libssl",
            cause="The image needs {wanted}, and the driver of this host is older",
            fixes=(
                remedy("update the host's driver"),
                remedy("use an image with an earlier CUDA"),
                remedy(
                    "start it all the same, where the minor version alone differs",
                    "docker run -e NVIDIA_DISABLE_REQUIRE=1 ...",
                ),
            ),
        ),
        Symptom(
            pattern=r"provided PTX was compiled with an unsupported toolchain",
            example="RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
            counter_example="ptxas info    : Compiling entry function",
            cause="A kernel came as PTX of a CUDA later than the driver's, which cannot compile it",
        ),
        Symptom(
            pattern=r"API call is not supported in the installed CUDA driver",
            example="RuntimeError: CUDA error: API call is not supported in the installed CUDA driver",
            counter_example="CUDA error: operation not supported",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION|cudaErrorUnsupportedPtxVersion|"
            r"cudaErrorInsufficientDriver|cudaErrorCallRequiresNewerDriver",
            example="CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an "
            "unsupported toolchain",
            counter_example="CUDA_ERROR_INVALID_PTX",
        ),
        Symptom(
            pattern=r"undefined symbol: (?P<symbol>cu(?:MemCreate|MulticastCreate|LaunchKernelEx|"
            r"GetProcAddress_v2|TensorMapEncodeTiled|MulticastAddDevice|"
            r"GetProcAddress))\b",
            example="libcudart: undefined symbol: cuGetProcAddress_v2",
            counter_example="undefined symbol: _ZN3c104cuda9SetDeviceEi",
            cause="The driver's library has no {symbol}: it is older than what the program was built for",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "install the torch built for a CUDA that the driver speaks (`nvidia-smi` says which)",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "update the driver: CUDA 13 needs 580 or later, CUDA 12 needs 525 or later",
            "sudo apt-get install nvidia-driver-580-server && sudo reboot",
        ),
        remedy(
            "on data-center GPUs, add NVIDIA's forward compatibility libraries (package "
            "cuda-compat-12-8 and its like)"
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """By the rule; a launch is there to contradict it."""
        gpus, torch = cuda_gpus(case), case.fact(TorchBuild)
        wanted = _numbers(torch.cuda)
        if not wanted:
            raise CannotTell(f"torch's CUDA version is {torch.cuda}, which is no version")
        enough = _enough(wanted, gpus)
        if enough is None:
            raise CannotTell(
                f"which driver CUDA {torch.cuda} needs is not known here, nor what this one speaks"
            )
        if enough:
            return
        first = _FIRST_DRIVER.get(wanted[:1]) or _FIRST_DRIVER.get(wanted[:2])
        needs = f" needs driver {'.'.join(map(str, first))} or later" if first else " is a later one"
        speaks = f"driver {gpus.driver} speaks CUDA {gpus.driver_cuda}" if gpus.driver_cuda else gpus.driver
        finding = Finding(
            severity="error",
            confidence="certain",
            message=f"{speaks}, and torch {torch.version} is built for CUDA {torch.cuda}, which{needs}",
            subject=Subject(kind="driver"),
            evidence={"driver": gpus.driver, "driver_cuda": gpus.driver_cuda, "torch_cuda": torch.cuda},
            fixes=tuple(_fixes(case, gpus, torch, first)),
        )
        yield Suspicion(finding, (TrialRequest(LAUNCH),))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """The rule stands unless a kernel ran."""
        return by_launch(type(self), finding, results)

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """That it goes by a forward compatibility library, where it does."""
        gpus, wanted = case.fact(Gpus), _numbers(case.fact(TorchBuild).cuda)
        first = _FIRST_DRIVER.get(wanted[:1])
        if first and _numbers(gpus.driver) and _numbers(gpus.driver) < first:
            return (
                f"driver {gpus.driver} speaks CUDA {gpus.driver_cuda} through a forward compatibility library"
            )
        return None

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _enough(wanted: tuple[int, ...], gpus: Gpus) -> bool | None:
    """Whether the driver runs programs of this CUDA version; None where that is not known."""
    speaks = _numbers(gpus.driver_cuda)
    if speaks:
        # Before CUDA 11 there was no minor-version compatibility.
        return speaks[:1] >= wanted[:1] if wanted[0] >= 11 else speaks[:2] >= wanted[:2]
    first = _FIRST_DRIVER.get(wanted[:1]) or _FIRST_DRIVER.get(wanted[:2])
    driver = _numbers(gpus.driver)
    return driver >= first if first and driver else None


def _fixes(case: Case, gpus: Gpus, torch: TorchBuild, first: tuple[int, ...] | None) -> Iterator[Fix]:
    python = case.known(Interpreter)
    if python is not None and gpus.driver_cuda is not None:
        capabilities = [gpu.compute_capability for gpu in gpus.gpus if gpu.compute_capability]
        line = packages.install_torch(
            packages.runs_on(gpus.driver_cuda, capabilities),
            python=python.executable,
            python_version=python.version,
            torch_version=torch.version,
        )
        if line is not None:
            yield line
    module = case.known(NvidiaModule)
    for library in module.compat_libraries if module is not None and first else ():
        if _numbers(library.partition(".so.")[2]) >= (first or ()):
            folder = library.rpartition("/")[0]
            yield environment.export(
                "load the forward compatibility library that is here (data-center GPUs alone)",
                {"LD_LIBRARY_PATH": folder},
                safe=False,
            )
            break
    if first:
        yield remedy(f"update the driver to {'.'.join(map(str, first))} or later")


def _numbers(text: str | None) -> tuple[int, ...]:
    """The whole numbers of a version, so that 12.10 is after 12.9; empty where it is none."""
    read = re.match(r"\d+(\.\d+)*", text or "")
    return tuple(map(int, read[0].split("."))) if read else ()


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(driver: str, cuda: str | None) -> Gpus:
        gpu = Gpu(index=0, name="NVIDIA A100-SXM4-80GB", compute_capability=(8, 0))
        return Gpus(driver=driver, driver_cuda=cuda, gpus=(gpu,))

    def torch(version: str, cuda: str | None) -> TorchBuild:
        return TorchBuild(version=version, cuda=cuda, kind="cuda" if cuda else "cpu")

    def launched(status: ProofStatus, error: str | None = None) -> TrialResult:
        arm = Arm(outcome="raised", error=error) if error else Arm(outcome="passed")
        shown = TrialCase(
            combination={"operation": "sum"}, status=status, broken=arm, fixed=Arm(outcome="passed")
        )
        return TrialResult(name=LAUNCH.name, device="cuda:0", status=status, seconds=0.1, cases=(shown,))

    for_13, for_12 = torch("2.11.0+cu130", "13.0"), torch("2.9.0+cu128", "12.8")
    speaks = "driver 535.183.01 speaks CUDA 12.2"
    too_old = f"{speaks}, and torch 2.11.0+cu130 is built for CUDA 13.0, which needs driver"
    says = (
        "RuntimeError: The NVIDIA driver on your system is too old (found version 12020). Please update your"
        " GPU driver"
    )
    yield healthy("another minor version", case_of(for_12, node("535.183.01", "12.2")))
    yield healthy("the forward compatibility library is loaded", case_of(for_13, node("535.183.01", "13.0")))
    yield healthy(
        "minor version 10 comes after 9", case_of(torch("1.12.1+cu102", "10.2"), node("455.23.05", "10.10"))
    )
    yield sick(
        "another major version",
        case_of(for_13, node("535.183.01", "12.2")),
        f"error: {too_old} 580 or later. On cuda:0: {says}",
        trials=(launched("reproduced", says),),
    )
    yield sick(
        "the rule says so, and a kernel runs all the same",
        case_of(for_13, node("535.183.01", "12.2")),
        f"note: {too_old} 580 or later; and yet a kernel ran on cuda:0",
        trials=(launched("refuted"),),
    )
    yield sick(
        "CUDA 10 goes by its minor version",
        case_of(torch("1.12.1+cu102", "10.2"), node("418.87.00", "10.1")),
        "error: driver 418.87.00 speaks CUDA 10.1, and torch 1.12.1+cu102 is built for CUDA 10.2, which needs"
        " driver 440.33 or later",
    )
    yield cannot_tell(
        "a CPU build",
        case_of(torch("2.13.0+cpu", None), node("535.183.01", "12.2")),
        "torch 2.13.0+cpu is built for the CPU",
    )
