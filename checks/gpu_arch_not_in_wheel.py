"""The installed torch, or another package, has no machine code for this GPU."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Sequence

import msgspec
from packaging.version import Version

from llm_doctor.check import (
    Asked,
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    proven,
    remedy,
    reproduced,
    sick,
    symptom_shown,
)
from llm_doctor.checks.visible_devices_wrong import job_gpus
from llm_doctor.fixes import packages
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interpreter,
    Proof,
    ProofStatus,
    Subject,
    TorchBuild,
    TrialCase,
    TrialResult,
)

ARCHITECTURES = Question(name="torch-architectures", imports=("torch",))
LAUNCH = Trial(name="gpu-kernel-launch", imports=("torch",), on_every_gpu=True, gpu_only=True)
"""Whether a kernel of torch runs on each idle GPU: several checks ask it and read their own symptoms."""


class GpuArchNotInWheel(Check):
    """The installed torch, or another package, has no machine code for this GPU.

    ## What it finds

    The list of architectures that the installed torch was compiled for, asked of torch itself, held against
    the compute capability of each GPU: no code at all, or only PTX, which a driver older than torch's CUDA
    cannot compile. In a log: torch's warning that the GPU is not among those it was built for, and the kernel
    image that is not available.

    ## Why it breaks

    A wheel holds machine code for a list of architectures. It runs on GPUs of the same major version and the
    same or a later minor one; PTX is compiled by the driver for every later GPU. A GPU newer than the list
    (Blackwell with CUDA 12.4 wheels) or dropped from it (Maxwell to Volta with CUDA 13 wheels) finds no
    kernel. torch only warns: the first kernel fails. Extensions have lists of their own: bitsandbytes,
    flash-attention, apex, vLLM.

    ## How it is proven

    On every idle GPU one of torch's kernels is launched and its result compared; the fixed arm does the same
    on the CPU.

    ## Fix

    Install a build whose list has the GPU's architecture, or compile the extension for it.

    ## References

    - torch/cuda/__init__.py of torch 2.13.0, `_check_cubins`, `_check_capability`, `DEVICE_REQUIREMENT`
    - https://docs.nvidia.com/cuda/cuda-c-programming-guide/#binary-compatibility
    - https://github.com/pytorch/pytorch/issues/167244
    - https://github.com/pytorch/pytorch/issues/149845
    """

    name = "gpu-arch-not-in-wheel"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (TorchBuild, Gpus)
    questions = (ARCHITECTURES,)
    trials = (LAUNCH,)
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py"
    symptoms = (
        Symptom(
            pattern=r"(?P<gpu>[\w()\x20/-]{3,60}) with CUDA capability sm_(?P<arch>\w{2,4}) is "
            r"not compatible with the current PyTorch",
            example="NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with "
            "the current PyTorch installation.",
            counter_example="The current PyTorch install supports CUDA capabilities sm_80 sm_90.",
            cause="This torch has no machine code for {gpu} (sm_{arch})",
        ),
        Symptom(
            pattern=r"PyTorch install supports CUDA capabilities (?P<archs>(?:sm|"
            r"compute)_[\w\x20]{2,80}\w)",
            example="The current PyTorch install supports CUDA capabilities sm_37 sm_50 sm_60 sm_70.",
            counter_example="torch.cuda.get_arch_list()",
            cause="This torch has machine code for {archs} alone, and the GPU is another",
        ),
        Symptom(
            pattern=r"no kernel image is available for execution on the device",
            example="RuntimeError: CUDA error: no kernel image is available for execution on the device",
            counter_example="device kernel image is valid",
            cause="A kernel has no machine code for this GPU: torch, or the extension that runs "
            "it, was not built for the architecture",
        ),
        Symptom(
            pattern=r"device kernel image is invalid",
            example="RuntimeError: Triton Error [CUDA]: device kernel image is invalid",
            counter_example="no kernel image is available for execution on the device",
            cause="A kernel was built for another GPU, or by a compiler that this driver is too old for",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP) error: invalid device function",
            example="RuntimeError: HIP error: invalid device function",
            counter_example="CUDA error: invalid device ordinal",
            cause="A kernel has no machine code for this GPU",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_NO_BINARY_FOR_GPU|cudaErrorNoKernelImageForDevice|"
            r"hipErrorNoBinaryForGpu|cudaErrorInvalidDeviceFunction",
            example="CUDA_ERROR_NO_BINARY_FOR_GPU",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"PyTorch no longer supports this GPU because it is too old",
            example="    PyTorch no longer supports this GPU because it is too old.",
            counter_example="Found GPU0 Tesla T4",
            cause="The GPU is too old for this torch, which has no code for it",
        ),
        Symptom(
            pattern=r"invalid value for --gpu-architecture",
            example="RuntimeError: nvrtc: error: invalid value for --gpu-architecture (-arch)",
            counter_example="nvrtc: compiled for sm_80",
            cause="torch's run-time compiler (nvrtc) is too old for this GPU",
        ),
        Symptom(
            pattern=r"which requires CUDA_VERSION >= (?P<least>\d{4,5})",
            example="    Found GPU0 NVIDIA A100 which requires CUDA_VERSION >= 11000 to\n     "
            "work properly, but your PyTorch was compiled",
            counter_example="CUDA_VERSION 12010",
            cause="The GPU needs a torch built for CUDA {least} (thousands are the major version) or later",
        ),
        Symptom(
            pattern=r"does not include kernels for this GPU|CUDA builds for release [\w.+]{3,30} "
            r"support this GPU",
            example="Your installed torch==2.11.0+cu130 does not include kernels for this GPU. "
            "Reinstall the same version against a CUDA build that does, e.g.:",
            counter_example="Your installed torch includes kernels",
            cause="This torch has no machine code for the GPU",
        ),
        Symptom(
            pattern=r"which is of (?:cuda capability|compute capability \(CC\)) "
            r"(?P<capability>\d+\.\d)\.",
            example="    Found GPU0 NVIDIA GB10 which is of cuda capability 12.1.",
            counter_example="compute capability 8.0",
            cause="The GPU (compute capability {capability}) is not among those that this torch "
            "was built for",
            standing="hint",
        ),
        Symptom(
            pattern=r"CUDA error: named symbol not found|Error named symbol not found at line|"
            r"CUDA_ERROR_NOT_FOUND: named symbol",
            example="RuntimeError: CUDA error: named symbol not found",
            counter_example="symbol not found in the table",
            cause="A kernel is not in the library that was loaded: it was built for other GPUs",
            sure="likely",
        ),
        Symptom(
            pattern=r"Cannot read supported gfx|hipErrorSharedObjectInitFailed|rocBLAS error: "
            r"Cannot read \S{1,200}TensileLibrary",
            example="rocBLAS error: Cannot read "
            "/opt/rocm/lib/rocblas/library/TensileLibrary.dat: Illegal seek for GPU arch "
            ": gfx1103",
            counter_example="rocBLAS version 4.0",
            cause="ROCm's libraries have no code for this GPU",
            fixes=(
                remedy(
                    "let the GPU pass for a sibling that ROCm knows",
                    "export HSA_OVERRIDE_GFX_VERSION=11.0.0",
                    "environment",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "Blackwell and newer: a torch built for CUDA 12.8 or later",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128",
        ),
        remedy(
            "Maxwell, Pascal and Volta: a torch built for CUDA 12.6, which still has them",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "see what torch has code for, and which the GPU is",
            'python -c "import torch; print(torch.cuda.get_arch_list(), torch.cuda.get_device_capability())"',
        ),
        remedy(
            "an extension (flash-attention, bitsandbytes, apex, vLLM): a release that knows the "
            "GPU, or compile it here",
            "TORCH_CUDA_ARCH_LIST=12.0 pip install --no-build-isolation --no-binary :all: "
            "--force-reinstall NAME",
            "command",
        ),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """Nothing where no GPU is: importing torch takes seconds."""
        gpus = case.known(Gpus)
        return map(Asked, self.questions if gpus is not None and gpus.gpus else ())

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """By the list of architectures, each model of GPU apart; then what a launch on every GPU shows."""
        torch, gpus = case.fact(TorchBuild), cuda_gpus(case)
        said = case.answer(ARCHITECTURES).get("architectures")
        listed = [str(it) for it in said] if isinstance(said, list) and said else None
        trial = (TrialRequest(LAUNCH),)
        mine, judged = job_gpus(case), []
        for (name, capability), numbers in _models(gpus).items():
            lacks = _lacks(capability, listed, torch, gpus)
            if lacks is None:
                continue
            judged += numbers
            what = name if len(numbers) == 1 else f"{len(numbers)} x {name}"
            finding = Finding(
                severity="error" if mine & set(numbers) else "note",
                confidence="certain",
                message=f"{what} (sm_{capability[0]}{capability[1]}): torch {torch.version} {lacks}",
                subject=Subject(kind="gpu", gpu=numbers[0]),
                evidence={"gpus": numbers, "architectures": listed, "torch_cuda": torch.cuda},
                fixes=tuple(_install(case, capability)),
            )
            yield Suspicion(finding, trial)
        rest = Finding(
            severity="note",
            confidence="likely",
            message="a kernel of torch does not run",
            subject=Subject(kind="device"),
            evidence={"besides": judged, "architectures": listed},
        )
        yield Suspicion(rest, trial)

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What the list says stands unless a kernel ran; of the other GPUs what a launch showed."""
        judged = finding.evidence.get("gpus")
        if judged is not None:
            return by_launch(type(self), finding, tuple(it for it in results if _is_of(it, judged)))
        besides = finding.evidence["besides"]
        return _failures(finding, tuple(it for it in results if not _is_of(it, besides)))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def cuda_gpus(case: Case) -> Gpus:
    """The GPUs of a node whose torch can use them. Raises CannotTell where there are none or it cannot."""
    torch, gpus = case.fact(TorchBuild), case.fact(Gpus)
    if not gpus.gpus:
        raise CannotTell("there is no NVIDIA GPU here")
    if torch.kind != "cuda":
        raise CannotTell(
            f"torch {torch.version} is built for {'the CPU' if torch.kind == 'cpu' else torch.kind}"
        )
    return gpus


def by_launch(check: type[Check], finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
    """What a finding about GPUs is worth after a kernel was launched on them: proven where the launch failed
    with the check's own symptom, a note where it ran on all that were tried, else it stands."""
    for result, case in reproduced(results):
        error = _error(case)
        if symptom_shown(check, error):
            yield msgspec.structs.replace(
                proven(finding, result, case), message=f"{finding.message}. {_where(result)}: {_line(error)}"
            )
            return
    tried = [it for it in results if it.cases and it.status != "not-run"]
    if tried and all(it.status == "refuted" for it in tried):
        ran = ", ".join(it.device for it in tried)
        proof = Proof(trial=LAUNCH.name, status="refuted", case=tried[0].cases[0])
        yield msgspec.structs.replace(
            finding,
            severity="note",
            confidence="proven",
            message=f"{finding.message}; and yet a kernel ran on {ran}",
            proof=proof,
            fixes=(),
        )
        return
    if not tried:
        yield finding
        return
    # A launch that failed with another check's symptom proves nothing here.
    status: ProofStatus = "inconclusive" if tried[0].status == "reproduced" else tried[0].status
    proof = Proof(trial=LAUNCH.name, status=status, case=tried[0].cases[0])
    yield msgspec.structs.replace(finding, proof=proof)


def _failures(finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
    for result, case in reproduced(results):
        error = _error(case)
        # Another check's symptom is that check's to speak of.
        number = result.device.partition(":")[2]
        wrong = case.broken is not None and case.broken.outcome == "failed"
        own = wrong or symptom_shown(GpuArchNotInWheel, error)
        yield msgspec.structs.replace(
            proven(finding, result, case),
            severity="error" if own else "note",
            message=f"{finding.message}. {_where(result)}: {_line(error)}",
            subject=Subject(kind="gpu", gpu=int(number) if number else None),
        )


def _is_of(result: TrialResult, gpus: Sequence[int]) -> bool:
    # Where CUDA did not even start, the result is that of the lane and names no GPU.
    return bool(gpus) and result.device in ("cpu", *(f"cuda:{gpu}" for gpu in gpus))


def _where(result: TrialResult) -> str:
    return f"On {result.device}" if result.device != "cpu" else "Tried"


def _error(case: TrialCase) -> str:
    return str(case.broken.error or "") if case.broken is not None else ""


def _line(error: str) -> str:
    return error.strip().partition("\n")[0]


def _models(gpus: Gpus) -> dict[tuple[str, tuple[int, int]], list[int]]:
    found: dict[tuple[str, tuple[int, int]], list[int]] = {}
    for gpu in gpus.gpus:
        if gpu.compute_capability is not None:
            found.setdefault((str(gpu.name), gpu.compute_capability), []).append(gpu.index)
    return found


# Chips of Jetson boards run no code of their siblings', nor these the Jetsons' (DEVICE_REQUIREMENT of torch
# 2.13.0).
_ALONE = ((5, 3), (6, 2), (7, 2), (8, 7), (10, 1))


def runs_on(architecture: str, capability: tuple[int, int]) -> bool | None:
    """Whether code of torch's list runs on a GPU: `sm_80` on 8.0 and 8.6, `sm_90a` on 9.0 alone, `sm_100f`
    on its family, `compute_70` (PTX) on all from 7.0 on. None for what is no architecture."""
    read = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
    if read is None:
        return None
    built = (int(read[2]), int(read[3]))
    if read[4] == "a" or (read[1] == "sm" and (built in _ALONE or capability in _ALONE)):
        return built == capability
    if read[1] == "compute" and not read[4]:
        return built <= capability
    return built[0] == capability[0] and built[1] <= capability[1]


def _lacks(
    capability: tuple[int, int], listed: Sequence[str] | None, torch: TorchBuild, gpus: Gpus
) -> str | None:
    """What is missing for this capability, as the end of a sentence; None where nothing is, or unknown."""
    cuda = _version(torch.cuda)
    if listed is None:
        # The one thing that is known without asking: CUDA 13 compiles for nothing before 7.5.
        gone = cuda is not None and cuda.major >= 13 and capability < (7, 5)
        return f"is built for CUDA {torch.cuda}, which has no code for GPUs before sm_75" if gone else None
    verdicts = {it: runs_on(it, capability) for it in listed}
    fitting = [it for it, runs in verdicts.items() if runs]
    if any(it.startswith("sm_") for it in fitting) or None in verdicts.values():
        return None
    if not fitting:
        return f"has machine code for {', '.join(listed)} alone"
    driver = _version(gpus.driver_cuda)
    if driver is not None and cuda is not None and driver < cuda:
        return (
            f"has only PTX for it ({fitting[0]}), of CUDA {torch.cuda}, which the driver (CUDA"
            f" {gpus.driver_cuda}) is too old to compile"
        )
    return None


def _install(case: Case, capability: tuple[int, int]) -> Iterator[Fix]:
    python, torch, gpus = case.known(Interpreter), case.fact(TorchBuild), case.fact(Gpus)
    if python is None or gpus.driver_cuda is None:
        return
    runs = packages.runs_on(
        gpus.driver_cuda, [it.compute_capability for it in gpus.gpus if it.compute_capability]
    )
    line = packages.install_torch(
        # CUDA 12.8 is the first that compiles for Blackwell.
        lambda cuda: runs(cuda) and (capability < (10, 0) or cuda >= Version("12.8")),
        python=python.executable,
        python_version=python.version,
        torch_version=torch.version,
    )
    if line is not None:
        yield line


def _version(text: str | None) -> Version | None:
    try:
        return Version(text) if text else None
    except ValueError:  # InvalidVersion, or more digits than Python reads
        return None


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(name: str, capability: tuple[int, int], cuda: str = "13.0") -> Gpus:
        return Gpus(
            driver="580.65.06",
            driver_cuda=cuda,
            gpus=(Gpu(index=0, name=name, compute_capability=capability),),
        )

    def torch(version: str, cuda: str | None) -> TorchBuild:
        return TorchBuild(version=version, cuda=cuda, kind="cuda" if cuda else "cpu")

    def case(build: TorchBuild, gpus: Gpus, architectures: str) -> Case:
        return case_of(build, gpus, torch_architectures={"architectures": architectures.split()})

    def launched(status: ProofStatus, error: str | None = None, device: str = "cuda:0") -> TrialResult:
        arm = Arm(outcome="raised", error=error) if error else Arm(outcome="passed")
        shown = TrialCase(
            combination={"operation": "sum"}, status=status, broken=arm, fixed=Arm(outcome="passed")
        )
        return TrialResult(name=LAUNCH.name, device=device, status=status, seconds=0.1, cases=(shown,))

    for_130 = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"
    no_image = "RuntimeError: CUDA error: no kernel image is available for execution on the device"
    v100 = node("Tesla V100-SXM2-32GB", (7, 0))
    yield healthy(
        "an L40S and code for sm_86, which it runs",
        case(torch("2.13.0+cu130", "13.0"), node("NVIDIA L40S", (8, 9)), for_130),
        launched("refuted"),
    )
    yield sick(
        "a V100 and a wheel for CUDA 13",
        case(torch("2.13.0+cu130", "13.0"), v100, for_130),
        "error: Tesla V100-SXM2-32GB (sm_70): torch 2.13.0+cu130 has machine code for sm_75, sm_80, sm_86,"
        f" sm_90, sm_100, sm_120 alone. On cuda:0: {no_image}",
        trials=(launched("reproduced", no_image),),
    )
    yield sick(
        "the same where torch was not asked",
        case_of(torch("2.13.0+cu130", "13.0"), v100),
        "error: Tesla V100-SXM2-32GB (sm_70): torch 2.13.0+cu130 is built for CUDA 13.0, which has no code"
        " for GPUs before sm_75",
    )
    yield sick(
        "Blackwell, and a list that ends at Hopper",
        case(torch("2.5.1+cu124", "12.4"), node("NVIDIA B200", (10, 0)), "sm_50 sm_60 sm_70 sm_80 sm_90"),
        "error: NVIDIA B200 (sm_100): torch 2.5.1+cu124 has machine code for sm_50, sm_60, sm_70, sm_80,"
        " sm_90 alone",
    )
    yield sick(
        "PTX alone, and a driver that is older than it",
        case(torch("2.5.1+cu124", "12.4"), node("Tesla T4", (7, 5), "12.2"), "sm_60 compute_70"),
        "error: Tesla T4 (sm_75): torch 2.5.1+cu124 has only PTX for it (compute_70), of CUDA 12.4, which the"
        " driver (CUDA 12.2) is too old to compile",
    )
    yield sick(
        "the list has it, and yet no kernel runs",
        case(torch("2.13.0+cu130", "13.0"), node("NVIDIA A100", (8, 0)), for_130),
        f"error: a kernel of torch does not run. On cuda:0: {no_image}",
        trials=(launched("reproduced", no_image),),
    )
    yield sick(
        "the list lacks it, and yet a kernel runs",
        case(torch("2.14.0+cu132", "13.2"), node("NVIDIA X", (13, 0)), "sm_90 sm_120"),
        "note: NVIDIA X (sm_130): torch 2.14.0+cu132 has machine code for sm_90, sm_120 alone; and yet a"
        " kernel ran on cuda:0",
        trials=(launched("refuted"),),
    )
    yield cannot_tell(
        "a CPU build",
        case_of(torch("2.13.0+cpu", None), v100),
        "torch 2.13.0+cpu is built for the CPU",
    )
    yield cannot_tell(
        "no GPU",
        case_of(torch("2.13.0+cu130", "13.0"), Gpus(driver="580.65.06")),
        "there is no NVIDIA GPU here",
    )
