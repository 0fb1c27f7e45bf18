"""A ZeRO engine of one process on the CPU: how many reduce buckets does it hold during backward?

Needs some seconds, so it runs with --deep alone. What DeepSpeed allocates is seen by watching torch.empty,
whatever this release calls its attributes."""

import os
import sys
import tempfile
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed

BUCKET_ELEMENTS = 1000003  # an odd number: nothing else has just this size
WIDTH, LAYERS = 512, 6  # one and a half buckets of gradients


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Every stage that has gradient buckets. Raises where this DeepSpeed has no engine for a CPU."""
    from deepspeed.accelerator import get_accelerator

    name = get_accelerator().device_name()
    if name != "cpu":
        raise RuntimeError("this DeepSpeed has no engine for a CPU: it takes %s for its accelerator" % name)
    return [{"stage": stage} for stage in (1, 2, 3)]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With overlap_comm, which is said to double the buckets, or to take 4.5 times their size."""
    return _trained(combination["stage"], overlap_comm=True)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Without."""
    return _trained(combination["stage"], overlap_comm=False)


def _trained(stage: int, overlap_comm: bool) -> Dict[str, Any]:
    import torch
    from torch.multiprocessing.reductions import StorageWeakRef

    alive: List[Any] = []
    empty = torch.empty

    def watched(*arguments: Any, **keywords: Any) -> Any:
        tensor = empty(*arguments, **keywords)
        if type(tensor) is torch.Tensor and tensor.numel() == BUCKET_ELEMENTS:
            has_new_name = hasattr(tensor, "untyped_storage")
            alive.append(StorageWeakRef(tensor.untyped_storage() if has_new_name else tensor.storage()))
        return tensor

    most = [0]

    def look(gradient: Any) -> None:
        most[0] = max(most[0], sum(not reference.expired() for reference in alive))

    torch.empty = watched
    try:
        engine = _engine(stage, overlap_comm, look)
        inputs = torch.ones(1, WIDTH, dtype=torch.bfloat16)
        engine.backward(engine(inputs).float().sum())
    finally:
        torch.empty = empty
    measured = {
        "reduce_bucket_elements": BUCKET_ELEMENTS,
        "buckets_held": most[0],
        "bucket_bytes": most[0] * BUCKET_ELEMENTS * 2,
    }
    if most[0] > 1:
        raise Failed("%d reduce buckets are held during backward" % most[0], measured)
    return measured


def _engine(stage: int, overlap_comm: bool, look: Any) -> Any:
    import deepspeed
    import torch

    os.environ.update(RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
    # A file instead of a port: nothing listens on the network.
    meeting = "file://" + os.path.join(tempfile.mkdtemp(), "meeting")
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    shared_memory = sys.modules.get("deepspeed.comm.torch")
    if hasattr(shared_memory, "build_shm_op"):
        # An operator for several ranks on one machine: 40 s of compiling, and 69 MB left in /dev/shm.
        shared_memory.build_shm_op = lambda: None  # type: ignore[union-attr]
    torch.manual_seed(0)
    model = torch.nn.Sequential(*[torch.nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])
    for layer in model:
        layer.register_forward_hook(lambda layer, inputs, output: output.register_hook(look) and None)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "bf16": {"enabled": True},
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "reduce_bucket_size": BUCKET_ELEMENTS,
            "overlap_comm": overlap_comm,
        },
    }
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config)[0]
