"""Inputs that look like the real ones and are not: seeds, mutated by their grammar's words, and noise."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any, Sequence

from hypothesis import strategies as st

TESTS = Path(__file__).resolve().parent.parent
JOB = TESTS / "workloads" / "deepspeed_job"
LOGS = [path.read_text(errors="replace") for path in sorted((TESTS / "logs").glob("*.log"))]

HOSTILE = (
    *("\0", "\r", "\r\n", "\x1b[31m", "\x1b]0;title\x07", "\x9b31m", "\x7f", "\ufeff", "\u202e", "\u2028"),
    *(
        "\x0c",
        "\ud800",
        "\udcff",
        "\U0001d4b3",
        "\ufb01",
        "\u0301",
        "\t",
        "9" * 5000,
        "1e999999",
        "-0",
        "0x" + "f" * 400,
    ),
    *("NaN", "\\u0000", "\\ud83d", "../" * 40 + "etc/passwd", "/dev/zero", "/dev/tty", "/proc/self/mem"),
    *("$(touch MARK)", "`touch MARK`", "%x %n %s {0.__class__} {{7*7}} ${jndi}", "<script>", "[bold red]"),
    *(repeated * 300 for repeated in ("(", "[", "{", "\\", '"', "'", "\n", "a", " ", "-", "**", "not ")),
)
"""What breaks readers of every kind."""

PYTHON = """
import argparse, os, json
import torch
from dataclasses import dataclass, field
from helpers import load, SETTINGS
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainingArguments, Trainer
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
import deepspeed

os.environ["MASTER_PORT"] = "29500"
parser = argparse.ArgumentParser()
parser.add_argument("--bf16", action="store_true", default=False)
parser.add_argument("--lr", type=float, default=2e-5)
args = parser.parse_args()
kwargs = {"load_in_8bit": True, **SETTINGS}
if args.bf16:
    kwargs.update(torch_dtype=torch.bfloat16)
else:
    kwargs["torch_dtype"] = torch.float16
model = AutoModelForCausalLM.from_pretrained("huggyllama/llama-7b", cache_dir="/data/hf", **kwargs)
model = prepare_model_for_kbit_training(model.half())
model = get_peft_model(model, LoraConfig(r=8, target_modules=["q_proj"]))
model.gradient_checkpointing_enable()
with open("ds_config.json") as file:
    config = json.load(file)
engine, *_ = deepspeed.initialize(model=model, config="ds_config.json")
training = TrainingArguments("out", fp16=not args.bf16, deepspeed="ds_config.json", save_total_limit=3)
for step in range(10):
    x = lambda a, *b, c=1: [i for i in b if i]
    with torch.autocast("cuda", dtype=torch.float16):
        loss = engine(**batch).loss
Trainer(model=model, args=training).train()
"""
SHELL = """#!/bin/bash
#SBATCH --nodes=2
#SBATCH --gpus-per-node=8 --mem=64G
set -euo pipefail
module load cuda/11.8
export MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_PORT=${MASTER_PORT:-29500} NCCL_IB_DISABLE=1
ARGS=(--bf16 True --lr 1e-4)
for SEED in 1 2 3; do
  srun torchrun --nnodes $SLURM_NNODES --nproc_per_node 8 --rdzv_endpoint=$MASTER_ADDR:$MASTER_PORT \\
    train.py "${ARGS[@]}" --deepspeed ds_config.json --seed $((SEED + 1)) "$@" 2>&1 | tee "log.$SEED" &
done
if [[ $1 == deep ]]; then CUDA_VISIBLE_DEVICES=0,1 deepspeed --include localhost:0,1 train.py <<EOF
text
EOF
fi
accelerate launch --config_file accelerate.yaml --num_processes 4 train.py
llamafactory-cli train sft.yaml
wait
"""
YAML = """# accelerate
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config: {deepspeed_config_file: ds_config.json, zero3_init_flag: yes}
num_processes: 8
mixed_precision: 'bf16'
base: &base
  load_in_8bit: true
  lora_r: 8
list: [1, 2.5, .inf, ~, 0o17, 2001-01-01]
other: {<<: *base, adapter: qlora}
text: |
  two
  lines
"""
NOTEBOOK: dict[str, Any] = {
    "cells": [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n"]},
        {
            "cell_type": "code",
            "execution_count": 1,
            "metadata": {},
            "outputs": [{"output_type": "stream", "name": "stdout", "text": ["x\n"]}],
            "source": [
                "!pip install transformers==4.29.2\n",
                "%env MASTER_PORT=29500\n",
                "!accelerate launch --num_processes 2 train.py\n",
            ],
        },
        {"cell_type": "code", "metadata": {}, "source": "%%bash\ntorchrun train.py --bf16 True\n"},
        {
            "cell_type": "code",
            "metadata": {},
            "source": [*PYTHON.splitlines(keepends=True), "%time get_ipython().run_line_magic('x', '1')\n"],
        },
    ],
    "metadata": {"kernelspec": {"name": "python3"}},
    "nbformat": 4,
    "nbformat_minor": 5,
}
REQUIREMENTS = """--index-url https://example.invalid/simple
torch==2.1.0 ; python_version >= "3.8"  # why
transformers[torch,sentencepiece] == 4.29.2 \\
    --hash=sha256:0123456789abcdef
peft @ https://example.invalid/peft-0.3.0.tar.gz
-r other.txt
-e git+https://example.invalid/x.git@main#egg=x
bitsandbytes===0.39.0
"""
LOCK = """version = 1
requires-python = ">=3.8"

[[package]]
name = "torch"
version = "2.1.0"
source = { registry = "https://example.invalid/simple" }
dependencies = [{ name = "numpy" }]

[metadata]
lock-version = "1.1"
"""
PIPFILE = '{"_meta": {}, "default": {"torch": {"version": "==2.1.0", "hashes": []}}, "develop": {}}'
CONDA = "name: x\ndependencies:\n  - pytorch=2.1.0=py3_cuda\n  - pip:\n    - peft==0.3.0\n"
_SETTINGS = """
only = ["bf16-unsupported"]
skip = ["cache-dir-too-small"]
fail-on = "warning"

[per-path]
"legacy/**" = ["removed-api", "*"]
"""
SETTINGS = (_SETTINGS, f"[tool.llm-doctor]{_SETTINGS}".replace("[per-path]", "[tool.llm-doctor.per-path]"))
LAUNCHES = (
    "torchrun --nproc-per-node 8 --nnodes 2:4 --rdzv_backend c10d --rdzv_endpoint h:29500 train.py --bf16 1",
    "deepspeed --num_gpus 8 --hostfile hosts --include a:0,1@b:2 train.py --deepspeed ds_config.json",
    "accelerate launch --config_file config.yaml --num_processes 4 train.py",
    "srun --ntasks-per-node 4 -N 2 python -m torch.distributed.run --nproc_per_node=4 train.py",
    "env A=1 CUDA_VISIBLE_DEVICES=0,1 nohup timeout 60 python -u -X dev train.py",
    "mpirun -np 16 -H a:8,b:8 -x NCCL_DEBUG --mca btl tcp python train.py",
    "llamafactory-cli train config.yaml",
    "axolotl train config.yaml",
    "uv run --with torch python train.py --load_in_8bit",
    "bash job.sh a b",
)
METADATA = """Metadata-Version: 2.1
Name: torch
Version: 2.1.0+cu118
Requires-Dist: numpy >=1.21 ; python_version >= "3.8"
Requires-Dist: triton ==2.1.0 ; platform_system == "Linux" and extra == 'x'

The text.
"""
RECORD = "torch/__init__.py,sha256=x,12\ntorch/_C.cpython-311-x86_64-linux-gnu.so,,\n../../bin/torchrun,,\n"

_WORDS = {
    "python": (
        "def class lambda yield await async with try finally match global nonlocal * ** @ := -> ... \\ ; : "
        "\"\"\" ''' f'{ f'{x!r:{y}}' b'' 0_0 1j if else elif while for in not is del import from as print "
        "exec __import__('os').system('touch MARK') from_pretrained( **kwargs *args torch.float16 .half() "
        ".update( load_in_8bit=True get_peft_model( #\\ llm-doctor:ignore[*]"
    ),
    "json": '{ } [ ] : , " \\ null true false NaN Infinity 1e400 -0 "\\ud800" {"a":1,"a":2} // /* */ "auto"',
    "yaml": (
        "& * << ! !! | > - ? : # % @ ` --- ... !!python/object/apply:os.system !!binary !!set !!merge &a *a "
        "[*a,*a,*a,*a,*a,*a,*a,*a] <<:*base {a:*b} 'x \"x |9 >- yes NO ~ 1:30:00 0o7 .nan %YAML"
    ),
    "shell": (
        "$( ` $(( )) ${ } ${x:-${y:-$z}} ${!x} ${x//a/b} <<EOF <<- <<< < > >> 2>&1 | || && & ; ;; ( ) [[ ]] "
        "(( case esac in if fi then for do done while until function eval exec source . alias set -- \\ ' \" "
        "$' # * ? ~ !! {1..1000000000} torchrun deepspeed accelerate python srun bash -c cd export"
    ),
    "toml": "[ ] [[ ]] = \" ' \"\"\" ''' . , { } # \\u0000 1979-05-27T07:32:00Z inf nan only skip per-path",
    "text": "== === ~= != >= <= < > ; [ ] , @ # --hash -r -e -c \\ :: = Name: Version: .py, .so,",
    "log": (
        'Traceback·(most·recent·call·last): File·"x.py",·line·3,·in·<module> RuntimeError: CUDA·error: '
        "[rank3]: Signal·9·(SIGKILL) 100%|████| KeyError: │ ╭─ out·of·memory Half·but·found·Float 9: (pid=1)"
    ),
}


def words_of(kind: str) -> tuple[str, ...]:
    """The words of a grammar, with what breaks every reader."""
    return (*(word.replace("·", " ") for word in _WORDS[kind].split()), *HOSTILE)


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[str], words: Sequence[str]) -> bytes:
    """A seed after up to eight cuts, doublings, splices and insertions, as bytes of some encoding."""
    text = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(text)))
        # Short spans are where a grammar breaks, long ones where its nesting does.
        to = min(len(text), at + draw(st.sampled_from((0, 1, 2, 5, 20, 100, 1000))))
        how = draw(st.integers(0, 7))
        if how == 0:
            text = text[:at] + text[to:]
        elif how == 1:
            text = text[:to] + text[at:to] * draw(st.sampled_from((1, 2, 50))) + text[to:]
        elif how == 2:
            text = text[:at]
        elif how == 3:
            other = draw(st.sampled_from(seeds))
            begin = draw(st.integers(0, len(other)))
            text = text[:at] + other[begin : begin + 200] + text[to:]
        elif how == 4:
            text = text[:at] + draw(st.text(max_size=8)) + text[to:]
        elif how == 5:
            text = text.replace("\n", draw(st.sampled_from(("\r\n", "\r", "\n\n", "\u2028", " "))))
        else:
            text = text[:at] + draw(st.sampled_from(words)) + text[to:]
    if draw(st.integers(0, 9)) == 0:
        encoding = draw(st.sampled_from(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "cp1252")))
        return text.encode(encoding, "replace")
    return text.encode("utf-8", "surrogatepass")


def noisy(kind: str, *seeds: str) -> st.SearchStrategy[bytes]:
    """Mostly mutated seeds; now and then words without a seed, or bytes alone."""
    words = words_of(kind)
    alone = st.lists(st.sampled_from(words), max_size=30).map(
        lambda it: " ".join(it).encode("utf-8", "surrogatepass")
    )
    like = mutated(seeds, words)
    return st.one_of(like, like, like, alone, st.binary(max_size=400))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from((1 << 63, 1 << 64, -1 << 63, 10**400, -1, 0, 1e308))
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(HOSTILE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(inner for key, item in items for inner in paths(item, (*path, key)))]


@st.composite
def changed(draw: st.DrawFn, seed: Any, known: Sequence[tuple[Any, ...]]) -> Any:
    """A JSON value with anything in up to four of its places, or without them."""
    tree = json.loads(json.dumps(seed))
    for _ in range(draw(st.integers(1, 4))):
        *way, last = draw(st.sampled_from(known))
        parent = tree
        try:
            for key in way:
                parent = parent[key]
            if draw(st.integers(0, 4)) == 0:
                del parent[last]
            else:
                parent[last] = draw(VALUES)
        except (KeyError, IndexError, TypeError):  # a former change has taken the place away
            continue
    return tree


def changed_json(seed: Any) -> st.SearchStrategy[bytes]:
    """The same as a file; in some of them a key stands twice."""

    def written(tree: Any) -> bytes:
        return json.dumps(tree).encode()

    def doubled(tree: Any) -> bytes:
        return re.sub(rb'("[a-z_]+"): ', rb"\1: 1, \1: ", written(tree), count=3)

    trees = changed(seed, paths(seed)[1:])
    return trees.map(written) | trees.map(doubled)


def packed(data: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Some of it compressed, some of that damaged."""
    cut = st.tuples(data, st.integers(1, 300)).map(lambda it: gzip.compress(it[0])[: it[1]])
    return data | data.map(gzip.compress) | cut
