"""Does one of torch's own kernels run on this GPU, and is its result right? The same on the CPU."""

from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed

SIZE = 4096


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """One sum."""
    return [{"operation": "sum"}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """On the GPU of this lane; where torch cannot use it, torch says why."""
    return _summed("cuda")


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """On the CPU."""
    return _summed("cpu")


def _summed(where: str) -> Dict[str, Any]:
    import torch

    # float32 holds every number and sum here exactly.
    ones = torch.ones(SIZE, dtype=torch.float32, device=where)
    total = float((ones * 2 + 1).sum())
    measured: Dict[str, Any] = {"sum": total}
    if where == "cuda":
        measured["compute_capability"] = "%d.%d" % torch.cuda.get_device_capability()
    if total != 3 * SIZE:
        raise Failed("a sum of %d numbers is %r on %s, not %d" % (SIZE, total, where, 3 * SIZE), measured)
    return measured
