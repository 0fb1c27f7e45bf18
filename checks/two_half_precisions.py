"""fp16 and bf16 are both asked for: TrainingArguments takes one of them."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    at,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import Finding
from llm_doctor.workload.data import Launch, Place, Training, Value, Workload
from llm_doctor.workload.models import has_training_arguments, written


class TwoHalfPrecisions(Check):
    """fp16 and bf16 are both asked for: TrainingArguments takes one of them.

    ## What it finds

    TrainingArguments with `fp16` and `bf16` both true, in the script, on the launch line or one in each:
    often a flag of the job script beside a value that was written into the script for another GPU.

    ## Why it breaks

    TrainingArguments refuses the two with a ValueError, before a model is loaded and after the job has waited
    in the queue.

    ## How it is proven

    By the two values; the rule is the same in every release from 4.29 to 5.23. axolotl, which has rules of
    its own, is left out.

    ## Fix

    Keep bf16 on GPUs from Ampere on, fp16 on older ones.

    ## References

    - transformers/training_args.py, TrainingArguments.__post_init__ (4.29.2, 5.23.0)
    - https://huggingface.co/docs/transformers/main_classes/trainer
    """

    name = "two-half-precisions"
    topic = "bf16"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/main_classes/trainer"
    symptoms = (
        Symptom(
            pattern=r"At most one of fp16 and bf16 can be True(?: for (?P<when>full eval))?",
            example="ValueError: At most one of fp16 and bf16 can be True, but not both",
            counter_example="fp16 and bf16 are both False",
            cause="fp16 and bf16 are both asked for; TrainingArguments takes one of them",
        ),
    )
    remedies = (
        remedy("keep one: bf16 on GPUs from Ampere on, fp16 on older ones", "bf16=True, fp16=False", "edit"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Both values of every training run."""
        assert case.workload is not None
        if not case.workload.trainings:
            raise CannotTell("no training in the workload")
        axolotl = {config.root.place for config in case.workload.configs_of("axolotl")}
        told = set()
        for training in case.workload.trainings:
            if training.place in axolotl or not has_training_arguments(training):
                continue
            fp16, bf16 = training.settings.get("fp16"), training.settings.get("bf16")
            if fp16 is None or bf16 is None or not (_is_true(fp16) and _is_true(bf16)):
                continue
            if fp16.place in told:
                continue
            told.add(fp16.place)
            yield Suspicion(
                Finding(
                    severity="error",
                    confidence="certain",
                    message=f"{written(fp16, 'fp16')} beside {written(bf16, 'bf16')}"
                    + ("" if bf16.origin else f" on line {bf16.place.line} of {bf16.place.path}")
                    + ": TrainingArguments takes one of them",
                    subject=at(fp16.key or fp16.place),
                    evidence={"bf16_line": bf16.place.line},
                    fixes=self.remedies,
                )
            )

    def examples(self) -> Iterable[Example]:
        """In a script, on a launch line, and neither."""

        def value(constant: object, line: int, path: str = "train.py", origin: str = "") -> Value:
            return Value(constant, Place(path, line, 19), Place(path, line, 9), origin)

        def case(*trainings: Training) -> Case:
            return Case(facts=case_of().facts, workload=Workload(trainings=trainings))

        def trained(**settings: Value) -> Training:
            return Training(place=Place("train.py", 20), settings=settings)

        yield healthy("one of them", case(trained(fp16=value(False, 21), bf16=value(True, 22))))
        yield sick(
            "both in the script",
            case(trained(fp16=value(True, 21), bf16=value(True, 22))),
            "error: fp16=True beside bf16=True on line 22 of train.py: TrainingArguments takes one of them",
        )
        flag = value(True, 4, "train.sh", "--bf16 on line 4 of train.sh")
        yield sick(
            "a flag and a value in the script",
            case(trained(fp16=value(True, 21), bf16=flag)),
            "error: fp16=True beside bf16=True, from --bf16 on line 4 of train.sh: TrainingArguments takes"
            " one of them",
        )
        other = Launch(place=Place("train.sh", 1), launcher="torchrun")
        flags = {"fp16": value(True, 4, "train.sh"), "bf16": flag}
        yield healthy(
            "flags of a program that is not at hand",
            case(Training(place=other.place, settings=flags, launch=other)),
        )
        yield cannot_tell("no workload", case_of(), "no workload was given")


def _is_true(value: Value) -> bool:
    """Flags are texts."""
    return value.constant is True or str(value.constant).lower() == "true"
