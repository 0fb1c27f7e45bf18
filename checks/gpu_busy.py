"""The GPU does not accept another process."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GpuBusy(Check):
    """The GPU does not accept another process.

    ## What it finds

    In a log: CUDA error 46, devices that are busy or unavailable.

    ## Why it breaks

    In compute mode EXCLUSIVE_PROCESS one process alone may use a GPU; in PROHIBITED none. A process
    that hangs keeps it. The same message comes from a GPU in a broken MIG state, and from WSL and
    containers whose driver does not fit.

    ## How it is proven

    By the log alone.

    ## Fix

    End what holds the GPU, use another, or set the compute mode back.

    ## References

    - https://github.com/NVIDIA/DIGITS/issues/2005
    - https://github.com/cositools/cosipy/issues/631
    """

    name = "gpu-busy"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/NVIDIA/DIGITS/issues/2005"
    symptoms = (
        Symptom(
            pattern=r"all (?:CUDA|cuda)-capable devices are busy or unavailable",
            example="RuntimeError: CUDA error: all CUDA-capable devices are busy or unavailable",
            counter_example="CUDA error: out of memory",
        ),
        Symptom(
            pattern=r"CUDA-capable device(?:\(s\))? is/are busy or unavailable",
            example="RuntimeError: CUDA error: CUDA-capable device(s) is/are busy or unavailable",
            counter_example="CUDA error: out of memory",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_DEVICE_UNAVAILABLE|cudaErrorDevicesUnavailable|"
            r"cudaErrorDeviceAlreadyInUse|CUDA error: exclusive-thread device already in "
            r"use",
            example="CUDA_ERROR_DEVICE_UNAVAILABLE: CUDA-capable device(s) is/are busy or unavailable",
            counter_example="CUDA_ERROR_OUT_OF_MEMORY",
        ),
        Symptom(
            pattern=r"NVMLError_InUse|CUDA error: MPS (?:server is not ready to accept new|"
            r"client failed to connect to the MPS)|CUDA error: the remote procedural "
            r"call between the MPS",
            example="RuntimeError: CUDA error: MPS client failed to connect to the MPS control "
            "daemon or the MPS server",
            counter_example="Started MPS control daemon",
            cause="CUDA's multi-process service does not accept this process",
            fixes=(remedy("stop the service, or start it anew", "echo quit | nvidia-cuda-mps-control"),),
        ),
    )
    remedies = (
        remedy(
            "see who holds the GPUs, and their compute mode",
            "nvidia-smi --query-gpu=index,compute_mode,mig.mode.current --format=csv && nvidia-smi "
            "--query-compute-apps=pid,gpu_uuid,used_memory --format=csv",
        ),
        remedy("use one that is free", "export CUDA_VISIBLE_DEVICES=1", "environment"),
        remedy("allow more than one process again", "sudo nvidia-smi -c DEFAULT"),
    )
