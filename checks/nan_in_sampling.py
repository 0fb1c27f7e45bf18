"""Sampling met probabilities that are no numbers: the logits are NaN or infinite."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NanInSampling(Check):
    """Sampling met probabilities that are no numbers: the logits are NaN or infinite.

    ## What it finds

    In a log: `torch.multinomial` and the assertions of its kernels, and losses that are given what is
    no probability.

    ## Why it breaks

    float16 overflows in models that were trained in bfloat16; weights that were loaded wrongly, a
    padded batch without attention mask, or a training that diverged do the same. Greedy decoding would
    say nothing and write rubbish.

    ## How it is proven

    By the log alone.

    ## Fix

    Load the model in the dtype it was trained in; look at the logits before anything else.

    ## References

    - https://github.com/meta-llama/llama/issues/380
    - https://github.com/togethercomputer/OpenChatKit/issues/86
    """

    name = "nan-in-sampling"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/meta-llama/llama/issues/380"
    symptoms = (
        Symptom(
            pattern=r"Assertion `probability tensor contains either",
            example="TensorCompare.cu:110: _assert_async_cuda_kernel: block: [0,0,0], thread: "
            "[0,0,0] Assertion `probability tensor contains either `inf`, `nan` or "
            "element < 0` failed.",
            counter_example="probability tensor of shape [1, 32000]",
        ),
        Symptom(
            pattern=r"invalid multinomial distribution",
            example="RuntimeError: invalid multinomial distribution (with replacement=False, not "
            "enough non-negative category to sample)",
            counter_example="multinomial distribution with 4 categories",
        ),
        Symptom(
            pattern=r"Assertion `cumdist\[size - 1\]",
            example="Assertion `cumdist[size - 1] > static_cast<scalar_t>(0)` failed.",
            counter_example="Assertion `srcIndex < srcSelectDimSize` failed.",
        ),
        Symptom(
            pattern=r"Assertion `input_val >= zero && input_val <= one",
            example="Loss.cu:106: operator(): block: [0,0,0], thread: [0,0,0] Assertion "
            "`input_val >= zero && input_val <= one` failed.",
            counter_example="Assertion `t >= 0 && t < n_classes` failed.",
            cause="A binary cross entropy was given what is no probability: NaN, or logits without a sigmoid",
            fixes=(
                remedy(
                    "give logits to the loss that takes them",
                    "torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)",
                    "edit",
                ),
                remedy("look for NaN above it", "torch.autograd.set_detect_anomaly(True)", "edit"),
            ),
        ),
    )
    remedies = (
        remedy(
            "load the model in the dtype of its training",
            "AutoModelForCausalLM.from_pretrained(name, dtype=torch.bfloat16)",
            "edit",
        ),
        remedy(
            "where the GPU has no bfloat16: float32, or another attention in float16",
            'attn_implementation="eager"',
            "edit",
        ),
        remedy(
            "pad on the left and give the attention mask",
            'tokenizer(texts, padding=True, padding_side="left", return_tensors="pt")',
            "edit",
        ),
        remedy("see whether the weights are whole: a fine-tuned model may have diverged"),
    )
