"""A DeepSpeed configuration enables fp16 and bf16 together."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import Case, Check, Example, Suspicion, Symptom, cannot_tell, case_of, healthy, sick
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
