"""DeepSpeed is started without a configuration that it can read."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeepspeedConfigUnreadable(Check):
    """DeepSpeed is started without a configuration that it can read.

    ## What it finds

    In a log: no configuration at all, a path without a file, JSON that cannot be parsed or names a key
    twice, and a configuration without the section that its user wants.

    ## Why it breaks

    DeepSpeed and accelerate take a path, a dict or base64 and tell them apart by whether there is such a
    file: a path that is mistyped, or relative to another folder than the one the job runs in, is taken
    for base64 and refused.

    ## How it is proven

    By the log alone.

    ## Fix

    An absolute path to a file that `python -m json.tool` can read.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/v0.9.5/deepspeed/runtime/config.py
    - https://github.com/huggingface/accelerate/blob/v1.0.0/src/accelerate/utils/deepspeed.py
    - https://huggingface.co/docs/accelerate/usage_guides/deepspeed
    """

    name = "deepspeed-config-unreadable"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://www.deepspeed.ai/docs/config-json/"
    symptoms = (
        Symptom(
            pattern=r"Expected a string path to an existing deepspeed config, or a dictionary[^\n]{0,60}"
            r"Received: (?P<given>[^\n]{1,120})",
            example="ValueError: Expected a string path to an existing deepspeed config, or a dictionary or a"
            " valid base64. Received: ds_config.json",
            counter_example="Using the deepspeed config ds_config.json",
            cause="There is no DeepSpeed configuration at {given}",
        ),
        Symptom(
            pattern=r"Expected a string path to an existing deepspeed config",
            example="ValueError: Expected a string path to an existing deepspeed config, or a dictionary",
            counter_example="Using the deepspeed config ds_config.json",
        ),
        Symptom(
            pattern=r"(?:deepspeed/[\w/]{4,40}\.py[^\n]{0,40} in __init__|config_decoded ="
            r" base64)[\s\S]{0,600}?binascii\.Error",
            example="    config_decoded = base64.urlsafe_b64decode(config).decode('utf-8')\n  File"
            ' "base64.py", line 134\n'
            "binascii.Error: Invalid base64-encoded string: number of data characters (13) cannot be 1 more",
            counter_example="binascii.Error: Incorrect padding",
            cause="There is no DeepSpeed configuration at the path that is given: DeepSpeed then takes"
            " the path for base64",
        ),
        Symptom(
            pattern=r"DeepSpeed requires --deepspeed_config to specify configuration file"
            r"|DeepSpeed configuration file: [^\n]{1,200} is not an existing file",
            example="AssertionError: DeepSpeed requires --deepspeed_config to specify configuration file",
            counter_example="DeepSpeed configuration: ds_config.json",
            cause="deepspeed.initialize is given no configuration",
            fixes=(
                remedy(
                    "name one on the launch line",
                    "deepspeed train.py --deepspeed --deepspeed_config ds_config.json",
                ),
                remedy("in the script", 'deepspeed.initialize(model=model, config="ds_config.json")', "edit"),
            ),
        ),
        Symptom(
            pattern=r"Not sure how to proceed, we were given (?:both|deepspeed configs in)",
            example="AssertionError: Not sure how to proceed, we were given deepspeed configs in the"
            " deepspeed"
            " arguments and deepspeed.initialize() function call",
            counter_example="Not sure how to proceed",
            cause="DeepSpeed is given a configuration twice: on the command line and in deepspeed.initialize",
            fixes=(remedy("leave one of the two out"),),
        ),
        Symptom(
            pattern=r"Please specify the ZeRO optimization config in the DeepSpeed config",
            example="ValueError: Please specify the ZeRO optimization config in the DeepSpeed config.",
            counter_example="ZeRO optimization config: stage 2",
            cause="accelerate wants a zero_optimization section in the DeepSpeed configuration, and there"
            " is none",
            fixes=(remedy("add one", '"zero_optimization": {{"stage": 2}}', "config"),),
        ),
        Symptom(
            pattern=r"Duplicate keys? in DeepSpeed config: (?P<keys>[^\n]{1,80})",
            example="ValueError: Duplicate keys in DeepSpeed config: ['zero_optimization']",
            counter_example="Duplicate keys in the data set",
            cause="The DeepSpeed configuration has a key twice: {keys}",
            fixes=(remedy("remove one of the two"),),
        ),
        Symptom(
            pattern=r"(?:runtime/config\.py|utils/deepspeed\.py|integrations/deepspeed\.py"
            r"|transformers/deepspeed\.py)"
            r"[\s\S]{0,700}?JSONDecodeError: (?P<why>[^\n]{3,120})",
            example='  File "/env/deepspeed/runtime/config.py", line 690, in __init__\n'
            "    self._param_dict = json.load(\njson.decoder.JSONDecodeError: Expecting property name"
            " enclosed in"
            " double quotes: line 5 column 3 (char 80)",
            counter_example="json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
            cause="The DeepSpeed configuration is not JSON: {why}",
            fixes=(
                remedy(
                    "see where it breaks (a comma too many, a comment)", "python -m json.tool ds_config.json"
                ),
            ),
        ),
        Symptom(
            pattern=r"HjsonDecodeError: (?P<why>[^\n]{3,120})",
            example="hjson.scanner.HjsonDecodeError: Expecting ',' delimiter: line 9 column 3 (char 186)",
            counter_example="import hjson",
            cause="The DeepSpeed configuration is not JSON: {why}",
            fixes=(
                remedy(
                    "see where it breaks (a comma too many, a comment)", "python -m json.tool ds_config.json"
                ),
            ),
        ),
        Symptom(
            pattern=r"No such file or directory:"
            r" `(?P<path>[\w./~-]{0,160}(?:ds_|deepspeed|zero\d?)[\w.-]{0,60}\.json)",
            example="FileNotFoundError: [Errno 2] No such file or directory: 'configs/ds_config_zero3.json'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: 'data/train.json'",
            cause="There is no DeepSpeed configuration at {path}",
        ),
        Symptom(
            pattern=r"Couldn`t retrieve the active `DeepSpeedPlugin`",
            example="ValueError: Couldn't retrieve the active `DeepSpeedPlugin` as none were enabled.",
            counter_example="DeepSpeedPlugin(zero_stage=2)",
            cause="accelerate is asked for its DeepSpeed plugin, and DeepSpeed was not enabled",
            fixes=(
                remedy(
                    "start with it",
                    "accelerate launch --use_deepspeed --deepspeed_config_file ds_config.json train.py",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:`Accelerator` or `PartialState`|already configured `Accelerator`)[^\n]{0,80}"
            r" that was not initialized for"
            r" DeepSpeed",
            example="RuntimeError: Tried to use an already configured `Accelerator` or `PartialState`"
            " that was not"
            " initialized for DeepSpeed, but also passed in a `deepspeed` configuration to the"
            " `TrainingArguments`.",
            counter_example="PartialState was initialized for DeepSpeed",
            cause="An Accelerator was made without DeepSpeed before TrainingArguments asked for DeepSpeed",
            fixes=(
                remedy("make no Accelerator or PartialState before TrainingArguments"),
                remedy(
                    "start with DeepSpeed",
                    "accelerate launch --use_deepspeed --deepspeed_config_file ds_config.json train.py",
                ),
            ),
        ),
        Symptom(
            pattern=r"Using --fsdp xxx together with --deepspeed is not possible",
            example="ValueError: Using --fsdp xxx together with --deepspeed is not possible, deactivate"
            " one of"
            " those flags.",
            counter_example="--fsdp full_shard",
            cause="--fsdp and --deepspeed are given together",
            fixes=(remedy("keep one of the two"),),
        ),
    )
    remedies = (
        remedy("give the file's absolute path", "--deepspeed $PWD/ds_config.json"),
        remedy("see whether it can be read", "python -m json.tool ds_config.json"),
    )
