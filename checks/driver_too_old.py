"""The NVIDIA driver is too old for the CUDA that torch or the container was built with."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DriverTooOld(Check):
    """The NVIDIA driver is too old for the CUDA that torch or the container was built with.

    ## What it finds

    In a log: torch, the CUDA runtime, NVIDIA's container runtime and NCCL that say the driver is older
    than what they were built for; and PTX that the driver cannot compile.

    ## Why it breaks

    A driver runs programs built for its own CUDA version and for earlier ones; within one major version
    also for later ones, if they bring machine code for the GPU. CUDA 13 needs driver 580, CUDA 12 needs
    525, CUDA 11 needs 450. torch then sees no GPU at all.

    ## How it is proven

    By the log alone.

    ## Fix

    Update the driver, or install the torch built for an earlier CUDA: the number in the message is the
    driver's (12020 is CUDA 12.2).

    ## References

    - https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html
    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    """

    name = "driver-too-old"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"
    symptoms = (
        Symptom(
            pattern=r"NVIDIA driver on your system is too old \(found version "
            r"(?P<found>\d{4,6})\)",
            example="RuntimeError: The NVIDIA driver on your system is too old (found version "
            "11040). Please update your GPU driver",
            counter_example="Found no NVIDIA driver on your system.",
            cause="The driver is too old for this torch: it speaks CUDA {found} (thousands are "
            "the major version, tens the minor), torch was built for a later one",
        ),
        Symptom(
            pattern=r"NVIDIA driver on your system is too old",
            example="The NVIDIA driver on your system is too old",
            counter_example="Found no NVIDIA driver on your system.",
            cause="The driver is too old for the CUDA that this torch was built with",
        ),
        Symptom(
            pattern=r"CUDA driver version is insufficient for CUDA runtime version",
            example="RuntimeError: cuda runtime error (35) : CUDA driver version is insufficient "
            "for CUDA runtime version at /pytorch/aten/src/THC/THCGeneral.cpp:50",
            counter_example="CUDA Driver Version / Runtime Version          12.2 / 12.1",
            cause="The driver is older than the CUDA runtime that the program brings, or the "
            "program sees no driver at all",
        ),
        Symptom(
            pattern=r"unsatisfied condition: (?P<wanted>(?:cuda|driver|"
            r"brand)\s?[<>=]{1,2}\s?[\w.]{1,20})",
            example="nvidia-container-cli: requirement error: unsatisfied condition: cuda>=12.5, "
            "please update your driver to a newer version, or use an earlier cuda "
            "container: unknown.",
            counter_example="unsatisfied constraint: libssl",
            cause="The image needs {wanted}, and the driver of this host is older",
            fixes=(
                remedy("update the host's driver"),
                remedy("use an image with an earlier CUDA"),
                remedy(
                    "start it all the same, where the minor version alone differs",
                    "docker run -e NVIDIA_DISABLE_REQUIRE=1 ...",
                ),
            ),
        ),
        Symptom(
            pattern=r"provided PTX was compiled with an unsupported toolchain",
            example="RuntimeError: CUDA error: the provided PTX was compiled with an unsupported toolchain.",
            counter_example="ptxas info    : Compiling entry function",
            cause="A kernel came as PTX of a CUDA later than the driver's, which cannot compile it",
        ),
        Symptom(
            pattern=r"API call is not supported in the installed CUDA driver",
            example="RuntimeError: CUDA error: API call is not supported in the installed CUDA driver",
            counter_example="CUDA error: operation not supported",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION|cudaErrorUnsupportedPtxVersion|"
            r"cudaErrorInsufficientDriver|cudaErrorCallRequiresNewerDriver",
            example="CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the provided PTX was compiled with an "
            "unsupported toolchain",
            counter_example="CUDA_ERROR_INVALID_PTX",
        ),
        Symptom(
            pattern=r"undefined symbol: (?P<symbol>cu(?:MemCreate|MulticastCreate|LaunchKernelEx|"
            r"GetProcAddress_v2|TensorMapEncodeTiled|MulticastAddDevice|"
            r"GetProcAddress))\b",
            example="libcudart: undefined symbol: cuGetProcAddress_v2",
            counter_example="undefined symbol: _ZN3c104cuda9SetDeviceEi",
            cause="The driver's library has no {symbol}: it is older than what the program was built for",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "install the torch built for a CUDA that the driver speaks (`nvidia-smi` says which)",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "update the driver: CUDA 13 needs 580 or later, CUDA 12 needs 525 or later",
            "sudo apt-get install nvidia-driver-580-server && sudo reboot",
        ),
        remedy(
            "on data-center GPUs, add NVIDIA's forward compatibility libraries (package "
            "cuda-compat-12-8 and its like)"
        ),
    )
