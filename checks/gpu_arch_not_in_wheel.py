"""The installed torch, or another package, has no machine code for this GPU."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GpuArchNotInWheel(Check):
    """The installed torch, or another package, has no machine code for this GPU.

    ## What it finds

    In a log: torch's warning that the GPU is not among those it was built for, and the kernel image
    that is not available.

    ## Why it breaks

    A wheel holds machine code for a list of architectures. A GPU newer than the list (Blackwell with
    CUDA 12.4 wheels) or dropped from it (Maxwell to Volta with CUDA 13 wheels) finds no kernel.
    Extensions have lists of their own: bitsandbytes, flash-attention, apex, vLLM.

    ## How it is proven

    By the log alone.

    ## Fix

    Install a build whose list has the GPU's architecture, or compile the extension for it.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py (`_check_cubins`)
    - https://github.com/pytorch/pytorch/issues/167244
    - https://github.com/pytorch/pytorch/issues/149845
    """

    name = "gpu-arch-not-in-wheel"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/cuda/__init__.py"
    symptoms = (
        Symptom(
            pattern=r"(?P<gpu>[\w()\x20/-]{3,60}) with CUDA capability sm_(?P<arch>\w{2,4}) is "
            r"not compatible with the current PyTorch",
            example="NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible with "
            "the current PyTorch installation.",
            counter_example="The current PyTorch install supports CUDA capabilities sm_80 sm_90.",
            cause="This torch has no machine code for {gpu} (sm_{arch})",
        ),
        Symptom(
            pattern=r"PyTorch install supports CUDA capabilities (?P<archs>(?:sm|"
            r"compute)_[\w\x20]{2,80}\w)",
            example="The current PyTorch install supports CUDA capabilities sm_37 sm_50 sm_60 sm_70.",
            counter_example="torch.cuda.get_arch_list()",
            cause="This torch has machine code for {archs} alone, and the GPU is another",
        ),
        Symptom(
            pattern=r"no kernel image is available for execution on the device",
            example="RuntimeError: CUDA error: no kernel image is available for execution on the device",
            counter_example="device kernel image is valid",
            cause="A kernel has no machine code for this GPU: torch, or the extension that runs "
            "it, was not built for the architecture",
        ),
        Symptom(
            pattern=r"device kernel image is invalid",
            example="RuntimeError: Triton Error [CUDA]: device kernel image is invalid",
            counter_example="no kernel image is available for execution on the device",
            cause="A kernel was built for another GPU, or by a compiler that this driver is too old for",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP) error: invalid device function",
            example="RuntimeError: HIP error: invalid device function",
            counter_example="CUDA error: invalid device ordinal",
            cause="A kernel has no machine code for this GPU",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_NO_BINARY_FOR_GPU|cudaErrorNoKernelImageForDevice|"
            r"hipErrorNoBinaryForGpu|cudaErrorInvalidDeviceFunction",
            example="CUDA_ERROR_NO_BINARY_FOR_GPU",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"PyTorch no longer supports this GPU because it is too old",
            example="    PyTorch no longer supports this GPU because it is too old.",
            counter_example="Found GPU0 Tesla T4",
            cause="The GPU is too old for this torch, which has no code for it",
        ),
        Symptom(
            pattern=r"invalid value for --gpu-architecture",
            example="RuntimeError: nvrtc: error: invalid value for --gpu-architecture (-arch)",
            counter_example="nvrtc: compiled for sm_80",
            cause="torch's run-time compiler (nvrtc) is too old for this GPU",
        ),
        Symptom(
            pattern=r"which requires CUDA_VERSION >= (?P<least>\d{4,5})",
            example="    Found GPU0 NVIDIA A100 which requires CUDA_VERSION >= 11000 to\n     "
            "work properly, but your PyTorch was compiled",
            counter_example="CUDA_VERSION 12010",
            cause="The GPU needs a torch built for CUDA {least} (thousands are the major version) or later",
        ),
        Symptom(
            pattern=r"does not include kernels for this GPU|CUDA builds for release [\w.+]{3,30} "
            r"support this GPU",
            example="Your installed torch==2.11.0+cu130 does not include kernels for this GPU. "
            "Reinstall the same version against a CUDA build that does, e.g.:",
            counter_example="Your installed torch includes kernels",
            cause="This torch has no machine code for the GPU",
        ),
        Symptom(
            pattern=r"which is of (?:cuda capability|compute capability \(CC\)) "
            r"(?P<capability>\d+\.\d)\.",
            example="    Found GPU0 NVIDIA GB10 which is of cuda capability 12.1.",
            counter_example="compute capability 8.0",
            cause="The GPU (compute capability {capability}) is not among those that this torch "
            "was built for",
            standing="hint",
        ),
        Symptom(
            pattern=r"CUDA error: named symbol not found|Error named symbol not found at line|"
            r"CUDA_ERROR_NOT_FOUND: named symbol",
            example="RuntimeError: CUDA error: named symbol not found",
            counter_example="symbol not found in the table",
            cause="A kernel is not in the library that was loaded: it was built for other GPUs",
            sure="likely",
        ),
        Symptom(
            pattern=r"Cannot read supported gfx|hipErrorSharedObjectInitFailed|rocBLAS error: "
            r"Cannot read \S{1,200}TensileLibrary",
            example="rocBLAS error: Cannot read "
            "/opt/rocm/lib/rocblas/library/TensileLibrary.dat: Illegal seek for GPU arch "
            ": gfx1103",
            counter_example="rocBLAS version 4.0",
            cause="ROCm's libraries have no code for this GPU",
            fixes=(
                remedy(
                    "let the GPU pass for a sibling that ROCm knows",
                    "export HSA_OVERRIDE_GFX_VERSION=11.0.0",
                    "environment",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "Blackwell and newer: a torch built for CUDA 12.8 or later",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128",
        ),
        remedy(
            "Maxwell, Pascal and Volta: a torch built for CUDA 12.6, which still has them",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "see what torch has code for, and which the GPU is",
            'python -c "import torch; print(torch.cuda.get_arch_list(), torch.cuda.get_device_capability())"',
        ),
        remedy(
            "an extension (flash-attention, bitsandbytes, apex, vLLM): a release that knows the "
            "GPU, or compile it here",
            "TORCH_CUDA_ARCH_LIST=12.0 pip install --no-build-isolation --no-binary :all: "
            "--force-reinstall NAME",
            "command",
        ),
    )
