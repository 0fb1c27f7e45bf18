"""A kernel read or wrote where it must not, and the GPU's context is lost."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class IllegalGpuAccess(Check):
    """A kernel read or wrote where it must not, and the GPU's context is lost.

    ## What it finds

    In a log: illegal memory access, misaligned address, launch failure and their like, whoever reports
    them.

    ## Why it breaks

    The fault is found while the kernel runs, and reported by whatever call comes next; the traceback
    points there. Usual causes: an extension built for another torch, a shape that a fused kernel does
    not allow, tensors on another GPU than the current one, more than 2^31 elements; rarely a GPU that
    is not well.

    ## How it is proven

    By the log alone.

    ## Fix

    Find the kernel, then update it or run without it.

    ## References

    - https://pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution
    - https://github.com/deepspeedai/DeepSpeedExamples/issues/592
    """

    name = "illegal-gpu-access"
    topic = "cuda-kernel"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/notes/cuda.html#asynchronous-execution"
    symptoms = (
        Symptom(
            pattern=r"an illegal memory access was encountered",
            example="RuntimeError: CUDA error: an illegal memory access was encountered",
            counter_example="memory access at full speed",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_ILLEGAL_ADDRESS|cudaErrorIllegalAddress",
            example="CUDA_ERROR_ILLEGAL_ADDRESS",
            counter_example="CUDA_ERROR_INVALID_VALUE",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP|Triton) ?[Ee]rror(?: \[CUDA\])?:? misaligned address|error "
            r"\(7[14]\) : misaligned address",
            example="RuntimeError: CUDA error: misaligned address",
            counter_example="address is misaligned in the file",
            cause="A kernel read an address that is not aligned as it must be",
        ),
        Symptom(
            pattern=r"unspecified launch failure",
            example="RuntimeError: CUDA error: unspecified launch failure",
            counter_example="launch failed: retrying",
            cause="A kernel crashed on the GPU (unspecified launch failure)",
        ),
        Symptom(
            pattern=r"an illegal instruction was encountered",
            example="RuntimeError: CUDA error: an illegal instruction was encountered",
            counter_example="Illegal instruction (core dumped)",
            cause="A kernel holds an instruction that the GPU does not have: built for another "
            "one, or memory was overwritten",
        ),
        Symptom(
            pattern=r"CUDA error: invalid (?P<what>program counter|address space)",
            example="RuntimeError: CUDA error: invalid program counter",
            counter_example="CUDA error: invalid argument",
            cause="A kernel crashed on the GPU: invalid {what}",
        ),
        Symptom(
            pattern=r"operation not supported on global/shared address space",
            example="CUDA error: operation not supported on global/shared address space",
            counter_example="operation not supported",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_LAUNCH_FAILED|cudaErrorLaunchFailure|"
            r"CUDA_ERROR_MISALIGNED_ADDRESS|CUDA_ERROR_ILLEGAL_INSTRUCTION",
            example="CUDA_ERROR_LAUNCH_FAILED",
            counter_example="CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES",
        ),
        Symptom(
            pattern=r"Memory access fault by GPU node",
            example="Memory access fault by GPU node-1 (Agent handle: 0x55) on address 0x7f. "
            "Reason: Page not present or supervisor privilege.",
            counter_example="GPU node-1 is ready",
        ),
        Symptom(
            pattern=r"Xid \(PCI:(?P<gpu>[\w:.]{7,20})\): (?P<xid>13|31|43)\b",
            example="NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, name=python, Ch 00000008, intr "
            "00000000. MMU Fault",
            counter_example="NVRM: Xid (PCI:0000:4f:00): 79, GPU has fallen off the bus.",
            cause="The driver stopped a program on the GPU at {gpu} (Xid {xid}): it accessed "
            "memory that is not its own",
        ),
        Symptom(
            pattern=r"the launch timed out and was terminated",
            example="RuntimeError: CUDA error: the launch timed out and was terminated",
            counter_example="the request timed out",
            cause="A kernel ran too long on a GPU that drives a display, and was ended",
            fixes=(remedy("run on a GPU without a display, or turn the display's watchdog off"),),
        ),
    )
    remedies = (
        remedy("find the kernel: every call then waits for its end", "CUDA_LAUNCH_BLOCKING=1", "environment"),
        remedy("let NVIDIA's tool name the access", "compute-sanitizer --tool memcheck python train.py"),
        remedy(
            "build extensions anew for this torch, or update them (flash-attention, apex, "
            "xformers, bitsandbytes)",
            "pip install --force-reinstall --no-cache-dir --no-build-isolation flash-attn",
        ),
        remedy("try without the fused kernel", 'attn_implementation="eager"', "edit"),
        remedy(
            "let each process use its own GPU, before any tensor is made",
            'torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))',
            "edit",
        ),
        remedy("where it wanders from place to place, test the GPU", "dcgmi diag -r 3"),
    )
