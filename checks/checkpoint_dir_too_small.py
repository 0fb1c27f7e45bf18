"""There is no room where checkpoints are saved for what the saves of a full fine-tune will need."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, NamedTuple, Sequence

import msgspec

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
    in_every_story,
    remedy,
    sick,
)
from llm_doctor.model import Finding, Fix, Model, Severity, TrialResult
from llm_doctor.units import gb
from llm_doctor.workload import deepspeed, models
from llm_doctor.workload.data import Call, PathState, Place, Script, Story, Training, Value, Workload
from llm_doctor.workload.paths import output_paths

FEW = 5
"""Checkpoints that there is room for, where each save adds one: below that it is worth a note."""
# Optimizers that keep less than two numbers for each parameter, or smaller ones, or not of all of them.
_SMALL_OPTIMIZERS = re.compile(
    r"(?i)8bit|4bit|adafactor|sgd|lomo|lion|galore|apollo|grokadamw|rmsprop|adagrad|muon"
)


class CheckpointDirTooSmall(Check):
    """There is no room where checkpoints are saved for what the saves of a full fine-tune will need.

    ## What it finds

    Of each run of a Trainer that trains all of a model whose size is known, by `--model` or because it is
    loaded from a local folder: how many bytes one save takes, how many are kept by `save_total_limit`, and
    what is free where `output_dir` lies. Adapters are small, and are not judged.

    ## Why it breaks

    A checkpoint holds the optimizer too. Under ZeRO-3 that is 14 bytes for each parameter: 2 for the weights
    in half precision, 4 for the master copy and 8 for Adam's two moments: 98 GB for a model of 7 billion.
    Trainer writes the next checkpoint before it removes the oldest, so that one more than the limit is there
    for a while. The job ends hours later with "No space left on device", in the middle of a save.

    ## How it is proven

    By arithmetic on the least that can be saved; where it is not known how the weights are kept, the smaller
    number is taken. Nothing is written there.

    ## Fix

    Another disk, a smaller `save_total_limit`, or `save_only_model=True` where no run is to be resumed.

    ## References

    - transformers/trainer.py, _save_checkpoint and _rotate_checkpoints (4.29.2, 5.23.0)
    - deepspeed/runtime/engine.py, save_checkpoint; runtime/zero/stage3.py, state_dict (0.9.5, 0.19.8)
    - https://huggingface.co/docs/transformers/main_classes/trainer#transformers.TrainingArguments.save_total_limit
    """

    name = "checkpoint-dir-too-small"
    topic = "disk-space"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/transformers/deepspeed"
    symptoms = (
        Symptom(
            pattern=r"PytorchStreamWriter failed writing file (?P<file>[\w./-]{1,100}): file write failed",
            example="RuntimeError: [enforce fail at inline_container.cc:471] . PytorchStreamWriter failed"
            " writing file"
            " data/12: file write failed",
            counter_example="RuntimeError: PytorchStreamReader failed reading zip archive",
            cause="A checkpoint could not be written to its end (at {file}): the disk is full, or the"
            " quota used up",
        ),
        Symptom(
            pattern=r"PytorchStreamWriter failed",
            example="RuntimeError: [enforce fail at inline_container.cc:471] . PytorchStreamWriter failed",
            counter_example="RuntimeError: PytorchStreamReader failed reading zip archive",
            cause="A checkpoint could not be written to its end: the disk is full, or the quota used up",
        ),
        Symptom(
            pattern=r"write\(\): fd \d{1,6} failed with (?P<why>No space left on device|Input/output"
            r" error|Disk quota exceeded|File too large)",
            example="RuntimeError: write(): fd 29 failed with No space left on device",
            counter_example="read(): fd 29 failed",
            cause="A checkpoint could not be written to its end: {why}",
        ),
        Symptom(
            pattern=r"basic_ios::clear: iostream error",
            example="RuntimeError: basic_ios::clear: iostream error",
            counter_example="iostream was opened",
            sure="likely",
            cause="A checkpoint could not be written to its end: the disk is full, or the quota used up",
        ),
        Symptom(
            pattern=r"inline_container\.cc:\d{2,5}\][ .]{0,3}unexpected pos (?P<at>\d{1,15}) vs"
            r" (?P<wanted>\d{1,15})",
            example="RuntimeError: [enforce fail at inline_container.cc:337] . unexpected pos 325760 vs"
            " 325652",
            counter_example="RuntimeError: [enforce fail at alloc_cpu.cpp:75]",
            standing="aftermath",
            cause="A checkpoint could not be written to its end: the disk is full, or the quota used up",
        ),
        Symptom(
            pattern=r"unexpected pos \d{1,15} vs \d{1,15}",
            example="RuntimeError: unexpected pos 325760 vs 325652",
            counter_example="unexpected position",
            standing="aftermath",
            cause="A checkpoint could not be written to its end: the disk is full, or the quota used up",
        ),
        Symptom(
            pattern=r"SafetensorError: [^\n]{0,160}(?:No space left on"
            r" device|StorageFull|QuotaExceeded|Disk quota exceeded)",
            example="safetensors_rust.SafetensorError: Error while serializing: IoError(Os { code: 28, kind:"
            ' StorageFull, message: "No space left on device" })',
            counter_example="SafetensorError: Error while deserializing header: HeaderTooLarge",
            cause="A checkpoint could not be written to its end: the disk is full, or the quota used up",
        ),
        Symptom(
            pattern=r"Error while serializing: I/?[oO] ?[eE]rror",
            example="safetensors_rust.SafetensorError: Error while serializing: I/O error: Invalid"
            " argument (os error 22)",
            counter_example="SafetensorError: Error while deserializing header: HeaderTooLarge",
            cause="A checkpoint could not be written: the disk is full, or its file system refuses what"
            " is asked",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:torch/serialization\.py|_save_checkpoint|save_pretrained|save_checkpoint"
            r"|_save_optimizer_and_scheduler|torch\.save\(|save_state)"
            r"[\s\S]{0,600}?(?:\[Errno 28\] )?No space left on device(?! \(28\))",
            example='  File "/env/lib/python3.10/site-packages/transformers/trainer.py", line 2300, in'
            " _save_checkpoint\n"
            "    self.save_model(output_dir)\nOSError: [Errno 28] No space left on device",
            counter_example='  File "/env/lib/python3.10/site-packages/huggingface_hub/file_download.py",'
            " line 544, in http_get\n"
            "OSError: [Errno 28] No space left on device",
            cause="A checkpoint could not be written: the disk is full",
        ),
        Symptom(
            pattern=r"Parent directory (?P<folder>[^\n]{1,200}) does not exist",
            example="RuntimeError: Parent directory /data/out/checkpoint-100 does not exist.",
            counter_example="Parent directory exists",
            sure="likely",
            cause="A checkpoint is to be written into a folder that is not there: {folder}",
            fixes=(remedy("make it before the save", 'os.makedirs("{folder}", exist_ok=True)', "edit"),),
        ),
    )
    remedies = (
        remedy("see which disk is full", "df -h OUTPUT_DIR"),
        remedy("keep fewer checkpoints", "--save_total_limit 1"),
        remedy("leave the optimizer's state out, if nothing is to be resumed", "--save_only_model"),
        remedy("write to a larger disk", "--output_dir /data/out"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every run that trains a whole model."""
        assert case.workload is not None
        if case.assumed:
            raise CannotTell("another machine is assumed: its disks are not known")
        saving = [it for it in case.workload.trainings if _state(case.workload, it) is not None]
        if not saving:
            raise CannotTell("no output_dir that is known in the workload")
        saves = list(in_every_story(case.workload.scripts, lambda story: _saves(case, story)))
        saves += [save for training in case.workload.trainings for save in _by_yaml(case, training)]
        if not saves:
            room = "; ".join(dict.fromkeys(_room(case.workload, it) for it in saving))
            raise CannotTell(f"no full fine-tune of a model whose size is known (--model tells it); {room}")
        for save in saves:
            yield from _judge(save)

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """The room that is left."""
        trainings = case.workload.trainings if case.workload is not None else ()
        rooms = [_room(case.workload, it) for it in trainings if case.workload and _state(case.workload, it)]
        return "; ".join(dict.fromkeys(rooms)) or None

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


class _Save(NamedTuple):
    """What one checkpoint of a run takes at the least, and where it goes."""

    training: Training
    state: PathState
    parameters: int
    bytes_each: int

    @property
    def size_bytes(self) -> int:
        return self.parameters * self.bytes_each


def _state(workload: Workload | None, training: Training) -> PathState | None:
    """What is known of the place that the run saves to; None where its room is not."""
    path = next(output_paths(training), None)
    state = workload.paths.get(path) if workload is not None and path is not None else None
    return state if state is not None and state.free_bytes is not None and not state.problem else None


def _room(workload: Workload | None, training: Training) -> str:
    state = _state(workload, training)
    free = gb(state.free_bytes) if state is not None and state.free_bytes is not None else "unknown"
    return f"{free} free for output_dir {training.settings['output_dir'].constant}"


# --- What is saved -----------------------------------------------------------------------------------


def _saves(case: Case, story: Story) -> Iterator[tuple[Call, _Save]]:
    training, load = story.training, story.load
    if training is None or load is None or models.has_adapters(story) or story.step("requires_grad_"):
        return
    if models.quantization(load) is not None:
        return
    name = load.argument("pretrained_model_name_or_path", 0)
    dtype = models.dtype(story)
    save = _save(case, training, name, dtype.constant if dtype is not None else None)
    if save is not None:
        yield load, save


def _by_yaml(case: Case, training: Training) -> Iterator[_Save]:
    """A run of LLaMA-Factory that says that it is a full one."""
    kind = training.settings.get("finetuning_type")
    if kind is not None and kind.constant == "full":
        save = _save(case, training, training.settings.get("model_name_or_path"), None)
        if save is not None:
            yield save


def _save(case: Case, training: Training, name: Value | None, dtype: object) -> _Save | None:
    workload = case.workload
    state, bytes_each = _state(workload, training), _bytes_each(training, dtype)
    if workload is None or state is None or bytes_each is None:
        return None
    # Each node writes its part, on its own disk or on one that all share.
    if training.launch is not None and training.launch.nodes not in (None, 1):
        return None
    model = case.known(Model)
    if model is not None:  # four bytes each at the most
        return _Save(training, state, model.weight_bytes // 4, bytes_each)
    known = workload.parameters.get(str(name.constant)) if name is not None and name.known else None
    return _Save(training, state, known, bytes_each) if known else None


def _bytes_each(training: Training, dtype: object) -> int | None:
    """Bytes that a save takes for each parameter, at the least; None where it may be that none is made."""
    settings = training.settings
    strategy = settings.get("save_strategy")
    if strategy is not None and strategy.constant not in ("steps", "epoch", "best"):
        return None
    only_model, optimizer = settings.get("save_only_model"), settings.get("optim")
    if only_model is not None and only_model.constant is not False:
        return 2
    if optimizer is not None and (not optimizer.known or _SMALL_OPTIMIZERS.search(str(optimizer.constant))):
        return 2
    if training.deepspeed is not None:
        gathers = training.deepspeed.get("zero_optimization", "stage3_gather_16bit_weights_on_model_save")
        stage = deepspeed.stage(training.deepspeed)
        if stage in (1, 2):  # the weights twice: by the engine and by Trainer
            return 16
        return 12 if gathers is not None and gathers.constant is False else 14
    given = settings.get("deepspeed")
    if given is not None and given.constant is not None:
        return 12
    # Adam's moments are kept as the weights are.
    return 12 if dtype == "float32" else 6


# --- Whether it fits ---------------------------------------------------------------------------------


def _judge(save: _Save) -> Iterator[Suspicion]:
    free = save.state.free_bytes or 0
    limit = save.training.settings.get("save_total_limit")
    kept = (
        limit.constant if limit is not None and type(limit.constant) is int and limit.constant > 0 else None
    )
    one = f"one checkpoint takes {gb(save.size_bytes)} or more ({save.bytes_each} bytes a parameter)"
    where = f"{gb(free)} are free for output_dir {save.training.settings['output_dir'].constant}"
    severity: Severity
    if save.size_bytes > free:
        severity, message = "warning" if save.training.open else "error", f"{where}: {one}"
    elif kept is not None and (kept + 1) * save.size_bytes > free:
        severity = "warning"
        message = f"{where}: {one}, and save_total_limit={kept} has {kept + 1} of them there at a time"
    elif limit is None and FEW * save.size_bytes > free and not save.training.open:
        severity = "note"
        message = f"{where}: {one}, and without save_total_limit each save adds another"
    else:
        return
    value = save.training.settings["output_dir"]
    fixes = (
        Fix(
            title="keep fewer checkpoints",
            kind="edit",
            applicability="manual",
            preview="save_total_limit=1",
        ),
        Fix(
            title="save the weights alone, where no run is to be resumed",
            kind="edit",
            applicability="manual",
            preview="save_only_model=True",
        ),
    )
    yield Suspicion(
        Finding(
            severity=severity,
            confidence="likely" if save.training.open else "certain",
            message=message,
            subject=at(value.key or value.place),
            evidence={"checkpoint_bytes": save.size_bytes, "free_bytes": free},
            fixes=fixes,
        )
    )


# --- Examples ----------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def trained(free_gb: int, *facts: object, adapters: bool = False, **settings: object) -> Case:
        load = Call(
            callee="transformers.AutoModelForCausalLM.from_pretrained",
            place=Place("train.py", 5),
            positional=(Value("/models/llama-7b", Place("train.py", 5)),),
        )
        wrap = Call(callee="peft.get_peft_model", place=Place("train.py", 7))
        training = Training(
            place=Place("train.py", 9),
            settings={
                "output_dir": Value("/data/out", Place("train.py", 10)),
                **{name: Value(it, Place("train.py", 11)) for name, it in settings.items()},
            },
        )
        steps = (wrap,) if adapters else ()
        story = Story(script="train.py", load=load, steps=steps, training=training, calls=(load, *steps))
        state = PathState(exists=True, nearest="/data", writable=True, free_bytes=free_gb * 10**9)
        workload = Workload(
            scripts=(Script(path="train.py", stories=(story,)),),
            trainings=(training,),
            paths={"/data/out": state},
            parameters={"/models/llama-7b": 6_738_000_000},
        )
        return msgspec.structs.replace(case_of(*facts), workload=workload)

    yield healthy("room for three", trained(200, save_total_limit=2))
    yield sick(
        "no room for one",
        trained(20, save_total_limit=2),
        "error: 20 GB are free for output_dir /data/out: one checkpoint takes 40.4 GB or more (6 bytes a"
        " parameter)",
    )
    yield sick(
        "room for two of four",
        trained(90, save_total_limit=3),
        "warning: 90 GB are free for output_dir /data/out: one checkpoint takes 40.4 GB or more (6 bytes a"
        " parameter), and save_total_limit=3 has 4 of them there at a time",
    )
    yield sick(
        "every save adds one",
        trained(90),
        "note: 90 GB are free for output_dir /data/out: one checkpoint takes 40.4 GB or more (6 bytes a"
        " parameter), and without save_total_limit each save adds another",
    )
    yield cannot_tell(
        "adapters are small",
        trained(5, adapters=True),
        "no full fine-tune of a model whose size is known (--model tells it); 5 GB free for output_dir"
        " /data/out",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
