"""A kernel does not exist for this dtype: float16 on the CPU, float8 and quantised integers anywhere."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class HalfKernelMissing(Check):
    """A kernel does not exist for this dtype: float16 on the CPU, float8 and quantised integers anywhere.

    ## What it finds

    In a log: torch telling that an operation is not implemented for Half, Float8 or a quantised integer
    type on the device that it runs on.

    ## Why it breaks

    torch writes each operation for a list of dtypes a device. float16 is for GPUs: on the CPU its matrix
    products came with torch 2.2 and many operations are still missing. A model that was loaded in half
    and never moved to the GPU is the usual cause.

    ## How it is proven

    By the log alone.

    ## Fix

    Run on the GPU, or use float32 or bfloat16 on the CPU.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/Dispatch.h
    - https://github.com/huggingface/transformers/issues/27769
    """

    name = "half-kernel-missing"
    topic = "dtype-mismatch"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/Dispatch.h"
    symptoms = (
        Symptom(
            pattern=r"(?P<kernel>\w{0,60}(?:cpu|CPU)\w{0,60})` not implemented for `(?P<dtype>Half)",
            example="RuntimeError: \"addmm_impl_cpu_\" not implemented for 'Half'",
            counter_example="RuntimeError: \"addmm_cuda\" not implemented for 'Long'",
            cause="A {dtype} model runs on the CPU, for which torch has no {dtype} kernel of {kernel}",
            fixes=(
                remedy(
                    "run it on the GPU",
                    'model = model.to("cuda")',
                    "edit",
                ),
                remedy(
                    "use another dtype on the CPU",
                    "torch_dtype=torch.float32",
                    "edit",
                ),
                remedy(
                    "bfloat16, which has more kernels on the CPU",
                    "torch_dtype=torch.bfloat16",
                    "edit",
                ),
                remedy(
                    "later releases of torch have more of them",
                    "pip install -U torch",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?P<kernel>\w{0,40}(?:cuda|CUDA)\w{0,60})` not implemented for `(?P<dtype>Half)",
            example="RuntimeError: \"triu_tril_cuda_template\" not implemented for 'Half'",
            counter_example='RuntimeError: "nll_loss_forward_reduce_cuda_kernel_2d_index" not implemented '
            "for 'Int'",
            cause="This torch has no {dtype} kernel of {kernel} for the GPU",
            fixes=(
                remedy(
                    "upgrade torch: later releases have it",
                    "pip install -U torch",
                ),
                remedy(
                    "use the other half type",
                    "torch_dtype=torch.float16",
                    "edit",
                ),
                remedy(
                    "do this step in float32, under autocast",
                    'with torch.autocast("cuda", dtype=torch.float16):\n    outputs = model(**batch)',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?P<kernel>\w{2,80})` not implemented for `(?P<dtype>Half|ComplexHalf)",
            example="RuntimeError: \"LayerNormKernelImpl\" not implemented for 'Half'",
            counter_example="RuntimeError: \"bitwise_and\" not implemented for 'Float'",
            cause="torch has no {dtype} kernel of {kernel} for the device that it runs on: usually a "
            "half-precision model that was left on the CPU",
        ),
        Symptom(
            pattern=r"not implemented for `(?P<dtype>Half)`",
            example="not implemented for 'Half'",
            counter_example="not implemented for 'Long'",
            cause="torch has no {dtype} kernel of an operation for the device that it runs on",
        ),
        Symptom(
            pattern=r"not implemented for `(?P<dtype>Float8_e\w{3,8})",
            example="RuntimeError: \"addmm_cuda\" not implemented for 'Float8_e4m3fn'",
            counter_example="not implemented for 'Float'",
            cause="float8 weights are computed with as they are: torch has few kernels for {dtype}",
            fixes=(
                remedy(
                    "convert the weights to a type that computes",
                    "model = model.to(torch.bfloat16)",
                    "edit",
                ),
                remedy(
                    "load with the quantiser that scales them",
                ),
            ),
        ),
        Symptom(
            pattern=r"not implemented for `(?P<dtype>Char|Byte)`",
            example="RuntimeError: \"addmm_cuda\" not implemented for 'Char'",
            counter_example="not implemented for 'Long'",
            cause="Quantised weights ({dtype}) are computed with as if they were floats",
            sure="likely",
            fixes=(
                remedy(
                    "load the model with the quantisation that wrote it, by current releases",
                    "pip install -U transformers accelerate bitsandbytes",
                ),
            ),
        ),
        Symptom(
            pattern=r"Pipelines loaded with `(?:torch_)?dtype=torch\.float16` cannot run with `cpu",
            example="Pipelines loaded with `torch_dtype=torch.float16` cannot run with `cpu` device.",
            counter_example="Pipelines loaded with float16",
            cause="A float16 pipeline is on the CPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"Trying to convert (?P<dtype>Float8_e\w{3,8}|Float64|Double) to the MPS backend",
            example="TypeError: Trying to convert Float8_e4m3fn to the MPS backend but it does not have "
            "support for that dtype.",
            counter_example="to the MPS backend",
            cause="The Mac GPU knows no {dtype}",
            fixes=(
                remedy(
                    "use float16 there",
                    "torch_dtype=torch.float16",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "run the model on the GPU",
            'model = model.to("cuda")',
            "edit",
        ),
        remedy(
            "on the CPU use float32 or bfloat16",
            "torch_dtype=torch.float32",
            "edit",
        ),
        remedy(
            "upgrade torch: later releases have more kernels",
            "pip install -U torch",
        ),
    )
