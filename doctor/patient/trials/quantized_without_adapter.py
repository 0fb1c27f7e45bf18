"""A tiny Llama in 8 bits given to Trainer, as it is and with LoRA on it."""

import tempfile
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, device, tiny_llama_in_8_bits, with_lora


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Eight bits stand for four, which a CPU of some releases cannot do."""
    return [{}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The model as it was loaded."""
    return _trained(lora=False)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With adapters."""
    return _trained(lora=True)


def _trained(lora: bool) -> Dict[str, Any]:
    import torch
    from transformers import BitsAndBytesConfig, Trainer, TrainingArguments

    model = tiny_llama_in_8_bits(
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": 0 if device() == "cuda" else "cpu"},
    )
    quantized = sum(parameter.dtype == torch.int8 for parameter in model.parameters())
    if not quantized:
        raise RuntimeError("nothing was quantised on this device: no parameter is int8")
    if lora:
        model = with_lora(model)
    with tempfile.TemporaryDirectory() as folder:
        Trainer(model=model, args=TrainingArguments(folder, report_to=[]))
    trainable = sum(
        parameter.requires_grad for name, parameter in model.named_parameters() if "_proj" in name
    )
    measured = {"int8_parameters": quantized, "trainable_in_linear_layers": trainable}
    if not trainable:
        raise Failed("Trainer takes it, and no weight of a linear layer can be trained", measured)
    return measured
