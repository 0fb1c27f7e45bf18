"""A tiny Llama loaded in 8 bits, without a device_map and with one, then one forward pass."""

import inspect
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, device, tiny_batch, tiny_llama_in_8_bits

KEYWORD, CONFIG = "load_in_8bit=True", "quantization_config"


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each interface that the installed transformers has."""
    from transformers import PreTrainedModel

    # Keyword arguments are in no signature: the release that takes this one names it in its source.
    takes_keyword = "load_in_8bit" in inspect.getsource(PreTrainedModel.from_pretrained)
    return [{"interface": name} for name in ((KEYWORD, CONFIG) if takes_keyword else (CONFIG,))]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Without a device_map."""
    return _loaded(combination)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With everything mapped to the device of this process."""
    return _loaded(combination, device_map={"": 0 if device() == "cuda" else "cpu"})


def _loaded(combination: Dict[str, Any], **device_map: Any) -> Dict[str, Any]:
    import torch

    if combination["interface"] == KEYWORD:
        how: Dict[str, Any] = {"load_in_8bit": True}
    else:
        from transformers import BitsAndBytesConfig

        how = {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    where = device()
    model = tiny_llama_in_8_bits(**how, **device_map)
    parameters = list(model.parameters())
    measured = {
        "int8_parameters": sum(parameter.dtype == torch.int8 for parameter in parameters),
        "parameter_bytes": sum(p.numel() * p.element_size() for p in parameters),
        "float16_bytes": sum(2 * parameter.numel() for parameter in parameters),
        "devices": sorted({str(parameter.device) for parameter in parameters}),
    }
    if not measured["int8_parameters"]:
        raise Failed("nothing was quantised: no parameter is int8", measured)
    if not all(parameter.device.type == where for parameter in parameters):
        raise Failed("the weights are on %s" % ", ".join(measured["devices"]), measured)
    logits = model(**tiny_batch(where)).logits
    if not bool(torch.isfinite(logits.float()).all()):
        raise Failed("the output is not finite", measured)
    return measured
