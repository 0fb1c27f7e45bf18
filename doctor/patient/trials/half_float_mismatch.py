"""A float16 tensor meets a float32 one: in a linear layer, in LoRA adapters, in a prepared 8-bit model."""

import contextlib
from typing import Any, Dict, List

from llm_doctor.patient.arms import (
    Failed,
    autocast,
    device,
    tiny_batch,
    tiny_llama,
    tiny_llama_in_8_bits,
    with_lora,
)

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
    situation = {
        "fp16-weights-fp32-input": _linear,
        "fp32-adapters-fp16-base": _adapters,
        "fp32-norms-after-prepare": _prepared,
    }[combination["situation"]]
    forward, dtypes = situation(where, match_dtypes)
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
    model = with_lora(tiny_llama().to(where).half())
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.half() if match_dtypes else parameter.data.float()
    return lambda: model(**tiny_batch(where)).logits, _parameter_dtypes(model)


def _prepared(where: str, match_dtypes: bool) -> Any:
    # The real thing: loaded in 8 bits with the rest in float16, then prepared as QLoRA scripts do.
    import peft
    import torch

    prepare = getattr(peft, "prepare_model_for_kbit_training", None)
    prepare = prepare or peft.prepare_model_for_int8_training
    from transformers import BitsAndBytesConfig

    quantised = BitsAndBytesConfig(load_in_8bit=True)
    model = tiny_llama_in_8_bits(quantization_config=quantised, device_map={"": where})
    if not any(parameter.dtype == torch.int8 for parameter in model.parameters()):
        raise RuntimeError("nothing was quantised on this device, so there is nothing to mix")
    prepare(model, use_gradient_checkpointing=False)
    if match_dtypes:
        for parameter in model.parameters():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.half()
    return lambda: model(**tiny_batch(where)).logits, _parameter_dtypes(model)


def _parameter_dtypes(model: Any) -> Any:
    return {_name(parameter.dtype) for parameter in model.parameters()}


def _name(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]
