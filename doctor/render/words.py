"""The sentences that several formats share."""

from __future__ import annotations

from typing import Any

from llm_doctor.model import (
    SEVERITIES,
    Arm,
    CheckResult,
    Facts,
    Finding,
    Report,
    TrialCase,
)
from llm_doctor.units import gib

_STACK = ("transformers", "peft", "deepspeed", "bitsandbytes", "accelerate")


def stack(report: Report) -> list[str]:
    """What this machine and its stack are, the most telling first."""
    facts = report.facts
    parts = [gpu_line(facts)]
    build = facts.torch_build.value
    if build is not None:
        tells = build.cuda is None or "+cu" in build.version
        parts.append(f"torch {build.version}" + ("" if tells else f" (CUDA {build.cuda})"))
    installed = facts.packages.value.installed if facts.packages.value else {}
    return parts + [f"{name} {installed[name]}" for name in _STACK if name in installed]


def fitting(parts: list[str], width: int) -> tuple[str, list[str]]:
    """As many of the parts as fit a line, the first whatever its width, and the rest."""
    count = 1
    while count < len(parts) and len(", ".join(parts[: count + 1])) <= width:
        count += 1
    return ", ".join(parts[:count]), parts[count:]


def system(facts: Facts) -> str:
    """The operating system, and what it runs in."""
    it = facts.system.value
    if it is None:
        return "unknown system"
    inside = f" in {it.container}" if it.container else ""
    return f"{it.os}{inside}" + (f" (WSL {it.wsl})" if it.wsl else "")


def gpu_line(facts: Facts) -> str:
    """The GPUs, or why none can be examined. Another vendor's is named, never called no GPU."""
    found: list[str] = []
    if facts.gpus.value is not None:
        names: dict[str, int] = {}
        for gpu in facts.gpus.value.gpus:
            name = gpu.name or "GPU that does not answer"
            names[name] = names.get(name, 0) + 1
        found += [f"{count} x {name}" for name, count in names.items()]
    elif _on_the_bus(facts, "NVIDIA"):
        found.append("NVIDIA GPU without a working driver")
    found += [f"{thing} (not examined yet)" for thing in foreign(facts)]
    return ", ".join(found) or "no NVIDIA GPU"


def foreign(facts: Facts) -> list[str]:
    """Accelerators of other vendors, each kind once with its number."""
    kinds: dict[str, int] = {}
    for it in facts.accelerators.value.accelerators if facts.accelerators.value else ():
        hidden = it.vendor == "Microsoft" and facts.gpus.value is not None  # WSL: the same card again
        if it.vendor != "NVIDIA" and not hidden:
            kinds[f"{it.vendor} {it.name}"] = kinds.get(f"{it.vendor} {it.name}", 0) + 1
    return [kind if count == 1 else f"{count} x {kind}" for kind, count in kinds.items()]


def _on_the_bus(facts: Facts, vendor: str) -> list[str]:
    seen = facts.accelerators.value.accelerators if facts.accelerators.value else ()
    return [accelerator.seen_at for accelerator in seen if accelerator.vendor == vendor]


def gpu_sentence(facts: Facts) -> str | None:
    """Why GPUs were not examined, and which let in one process alone; None where there is nothing to say."""
    said = []
    if facts.gpus.value is None:
        nvidia = _on_the_bus(facts, "NVIDIA")
        if nvidia:
            said.append(f"An NVIDIA GPU is on this machine ({nvidia[0]}), but {facts.gpus.reason}.")
        elif not foreign(facts):
            said.append(f"No GPU was examined: {facts.gpus.reason}.")
    if foreign(facts):
        said.append(f"{', '.join(foreign(facts))}: llm-doctor does not examine these yet.")
    gpus = facts.gpus.value.gpus if facts.gpus.value else ()
    for mode in ("exclusive-process", "exclusive-thread"):
        alone = [str(gpu.index) for gpu in gpus if gpu.compute_mode == mode]
        if alone:
            said.append(f"GPU {', '.join(alone)}: compute mode {mode}, for one process at a time.")
    return " ".join(said) or None


def workload_lines(report: Report) -> list[str]:
    """What was read of the workload, and each thing that could not be."""
    workload = report.workload
    if workload is None:
        return []
    files, launches = workload["files"], workload["launches"]
    said = [f"{len(files)} file{'' if len(files) == 1 else 's'}" if len(files) != 1 else files[0]]
    if launches:
        said.append(f"{len(launches)} launch{'' if len(launches) == 1 else 'es'}")
    lines = [f"Workload: {', '.join(said)}"]
    if report.assumed:
        lines.append(f"Assumed, not examined: {', '.join(report.assumed)}")
    for problem in workload["problems"]:
        where = ":".join(str(problem[key]) for key in ("path", "line", "column") if problem[key])
        lines.append(f"Not examined: {where}: {problem['message']}")
    # A file may have any name.
    return ["".join(c if c.isprintable() else repr(c)[1:-1] for c in line) for line in lines]


def verdict_line(report: Report) -> str:
    """`FAIL: 1 error, ...`; a pass of a patient that has no stack says that nothing was tried there."""
    word = report.verdict.upper()
    passed = any(check.outcome == "pass" for check in report.checks)
    if report.verdict == "pass" and not (passed and len(stack(report)) > 1):
        word += ", but nothing could be tried"
    return f"{word}: {counts(report)}"


def counts(report: Report) -> str:
    """`1 error, 0 warnings, 2 notes; 1 passed, 1 skipped; 4.1 s`."""
    found = [f"{n} {s}{'' if n == 1 else 's'}" for s, n in ((s, report.count(s)) for s in SEVERITIES)]
    outcomes: dict[str, int] = {}
    for check in report.checks:
        outcomes[check.outcome] = outcomes.get(check.outcome, 0) + 1
    words = {"pass": "passed", "skipped": "skipped", "crashed": "crashed", "timeout": "timed out"}
    ended = [f"{outcomes[key]} {word}" for key, word in words.items() if key in outcomes]
    return "; ".join(part for part in (", ".join(found), ", ".join(ended), f"{report.seconds:.1f} s") if part)


def findings(report: Report) -> list[tuple[CheckResult, Finding]]:
    """All findings, the most severe first."""
    pairs = [(check, finding) for check in report.checks for finding in check.findings]
    return sorted(pairs, key=lambda pair: SEVERITIES.index(pair[1].severity))


def place(finding: Finding) -> str:
    """Where: `train.py:12:5`, `GPU 0`, a path, a package; empty for the stack as a whole."""
    subject = finding.subject
    if subject.path is not None:
        return ":".join(str(p) for p in (subject.path, subject.line, subject.column) if p is not None)
    if subject.gpu is not None:
        return f"GPU {subject.gpu}"
    return subject.package or ""


def proof_line(finding: Finding) -> str:
    """The proof in one line."""
    proof = finding.proof
    if proof is None and finding.evidence.get("asked"):
        return "the installed library was asked"
    if proof is None and finding.subject.line is not None:
        return "by the rule for these versions, not tried"
    if proof is None:
        known = {"certain": "read from the machine, not tried", "proven": "seen to happen"}
        return known.get(finding.confidence, "not tried")
    case = proof.case
    if case is None or case.broken is None or case.broken.error is None:
        return f"{proof.status} by the trial {proof.trial}"
    error = one_line(case.broken.error)  # last in its line: it may end in anything
    if case.status == "reproduced":
        return f"the trial {proof.trial} fails here, and passes with the fix: {error}"
    if case.fixed is None:
        return f"the trial {proof.trial} fails here (no fix could be tried on this machine): {error}"
    return f"{proof.status} by the trial {proof.trial} ({case.reason}): {error}"


def one_line(text: str | None, limit: int = 200) -> str:
    """The first line of a library's error, not too long."""
    line = (text or "").strip().partition("\n")[0]
    return line if len(line) <= limit else line[: limit - 3] + "..."


def case_line(case: TrialCase) -> str:
    """One case of a trial: `order=after-wrapping: reproduced; broken raised ...; fixed passed`."""
    settings = ", ".join(f"{key}={plain(value)}" for key, value in case.combination.items())
    arms = [
        f"{name} {arm_words(arm)}" for name, arm in (("broken", case.broken), ("fixed", case.fixed)) if arm
    ]
    return f"{settings}: {case.status}; {'; '.join(arms) or case.reason}"


def arm_words(arm: Arm) -> str:
    """What an arm did, with its error or its measurements."""
    if arm.error:
        return f"{arm.outcome} ({one_line(arm.error, 120)})"
    return arm.outcome


def shown(value: dict[str, Any]) -> list[str]:
    """The fields of a fact that hold something, a line or more each."""
    return [": ".join(_named(key, item)) for key, item in value.items() if item is not None]


def _named(key: str, value: Any) -> tuple[str, str]:
    """A field and its value; bytes as GiB."""
    name, _, unit = key.rpartition("_")
    if unit != "bytes" or not isinstance(value, (int, dict)):
        return key, plain(_unlimited(value))
    if isinstance(value, int):
        return name, gib(value)
    sizes = {which: gib(it) if isinstance(it, int) else it for which, it in value.items()}
    return name, plain(_unlimited(sizes))


def _unlimited(value: Any) -> Any:
    """A resource limit in words; anything else as it is."""
    if isinstance(value, dict) and value.keys() == {"soft", "hard"}:
        return {which: "unlimited" if it is None else it for which, it in value.items()}
    return value


def plain(value: Any) -> str:
    """A JSON value in words: `-` for nothing, one line for each entry of a list."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, dict):
        lists = any(isinstance(item, (list, tuple)) for item in value.values())
        separator = "; " if lists else ", "
        pairs = (" ".join(_named(key, item)) for key, item in sorted(value.items()) if item is not None)
        return separator.join(pairs) or "none"
    if isinstance(value, (list, tuple)):
        if any(isinstance(item, dict) for item in value):
            return "".join(f"\n- {plain(item)}" for item in value)
        return ", ".join(map(plain, value)) or "none"
    return str(value)


def verified(mark: bool | None) -> str:
    """What is known of a fix."""
    return {True: "seen to work here", False: "did not work here", None: "not tried here"}[mark]
