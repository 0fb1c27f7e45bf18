"""A prepare call meant for 8-bit models turns a float16 model into float32 and doubles its memory."""

from __future__ import annotations

from typing import Iterable, Iterator, Tuple

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    at,
    by_own_case,
    cannot_tell,
    case_of,
    healthy,
    in_scripts,
    proven,
    remedy,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import Arm, Finding, Fix, Packages, TrialCase, TrialResult
from llm_doctor.workload.data import Call, Story
from llm_doctor.workload.models import dtype, dtype_place, quantization

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
            pattern=r"param\.data = param\.data\.to\(torch\.float32\)",
            example='  File "/env/peft/utils/other.py", line 98, in prepare_model_for_kbit_training\n'
            "    param.data = param.data.to(torch.float32)",
            counter_example="    param.data = param.data.to(device)",
            cause="The job died where peft's prepare call turns every parameter that is not quantised into "
            "float32, which doubles a 16-bit model",
            sure="likely",
        ),
        Symptom(
            pattern=r"cannot import name `prepare_model_for_int8_training",
            example="ImportError: cannot import name 'prepare_model_for_int8_training' from 'peft'",
            counter_example="FutureWarning: prepare_model_for_int8_training is deprecated",
            cause="prepare_model_for_int8_training is gone from peft 0.10 on",
            fixes=(
                remedy(
                    "call its successor",
                    "from peft import prepare_model_for_kbit_training",
                    "edit",
                ),
                remedy("stay with a peft that has it", "pip install 'peft<0.10'"),
            ),
        ),
        Symptom(
            pattern=r"cannot import name `prepare_model_for_kbit_training",
            example="ImportError: cannot import name 'prepare_model_for_kbit_training' from 'peft'",
            counter_example="from peft import prepare_model_for_kbit_training",
            cause="prepare_model_for_kbit_training came with peft 0.4",
            fixes=(remedy("upgrade peft", "pip install -U peft"),),
        ),
        Symptom(
            pattern=r"prepare_model_for_(?:int8|kbit)_training\(\) got an unexpected keyword argument "
            r"`(?P<name>\w{3,60})",
            example="TypeError: prepare_model_for_int8_training() got an unexpected keyword argument "
            "'use_reentrant'",
            counter_example="prepare_model_for_kbit_training(model, use_gradient_checkpointing=True)",
            cause="The installed peft's prepare call knows no {name}=",
            fixes=(remedy("upgrade peft, or leave the argument out", "pip install -U peft"),),
        ),
    )
    remedies = (
        remedy("do not call it on a model that is not quantised; freeze by hand instead"),
        remedy(
            "what is left of it for a 16-bit model",
            "model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()",
            "edit",
        ),
        remedy(
            "load the model quantised",
            "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
            "edit",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Of an unknown stack nothing but the trial can say it; of a script, whether it makes such a call."""
        if case.workload is not None:
            yield from in_scripts(case, TRIAL, lambda story: _judge(story, case), off_default=True)
            return
        message = "a prepare call on a float16 model that is not quantised"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each function that makes the model larger here; of a script, the one that it calls."""
        if finding.subject.path is not None:
            wanted = finding.evidence["function"]
            yield from by_own_case(finding, results, lambda case: case["function"] == wanted, "warning")
            return
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


def _judge(story: Story, case: Case) -> Iterator[Tuple[Call, Finding]]:
    """A prepare call on a model that is known to be in half precision and not quantised."""
    prepare = story.step("prepare_model_for_int8_training", "prepare_model_for_kbit_training")
    if prepare is None or story.load is None or quantization(story.load) is not None:
        return
    before = msgspec.structs.replace(story, steps=story.steps[: story.steps.index(prepare)])
    loaded = dtype(before)
    if loaded is None or loaded.constant not in ("float16", "bfloat16") or not _exists(case, prepare.name):
        return
    where = dtype_place(story, loaded)
    yield (
        prepare,
        Finding(
            severity="warning",
            confidence="certain",
            message=f"{prepare.name}() on a {loaded.constant} model, not quantised (line {where.line})"
            ": every parameter becomes float32, twice the memory",
            subject=at(prepare.place),
            evidence={"function": prepare.name, "dtype": loaded.constant},
            fixes=(
                Fix(
                    title="leave the call out: an adapter freezes the model by itself",
                    kind="edit",
                    applicability="manual",
                    preview="model.gradient_checkpointing_enable()\nmodel.enable_input_require_grads()",
                ),
            ),
        ),
    )


def _exists(case: Case, function: str) -> bool:
    """Whether the installed peft has it: what is missing is an ImportError first (removed-api)."""
    peft = case.version("peft")
    if peft is None:
        raise CannotTell("peft is not installed")
    if function == "prepare_model_for_int8_training":
        return peft.release < (0, 10)  # 0.2.0 to 0.9.0, by the wheels
    return peft.release >= (0, 4)  # pull request 483


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
