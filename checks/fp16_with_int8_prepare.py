"""A prepare call meant for 8-bit models turns a float16 model into float32 and doubles its memory."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

from llm_doctor.check import (
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    cannot_tell,
    case_of,
    healthy,
    proven,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import Arm, Finding, Fix, Packages, TrialCase, TrialResult

TRIAL = Trial(
    name="fp16-with-int8-prepare",
    imports=("torch", "transformers.models.llama.modeling_llama", "peft"),
)


class Fp16WithInt8Prepare(Check):
    """A prepare call meant for 8-bit models turns a float16 model into float32 and doubles its memory.

    ## What it finds

    What `prepare_model_for_int8_training` and `prepare_model_for_kbit_training`, as far as the installed peft
    has them, do to a model that was loaded in float16 and not quantised.

    ## Why it breaks

    Both freeze the model and cast every parameter that is not quantised to float32, which is right for the
    layer norms of an 8-bit model. In a model that was never quantised that is everything: a 7-billion
    parameter model grows from 14 to 28 GB, and the job runs out of memory where float16 alone would fit.

    ## How it is proven

    The parameters of a two-layer Llama in float16 are counted in bytes before and after the installed
    function. The arm fails when they grow by more than half. The fixed arm freezes by hand.

    ## Fix

    Load the model in 8 or 4 bits before the call, or leave the call out: freeze, turn checkpointing on, and
    call `enable_input_require_grads()`.

    ## References

    - https://github.com/huggingface/peft/pull/483 (prepare_model_for_kbit_training, peft 0.4.0)
    - https://github.com/huggingface/peft/blob/main/src/peft/utils/other.py
    """

    name = "fp16-with-int8-prepare"
    topic = "fp16-int8-prepare"
    severity = "note"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/peft/pull/483"
    symptoms = (
        Symptom(
            pattern=r"cannot import name 'prepare_model_for_int8_training'",
            example="ImportError: cannot import name 'prepare_model_for_int8_training' from 'peft'",
            counter_example="FutureWarning: prepare_model_for_int8_training is deprecated",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Nothing but the trial can say it of an unknown stack."""
        message = "a prepare call on a float16 model that is not quantised"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each function that makes the model larger here."""
        for result, case in reproduced(results):
            measured = case.broken.measured if case.broken else {}
            before, after = measured["parameter_bytes_before"], measured["parameter_bytes_after"]
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"{case.combination['function']}() on fp16: {after / before:.1f} x the memory",
                fixes=(
                    Fix(
                        title="prepare a float16 model by hand",
                        kind="edit",
                        applicability="manual",
                        preview="for p in model.parameters():\n    p.requires_grad = False\n"
                        "model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()",
                        verified=True,  # the fixed arm of this very case
                    ),
                ),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.0", "transformers": "4.38.0", "peft": "0.9.0"}, modules={})

    def tried(after: int) -> TrialResult:
        grew = after > 230016
        case = TrialCase(
            combination={"function": "prepare_model_for_kbit_training"},
            status="reproduced" if grew else "refuted",
            broken=Arm(
                outcome="failed" if grew else "passed",
                measured={"parameter_bytes_before": 230016, "parameter_bytes_after": after},
            ),
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(name=TRIAL.name, device="cpu", status=case.status, seconds=0.1, cases=(case,))

    yield healthy("a peft that leaves the dtype alone", case_of(stack), tried(230016))
    yield sick(
        "every parameter becomes float32",
        case_of(stack),
        "note: prepare_model_for_kbit_training() on fp16: 2.0 x the memory",
        trials=(tried(460032),),
    )
    without = Packages(installed={"torch": "2.0", "transformers": "4.38.0"}, modules={})
    yield cannot_tell("peft is not installed", case_of(without), "peft is not installed")
