"""One product through bitsandbytes' 8-bit linear layer, held against float32, beside an ordinary layer."""

import time
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, device

LARGEST_ERROR = 0.05
"""Of eight bits for a row's weights and its inputs some 1 % is lost; noise is far above this."""


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """float16 inputs, as LLM.int8() takes them."""
    return [{"inputs": "float16"}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Linear8bitLt, as transformers puts it in the place of every linear layer."""
    import torch
    from bitsandbytes.nn import Linear8bitLt

    return _measured(Linear8bitLt(_size(), _size(), has_fp16_weights=False, threshold=6.0), torch.int8)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same layer, not quantised: in float16 on a GPU, in float32 on a CPU, which may have no float16."""
    import torch

    dtype = torch.float16 if device() == "cuda" else torch.float32
    return _measured(torch.nn.Linear(_size(), _size()).to(dtype), dtype)


def _size() -> int:
    return 4096 if device() == "cuda" else 256


def _measured(layer: Any, dtype: Any) -> Dict[str, Any]:
    import torch

    where = device()
    torch.manual_seed(0)
    weight = torch.randn(_size(), _size()) / _size() ** 0.5
    inputs = torch.randn(64, _size())
    exact = inputs @ weight.t()
    with torch.no_grad():
        layer.weight.data.copy_(weight)
        layer.bias.data.zero_()
    layer = layer.to(where)  # here bitsandbytes quantises
    given = inputs.to(where).to(torch.float16 if dtype == torch.int8 else dtype)
    seconds = []
    with torch.no_grad():
        for _ in range(3):
            began = time.perf_counter()
            result = layer(given)
            if where == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    measured = {
        "weight_dtype": str(layer.weight.dtype).rpartition(".")[2],
        "weight_bytes": layer.weight.numel() * layer.weight.element_size(),
        "relative_error": float((result.float().cpu() - exact).abs().max() / exact.abs().max()),
        "seconds": round(min(seconds), 6),
    }
    if layer.weight.dtype != dtype:
        raise Failed("nothing was quantised: the weight is %s" % measured["weight_dtype"], measured)
    if not measured["relative_error"] <= LARGEST_ERROR:  # NaN too
        raise Failed("the product is wrong by %.2g" % measured["relative_error"], measured)
    return measured
