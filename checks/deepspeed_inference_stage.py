"""ZeRO stage 1 or 2 is asked for where a model only predicts."""

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
from llm_doctor.workload.data import Call, Config, Place, Script, Training, Value, Workload

_TRAINS = frozenset(("backward", "step", "train"))
_PREDICTS = frozenset(("generate", "evaluate", "predict"))


class DeepspeedInferenceStage(Check):
    """ZeRO stage 1 or 2 is asked for where a model only predicts.

    ## What it finds

    A DeepSpeed configuration with ZeRO stage 1 or 2 in a run of Trainer that evaluates or predicts and
    does not train, and in a script that hands it to `deepspeed.initialize` without an optimizer and then
    generates.

    ## Why it breaks

    Stages 1 and 2 partition the optimizer's state and the gradients: without an optimizer there is nothing to
    partition. Trainer raises "ZeRO inference only makes sense with ZeRO Stage 3", DeepSpeed asserts
    "zero stage 2 requires an optimizer". Only stage 3 partitions what inference needs, the parameters.

    ## How it is proven

    By the two checks in transformers and DeepSpeed, which are the same from 2023 to today; no trial is
    needed.

    ## Fix

    `"stage": 3`, or no DeepSpeed for the run that only predicts.

    ## References

    - transformers/integrations/deepspeed.py, deepspeed_init(inference=True) (5.23.0)
    - deepspeed/runtime/engine.py, _configure_zero_optimizer (0.9.5, 0.19.8)
    - https://huggingface.co/docs/transformers/deepspeed
    """

    name = "deepspeed-inference-stage"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/deepspeed"
    symptoms = (
        Symptom(
            pattern=r"ZeRO inference only makes sense with ZeRO Stage 3",
            example="ValueError: ZeRO inference only makes sense with ZeRO Stage 3 - please adjust",
            counter_example="ZeRO stage 3 inference is enabled",
        ),
        Symptom(
            pattern=r"zero stage (ZeroStageEnum\.)?(?P<stage>[12]|\w{4,20}) requires an optimizer",
            example="AssertionError: zero stage 2 requires an optimizer",
            counter_example="ZeRO stage 3 does not need an optimizer",
            cause="ZeRO stage {stage} is given no optimizer: it partitions the optimizer's state, so there is"
            " nothing for it to do",
            fixes=(
                remedy("to predict only, use stage 3", '"zero_optimization": {{"stage": 3}}', "config"),
                remedy(
                    "to train, name an optimizer in the configuration or hand one to deepspeed.initialize",
                    '"optimizer": {{"type": "AdamW", "params": {{"lr": "auto"}}}}',
                    "config",
                ),
            ),
        ),
    )
    remedies = (
        remedy("use ZeRO-3 where the model only predicts", '"zero_optimization": {{"stage": 3}}', "config"),
        remedy("leave DeepSpeed out of the run that only predicts"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every configuration of stage 1 or 2 against how it is used."""
        for config in deepspeed.configs(case):
            for training in deepspeed.trainings_with(case, config):
                stage = config.get("zero_optimization", "stage")
                if stage is not None and _is_low(stage) and _only_predicts(training):
                    message = f"ZeRO-{stage.constant} in a run of Trainer that predicts and does not train"
                    yield Suspicion(_finding(config, stage, f"{message}: it wants stage 3"))
        for script in case.workload.scripts if case.workload is not None else ():
            for call, settings in _initialised(script):
                stage = settings.get("zero_optimization", "stage")
                if stage is None or not _is_low(stage) or settings.get("optimizer") is not None:
                    continue
                config = Config(path=stage.place.path, kind="deepspeed", root=settings, format="python")
                message = f"ZeRO-{stage.constant} without an optimizer (deepspeed.initialize on line"
                yield Suspicion(
                    _finding(config, stage, f"{message} {call.place.line}): inference wants stage 3")
                )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _is_low(stage: Value) -> bool:
    return type(stage.constant) is int and stage.constant in (1, 2)


def _only_predicts(training: Training) -> bool:
    """do_train is false by default: a run that only asks for evaluation or prediction says so."""
    train = training.settings.get("do_train")
    if (train is None and training.open) or (train is not None and train.constant is not False):
        return False
    # eval_strategy switches do_eval on by itself, and many scripts train without asking for do_train.
    return training.on("do_predict") and train is not None


def _initialised(script: Script) -> Iterator[tuple[Call, Value]]:
    """Calls of deepspeed.initialize without anything to train, in a script that only predicts."""
    names = {call.name for call in script.calls}
    if names & _TRAINS or not names & _PREDICTS:
        return
    for call in script.calls:
        if call.callee != "deepspeed.initialize" or call.open:
            continue
        trained = [call.argument("optimizer", 2), call.argument("model_parameters", 3)]
        settings = call.argument("config") or call.argument("config_params")
        if settings is not None and all(it is None or it.constant is None for it in trained):
            yield call, settings


def _finding(config: Config, stage: Value, message: str) -> Finding:
    edit = Edit(
        action="set-key",
        path=config.path,
        line=stage.place.line,
        column=stage.place.column,
        name="zero_optimization.stage",
        text="3",
    )
    fix = Fix(
        title="use ZeRO-3",
        kind="config",
        applicability="unsafe",  # a configuration that training shares would change for it as well
        preview='"stage": 3',
        edits=(edit,) if config.format != "python" else (),
    )
    return Finding(
        severity="error",
        confidence="likely",
        message=message,
        subject=deepspeed.at(stage.place),
        fixes=(fix,),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    place = Place("run.sh", 3)
    predicts = Training(
        place=place, settings={"do_train": Value(False, place), "do_predict": Value(True, place)}
    )
    trains = Training(
        place=place, settings={"do_train": Value(True, place), "do_predict": Value(True, place)}
    )
    text = '{"train_micro_batch_size_per_gpu": 1,\n "zero_optimization": {"stage": %d}}'
    yield healthy("ZeRO-3 that predicts", deepspeed.example(text % 3, trainings=(predicts,)))
    yield healthy("ZeRO-2 that trains first", deepspeed.example(text % 2, trainings=(trains,)))
    yield sick(
        "ZeRO-2 that predicts",
        deepspeed.example(text % 2, trainings=(predicts,)),
        "error: ZeRO-2 in a run of Trainer that predicts and does not train: it wants stage 3",
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
