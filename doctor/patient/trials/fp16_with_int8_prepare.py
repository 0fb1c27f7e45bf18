"""What peft's prepare call does to a float16 model that is not quantised."""

from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, checkpointing_method, tiny_llama

FUNCTIONS = ("prepare_model_for_int8_training", "prepare_model_for_kbit_training")


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each of the two names that the installed peft has."""
    import peft

    return [{"function": name} for name in FUNCTIONS if hasattr(peft, name)]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The prepare call on a model that was loaded in float16."""
    import peft

    model = tiny_llama().half()
    before = _bytes(model)
    getattr(peft, combination["function"])(model)
    return _measured(model, before)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same by hand, without the cast: frozen, checkpointed, inputs that need a gradient."""
    model = tiny_llama().half()
    before = _bytes(model)
    for parameter in model.parameters():
        parameter.requires_grad = False
    checkpointing_method(model)()
    model.enable_input_require_grads()
    return _measured(model, before)


def _measured(model: Any, before: int) -> Dict[str, Any]:
    after = _bytes(model)
    measured = {
        "parameter_bytes_before": before,
        "parameter_bytes_after": after,
        "dtypes": sorted({str(parameter.dtype).rpartition(".")[2] for parameter in model.parameters()}),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }
    if measured["trainable_parameters"]:
        raise Failed("the base model is still trainable", measured)
    if after > 1.5 * before:
        raise Failed("the parameters grew from %d to %d bytes" % (before, after), measured)
    return measured


def _bytes(model: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
