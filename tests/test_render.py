"""Whole reports, as they are printed."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from llm_doctor.check import facts_of
from llm_doctor.model import (
    SCHEMA,
    Accelerator,
    Accelerators,
    Arm,
    CheckResult,
    Doctor,
    Fact,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interpreter,
    Packages,
    Patient,
    Proof,
    Report,
    Subject,
    System,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.render import json as json_format
from llm_doctor.render import markdown, text

ERROR = "RuntimeError: element 0 of tensors does not require grad"


def report(**changes: Any) -> Report:
    case = TrialCase(
        combination={"order": "after-wrapping", "use_reentrant": True, "modules_to_save": False},
        status="reproduced",
        broken=Arm(outcome="raised", error=ERROR, seconds=0.1),
        fixed=Arm(outcome="passed", seconds=0.1, measured={"adapter_tensors": 8}),
    )
    trial = TrialResult(
        name="lora-without-input-grads", device="cuda:0", status="reproduced", seconds=0.2, cases=(case,)
    )
    note = Finding(
        severity="note",
        confidence="proven",
        message="LoRA, checkpointing after-wrapping, reentrant: backward raises",
        subject=Subject(kind="stack"),
        proof=Proof(trial=trial.name, status="reproduced", case=case),
        fixes=(
            Fix(
                title="let the inputs need a gradient",
                kind="edit",
                applicability="safe",
                preview="model.enable_input_require_grads()",
                verified=True,
            ),
        ),
    )
    error = Finding(
        severity="error",
        confidence="certain",
        message="nvcc is CUDA 13.0 (/usr/local/cuda/bin/nvcc) but torch 2.9.0+cu128 was built for CUDA 12.8:"
        " with DeepSpeed 0.19.8 pre-compiling an operator is refused",
        subject=Subject(kind="toolkit", path="/usr/local/cuda"),
        fixes=(
            Fix(
                title="install a torch built for CUDA 13.0",
                kind="command",
                applicability="manual",
                preview="~/env/bin/python -m pip install --force-reinstall 'torch==2.9.0'"
                " --index-url https://download.pytorch.org/whl/cu130",
            ),
        ),
    )
    base = Report(
        schema=SCHEMA,
        doctor=Doctor(version="0.1.0"),
        started="2026-11-21T08:00:00Z",
        seconds=4.06,
        verdict="fail",
        exit_code=1,
        patient=Patient(python="~/env/bin/python", version="3.11.7", chosen_by="VIRTUAL_ENV"),
        facts=facts_of(
            System(os="Ubuntu 24.04 LTS", kernel="6.8", machine="x86_64", container="docker"),
            Gpus(
                driver="580.95.05",
                driver_cuda="13.0",
                gpus=tuple(Gpu(index=i, name="NVIDIA H100", compute_capability=(9, 0)) for i in range(8)),
            ),
            Interpreter(
                executable="~/env/bin/python",
                version="3.11.7",
                implementation="CPython",
                prefix="~/env",
                chosen_by="VIRTUAL_ENV",
            ),
            Packages(installed={"torch": "2.9.0", "peft": "0.9.0", "deepspeed": "0.19.8"}, modules={}),
            TorchBuild(version="2.9.0+cu128", cuda="12.8", kind="cuda"),
        ),
        answers={},
        checks=(
            CheckResult(
                name="cuda-toolkit-mismatch",
                topic="cuda-toolkit",
                outcome="findings",
                seconds=0.1,
                findings=(error,),
            ),
            CheckResult(
                name="half-float-mismatch",
                topic="dtype-mismatch",
                outcome="skipped",
                seconds=0.0,
                reason="peft is not installed",
            ),
            CheckResult(
                name="lora-without-input-grads",
                topic="input-grads",
                outcome="pass",
                seconds=0.3,
                trials=(trial,),
                findings=(note,),
            ),
        ),
    )
    return msgspec.structs.replace(base, **changes)


def test_the_text_at_80_columns() -> None:
    assert text.render(report(), width=80, color=False) == (
        """\
8 x NVIDIA H100, torch 2.9.0+cu128, peft 0.9.0, deepspeed 0.19.8
FAIL: 1 error, 0 warnings, 1 note; 1 passed, 1 skipped; 4.1 s
Patient: ~/env/bin/python (by VIRTUAL_ENV)
Also: Python 3.11.7, Ubuntu 24.04 LTS in docker

error cuda-toolkit-mismatch
  nvcc is CUDA 13.0 (/usr/local/cuda/bin/nvcc) but torch 2.9.0+cu128 was built
  for CUDA 12.8: with DeepSpeed 0.19.8 pre-compiling an operator is refused
  where: /usr/local/cuda
  proof: read from the machine, not tried
  fix:   install a torch built for CUDA 13.0 (not tried here, manual)
           ~/env/bin/python -m pip install --force-reinstall 'torch==2.9.0' --index-url https://download.pytorch.org/whl/cu130

note lora-without-input-grads
  LoRA, checkpointing after-wrapping, reentrant: backward raises
  fix:   let the inputs need a gradient (seen to work here)
           model.enable_input_require_grads()

found cuda-toolkit-mismatch
skip  half-float-mismatch
  peft is not installed
note  lora-without-input-grads
  reproduced on cuda:0, 0.2 s

llm-doctor explain cuda-toolkit-mismatch says why; --verbose shows every proof,
fact and fix.
"""
    )


def test_quiet_keeps_what_is_wrong_and_nothing_else() -> None:
    shown = text.render(report(), width=80, color=False, quiet=True)
    assert "error cuda-toolkit-mismatch" in shown and "note" not in shown.split("FAIL")[1].split("\n", 1)[1]
    healthy = report(verdict="pass", exit_code=0, checks=report().checks[1:])
    assert text.render(healthy, width=80, color=False, quiet=True) == (
        "PASS: 0 errors, 0 warnings, 1 note; 1 passed, 1 skipped; 4.1 s (8 x NVIDIA H100; ~/env/bin/python)\n"
    )


def test_verbose_shows_facts_with_their_sources_and_trials_case_by_case() -> None:
    shown = text.render(report(), width=100, color=False, verbose=True)
    assert "order=after-wrapping, use_reentrant=yes, modules_to_save=no: reproduced" in shown
    said = f"proof: the trial lora-without-input-grads fails here, and passes with the fix: {ERROR}"
    assert said in " ".join(shown.split())
    assert "compilers  (example, 0.00 s)\n  unavailable: not in this example" in shown
    assert "driver: 580.95.05" in shown


def test_another_vendors_gpu_is_named_and_never_called_no_gpu() -> None:
    no_driver = Fact[Gpus](
        status="unavailable", source="NVML", seconds=0, reason="no NVIDIA driver is installed"
    )
    amd = Accelerator(vendor="AMD", name="GPU", seen_at="/sys/bus/pci/devices/0000:03:00.0")
    seen = Fact[Accelerators](
        status="ok", source="/sys", seconds=0, value=Accelerators(accelerators=(amd,) * 8)
    )
    facts = msgspec.structs.replace(report().facts, gpus=no_driver, accelerators=seen)
    for shown in (
        text.render(report(facts=facts), width=80, color=False),
        markdown.render(report(facts=facts)),
    ):
        assert "8 x AMD GPU (not examined yet)" in shown
        assert "does not examine these yet" in " ".join(shown.split())
        assert "no NVIDIA GPU" not in shown and "No GPU" not in shown


def test_a_card_without_a_driver_is_named_beside_another_vendors() -> None:
    no_driver = Fact[Gpus](status="unavailable", source="NVML", seconds=0, reason="no NVIDIA driver")
    seen = Accelerators(
        accelerators=(
            Accelerator(vendor="Intel", name="GPU", seen_at="/sys/a"),
            Accelerator(vendor="NVIDIA", name="GPU", seen_at="/sys/b"),
        )
    )
    bus = Fact[Accelerators](status="ok", source="/sys", seconds=0, value=seen)
    facts = msgspec.structs.replace(report().facts, gpus=no_driver, accelerators=bus)
    shown = " ".join(text.render(report(facts=facts), width=80, color=False).split())
    assert shown.startswith("NVIDIA GPU without a working driver, Intel GPU (not examined yet)")
    assert "An NVIDIA GPU is on this machine (/sys/b), but no NVIDIA driver." in shown
    assert "no NVIDIA GPU" not in shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_first_line_is_the_machine_and_the_second_the_verdict(width: int) -> None:
    many = dict.fromkeys(("transformers", "peft", "deepspeed", "bitsandbytes", "accelerate"), "10.20.30")
    packages = Fact[Packages](status="ok", source="x", seconds=0, value=Packages(installed=many, modules={}))
    facts = msgspec.structs.replace(report().facts, packages=packages)
    lines = text.render(report(facts=facts), width=width, color=False).splitlines()
    assert lines[0].startswith("8 x NVIDIA H100, torch") and lines[1].startswith("FAIL: 1 error")
    assert all(f"{name} 10.20.30" in " ".join(lines) for name in many)


def test_a_patient_that_could_not_be_examined_is_said_first() -> None:
    lost = Fact[Interpreter](
        status="unavailable", source="x", seconds=0, reason="~/env/bin/python does not exist"
    )
    sick = report(
        facts=msgspec.structs.replace(report().facts, python=lost),
        patient=Patient(python="~/env/bin/python", version=None, chosen_by="--python"),
        verdict="incomplete",
        exit_code=3,
    )
    said = "The patient could not be examined: ~/env/bin/python does not exist."
    assert said in text.render(sick, width=80, color=False)
    assert markdown_text(markdown.render(sick)).count("The patient could not be examined") == 1


def test_the_json_is_the_report() -> None:
    assert msgspec.json.decode(json_format.render(report()), type=Report) == report()


# --- Markdown inside a GitHub issue -----------------------------------------------------------------------


def markdown_text(source: str) -> str:
    return MarkdownIt("commonmark").enable("table").render(source)


HOSTILE = st.text(alphabet="ab|`*_<>[]()#@!\\\n~ &\"'-")


@settings(max_examples=60)
@given(HOSTILE)
def test_no_value_breaks_the_tickets_structure(value: str) -> None:
    checks = report().checks
    finding = msgspec.structs.replace(checks[0].findings[0], message=value or "x")
    hostile = report(
        checks=(
            msgspec.structs.replace(checks[0], findings=(finding,)),
            msgspec.structs.replace(checks[1], reason=value or "x"),
            checks[2],
        )
    )
    html = markdown_text(markdown.render(hostile))
    plain = markdown_text(markdown.render(report()))
    for tag in ("<h3", "<h4", "<table", "<tr", "<td", "<summary", "<pre", "<img", "<a ", "<script"):
        assert html.count(tag) == plain.count(tag), tag


def test_the_ticket_renders_with_its_parts() -> None:
    html = markdown_text(markdown.render(report()))
    assert "<h3>llm-doctor 0.1.0: FAIL</h3>" in html
    assert "<td>half-float-mismatch</td>\n<td>skipped</td>\n<td>peft is not installed</td>" in html
    assert "model.enable_input_require_grads()" in html


def test_a_pipe_in_a_value_loses_nothing_of_its_cell() -> None:
    skipped = msgspec.structs.replace(report().checks[1], reason="a|b|c <d> *e*")
    html = markdown_text(markdown.render(report(checks=(skipped,))))
    assert "<td>a|b|c &lt;d&gt; *e*</td>" in html


def test_a_mention_is_no_mention() -> None:
    finding = msgspec.structs.replace(report().checks[0].findings[0], message="ask @torvalds about #1")
    checks = (msgspec.structs.replace(report().checks[0], findings=(finding,)),)
    shown = markdown.render(report(checks=checks))
    assert "@torvalds" not in shown and "#1" not in shown.replace("#### ", "")


@pytest.mark.parametrize("color", [True, False])
def test_a_value_is_never_markup(color: bool) -> None:
    finding = msgspec.structs.replace(report().checks[0].findings[0], message="[red]not red[/red] :smile:")
    checks = (msgspec.structs.replace(report().checks[0], findings=(finding,)),)
    shown = text.render(report(checks=checks), width=80, color=color)
    console = Console(file=io.StringIO(), width=200)
    assert "[red]not red[/red] :smile:" in console.render_str(shown, markup=False, emoji=False).plain
