"""Shell scripts: the launches in them, with the values and places that the script itself tells."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_doctor.host import real_host
from llm_doctor.workload.data import UNKNOWN, Launch, Place, Problem, Value
from llm_doctor.workload.shell import read_shell


@pytest.fixture(autouse=True)
def no_default_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def read(script: str, path: str = "run.sh") -> tuple[list[Launch], list[Problem]]:
    return read_shell(path, textwrap.dedent(script), real_host())


def launches(script: str, path: str = "run.sh") -> list[Launch]:
    found, problems = read(script, path)
    assert problems == []
    return found


def shown(value: Value) -> str:
    return "?" if value.constant is UNKNOWN else str(value.constant)


def lines(script: str) -> list[str]:
    """Every launch as `line launcher program arguments`; `?` is what is not known."""
    return [
        " ".join(
            [
                str(it.place.line),
                it.launcher,
                *map(shown, [*filter(None, [it.script, it.module]), *it.arguments]),
            ]
        )
        for it in launches(script)
    ]


def test_a_job_script_as_people_write_it() -> None:
    (found,) = launches(
        """\
        #!/bin/bash
        #SBATCH --job-name=sft        # a comment
        #SBATCH -N 2 --ntasks-per-node=1
        #SBATCH --gres=gpu:a100:4
        #SBATCH -t 12:00:00
        #SBATCH --exclusive
        ##SBATCH --mem=1G
        set -e

        #SBATCH --mem=2G
        export NCCL_DEBUG=INFO
        GPUS=4
        MODEL="meta-llama/Llama-2-7b-hf"
        OUT=out/${SLURM_JOB_ID}
        ARGS="--bf16 True \\
              --learning_rate 2e-5"

        cd train
        CUDA_VISIBLE_DEVICES=0,1,2,3 srun torchrun --nproc_per_node=$GPUS --nnodes $SLURM_NNODES \\
            --rdzv_endpoint $HEAD:29500 \\
            train.py --model_name_or_path $MODEL $ARGS \\
            --output_dir="$OUT" --evaluation_strategy "no"
        """,
        "jobs/train.sbatch",
    )
    path = "jobs/train.sbatch"
    assert found.place == Place(path, 19, 1, 22, 51)
    assert (found.launcher, found.chain, found.directory) == ("torchrun", ("srun", "torchrun"), "train")
    assert (found.processes_per_node, found.nodes, found.world_size) == (4, 2, 8)
    assert found.script == Value("train.py", Place(path, 21, 5, 21, 13))
    assert found.options["nproc_per_node"].constant == 4
    assert found.options["nnodes"].place == Place(path, 3, 12, 3, 13)
    assert found.options["rdzv_endpoint"].constant is UNKNOWN
    assert [(shown(it), it.place.line, it.place.column) for it in found.arguments] == [
        ("--model_name_or_path", 21, 14),
        ("meta-llama/Llama-2-7b-hf", 13, 8),
        ("--bf16", 15, 7),
        ("True", 15, 14),
        ("--learning_rate", 16, 7),
        ("2e-5", 16, 23),
        ("--output_dir", 22, 5),
        ("?", 22, 5),
        ("--evaluation_strategy", 22, 25),
        ("no", 22, 48),
    ]
    bf16 = found.flags["bf16"]
    assert bf16 == Value(
        "True", Place(path, 15, 14, 15, 18), Place(path, 15, 7, 15, 13), f"--bf16 on line 15 of {path}"
    )
    assert found.environment == {
        "NCCL_DEBUG": Value("INFO", Place(path, 11, 19, 11, 23), Place(path, 11, 8, 11, 23)),
        "CUDA_VISIBLE_DEVICES": Value("0,1,2,3", Place(path, 19, 22, 19, 29), Place(path, 19, 1, 19, 29)),
    }
    assert found.job is not None
    assert found.job.place == Place(path, 2, 1, 2, 42)
    assert {name: value.constant for name, value in found.job.directives.items()} == {
        "job-name": "sft",
        "nodes": "2",
        "ntasks-per-node": "1",
        "gres": "gpu:a100:4",
        "time": "12:00:00",
        "exclusive": True,
    }
    assert found.job.directives["gres"].place == Place(path, 4, 16, 4, 26)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (
            "python a.py $X ${X} ${X:-d}\nX=1\npython b.py $X ${X}y ${X:-d} ${X:+z}",
            ["1 python a.py ? ? d", "3 python b.py 1 1y 1 z"],
        ),
        ("X='a b'\npython a.py $X \"$X\" --x=$X '$X' \\$X", ["2 python a.py a b a b --x=a b $X $X"]),
        ("X=''\npython a.py $X \"$X\" ${X:-d} z", ["2 python a.py  d z"]),
        ('X="--a"\nX="$X --b"\nX+=" --c"\npython a.py $X', ["4 python a.py --a --b --c"]),
        (
            'A=(--a "b c" # no\n --d)\nA+=(--e)\npython a.py "${A[@]}" ${A[1]} $A',
            ["4 python a.py --a b c --d --e b c --a"],
        ),
        ('python a.py $1 "$@" $(ls) `ls` --x=$1 <(ls)', ["1 python a.py ? ? ? ? --x ? ?"]),
        ("N=2\nG=4\npython a.py $((N * $G)) $((N+M)) $((N/0))", ["3 python a.py 8 ? ?"]),
        ("N=$[2*$[M]]\npython a.py --n=$N --m $[1+2]", ["2 python a.py --n ? --m ?"]),
        ("python a.py x{1,2} '{1,2}' {a}", ["1 python a.py ? {1,2} {a}"]),
        ('python a.py $\'a\\tb\' "q\\"q" a"b"\'c\'', ['1 python a.py a\tb q"q abc']),
        ("X=${Y%.py} Z=${#Y}\npython a.py $X $Z", ["2 python a.py ? ?"]),
        ("read X\nX=1\nread X Y\npython a.py $X $Y", ["4 python a.py ? ?"]),
        ("X=1\nunset X\npython a.py $X", ["3 python a.py ?"]),
    ],
)
def test_words_are_expanded_as_bash_does(script: str, expected: list[str]) -> None:
    assert lines(script) == expected


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("if a; then X=1 Y=1; else X=2 Y=1; fi\npython a.py $X $Y", ["2 python a.py ? 1"]),
        ("X=1\nif a; then X=2; python a.py $X; fi\npython b.py $X", ["2 python a.py 2", "3 python b.py ?"]),
        ("X=1\nif a; then X=2; exit 1; fi\npython a.py $X", ["3 python a.py 1"]),
        ("if false; then python a.py; fi\npython b.py", ["2 python b.py"]),
        ("case $1 in a) X=1;; *) X=1;; esac\npython a.py $X", ["2 python a.py 1"]),
        ("case $1 in a) X=1;; esac\npython a.py $X", ["2 python a.py ?"]),
        ('[ -z "$1" ] && X=1\npython a.py $X', ["2 python a.py ?"]),
        ("cd x && X=1\npython a.py $X", ["2 python a.py 1"]),
        ("for x in 1 2; do X=1; python a.py $x $X $Y; Y=2; done", ["1 python a.py ? 1 ?"]),
        ("for ((i=0;i<3;i++)); do python a.py $i; done", ["1 python a.py ?"]),
        ("while true; do python a.py; break; python b.py; done", ["1 python a.py "]),
        ("f() { python a.py $1 $X; }\nX=1\nf y\nX=2", ["1 python a.py ? 1"]),
        ("f() { python a.py $X; }\nX=1", ["1 python a.py 1"]),
        ("f() { g; }\ng() { python a.py; }", ["2 python a.py"]),
        ("(X=1; python a.py $X)\npython b.py $X", ["1 python a.py 1", "2 python b.py ?"]),
        ("python a.py\nexit\npython b.py", ["1 python a.py "]),
    ],
)
def test_what_a_branch_or_loop_changes_is_not_known(script: str, expected: list[str]) -> None:
    assert lines(script) == [line.rstrip() for line in expected]


@pytest.mark.parametrize(
    "script",
    [
        "# python a.py --bf16",
        "echo python a.py",
        "cat <<EOF > run.sh\npython a.py\nEOF",
        ": <<'END'\npython a.py\nEND",
        "X='python a.py'",
        "pip install -r requirements.txt\nmkdir -p out",
        "source train.sh\nbash train.sh\nsbatch train.sbatch",
        "",
    ],
)
def test_what_is_no_launch(script: str) -> None:
    assert launches(script) == []


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("python a.py > log 2>&1 --bf16 | tee x &", ["1 python a.py --bf16"]),
        (
            "time python a.py; ! python b.py && { python c.py; }",
            ["1 python a.py", "1 python b.py", "1 python c.py"],
        ),
        ("cat <<EOF > f && python a.py\nx\nEOF\npython b.py", ["1 python a.py", "4 python b.py"]),
        ("python a.py <<EOF\nx\nEOF", ["1 python a.py"]),
        ("python a.py \\\n  --a \\\n  # --b \\\n  --c\npython b.py", ["1 python a.py --a", "5 python b.py"]),
        ("python a.py \\\n  --a `# why` \\\n  --b", ["1 python a.py --a --b"]),
        ("python a.py \\\n\n  --a", ["1 python a.py"]),
        ("python a.py \\\n  --a \\", ["1 python a.py --a"]),
        ("python a.py \\\r\n  --a\r\npython b.py\r\n", ["1 python a.py --a", "3 python b.py"]),
        (
            "CMD='deepspeed a.py --x'\n$CMD --y\neval $CMD\neval \"$CMD --z\"",
            ["2 deepspeed a.py --x --y", "1 deepspeed a.py --x", "1 deepspeed a.py --x --z"],
        ),
        ("bash -c 'cd x; python a.py --x \"a b\"'", ["1 python a.py --x a b"]),
        ('sbatch --wrap="python a.py --x"', ["1 python a.py --x"]),
        ("sbatch <<EOF\n#!/bin/bash\npython a.py $1\nEOF", ["3 python a.py ?"]),
        ("python a.py --名 模型 --bf16 # 注释", ["1 python a.py --名 模型 --bf16"]),
    ],
)
def test_where_a_command_begins_and_ends(script: str, expected: list[str]) -> None:
    assert lines(script) == expected


def test_places_count_characters_and_stay_in_the_file() -> None:
    (found,) = launches('X="--名 值"\npython 训练.py --模型 "a" $X\n')
    assert [(shown(it), it.place[1:]) for it in found.arguments] == [
        ("--模型", (2, 14, 2, 18)),
        ("a", (2, 20, 2, 21)),
        ("--名", (1, 4, 1, 7)),
        ("值", (1, 8, 1, 9)),
    ]


def test_a_word_put_together_is_written_where_it_is_put_together() -> None:
    (found,) = launches('D=/data\nA="--out $D/x --in $D"\npython a.py $A ${D}y\n')
    assert [(shown(it), it.place[1:]) for it in found.arguments] == [
        ("--out", (2, 4, 2, 9)),
        ("/data/x", (2, 10, 2, 14)),
        ("--in", (2, 15, 2, 19)),
        ("/data", (1, 3, 1, 8)),
        ("/datay", (3, 16, 3, 21)),
    ]


def test_a_quoted_script_keeps_its_places_and_its_launchers() -> None:
    (found,) = launches(
        """\
        export CMD="train.py \\
            --bf16 \\
            "
        LAUNCHER="python -u -m torch.distributed.run --nproc_per_node 8"
        srun --jobid $SLURM_JOBID -N 4 bash -c "$LAUNCHER --node_rank \\$SLURM_PROCID --nnodes 4 $CMD"
        """
    )
    assert (found.chain, found.processes_per_node, found.nodes) == (("srun", "torchrun"), 8, 4)
    assert found.place == Place("run.sh", 4, 11, 4, 17)
    assert found.options["node_rank"].constant is UNKNOWN
    assert found.script == Value("train.py", Place("run.sh", 1, 13, 1, 21))
    assert found.arguments == (Value("--bf16", Place("run.sh", 2, 5, 2, 11)),)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("python a.py", ""),
        ("cd x/y && cd .. && python a.py", "x"),
        ("cd /w; cd z; python a.py", "/w/z"),
        ("pushd x; pushd ../y; popd; python a.py", "x"),
        ("cd $ROOT; python a.py", "$ROOT"),
        ("(cd x); python a.py", ""),
        ('cd "$(dirname "$0")"/..; python a.py', ""),
        ('cd "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"; python a.py', "jobs"),
        ("#SBATCH --chdir=/w\npython a.py", "/w"),
    ],
)
def test_the_folder_of_a_launch(script: str, expected: str) -> None:
    assert [it.directory for it in launches(script, "jobs/run.sh")] == [expected]


def test_only_what_is_exported_reaches_the_program() -> None:
    (found,) = launches("A=1\nexport B=2 C\nC=3\ndeclare -x D=$X\nE=5 python a.py\n")
    assert {name: shown(value) for name, value in found.environment.items()} == {
        "B": "2",
        "C": "3",
        "D": "?",
        "E": "5",
    }


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ('python a.py\npython b.py "x\n', "run.sh:2:13: a syntax error: '\"' is never closed"),
        ("python a.py\nif x; then\n  python b.py\n", "run.sh:3:14: a syntax error: 'fi' is missing"),
        ("python a.py (x)\n", "run.sh:1:8: a syntax error: unexpected 'a.py'"),
        ("python a.py\0\n", "run.sh:1:1: binary data (a NUL byte), not a shell script"),
        ("a | " * 4000, "run.sh: more than 3000 times '|': data, not a shell script"),
        (
            "X=x\n" + 'X="$X $X"\n' * 15 + "python a.py $X\n" * 300,
            "run.sh: its commands come to more than 200,000 words; those after them are not read",
        ),
    ],
)
def test_what_cannot_be_read_is_one_problem(script: str, problem: str) -> None:
    _, problems = read(script)
    assert [str(it) for it in problems] == [problem]


def test_what_stands_around_a_syntax_error_is_read() -> None:
    found, problems = read("python a.py --x\npython c.py (x)\npython b.py --y\n")
    assert len(problems) == 1 and problems[0].line == 2
    assert [it.script and it.script.constant for it in found] == ["a.py", "c.py", "b.py"]


@pytest.mark.parametrize(
    "script",
    [
        "(" * 10_000 + "python a.py" + ")" * 10_000,
        "if a; then\n" * 3_000 + "python a.py\n" + "fi\n" * 3_000,
        "$(" * 10_000,
        "a && " * 10_000 + "python a.py",
        "x" * 1_000_000,
        "echo " + "a " * 500_000,
        "".join(map(chr, range(1, 256))) * 400,
        "bash -c '" * 2_000,
        "f() { f; g; }\ng() { f; g; }\nf\ng\n",
        "X=$X\nX=${X:-$X}\npython a.py $X\n" * 200,
        "[ a ] && " * 5_000 + "X=1",
    ],
)
def test_nothing_is_too_deep_or_too_long(script: str) -> None:
    read(script)


FRAGMENTS = """python|a.py|--bf16|$X|${X:-b}|"${A[@]}"|X=1|A=(b c)|X+=d|export|if a; then|else|fi|
for i in 1;|do|done|case $1 in|a)|;;|esac|f() {|}|(|)|"|'|`|$(|<<EOF|EOF|>|&&|cd x|eval|bash -c|srun -n 2|
torchrun|$((|))|#SBATCH -N 2|exit|\\|{1,2}|--x=$X|é|\ue000""".replace("\n", "").split("|")


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.lists(st.sampled_from([*FRAGMENTS, "|", "\n", " ", "\\\n", ";"]), max_size=40).map(" ".join),
        st.lists(st.sampled_from([*FRAGMENTS, "|", "\n", " "]), max_size=40).map("".join),
        st.text(max_size=60),
    )
)
def test_no_script_is_too_strange(script: str) -> None:
    found, _ = read_shell("a.sh", script, real_host())
    ends = [0, *(len(line) for line in script.split("\n"))]
    for launch in found:
        for value in (*launch.arguments, *launch.environment.values(), *launch.options.values()):
            line, column = value.place.line, value.place.column
            assert 1 <= line < len(ends) and 1 <= column <= ends[line] + 1
