"""One optimizer step under a gradient scaler: with float16 trainable weights, and with float32 ones."""

from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed, autocast, device, tiny_batch, tiny_llama, with_lora


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """A whole model in float16, and LoRA as the installed peft makes it on a float16 base."""
    return [{"trainable": "fp16-model"}, {"trainable": "lora-on-fp16-base"}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The trainable weights in the dtype that they have when nobody thinks of it."""
    return _step(combination, float32=False)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same with the trainable weights in float32."""
    return _step(combination, float32=True)


def _step(combination: Dict[str, Any], float32: bool) -> Dict[str, Any]:
    import torch

    where = device()
    scaler = _scaler(where)
    if scaler is None or not scaler.is_enabled():
        raise RuntimeError("no gradient scaler is enabled on this device, so a step would prove nothing")
    model = tiny_llama().to(where).half()
    if combination["trainable"] == "lora-on-fp16-base":
        model = with_lora(model)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if float32:
        for parameter in trainable:
            parameter.data = parameter.data.float()
    before = [parameter.detach().clone() for parameter in trainable]
    optimizer = torch.optim.SGD(trainable, lr=0.1)
    with autocast(where):
        loss = model(**tiny_batch(where)).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    changed = sum(not bool(torch.equal(old, new)) for old, new in zip(before, trainable))
    measured = {
        "trainable_dtypes": sorted({str(p.dtype).rpartition(".")[2] for p in trainable}),
        "tensors_changed": changed,
        "loss_scale": scaler.get_scale(),
    }
    if not changed:
        raise Failed("the step was skipped: no weight changed", measured)
    return measured


def _scaler(where: str) -> Any:
    import torch

    # A small first scale: the usual one overflows float16 on the first step, which is skipped.
    settings = {"init_scale": 128.0}
    if hasattr(torch, "amp") and hasattr(torch.amp, "GradScaler"):  # since 2.3, for every device
        return torch.amp.GradScaler(where, **settings)
    return torch.cuda.amp.GradScaler(**settings) if where == "cuda" else None
