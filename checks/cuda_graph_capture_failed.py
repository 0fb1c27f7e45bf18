"""Something was done while a CUDA graph was recorded that must not be."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CudaGraphCaptureFailed(Check):
    """Something was done while a CUDA graph was recorded that must not be.

    ## What it finds

    In a log: CUDA's messages on stream capture, from vLLM, `torch.compile(mode="reduce-overhead")` or
    `torch.cuda.graph`.

    ## Why it breaks

    While kernels are recorded nothing may wait for the GPU, allocate outside the pool or use another
    stream. A model with `.item()`, a host copy or a communicator that is set up late breaks the
    recording; so does any kernel that fails meanwhile.

    ## How it is proven

    By the log alone.

    ## Fix

    Run without graphs to see the true error, then keep such calls out of the recorded part.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_inductor/cudagraph_trees.py
    """

    name = "cuda-graph-capture-failed"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_inductor/cudagraph_trees.py"
    symptoms = (
        Symptom(
            pattern=r"operation not permitted when stream is capturing",
            example="RuntimeError: CUDA error: operation not permitted when stream is capturing",
            counter_example="Capturing CUDA graph shapes: 100%",
        ),
        Symptom(
            pattern=r"operation failed due to a previous error during capture",
            example="RuntimeError: CUDA error: operation failed due to a previous error during capture",
            counter_example="Capturing CUDA graph shapes: 100%",
            cause="A CUDA graph could not be recorded: something failed before the recording's end",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"operation would (?:make the legacy stream depend on|result in a merge of) ",
            example="CUDA error: operation would make the legacy stream depend on a capturing "
            "blocking stream",
            counter_example="the operation would wait",
        ),
        Symptom(
            pattern=r"during CUDA graph capture",
            example="RuntimeError: Cannot copy between CPU and CUDA tensors during CUDA graph "
            "capture unless the CPU tensor is pinned.",
            counter_example="Graph capturing finished in 20 secs",
        ),
        Symptom(
            pattern=r"accessing tensor output of CUDAGraphs that has been overwritten",
            example="RuntimeError: Error: accessing tensor output of CUDAGraphs that has been "
            "overwritten by a subsequent run.",
            counter_example="CUDAGraphs: recorded",
            cause="A result of a CUDA graph was used after the next run had overwritten it",
            fixes=(
                remedy(
                    "copy it, or mark where a step begins",
                    "torch.compiler.cudagraph_mark_step_begin()",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy("vLLM and SGLang: without graphs", "vllm serve MODEL --enforce-eager"),
        remedy("torch.compile: without them", 'torch.compile(model, mode="default")', "edit"),
        remedy("see the true line", "CUDA_LAUNCH_BLOCKING=1", "environment"),
    )
