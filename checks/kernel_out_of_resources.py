"""A kernel needs more shared memory or registers than this GPU has."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class KernelOutOfResources(Check):
    """A kernel needs more shared memory or registers than this GPU has.

    ## What it finds

    In a log: Triton's OutOfResources, CUDA's "too many resources requested for launch", ptxas on shared
    data, and FlashAttention's head dimensions.

    ## Why it breaks

    Block sizes are chosen on big GPUs: an A100 gives a block 163 KB of shared memory, an RTX 3090 or
    4090 99 KB, a T4 64 KB. A kernel tuned for the one does not start on the other.

    ## How it is proven

    By the log alone.

    ## Fix

    Use smaller blocks or fewer stages, another implementation, or a release that knows the GPU.

    ## References

    - https://github.com/triton-lang/triton/blob/main/python/triton/runtime/errors.py
    - https://github.com/vllm-project/vllm/issues/36802
    """

    name = "kernel-out-of-resources"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/triton-lang/triton/blob/main/python/triton/runtime/errors.py"
    symptoms = (
        Symptom(
            pattern=r"out of resource: (?P<what>[a-z]{2,20}(?:\x20[a-z]{2,20})?),? Required:? "
            r"(?P<required>\d{1,9}),? Hardware limit:? (?P<limit>\d{1,9})",
            example="triton.runtime.errors.OutOfResources: out of resource: shared memory, "
            "Required: 147456, Hardware limit: 101376. Reducing block sizes or "
            "`num_stages` may help.",
            counter_example="shared memory: 101376",
            cause="A Triton kernel needs {required} of {what}, and the GPU has {limit}",
        ),
        Symptom(
            pattern=r"out of resources?: ",
            example="triton.runtime.errors.OutOfResources: out of resource: shared memory",
            counter_example="torch.OutOfMemoryError: CUDA out of memory.",
            cause="A Triton kernel needs more than the GPU has",
        ),
        Symptom(
            pattern=r"too many resources requested for launch",
            example="RuntimeError: CUDA error: too many resources requested for launch",
            counter_example="too many requests",
            cause="A kernel needs more registers or shared memory than the GPU has",
        ),
        Symptom(
            pattern=r"uses too much shared data \((?P<required>0x\w{1,8}) bytes, "
            r"(?P<limit>0x\w{1,8}) max\)",
            example="ptxas error   : Entry function '_kernel' uses too much shared data (0x1c000 "
            "bytes, 0xc000 max)",
            counter_example="ptxas info    : Used 32 registers, 1024 bytes smem",
            cause="A kernel needs {required} bytes of shared memory, and the GPU has {limit}",
        ),
        Symptom(
            pattern=r"backward for head dim > (?P<most>\d{2,3}) requires",
            example="RuntimeError: FlashAttention backward for head dim > 192 requires A100/A80 or H100/H800",
            counter_example="head dim 128",
            cause="FlashAttention's backward pass for heads wider than {most} takes an A100 or H100",
            fixes=(remedy("use torch's own attention for training", 'attn_implementation="sdpa"', "edit"),),
        ),
        Symptom(
            pattern=r"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES|cudaErrorLaunchOutOfResources",
            example="CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
            counter_example="CUDA_ERROR_OUT_OF_MEMORY",
        ),
        Symptom(
            pattern=r"No valid triton configs",
            example="torch._inductor.runtime.triton_heuristics.NoTritonConfigsError: No valid "
            "triton configs. OutOfMemoryError: out of resource",
            counter_example="valid triton configs: 4",
            cause="None of a Triton kernel's configurations fits into this GPU",
        ),
        Symptom(
            pattern=r"PassManager::run failed",
            example="RuntimeError: PassManager::run failed",
            counter_example="PassManager finished",
            cause="Triton's compiler failed on a kernel: this Triton does not know the GPU well, "
            "or the kernel is not for it",
            sure="likely",
            fixes=(
                remedy("use the Triton that this torch wants", "pip install --force-reinstall torch"),
                remedy("run without compiled kernels", "TORCHDYNAMO_DISABLE=1", "environment"),
            ),
        ),
    )
    remedies = (
        remedy(
            "smaller blocks or fewer stages in the kernel's configuration",
            'triton.Config({{"BLOCK_M": 64, "BLOCK_N": 64}}, num_stages=2)',
            "edit",
        ),
        remedy(
            "torch.compile: without the widest configurations, or off",
            "TORCHINDUCTOR_MAX_AUTOTUNE=0",
            "environment",
        ),
        remedy("use an implementation without this kernel", 'attn_implementation="sdpa"', "edit"),
        remedy("a release of the package that knows this GPU"),
    )
