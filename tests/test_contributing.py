"""The check that CONTRIBUTING writes is one that works."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from llm_doctor import probes, registry
from llm_doctor.check import Check, TrialRequest
from llm_doctor.examination import check_case
from llm_doctor.host import temporary_folder
from llm_doctor.places import Places


@pytest.fixture
def check(tmp_path: Path) -> type[Check]:
    trial, source = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    (tmp_path / "trial.py").write_text(trial)
    file = f"on_gpu=True, file={str(tmp_path / 'trial.py')!r})"
    (tmp_path / "contributed.py").write_text(source.replace("on_gpu=True)", file))
    spec = importlib.util.spec_from_file_location("contributed", tmp_path / "contributed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Check] = module.AdamEpsUnderflow
    return found


def test_its_examples_hold(check: type[Check]) -> None:
    registry._validate(check)
    for example in check().examples():
        result = check_case(check, example.case, example.trials)
        assert (result.outcome, result.reason) == (example.outcome, example.reason)
        assert tuple(f"{f.severity}: {f.message}" for f in result.findings) == example.says


def test_its_trial_reproduces_the_fault(check: type[Check], stack_site: str) -> None:
    request = TrialRequest(check.trials[0])
    with temporary_folder() as folder, probes.worker(sys.executable, folder, lambda doing: None) as worker:
        ((result,),) = probes.run_trials(worker, [request], Places(), 60.0, lambda request, error: False)
    assert result.status == "reproduced"
    (case,) = result.cases
    assert case.broken is not None and case.broken.measured == {"finite_weights": 0}
