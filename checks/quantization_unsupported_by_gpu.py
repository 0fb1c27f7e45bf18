"""The GPU is too old for this quantisation: its compute capability is below what the kernels need."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class QuantizationUnsupportedByGpu(Check):
    """The GPU is too old for this quantisation: its compute capability is below what the kernels need.

    ## What it finds

    In a log: refusals of FP8, MXFP4, AWQ and Marlin for GPUs below the compute capability that their
    kernels are written for.

    ## Why it breaks

    FP8 products need compute capability 8.9 (Ada, Hopper), MXFP4 7.5, AWQ 7.5 or 8.0, Marlin 8.0. A V100
    has 7.0, a T4 7.5, an A100 8.0.

    ## How it is proven

    By the log alone.

    ## Fix

    Use a method that the GPU can do - bitsandbytes 4 bits runs from 6.0 on - or a newer GPU.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.57.3/src/transformers/quantizers/quantizer_finegrained_fp8.py
    - https://docs.vllm.ai/en/latest/features/quantization/supported_hardware.html
    - https://huggingface.co/docs/bitsandbytes/installation
    """

    name = "quantization-unsupported-by-gpu"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.57.3/src/transformers/quantizers/quantizer_finegrained_fp8.py"
    symptoms = (
        Symptom(
            pattern=r"(?P<method>FP8|MXFP4) quantiz(?:ed models|ation) is only supported on GPUs with "
            r"compute capability >= (?P<needs>[\d.]{3,5}) ?\(e\.g [^\n]{0,60}\)(?!, actual)",
            example="ValueError: MXFP4 quantization is only supported on GPUs with compute capability >= "
            "7.5 (e.g T4, A100, L4, H100, or B200)",
            counter_example="FP8 quantization is supported on GPUs",
            cause="{method} needs a GPU of compute capability {needs}",
        ),
        Symptom(
            pattern=r"supported on GPUs with compute capability >= (?P<needs>[\d.]{3,5}) \(e\.g "
            r"[^\n]{0,60}\), actual = `?(?P<actual>[\d.]{3,5})",
            example="ValueError: FP8 quantized models is only supported on GPUs with compute capability >= "
            "8.9 (e.g 4090/H100), actual = `8.0`",
            counter_example="supported on GPUs",
            cause="FP8 needs a GPU of compute capability {needs}, and this one has {actual}",
        ),
        Symptom(
            pattern=r"LLM-AWQ backend is only supported on (?:CUDA )?GPUs with compute capability",
            example="ValueError: LLM-AWQ backend is only supported on GPUs with compute capability >= 8.0",
            counter_example="LLM-AWQ backend",
            cause="AWQ kernels need a GPU of compute capability 8.0",
        ),
        Symptom(
            pattern=r"[Qq]uantization method (?P<method>[\w-]{2,30}) is not supported for the current GPU\. "
            r"Minimum capability: (?P<needs>\d{2,3})\. Current capability: (?P<actual>\d{2,3})",
            example="ValueError: The quantization method awq is not supported for the current GPU. Minimum "
            "capability: 75. Current capability: 70.",
            counter_example="The quantization method awq is supported",
            cause="{method} needs compute capability {needs} (times ten), and this GPU has {actual}",
        ),
        Symptom(
            pattern=r"requires a \*{0,2}Blackwell GPU",
            example="ImportError: Using `fp_quant` with real quantization requires a **Blackwell GPU** and "
            "qutlass",
            counter_example="a Blackwell GPU",
            cause="FP4 products need a Blackwell GPU",
        ),
    )
    remedies = (
        remedy(
            "load in 4 bits by bitsandbytes instead, which runs from compute capability 6.0 on",
            "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
            "edit",
        ),
        remedy(
            "take a checkpoint that is not quantised, or quantised by GPTQ",
        ),
        remedy(
            "see what this GPU is",
            "nvidia-smi --query-gpu=name,compute_cap --format=csv",
        ),
    )
