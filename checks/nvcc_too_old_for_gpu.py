"""The compiler (nvcc, ptxas, torch's list) does not know this GPU's architecture."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NvccTooOldForGpu(Check):
    """The compiler (nvcc, ptxas, torch's list) does not know this GPU's architecture.

    ## What it finds

    In a log: nvcc, ptxas or torch's extension builder that are told to compile for an architecture they
    have no name for, as Blackwell's sm_120 with CUDA 12.4 or Ada's sm_89 with CUDA 11.7; or that no
    longer know an old one.

    ## Why it breaks

    nvcc compiles for architectures that its release knows: sm_86 since 11.1, sm_89 and sm_90 since
    11.8, sm_100 and sm_120 since 12.8. Of the old ones 12.0 dropped sm_35, and 13.0 all below sm_75.

    ## How it is proven

    By the log alone.

    ## Fix

    Use a toolkit that knows the GPU, with a torch built for it; or name the architectures yourself.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`_get_cuda_arch_flags`)
    - https://github.com/InternLM/lmdeploy/issues/3806
    """

    name = "nvcc-too-old-for-gpu"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py"
    symptoms = (
        Symptom(
            pattern=r"Unsupported gpu architecture `compute_(?P<arch>\w{2,5})",
            example="nvcc fatal   : Unsupported gpu architecture 'compute_86'",
            counter_example="nvcc -gencode arch=compute_86,code=sm_86",
            cause="nvcc does not know the architecture {arch}: it is too old for this GPU, or has dropped it",
        ),
        Symptom(
            pattern=r"Value `(?:sm|compute)_(?P<arch>\w{2,5})` is not defined for option",
            example="ptxas fatal   : Value 'sm_120a' is not defined for option 'gpu-name'",
            counter_example="ptxas info    : Compiling entry function for 'sm_80'",
            cause="The compiler does not know the architecture {arch}: it is too old for this GPU",
        ),
        Symptom(
            pattern=r"Unknown CUDA arch \((?P<arch>[\w.+]{1,20})\) or GPU not supported",
            example="ValueError: Unknown CUDA arch (12.0) or GPU not supported",
            counter_example="TORCH_CUDA_ARCH_LIST is not set, all archs for visible cards are included",
            cause="This torch does not know the architecture {arch}: it is too old for this GPU, "
            "or TORCH_CUDA_ARCH_LIST is misspelt",
        ),
        Symptom(
            pattern=r"not supported on \.target `(?P<arch>sm_\w{2,5})",
            example="ptxas x.ptx, line 10531; error   : Instruction 'tensormap.replace' not "
            "supported on .target 'sm_120'",
            counter_example="ptxas info    : Compiling entry function for 'sm_80'",
            cause="A kernel uses an instruction that {arch} does not have, or that this ptxas "
            "does not know there",
        ),
        Symptom(
            pattern=r"no compute capabilities remaining after filtering",
            example="RuntimeError: Unable to load transformer_inference op due to no compute "
            "capabilities remaining after filtering",
            counter_example="compute capabilities: 8.0",
            cause="DeepSpeed's operator has no code for this GPU's architecture",
        ),
        Symptom(
            pattern=r"Internal Triton PTX codegen error",
            example="RuntimeError: Internal Triton PTX codegen error",
            counter_example="Triton PTX cache",
            cause="Triton's code could not be assembled for this GPU; ptxas says why below",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"is not a recognized processor for this target",
            example="'sm_120' is not a recognized processor for this target (ignoring processor)",
            counter_example="ptxas info    : Compiling entry function for 'sm_80'",
            cause="Triton's compiler is too old for this GPU",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "use a toolkit that knows the GPU (12.8 or later for Blackwell, 11.8 or later for Ada "
            "and Hopper), and the torch built for it",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu128",
        ),
        remedy(
            "compile for what this toolkit knows, which newer GPUs of the same generation run as well",
            'export TORCH_CUDA_ARCH_LIST="8.0+PTX"',
            "environment",
        ),
        remedy(
            "for Triton: let it use the ptxas of a newer toolkit",
            "export TRITON_PTXAS_PATH=/usr/local/cuda-12.8/bin/ptxas",
            "environment",
        ),
    )
