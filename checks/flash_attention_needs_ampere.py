"""FlashAttention 2 is asked for on a GPU older than Ampere."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class FlashAttentionNeedsAmpere(Check):
    """FlashAttention 2 is asked for on a GPU older than Ampere.

    ## What it finds

    In a log: flash-attention's refusal, and xformers' or torch's that only they of the fused kernels
    are left.

    ## Why it breaks

    flash-attn 2 has kernels for compute capability 8.0 and later alone, like bfloat16. A T4, V100, P100
    or RTX 20 has to use another attention.

    ## How it is proven

    By the log alone.

    ## Fix

    Use torch's own attention or xformers.

    ## References

    - https://github.com/Dao-AILab/flash-attention/blob/main/csrc/flash_attn/flash_api.cpp
    - https://github.com/Dao-AILab/flash-attention/issues/762
    """

    name = "flash-attention-needs-ampere"
    topic = "bf16"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/Dao-AILab/flash-attention/blob/main/csrc/flash_attn/flash_api.cpp"
    symptoms = (
        Symptom(
            pattern=r"FlashAttention only supports (?P<least>Ampere|Turing|Volta) GPUs or newer",
            example="RuntimeError: FlashAttention only supports Ampere GPUs or newer.",
            counter_example="FlashAttention only supports Hopper GPUs or newer.",
            cause="FlashAttention takes a GPU of the generation {least} or newer",
        ),
        Symptom(
            pattern=r"Attention combine function only supports Ampere",
            example="RuntimeError: Attention combine function only supports Ampere GPUs or newer.",
            counter_example="FlashAttention only supports Hopper GPUs or newer.",
        ),
        Symptom(
            pattern=r"Expected is_sm(?:8|9)\w{1,3}[^\n]{0,60} to be true, but got false",
            example="RuntimeError: Expected is_sm80 || is_sm90 to be true, but got false.",
            counter_example="Expected is_contiguous to be true, but got false",
        ),
        Symptom(
            pattern=r"[Ff]lash ?[Aa]ttention (?:only supports|requires|is only supported "
            r"on)[^\n]{0,80}(?:sm_?80|Ampere|compute capability (?:>= ?)?8)",
            example="Flash attention only supports gpu architectures in the range [sm80, sm90]. "
            "Attempting to run on a sm 7.5 gpu.",
            counter_example="Flash attention kernel not used",
        ),
        Symptom(
            pattern=r"Attempting to run on a sm ?(?P<arch>\d{1,2}\.?\d) gpu",
            example="Attempting to run on a sm 7.5 gpu.",
            counter_example="running on a sm 8.0 gpu",
            cause="torch's flash attention takes sm 8.0, and the GPU is sm {arch}",
            standing="hint",
        ),
    )
    remedies = (
        remedy(
            "transformers: torch's own attention",
            'AutoModelForCausalLM.from_pretrained(name, attn_implementation="sdpa")',
            "edit",
        ),
        remedy(
            "where the model's own code calls it: remove it, if the code then falls back",
            "pip uninstall flash-attn",
        ),
        remedy("vLLM: another backend", "export VLLM_ATTENTION_BACKEND=XFORMERS", "environment"),
        remedy("train and run in float16, which such a GPU can do"),
    )
