"""The report for a bug ticket: what the issue templates of PyTorch, transformers, accelerate and DeepSpeed
ask for. Whatever the values are, GitHub makes no link, mention, reference, formula or HTML of them."""

from __future__ import annotations

import re
import shlex
from typing import Iterable, Iterator, Sequence

import msgspec

from llm_doctor.model import EXIT_INTERRUPTED, CheckResult, Facts, Finding, Fix, Gpu, Report
from llm_doctor.render import words
from llm_doctor.units import gib

LIMIT = 60_000
"""Characters of a ticket; GitHub takes 65,536."""
_SPARE = 1_000
"""For saying what was left out."""
_SYSTEM_LIMIT = 15_000
_SENTENCE_LIMIT = 1_000
_CODE_LIMIT = 500
_BLOCK_LIMIT = 3_000
_FIXES = 5
"""Of one finding."""
_LOST = ("crashed", "timeout")
_PACKAGES = (
    "transformers accelerate peft deepspeed bitsandbytes trl datasets tokenizers safetensors huggingface-hub"
    " flash-attn xformers triton vllm numpy nvidia-nccl-cu11 nvidia-nccl-cu12 nvidia-nccl-cu13"
    " nvidia-cudnn-cu11 nvidia-cudnn-cu12 nvidia-cudnn-cu13"
).split()
# Nothing in such a word can mean anything: no mark-up, no address, no hash of a commit, no ticket of another.
_PLAIN_WORD = re.compile(
    r"(?!www\.|[0-9a-f]{7,40}\b|[A-Z]+-\d)[^\W_]+(?:(?:[.,'+%=-]|==)[^\W_]+)*[%+]*", re.IGNORECASE
)
_AROUND = re.compile(r"""([("']*)(.*?)([.,;:!?)"']*)""", re.DOTALL)


def render(report: Report) -> str:
    """GitHub-flavoured Markdown, under 60,000 characters."""
    head = [f"### llm-doctor {plain(report.doctor.version)}: {report.verdict.upper()}", ""]
    head += [plain(words.counts(report)), "", "#### System", ""]
    rows = [f"- {label}: {plain(value)}" for label, value in _rows(report) if value]
    said = [f"\n{plain(sentence)}" for sentence in _sentences(report) if sentence]
    lines = [*head, *rows, *said]
    system, _ = _fitting(lines, len(lines), _SYSTEM_LIMIT, "line")
    repeat = "\n".join(["#### To repeat it", "", *_block([_command(report)], "sh")])
    # What does not fit is what a maintainer misses least: it is begun with what matters most.
    room = LIMIT - len(system) - len(repeat) - _SPARE
    number = sum(len(check.findings) + (check.outcome in _LOST) for check in report.checks)
    found, room = _fitting(_findings(report), number, room, "finding")
    asked, room = _folded("ds_report", _ds_report(report), room)
    checks, room = _checks(report, room)
    trials, room = _folded("Trials, case by case", _cases(report), room)
    facts, room = _folded("Facts", _facts(report.facts), room)
    parts = (system, found, repeat, checks, trials, asked, facts)
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


# --- Versions, GPUs, launcher -----------------------------------------------------------------------------


def _rows(report: Report) -> Iterator[tuple[str, str]]:
    facts, patient = report.facts, report.patient
    system, kit = facts.system.value, facts.cuda_toolkits.value
    also = [f"kernel {system.kernel}", system.machine, system.c_library] if system else []
    yield "OS", ", ".join([words.system(facts), *(it for it in also if it)])
    if patient.version is None:
        yield "Python", f"The patient could not be examined: {facts.python.reason}."
    else:
        yield "Python", f"{patient.version}, {patient.python} (by {patient.chosen_by})"
    build = facts.torch_build.value
    if build is not None:
        yield "PyTorch", f"{build.version}, built for {f'CUDA {build.cuda}' if build.cuda else build.kind}"
    installed = facts.packages.value.installed if facts.packages.value else {}
    yield "Packages", ", ".join(f"{name} {installed[name]}" for name in _PACKAGES if name in installed)
    yield "GPUs", _gpus(facts)
    if facts.gpus.value is not None:
        for_cuda = facts.gpus.value.driver_cuda
        yield "Driver", facts.gpus.value.driver + (f", for CUDA {for_cuda} at most" if for_cuda else "")
    if kit is not None:
        chosen = kit.chosen
        version = chosen.version if chosen and chosen.version else "version unknown"
        yield "CUDA toolkit", f"{version}, {chosen.home} (by {kit.chosen_by})" if chosen else "none"
    compiler = facts.compilers.value.cxx if facts.compilers.value else None
    yield "Compiler", compiler.version if compiler else ""
    cpu, memory = facts.cpu.value, facts.memory.value
    node = [f"{cpu.name}, {cpu.usable} of {cpu.logical} processors usable"] if cpu else []
    yield "CPU and memory", ", ".join([*node, *([gib(memory.total_bytes)] if memory else [])])
    for launch in report.workload["launches"] if report.workload else ():
        counts = (("processes_per_node", "processes per node"), ("nodes", "nodes"))
        said = [launch["launcher"], launch["program"] or "a program that is not known"]
        said += [f"{launch[key]} {word}" for key, word in counts if launch[key] is not None]
        yield "Launcher", f"{', '.join(said)} ({launch['path']}:{launch['line']})"
    variables = facts.environment.value.variables if facts.environment.value else {}
    yield "Environment", ", ".join(f"{name}={value}" for name, value in sorted(variables.items()))
    yield "Examined", report.started


def _gpus(facts: Facts) -> str:
    kinds: dict[str, int] = {}
    for gpu in facts.gpus.value.gpus if facts.gpus.value else ():
        kinds[_gpu(gpu)] = kinds.get(_gpu(gpu), 0) + 1
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items()) or words.gpu_line(facts)


def _gpu(gpu: Gpu) -> str:
    tells = [gib(gpu.memory_total_bytes)] if gpu.memory_total_bytes is not None else []
    if gpu.compute_capability is not None:
        tells.append(f"compute capability {'.'.join(map(str, gpu.compute_capability))}")
    if gpu.nvlinks_active:
        tells.append(f"{gpu.nvlinks_active} NVLinks")
    return (gpu.name or "GPU that does not answer") + (f" ({', '.join(tells)})" if tells else "")


def _sentences(report: Report) -> Iterator[str]:
    yield from words.workload_lines(report)
    yield words.gpu_sentence(report.facts) or ""
    if report.exit_code == EXIT_INTERRUPTED:
        yield "Interrupted: what was not reached is not-run."


def _command(report: Report) -> str:
    arguments = ["llm-doctor", "run", "--python", report.patient.python]
    if report.asked is not None:
        return " ".join(map(_word_of_shell, (*arguments, *report.asked)))
    arguments += [word for name in report.assumed for word in ("--assume", name)]
    if report.facts.model.value is not None:
        arguments += ["--model", report.facts.model.value.name]
    launches = report.workload["launches"] if report.workload else ()
    files = report.workload["files"] if report.workload else ()
    written = {launch["path"] for launch in launches} & set(files)
    # A launch line leads to its files, as a job script does.
    arguments += sorted(written) or ([] if launches else files)
    shown = [_word_of_shell(argument) for argument in arguments]
    if launches and not written:
        shown.append(f"{launches[0]['launcher']} ...  # the launch line of the job")
    return " ".join(shown)


def _word_of_shell(text: str) -> str:
    # A stand-in for the home folder or the user is there to be expanded.
    if re.fullmatch(r"~(/[\w@%+=:,./$-]*)?|[\w@%+=:,./-]*\$USER[\w@%+=:,./-]*", text):
        return text
    return shlex.quote(text)


# --- Findings -------------------------------------------------------------------------------------------


def _findings(report: Report) -> Iterator[str]:
    """Each in Markdown, and the checks that could say nothing."""
    for check in report.checks:
        if check.outcome in _LOST:
            yield f"#### {check.outcome}: {plain(check.name)}\n\n{plain(check.reason or '')}\n"
    for check, finding in words.findings(report):
        if finding.severity != "note":
            yield "\n".join(_finding(check, finding)).rstrip("\n") + "\n"
    for check in report.checks:
        yield from _notes([finding for finding in check.findings if finding.severity == "note"], check)


def _finding(check: CheckResult, finding: Finding) -> list[str]:
    lines = [f"#### {finding.severity}: {plain(check.name)}", "", plain(finding.message), ""]
    where = words.place(finding)
    if where:
        lines.append(f"- where: {code(where)}")
    lines.append(f"- proof: {plain(words.proof_line(finding))}")
    lines += _error(finding)
    for fix in finding.fixes[:_FIXES]:
        lines += _fix(fix)
    return lines


def _error(finding: Finding) -> list[str]:
    """What the library said, where the line of the proof does not hold all of it."""
    arm = finding.proof.case.broken if finding.proof and finding.proof.case else None
    error = (arm.error or "").strip() if arm else ""
    return _indented(_block(error.split("\n"))) if words.one_line(error) != error else []


def _notes(notes: Sequence[Finding], check: CheckResult) -> Iterator[str]:
    for note in notes:
        lines = [f"#### note: {plain(check.name)}", ""] if note is notes[0] else []
        where = f"{code(words.place(note))}: " if note.subject.line is not None else ""
        lines.append(f"- {where}{plain(note.message)}; {plain(words.proof_line(note))}")
        if note is notes[-1]:
            fixes = dict.fromkeys(fix for it in notes for fix in it.fixes)  # each once
            lines += [line for fix in list(fixes)[:_FIXES] for line in _fix(fix)]
            lines.append("")
        yield "\n".join(lines)


def _fix(fix: Fix) -> list[str]:
    language = {"command": "sh", "environment": "sh", "edit": "python"}.get(fix.kind, "")
    title = f"- fix ({fix.applicability}, {words.verified(fix.verified)}): {plain(fix.title)}"
    return [title, "", *_indented(_block(fix.preview.split("\n"), language)), ""] if fix.preview else [title]


# --- What is folded -------------------------------------------------------------------------------------


def _checks(report: Report, room: int) -> tuple[str, int]:
    begin = "<details><summary>Checks</summary>\n\n| check | outcome | why |\n| --- | --- | --- |\n"
    rows = map(_check, report.checks)
    table, room = _fitting(rows, len(report.checks), room - len(begin), "check")
    return f"{begin}{table}\n\n</details>", room


def _check(check: CheckResult) -> str:
    why = check.reason or "; ".join(
        f"{trial.name}: {trial.status} on {trial.device}" for trial in check.trials
    )
    return f"| {_cell(check.name)} | {check.outcome} | {_cell(why)} |"


def _ds_report(report: Report) -> list[str]:
    answer = report.answers.get("ds-report")
    if answer is None:
        return []
    said = answer.value.get("text", "") if isinstance(answer.value, dict) else answer.reason
    return str(said or "").strip().split("\n")


def _cases(report: Report) -> Iterator[str]:
    for check in report.checks:
        for trial in check.trials:
            for case in trial.cases:
                yield f"{trial.name} on {trial.device}: {words.case_line(case)}"


def _facts(facts: Facts) -> Iterator[str]:
    for name, fact in msgspec.to_builtins(facts).items():
        if fact["status"] != "ok":
            yield f"{name}: unavailable ({fact['reason']})"
            continue
        yield f"{name} ({fact['source']}):"
        for line in "\n".join(words.shown(fact["value"])).splitlines():
            yield f"  {line}".rstrip()


def _folded(title: str, lines: Iterable[str], room: int) -> tuple[str, int]:
    """What a click opens, as much of it as fits, and the room that is left."""
    block = _block(lines, limit=room - 200)
    shown = "\n".join([f"<details><summary>{title}</summary>", "", *block, "", "</details>"])
    return (shown, room - len(shown)) if len(block) > 2 and len(shown) <= room else ("", room)


def _fitting(parts: Iterable[str], total: int, room: int, what: str) -> tuple[str, int]:
    """As many as there is room for, with the number of the others, and the room that is left."""
    shown: list[str] = []
    for number, part in enumerate(parts):
        if len(part) + 1 > room:
            left = total - number
            shown += ["", f"{left} more {what}{'' if left == 1 else 's'} left out: the JSON report has all."]
            return "\n".join(shown), 0
        shown.append(part)
        room -= len(part) + 1
    return "\n".join(shown), room


# --- Values in Markdown ---------------------------------------------------------------------------------


def plain(text: str) -> str:
    """A value in a sentence: words that could mean something to Markdown or GitHub stand in backticks."""
    found: list[str] = []
    length = 0
    for word in text.split():
        if length > _SENTENCE_LIMIT:
            return f"{' '.join(found)} (and more)"
        begins_list = not found and re.fullmatch(r"\d+[.)]+", word)
        found.append(code(word) if begins_list else _word(word))
        length += len(found[-1])
    return " ".join(found)


def _word(word: str) -> str:
    match = _AROUND.fullmatch(word)
    before, core, after = match.groups() if match else ("", word, "")
    if _PLAIN_WORD.fullmatch(core):
        return word
    return f"{before}{code(core)}{after}" if core else code(word)


def code(text: str) -> str:
    """Text in backticks, in one line."""
    if len(text) > _CODE_LIMIT:
        text = f"{text[:_CODE_LIMIT]}..."
    text = _printable(text.replace("\n", " "))
    fence = _fence(text, 1)
    pad = " " if text[:1] in ("`", " ") or text[-1:] in ("`", " ") else ""
    return f"{fence}{pad}{text}{pad}{fence}" if text.strip() else ""


def fenced(text: str) -> str:
    """A block of text as it is."""
    return "\n".join(_block(text.split("\n"), "text", len(text) + 1))


def _cell(text: str) -> str:
    # A pipe would end the cell even in backticks.
    return " ".join("&#124;".join(part and _word(part) for part in word.split("|")) for word in text.split())


def _block(lines: Iterable[str], language: str = "", limit: int = _BLOCK_LIMIT) -> list[str]:
    """The lines between fences, as many of them as fit."""
    shown: list[str] = []
    for line in lines:
        line = _printable(line[: max(limit, 0) + 1].rstrip("\r"))
        if len(line) > limit:
            shown += [line[: max(limit, 0)], "(the rest is left out: the JSON report has all)"]
            break
        limit -= len(line) + 1
        shown.append(line)
    fence = _fence("\n".join(shown), 3)
    return [f"{fence}{language}", *shown, fence]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def _fence(text: str, least: int) -> str:
    # Longer than any run of backticks inside.
    return "`" * max(least, max(map(len, re.findall("`+", text)), default=0) + 1)


def _printable(text: str) -> str:
    """Without what ends a line, or turns around what is seen."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in text)
