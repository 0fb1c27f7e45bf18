"""NVIDIA driver and GPUs through NVML (nvidia-ml-py), asked in a child with a time limit."""

from __future__ import annotations

import msgspec

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Gpus

SOURCE = "NVML"
_FORBIDDEN = "Insufficient Permissions"
"""nvmlDeviceGetCount_v2 counts every GPU of the node, "even if nvmlDeviceGetHandleByIndex_v2 returns
NVML_ERROR_NO_PERMISSION for such device" (nvml.h): those that the job's cgroup keeps from it. CUDA does not
see them, and counts the others from 0: https://github.com/guilbaults/slurm-job-exporter/issues/63"""


def read(host: Host) -> Gpus:
    """Driver and the GPUs that this process may use. Raises Unavailable where there is no driver, or NVML
    refuses."""
    try:
        found = msgspec.convert(host.nvml(), Gpus)
    except msgspec.ValidationError as error:
        raise Unavailable(f"NVML answered something unreadable: {error}") from error
    allowed = tuple(gpu for gpu in found.gpus if gpu.problem != _FORBIDDEN)
    return msgspec.structs.replace(found, gpus=allowed)
