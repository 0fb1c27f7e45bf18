"""What a check is: one fault, in one file, with its documentation, its trial and its examples.

The class docstring is the documentation page. Its first line names the fault; then come the headings
in `HEADINGS`. `examine` and `conclude` are pure: they see facts, answers and trial results, not the machine.
"""

from __future__ import annotations

import functools
import re
from typing import (
    TYPE_CHECKING,
    AbstractSet,
    Any,
    Callable,
    ClassVar,
    Dict,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    NamedTuple,
    Sequence,
    Tuple,
    Type,
    TypeVar,
)

import msgspec

from llm_doctor.host import PATIENT_CODE
from llm_doctor.model import (
    FACT_NAMES,
    Answer,
    CheckOutcome,
    Fact,
    Facts,
    Finding,
    Fix,
    Packages,
    Proof,
    Severity,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Call, Place, Script, Story, Workload

if TYPE_CHECKING:
    from packaging.version import Version

HEADINGS = ("What it finds", "Why it breaks", "How it is proven", "Fix", "References")
TOPICS = (
    "cuda-toolkit",
    "bf16",
    "quantized-loading",
    "fp16-int8-prepare",
    "input-grads",
    "dtype-mismatch",
    "disk-space",
    "zero-memory",
    "driver-gpu",
    "nccl",
    "deepspeed-config",
    "package-conflict",
    "cuda-kernel",
    "device-placement",
    "sharding-checkpointing",
    "model-files",
    "host-limits",
    "loss-scale",
)

T = TypeVar("T")


class CannotTell(Exception):
    """Raised by `examine` where the check has nothing to go by; the message is the reason for skipping."""


class PatientScript(msgspec.Struct, frozen=True, kw_only=True):
    """A file that runs inside the patient, and the modules it imports there (never torch's friends here).

    `file` is needed by plugins only: built-in ones are found under doctor/patient/ by their name."""

    name: str
    imports: Tuple[str, ...]
    limit_s: float = 30.0
    file: str = ""

    folder: ClassVar[str]

    @property
    def path(self) -> str:
        """The file, absolute."""
        return self.file or str(PATIENT_CODE / self.folder / (self.name.replace("-", "_") + ".py"))


class Trial(PatientScript, frozen=True, kw_only=True):
    """A miniature experiment in two arms. On a GPU that nobody uses where `on_gpu`, on every such one
    where `on_every_gpu`; else on the CPU, unless it says nothing there (`gpu_only`)."""

    on_gpu: bool = False
    on_every_gpu: bool = False
    gpu_only: bool = False

    folder: ClassVar[str] = "trials"


class Question(PatientScript, frozen=True, kw_only=True):
    """Something asked of the installed libraries; asked even where an import fails unless it needs them."""

    needs_imports: bool = True

    folder: ClassVar[str] = "questions"


class Asked(NamedTuple):
    """A question and what it needs to know of the workload."""

    question: Question
    settings: Mapping[str, object] = {}


class TrialRequest(NamedTuple):
    """A trial and what it needs to know of this machine. Equal requests are run once."""

    trial: Trial
    settings: Mapping[str, object] = {}


class Suspicion(NamedTuple):
    """A finding as it stands before its trials, and the trials that would prove it."""

    finding: Finding
    trials: Tuple[TrialRequest, ...] = ()


class Symptom(msgspec.Struct, frozen=True, kw_only=True):
    """How a fault looks in a log: a pattern, a text that it is in, and a similar one that it is not in.

    Logs are wrapped, boxed and pasted: a space in the pattern stands for any white space, a line break
    included, or for none; a backtick for any quotes or none. Every pattern has a word that all its texts
    have in them, by which it is looked for first. `cause` says in one sentence what happened, with the
    pattern's named groups in braces; where it is empty, or a group has nothing, the check's first line
    stands.

    `standing`: a `failure` is a cause by itself; `aftermath` is what falls over after another failure as
    well, and is the cause only where nothing else is; a `hint` is a warning, a cause only where nothing
    failed."""

    pattern: str
    example: str
    counter_example: str
    cause: str = ""
    standing: Literal["failure", "aftermath", "hint"] = "failure"
    sure: Literal["certain", "likely"] = "certain"
    fixes: Tuple[Fix, ...] = ()
    """What helps where this is in a log; else the check's `remedies`. Groups stand in braces here too."""

    def matches(self, text: str) -> bool:
        """Whether this text shows the fault."""
        return self.search(text) is not None

    def search(self, text: str) -> re.Match[str] | None:
        """Where the text first shows it."""
        return _loosened(self.pattern).search(text)


def remedy(
    title: str, preview: str = "", kind: Literal["edit", "command", "environment", "config"] = "command"
) -> Fix:
    """What a person may do about what stands in a log: a command or other text to copy, or advice alone."""
    return Fix(title=title, kind=kind if preview else "advice", applicability="manual", preview=preview)


@functools.lru_cache(maxsize=None)
def _loosened(pattern: str) -> re.Pattern[str]:
    # Bounded, so that nothing backtracks for long.
    return re.compile(
        _LOOSE.sub(lambda it: it[1] or (r"(?:\s{0,80})" if it[0] == " " else "[`'\"]*"), pattern)
    )


_LOOSE = re.compile(r"(\\.|\[\^?\]?(?:\\.|[^\]\\])*\])|[ `]")
"""Escapes and classes of characters, which stay as they are; spaces and backticks."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """All that a check may look at."""

    facts: Facts
    answers: Mapping[str, Answer] = {}
    deep: bool = False
    workload: Workload | None = None
    assumed: bool = False
    """Whether versions or GPUs are assumed (--assume): then no trial will ever speak."""

    def fact(self, kind: Type[T]) -> T:
        """The value of a fact. Raises CannotTell with its reason where it is unavailable."""
        fact = getattr(self.facts, FACT_NAMES[kind])
        if fact.value is None:
            raise CannotTell(fact.reason or f"{FACT_NAMES[kind]} is unavailable")
        value: T = fact.value
        return value

    def known(self, kind: Type[T]) -> T | None:
        """The value of a fact, or None where it is unavailable."""
        value: T | None = getattr(self.facts, FACT_NAMES[kind]).value
        return value

    def version(self, package: str) -> Version | None:
        """The version of a distribution in the patient; None where it is absent or is no version."""
        from packaging.version import Version

        packages = self.known(Packages)
        text = packages.installed.get(package) if packages else None
        try:
            return Version(text) if text else None
        except ValueError:  # InvalidVersion, or more digits than Python reads
            return None

    def answer(self, question: Question) -> Dict[str, object]:
        """What was answered; empty where it was not asked or could not be answered."""
        answer = self.answers.get(question.name)
        return answer.value if answer is not None and isinstance(answer.value, dict) else {}


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A case and what the check says of it: a test, and a line of the documentation.

    `says` lists the findings as `severity: message`."""

    title: str
    kind: Literal["healthy", "sick", "cannot-tell"]
    case: Case
    trials: Tuple[TrialResult, ...] = ()
    outcome: CheckOutcome
    reason: str | None = None
    says: Tuple[str, ...] = ()


def healthy(title: str, case: Case, *trials: TrialResult) -> Example:
    """A case of which the check has nothing to say."""
    return Example(title=title, kind="healthy", case=case, trials=trials, outcome="pass")


def sick(title: str, case: Case, *says: str, trials: Tuple[TrialResult, ...] = ()) -> Example:
    """A case and what the check finds in it; notes alone are a pass."""
    outcome: CheckOutcome = "pass" if all(it.startswith("note: ") for it in says) else "findings"
    return Example(title=title, kind="sick", case=case, trials=trials, outcome=outcome, says=says)


def cannot_tell(title: str, case: Case, reason: str, *trials: TrialResult) -> Example:
    """A case that the check has to leave open, and why."""
    return Example(
        title=title, kind="cannot-tell", case=case, trials=trials, outcome="skipped", reason=reason
    )


def case_of(*values: object, **answers: object) -> Case:
    """A case for an example: facts by the types of the given values, answers by name (`_` for `-`)."""
    return Case(
        facts=facts_of(*values),
        answers={
            name.replace("_", "-"): Answer(status="ok", source="example", seconds=0.0, value=value)
            for name, value in answers.items()
        },
    )


def facts_of(*values: object) -> Facts:
    """Facts for an example: the given ones, each by its type, and no others."""
    given = {FACT_NAMES[type(value)]: value for value in values}
    absent = Fact[Any](status="unavailable", source="example", seconds=0.0, reason="not in this example")
    known = {
        name: Fact[Any](status="ok", source="example", seconds=0.0, value=value)
        for name, value in given.items()
    }
    return Facts(**{name: known.get(name, absent) for name in FACT_NAMES.values()})


def without(kind: Type[Any], reason: str, case: Case) -> Case:
    """The case of an example in which a fact could not be read, for this reason."""
    absent = Fact[Any](status="unavailable", source="example", seconds=0.0, reason=reason)
    facts = msgspec.structs.replace(case.facts, **{FACT_NAMES[kind]: absent})
    return msgspec.structs.replace(case, facts=facts)


class Check:
    """One fault. Subclasses are found in llm_doctor.checks and at the entry point group of that name."""

    name: ClassVar[str]
    topic: ClassVar[str]
    severity: ClassVar[Severity]
    since: ClassVar[str]
    needs: ClassVar[Tuple[type, ...]] = ()
    questions: ClassVar[Tuple[Question, ...]] = ()
    trials: ClassVar[Tuple[Trial, ...]] = ()
    symptoms: ClassVar[Tuple[Symptom, ...]] = ()
    remedies: ClassVar[Tuple[Fix, ...]] = ()
    """What helps where a symptom is in a log, the best first."""
    of_log: ClassVar[bool] = False
    """Whether it is known by its symptoms alone: nothing is examined before a job."""
    url: ClassVar[str | None] = None
    of_workload: ClassVar[bool] = False
    """Whether it examines a workload and nothing else: without one it is skipped."""

    def asks(self, case: Case) -> Iterable[Asked]:
        """The questions to be answered before `examine`; here: all of them, without settings."""
        return map(Asked, self.questions)

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Whether this workload can meet what was found on the node; else it is a note."""
        return True

    def examine(self, case: Case) -> Iterable[Suspicion]:
        """What facts and answers make of the case. Raises CannotTell."""
        raise NotImplementedError

    def conclude(self, finding: Finding, results: Tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What a finding is worth after its trials; here: one finding for each case that reproduced.

        A fault that its trial refutes, or that was not shown, is not spoken of."""
        for result, case in reproduced(results):
            yield proven(finding, result, case)

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """What is worth knowing where nothing was found: the room that is left. May raise CannotTell."""
        return None

    def examples(self) -> Iterable[Example]:
        """Healthy, sick and cannot-tell cases."""
        return ()

    @classmethod
    def summary(cls) -> str:
        """The fault in one line: the first of the docstring."""
        return (cls.__doc__ or "").strip().partition("\n")[0]

    @classmethod
    def documentation(cls) -> str:
        """The docstring as Markdown, without its indentation."""
        lines = (cls.__doc__ or "").strip().splitlines()
        return "\n".join([*lines[:1], *(line[4:] for line in lines[1:])])


def stack_risk(case: Case, trial: Trial, message: str, *packages: str) -> Suspicion:
    """A note about what this stack makes risky, which only its trial can show.

    Raises CannotTell, naming the package, unless all of them are installed in the patient."""
    installed = case.fact(Packages).installed
    for package in packages:
        if package not in installed:
            raise CannotTell(f"{package} is not installed")
    finding = Finding(severity="note", confidence="likely", message=message, subject=Subject(kind="stack"))
    return Suspicion(finding, (TrialRequest(trial),))


def in_every_story(
    scripts: Iterable[Script],
    judge: Callable[[Story], Iterable[Tuple[Call, T]]],
    off_default: bool = False,
) -> Iterator[T]:
    """What holds on every way through a script that comes by the same call.

    `judge` yields what is at fault in one story, with the call of the story (`Story.calls`) that it hangs on.
    Where that call is also come by on a way without the fault, nothing is said: a condition that is not known
    decides it. Each place is spoken of once. With `off_default` calls count that only other options than the
    default ones lead to; what is at fault there must not hang on those options fitting each other."""
    for script in scripts:
        by_default = [story for story in script.stories if not story.off_default]
        spoken = {call.place for story in by_default for call in story.calls}
        yield from _in_all(by_default, judge, frozenset())
        if off_default:
            # What the defaults lead to is judged by the defaults.
            yield from _in_all([story for story in script.stories if story.off_default], judge, spoken)


def _in_all(
    stories: Sequence[Story], judge: Callable[[Story], Iterable[Tuple[Call, T]]], spoken: AbstractSet[Place]
) -> Iterator[T]:
    met: Dict[Place, int] = {}
    faulty: Dict[Place, List[T]] = {}
    for story in stories:
        for place in {call.place for call in story.calls}:
            met[place] = met.get(place, 0) + 1
        for place, thing in {call.place: thing for call, thing in judge(story)}.items():
            faulty.setdefault(place, []).append(thing)
    for place, things in faulty.items():
        if place not in spoken and len(things) >= met.get(place, 0):
            yield things[0]


def in_scripts(
    case: Case,
    trial: Trial,
    judge: Callable[[Story], Iterable[Tuple[Call, Finding]]],
    off_default: bool = False,
) -> Iterator[Suspicion]:
    """What is at fault in every story of the workload's scripts, each for the trial to speak of.

    Raises CannotTell where there is no script."""
    if case.workload is None or not case.workload.scripts:
        raise CannotTell("no Python script in the workload")
    for finding in in_every_story(case.workload.scripts, judge, off_default):
        yield Suspicion(finding, (TrialRequest(trial),))


def at(place: Place, kind: str = "script") -> Subject:
    """The subject of a finding that stands in a file."""
    return Subject(
        kind=kind,
        path=place.path,
        line=place.line,
        column=place.column,
        end_line=place.end_line or None,
        end_column=place.end_column or None,
    )


def reproduced(results: Iterable[TrialResult]) -> Iterator[Tuple[TrialResult, TrialCase]]:
    """Every case that reproduced the fault, with its trial."""
    for result in results:
        for case in result.cases:
            if case.status == "reproduced":
                yield result, case


def proven(finding: Finding, result: TrialResult, case: TrialCase) -> Finding:
    """The finding with a trial's case as its proof; its fixes are verified by the fixed arm."""
    return msgspec.structs.replace(
        finding,
        confidence="proven",
        evidence={**finding.evidence, "combination": case.combination, "device": result.device},
        proof=Proof(trial=result.name, status=case.status, case=case),
    )


def by_trial(finding: Finding, result: TrialResult, case: TrialCase) -> Iterator[Finding]:
    """What a finding of the workload is worth after the trial of its own combination on the patient's stack.

    Reproduced, it is proven; refuted, it is a note; else the rule stands, with what happened."""
    proof = Proof(trial=result.name, status=case.status, case=case)
    if case.status == "reproduced":
        fixes = tuple(
            msgspec.structs.replace(fix, verified=True) if number == 0 else fix
            for number, fix in enumerate(finding.fixes)
        )
        yield msgspec.structs.replace(proven(finding, result, case), fixes=fixes)
    elif case.status == "refuted":
        message = f"{finding.message}; but not on this stack: the trial ran without it"
        yield msgspec.structs.replace(
            finding, severity="note", confidence="proven", message=message, proof=proof, fixes=()
        )
    else:
        yield msgspec.structs.replace(finding, proof=proof)


def by_own_case(
    finding: Finding,
    results: Iterable[TrialResult],
    is_own: Callable[[Mapping[str, Any]], bool],
    severity: Severity = "error",
) -> Iterator[Finding]:
    """What a finding of a script is worth after the trial's case of its own combination.

    A note is what the rule does not find: only a trial that reproduces it makes a finding of it, of this
    severity."""
    for result in results:
        for case in result.cases:
            if not is_own(case.combination):
                continue
            if case.status == "reproduced":
                finding = msgspec.structs.replace(finding, severity=severity)
            if finding.severity != "note":
                yield from by_trial(finding, result, case)
            return
    if finding.severity != "note":
        yield finding


def symptom_shown(check: Type[Check], error: str) -> bool:
    """Whether an error's text is one of the check's own symptoms."""
    return any(symptom.matches(error) for symptom in check.symptoms)
