"""Trainable float16 weights under a gradient scaler: the first step refuses them."""

from __future__ import annotations

from typing import Iterable, Iterator, Tuple

import msgspec

from llm_doctor.check import (
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
from llm_doctor.model import Arm, Edit, Finding, Fix, Packages, ProofStatus, TrialCase, TrialResult
from llm_doctor.workload.data import Call, Story, Training
from llm_doctor.workload.models import dtype, dtype_place, has_adapters, quantization, written

TRIAL = Trial(
    name="fp16-weights-under-amp",
    imports=("torch", "transformers.models.llama.modeling_llama", "peft"),
    on_gpu=True,
)
_WHAT = {
    "fp16-model": "a model trained in float16",
    "lora-on-fp16-base": "LoRA as peft makes it on a float16 base",
}


class Fp16WeightsUnderAmp(Check):
    """Trainable float16 weights under a gradient scaler: the first step refuses them.

    ## What it finds

    Whether a training step with `fp16=True` survives on the installed stack when the trainable weights are
    float16 themselves: a model loaded in float16 and trained whole, and LoRA adapters as the installed peft
    makes them on a float16 base.

    ## Why it breaks

    Mixed precision keeps float32 weights and computes in float16. The scaler divides the gradients in the
    weights' own dtype, and refuses to do so in float16: "Attempting to unscale FP16 gradients". In which
    dtype peft creates its adapters has changed between releases (float32 again since 0.12.0).

    ## How it is proven

    One step of a two-layer Llama under autocast and a gradient scaler. The fixed arm makes the trainable
    weights float32. An arm passes when weights changed. Where no scaler is enabled, as on the CPU before
    torch 2.3, the step proves nothing and the trial is inconclusive.

    ## Fix

    Make the trainable weights float32 before the optimizer is built: load the model in float32 for full
    training, or cast the adapters.

    ## References

    - https://github.com/huggingface/peft/pull/1706 (autocast_adapter_dtype, peft 0.12.0)
    - https://github.com/huggingface/transformers/issues/30559
    - https://github.com/huggingface/diffusers/issues/6086
    """

    name = "fp16-weights-under-amp"
    topic = "fp16-int8-prepare"
    severity = "note"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/transformers/issues/30559"
    symptoms = (
        Symptom(
            pattern=r"Attempting to unscale FP16 gradients",
            example="ValueError: Attempting to unscale FP16 gradients.",
            counter_example="AssertionError: No inf checks were recorded for this optimizer.",
            cause="The trainable weights are float16 themselves under fp16 mixed precision, whose gradient "
            "scaler wants float32 ones",
        ),
        Symptom(
            pattern=r"_amp_foreach_non_finite_check_and_unscale_\w{2,8}` not implemented for `BFloat16",
            example='RuntimeError: "_amp_foreach_non_finite_check_and_unscale_cuda" not implemented for '
            "'BFloat16'",
            counter_example="RuntimeError: \"triu_tril_cuda_template\" not implemented for 'BFloat16'",
            cause="bfloat16 gradients meet the gradient scaler of fp16 mixed precision, which does not take "
            "them",
            fixes=(
                remedy("train in bfloat16 instead: it needs no scaler", "bf16=True, fp16=False", "edit"),
                remedy(
                    "load the weights in float32",
                    "model = AutoModelForCausalLM.from_pretrained(name, torch_dtype=torch.float32)",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "make the trainable weights float32 before the optimizer is built",
            "for parameter in model.parameters():\n    if parameter.requires_grad:\n"
            "        parameter.data = parameter.data.float()",
            "edit",
        ),
        remedy(
            "train the whole model from float32 weights",
            "model = AutoModelForCausalLM.from_pretrained(name, torch_dtype=torch.float32)",
            "edit",
        ),
        remedy("on GPUs from Ampere on, train in bfloat16: no scaler is used", "bf16=True", "edit"),
        remedy("peft from 0.12 on makes its adapters float32 by itself", "pip install -U peft"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Of an unknown stack nothing but the trial can say it; of a script, whether it does so."""
        if case.workload is not None:
            yield from in_scripts(case, TRIAL, _judge)
            return
        message = "trainable float16 weights under a gradient scaler"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "peft")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each way of training that the scaler refuses here; of a script, its own."""
        if finding.subject.path is not None:
            wanted = finding.evidence["trainable"]
            yield from by_own_case(finding, results, lambda case: case["trainable"] == wanted)
            return
        for result, case in reproduced(results):
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"{_WHAT[case.combination['trainable']]}: the scaler refuses its step",
                fixes=(
                    Fix(
                        title="keep the trainable weights in float32",
                        kind="edit",
                        applicability="manual",
                        preview="for p in model.parameters():\n    if p.requires_grad:\n"
                        "        p.data = p.data.float()",
                        verified=True,  # the fixed arm of this very case
                    ),
                ),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _judge(story: Story) -> Iterator[Tuple[Call, Finding]]:
    """A model in float16 that is trained whole under fp16=True, with torch's own scaler."""
    training, load = story.training, story.load
    if training is None or load is None or not training.on("fp16") or has_adapters(story):
        return
    if quantization(load) is not None or _has_its_own_scaling(training) or story.unseen:
        return
    loaded = dtype(story)
    if loaded is None or loaded.constant != "float16":
        return
    fp16 = training.settings["fp16"]
    yield (
        load,
        Finding(
            severity="error",
            confidence="certain",
            message=f"float16 weights are trained whole under {written(fp16, 'fp16')}: the gradient scaler"
            " refuses the first step",
            subject=at(dtype_place(story, loaded)),
            evidence={"trainable": "fp16-model"},
            fixes=(
                Fix(
                    title="load the weights in float32: fp16=True computes in float16 all the same",
                    kind="edit",
                    applicability="unsafe",  # twice the memory
                    preview="torch_dtype=torch.float32",
                    edits=_edits(load),
                ),
            ),
        ),
    )


def _has_its_own_scaling(training: Training) -> bool:
    """DeepSpeed and FSDP scale the loss themselves; where that is not known, nothing is said."""
    if training.deepspeed is not None:
        return True
    launch = training.launch
    if launch is not None and (
        "deepspeed" in launch.flags
        or "deepspeed_config_file" in launch.options
        or "use_deepspeed" in launch.options
    ):
        return True
    for name in ("deepspeed", "fsdp"):
        value = training.settings.get(name)
        if value is not None and value.constant not in (None, "", False):
            return True
    return False


def _edits(load: Call) -> Tuple[Edit, ...]:
    for name in ("torch_dtype", "dtype"):
        value = load.argument(name)
        if value is not None and value.key is not None:
            place = load.place
            return (
                Edit(
                    action="set-keyword",
                    path=place.path,
                    line=place.line,
                    column=place.column,
                    name=name,
                    text="torch.float32",
                ),
            )
    return ()


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.3.0", "transformers": "4.41.0", "peft": "0.11.1"}, modules={})
    refused = Arm(outcome="raised", error="ValueError: Attempting to unscale FP16 gradients.")
    no_scaler = "it failed in another way: RuntimeError: no gradient scaler is enabled on this device"

    def tried(trainable: str, status: ProofStatus, reason: str | None = None) -> TrialResult:
        case = TrialCase(
            combination={"trainable": trainable},
            status=status,
            broken=Arm(outcome="passed") if status == "refuted" else refused,
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(
            name=TRIAL.name, device="cpu", status=status, seconds=0.1, cases=(case,), reason=reason
        )

    yield healthy("a peft that makes float32 adapters", case_of(stack), tried("lora-on-fp16-base", "refuted"))
    yield sick(
        "a peft that makes adapters of the base's dtype",
        case_of(stack),
        "note: LoRA as peft makes it on a float16 base: the scaler refuses its step",
        trials=(tried("lora-on-fp16-base", "reproduced"),),
    )
    yield cannot_tell(
        "a CPU and a torch that has no scaler for it",
        case_of(stack),
        f"inconclusive: {no_scaler}",
        tried("fp16-model", "inconclusive", no_scaler),
    )
