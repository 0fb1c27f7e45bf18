"""What is different between reports: of two what came, went or changed, of more which nodes are odd.

What differs without meaning anything is left out: free memory, temperatures, times, a disk's free room within
a tenth, and what tells jobs and ranks apart.
"""

from __future__ import annotations

import collections
import functools
import re
from typing import (
    AbstractSet,
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Literal,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

import msgspec

from llm_doctor.model import (
    Accelerators,
    CheckResult,
    Compilers,
    Cpu,
    CudaToolkits,
    Environment,
    Facts,
    Finding,
    Gpu,
    Gpus,
    HfCaches,
    Limits,
    Memory,
    Mounts,
    NvidiaModule,
    Packages,
    Report,
    System,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.units import gb, gib

SCHEMA: Literal["llm-doctor/comparison/v1"] = "llm-doctor/comparison/v1"
EXPLAINED_BY = 4
"""Changes that are named as what a finding may come from."""

Kind = Literal[
    "finding",
    "driver",
    "cuda",
    "package",
    "gpu",
    "environment",
    "limit",
    "trial",
    "check",
    "memory",
    "mount",
    "cache",
    "system",
    "examination",
]

_STACK = re.compile(
    r"torch\w*|triton|transformers|accelerate|deepspeed|peft|trl|bitsandbytes|flash-attn|xformers|vllm|datasets"
    r"|huggingface-hub|tokenizers|safetensors|numpy|optimum|auto-gptq|autoawq|liger-kernel|unsloth|nvidia-.+"
)
"""Packages that training runs in."""
_PER_JOB = re.compile(
    r"(LOCAL_|GROUP_)?(RANK|WORLD_SIZE)|MASTER_PORT|TORCHELASTIC_\w+"
    r"|SLURM_(?!JOB_(PARTITION|QOS|GPUS)|GPUS|CPUS_PER|MEM_PER)\w+"
)
"""Variables that tell jobs and ranks apart, and nothing of how they run."""
_OF_TOPIC: Mapping[str, Tuple[Kind, ...]] = {
    "cuda-toolkit": ("cuda",),
    "bf16": ("gpu",),
    "disk-space": ("mount", "environment", "cache"),
    "zero-memory": ("gpu", "memory"),
    "driver-gpu": ("driver", "gpu", "environment", "system"),
    "nccl": ("environment", "gpu", "mount", "driver"),
    "cuda-kernel": ("gpu", "cuda", "driver"),
    "device-placement": ("gpu", "environment"),
    "sharding-checkpointing": ("mount", "environment"),
    "model-files": ("cache", "mount", "environment"),
    "host-limits": ("limit", "memory", "mount"),
}
"""What else than packages a check of each topic rests on."""
_OF_FACT: Mapping[type, Tuple[Kind, ...]] = {
    System: ("system",),
    Memory: ("memory",),
    Limits: ("limit",),
    Mounts: ("mount",),
    Gpus: ("driver", "gpu"),
    NvidiaModule: ("driver",),
    Accelerators: ("gpu",),
    CudaToolkits: ("cuda",),
    TorchBuild: ("cuda",),
    HfCaches: ("cache", "environment"),
    Environment: ("environment",),
}
_TIERS: Mapping[Kind, int] = {
    "cuda": 2,
    "gpu": 5,
    "environment": 6,
    "limit": 7,
    "trial": 12,
    "memory": 13,
    "mount": 14,
    "cache": 15,
    "system": 17,
    "check": 19,
    "examination": 20,
}
_SLOWED = ("hw-slowdown", "sw-thermal", "hw-thermal", "hw-power-brake")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is different; null is absent. Of a finding before and after are severities, and
    `message` is what it says; `number` is how many findings of that check did the same.

    `examined` is false for a finding whose check did not run in the later report: it may be there still.
    `explained_by` are other changes of this comparison that it may come from, the likeliest first."""

    kind: Kind
    name: str
    before: Optional[str] = None
    after: Optional[str] = None
    message: Optional[str] = None
    number: int = 1
    examined: bool = True
    explained_by: Tuple[str, ...] = ()

    @property
    def is_new_error(self) -> bool:
        """Whether a job that ran before may fail for this."""
        return self.kind == "finding" and self.after == "error"

    @property
    def times(self) -> str:
        """How many findings did the same, where they are several."""
        return f" ({self.number} findings)" if self.number > 1 else ""

    def said(self) -> str:
        """`torch 2.12.1 -> 2.13.0`, `bf16-unsupported is new`."""
        if self.before is not None and self.after is not None:
            return f"{self._label} {self.before} -> {self.after}"
        verb = "gone" if self.after is None else "new"
        if self.kind == "finding":
            return f"{self.name} is {verb if self.examined else 'not examined now'}{self.times}"
        return f"{self._thing} is {verb}"

    def said_of_odd(self) -> str:
        """The same of one node beside others: `driver 535.54 instead of 550.90`, `no peft 0.9.0`."""
        if self.before is not None and self.after is not None:
            return f"{self._label} {self.after} instead of {self.before}"
        if self.kind == "finding" and self.after is not None:
            return f"{self.after} {self._thing}"
        return f"no {self._thing}" if self.after is None else f"{self._thing} in addition"

    @property
    def _label(self) -> str:
        return f"{self.kind} {self.name}" if self.kind in ("trial", "check") else self.name

    @property
    def _thing(self) -> str:
        """What came or went, with its value."""
        if self.kind == "finding":
            return f"{self.name}{self.times}"
        value = self.before if self.after is None else self.after
        return f"{self._label}{'=' if self.kind == 'environment' else ' '}{value}".rstrip()


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """One of the reports."""

    name: str
    started: str
    verdict: str
    errors: int
    warnings: int
    notes: int
    python: str


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """Reports between which nothing is different, and what sets them apart from the first group."""

    names: Tuple[str, ...]
    verdict: str
    changes: Tuple[Change, ...] = ()


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """`changes` of two reports, from the first to the second; `groups` of more, the usual one first."""

    schema: Literal["llm-doctor/comparison/v1"] = SCHEMA
    sentence: str
    reports: Tuple[Examined, ...]
    changes: Tuple[Change, ...] = ()
    groups: Tuple[Group, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything that counts is different."""
        return bool(self.changes) or len(self.groups) > 1


def compare(reports: Sequence[Report], names: Sequence[str]) -> Comparison:
    """Compares two reports or more; `names` are those of their files."""
    examined = tuple(
        Examined(
            name=name,
            started=report.started,
            verdict=report.verdict,
            errors=report.count("error"),
            warnings=report.count("warning"),
            notes=report.count("note"),
            python=report.patient.python,
        )
        for name, report in zip(names, reports)
    )
    # How full the disks of alike nodes are is nobody's oddity.
    states = [_State(report, free_room=len(reports) == 2) for report in reports]
    if len(states) == 2:
        changes = _changes(*states)
        return Comparison(sentence=_sentence(changes), reports=examined, changes=changes)
    groups = _groups(states, names)
    return Comparison(sentence=_sentence_of_groups(groups), reports=examined, groups=groups)


# --- What a report says, flat -----------------------------------------------------------------------

_Key = Tuple[Kind, str]
_Values = Iterator[Tuple[_Key, str]]


class _State:
    """A report as named values that can be held against those of another one.

    `origins` are the facts that they are from: of a fact that was not read nothing came or went."""

    def __init__(self, report: Report, free_room: bool) -> None:
        self.facts = report.facts
        self.verdict = report.verdict
        self.values: Dict[_Key, str] = {}
        self.origins: Dict[_Key, str] = {}
        for fact, read in _READERS.items():
            value = getattr(report.facts, fact).value
            for key, text in read(value) if value is not None else ():
                self.values[key] = text
                self.origins[key] = fact
        for key, text in (*_driver(report.facts), *_examination(report)):
            self.values[key] = text
        self.sizes: Dict[_Key, int] = dict(_sizes(report.facts, free_room))
        self.checks = {check.name: check for check in report.checks}
        self.findings = {check.name: check.findings for check in report.checks if check.findings}
        self.trials: Dict[str, Dict[str, TrialResult]] = {}
        self.owners: Dict[str, CheckResult] = {}
        for check in report.checks:
            for trial in check.trials:  # which checks may share
                self.trials.setdefault(trial.name, {}).setdefault(trial.device, trial)
                self.owners.setdefault(trial.name, check)


def _driver(facts: Facts) -> _Values:
    gpus, module = facts.gpus.value, facts.nvidia_module.value
    if gpus is not None:
        yield ("driver", "driver"), gpus.driver
    else:
        version = f"{module.version} that does not answer" if module else "none"
        yield ("driver", "driver"), f"{version} ({facts.gpus.reason})"
    if module is not None and gpus is not None and module.version != gpus.driver:
        yield ("driver", "kernel module"), module.version


def _examination(report: Report) -> _Values:
    yield ("examination", "llm-doctor"), report.doctor.version
    yield ("examination", "patient"), report.patient.python
    for file in report.workload["files"] if report.workload else ():
        yield ("examination", f"workload {file}"), ""
    for assumed in report.assumed:
        name, _, value = assumed.partition("=")
        yield ("examination", f"assumed {name}"), value


def _gpus(gpus: Gpus) -> _Values:
    if gpus.driver_cuda:
        yield ("cuda", "CUDA of the driver"), gpus.driver_cuda
    for gpu in gpus.gpus:
        capability = ".".join(map(str, gpu.compute_capability or ()))
        name = f"{gpu.name or 'unknown'}{f' ({capability})' if capability else ''}"
        yield ("gpu", f"GPU {gpu.index}"), f"does not answer ({gpu.problem})" if gpu.problem else name
        for field, value in _of_gpu(gpu):
            if value is not None:
                said = ("on" if value else "off") if isinstance(value, bool) else str(value)
                yield ("gpu", f"GPU {gpu.index} {field}"), said


def _of_gpu(gpu: Gpu) -> Iterator[Tuple[str, Any]]:
    if gpu.memory_total_bytes is not None:
        yield "memory", gib(gpu.memory_total_bytes)
    yield "compute mode", gpu.compute_mode
    yield "persistence", gpu.persistence
    yield "MIG", gpu.mig
    yield "ECC", gpu.ecc
    yield "ECC errors", gpu.ecc_errors_volatile
    yield "ECC errors ever", gpu.ecc_errors_aggregate
    if gpu.remapped_rows is not None:
        yield "rows remapped for errors", gpu.remapped_rows.uncorrectable
        yield "row remapping pending", gpu.remapped_rows.pending
        yield "row remapping failed", gpu.remapped_rows.failed
    # The others come and go with what the GPU does.
    slowed = [reason for reason in gpu.throttle_reasons or () if reason in _SLOWED]
    yield "slowed down by", ", ".join(slowed) or None
    yield "PCIe generation at most", gpu.pcie_generation_max
    yield "PCIe width", gpu.pcie_width
    yield "NVLinks", gpu.nvlinks_active
    yield "NVLinks down", gpu.nvlinks_inactive


def _accelerators(seen: Accelerators) -> _Values:
    others = (f"{it.vendor} {it.name}" for it in seen.accelerators if it.vendor != "NVIDIA")
    for name, count in collections.Counter(others).items():
        yield ("gpu", name), f"x {count}"


def _torch_build(build: TorchBuild) -> _Values:
    # Its own file knows the build (+cu128), which the metadata need not.
    yield ("package", "torch"), build.version
    yield ("cuda", "CUDA of torch"), build.cuda or f"none ({build.kind})"


def _toolkits(kits: CudaToolkits) -> _Values:
    for kit in kits.toolkits:
        yield ("cuda", f"CUDA toolkit at {kit.home}"), kit.version or "unknown"
    if kits.chosen_home is not None:
        yield ("cuda", "CUDA toolkit that torch chooses"), kits.chosen_home


def _compilers(compilers: Compilers) -> _Values:
    for name, tool in (("C++ compiler", compilers.cxx), ("ninja", compilers.ninja)):
        if tool is not None:
            yield ("system", name), tool.version


def _packages(packages: Packages) -> _Values:
    for name, version in packages.installed.items():
        yield ("package", name), version


def _variables(environment: Environment) -> _Values:
    for name, value in environment.variables.items():
        if not _PER_JOB.fullmatch(name):
            yield ("environment", name), value


def _limits(limits: Limits) -> _Values:
    for name, limit, said in (
        ("locked memory limit", limits.locked_memory_bytes, gib),
        ("open files limit", limits.open_files, str),
        ("process limit", limits.processes, str),
    ):
        yield ("limit", name), "unlimited" if limit.soft is None else said(limit.soft)


def _system(system: System) -> _Values:
    named = {
        "kernel": system.kernel,
        "system": system.os,
        "machine": system.machine,
        "C library": system.c_library,
        "container": system.container,
        "WSL": system.wsl,
    }
    for name, value in named.items():
        if value is not None:
            yield ("system", name), value


def _cpu(cpu: Cpu) -> _Values:
    yield ("system", "CPU"), cpu.name
    yield ("system", "CPU flags"), " ".join(cpu.flags)
    yield ("system", "processors"), f"{cpu.usable} of {cpu.logical}"
    if cpu.quota is not None:
        yield ("system", "processor quota"), f"{cpu.quota:g}"


def _memory(memory: Memory) -> _Values:
    if memory.cgroup_limit_bytes is not None:
        yield ("memory", "memory limit"), gib(memory.cgroup_limit_bytes)


def _mounts(mounts: Mounts) -> _Values:
    for mount in mounts.mounts:
        closed = "read-only" if mount.read_only else "not writable" if mount.writable is False else None
        yield (
            ("mount", f"mount {mount.path}"),
            ", ".join(filter(None, (mount.filesystem, mount.problem or closed))),
        )


def _caches(caches: HfCaches) -> _Values:
    for folder in caches.folders:
        if folder.purpose != "elsewhere":
            closed = ", not writable" if folder.writable is False else ""
            yield ("cache", f"folder for {folder.purpose}"), folder.path + closed
    for model in caches.cached:
        yield ("cache", f"cached {model.name}"), gb(model.size_bytes)


_READERS: Mapping[str, Callable[[Any], _Values]] = {
    "gpus": _gpus,
    "accelerators": _accelerators,
    "cuda_toolkits": _toolkits,
    "packages": _packages,
    "torch_build": _torch_build,
    "python": lambda python: iter([(("package", "Python"), python.version)]),
    "environment": _variables,
    "limits": _limits,
    "memory": _memory,
    "mounts": _mounts,
    "hf_caches": _caches,
    "system": _system,
    "cpu": _cpu,
    "compilers": _compilers,
}


def _sizes(facts: Facts, free_room: bool) -> Iterator[Tuple[_Key, int]]:
    """What is different only where it is so by a tenth."""
    if facts.memory.value is not None:
        yield ("memory", "memory"), facts.memory.value.total_bytes
        yield ("memory", "swap"), facts.memory.value.swap_bytes
    for mount in facts.mounts.value.mounts if facts.mounts.value else ():
        if mount.total_bytes is not None:
            yield ("mount", f"size of {mount.path}"), mount.total_bytes
        if mount.free_bytes is not None and free_room:
            yield ("mount", f"free room on {mount.path}"), mount.free_bytes


# --- Two of them ------------------------------------------------------------------------------------


def _changes(old: _State, new: _State) -> Tuple[Change, ...]:
    causes = sorted(_merged_gpus(_of_values(old, new)), key=_suspicion)
    told = (*_of_findings(old, new), *_of_trials(old, new), *_of_checks(old, new))
    explained = (_explained(change, causes, old, new) for change in told)
    return tuple(sorted([*causes, *explained], key=_suspicion))


def _of_values(old: _State, new: _State) -> Iterator[Change]:
    unread = set()
    # The many that are the same are passed over at once.
    for key in {key for key, _ in old.values.items() ^ new.values.items()}:
        before, after = old.values.get(key), new.values.get(key)
        lacking = old if before is None else new
        fact = old.origins.get(key) or new.origins.get(key)
        if fact and (before is None or after is None) and getattr(lacking.facts, fact).value is None:
            unread.add(fact)
        else:
            yield Change(kind=key[0], name=key[1], before=before, after=after)
    for fact in unread - {"gpus", "torch_build"}:  # for which the driver and the package speak
        yield Change(kind="examination", name=fact, before=_read(old, fact), after=_read(new, fact))
    for key in old.sizes.keys() & new.sizes.keys():
        size, now = old.sizes[key], new.sizes[key]
        if abs(size - now) * 10 > max(size, now):
            yield Change(kind=key[0], name=key[1], before=gib(size), after=gib(now))


def _read(state: _State, fact: str) -> str:
    reading = getattr(state.facts, fact)
    return "read" if reading.value is not None else f"unknown ({reading.reason})"


def _merged_gpus(changes: Iterable[Change]) -> Iterator[Change]:
    """What several GPUs have in common is said once: `GPU 0-7 ECC`."""
    alike: Dict[Tuple[Optional[str], Optional[str], str], List[int]] = {}
    others = set()
    for change in changes:
        match = re.fullmatch(r"GPU (-?\d+)(.*)", change.name) if change.kind == "gpu" else None
        if match is None:
            yield change
            continue
        alike.setdefault((change.before, change.after, match[2]), []).append(int(match[1]))
        if not match[2]:
            others.add(int(match[1]))
    for (before, after, field), numbers in alike.items():
        if field and (before is None or after is None):
            # Of a GPU that is another one, or gone, it goes without saying.
            numbers = [number for number in numbers if number not in others]
        if numbers:
            yield Change(kind="gpu", name=f"GPU {_ranges(numbers)}{field}", before=before, after=after)


def _ranges(numbers: Iterable[int]) -> str:
    """`0-3, 7`."""
    runs: List[List[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _of_findings(old: _State, new: _State) -> Iterator[Change]:
    for check in sorted(old.findings.keys() | new.findings.keys()):
        pairs, gone, came = _paired(old.findings.get(check, ()), new.findings.get(check, ()))
        alike: Dict[Tuple[Optional[str], Optional[str]], List[Finding]] = {}
        for was, now in pairs:
            if was.severity != now.severity:
                alike.setdefault((was.severity, now.severity), []).append(now)
        for finding in gone:
            alike.setdefault((finding.severity, None), []).append(finding)
        for finding in came:
            alike.setdefault((None, finding.severity), []).append(finding)
        for (before, after), findings in alike.items():
            subject = findings[0].subject
            yield Change(
                kind="finding",
                name=check,
                before=before,
                after=after,
                message=findings[0].message,
                number=len(findings),
                examined=_outcome(new.checks.get(check)) == "ran",
                # What a report does not hold.
                explained_by=(f"a change of {subject.path}",) if subject.line is not None else (),
            )


def _paired(
    before: Sequence[Finding], after: Sequence[Finding]
) -> Tuple[List[Tuple[Finding, Finding]], List[Finding], List[Finding]]:
    """The findings of a check that are the same one: by what they say, else by what they are about."""
    pairs: List[Tuple[Finding, Finding]] = []
    gone, came = list(before), list(after)
    for key in (_exactly, _about):
        waiting: Dict[Any, List[Finding]] = {}
        for finding in came:
            waiting.setdefault(key(finding), []).append(finding)
        left = []
        for finding in gone:
            same = waiting.get(key(finding))
            if same:
                pairs.append((finding, same.pop(0)))
            else:
                left.append(finding)
        paired = {id(now) for _, now in pairs}
        gone, came = left, [finding for finding in came if id(finding) not in paired]
    return pairs, gone, came


def _exactly(finding: Finding) -> Tuple[Any, ...]:
    return (*_about(finding), finding.message)


def _about(finding: Finding) -> Tuple[Any, ...]:
    # Not the line: what stands above it may have grown.
    subject = finding.subject
    return (subject.kind, subject.path, subject.gpu, subject.package)


def _of_trials(old: _State, new: _State) -> Iterator[Change]:
    for name in sorted(old.trials.keys() & new.trials.keys()):
        before, after = old.trials[name], new.trials[name]
        if not before.keys() & after.keys():  # on the CPU then, on GPUs now
            was, now = _outcome_on(before), _outcome_on(after)
            yield Change(kind="trial", name=name, before=was, after=now)
            continue
        for device in sorted(before.keys() & after.keys()):
            yield from _of_trial(f"{name} on {device}", before[device], after[device])


def _outcome_on(trials: Mapping[str, TrialResult]) -> str:
    devices: Dict[str, List[str]] = {}
    for device, trial in trials.items():
        devices.setdefault(trial.status, []).append(device)
    return "; ".join(f"{status} on {', '.join(names)}" for status, names in devices.items())


def _of_trial(name: str, was: TrialResult, now: TrialResult) -> Iterator[Change]:
    changed = was.status != now.status
    if changed:
        yield Change(kind="trial", name=name, before=was.status, after=now.status, message=_error(now))
    former = {_combination(case): case.status for case in was.cases}
    for case in now.cases:
        before, after = former.get(_combination(case), case.status), case.status
        # Where the trial as a whole came out differently, most cases did so too.
        said = changed and (
            "reproduced" not in (before, after) or (before, after) == (was.status, now.status)
        )
        if before != after and not said:
            settings = ", ".join(f"{key}={value}" for key, value in case.combination.items())
            error = case.broken.error if case.broken else None
            yield Change(kind="trial", name=f"{name}, {settings}", before=before, after=after, message=error)


def _combination(case: TrialCase) -> bytes:
    return msgspec.json.encode(case.combination, order="sorted")


def _error(trial: TrialResult) -> str | None:
    errors = (case.broken.error for case in trial.cases if case.status == trial.status and case.broken)
    return next(filter(None, errors), trial.reason)


def _of_checks(old: _State, new: _State) -> Iterator[Change]:
    """Outcomes that no finding tells: skipped, crashed, timed out, or of checks that were not there."""
    for name in sorted(old.checks.keys() | new.checks.keys()):
        was, now = old.checks.get(name), new.checks.get(name)
        before, after = _outcome(was), _outcome(now)
        if before != after:
            ended = was if after == "ran" else now
            yield Change(
                kind="check", name=name, before=before, after=after, message=ended.reason if ended else None
            )


def _outcome(check: CheckResult | None) -> str | None:
    if check is None:
        return None
    words = {"pass": "ran", "findings": "ran", "timeout": "timed out"}
    return words.get(check.outcome, check.outcome)


# --- Order and explanation --------------------------------------------------------------------------


def _suspicion(change: Change) -> Tuple[int, bool, str]:
    """Sorts the most suspicious first; what changed says more than what came or went, but for GPUs."""
    lesser = change.before is None or change.after is None
    if change.kind == "gpu":
        lesser = re.fullmatch(r"GPU [-\d, ]+", change.name) is None
    return (_tier(change), lesser, change.name.lower())


def _tier(change: Change) -> int:
    kind, name, after = change.kind, change.name, change.after
    if change.is_new_error:
        return 0
    if kind == "driver" or (kind == "examination" and (after or "").startswith("unknown (")):
        return 1
    if kind == "package":
        if name == "torch":
            return 1
        stack = name == "Python" or (_STACK.fullmatch(name) and not name.startswith("nvidia-"))
        return 3 if stack else 4 if name.startswith("nvidia-") else 16
    if kind == "check" and after in ("crashed", "timed out"):
        return 8
    if kind == "finding":
        return {"warning": 8, "note": 10}.get(after or "", 9)
    if kind == "trial" and "not-run" in (change.before, after):
        return 18
    if kind == "trial" and after == "reproduced":
        return 10
    return _TIERS[kind]


def _explained(change: Change, causes: Sequence[Change], old: _State, new: _State) -> Change:
    """With the changes that a finding or trial may come from, by what its check rests on."""
    if change.kind == "check":
        return change
    was, now = (_check_of(change, state) for state in (old, new))
    check = now or was
    unseen = [*_unseen(was, "was", "before"), *_unseen(now, "is", "now")]
    if check is None:
        return change
    needs, packages = _rests_on().get(check.name, (frozenset(), frozenset())) if causes else (set(), set())
    kinds = needs | frozenset(_OF_TOPIC.get(check.topic, ()))
    text = " ".join(filter(None, [change.message, *map(_text_of, check.findings)])).lower()
    scored = [(-_score(cause, kinds, packages, text), number) for number, cause in enumerate(causes)]
    likeliest = [causes[number].said() for score, number in sorted(scored) if score]
    told = (*likeliest[:EXPLAINED_BY], *change.explained_by, *unseen)
    return msgspec.structs.replace(change, explained_by=told)


def _unseen(check: CheckResult | None, verb: str, when: str) -> List[str]:
    """Why a check could not find anything, where it could not."""
    outcome = _outcome(check) or "not there"
    return [] if outcome == "ran" else [f"the check {verb} {outcome} {when}"]


def _check_of(change: Change, state: _State) -> CheckResult | None:
    if change.kind == "finding":
        return state.checks.get(change.name)
    return state.owners.get(re.split(r" on |, ", change.name)[0])


@functools.lru_cache(maxsize=None)
def _rests_on() -> Mapping[str, Tuple[AbstractSet[str], AbstractSet[str]]]:
    """Of each check the kinds of its facts, and the packages that its trials and questions import."""
    from llm_doctor.registry import registered

    found = {}
    for entry in registered():
        if entry.check is not None:
            kinds = {kind for fact in entry.check.needs for kind in _OF_FACT.get(fact, ())}
            scripts = (*entry.check.trials, *entry.check.questions)
            modules = {module.partition(".")[0] for script in scripts for module in script.imports}
            found[entry.name] = (kinds, {module.replace("_", "-") for module in modules})
    return found


def _text_of(finding: Finding) -> str:
    case = finding.proof.case if finding.proof else None
    error = case.broken.error if case and case.broken else None
    return f"{finding.message} {error or ''} workload {finding.subject.path or ''}"


def _score(cause: Change, kinds: AbstractSet[str], packages: AbstractSet[str], text: str) -> int:
    kind, name = cause.kind, cause.name.lower()
    place = re.search(r"/.+", name)  # of a mount, a folder, a toolkit
    if kind in ("package", "environment", "examination") or place:
        known = kind != "package" or _STACK.fullmatch(name)  # `requests` and `build` are words as well
        what = place[0] if place else name
        said = re.escape(what) + ("" if known else r"[ =<>]+\d")
        if what in text and re.search(rf"(?<![\w/-]){said}(?![\w-])", text):
            return 4
    if kind == "package":
        # What everything runs in may be the cause of everything.
        return 3 if name in packages else 1 if name in ("torch", "python") else 0
    return 2 if kind in kinds else 1 if kind in ("driver", "cuda") else 0


# --- The sentence -----------------------------------------------------------------------------------


def _sentence(changes: Sequence[Change]) -> str:
    if not changes:
        return "Nothing that counts is different."
    causes, findings = _telling(changes)
    parts = [change.said() for change in (*causes, *findings)] or [change.said() for change in changes[:2]]
    others = len(changes) - len(parts)
    if findings and not causes and not any(change.explained_by for change in findings):
        parts.append("nothing else that could explain it is different")
    elif others > 0:
        parts.append(f"and {others} other difference{'' if others == 1 else 's'}")
    return "; ".join(parts)


def _telling(changes: Sequence[Change]) -> Tuple[List[Change], List[Change]]:
    """The changes of node and stack, and the findings, that a person needs first."""
    findings = [change for change in changes if change.kind == "finding"]
    findings = [
        it for it in findings if "error" in (it.before, it.after) or it.after == "warning"
    ] or findings
    causes = [change for change in changes if change.kind not in ("finding", "trial", "check", "examination")]
    explaining = {said for change in findings for said in change.explained_by}
    # What a finding may come from says more than what is merely suspicious.
    return sorted(causes, key=lambda change: change.said() not in explaining)[:2], findings[:3]


def _sentence_of_groups(groups: Sequence[Group]) -> str:
    total = sum(len(group.names) for group in groups)
    if len(groups) == 1:
        return f"All {total} are alike."
    usual, odd = groups[:2]
    alike = (
        f"{len(usual.names)} of {total} are alike" if len(usual.names) > 1 else f"No two of {total} are alike"
    )
    causes, findings = _telling(odd.changes)
    says = "; ".join(change.said_of_odd() for change in (*causes, *findings) or odd.changes[:2])
    which = odd.names[0] + (f" and {len(odd.names) - 1} more" if len(odd.names) > 1 else "")
    others = total - len(usual.names) - len(odd.names)
    more = f"; {others} more {'is' if others == 1 else 'are'} odd" if others else ""
    return f"{alike}; {which}: {says}{more}"


# --- Many of them -----------------------------------------------------------------------------------


def _groups(states: Sequence[_State], names: Sequence[str]) -> Tuple[Group, ...]:
    """The reports between which nothing is different: the usual ones first, then those with new errors."""
    alike: List[List[int]] = []
    for number, state in enumerate(states):
        same = next((it for it in alike if not _differ(states[it[0]], state)), None)
        if same is None:
            alike.append([number])
        else:
            same.append(number)
    common = _most_common(states)

    def unlike_most(group: Sequence[int]) -> int:
        values = states[group[0]].values
        return sum(values.get(key) != value for key, value in common.items())

    usual = min(alike, key=lambda group: (-len(group), unlike_most(group), group))
    base = states[usual[0]]
    found = [
        Group(
            names=tuple(names[number] for number in group),
            verdict=states[group[0]].verdict,
            changes=() if group is usual else _changes(base, states[group[0]]),
        )
        for group in alike
    ]
    found.sort(key=lambda group: (bool(group.changes), not any(c.is_new_error for c in group.changes)))
    return tuple(found)


def _differ(one: _State, other: _State) -> bool:
    return any(next(of(one, other), None) for of in (_of_values, _of_findings, _of_trials, _of_checks))


def _most_common(states: Sequence[_State]) -> Dict[_Key, str]:
    counts: Dict[_Key, collections.Counter[str]] = {}
    for state in states:
        for key, value in state.values.items():
            counts.setdefault(key, collections.Counter())[value] += 1
    return {key: counter.most_common(1)[0][0] for key, counter in counts.items()}
