"""A DeepSpeed configuration writes out a value that disagrees with TrainingArguments or the launch line."""

from __future__ import annotations

from typing import Any, Iterable, Iterator, NamedTuple

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
from llm_doctor.model import Edit, Finding, Fix, Severity
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Call, Config, Launch, Place, Training, Value, Workload

MICRO, STEPS = "per_device_train_batch_size", "gradient_accumulation_steps"


class Match(NamedTuple):
    """Two names of one thing: DeepSpeed's dotted one, and that of TrainingArguments with its default."""

    key: str
    setting: str
    default: Any


# transformers/integrations/deepspeed.py, trainer_config_process (5.23.0; the same in 4.29's deepspeed.py).
_MATCHES = (
    Match("train_micro_batch_size_per_gpu", MICRO, 8),
    Match("gradient_accumulation_steps", STEPS, 1),
    Match("gradient_clipping", "max_grad_norm", 1.0),
    Match("optimizer.params.lr", "learning_rate", 5e-5),
    Match("optimizer.params.eps", "adam_epsilon", 1e-8),
    Match("optimizer.params.weight_decay", "weight_decay", 0.0),
    Match("scheduler.params.warmup_max_lr", "learning_rate", 5e-5),
)
_PRECISIONS = (
    ("fp16.enabled", ("fp16", "fp16_full_eval")),
    ("bf16.enabled", ("bf16", "bf16_full_eval")),
)
# accelerate/utils/dataclasses.py, _deepspeed_config_checks (0.20.3, 1.15.0).
_BESIDE_A_FILE = (
    "gradient_accumulation_steps",
    "gradient_clipping",
    "zero_stage",
    "offload_optimizer_device",
    "offload_param_device",
    "offload_optimizer_nvme_path",
    "offload_param_nvme_path",
    "zero3_save_16bit_model",
)


class DeepspeedTrainerMismatch(Check):
    """A DeepSpeed configuration writes out a value that disagrees with TrainingArguments or the launch line.

    ## What it finds

    Batch sizes, accumulation steps, clipping, learning rate, weight decay, epsilon, warm-up and precision
    that are numbers in the DeepSpeed configuration of a run of Trainer and other numbers in its
    TrainingArguments, wherever those were given; a `train_batch_size` that fits one number of GPUs only;
    and an accelerate configuration that names a DeepSpeed file and sets beside it what belongs into that
    file.

    ## Why it breaks

    Trainer compares them before the first step and raises "Please correct the following DeepSpeed config
    values that mismatch TrainingArguments values". A value of "auto" takes the one of TrainingArguments.
    accelerate raises "When using `deepspeed_config_file`, the following accelerate config variables will
    be ignored".

    ## How it is proven

    By the comparison that transformers makes, with the values known; what is not known is not compared.

    ## Fix

    "auto" in the DeepSpeed configuration.

    ## References

    - transformers/integrations/deepspeed.py, HfTrainerDeepSpeedConfig.trainer_config_process (5.23.0)
    - https://huggingface.co/docs/transformers/deepspeed
    """

    name = "deepspeed-trainer-mismatch"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/deepspeed"
    symptoms = (
        Symptom(
            pattern=r"DeepSpeed config values that mismatch TrainingArguments values: - ds"
            r" (?P<key>[\w.]{3,80})"
            r" = (?P<config>\S{1,40}) vs hf (?P<name>[\w+.]{1,60}) = (?P<value>\S{1,40})",
            example="Please correct the following DeepSpeed config values that mismatch TrainingArguments"
            " values:\n- ds gradient_accumulation_steps=1 vs hf gradient_accumulation_steps=8",
            counter_example="ValueError: Please correct the path of the DeepSpeed config",
            cause="The DeepSpeed configuration says {key}={config}, TrainingArguments say {name}={value}",
        ),
        Symptom(
            pattern=r"DeepSpeed config values that mismatch TrainingArguments",
            example="ValueError: Please correct the following DeepSpeed config values that mismatch"
            " TrainingArguments values:",
            counter_example="ValueError: Please correct the path of the DeepSpeed config",
        ),
        Symptom(
            pattern=r"- ds"
            r" (?P<key>[\w.]{0,60}(batch_size|accumulation|clipping|enabled|params|num_steps)[\w.]{0,40})"
            r" = (?P<config>\S{1,40}) vs hf (?P<name>[\w+.]{3,60}) = (?P<value>\S{1,40})",
            example="- ds train_micro_batch_size_per_gpu=1 vs hf per_device_train_batch_size=8",
            counter_example="- ds config vs hf config",
            cause="The DeepSpeed configuration says {key}={config}, TrainingArguments say {name}={value}",
        ),
        Symptom(
            pattern=r"When using `deepspeed_config_file`, the following accelerate config variables will be"
            r" ignored",
            example="ValueError: When using `deepspeed_config_file`, the following accelerate config"
            " variables"
            " will be ignored: ['gradient_accumulation_steps', 'zero_stage'].",
            counter_example="accelerate config variables are read from default_config.yaml",
            cause="accelerate's own configuration sets what the DeepSpeed configuration file sets as well",
            fixes=(
                remedy(
                    "take these variables out of the accelerate configuration, or take the file out of it",
                    "accelerate config",
                ),
                remedy(
                    "in the DeepSpeed file leave them to the launch line",
                    '"gradient_accumulation_steps": "auto"',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"`--adafactor was passed, but also found `optimizer` configured in the DeepSpeed config",
            example="ValueError: --adafactor was passed, but also found `optimizer` configured in the"
            " DeepSpeed config. Only one optimizer can be configured.",
            counter_example="--adafactor was passed",
            cause="--adafactor asks for one optimizer and the DeepSpeed configuration for another",
            fixes=(remedy("leave one of them out: --adafactor, or the section", '"optimizer"', "config"),),
        ),
    )
    remedies = (
        remedy(
            "let Trainer fill in every value that the message lists",
            '"gradient_accumulation_steps": "auto"',
            "config",
        ),
        remedy("write the same value in both places"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every run of Trainer with its DeepSpeed configuration, and every accelerate configuration."""
        workload = case.workload
        accelerate = tuple(workload.configs_of("accelerate")) if workload is not None else ()
        if not accelerate:
            deepspeed.configs(case)
        launches = workload.launches if workload is not None else ()
        flag = any("mixed_precision" in launch.options for launch in launches)
        for config in accelerate:
            yield from map(Suspicion, _beside_a_file(config, flag))
        told: set[tuple[Place, str]] = set()
        for training in workload.trainings if workload is not None else ():
            if training.deepspeed is None or not _is_of_trainer(training):
                continue
            for finding, place in _compare(training.deepspeed, training):
                if (place, finding.message) not in told:  # several ways through one script
                    told.add((place, finding.message))
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _is_of_trainer(training: Training) -> bool:
    """Whether Trainer reads the configuration: a program of one's own may have options of the same names."""
    if training.trainer is not None:
        return training.trainer.name.endswith("Trainer")
    return training.launch is None or "per_device_train_batch_size" in training.settings


def _compare(config: Config, training: Training) -> Iterator[tuple[Finding, Place]]:
    finds_batch_size = training.settings.get("auto_find_batch_size")
    batch_size_open = finds_batch_size is not None and finds_batch_size.constant is not False
    for match in _MATCHES:
        if match.setting == MICRO and batch_size_open:
            continue
        ours, theirs = _setting(training, match.setting, match.default), _literal(config, match.key)
        if ours is None or theirs is None or deepspeed.number(theirs) is None:
            continue
        # A number that is written as a text is another thing than that number to transformers, too.
        if theirs.constant != ours.constant:
            yield _mismatch(config, training, match.key, theirs, match.setting, ours), theirs.place
    for key, names in _PRECISIONS:
        theirs = _literal(config, key)
        switches = [_setting(training, name, False) for name in names]
        if theirs is None or not isinstance(theirs.constant, bool) or None in switches:
            continue
        on = [it for it in switches if it is not None and it.constant is True]
        if theirs.constant != bool(on):
            ours = on[0] if on else switches[0]
            assert ours is not None
            yield _mismatch(config, training, key, theirs, names[0], ours), theirs.place
    if not batch_size_open:
        yield from _whole_batch(config, training)


def _whole_batch(config: Config, training: Training) -> Iterator[tuple[Finding, Place]]:
    whole = _literal(config, "train_batch_size")
    micro, steps = _setting(training, MICRO, 8), _setting(training, STEPS, 1)
    if whole is None or micro is None or steps is None:
        return
    sizes = [deepspeed.number(it) for it in (whole, micro, steps)]
    if any(size is None or size <= 0 for size in sizes):
        return
    total, each, accumulated = (size for size in sizes if size is not None)
    ranks, rest = divmod(total, each * accumulated)
    written = f"train_batch_size is {_told(whole)}, and {MICRO} x {STEPS} is {each:g} x {accumulated:g}"
    world = training.launch.world_size if training.launch is not None else None
    where = _where(micro, training)
    if rest:
        message = f"{written} ({where}): no whole number of GPUs makes them agree"
        yield _finding(config, training, "train_batch_size", whole, message), whole.place
    elif world is not None and world != ranks:
        launch = training.launch.place if training.launch is not None else whole.place
        message = f"{written} ({where}): valid only for {ranks:g} GPUs, and {launch} starts {world}"
        yield _finding(config, training, "train_batch_size", whole, message), whole.place
    elif world is None:
        message = f"{written} ({where}): valid only for {ranks:g} GPUs"
        yield _finding(config, training, "train_batch_size", whole, message, "note"), whole.place


def _literal(config: Config, dotted: str) -> Value | None:
    return deepspeed.literal(config, *dotted.split("."))


def _setting(training: Training, name: str, default: Any) -> Value | None:
    """What TrainingArguments has; None where that is not known."""
    given = training.settings.get(name)
    if given is None:
        return None if training.open else Value(default, training.place, None, "the default")
    constant = given.constant
    if not given.known or constant is None:
        return None
    if isinstance(constant, str):  # from a launch line
        if isinstance(default, bool):
            constant = {"true": True, "false": False}.get(constant.lower(), constant)
        else:
            number = deepspeed.number(given)
            constant = number if number is not None else constant
    if isinstance(default, bool) != isinstance(constant, bool) or isinstance(constant, (str, list, dict)):
        return None
    return given._replace(constant=constant)


def _told(value: Value) -> str:
    return "true" if value.constant is True else "false" if value.constant is False else str(value.constant)


def _where(value: Value, training: Training) -> str:
    if value.origin == "the default":
        return "the default"
    return value.origin or f"line {value.place.line} of {value.place.path}"


def _mismatch(
    config: Config, training: Training, key: str, theirs: Value, setting: str, ours: Value
) -> Finding:
    message = (
        f"{key} is {_told(theirs)}, and TrainingArguments has {setting} {_told(ours)}"
        f" ({_where(ours, training)})"
    )
    return _finding(config, training, key, theirs, message)


def _finding(
    config: Config, training: Training, key: str, value: Value, message: str, severity: Severity = "error"
) -> Finding:
    place = value.place
    edit = Edit(
        action="set-key", path=config.path, line=place.line, column=place.column, name=key, text='"auto"'
    )
    trained = training.trainer is not None
    if severity == "error":
        message += ": Trainer refuses to train" if trained else ": Trainer would refuse to train"
    return Finding(
        severity=severity if trained or severity == "note" else "warning",
        confidence="certain" if trained else "likely",
        message=message,
        subject=deepspeed.at(place),
        evidence={"key": key},
        fixes=(
            Fix(
                title="leave it to TrainingArguments",
                kind="config",
                applicability="unsafe",  # the value of TrainingArguments may be the wrong one
                preview=f'"{key.rpartition(".")[2]}": "auto"',
                edits=(edit,) if config.format != "python" else (),
            ),
        ),
    )


def _beside_a_file(config: Config, flag: bool) -> Iterator[Finding]:
    """What accelerate refuses beside `deepspeed_config_file`; mixed_precision too, but for its flag."""
    section, kind = config.get("deepspeed_config"), config.get("distributed_type")
    if section is None or section.get("deepspeed_config_file") is None:
        return
    if kind is None or kind.constant != "DEEPSPEED":
        return
    for name in (*_BESIDE_A_FILE, "mixed_precision"):
        value = config.get(name) if name == "mixed_precision" else section.get(name)
        if value is None or value.constant is None or (name == "mixed_precision" and flag):
            continue
        place = value.key or value.place
        edit = Edit(action="remove-key", path=config.path, line=place.line, column=place.column, name=name)
        yield Finding(
            severity="error",
            confidence="certain",
            message=f"{name} beside deepspeed_config_file: accelerate refuses it, it belongs into that file",
            subject=deepspeed.at(place),
            fixes=(
                Fix(
                    title=f"remove {name}",
                    kind="config",
                    applicability="unsafe",  # the file may say otherwise
                    preview=f"remove {name}",
                    edits=(edit,),
                ),
            ),
        )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def trained(**settings: Any) -> Training:
        place = Place("train.sh", 4)
        return Training(
            place=place,
            settings={
                name: Value(value, place, place, f"--{name} on line 4 of train.sh")
                for name, value in settings.items()
            },
            trainer=Call(callee="transformers.Trainer", place=Place("train.py", 80)),
            launch=Launch(place=place, launcher="deepspeed", processes_per_node=4, nodes=1),
        )

    yield healthy(
        "Trainer fills in what is auto",
        deepspeed.example(
            '{"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 2}}',
            trainings=(trained(per_device_train_batch_size=4),),
        ),
    )
    yield sick(
        "another number of accumulation steps, and fp16 for a run in bf16",
        deepspeed.example(
            '{"gradient_accumulation_steps": 1, "fp16": {"enabled": true},\n "zero_optimization":'
            ' {"stage": 2}}',
            trainings=(trained(gradient_accumulation_steps="8", bf16="True"),),
        ),
        "error: gradient_accumulation_steps is 1, and TrainingArguments has gradient_accumulation_steps 8"
        " (--gradient_accumulation_steps on line 4 of train.sh): Trainer refuses to train",
        "error: fp16.enabled is true, and TrainingArguments has fp16 false (the default): Trainer"
        " refuses to train",
    )
    yield sick(
        "a batch size for 8 GPUs on 4",
        deepspeed.example(
            '{"train_batch_size": 64, "zero_optimization": {"stage": 2}}',
            trainings=(trained(per_device_train_batch_size=4, gradient_accumulation_steps=2),),
        ),
        "error: train_batch_size is 64, and per_device_train_batch_size x gradient_accumulation_steps is"
        " 4 x 2"
        " (--per_device_train_batch_size on line 4 of train.sh): valid only for 8 GPUs, and train.sh:4"
        " starts 4:"
        " Trainer refuses to train",
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
