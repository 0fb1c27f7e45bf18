"""Reports that were saved: what is read of a file, what is kept, and what is different between reports."""

from __future__ import annotations

import copy
import json
import os
import pwd
import re
import stat
from pathlib import Path
from typing import Any, Callable, Dict

import jsonschema
import msgspec
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llm_doctor import saved
from llm_doctor.check import facts_of
from llm_doctor.comparison import Comparison, compare
from llm_doctor.model import (
    SCHEMA,
    CudaToolkits,
    Doctor,
    Environment,
    Gpu,
    Gpus,
    Interpreter,
    Limit,
    Limits,
    Mount,
    Mounts,
    Packages,
    Patient,
    Report,
    System,
    Toolkit,
    TorchBuild,
)
from llm_doctor.render import comparison as drawing

Json = Dict[str, Any]
GIB = 1 << 30
BASE = Report(
    schema=SCHEMA,
    doctor=Doctor(version="0.1.0"),
    started="2026-11-20T08:00:00Z",
    seconds=4.0,
    verdict="pass",
    exit_code=0,
    patient=Patient(python="~/env/bin/python", version="3.11.7", chosen_by="VIRTUAL_ENV"),
    facts=facts_of(
        System(os="Ubuntu 24.04 LTS", kernel="6.8.0-40", machine="x86_64"),
        Gpus(
            driver="550.90.07",
            driver_cuda="12.4",
            gpus=tuple(
                Gpu(index=i, name="NVIDIA H100", compute_capability=(9, 0), ecc=True, memory_free_bytes=GIB)
                for i in range(8)
            ),
        ),
        CudaToolkits(
            toolkits=(Toolkit(home="/usr/local/cuda", nvcc="/usr/local/cuda/bin/nvcc", found_by=("PATH",)),)
        ),
        Interpreter(
            executable="~/env/bin/python",
            version="3.11.7",
            implementation="CPython",
            prefix="~/env",
            chosen_by="VIRTUAL_ENV",
        ),
        Packages(installed={"torch": "2.12.1", "transformers": "5.0.0", "idna": "3.9"}, modules={}),
        TorchBuild(version="2.12.1+cu126", cuda="12.6", kind="cuda"),
        Environment(variables={"NCCL_DEBUG": "INFO", "SLURM_JOB_ID": "17", "RANK": "0"}),
        Limits(
            locked_memory_bytes=Limit(), open_files=Limit(soft=65536), processes=Limit(soft=4096, hard=4096)
        ),
        Mounts(
            mounts=(
                Mount(
                    path="/scratch",
                    filesystem="ext4",
                    device="/dev/sda",
                    kind="local",
                    read_only=False,
                    total_bytes=1000 * GIB,
                    free_bytes=500 * GIB,
                ),
            )
        ),
    ),
    answers={},
    checks=(),
)
TRIAL: Json = {
    "name": "bf16-unsupported",
    "device": "cuda:0",
    "status": "refuted",
    "seconds": 1.0,
    "cases": [{"combination": {"operation": "product"}, "status": "refuted"}],
}
FINDING: Json = {
    "severity": "error",
    "confidence": "proven",
    "message": "GPU 0 has no bfloat16, says torch 2.13.0",
    "subject": {"kind": "gpu", "gpu": 0},
}
CHECK: Json = {
    "name": "bf16-unsupported",
    "topic": "bf16",
    "outcome": "pass",
    "seconds": 1.0,
    "trials": [TRIAL],
}


def raw(*checks: Json) -> Json:
    plain: Json = json.loads(msgspec.json.encode(BASE))
    plain["checks"] = copy.deepcopy(list(checks or (CHECK,)))
    return plain


def report(plain: Json) -> Report:
    return saved.read_report(json.dumps(plain).encode())


def changed(change: Callable[[Json], None]) -> Report:
    plain = raw()
    change(plain)
    return report(plain)


def compared(change: Callable[[Json], None]) -> Comparison:
    return compare([report(raw()), changed(change)], ["old.json", "new.json"])


def said(comparison: Comparison) -> list[str]:
    return [change.said() for change in comparison.changes]


def values(plain: Json, fact: str) -> Json:
    value: Json = plain["facts"][fact]["value"]
    return value


def upgrade(plain: Json) -> None:
    values(plain, "packages")["installed"].update(torch="2.13.0", idna="3.10")
    values(plain, "torch_build")["version"] = "2.13.0+cu126"
    plain.update(verdict="fail", exit_code=1, started="2026-11-21T08:00:00Z")
    plain["checks"][0].update(outcome="findings", findings=[FINDING])
    plain["checks"][0]["trials"][0].update(status="reproduced")


# --- Reading a report ------------------------------------------------------------------------------


def complaint(data: bytes) -> str:
    with pytest.raises(saved.BadReport) as caught:
        saved.read_report(data)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 300
    return message


def test_a_report_is_read_as_it_was_written() -> None:
    data = msgspec.json.encode(BASE)
    assert saved.read_report(data) == BASE
    assert saved.read_report(b"\xef\xbb\xbf" + data) == BASE
    assert saved.read_report(data.decode().encode("utf-16")) == BASE  # what PowerShell's > makes of it


def test_a_later_minor_version_may_say_more_and_an_earlier_one_less() -> None:
    plain = raw()
    plain["weather"] = "fair"
    values(plain, "gpus")["gpus"][0]["colour"] = "green"
    del plain["facts"]["model"], plain["workload"], plain["assumed"]
    read = report(plain)
    assert read.facts.gpus == BASE.facts.gpus
    assert read.facts.model.reason == "the report is of an earlier llm-doctor"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "it is empty"),
        (b" \n", "it is empty"),
        (b'{"schema": "llm-doctor/report/v1", "checks": [', "it is truncated: its JSON ends in the middle"),
        ('{"schema": "ä'.encode()[:-1], "it is truncated: its JSON ends in the middle"),
        (b'{"a": 1,\n "b": x}', "it is not JSON: invalid character in line 2, column 7"),
        (b"{}\n{}", "it is not JSON: something follows the report in line 2, column 1"),
        (b"PASS: 0 errors", "it is not JSON: invalid character in line 1, column 1"),
        (b"\x1f\x8b\x08\x00\xff", "it is binary, not a report in JSON"),
        (b"[" * 100_000, "it is nested too deeply to be a report"),
        (b"[" * 200 + b"]" * 200, "it is nested too deeply to be a report"),
        (b"[]", "it is JSON, but not a report of llm-doctor (no schema)"),
        (b'{"schema": 1}', "it is JSON, but not a report of llm-doctor (no schema)"),
        (
            b'{"schema": "llm-doctor/report/v2"}',
            "it is a llm-doctor/report/v2, which a newer llm-doctor wrote;"
            " this one reads llm-doctor/report/v1",
        ),
        (
            b'{"schema": "llm-doctor/triage/v1"}',
            "it is no report: its schema is 'llm-doctor/triage/v1', not llm-doctor/report/v1",
        ),
        (
            b'{"schema": "llm-doctor/report/v1"}',
            "it is not a whole llm-doctor/report/v1: Object missing required field `doctor`",
        ),
        (b" " * (saved.SIZE_LIMIT + 1), "it is larger than 32 MiB, and so not a report"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else str(value)[:40],
)
def test_what_is_no_report_gets_one_clear_line(data: bytes, says: str) -> None:
    assert complaint(data) == says


def test_a_report_with_a_field_of_another_kind_names_the_field() -> None:
    plain = raw()
    plain["checks"][0]["outcome"] = "well"
    told = "it is not a whole llm-doctor/report/v1: Invalid enum value 'well' - at `$.checks["
    assert complaint(json.dumps(plain).encode()).startswith(told)
    plain = raw()
    plain["workload"] = {"files": "train.py"}
    assert "Expected `array`, got `str` - at `$.files`" in complaint(json.dumps(plain).encode())
    plain = raw()
    plain["workload"] = {"files": [], "launches": [{"launcher": "torchrun"}], "problems": []}
    assert "missing required field `path` - at `$.launches[0]`" in complaint(json.dumps(plain).encode())
    plain = raw()
    plain["facts"]["gpus"]["value"]["gpus"][0]["memory_total_bytes"] = 10**400
    assert complaint(json.dumps(plain).encode()) == "it holds a number that is too large for a report"
    plain = raw()
    plain["facts"]["gpus"]["value"] = None
    assert "no value of a fact that is ok - at `$.facts.gpus`" in complaint(json.dumps(plain).encode())


WHOLE = json.dumps(raw(), indent=2).encode()


def read_or_refused(data: bytes) -> None:
    try:
        read = saved.read_report(data)
    except saved.BadReport as error:
        assert str(error).isprintable() and len(str(error)) < 300
    else:
        found = compare([BASE, read], ["old.json", "new.json"])
        assert drawing.text(found, width=80, color=False) and drawing.markdown(found) and drawing.json(found)


@given(st.binary(max_size=300))
def test_bytes_are_a_report_or_refused(data: bytes) -> None:
    read_or_refused(data)


@settings(max_examples=200)
@given(st.integers(0, len(WHOLE) - 2), st.binary(max_size=4))
def test_a_damaged_report_is_read_or_refused(at: int, instead: bytes) -> None:
    read_or_refused(WHOLE[:at])
    read_or_refused(WHOLE[:at] + instead + WHOLE[at + len(instead) :])


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(leaf for key, item in items for leaf in leaves(item, (*path, key)))]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=300)
@given(st.sampled_from(leaves(raw())[1:]), ANYTHING)
def test_a_report_with_anything_anywhere_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    plain = raw()
    inner = plain
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    read_or_refused(json.dumps(plain).encode())


# --- Keeping reports -------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "llm-doctor" / "reports"


def test_reports_are_kept_for_their_owner_alone_and_the_last_come_last(cache: Path) -> None:
    assert saved.latest(2) == []
    paths = [saved.save(msgspec.structs.replace(BASE, seconds=float(n))) for n in range(3)]
    assert saved.latest(2) == paths[1:] and saved.latest(9) == paths
    assert [saved.read_report(path.read_bytes()).seconds for path in saved.latest(2)] == [1.0, 2.0]
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in cache.iterdir()} == {0o600}


def test_fifty_reports_of_each_node_are_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.uname()
    monkeypatch.setattr(os, "uname", lambda: type(here)([here[0], "node7", *here[2:]]))
    other = saved.save(BASE)
    assert "node7" not in other.name  # no host name lies about
    monkeypatch.setattr(os, "uname", lambda: here)
    paths = [saved.save(BASE) for _ in range(saved.KEPT + 3)]
    assert saved.latest(99) == paths[3:]
    assert other.exists() and len(list(cache.iterdir())) == saved.KEPT + 1


def test_a_cache_that_cannot_be_written_is_named(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OSError, match=r"^\S+/llm-doctor/reports: Not a directory$"):
        saved.save(BASE)
    assert saved.latest(2) == []


def test_without_a_home_folder_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(OSError, match="there is no home folder, nor XDG_CACHE_HOME"):
        saved.save(BASE)
    assert saved.latest(2) == []


def test_a_report_that_could_not_be_written_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="reports: No space left on device"):
        saved.save(BASE)
    assert list(cache.iterdir()) == []


# --- Two reports -----------------------------------------------------------------------------------


def test_the_text_of_two_reports() -> None:
    assert drawing.text(compared(upgrade), width=80, color=False) == (
        """\
torch 2.12.1+cu126 -> 2.13.0+cu126; idna 3.9 -> 3.10; bf16-unsupported is new;
and 1 other difference
  old.json: 2026-11-20T08:00:00Z, PASS, 0 errors, 0 warnings, 0 notes
  new.json: 2026-11-21T08:00:00Z, FAIL, 1 error, 0 warnings, 0 notes

new error bf16-unsupported
  GPU 0 has no bfloat16, says torch 2.13.0
  may come from: torch 2.12.1+cu126 -> 2.13.0+cu126

Packages
  torch  2.12.1+cu126 -> 2.13.0+cu126
  idna   3.9 -> 3.10

Trials
  bf16-unsupported on cuda:0  refuted -> reproduced
    may come from: torch 2.12.1+cu126 -> 2.13.0+cu126
"""
    )


def shown_by(markdown: str) -> list[str]:
    """What a reader of Markdown sees, a line for each heading, item or row of a table."""
    lines, cells = [], []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "inline":
            words = (
                "" if child.type.startswith("strong") else " " if child.type == "softbreak" else child.content
                for child in token.children or ()
            )
            cells.append("".join(words).replace("\u200b", ""))
        elif token.type in ("heading_close", "paragraph_close", "tr_close"):
            lines.append(" | ".join(cells))
            cells = []
    return lines


def test_the_ticket_of_two_reports() -> None:
    assert shown_by(drawing.markdown(compared(upgrade))) == [
        "torch 2.12.1+cu126 -> 2.13.0+cu126; idna 3.9 -> 3.10; bf16-unsupported is new;"
        " and 1 other difference",
        "old.json: 2026-11-20T08:00:00Z, PASS, 0 errors, 0 warnings, 0 notes",
        "new.json: 2026-11-21T08:00:00Z, FAIL, 1 error, 0 warnings, 0 notes",
        "New errors",
        "new error bf16-unsupported: GPU 0 has no bfloat16, says torch 2.13.0",
        "may come from: torch 2.12.1+cu126 -> 2.13.0+cu126",
        "Packages",
        "what | before | after",
        "torch | 2.12.1+cu126 | 2.13.0+cu126",
        "idna | 3.9 | 3.10",
        "Trials",
        "what | before | after",
        "bf16-unsupported on cuda:0 | refuted | reproduced",
    ]


def test_a_ticket_is_no_longer_than_github_takes() -> None:
    def many(plain: Json) -> None:
        upgrade(plain)
        values(plain, "environment")["variables"].update({f"NCCL_{n}": "x" * 900 for n in range(900)})

    shown = drawing.markdown(compared(many))
    assert 50_000 < len(shown) < 60_100
    assert "new error bf16-unsupported" in shown and "more lines are left out.\n" in shown


def test_the_json_of_a_comparison_follows_its_schema() -> None:
    for found in (compared(upgrade), compare([BASE] * 3, list("abc"))):
        plain = json.loads(drawing.json(found))
        jsonschema.Draft202012Validator(msgspec.json.schema(Comparison)).validate(plain)
        assert plain["schema"] == "llm-doctor/comparison/v1"
        assert msgspec.convert(plain, Comparison) == found


def test_what_changes_from_minute_to_minute_is_no_difference() -> None:
    def later(plain: Json) -> None:
        plain.update(started="2026-11-20T09:00:00Z", seconds=9.0)
        plain["facts"]["system"]["seconds"] = 3.0
        for gpu in values(plain, "gpus")["gpus"]:
            gpu.update(
                memory_free_bytes=5, throttle_reasons=["gpu-idle"], processes=[{"pid": 5}], pcie_generation=1
            )
        values(plain, "mounts")["mounts"][0]["free_bytes"] = 460 * GIB
        values(plain, "environment")["variables"].update(SLURM_JOB_ID="18", RANK="3", LOCAL_RANK="3")

    found = compared(later)
    assert found.changes == () and not found.differs
    assert drawing.text(found, width=80, color=False).startswith("Nothing that counts is different.\n")


def test_differences_come_by_how_suspicious_they_are() -> None:
    def worse(plain: Json) -> None:
        upgrade(plain)
        gpus = values(plain, "gpus")
        gpus["driver"] = "535.54.03"
        del gpus["gpus"][3]
        for gpu in gpus["gpus"]:
            gpu["ecc"] = False
        values(plain, "torch_build")["cuda"] = "13.0"
        values(plain, "packages")["installed"]["transformers"] = "5.1.0"
        values(plain, "packages")["installed"]["nvidia-nccl-cu12"] = "2.27"
        values(plain, "environment")["variables"]["NCCL_IB_DISABLE"] = "1"
        values(plain, "limits")["locked_memory_bytes"]["soft"] = 65536
        values(plain, "system")["kernel"] = "6.8.0-41"
        values(plain, "cuda_toolkits")["toolkits"][0]["version"] = "13.0"
        values(plain, "mounts")["mounts"][0].update(read_only=True, free_bytes=GIB)
        del plain["checks"][0]["trials"]

    found = compared(worse)
    assert said(found) == [
        "bf16-unsupported is new",
        "driver 550.90.07 -> 535.54.03",
        "torch 2.12.1+cu126 -> 2.13.0+cu126",
        "CUDA of torch 12.6 -> 13.0",
        "CUDA toolkit at /usr/local/cuda unknown -> 13.0",
        "transformers 5.0.0 -> 5.1.0",
        "nvidia-nccl-cu12 2.27 is new",
        "GPU 3 NVIDIA H100 (9.0) is gone",
        "GPU 0-2, 4-7 ECC on -> off",
        "NCCL_IB_DISABLE=1 is new",
        "locked memory limit unlimited -> 64 KiB",
        "free room on /scratch 500 GiB -> 1 GiB",
        "mount /scratch ext4 -> ext4, read-only",
        "idna 3.9 -> 3.10",
        "kernel 6.8.0-40 -> 6.8.0-41",
    ]
    # The message names torch; bf16 rests on the GPU.
    assert found.changes[0].explained_by == (
        "torch 2.12.1+cu126 -> 2.13.0+cu126",
        "GPU 3 NVIDIA H100 (9.0) is gone",
        "GPU 0-2, 4-7 ECC on -> off",
        "driver 550.90.07 -> 535.54.03",
    )
    assert found.sentence == (
        "driver 550.90.07 -> 535.54.03; torch 2.12.1+cu126 -> 2.13.0+cu126; bf16-unsupported is new;"
        " and 12 other differences"
    )


def test_a_driver_that_is_gone_says_why_and_its_gpus_are_not_counted_one_by_one() -> None:
    def lost(plain: Json) -> None:
        plain["facts"]["gpus"] = {
            "status": "unavailable",
            "source": "NVML",
            "seconds": 0,
            "reason": "no answer",
        }

    assert said(compared(lost)) == ["driver 550.90.07 -> none (no answer)"]


def test_a_fact_that_could_not_be_read_is_no_list_of_things_that_went() -> None:
    def unread(plain: Json) -> None:
        plain["facts"]["packages"] = {
            "status": "unavailable",
            "source": "",
            "seconds": 0,
            "reason": "no Python",
        }

    assert said(compared(unread)) == ["packages read -> unknown (no Python)"]


def test_a_finding_with_no_change_that_explains_it_says_so() -> None:
    def sick(plain: Json) -> None:
        plain["checks"][0].update(outcome="findings", findings=[FINDING, FINDING])

    assert compared(sick).sentence == (
        "bf16-unsupported is new (2 findings); nothing else that could explain it is different"
    )


def test_a_finding_of_a_check_that_did_not_run_before_says_so() -> None:
    skipped = {**CHECK, "outcome": "skipped", "trials": [], "reason": "not-run: --no-probes was given"}
    found = compare([report(raw(skipped)), changed(upgrade)], ["a", "b"])
    assert found.changes[0].explained_by[-1] == "the check was skipped before"
    assert "  skipped -> ran (not-run: --no-probes was given): bf16-unsupported\n" in drawing.text(
        found, width=80, color=False
    )


def test_a_finding_of_a_check_that_does_not_run_now_is_not_gone() -> None:
    skipped = {**CHECK, "outcome": "skipped", "trials": [], "reason": "not-run: --no-probes was given"}
    found = compare([changed(upgrade), report(raw(skipped))], ["a", "b"])
    assert "bf16-unsupported is not examined now" in found.sentence
    shown = drawing.text(found, width=80, color=False)
    assert "not examined now: error bf16-unsupported" in shown and "gone error" not in shown


def test_a_finding_is_the_same_one_on_another_line_and_with_another_number() -> None:
    def at(line: int, message: str) -> Json:
        finding = {
            **FINDING,
            "message": message,
            "subject": {"kind": "script", "path": "train.py", "line": line},
        }
        return {**CHECK, "outcome": "findings", "findings": [finding]}

    old = report(raw(at(3, "69 GB are free")))
    assert compare([old, report(raw(at(8, "68 GB are free")))], ["a", "b"]).changes == ()
    plain = raw(at(3, "69 GB are free"))
    plain["checks"][0]["findings"][0]["severity"] = "warning"
    assert said(compare([old, report(plain)], ["a", "b"])) == ["bf16-unsupported error -> warning"]
    (gone,) = compare([old, report(raw())], ["a", "b"]).changes
    assert gone.explained_by == ("a change of train.py",)


def test_trials_on_other_devices_and_single_cases_are_compared() -> None:
    def on_cpu(plain: Json) -> None:
        plain["checks"][0]["trials"][0]["device"] = "cpu"

    def one_case(plain: Json) -> None:
        plain["checks"][0]["trials"][0]["cases"][0]["status"] = "inconclusive"

    assert said(compared(on_cpu)) == ["trial bf16-unsupported refuted on cuda:0 -> refuted on cpu"]
    assert said(compared(one_case)) == [
        "trial bf16-unsupported on cuda:0, operation=product refuted -> inconclusive"
    ]


def test_a_report_of_this_machine_is_like_itself(doctor: Run) -> None:
    one, other = (
        saved.read_report(doctor("run", "--no-probes", "--format", "json").stdout.encode()) for _ in "ab"
    )
    assert compare([one, other], ["one.json", "other.json"]).sentence == "Nothing that counts is different."


def test_the_command_compares_the_last_two_that_were_saved(doctor: Run, tmp_path: Path) -> None:
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    for value in ("INFO", "WARN"):
        doctor("run", "--no-probes", "--save", env={**environment, "NCCL_DEBUG": value})
    done = doctor("compare", env=environment)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[0] == "NCCL_DEBUG INFO -> WARN"


# --- Many reports ----------------------------------------------------------------------------------


def sick(plain: Json) -> None:
    upgrade(plain)
    values(plain, "gpus")["driver"] = "535.54.03"
    values(plain, "packages")["installed"].update(torch="2.12.1", idna="3.9")
    values(plain, "torch_build")["version"] = "2.12.1+cu126"


def test_the_odd_nodes_are_told_from_the_alike() -> None:
    def other_rank(plain: Json) -> None:
        values(plain, "environment")["variables"].update(RANK="5")
        values(plain, "mounts")["mounts"][0]["free_bytes"] = 3 * GIB

    reports = [report(raw()), changed(sick), changed(other_rank), report(raw())]
    found = compare(reports, [f"node{number}.json" for number in range(4)])
    assert drawing.text(found, width=80, color=False) == (
        """\
3 of 4 are alike; node1.json: driver 535.54.03 instead of 550.90.07; error
bf16-unsupported

3 alike, PASS: node0.json, node2.json, node3.json

node1.json: FAIL
  error bf16-unsupported: GPU 0 has no bfloat16, says torch 2.13.0
  driver 535.54.03 instead of 550.90.07
  trial bf16-unsupported on cuda:0 reproduced instead of refuted
"""
    )
    lines = shown_by(drawing.markdown(found))
    assert lines[2:4] == [
        "node1.json: FAIL",
        "error bf16-unsupported: GPU 0 has no bfloat16, says torch 2.13.0",
    ]


def test_alike_nodes_are_all_alike_and_many_names_are_counted() -> None:
    found = compare([BASE] * 30, [f"n{number}" for number in range(30)])
    assert (found.sentence, found.differs) == ("All 30 are alike.", False)
    assert "30 alike, PASS: n0, n1," in drawing.text(found, width=200, color=False)
    assert " n11 and 18 more\n" in drawing.text(found, width=200, color=False)


def test_where_no_two_are_alike_the_usual_one_is_that_which_most_resemble() -> None:
    def other_limit(plain: Json) -> None:
        values(plain, "limits")["open_files"]["soft"] = 1024

    def other_driver_and_kernel(plain: Json) -> None:
        sick(plain)
        values(plain, "system")["kernel"] = "5.15"

    reports = [changed(other_driver_and_kernel), report(raw()), changed(other_limit)]
    found = compare(reports, ["a", "b", "c"])
    assert [group.names for group in found.groups] == [("b",), ("a",), ("c",)]
    assert found.sentence.startswith("No two of 3 are alike; a: driver 535.54.03 instead of 550.90.07")


# --- What comes from a hostile report --------------------------------------------------------------

HOSTILE = "\x1b[2J\r\n|<script>@you #1 [x](http://evil.example) `\\"


def hostile() -> Comparison:
    def evil(plain: Json) -> None:
        values(plain, "packages")["installed"][HOSTILE] = HOSTILE
        values(plain, "environment")["variables"][HOSTILE] = HOSTILE
        plain["checks"][0].update(
            name=HOSTILE, outcome="findings", findings=[{**FINDING, "message": HOSTILE}]
        )
        plain["checks"][0]["trials"][0].update(name=HOSTILE, device=HOSTILE)

    return compare([report(raw()), changed(evil)], [HOSTILE, HOSTILE])


def test_a_terminal_is_told_nothing_to_obey() -> None:
    shown = drawing.text(hostile(), width=80, color=False)
    assert all(c.isprintable() or c == "\n" for c in shown)


def test_a_ticket_gets_no_link_tag_or_mention_and_no_broken_table() -> None:
    shown = drawing.markdown(hostile())
    tokens = MarkdownIt("commonmark").enable("table").parse(shown)
    inner = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inner)}
    assert not kinds & {"link_open", "html_inline", "html_block", "image"}
    number = {kind: sum(token.type == f"{kind}_open" for token in tokens) for kind in ("td", "tr", "table")}
    assert number["table"] and number["td"] == 3 * (number["tr"] - number["table"])
    prose = " ".join(token.content for token in inner if token.type == "text")
    assert not re.search(r"(?<!\w)[@#]\w", prose)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_every_line_fits_the_terminal(width: int) -> None:
    lines = drawing.text(compared(upgrade), width=width, color=False).splitlines()
    assert max(map(len, lines)) <= width
    assert not any(line != line.rstrip() for line in lines)


def test_color_is_there_only_where_it_is_wanted() -> None:
    found = compared(upgrade)
    assert "\x1b[1;31mnew error" in drawing.text(found, width=80, color=True)
    assert "\x1b" not in drawing.text(found, width=80, color=False)
