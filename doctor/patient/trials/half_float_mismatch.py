"""A float16 tensor meets a float32 one: in a linear layer, in LoRA adapters, behind layer norms."""

import contextlib
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, autocast, device, tiny_batch, tiny_llama

SITUATIONS = ("fp16-weights-fp32-input", "fp32-adapters-fp16-base", "fp32-norms-after-prepare")


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Every situation, without and under torch.autocast for the device."""
    return [
        {"situation": situation, "autocast": under} for situation in SITUATIONS for under in (False, True)
    ]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The dtypes as they meet."""
    return _forward(combination, match_dtypes=False)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same with one dtype on both sides."""
    return _forward(combination, match_dtypes=True)


def _forward(combination: Dict[str, Any], match_dtypes: bool) -> Dict[str, Any]:
    import torch

    where = device()
    prepare = {
        "fp16-weights-fp32-input": _linear,
        "fp32-adapters-fp16-base": _adapters,
        "fp32-norms-after-prepare": _norms,
    }[combination["situation"]]
    forward, dtypes = prepare(where, match_dtypes)
    mixed = len(dtypes) > 1
    if mixed is match_dtypes:
        raise RuntimeError("the situation could not be made: dtypes are %s" % sorted(dtypes))
    measured: Dict[str, Any] = {"dtypes": sorted(dtypes)}
    with contextlib.ExitStack() as stack:
        if combination["autocast"]:
            measured["autocast_dtype"] = stack.enter_context(autocast(where))
        output = forward()
    if not bool(torch.isfinite(output.float()).all()):
        raise Failed("the output is not finite", measured)
    measured["output_dtype"] = _name(output.dtype)
    return measured


def _linear(where: str, match_dtypes: bool) -> Any:
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64).to(where).half()
    tokens = torch.randn(8, 64, device=where)
    if match_dtypes:
        tokens = tokens.to(layer.weight.dtype)
    return lambda: layer(tokens), {_name(tokens.dtype), _name(layer.weight.dtype)}


def _adapters(where: str, match_dtypes: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    model = get_peft_model(tiny_llama().to(where).half(), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.half() if match_dtypes else parameter.data.float()
    return lambda: model(**tiny_batch(where)).logits, _parameter_dtypes(model)


def _norms(where: str, match_dtypes: bool) -> Any:
    # The prepare call casts whatever is not quantised to float32. Called here on the layer norms
    # alone: the float16 linear layers stand for those that it leaves alone in a quantised model.
    import peft
    import torch

    prepare = getattr(peft, "prepare_model_for_kbit_training", None)
    prepare = prepare or peft.prepare_model_for_int8_training
    model = tiny_llama().to(where).half()
    norms = torch.nn.ModuleList(m for n, m in model.named_modules() if n.endswith("norm"))
    prepare(norms, use_gradient_checkpointing=False)
    if match_dtypes:
        norms.half()
    return lambda: model(**tiny_batch(where)).logits, _parameter_dtypes(model)


def _parameter_dtypes(model: Any) -> Any:
    return {_name(parameter.dtype) for parameter in model.parameters()}


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
