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
    at,
    cannot_tell,
    case_of,
    healthy,
    proven,
    remedy,
    sick,
)
from llm_doctor.model import (
    Arm,
    Finding,
    Packages,
    Severity,
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
            pattern=r"(?P<callee>(?:\w{0,60}(?:Arguments|Config|Trainer|Accelerator|Tokenizer\w{0,6}"
            r"|Plugin|ForCausalLM|LMHeadModel"
            r"|ForConditionalGeneration|ForSequenceClassification|ForTokenClassification"
            r"|ForQuestionAnswering|DataCollator\w{0,40}"
            r"|TransformerEncoderLayer|AdamW|PeftModel\w{0,30}|LLM|SamplingParams|EngineArgs|HfApi"
            r"|DeepSpeedEngine"
            r"|GradScaler|DistributedDataParallel|FullyShardedDataParallel))\.__init__"
            r"|from_pretrained|get_peft_model|prepare_model_for_\w{4,40}|load_dataset|hf_hub_download"
            r"|snapshot_download|init_process_group"
            r"|load_checkpoint_and_dispatch|dispatch_model|infer_auto_device_map|cached_download"
            r"|notebook_launcher|init_empty_weights"
            r"|save_pretrained|load_adapter|training_step|compute_loss|log|gradient_checkpointing_enable"
            r"|_set_gradient_checkpointing"
            r"|_prepare_4d_\w{4,60}|create_optimizer\w{0,20}|init_distributed|fused_adam"
            r"|_flash_attention_forward"
            r"|apply_chat_template|clip_grad_norm_|_load_pretrained_model|evaluate|push_to_hub"
            r"|_save_checkpoint|_get_train_sampler"
            r"|prediction_step|_unpad_input|unpad_input)\(\) got an unexpected keyword argument"
            r" `(?P<keyword>\w{1,60})`",
            example="TypeError: TrainingArguments.__init__() got an unexpected keyword argument"
            " 'evaluation_strategy'",
            counter_example="TypeError: forward() got an unexpected keyword argument 'training'",
            cause="{callee}() of the installed release does not take {keyword}=",
        ),
        Symptom(
            pattern=r"__init__\(\) got an unexpected keyword argument"
            r" `(?P<keyword>evaluation_strategy|eval_strategy|no_cuda|use_cpu|load_in_8bit"
            r"|load_in_4bit|bnb_\w{4,30}|use_auth_token|overwrite_output_dir|group_by_length"
            r"|half_precision_backend|save_safetensors"
            r"|warmup_ratio|logging_dir|push_to_hub_\w{4,20}|include_inputs_for_metrics|report_to|optim"
            r"|neftune_noise_alpha|gradient_checkpointing_kwargs"
            r"|torch_compile|ddp_find_unused_parameters|tokenizer|processing_class|max_seq_length"
            r"|max_length|dataset_text_field|packing|peft_config"
            r"|dataset_batch_size|dataset_num_proc|eval_packing|formatting_func|trust_remote_code"
            r"|torch_dtype|dtype|device_map|quantization_config"
            r"|attn_implementation|use_flash_attention_2|low_cpu_mem_usage|rope_scaling|enable_lora"
            r"|merge_weights|fan_in_fan_out|layers_pattern"
            r"|use_rslora|use_dora|use_qalora|loftq_config|megatron_\w{3,20}|layer_replication"
            r"|runtime_config|eva_config|lora_bias|exclude_modules"
            r"|corda_config|trainable_token_indices|alora_\w{3,20}|arrow_config|target_parameters"
            r"|ensure_weight_tying|auto_mapping|revision"
            r"|dispatch_batches|even_batches|split_batches|use_seedable_sampler|logging_dir"
            r"|use_configured_state|fp16_backend|sharded_ddp|xpu_backend"
            r"|bf16_full_eval|deepspeed|fsdp|fsdp_config|predict_with_generate|sortish_sampler"
            r"|generation_\w{4,20}|model_init_kwargs|beta|ref_model|loss_type"
            r"|max_prompt_length|max_target_length|padding_free|log_with|model_name|ppo_epochs"
            r"|mini_batch_size|reward_model|kl_coef|value_model"
            r"|state_dict|is_trainable|autocast_adapter_dtype|ephemeral_gpu_offload|cache_dir"
            r"|local_files_only|token|device_placement|mixed_precision"
            r"|gradient_accumulation_steps|kwargs_handlers|project_dir|project_config|dynamo_backend"
            r"|dynamo_plugin|ignored_modules"
            r"|process_group|use_orig_params|device_id|proxies|dim_feedforward|norm_first|batch_first"
            r"|foreach|fused|capturable|maximize|differentiable)`",
            example="TypeError: __init__() got an unexpected keyword argument 'load_in_8bit'",
            counter_example="TypeError: __init__() got an unexpected keyword argument 'num_blocks'",
            sure="likely",
            cause="{keyword}= is not taken by the installed release of the library that is called",
        ),
        Symptom(
            pattern=r"(?:site-packages|dist-packages)/(?:peft|transformers|accelerate|trl|deepspeed"
            r"|bitsandbytes|vllm|datasets)/[\s\S]{0,500}?"
            r"(?P<callee>[\w.]{1,80})\(\) got an unexpected keyword argument `(?P<keyword>\w{1,60})`",
            example='  File "/env/lib/python3.10/site-packages/peft/config.py", line 152, in'
            " from_pretrained\n"
            "    return cls.from_peft_type(**kwargs)\nTypeError: LoraConfig.__init__() got an unexpected"
            " keyword argument"
            " 'corda_config'",
            counter_example='  File "/home/me/project/model.py", line 20, in forward\n'
            "TypeError: forward() got an unexpected keyword argument 'training'",
            sure="likely",
            standing="aftermath",
            cause="{callee}() does not take {keyword}=, which the installed library, or a file written by"
            " a newer one, gives it",
        ),
        Symptom(
            pattern=r"cannot import name `(?P<name>\w{2,80})` from"
            r" `(?P<package>transformers|peft|accelerate|deepspeed|trl)`",
            example="ImportError: cannot import name 'AdamW' from 'transformers' (/venv/transformers.py)",
            counter_example="ImportError: cannot import name 'utils' from 'project'",
            cause="The installed {package} has no {name}: it is gone, or not there yet",
            fixes=(
                remedy("upgrade {package} if {name} is newer than it", "pip install -U {package}"),
                remedy(
                    "else use what has taken its place, or install the release that the code was written for"
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:from|import) (?P<package>transformers|peft|accelerate|deepspeed|trl)[\w.]{0,80}"
            r" import [\s\S]{0,300}?cannot import name `(?P<name>\w{2,80})`(?! from)",
            example="----> 1 from transformers import AdamW, BertConfig\n\nImportError: cannot import"
            " name 'AdamW'",
            counter_example="from my_project import model\nImportError: cannot import name 'model'",
            sure="likely",
            cause="The installed {package} has no {name}: it is gone, or not there yet",
        ),
        Symptom(
            pattern=r"Some specified arguments are not used by the HfArgumentParser:"
            r" (?P<arguments>[^\n]{0,80}--(?:evaluation_strategy|no_cuda|use_cpu|overwrite_output_dir"
            r"|warmup_ratio|group_by_length|logging_dir|sharded_ddp|fp16_opt_level|fp16_backend"
            r"|half_precision_backend|tpu_num_cores|use_mps_device|past_index|jit_mode_eval|use_ipex"
            r"|torchdynamo|fsdp_min_num_params|save_safetensors|include_tokens_per_second"
            r"|per_gpu_\w{5,30})\b[^\n]{0,120})",
            example="ValueError: Some specified arguments are not used by the HfArgumentParser:"
            " ['--no_cuda']",
            counter_example="error: the following arguments are required: --output_dir",
            cause="The installed TrainingArguments do not know these flags: {arguments}",
        ),
        Symptom(
            pattern=r"error: unrecognized arguments:"
            r" (?P<arguments>--local-rank[^\n]{0,100})",
            example="train.py: error: unrecognized arguments: --local-rank=0",
            counter_example="train.py: error: unrecognized arguments: --my_flag",
            cause="torch 2's launcher gives {arguments}; scripts up to then read --local_rank",
            sure="likely",
            fixes=(
                remedy(
                    "read LOCAL_RANK from the environment and start through torchrun",
                    "torchrun --nproc_per_node gpu train.py",
                ),
                remedy(
                    "take the spelling of this release (torch 2: --local-rank)",
                    'parser.add_argument("--local_rank", "--local-rank", type=int, default=-1)',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"\b(?P<class>\w{0,50}(?:Tokenizer\w{0,8}|ForCausalLM|LMHeadModel|Trainer|Accelerator"
            r"|TrainingArguments|Config|PeftModel\w{0,30}|DynamicCache"
            r"|LoraModel|Linear8bitLt|Linear4bit|Params4bit|LlamaRotaryEmbedding|LlamaAttention"
            r"|LlamaDecoderLayer|AcceleratorState|PartialState"
            r"|HybridCache|StaticCache))` object has no attribute `(?P<name>\w{2,60})`",
            example="AttributeError: 'DynamicCache' object has no attribute 'seen_tokens'",
            counter_example="AttributeError: 'list' object has no attribute 'shape'",
            sure="likely",
            cause="{class} of the installed release has no {name}: the code was written for another one",
            fixes=(
                remedy(
                    "install the transformers that the code (of the model, where it brings its own) was"
                    " written for",
                    'pip install "transformers<5"',
                ),
                remedy("bring the code up to date: for a model of the Hub, its newest revision"),
            ),
        ),
    )
    remedies = (
        remedy("use the name that the installed release has", "llm-doctor fix train.py"),
        remedy("install the release that the script was written for", "pip install -r requirements.txt"),
        remedy(
            "where a file was written by a newer release, upgrade",
            "pip install -U transformers peft accelerate trl",
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
        subject=at(use.place, "place"),
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
