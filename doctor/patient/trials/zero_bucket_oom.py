"""ZeRO's gradient buckets, allocated on this GPU beside its CUDA context, as DeepSpeed allocates them."""

import os
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, device

GENTLE_BYTES = 256 << 20
"""At most so many bytes are taken without --deep."""
BYTES_PER_ELEMENT = 2  # float16 or bfloat16


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each stage, without and with overlap_comm where that makes a difference: the check names them."""
    return [dict(case) for case in settings["cases"]]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Buckets of the installed DeepSpeed's default size."""
    return _allocated(settings, combination, combination["elements"])


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Buckets of the size that the fix names."""
    return _allocated(settings, combination, settings["smaller_elements"])


def _allocated(settings: Dict[str, Any], combination: Dict[str, Any], elements: int) -> Dict[str, Any]:
    import torch

    if device() != "cuda":
        raise RuntimeError("torch cannot use this GPU")
    held = torch.zeros(1, device="cuda")  # the context is complete with the first allocation
    free, total = torch.cuda.mem_get_info()
    free_before = settings["free_bytes"][os.environ["LLM_DOCTOR_GPU"]]
    wanted = combination["buckets"] * elements * BYTES_PER_ELEMENT
    measured = {
        "memory_total_bytes": total,
        "memory_free_bytes": free,
        "context_bytes": free_before - free - torch.cuda.memory_reserved(),
        "bucket_bytes": wanted,
    }
    if wanted > free:
        raise Failed("buckets of %d bytes do not fit into %d free ones" % (wanted, free), measured)
    tried = elements
    if not settings["deep"]:
        tried = min(elements, GENTLE_BYTES // BYTES_PER_ELEMENT // combination["buckets"])
    before = torch.cuda.memory_allocated()
    buckets = [torch.empty(tried, dtype=torch.float16, device="cuda") for _ in range(combination["buckets"])]
    measured["tried_bytes"] = combination["buckets"] * tried * BYTES_PER_ELEMENT
    measured["allocated_bytes"] = torch.cuda.memory_allocated() - before
    del buckets, held
    torch.cuda.empty_cache()
    if measured["allocated_bytes"] > 1.01 * measured["tried_bytes"] + 4096:
        raise Failed("%(tried_bytes)d bytes took %(allocated_bytes)d" % measured, measured)
    return measured
