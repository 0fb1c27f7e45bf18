"""Several ranks on a node: one examines and the others get what it found, whatever becomes of it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, Iterator, Mapping

import pytest

from llm_doctor import ranks

# A rank that says when it examines, does so until it is told to stop, and prints what it has in the end.
RANK = """
import os, sys, time
from pathlib import Path
from llm_doctor import ranks

here, question, crash = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
me = os.environ.get("LOCAL_RANK", "alone")

def end(*arguments):
    os.kill(os.getpid(), 9)

try:
    with ranks.once_per_node(os.environ, here / "shared", question, float(sys.argv[4])) as turn:
        verdict = turn.verdict
        if turn.mine:
            if crash == "with a child" and os.fork() == 0:
                os.close(1)
                while not (here / "go").exists():
                    time.sleep(0.01)
                os._exit(0)
            with open(here / "examined", "a") as log:
                log.write(f"{me} {os.getpid()}\\n")
            while not (here / "go").exists():
                time.sleep(0.01)
            if crash in ("replace", "pwrite"):
                setattr(os, crash, end)
            verdict = f"{question}, by {me}, {os.urandom(8).hex()}".encode()
            turn.publish(verdict)
    print(verdict.decode())
except ranks.NoVerdict as error:
    print(f"NoVerdict: {error}")
"""
LAUNCHED = [name for name in os.environ if name in ranks._JOB or name in dict(ranks._RANKS)]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in LAUNCHED}
JOB = {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


class Node:
    """Ranks as processes, in a folder of their own."""

    def __init__(self, here: Path) -> None:
        self.here = here
        self.started: list[subprocess.Popen[str]] = []

    def start(
        self,
        rank: int | None,
        job: Mapping[str, str] = JOB,
        question: str = "run",
        crash: str = "",
        limit_s: float = 120,
        launcher: bool = False,
    ) -> subprocess.Popen[str]:
        number = {} if rank is None else {"LOCAL_RANK": str(rank)}
        words = [sys.executable, "-c", RANK, str(self.here), question, crash, str(limit_s)]
        environ = {**ENVIRONMENT, **job}
        if launcher:  # another one than this process
            assigned = " ".join(f"{name}={value}" for name, value in number.items())
            words = ["bash", "-c", f"{assigned} {shlex.join(words)}; exit"]
        else:
            environ.update(number)
        process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def examined(self, wanted: int) -> list[list[str]]:
        """The ranks that examine, with their processes, once there are so many."""
        for _ in range(6000):
            log = self.here / "examined"
            lines = log.read_text().splitlines() if log.exists() else []
            if len(lines) >= wanted:
                return [line.split() for line in lines]
            time.sleep(0.01)
        raise AssertionError(f"{lines} examined, not {wanted}")

    def go(self) -> None:
        (self.here / "go").touch()

    def said(self, process: subprocess.Popen[str]) -> str:
        return process.communicate(timeout=120)[0].strip()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path)
    yield node
    node.go()
    for process in node.started:
        process.kill()
        process.communicate()


def test_of_eight_ranks_one_examines_and_all_get_its_verdict(node: Node) -> None:
    job = {**JOB, "LOCAL_WORLD_SIZE": "8"}
    processes = [node.start(rank, job) for rank in range(8)]
    node.examined(1)
    node.go()
    said = [node.said(process) for process in processes]
    assert len(set(said)) == 1, said
    assert said[0].startswith("run, by ")
    assert len(node.examined(1)) == 1
    assert not (node.here / "shared").exists(), "nothing is left behind"


def test_where_nobody_knows_how_many_ranks_there_are_they_share_as_well(node: Node) -> None:
    node.go()
    first, second, third = (node.said(node.start(rank)) for rank in (4, 0, 2))
    assert first == second == third
    assert (node.here / "shared").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("crash", ["", "with a child"])
def test_another_rank_takes_over_from_one_that_is_killed(node: Node, crash: str) -> None:
    processes = {process.pid: process for process in (node.start(rank, crash=crash) for rank in range(4))}
    ((_, killed),) = node.examined(1)
    os.kill(int(killed), signal.SIGKILL)
    assert node.said(processes.pop(int(killed))) == ""
    _, (successor, _) = node.examined(2)
    node.go()
    said = {node.said(process) for process in processes.values()}
    assert len(said) == 1
    assert said.pop().startswith(f"run, by {successor}, ")
    assert len(node.examined(2)) == 2


@pytest.mark.parametrize("crash", ["replace", "pwrite"])
def test_a_verdict_that_was_half_published_is_not_taken(node: Node, crash: str) -> None:
    node.go()
    assert node.said(node.start(0, crash=crash)) == ""
    second = node.said(node.start(1))
    assert second.startswith("run, by 1, ")
    assert node.said(node.start(2)) == second


def test_a_rank_whose_verdict_cannot_be_kept_has_it_all_the_same(node: Node, tmp_path: Path) -> None:
    environ = {**JOB, "LOCAL_RANK": "0"}
    with ranks.once_per_node(environ, tmp_path / "shared") as turn:
        assert turn.mine
        (next((tmp_path / "shared").glob("*.lock")).with_suffix(".new")).mkdir()
        turn.publish(b"kept by nobody")
    assert not list((tmp_path / "shared").glob("*.lock"))
    with ranks.once_per_node({**environ, "LOCAL_RANK": "1"}, tmp_path / "shared") as turn:
        assert turn.mine


@pytest.mark.parametrize(
    ("job", "question"),
    [
        ({**JOB, "MASTER_PORT": "29501"}, "run"),
        ({**JOB, "SLURM_JOB_ID": "4711"}, "run"),
        ({**JOB, "TORCHELASTIC_RESTART_COUNT": "1"}, "run"),
        (JOB, "run train.py"),
    ],
)
def test_another_job_and_another_question_have_a_verdict_of_their_own(
    node: Node, job: Mapping[str, str], question: str
) -> None:
    processes = [node.start(0), node.start(1, job, question)]
    assert {rank for rank, _ in node.examined(2)} == {"0", "1"}  # at the same time
    node.go()
    one, other = map(node.said, processes)
    assert one.startswith("run, by 0, ")
    assert other.startswith(f"{question}, by 1, ")


def test_the_verdict_of_an_earlier_job_of_the_same_name_is_not_taken(node: Node) -> None:
    node.go()
    first = node.said(node.start(0))
    assert node.said(node.start(1)) == first
    time.sleep(0.05)  # the kernel counts when a process was started in hundredths of a second
    again = node.said(node.start(2, launcher=True))
    assert again.startswith("run, by 2, ")


def test_without_a_name_jobs_are_told_apart_by_their_launcher(node: Node) -> None:
    processes = [node.start(rank, {}, launcher=True) for rank in (0, 1)]
    node.examined(2)
    node.go()
    assert len({node.said(process) for process in processes}) == 2
    (node.here / "examined").unlink()
    assert len({node.said(node.start(rank, {})) for rank in (0, 1)}) == 1


def test_a_rank_that_asks_again_wants_a_new_verdict(node: Node) -> None:
    node.go()
    first = node.said(node.start(0))
    assert node.said(node.start(1)) == first
    second = node.said(node.start(0))
    assert second != first
    assert node.said(node.start(1)) == second


def test_an_old_verdict_is_not_taken(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {**JOB, "LOCAL_RANK": "0"}
    with ranks.once_per_node(environ, node.here / "shared") as turn:
        turn.publish(b"as of now")
    monkeypatch.setattr(ranks, "_launcher", lambda rank: ("", 0.0))
    late = ranks._since_boot() + 601
    monkeypatch.setattr(ranks, "_since_boot", lambda: late)
    with ranks.once_per_node({**environ, "LOCAL_RANK": "1"}, node.here / "shared") as turn:
        assert turn.mine


def test_what_does_not_come_to_an_end_is_said(node: Node) -> None:
    node.start(0)
    node.examined(1)
    said = node.said(node.start(1, limit_s=0))
    assert said == "NoVerdict: another rank is examining this node, and does not come to an end"


@pytest.mark.parametrize("job", [JOB, {**JOB, "LOCAL_WORLD_SIZE": "1"}])
def test_alone_there_is_nothing_to_share(node: Node, job: Mapping[str, str]) -> None:
    node.go()
    rank = 0 if "LOCAL_WORLD_SIZE" in job else None
    assert node.said(node.start(rank, job)).startswith("run, by ")
    assert not (node.here / "shared").exists()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: folder.mkdir(mode=0o755),
        lambda folder: folder.write_text("a file"),
        lambda folder: (folder.with_name("other").mkdir(mode=0o700), folder.symlink_to("other")),
    ],
    ids=["open to others", "a file", "a link"],
)
def test_a_folder_that_is_not_ours_alone_is_not_used(node: Node, spoil: Callable[[Path], object]) -> None:
    node.go()
    spoil(node.here / "shared")
    one, other = (node.said(node.start(rank)) for rank in (0, 1))
    assert one.startswith("run, by 0, ")
    assert other.startswith("run, by 1, ")
    assert not any(node.here.glob("*/*"))


def test_a_rank_that_fails_leaves_nothing_and_another_one_examines(tmp_path: Path) -> None:
    first = ranks.once_per_node({**JOB, "LOCAL_RANK": "0"}, tmp_path / "shared")
    with pytest.raises(KeyboardInterrupt), first:
        raise KeyboardInterrupt
    assert not (tmp_path / "shared").exists()
    with ranks.once_per_node({**JOB, "LOCAL_RANK": "1"}, tmp_path / "shared") as turn:
        assert turn.mine


def test_what_a_crashed_job_left_is_swept_after_a_day(node: Node) -> None:
    node.go()
    node.said(node.start(0))
    left = sorted((node.here / "shared").iterdir())
    assert [path.suffix for path in left] == ["", ".lock"]
    for path in left:
        os.utime(path, (0, 0))
    node.said(node.start(0, {**JOB, "MASTER_PORT": "1"}))
    now = sorted((node.here / "shared").iterdir())
    assert len(now) == 2
    assert not set(now) & set(left)


SRUN = {"SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_PROCID": "11", "SLURM_LOCALID": "3"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "-1"}, None),
        (
            {"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"},
            ("LOCAL_RANK", "1", 8),
        ),
        ({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_SIZE": "2"}, ("LOCAL_RANK", "1", 2)),
        ({"RANK": "5", "WORLD_SIZE": "8"}, ("RANK", "5", None)),
        ({"RANK": "5", "LOCAL_RANK": "\u0663"}, ("RANK", "5", None)),  # a digit, but none of a launcher
        ({"LOCAL_RANK": "5", "LOCAL_WORLD_SIZE": "\u0661"}, ("LOCAL_RANK", "5", None)),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "8(x2)"}, ("SLURM_LOCALID", "3", 8)),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "8,4"}, ("SLURM_LOCALID", "3", None)),
        ({**SRUN, "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x64)"}, None),
        ({"SLURM_JOB_ID": "4711", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"}, None),  # the batch script
        (
            {**SRUN, "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "LOCAL_RANK": "6"},
            ("LOCAL_RANK", "6", None),  # torchrun in a step of one task
        ),
        (
            {
                "OMPI_COMM_WORLD_RANK": "9",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_LOCAL_SIZE": "8",
            },
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1", 8),
        ),
        ({"PMI_RANK": "2", "PMI_SIZE": "4"}, ("PMI_RANK", "2", None)),
        ({"PMI_RANK": "2", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}, ("MPI_LOCALRANKID", "0", 2)),
    ],
)
def test_ranks_are_known_by_their_launchers_variables(
    environ: Mapping[str, str], expected: tuple[str, str, int | None] | None
) -> None:
    rank = ranks.rank_of(environ)
    assert (rank and (rank.variable, rank.number, rank.on_node)) == expected


def test_the_steps_and_the_requeues_of_a_slurm_job_are_jobs_of_their_own() -> None:
    jobs = {
        rank.job
        for change in ({}, {"SLURM_STEP_ID": "1"}, {"SLURM_RESTART_COUNT": "1"}, {"SLURM_JOB_ID": "4712"})
        for rank in [ranks.rank_of({**SRUN, **change})]
        if rank
    }
    assert len(jobs) == 4
