"""removed-api and deprecated-api: of what the installed libraries no longer take, or not yet."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, Callable, Mapping

import pytest

from llm_doctor import registry
from llm_doctor.check import Case, case_of
from llm_doctor.checks.deprecated_api import DeprecatedApi
from llm_doctor.checks.removed_api import RemovedApi
from llm_doctor.examination import Request, check_case, examine
from llm_doctor.host import real_host
from llm_doctor.model import CheckResult, Finding, Packages, Report
from llm_doctor.reading import Reading
from llm_doctor.workload import api
from llm_doctor.workload.data import (
    UNKNOWN,
    Call,
    Config,
    Import,
    Launch,
    Place,
    Script,
    Symbol,
    Training,
    Value,
    Workload,
)

TODAY = {"transformers": "5.23.0", "peft": "0.21.2", "accelerate": "1.15.0", "bitsandbytes": "0.50.2"}
OF_2023 = {"transformers": "4.29.2", "peft": "0.3.0", "accelerate": "0.20.3", "bitsandbytes": "0.39.0"}
STACK_2023 = os.environ.get("LLM_DOCTOR_STACK_2023", "")


def at(line: int, column: int, end: int, path: str = "train.py") -> Place:
    return Place(path, line, column, line, end)


def call(callee: str, line: int, *positional: Any, **arguments: Any) -> Call:
    """A call with each keyword on a line of its own after the first, as these calls are written."""
    last = line + len(arguments) + 1
    return Call(
        callee=callee,
        place=Place("train.py", line, 13, last, 6),
        positional=tuple(Value(it, at(line, 40, 45)) for it in positional),
        arguments={
            name: it if isinstance(it, Value) else Value(it, at(n, 30, 34), at(n, 9, 34))
            for n, (name, it) in enumerate(arguments.items(), line + 1)
        },
    )


def imported(module: str, name: str, line: int, guarded: bool = False) -> Import:
    return Import(module, name, at(line, 5, 30), guarded)


def workload(*calls: Call, imports: tuple[Import, ...] = (), **more: Any) -> Workload:
    script = Script(path="train.py", imports=imports, calls=calls)
    return Workload(files=("train.py",), scripts=(script,), **more)


def assumed(it: Workload, versions: Mapping[str, str]) -> Case:
    facts = case_of(Packages(installed=dict(versions), modules={})).facts
    return Case(facts=facts, workload=it, assumed=True)


def said(result: CheckResult) -> dict[int, str]:
    assert result.outcome in ("pass", "findings"), result.reason
    return {f.subject.line or 0: f"{f.severity}: {f.message}" for f in result.findings}


def removed(it: Workload, versions: Mapping[str, str]) -> dict[int, str]:
    return said(check_case(RemovedApi, assumed(it, versions), ()))


def deprecated(it: Workload, versions: Mapping[str, str]) -> dict[int, str]:
    return said(check_case(DeprecatedApi, assumed(it, versions), ()))


def findings(it: Workload, versions: Mapping[str, str]) -> list[Finding]:
    return list(check_case(RemovedApi, assumed(it, versions), ()).findings)


LOAD = "transformers.AutoModelForCausalLM.from_pretrained"
ARGUMENTS = "transformers.TrainingArguments"
ALPACA = workload(
    call(
        LOAD,
        112,
        "huggyllama/llama-7b",
        load_in_8bit=True,
        torch_dtype=Symbol("torch.float16"),
        device_map="auto",
    ),
    call("transformers.LlamaTokenizer.from_pretrained", 120, use_auth_token=True),
    call("peft.prepare_model_for_int8_training", 174, UNKNOWN),
    call(
        ARGUMENTS, 230, output_dir="out", evaluation_strategy="steps", group_by_length=True, warmup_steps=100
    ),
    call("transformers.Trainer", 260, model=UNKNOWN, args=UNKNOWN, tokenizer=UNKNOWN),
    imports=(
        imported("peft", "LoraConfig", 16),
        imported("peft", "prepare_model_for_int8_training", 20),
        imported("transformers", "AutoModelForCausalLM", 21),
        imported("transformers", "Trainer", 22),
    ),
)


def test_a_script_of_2023_on_todays_versions() -> None:
    gone_from_peft = (
        "error: prepare_model_for_int8_training is not in peft 0.21.2 (removed in 0.10.0): "
        "use prepare_model_for_kbit_training"
    )
    assert removed(ALPACA, TODAY) == {
        20: gone_from_peft,
        113: "error: load_in_8bit= is not taken by from_pretrained in transformers 5.23.0 "
        "(removed in 5.0.0): use quantization_config=BitsAndBytesConfig(load_in_8bit=True)",
        121: "note: use_auth_token= is no longer read by LlamaTokenizer.from_pretrained "
        "in transformers 5.23.0 (since 5.0.0)",
        174: gone_from_peft,
        232: "error: evaluation_strategy= is not taken by TrainingArguments in transformers 5.23.0 "
        "(removed in 4.51.0): use eval_strategy",
        233: "error: group_by_length= is not taken by TrainingArguments in transformers 5.23.0 "
        '(removed in 5.2.0): use train_sampling_strategy="group_by_length"',
        263: "error: tokenizer= is not taken by Trainer in transformers 5.23.0 (removed in 5.0.0): "
        "use processing_class",
    }
    assert deprecated(ALPACA, TODAY) == {
        114: "note: torch_dtype= is deprecated in transformers 5.23.0: use dtype"
    }


def test_the_same_script_on_the_versions_of_its_time() -> None:
    assert removed(ALPACA, OF_2023) == deprecated(ALPACA, OF_2023) == {}


def test_each_release_between_has_its_own_answer() -> None:
    at_release = {
        version: (
            {*removed(ALPACA, {"transformers": version})},
            {*deprecated(ALPACA, {"transformers": version})},
        )
        for version in ("4.37.2", "4.38.0", "4.41.0", "4.50.3", "4.51.0", "4.57.3")
    }
    assert at_release == {
        "4.37.2": (set(), {121}),
        "4.38.0": (set(), {113, 121}),
        "4.41.0": (set(), {113, 121, 232}),
        "4.50.3": (set(), {113, 121, 232, 263}),
        "4.51.0": ({232}, {113, 121, 263}),
        "4.57.3": ({232}, {113, 114, 121, 263}),
    }
    assert deprecated(ALPACA, {"peft": "0.9.0"}) == {
        174: "note: prepare_model_for_int8_training() is deprecated in peft 0.9.0: "
        "use prepare_model_for_kbit_training"
    }


def test_a_modern_script_on_an_old_stack() -> None:
    modern = workload(
        call(LOAD, 10, "x", dtype="auto", attn_implementation="sdpa", load_in_4bit=True),
        call(ARGUMENTS, 20, eval_strategy="steps"),
        imports=(imported("peft", "prepare_model_for_kbit_training", 3),),
    )
    assert removed(modern, OF_2023) == {
        3: "error: prepare_model_for_kbit_training is not in peft 0.3.0 (added in 0.4.0): "
        "use prepare_model_for_int8_training",
        11: "error: dtype= is not taken by from_pretrained in transformers 4.29.2 (added in 4.56.0): "
        "use torch_dtype",
        12: "error: attn_implementation= is not taken by from_pretrained in transformers 4.29.2 "
        "(added in 4.36.0)",
        13: "error: load_in_4bit= is not taken by from_pretrained in transformers 4.29.2 (added in 4.30.0)",
        21: "error: eval_strategy= is not taken by TrainingArguments in transformers 4.29.2 "
        "(added in 4.41.0): use evaluation_strategy",
    }


def test_names_of_others_are_left_alone() -> None:
    others = workload(
        call("utils.prepare_model_for_int8_training", 10, UNKNOWN),
        call("unsloth.FastLanguageModel.from_pretrained", 20, load_in_4bit=True),
        call("ctransformers.AutoModelForCausalLM.from_pretrained", 30, load_in_8bit=True),
        call("transformers.BitsAndBytesConfig", 40, load_in_8bit=True),
        call("peft.PeftModel.from_pretrained", 50, torch_dtype="auto"),
        call("transformers.TFAutoModel.from_pretrained", 60, use_auth_token=True),
        call(".from_pretrained", 70, load_in_8bit=True),
        call(ARGUMENTS, 80, model_max_length=512),  # of a class of the project, made from it
        imports=(
            imported("utils", "prepare_model_for_int8_training", 3),
            imported("torch.optim", "AdamW", 4),
        ),
    )
    assert [line for line, text in removed(others, TODAY).items() if "error" in text] == []
    assert deprecated(others, TODAY) == {}


def test_a_script_that_looks_for_the_name_itself() -> None:
    old = imported("peft", "prepare_model_for_int8_training", 4, guarded=True)
    new = imported("peft", "prepare_model_for_kbit_training", 2, guarded=True)
    step = call("peft.prepare_model_for_int8_training", 10, UNKNOWN)
    assert removed(workload(step, imports=(new, old)), TODAY) == {}
    alone = removed(workload(step, imports=(old,)), TODAY)
    assert {line: text.partition(":")[0] for line, text in alone.items()} == {4: "note", 10: "warning"}


# --- Launch lines and configurations --------------------------------------------------------------------


def launch(*words: str, launcher: str = "torchrun") -> Launch:
    arguments = tuple(Value(word, at(n, 3, 3 + len(word), "run.sh")) for n, word in enumerate(words, 10))
    return Launch(place=at(9, 1, 8, "run.sh"), launcher=launcher, arguments=arguments)


TRAINER_FLAGS = ("--save_strategy", "steps", "--save_total_limit", "3", "--per_device_train_batch_size", "4")


def test_flags_of_a_script_that_is_not_at_hand() -> None:
    typical = launch("--evaluation_strategy", "no", "--warmup_ratio", "0.03", *TRAINER_FLAGS)
    assert removed(Workload(launches=(typical,)), TODAY) == {
        10: "warning: --evaluation_strategy is not taken by TrainingArguments in transformers 5.23.0 "
        "(removed in 4.51.0): use --eval_strategy",
        12: "warning: --warmup_ratio is not taken by TrainingArguments in transformers 5.23.0 "
        "(removed in 5.15.0): use --warmup_steps",
    }
    (finding, _) = findings(Workload(launches=(typical,)), TODAY)
    (edit,) = finding.fixes[0].edits
    assert (edit.action, edit.path, edit.line, edit.text) == ("rename-flag", "run.sh", 10, "eval_strategy")
    own = launch("--warmup_ratio", "0.03", "--no_cuda", "--logging_dir", "logs")
    assert removed(Workload(launches=(own,)), TODAY) == {}, "any program may have options of these names"


@pytest.mark.parametrize(("arguments", "severity"), [(Symbol(ARGUMENTS), "error"), (UNKNOWN, None)])
def test_flags_of_a_script_at_hand(arguments: Any, severity: str | None) -> None:
    line = launch("--evaluation_strategy", "no", *TRAINER_FLAGS)
    parser = call("transformers.HfArgumentParser", 30, [Value(arguments, at(30, 60, 70))])
    script = Script(path="train.py", calls=(parser,), launch=line)
    found = removed(Workload(launches=(line,), scripts=(script,)), TODAY)
    assert {text.partition(":")[0] for text in found.values()} == ({severity} if severity else set())


def test_a_flag_that_is_bound_to_a_class_of_the_project() -> None:
    line = launch("--evaluation_strategy", "no")
    flag = line.flags["evaluation_strategy"]
    training = Training(place=at(40, 1, 9), settings={"evaluation_strategy": flag}, launch=line)
    script = Script(path="train.py", launch=line)
    found = removed(Workload(launches=(line,), scripts=(script,), trainings=(training,)), TODAY)
    assert found[10].startswith("warning: --evaluation_strategy is not taken by TrainingArguments")


def config(kind: Any, *keys: str) -> Config:
    entries = {
        key: Value(True, at(n, 30, 34, "a.yaml"), at(n, 1, 20, "a.yaml")) for n, key in enumerate(keys, 1)
    }
    return Config(path="a.yaml", kind=kind, format="yaml", root=Value(entries, at(1, 1, 2, "a.yaml")))


def test_keys_of_configurations() -> None:
    keys = ("model_name_or_path", "evaluation_strategy", "overwrite_output_dir", "group_by_length")
    for kind, lines in (
        ("training", {2, 3, 4}),
        ("llamafactory", {2, 4}),
        ("axolotl", set()),
        ("deepspeed", set()),
    ):
        assert set(removed(Workload(configs=(config(kind, *keys),)), TODAY)) == lines, kind


# --- Other packages ------------------------------------------------------------------------------------


def test_a_package_that_is_not_assumed_is_of_the_others_time() -> None:
    others = workload(
        call("datasets.load_dataset", 10, "json", use_auth_token=True),
        call("trl.SFTTrainer", 20, max_seq_length=512, tokenizer=UNKNOWN),
    )
    found = removed(others, TODAY)
    assert found[11] == (
        "warning: use_auth_token= is not taken by load_dataset in datasets 3.0.0 or later "
        "(removed in 3.0.0): use token"
    )
    assert {line: text.partition(":")[0] for line, text in found.items()} == dict.fromkeys(
        (11, 21, 22), "warning"
    )
    assert removed(others, OF_2023) == removed(others, {"transformers": "4.57.3"}) == {}
    assert removed(others, {**TODAY, "datasets": "2.21.0", "trl": "0.9.6"}) == {}
    sure = removed(others, {**TODAY, "datasets": "4.0.0", "trl": "0.19.1"})
    assert all(text.startswith("error") for text in sure.values())


# --- Fixes ----------------------------------------------------------------------------------------------


def actions(finding: Finding) -> list[tuple[str, int, str, str]]:
    return [(it.action, it.line, it.name, it.text) for it in finding.fixes[0].edits]


def test_fixes_of_the_script_of_2023() -> None:
    fixes = {it.subject.line: it for it in findings(ALPACA, TODAY)}
    assert {line: it.fixes[0].applicability for line, it in fixes.items()} == dict.fromkeys(fixes, "safe")
    assert actions(fixes[113]) == [
        ("set-keyword", 112, "quantization_config", "BitsAndBytesConfig(load_in_8bit=True)"),
        ("remove-keyword", 113, "load_in_8bit", ""),
        ("add-import", 1, "", "from transformers import BitsAndBytesConfig"),
    ]
    both = [
        ("rename-name", line, "prepare_model_for_int8_training", "prepare_model_for_kbit_training")
        for line in (20, 174)
    ]
    assert actions(fixes[20]) == actions(fixes[174]) == both
    assert actions(fixes[232]) == [("rename-keyword", 232, "evaluation_strategy", "eval_strategy")]


def test_an_expression_is_kept_and_a_dict_is_not_renamed_blindly() -> None:
    variable = Value(False, at(3, 12, 17), at(11, 9, 34), "load_8bit on line 3")
    (kept,) = findings(workload(call(LOAD, 10, "x", load_in_8bit=variable)), TODAY)
    text = "BitsAndBytesConfig(load_in_8bit=True) if {load_in_8bit} else None"
    assert actions(kept)[0][3] == text
    (dropped,) = findings(workload(call(LOAD, 10, "x", load_in_8bit=False)), TODAY)
    assert [it[0] for it in actions(dropped)] == ["remove-keyword"]
    (twice,) = findings(workload(call(LOAD, 10, "x", load_in_8bit=True, quantization_config=UNKNOWN)), TODAY)
    assert (twice.fixes[0].applicability, twice.fixes[0].edits) == ("manual", ())
    in_dict = Value(True, at(5, 27, 31), at(5, 9, 9 + len("'use_auth_token'")))
    (spread,) = findings(workload(call(LOAD, 10, "x", use_auth_token=in_dict)), TODAY)
    assert (spread.fixes[0].applicability, spread.subject.line) == ("unsafe", 5)
    assert actions(spread) == [("replace", 5, "", '"token"')]


def test_the_table_is_sound() -> None:
    from packaging.version import Version

    for change in api.CHANGES:
        assert change.package in api.PACKAGES and change.source
        releases = [Version(it) for it in (change.added, change.deprecated, change.removed) if it]
        assert releases and releases == sorted(releases), change
        assert not (change.rename and change.switch)
    assert len({(it.package, it.owner, it.name) for it in api.CHANGES}) == len(api.CHANGES)


# --- The installed libraries, for real ------------------------------------------------------------------


def examined(
    python: str, it: Workload, no_probes: str | None = None
) -> tuple[Report, dict[str, CheckResult]]:
    checks = [entry for entry in registry.registered() if entry.name in ("removed-api", "deprecated-api")]
    request = Request(checks=checks, workload=it, no_probes=no_probes)
    report = examine(request, Reading(real_host(), python), lambda _: None)
    return report, {check.name: check for check in report.checks}


TYPO = call("peft.get_peft_model", 300, UNKNOWN, UNKNOWN, no_such_keyword=1)
CHECKPOINTED = workload(
    *ALPACA.scripts[0].calls,
    call(".gradient_checkpointing_enable", 280),
    call(".push_to_hub", 290, use_auth_token=True),
    TYPO,
    call(ARGUMENTS, 310, per_device_train_batchsize=4, gradient_checkpointing=True, some_field_of_mine=1),
    call(LOAD, 330, "x", low_cpu_mem_usage=True, cache_dir="c", my_models_own=1),
    imports=(
        *ALPACA.scripts[0].imports,
        imported("transformers", "NeverWas", 30),
        imported("transformers.deepspeed", "HfDeepSpeedConfig", 31),
        imported("transformers.models.llama.modeling_llama", "LlamaForCausalLM", 32),
    ),
)


@pytest.mark.usefixtures("stack_site")
def test_the_installed_stack_is_asked() -> None:
    _, checks = examined(sys.executable, CHECKPOINTED)
    found = {f.subject.line: f for f in checks["removed-api"].findings}
    assert {line: f.severity for line, f in found.items()} == {
        20: "error",
        30: "error",
        31: "error",
        113: "error",
        121: "note",
        174: "error",
        232: "error",
        233: "error",
        263: "error",
        291: "error",
        301: "error",
        311: "error",
    }
    proof = found[113].proof
    assert proof is not None and proof.status == "reproduced" and proof.case is not None
    assert proof.case.broken is not None and proof.case.broken.error == (
        "TypeError: LlamaForCausalLM.__init__() got an unexpected keyword argument 'load_in_8bit'"
    )
    assert found[30].message.startswith("transformers.NeverWas is not in transformers ")
    assert "no_such_keyword= is not taken by get_peft_model in peft " in found[301].message
    assert found[311].message.endswith(": is it per_device_train_batch_size=?")
    warned = {f.subject.line: f for f in checks["deprecated-api"].findings}
    assert set(warned) == {114, 280, 312}
    assert warned[312].evidence["warning"].startswith("Deprecated alias of `activation_checkpointing`")
    tried = {case.combination["keyword"]: case.status for case in checks["removed-api"].trials[0].cases}
    assert tried["load_in_8bit"] == "reproduced" and tried["device_map"] == "refuted"
    assert tried["cache_dir"] == tried["low_cpu_mem_usage"] == "refuted"
    assert "my_models_own" not in tried, "it may belong to the model that is loaded"


@pytest.mark.usefixtures("stack_site")
def test_without_probes_the_installed_versions_decide() -> None:
    _, checks = examined(sys.executable, ALPACA, no_probes="--no-probes")
    found = {f.subject.line: (f.severity, f.confidence) for f in checks["removed-api"].findings}
    assert set(found) == {20, 113, 121, 174, 232, 233, 263}
    assert found[113] == ("error", "certain")


TOMORROW = """
import functools, sys, warnings

def renamed(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if "tokenizer" in kwargs:
            warnings.warn("`tokenizer` is deprecated. Use `processing_class`.", FutureWarning)
            kwargs["processing_class"] = kwargs.pop("tokenizer")
        return function(*args, **kwargs)
    return wrapper

class SFTTrainer:
    @renamed
    def __init__(self, model=None, processing_class=None):
        raise SystemExit("the body of a library's function must not run")

def create(model, *, dtype=None):
    raise SystemExit("nor this one")

def __getattr__(name):
    if name == "NeedsMore":
        raise ModuleNotFoundError("No module named 'more'", name="more")
    raise AttributeError(name)
"""


def test_a_release_that_no_table_knows(make_patient: Callable[..., Path]) -> None:
    python = make_patient({"trl/__init__.py": TOMORROW}, {"trl": "9.0.0"})
    used = workload(
        call("trl.SFTTrainer", 10, tokenizer=UNKNOWN, processing_clas=UNKNOWN, max_seq_length=512),
        call("trl.create", 20, UNKNOWN, dtype=UNKNOWN, torch_dtype=UNKNOWN),
        imports=(
            imported("trl", "NeedsMore", 3),
            imported("trl", "SFTTrainer", 4),
            imported("trl", "Gone", 5),
        ),
    )
    _, checks = examined(str(python), used)
    assert said(checks["removed-api"]) == {
        5: "error: trl.Gone is not in trl 9.0.0",
        13: "error: max_seq_length= is not taken by SFTTrainer in trl 9.0.0 (removed in 0.13.0): "
        "use SFTConfig(max_length=...), which is max_seq_length before trl 0.16",
        22: "error: torch_dtype= is not taken by create in trl 9.0.0",
    }
    (note,) = checks["deprecated-api"].findings
    assert (note.subject.line, note.evidence["warning"]) == (
        11,
        "`tokenizer` is deprecated. Use `processing_class`.",
    )


@pytest.mark.skipif(not Path(STACK_2023).is_file(), reason="the 2023 stack is not built (make test-stacks)")
def test_the_stack_of_2023_is_asked() -> None:
    _, checks = examined(STACK_2023, ALPACA)
    assert checks["removed-api"].findings == checks["deprecated-api"].findings == ()
    modern = workload(
        call(LOAD, 10, "x", dtype="auto", token=True),
        call(ARGUMENTS, 20, eval_strategy="steps"),
        imports=(imported("peft", "prepare_model_for_kbit_training", 3),),
    )
    _, checks = examined(STACK_2023, modern)
    found = {f.subject.line: f for f in checks["removed-api"].findings}
    assert {line: f.severity for line, f in found.items()} == dict.fromkeys((3, 11, 12, 21), "error")
    assert found[11].confidence == found[12].confidence == "proven"
