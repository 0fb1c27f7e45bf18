"""The optimizer or scheduler of a script is not one that its DeepSpeed configuration takes."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeepspeedClientOptimizer(Check):
    """The optimizer or scheduler of a script is not one that its DeepSpeed configuration takes.

    ## What it finds

    In a log: ZeRO-Offload given an optimizer of the script's own, an optimizer that ZeRO was never tested
    with, an optimizer or scheduler named both in the configuration and in the code, and names that
    DeepSpeed does not know.

    ## Why it breaks

    With offload_optimizer the optimizer's state is in the CPU's memory and the step runs there: DeepSpeed
    wants its own vectorised DeepSpeedCPUAdam and refuses another one unless told that it may be slow.
    accelerate replaces what the configuration names by stand-ins (DummyOptim, DummyScheduler) and refuses
    a true one beside them.

    ## How it is proven

    By the log alone.

    ## Fix

    Name the optimizer in one place; the configuration is the place that works with every ZeRO stage.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/v0.9.5/deepspeed/runtime/engine.py
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/596
    - https://huggingface.co/docs/accelerate/usage_guides/deepspeed
    """

    name = "deepspeed-client-optimizer"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://www.deepspeed.ai/docs/config-json/#optimizer-parameters"
    symptoms = (
        Symptom(
            pattern=r"ZeRO-Offload with a client provided optimizer(?: \((?:<class"
            r" )?`(?P<optimizer>[\w.]{3,100}))?",
            example="ZeRORuntimeException: You are using ZeRO-Offload with a client provided optimizer"
            " (<class 'apex.optimizers.fused_adam.FusedAdam'>) which in most cases will yield poor"
            " performance.",
            counter_example="ZeRO-Offload with DeepSpeedCPUAdam",
            cause="ZeRO-Offload is on, and the script brings an optimizer of its own instead of"
            " DeepSpeed's CPU"
            " Adam",
            fixes=(
                remedy(
                    "let DeepSpeed make the optimizer",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
                remedy(
                    "hand it DeepSpeed's own",
                    "optimizer = deepspeed.ops.adam.DeepSpeedCPUAdam(model.parameters(), lr=1e-5)",
                    "edit",
                ),
                remedy("keep yours, which is slow", '"zero_force_ds_cpu_optimizer": false', "config"),
                remedy("do not offload the optimizer: remove offload_optimizer from zero_optimization"),
            ),
        ),
        Symptom(
            pattern=r"ZeRO Offload can only work with DeepSpeed optimizers",
            example="ValueError: ZeRO Offload can only work with DeepSpeed optimizers",
            counter_example="ZeRO Offload is on",
            cause="The optimizer is offloaded, and this transformers makes one that is not DeepSpeed's",
            fixes=(
                remedy(
                    "name one in the configuration",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
                remedy("upgrade", "pip install -U transformers accelerate"),
            ),
        ),
        Symptom(
            pattern=r"You are using an untested ZeRO Optimizer",
            example="AssertionError: You are using an untested ZeRO Optimizer. Please add"
            ' <"zero_allow_untested_optimizer": true> in the configuration file to use it.',
            counter_example="**** You are using ZeRO with an untested optimizer, proceed with caution *****",
            cause="ZeRO is given an optimizer that DeepSpeed was not tested with",
            fixes=(
                remedy("allow it", '"zero_allow_untested_optimizer": true', "config"),
                remedy(
                    "let DeepSpeed make one",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"zero_allow_untested_optimizer`: true",
            example='Please add <"zero_allow_untested_optimizer": true> in the configuration file to use it.',
            counter_example="zero_allow_untested_optimizer  False",
            standing="hint",
            sure="likely",
            cause="ZeRO is given an optimizer that DeepSpeed was not tested with",
        ),
        Symptom(
            pattern=r"You cannot specify (?P<what>an optimizer|a scheduler) in the config file and in the"
            r" code at the"
            r" same time",
            example="ValueError: You cannot specify an optimizer in the config file and in the code at"
            " the same"
            " time. Please remove the optimizer from the config file or create `accelerate.utils.DummyOptim`",
            counter_example="You cannot specify two config files",
            cause="The DeepSpeed configuration names {what} and the script makes one as well",
            fixes=(
                remedy("remove the section from the DeepSpeed configuration"),
                remedy(
                    "leave it to the configuration in the script",
                    "optimizer = accelerate.utils.DummyOptim(model.parameters(), lr=1e-5)\n"
                    "scheduler = accelerate.utils.DummyScheduler(optimizer)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"cannot create a `DummyOptim` without specifying an optimizer in the config file",
            example="ValueError: You cannot create a `DummyOptim` without specifying an optimizer in the"
            " config"
            " file.",
            counter_example="DummyOptim is used",
            cause="The script leaves the optimizer to the DeepSpeed configuration, which has none",
            fixes=(
                remedy(
                    "name one there",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"Either specify a scheduler in the config file or pass in the `lr_scheduler_callable`"
            r"|can only specify `accelerate\.utils\.DummyScheduler` in the code when using",
            example="ValueError: Either specify a scheduler in the config file or pass in the"
            " `lr_scheduler_callable` parameter when using `accelerate.utils.DummyScheduler`.",
            counter_example="lr_scheduler_type is cosine",
            cause="The script leaves the scheduler to the DeepSpeed configuration, which has none, or"
            " leaves it only"
            " one of optimizer and scheduler",
            fixes=(
                remedy(
                    "name both in the configuration",
                    '"scheduler": {{"type": "WarmupDecayLR", "params": {{"warmup_num_steps": "auto",'
                    ' "total_num_steps": "auto"}}}}',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"Found `optimizer` configured in the DeepSpeed config, but no `scheduler`",
            example="ValueError: Found `optimizer` configured in the DeepSpeed config, but no `scheduler`."
            " Please configure a scheduler in the DeepSpeed config.",
            counter_example="Found optimizer state in the checkpoint",
            cause="The DeepSpeed configuration has an optimizer and no scheduler, which this transformers"
            " wants"
            " together",
            fixes=(
                remedy(
                    "add a scheduler",
                    '"scheduler": {{"type": "WarmupDecayLR", "params": {{"warmup_min_lr": "auto",'
                    ' "warmup_max_lr": "auto", "warmup_num_steps": "auto", "total_num_steps": "auto"}}}}',
                    "config",
                ),
                remedy("remove the optimizer section: Trainer makes both"),
                remedy("upgrade", "pip install -U transformers accelerate"),
            ),
        ),
        Symptom(
            pattern=r"DeepSpeed does not recognize LR scheduler (?P<scheduler>\w{1,60})",
            example="AssertionError: DeepSpeed does not recognize LR scheduler cosine",
            counter_example="DeepSpeed using configured LR scheduler = WarmupLR",
            cause="DeepSpeed has no scheduler called {scheduler}",
            fixes=(
                remedy(
                    "name one of DeepSpeed's (WarmupLR, WarmupDecayLR, WarmupCosineLR, OneCycle,"
                    " LRRangeTest) or a"
                    " class of torch.optim.lr_scheduler",
                    '"scheduler": {{"type": "WarmupCosineLR", "params": {{"warmup_num_steps": "auto",'
                    ' "total_num_steps": "auto"}}}}',
                    "config",
                ),
                remedy("remove the scheduler section and leave it to the script"),
            ),
        ),
        Symptom(
            pattern=r"(?P<optimizer>\w{1,40}) is not a supported DeepSpeed Optimizer",
            example="AssertionError: adamw8bit is not a supported DeepSpeed Optimizer",
            counter_example="Using DeepSpeed Optimizer param name adamw as basic optimizer",
            cause="DeepSpeed has no optimizer called {optimizer}",
            fixes=(
                remedy(
                    "name one of its own (Adam, AdamW, Lamb, Lion, OneBitAdam)",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
                remedy("make the optimizer in the script and remove the section"),
            ),
        ),
        Symptom(
            pattern=r"Client Optimizer \(?(?:is of unexpected type|type = )",
            example="AssertionError: Client Optimizer is of unexpected type <class"
            " 'bitsandbytes.optim.adamw'>",
            counter_example="Using client Optimizer as basic optimizer",
            cause="What is handed to deepspeed.initialize as optimizer is none, or is none yet while a"
            " scheduler is",
        ),
        Symptom(
            pattern=r"`max_grad_norm` is not supported as an optimizer parameter",
            example="ValueError: 'max_grad_norm' is not supported as an optimizer parameter, please switch to"
            " using the deepspeed parameter 'gradient_clipping'",
            counter_example="max_grad_norm: 1.0",
            cause="max_grad_norm stands among the optimizer's parameters in the DeepSpeed configuration",
            fixes=(remedy("write it as", '"gradient_clipping": 1.0', "config"),),
        ),
        Symptom(
            pattern=r"CPUAdam param is on (?P<device>[\w:]{2,12}) and must be `cpu`",
            example="AssertionError: CPUAdam param is on cuda:0 and must be 'cpu', make sure you enabled"
            " 'offload_optimizer': 'cpu' in your ZeRO config.",
            counter_example="CPUAdam param is on cpu",
            cause="DeepSpeedCPUAdam is used and the optimizer is not offloaded: a parameter is on {device}",
            fixes=(
                remedy(
                    "offload the optimizer",
                    '"zero_optimization": {{"stage": 2, "offload_optimizer": {{"device": "cpu"}}}}',
                    "config",
                ),
                remedy("use torch.optim.AdamW in the script"),
            ),
        ),
        Symptom(
            pattern=r"Parameter with name: [^\n]{1,160} occurs multiple times in optimizer\.param_groups",
            example="AssertionError: Parameter with name: lm_head.weight occurs multiple times in"
            " optimizer.param_groups. Make sure it only appears once to prevent undefined behavior.",
            counter_example="Parameter with name: lm_head.weight has no gradient",
            cause="The optimizer handed to DeepSpeed has a parameter in two groups",
            fixes=(
                remedy("take every parameter into one group: named_parameters() of the whole model, once"),
            ),
        ),
    )
    remedies = (
        remedy(
            "name the optimizer in the configuration, and none in the script",
            '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
            "config",
        ),
        remedy("remove the optimizer and scheduler sections and make both in the script"),
    )
