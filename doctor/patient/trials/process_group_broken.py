"""An all-reduce between processes of this node, with the variables that are set, and with none of them.

settings: {"backend": "gloo"} or {"backend": "nccl", "gpus": [UUID, ...]}
"""

import os
import socket
from typing import Any, Dict, List

from llm_doctor.patient import all_reduce
from llm_doctor.patient.arms import Failed, device

LIMIT_S = {"gloo": 8.0, "nccl": 25.0}
"""A healthy all-reduce takes 0.1 s over gloo; NCCL's ranks import torch and make their contexts first."""
LOOPBACK = "127.0.0.1"
REMEDIES: Dict[str, List[Dict[str, str]]] = {
    "gloo": [{"GLOO_SOCKET_IFNAME": "lo"}],
    "nccl": [
        {"NCCL_SOCKET_IFNAME": "lo"},
        {"NCCL_P2P_DISABLE": "1"},
        {"NCCL_SHM_DISABLE": "1"},
        {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1"},
    ],
}


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """gloo by the loopback address and by the node's own name, as torchrun's agents meet; NCCL on GPUs."""
    if settings["backend"] == "nccl":
        return [{"backend": "nccl", "meeting": "loopback", "ranks": len(settings["gpus"])}]
    return [{"backend": "gloo", "meeting": meeting, "ranks": 2} for meeting in ("loopback", "own-name")]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The environment as it is."""
    host = socket.gethostname() if combination["meeting"] == "own-name" else LOOPBACK
    return _tried(settings, combination, host)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Without the variables of the backend, at the loopback address, with the first remedy that helps."""
    backend = combination["backend"]
    cleaned = [name for name in os.environ if name.startswith(backend.upper() + "_")]
    for name in cleaned:
        del os.environ[name]
    failures = []
    for remedy in REMEDIES[backend]:
        os.environ.update(remedy)
        try:
            return dict(_tried(settings, combination, LOOPBACK), remedy=remedy, without=sorted(cleaned))
        except Failed as failure:
            failures.append(failure)
        for name in remedy:
            del os.environ[name]
    raise failures[0]


def _tried(settings: Dict[str, Any], combination: Dict[str, Any], host: str) -> Dict[str, Any]:
    backend, gpus = combination["backend"], settings.get("gpus")
    if gpus:
        import torch

        if device() != "cuda":
            raise RuntimeError("torch cannot use the GPU")
        torch.cuda.init()
    outcome = all_reduce.attempt(backend, host, combination["ranks"], LIMIT_S[backend], gpus)
    measured: Dict[str, Any] = {
        "seconds": round(outcome.seconds, 3),
        "steps": [outcome.steps[rank] for rank in sorted(outcome.steps)],
    }
    if outcome.error:
        measured["reason"] = all_reduce.why(backend, host, outcome)
        last = [line for line in outcome.output.splitlines() if line.strip()][-3:]
        raise Failed(outcome.error, dict(measured, last_output=last))
    return measured
