"""FSDP cannot flatten what it wraps: parameters of two dtypes, devices or kinds in one unit."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_ORIG = (
    remedy(
        "let FSDP keep the original parameters",
        "FSDP(..., use_orig_params=True)   # fsdp_use_orig_params: true",
        "config",
    ),
)


class FsdpMixedDtypes(Check):
    """FSDP cannot flatten what it wraps: parameters of two dtypes, devices or kinds in one unit.

    ## What it finds

    In a log: FSDP's refusals to flatten a unit with several dtypes, with frozen and trained parameters, with
    integers, scalars or several devices.

    ## Why it breaks

    FSDP makes one flat parameter of all parameters of a unit, so they must be alike. LoRA adapters in float32
    over a model in bfloat16, norms kept in float32, and 4-bit weights stored as uint8 are the usual cases.

    ## How it is proven

    By the log alone.

    ## Fix

    One dtype for all: cast the adapters, and store 4-bit weights in the dtype of the rest.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/fsdp/_flat_param.py
    - https://huggingface.co/docs/peft/accelerate/fsdp
    - https://github.com/axolotl-ai-cloud/axolotl/issues/1482
    - https://github.com/eric-mitchell/direct-preference-optimization/issues/90
    """

    name = "fsdp-mixed-dtypes"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/peft/accelerate/fsdp"
    symptoms = (
        Symptom(
            pattern=r"Must flatten tensors with uniform dtype but got (?P<one>[\w.]{3,20}) and (?P<two>"
            r"[\w.]{3,20})",
            example="ValueError: Must flatten tensors with uniform dtype but got torch.bfloat16 and "
            "torch.float32",
            counter_example="Must flatten tensors on the same device but got both cuda:0 and cpu",
            cause="One FSDP unit holds parameters of {one} and of {two}",
        ),
        Symptom(
            pattern=r"FlatParameter` requires uniform dtype but got (?P<one>[\w.]{3,20}) and (?P<two>"
            r"[\w.]{3,20})",
            example="ValueError: `FlatParameter` requires uniform dtype but got torch.float16 and "
            "torch.float32",
            counter_example="the `FlatParameter` of this unit has dtype torch.float16",
            cause="One FSDP unit holds parameters of {one} and of {two}",
        ),
        Symptom(
            pattern=r"FlatParameter` requires uniform `requires_grad",
            example="ValueError: `FlatParameter` requires uniform `requires_grad`",
            counter_example="the `FlatParameter` requires grad",
            cause="One FSDP unit holds frozen parameters and trained ones, which this torch cannot flatten",
        ),
        Symptom(
            pattern=r"reduce-scatter expects uniform gradient dtype",
            example="AssertionError: FSDP reduce-scatter expects uniform gradient dtype but got "
            "{torch.float32, torch.bfloat16}",
            counter_example="uniform dtype of the tensors",
        ),
        Symptom(
            pattern=r"Must flatten tensors with (?:uniform|the same) dtype",
            example="ValueError: Must flatten tensors with the same dtype but got torch.float32 and "
            "torch.float16",
            counter_example="Must flatten tensors on the same device but got both cuda:0 and cpu",
        ),
        Symptom(
            pattern=r"Must flatten tensors with uniform `requires_grad`",
            example="ValueError: Must flatten tensors with uniform `requires_grad` when "
            "`use_orig_params=False`",
            counter_example="Must flatten tensors on the same device but got both cuda:0 and cpu",
            cause="One FSDP unit holds frozen and trained parameters",
            fixes=_ORIG,
        ),
        Symptom(
            pattern=r"Cannot flatten integer dtype tensors",
            example="ValueError: Cannot flatten integer dtype tensors",
            counter_example="Must flatten tensors with uniform dtype but got torch.bfloat16 and "
            "torch.float32",
            cause="Quantised weights are stored as integers, which FSDP cannot flatten",
            fixes=(
                remedy(
                    "store 4-bit weights in the dtype of the rest",
                    "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16)",
                    "edit",
                ),
                remedy("8-bit weights do not go with FSDP: take 4 bits, or DDP"),
            ),
        ),
        Symptom(
            pattern=r"Must flatten tensors on the same device but got both (?P<one>[\w:]{2,12}) and "
            r"(?P<two>[\w:]{2,12})",
            example="ValueError: Must flatten tensors on the same device but got both cuda:0 and cpu",
            counter_example="Expected all tensors to be on the same device",
            cause="One FSDP unit holds parameters on {one} and on {two}",
            fixes=(
                remedy(
                    "load the model without a device_map, and give FSDP the device",
                    "FSDP(..., device_id=torch.cuda.current_device())",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"FSDP only supports single device modules but got params on",
            example="RuntimeError: FSDP only supports single device modules but got params on "
            "{device(type='cuda', index=1),"
            " device(type='cuda', index=0)}",
            counter_example="FSDP upcast of low precision parameters to fp32",
            cause="The model is spread over several GPUs already; FSDP wants to shard it itself",
            fixes=(
                remedy(
                    "load the model without a device_map", "from_pretrained(name)   # no device_map", "edit"
                ),
            ),
        ),
        Symptom(
            pattern=r"doesn`t support scalar parameters",
            example="ValueError: FSDP doesn't support scalar parameters. Change logit_scale to a 1D tensor "
            "with numel equal "
            "to 1.",
            counter_example="FSDP upcast of low precision parameters to fp32",
            cause="A parameter of the model is a scalar, which FSDP cannot shard",
        ),
        Symptom(
            pattern=r"Could not find the transformer layer class(?: to wrap in the model)?",
            example="ValueError: Could not find the transformer layer class LlamaDecoderLayer in the model.",
            counter_example="fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer",
            cause="The layer class given to FSDP is not in this model",
            fixes=(
                remedy(
                    "name the class of this model's layers, as print(model) shows it, or leave it to the "
                    "model",
                    "fsdp_transformer_layer_cls_to_wrap: LlamaDecoderLayer",
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:The|the) `FlatParameter` is not the sole occupant of its storage",
            example="AssertionError: The `FlatParameter` is not the sole occupant of its storage",
            counter_example="Cannot flatten a `FlatParameter`",
            cause="A parameter that FSDP flattens shares its memory with another one",
        ),
        Symptom(
            pattern=r"module has CPU parameters(?: or buffers)? when `?sync_module_states`?=True",
            example="ValueError: The module has CPU parameters or buffers when `sync_module_states=True`, "
            "which requires them "
            "to be on GPU. Please specify the `device_id` argument",
            counter_example="sync_module_states: true",
            cause="FSDP cannot send rank 0's weights to the others: they are on the CPU and no device is "
            "given",
            fixes=(
                remedy("give FSDP the device", "FSDP(..., device_id=torch.cuda.current_device())", "edit"),
            ),
        ),
        Symptom(
            pattern=r"`?sync_module_states`? must be (?:`?True`?|enabled) when (?:using )?`?"
            r"(?:fsdp_)?cpu_ram_efficient_loading",
            example="ValueError: `sync_module_states` must be `True` when using `cpu_ram_efficient_loading`",
            counter_example="cpu_ram_efficient_loading: true",
            cause="With cpu_ram_efficient_loading only rank 0 has weights, and it must send them to the "
            "others",
            fixes=(remedy("send them", "fsdp_sync_module_states: true", "config"),),
        ),
        Symptom(
            pattern=r"Cannot writeback when the (?:parameter|gradient) shape changes",
            example="RuntimeError: Cannot writeback when the parameter shape changes\nExpects "
            "torch.Size([1024]) but got "
            "torch.Size([0])",
            counter_example="writeback of the parameter",
            cause="A parameter was given another shape after FSDP had wrapped it",
            fixes=(remedy("change the model (resize embeddings, tie weights) before it is wrapped"),),
        ),
    )
    remedies = (
        remedy(
            "cast the adapters to the dtype of the model before it is wrapped",
            "model = model.to(torch.bfloat16)",
            "edit",
        ),
        remedy(
            "with QLoRA, store 4-bit weights in that dtype as well",
            "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16)",
            "edit",
        ),
        remedy(
            "leave peft's adapters in the model's dtype",
            "get_peft_model(model, config, autocast_adapter_dtype=False)",
            "edit",
        ),
    )
