"""Whether what a log says is so on this machine, by the check of each diagnosis and its trials."""

from __future__ import annotations

from typing import List

import msgspec

from llm_doctor import registry
from llm_doctor.logs.data import Here, Triage
from llm_doctor.model import CheckResult, Report


def names(triage: Triage) -> List[str]:
    """The checks of its diagnoses that examine a machine."""
    known = {entry.name for entry in registry.registered()}
    return sorted({it.check for it in triage.diagnoses} & known)


def with_this_machine(triage: Triage, report: Report) -> Triage:
    """The triage with what the report of these checks says."""
    said = {check.name: _of(check) for check in report.checks}
    nothing = Here(status="not-run", sentence="this check knows logs alone")
    logs = tuple(
        msgspec.structs.replace(
            log,
            diagnoses=tuple(
                msgspec.structs.replace(it, here=said.get(it.check, nothing)) for it in log.diagnoses
            ),
        )
        for log in triage.logs
    )
    return msgspec.structs.replace(triage, logs=logs)


def _of(check: CheckResult) -> Here:
    """Reproduced or refuted where a trial says so; else what was found without one."""
    for result in check.trials:
        if result.status == "reproduced":
            message = check.findings[0].message if check.findings else result.name
            return Here(status="reproduced", sentence=f"{message} ({result.device})")
    serious = [it for it in check.findings if it.severity != "note"]
    if serious:
        return Here(status="found", sentence=serious[0].message)
    for result in check.trials:
        if result.status == "refuted":
            return Here(
                status="refuted", sentence=f"the trial {result.name} ran without it ({result.device})"
            )
    if check.outcome in ("pass", "findings") and not check.trials:
        return Here(status="not-found", sentence=check.findings[0].message if check.findings else "")
    reasons = [check.reason, *(result.reason for result in check.trials)]
    return Here(status="not-run", sentence=next(filter(None, reasons), check.outcome))
