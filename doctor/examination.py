"""The run, stage by stage: facts, questions, checks, trials, conclusions, report. No stage reaches back."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from typing import Callable, Iterable, List, Mapping, NamedTuple, Sequence, Type, TypeVar

import msgspec

from llm_doctor import __version__, assume, probes
from llm_doctor.check import Asked, CannotTell, Case, Check, Suspicion, TrialRequest, symptom_shown
from llm_doctor.host import Host, Unavailable, temporary_folder
from llm_doctor.model import (
    EXIT_INTERRUPTED,
    SCHEMA,
    SEVERITIES,
    Answer,
    CheckOutcome,
    CheckResult,
    Doctor,
    Facts,
    Finding,
    Packages,
    Patient,
    Report,
    TrialResult,
    Verdict,
)
from llm_doctor.places import places
from llm_doctor.reading import Reading
from llm_doctor.registry import Registered, described
from llm_doctor.settings import Settings
from llm_doctor.workload.data import Workload
from llm_doctor.workload.summary import summary

NO_WORKLOAD = "no workload was given"
INCOMPLETE = 3
FOUND = 1

Progress = Callable[[str], None]
T = TypeVar("T")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be examined, and how far."""

    checks: Sequence[Registered]
    no_probes: str | None = None
    deep: bool = False
    budget_s: float = 60.0
    fail_on: str = "error"
    workload: Workload | None = None
    assumed: Sequence[str] = ()
    settings: Settings = Settings()


class _Examined(msgspec.Struct):
    """One check on its way: its suspicions, or the outcome that it already has."""

    entry: Registered
    seconds: float = 0.0
    suspicions: Sequence[Suspicion] = ()
    outcome: CheckOutcome | None = None
    reason: str | None = None


def examine(request: Request, reading: Reading, progress: Progress) -> Report:
    """Examines node and patient. Ctrl-C ends it early with a report of what is known so far."""
    progress("reading the node")
    facts, chosen, interrupted = reading.facts()
    facts = assume.apply(facts, request.assumed)
    assumed = bool(request.assumed)
    pinned = assume.pinned(facts, request.workload, assumed)
    if pinned:
        versions = {name: value.constant for name, value in pinned.items()}
        facts = assume.with_versions(facts, versions, assumed)
        said = [f"{name}={value.constant} ({value.place})" for name, value in sorted(pinned.items())]
        why = "the versions are those that a file of the workload pins; they are not installed here"
        request = msgspec.structs.replace(
            request, assumed=[*request.assumed, *said], no_probes=request.no_probes or why
        )
    patient_lost = facts.python.value is None
    no_probes = "interrupted" if interrupted else request.no_probes
    if no_probes is None and patient_lost:
        no_probes = facts.python.reason
    probed = None
    if no_probes is None:
        try:
            probed = _with_probes(request, reading.host, facts, chosen.python, progress)
        except Unavailable as error:
            no_probes = str(error)
        except KeyboardInterrupt:
            interrupted, no_probes = True, "interrupted"
    if probed is None:
        probed = _without_probes(request, facts, str(no_probes))
    examined, answers, results, stopped = probed
    interrupted = interrupted or stopped

    case = _case(request, facts, answers)
    checks = tuple(
        _without_ignored(_conclude(item, results, case), request.workload, request.settings)
        for item in examined
    )
    workload = request.workload
    unread = workload is not None and not workload.files and not workload.launches
    lost = patient_lost or facts.packages.value is None
    verdict, exit_code = judge(checks, request.fail_on, incomplete=lost or interrupted or unread)
    return Report(
        schema=SCHEMA,
        doctor=Doctor(version=__version__),
        started=reading.started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=round(time.monotonic() - reading.began, 3),
        verdict=verdict,
        exit_code=EXIT_INTERRUPTED if interrupted else exit_code,
        patient=Patient(
            python=chosen.python,
            version=facts.python.value.version if facts.python.value else None,
            chosen_by=chosen.by,
        ),
        facts=facts,
        answers=answers,
        checks=checks,
        workload=summary(request.workload) if request.workload is not None else None,
        assumed=tuple(request.assumed),
    )


class _Probed(NamedTuple):
    """The checks with their suspicions, and what the patient showed."""

    examined: Sequence[_Examined]
    answers: dict[str, Answer]
    results: Mapping[str, Sequence[TrialResult]]
    interrupted: bool = False


def _with_probes(request: Request, host: Host, facts: Facts, python: str, progress: Progress) -> _Probed:
    with temporary_folder() as folder, probes.worker(python, folder, progress) as worker:
        case = _case(request, facts, {})
        questions = {
            asked.question.name: asked
            for entry in request.checks
            if entry.check
            for asked in _wanted(entry.check, case)
        }
        where = places(facts.gpus.value, host.env("CUDA_VISIBLE_DEVICES"))
        answers = probes.ask(worker, list(questions.values()), where, request.budget_s) if questions else {}
        examined = _examine_all(request, facts, answers)
        trials = _distinct_trials(examined)
        results: dict[str, Sequence[TrialResult]] = {}
        if trials:
            ran = probes.run_trials(worker, list(trials.values()), where, request.budget_s, _shows(request))
            results = dict(zip(trials, ran))
        return _Probed(examined, answers, results, worker.interrupted)


def _without_probes(request: Request, facts: Facts, why: str) -> _Probed:
    examined = _examine_all(request, facts, {})
    trials = _distinct_trials(examined)
    return _Probed(examined, {}, {key: [probes.not_run(trial, why)] for key, trial in trials.items()})


def judge(checks: Iterable[CheckResult], fail_on: str, incomplete: bool) -> tuple[Verdict, int]:
    """The verdict and the exit code: 0 nothing at or above `fail_on`, 1 something, 3 not completed.

    A finding at the threshold makes a 1 even when the examination was not completed."""
    severities = {finding.severity for check in checks for finding in check.findings}
    incomplete = incomplete or any(check.outcome in ("crashed", "timeout") for check in checks)
    threshold = SEVERITIES[: SEVERITIES.index(fail_on) + 1] if fail_on in SEVERITIES else ()
    exit_code = FOUND if severities & set(threshold) else INCOMPLETE if incomplete else 0
    if exit_code == INCOMPLETE:
        return "incomplete", exit_code
    if "error" in severities:
        return "fail", exit_code
    return ("warn" if "warning" in severities else "pass"), exit_code


# --- Checks ---------------------------------------------------------------------------------------------


def _case(request: Request, facts: Facts, answers: Mapping[str, Answer]) -> Case:
    return Case(
        facts=facts,
        answers=answers,
        deep=request.deep,
        workload=request.workload,
        assumed=bool(request.assumed),
    )


def _wanted(check: Type[Check], case: Case) -> Sequence[Asked]:
    """The check's questions whose packages are installed: asking the others would only say so."""
    packages = case.known(Packages)
    installed = packages.installed if packages else {}
    if check.of_workload and case.workload is None:
        return []
    try:
        asked = list(check().asks(case))
    except KeyboardInterrupt:
        raise
    except BaseException:  # examine() will meet it again, and there it is told
        return []
    return [it for it in asked if all(m.partition(".")[0] in installed for m in it.question.imports)]


def check_case(check: Type[Check], case: Case, trials: Sequence[TrialResult]) -> CheckResult:
    """What a check says of a case, given results of its trials: how examples are tried."""
    item = _examine(Registered(check.name, "example", check), case)
    results = {
        key: [result for result in trials if result.name == request.trial.name]
        or [probes.not_run(request, "not in this example")]
        for key, request in _distinct_trials([item]).items()
    }
    return _conclude(item, results, case)


def _examine_all(request: Request, facts: Facts, answers: Mapping[str, Answer]) -> list[_Examined]:
    case = _case(request, facts, answers)
    return [_examine(entry, case) for entry in request.checks]


def _examine(entry: Registered, case: Case) -> _Examined:
    if entry.left_out:
        return _Examined(entry, outcome="skipped", reason=NO_WORKLOAD)
    if entry.check is None:
        return _Examined(entry, outcome="crashed", reason=entry.problem)
    began = time.monotonic()
    item = _Examined(entry)
    if entry.check.of_workload and case.workload is None:
        item.outcome, item.reason = "skipped", NO_WORKLOAD
        return item
    try:
        for needed in entry.check.needs:
            case.fact(needed)
        suspicions = list(entry.check().examine(case))
        for suspicion in suspicions:
            if not isinstance(suspicion, Suspicion):
                raise TypeError(f"examine gave a {type(suspicion).__name__}, not a Suspicion")
            for request in suspicion.trials:
                _key(request)  # settings travel as JSON
        item.suspicions = suspicions
    except CannotTell as error:
        item.outcome, item.reason = "skipped", str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a check's sys.exit() too
        item.outcome, item.reason = "crashed", described(error)
    item.seconds = time.monotonic() - began
    return item


def _key(request: TrialRequest) -> str:
    return f"{request.trial.path} {json.dumps(request.settings, sort_keys=True)}"


def _distinct_trials(examined: Iterable[_Examined]) -> dict[str, TrialRequest]:
    return {
        _key(request): request
        for item in examined
        for suspicion in item.suspicions
        for request in suspicion.trials
    }


def _shows(request: Request) -> probes.ShowsSymptom:
    """Whether an error is a symptom of a check that owns the trial."""
    checks = [entry.check for entry in request.checks if entry.check is not None]

    def shows(trial: TrialRequest, error: str) -> bool:
        return any(symptom_shown(check, error) for check in checks if trial.trial in check.trials)

    return shows


def _conclude(item: _Examined, results: Mapping[str, Sequence[TrialResult]], case: Case) -> CheckResult:
    check = item.entry.check
    began = time.monotonic()
    findings: list[Finding] = []
    trials: dict[str, Sequence[TrialResult]] = {}
    outcome, reason = item.outcome, item.reason
    if outcome is None and check is not None:
        try:
            for suspicion in item.suspicions:
                mine = {_key(request): results[_key(request)] for request in suspicion.trials}
                trials.update(mine)
                if mine:
                    shown = tuple(itertools.chain.from_iterable(mine.values()))
                    findings.extend(check().conclude(suspicion.finding, shown))
                else:
                    findings.append(suspicion.finding)
            # A finding that does not fit the contract is its check's fault, found here and not in a format.
            findings = msgspec.convert(msgspec.to_builtins(findings), List[Finding])
            if case.workload is not None:
                findings = [
                    finding
                    if check().concerns(case.workload, finding)
                    else msgspec.structs.replace(finding, severity="note")
                    for finding in findings
                ]
            outcome, reason = _outcome(findings, list(trials.values()))
            if outcome == "pass":
                with contextlib.suppress(CannotTell):
                    reason = check().remark(case, list(_all(trials)))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            findings, outcome, reason = [], "crashed", described(error)
    return CheckResult(
        name=item.entry.name,
        topic=check.topic if check is not None else item.entry.left_out,
        outcome=outcome or "crashed",
        reason=reason,
        seconds=round(item.seconds + time.monotonic() - began + sum(it.seconds for it in _all(trials)), 4),
        trials=tuple(_all(trials)),
        findings=tuple(
            f if f.url or check is None else msgspec.structs.replace(f, url=check.url) for f in findings
        ),
    )


def _without_ignored(result: CheckResult, workload: Workload | None, settings: Settings) -> CheckResult:
    """Without what a comment on the line, or the project's settings, want to hear nothing of."""
    if workload is None:
        return result

    def ignored(finding: Finding) -> bool:
        path, line = finding.subject.path, finding.subject.line
        if path is None or line is None:
            return False
        names = workload.ignored.get(path, {}).get(line, frozenset())
        return bool({result.name, "*"} & names) or settings.silences(result.name, path)

    kept = tuple(finding for finding in result.findings if not ignored(finding))
    left_out = len(result.findings) - len(kept)
    if not left_out:
        return result
    said = f"{left_out} finding{'' if left_out == 1 else 's'} ignored, as asked"
    outcome = result.outcome
    if outcome == "findings" and all(finding.severity == "note" for finding in kept):
        outcome = "pass"
    reason = f"{result.reason}; {said}" if result.reason else said
    return msgspec.structs.replace(result, findings=kept, outcome=outcome, reason=reason)


def _all(trials: Mapping[str, Sequence[TrialResult]]) -> Iterable[TrialResult]:
    return itertools.chain.from_iterable(trials.values())


def _outcome(
    findings: Sequence[Finding], trials: Sequence[Sequence[TrialResult]]
) -> tuple[CheckOutcome, str | None]:
    """`pass` wants something that was shown: a trial that spoke on no device is a skip with its reason."""
    if any(finding.severity != "note" for finding in findings):
        return "findings", None
    for results in trials:
        silent = [result for result in results if result.status in ("inconclusive", "not-run")]
        if len(silent) == len(results) and not findings:
            return "skipped", f"{silent[0].status}: {silent[0].reason}"
    return "pass", None
