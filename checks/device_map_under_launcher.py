"""Several processes are started, and one device_map puts all their models on one GPU or on all GPUs."""

from __future__ import annotations

import functools
import re
from typing import Iterable, Iterator, List, Literal, NamedTuple, Tuple

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
from llm_doctor.model import Edit, Finding, Fix, Packages, Severity
from llm_doctor.workload.data import Call, Launch, Place, Script, Story, Training, Value, Workload
from llm_doctor.workload.models import Quantization, quantization, written

SPREADING = frozenset({"auto", "balanced", "balanced_low_0", "sequential"})
"""What transformers lets accelerate work out for all GPUs that the process sees."""
OWN_DEVICE = '{"": int(os.environ.get("LOCAL_RANK", 0))}'
_LAUNCHERS = ("torchrun", "deepspeed", "accelerate")
"""Those whose processes see every GPU of the node; srun and mpirun may give each task its own."""
_SETS_DEVICE = frozenset(
    """
    Accelerator PartialState AcceleratorState HfArgumentParser TrlParser set_device init_process_group
    init_distributed initialize
    """.split()
)
"""What chooses the device of a rank, itself or by making TrainingArguments."""


class Spread(NamedTuple):
    """Where a device_map puts the model of each process: on the GPUs it sees, or on this one."""

    on: Literal["every GPU"] | int


class DeviceMapUnderLauncher(Check):
    """Several processes are started, and one device_map puts all their models on one GPU or on all GPUs.

    ## What it finds

    Under torchrun, deepspeed or accelerate with more than one process on a node: a `device_map` that is
    "auto" or another word of its kind, or names several GPUs; one that names a fixed GPU, as `{"": 0}`; and a
    quantised load without any, before something chose the device of the rank. A map that is made from the
    rank, or that the script replaces under a launcher, is fine. Of a model that is not trained it is a note,
    as one rank alone may load it; and so is, without a launch line, "auto" in a training loop of accelerate
    or DeepSpeed.

    ## Why it breaks

    Every process runs the same line. "auto" splits the model over all GPUs that the process sees, which
    are all of the node: N models share them, and data-parallel training refuses a model on several devices.
    With a fixed GPU all N models are on it: a quantised one cannot be moved to its rank, a float one costs N
    times the memory there. A quantised load without a map goes to the current device, which is GPU 0 until
    `torch.cuda.set_device`, TrainingArguments or Accelerator change it.

    ## How it is proven

    By the launch line and the values in the script; a trial would need several GPUs.

    ## Fix

    `device_map={"": int(os.environ.get("LOCAL_RANK", 0))}`, or one process where the model needs several
    GPUs.

    ## References

    - accelerate/accelerator.py, prepare and prepare_model (0.20.3: quantised models; 0.22.0, 1.15.0: all)
    - https://github.com/huggingface/accelerate/pull/1810 (accelerate 0.22.0)
    - torch/nn/parallel/distributed.py, DistributedDataParallel.__init__ (1.12.1, 2.13.0)
    - transformers/quantizers/quantizer_bnb_8bit.py, update_device_map (5.23.0)
    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    """

    name = "device-map-under-launcher"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://github.com/huggingface/accelerate/pull/1810"
    symptoms = (
        Symptom(
            pattern=r"You can't train a model that has been loaded with `device_map=`auto` in any "
            r"distributed mode",
            example="ValueError: You can't train a model that has been loaded with `device_map='auto'` in "
            "any distributed mode. Please rerun your script specifying `--num_processes=1`",
            counter_example="You've set device_map=`auto` while triggering a distributed run with torchrun.",
            cause='device_map="auto" splits the model over all GPUs in each of several processes',
        ),
        Symptom(
            pattern=r"loaded in 8-bit (?:or 4-bit )?precision on a different device than the one",
            example="ValueError: You can't train a model that has been loaded in 8-bit or 4-bit precision "
            "on a different device than the one you're training on.",
            counter_example="ValueError: You can't train a model that has been loaded in 8-bit precision "
            "with CPU or disk offload.",
            cause="The quantised model was loaded on another GPU than this process trains on, and cannot be "
            "moved",
        ),
        Symptom(
            pattern=r"loaded in 8-bit (?:or 4-bit )?precision on multiple devices",
            example="ValueError: You can't train a model that has been loaded in 8-bit or 4-bit precision "
            "on multiple devices in any distributed mode.",
            counter_example="a model that has been loaded on multiple devices",
            cause="Each of several processes split the quantised model over all GPUs",
        ),
        Symptom(
            pattern=r"loaded in 8-bit (?:or 4-bit )?precision with CPU or disk offload",
            example="ValueError: You can't train a model that has been loaded in 8-bit or 4-bit precision "
            "with CPU or disk offload.",
            counter_example="with CPU or disk offload",
            cause="Part of the quantised model was offloaded to the CPU or the disk, where it cannot be "
            "trained",
            fixes=(
                remedy(
                    "put all of it on this process's GPU",
                    'device_map={{"": int(os.environ.get("LOCAL_RANK", 0))}}',
                    "edit",
                ),
                remedy("where it does not fit, load in 4 bits or take a smaller model"),
            ),
        ),
        Symptom(
            pattern=r"DistributedDataParallel device_ids and output_device arguments only work with "
            r"single-device/multiple-device GPU modules",
            example="ValueError: DistributedDataParallel device_ids and output_device arguments only work "
            "with single-device/multiple-device GPU modules or CPU modules, but got device_ids [0]",
            counter_example="ValueError: device_ids can only be None or contain a single element.",
            cause="A model that is split over several devices goes into DistributedDataParallel",
        ),
        Symptom(
            pattern=r"DistributedDataParallel`s input module must be on the same type of devices",
            example="ValueError: DistributedDataParallel's input module must be on the same type of devices, "
            "but input module parameters locate in {'cpu', 'cuda'}.",
            counter_example="the input module is on one device",
            cause="A model that is part on the CPU and part on a GPU goes into DistributedDataParallel",
        ),
        Symptom(
            pattern=r"module must have its parameters and buffers on device (?P<first>[\w:]{3,12}) "
            r"\(device_ids\[0\]\) but found one of them on device: (?P<other>[\w:]{3,12})",
            example="RuntimeError: module must have its parameters and buffers on device cuda:0 "
            "(device_ids[0]) but found one of them on device: cuda:1",
            counter_example="its parameters and buffers are on device cuda:0",
            cause="DataParallel wants the whole model on {first} and finds part of it on {other}",
            fixes=(
                remedy("let the job see one GPU only", "CUDA_VISIBLE_DEVICES=0", "environment"),
                remedy(
                    "start one process for each GPU, with the model on its own",
                    "torchrun --nproc_per_node 4 train.py",
                ),
                remedy(
                    "a model that is split on purpose: keep Trainer from wrapping it",
                    "model.is_parallelizable = True\nmodel.model_parallel = True",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"incompatible with DDP\. Maybe you loaded your model with `device_map=`auto",
            example="ValueError: Your model contains `DTensor` parameters, which is incompatible with DDP. "
            "Maybe you loaded your model with `device_map='auto'`?",
            counter_example="the model is incompatible with DDP",
            cause='device_map="auto" split the model under a launcher of several processes',
        ),
    )
    remedies = (
        remedy(
            "put the model on this process's own GPU",
            'device_map={{"": int(os.environ.get("LOCAL_RANK", 0))}}',
            "edit",
        ),
        remedy(
            "where one GPU cannot hold it, start one process",
            "accelerate launch --num_processes 1 train.py",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The map of every load against the launch of its script."""
        assert case.workload is not None
        if not case.workload.scripts:
            raise CannotTell("no Python script in the workload")
        told: List[Finding] = []
        for script in case.workload.scripts:
            judge = functools.partial(_judge, script=script, case=case)
            for finding in in_every_story([script], judge):
                if finding not in told:  # one script may be started by several lines
                    told.append(finding)
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def spread(given: Value | None) -> Spread | None:
    """Where a device_map puts the model of every process; None where they differ, or it is not known."""
    if given is None:
        return None
    constant = given.constant
    if isinstance(constant, str) and constant in SPREADING:
        return Spread("every GPU")
    if type(constant) is not dict:
        device = _device(given)
        return None if device is None else Spread(device)
    devices = {_device(value) for value in constant.values()}
    if None in devices or not devices:
        return None
    return Spread("every GPU" if len(devices) > 1 else min(it for it in devices if it is not None))


def _device(value: Value) -> int | None:
    constant = value.constant
    if "rank" in value.origin:  # the default of --local_rank, which launchers pass
        return None
    if isinstance(constant, str):
        match = re.fullmatch(r"cuda:(\d+)", constant)
        return int(match[1]) if match else None
    return constant if type(constant) is int and constant >= 0 else None


def _judge(story: Story, script: Script, case: Case) -> Iterator[Tuple[Call, Finding]]:
    load, launch = story.load, script.launch
    if load is None or load.open:
        return
    given = load.argument("device_map")
    where = spread(given)
    if launch is None:
        if given is not None and where == Spread("every GPU") and _is_own_loop(story):
            yield load, _unlaunched(story, load, given)
        return
    processes = launch.processes_per_node
    if processes is None or processes < 2 or launch.launcher not in _LAUNCHERS:
        return
    bypass = script.variables.get("ACCELERATE_BYPASS_DEVICE_MAP")
    if bypass is not None and bypass.constant != "false":
        return
    if given is not None and where is not None:
        yield load, _mapped(story, load, given, where, launch, case)
    elif given is None or given.constant is None:
        quantized, transformers = quantization(load), case.version("transformers")
        finds_device = transformers is None or transformers.release[:2] >= (4, 30)
        if not isinstance(quantized, Quantization) or quantized.bits is None or not finds_device:
            return
        if not _shards(story, launch, case, quantized) and not _device_is_set(script, load):
            yield load, _unmapped(story, load, quantized, launch)


def _is_own_loop(story: Story) -> bool:
    trainer = story.training.trainer if story.training is not None else None
    return trainer is not None and (trainer.name == "prepare" or trainer.callee == "deepspeed.initialize")


def _unlaunched(story: Story, load: Call, given: Value) -> Finding:
    assert story.training is not None and story.training.trainer is not None
    trainer = story.training.trainer
    loop = "deepspeed.initialize" if trainer.name == "initialize" else "Accelerator.prepare"
    return _finding(
        "note",
        f"{_told(given)} and {loop} on line {trainer.place.line}: with more than one process each would "
        f"split "
        "the model over all GPUs",
        load,
        given,
        "unsafe",
    )


def _mapped(story: Story, load: Call, given: Value, where: Spread, launch: Launch, case: Case) -> Finding:
    trained = story.training is not None
    several = f"{_told(given)} under {launch.processes_per_node} processes ({launch.place})"
    if where.on == "every GPU":
        accelerate = case.version("accelerate")
        if not trained:
            what = "every process splits a model of its own over all GPUs"
        elif accelerate is not None and accelerate.release[:2] >= (0, 22):
            what = f"each splits the model over all GPUs, which accelerate {accelerate} refuses to train"
        else:
            what = "each splits the model over all GPUs, and data-parallel training refuses such a model"
        return _finding("error" if trained else "note", f"{several}: {what}", load, given, "unsafe")
    quantized = isinstance(quantization(load), Quantization)
    what = f"all of them load their model on GPU {where.on}"
    if quantized and trained:
        what += ", and a quantised model cannot be moved to the GPU of its rank"
    severity: Severity = "error" if quantized and trained else "warning" if trained else "note"
    return _finding(severity, f"{several}: {what}", load, given, "safe")


def _unmapped(story: Story, load: Call, quantized: Quantization, launch: Launch) -> Finding:
    said = written(quantized.value, f"load_in_{quantized.bits}bit")
    message = (
        f"{said} without device_map under {launch.processes_per_node} processes ({launch.place}), before "
        f"anything "
        "chose the device of the rank: all of them load their model on GPU 0"
    )
    if story.training is not None:
        message += ", and a quantised model cannot be moved to the GPU of its rank"
    # Something that was not seen, in another file, may have called torch.cuda.set_device.
    return _finding("warning" if story.training is not None else "note", message, load, None, "safe")


def _shards(story: Story, launch: Launch, case: Case, quantized: Quantization) -> bool:
    """Whether FSDP or ZeRO-3 may place the model, where no map is right."""
    if quantized.config is not None and quantized.config.argument("bnb_4bit_quant_storage") is not None:
        return True
    kind = launch.options.get("distributed_type")
    if launch.launcher == "deepspeed" or (kind is not None and kind.constant != "MULTI_GPU"):
        return True
    if any(name in launch.options for name in ("use_fsdp", "use_deepspeed", "deepspeed_config_file")):
        return True
    settings = story.training.settings if story.training is not None else {}
    flags = launch.flags
    if any(name in it for name in ("fsdp", "deepspeed", "fsdp_config") for it in (settings, flags)):
        return True
    return case.workload is not None and any(case.workload.configs_of("deepspeed"))


def _device_is_set(script: Script, load: Call) -> bool:
    """Whether something before the load chose the device of the rank; calls stand as they run."""
    from llm_doctor.workload.values import is_training_arguments

    for call in script.calls:
        if call.place == load.place:
            return False
        if call.name in _SETS_DEVICE or is_training_arguments(call.callee):
            return True
    return True  # where it stands among them is not known


def _told(given: Value) -> str:
    if isinstance(given.constant, str):
        return written(given, "device_map")
    text = repr(given.plain)
    text = text if len(text) <= 40 else "{...}"
    return f"device_map={text}" + (f", from {given.origin}" if given.origin else "")


def _finding(
    severity: Severity,
    message: str,
    load: Call,
    given: Value | None,
    applicability: Literal["safe", "unsafe"],
) -> Finding:
    place = (given.key or given.place) if given is not None else load.place
    call = load.place
    given_there = given is None or (place.path == call.path and call.line <= place.line <= call.end_line)
    return Finding(
        severity=severity,
        confidence="likely",
        message=message,
        subject=at(place),
        fixes=(
            Fix(
                title="put each process's model on its own GPU",
                kind="edit",
                # Split over the GPUs, the model may be too large for one.
                applicability=applicability,
                preview=f"device_map={OWN_DEVICE}",
                edits=(
                    Edit(
                        action="set-keyword",
                        path=call.path,
                        line=call.line,
                        column=call.column,
                        name="device_map",
                        text=OWN_DEVICE,
                    ),
                    Edit(action="add-import", path=call.path, line=1, text="import os"),
                )
                if given_there
                else (),
            ),
        ),
    )


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

    def case(
        *before: Call,
        launcher: str = "torchrun",
        processes: int = 4,
        trainer: str = "transformers.Trainer",
        **load: object,
    ) -> Case:
        launch = Launch(place=Place("run.sh", 3), launcher=launcher, processes_per_node=processes, nodes=1)
        loaded = call("transformers.AutoModelForCausalLM.from_pretrained", 9, **load)
        training = (
            Training(place=Place("train.py", 30), settings={}, trainer=call(trainer, 30)) if trainer else None
        )
        after = (call(trainer, 30),) if trainer else ()
        story = Story(script="train.py", load=loaded, training=training, calls=(loaded, *after))
        script = Script(
            path="train.py",
            calls=(*before, loaded, *after),
            stories=(story,),
            launch=launch if launcher else None,
        )
        facts = case_of(Packages(installed={"accelerate": "1.15.0"}, modules={})).facts
        return Case(facts=facts, workload=Workload(files=("train.py",), scripts=(script,)))

    def everything(device: object) -> object:
        return {"": value(device, 9)}

    set_device = call("torch.cuda.set_device", 5)
    yield healthy("one process", case(processes=1, launcher="python", device_map="auto"))
    yield healthy("a map made from the rank", case(device_map=everything(call("int", 9))))
    yield healthy("the device was chosen before a quantised load", case(set_device, load_in_4bit=True))
    yield sick(
        '"auto" for each of four processes',
        case(device_map="auto"),
        "error: device_map=auto under 4 processes (run.sh:3): each splits the model over all GPUs, "
        "which accelerate 1.15.0 refuses to train",
    )
    yield sick(
        "four quantised models for one GPU",
        case(device_map=everything(0), load_in_8bit=True),
        "error: device_map={'': 0} under 4 processes (run.sh:3): all of them load their model on GPU 0, "
        "and a quantised model cannot be moved to the GPU of its rank",
    )
    yield sick(
        "four copies for one GPU, for inference",
        case(device_map=everything("cuda:0"), trainer=""),
        "note: device_map={'': 'cuda:0'} under 4 processes (run.sh:3): all of them load their model on GPU 0",
    )
    yield sick(
        "a quantised load without a map, first of all",
        case(load_in_4bit=True),
        "warning: load_in_4bit=True without device_map under 4 processes (run.sh:3), before anything "
        "chose the "
        "device of the rank: all of them load their model on GPU 0, and a quantised model cannot be moved to "
        "the GPU of its rank",
    )
    yield sick(
        "a loop of accelerate, and no launch line",
        case(launcher="", trainer=".prepare", device_map="auto"),
        "note: device_map=auto and Accelerator.prepare on line 30: with more than one process each would "
        "split "
        "the model over all GPUs",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
