"""A model loaded in 8 bits without a device_map: refused, or not quantised, or not where it should be."""

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
    at,
    by_own_case,
    cannot_tell,
    case_of,
    healthy,
    in_scripts,
    proven,
    remedy,
    reproduced,
    sick,
    stack_risk,
)
from llm_doctor.model import Arm, Edit, Finding, Fix, Packages, ProofStatus, TrialCase, TrialResult
from llm_doctor.workload.data import Call, Story
from llm_doctor.workload.models import Quantization, quantization, written

TRIAL = Trial(
    name="int8-without-device-map",
    imports=("torch", "transformers.models.llama.modeling_llama", "accelerate", "bitsandbytes"),
    on_gpu=True,
)


class Int8WithoutDeviceMap(Check):
    """A model loaded in 8 bits without a device_map: refused, or not quantised, or not where it should be.

    ## What it finds

    What `from_pretrained` does on the installed stack when it is told to load in 8 bits and is given no
    `device_map`: through `load_in_8bit=True` where this transformers still takes it, and through
    `quantization_config=BitsAndBytesConfig(load_in_8bit=True)`.

    ## Why it breaks

    bitsandbytes quantises a weight when it is moved to its device, so the loader has to know the device.
    transformers before 4.30 refuses; later ones choose the current GPU by themselves, which in a job of
    several processes is GPU 0 for every rank that has not called `torch.cuda.set_device` before.

    ## How it is proven

    A two-layer Llama is saved in float16 and loaded without and with a `device_map`, then runs once. An arm
    passes only when int8 parameters exist and all weights are on the device. On a CPU an old bitsandbytes
    quantises nothing, with or without a map: then the remedy shows nothing, and the trial is inconclusive.

    ## Fix

    Say where the model goes: `device_map={"": int(os.environ["LOCAL_RANK"])}` in a distributed job,
    `device_map="auto"` for inference over several GPUs.

    ## References

    - https://github.com/huggingface/transformers/pull/23922 (the map became optional, 4.30)
    - https://github.com/huggingface/transformers/pull/41287 (load_in_8bit= removed, 5.0.0)
    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    """

    name = "int8-without-device-map"
    topic = "quantized-loading"
    severity = "note"
    since = "0.1.0"
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/transformers/pull/23922"
    symptoms = (
        Symptom(
            pattern=r"A device map needs to be passed to run convert models into mixed-int8",
            example="ValueError: A device map needs to be passed to run convert models into mixed-int8 "
            "format. Please run`.from_pretrained` with `device_map='auto'`",
            counter_example="ValueError: A device map was passed twice",
            cause="This transformers quantises to int8 only where a device_map says where the model goes",
        ),
    )
    remedies = (
        remedy(
            "say where the model goes: this process's GPU",
            'device_map={{"": int(os.environ.get("LOCAL_RANK", 0))}}',
            "edit",
        ),
        remedy("let it find the device by itself (4.30 and later)", "pip install -U transformers"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Of an unknown stack nothing but the trial can say it; of a script, whether it has none."""
        if case.workload is not None:
            yield from in_scripts(case, TRIAL, lambda story: _judge(story, case), off_default=True)
            return
        message = "loading in 8 bits without a device_map"
        yield stack_risk(case, TRIAL, message, "torch", "transformers", "accelerate", "bitsandbytes")

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """One note for each interface that needs the map here; of a script, what its own interface does."""
        if finding.subject.path is not None:
            wanted = finding.evidence["interface"]
            yield from by_own_case(finding, results, lambda case: case["interface"] == wanted)
            return
        for result, case in reproduced(results):
            raised = case.broken is not None and case.broken.outcome == "raised"
            what = "raises" if raised else str(case.broken.error if case.broken else "")
            yield msgspec.structs.replace(
                proven(finding, result, case),
                message=f"{case.combination['interface']} without device_map: {what}",
                fixes=(
                    Fix(
                        title="map the model to the device of this process",
                        kind="edit",
                        applicability="manual",
                        preview='device_map={"": int(os.environ.get("LOCAL_RANK", 0))}',
                        verified=True,  # the fixed arm of this very case
                    ),
                ),
            )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _judge(story: Story, case: Case) -> Iterator[Tuple[Call, Finding]]:
    """A load in 8 bits whose device_map is known to be absent, on a stack that asks for one."""
    load = story.load
    quantized = quantization(load) if load is not None else None
    if load is None or not isinstance(quantized, Quantization) or quantized.bits != 8:
        return
    given = load.argument("device_map")
    asks = _asks_for_a_map(case)
    if load.open or (given is not None and given.constant is not None) or (case.assumed and not asks):
        return
    interface = "load_in_8bit=True" if quantized.keyword == "load_in_8bit" else "quantization_config"
    place = quantized.value.key or quantized.value.place
    if interface == "quantization_config":
        place = load.place
    said = written(quantized.value, "load_in_8bit")
    yield (
        load,
        Finding(
            severity="error" if asks else "note",  # by the rule; the trial has the last word
            confidence="certain" if asks else "likely",
            message=f"{said} without device_map: transformers {case.version('transformers')} refuses it",
            subject=at(place),
            evidence={"interface": interface},
            fixes=(
                Fix(
                    title="map the model to the device of this process",
                    kind="edit",
                    applicability="safe",
                    preview='device_map={"": int(os.environ.get("LOCAL_RANK", 0))}',
                    edits=(
                        Edit(
                            action="set-keyword",
                            path=load.place.path,
                            line=load.place.line,
                            column=load.place.column,
                            name="device_map",
                            text='{"": int(os.environ.get("LOCAL_RANK", 0))}',
                        ),
                        Edit(action="add-import", path=load.place.path, line=1, text="import os"),
                    ),
                ),
            ),
        ),
    )


def _asks_for_a_map(case: Case) -> bool:
    """transformers finds the device by itself from 4.30.0 on (pull request 23922)."""
    version = case.version("transformers")
    if version is None:
        raise CannotTell("transformers is not installed")
    return version.release < (4, 30)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    versions = {"torch": "1.13.1", "transformers": "4.28.1", "accelerate": "0.18", "bitsandbytes": "0.38"}
    stack = Packages(installed=versions, modules={})
    refused = "ValueError: A device map needs to be passed to run convert models into mixed-int8 format."
    useless = f"it fails as suspected ({refused}), but the remedy does not help here: nothing was quantised"

    def tried(status: ProofStatus, reason: str | None = None) -> TrialResult:
        well = Arm(outcome="passed", measured={"int8_parameters": 14})
        case = TrialCase(
            combination={"interface": "load_in_8bit=True"},
            status=status,
            broken=well if status == "refuted" else Arm(outcome="raised", error=refused),
            fixed=well,
        )
        return TrialResult(
            name=TRIAL.name, device="cuda:0", status=status, seconds=0.4, cases=(case,), reason=reason
        )

    yield healthy("a transformers that finds the device by itself", case_of(stack), tried("refuted"))
    yield sick(
        "one that refuses",
        case_of(stack),
        "note: load_in_8bit=True without device_map: raises",
        trials=(tried("reproduced"),),
    )
    yield cannot_tell(
        "a CPU, where this bitsandbytes quantises nothing",
        case_of(stack),
        f"inconclusive: {useless}",
        tried("inconclusive", useless),
    )
    without = Packages(installed={"torch": "2.0", "transformers": "4.38.0"}, modules={})
    yield cannot_tell("no accelerate", case_of(without), "accelerate is not installed")
