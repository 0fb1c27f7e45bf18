"""Questions and trials: gives the worker in the patient its jobs, makes answers and proofs of results."""

from __future__ import annotations

import contextlib
import itertools
import time
from typing import Any, Callable, Iterable, Iterator, Mapping, NamedTuple, Sequence

from llm_doctor.check import Asked, PatientScript, Trial, TrialRequest
from llm_doctor.host import Unavailable, WorkerProcess
from llm_doctor.model import Answer, Arm, ProofStatus, TrialCase, TrialResult
from llm_doctor.places import Place, Places

IMPORT_LIMIT_S = 180.0
"""For one import; a cold one from a network file system takes a minute. Not counted against the budget."""
IDLE_LIMIT_S = 20.0
"""For an import that neither computes nor reads: a slow file system hands out something all the time."""
_LOOK_S = 2.0
_ARM_OUTCOMES = ("passed", "failed", "raised", "killed", "timeout")

NO_GPU = ""
"""For CUDA_VISIBLE_DEVICES: where nothing is known of a GPU, it may be somebody else's."""

Progress = Callable[[str], None]
ShowsSymptom = Callable[[TrialRequest, str], bool]


class Job(NamedTuple):
    """One call of a function in a question's or trial's file.

    An arm is `isolated`: nothing ran before it in its process. Questions and plans share one."""

    script: PatientScript
    call: str
    arguments: Mapping[str, Any]
    needs_imports: bool = True
    gpu: str | None = None
    isolated: bool = False


class JobResult(NamedTuple):
    """`outcome` is an arm's, or not-imported, or not-run with the reason in `error`."""

    outcome: str
    value: Any = None
    error: str | None = None
    seconds: float = 0.0
    on_gpu: bool = False


class Worker:
    """The worker in the patient, started again when an import kills it."""

    def __init__(self, python: str, folder: str, progress: Progress) -> None:
        self._python = python
        self._folder = folder
        self._progress = progress
        self._process: WorkerProcess | None = None
        self._broken: dict[str, str] = {}
        self._hanging: list[str] = []
        self._wanted: list[str] = []
        self.import_seconds = 0.0
        self.interrupted = False

    def run(self, jobs: Sequence[Job], budget_s: float) -> list[JobResult]:
        """Runs the jobs; a lost worker, a spent budget or Ctrl-C leave results with the reason."""
        results: dict[int, JobResult] = {}
        for module in itertools.chain.from_iterable(job.script.imports for job in jobs):
            if module not in self._wanted:
                self._wanted.append(module)
        lost = "interrupted"
        if not self.interrupted:
            try:
                self._import()
                for index, job in enumerate(jobs):
                    broken = [self._broken[m] for m in job.script.imports if m in self._broken]
                    if broken and job.needs_imports:
                        results[index] = JobResult("not-imported", error=broken[0])
                waiting = [index for index in range(len(jobs)) if index not in results]
                self._run(jobs, waiting, budget_s, results)
            except (Unavailable, EOFError) as error:
                lost = f"the worker was lost: {error}"
                self.stop()  # the next run gets another one
            except KeyboardInterrupt:
                self.interrupted = True
                self.stop()
        return [results.get(i) or JobResult("not-run", error=lost) for i in range(len(jobs))]

    def stop(self) -> None:
        """Ends the worker and its lanes."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _import(self) -> None:
        while True:
            modules = [module for module in self._wanted if module not in self._broken]
            importing = None
            began = time.monotonic()
            try:
                if self._process is None:
                    self._process = WorkerProcess(self._python, self._folder)
                self._process.send({"do": "import", "modules": modules, "hanging": self._hanging})
                while True:
                    event = _imported(self._process)
                    if event["event"] == "importing":
                        importing = event["module"]
                        self._progress(f"importing {importing.partition('.')[0]}")
                    elif event["event"] == "imported":
                        self.import_seconds += event["seconds"]
                        importing = None
                    elif event["event"] == "ready":
                        return
            except EOFError as error:
                self.stop()
                self.import_seconds += time.monotonic() - began
                if importing is None:
                    raise
                if isinstance(error, _Hangs):
                    self._hanging.append(importing)  # what needs it would wait as long, one after the other
                # An import that kills or hangs its process costs what needs it, and nothing else.
                self._broken[importing] = f"import {importing}: {error}"

    def _run(
        self, jobs: Sequence[Job], waiting: Iterable[int], budget_s: float, results: dict[int, JobResult]
    ) -> None:
        assert self._process is not None
        commands = []
        for index in waiting:
            job = jobs[index]
            commands.append(
                {
                    "id": index,
                    "file": job.script.path,
                    "call": job.call,
                    "arguments": job.arguments,
                    "imports": [m for m in job.script.imports if m not in self._broken],
                    "needs_imports": job.needs_imports,
                    "limit_s": job.script.limit_s,
                    "gpu": job.gpu,
                    "isolated": job.isolated,
                }
            )
        self._process.send({"do": "run", "jobs": commands, "budget_s": budget_s})
        # The worker keeps the time; this limit is for a worker that no longer does.
        while True:
            event = self._process.receive(budget_s + IMPORT_LIMIT_S)
            if event is None:
                self.stop()
                raise EOFError("it stopped answering")
            if event["event"] == "importing":
                self._progress(f"importing {event['module'].partition('.')[0]}")
            elif event["event"] == "imported":
                self.import_seconds += event["seconds"]
            elif event["event"] == "started":
                self._progress(f"trying {jobs[event['id']].script.name}")
            elif event["event"] == "finished":
                results[event["id"]] = JobResult(
                    event["outcome"],
                    event.get("value"),
                    event.get("error"),
                    event.get("seconds", 0.0),
                    event.get("on_gpu", False),
                )
            elif event["event"] == "done":
                return


class _Hangs(EOFError):
    """An import that has to be given up."""


def _imported(process: WorkerProcess) -> dict[str, Any]:
    """The worker's next event while it imports. Raises _Hangs, and EOFError when the worker is gone."""
    began = busy = time.monotonic()
    done = process.work_done()
    while True:
        event = process.receive(_LOOK_S)
        if event is not None:
            return event
        now, before, done = time.monotonic(), done, process.work_done()
        if done is None or done != before:
            busy = now
        if now - busy > IDLE_LIMIT_S:
            raise _Hangs(f"did nothing for {IDLE_LIMIT_S:g} s")
        if now - began > IMPORT_LIMIT_S:
            raise _Hangs(f"did not end within {IMPORT_LIMIT_S:g} s")


@contextlib.contextmanager
def worker(python: str, folder: str, progress: Progress) -> Iterator[Worker]:
    """A worker that is ended, with all that it started, however the block is left."""
    it = Worker(python, folder, progress)
    try:
        yield it
    finally:
        it.stop()


def ask(it: Worker, questions: Sequence[Asked], where: Places, budget_s: float) -> dict[str, Answer]:
    """The answers by the questions' names.

    In the lane that the trials will use: what is imported there need not be imported again, and no second
    process claims a GPU that lets in one alone."""
    gpu = where.idle[0].uuid if where.idle else NO_GPU
    jobs = [
        Job(q, "answer", {"settings": settings}, needs_imports=q.needs_imports, gpu=gpu)
        for q, settings in questions
    ]
    answers = {}
    for (question, _), result in zip(questions, it.run(jobs, budget_s)):
        ok = result.outcome == "passed"
        answers[question.name] = Answer(
            status="ok" if ok else "unavailable",
            source=f"{question.name} in the patient",
            seconds=result.seconds,
            value=result.value if ok else None,
            reason=None if ok else result.error or result.outcome,
        )
    return answers


def run_trials(
    it: Worker,
    requests: Sequence[TrialRequest],
    where: Places,
    budget_s: float,
    shows_symptom: ShowsSymptom,
) -> list[list[TrialResult]]:
    """Runs each trial once on each of its devices: its combinations first, then every arm of every trial.

    Trials that want a GPU run on an idle one, or else say why not. The others see none: a library that makes
    a context where it may would disturb whoever uses the first GPU."""
    began = time.monotonic() - it.import_seconds
    runs = [(request, place) for request in requests for place in _devices(request.trial, where)]
    gpus = [place.uuid if place else NO_GPU for _, place in runs]
    plans = it.run(
        [
            Job(request.trial, "combinations", {"settings": request.settings}, gpu=gpu)
            for (request, _), gpu in zip(runs, gpus)
        ],
        budget_s,
    )
    jobs: list[Job] = []
    keys: list[tuple[int, int, str]] = []
    for number, ((request, _), plan, gpu) in enumerate(zip(runs, plans, gpus)):
        for position, combination in enumerate(plan.value if _is_plan(plan) else ()):
            for arm in ("broken", "fixed"):
                if arm == "fixed" and combination.get("remedy", ...) is None:
                    continue  # nothing on this machine to try
                arguments = {"settings": request.settings, "combination": combination}
                jobs.append(Job(request.trial, arm, arguments, gpu=gpu, isolated=True))
                keys.append((number, position, arm))
    remaining = max(0.0, budget_s - (time.monotonic() - began - it.import_seconds))
    arms = dict(zip(keys, it.run(jobs, remaining))) if jobs else {}
    results: list[list[TrialResult]] = [[] for _ in requests]
    for number, ((request, place), plan) in enumerate(zip(runs, plans)):
        result = _result(request, number, plan, place, where.why_cpu, arms, shows_symptom)
        mine = results[requests.index(request)]
        if place is None or result.device != "cpu" or not mine:  # a torch that uses no GPU: once is enough
            mine.append(result)
    for request, mine in zip(requests, results):
        if request.trial.on_every_gpu and (where.idle or request.trial.gpu_only):
            mine += [not_run(request, f"left alone: {why}", f"cuda:{gpu}") for gpu, why in where.left_alone]
    return results


def _devices(trial: Trial, where: Places) -> Sequence[Place | None]:
    if trial.on_every_gpu and (where.idle or trial.gpu_only):
        return where.idle
    return [where.idle[0] if where.idle and trial.on_gpu else None]


def _result(
    request: TrialRequest,
    number: int,
    plan: JobResult,
    place: Place | None,
    why_cpu: str | None,
    arms: Mapping[tuple[int, int, str], JobResult],
    shows_symptom: ShowsSymptom,
) -> TrialResult:
    mine = [result for key, result in arms.items() if key[0] == number]
    # What was asked for is not what was used: torch may be unable to use the GPU.
    ran = [result for result in mine if result.outcome in ("passed", "failed")]
    # A GPU that fails is not the CPU.
    on_gpu = request.trial.gpu_only or any(result.on_gpu for result in mine) or not ran
    device = f"cuda:{place.gpu}" if place and on_gpu else "cpu"
    if not request.trial.on_gpu and not request.trial.on_every_gpu:
        why_cpu = None
    elif place and device == "cpu":
        why_cpu = f"torch did not use GPU {place.gpu}: tried on the CPU"
    if plan.outcome == "passed" and not _is_plan(plan):
        return not_run(request, f"its combinations are no list of objects: {plan.value!r}"[:200], device)
    if plan.outcome != "passed":
        return not_run(request, plan.error or plan.outcome, device)
    cases = tuple(
        _case(
            combination,
            arms.get((number, position, "broken")),
            arms.get((number, position, "fixed")),
            lambda error: shows_symptom(request, error),
        )
        for position, combination in enumerate(plan.value)
    )
    statuses = [case.status for case in cases]
    # Refuted only when every case is: half of an answer is none.
    order: tuple[ProofStatus, ...] = ("reproduced", "inconclusive", "not-run", "refuted")
    status: ProofStatus = next((status for status in order if status in statuses), "not-run")
    return TrialResult(
        name=request.trial.name,
        device=device,
        status=status,
        seconds=round(sum(result.seconds for result in mine), 4),
        reason=next((case.reason for case in cases if case.status == status), None) or why_cpu,
        cases=cases,
    )


def _is_plan(plan: JobResult) -> bool:
    return (
        plan.outcome == "passed"
        and isinstance(plan.value, list)
        and all(isinstance(combination, dict) for combination in plan.value)
    )


def not_run(request: TrialRequest, reason: str, device: str = "cpu") -> TrialResult:
    """The result of a trial that was not run, with the reason."""
    return TrialResult(name=request.trial.name, device=device, status="not-run", seconds=0.0, reason=reason)


def _case(
    combination: dict[str, Any],
    broken: JobResult | None,
    fixed: JobResult | None,
    is_symptom: Callable[[str], bool],
) -> TrialCase:
    arms = {"broken": _arm(broken), "fixed": _arm(fixed)}
    status, reason = judge(broken, fixed, is_symptom)
    return TrialCase(combination=combination, status=status, reason=reason, **arms)


def judge(
    broken: JobResult | None, fixed: JobResult | None, is_symptom: Callable[[str], bool]
) -> tuple[ProofStatus, str | None]:
    """What two arms prove, and why when it is nothing.

    reproduced: the broken arm failed with the check's own symptom and the fixed arm passed; refuted: the
    broken arm passed; inconclusive: neither can be said."""
    for arm in (broken, fixed):
        if arm is not None and arm.outcome not in _ARM_OUTCOMES:
            return "not-run", arm.error
    if broken is None:
        return "not-run", "it was not planned"
    if broken.outcome == "passed":
        return "refuted", None
    if broken.outcome in ("killed", "timeout"):
        return "inconclusive", f"the arm was lost: {broken.error}"
    if broken.outcome == "raised" and not is_symptom(broken.error or ""):
        return "inconclusive", f"it failed in another way: {first_line(broken.error)}"
    if fixed is None:
        return "inconclusive", "it fails as suspected, but this machine has no remedy to try"
    if fixed.outcome != "passed":
        fails = f" ({first_line(broken.error)})" if broken.error else ""
        helps_not = f"but the remedy does not help here: {first_line(fixed.error)}"
        return "inconclusive", f"it fails as suspected{fails}, {helps_not}"
    return "reproduced", None


def first_line(text: str | None) -> str:
    """The first line of a library's error."""
    return (text or "").strip().partition("\n")[0]


def _arm(result: JobResult | None) -> Arm | None:
    if result is None or result.outcome not in _ARM_OUTCOMES:
        return None
    return Arm(
        outcome=result.outcome,  # type: ignore[arg-type]
        seconds=result.seconds,
        error=result.error,
        measured=result.value if isinstance(result.value, dict) else {},
    )
