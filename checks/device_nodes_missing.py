"""The GPU's device nodes are not there or not permitted, though the driver is."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeviceNodesMissing(Check):
    """The GPU's device nodes are not there or not permitted, though the driver is.

    ## What it finds

    In a log: the "CUDA unknown error" of torch and "Unknown Error" or "Insufficient Permissions" of
    NVML.

    ## Why it breaks

    CUDA opens /dev/nvidia0, /dev/nvidiactl and /dev/nvidia-uvm. The last is made when the module
    nvidia_uvm is loaded. In a container they vanish when systemd reloads its units and rewrites the
    device rules; after suspend the module is stale.

    ## How it is proven

    By the log alone.

    ## Fix

    Load nvidia_uvm, or start the container anew with its devices.

    ## References

    - https://github.com/NVIDIA/nvidia-container-toolkit/issues/48
    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    """

    name = "device-nodes-missing"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/NVIDIA/nvidia-container-toolkit/issues/48"
    symptoms = (
        Symptom(
            pattern=r"CUDA unknown error - this may be due to an incorrectly set up environment",
            example="RuntimeError: CUDA unknown error - this may be due to an incorrectly set up "
            "environment, e.g. changing env variable CUDA_VISIBLE_DEVICES after program "
            "start. Setting the available devices to be zero.",
            counter_example="RuntimeError: CUDA error: unknown error",
            cause="CUDA cannot be initialised (error 999): mostly /dev/nvidia-uvm is missing or "
            "its module is stale",
            sure="likely",
        ),
        Symptom(
            pattern=r"Failed to initialize NVML: (?P<why>Unknown Error|Insufficient Permissions|"
            r"GPU access blocked by the operating system)",
            example="Failed to initialize NVML: Unknown Error",
            counter_example="Failed to initialize NVML: Driver/library version mismatch",
            cause="The driver does not let this process see a GPU: {why}",
        ),
        Symptom(
            pattern=r"NVMLError_NoPermission: Insufficient Permissions",
            example="pynvml.NVMLError_NoPermission: Insufficient Permissions",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data'",
        ),
        Symptom(
            pattern=r"(?P<node>/dev/nvidia(?:\d{1,2}|ctl|-uvm|-uvm-tools|-modeset|"
            r"-caps/\S{1,20}))`?: (?:No such file or directory|no such file or directory|"
            r"Operation not permitted|Permission denied|Input/output error)",
            example="ls: cannot access '/dev/nvidia-uvm': No such file or directory",
            counter_example="crw-rw-rw- 1 root root 195, 0 /dev/nvidia0",
            cause="The device node {node} is missing or not permitted",
        ),
        Symptom(
            pattern=r"(?:No such file or directory|Permission denied|Operation not permitted): "
            r"`(?P<node>/dev/nvidia[\w/-]{1,30})",
            example="FileNotFoundError: [Errno 2] No such file or directory: '/dev/nvidiactl'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: '/dev/shm/x'",
            cause="The device node {node} is missing or not permitted",
        ),
        Symptom(
            pattern=r"CUDA error: OS call failed or operation not supported on this OS|"
            r"CUDA_ERROR_OPERATING_SYSTEM\b",
            example="RuntimeError: CUDA error: OS call failed or operation not supported on this OS",
            counter_example="CUDA error: operation not supported",
            cause="A call of the operating system failed for CUDA (error 304): mostly a device "
            "node that the container must not open",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA error: unknown error",
            example="RuntimeError: CUDA error: unknown error",
            counter_example="CUDA unknown error - this may be due",
            cause='CUDA says "unknown error" (999): the driver\'s modules are stale or the GPU is not well',
            standing="aftermath",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "load the module and make its node", "sudo modprobe nvidia_uvm && sudo nvidia-modprobe -u -c=0"
        ),
        remedy("after suspend: load it anew", "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm"),
        remedy(
            "in a container: start it anew, with its devices named or through CDI",
            "docker run --gpus all --device /dev/nvidia0 --device /dev/nvidiactl --device "
            "/dev/nvidia-uvm ...",
        ),
        remedy(
            "and so that it does not come back",
            "sudo nvidia-ctk system create-dev-char-symlinks --create-all",
        ),
    )
