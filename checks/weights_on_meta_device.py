"""Weights are on the meta device, that is, have a shape and no data, and something wants the data."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class WeightsOnMetaDevice(Check):
    """Weights are on the meta device, that is, have a shape and no data, and something wants the data.

    ## What it finds

    In a log: torch and accelerate refusing to copy, move, save or compute with tensors of the meta
    device.

    ## Why it breaks

    A model is made on the meta device to be filled later: by low_cpu_mem_usage, device_map,
    init_empty_weights, ZeRO-3 or FSDP. Parameters stay empty where the checkpoint has none for them,
    where they were offloaded to the CPU or disk by device_map, or where adapters were made before the
    base was filled. A following .to(), save or forward finds nothing.

    ## How it is proven

    By the log alone.

    ## Fix

    Load without low_cpu_mem_usage and offloading, so that everything is filled, or leave the placement to
    the loader.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/nn/modules/module.py
    - https://huggingface.co/docs/accelerate/concept_guides/big_model_inference
    - https://github.com/tloen/alpaca-lora/issues/368
    - https://github.com/lm-sys/FastChat/issues/1741
    """

    name = "weights-on-meta-device"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.5.0/torch/nn/modules/module.py"
    symptoms = (
        Symptom(
            pattern=r"Cannot copy out of meta tensor",
            example="NotImplementedError: Cannot copy out of meta tensor; no data!",
            counter_example="the meta tensor was filled",
            cause="A model with weights on the meta device is moved: they were offloaded, or never filled",
        ),
        Symptom(
            pattern=r"use torch\.nn\.Module\.to_empty\(\) instead of torch\.nn\.Module\.to\(\)",
            example="Please use torch.nn.Module.to_empty() instead of torch.nn.Module.to() when moving "
            "module from meta to a different device.",
            counter_example="torch.nn.Module.to()",
            cause="A model with weights on the meta device is moved: they were offloaded, or never filled",
        ),
        Symptom(
            pattern=r"(?P<name>[\w.-]{2,120}) is on the meta device, we need a `value`",
            example="ValueError: weight is on the meta device, we need a `value` to put in on cuda:0.",
            counter_example="weight is on the meta device",
            cause="{name} is on the meta device, and the checkpoint has no value for it",
        ),
        Symptom(
            pattern=r"is on the meta device, we need a `value",
            example="is on the meta device, we need a `value` to put in on 0.",
            counter_example="is on the meta device",
            cause="A weight is on the meta device, and the checkpoint has no value for it",
        ),
        Symptom(
            pattern=r"Tensor on device (?P<first>[\w:]{3,12}) is not on the expected device "
            r"(?P<second>[\w:]{3,12})",
            example="RuntimeError: Tensor on device cuda:0 is not on the expected device meta!",
            counter_example="Tensor on device cuda:0",
            cause="A tensor on {first} meets one on {second}: part of the model holds no data",
        ),
        Symptom(
            pattern=r"Tensor\.item\(\) cannot be called on meta tensors",
            example="RuntimeError: Tensor.item() cannot be called on meta tensors",
            counter_example="Tensor.item() was called",
            cause="A value is read out of a tensor on the meta device, which has none",
        ),
        Symptom(
            pattern=r"You can't (?:save|move) (?:the|a) model (?:since|that has) some (?:parameters are on "
            r"the meta device|modules offloaded to)",
            example="RuntimeError: You can't move a model that has some modules offloaded to cpu or disk.",
            counter_example="You can move a model",
            cause="Modules that device_map offloaded are moved or saved, and their data is elsewhere",
        ),
        Symptom(
            pattern=r"with arguments from the `Meta` backend",
            example="NotImplementedError: Could not run 'aten::_local_scalar_dense' with arguments from the "
            "'Meta' backend.",
            counter_example="with arguments from the 'CPU' backend",
            cause="An operation is given a tensor on the meta device, which has no data",
        ),
        Symptom(
            pattern=r"copying from a non-meta parameter in the checkpoint to a meta parameter in the "
            r"current model",
            example="UserWarning: for weight: copying from a non-meta parameter in the checkpoint to a meta "
            "parameter in the current model, which is a no-op.",
            counter_example="copying a parameter of the checkpoint",
            cause="A checkpoint is loaded into a model on the meta device: nothing is copied",
            standing="hint",
            fixes=(
                remedy(
                    "hand the tensors over",
                    "model.load_state_dict(state, assign=True)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"[Pp]arameters? [^\n]{0,80} (?:is|are) (?:still )?on (?:the )?meta device(?! because "
            r"they were offloaded)",
            example="RuntimeError: Expected all parameters to be materialized, but parameter "
            "model.embed.weight is on meta device",
            counter_example="Some parameters are on the meta device because they were offloaded to the cpu.",
            cause="Parameters are on the meta device and hold no data",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "load it so that everything is filled",
            "AutoModel.from_pretrained(name, low_cpu_mem_usage=False)",
            "edit",
        ),
        remedy(
            "keep all of it on one device, nothing offloaded",
            'device_map={{"": 0}}',
            "edit",
        ),
        remedy(
            "take .to(), .cuda() and device= out after a load with device_map: it is placed already",
        ),
        remedy(
            "under ZeRO-3 or FSDP give no device_map, and upgrade what loads",
            "pip install -U transformers accelerate peft",
        ),
    )
