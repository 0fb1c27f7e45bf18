"""max_steps and num_train_epochs are both given: the number of epochs has no effect."""

from __future__ import annotations

from typing import Iterable, Iterator, Tuple

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    at,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.model import Finding
from llm_doctor.workload.data import Config, Launch, Place, Training, Value, Workload
from llm_doctor.workload.models import has_training_arguments, written


class MaxStepsOverridesEpochs(Check):
    """max_steps and num_train_epochs are both given: the number of epochs has no effect.

    ## What it finds

    TrainingArguments with a `max_steps` above 0 and a `num_train_epochs`, both given in the script, on the
    launch line or in a configuration; for axolotl, `max_steps` and `num_epochs`. It is a note: the one that
    counts may well be the one that is meant.

    ## Why it breaks

    Trainer ends after `max_steps`, however many epochs were asked for, and starts the data again where they
    are too short. It says so at INFO only: "max_steps is given, it will override any value given in
    num_train_epochs". The learning-rate schedule is made for `max_steps` too.

    ## How it is proven

    By the two values; Trainer's rule is the same in every release from 4.29 to 5.23.

    ## Fix

    Remove the one that is not meant; `max_steps=-1` is the default.

    ## References

    - transformers/trainer.py, Trainer.__init__ and the training loop (4.29.2, 5.23.0)
    - https://huggingface.co/docs/transformers/main_classes/trainer
    - https://docs.axolotl.ai/docs/config-reference.html
    """

    name = "max-steps-overrides-epochs"
    topic = "host-limits"
    severity = "note"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/main_classes/trainer"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Both values of every training run."""
        assert case.workload is not None
        if not case.workload.trainings:
            raise CannotTell("no training in the workload")
        axolotl = {config.root.place for config in case.workload.configs_of("axolotl")}
        told = set()
        for training in case.workload.trainings:
            if not has_training_arguments(training):
                continue
            name = "num_epochs" if training.place in axolotl else "num_train_epochs"
            steps, epochs = training.settings.get("max_steps"), training.settings.get(name)
            if steps is None or epochs is None or not epochs.known or epochs.constant is None:
                continue
            number = _whole(steps)
            if number is None or number <= 0 or steps.place in told:
                continue
            told.add(steps.place)
            yield Suspicion(
                Finding(
                    severity="note",
                    confidence="certain",
                    message=f"{written(steps, 'max_steps')}: it overrides {written(epochs, name)}"
                    + ("" if epochs.origin else f" on line {epochs.place.line} of {epochs.place.path}"),
                    subject=at(steps.key or steps.place),
                    evidence={"max_steps": number, "epochs_line": epochs.place.line},
                )
            )

    def examples(self) -> Iterable[Example]:
        """In a script, on a launch line, in a configuration, and neither."""

        def value(constant: object, line: int, path: str = "train.py", origin: str = "") -> Value:
            return Value(constant, Place(path, line, 19), Place(path, line, 9), origin)

        def case(*trainings: Training, configs: Tuple[Config, ...] = ()) -> Case:
            workload = Workload(trainings=trainings, configs=configs)
            return Case(facts=case_of().facts, workload=workload)

        def trained(**settings: Value) -> Training:
            return Training(place=Place("train.py", 20), settings=settings)

        yield healthy("epochs alone", case(trained(num_train_epochs=value(3, 21))))
        yield healthy(
            "no limit of steps", case(trained(max_steps=value(-1, 21), num_train_epochs=value(3, 22)))
        )
        yield sick(
            "both in the script",
            case(trained(max_steps=value(100, 21), num_train_epochs=value(3, 22))),
            "note: max_steps=100: it overrides num_train_epochs=3 on line 22 of train.py",
        )
        flag = value("100", 4, "train.sh", "--max_steps on line 4 of train.sh")
        yield sick(
            "a flag and a value in the script",
            case(trained(max_steps=flag, num_train_epochs=value(3, 22))),
            "note: max_steps=100, from --max_steps on line 4 of train.sh: it overrides num_train_epochs=3 "
            "on line 22 of train.py",
        )
        other = Launch(place=Place("train.sh", 1), launcher="torchrun")
        yield healthy(
            "flags of a program that is not at hand",
            case(
                Training(
                    place=other.place,
                    settings={"max_steps": flag, "num_train_epochs": value("3", 5, "train.sh")},
                    launch=other,
                )
            ),
        )
        root = Value(
            {"max_steps": value(50, 8, "lora.yml"), "num_epochs": value(4, 9, "lora.yml")},
            Place("lora.yml", 1),
        )
        yield sick(
            "both in axolotl's configuration",
            case(
                Training(place=root.place, settings=dict(root.items())),
                configs=(Config(path="lora.yml", kind="axolotl", root=root, format="yaml"),),
            ),
            "note: max_steps=50: it overrides num_epochs=4 on line 9 of lora.yml",
        )
        yield cannot_tell("no workload", case_of(), "no workload was given")


def _whole(value: Value) -> int | None:
    """A whole number, as a text too: flags are texts."""
    constant = value.constant
    if type(constant) is str and constant.lstrip("-").isdigit():
        return int(constant)
    return constant if type(constant) is int else None
