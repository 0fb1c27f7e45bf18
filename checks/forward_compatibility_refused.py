"""CUDA's compatibility libraries are used on a GPU that they are not for."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class ForwardCompatibilityRefused(Check):
    """CUDA's compatibility libraries are used on a GPU that they are not for.

    ## What it finds

    In a log: CUDA error 804, whoever reports it.

    ## Why it breaks

    Images of CUDA carry `cuda-compat`, a newer libcuda.so that lets an older driver run them. It works
    with data-center GPUs alone; a GeForce or RTX refuses.

    ## How it is proven

    By the log alone.

    ## Fix

    Take the compatibility folder off the library path and update the driver, or use an image of the
    driver's CUDA.

    ## References

    - https://github.com/hpcaitech/ColossalAI/issues/4381
    - https://github.com/ModelTC/LightLLM/issues/191
    """

    name = "forward-compatibility-refused"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/hpcaitech/ColossalAI/issues/4381"
    symptoms = (
        Symptom(
            pattern=r"[Ff]orward compatibility was attempted on non supported HW",
            example="Error 804: forward compatibility was attempted on non supported HW",
            counter_example="Error 803: system has unsupported display driver / cuda driver combination",
            cause="The image's CUDA is newer than the driver, and its compatibility libraries "
            "refuse this GPU (error 804)",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE|"
            r"cudaErrorCompatNotSupportedOnDevice",
            example="CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
    )
    remedies = (
        remedy("update the driver of the host to the CUDA of the image"),
        remedy(
            "use an image, or a torch, of the driver's CUDA (`nvidia-smi` says which)",
            "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "take the compatibility libraries away, where the driver is new enough without",
            "rm -rf /usr/local/cuda/compat && ldconfig",
        ),
    )
