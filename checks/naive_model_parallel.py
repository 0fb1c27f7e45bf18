"""One process trains a model that is split over several GPUs: one of them is busy at a time."""

from __future__ import annotations

import functools
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
    in_every_story,
    sick,
)
from llm_doctor.model import Environment, Finding, Fix, Gpu, Gpus
from llm_doctor.workload.data import Call, Launch, Place, Script, Story, Training, Value, Workload

_BALANCED = frozenset({"auto", "balanced", "balanced_low_0"})
"""The words that divide a model among all GPUs even where one could hold it; "sequential" fills one first."""


class NaiveModelParallel(Check):
    """One process trains a model that is split over several GPUs: one of them is busy at a time.

    ## What it finds

    A model that is loaded with `device_map="auto"`, "balanced" or "balanced_low_0", without `max_memory`, and
    trained, where no more than one process is started and this one sees several GPUs. It is a note: for a
    model that one GPU cannot hold it may be what is wanted.

    ## Why it breaks

    accelerate puts the first layers on the first GPU, the next on the second, and so on. A batch goes through
    them one after the other, forward and backward: while one computes, the others wait, so that N GPUs
    train at the speed of one.

    ## How it is proven

    By the number of GPUs and the values in the script.

    ## Fix

    Where the model fits one GPU, one process for each: `torchrun --nproc_per_node N` and
    `device_map={"": int(os.environ.get("LOCAL_RANK", 0))}`. Where it does not, ZeRO-3 or FSDP without a map.

    ## References

    - accelerate/utils/modeling.py, get_balanced_memory (0.20.3, 1.15.0)
    - https://huggingface.co/docs/transformers/perf_train_gpu_many
    - https://huggingface.co/docs/accelerate/concept_guides/big_model_inference
    """

    name = "naive-model-parallel"
    topic = "device-placement"
    severity = "note"
    since = "0.1.0"
    of_workload = True
    needs = (Gpus,)
    url = "https://huggingface.co/docs/accelerate/concept_guides/big_model_inference"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The map of every model that a single process trains."""
        assert case.workload is not None
        if not case.workload.scripts:
            raise CannotTell("no Python script in the workload")
        for script in case.workload.scripts:
            gpus = _visible(case, script)
            alone = script.launch is None or script.launch.world_size == 1
            if gpus > 1 and alone:
                judge = functools.partial(_judge, script=script, gpus=gpus)
                yield from map(Suspicion, in_every_story([script], judge))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _visible(case: Case, script: Script) -> int:
    """How many GPUs a process sees."""
    there = len(case.fact(Gpus).gpus)
    environment = case.known(Environment)
    given = script.variables.get("CUDA_VISIBLE_DEVICES")
    visible: str | None = None
    if given is not None:
        visible = given.constant if isinstance(given.constant, str) else ""
    elif environment is not None and not case.assumed:
        visible = environment.variables.get("CUDA_VISIBLE_DEVICES")
    return there if visible is None else min(there, len([it for it in visible.split(",") if it.strip()]))


def _judge(story: Story, script: Script, gpus: int) -> Iterator[Tuple[Call, Finding]]:
    load, training = story.load, story.training
    given = load.argument("device_map") if load is not None else None
    if load is None or given is None or training is None or training.trainer is None or load.open:
        return
    if not isinstance(given.constant, str) or given.constant not in _BALANCED or load.argument("max_memory"):
        return
    if script.launch is None and not training.trainer.name.endswith("Trainer"):
        return  # a loop that is made for several processes: it will hardly be started as one
    yield (
        load,
        Finding(
            severity="note",
            confidence="likely",
            message=f"device_map={given.constant} splits the model over {gpus} GPUs for one process: "
            "they compute one after the other, not together",
            subject=at(given.key or given.place),
            evidence={"gpus": gpus},
            fixes=(
                Fix(
                    title="one process for each GPU, where it can hold the model",
                    kind="command",
                    applicability="manual",
                    preview=f"torchrun --nproc_per_node {gpus} {script.path}",
                ),
            ),
        ),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def case(
        device_map: str,
        gpus: int = 4,
        launch: Launch | None = None,
        trainer: str = "transformers.Trainer",
        environment: Environment | None = None,
    ) -> Case:
        trained_by = Call(callee=trainer, place=Place("train.py", 30))
        load = Call(
            callee="transformers.AutoModelForCausalLM.from_pretrained",
            place=Place("train.py", 9),
            arguments={"device_map": Value(device_map, Place("train.py", 9, 60), Place("train.py", 9, 49))},
        )
        story = Story(
            script="train.py",
            load=load,
            training=Training(place=trained_by.place, settings={}, trainer=trained_by),
            calls=(load, trained_by),
        )
        script = Script(path="train.py", calls=story.calls, stories=(story,), launch=launch)
        seen = Gpus(driver="535.183.01", gpus=tuple(Gpu(index=number) for number in range(gpus)))
        facts = case_of(seen, *((environment,) if environment else ())).facts
        return Case(facts=facts, workload=Workload(files=("train.py",), scripts=(script,)))

    def launch(processes: int, **environment: str) -> Launch:
        place = Place("run.sh", 2)
        return Launch(
            place=place,
            launcher="torchrun" if processes > 1 else "python",
            processes_per_node=processes,
            nodes=1,
            environment={name: Value(text, place) for name, text in environment.items()},
        )

    yield healthy("one GPU", case("auto", gpus=1))
    yield healthy("several processes", case("auto", launch=launch(4)))
    yield healthy("one GPU is shown to it", case("auto", launch=launch(1, CUDA_VISIBLE_DEVICES="2")))
    yield healthy(
        "one GPU in this shell",
        case("auto", environment=Environment(variables={"CUDA_VISIBLE_DEVICES": "0"})),
    )
    yield sick(
        "one process and four GPUs",
        case("auto", launch=launch(1)),
        "note: device_map=auto splits the model over 4 GPUs for one process: they compute one after the "
        "other, "
        "not together",
    )
    yield cannot_tell("no workload", case_of(Gpus(driver="535.183.01")), "no workload was given")
