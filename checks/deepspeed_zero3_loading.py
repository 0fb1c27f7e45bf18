"""A model is loaded, built or saved in a way that ZeRO-3 does not go with."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeepspeedZero3Loading(Check):
    """A model is loaded, built or saved in a way that ZeRO-3 does not go with.

    ## What it finds

    In a log: a device_map or low_cpu_mem_usage under ZeRO-3, weights used while they are partitioned,
    quantised loading, and combinations that stage 3 refuses.

    ## Why it breaks

    ZeRO-3 cuts every weight into pieces, one for each rank, while the model is being loaded. Placing
    whole weights by device_map is another way to spread a model, and both together do not go; outside of
    a gathering context a weight has the shape [0].

    ## How it is proven

    By the log alone.

    ## Fix

    Leave device_map and low_cpu_mem_usage out under ZeRO-3, or use ZeRO-2.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/modeling_utils.py
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.9.5/deepspeed/runtime/engine.py
    - https://huggingface.co/docs/transformers/deepspeed
    """

    name = "deepspeed-zero3-loading"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/transformers/deepspeed"
    symptoms = (
        Symptom(
            pattern=r"DeepSpeed Zero-3 is not compatible with",
            example="ValueError: DeepSpeed Zero-3 is not compatible with `low_cpu_mem_usage=True` or with"
            " passing"
            " a `device_map`.",
            counter_example="Detected DeepSpeed ZeRO-3: activating zero.init() for this model",
            cause="The model is loaded with device_map or low_cpu_mem_usage while ZeRO-3 is on, which"
            " spreads it"
            " itself",
            fixes=(
                remedy(
                    "load it without both",
                    "AutoModelForCausalLM.from_pretrained(name, torch_dtype=torch.bfloat16)",
                    "edit",
                ),
                remedy("use ZeRO-2", '"zero_optimization": {{"stage": 2}}', "config"),
                remedy("do not launch through DeepSpeed where device_map is to spread the model"),
            ),
        ),
        Symptom(
            pattern=r"is not compatible with `low_cpu_mem_usage=True` or with passing a `device_map`",
            example="is not compatible with `low_cpu_mem_usage=True` or with passing a `device_map`.",
            counter_example="low_cpu_mem_usage was None, now set to True since model is quantized.",
            cause="The model is loaded with device_map or low_cpu_mem_usage while ZeRO-3 is on, which"
            " spreads it"
            " itself",
        ),
        Symptom(
            pattern=r"`auto_find_batch_size` isn`t supported yet with DeepSpeed Zero-3",
            example="NotImplementedError: `auto_find_batch_size` isn't supported yet with DeepSpeed Zero-3."
            " Please consider using Zero-2, Zero-1, or FSDP",
            counter_example="auto_find_batch_size is on",
            cause="auto_find_batch_size is on under ZeRO-3, which cannot start over with a smaller batch",
            fixes=(
                remedy("name a batch size instead", "--per_device_train_batch_size 1"),
                remedy("use ZeRO-2", '"zero_optimization": {{"stage": 2}}', "config"),
            ),
        ),
        Symptom(
            pattern=r"MoE not supported with Stage 3|MoE is not supported with ZeRO Stage 3",
            example="AssertionError: MoE not supported with Stage 3",
            counter_example="MoE layers are on",
            cause="DeepSpeed's mixture-of-experts layers do not go with ZeRO-3",
            fixes=(remedy("use ZeRO-2", '"zero_optimization": {{"stage": 2}}', "config"),),
        ),
        Symptom(
            pattern=r"no_sync context manager is incompatible with gradient partitioning logic of ZeRO stage"
            r" (?P<stage>\w{1,30})",
            example="AssertionError: no_sync context manager is incompatible with gradient partitioning"
            " logic of"
            " ZeRO stage 3",
            counter_example="no_sync context manager reentry",
            cause="Gradient synchronisation is switched off (no_sync) while ZeRO stage {stage} partitions the"
            " gradients",
            fixes=(
                remedy(
                    "upgrade: later releases leave no_sync out under DeepSpeed",
                    "pip install -U transformers accelerate",
                ),
                remedy("leave accumulation to DeepSpeed", '"gradient_accumulation_steps": "auto"', "config"),
                remedy("keep the release before the assertion", 'pip install "deepspeed<0.16"'),
            ),
        ),
        Symptom(
            pattern=r"`ZeRO-?[23]`(?: and above)? (?:is|are) (?:not supported|incompatible) with pipeline"
            r" parallelism"
            r"|ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism",
            example="AssertionError: ZeRO-2 and ZeRO-3 are incompatible with pipeline parallelism",
            counter_example="ZeRO-1 with pipeline parallelism",
            cause="Pipeline parallelism goes with ZeRO-1 only",
            fixes=(remedy("use stage 1", '"zero_optimization": {{"stage": 1}}', "config"),),
        ),
    )
    remedies = (
        remedy("load the model without device_map and low_cpu_mem_usage"),
        remedy("use ZeRO-2", '"zero_optimization": {{"stage": 2}}', "config"),
    )
