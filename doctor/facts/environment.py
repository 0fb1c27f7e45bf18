"""The environment variables of CUDA, NCCL, torch, Hugging Face, DeepSpeed, SLURM and OpenMP that are set."""

from __future__ import annotations

from llm_doctor.host import Host
from llm_doctor.model import Environment

SOURCE = "the doctor's own environment, by an allow list"


def read(host: Host) -> Environment:
    """Those that are set, by name."""
    return Environment(variables=host.environment())
