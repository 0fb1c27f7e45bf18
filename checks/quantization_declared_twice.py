"""A load is told to quantise twice: by load_in_8bit= or load_in_4bit=, and by quantization_config=."""

from __future__ import annotations

from typing import Iterable, Iterator, Tuple

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    at,
    by_trial,
    cannot_tell,
    case_of,
    healthy,
    in_every_story,
    remedy,
    sick,
)
from llm_doctor.model import Arm, Edit, Finding, Fix, Packages, ProofStatus, Severity, TrialCase, TrialResult
from llm_doctor.workload.data import Call, Place, Script, Story, Value, Workload
from llm_doctor.workload.models import written

TRIAL = Trial(
    name="quantization-declared-twice",
    imports=("torch", "transformers.models.llama.modeling_llama", "accelerate", "bitsandbytes"),
    on_gpu=True,
)


class QuantizationDeclaredTwice(Check):
    """A load is told to quantise twice: by load_in_8bit= or load_in_4bit=, and by quantization_config=.

    ## What it finds

    A `from_pretrained` that is given `load_in_8bit=True` or `load_in_4bit=True` and a
    `quantization_config=` that is not None. A keyword that is False or not known is not judged.

    ## Why it breaks

    transformers 4.38 to 4.57 raise "You can't pass `load_in_4bit`or `load_in_8bit` as a kwarg when passing
    `quantization_config` argument at the same time". Before, the keyword is dropped in silence and the
    configuration counts, which matters where they disagree. From 5.0 on the keyword itself is gone, which
    is told by removed-api.

    ## How it is proven

    A two-layer Llama is loaded with the keyword and a configuration, then with the configuration alone.

    ## Fix

    Keep `quantization_config=` and remove the keyword.

    ## References

    - transformers/modeling_utils.py, PreTrainedModel.from_pretrained (4.30.2, 4.36.2, 4.38.0, 4.57.3, 5.0.0)
    - https://github.com/huggingface/transformers/pull/26610 (4.38.0)
    - https://github.com/hiyouga/LLaMA-Factory/issues/4269
    """

    name = "quantization-declared-twice"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    needs = (Packages,)
    trials = (TRIAL,)
    url = "https://github.com/huggingface/transformers/pull/26610"
    symptoms = (
        Symptom(
            pattern=r"You can't pass `load_in_[48]bit`[^\n]{0,80} when passing `quantization_config`",
            example="ValueError: You can't pass `load_in_4bit`or `load_in_8bit` as a kwarg when passing "
            "`quantization_config` argument at the same time.",
            counter_example="The `load_in_4bit` and `load_in_8bit` arguments are deprecated and will be "
            "removed in the future versions. Please, pass a `BitsAndBytesConfig` object in "
            "`quantization_config` argument instead.",
        ),
        Symptom(
            pattern=r"load_in_4bit and load_in_8bit are both True",
            example="ValueError: load_in_4bit and load_in_8bit are both True, but only one can be used at "
            "the same time",
            counter_example="load_in_4bit and load_in_8bit are deprecated",
            cause="The load is told to quantise to 4 and to 8 bits at once",
            fixes=(remedy("keep one of them", "BitsAndBytesConfig(load_in_4bit=True)", "edit"),),
        ),
        Symptom(
            pattern=r"The model is already quantized with (?P<first>\w{2,30})\. You can't quantize it again",
            example="ValueError: The model is already quantized with gptq. You can't quantize it again with "
            "QuantizationMethod.BITS_AND_BYTES",
            counter_example="The model is quantized with gptq and is not serializable",
            cause="The checkpoint is quantised by {first} already, and the load quantises it again",
            fixes=(remedy("load it without a quantization_config, or take the unquantised checkpoint"),),
        ),
        Symptom(
            pattern=r"The model is quantized with (?P<first>\w{2,40}) but you are passing a "
            r"(?P<second>\w{2,40}) config",
            example="ValueError: The model is quantized with GPTQConfig but you are passing a "
            "BitsAndBytesConfig config. Please make sure to pass the same quantization config class to "
            "`from_pretrained` with different loading attributes.",
            counter_example="The model is quantized with GPTQConfig",
            cause="The checkpoint is quantised with {first} and is loaded with a {second}",
            fixes=(remedy("load it without a quantization_config, or take the unquantised checkpoint"),),
        ),
        Symptom(
            pattern=r"You cannot load weights that are saved in int8 using `load_in_8bit=True",
            example="ValueError: You cannot load weights that are saved in int8 using `load_in_8bit=True`, "
            "make sure you are using `load_in_8bit=True` on float32/float16/bfloat16 weights.",
            counter_example="load_in_8bit=True on float16 weights",
            cause="The checkpoint holds int8 weights already, and load_in_8bit=True quantises them again",
            fixes=(remedy("load it without load_in_8bit, or take the unquantised checkpoint"),),
        ),
    )
    remedies = (remedy("keep quantization_config= and remove load_in_4bit= or load_in_8bit=", "", "edit"),)

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Both ways of saying it, in every load."""
        assert case.workload is not None
        if not case.workload.scripts:
            raise CannotTell("no Python script in the workload")
        version = case.version("transformers")
        if version is None:
            raise CannotTell("transformers is not installed")
        for finding in in_every_story(
            case.workload.scripts, lambda story: _judge(story, version.release[:2], str(version)), True
        ):
            yield Suspicion(finding, (TrialRequest(TRIAL),) if finding.severity == "error" else ())

    def conclude(self, finding: Finding, results: Tuple[TrialResult, ...]) -> Iterable[Finding]:
        """What loading with both showed of this stack."""
        for result in results:
            for case in result.cases:
                yield from by_trial(finding, result, case)
                return
        yield finding

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _judge(story: Story, release: Tuple[int, ...], version: str) -> Iterator[Tuple[Call, Finding]]:
    load = story.load
    config = load.argument("quantization_config") if load is not None else None
    if load is None or config is None or not config.known or config.constant is None:
        return
    for bits in (8, 4):
        keyword = f"load_in_{bits}bit"
        value = load.argument(keyword)
        if value is None or value.constant is not True:
            continue
        agrees = _agrees(config, keyword)
        if release < (4, 38) and agrees is not False:
            return  # it is dropped, and nobody misses it
        said = f"{written(value, keyword)} beside quantization_config="
        severity: Severity = "error" if (4, 38) <= release < (5,) else "note"
        if release < (4, 38):
            message = (
                f"{said}: transformers {version} drops the keyword, and the configuration says otherwise"
            )
        elif release < (5,):
            message = f"{said}: transformers {version} refuses both together"
        else:
            message = f"{said}: the keyword went with transformers 5.0, and the configuration says it all"
        yield (
            load,
            Finding(
                severity=severity,
                confidence="certain",
                message=message,
                subject=at(value.key or value.place),
                evidence={"keyword": keyword, "quantization_config_line": (config.key or config.place).line},
                fixes=tuple(_fix(load, value, keyword, agrees is True)),
            ),
        )
        return


def _agrees(config: Value, keyword: str) -> bool | None:
    """Whether the configuration says the same as the keyword; None where that is not known."""
    if not isinstance(config.constant, Call):
        return None
    value = config.constant.argument(keyword)
    if value is None:
        return None if config.constant.open or config.constant.name != "BitsAndBytesConfig" else False
    return value.constant is True if value.known else None


def _fix(load: Call, value: Value, keyword: str, agrees: bool) -> Iterator[Fix]:
    place = value.key or value.place
    at_the_call = place.path == load.place.path and load.place.line <= place.line <= load.place.end_line
    edit = Edit(action="remove-keyword", path=place.path, line=place.line, column=place.column, name=keyword)
    yield Fix(
        title=f"remove {keyword}=, keep quantization_config=",
        kind="edit",
        applicability="safe" if agrees else "unsafe",  # which of the two is meant is not written there
        preview="from_pretrained(..., quantization_config=...)",
        edits=(edit,) if at_the_call else (),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def value(constant: object, line: int) -> Value:
        return Value(constant, Place("train.py", line, 22, line, 26), Place("train.py", line, 9, line, 26))

    def case(transformers: str, keyword: object, **config: object) -> Case:
        made = Call(
            callee="transformers.BitsAndBytesConfig",
            place=Place("train.py", 12, 29, 12, 70),
            arguments={name: value(it, 12) for name, it in config.items()},
        )
        load = Call(
            callee="transformers.AutoModelForCausalLM.from_pretrained",
            place=Place("train.py", 9, 9, 14, 6),
            arguments={"load_in_4bit": value(keyword, 11), "quantization_config": value(made, 12)},
        )
        story = Story(script="train.py", load=load, calls=(load,))
        script = Script(path="train.py", calls=(load,), stories=(story,))
        facts = case_of(Packages(installed={"transformers": transformers}, modules={})).facts
        return Case(facts=facts, workload=Workload(files=("train.py",), scripts=(script,)))

    def tried(status: ProofStatus, error: str) -> TrialResult:
        arm = Arm(outcome="passed") if status == "refuted" else Arm(outcome="raised", error=error)
        proof = TrialCase(combination={}, status=status, broken=arm, fixed=Arm(outcome="passed"))
        return TrialResult(name=TRIAL.name, device="cpu", status=status, seconds=0.2, cases=(proof,))

    refused = (
        "ValueError: You can't pass `load_in_4bit`or `load_in_8bit` as a kwarg when passing "
        "`quantization_config` argument at the same time."
    )
    both = "load_in_4bit=True beside quantization_config="
    yield healthy("the keyword is off", case("4.44.2", False, load_in_4bit=True))
    yield healthy(
        "a release that drops the keyword, which says the same", case("4.31.0", True, load_in_4bit=True)
    )
    yield sick(
        "a release that refuses both",
        case("4.44.2", True, load_in_4bit=True),
        f"error: {both}: transformers 4.44.2 refuses both together",
        trials=(tried("reproduced", refused),),
    )
    yield sick(
        "a release of which the trial shows that it takes both",
        case("4.44.2", True, load_in_4bit=True),
        f"note: {both}: transformers 4.44.2 refuses both together; but not on this stack: the trial ran "
        f"without it",
        trials=(tried("refuted", ""),),
    )
    yield sick(
        "a release that drops the keyword, which says something else",
        case("4.31.0", True, load_in_8bit=True),
        f"note: {both}: transformers 4.31.0 drops the keyword, and the configuration says otherwise",
    )
    yield sick(
        "a release that has no such keyword any more",
        case("5.23.0", True, load_in_4bit=True),
        f"note: {both}: the keyword went with transformers 5.0, and the configuration says it all",
    )
    yield cannot_tell(
        "no workload",
        case_of(Packages(installed={"transformers": "5.23.0"}, modules={})),
        "no workload was given",
    )
