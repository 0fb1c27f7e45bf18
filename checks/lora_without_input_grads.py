"""LoRA under activation checkpointing gets no gradient, because the frozen inputs need none."""

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
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Packages,
    TrialCase,
    TrialResult,
)

TRIAL = Trial(
    name="lora-without-input-grads",
    imports=("torch", "transformers.models.llama.modeling_llama", "peft"),
    on_gpu=True,
)


class LoraWithoutInputGrads(Check):
    """LoRA under activation checkpointing gets no gradient, because the frozen inputs need none.

    ## What it finds

    Whether, on the installed torch, transformers and peft, a LoRA script that turns gradient checkpointing
    on and does not call `enable_input_require_grads()` trains: for checkpointing turned on before and
    after `get_peft_model`, reentrant or not where this transformers knows the difference, with and without
    `modules_to_save`.

    ## Why it breaks

    Reentrant checkpointing runs each block under `no_grad` and again in backward; its output needs a
    gradient only when one of its *inputs* does. In LoRA the embedding is frozen, so none does, and
    backward raises "element 0 of tensors does not require grad". With `modules_to_save` or another
    trainable head the loss keeps a gradient: nothing is raised, and no LoRA weight ever changes.
    Which releases take care of it themselves, and in which order of calls, differs: one script, three stacks,
    three verdicts.

    ## How it is proven

    One backward pass of a two-layer Llama with LoRA for each combination. The broken arm leaves
    `enable_input_require_grads()` out, the fixed arm calls it. An arm passes only when every LoRA tensor has
    a gradient and some `lora_B` has one that is not zero.

    ## Fix

    Call `model.enable_input_require_grads()` before training; or, where this transformers knows it, use
    `gradient_checkpointing_kwargs={"use_reentrant": False}`.

    ## References

    - https://github.com/huggingface/transformers/issues/26334
    - https://github.com/huggingface/transformers/issues/42489 (taken care of in 5.0.0)
    - https://github.com/huggingface/peft/pull/404 (peft 0.4.0: only when checkpointing is on before wrapping)
    - https://pytorch.org/docs/stable/checkpoint.html
    """

    name = "lora-without-input-grads"
    topic = "input-grads"
    severity = "note"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/transformers/issues/26334"
    symptoms = (
        Symptom(
            pattern=r"element 0 of tensors does not require grad and does not have a grad_fn",
            example="RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
            counter_example="RuntimeError: a variable needed for gradient computation has been modified",
        ),
        Symptom(
            pattern=r"None of the inputs have requires_grad=True",
            example="UserWarning: None of the inputs have requires_grad=True. Gradients will be None",
            counter_example="the inputs have requires_grad=True",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Nothing but the trial can say it of an unknown stack."""
        message = "LoRA with gradient checkpointing and without enable_input_require_grads()"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each combination that fails here, with the remedies that were seen to work."""
        for result, case in reproduced(results):
            combination = case.combination
            saved = " + modules_to_save" if combination["modules_to_save"] else ""
            how = {True: "reentrant ", False: "non-reentrant ", None: ""}[combination["use_reentrant"]]
            when = str(combination["order"]).partition("-")[0]
            silent = case.broken is not None and case.broken.outcome == "failed"
            what = "learns nothing" if silent else "backward raises"
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"LoRA{saved}, {how}checkpointing {when} get_peft_model(): {what}",
                fixes=tuple(_fixes(combination, result)),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _fixes(combination: dict[str, object], result: TrialResult) -> Iterator[Fix]:
    yield Fix(
        title="let the inputs need a gradient",
        kind="edit",
        applicability="safe",
        preview="model.enable_input_require_grads()",
        verified=True,  # the fixed arm of this very case
    )
    for case in result.cases:
        sibling = {**case.combination, "use_reentrant": combination["use_reentrant"]}
        if case.combination["use_reentrant"] is False and sibling == combination and case.status == "refuted":
            yield Fix(
                title="checkpoint without re-entering",
                kind="edit",
                applicability="unsafe",  # another algorithm: memory and hooks differ
                preview='gradient_checkpointing_kwargs={"use_reentrant": False}',
                verified=True,
            )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.0", "transformers": "4.38.0", "peft": "0.9.0"}, modules={})
    error = "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn"

    def result(*cases: TrialCase) -> TrialResult:
        return TrialResult(name=TRIAL.name, device="cpu", status=cases[0].status, seconds=0.4, cases=cases)

    def case(broken: Arm, order: str, reentrant: bool | None, saved: bool = False) -> TrialCase:
        return TrialCase(
            combination={"order": order, "use_reentrant": reentrant, "modules_to_save": saved},
            status="refuted" if broken.outcome == "passed" else "reproduced",
            broken=broken,
            fixed=Arm(outcome="passed"),
        )

    yield healthy(
        "a stack that takes care of it itself",
        case_of(stack),
        result(case(Arm(outcome="passed"), "after-wrapping", True)),
    )
    yield sick(
        "a stack that fails in one order only, and only when reentrant",
        case_of(stack),
        "note: LoRA, reentrant checkpointing after get_peft_model(): backward raises",
        trials=(
            result(
                case(Arm(outcome="raised", error=error), "after-wrapping", True),
                case(Arm(outcome="passed"), "after-wrapping", False),
                case(Arm(outcome="passed"), "before-wrapping", True),
            ),
        ),
    )
    yield sick(
        "a stack that fails in both orders: one finding each",
        case_of(stack),
        "note: LoRA, checkpointing before get_peft_model(): backward raises",
        "note: LoRA, checkpointing after get_peft_model(): backward raises",
        trials=(
            result(
                case(Arm(outcome="raised", error=error), "before-wrapping", None),
                case(Arm(outcome="raised", error=error), "after-wrapping", None),
            ),
        ),
    )
    yield sick(
        "the silent case: a trainable head keeps the loss differentiable",
        case_of(stack),
        "note: LoRA + modules_to_save, checkpointing before get_peft_model(): learns nothing",
        trials=(result(case(Arm(outcome="failed", error="no gradient"), "before-wrapping", None, True)),),
    )
    without = Packages(installed={"torch": "2.0", "transformers": "4.38.0"}, modules={})
    yield cannot_tell("peft is not installed", case_of(without), "peft is not installed")
