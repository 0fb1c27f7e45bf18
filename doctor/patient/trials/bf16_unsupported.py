"""bfloat16 on one device: is its product exact enough and as fast as float16's, and does a training step run?

Without a GPU the same on the CPU, at sizes that cost milliseconds; there only exactness is judged."""

import contextlib
import time
from typing import Any, Dict, List, Tuple

from llm_doctor.patient.arms import Failed, accepts, device

# Rounding of the result alone: 2^-9 in bfloat16, 2^-12 in float16, with room for how the sums were cut.
LARGEST_ERROR = {"bfloat16": 2.0**-6, "float16": 2.0**-9, "float32": 2.0**-9}


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """A matrix product, and a training step under autocast."""
    return [{"operation": "product"}, {"operation": "autocast-step"}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """In bfloat16."""
    return _tried(combination, "bfloat16")


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """In float16; on a CPU, where that is the slow one, in float32."""
    return _tried(combination, "float16" if device() == "cuda" else "float32")


def _tried(combination: Dict[str, Any], dtype: str) -> Dict[str, Any]:
    return _product(dtype) if combination["operation"] == "product" else _step(dtype)


def _product(dtype: str) -> Dict[str, Any]:
    where = device()
    size = 4096 if where == "cuda" else 256
    measured: Dict[str, Any] = {"size": size, "relative_error": _relative_error(where, dtype)}
    against = ("float16",) if dtype == "bfloat16" and where == "cuda" else ()
    measured.update(_tflops(where, (dtype, *against), size))
    if dtype == "bfloat16":
        measured["torch_says"] = _torch_says()
        measured.update(_float16_on_cpu() if where == "cpu" else {})
    if not measured["relative_error"] <= LARGEST_ERROR[dtype]:  # NaN too
        raise Failed("a %s product is wrong by %.2g" % (dtype, measured["relative_error"]), measured)
    if against:
        ours, theirs = measured["bfloat16_tflops_per_s"], measured["float16_tflops_per_s"]
        if ours < 0.5 * theirs:
            text = "bfloat16 products run at %.3g TFLOP/s, float16 ones at %.3g" % (ours, theirs)
            raise Failed(text, measured)
    return measured


def _float16_on_cpu() -> Dict[str, Any]:
    """For comparison alone: many a CPU is slow in it, and torch before 2.1 has no kernel."""
    try:
        error = _relative_error("cpu", "float16")
        return dict(_tflops("cpu", ("float16",), 128), float16_relative_error=error)
    except RuntimeError as error:
        return {"float16_error": str(error)}


def _matrices(where: str, dtype: str, size: int) -> Tuple[Any, Any]:
    import torch

    torch.manual_seed(0)
    pair = [torch.randn(size, size, dtype=torch.float32) for _ in range(2)]
    left, right = [matrix.to(getattr(torch, dtype)).to(where) for matrix in pair]
    return left, right


def _relative_error(where: str, dtype: str) -> float:
    """Largest error of a 256 x 256 product against the same in float64 on the CPU, by its largest number."""
    left, right = _matrices(where, dtype, 256)
    exact = left.cpu().double() @ right.cpu().double()
    return float(((left @ right).cpu().double() - exact).abs().max() / exact.abs().max())


def _tflops(where: str, dtypes: Tuple[str, ...], size: int) -> Dict[str, float]:
    """The best rate of several rounds, the dtypes by turns: a GPU takes a while to raise its clock."""
    import torch

    pairs = {dtype: _matrices(where, dtype, size) for dtype in dtypes}
    best = dict.fromkeys(dtypes, float("inf"))
    products = 10 if where == "cuda" else 1
    began = time.perf_counter()
    rounds = 0
    while rounds < 4 or (where == "cuda" and time.perf_counter() - began < 0.2 and rounds < 200):
        rounds += 1
        for dtype, (left, right) in pairs.items():
            started = time.perf_counter()
            for _ in range(products):
                left @ right
            if where == "cuda":
                torch.cuda.synchronize()
            best[dtype] = min(best[dtype], (time.perf_counter() - started) / products)
    return {"%s_tflops_per_s" % d: float("%.4g" % (2e-12 * size**3 / s)) for d, s in best.items()}


def _torch_says() -> Dict[str, Any]:
    """What torch.cuda.is_bf16_supported() answers, and, where it can be asked so, without emulation."""
    import torch

    supported = torch.cuda.is_bf16_supported
    says: Dict[str, Any] = {}
    try:
        says["is_bf16_supported"] = supported()
        if accepts(supported, "including_emulation"):
            says["native"] = supported(including_emulation=False)
    except Exception as error:  # without a driver torch before 2.9 raises
        says["error"] = str(error).strip().partition("\n")[0]
    return says


def _step(dtype: str) -> Dict[str, Any]:
    import torch

    where = device()
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)).to(where)
    inputs = torch.randn(16, 64, device=where)
    targets = torch.arange(16, device=where) % 8
    exact = float(torch.nn.functional.cross_entropy(model(inputs), targets))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    mixed = dtype != "float32"  # one small step needs no loss scale
    with torch.autocast(where, dtype=getattr(torch, dtype)) if mixed else contextlib.nullcontext():
        outputs = model(inputs)
        loss = torch.nn.functional.cross_entropy(outputs.float(), targets)
    loss.backward()
    optimizer.step()
    measured: Dict[str, Any] = {
        "loss": float(loss),
        "float32_loss": exact,
        "output_dtype": str(outputs.dtype).rpartition(".")[2],
        "tensors_changed": sum(not torch.equal(a, b) for a, b in zip(before, model.parameters())),
    }
    if not abs(measured["loss"] - exact) <= 0.02 * exact:
        raise Failed("the loss is %.4g, in float32 %.4g" % (measured["loss"], exact), measured)
    if measured["output_dtype"] != dtype:
        raise Failed("autocast computed in %s" % measured["output_dtype"], measured)
    if not measured["tensors_changed"]:
        raise Failed("no weight changed", measured)
    return measured
