"""Which GPUs the installed torch was compiled for, asked of torch without touching a GPU."""

from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """`architectures` as `torch.cuda.get_arch_list()` has them (`sm_70`, `compute_90`); None where torch has
    no CUDA.

    That function answers nothing where CUDA cannot start, and starts it to know: what it asks is asked here
    (torch/cuda/__init__.py of torch 1.12 and 2.13)."""
    import torch

    flags = getattr(torch._C, "_cuda_getArchFlags", None)
    said = flags() if flags is not None else None
    return {"architectures": None if said is None else str(said).split()}
