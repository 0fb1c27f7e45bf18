"""`run --save`, `--max-age`, several outputs, `show`: reports that outlive the run."""

from __future__ import annotations

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Callable

import pytest
from conftest import run_doctor

FACTS_ONLY = ("run", "--no-probes")


@pytest.fixture
def cache(tmp_path: Path) -> dict[str, str | None]:
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "LOCAL_RANK": None, "RANK": None}


def run(cache: dict[str, str | None], *words: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return run_doctor(*FACTS_ONLY, *words, env=cache, **keywords)  # type: ignore[arg-type]


def test_several_outputs_are_told_apart_by_their_suffixes(
    tmp_path: Path, cache: dict[str, str | None]
) -> None:
    names = ("r.json", "r.md", "r.html", "r.sarif", "r.xml", "r.txt", "plain")
    outputs = [word for name in names for word in ("--output", str(tmp_path / name))]
    done = run(cache, *outputs)
    assert done.returncode == 0 and done.stdout == ""
    assert all(str(tmp_path / name) in done.stderr for name in names)
    starts = [(tmp_path / name).read_text()[:14] for name in names]
    assert starts[0].startswith("{") and starts[1].startswith("### llm-doctor")
    assert starts[2].lower().startswith("<!doctype html") and starts[3].startswith("{")
    assert starts[4].startswith("<?xml") and starts[5] == starts[6] and starts[5].startswith("PASS")
    both = run(
        cache, "--format", "json", "--output", str(tmp_path / "a.md"), "--output", str(tmp_path / "a.txt")
    )
    assert json.loads(both.stdout)["schema"] == "llm-doctor/report/v1"
    unknown = run(cache, "--output", str(tmp_path / "a.docx"))
    assert unknown.returncode == 2 and "which --format is that?" in unknown.stderr


def test_a_report_is_shown_again_in_any_format(tmp_path: Path, cache: dict[str, str | None]) -> None:
    kept = tmp_path / "kept.json"
    first = run(cache, "--output", str(kept), "--format", "json")
    assert first.returncode == 0
    shown = run_doctor("show", str(kept))
    assert shown.returncode == 0 and shown.stdout.startswith("PASS")
    assert run_doctor("show", str(kept), "--format", "json").stdout == kept.read_text()
    for name in ("markdown", "html", "sarif", "junit", "github"):
        assert run_doctor("show", str(kept), "--format", name).returncode == 0
    broken = tmp_path / "broken.json"
    broken.write_text(kept.read_text()[:500])
    done = run_doctor("show", str(broken))
    assert done.returncode == 2 and f"{broken}: it is truncated" in done.stderr
    assert run_doctor("show", str(tmp_path / "none.json")).returncode == 2


def test_a_node_that_passed_answers_from_before(
    tmp_path: Path, make_patient: Callable[..., Path], cache: dict[str, str | None]
) -> None:
    python = make_patient(packages={"torch": "2.0"})
    asked = ("--python", str(python), "--max-age", "600")
    first = run(cache, *asked)
    again = run(cache, *asked)
    assert "s ago; llm-doctor show " in again.stdout and again.stdout.count("\n") == 1
    assert again.returncode == first.returncode == 0
    as_json = run(cache, *asked, "--format", "json")
    assert json.loads(as_json.stdout)["facts"]["packages"]["value"]["installed"]["torch"] == "2.0"
    assert "s ago" not in run(cache, *asked, "--deep").stdout  # another question
    assert "s ago" not in run(cache, "--python", str(python), "--max-age", "0").stdout


def test_a_kept_report_that_is_damaged_is_made_again(tmp_path: Path, cache: dict[str, str | None]) -> None:
    asked = ("--only", "half-float-mismatch", "--max-age", "600", "--format", "json")
    assert run(cache, *asked).returncode == 0
    for kept in (tmp_path / "cache" / "llm-doctor" / "reports").iterdir():
        kept.write_text("{")
    again = run(cache, *asked)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout)["schema"] == "llm-doctor/report/v1"


def test_what_changed_is_examined_again(
    tmp_path: Path, make_patient: Callable[..., Path], cache: dict[str, str | None]
) -> None:
    python = make_patient(packages={"torch": "2.0"})
    script = tmp_path / "train.py"
    script.write_text("import os\n")
    asked = ("--python", str(python), "--max-age", "600")
    run(cache, *asked)
    run(cache, *asked, str(script))
    assert "s ago" in run(cache, *asked, str(script)).stdout
    script.write_text("import sys, os\n")
    assert "s ago" not in run(cache, *asked, str(script)).stdout
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    (site / "peft-0.9.0.dist-info").mkdir()
    assert "s ago" not in run(cache, *asked).stdout
    assert "s ago" in run(cache, *asked).stdout
    assert "s ago" not in run({**cache, "CUDA_VISIBLE_DEVICES": "0"}, *asked).stdout


def test_a_package_that_was_installed_again_is_another_one(
    make_patient: Callable[..., Path], cache: dict[str, str | None]
) -> None:
    python = make_patient(packages={"torch": "2.0", "peft": "0.9.0"})
    asked = ("--python", str(python), "--max-age", "600")
    run(cache, *asked)
    assert "s ago" in run(cache, *asked).stdout
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    before = site.stat()
    (site / "torch-2.0.dist-info" / "RECORD").write_text("torch/__init__.py,,\n")
    os.utime(site, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "s ago" not in run(cache, *asked).stdout


def test_a_node_that_failed_is_examined_each_time(tmp_path: Path, cache: dict[str, str | None]) -> None:
    config = tmp_path / "ds_config.json"
    config.write_text(
        '{"fp16": {"enabled": true}, "bf16": {"enabled": true}, "zero_optimization": {"stage": 2}}'
    )
    for _ in range(2):
        done = run(cache, "--max-age", "600", str(config))
        assert done.returncode == 1 and "s ago" not in done.stdout


def test_saved_reports_are_compared(cache: dict[str, str | None], make_patient: Callable[..., Path]) -> None:
    python = make_patient(packages={"torch": "2.0"})
    assert run_doctor("compare", env=cache).returncode == 2
    run(cache, "--python", str(python), "--save")
    run(cache, "--python", str(python), "--save")
    same = run_doctor("compare", env=cache)
    assert same.returncode == 0, same.stdout
    site = next((python.parent.parent / "lib").glob("python*/site-packages"))
    (site / "torch-2.0.dist-info").rename(site / "torch-2.1.dist-info")
    (site / "torch-2.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torch\nVersion: 2.1\n"
    )
    run(cache, "--python", str(python), "--save")
    other = run_doctor("compare", env=cache)
    assert other.returncode == 1
    assert "torch 2.0 -> 2.1" in other.stdout.splitlines()[0]


def test_a_cache_that_cannot_be_written_costs_no_report(tmp_path: Path, cache: dict[str, str | None]) -> None:
    (tmp_path / "file").write_text("")
    only = ("--only", "half-float-mismatch")
    done = run({**cache, "XDG_CACHE_HOME": str(tmp_path / "file")}, "--save", *only)
    assert done.returncode == 3 and done.stdout.startswith("PASS, but nothing could be tried")
    assert f"{tmp_path / 'file'}/llm-doctor/reports: Not a directory" in done.stderr


def test_of_several_ranks_one_examines_and_one_recalls(cache: dict[str, str | None]) -> None:
    job = {"LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "3", "MASTER_ADDR": "x", "MASTER_PORT": str(os.getpid())}

    def all_ranks() -> list[subprocess.CompletedProcess[str]]:
        def one(rank: str) -> subprocess.CompletedProcess[str]:
            environ = {**cache, **job, "LOCAL_RANK": rank, "RANK": rank}
            return run(environ, "--only", "half-float-mismatch", "--max-age", "600")

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(one, "012"))

    for again in (False, True):
        done = all_ranks()
        assert [it.returncode for it in done] == [0, 0, 0]
        (said,) = (it.stdout for it in done if it.stdout)
        assert ("s ago; llm-doctor show" in said) is again
        assert sum("(examined by another rank of this node)" in it.stderr for it in done) == 2


def test_in_a_notebook_the_report_is_a_page(make_patient: Callable[..., Path]) -> None:
    import llm_doctor

    shown = llm_doctor.run("--no-probes", python=str(make_patient(packages={"torch": "2.0"})))
    assert repr(shown).startswith("PASS")
    page = shown._repr_html_()
    assert page.startswith('<iframe title="llm-doctor report"') and "&lt;!doctype html" in page.lower()
    with pytest.raises(RuntimeError, match="No such option"):
        llm_doctor.run("--nonsense")


def test_one_report_that_cannot_be_read_does_not_keep_the_others_from_being_compared(
    tmp_path: Path, cache: dict[str, str | None]
) -> None:
    assert run(cache, "--output", str(tmp_path / "a.json")).returncode in (0, 1)
    text = (tmp_path / "a.json").read_text()
    for name, content in (("b", text), ("c", text[:100])):
        (tmp_path / f"{name}.json").write_text(content)
    three = [str(tmp_path / f"{name}.json") for name in "abc"]
    done = run_doctor("compare", *three)
    assert done.returncode == 0 and done.stderr.splitlines() == [
        f"llm-doctor: {three[2]}: it is truncated: its JSON ends in the middle"
    ]
    refused = run_doctor("compare", *three[1:])
    assert (refused.returncode, refused.stdout, refused.stderr) == (2, "", done.stderr)
    assert run_doctor("show", "-", input=text).stdout.startswith(("PASS", "WARN", "FAIL"))
    disagree = run_doctor("show", three[0], "--format", "html", "--output", str(tmp_path / "x.sarif"))
    assert disagree.returncode == 2 and "disagree" in disagree.stderr
