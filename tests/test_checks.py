"""Every check: its examples, its symptoms, its documentation, its trials' files."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from conftest import ROOT

from llm_doctor import registry
from llm_doctor.check import HEADINGS, TOPICS, Case, Check, Example
from llm_doctor.examination import check_case
from llm_doctor.model import CheckResult

ENTRIES = [entry for entry in registry.registered(logs=True) if entry.origin == "built in"]
CHECKS = [entry.check for entry in ENTRIES if entry.check]
EXAMINING = [check for check in CHECKS if not check.of_log]
EXAMPLES = [(check, example) for check in CHECKS for example in check().examples()]
SYMPTOMS = [(check, symptom) for check in CHECKS for symptom in check.symptoms]


def said(result: CheckResult) -> tuple[str, ...]:
    return tuple(f"{finding.severity}: {finding.message}" for finding in result.findings)


@pytest.mark.parametrize(
    ("check", "example"), EXAMPLES, ids=[f"{check.name}: {example.title}" for check, example in EXAMPLES]
)
def test_an_example_says_what_it_promises(check: type[Check], example: Example) -> None:
    result = check_case(check, example.case, example.trials)
    assert said(result) == example.says
    assert result.outcome == example.outcome
    if example.reason is not None:
        assert result.reason == example.reason


def test_every_file_of_a_check_can_be_loaded() -> None:
    assert [entry.problem for entry in ENTRIES if entry.problem] == []


@pytest.mark.parametrize("check", EXAMINING, ids=lambda check: check.name)
def test_a_check_shows_health_sickness_and_doubt(check: type[Check]) -> None:
    kinds = {example.kind for example in check().examples()}
    assert kinds == {"healthy", "sick", "cannot-tell"}
    for example in check().examples():
        assert (example.kind == "sick") == bool(example.says)


@pytest.mark.parametrize(("check", "symptom"), SYMPTOMS, ids=lambda value: getattr(value, "pattern", None))
def test_a_symptom_is_told_from_a_similar_line(check: type[Check], symptom: object) -> None:
    assert symptom.matches(symptom.example)  # type: ignore[attr-defined]
    assert not symptom.matches(symptom.counter_example)  # type: ignore[attr-defined]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_check_is_documented_in_its_one_file(check: type[Check]) -> None:
    documentation = check.documentation()
    assert re.findall(r"^## (.+)$", documentation, re.M) == list(HEADINGS)
    assert check.topic in TOPICS
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", check.name)
    assert (ROOT / "checks" / f"{check.name.replace('-', '_')}.py").is_file()
    assert "https://" in documentation.partition("## References")[2]
    for snippet in re.findall(r"```python\n(.*?)```", documentation, re.S):
        ast.parse(snippet)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_fixes_that_are_python_parse(check: type[Check]) -> None:
    for example in check().examples():
        result = check_case(check, example.case, example.trials)
        for finding in result.findings:
            for fix in finding.fixes:
                if fix.kind == "edit":
                    body = fix.preview + ("\n    pass" if fix.preview.endswith(":") else "")
                    ast.parse(body if "(" in fix.preview or "\n" in body else f"f({fix.preview})")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_scripts_for_the_patient_are_where_the_check_says(check: type[Check]) -> None:
    for script in (*check.trials, *check.questions):
        tree = ast.parse(Path(script.path).read_text(), feature_version=(3, 8))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        wanted = {"combinations", "broken", "fixed"} if script in check.trials else {"answer"}
        assert wanted <= functions


def test_names_are_unique() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)


def test_a_case_without_facts_is_skipped_by_every_check() -> None:
    from llm_doctor.check import facts_of

    for check in EXAMINING:
        result = check_case(check, Case(facts=facts_of()), ())
        assert result.outcome == "skipped", check.name
        assert result.reason == "not in this example" or "workload" in str(result.reason), check.name
