"""A third party's checks: a real distribution in a real environment beside the doctor."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Callable

import pytest
from conftest import NEUTRAL, report_of

from llm_doctor import probes
from llm_doctor.check import Case, Check, Suspicion, Trial, TrialRequest, facts_of
from llm_doctor.examination import check_case
from llm_doctor.host import temporary_folder
from llm_doctor.model import Finding, Subject
from llm_doctor.places import Places

CHECK = '''
"""Somebody else's check."""

from llm_doctor.check import Check, Suspicion, Symptom, Trial, TrialRequest
from llm_doctor.model import Finding, Subject, System

TRIAL = Trial(name="arithmetic", imports=(), file=__file__.replace("plugin.py", "trial.py"))


class ClusterQuota(Check):
    """The scratch quota of our cluster is used up.

    ## What it finds
    Something of ours.

    ## Why it breaks
    It does.

    ## How it is proven
    By arithmetic.

    ## Fix
    Ask the desk.

    ## References
    - https://example.org
    """

    name = "cluster-quota"
    topic = "disk-space"
    severity = "warning"
    since = "1.0"
    needs = (System,)
    trials = (TRIAL,)
    symptoms = (Symptom(pattern="quota exceeded", example="disk quota exceeded", counter_example="quota"),)

    def examine(self, case):
        finding = Finding(
            severity="warning", confidence="likely", message="the quota is gone", subject=Subject(kind="disk")
        )
        yield Suspicion(finding, (TrialRequest(TRIAL, {"quota": 7}),))
'''
TRIAL = """
def combinations(settings):
    return [{"quota": settings["quota"]}]

def broken(settings, combination):
    raise OSError("disk quota exceeded")

def fixed(settings, combination):
    return {"quota_bytes": combination["quota"]}
"""
PYPROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "cluster-doctor"
version = "1.5"
[project.entry-points."llm_doctor.checks"]
cluster-quota = "cluster_doctor.plugin:ClusterQuota"
broken-quota = "cluster_doctor.missing:Nothing"
leaving-quota = "cluster_doctor.leaves"
mute-quota = "cluster_doctor.mute"
noisy-quota = "cluster_doctor.noisy"
half-float-mismatch = "cluster_doctor.thief"
[tool.setuptools]
packages = ["cluster_doctor"]
"""
THIEF = CHECK.replace("cluster-quota", "half-float-mismatch").replace("plugin.py", "thief.py")
MUTE = """
class Mute(Exception):
    def __str__(self):
        raise ValueError

raise Mute
"""
NOISY = (
    CHECK.replace("cluster-quota", "noisy-quota")
    .replace("plugin.py", "noisy.py")
    .replace("class Cl", "print('loaded')\n\n\nclass Cl")
    .replace(
        "    def examine(self, case):",
        "    def asks(self, case):\n        raise SystemExit(3)\n\n"
        "    def examine(self, case):\n        print('examined')",
    )
)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the plugin installed by pip, and the doctor from this one."""
    folder = tmp_path_factory.mktemp("plugin")
    source = folder / "source"
    (source / "cluster_doctor").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT)
    files = {"__init__": "", "plugin": CHECK, "trial": TRIAL, "leaves": "raise SystemExit(9)", "thief": THIEF}
    files |= {"mute": MUTE, "noisy": NOISY}
    for name, text in files.items():
        (source / "cluster_doctor" / f"{name}.py").write_text(text)
    venv.create(folder / "env", symlinks=True)
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-index", "--target", str(site), str(source)],
        check=True,
    )  # fmt: skip
    # Everything that this environment imports, the doctor among it, comes after the plugin.
    (site / "doctor.pth").write_text("".join(f"{path}\n" for path in sys.path if path))
    return folder / "env" / "bin" / "python"


def doctor(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), "-m", "llm_doctor", *arguments],
        env=NEUTRAL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_plugins_check_is_listed_and_documented(python: Path) -> None:
    rows = {row["name"]: row for row in json.loads(doctor(python, "list", "--format", "json").stdout)}
    assert rows["cluster-quota"]["origin"] == "plugin cluster-doctor 1.5"
    assert rows["cluster-quota"]["summary"] == "The scratch quota of our cluster is used up."
    assert "Ask the desk." in doctor(python, "explain", "cluster-quota").stdout


def test_a_plugins_checks_are_completed_and_not_loaded(python: Path) -> None:
    def completed(line: str) -> set[str]:
        words = line.split(" ")
        asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        done = subprocess.run(
            [str(python), "-v", "-m", "llm_doctor"],
            env={**NEUTRAL, **asked, "_LLM_DOCTOR_COMPLETE": "bash_complete"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert "import 'cluster_doctor" not in done.stderr
        assert done.returncode == 0
        return {it.partition(",")[2] for it in done.stdout.splitlines()}

    for line in ("explain ", "run --only ", "run --skip ", "fix --only "):
        names = completed(f"llm-doctor {line}")
        assert {"bf16-unsupported", "cluster-quota", "broken-quota", "leaving-quota"} <= names
        assert not any("cluster_doctor" in it for it in names)
    assert completed("llm-doctor explain cluster-") == {"cluster-quota"}


def test_a_plugins_check_is_run_with_its_own_trial(python: Path) -> None:
    done = doctor(python, "run", "--only", "cluster-quota", "--format", "json", "--python", str(python))
    (check,) = report_of(done)["checks"]
    assert check["outcome"] == "findings" and done.returncode == 0
    (finding,) = check["findings"]
    assert finding["proof"]["status"] == "reproduced" and finding["confidence"] == "proven"
    assert finding["proof"]["case"]["fixed"]["measured"] == {"quota_bytes": 7}


def test_a_broken_plugin_is_named_and_stops_nothing(python: Path) -> None:
    done = doctor(python, "run", "--no-probes", "--format", "json", "--fail-on", "never")
    checks = {check["name"]: check for check in report_of(done)["checks"]}
    assert checks["broken-quota"]["outcome"] == "crashed"
    assert "No module named 'cluster_doctor.missing'" in checks["broken-quota"]["reason"]
    assert "SystemExit: 9" in checks["leaving-quota"]["reason"]
    assert checks["mute-quota"]["reason"] == "the plugin could not be loaded: Mute"
    taken = checks["half-float-mismatch (plugin cluster-doctor 1.5)"]
    assert taken["reason"] == "its name is taken by the check of built in"
    assert checks["half-float-mismatch"]["outcome"] == "skipped" and "cluster-quota" in checks
    assert done.returncode == 3, "what was asked for could not be examined"


def test_what_a_plugin_prints_stands_in_no_report(python: Path) -> None:
    done = doctor(python, "run", "--format", "json", "--only", "noisy-quota", "--fail-on", "never")
    (check,) = report_of(done)["checks"]
    assert (check["name"], check["outcome"]) == ("noisy-quota", "findings")
    assert "loaded\n" in done.stderr and "examined\n" in done.stderr


def test_a_broken_plugin_can_be_left_out(python: Path) -> None:
    done = doctor(python, "run", "--no-probes", "--only", "cuda-toolkit-mismatch", "--fail-on", "never")
    assert done.returncode == 0


# --- Checks that misbehave: each costs its own line ------------------------------------------------------

FINDING = {"severity": "note", "confidence": "likely", "message": "m", "subject": Subject(kind="stack")}


class Misbehaving(Check):
    """Written by somebody in a hurry."""

    name = "misbehaving-check"
    topic = "nccl"
    severity = "note"
    since = "1"


def misbehaving(examine: Callable[..., Any]) -> type[Check]:
    return type("ThisOne", (Misbehaving,), {"examine": lambda self, case: examine()})


@pytest.mark.parametrize(
    ("examine", "reason"),
    [
        (lambda: [Finding(**FINDING)], "TypeError: examine gave a Finding, not a Suspicion"),
        (lambda: None, "TypeError: 'NoneType' object is not iterable"),
        (lambda: sys.exit(4), "SystemExit: 4"),
        (
            lambda: [
                Suspicion(Finding(**FINDING), (TrialRequest(Trial(name="t", imports=()), {"x": object()}),))
            ],
            "TypeError: Object of type object is not JSON serializable",
        ),
        (lambda: [Suspicion(Finding(**{**FINDING, "severity": "critical"}))], "ValidationError"),
        (lambda: [Suspicion(Finding(**{**FINDING, "evidence": {"x": object()}}))], "TypeError"),
    ],
    ids=["a finding", "nothing", "exits", "settings", "severity", "evidence"],
)
def test_a_check_that_misbehaves_is_a_crash_of_its_own(examine: Callable[..., Any], reason: str) -> None:
    result = check_case(misbehaving(examine), Case(facts=facts_of()), ())
    assert result.outcome == "crashed" and (result.reason or "").startswith(reason)


@pytest.mark.parametrize("plan", ["5", "[5]", "{'a': 1}", "None"])
def test_a_plan_that_is_none_is_a_trial_that_was_not_run(plan: str, tmp_path: Path) -> None:
    file = tmp_path / "trial.py"
    file.write_text(f"def combinations(settings): return {plan}\n")
    request = TrialRequest(Trial(name="trial", imports=(), file=str(file)))
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(worker, [request], Places(), 20.0, lambda request, error: False)
    assert result.status == "not-run" and "no list of objects" in (result.reason or "")
