"""A purely 8-bit or 4-bit model goes into Trainer without adapters: there is nothing that can be trained."""

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
    TrialRequest,
    at,
    by_trial,
    cannot_tell,
    case_of,
    healthy,
    in_every_story,
    remedy,
    sick,
)
from llm_doctor.model import Arm, Finding, Fix, Packages, ProofStatus, TrialCase, TrialResult
from llm_doctor.workload.data import Call, Place, Script, Story, Training, Value, Workload
from llm_doctor.workload.models import Quantization, has_adapters, quantization, written

# Trainer is imported by the arms: its import initialises CUDA in releases of 2023.
TRIAL = Trial(
    name="quantized-without-adapter",
    imports=("torch", "transformers.models.llama.modeling_llama", "peft", "accelerate", "bitsandbytes"),
    on_gpu=True,
)
REFUSES_SINCE = (4, 34)
_TRL_TRAINERS = frozenset(
    """
    SFTTrainer DPOTrainer RewardTrainer KTOTrainer ORPOTrainer CPOTrainer BCOTrainer GRPOTrainer
    IterativeSFTTrainer
    """.split()
)
"""Those of trl that hand their model to Trainer.__init__ as it is."""
_ADAPTS = frozenset({"get_peft_model", "add_adapter", "load_adapter", "inject_adapter_in_model"})
_PREPARE = ("prepare_model_for_kbit_training", "prepare_model_for_int8_training")


class QuantizedWithoutAdapter(Check):
    """A purely 8-bit or 4-bit model goes into Trainer without adapters: there is nothing that can be trained.

    ## What it finds

    A model that is loaded in 8 or 4 bits by bitsandbytes and given to transformers' Trainer, or to one of
    trl's that are made from it, on every way through the script without `get_peft_model`, `PeftModel`,
    `add_adapter` or `peft_config=`. A training loop of one's own is not judged.

    ## Why it breaks

    Quantised weights are integers and have no gradient. Trainer refuses such a model from transformers 4.34
    on: "You cannot perform fine-tuning on purely quantized models". Before, it trains what was left in
    float16, which is embeddings, norms and head; after `prepare_model_for_int8_training` or
    `prepare_model_for_kbit_training`, which freeze everything, nothing at all, or backward raises.

    ## How it is proven

    A two-layer Llama is loaded in 8 bits and given to Trainer, then the same with LoRA. An arm passes when
    Trainer takes the model and weights of the linear layers, or adapters on them, can be trained.

    ## Fix

    Put adapters on it: `get_peft_model(model, LoraConfig(...))`, or `peft_config=` of a trainer of trl.

    ## References

    - transformers/trainer.py, Trainer.__init__ (4.29.2, 4.33.3: takes it; 4.34.1, 4.57.3: raises)
    - transformers/utils/quantization_config.py, BitsAndBytesConfig (4.29.2: 8 bits only; 4.30.2: 4 bits too)
    - transformers/trainer_utils.py, validate_quantization_for_training (5.23.0)
    - https://huggingface.co/docs/transformers/peft
    """

    name = "quantized-without-adapter"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://huggingface.co/docs/transformers/peft"
    symptoms = (
        Symptom(
            pattern=r"You cannot perform fine-tuning on purely quantized models",
            example="ValueError: You cannot perform fine-tuning on purely quantized models. Please attach "
            "trainable adapters on top of the quantized model to correctly perform fine-tuning.",
            counter_example="ValueError: You cannot fine-tune quantized model with `torch.compile()`",
        ),
        Symptom(
            pattern=r"attach trainable adapters on top of the quantized model",
            example="Please attach trainable adapters on top of the quantized model to correctly perform "
            "fine-tuning. Please see: https://huggingface.co/docs/transformers/peft for more details",
            counter_example="trainable adapters were attached to the quantized model",
        ),
        Symptom(
            pattern=r"The model you want to train is loaded in 8-bit precision",
            example="ValueError: The model you want to train is loaded in 8-bit precision.  Training an "
            "8-bit model is not supported yet.",
            counter_example="The model is loaded in 8-bit precision",
            cause="This Trainer does not train a model that is loaded in 8 bits",
            fixes=(
                remedy(
                    "train adapters on it",
                    'model = get_peft_model(model, LoraConfig(r=16, task_type="CAUSAL_LM"))',
                    "edit",
                ),
                remedy("with releases that can", "pip install -U transformers peft bitsandbytes"),
            ),
        ),
        Symptom(
            pattern=r"that quantization method do(?:es)? not support training",
            example="ValueError: The model you are trying to fine-tune is quantized with awq but that "
            "quantization method do not support training.",
            counter_example="that quantization method supports training",
            cause="The model's quantisation method cannot be trained through",
            fixes=(remedy("load the unquantised checkpoint with BitsAndBytesConfig(load_in_4bit=True)"),),
        ),
        Symptom(
            pattern=r"You cannot fine-tune quantized model with `torch\.compile",
            example="ValueError: You cannot fine-tune quantized model with `torch.compile()` make sure to "
            "pass a non-compiled model when fine-tuning a quantized model with PEFT",
            counter_example="ValueError: You cannot perform fine-tuning on purely quantized models.",
            cause="A quantised model is compiled before it is trained, which Trainer refuses",
            fixes=(remedy("give Trainer the model without torch.compile", "torch_compile=False", "edit"),),
        ),
    )
    remedies = (
        remedy(
            "put adapters on it before Trainer gets it",
            'model = get_peft_model(model, LoraConfig(r=16, task_type="CAUSAL_LM"))',
            "edit",
        ),
        remedy("give trl's trainers the adapter", "peft_config=LoraConfig(...)", "edit"),
        remedy("load the model without quantisation to train all of it"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The way of every quantised model into a Trainer."""
        assert case.workload is not None
        if not case.workload.scripts:
            raise CannotTell("no Python script in the workload")
        if case.version("transformers") is None:
            raise CannotTell("transformers is not installed")
        scripts = [script for script in case.workload.scripts if not _adapts_unseen(script)]
        for finding in in_every_story(scripts, lambda story: _judge(story, case)):
            yield Suspicion(finding, (TrialRequest(TRIAL),))

    def conclude(self, finding: Finding, results: Tuple[TrialResult, ...]) -> Iterable[Finding]:
        """An error where Trainer was seen to refuse it; a warning where it takes it and trains none of it."""
        for result in results:
            for case in result.cases:
                for said in by_trial(finding, result, case):
                    raised = case.broken is not None and case.broken.outcome == "raised"
                    if case.status == "reproduced":
                        said = msgspec.structs.replace(said, severity="error" if raised else "warning")
                    yield said
                return
        yield finding

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _adapts_unseen(script: Script) -> bool:
    """Whether adapters are put on a model of which it is not known which one it is."""
    seen = {call.place for story in script.stories for call in story.calls}
    decided = script.launch is not None  # what its options do not lead to is not meant
    calls = [call for call in script.calls if call.taken or not decided]
    return any(call.name in _ADAPTS and call.place not in seen for call in calls)


def _judge(story: Story, case: Case) -> Iterator[Tuple[Call, Finding]]:
    load, trainer = story.load, story.training.trainer if story.training is not None else None
    if load is None or trainer is None or not _refuses(trainer) or has_adapters(story):
        return
    if "Peft" in load.callee or story.unseen:
        return
    own = trainer.callee.startswith("transformers.")  # it takes no peft_config, others may
    if trainer.open and not own and "peft_config" not in trainer.arguments:
        return
    quantized = quantization(load)
    if not isinstance(quantized, Quantization) or quantized.bits is None:
        return
    version = case.version("transformers")
    assert version is not None
    if quantized.bits == 4 and version.release[:2] < (4, 30):
        return  # it does not know 4 bits, and quantises nothing
    refuses = version.release[:2] >= REFUSES_SINCE
    frozen = story.step(*_PREPARE)
    if refuses:
        message = f"Trainer of transformers {version} refuses a purely {quantized.bits}-bit model"
    elif frozen is not None:
        message = f"{frozen.name}() froze all of it: there is nothing that can be trained"
    else:
        message = "its quantised weights have no gradient: only what was left in float can be trained"
    config = quantized.config is not None
    said = written(quantized.value, f"load_in_{quantized.bits}bit")
    if config and quantized.value.place.path == load.place.path:
        said += f" on line {quantized.value.place.line}"
    argument = load.argument(quantized.keyword) or quantized.value
    place = (argument.key or load.place) if config else (quantized.value.key or quantized.value.place)
    yield (
        load,
        Finding(
            severity="error" if refuses else "warning",
            confidence="likely",  # what is at the path that is loaded may be an adapter
            message=f"{said}, and no adapter on the way into {trainer.name} on line {trainer.place.line}: "
            f"{message}",
            subject=at(place),
            evidence={"bits": quantized.bits, "trainer_line": trainer.place.line},
            fixes=(
                Fix(
                    title="train adapters on top of the quantised model",
                    kind="edit",
                    applicability="manual",  # rank, scale and target modules are for a person to choose
                    preview='model = get_peft_model(model, LoraConfig(r=16, task_type="CAUSAL_LM"))',
                ),
            ),
        ),
    )


def _refuses(trainer: Call) -> bool:
    """Whether the call is of transformers' Trainer or of one that hands its model on to it."""
    package = trainer.callee.partition(".")[0]
    if package == "transformers":
        return trainer.name.endswith("Trainer")
    return package == "trl" and trainer.name in _TRL_TRAINERS


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def value(constant: object, line: int) -> Value:
        return Value(constant, Place("train.py", line, 22, line, 26), Place("train.py", line, 9, line, 26))

    def call(callee: str, line: int, **arguments: object) -> Call:
        return Call(
            callee=callee,
            place=Place("train.py", line, 9, line, 60),
            arguments={name: value(it, line) for name, it in arguments.items()},
        )

    def case(transformers: str, *steps: Call, trainer: Call, bits: int = 8, **more: object) -> Case:
        load = call(
            "transformers.AutoModelForCausalLM.from_pretrained", 9, **{f"load_in_{bits}bit": True}, **more
        )
        story = Story(
            script="train.py",
            load=load,
            steps=steps,
            training=Training(place=trainer.place, settings={}, trainer=trainer),
            calls=(load, *steps, trainer),
        )
        script = Script(path="train.py", calls=story.calls, stories=(story,))
        facts = case_of(Packages(installed={"transformers": transformers}, modules={})).facts
        return Case(facts=facts, workload=Workload(files=("train.py",), scripts=(script,)))

    def tried(status: ProofStatus, broken: Arm) -> TrialResult:
        proof = TrialCase(combination={}, status=status, broken=broken, fixed=Arm(outcome="passed"))
        return TrialResult(name=TRIAL.name, device="cpu", status=status, seconds=2.0, cases=(proof,))

    trainer = call("transformers.Trainer", 40)
    way = "load_in_8bit=True, and no adapter on the way into Trainer on line 40"
    yield healthy("LoRA on top", case("5.23.0", call("peft.get_peft_model", 20), trainer=trainer))
    yield healthy(
        "trl puts the adapters on",
        case("5.23.0", trainer=call("trl.SFTTrainer", 40, peft_config=call("p", 39))),
    )
    yield healthy("a loop of one's own", case("5.23.0", trainer=call(".prepare", 40)))
    yield sick(
        "straight into Trainer, seen to be refused",
        case("4.44.2", trainer=trainer),
        f"error: {way}: Trainer of transformers 4.44.2 refuses a purely 8-bit model",
        trials=(
            tried(
                "reproduced",
                Arm(
                    outcome="raised",
                    error="ValueError: You cannot perform fine-tuning on purely quantized models.",
                ),
            ),
        ),
    )
    yield sick(
        "the same without a trial, and in 4 bits",
        case("5.23.0", trainer=trainer, bits=4),
        "error: load_in_4bit=True, and no adapter on the way into Trainer on line 40: "
        "Trainer of transformers 5.23.0 refuses a purely 4-bit model",
    )
    yield sick(
        "a Trainer that takes it",
        case("4.29.2", trainer=trainer),
        f"warning: {way}: its quantised weights have no gradient: only what was left in float can be trained",
    )
    yield sick(
        "a Trainer that takes it, and everything frozen before",
        case("4.29.2", call("peft.prepare_model_for_int8_training", 20), trainer=trainer),
        f"warning: {way}: prepare_model_for_int8_training() froze all of it: there is nothing that can be "
        f"trained",
    )
    yield cannot_tell(
        "no workload",
        case_of(Packages(installed={"transformers": "5.23.0"}, modules={})),
        "no workload was given",
    )
