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
    remedy,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import (
    Arm,
    BitsAndBytesBuild,
    Environment,
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
ANY_MINOR = (0, 50)
"""The bitsandbytes that takes a library for another minor release of CUDA where the exact one is missing,
never for another major one: https://github.com/bitsandbytes-foundation/bitsandbytes/pull/1980"""


class Int8ProductBroken(Check):
    """bitsandbytes is installed and imports, and cannot multiply in int8 here, or only slowly.

    ## What it finds

    Whether one product of bitsandbytes' 8-bit linear layer is right on this device; a bitsandbytes without a
    native library for the CUDA version that torch was built for, or without any; and GPUs without int8 tensor
    cores (compute capability below 7.5), on which LLM.int8() is slow.

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
            cause="bitsandbytes' int8 product failed in cuBLASLt: a GPU or CUDA library that cannot do it",
        ),
        Symptom(
            pattern=r"Error (?P<what>named symbol not found|no kernel image is available|invalid device "
            r"function|invalid argument|invalid configuration argument|an illegal memory access)[^\n]{0,80} "
            r"at line \d{1,5} in file",
            example="Error named symbol not found at line 479 in file /src/csrc/ops.cu",
            counter_example="CUDA error: no kernel image is available for execution on the device",
            cause="A kernel of bitsandbytes' native library failed on this GPU: {what}",
        ),
        Symptom(
            pattern=r"CUDA Setup failed despite (?:GPU|CUDA) being available",
            example="RuntimeError: CUDA Setup failed despite GPU being available. Please run",
            counter_example="CUDA SETUP: Loading binary libbitsandbytes_cuda117.so",
            cause="bitsandbytes could not load its CUDA library, though there is a GPU",
        ),
        Symptom(
            pattern=r"bitsandbytes native library functionality but it's not available",
            example="Attempted to use bitsandbytes native library functionality but it's not available.",
            counter_example="bitsandbytes native library loaded",
            cause="bitsandbytes could not load its native library",
        ),
        Symptom(
            pattern=r"Configured (?P<backend>CUDA|ROCm|XPU) binary not found at [^\n]{0,200}",
            example="RuntimeError: Configured CUDA binary not found at libbitsandbytes_cuda129.so",
            counter_example="CUDA binary found at libbitsandbytes_cuda126.so",
            cause="This bitsandbytes has no library for the {backend} version that torch was built for",
        ),
        Symptom(
            pattern=r"No compatible (?P<backend>CUDA|ROCm|XPU) binary found at",
            example="RuntimeError: No compatible CUDA binary found at /home/me/libbitsandbytes_cuda140.so",
            counter_example="No compatible GPU was found",
            cause="This bitsandbytes has no library for the {backend} version that torch was built for",
        ),
        Symptom(
            pattern=r"Could not find the bitsandbytes (?:CUDA|ROCm) binary at",
            example="Could not find the bitsandbytes CUDA binary at "
            "PosixPath('/home/me/env/bitsandbytes/libbitsandbytes_cuda124.so')",
            counter_example="found the bitsandbytes CUDA binary",
            cause="This bitsandbytes has no library for the CUDA version that torch was built for",
            standing="hint",
        ),
        Symptom(
            pattern=r"Requested CUDA version: (?P<asked>[\d.]{2,8}) Detected PyTorch CUDA version: "
            r"(?P<torch>[\d.]{2,8})",
            example="Requested CUDA version:          13.0\nDetected PyTorch CUDA version:   13.0",
            counter_example="Detected PyTorch CUDA version: 12.6",
            cause="This bitsandbytes has no library for CUDA {asked}",
        ),
        Symptom(
            pattern=r"SETUP ERROR: Missing dependency: (?P<library>[\w.+-]{3,60})",
            example="CUDA SETUP ERROR: Missing dependency: libcusparse.so.11",
            counter_example="CUDA SETUP: Loading binary libbitsandbytes_cuda117.so",
            cause="bitsandbytes' library needs {library}, which the loader does not find",
        ),
        Symptom(
            pattern=r"CUDA SETUP: (?:CUDA detection failed|Setup Failed!|Required library version not found)",
            example="CUDA SETUP: Required library version not found: libbitsandbytes_cuda118.so. Maybe you "
            "need to compile it from source?",
            counter_example="CUDA SETUP: Detected CUDA version 118",
            cause="bitsandbytes could not load a library for the CUDA version it found",
            standing="hint",
        ),
        Symptom(
            pattern=r"libbitsandbytes_(?:cuda\w{2,20}|rocm\w{2,6}|cpu)\.(?:so|dll): cannot open shared "
            r"object file",
            example="OSError: /home/me/env/bitsandbytes/libbitsandbytes_cpu.so: cannot open shared object "
            "file: No such file or directory",
            counter_example="bin /home/me/env/bitsandbytes/libbitsandbytes_cuda118.so",
            cause="bitsandbytes' native library is not there: built from source and never compiled, or no "
            "library for this CUDA version",
        ),
        Symptom(
            pattern=r"bitsandbytes library load error: (?P<why>[^\n]{3,200})",
            example="bitsandbytes library load error: Configured CUDA binary not found at libbits.so",
            counter_example="bitsandbytes library loaded",
            cause="bitsandbytes could not load its native library: {why}",
            standing="hint",
        ),
        Symptom(
            pattern=r"Method `c\w{3,60}` not available in CPU-only version of bitsandbytes",
            example="RuntimeError: Method 'cquantize_blockwise_fp16_nf4' not available in CPU-only version "
            "of bitsandbytes.",
            counter_example="This is the CPU-only version of torch",
            cause="The CPU-only library of bitsandbytes was loaded: torch sees no GPU, or no library fits",
        ),
        Symptom(
            pattern=r"`NoneType` object has no attribute `c(?:get_managed|get_col_row|get_context|quantize_|"
            r"dequantize_|igemm|extractOutliers|gemm_|gemv_|fill_|percentile_|transform_|double_rowcol|"
            r"spmm_|int8_|histogram_|prefetch)",
            example="AttributeError: 'NoneType' object has no attribute 'cget_managed_ptr'",
            counter_example="AttributeError: 'NoneType' object has no attribute 'config'",
            cause="bitsandbytes has no native library loaded, and its first kernel was called",
        ),
        Symptom(
            pattern=r"libbitsandbytes_\w{2,30}\.(?:so|dll): undefined symbol: (?!cadam)(?P<symbol>\w{3,80})",
            example="AttributeError: /env/bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: "
            "cget_col_row_stats",
            counter_example="/env/libbitsandbytes_cpu.so: undefined symbol: cadam32bit_grad_fp32",
            cause="The library of bitsandbytes that was loaded lacks {symbol}: the CPU-only one, or of "
            "another release",
        ),
        Symptom(
            pattern=r"cuda_setup/main\.py[^\n]{0,60} in (?:get_cuda_lib_handle|evaluate_cuda_setup|"
            r"get_compute_capabilities|run_cuda_setup)",
            example='File "/env/bitsandbytes/cuda_setup/main.py", line 120, in evaluate_cuda_setup',
            counter_example="/env/bitsandbytes/cuda_setup/main.py:149: UserWarning: found libcudart.so",
            cause="bitsandbytes failed while it looked for CUDA on this machine",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "install a current bitsandbytes: it ships a library for each CUDA version, Windows included",
            "pip install -U bitsandbytes",
        ),
        remedy("see which library it looks for and why it does not load", "python -m bitsandbytes"),
        remedy(
            "see whether torch is a CUDA build and sees the GPU; reinstall torch if not",
            'python -c "import torch; print(torch.version.cuda, torch.cuda.is_available())"',
        ),
        remedy(
            "use the library of a CUDA version that it does have, with that runtime on LD_LIBRARY_PATH",
            "BNB_CUDA_VERSION=126",
            "environment",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What the shipped libraries and the GPUs' capabilities tell, and the trial."""
        if case.workload is not None and not loads_in_8_bits(case.workload):
            raise CannotTell("nothing in the workload loads a model in 8 bits")
        yield stack_risk(case, TRIAL, "an int8 product through bitsandbytes", "torch", "bitsandbytes")
        gpus = case.known(Gpus)
        on_gpu = gpus is not None and bool(gpus.gpus)
        yield from _no_library(case.known(BitsAndBytesBuild), on_gpu)
        if gpus is None or not gpus.gpus:
            return
        yield from _library_missing(case)
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


def _no_library(built: BitsAndBytesBuild | None, on_gpu: bool) -> Iterator[Suspicion]:
    """Its import only logs an error then; on a CPU the rest, written in torch, works all the same."""
    if built is None or built.cuda or built.cpu or built.others:
        return
    yield Suspicion(
        Finding(
            severity="warning" if on_gpu else "note",
            confidence="certain",
            message=f"bitsandbytes {built.version} is installed without any native library: none of its"
            " kernels runs on a GPU",
            subject=Subject(kind="package", package="bitsandbytes"),
            fixes=(
                Fix(
                    title="install it anew; built from source it has to be compiled first",
                    kind="command",
                    applicability="manual",
                    preview="python -m pip install --force-reinstall --no-deps"
                    f" bitsandbytes=={built.version}",
                ),
            ),
        )
    )


def _library_missing(case: Case) -> Iterator[Suspicion]:
    built, torch, environment = case.known(BitsAndBytesBuild), case.known(TorchBuild), case.known(Environment)
    if built is None or torch is None or torch.cuda is None or not built.cuda:
        return
    if environment is not None and environment.variables.get("BNB_CUDA_VERSION"):
        return  # it names the library itself
    version, wanted, there = case.version("bitsandbytes"), Version(torch.cuda), [*map(Version, built.cuda)]
    takes_another_minor = version is None or version.release >= ANY_MINOR
    if wanted.release[:2] in {it.release[:2] for it in there}:
        return
    if takes_another_minor and wanted.major in {it.major for it in there}:
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
    for_12_8 = TorchBuild(version="2.7.0+cu128", cuda="12.8", kind="cuda")
    a100 = node("NVIDIA A100-SXM4-80GB", (8, 0))
    yield sick(
        "a library for another minor release of CUDA, and a bitsandbytes that wants the very one",
        case_of(stack, ships, for_12_8, a100),
        "warning: bitsandbytes 0.45.0 has no library for CUDA 12.8, which torch 2.7.0+cu128 is built for:"
        " it has 11.8 to 12.6",
        trials=(tried("inconclusive", "RuntimeError: CUDA Setup failed despite CUDA being available"),),
    )
    newer = Packages(installed={"torch": "2.7.0", "bitsandbytes": "0.50.0"}, modules={})
    yield healthy(
        "the same, and a bitsandbytes that takes it", case_of(newer, ships, for_12_8, a100), tried("refuted")
    )
    yield healthy(
        "the same, named by BNB_CUDA_VERSION",
        case_of(stack, ships, for_12_8, a100, Environment(variables={"BNB_CUDA_VERSION": "126"})),
        tried("refuted"),
    )
    yield sick(
        "built from source and never compiled",
        case_of(stack, BitsAndBytesBuild(version="0.45.0"), for_12, node("NVIDIA A100-SXM4-80GB", (8, 0))),
        "warning: bitsandbytes 0.45.0 is installed without any native library: none of its kernels runs on"
        " a GPU",
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
