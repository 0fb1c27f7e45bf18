"""A job script of the kind that people submit, examined and mended on both stacks, and then really run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, check_of, report_of, run_doctor

STACK_2023 = os.environ.get("LLM_DOCTOR_STACK_2023", "")
JOB = ROOT / "tests" / "workloads" / "deepspeed_job"
MAKE_TINY = """
import sys, transformers
config = transformers.LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=128,
    num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4)
transformers.LlamaForCausalLM(config).save_pretrained(sys.argv[1])
"""

stacks = pytest.mark.parametrize(
    "python",
    [
        pytest.param(sys.executable, id="today"),
        pytest.param(
            STACK_2023,
            id="2023",
            marks=pytest.mark.skipif(not os.path.exists(STACK_2023), reason="the 2023 stack is not built"),
        ),
    ],
)


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    shutil.copytree(JOB, folder)
    return folder


def train(python: str, job: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """The script as its launch line starts it, on a tiny model and without the launcher."""
    tiny = job / "tiny"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "WANDB_DISABLED": "true", "HF_HOME": str(job / "hf")}
    run = {"cwd": job, "env": environment, "capture_output": True, "text": True, "timeout": 120}
    if not tiny.exists():
        subprocess.run([python, "-c", MAKE_TINY, str(tiny)], check=True, **run)  # type: ignore[call-overload]
    command = [python, "train.py", "--model_name_or_path", "tiny", "--output_dir", "out", *arguments]
    return subprocess.run(command, check=False, **run)  # type: ignore[call-overload,no-any-return]


def options_of(job: Path) -> list[str]:
    """What job.sbatch passes to the script, without DeepSpeed, which wants a GPU or a compiler."""
    line = (job / "job.sbatch").read_text().partition("deepspeed ")[2].replace("\\\n", " ")
    words = line.partition("train.py")[2].split()
    pairs = dict(zip(words[::2], words[1::2]))
    left_out = ("--model_name_or_path", "--output_dir", "--deepspeed")
    return [word for name, value in pairs.items() if name not in left_out for word in (name, value)]


@stacks
def test_a_job_that_fails_is_mended_and_runs(python: str, job: Path) -> None:
    before = train(python, job, options_of(job))
    assert before.returncode != 0
    done = run_doctor("fix", "--apply", "--yes", "--python", python, "job.sbatch", cwd=job, timeout=240)
    assert "Traceback" not in done.stderr, done.stderr
    assert "findings gone" in done.stderr, done.stderr
    after = train(python, job, options_of(job))
    assert after.returncode == 0, after.stderr[-2000:]


def test_what_is_said_of_it_on_the_2023_stack(job: Path) -> None:
    if not os.path.exists(STACK_2023):
        pytest.skip("the 2023 stack is not built")
    report = report_of(run_doctor("run", "--format", "json", "--python", STACK_2023, "job.sbatch", cwd=job))
    (finding,) = check_of(report, "lora-without-input-grads")["findings"]
    assert (finding["severity"], finding["confidence"]) == ("error", "proven")
    assert finding["message"] == (
        "get_peft_model() under activation checkpointing (gradient_checkpointing=True, from"
        " --gradient_checkpointing on line 14 of job.sbatch), and nothing lets the inputs need a gradient:"
        " the LoRA weights get none"
    )
    subject = finding["subject"]
    assert (subject["path"], subject["line"], subject["column"]) == ("train.py", 36, 13)
    assert finding["proof"]["case"]["combination"]["order"] == "after-wrapping"
    (finding,) = check_of(report, "deepspeed-unknown-key")["findings"]
    assert (finding["subject"]["path"], finding["subject"]["line"]) == ("ds_config.json", 6)
    (finding,) = check_of(report, "launcher-conflict")["findings"]
    assert finding["message"] == "--num_gpus 2 is given with --include localhost:0,1: deepspeed refuses both"
    assert check_of(report, "removed-api")["findings"] == []


def test_what_is_said_of_it_on_todays_stack(job: Path) -> None:
    report = report_of(
        run_doctor("run", "--format", "json", "--python", sys.executable, "job.sbatch", cwd=job)
    )
    assert check_of(report, "lora-without-input-grads")["findings"] == []
    (finding,) = check_of(report, "removed-api")["findings"]
    assert (finding["subject"]["path"], finding["subject"]["line"]) == ("job.sbatch", 13)
    assert "--evaluation_strategy is not taken by TrainingArguments" in finding["message"]
