"""A workload on the command line: launch lines, files that cannot be read, and findings at their place."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from conftest import report_of, run_doctor

ASSUMED = ("--no-probes", "--format", "json", "--assume")
# The package as these tests import it.
ENVIRONMENT = {"PYTHONPATH": os.environ.get("PYTHONPATH")}

INT8 = """\
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained("gpt2", load_in_8bit=True)
"""
ARGUMENTS = """\
from transformers import AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments


def main():
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    model = AutoModelForCausalLM.from_pretrained("gpt2")
    Trainer(model=model, args=args).train()


main()
"""
BF16 = (
    "bf16=True, from --bf16 on line {line} of {path}: the Tesla V100 (compute capability 7.0) has no native"
    " bfloat16: emulated, several times slower than float16"
)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    done = run_doctor("run", *words, env=ENVIRONMENT, cwd=folder, timeout=60, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def report(folder: Path, *words: str) -> dict[str, Any]:
    return report_of(run(folder, *words))


def problems(examined: dict[str, Any]) -> dict[str, str]:
    """What could not be read: by path, `line:column: message`."""
    return {
        it["path"]: f"{it['line']}:{it['column']}: {it['message']}" if it["line"] else it["message"]
        for it in examined["workload"]["problems"]
    }


def findings(examined: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The check, the place and the sentence of each finding."""
    return [
        (check["name"], "{path}:{line}:{column}".format(**it["subject"]), it["message"])
        for check in examined["checks"]
        for it in check["findings"]
    ]


# --- Files that cannot be read --------------------------------------------------------------------------

BRACKETS = "[" * 10_000 + "]" * 10_000
ALIASES = "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)
WRITTEN: dict[str, bytes] = {
    "latin1.py": b"x = 1\nname = '\xe9'\n",
    "utf16.py": "x = 1\n".encode("utf-16"),
    "binary.py": bytes(range(256)),
    "binary.json": bytes(range(256)),
    "image.png": b"\x89PNG\r\n\x1a\n\0\0",
    "python2.py": b"import os\nprint 'hello'\n",
    "broken.py": b"x = 1\ndef f(:\n    pass\n",
    "brackets.py": b"x = " + BRACKETS.encode(),
    "brackets.json": BRACKETS.encode(),
    "objects.json": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "unclosed.json": b"[" * 10_000,
    "brackets.yaml": b"a: " + BRACKETS.encode(),
    "bomb.yaml": b"a: &a [x, x, x, x, x, x, x, x, x]\n" + ALIASES.encode(),
    "broken.json": b'{\n  "zero_optimization": {\n    "stage": 2,,\n  }\n}\n',
    "broken.yaml": b"a: 1\n b: [2\n",
    "broken.ipynb": b'{"cells": [\n {"cell_type": "code", "source": ["x = (\\n"]},\n'
    b' {"cell_type": "code", "source": ["import os\\n"]}\n]}',
    "no.ipynb": b'{"a": 1}',
    "broken.sh": b"if true; then\necho aaaaaaaaaa 'a\n",
    "empty.json": b"",
    "notes": b"hello\n",
    "good.py": INT8.encode(),
}
# A `#` is a column that Python's releases do not agree on.
SAID = {
    "latin1.py": "2:9: it is not UTF-8: byte 0xe9",
    "utf16.py": "1:1: it is UTF-16, not UTF-8",
    "binary.py": "it is a binary file",
    "binary.json": "it is a binary file",
    "image.png": "it is a binary file",
    "python2.py": "2:1: it is written for Python 2",
    "broken.py": "2:#: it is no valid Python: ",
    "brackets.py": "1:",
    "brackets.json": "1:101: nested deeper than 100 levels",
    "objects.json": "1:501: nested deeper than 100 levels",
    "unclosed.json": "1:101: nested deeper than 100 levels",
    "brackets.yaml": "1:103: nested deeper than 100 levels",
    "bomb.yaml": "6:20: more than 200,000 values, those of aliases included",
    "broken.json": "3:16: ',' where a key in quotes is expected",
    "broken.yaml": "2:3: not YAML: mapping values are not allowed here",
    "broken.ipynb": "2:#: a cell is no valid Python: ",
    "no.ipynb": "it is no notebook: there are no cells in it",
    "broken.sh": "2:17: a syntax error: ",
    "empty.json": "1:1: the file is empty",
    "notes": "it is no Python, notebook, shell script, JSON or YAML by its name or text",
    "huge.json": "it is larger than 8 MiB (50 MB): that is data",
    "loop.py": "Too many levels of symbolic links",
    "dangling.py": "No such file or directory",
    "pipe.py": "it is a device, pipe or socket, not a file",
    "zero.json": "it is a device, pipe or socket, not a file",
    "/dev/zero": "it is a device, pipe or socket, not a file",
    "absent.py": "No such file or directory",
    "": "No such file or directory",
}


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of everything that is no script, and one good script."""
    folder = tmp_path_factory.mktemp("unreadable")
    for name, data in WRITTEN.items():
        (folder / name).write_bytes(data)
    (folder / "huge.json").write_bytes(b'{"a": [' + b"1," * 25_000_000 + b"1]}")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "dangling.py").symlink_to("nowhere.py")
    (folder / "zero.json").symlink_to("/dev/zero")
    os.mkfifo(folder / "pipe.py")
    return folder


@pytest.fixture(scope="module")
def unread(unreadable: Path) -> Iterator[dict[str, Any]]:
    yield report(unreadable, *ASSUMED, "transformers=4.29.2", *SAID, "good.py")
    (unreadable / "huge.json").unlink()


@pytest.mark.parametrize("path", SAID)
def test_a_file_that_cannot_be_read_is_one_line(unread: dict[str, Any], path: str) -> None:
    said = re.escape(SAID[path]).replace("\\#", r"\d+")
    assert re.match(said, problems(unread)[path]), problems(unread)[path]
    (problem,) = [it for it in unread["workload"]["problems"] if it["path"] == path]
    assert "\n" not in problem["message"] and len(problem["message"]) < 100


def test_the_rest_is_examined_all_the_same(unread: dict[str, Any]) -> None:
    assert len(problems(unread)) == len(SAID) and "good.py" in unread["workload"]["files"]
    assert [(check, place) for check, place, _ in findings(unread)] == [
        ("int8-without-device-map", "good.py:3:54")
    ]
    assert unread["exit_code"] == 1
    assert {it["outcome"] for it in unread["checks"]} <= {"pass", "findings", "skipped"}


def test_a_person_reads_path_and_position(unreadable: Path) -> None:
    done = run(unreadable, "--no-probes", "--assume", "torch=2.0", "latin1.py", "absent.py", "broken.json")
    assert done.returncode == 0 and done.stderr == ""
    assert [line for line in done.stdout.split("\n") if line.startswith("Not examined: ")] == [
        "Not examined: latin1.py:2:9: it is not UTF-8: byte 0xe9",
        "Not examined: absent.py: No such file or directory",
        "Not examined: broken.json:3:16: ',' where a key in quotes is expected",
    ]


def test_a_folder_is_read_and_its_links_are_not_followed(tmp_path: Path) -> None:
    """Two links that lead back up would never end; data beside scripts is not worth a line."""
    (tmp_path / "job" / "sub").mkdir(parents=True)
    (tmp_path / "job" / "up").symlink_to("..")
    (tmp_path / "job" / "sub" / "up").symlink_to("..")
    (tmp_path / "job" / "train.py").write_text(INT8)
    (tmp_path / "job" / "sub" / "old.py").write_text("print 'hello'\n")
    (tmp_path / "job" / "image.png").write_bytes(b"\0")
    (tmp_path / "job" / "data.json").write_text("[" + "1," * 600_000 + "1]")
    (tmp_path / "job" / "venv").mkdir()
    (tmp_path / "job" / "venv" / "theirs.py").write_text(INT8)
    os.mkfifo(tmp_path / "job" / "pipe.py")
    examined = report(tmp_path, *ASSUMED, "transformers=4.29.2", "job")
    assert sorted(examined["workload"]["files"]) == ["job/sub/old.py", "job/train.py"]
    assert problems(examined) == {
        "job/pipe.py": "it is a device, pipe or socket, not a file",
        "job/sub/old.py": "1:1: it is written for Python 2",
    }
    assert [place for _, place, _ in findings(examined)] == ["job/train.py:3:54"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text(INT8)
    (tmp_path / "secret.py").chmod(0)
    assert problems(report(tmp_path, *ASSUMED, "torch=2.0", "secret.py")) == {
        "secret.py": "Permission denied"
    }


def test_nothing_of_a_workload_is_run(tmp_path: Path) -> None:
    touch = "open('touched', 'w').close()\n"
    for name in ("train.py", "helpers.py", "transformers.py", "conftest.py", "sitecustomize.py"):
        (tmp_path / name).write_text(f"import helpers, transformers\n{touch}{INT8}")
    (tmp_path / "job.sh").write_text("touch touched\n$(touch touched) python train.py `touch touched`\n")
    (tmp_path / "config.yaml").write_text("a: !!python/object/apply:os.system ['touch touched']\n")
    before = sorted(os.listdir(tmp_path))
    examined = report(tmp_path, *ASSUMED, "transformers=4.29.2", "job.sh", "train.py", "config.yaml")
    assert findings(examined) != [] and sorted(os.listdir(tmp_path)) == before


# --- Launch lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "launcher", "program", "world"),
    [
        ("torchrun --nproc-per-node 2 train.py --bf16 True", "torchrun", "train.py", (2, 1)),
        ("srun --ntasks-per-node 4 --nodes 2 python train.py --bf16", "python", "train.py", (4, 2)),
        ("accelerate launch --num_processes 2 train.py --bf16", "accelerate", "train.py", (2, 1)),
        ("deepspeed --num_gpus 8 train.py --bf16 True --quiet --only x", "deepspeed", "train.py", (8, 1)),
        ("python -m train --bf16 True --format text --output /nowhere/x", "python", "train", (1, 1)),
    ],
)
def test_a_launch_line_keeps_its_own_options(
    tmp_path: Path, line: str, launcher: str, program: str, world: tuple[int, int]
) -> None:
    (tmp_path / "train.py").write_text(ARGUMENTS)
    examined = report(tmp_path, *ASSUMED, "gpu=Tesla V100", "--assume", "torch=2.3.0", *line.split())
    (launch,) = examined["workload"]["launches"]
    assert (launch["launcher"], launch["program"]) == (launcher, program)
    assert (launch["processes_per_node"], launch["nodes"]) == world
    assert examined["workload"]["files"] == ["train.py"] and examined["workload"]["problems"] == []
    column = line.index("True" if "True" in line else "--bf16") + 1
    said = BF16.format(line=1, path="command line")
    assert findings(examined) == [("bf16-unsupported", f"command line:1:{column}", said)]


def test_options_of_ours_may_stand_behind_files(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(INT8)
    words = (
        "train.py",
        "--format",
        "json",
        "--no-probes",
        "--assume",
        "transformers=4.29.2",
        "--fail-on",
        "never",
    )
    examined = report(tmp_path, *words)
    assert examined["assumed"] == ["transformers=4.29.2"] and examined["exit_code"] == 0
    assert [check for check, _, _ in findings(examined)] == ["int8-without-device-map"]


def test_what_requirements_pin_stands_beside_what_is_assumed(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(INT8)
    (tmp_path / "requirements.txt").write_text("transformers==4.29.2\npeft==0.3.0\nrich==13.0\n")
    words = ["--format", "json", "train.py", "requirements.txt", "--assume", "gpu=Tesla V100"]
    examined = report(tmp_path, *words, "--assume", "peft=0.4.0")
    assert examined["assumed"] == [
        "gpu=Tesla V100",
        "peft=0.4.0",
        "transformers=4.29.2 (requirements.txt:1)",
    ]
    assert [check for check, _, _ in findings(examined)] == ["int8-without-device-map"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--assume transformers x.py",
            "'transformers': NAME=VALUE is expected, as transformers=4.29.2 or gpus=4",
        ),
        ("--assume =4 x.py", "'=4': NAME=VALUE is expected"),
        ("--assume transformers=new x.py", "'transformers=new': 'new' is no version"),
        ("--assume gpus=many x.py", "'gpus=many': a number of GPUs is expected"),
        ("--assume gpus=-1 x.py", "'gpus=-1': a number of GPUs is expected"),
        ("python -c 1", "python -c 1: no Python program is started by that"),
        ("x.py --frmat json", "No such option '--frmat'"),
    ],
)
def test_what_cannot_be_meant_is_one_message(tmp_path: Path, words: str, said: str) -> None:
    done = run(tmp_path, *words.split())
    assert done.returncode == 2 and done.stdout == ""
    assert said in done.stderr.replace("No such option: --frmat", "No such option '--frmat'")


# --- Findings at their place ----------------------------------------------------------------------------

JOB = """\
#!/bin/bash
#SBATCH --gpus-per-node=4
#SBATCH --nodes=2

export OMP_NUM_THREADS=8
srun torchrun --nproc-per-node 4 --nnodes 2 train.py \\
    --output_dir out \\
    --bf16 True
"""

CASES: dict[str, tuple[dict[str, str], str, list[tuple[str, str, str]]]] = {
    "bf16-unsupported": (
        {"job.sbatch": JOB, "train.py": ARGUMENTS},
        "torch=2.3.0 transformers=4.40.0 gpu=Tesla\xa0V100 gpus=4 job.sbatch",
        [("warning", "job.sbatch:8:12", BF16.format(line=8, path="job.sbatch"))],
    ),
    "int8-without-device-map": (
        {
            "train.py": """\
import argparse
from transformers import AutoModelForCausalLM

parser = argparse.ArgumentParser()
parser.add_argument("--no_8bit", dest="int8", action="store_false")
args = parser.parse_args()
kwargs = {"load_in_8bit": args.int8}
model = AutoModelForCausalLM.from_pretrained("gpt2", **kwargs)
"""
        },
        "transformers=4.29.2 train.py",
        [
            (
                "error",
                "train.py:7:11",
                "load_in_8bit=True, from the default of --no_8bit on line 5 without device_map:"
                " transformers 4.29.2 refuses it",
            )
        ],
    ),
    "fp16-with-int8-prepare": (
        {
            "train.py": """\
import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(
    "gpt2",
    torch_dtype=torch.float16,
    device_map="auto",
)
model = prepare_model_for_kbit_training(model)
model = get_peft_model(model, LoraConfig(r=8))
"""
        },
        "transformers=4.38.0 peft=0.9.0 torch=2.2.0 train.py",
        [
            (
                "warning",
                "train.py:10:9",
                "prepare_model_for_kbit_training() on a float16 model, not quantised (line 7):"
                " every parameter becomes float32, twice the memory",
            )
        ],
    ),
    "lora-without-input-grads": (
        {
            "train.py": """\
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("gpt2")
model = get_peft_model(model, LoraConfig(r=8))
args = TrainingArguments("out", gradient_checkpointing=True)
Trainer(model=model, args=args).train()
"""
        },
        "transformers=4.38.0 peft=0.9.0 torch=2.2.0 train.py",
        [
            (
                "error",
                "train.py:5:9",
                "get_peft_model() under activation checkpointing (gradient_checkpointing=True), and nothing"
                " lets the inputs need a gradient: the LoRA weights get none",
            )
        ],
    ),
    "fp16-weights-under-amp": (
        {
            "train.py": """\
import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

model = AutoModelForCausalLM.from_pretrained("gpt2", torch_dtype=torch.float16)
Trainer(model=model, args=TrainingArguments("out", fp16=True)).train()
"""
        },
        "transformers=4.38.0 torch=2.2.0 train.py",
        [
            (
                "error",
                "train.py:4:54",
                "float16 weights are trained whole under fp16=True: the gradient scaler refuses the first"
                " step",
            )
        ],
    ),
    "removed-api": (
        {
            "train.py": """\
from peft import prepare_model_for_int8_training
from transformers import TrainingArguments

args = TrainingArguments("out", evaluation_strategy="steps")
"""
        },
        "transformers=5.23.0 peft=0.21.2 train.py",
        [
            (
                "error",
                "train.py:1:18",
                "prepare_model_for_int8_training is not in peft 0.21.2 (removed in 0.10.0):"
                " use prepare_model_for_kbit_training",
            ),
            (
                "error",
                "train.py:4:33",
                "evaluation_strategy= is not taken by TrainingArguments in transformers 5.23.0"
                " (removed in 4.51.0): use eval_strategy",
            ),
        ],
    ),
    "deepspeed-unknown-key": (
        {
            "ds_config.json": """\
{
  "train_micro_batch_size_per_gpu": 1,
  "zero_optimization": {
    "stage": 2,
    "overlap_com": true
  },
  "bf16": {"enabled": true}
}
"""
        },
        "deepspeed=0.19.8 ds_config.json",
        [
            (
                "error",
                "ds_config.json:5:5",
                "overlap_com is no key of zero_optimization: DeepSpeed 0.19.8 refuses it with a"
                " ValidationError; the nearest one is overlap_comm",
            )
        ],
    ),
}


@pytest.mark.parametrize("check", CASES)
def test_a_finding_stands_where_its_cause_is_written(tmp_path: Path, check: str) -> None:
    files, line, expected = CASES[check]
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    *assumed, file = (word.replace("\xa0", " ") for word in line.split(" "))
    options = [word for it in assumed for word in ("--assume", it)]
    examined = report(tmp_path, "--no-probes", "--format", "json", *options, file)
    assert problems(examined) == {}
    (result,) = [it for it in examined["checks"] if it["name"] == check]
    told = [
        (it["severity"], "{path}:{line}:{column}".format(**it["subject"]), it["message"])
        for it in result["findings"]
    ]
    assert told == expected
    assert [name for name, _, _ in findings(examined) if name != check] == []
    assert examined["exit_code"] == (1 if expected[0][0] == "error" else 0)
