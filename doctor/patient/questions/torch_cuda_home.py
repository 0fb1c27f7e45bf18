"""The CUDA home that the installed torch computes, its CUDA version, and whether it can use a GPU."""

from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """`cuda_home` is None when torch was built without CUDA, or there is no toolkit."""
    import torch
    from torch.utils import cpp_extension

    return {
        "cuda_home": cpp_extension.CUDA_HOME,
        "torch_cuda": torch.version.cuda,
        "cuda_is_available": torch.cuda.is_available(),
    }
