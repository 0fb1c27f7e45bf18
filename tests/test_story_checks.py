"""Checks of the ways of a model through a script: what they say of real scripts under real launch lines."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Mapping

import pytest

from llm_doctor import registry
from llm_doctor.check import Case, Check, facts_of
from llm_doctor.checks.device_map_under_launcher import DeviceMapUnderLauncher
from llm_doctor.checks.max_steps_overrides_epochs import MaxStepsOverridesEpochs
from llm_doctor.checks.naive_model_parallel import NaiveModelParallel
from llm_doctor.checks.notebook_multi_gpu import NotebookMultiGpu
from llm_doctor.checks.quantization_declared_twice import QuantizationDeclaredTwice
from llm_doctor.checks.quantized_without_adapter import QuantizedWithoutAdapter
from llm_doctor.examination import Request, check_case, examine
from llm_doctor.host import real_host
from llm_doctor.model import CheckResult, Gpu, Gpus, Packages
from llm_doctor.reading import Reading
from llm_doctor.workload.data import Workload
from llm_doctor.workload.launch import command_line, launch_of
from llm_doctor.workload.notebook import read_notebook
from llm_doctor.workload.python import Read, read_python

ALL = (
    DeviceMapUnderLauncher,
    MaxStepsOverridesEpochs,
    NaiveModelParallel,
    NotebookMultiGpu,
    QuantizationDeclaredTwice,
    QuantizedWithoutAdapter,
)
OLD: Mapping[str, str] = {"transformers": "4.29.2", "peft": "0.3.0", "accelerate": "0.20.3"}
MIDDLE: Mapping[str, str] = {"transformers": "4.44.2", "peft": "0.11.1", "accelerate": "0.33.0"}
NEW: Mapping[str, str] = {"transformers": "5.23.0", "peft": "0.21.2", "accelerate": "1.15.0"}
FOUR = "torchrun --nproc_per_node 4 train.py"
IMPORTS = """\
import argparse, os, torch
from accelerate import Accelerator
from peft import AutoPeftModelForCausalLM, LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments
from trl import SFTTrainer
"""
BODY = IMPORTS.count("\n") + 1


def workload(script: str, launch: str = "") -> Workload:
    words = launch.split()
    started = launch_of(command_line(words), host=real_host()) if words else None
    text = IMPORTS + textwrap.dedent(script).lstrip("\n")
    return _workload(read_python("train.py", text, started, lambda *_: None))


def notebook(*cells: str) -> Workload:
    book = {
        "cells": [
            {"cell_type": "code", "source": (IMPORTS + textwrap.dedent(cell)).splitlines(keepends=True)}
            for cell in cells
        ]
    }
    return _workload(read_notebook("train.ipynb", json.dumps(book, indent=1), lambda *_: None))


def _workload(read: Read) -> Workload:
    assert read.script is not None and not read.problems
    return Workload(files=(read.script.path,), scripts=(read.script,), trainings=read.trainings)


def examined(
    check: type[Check], it: Workload | None, versions: Mapping[str, str] = NEW, gpus: int = 4
) -> CheckResult:
    seen = Gpus(driver="535.183.01", gpus=tuple(Gpu(index=number) for number in range(gpus)))
    case = Case(
        facts=facts_of(Packages(installed=dict(versions), modules={}), seen), workload=it, assumed=True
    )
    result = check_case(check, case, ())
    assert result.outcome != "crashed", result.reason
    return result


def says(check: type[Check], it: Workload, versions: Mapping[str, str] = NEW, gpus: int = 4) -> list[str]:
    """Each finding as `line of the script below its imports: severity: message`."""
    found = examined(check, it, versions, gpus).findings
    return [f"{(f.subject.line or 0) - BODY + 1}: {f.severity}: {f.message}" for f in found]


@pytest.mark.parametrize("check", ALL)
def test_each_says_why_it_has_nothing_to_go_by(check: type[Check]) -> None:
    without = examined(check, None)
    assert (without.outcome, without.reason) == ("skipped", "no workload was given")
    empty = examined(check, Workload())
    assert empty.outcome == "skipped" and str(empty.reason).startswith("no ")


@pytest.mark.parametrize("check", [QuantizationDeclaredTwice, QuantizedWithoutAdapter])
def test_a_patient_without_transformers_is_not_judged(check: type[Check]) -> None:
    result = examined(check, workload("AutoModelForCausalLM.from_pretrained('x', load_in_8bit=True)"), {})
    assert (result.outcome, result.reason) == ("skipped", "transformers is not installed")


# --- quantization-declared-twice ------------------------------------------------------------------------

TWICE = """
model = AutoModelForCausalLM.from_pretrained(
    "x",
    load_in_4bit=True,
    quantization_config=BitsAndBytesConfig({config}),
)
"""


@pytest.mark.parametrize(
    ("versions", "config", "severity"),
    [
        (OLD, "load_in_4bit=True", None),
        (OLD, "load_in_8bit=True", "note"),
        (MIDDLE, "load_in_4bit=True", "error"),
        (MIDDLE, "load_in_8bit=True", "error"),
        (NEW, "load_in_4bit=True", "note"),
    ],
)
def test_what_two_declarations_are_worth_is_the_release_s(
    versions: Mapping[str, str], config: str, severity: str | None
) -> None:
    found = examined(QuantizationDeclaredTwice, workload(TWICE.format(config=config)), versions).findings
    assert [(it.severity, it.subject.line) for it in found] == ([(severity, BODY + 2)] if severity else [])


def test_the_keyword_is_removed_where_the_configuration_says_the_same() -> None:
    (same,) = examined(
        QuantizationDeclaredTwice, workload(TWICE.format(config="load_in_4bit=True")), MIDDLE
    ).findings
    (edit,) = same.fixes[0].edits
    assert (edit.action, edit.name, edit.line, edit.column) == ("remove-keyword", "load_in_4bit", BODY + 2, 5)
    assert same.fixes[0].applicability == "safe"
    (other,) = examined(
        QuantizationDeclaredTwice, workload(TWICE.format(config="load_in_8bit=True")), MIDDLE
    ).findings
    assert other.fixes[0].applicability == "unsafe"


@pytest.mark.parametrize(
    "script",
    [
        "AutoModelForCausalLM.from_pretrained('x', load_in_4bit=True, quantization_config=None)",
        "AutoModelForCausalLM.from_pretrained('x', load_in_4bit=False, "
        "quantization_config=BitsAndBytesConfig())",
        "AutoModelForCausalLM.from_pretrained('x', load_in_4bit=True, quantization_config=chosen())",
        "AutoModelForCausalLM.from_pretrained('x', load_in_4bit=four(), "
        "quantization_config=BitsAndBytesConfig())",
    ],
)
def test_what_is_off_or_not_known_is_not_declared_twice(script: str) -> None:
    assert says(QuantizationDeclaredTwice, workload(script), MIDDLE) == []


# --- quantized-without-adapter --------------------------------------------------------------------------

LOAD = 'model = AutoModelForCausalLM.from_pretrained("x", load_in_8bit=True, device_map="auto")\n'
TRAIN = 'trainer = Trainer(model=model, args=TrainingArguments("out"))\n'


def test_a_purely_quantised_model_in_a_trainer() -> None:
    way = "load_in_8bit=True, and no adapter on the way into Trainer on line 7: "
    straight = workload(LOAD + TRAIN)
    assert says(QuantizedWithoutAdapter, straight) == [
        f"1: error: {way}Trainer of transformers 5.23.0 refuses a purely 8-bit model"
    ]
    assert says(QuantizedWithoutAdapter, straight, OLD) == [
        f"1: warning: {way}its quantised weights have no gradient: only what was left in float can be trained"
    ]


def test_it_stands_at_the_configuration_in_the_load() -> None:
    script = """
    config = BitsAndBytesConfig(
        load_in_4bit=True,
    )
    model = AutoModelForCausalLM.from_pretrained(
        "x",
        quantization_config=config,
    )
    model = prepare_model_for_kbit_training(model)
    SFTTrainer(model=model)
    """
    assert says(QuantizedWithoutAdapter, workload(script)) == [
        "6: error: load_in_4bit=True on line 7, and no adapter on the way into SFTTrainer on line 14: "
        "Trainer of transformers 5.23.0 refuses a purely 4-bit model"
    ]
    assert says(QuantizedWithoutAdapter, workload(script), OLD) == [], "4.29 knows no 4 bits"


@pytest.mark.parametrize(
    "script",
    [
        LOAD + "model = get_peft_model(model, LoraConfig())\n" + TRAIN,
        LOAD + "model.add_adapter(LoraConfig())\n" + TRAIN,
        LOAD + "if chosen():\n    model = get_peft_model(model, LoraConfig())\n" + TRAIN,
        LOAD + "SFTTrainer(model=model, peft_config=LoraConfig())",
        LOAD + "SFTTrainer(model=model, **rest())",
        LOAD + "model = adapted(model)\n" + TRAIN,
        LOAD + "model = Accelerator().prepare(model)",
        LOAD + "trainer = their.Trainer(model=model)",
        'model = AutoPeftModelForCausalLM.from_pretrained("x", load_in_8bit=True)\n' + TRAIN,
        'model = AutoModelForCausalLM.from_pretrained("x", load_in_8bit=eight())\n' + TRAIN,
        'model = AutoModelForCausalLM.from_pretrained("x", **rest())\n' + TRAIN,
        'model = AutoModelForCausalLM.from_pretrained("x", load_in_8bit=False)\n' + TRAIN,
    ],
)
def test_adapters_and_what_is_not_known_are_left_alone(script: str) -> None:
    assert says(QuantizedWithoutAdapter, workload(script)) == []


# --- device-map-under-launcher --------------------------------------------------------------------------


def mapped(device_map: str, more: str = "") -> str:
    return f'model = AutoModelForCausalLM.from_pretrained("x", device_map={device_map}{more})\n' + TRAIN


def test_one_map_for_four_processes() -> None:
    under = "under 4 processes (command line:1)"
    assert says(DeviceMapUnderLauncher, workload(mapped('"auto"'), FOUR)) == [
        f"1: error: device_map=auto {under}: each splits the model over all GPUs, "
        "which accelerate 1.15.0 refuses to train"
    ]
    assert says(DeviceMapUnderLauncher, workload(mapped('"auto"'), FOUR), OLD) == [
        f"1: error: device_map=auto {under}: each splits the model over all GPUs, "
        "and data-parallel training refuses such a model"
    ]
    assert says(DeviceMapUnderLauncher, workload(mapped('{"": 0}'), FOUR)) == [
        f"1: warning: device_map={{'': 0}} {under}: all of them load their model on GPU 0"
    ]
    quantised = workload(mapped('{"": "cuda:0"}', ", load_in_8bit=True"), FOUR)
    assert says(DeviceMapUnderLauncher, quantised) == [
        f"1: error: device_map={{'': 'cuda:0'}} {under}: all of them load their model on GPU 0, "
        "and a quantised model cannot be moved to the GPU of its rank"
    ]
    inference = workload('AutoModelForCausalLM.from_pretrained("x", device_map="auto")', FOUR)
    assert says(DeviceMapUnderLauncher, inference) == [
        f"1: note: device_map=auto {under}: every process splits a model of its own over all GPUs"
    ]


@pytest.mark.parametrize(
    "launch",
    [
        "",
        "python train.py",
        "torchrun --nproc_per_node 1 train.py",
        "torchrun --nproc_per_node $GPUS train.py",
        "srun --ntasks 4 python train.py",
        "ACCELERATE_BYPASS_DEVICE_MAP=true torchrun --nproc_per_node 4 train.py",
    ],
)
def test_a_launch_of_one_process_or_of_nobody_knows_how_many(launch: str) -> None:
    assert says(DeviceMapUnderLauncher, workload(mapped('"auto"', ", load_in_8bit=True"), launch)) == []


@pytest.mark.parametrize(
    "script",
    [
        mapped('{"": int(os.environ.get("LOCAL_RANK", 0))}'),
        mapped('{"": int(os.environ.get("LOCAL_RANK") or 0)}'),
        mapped('{"": Accelerator().local_process_index}'),
        mapped('{"": torch.cuda.current_device()}'),
        mapped('"cpu"'),
        mapped("chosen()"),
        mapped("None"),
        # tloen/alpaca-lora
        """
        device_map = "auto"
        world_size = int(os.environ.get("WORLD_SIZE", 1))
        ddp = world_size != 1
        if ddp:
            device_map = {"": int(os.environ.get("LOCAL_RANK") or 0)}
        model = AutoModelForCausalLM.from_pretrained("x", load_in_8bit=True, device_map=device_map)
        trainer = Trainer(model=model)
        """,
        # an option that launchers pass
        """
        parser = argparse.ArgumentParser()
        parser.add_argument("--local_rank", type=int, default=0)
        args = parser.parse_args()
        model = AutoModelForCausalLM.from_pretrained("x", load_in_8bit=True, device_map={"": args.local_rank})
        trainer = Trainer(model=model)
        """,
    ],
)
def test_maps_that_fit_every_rank(script: str) -> None:
    assert says(DeviceMapUnderLauncher, workload(script, FOUR)) == []


UNMAPPED = 'model = AutoModelForCausalLM.from_pretrained("x", load_in_4bit=True)\n'


def test_a_quantised_load_before_the_device_is_chosen() -> None:
    late = workload(UNMAPPED + TRAIN, FOUR)
    assert says(DeviceMapUnderLauncher, late) == [
        "1: warning: load_in_4bit=True without device_map under 4 processes (command line:1), before "
        "anything "
        "chose the device of the rank: all of them load their model on GPU 0, and a quantised model "
        "cannot be "
        "moved to the GPU of its rank"
    ]
    (finding,) = examined(DeviceMapUnderLauncher, late).findings
    assert [(it.action, it.name, it.text) for it in finding.fixes[0].edits] == [
        ("set-keyword", "device_map", '{"": int(os.environ.get("LOCAL_RANK", 0))}'),
        ("add-import", "", "import os"),
    ]
    assert says(DeviceMapUnderLauncher, late, OLD) == [], "4.29 asks for a map by itself"


@pytest.mark.parametrize(
    ("before", "launch"),
    [
        ("torch.cuda.set_device(rank())\n", FOUR),
        ('args = TrainingArguments("out")\n', FOUR),
        ("accelerator = Accelerator()\n", FOUR),
        ("", "deepspeed --num_gpus 4 train.py"),
        ("", "accelerate launch --num_processes 4 --use_fsdp train.py"),
        ("", FOUR + " --fsdp full_shard"),
    ],
)
def test_a_quantised_load_whose_device_is_chosen_otherwise(before: str, launch: str) -> None:
    assert says(DeviceMapUnderLauncher, workload(before + UNMAPPED + TRAIN, launch)) == []


# --- naive-model-parallel -------------------------------------------------------------------------------


def test_one_process_and_several_gpus() -> None:
    said = (
        "1: note: device_map=auto splits the model over 4 GPUs for one process: they compute one after the "
    )
    for launch in ("", "python train.py"):
        assert says(NaiveModelParallel, workload(mapped('"auto"'), launch)) == [said + "other, not together"]
    assert says(NaiveModelParallel, workload(mapped('"auto"')), gpus=1) == []


@pytest.mark.parametrize(
    ("script", "launch"),
    [
        (mapped('"auto"'), FOUR),
        (mapped('"auto"'), "CUDA_VISIBLE_DEVICES=1 python train.py"),
        (mapped('"auto"', ", max_memory={0: '20GiB'}"), "python train.py"),
        (mapped('"sequential"'), "python train.py"),
        (mapped('{"": 0}'), "python train.py"),
        ('model = AutoModelForCausalLM.from_pretrained("x", device_map="auto")', "python train.py"),
    ],
)
def test_what_is_not_split_or_not_trained_alone(script: str, launch: str) -> None:
    assert says(NaiveModelParallel, workload(script, launch)) == []


# --- max-steps-overrides-epochs -------------------------------------------------------------------------


def test_steps_and_epochs() -> None:
    both = workload('args = TrainingArguments(\n    "out",\n    max_steps=100,\n    num_train_epochs=3,\n)')
    assert says(MaxStepsOverridesEpochs, both) == [
        "3: note: max_steps=100: it overrides num_train_epochs=3 on line 9 of train.py"
    ]
    option = """
    parser = argparse.ArgumentParser()
    parser.add_argument("--max_steps", type=int, default=-1)
    args = parser.parse_args()
    TrainingArguments("out", max_steps=args.max_steps, num_train_epochs=3)
    """
    assert says(MaxStepsOverridesEpochs, workload(option)) == []
    assert says(MaxStepsOverridesEpochs, workload(option, "python train.py --max_steps 50")) == [
        "4: note: max_steps=50, from --max_steps on line 1 of command line: it overrides "
        "num_train_epochs=3 on "
        "line 9 of train.py"
    ]


@pytest.mark.parametrize(
    "given", ["max_steps=-1, num_train_epochs=3", "max_steps=100", "max_steps=steps(), num_train_epochs=3"]
)
def test_one_of_them_alone_counts(given: str) -> None:
    assert says(MaxStepsOverridesEpochs, workload(f'TrainingArguments("out", {given})')) == []


# --- notebook-multi-gpu ---------------------------------------------------------------------------------


def in_notebook(*cells: str, gpus: int = 4) -> list[str]:
    return [
        f"{it.severity}: {it.message}"
        for it in examined(NotebookMultiGpu, notebook(*cells), gpus=gpus).findings
    ]


def test_a_trainer_in_a_notebook() -> None:
    cells = ('model = AutoModelForCausalLM.from_pretrained("x")', TRAIN)
    assert in_notebook(*cells) == [
        "note: Trainer in a notebook uses all GPUs that it sees (4 here) through torch.nn.DataParallel: "
        "slower "
        "than one process for each, and a batch is 4 times per_device_train_batch_size"
    ]
    assert in_notebook(*cells, gpus=1) == []
    assert in_notebook(LOAD, TRAIN) == [], "a quantised model is not replicated"


def test_deepspeed_in_a_notebook() -> None:
    cells = (
        'model = AutoModelForCausalLM.from_pretrained("x")',
        'trainer = Trainer(model=model, args=TrainingArguments("out", deepspeed="ds.json"))',
    )
    (said,) = in_notebook(*cells)
    assert said.startswith(
        "note: DeepSpeed in a notebook uses one of the 4 GPUs, and asks for mpi4py unless RANK"
    )
    with_mpi = examined(NotebookMultiGpu, notebook(*cells), {**NEW, "mpi4py": "4.0.0"})
    assert with_mpi.findings == ()


def test_what_stands_above_notebook_launcher() -> None:
    launch = "from accelerate import notebook_launcher\nnotebook_launcher(training, (), num_processes=2)"
    inside = "def training():\n    accelerator = Accelerator()\n"
    assert in_notebook(inside, launch) == []
    (said,) = in_notebook("accelerator = Accelerator()", inside, launch)
    assert said.startswith("warning: notebook_launcher for 2 processes, and line ")
    assert said.endswith(" makes an Accelerator before: it belongs into the function that is launched")
    assert in_notebook("accelerator = Accelerator()", launch.replace("=2", "=1")) == []


# --- The installed stack, for real ----------------------------------------------------------------------


@pytest.mark.usefixtures("stack_site")
def test_the_installed_trainer_refuses_a_purely_quantised_model() -> None:
    checks = [entry for entry in registry.registered() if entry.name == QuantizedWithoutAdapter.name]
    request = Request(checks=checks, workload=workload(LOAD + TRAIN))
    report = examine(request, Reading(real_host(), sys.executable), lambda _: None)
    (finding,) = report.checks[0].findings
    assert (finding.severity, finding.confidence) == ("error", "proven")
    assert finding.proof is not None and finding.proof.case is not None
    broken, fixed = finding.proof.case.broken, finding.proof.case.fixed
    assert broken is not None and "purely quantized models" in str(broken.error)
    assert fixed is not None and fixed.measured["trainable_in_linear_layers"] == 8
