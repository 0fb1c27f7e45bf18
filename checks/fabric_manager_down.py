"""The GPUs hang on NVSwitch and the fabric manager does not run, so CUDA cannot start."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class FabricManagerDown(Check):
    """The GPUs hang on NVSwitch and the fabric manager does not run, so CUDA cannot start.

    ## What it finds

    In a log: CUDA error 802, "system not yet initialized", and what the fabric manager says itself.

    ## Why it breaks

    On HGX and DGX machines the service nvidia-fabricmanager programs the NVSwitches at start. Until
    then nvidia-smi works and every CUDA call fails. It starts only when its version is exactly the
    driver's.

    ## How it is proven

    By the log alone.

    ## Fix

    Start the service; install the package of the driver's version.

    ## References

    - https://github.com/pytorch/pytorch/issues/35710
    - https://github.com/hiyouga/LlamaFactory/issues/7888
    - https://ai-infrastructure.net/fabric-manager/
    """

    name = "fabric-manager-down"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/issues/35710"
    symptoms = (
        Symptom(
            pattern=r"[Ss]ystem not yet initialized",
            example="RuntimeError: cuda runtime error (802) : system not yet initialized",
            counter_example="Default process group has not been initialized",
            cause='CUDA says "system not yet initialized" (802): the NVSwitches are not set up, '
            "nvidia-fabricmanager does not run",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_SYSTEM_NOT_READY|cudaErrorSystemNotReady",
            example="CUDA_ERROR_SYSTEM_NOT_READY",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"fabric manager NVIDIA GPU driver interface version "
            r"(?P<manager>[\d.]{5,20}) don't match with driver version "
            r"(?P<driver>[\d.]*\d)",
            example="fabric manager NVIDIA GPU driver interface version 535.104.05 don't match "
            "with driver version 535.129.03. Please update with matching NVIDIA driver "
            "package.",
            counter_example="Fabric Manager version is 535.129.03",
            cause="The fabric manager is {manager} and the driver {driver}: they have to be of one version",
        ),
        Symptom(
            pattern=r"[Nn]vidia-fabricmanager\.service: (?:Failed with result|Control process "
            r"exited)",
            example="nvidia-fabricmanager.service: Failed with result 'exit-code'.",
            counter_example="Started nvidia-fabricmanager.service",
            cause="The service nvidia-fabricmanager failed",
        ),
    )
    remedies = (
        remedy("start the service, now and at boot", "sudo systemctl enable --now nvidia-fabricmanager"),
        remedy(
            "where it refuses, install the one of the driver's very version",
            "sudo apt-get install nvidia-fabricmanager-$(cut -d. -f1 "
            "/sys/module/nvidia/version)=$(cat /sys/module/nvidia/version)-1",
        ),
        remedy(
            "in a virtual machine the service runs on the host: pass the GPUs on with their "
            "NVSwitches, or one GPU without NVLink"
        ),
    )
