"""An operator of this torch has no bfloat16 version on this device."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class Bf16KernelMissing(Check):
    """An operator of this torch has no bfloat16 version on this device.

    ## What it finds

    In a log: torch's `"..." not implemented for 'BFloat16'` and its likes, and NumPy, which has no
    bfloat16 at all.

    ## Why it breaks

    Kernels got bfloat16 one after another: triu and tril on CUDA in torch 2.1, upsampling and many CPU
    kernels later. NumPy has no such type, so `.numpy()` on a bfloat16 tensor fails everywhere.

    ## How it is proven

    By the log alone.

    ## Fix

    Update torch; or compute that one operation in float32.

    ## References

    - https://github.com/pytorch/pytorch/issues/101932
    - https://github.com/huggingface/transformers/issues/18246
    """

    name = "bf16-kernel-missing"
    topic = "dtype-mismatch"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/issues/101932"
    symptoms = (
        Symptom(
            pattern=r"`(?P<kernel>(?!_amp_)[\w<>:]{3,80})` not implemented for `BFloat16",
            example="RuntimeError: \"triu_tril_cuda_template\" not implemented for 'BFloat16'",
            counter_example="RuntimeError: \"addmm_impl_cpu_\" not implemented for 'Half'",
            cause="torch has no bfloat16 version of {kernel} here",
        ),
        Symptom(
            pattern=r"Got unsupported ScalarType BFloat16",
            example="TypeError: Got unsupported ScalarType BFloat16",
            counter_example="expected scalar type BFloat16 but found Float",
            cause="A bfloat16 tensor was given to NumPy, which has no such type",
            fixes=(remedy("convert it first", "tensor.float().cpu().numpy()", "edit"),),
        ),
        Symptom(
            pattern=r"(?:does not support|unsupported) (?:dtype )?(?:torch\.)?bfloat16|"
            r"(?:torch\.)?bfloat16 is not supported for",
            example="RuntimeError: cuFFT doesn't support tensor of type: does not support bfloat16",
            counter_example="bfloat16 is supported",
            cause="An operation does not take bfloat16 here",
            sure="likely",
        ),
        Symptom(
            pattern=r"cuFFT doesn't support tensor of type: BFloat16|Unsupported dtype BFloat16",
            example="RuntimeError: Unsupported dtype BFloat16",
            counter_example="Unsupported dtype Half",
            cause="Fourier transforms take no bfloat16",
        ),
    )
    remedies = (
        remedy("update torch: newer releases have most of these kernels", "pip install --upgrade torch"),
        remedy(
            "compute that one operation in float32", "x = operation(x.float()).to(torch.bfloat16)", "edit"
        ),
        remedy(
            "load the model in float16 or float32",
            "AutoModelForCausalLM.from_pretrained(name, dtype=torch.float16)",
            "edit",
        ),
    )
