"""NVIDIA driver and GPUs through NVML (nvidia-ml-py), asked in a child with a time limit."""

from __future__ import annotations

import msgspec

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Gpus

SOURCE = "NVML"


def read(host: Host) -> Gpus:
    """Driver and GPUs. Raises Unavailable where there is no driver, or NVML refuses."""
    try:
        return msgspec.convert(host.nvml(), Gpus)
    except msgspec.ValidationError as error:
        raise Unavailable(f"NVML answered something unreadable: {error}") from error
