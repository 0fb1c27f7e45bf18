"""Whole reports, as they are printed."""

from __future__ import annotations

import io
import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import cmarkgfm
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llm_doctor.check import facts_of
from llm_doctor.model import (
    SCHEMA,
    Accelerator,
    Accelerators,
    Answer,
    Arm,
    CheckResult,
    Doctor,
    Environment,
    Fact,
    Finding,
    Fix,
    Gpu,
    Gpus,
    HfCaches,
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
FAIL: 1 error, 0 warnings, 1 note; 1 passed, 1 skipped; 4.1 s
8 x NVIDIA H100, torch 2.9.0+cu128, peft 0.9.0, deepspeed 0.19.8
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
skip  half-float-mismatch       peft is not installed
note  lora-without-input-grads  reproduced on cuda:0, 0.2 s

llm-doctor explain cuda-toolkit-mismatch says why; --verbose shows every proof,
fact and fix.
"""
    )


def test_why_a_check_came_out_so_stands_behind_its_name_where_there_is_room() -> None:
    reason = "no full fine-tune of a model whose size is known"
    checks = [CheckResult(name="one", topic="x", outcome="skipped", seconds=0, reason=reason)]
    checks += [
        CheckResult(name=f"other-{n}", topic="x", outcome="skipped", seconds=0, reason="y") for n in (1, 2)
    ]

    def last(width: int) -> list[str]:
        lines = text.render(report(checks=tuple(checks)), width=width, color=False).splitlines()
        return lines[lines.index("") + 1 :]

    assert last(60) == [
        "skip  one       no full fine-tune of a model whose size is",
        "                known",
        "skip  2 checks  other-1, other-2: y",
    ]
    assert last(40) == [
        "skip  one",
        "  no full fine-tune of a model whose",
        "    size is known",
        "skip  2 checks",
        "  other-1, other-2: y",
    ]


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
    assert " NVIDIA GPU without a working driver, Intel GPU (not examined yet)" in shown
    assert "An NVIDIA GPU is on this machine (/sys/b), but no NVIDIA driver." in shown
    assert "no NVIDIA GPU" not in shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_verdict_comes_first_and_then_the_machine(width: int) -> None:
    many = dict.fromkeys(("transformers", "peft", "deepspeed", "bitsandbytes", "accelerate"), "10.20.30")
    packages = Fact[Packages](status="ok", source="x", seconds=0, value=Packages(installed=many, modules={}))
    facts = msgspec.structs.replace(report().facts, packages=packages)
    lines = text.render(report(facts=facts), width=width, color=False).splitlines()
    assert lines[0].startswith("FAIL: 1 error")
    assert any(line.startswith("8 x NVIDIA H100, torch") for line in lines[1:3])
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
    assert markdown.render(sick).count("The patient could not be examined") == 1


def test_the_json_is_the_report() -> None:
    assert msgspec.json.decode(json_format.render(report()), type=Report) == report()


# --- Markdown inside a GitHub issue -----------------------------------------------------------------------


class _Seen(HTMLParser):
    """What a reader of an issue sees: its elements, and its text apart from code."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.open: list[str] = []
        self.prose = ""
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags[tag] += 1
        if tag not in ("br", "hr", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data
        self.prose += "\x00" if {"code", "pre"} & set(self.open) else data


def seen(source: str) -> _Seen:
    """An issue with this text, by the parser and the extensions that GitHub uses, with HTML let through."""
    options = cmarkgfm.cmark.Options.CMARK_OPT_UNSAFE
    page = _Seen()
    page.feed(cmarkgfm.github_flavored_markdown_to_html(source, options))
    page.close()
    assert page.open == []
    return page


# What GitHub makes of the text of an issue after it is Markdown no more.
ALIVE = re.compile(
    r"@\w|#\d|\bGH-\d|\b(?=[0-9a-f]*\d)[0-9a-f]{7,40}\b|:\w+:|\$|https?://|\bwww\.|<|\u202e|\x1b",
    re.IGNORECASE,
)
PIECES = [
    *r"""@torvalds #1 org/repo#12 GH-7 c7cf1bad https://a.b/c www.a.b x@y.zz mailto:x@y.zz /home/x `
    `` ``` ~~~ ~~x~~ | a|b \| \ * **x** _x_ __x__ [x](y) ![x](y) [x]: <b> <script>alert(1)</script> </details>
    <!-- --> <br> &lt; &#64; :smile: $x$ $$ # 1. 2) - + > --- === é 漢 word a""".split(),
    *("- [ ] x", "| - |", "    x", "\n", "\r", "\n\n", "\r\n", "\t", "\x1b[31m", "\u202e", "\u2028", "\x00"),
]
HOSTILE = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=6).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    st.text(alphabet="ab|`*_<>[]()#@!\\\n\r~ &\"'-$:/.0\t", max_size=30),
).filter(str.strip)


def everywhere(value: str) -> Report:
    """A report that holds this value wherever a machine, a file or a library could have put it."""
    base = report()
    first, second, third = base.checks
    (error,), (note,) = first.findings, third.findings
    replace = msgspec.structs.replace
    (trial,) = third.trials
    broken = Arm(outcome="raised", error=f"{value}\n{value}")
    case = replace(trial.cases[0], broken=broken, combination={value: value})
    fixes = tuple(replace(fix, title=value, preview=f"{value}\n{value}") for fix in error.fixes)
    proof = Proof(trial=value, status="reproduced", case=case)
    subject = Subject(kind="file", path=value, line=3)
    error = replace(error, message=value, subject=subject, fixes=fixes, proof=proof)
    note = replace(note, message=value, subject=subject, fixes=fixes)
    known = {
        "system": System(os=value, kernel=value, machine=value, container=value),
        "gpus": Gpus(driver=value, driver_cuda=value, gpus=(Gpu(index=0, name=value),)),
        "packages": Packages(installed={"torch": value, "numpy": value}, modules={value: value}),
        "environment": Environment(variables={"HF_X": value}),
    }
    read = {name: Fact(status="ok", source=value, seconds=0, value=it) for name, it in known.items()}
    lost = Fact[HfCaches](status="unavailable", source=value, seconds=0, reason=value)
    facts = replace(base.facts, **read, hf_caches=lost)
    job = {"path": value, "line": 1, "launcher": value, "program": value, "processes_per_node": 2}
    return report(
        doctor=Doctor(version=value),
        started=value,
        patient=Patient(python=value, version=value, chosen_by=value),
        facts=facts,
        answers={"ds-report": Answer(status="ok", source="x", seconds=0, value={"text": value})},
        checks=(
            replace(first, name=value, findings=(error,)),
            replace(second, reason=value),
            replace(third, findings=(note,), trials=(replace(trial, device=value, cases=(case,)),)),
        ),
        workload={
            "files": [value],
            "launches": [{**job, "nodes": None}],
            "problems": [{"path": value, "line": 1, "column": None, "message": value}],
        },
        assumed=(value,),
    )


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
def test_no_value_comes_alive_in_an_issue(value: str) -> None:
    page, harmless = seen(markdown.render(everywhere(value))), seen(markdown.render(everywhere("word")))
    for tag in {*page.tags, *harmless.tags} - {"code", "pre"}:
        assert page.tags[tag] == harmless.tags[tag], tag
    assert ALIVE.search(page.prose) is None


@settings(max_examples=150, deadline=None)
@given(HOSTILE)
def test_no_word_of_a_message_is_lost_in_an_issue(value: str) -> None:
    skipped = msgspec.structs.replace(report().checks[1], reason=f"begin {value} end")
    finding = msgspec.structs.replace(report().checks[0].findings[0], message=f"begin {value} end")
    checks = (skipped, msgspec.structs.replace(report().checks[0], findings=(finding,)))
    text_ = " ".join(seen(markdown.render(report(checks=checks))).text.split())
    words = [word if word.isprintable() else ascii(word)[1:-1] for word in f"begin {value} end".split()]
    assert value.isprintable() is False or text_.count(" ".join(words)) == 2


TICKET = """\
### llm-doctor 0.1.0: FAIL

1 error, 0 warnings, 1 note; 1 passed, 1 skipped; 4.1 s

#### System

- OS: Ubuntu 24.04 LTS in docker, kernel 6.8, `x86_64`
- Python: 3.11.7, `~/env/bin/python` (by `VIRTUAL_ENV`)
- PyTorch: 2.9.0+cu128, built for CUDA 12.8
- Packages: peft 0.9.0, deepspeed 0.19.8
- GPUs: 8 x NVIDIA H100 (compute capability 9.0)
- Driver: 580.95.05, for CUDA 13.0 at most
- Examined: `2026-11-21T08:00:00Z`

#### error: cuda-toolkit-mismatch

nvcc is CUDA 13.0 (`/usr/local/cuda/bin/nvcc`) but torch 2.9.0+cu128 was built for CUDA 12.8: with DeepSpeed 0.19.8 pre-compiling an operator is refused

- where: `/usr/local/cuda`
- proof: read from the machine, not tried
- fix (manual, not tried here): install a torch built for CUDA 13.0

  ```sh
  ~/env/bin/python -m pip install --force-reinstall 'torch==2.9.0' --index-url https://download.pytorch.org/whl/cu130
  ```

#### note: lora-without-input-grads

- LoRA, checkpointing after-wrapping, reentrant: backward raises; the trial lora-without-input-grads fails here, and passes with the fix: RuntimeError: element 0 of tensors does not require grad
- fix (safe, seen to work here): let the inputs need a gradient

  ```python
  model.enable_input_require_grads()
  ```

#### To repeat it

```sh
llm-doctor run --python ~/env/bin/python
```

<details><summary>Checks</summary>

| check | outcome | why |
| --- | --- | --- |
| cuda-toolkit-mismatch | findings |  |
| half-float-mismatch | skipped | peft is not installed |
| lora-without-input-grads | pass | lora-without-input-grads: reproduced on `cuda:0` |

</details>

<details><summary>Trials, case by case</summary>

```
lora-without-input-grads on cuda:0: order=after-wrapping, use_reentrant=yes, modules_to_save=no: reproduced; broken raised (RuntimeError: element 0 of tensors does not require grad); fixed passed
```

</details>

"""  # noqa: E501


def test_the_ticket_as_a_whole() -> None:
    assert markdown.render(report()).partition("<details><summary>Facts")[0] == TICKET


def test_the_ticket_renders_with_its_parts() -> None:
    page = seen(markdown.render(report()))
    assert (
        page.tags["h3"] == 1 and page.tags["details"] == 3 and page.tags["table"] == 1 and page.tags["a"] == 0
    )
    for part in ("8 x NVIDIA H100", "580.95.05", "2.9.0+cu128", "deepspeed 0.19.8", "peft is not installed"):
        assert part in page.text
    assert "model.enable_input_require_grads()" in page.text


def test_an_error_of_several_lines_is_shown_whole() -> None:
    trial = report().checks[2].trials[0]
    long = f"{ERROR}\n  at layer 3\n  at layer 4"
    case = msgspec.structs.replace(trial.cases[0], broken=Arm(outcome="raised", error=long))
    finding = msgspec.structs.replace(
        report().checks[0].findings[0], proof=Proof(trial=trial.name, status="reproduced", case=case)
    )
    checks = (msgspec.structs.replace(report().checks[0], findings=(finding,)),)
    assert long in seen(markdown.render(report(checks=checks))).text


def test_the_command_to_repeat_it_names_what_was_examined() -> None:
    job = {
        "path": "my job.sbatch",
        "line": 9,
        "launcher": "deepspeed",
        "program": "train.py",
        "processes_per_node": 8,
    }
    workload = {"files": ["my job.sbatch", "train.py"], "launches": [{**job, "nodes": 2}], "problems": []}
    shown = markdown.render(report(workload=workload, assumed=("gpu=Tesla T4",)))
    said = "llm-doctor run --python ~/env/bin/python --assume 'gpu=Tesla T4' 'my job.sbatch'"
    assert f"```sh\n{said}\n```" in shown
    asked = ("--no-probes", "--only", "bf16-unsupported", "torchrun", "~/a b/train.py", "~/train.py")
    repeated = "--no-probes --only bf16-unsupported torchrun '~/a b/train.py' ~/train.py"
    assert f"--python ~/env/bin/python {repeated}\n" in markdown.render(
        report(workload=workload, asked=asked)
    )
    assert "- Launcher: deepspeed, train.py, 8 processes per node, 2 nodes (my `job.sbatch:9`)" in shown


def test_a_check_that_crashed_is_not_folded_away() -> None:
    crashed = msgspec.structs.replace(report().checks[1], outcome="crashed", reason="KeyError: 'x'")
    shown = markdown.render(report(checks=(crashed,)))
    assert "#### crashed: half-float-mismatch\n\nKeyError: 'x'\n" in shown.partition("<details>")[0]


@pytest.mark.parametrize(
    "value", ["x" * 5000, "`" * 5000, "* " * 5000, "a\n" * 5000, "\u202e" * 5000, "|" * 5000]
)
def test_a_ticket_fits_an_issue_whatever_the_machine(value: str) -> None:
    one = everywhere(value)
    checks = tuple(
        msgspec.structs.replace(check, findings=check.findings * 40, trials=check.trials * 40)
        for check in one.checks
    )
    workload = {**(one.workload or {}), "problems": (one.workload or {})["problems"] * 300}
    shown = markdown.render(msgspec.structs.replace(one, checks=checks * 5, workload=workload))
    assert len(shown) < 60_000
    assert "left out: the JSON report has all" in shown
    assert shown.index("#### error") < shown.index("#### To repeat it") and seen(shown).tags["h3"] == 1


def test_what_matters_least_is_left_out_first() -> None:
    many = {f"package-{number}": "1.0" * 20 for number in range(3000)}
    packages = Fact[Packages](status="ok", source="x", seconds=0, value=Packages(installed=many, modules={}))
    shown = markdown.render(report(facts=msgspec.structs.replace(report().facts, packages=packages)))
    assert len(shown) < 60_000 and "(the rest is left out: the JSON report has all)" in shown
    assert "install a torch built for CUDA 13.0" in shown and "peft is not installed" in shown


@pytest.mark.parametrize("color", [True, False])
def test_a_value_is_never_markup(color: bool) -> None:
    finding = msgspec.structs.replace(report().checks[0].findings[0], message="[red]not red[/red] :smile:")
    checks = (msgspec.structs.replace(report().checks[0], findings=(finding,)),)
    shown = text.render(report(checks=checks), width=80, color=color)
    console = Console(file=io.StringIO(), width=200)
    assert "[red]not red[/red] :smile:" in console.render_str(shown, markup=False, emoji=False).plain
