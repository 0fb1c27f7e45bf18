"""A name, keyword or flag that the installed library no longer has, or does not have yet."""

from __future__ import annotations

from typing import Dict, Iterable, Iterator, Tuple

import msgspec

from llm_doctor.check import (
    Asked,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    proven,
    sick,
)
from llm_doctor.model import (
    Arm,
    Finding,
    Packages,
    Severity,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload import api
from llm_doctor.workload.data import Call, Config, Import, Place, Script, Value, Workload

TRIAL = Trial(name="removed-api", imports=("torch", "transformers.models.llama.modeling_llama"))


class RemovedApi(Check):
    """The script uses a name, a keyword or a flag that the installed library does not have.

    ## What it finds

    Imports, calls, keywords, flags and configuration keys of transformers, peft, accelerate, deepspeed,
    bitsandbytes, trl and datasets that the installed release no longer has, or does not have yet.

    ## Why it breaks

    These libraries rename and remove: `prepare_model_for_int8_training` went with peft 0.10,
    `evaluation_strategy` with transformers 4.51, `load_in_8bit=` and `use_auth_token=` with 5.0. An import
    then raises ImportError, a keyword TypeError, a flag an error of the argument parser, for a keyword of
    from_pretrained only when the model is made, after the download.

    ## How it is proven

    The installed package is asked for its names and signatures. What `from_pretrained` does with a keyword
    is in no signature: a tiny model is loaded with it, and with what stands for it. Without a patient a
    table of released versions decides.

    ## Fix

    The new name where the installed library has one for the same thing; `quantization_config=` for
    `load_in_8bit=`. A script that looks for an interface itself (`try`, `if`) is told in a note.

    ## References

    - https://github.com/huggingface/transformers/pull/41287 (load_in_8bit, 5.0.0)
    - https://github.com/huggingface/peft/pull/483 (prepare_model_for_kbit_training, 0.4.0)
    - https://github.com/huggingface/transformers/blob/main/MIGRATION_GUIDE_V5.md
    - the released wheels named in each row of doctor/workload/api.py
    """

    name = "removed-api"
    topic = "package-conflict"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    needs = (Packages,)
    questions = (api.QUESTION,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/transformers/blob/main/MIGRATION_GUIDE_V5.md"
    symptoms = (
        Symptom(
            pattern=r"got an unexpected keyword argument '\w+'",
            example="TypeError: __init__() got an unexpected keyword argument 'load_in_8bit'",
            counter_example="TypeError: forward() missing 1 required positional argument: 'input_ids'",
        ),
        Symptom(
            pattern=r"cannot import name '\w+' from '(transformers|peft|accelerate|deepspeed|trl)\b",
            example="ImportError: cannot import name 'AdamW' from 'transformers' (/venv/transformers.py)",
            counter_example="ImportError: cannot import name 'utils' from 'project'",
        ),
        Symptom(
            pattern=r"Some specified arguments are not used by the HfArgumentParser",
            example="Some specified arguments are not used by the HfArgumentParser: ['--no_cuda']",
            counter_example="error: the following arguments are required: --output_dir",
        ),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """What the workload uses, by qualified name and keyword."""
        return api.asks(case)

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Each use against the installed library; a keyword of from_pretrained against a trial."""
        assert case.workload is not None
        found = [(use, api.judge(case, use)) for use in api.uses(case.workload)]
        for use, verdict in found:
            suspect = _suspect(use, verdict, case.workload)
            tried = use.loading and not verdict.asked and not case.assumed
            if tried and verdict.state != "unread" and verdict.version:
                suspect = suspect or _finding(use, verdict, "note")
                yield Suspicion(suspect, (TrialRequest(TRIAL, _loads(found)),))
            elif suspect is not None:
                yield Suspicion(suspect)

    def conclude(self, finding: Finding, results: Tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What loading showed of this keyword; where it showed nothing, what the table said."""
        for result in results:
            for case in result.cases:
                if case.combination["keyword"] != finding.evidence["keyword"]:
                    continue
                if case.status == "reproduced":
                    fixes = tuple(msgspec.structs.replace(fix, verified=True) for fix in finding.fixes[:1])
                    shown = msgspec.structs.replace(proven(finding, result, case), severity="error")
                    yield msgspec.structs.replace(shown, fixes=(*fixes, *finding.fixes[1:]))
                    return
                if case.status == "refuted":
                    return
        if finding.severity != "note":
            yield finding

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _suspect(use: api.Use, verdict: api.Verdict, workload: Workload) -> Finding | None:
    """What the answer or the table makes of a use; None where it is there, or where nothing is known."""
    if verdict.state == "unread":
        return _finding(use, verdict, "note")
    if verdict.state not in ("gone", "not-yet"):
        return None
    if use.keyword and use.change is None and use.owner[:1].isupper() and not verdict.nearest:
        return None  # the class may be the project's own, made from this one, with a keyword of its own
    if use.guarded:
        if _knows_both(use):
            return None
        return _finding(use, verdict, "note" if use.kind == "import" else "warning")
    likely = verdict.implied or not use.sure
    return _finding(use, verdict, "warning" if likely else "error")


def _knows_both(use: api.Use) -> bool:
    """Whether the script imports the other name too, for the other releases."""
    change, script = use.change, use.script
    return bool(
        change and script and change.rename and any(it.name == change.rename for it in script.imports)
    )


def _finding(use: api.Use, verdict: api.Verdict, severity: Severity) -> Finding:
    change = use.change
    evidence: Dict[str, object] = {"name": use.asked, "package": use.package, "version": verdict.version}
    if verdict.asked:
        evidence["asked"] = True
    if use.keyword:
        evidence["keyword"] = use.keyword
    if change is not None:
        evidence["source"] = change.source
    return Finding(
        severity=severity,
        confidence="likely" if verdict.implied or not use.sure else "certain",
        message=_message(use, verdict),
        subject=Subject(kind="place", path=use.place.path, line=use.place.line, column=use.place.column),
        evidence=evidence,
        fixes=tuple(api.fixes(use, verdict)),
    )


def _message(use: api.Use, verdict: api.Verdict) -> str:
    change = use.change
    library = f"{use.package} {verdict.version}{' or later' if verdict.implied else ''}"
    what = {"flag": f"--{use.keyword}", "key": f"{use.keyword}:", "keyword": f"{use.keyword}="}.get(use.kind)
    if what is None:
        name = change.name if change and "." not in change.name else use.asked
        text = f"{name} is not in {library}"
    elif verdict.state == "unread":
        return f"{what} is no longer read by {_called(use)} in {library} (since {change and change.removed})"
    else:
        text = f"{what} is not taken by {_called(use)} in {library}"
    if change is not None and verdict.state == "gone" and change.removed:
        text += f" (removed in {change.removed})"
    if change is not None and verdict.state == "not-yet":
        text += f" (added in {change.added})"
    remedy = change.remedy(verdict.state) if change is not None else ""
    if change is not None and remedy:
        return f"{text}: use {'--' if use.kind == 'flag' and change.rename else ''}{remedy}"
    return f"{text}: is it {verdict.nearest}=?" if verdict.nearest else text


def _called(use: api.Use) -> str:
    if use.owner != "from_pretrained":
        return use.owner
    return "from_pretrained" if api.loads_model(use.asked) else ".".join(use.asked.split(".")[-2:])


def _loads(found: Iterable[Tuple[api.Use, api.Verdict]]) -> Dict[str, object]:
    loads = {use.keyword: use.change for use, verdict in found if use.loading and not verdict.asked}
    return {"loads": [[name, (change and change.rename) or None] for name, change in sorted(loads.items())]}


# --- Examples -------------------------------------------------------------------------------------------


def _at(line: int, column: int = 1, end: int = 40, path: str = "train.py") -> Place:
    return Place(path, line, column, line, end)


def _workload(*calls: Call, imports: Tuple[Import, ...] = (), configs: Tuple[Config, ...] = ()) -> Workload:
    script = Script(path="train.py", imports=imports, calls=calls)
    return Workload(files=("train.py",), scripts=(script,), configs=configs)


def _call(callee: str, line: int, **arguments: object) -> Call:
    return Call(
        callee=callee,
        place=Place("train.py", line, 9, line + len(arguments), 10),
        arguments={
            name: Value(value, _at(at, 20, 24), _at(at, 5, 24))
            for at, (name, value) in enumerate(arguments.items(), line + 1)
        },
    )


def _examples() -> Iterator[Example]:
    def assumed(workload: Workload | None, **versions: str) -> Case:
        facts = case_of(Packages(installed=versions, modules={})).facts
        return Case(facts=facts, workload=workload, assumed=True)

    def asked(workload: Workload, interfaces: object, **versions: str) -> Case:
        case = case_of(Packages(installed=versions, modules={}), api_signatures={"interfaces": interfaces})
        return msgspec.structs.replace(case, workload=workload)

    def loaded(keyword: str, broken: Arm) -> TrialResult:
        status = "refuted" if broken.outcome == "passed" else "reproduced"
        case = TrialCase(
            combination={"keyword": keyword, "instead": None},
            status=status,  # type: ignore[arg-type]
            broken=broken,
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(name=TRIAL.name, device="cpu", status=case.status, seconds=0.2, cases=(case,))

    gone = Import("peft", "prepare_model_for_int8_training", _at(3, 5, 36))
    int8 = _workload(_call("peft.prepare_model_for_int8_training", 50), imports=(gone,))
    yield sick(
        "an import that peft no longer has, and its call",
        assumed(int8, peft="0.21.2"),
        "error: prepare_model_for_int8_training is not in peft 0.21.2 (removed in 0.10.0): "
        "use prepare_model_for_kbit_training",
        "error: prepare_model_for_int8_training is not in peft 0.21.2 (removed in 0.10.0): "
        "use prepare_model_for_kbit_training",
    )
    yield healthy("the same with the peft of its time", assumed(int8, peft="0.3.0"))
    both = (gone._replace(guarded=True), Import("peft", "prepare_model_for_kbit_training", _at(5), True))
    yield healthy("a script that tries both names", assumed(_workload(imports=both), peft="0.21.2"))

    load = _workload(_call("transformers.AutoModelForCausalLM.from_pretrained", 40, load_in_8bit=True))
    yield sick(
        "load_in_8bit= with transformers 5, assumed",
        assumed(load, transformers="5.23.0"),
        "error: load_in_8bit= is not taken by from_pretrained in transformers 5.23.0 (removed in 5.0.0): "
        "use quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
    )
    open_answer = {
        "transformers.AutoModelForCausalLM.from_pretrained": {
            "gone": False,
            "taken": {"load_in_8bit": None, "low_cpu_mem_usage": None},
            "deprecated": {},
            "nearest": {},
        }
    }
    error = "TypeError: LlamaForCausalLM.__init__() got an unexpected keyword argument '{}'"
    yield healthy(
        "loading shows that this release takes it",
        asked(load, open_answer, transformers="5.23.0"),
        loaded("load_in_8bit", Arm(outcome="passed")),
    )
    tomorrow = _workload(
        _call("transformers.AutoModelForCausalLM.from_pretrained", 40, low_cpu_mem_usage=True)
    )
    yield sick(
        "a keyword that no table has, and that loading shows to be gone",
        asked(tomorrow, open_answer, transformers="7.0.0"),
        "error: low_cpu_mem_usage= is not taken by from_pretrained in transformers 7.0.0",
        trials=(loaded("low_cpu_mem_usage", Arm(outcome="raised", error=error.format("low_cpu_mem_usage"))),),
    )
    tokenizer = _workload(_call("transformers.AutoTokenizer.from_pretrained", 30, use_auth_token=True))
    yield sick(
        "a keyword that is taken and not read",
        assumed(tokenizer, transformers="5.23.0"),
        "note: use_auth_token= is no longer read by AutoTokenizer.from_pretrained in transformers 5.23.0 "
        "(since 5.0.0)",
    )
    answer = {
        "transformers.Trainer": {
            "gone": False,
            "taken": {"evl_dataset": False},
            "nearest": {"evl_dataset": "eval_dataset"},
        }
    }
    yield sick(
        "a keyword that never was",
        asked(_workload(_call("transformers.Trainer", 70, evl_dataset=None)), answer, transformers="5.23.0"),
        "error: evl_dataset= is not taken by Trainer in transformers 5.23.0: is it eval_dataset=?",
    )
    lomo = Config(
        path="args.yaml",
        kind="training",
        format="yaml",
        root=Value(
            {
                "evaluation_strategy": Value(
                    "epoch", _at(17, 22, 27, "args.yaml"), _at(17, 1, 20, "args.yaml")
                )
            },
            _at(1, path="args.yaml"),
        ),
    )
    yield sick(
        "a key of a TrainingArguments file",
        assumed(_workload(configs=(lomo,)), transformers="5.23.0"),
        "warning: evaluation_strategy: is not taken by TrainingArguments in transformers 5.23.0 "
        "(removed in 4.51.0): use eval_strategy",
    )
    yield cannot_tell("no workload", assumed(None, transformers="5.23.0"), "no workload was given")
