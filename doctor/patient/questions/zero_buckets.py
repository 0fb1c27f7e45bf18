"""What the installed DeepSpeed takes for granted of ZeRO's buckets, asked of its own configuration class."""

import inspect
from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Per stage the defaults, with sizes in elements, and whether stage 1 uses buckets at all."""
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    stages = {}
    for stage in (1, 2, 3):
        config = DeepSpeedZeroConfig(stage=stage)
        stages[str(stage)] = {
            "reduce_bucket_elements": int(config.reduce_bucket_size),
            "allgather_bucket_elements": int(config.allgather_bucket_size),
            "overlap_comm": bool(config.overlap_comm),
            "contiguous_gradients": bool(config.contiguous_gradients),
        }
    # To 0.12 the engine turns contiguous gradients off in stage 1, and no bucket is ever filled there.
    source = inspect.getsource(DeepSpeedEngine._configure_zero_optimizer)
    return {"stages": stages, "stage_1_has_buckets": "contiguous_gradients = False" not in source}
