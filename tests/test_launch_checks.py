"""Launch lines, ports, caches and checkpoints: what the checks say of real lines on a real machine."""

from __future__ import annotations

import json
import os
import socket
import tempfile
from pathlib import Path
from typing import Any, Iterator, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor.check import Case, Check, facts_of
from llm_doctor.checks.cache_dir_too_small import CacheDirTooSmall
from llm_doctor.checks.checkpoint_dir_too_small import CheckpointDirTooSmall
from llm_doctor.checks.launcher_conflict import LauncherConflict
from llm_doctor.checks.model_not_cached import ModelNotCached
from llm_doctor.checks.rendezvous_unreachable import RendezvousUnreachable
from llm_doctor.examination import check_case
from llm_doctor.host import Host, Recorder, real_host
from llm_doctor.model import (
    CacheFolder,
    Environment,
    Gpu,
    Gpus,
    HfCaches,
    Model,
    Mount,
    Mounts,
    Packages,
)
from llm_doctor.workload.data import Launch, Place, Value, Workload
from llm_doctor.workload.paths import cache_entries, named_on_the_hub, rendezvous
from llm_doctor.workload.reading import read_workload

ALL = (CacheDirTooSmall, CheckpointDirTooSmall, LauncherConflict, ModelNotCached, RendezvousUnreachable)
NO_CACHE = HfCaches(folders=(CacheFolder(purpose="models", path="/nowhere/hub"),))


@pytest.fixture(autouse=True)
def _a_plain_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [*os.environ]:
        if name.startswith(("HF_", "TRANSFORMERS_", "HUGGING", "MASTER_", "SLURM_", "CUDA_VISIBLE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


def four_gpus() -> Gpus:
    return Gpus(driver="535.183.01", gpus=tuple(Gpu(index=number, name="Tesla T4") for number in range(4)))


def says(check: type[Check], workload: Workload, *facts: object, assumed: bool = False) -> list[str]:
    case = Case(facts=facts_of(*facts), workload=workload, assumed=assumed)
    result = check_case(check, case, ())
    assert result.outcome != "crashed", result.reason
    return [f"{it.subject.line}: {it.severity}: {it.message}" for it in result.findings]


def launched(line: str) -> Workload:
    """A launch line as it is given on the command line."""
    return read_workload(real_host(), line.split())


def script(text: str, name: str = "train.sh") -> Workload:
    path = Path(tempfile.mkdtemp(dir=".")).absolute() / name
    path.write_text(text)
    return read_workload(real_host(), [str(path)])


# --- launcher-conflict -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            "deepspeed --include localhost:1,0 --num_gpus 2 train.py",
            "error: --num_gpus 2 is given with --include localhost:1,0: deepspeed refuses both",
        ),
        (
            "deepspeed --exclude=worker-1 --num_nodes=2 train.py",
            "error: --num_nodes 2 is given with --exclude worker-1: deepspeed refuses both",
        ),
        (
            "deepspeed -i localhost:0 -e localhost:1 train.py",
            "error: --include and --exclude are both given: deepspeed takes one of them",
        ),
        (
            "CUDA_VISIBLE_DEVICES=2,3 deepspeed --include localhost:0,3 train.py",
            "warning: CUDA_VISIBLE_DEVICES=2,3 is overridden by --include localhost:0,3: the processes get"
            " GPU 0, which it hides",
        ),
        (
            "accelerate launch --multi_gpu --use_deepspeed --num_processes 2 train.py",
            "error: --multi_gpu and --use_deepspeed exclude each other: accelerate takes one of them",
        ),
        (
            "accelerate launch --multi_gpu --num_processes=1 train.py",
            "error: --multi_gpu with --num_processes 1: accelerate wants at least 2",
        ),
        (
            "torchrun --standalone --nnodes=2 --nproc-per-node=4 train.py",
            "error: --standalone with --nnodes 2: each node waits for the others at localhost",
        ),
        (
            "torchrun --nproc_per_node=8 train.py",
            "warning: 8 processes are started on each node, and this node has 4 GPUs",
        ),
        (
            "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node=4 train.py",
            "warning: 4 processes are started on each node, and CUDA_VISIBLE_DEVICES=0,1 shows them 2 GPUs",
        ),
    ],
)
def test_what_contradicts_itself_is_told(line: str, said: str) -> None:
    assert says(LauncherConflict, launched(line), four_gpus()) == [f"1: {said}"]


@pytest.mark.parametrize(
    "line",
    [
        "deepspeed --include localhost:0,1 train.py",
        "deepspeed --include localhost:0,1 --num_gpus -1 train.py",
        "deepspeed --num_gpus 4 --num_nodes 1 train.py",
        "CUDA_VISIBLE_DEVICES=0,1,2,3 deepspeed --num_gpus 2 train.py",
        "CUDA_VISIBLE_DEVICES=GPU-8f2a deepspeed --num_gpus 1 train.py",
        "accelerate launch --multi_gpu --num_processes 2 train.py",
        "accelerate launch --cpu --num_processes 8 train.py",
        "torchrun --standalone --nnodes=1 --nproc-per-node=4 train.py",
        "torchrun --standalone --nnodes=1:4 --nproc-per-node=4 train.py",
        "torchrun --nproc_per_node=gpu train.py",
        "python train.py --num_gpus 8",
        "mpirun -np 8 python train.py",
    ],
)
def test_lines_that_start(line: str) -> None:
    assert says(LauncherConflict, launched(line), four_gpus()) == []


def test_a_flag_that_is_not_known_is_not_judged() -> None:
    workload = script(
        'deepspeed --include "$NODES" --num_gpus 2 train.py\ntorchrun --nproc_per_node $N t.py\n'
    )
    assert says(LauncherConflict, workload, four_gpus()) == []


def test_the_gpus_of_a_batch_job_count_and_not_those_of_the_login_node() -> None:
    text = "#!/bin/bash\n#SBATCH --gres=gpu:a100:{}\nsrun torchrun --nproc_per_node=4 train.py\n"
    assert says(LauncherConflict, script(text.format(4)), Gpus(driver="1", gpus=(Gpu(index=0),))) == []
    assert says(LauncherConflict, script(text.format(2)), four_gpus()) == [
        "3: warning: 4 processes are started on each node, and the job asks for 2 GPUs"
    ]
    exclusive = text.format(1).replace("srun", "#SBATCH --exclusive\nsrun")
    assert says(LauncherConflict, script(exclusive), four_gpus()) == []


def test_one_assumed_gpu_is_not_the_number_of_them() -> None:
    workload = launched("torchrun --nproc_per_node=8 train.py")
    assert says(LauncherConflict, workload, Gpus(driver="assumed", gpus=(Gpu(index=0),)), assumed=True) == []
    assert says(LauncherConflict, workload, four_gpus(), assumed=True) == [
        "1: warning: 8 processes are started on each node, and the assumed node has 4 GPUs"
    ]


def test_the_fix_names_the_flag_in_the_script() -> None:
    workload = script("deepspeed --include localhost:1,0 \\\n  --num_gpus 2 train.py\n")
    case = Case(facts=facts_of(), workload=workload)
    (finding,) = check_case(LauncherConflict, case, ()).findings
    (fix,) = finding.fixes
    assert (fix.applicability, fix.edits[0].action, fix.edits[0].line) == ("safe", "remove-flag", 2)


# --- rendezvous-unreachable --------------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "line",
    [
        "torchrun --master_port {} --nproc_per_node 2 train.py",
        "torchrun --nnodes 2 --master_addr localhost --master_port={} --nproc_per_node 2 train.py",
        "deepspeed --num_gpus 2 --master_port={} train.py",
        "RANK=0 WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 MASTER_PORT={} python train.py",
        "NPROC_PER_NODE=2 MASTER_PORT={} llamafactory-cli train x.yaml",
    ],
)
def test_a_port_that_something_listens_at(line: str, taken: int) -> None:
    said = says(RendezvousUnreachable, launched(line.format(taken)))
    assert said == [f"1: error: port {taken} is taken on this machine already"]


def test_a_port_of_accelerate_is_moved_by_recent_releases(taken: int) -> None:
    workload = launched(
        f"accelerate launch --num_processes 2 --num_machines 1 --main_process_port {taken} t.py"
    )
    told = f"port {taken} is taken on this machine"
    old, new = (Packages(installed={"accelerate": it}, modules={}) for it in ("0.20.3", "1.15.0"))
    assert says(RendezvousUnreachable, workload, old) == [f"1: error: {told} already"]
    assert says(RendezvousUnreachable, workload, new) == [
        f"1: note: {told}: accelerate takes another one, from 1.8 on"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "torchrun --standalone --master_port {} --nproc_per_node 2 train.py",
        "torchrun --nnodes 2 --node_rank 1 --master_addr 10.0.0.1 --master_port={} --nproc_per_node 2 t.py",
        "torchrun --rdzv_backend c10d --rdzv_endpoint localhost:{} --nproc_per_node 2 train.py",
        "torchrun --master_port 0 --nproc_per_node 2 train.py",
        "MASTER_PORT={} python train.py",
        "torchrun --nproc_per_node 2 train.py --master_port {}",
    ],
)
def test_a_port_that_this_machine_does_not_serve(line: str, taken: int) -> None:
    assert says(RendezvousUnreachable, launched(line.format(taken))) == []


def test_a_batch_script_is_not_judged_by_the_login_node(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"#!/bin/bash\n#SBATCH --nodes=1\ntorchrun --master_port {taken} --nproc_per_node=4 train.py\n"
    assert says(RendezvousUnreachable, script(text)) == []
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    inside = Environment(variables={"SLURM_JOB_ID": "17"})
    assert says(RendezvousUnreachable, script(text), inside) == [
        f"3: error: port {taken} is taken on this machine already"
    ]
    assert says(RendezvousUnreachable, script(text), inside, assumed=True) == []


@pytest.mark.parametrize(
    ("port", "why"),
    [("66665", "above 65535, the highest one"), ("-1", "no number"), ("auto", "no number")],
)
def test_what_is_no_port(port: str, why: str) -> None:
    said = says(RendezvousUnreachable, launched(f"torchrun --master_port={port} train.py"), assumed=True)
    assert said == [f"1: error: port {port} is {why}: the launch fails"]


def test_a_name_that_the_resolver_does_not_know() -> None:
    def ask(*question: str) -> dict[str, Any]:
        return {"value": False} if question[0] == "resolve" else {"error": "not asked"}

    line = "torchrun --nnodes 2 --nproc_per_node 2 --master_addr node-1 --master_port 29500 train.py"
    workload = read_workload(Host(ask), line.split())
    assert says(RendezvousUnreachable, workload) == [
        "1: error: the master node-1 does not resolve on this machine"
    ]
    assert says(RendezvousUnreachable, workload, assumed=True) == []


def test_names_are_asked_of_the_resolver_and_left_out_of_a_recording() -> None:
    recorder = Recorder()
    host = Host(recorder.ask)
    assert host.resolve("localhost") == (True, True)
    assert host.resolve("a..b") == (False, None)
    assert "localhost" not in json.dumps(recorder.recording(None))


def test_nothing_is_resolved_of_many_launch_lines() -> None:
    asked: list[Sequence[str]] = []

    def ask(*question: str) -> dict[str, Any]:
        asked.append(question)
        return {"value": None}

    text = "".join(f"torchrun --nnodes 2 --master_addr node-{n} train.py\n" for n in range(9))
    Path("train.sh").write_text(text)
    read_workload(Host(ask), ["train.sh"])
    assert not [it for it in asked if it[0] == "resolve"]


@given(
    st.dictionaries(
        st.sampled_from(["master_addr", "master_port", "rdzv_endpoint"]), st.text() | st.integers()
    )
)
def test_any_rendezvous_is_read(options: dict[str, object]) -> None:
    here = Place("train.sh", 1)
    launch = Launch(
        place=here,
        launcher="torchrun",
        chain=("torchrun",),
        options={name: Value(it, here) for name, it in options.items()},
        nodes=1,
    )
    number = rendezvous(launch).port_number
    assert number is None or 0 < number < 65536
    says(RendezvousUnreachable, Workload(launches=(launch,)))


# --- checkpoint-dir-too-small ------------------------------------------------------------------------

FULL = """
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments
model = AutoModelForCausalLM.from_pretrained("./llama")
args = TrainingArguments(output_dir="out", save_total_limit=2{more})
Trainer(model=model, args=args).train()
"""


def a_model(size_bytes: int, dtype: str = "float16") -> None:
    Path("llama").mkdir(exist_ok=True)
    Path("llama/config.json").write_text(json.dumps({"torch_dtype": dtype}))
    with open("llama/model.safetensors", "wb") as file:
        file.truncate(size_bytes)  # a hole: nothing is written


def with_free(workload: Workload, free_bytes: int) -> Workload:
    paths = {name: it._replace(free_bytes=free_bytes, writable=True) for name, it in workload.paths.items()}
    return msgspec.structs.replace(workload, paths=paths)


@pytest.mark.parametrize(("more", "each", "stage"), [("", 6, 0), (", deepspeed='ds.json'", 14, 3)])
def test_checkpoints_are_held_against_the_room(more: str, each: int, stage: int) -> None:
    a_model(2_000_000_000)
    Path("ds.json").write_text(json.dumps({"train_batch_size": 8, "zero_optimization": {"stage": stage}}))
    workload = script(FULL.format(more=more), "train.py")
    one = f"one checkpoint takes {each} GB or more ({each} bytes a parameter)"
    assert says(CheckpointDirTooSmall, with_free(workload, 3 * each * 10**9)) == []
    assert says(CheckpointDirTooSmall, with_free(workload, (3 * each - 1) * 10**9)) == [
        f"4: warning: {3 * each - 1} GB are free for output_dir out: {one}, and save_total_limit=2 has 3 of"
        " them there at a time"
    ]
    assert says(CheckpointDirTooSmall, with_free(workload, 10**9)) == [
        f"4: error: 1 GB are free for output_dir out: {one}"
    ]


@pytest.mark.parametrize(
    "more",
    [", save_strategy='no'", ", save_only_model=True", ", optim='adafactor'", ", optim='adamw_bnb_8bit'"],
)
def test_small_saves_fit(more: str) -> None:
    a_model(2_000_000_000)
    workload = script(FULL.format(more=more), "train.py")
    assert says(CheckpointDirTooSmall, with_free(workload, 6 * 10**9)) == []


def test_adapters_are_not_judged() -> None:
    a_model(2_000_000_000)
    text = FULL.format(more="").replace(
        "args =", "from peft import get_peft_model\nmodel = get_peft_model(model, c)\nargs ="
    )
    workload = with_free(script(text, "train.py"), 10**6)
    assert says(CheckpointDirTooSmall, workload) == []


def test_of_the_model_on_the_command_line_the_least_is_taken() -> None:
    workload = with_free(script(FULL.format(more=""), "train.py"), 10**9)
    model = Model(name="x", found_in="/x", weight_bytes=4_000_000_000)
    assert says(CheckpointDirTooSmall, workload, model) == [
        "4: error: 1 GB are free for output_dir out: one checkpoint takes 6 GB or more (6 bytes a parameter)"
    ]


# --- model-not-cached --------------------------------------------------------------------------------

LOADS = """
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("facebook/opt-125m")
data = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1")
other = load_dataset("json", data_files="x.json")
local = AutoTokenizer.from_pretrained("output/tokenizer")
"""


def test_offline_and_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = Environment(variables={"HF_HUB_OFFLINE": "1"})
    said = [
        "4: error: the model facebook/opt-125m is not in the cache, and is not downloaded (HF_HUB_OFFLINE=1)",
        "5: warning: the data set Salesforce/wikitext is not in the cache, and is not downloaded"
        " (HF_HUB_OFFLINE=1)",
    ]
    assert says(ModelNotCached, script(LOADS, "train.py"), offline, NO_CACHE) == said
    assert says(ModelNotCached, script(LOADS, "train.py"), offline, NO_CACHE, assumed=True) == []
    (tmp_path / "home/.cache/huggingface/hub/models--facebook--opt-125m").mkdir(parents=True)
    (tmp_path / "home/.cache/huggingface/datasets/Salesforce___wikitext").mkdir(parents=True)
    assert says(ModelNotCached, script(LOADS, "train.py"), offline, NO_CACHE) == []


def test_the_cache_of_the_launch_line_counts(tmp_path: Path) -> None:
    Path("train.py").write_text(LOADS)
    line = f"HF_HOME={{}} TRANSFORMERS_OFFLINE=1 python {tmp_path}/train.py"
    (tmp_path / "full/hub/models--facebook--opt-125m").mkdir(parents=True)
    (tmp_path / "full/hub/datasets--Salesforce--wikitext").mkdir(parents=True)
    environment = Environment(variables={})
    assert says(ModelNotCached, launched(line.format(tmp_path / "full")), environment, NO_CACHE) == []
    said = says(ModelNotCached, launched(line.format(tmp_path / "empty")), environment, NO_CACHE)
    assert [it.split(" (")[0] for it in said] == [
        "4: error: the model facebook/opt-125m is not in the cache, and is not downloaded",
        "5: warning: the data set Salesforce/wikitext is not in the cache, and is not downloaded",
    ]
    own = f'import os\nos.environ["HF_HOME"] = "{tmp_path / "full"}"\nos.environ["HF_HUB_OFFLINE"] = "1"\n'
    assert says(ModelNotCached, script(own + LOADS, "own.py"), environment, NO_CACHE) == []
    empty = own.replace("full", "empty")
    first, *_ = says(ModelNotCached, script(empty + LOADS, "own.py"), environment, NO_CACHE)
    assert first.split(" of /")[0] == (
        "7: error: the model facebook/opt-125m is not in the cache, and is not downloaded"
        " (HF_HUB_OFFLINE=1 on line 3"
    )
    Path("train.sh").write_text("export HF_HUB_OFFLINE=1 HF_HOME=$SCRATCH/hf\npython train.py\n")
    workload = read_workload(real_host(), ["train.sh"])
    assert says(ModelNotCached, workload, environment, NO_CACHE) == []


def test_online_only_a_gated_model_without_a_token_is_a_note() -> None:
    text = LOADS.replace("facebook/opt-125m", "meta-llama/Llama-2-7b-hf")
    environment = Environment(variables={})
    assert says(ModelNotCached, script(text, "train.py"), environment, NO_CACHE) == [
        "4: note: meta-llama/Llama-2-7b-hf is not in the cache, and there is no access token: it is one of"
        " those that need one"
    ]
    with_token = Environment(variables={"HF_TOKEN": "(set)"})
    assert says(ModelNotCached, script(text, "train.py"), with_token, NO_CACHE) == []
    given = text.replace('-hf")', '-hf", token=TOKEN)')
    assert says(ModelNotCached, script(given, "train.py"), environment, NO_CACHE) == []


@given(st.text())
def test_any_name_is_looked_at(name: str) -> None:
    here = Place("train.sh", 1)
    flags = (Value("--model_name_or_path", here), Value(name, here))
    launch = Launch(place=here, launcher="python", arguments=flags)
    for named in named_on_the_hub(Workload(launches=(launch,))):
        assert all("\n" not in it for it in cache_entries(named, {}))


# --- cache-dir-too-small -----------------------------------------------------------------------------


def memory(path: str, free_bytes: int) -> Mounts:
    mount = Mount(
        path=path, filesystem="tmpfs", device="tmpfs", kind="memory", read_only=False, free_bytes=free_bytes
    )
    return Mounts(mounts=(mount,))


def test_a_cache_dir_is_judged_where_it_is_written() -> None:
    text = LOADS.replace('opt-125m")', 'opt-125m", cache_dir="/data/cache")')
    workload = with_free(script(text, "train.py"), 10**8)
    assert says(CacheDirTooSmall, workload) == ["4: warning: cache_dir=/data/cache has only 100 MB free"]
    assert says(CacheDirTooSmall, workload, assumed=True) == []
    assert says(CacheDirTooSmall, with_free(workload, 10**11)) == []
    small = "less than a model of 7 billion parameters takes in float16 (15 GB)"
    assert says(CacheDirTooSmall, with_free(workload, 10**10)) == [
        f"4: warning: cache_dir=/data/cache has 10 GB free: {small}"
    ]


def test_a_launch_line_that_is_about_to_run_is_an_error() -> None:
    workload = with_free(launched("HF_HOME=/scratch/hf python train.py --cache_dir cache"), 10**8)
    assert says(CacheDirTooSmall, workload) == [
        "1: error: HF_HOME=/scratch/hf has only 100 MB free",
        "1: error: --cache_dir=cache, from --cache_dir on line 1 of command line has only 100 MB free",
    ]
    offline = Environment(variables={"HF_HUB_OFFLINE": "1"})
    assert {it.split()[1] for it in says(CacheDirTooSmall, workload, offline)} == {"note:"}


def test_a_cache_in_memory() -> None:
    workload = with_free(launched("HF_HOME=/dev/shm/hf python train.py"), 60 * 10**9)
    shm = memory(workload.paths["/dev/shm/hf"].nearest, 60 * 10**9)
    assert says(CacheDirTooSmall, workload, shm) == [
        "1: warning: HF_HOME=/dev/shm/hf is main memory (tmpfs), lost at a reboot"
    ]


def test_tmp_is_a_note_and_a_place_holder_nothing() -> None:
    big = with_free(launched("HF_HOME=/tmp/hf python train.py"), 10**12)
    assert says(CacheDirTooSmall, big) == [
        "1: note: HF_HOME=/tmp/hf: /tmp is often small, in memory, or emptied at a reboot"
    ]
    workload = script("export HF_HOME=$SCRATCH/hf\npython train.py --cache_dir '<your cache>'\n")
    assert workload.paths == {}
    assert says(CacheDirTooSmall, workload) == []


def test_a_folder_that_cannot_be_made() -> None:
    workload = launched("HF_HOME=/proc/nothing/hf python train.py")
    state = workload.paths["/proc/nothing/hf"]._replace(writable=False)
    workload = msgspec.structs.replace(workload, paths={"/proc/nothing/hf": state})
    assert says(CacheDirTooSmall, workload) == [
        "1: error: HF_HOME=/proc/nothing/hf is not there, and cannot be made: /proc cannot be written by this"
        " user"
    ]


@pytest.mark.parametrize("check", ALL)
def test_without_a_workload_or_launch_nothing_is_invented(check: type[Check]) -> None:
    for workload in (None, Workload()):
        assert says(check, workload) == []  # type: ignore[arg-type]
