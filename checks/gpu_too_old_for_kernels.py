"""The GPU is too old for the kernels that are asked for."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GpuTooOldForKernels(Check):
    """The GPU is too old for the kernels that are asked for.

    ## What it finds

    In a log: Triton, vLLM, SGLang and others that name the compute capability they need, and Triton's
    compiler that breaks on a GPU before Ampere.

    ## Why it breaks

    Triton compiles for compute capability 7.0 and later, and some of its conversions for 8.0 and later;
    fp8 needs 8.9, vLLM 7.0 or 7.5.

    ## How it is proven

    By the log alone.

    ## Fix

    Run without that kernel, or on a newer GPU.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_dynamo/exc.py (`GPUTooOldForTriton`)
    - https://github.com/vllm-project/vllm/issues/13202
    - https://github.com/vllm-project/vllm/issues/4500
    """

    name = "gpu-too-old-for-kernels"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_dynamo/exc.py"
    symptoms = (
        Symptom(
            pattern=r"Found (?P<gpu>[^\n]{3,60}) which is too old to be supported by the triton "
            r"GPU compiler",
            example="RuntimeError: Found Tesla P100-PCIE-16GB which is too old to be supported "
            "by the triton GPU compiler, which is used as the backend. Triton only "
            "supports devices of CUDA Capability >= 7.0",
            counter_example="Cannot find a working triton installation.",
            cause="The {gpu} is too old for Triton, which torch.compile uses",
        ),
        Symptom(
            pattern=r"type fp8e4nv not supported in this architecture",
            example='ValueError("type fp8e4nv not supported in this architecture. The supported '
            "fp8 dtypes are ('fp8e4b15', 'fp8e5')\")",
            counter_example="fp8 dtype: float8_e4m3fn",
            cause="The GPU has no fp8 (e4m3): it takes compute capability 8.9 or later",
        ),
        Symptom(
            pattern=r"GPUs with (?:compute )?capability (?:<|less than|below|lower than) "
            r"?(?P<least>\d\.\d) (?:are|is) not supported|requires (?:a )?GPU with "
            r"compute capability (?:>=|at least|of at least) ?(?P<least2>\d\.\d)",
            example="RuntimeError: GPUs with compute capability less than 7.0 are not supported.",
            counter_example="compute capability 7.0",
            cause="The GPU's compute capability is less than what is needed",
        ),
        Symptom(
            pattern=r"requires \.target sm_(?P<least>[567]\d) or higher",
            example="ptxas error   : Feature 'f16 arithemetic and compare instructions' requires "
            ".target sm_53 or higher",
            counter_example="Feature '.bf16' requires .target sm_80 or higher",
            cause="A kernel takes sm_{least} or later, and is compiled for an older GPU",
        ),
        Symptom(
            pattern=r"SGLang only supports (?P<least>sm\d{2}) and above",
            example="RuntimeError: SGLang only supports sm75 and above.",
            counter_example="SGLang supports CUDA",
            cause="The GPU is older than {least}, the oldest that SGLang runs on",
        ),
        Symptom(
            pattern=r"torch\._scaled_mm is only supported on (?:CUDA )?devices with compute "
            r"capability",
            example="RuntimeError: torch._scaled_mm is only supported on CUDA devices with "
            "compute capability >= 9.0 or 8.9, or ROCm MI300+",
            counter_example="torch._scaled_mm was called",
            cause="The GPU has no fp8 products: they take compute capability 8.9 or later",
        ),
        Symptom(
            pattern=r"Unsupported rounding mode for conversion|mma -> mma layout conversion is "
            r"only supported on Ampere|Unsupported conversion from `?f16",
            example="LLVM ERROR: Unsupported rounding mode for conversion.",
            counter_example="rounding mode: nearest",
            cause="Triton's compiler cannot do this conversion on a GPU before Ampere",
            sure="likely",
        ),
        Symptom(
            pattern=r"insufficient for FP8 mixed precision training",
            example="ValueError: The current device has compute capability of 8.0 which is "
            "insufficient for FP8 mixed precision training (requires a GPU Hopper/Ada "
            "Lovelace or higher, compute capability of 8.9 or higher).",
            counter_example="FP8 mixed precision training",
            cause="The GPU has no fp8: it takes compute capability 8.9 or later",
        ),
        Symptom(
            pattern=r"FlashAttention(?:-3)? only supports Hopper GPUs or newer",
            example="RuntimeError: FlashAttention only supports Hopper GPUs or newer.",
            counter_example="FlashAttention only supports Ampere GPUs or newer.",
            cause="FlashAttention-3 takes a Hopper GPU (H100) or newer",
            fixes=(
                remedy("use FlashAttention-2 or torch's own attention", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
    )
    remedies = (
        remedy("torch.compile: run without it", "TORCHDYNAMO_DISABLE=1", "environment"),
        remedy(
            "vLLM: without compiled kernels, with another attention",
            "vllm serve MODEL --enforce-eager --dtype half",
        ),
        remedy("fp8: a checkpoint in float16, bfloat16 or int8 instead"),
        remedy("use a newer GPU"),
    )
