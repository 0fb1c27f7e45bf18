"""Launch lines: the program, its arguments and how many processes each launcher starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor.host import real_host
from llm_doctor.workload.data import UNKNOWN, Job, Launch, Place, Value
from llm_doctor.workload.launch import command_line, is_launch, launch_of


@pytest.fixture(autouse=True)
def no_default_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)


def launch(line: str, **given: Any) -> Launch | None:
    """The launch of a line without quotes; `?` stands for what is not known."""
    words = [
        word._replace(constant=UNKNOWN, origin="$X") if word.constant == "?" else word
        for word in command_line(line.split())
    ]
    return launch_of(words, host=real_host(), **given)


def told(line: str, **given: Any) -> str | None:
    """Launchers, program, its arguments, processes x nodes: as one line."""
    found = launch(line, **given)
    if found is None:
        return None
    program = found.script or found.module
    words = [*([program] if program else []), *found.arguments]
    shown = " ".join("?" if not word.known else str(word.constant) for word in words)
    world = f"{found.processes_per_node or '?'}x{found.nodes or '?'}"
    return f"{'+'.join(found.chain)}: {'-m ' if found.module else ''}{shown} [{world}]"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("python train.py --bf16 True", "python: train.py --bf16 True [1x1]"),
        ("/opt/env/bin/python3.10 -u -W ignore train.py -x", "python: train.py -x [1x1]"),
        ("python -um pkg.train --lr 1", "python: -m pkg.train --lr 1 [1x1]"),
        ("CUDA_VISIBLE_DEVICES=1 nohup python a.py", "nohup+python: a.py [1x1]"),
        ("./train.py --fp16", "python: ./train.py --fp16 [1x1]"),
        (
            "deepspeed --num_gpus 8 train.py --deepspeed ds.json",
            "deepspeed: train.py --deepspeed ds.json [8x1]",
        ),
        ("deepspeed --num_gpu=4 --num_node 2 a.py", "deepspeed: a.py [4x2]"),
        ("deepspeed a.py", "deepspeed: a.py [?x1]"),
        ("CUDA_VISIBLE_DEVICES=0,2,3 deepspeed a.py", "deepspeed: a.py [3x1]"),
        ("deepspeed -i localhost:0,2 --master_port 1 a.py", "deepspeed: a.py [2x1]"),
        ("deepspeed --include worker-0:0,1@worker-1:0,1 a.py", "deepspeed: a.py [2x2]"),
        ("deepspeed --include localhost:1 --num_gpus 2 a.py", "deepspeed: a.py [?x?]"),
        ("deepspeed --launcher slurm a.py", "deepspeed: a.py [?x?]"),
        ("deepspeed --num_gpus 2 --module pkg.mod --x", "deepspeed: -m pkg.mod --x [2x1]"),
        ("deepspeed --no_local_rank --no_python python a.py", "deepspeed+python: a.py [?x1]"),
        ("torchrun --nproc-per-node 8 a.py --x", "torchrun: a.py --x [8x1]"),
        ("torchrun --nproc_per_node=gpu --nnodes=2:2 a.py", "torchrun: a.py [?x2]"),
        ("torchrun --standalone --nnodes 1:4 a.py", "torchrun: a.py [1x?]"),
        ("python -m torch.distributed.run --nproc_per 2 -m pkg.a", "torchrun: -m pkg.a [2x1]"),
        ("python3 -m torch.distributed.launch --use_env --nnodes 2 a.py", "torchrun: a.py [1x2]"),
        ("torchrun --a_new_option 3 --nproc-per-node 2 a.py", "torchrun: a.py [2x1]"),
        ("accelerate launch a.py", "accelerate: a.py [?x?]"),
        ("accelerate launch --num_processes 8 --num-machines 2 a.py", "accelerate: a.py [4x2]"),
        ("accelerate launch --cpu a.py", "accelerate: a.py [1x1]"),
        ("accelerate-launch --multi_gpu --num_processes=2 a.py", "accelerate: a.py [2x1]"),
        ("python -m accelerate.commands.launch --num_processes 2 a.py", "accelerate: a.py [2x1]"),
        ("accelerate launch --config_file absent.yaml a.py", "accelerate: a.py [?x?]"),
        (
            "accelerate launch -m axolotl.cli.train x.yml",
            "accelerate+axolotl: -m axolotl.cli.train x.yml [?x?]",
        ),
        ("axolotl train x.yml", "axolotl: x.yml [?x?]"),
        ("llamafactory-cli train x.yaml lr=1", "llamafactory-cli: x.yaml lr=1 [?x1]"),
        ("NPROC_PER_NODE=8 NNODES=2 lmf train x.yaml", "llamafactory-cli: x.yaml [8x2]"),
        ("swift sft --model q", "swift: --model q [1x1]"),
        ("NPROC_PER_NODE=4 swift sft --model q", "swift: --model q [4x1]"),
        ("trl sft --bf16", "trl: --bf16 [?x?]"),
        ("srun -n8 -N2 python a.py", "srun+python: a.py [4x2]"),
        ("srun --ntasks=8 --ntasks-per-node=4 -l -K python a.py", "srun+python: a.py [4x2]"),
        (
            "srun -N 2 --gpus-per-node=8 torchrun --nnodes 2 --nproc-per-node 8 a.py",
            "srun+torchrun: a.py [8x2]",
        ),
        ("mpirun -np 4 --mca btl ^openib -x PATH python a.py", "mpirun+python: a.py [4x1]"),
        ("mpiexec -n 8 -ppn 4 -env A 1 -env B=2 python a.py", "mpiexec+python: a.py [4x2]"),
        ("horovodrun -np 8 -H a:4,b:4 python a.py", "horovodrun+python: a.py [4x2]"),
        ("timeout -k 5 2h env -u A B=1 python a.py", "timeout+env+python: a.py [1x1]"),
        ("numactl --cpunodebind=0 -m 0 deepspeed --num_gpus 1 a.py", "numactl+deepspeed: a.py [1x1]"),
        ("apptainer exec --nv -B /d x.sif python a.py", "apptainer+python: a.py [1x1]"),
        ("conda run -n env --no-capture-output python a.py", "conda+python: a.py [1x1]"),
        ("uv run --with peft a.py --x", "uv+python: a.py --x [1x1]"),
        ("python -m pdb a.py", "pdb+python: a.py [1x1]"),
        ("torchrun ? a.py --bf16", "torchrun: a.py --bf16 [?x?]"),
        ("torchrun --nproc_per_node ? ? --bf16", "torchrun: ? --bf16 [?x1]"),
        ("deepspeed ? --num_gpus 2 a.py", "deepspeed: a.py [2x?]"),
        ("? a.py --x", ": a.py --x [?x?]"),
    ],
)
def test_what_a_line_starts(line: str, expected: str) -> None:
    assert told(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "pip install torch",
        "mkdir -p out",
        "python setup.py install",
        "python -c print(1)",
        "python -m pip install torch",
        "python",
        "deepspeed --num_gpus 8",
        "accelerate config",
        "accelerate test x.py",
        "conda activate env",
        "conda install python a.py",
        "llamafactory-cli version",
        "trl env",
        "docker run --gpus all image python a.py",
        "srun hostname",
        "echo python a.py",
        "torchrun --no-python bash run.sh",
        "? --x",
        "A=1",
    ],
)
def test_what_starts_no_program(line: str) -> None:
    assert launch(line) is None


def test_a_variable_named_for_python_is_python() -> None:
    words = list(command_line(["x", "-m", "torch.distributed.run", "--nproc_per_node=2", "a.py"]))
    words[0] = words[0]._replace(constant=UNKNOWN, origin='"${PYTHON_BIN}"')
    found = launch_of(words, host=real_host())
    assert found is not None and (found.launcher, found.processes_per_node) == ("torchrun", 2)


def test_every_word_has_its_place_in_the_command_line() -> None:
    found = launch("deepspeed --num_gpus=8 --master_port 29501 train.py --bf16 True")
    assert found is not None
    assert found.place == Place("command line", 1, 1, 1, 10)
    assert found.options["master_port"] == Value(
        29501,
        Place("command line", 1, 38, 1, 43),
        Place("command line", 1, 24, 1, 37),
        "--master_port on line 1 of command line",
    )
    assert found.options["num_gpus"].constant == 8
    assert found.flags["bf16"].constant == "True"
    assert found.flags["bf16"].key == Place("command line", 1, 53, 1, 59)


def test_assignments_on_every_level_are_the_environment() -> None:
    given = {"A": Value("old", Place("x.sh", 1)), "KEPT": Value("1", Place("x.sh", 2))}
    found = launch("A=1 env B=2 mpirun -np 2 -x C=3 -x PATH python a.py", environment=given)
    assert found is not None
    assert {name: value.constant for name, value in found.environment.items()} == {
        "A": "1",
        "KEPT": "1",
        "B": "2",
        "C": "3",
    }
    assert found.environment["C"].place == Place("command line", 1, 31, 1, 32)


def test_srun_takes_over_what_the_job_asks_for() -> None:
    place = Place("a.sbatch", 1)
    job = Job(place, {"nodes": Value("2", place), "ntasks-per-node": Value("4", place)})
    assert told("srun python a.py", job=job) == "srun+python: a.py [4x2]"
    assert told("srun -N 1 python a.py", job=job) == "srun+python: a.py [4x1]"
    assert told("srun python a.py", job=Job(place, {})) == "srun+python: a.py [1x1]"
    assert told("srun python a.py") == "srun+python: a.py [1x?]"


HOSTFILE = "# all\nw0 slots=8\nw1 slots=8\n\nw2 slots=4\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", "?x3"),
        ("--num_nodes 2", "8x2"),
        ("--num_gpus 2", "2x3"),
        ("--exclude w2", "8x2"),
        ("--exclude w0:0,1,2,3@w1:0,1,2,3", "4x3"),
        ("--include w0@w2:0", "?x2"),
        ("--include w1", "8x1"),
    ],
)
def test_a_hostfile_says_where(options: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "hosts").write_text(HOSTFILE)
    assert told(f"deepspeed -H hosts {options} a.py") == f"deepspeed: a.py [{expected}]"


def test_a_hostfile_that_is_not_there_or_broken_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("w0 8\n")
    for name in ("absent", "broken"):
        assert told(f"deepspeed --hostfile {name} --num_gpus 4 a.py") == "deepspeed: a.py [4x?]"


DEEPSPEED_CONFIG = """\
compute_environment: LOCAL_MACHINE
deepspeed_config:
  deepspeed_config_file: ds.json
  zero3_init_flag: true
distributed_type: DEEPSPEED
fsdp_config: {}
machine_rank: 0
main_process_ip: null
mixed_precision: bf16
num_machines: 2
num_processes: 16
"""


def test_the_configuration_of_accelerate_says_what_the_line_does_not(tmp_path: Path) -> None:
    (tmp_path / "acc.yaml").write_text(DEEPSPEED_CONFIG)
    found = launch("accelerate launch --config_file acc.yaml --mixed_precision fp16 a.py")
    assert found is not None
    assert (found.processes_per_node, found.nodes) == (8, 2)
    options = found.options
    assert options["mixed_precision"].constant == "fp16"
    assert options["mixed_precision"].place.path == "command line"
    assert options["use_deepspeed"].constant is True
    assert options["use_deepspeed"].place == Place("acc.yaml", 5, 19, 5, 28)
    assert options["deepspeed_config_file"].constant == "ds.json"
    assert options["deepspeed_config_file"].place == Place("acc.yaml", 3, 26, 3, 33)
    assert options["num_processes"].origin == "num_processes on line 11 of acc.yaml"
    assert "main_process_ip" not in options
    assert told("accelerate launch --config_file acc.yaml --num_processes 8 a.py") == "accelerate: a.py [4x2]"


@pytest.mark.parametrize(
    ("config", "options", "expected"),
    [
        ("distributed_type: 'NO'\nnum_processes: 4\n", "", "1x1"),
        ("distributed_type: 'NO'\nnum_processes: 4\n", "--multi_gpu", "4x1"),
        ("distributed_type: MULTI_GPU\nnum_processes: 4\n", "", "4x1"),
        ("distributed_type: FSDP\nnum_processes: -1\n", "", "?x1"),
        ("distributed_type: FSDP\nnum_machines: 3\nnum_processes: 8\n", "", "?x3"),
        ("distributed_type: [", "", "?x?"),
        ("- 1\n", "", "?x?"),
    ],
)
def test_how_many_processes_accelerate_starts(
    config: str, options: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text(config)
    assert told(f"accelerate launch --config_file=a.yaml {options} a.py") == f"accelerate: a.py [{expected}]"


def test_the_default_configuration_of_accelerate_counts(tmp_path: Path) -> None:
    folder = tmp_path / "hf" / "accelerate"
    folder.mkdir(parents=True)
    (folder / "default_config.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    assert told("accelerate launch a.py") == "accelerate: a.py [2x1]"
    assert told("accelerate launch --cpu a.py") == "accelerate: a.py [1x1]"


def test_a_configuration_is_found_beside_the_script_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "conf").mkdir(parents=True)
    (tmp_path / "jobs" / "conf" / "a.yaml").write_text("distributed_type: MULTI_GPU\nnum_processes: 2\n")
    words = ["accelerate", "launch", "--config_file", "conf/a.yaml", "a.py"]
    found = launch_of([Value(word, Place("jobs/run.sh", 3)) for word in words], host=real_host())
    assert found is not None and found.processes_per_node == 2
    assert found.options["num_processes"].place.path == "jobs/conf/a.yaml"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("deepspeed train.py", True),
        ("/opt/bin/torchrun --nproc-per-node 8 train.py", True),
        ("python3.11 train.py", True),
        ("A=1 B=2 python -m pkg", True),
        ("env -u X python train.py", True),
        ("accelerate launch x.py", True),
        ("llamafactory-cli train x.yaml", True),
        ("srun -N 2 python train.py", True),
        ("uv run train.py", True),
        ("train.py ds_config.json", False),
        ("./train.py", False),
        ("deepspeed", False),
        ("deepspeed/ accelerate/", False),
        ("trl peft", False),
        ("accelerate examples", False),
        ("configs", False),
        ("train.sbatch", False),
        ("", False),
    ],
)
def test_a_launch_line_is_told_from_files_and_folders(line: str, expected: bool) -> None:
    assert is_launch(line.split()) is expected


FRAGMENTS = """? python -m -c -u --x --x=1 a.py A=1 -- - -n4 --no-python 2 torch.distributed.run srun mpirun
    --mca -x deepspeed --include localhost:0 -H hosts accelerate launch --config_file a.yaml torchrun
    --nnodes 1:2 uv run env trl sft pdb timeout --nproc_per_node --num_gpus --num_processes -uO
    --exclude w0@w1:0,"""
WORDS = st.sampled_from(FRAGMENTS.split())


@given(st.one_of(st.lists(WORDS, max_size=12), st.lists(st.text(max_size=6), max_size=6)))
def test_no_line_is_too_strange(words: list[str]) -> None:
    is_launch(words)
    values = [
        word._replace(constant=UNKNOWN) if word.constant == "?" else word for word in command_line(words)
    ]
    found = launch_of(values, host=real_host())
    if found is not None:
        assert found.launcher == found.chain[-1] or "no_python" in found.options
        assert set(found.arguments) <= set(values)


def test_launchers_behind_each_other_without_end() -> None:
    assert launch("torchrun --no-python " * 3000 + "a.py") is None
    assert launch("nohup " * 3000 + "python a.py") is None
