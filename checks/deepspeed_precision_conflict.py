"""A DeepSpeed configuration enables fp16 and bf16 together."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import Edit, Finding, Fix
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Workload


class DeepspeedPrecisionConflict(Check):
    """A DeepSpeed configuration enables fp16 and bf16 together.

    ## What it finds

    `fp16.enabled` and `bf16.enabled` (or `bfloat16.enabled`) that are both literally true in one
    configuration. "auto" is filled in by Trainer and accelerate and is not judged.

    ## Why it breaks

    DeepSpeed asserts that only one of them is on when it reads the configuration: every rank ends with
    "bfloat16 and fp16 modes cannot be simultaneously enabled".

    ## How it is proven

    By the assertion itself, which is the same in every release from 0.9 to 0.19; no trial is needed.

    ## Fix

    Switch one of them off: fp16 where the GPUs have bfloat16, bf16 where they have not.

    ## References

    - deepspeed/runtime/config.py, DeepSpeedConfig._initialize_params (0.9.5, 0.19.8)
    - https://www.deepspeed.ai/docs/config-json/#fp16-training-options
    """

    name = "deepspeed-precision-conflict"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://www.deepspeed.ai/docs/config-json/"
    symptoms = (
        Symptom(
            pattern=r"bfloat16 and fp16 modes cannot be simultaneously enabled",
            example="AssertionError: bfloat16 and fp16 modes cannot be simultaneously enabled",
            counter_example="DeepSpeed info: bfloat16 enabled",
        ),
        Symptom(
            pattern=r"data_types\.param_dtype`=.{0,30} conflicts with the enabled precision mode",
            example="AssertionError: data_types.param_dtype='torch.float32' conflicts with the enabled"
            " precision mode (model dtype torch.bfloat16).",
            counter_example="data_types.grad_accum_dtype is fp32",
            cause="data_types.param_dtype in the DeepSpeed configuration is not the precision that its"
            " fp16 or"
            " bf16 section enables",
        ),
        Symptom(
            pattern=r"unsupported mix of model_?(dtype)?[^\n]{0,60}grad_acc",
            example="NotImplementedError: unsupported mix of model_dtype=torch.float16 and"
            " grad_accum_dtype=torch.bfloat16",
            counter_example="grad_accum_dtype is fp32",
            cause="DeepSpeed has no optimizer for this mix of the model's precision and data_types."
            "grad_accum_dtype",
            fixes=(
                remedy(
                    "accumulate in single precision", '"data_types": {{"grad_accum_dtype": "fp32"}}', "config"
                ),
                remedy("remove data_types.grad_accum_dtype"),
            ),
        ),
        Symptom(
            pattern=r"ZeRO-?\d? supports [^\n]{0,120}communication_data_type with reduce scatter enabled",
            example="AssertionError: ZeRO-3 supports (torch.float16, torch.float32) communication_data_type"
            " with reduce scatter enabled. Got: 'torch.bfloat16'",
            counter_example="communication_data_type: fp16",
            cause="The communication_data_type of the DeepSpeed configuration does not go with"
            " reduce_scatter",
            fixes=(
                remedy(
                    "remove communication_data_type, or set", '"communication_data_type": "fp16"', "config"
                ),
            ),
        ),
        Symptom(
            pattern=r"Invalid communication_data_type",
            example="ValueError: Invalid communication_data_type. Supported data types: ['fp16', 'bf16',"
            " 'fp32']. Got: half",
            counter_example="communication_data_type: fp16",
            cause="communication_data_type of the DeepSpeed configuration is none of fp16, bf16 and fp32",
            fixes=(remedy("name one of them", '"communication_data_type": "fp16"', "config"),),
        ),
    )
    remedies = (
        remedy(
            "leave it to Trainer and accelerate, which enable the one that --bf16 or --fp16 asks for",
            '"fp16": {{"enabled": "auto"}},\n"bf16": {{"enabled": "auto"}}',
            "config",
        ),
        remedy("else enable one of the two", '"bf16": {{"enabled": true}}', "config"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Both switches of every configuration."""
        for config in deepspeed.configs(case):
            fp16 = config.get("fp16", "enabled")
            for section in ("bf16", "bfloat16"):
                bf16 = config.get(section, "enabled")
                if fp16 is None or bf16 is None or fp16.constant is not True or bf16.constant is not True:
                    continue
                message = f"{section}.enabled and fp16.enabled (line {fp16.place.line}) are both true"
                yield Suspicion(
                    Finding(
                        severity="error",
                        confidence="certain",
                        message=f"{message}: DeepSpeed asserts that only one is",
                        subject=deepspeed.at(bf16.place),
                        evidence={"fp16_line": fp16.place.line},
                        fixes=tuple(
                            Fix(
                                title=f"switch {name} off",
                                kind="config",
                                applicability="unsafe",  # which of them is meant is not written there
                                preview=f'"{name}": {{"enabled": false}}',
                                edits=(
                                    Edit(
                                        action="set-key",
                                        path=config.path,
                                        line=value.place.line,
                                        column=value.place.column,
                                        name=f"{name}.enabled",
                                        text="false",
                                    ),
                                ),
                            )
                            for name, value in (("fp16", fp16), (section, bf16))
                        ),
                    )
                )

    def examples(self) -> Iterable[Example]:
        """One is on, both are, and no configuration."""
        yield healthy(
            "one is on",
            deepspeed.example(
                '{"train_batch_size": 8, "fp16": {"enabled": true}, "bf16": {"enabled": false}}'
            ),
        )
        yield healthy(
            "both are left to Trainer",
            deepspeed.example(
                '{"train_batch_size": 8, "fp16": {"enabled": "auto"}, "bf16": {"enabled": "auto"}}'
            ),
        )
        yield sick(
            "both are on",
            deepspeed.example(
                '{"train_batch_size": 8,\n "fp16": {"enabled": true},\n "bf16": {"enabled": true}}'
            ),
            "error: bf16.enabled and fp16.enabled (line 2) are both true: DeepSpeed asserts that only one is",
        )
        yield cannot_tell(
            "no configuration",
            msgspec.structs.replace(case_of(), workload=Workload()),
            deepspeed.NO_CONFIG,
        )
