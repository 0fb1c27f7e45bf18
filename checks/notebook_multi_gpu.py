"""A notebook is one process: several GPUs are used by DataParallel, not by DeepSpeed, or not at all."""

from __future__ import annotations

from typing import Iterable, Iterator, Tuple

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
from llm_doctor.model import Environment, Finding, Fix, Gpu, Gpus, Packages
from llm_doctor.workload.data import Call, Place, Script, Story, Training, Value, Workload
from llm_doctor.workload.models import quantization


class NotebookMultiGpu(Check):
    """A notebook is one process: several GPUs are used by DataParallel, not by DeepSpeed, or not at all.

    ## What it finds

    In a notebook: a Trainer on a node of several GPUs, of a model that is neither quantised nor given a
    `device_map`; `deepspeed=` in TrainingArguments or `deepspeed.initialize`, unless mpi4py is installed; and
    a `notebook_launcher` for several processes after an `Accelerator` or a model with a `device_map` was
    made in the cells above it. All but the last are notes.

    ## Why it breaks

    Trainer in one process wraps the model in `torch.nn.DataParallel` for all GPUs that it sees, without a
    word: it copies the model in every step, fills the first GPU, and a batch has N times
    `per_device_train_batch_size`. DeepSpeed looks for RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT, which only a launcher sets, and without them asks MPI: "No module named 'mpi4py'"; set by
    hand, it uses one GPU. `notebook_launcher` forks, and CUDA in the process that is forked, or an
    Accelerator, makes it refuse or its children fail with "Cannot re-initialize CUDA in forked subprocess".

    ## How it is proven

    By the sources of the three libraries; a trial would need several GPUs. That DeepSpeed wants mpi4py in
    a process that no launcher started was seen with transformers 4.29.2 and 5.23.0.

    ## Fix

    Write the training to a script and start it with torchrun, deepspeed or accelerate (`!torchrun ...`), or
    show the notebook one GPU: `CUDA_VISIBLE_DEVICES=0` before torch is imported. Make Accelerator and model
    inside the function that `notebook_launcher` starts.

    ## References

    - transformers/trainer.py, Trainer._wrap_model (4.29.2, 5.23.0)
    - deepspeed/comm/comm.py, init_distributed (0.9.5, 0.19.8)
    - accelerate/launchers.py, notebook_launcher (0.20.3, 1.15.0)
    - https://huggingface.co/docs/accelerate/basic_tutorials/notebook
    """

    name = "notebook-multi-gpu"
    topic = "device-placement"
    severity = "warning"
    since = "0.1.0"
    of_workload = True
    url = "https://huggingface.co/docs/accelerate/basic_tutorials/notebook"
    symptoms = (
        Symptom(
            pattern=r"To launch a multi-(GPU|device) training from your notebook, "
            r"(the `Accelerator` should only be|you need to avoid running)",
            example="ValueError: To launch a multi-GPU training from your notebook, the `Accelerator` "
            "should only "
            "be initialized inside your training function.",
            counter_example="Launching training on 4 GPUs.",
            cause="The Accelerator was made before notebook_launcher could start a process for each GPU",
        ),
        Symptom(
            pattern=r"CUDA has been initialized before the `notebook_launcher` could create a forked "
            r"subprocess",
            example="RuntimeError: CUDA has been initialized before the `notebook_launcher` could create "
            "a forked "
            "subprocess.",
            counter_example="RuntimeError: An issue was found when launching the training: out of memory",
            cause="CUDA was in use before notebook_launcher could fork a process for each GPU",
        ),
        Symptom(
            pattern=r"No module named 'mpi4py'",
            example="ModuleNotFoundError: No module named 'mpi4py'",
            counter_example="ModuleNotFoundError: No module named 'deepspeed'",
            cause="DeepSpeed was started without its launcher, and looks for MPI to tell it its rank",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "write the training to a script and start it with a launcher",
            "!torchrun --nproc-per-node 2 train.py",
        ),
        remedy("make Accelerator and model inside the function that notebook_launcher runs"),
        remedy(
            "show the notebook one GPU, before torch is imported",
            'os.environ["CUDA_VISIBLE_DEVICES"] = "0"',
            "edit",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every notebook by itself."""
        assert case.workload is not None
        notebooks = [script for script in case.workload.scripts if script.notebook]
        if not notebooks:
            raise CannotTell("no notebook in the workload")
        for script in notebooks:
            launcher = next((call for call in script.calls if call.name == "notebook_launcher"), None)
            if launcher is not None:
                yield from map(Suspicion, _forked(script, launcher))
            else:
                yield from map(Suspicion, in_every_story([script], lambda story: _judge(story, case)))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _forked(script: Script, launcher: Call) -> Iterator[Finding]:
    processes = launcher.argument("num_processes", 2)
    if processes is None or type(processes.constant) is not int or processes.constant < 2:
        return
    for call in script.calls:  # in the order in which they run: the function that is launched comes last
        if call.place == launcher.place:
            return
        if call.name == "Accelerator":
            what = "makes an Accelerator before: it belongs into the function that is launched"
        elif _on_gpu(call):
            what = "puts a model on a GPU before: the processes are forked, and cannot use CUDA after that"
        else:
            continue
        yield Finding(
            severity="warning",
            confidence="likely",  # cells may be run in another order
            message=f"notebook_launcher for {processes.constant} processes, and line {call.place.line} "
            f"{what}",
            subject=at(launcher.place),
            evidence={"line": call.place.line},
            fixes=(
                Fix(
                    title="make it inside the function that notebook_launcher starts",
                    kind="advice",
                    applicability="manual",
                    preview=f"def training(): {call.name}(...); notebook_launcher(training, ...)",
                ),
            ),
        )
        return


def _on_gpu(call: Call) -> bool:
    """Whether a load puts its model on a GPU, which initialises CUDA."""
    if call.name != "from_pretrained":
        return False
    given = call.argument("device_map")
    if given is None or not given.known:
        return False
    places = given.plain.values() if isinstance(given.constant, dict) else [given.plain]
    words = ("auto", "balanced", "balanced_low_0", "sequential")
    return any(
        type(it) is int or (isinstance(it, str) and (it.startswith("cuda") or it in words)) for it in places
    )


def _judge(story: Story, case: Case) -> Iterator[Tuple[Call, Finding]]:
    training = story.training
    trainer = training.trainer if training is not None else None
    if training is None or trainer is None:
        return
    gpus = _visible(case)
    deepspeed = training.settings.get("deepspeed")
    if trainer.callee == "deepspeed.initialize" or (deepspeed is not None and deepspeed.constant is not None):
        packages = case.known(Packages)
        known = deepspeed is None or deepspeed.known
        if known and not (packages is not None and "mpi4py" in packages.installed):
            yield trainer, _deepspeed(trainer, deepspeed, gpus)
        return
    library = trainer.callee.partition(".")[0]
    if (
        gpus < 2
        or training.open
        or library not in ("transformers", "trl")
        or not trainer.name.endswith("Trainer")
    ):
        return
    elsewhere = ("fsdp", "no_cuda", "use_cpu", "local_rank")
    load = story.load
    if load is None or load.open or any(name in training.settings for name in elsewhere):
        return
    given = load.argument("device_map")
    if quantization(load) is None and (given is None or given.constant is None):
        yield (
            trainer,
            Finding(
                severity="note",
                confidence="likely",  # CUDA_VISIBLE_DEVICES may be set in a cell
                message=f"{trainer.name} in a notebook uses all GPUs that it sees ({gpus} here) through "
                f"torch.nn.DataParallel: slower than one process for each, and a batch is {gpus} times "
                "per_device_train_batch_size",
                subject=at(trainer.place),
                evidence={"gpus": gpus},
                fixes=(_as_script(gpus),),
            ),
        )


def _deepspeed(trainer: Call, value: Value | None, gpus: int) -> Finding:
    uses = f"uses one of the {gpus} GPUs" if gpus > 1 else "is one process"
    return Finding(
        severity="note",
        confidence="likely",  # the variables may be set in a cell
        message=f"DeepSpeed in a notebook {uses}, and asks for mpi4py unless RANK, WORLD_SIZE, LOCAL_RANK, "
        "MASTER_ADDR and MASTER_PORT are set before",
        subject=at((value.key or value.place) if value is not None else trainer.place),
        fixes=(_as_script(gpus),),
    )


def _as_script(gpus: int) -> Fix:
    return Fix(
        title="write the training to a script and launch it",
        kind="command",
        applicability="manual",
        preview=f"torchrun --nproc_per_node {max(gpus, 1)} train.py",
    )


def _visible(case: Case) -> int:
    """How many GPUs the notebook sees; 0 where that is not known."""
    known = case.known(Gpus)
    there = len(known.gpus) if known is not None else 0
    environment = case.known(Environment)
    shown = environment.variables.get("CUDA_VISIBLE_DEVICES") if environment and not case.assumed else None
    return there if shown is None else min(there, len([it for it in shown.split(",") if it.strip()]))


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def value(constant: object, line: int) -> Value:
        return Value(constant, Place("train.ipynb", line, 22), Place("train.ipynb", line, 9))

    def call(callee: str, line: int, **arguments: object) -> Call:
        return Call(
            callee=callee,
            place=Place("train.ipynb", line, 9),
            arguments={name: value(it, line) for name, it in arguments.items()},
        )

    def case(*calls: Call, gpus: int = 4, notebook: bool = True, **settings: object) -> Case:
        load = next((it for it in calls if it.name == "from_pretrained"), None)
        trainer = next((it for it in calls if it.name.endswith(("Trainer", "initialize"))), None)
        training = None
        if trainer is not None:
            given = {name: value(it, 40) for name, it in settings.items()}
            training = Training(place=trainer.place, settings=given, trainer=trainer)
        story = Story(script="train.ipynb", load=load, training=training, calls=calls)
        script = Script(path="train.ipynb", calls=calls, stories=(story,), notebook=notebook)
        seen = Gpus(driver="535.183.01", gpus=tuple(Gpu(index=number) for number in range(gpus)))
        return Case(facts=case_of(seen).facts, workload=Workload(scripts=(script,)))

    load, trainer = call("transformers.AutoModel.from_pretrained", 9), call("transformers.Trainer", 50)
    split = call("transformers.AutoModel.from_pretrained", 9, device_map="auto")
    launch = call("accelerate.notebook_launcher", 60, num_processes=4)
    make = call("accelerate.Accelerator", 20)
    yield healthy("one GPU", case(load, trainer, gpus=1))
    yield healthy("a model that is split over them", case(split, trainer))
    yield healthy("everything is made in the function that is launched", case(launch, make, split))
    yield sick(
        "Trainer and four GPUs",
        case(load, trainer),
        "note: Trainer in a notebook uses all GPUs that it sees (4 here) through torch.nn.DataParallel: "
        "slower "
        "than one process for each, and a batch is 4 times per_device_train_batch_size",
    )
    yield sick(
        "DeepSpeed without a launcher",
        case(load, trainer, deepspeed="ds_config.json"),
        "note: DeepSpeed in a notebook uses one of the 4 GPUs, and asks for mpi4py unless RANK, WORLD_SIZE, "
        "LOCAL_RANK, MASTER_ADDR and MASTER_PORT are set before",
    )
    yield sick(
        "an Accelerator above notebook_launcher",
        case(make, launch),
        "warning: notebook_launcher for 4 processes, and line 20 makes an Accelerator before: it belongs "
        "into the "
        "function that is launched",
    )
    yield sick(
        "a model on a GPU above notebook_launcher",
        case(split, launch),
        "warning: notebook_launcher for 4 processes, and line 9 puts a model on a GPU before: the "
        "processes are "
        "forked, and cannot use CUDA after that",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
    yield cannot_tell("a script", case(load, trainer, notebook=False), "no notebook in the workload")
