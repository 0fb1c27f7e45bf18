"""A quantised model is moved or cast: .to(), .cuda(), .half() or .float()."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class QuantizedModelMoved(Check):
    """A quantised model is moved or cast: .to(), .cuda(), .half() or .float().

    ## What it finds

    In a log: the refusals of transformers to move or cast a model that is loaded in 4 or 8 bits, or
    quantised by GPTQ, AWQ or HQQ.

    ## Why it breaks

    The loader quantises on the device that device_map names, and keeps scales beside the weights. Moving
    or casting the model would lose them. Often the call is hidden: in a pipeline with device=, in a
    Trainer of an old release, in an accelerator.prepare, or in a web UI.

    ## How it is proven

    By the log alone.

    ## Fix

    Take the call out, and say at the load where the model goes and which dtype the rest has.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/modeling_utils.py
    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    - https://github.com/bytedance/Sa2VA/issues/74
    """

    name = "quantized-model-moved"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/modeling_utils.py"
    symptoms = (
        Symptom(
            pattern=r"\.(?P<what>to|half|float|cuda|cpu)(?:\(\))?` is not supported for "
            r"(?:`[48]-bit|quantized|HQQ)",
            example="ValueError: `.to` is not supported for `4-bit` or `8-bit` bitsandbytes models. Please "
            "use the model as it is",
            counter_example="`.to` is supported for this model",
            cause="The model is quantised, so its weights were placed when it was loaded: .{what}() is "
            "refused",
        ),
        Symptom(
            pattern=r"Calling `(?P<what>to|cuda)\(\)` is not supported for `[48]-bit",
            example="ValueError: Calling `cuda()` is not supported for `8-bit` quantized models.",
            counter_example="Calling `cuda()` moves the model",
            cause="The model is quantised, so its weights were placed when it was loaded: .{what}() is "
            "refused",
        ),
        Symptom(
            pattern=r"the model has already been (?:set to the correct devices|casted to the correct)",
            example="Please use the model as it is, since the model has already been set to the correct "
            "devices and casted to the correct `dtype`.",
            counter_example="the model has already been loaded",
            cause="A quantised model is moved or cast, which is refused",
        ),
        Symptom(
            pattern=r"You cannot cast a (?P<method>\w{3,20}) model in a new `dtype",
            example="ValueError: You cannot cast a GPTQ model in a new `dtype`.",
            counter_example="You cannot cast a model",
            cause="A {method} model is cast to another dtype, which is refused",
        ),
        Symptom(
            pattern=r"Casting a (?P<method>\w{3,20}) quantized model to a new `dtype",
            example="ValueError: Casting a Quark quantized model to a new `dtype` is not supported.",
            counter_example="Casting a model",
            cause="A {method} model is cast to another dtype, which is refused",
        ),
        Symptom(
            pattern=r"loaded with `accelerate` and therefore cannot be moved to a specific device",
            example="The model has been loaded with `accelerate` and therefore cannot be moved to a "
            "specific device. Please discard the `device` argument when creating your pipeline object.",
            counter_example="the model was moved to a specific device",
            cause="A pipeline is given device= and a model that device_map has placed",
            fixes=(
                remedy(
                    "take device= out of the call of pipeline()",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "take the call out: .to(device), .cuda(), .half(), .float(), device= of a pipeline",
        ),
        remedy(
            "say at the load where the model goes",
            'device_map={{"": 0}}',
            "edit",
        ),
        remedy(
            "and which dtype the rest has",
            "torch_dtype=torch.float16",
            "edit",
        ),
        remedy(
            "where a library does it: upgrade them together",
            "pip install -U transformers accelerate bitsandbytes",
        ),
    )
