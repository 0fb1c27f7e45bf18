"""The batch sizes of a DeepSpeed configuration are missing, or do not fit together."""

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
from llm_doctor.workload.data import Config, Place, Training, Value, Workload

TRAIN, MICRO, STEPS = "train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"


class DeepspeedBatchSize(Check):
    """The batch sizes of a DeepSpeed configuration are missing, or do not fit together.

    ## What it finds

    A configuration for training with neither `train_batch_size` nor `train_micro_batch_size_per_gpu`,
    sizes that are not positive, and a `train_batch_size` that no whole number of ranks makes of the micro
    batch size and the accumulation steps. Values of "auto" are filled in by Trainer and accelerate and
    are not judged; keys that are not there are filled in by nobody.

    ## Why it breaks

    DeepSpeed asserts `train_batch_size == train_micro_batch_size_per_gpu * gradient_accumulation_steps *
    world size`, and that one of the first two is given, when the engine starts: after the model was
    loaded.

    ## How it is proven

    By arithmetic: what no number of ranks can satisfy needs no trial. A configuration that no training of the
    workload is seen to use is a warning at most: a script may add the sizes before it hands them on.

    ## Fix

    `"train_micro_batch_size_per_gpu": "auto"` under Trainer and accelerate; else a number, and no
    `train_batch_size` beside it, which DeepSpeed then computes for any number of GPUs.

    ## References

    - deepspeed/runtime/config.py, _set_batch_related_parameters and _batch_assertion (0.9.5, 0.19.8)
    - accelerate/utils/dataclasses.py, DeepSpeedPlugin.deepspeed_config_process (1.15.0): fills in "auto" only
    - https://www.deepspeed.ai/docs/config-json/#batch-size-related-parameters
    """

    name = "deepspeed-batch-size"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://www.deepspeed.ai/docs/config-json/#batch-size-related-parameters"
    symptoms = (
        Symptom(
            pattern=r"train_batch_size is not equal to micro_batch_per_gpu \* gradient_acc_step \* world_size"
            r" (?P<train>\d+) != (?P<micro>\d+) \* (?P<steps>\d+) \* (?P<ranks>\d+)",
            example="AssertionError: Check batch related parameters. train_batch_size is not equal to"
            " micro_batch_per_gpu * gradient_acc_step * world_size 64 != 4 * 1 * 8",
            counter_example="train_batch_size = train_micro_batch_size_per_gpu * gradient_accumulation_steps",
            cause="The DeepSpeed configuration says train_batch_size {train}, but {micro} per GPU x {steps}"
            " accumulation steps x {ranks} ranks is another number",
        ),
        Symptom(
            pattern=r"train_batch_size is not equal to (micro_batch_per_gpu|train_micro_batch|gradient_acc)",
            example="Check batch related parameters. train_batch_size is not equal to micro_batch_per_gpu *",
            counter_example="eval_batch_size is not equal to train_batch_size",
        ),
        Symptom(
            pattern=r"Check batch related parameters",
            example="AssertionError: Check batch related parameters.",
            counter_example="Check batch related plots",
        ),
        Symptom(
            pattern=r"Either `train_batch_size` or `(train_)?micro_batch_size_per_gpu` needs to be provided",
            example="AssertionError: Either train_batch_size or train_micro_batch_size_per_gpu needs to be"
            " provided",
            counter_example="Either eval_dataset or train_dataset needs to be provided",
            cause="The DeepSpeed configuration has neither train_batch_size nor"
            " train_micro_batch_size_per_gpu",
        ),
        Symptom(
            pattern=r"DeepSpeedConfig: `\w{0,40}batch_size\w{0,20}` is not defined",
            example="AssertionError: DeepSpeedConfig: train_micro_batch_size_per_gpu is not defined",
            counter_example="NameError: name 'train_batch_size' is not defined",
        ),
        Symptom(
            pattern=r"(?P<what>Train batch size|Micro batch size per gpu|Gradient accumulation steps):"
            r" (?P<size>-?[\d.]{1,12}) has to be greater than 0",
            example="AssertionError: Micro batch size per gpu: 0 has to be greater than 0",
            counter_example="ValueError: the learning rate has to be greater than 0",
            cause="{what} comes to {size} in the DeepSpeed configuration: train_batch_size is less than the"
            " number of ranks, or a size is 0",
        ),
        Symptom(
            pattern=r"accelerate\.prepare\(\)` requires you to pass at least one of training or evaluation"
            r" dataloaders",
            example="ValueError: When using DeepSpeed, `accelerate.prepare()` requires you to pass at least"
            " one of training or evaluation dataloaders with `batch_size` attribute returning an integer",
            counter_example="accelerate.prepare() returns the dataloaders in the order in which they came",
            cause="train_micro_batch_size_per_gpu is left to accelerate, which is given no data loader to"
            " take"
            " it from",
            fixes=(
                remedy(
                    "write the size into the DeepSpeed configuration",
                    '"train_micro_batch_size_per_gpu": 4',
                    "config",
                ),
                remedy(
                    "hand accelerate the data loader together with the model",
                    "model, optimizer, loader = accelerator.prepare(model, optimizer, loader)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"one of the dataloaders passed to `accelerate\.prepare\(\)` has `None` as batch size",
            example="ValueError: At least one of the dataloaders passed to `accelerate.prepare()` has `None`"
            " as batch size.",
            counter_example="the dataloaders have a batch size of 8",
            cause="A data loader without a batch size (a batch sampler of its own) is given to accelerate"
            " under DeepSpeed, which takes train_micro_batch_size_per_gpu from it",
            fixes=(
                remedy(
                    "write the size into the DeepSpeed configuration",
                    '"train_micro_batch_size_per_gpu": 4',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"must be divisible by micro-batch data parallelism",
            example="ValueError: Train batch size must be divisible by micro-batch data parallelism",
            counter_example="hidden_size must be divisible by num_attention_heads",
        ),
        Symptom(
            pattern=r"ElasticityIncompatibleWorldSize",
            example="deepspeed.elasticity.config.ElasticityIncompatibleWorldSize: World size (6) is not valid"
            " with the current list of valid GPU counts: [1, 2, 4, 8]",
            counter_example="elasticity is enabled for a world size of 8",
            cause="Elastic training cannot split its batch over this number of GPUs",
            fixes=(
                remedy("start on one of the GPU counts that the message lists"),
                remedy("leave elastic training out and give the batch sizes directly"),
            ),
        ),
    )
    remedies = (
        remedy(
            "leave the sizes to Trainer or accelerate",
            '"train_batch_size": "auto",\n"train_micro_batch_size_per_gpu": "auto",\n'
            '"gradient_accumulation_steps": "auto"',
            "config",
        ),
        remedy(
            "without them: give the micro batch size alone, DeepSpeed computes the rest for any number of"
            " GPUs",
            '"train_micro_batch_size_per_gpu": 4',
            "config",
        ),
        remedy(
            "if the number of ranks in the message is too small, start all of them through a launcher",
            "deepspeed --num_gpus 8 train.py",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The three sizes of every configuration."""
        for config in deepspeed.configs(case):
            # Elastic training computes them, and refuses those that are given.
            if config.get("elasticity") is None or config.get("elasticity", "enabled") is None:
                for finding in _judge(config, deepspeed.trainings_with(case, config)):
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _judge(config: Config, trainings: tuple[Training, ...]) -> Iterator[Finding]:
    if config.get(TRAIN) is None and config.get(MICRO) is None:
        yield from _missing(config, trainings)
        return
    sizes = {name: _whole(config, name) for name in (TRAIN, MICRO, STEPS)}
    for name, size in sizes.items():
        value = config.get(name)
        if size is not None and size <= 0 and value is not None:
            yield _finding(value.place, f"{name} is {size}: DeepSpeed asserts that it is positive")
            return
    train, micro, steps = sizes[TRAIN], sizes[MICRO], sizes[STEPS]
    value = config.get(TRAIN)
    if train is None or value is None:
        return
    factors = [(size, what) for size, what in ((micro, "micro"), (steps, "accumulation")) if size is not None]
    product = (micro or 1) * (steps or 1)
    if factors and train % product:
        told = " x ".join(f"{size} ({what})" for size, what in factors)
        message = f"{TRAIN} {train} is not {told} x any whole number of ranks"
        if micro is None or (steps is None and config.get(STEPS) is not None):
            return  # DeepSpeed rounds down what it computes, and "auto" is not known
        yield _finding(value.place, message, _left_to_deepspeed(config, value))


def _missing(config: Config, trainings: tuple[Training, ...]) -> Iterator[Finding]:
    if config.format == "python":
        return  # what the script adds later is not seen
    # A few sections alone are a template that somebody merges with the rest, as those of autotuning.
    whole = config.get(STEPS) is not None or config.get("optimizer") is not None
    if not trainings and not whole:
        return
    place = config.root.place
    edit = Edit(
        action="set-key", path=config.path, line=place.line, column=place.column, name=MICRO, text='"auto"'
    )
    yield Finding(
        severity="error" if trainings else "warning",
        confidence="certain" if trainings else "likely",
        message=f"neither {TRAIN} nor {MICRO} is there: DeepSpeed needs one of them, and nobody fills in"
        " a key that is missing",
        subject=deepspeed.at(place),
        fixes=(
            Fix(
                title="leave it to Trainer or accelerate",
                kind="config",
                applicability="unsafe",  # DeepSpeed alone does not know "auto"
                preview=f'"{MICRO}": "auto"',
                edits=(edit,),
            ),
        ),
    )


def _whole(config: Config, name: str) -> int | None:
    value = deepspeed.literal(config, name)
    size = deepspeed.number(value) if value is not None and not isinstance(value.constant, str) else None
    return int(size) if size is not None and size == int(size) else None


def _left_to_deepspeed(config: Config, value: Value) -> Fix:
    place = value.key or value.place
    return Fix(
        title=f"let DeepSpeed compute {TRAIN}",
        kind="config",
        applicability="unsafe",  # the sizes that remain may be the wrong ones
        preview=f"remove {TRAIN}",
        edits=(
            Edit(action="remove-key", path=config.path, line=place.line, column=place.column, name=TRAIN),
        ),
    )


def _finding(place: Place, message: str, *fixes: Fix) -> Finding:
    return Finding(
        severity="error", confidence="certain", message=message, subject=deepspeed.at(place), fixes=fixes
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    yield healthy(
        "64 is 4 x 2 on 8 GPUs",
        deepspeed.example(
            '{"train_batch_size": 64, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 2,'
            ' "zero_optimization": {"stage": 2}}'
        ),
    )
    yield healthy(
        "one section, to be merged with others", deepspeed.example('{"zero_optimization": {"stage": 2}}')
    )
    yield sick(
        "sizes that no number of GPUs fits",
        deepspeed.example(
            '{"train_batch_size": 24,\n "train_micro_batch_size_per_gpu": 5,'
            ' "gradient_accumulation_steps": 2,'
            ' "zero_optimization": {"stage": 2}}'
        ),
        "error: train_batch_size 24 is not 5 (micro) x 2 (accumulation) x any whole number of ranks",
    )
    missing = (
        "neither train_batch_size nor train_micro_batch_size_per_gpu is there: DeepSpeed needs one of"
        " them, and"
        " nobody fills in a key that is missing"
    )
    text = '{"gradient_accumulation_steps": "auto", "zero_optimization": {"stage": 2}}'
    yield sick("no batch size", deepspeed.example(text), f"warning: {missing}")
    training = Training(place=Place("train.py", 10), settings={})
    yield sick(
        "no batch size, and Trainer uses it",
        deepspeed.example(text, trainings=(training,)),
        f"error: {missing}",
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
