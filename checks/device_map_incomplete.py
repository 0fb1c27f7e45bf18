"""A device_map cannot be used: it leaves modules out, or the model does not support one."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeviceMapIncomplete(Check):
    """A device_map cannot be used: it leaves modules out, or the model does not support one.

    ## What it finds

    In a log: transformers and accelerate refusing a device_map.

    ## Why it breaks

    A map has to name a device for every parameter, by the names of this model: a map of another model or
    release leaves some out. device_map="auto" asks the model class which modules must stay whole, and
    some classes do not say. Any map needs accelerate and, in old releases, low_cpu_mem_usage.

    ## How it is proven

    By the log alone.

    ## Fix

    Let the loader make the map, or give one for the whole model.

    ## References

    - https://github.com/huggingface/accelerate/blob/v0.30.1/src/accelerate/utils/modeling.py
    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/modeling_utils.py
    """

    name = "device-map-incomplete"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/accelerate/blob/v0.30.1/src/accelerate/utils/modeling.py"
    symptoms = (
        Symptom(
            pattern=r"device_map provided does not give any device for the following parameters: "
            r"?(?P<missing>[\w.]{0,80})",
            example="ValueError: The device_map provided does not give any device for the following "
            "parameters: lm_head.weight",
            counter_example="the device_map gives a device for all parameters",
            cause="The device_map leaves parameters out: {missing}",
        ),
        Symptom(
            pattern=r"(?P<module>[\w.-]{1,120}) doesn't have any device set",
            example="ValueError: model.layers.31 doesn't have any device set.",
            counter_example="the model has a device set",
            cause="The device_map names no device for {module}",
        ),
        Symptom(
            pattern=r"`device_map` does not contain the module (?P<module>[\w.-]{1,120})",
            example="ValueError: The `device_map` does not contain the module transformer.wte.",
            counter_example="device_map contains the module",
            cause="The device_map names no device for {module}",
        ),
        Symptom(
            pattern=r"(?P<model>\w{3,80}) does not support `?device_map=`?(?P<map>\w{2,20})",
            example="ValueError: PhiForCausalLM does not support `device_map='auto'`. To implement support, "
            "the model class needs to implement the `_no_split_modules` attribute.",
            counter_example="LlamaForCausalLM supports device_map",
            cause="{model} of this release cannot be split by device_map",
        ),
        Symptom(
            pattern=r"If passing a string for `device_map`, please choose",
            example="ValueError: If passing a string for `device_map`, please choose 'auto', 'balanced', "
            "'balanced_low_0' or 'sequential'.",
            counter_example="device_map balanced",
            cause="The device_map is a word that accelerate does not know",
        ),
        Symptom(
            pattern=r"Passing along a `device_map` requires `low_cpu_mem_usage=True",
            example="ValueError: Passing along a `device_map` requires `low_cpu_mem_usage=True`",
            counter_example="a device_map and low_cpu_mem_usage",
            cause="device_map is given together with low_cpu_mem_usage=False",
        ),
        Symptom(
            pattern=r"Using [^\n]{0,60} a `device_map`[^\n]{0,80} requires Accelerate",
            example="ImportError: Using `low_cpu_mem_usage=True` or a `device_map` requires Accelerate: "
            "`pip install accelerate`",
            counter_example="Using a device_map",
            cause="accelerate is not installed or too old for a device_map",
            fixes=(
                remedy(
                    "install it",
                    "pip install -U accelerate",
                ),
            ),
        ),
        Symptom(
            pattern=r"Using `low_cpu_mem_usage=True`[^\n]{0,60} requires Accelerate",
            example="ImportError: Using `low_cpu_mem_usage=True`, a `device_map`, or a `tp_plan` requires "
            "Accelerate",
            counter_example="Using `low_cpu_mem_usage=True`",
            cause="accelerate is not installed or too old",
            fixes=(
                remedy(
                    "install it",
                    "pip install -U accelerate",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "let the loader make the map",
            'device_map="auto"',
            "edit",
        ),
        remedy(
            "put all of it on one GPU",
            'device_map={{"": 0}}',
            "edit",
        ),
        remedy(
            "upgrade both libraries",
            "pip install -U transformers accelerate",
        ),
    )
