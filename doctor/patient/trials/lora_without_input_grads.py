"""One backward pass of LoRA on a frozen tiny Llama under activation checkpointing."""

from typing import Any, Dict, List

from llm_doctor.patient.arms import (
    Failed,
    accepts,
    checkpointing_method,
    device,
    tiny_batch,
    tiny_llama,
    with_lora,
)


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Checkpointing before or after wrapping, reentrant or not where this version knows it."""
    knows_reentrant = accepts(checkpointing_method(tiny_llama()), "gradient_checkpointing_kwargs")
    return [
        {"order": order, "use_reentrant": reentrant, "modules_to_save": modules_to_save}
        for modules_to_save in (False, True)
        for reentrant in ((True, False) if knows_reentrant else (None,))
        for order in ("before-wrapping", "after-wrapping")
    ]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The script that forgets enable_input_require_grads."""
    return _backward(combination, enable_input_grads=False)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same with it."""
    return _backward(combination, enable_input_grads=True)


def _backward(combination: Dict[str, Any], enable_input_grads: bool) -> Dict[str, Any]:
    where = device()
    model = tiny_llama(use_cache=False).to(where)
    model.train()
    if enable_input_grads:
        model.enable_input_require_grads()
    keywords = {}
    if combination["use_reentrant"] is not None:
        keywords["gradient_checkpointing_kwargs"] = {"use_reentrant": combination["use_reentrant"]}
    if combination["order"] == "before-wrapping":
        checkpointing_method(model)(**keywords)
    model = with_lora(model, ["lm_head"] if combination["modules_to_save"] else None)
    if combination["order"] == "after-wrapping":
        checkpointing_method(model)(**keywords)
    model(**tiny_batch(where)).loss.backward()

    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    with_gradient = [p for p in adapters.values() if p.grad is not None]
    # lora_A starts with a gradient of zero, because lora_B starts at zero.
    learning = [name for name, p in adapters.items() if "lora_B" in name and _nonzero(p.grad)]
    measured = {
        "adapter_tensors": len(adapters),
        "adapter_tensors_with_gradient": len(with_gradient),
    }
    if len(with_gradient) < len(adapters):
        raise Failed(
            "%d of %d LoRA tensors have no gradient, though the loss has one"
            % (len(adapters) - len(with_gradient), len(adapters)),
            measured,
        )
    if not learning:
        raise Failed("every LoRA gradient is zero", measured)
    return measured


def _nonzero(gradient: Any) -> bool:
    return gradient is not None and bool(gradient.abs().max() > 0)
