"""LoRA under activation checkpointing gets no gradient, because the frozen inputs need none."""

from __future__ import annotations

from typing import Iterable, Iterator, Mapping, Tuple

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
from llm_doctor.model import (
    Arm,
    Edit,
    Finding,
    Fix,
    Packages,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Call, Story
from llm_doctor.workload.models import written

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
            pattern=r"element 0 of (?:tensors|variables) does not require grad",
            example="RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
            counter_example="RuntimeError: a variable needed for gradient computation has been modified",
            cause="The loss hangs on nothing that is trained: checkpointed blocks whose inputs need no "
            "gradient, or no trainable parameter at all",
        ),
        Symptom(
            pattern=r"none of output has requires_grad=True, this checkpoint\(\) is not necessary",
            example="RuntimeError: none of output has requires_grad=True, this checkpoint() is not necessary",
            counter_example="the checkpoint is not necessary",
            cause="A checkpointed block's output needs no gradient: neither its inputs nor its weights do",
        ),
        Symptom(
            pattern=r"One of the differentiated Tensors does not require grad",
            example="RuntimeError: One of the differentiated Tensors does not require grad",
            counter_example="RuntimeError: One of the differentiated Tensors appears to not have been used",
            cause="A gradient is asked for a tensor that needs none",
            sure="likely",
        ),
        Symptom(
            pattern=r"a leaf Variable that requires grad is being used in an in-place operation",
            example="a leaf Variable that requires grad is being used in an in-place operation.",
            counter_example="a leaf Variable that requires grad",
            cause="Embeddings that were made to require a gradient (enable_input_require_grads) are written "
            "to in place",
            sure="likely",
            fixes=(
                remedy(
                    "leave enable_input_require_grads() out and checkpoint without reentrance",
                    'gradient_checkpointing_kwargs={{"use_reentrant": False}}',
                    "edit",
                ),
                remedy("copy the embeddings first", "inputs_embeds = inputs_embeds.clone()", "edit"),
            ),
        ),
        Symptom(
            pattern=r"None of the inputs have requires_grad=True",
            example="UserWarning: None of the inputs have requires_grad=True. Gradients will be None",
            counter_example="the inputs have requires_grad=True",
            cause="No input of a checkpointed block needs a gradient, so its weights get none",
            standing="hint",
        ),
    )
    remedies = (
        remedy(
            "let the embeddings' output need a gradient, before get_peft_model",
            "model.enable_input_require_grads()",
            "edit",
        ),
        remedy(
            "checkpoint without reentrance (transformers 4.35 and later)",
            'gradient_checkpointing_kwargs={{"use_reentrant": False}}',
            "edit",
        ),
        remedy("see that anything is trained at all", "model.print_trainable_parameters()", "edit"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Of an unknown stack nothing but the trial can say it; of a script, whether it meets the fault."""
        if case.workload is not None:
            yield from in_scripts(case, TRIAL, lambda story: _judge(story, case), off_default=True)
            return
        message = "LoRA with gradient checkpointing and without enable_input_require_grads()"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each combination that fails here, with the remedies that were seen to work."""
        if finding.subject.path is not None:
            wanted = finding.evidence["combination"]
            yield from by_own_case(finding, results, lambda case: _is_same(case, wanted))
            return
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


def _judge(story: Story, case: Case) -> Iterator[Tuple[Call, Finding]]:
    """A story in which LoRA meets checkpointing and nothing lets the inputs need a gradient."""
    wrap = story.step("get_peft_model", "add_adapter")
    if wrap is None or story.training is None or wrap not in story.steps:
        return
    if story.unseen or any(_lets_inputs_need_gradients(step) for step in story.steps):
        return
    enabled = story.step("gradient_checkpointing_enable", "activation_checkpointing_enable")
    setting = story.training.settings.get("gradient_checkpointing")
    before = enabled is not None and story.steps.index(enabled) < story.steps.index(wrap)
    if enabled is None and (setting is None or setting.constant is not True):
        return
    arguments = enabled.argument("gradient_checkpointing_kwargs", 0) if enabled is not None else None
    arguments = arguments or story.training.settings.get("gradient_checkpointing_kwargs")
    reentrant = arguments.get("use_reentrant") if arguments is not None else None
    if arguments is not None and (reentrant is None or not reentrant.known):
        return
    config = wrap.argument("peft_config", 1)
    made = config.constant if config is not None else None
    if isinstance(made, Call) and (made.name in _PROMPTS or _trains_embeddings(made)):
        return
    saved = made.argument("modules_to_save") if isinstance(made, Call) else None
    if saved is not None and not saved.known:
        return
    combination = {
        "order": "before-wrapping" if before else "after-wrapping",
        "use_reentrant": reentrant.constant if reentrant is not None else None,
        "modules_to_save": saved is not None and saved.constant is not None,
    }
    fails = _fails_by_the_rule(case, combination)
    if not fails and case.assumed:
        return
    how = "gradient_checkpointing_enable()"
    if enabled is None and setting is not None:
        how = written(setting, "gradient_checkpointing")
    yield (
        wrap,
        Finding(
            severity="error" if fails else "note",  # by the rule; the trial has the last word
            confidence="certain" if fails else "likely",
            message=f"{wrap.name}() under activation checkpointing ({how}), and nothing lets the inputs need"
            " a gradient: the LoRA weights get none",
            subject=at(wrap.place),
            evidence={"combination": combination},
            fixes=(
                Fix(
                    title="let the inputs need a gradient",
                    kind="edit",
                    applicability="safe",
                    preview=f"{wrap.target or 'model'}.enable_input_require_grads()",
                    edits=_edits(wrap),
                ),
            ),
        ),
    )


_PROMPTS = ("PromptTuningConfig", "PrefixTuningConfig", "PromptEncoderConfig")
"""Methods whose trained prompt is an input by itself."""


def _trains_embeddings(config: Call) -> bool:
    """Whether the embedding is among what is trained: then its output needs a gradient."""
    for name in ("modules_to_save", "target_modules"):
        value = config.argument(name)
        named = value.plain if value is not None else None
        words = named if isinstance(named, list) else [named]
        if any(isinstance(it, str) and ("embed" in it or it == "wte") for it in words):
            return True
    return False


def _lets_inputs_need_gradients(step: Call) -> bool:
    if step.name in ("enable_input_require_grads", "register_forward_hook", "requires_grad_"):
        return True
    if step.name.startswith("prepare_model_for_"):
        # peft/utils/other.py: the prepare calls do it, unless told to leave checkpointing alone.
        used = step.argument("use_gradient_checkpointing", 1)
        return used is None or used.constant is not False
    return False


def _fails_by_the_rule(case: Case, combination: Mapping[str, object]) -> bool:
    """Which releases take care of it: facts of transformers #26334, #42489 and peft #404."""
    transformers, peft = case.version("transformers"), case.version("peft")
    if transformers is None or peft is None:
        raise CannotTell(f"{'transformers' if transformers is None else 'peft'} is not installed")
    if transformers.major >= 5 or combination["use_reentrant"] is False:
        return False
    return combination["order"] == "after-wrapping" or peft.release < (0, 4)


def _edits(wrap: Call) -> Tuple[Edit, ...]:
    if not wrap.target:  # nothing to call it on is at hand
        return ()
    text = f"{wrap.target}.enable_input_require_grads()"
    return (Edit(action="insert-after", path=wrap.place.path, line=wrap.place.line, text=text),)


def _is_same(case: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    """Whether the trial's case is the very combination that a script makes."""
    # The release whose default it is knows no keyword for it, or has True.
    same_default = wanted["use_reentrant"] is None and case["use_reentrant"] in (None, True)
    return (
        case["order"] == wanted["order"]
        and case["modules_to_save"] == wanted["modules_to_save"]
        and (same_default or case["use_reentrant"] == wanted["use_reentrant"])
    )


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
