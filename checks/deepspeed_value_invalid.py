"""A value in a DeepSpeed configuration is not of the kind that DeepSpeed takes there."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeepspeedValueInvalid(Check):
    """A value in a DeepSpeed configuration is not of the kind that DeepSpeed takes there.

    ## What it finds

    In a log: the validation errors of DeepSpeed's configuration classes for a value (keys that are not
    known belong to deepspeed-unknown-key), and values of "auto" that nobody filled in.

    ## Why it breaks

    DeepSpeed reads its sections with pydantic. Since 0.15 that is pydantic 2, which no longer rounds
    15099494.4 to an integer: transformers before 4.45 and accelerate before 1.0 computed such a value for
    "auto". "auto" is known to Trainer and accelerate only: DeepSpeed itself wants numbers.

    ## How it is proven

    By the log alone.

    ## Fix

    A number of the right kind, or releases of transformers and accelerate that compute one.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/issues/6525
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.9.5/deepspeed/runtime/zero/config.py
    - https://huggingface.co/docs/transformers/deepspeed
    """

    name = "deepspeed-value-invalid"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://www.deepspeed.ai/docs/config-json/"
    symptoms = (
        Symptom(
            pattern=r"(?P<key>\w{3,60}) Input should be a valid integer, got a number with a fractional part",
            example="stage3_prefetch_bucket_size\n  Input should be a valid integer, got a number with a"
            " fractional part [type=int_from_float, input_value=15099494.4, input_type=float]",
            counter_example="1 validation error for DeepSpeedZeroConfig\noverlap_com\n"
            "  Extra inputs are not permitted",
            cause="{key} is a fraction and the installed DeepSpeed takes whole numbers only: transformers and"
            ' accelerate of the time before compute it so for "auto"',
            fixes=(
                remedy("upgrade what computes it", "pip install -U transformers accelerate"),
                remedy("write a whole number", '"{key}": 15099494', "config"),
                remedy("keep the DeepSpeed that rounds", 'pip install "deepspeed<0.15"'),
            ),
        ),
        Symptom(
            pattern=r"validation errors? for (?P<section>DeepSpeed\w{2,40}) (?P<key>[\w.]{2,60})"
            r" (?P<why>(?:Input"
            r" should be|Value error,|Assertion failed,|value is not a|unexpected value;|ensure this"
            r" value|Field"
            r" required|field required|none is not an)[^\n\[(]{0,120})",
            example="1 validation error for DeepSpeedZeroConfig\nstage\n  Input should be less than or"
            " equal to"
            " 3 [type=less_than_equal, input_value=4, input_type=int]",
            counter_example="1 validation error for DeepSpeedZeroConfig\noverlap_com\n"
            "  Extra inputs are not permitted [type=extra_forbidden, input_value=True, input_type=bool]",
            cause="{section}: {key}: {why}",
        ),
        Symptom(
            pattern=r"validation errors? for (?P<section>DeepSpeed\w{0,40}Config)(?![\s\S]{0,300}[Ee]xtra"
            r" (?:fields|inputs))",
            example="pydantic.error_wrappers.ValidationError: 2 validation errors for DeepSpeedZeroConfig",
            counter_example="1 validation error for DeepSpeedZeroConfig\noverlap_com\n"
            "  Extra inputs are not permitted",
            sure="likely",
            cause="{section}: a key or a value in this section is not one that the installed DeepSpeed takes",
        ),
        Symptom(
            pattern=r"Input should be a valid integer, got a number with a fractional part",
            example="Input should be a valid integer, got a number with a fractional part"
            " [type=int_from_float,"
            " input_value=15099494.4, input_type=float]",
            counter_example="Input should be a valid string",
            standing="aftermath",
            sure="likely",
            cause="A configuration value is a fraction where a whole number is wanted: most often a"
            " bucket size that an"
            ' older transformers or accelerate computed for "auto"',
            fixes=(remedy("upgrade what computes it", "pip install -U transformers accelerate"),),
        ),
        Symptom(
            pattern=r"`hidden_size` nor `hidden_sizes` entry, therefore it`s not possible to"
            r" automatically fill out"
            r"|Can find neither `model\.config\.hidden_size` nor `model\.config\.hidden_sizes`",
            example="ValueError: The model's config file has neither `hidden_size` nor `hidden_sizes` entry,"
            " therefore it's not possible to automatically fill out the following `auto` entries in the"
            " DeepSpeed config file: ['zero_optimization.reduce_bucket_size']",
            counter_example="config.hidden_size is 4096",
            cause='The DeepSpeed configuration leaves bucket sizes to "auto", and the model\'s'
            " configuration has no"
            " hidden_size to compute them from",
            fixes=(
                remedy(
                    "write numbers",
                    '"reduce_bucket_size": 5e7,\n"stage3_prefetch_bucket_size": 45000000,\n'
                    '"stage3_param_persistence_threshold": 1e5',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"has to be greater than 0`[\s^]{0,200}TypeError: [^\n]{1,12} not supported between"
            r" instances of `str`",
            example='    assert (train_batch > 0), f"Train batch size: {train_batch} has to be greater'
            ' than 0"\n'
            "TypeError: '>' not supported between instances of 'str' and 'int'",
            counter_example="TypeError: '<' not supported between instances of 'str' and 'int'",
            cause='The DeepSpeed configuration says "auto" for a batch size, and nobody filled it in:'
            " DeepSpeed is"
            " used without Trainer or accelerate",
            fixes=(
                remedy(
                    "write numbers where the script calls deepspeed.initialize itself",
                    '"train_micro_batch_size_per_gpu": 4',
                    "config",
                ),
                remedy(
                    "hand the configuration to TrainingArguments before the model is loaded",
                    "--deepspeed ds_config.json",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:could not convert string to float: |invalid literal for int\(\) with base 10:"
            r" |input_value=)`auto`",
            example="ValueError: could not convert string to float: 'auto'",
            counter_example="ValueError: could not convert string to float: 'abc'",
            cause='A value of "auto" in the DeepSpeed configuration was filled in by nobody',
            fixes=(
                remedy("write numbers where DeepSpeed is used without Trainer and accelerate"),
                remedy(
                    "pass the values that accelerate fills in",
                    "accelerator.prepare(model, optimizer, loader, scheduler)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"not found in kwargs\. Please specify `(?P<key>[\w.]{3,80})` without `auto`",
            example="ValueError: `zero_optimization.reduce_bucket_size` not found in kwargs. Please specify"
            " `zero_optimization.reduce_bucket_size` without `auto` (set to correct value) in the DeepSpeed"
            " config file or pass it in kwargs.",
            counter_example="KeyError: 'auto'",
            cause='accelerate cannot fill in "auto" for {key}',
            fixes=(remedy("write a value for {key} into the DeepSpeed configuration"),),
        ),
        Symptom(
            pattern=r"Invalid (?P<what>optimizer|param) offloading device specified: (?P<device>\w{1,20})",
            example="AssertionError: Invalid optimizer offloading device specified: NONE.",
            counter_example="offloading device: cpu",
            cause="The DeepSpeed configuration is to offload the {what} to {device}, which is no device",
            fixes=(remedy("cpu, nvme or none", '"offload_optimizer": {{"device": "cpu"}}', "config"),),
        ),
        Symptom(
            pattern=r"DeepSpeedConfig: Maximum supported ZeRO stage is|ZeRO stage \w{1,20} not implemented",
            example="NotImplementedError: ZeRO stage 4 not implemented",
            counter_example="ZeRO stage 3 is enabled",
            cause="The DeepSpeed configuration asks for a ZeRO stage that there is not",
            fixes=(remedy("stages are 0 to 3", '"zero_optimization": {{"stage": 3}}', "config"),),
        ),
        Symptom(
            pattern=r"zero_optimization\.?\w{0,60}` (?:is not supported|=false (?:is supported"
            r" only|requires|does not support))"
            r"|Partial offloading only supported for ZeRO Stage 3",
            example="AssertionError: Partial offloading only supported for ZeRO Stage 3.",
            counter_example="Offloading is on for ZeRO stage 3",
            cause="The DeepSpeed configuration asks for something that its ZeRO stage does not offer",
        ),
    )
    remedies = (
        remedy("write a value of the kind that the message asks for"),
        remedy(
            "look at what the installed DeepSpeed takes",
            'python -c "from deepspeed.runtime.zero.config import DeepSpeedZeroConfig as C; help(C)"',
        ),
    )
