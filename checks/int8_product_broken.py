"""bitsandbytes is installed and imports, and cannot multiply in int8 here, or only slowly."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec
from packaging.version import Version

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    cannot_tell,
    case_of,
    healthy,
    proven,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import (
    Arm,
    BitsAndBytesBuild,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Packages,
    ProofStatus,
    Subject,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.models import loads_in_8_bits

TRIAL = Trial(name="int8-product-broken", imports=("torch", "bitsandbytes"), on_gpu=True)
INT8_TENSOR_CORES, OLDEST = (7, 5), (6, 0)
"""Compute capabilities: native int8 (bitsandbytes/cuda_specs.py, has_imma, in 0.50), and anything at all."""


class Int8ProductBroken(Check):
    """bitsandbytes is installed and imports, and cannot multiply in int8 here, or only slowly.

    ## What it finds

    Whether one product of bitsandbytes' 8-bit linear layer is right on this device; a bitsandbytes without a
    native library for the CUDA version that torch was built for; and GPUs without int8 tensor cores
    (compute capability below 7.5), on which LLM.int8() is slow.

    ## Why it breaks

    bitsandbytes catches what goes wrong when it loads its native library and imports all the same. The first
    product, minutes into the job, is what fails: no library for this CUDA, no kernel for this GPU.

    ## How it is proven

    One `Linear8bitLt` is quantised and multiplies; it passes only when its weight is int8 and the product
    agrees with float32. The fixed arm is an ordinary linear layer on the same device. Slowness is told by the
    GPU's compute capability alone.

    ## Fix

    Install a bitsandbytes that has a library for torch's CUDA version, or load without quantisation.
    `python -m bitsandbytes` tells which one it looks for.

    ## References

    - https://huggingface.co/docs/bitsandbytes/installation (which GPUs, which CUDA versions)
    - https://github.com/bitsandbytes-foundation/bitsandbytes/blob/main/bitsandbytes/cextension.py
    """

    name = "int8-product-broken"
    topic = "quantized-loading"
    severity = "warning"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://huggingface.co/docs/bitsandbytes/installation"
    symptoms = (
        Symptom(
            pattern=r"cublasLt ran into an error",
            example="Exception: cublasLt ran into an error!",
            counter_example="cublasLt is used for this product",
        ),
        Symptom(
            pattern=r"Error (named symbol not found|no kernel image is available).* at line \d+ in file",
            example="Error named symbol not found at line 479 in file /src/csrc/ops.cu",
            counter_example="CUDA error: no kernel image is available for execution on the device",
        ),
        Symptom(
            pattern=r"CUDA Setup failed despite (GPU|CUDA) being available",
            example="RuntimeError: CUDA Setup failed despite GPU being available. Please run",
            counter_example="CUDA SETUP: Loading binary libbitsandbytes_cuda117.so",
        ),
        Symptom(
            pattern=r"Attempted to use bitsandbytes native library functionality but it's not available",
            example="Attempted to use bitsandbytes native library functionality but it's not available.",
            counter_example="bitsandbytes native library loaded",
        ),
        Symptom(
            pattern=r"Configured CUDA binary not found at|not available in CPU-only version of bitsandbytes",
            example="Configured CUDA binary not found at libbitsandbytes_cuda129.so",
            counter_example="CUDA binary found at libbitsandbytes_cuda126.so",
        ),
        Symptom(
            pattern=r"'NoneType' object has no attribute 'c\w+'|libbitsandbytes_\w+\.so: undefined symbol",
            example="AttributeError: 'NoneType' object has no attribute 'cget_managed_ptr'",
            counter_example="AttributeError: 'NoneType' object has no attribute 'shape'",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What the shipped libraries and the GPUs' capabilities tell, and the trial."""
        if case.workload is not None and not loads_in_8_bits(case.workload):
            raise CannotTell("nothing in the workload loads a model in 8 bits")
        yield stack_risk(case, TRIAL, "an int8 product through bitsandbytes", "torch", "bitsandbytes")
        gpus = case.known(Gpus)
        if gpus is None or not gpus.gpus:
            return
        yield from _library_missing(case.known(BitsAndBytesBuild), case.known(TorchBuild))
        for (name, (major, minor)), numbers in gpus.below(INT8_TENSOR_CORES).items():
            what = name if len(numbers) == 1 else f"{len(numbers)} x {name}"
            too_old = (major, minor) < OLDEST
            means = "no int8 tensor cores, so LLM.int8() saves memory and costs time"
            if too_old:
                means = "older than any GPU that bitsandbytes supports (6.0)"
            yield Suspicion(
                Finding(
                    severity="warning" if too_old else "note",
                    confidence="certain",
                    message=f"{what} (compute capability {major}.{minor}): {means}",
                    subject=Subject(kind="gpu", gpu=numbers[0]),
                    evidence={"compute_capability": f"{major}.{minor}", "gpus": numbers},
                )
            )

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """A warning where the product fails and an ordinary layer does not."""
        for result, case in reproduced(results):
            error = str(case.broken.error if case.broken else "").partition("\n")[0]
            yield msgspec.structs.replace(
                proven(finding, result, case),
                severity="warning",
                message=f"bitsandbytes cannot multiply in int8 on {result.device}: {error}",
                subject=Subject(kind="package", package="bitsandbytes"),
                fixes=(
                    Fix(
                        title="load without quantisation",
                        kind="edit",
                        applicability="manual",
                        preview="AutoModelForCausalLM.from_pretrained(name, torch_dtype=torch.float16)",
                        verified=True,  # the fixed arm: an ordinary layer on this device
                    ),
                ),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _library_missing(built: BitsAndBytesBuild | None, torch: TorchBuild | None) -> Iterator[Suspicion]:
    """bitsandbytes takes a library of the same major version where the exact one is missing, no other."""
    if built is None or torch is None or torch.cuda is None or not built.cuda:
        return
    if Version(torch.cuda).major in {Version(cuda).major for cuda in built.cuda}:
        return
    yield Suspicion(
        Finding(
            severity="warning",
            confidence="certain",
            message=f"bitsandbytes {built.version} has no library for CUDA {torch.cuda}, which torch"
            f" {torch.version} is built for: it has {built.cuda[0]} to {built.cuda[-1]}",
            subject=Subject(kind="package", package="bitsandbytes"),
            evidence={"libraries": list(built.cuda), "torch_cuda": torch.cuda},
            fixes=(
                Fix(
                    title="install a release that has one",
                    kind="command",
                    applicability="manual",
                    preview="python -m pip install --upgrade bitsandbytes",
                ),
            ),
        )
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0", "bitsandbytes": "0.45.0"}, modules={})
    ships = BitsAndBytesBuild(version="0.45.0", cuda=("11.8", "12.4", "12.6"), cpu=True)
    for_12 = TorchBuild(version="2.6.0+cu124", cuda="12.4", kind="cuda")
    for_13 = TorchBuild(version="2.9.0+cu130", cuda="13.0", kind="cuda")

    def node(name: str, capability: tuple[int, int]) -> Gpus:
        return Gpus(driver="580.65", gpus=(Gpu(index=0, name=name, compute_capability=capability),))

    def tried(status: ProofStatus, error: str | None = None, reason: str | None = None) -> TrialResult:
        case = TrialCase(
            combination={"inputs": "float16"},
            status=status,
            broken=Arm(outcome="raised", error=error) if error else Arm(outcome="passed"),
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(
            name=TRIAL.name, device="cuda:0", status=status, seconds=0.2, cases=(case,), reason=reason
        )

    yield healthy(
        "an A100 and the right library",
        case_of(stack, ships, for_12, node("NVIDIA A100-SXM4-80GB", (8, 0))),
        tried("refuted"),
    )
    yield sick(
        "a library without a kernel for this GPU",
        case_of(stack, ships, for_12, node("NVIDIA A100-SXM4-80GB", (8, 0))),
        "warning: bitsandbytes cannot multiply in int8 on cuda:0: Exception: cublasLt ran into an error!",
        trials=(tried("reproduced", "Exception: cublasLt ran into an error!"),),
    )
    yield sick(
        "no library for torch's CUDA, on a V100",
        case_of(stack, ships, for_13, node("Tesla V100-SXM2-32GB", (7, 0))),
        "warning: bitsandbytes 0.45.0 has no library for CUDA 13.0, which torch 2.9.0+cu130 is built for:"
        " it has 11.8 to 12.6",
        "note: Tesla V100-SXM2-32GB (compute capability 7.0): no int8 tensor cores, so LLM.int8() saves"
        " memory and costs time",
        trials=(tried("inconclusive", "RuntimeError: no kernel image"),),
    )
    yield sick(
        "a GPU before Pascal",
        case_of(stack, ships, for_12, node("Tesla K80", (3, 7))),
        "warning: Tesla K80 (compute capability 3.7): older than any GPU that bitsandbytes supports (6.0)",
        trials=(tried("inconclusive", "RuntimeError: no kernel image"),),
    )
    needs_gpu = "it failed in another way: RuntimeError: Found no NVIDIA driver on your system"
    yield cannot_tell(
        "a CPU, and a bitsandbytes that needs a GPU",
        case_of(stack),
        f"inconclusive: {needs_gpu}",
        tried("inconclusive", "RuntimeError: Found no NVIDIA driver on your system", needs_gpu),
    )
    without = Packages(installed={"torch": "2.0"}, modules={})
    yield cannot_tell("no bitsandbytes", case_of(without), "bitsandbytes is not installed")
