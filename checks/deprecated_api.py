"""A keyword, flag or call that the installed library still takes and says it will not take for long."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    Asked,
    Case,
    Check,
    Example,
    Suspicion,
    at,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.model import Finding, Packages
from llm_doctor.workload import api
from llm_doctor.workload.data import Call, Place, Script, Value, Workload


class DeprecatedApi(Check):
    """The script uses a keyword, a flag or a function that the installed library will not take for long.

    ## What it finds

    Keywords, flags, configuration keys and calls of transformers, peft, accelerate, deepspeed, bitsandbytes,
    trl and datasets that the installed release still takes, with a warning of its own.

    ## Why it breaks

    Not yet. The warning is lost in the log of every rank, and the next upgrade of a container makes an error
    of it: removed-api is what then finds it.

    ## How it is proven

    The installed package is asked: the warning that a call with this keyword would give, what its dataclass
    field or its source says of it. Without a patient a table of released versions decides. Nothing is
    tried, because nothing fails.

    ## Fix

    The new name, where the installed library has one for the same thing. A script that must run
    on older releases too keeps the old one.

    ## References

    - https://github.com/huggingface/transformers/pull/39782 (torch_dtype, 4.56.0)
    - https://github.com/huggingface/peft/pull/483 (prepare_model_for_int8_training, 0.4.0)
    - the released wheels named in each row of doctor/workload/api.py
    """

    name = "deprecated-api"
    topic = "package-conflict"
    severity = "note"
    since = "0.1.0"
    of_workload = True
    needs = (Packages,)
    questions = (api.QUESTION,)
    url = "https://github.com/huggingface/transformers/pull/39782"

    def asks(self, case: Case) -> Iterable[Asked]:
        """What the workload uses, by qualified name and keyword: the question of removed-api."""
        return api.asks(case)

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """One note for each use that the installed library warns of."""
        assert case.workload is not None
        for use in api.uses(case.workload):
            verdict = api.judge(case, use)
            if verdict.state == "deprecated" and use.kind != "import":
                yield Suspicion(_finding(use, verdict))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _finding(use: api.Use, verdict: api.Verdict) -> Finding:
    change = use.change
    what = {"flag": f"--{use.keyword}", "key": f"{use.keyword}:", "keyword": f"{use.keyword}="}
    text = f"{what.get(use.kind, f'{use.owner}()')} is deprecated in {use.package} {verdict.version}"
    evidence = {"name": use.asked, "package": use.package, "version": verdict.version}
    if use.keyword:
        evidence["keyword"] = use.keyword
    if verdict.words:
        evidence["warning"] = verdict.words
    if change is not None:
        text += f": use {change.remedy(verdict.state)}" if change.remedy(verdict.state) else ""
        evidence["source"] = change.source
    return Finding(
        severity="note",
        confidence="certain",
        message=text,
        subject=at(use.place, "place"),
        evidence=evidence,
        fixes=tuple(api.fixes(use, verdict)),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _script(*calls: Call) -> Workload:
    return Workload(files=("train.py",), scripts=(Script(path="train.py", calls=calls),))


def _call(callee: str, line: int, **arguments: object) -> Call:
    return Call(
        callee=callee,
        place=Place("train.py", line, 9, line + len(arguments), 10),
        arguments={
            name: Value(value, Place("train.py", at, 20, at, 24), Place("train.py", at, 5, at, 24))
            for at, (name, value) in enumerate(arguments.items(), line + 1)
        },
    )


def _examples() -> Iterator[Example]:
    def case(workload: Workload | None, answer: object = None, **versions: str) -> Case:
        packages = Packages(installed=versions, modules={})
        asked = {} if answer is None else {"api_signatures": {"interfaces": answer}}
        it = case_of(packages, **asked)
        return Case(facts=it.facts, answers=it.answers, workload=workload, assumed=answer is None)

    load = _script(_call("transformers.AutoModelForCausalLM.from_pretrained", 40, torch_dtype="auto"))
    yield sick(
        "torch_dtype= today",
        case(load, transformers="5.23.0"),
        "note: torch_dtype= is deprecated in transformers 5.23.0: use dtype",
    )
    yield healthy("torch_dtype= before 4.56", case(load, transformers="4.55.4"))
    arguments = _script(_call("transformers.TrainingArguments", 60, some_field=True))
    answer = {
        "transformers.TrainingArguments": {
            "gone": False,
            "taken": {"some_field": True},
            "deprecated": {"some_field": "Deprecated, will be removed in v7."},
            "nearest": {},
        }
    }
    yield sick(
        "a field that tomorrow's release calls deprecated itself",
        case(arguments, answer, transformers="6.0.0"),
        "note: some_field= is deprecated in transformers 6.0.0",
    )
    yield cannot_tell("no workload", case(None, transformers="5.23.0"), "no workload was given")
