"""What a workload uses of the libraries' interfaces, and what became of it: asked of the installed ones
(doctor/patient/questions/api_signatures.py), or read off a table where there is no patient to ask.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Literal, NamedTuple, Tuple

from llm_doctor.check import Asked, Case, Question
from llm_doctor.model import Edit, Fix, Packages
from llm_doctor.workload.data import Call, Import, Launch, Place, Script, Symbol, Value, Workload

if TYPE_CHECKING:
    from packaging.version import Version

PACKAGES = ("transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "trl", "datasets")
QUESTION = Question(name="api-signatures", imports=(), limit_s=60.0, needs_imports=False)
MODEL_LOAD = "PreTrainedModel.from_pretrained"
OTHER_LOAD = "from_pretrained of tokenizers and configurations"
ARGUMENTS = "TrainingArguments"


# --- What became of it: the table ---------------------------------------------------------------------


class Change(NamedTuple):
    """One name of a package (a module of it where it ends in a dot), or one keyword of an `owner` in it, and
    the first releases that added it, warn of it, and no longer have it. `rename` is the same thing under
    another name, `advice` the rest.

    `unread`: since the removal it is still taken, by a `**kwargs`, and does nothing."""

    package: str
    owner: str
    name: str
    source: str
    added: str | None = None
    deprecated: str | None = None
    removed: str | None = None
    rename: str = ""
    switch: Tuple[str, str, str] | None = None
    advice: str = ""
    unread: bool = False

    def state(self, version: Version) -> str:
        """`there`, `deprecated`, `gone` or `not-yet` in this release."""
        from packaging.version import Version

        if self.added is not None and version < Version(self.added):
            return "not-yet"
        if self.removed is not None and version >= Version(self.removed):
            return "gone"
        if self.deprecated is not None and version >= Version(self.deprecated):
            return "deprecated"
        return "there"

    def remedy(self, state: str) -> str:
        """What to write instead, for a sentence; empty where nothing is needed in its place, or there."""
        if state == "not-yet" or self.rename:
            return self.rename
        return "=".join(self.switch[:2]) if self.switch else self.advice


_MODELING = "transformers/modeling_utils.py"
_ARGUMENTS = "transformers/training_args.py"
_HUB = "transformers/utils/hub.py"
_TRAINER = "transformers/trainer.py"
_SFT = "trl/trainer/sft_trainer.py and sft_config.py (0.8.6, 0.9.6, 0.12.2, 0.13.0)"


def _arguments(removed: str, *names: str, source: str) -> Tuple[Change, ...]:
    return tuple(
        Change("transformers", ARGUMENTS, name, f"{_ARGUMENTS} ({source})", removed=removed) for name in names
    )


# Read off the source of the released wheels named in each row, both sides of every change.
CHANGES: Tuple[Change, ...] = (
    # Loading models. https://github.com/huggingface/transformers/pull/41287
    Change("transformers", MODEL_LOAD, "load_in_8bit", f"{_MODELING} (4.38.0, 4.57.3, 5.0.0)",
           deprecated="4.38.0", removed="5.0.0",
           switch=("quantization_config", "BitsAndBytesConfig(load_in_8bit=True)", "None")),
    Change("transformers", MODEL_LOAD, "load_in_4bit", f"{_MODELING} (4.29.2, 4.30.2, 4.57.3, 5.0.0)",
           added="4.30.0", deprecated="4.38.0", removed="5.0.0",
           switch=("quantization_config", "BitsAndBytesConfig(load_in_4bit=True)", "None")),
    Change("transformers", MODEL_LOAD, "use_auth_token", f"{_MODELING} (4.30.2, 4.31.0, 5.0.0)",
           deprecated="4.31.0", removed="5.0.0", rename="token"),
    Change("transformers", MODEL_LOAD, "token", f"{_MODELING} (4.30.2, 4.31.0)", added="4.31.0",
           rename="use_auth_token"),
    Change("transformers", MODEL_LOAD, "torch_dtype",
           "https://github.com/huggingface/transformers/pull/39782",
           deprecated="4.56.0", rename="dtype"),
    Change("transformers", MODEL_LOAD, "dtype", f"{_MODELING} (4.55.4, 4.56.2)", added="4.56.0",
           rename="torch_dtype"),
    Change("transformers", MODEL_LOAD, "resume_download", f"{_MODELING} (4.57.3, 5.0.0)", removed="5.0.0"),
    Change("transformers", MODEL_LOAD, "use_flash_attention_2",
           f"{_MODELING} (4.33.3, 4.34.1, 4.52.4, 4.53.0)",
           added="4.34.0", deprecated="4.36.0", removed="4.53.0",
           switch=("attn_implementation", '"flash_attention_2"', "None")),
    Change("transformers", MODEL_LOAD, "attn_implementation", f"{_MODELING} (4.35.2, 4.36.2)",
           added="4.36.0"),
    Change("transformers", OTHER_LOAD, "use_auth_token", "transformers/tokenization_utils_base.py, "
           "configuration_utils.py (4.57.3, 5.0.0)", deprecated="4.31.0", removed="5.0.0",
           rename="token", unread=True),
    Change("transformers", "push_to_hub", "use_auth_token", f"{_HUB} (4.30.2, 4.36.2, 5.0.0)",
           deprecated="4.36.0", removed="5.0.0", rename="token"),
    Change("transformers", "", "gradient_checkpointing_enable", f"{_MODELING} (5.22.2, 5.23.0)",
           deprecated="5.23.0", rename="activation_checkpointing_enable"),
    Change("datasets", "load_dataset", "use_auth_token", "datasets/load.py (2.13.2, 2.14.0, 2.21.0, 3.0.0)",
           deprecated="2.14.0", removed="3.0.0", rename="token"),
    # TrainingArguments
    Change("transformers", ARGUMENTS, "evaluation_strategy",
           f"{_ARGUMENTS} (4.40.2, 4.41.0, 4.50.3, 4.51.0)",
           deprecated="4.41.0", removed="4.51.0", rename="eval_strategy"),
    Change("transformers", ARGUMENTS, "eval_strategy", f"{_ARGUMENTS} (4.40.2, 4.41.0)", added="4.41.0",
           rename="evaluation_strategy"),
    Change("transformers", ARGUMENTS, "no_cuda", f"{_ARGUMENTS} (4.31.0, 4.33.3, 4.57.3, 5.0.0)",
           deprecated="4.33.3", removed="5.0.0", rename="use_cpu"),
    Change("transformers", ARGUMENTS, "use_cpu", f"{_ARGUMENTS} (4.31.0, 4.33.3)", added="4.32.0",
           rename="no_cuda"),
    Change("transformers", ARGUMENTS, "warmup_ratio", f"{_ARGUMENTS} (4.57.3, 5.0.0, 5.14.1, 5.15.0)",
           deprecated="5.0.0", removed="5.15.0", rename="warmup_steps"),
    Change("transformers", ARGUMENTS, "logging_dir", f"{_ARGUMENTS} (4.57.3, 5.0.0, 5.14.1, 5.15.0)",
           deprecated="5.0.0", removed="5.15.0", advice="the environment variable TENSORBOARD_LOGGING_DIR"),
    Change("transformers", ARGUMENTS, "group_by_length", f"{_ARGUMENTS} (5.1.0, 5.2.0)", removed="5.2.0",
           switch=("train_sampling_strategy", '"group_by_length"', '"random"')),
    Change("transformers", ARGUMENTS, "per_gpu_train_batch_size", f"{_ARGUMENTS} (4.29.2, 4.57.3, 5.0.0)",
           deprecated="4.29.2", removed="5.0.0", rename="per_device_train_batch_size"),
    Change("transformers", ARGUMENTS, "per_gpu_eval_batch_size", f"{_ARGUMENTS} (4.29.2, 4.57.3, 5.0.0)",
           deprecated="4.29.2", removed="5.0.0", rename="per_device_eval_batch_size"),
    Change("transformers", ARGUMENTS, "push_to_hub_token", f"{_ARGUMENTS} (4.57.3, 5.0.0)", removed="5.0.0",
           rename="hub_token"),
    Change("transformers", ARGUMENTS, "push_to_hub_model_id", f"{_ARGUMENTS} (4.57.3, 5.0.0)",
           removed="5.0.0",
           rename="hub_model_id"),
    Change("transformers", ARGUMENTS, "adafactor", f"{_ARGUMENTS} (4.57.3, 5.0.0)", removed="5.0.0",
           advice='optim="adafactor"'),
    Change("transformers", ARGUMENTS, "include_inputs_for_metrics", f"{_ARGUMENTS} (4.45.2, 4.46.3, 5.0.0)",
           deprecated="4.46.3", removed="5.0.0", switch=("include_for_metrics", '["inputs"]', "[]")),
    Change("transformers", ARGUMENTS, "sharded_ddp", f"{_ARGUMENTS} (4.34.1, 4.35.2)", removed="4.35.0",
           advice="fsdp"),
    Change("transformers", ARGUMENTS, "dispatch_batches", f"{_ARGUMENTS} (4.50.3, 4.51.3)", added="4.32.0",
           removed="4.51.0", advice='accelerator_config={"dispatch_batches": ...}'),
    Change("transformers", ARGUMENTS, "split_batches", f"{_ARGUMENTS} (4.50.3, 4.51.3)", added="4.35.0",
           removed="4.51.0", advice='accelerator_config={"split_batches": ...}'),
    Change("transformers", ARGUMENTS, "fsdp_min_num_params", f"{_ARGUMENTS} (4.57.3, 5.0.0)",
           removed="5.0.0",
           advice='fsdp_config={"min_num_params": ...}'),
    Change("transformers", ARGUMENTS, "fsdp_transformer_layer_cls_to_wrap", f"{_ARGUMENTS} (4.57.3, 5.0.0)",
           removed="5.0.0", advice='fsdp_config={"transformer_layer_cls_to_wrap": ...}'),
    *_arguments("5.0.0", "overwrite_output_dir", "save_safetensors", "half_precision_backend",
           "fp16_backend",
                "fp16_opt_level", "use_mps_device", "jit_mode_eval", "past_index", "torchdynamo",
           "ray_scope",
                "tpu_num_cores", "tpu_metrics_debug", "push_to_hub_organization", "mp_parameters",
                "use_legacy_prediction_loop", "include_tokens_per_second", source="4.57.3, 5.0.0"),
    *_arguments("4.57.0", "use_ipex", source="4.56.2, 4.57.3"),
    *_arguments("4.34.0", "xpu_backend", source="4.33.3, 4.34.1"),
    Change("transformers", ARGUMENTS, "gradient_checkpointing", f"{_ARGUMENTS} (5.22.2, 5.23.0)",
           deprecated="5.23.0", rename="activation_checkpointing"),
    Change("transformers", ARGUMENTS, "gradient_checkpointing_kwargs",
           f"{_ARGUMENTS} (4.34.1, 4.35.2, 5.22.2, 5.23.0)",
           added="4.35.0", deprecated="5.23.0", rename="activation_checkpointing_kwargs"),
    Change("transformers", ARGUMENTS, "activation_checkpointing", f"{_ARGUMENTS} (5.22.2, 5.23.0)",
           added="5.23.0",
           rename="gradient_checkpointing"),
    Change("transformers", ARGUMENTS, "activation_checkpointing_kwargs", f"{_ARGUMENTS} (5.22.2, 5.23.0)",
           added="5.23.0", rename="gradient_checkpointing_kwargs"),
    # Trainers
    Change("transformers", "Trainer", "tokenizer", f"{_TRAINER} (4.45.2, 4.46.3, 4.57.3, 5.0.0)",
           deprecated="4.46.0", removed="5.0.0", rename="processing_class"),
    Change("transformers", "Trainer", "processing_class", f"{_TRAINER} (4.45.2, 4.46.3)", added="4.46.0",
           rename="tokenizer"),
    Change("trl", "SFTTrainer", "tokenizer", "trl/trainer/sft_trainer.py (0.11.4, 0.12.2, 0.15.2, 0.16.1)",
           deprecated="0.12.0", removed="0.16.0", rename="processing_class"),
    Change("trl", "DPOTrainer", "tokenizer", "trl/trainer/dpo_trainer.py (0.11.4, 0.12.2, 0.15.2, 0.16.1)",
           deprecated="0.12.0", removed="0.16.0", rename="processing_class"),
    Change("trl", "SFTTrainer", "max_seq_length", _SFT, deprecated="0.9.6", removed="0.13.0",
           advice="SFTConfig(max_length=...), which is max_seq_length before trl 0.16"),
    *(Change("trl", "SFTTrainer", name, _SFT, deprecated="0.9.6", removed="0.13.0",
           advice=f"SFTConfig({name}=...)")
      for name in ("dataset_text_field", "packing", "dataset_num_proc", "dataset_kwargs",
                   "model_init_kwargs", "eval_packing", "neftune_noise_alpha")),
    *(Change("trl", "SFTTrainer", name, _SFT, deprecated="0.9.6", removed="0.13.0")
      for name in ("dataset_batch_size", "infinite", "num_of_sequences", "chars_per_token")),
    *(Change("trl", "DPOTrainer", name, "trl/trainer/dpo_trainer.py (0.8.6, 0.9.6, 0.12.2, 0.13.0)",
             deprecated="0.9.6", removed="0.13.0", advice=f"DPOConfig({name}=...)")
      for name in ("beta", "loss_type", "label_smoothing", "max_length", "max_prompt_length",
           "generate_during_eval")),
    Change("trl", "SFTConfig", "max_seq_length",
           "trl/trainer/sft_config.py (0.15.2, 0.16.1, 0.19.1, 0.20.0)",
           deprecated="0.16.0", removed="0.20.0", rename="max_length"),
    # Names
    Change("peft", "", "prepare_model_for_int8_training",
           "peft/utils/other.py (0.3.0, 0.4.0, 0.9.0, 0.10.0)",
           deprecated="0.4.0", removed="0.10.0", rename="prepare_model_for_kbit_training"),
    Change("peft", "", "prepare_model_for_kbit_training", "peft/utils/other.py (0.3.0, 0.4.0)",
           added="0.4.0",
           rename="prepare_model_for_int8_training"),
    Change("transformers", "", "AdamW", "transformers/optimization.py (4.49.0, 4.50.3)", removed="4.50.0",
           advice="torch.optim.AdamW"),
    Change("transformers", "", "AutoModelWithLMHead",
           "transformers/models/auto/modeling_auto.py (4.57.3, 5.0.0)",
           removed="5.0.0", advice="AutoModelForCausalLM, AutoModelForMaskedLM or AutoModelForSeq2SeqLM"),
    Change("transformers", "", "AutoModelForVision2Seq",
           "transformers/models/auto/modeling_auto.py (4.57.3, 5.0.0)",
           removed="5.0.0", rename="AutoModelForImageTextToText"),
    Change("transformers", "", "top_k_top_p_filtering", "transformers/__init__.py (4.36.2, 4.40.2)",
           removed="4.40.0"),
    Change("transformers", "", "TRANSFORMERS_CACHE", f"{_HUB} (4.57.3, 5.0.0)", removed="5.0.0"),
    Change("transformers", "", "deepspeed.", "transformers/deepspeed.py (4.45.2, 4.46.1)", removed="4.46.0",
           advice="transformers.integrations"),
    Change("transformers", "", "BitsAndBytesConfig",
           "https://github.com/huggingface/transformers/pull/21579",
           added="4.27.0"),
    Change("transformers", "", "GPTQConfig", "transformers/__init__.py (4.31.0, 4.34.1)", added="4.32.0"),
    Change("trl", "", "DataCollatorForCompletionOnlyLM", "trl/__init__.py (0.19.1, 0.20.0)",
           removed="0.20.0",
           advice="SFTConfig(completion_only_loss=True)"),
    Change("trl", "", "SFTConfig", "trl/trainer/sft_config.py (0.8.6, 0.9.6)", added="0.9.0"),
)  # fmt: skip
_TABLE: Dict[Tuple[str, str, str], Change] = {(it.package, it.owner, it.name): it for it in CHANGES}

LOADING = frozenset({
    "cache_dir", "force_download", "from_flax", "from_tf", "generation_config",
    "ignore_mismatched_sizes", "key_mapping", "local_files_only", "low_cpu_mem_usage",
    "max_memory", "mirror", "offload_buffers", "offload_folder", "offload_state_dict",
    "output_loading_info", "proxies", "quantization_config", "revision", "state_dict", "subfolder",
    "trust_remote_code", "use_safetensors", "variant", "weights_only", "device_map", "_fast_init",
})  # fmt: skip
"""What from_pretrained itself takes in one release or another, beside what the table has (docstrings and
`kwargs.pop` in transformers/modeling_utils.py, 4.29.2 to 5.23.0). Others may be the model's own."""

IMPLIED: Dict[str, Tuple[str, str]] = {
    "datasets": ("transformers", "5.0.0"),
    "trl": ("transformers", "5.0.0"),
}
"""A package that is not among the assumed ones is taken to be from the assumed stack's time: who has
transformers 5 (2025-12) has no datasets before 3.0 (2024-09) and no trl before 0.20 (2025-07)."""
_OLDEST_IMPLIED = {"datasets": "3.0.0", "trl": "0.20.0"}


# --- What the workload uses ---------------------------------------------------------------------------


class Use(NamedTuple):
    """One use of a library's interface. `asked` is the qualified name of what is called or imported,
    `keyword` is empty where that itself is meant. `call` is the call that it stands in. It is `sure` unless
    a program or class that is not at hand may bring a flag or key of this name itself."""

    kind: str  # import, call, keyword, flag or key
    asked: str
    keyword: str
    place: Place
    value: Value | None = None
    call: Call | None = None
    script: Script | None = None
    guarded: bool = False
    sure: bool = True

    @property
    def owner(self) -> str:
        """The class or function that is called, by the last part of its name."""
        return self.asked.rpartition(".")[2]

    @property
    def package(self) -> str:
        """The package whose release decides."""
        return self.change.package if self.change else self.asked.partition(".")[0]

    @property
    def change(self) -> Change | None:
        """What the table knows of it."""
        return next((_TABLE[key] for key in self.keys() if key in _TABLE), None)

    def keys(self) -> Iterator[Tuple[str, str, str]]:
        """Where the table may have it."""
        package, *names = self.asked.split(".")
        last = names[-1] if names else ""
        if not self.keyword:
            yield from ((package, "", name) for name in reversed(names[-2:]))
            yield package, "", f"{names[0]}." if names else ""
            return
        yield package, last, self.keyword
        if last == "from_pretrained":
            yield "transformers", MODEL_LOAD if loads_model(self.asked) else OTHER_LOAD, self.keyword
        elif is_arguments(self.asked):
            yield "transformers", ARGUMENTS, self.keyword
        elif last == "Seq2SeqTrainer":
            yield "transformers", "Trainer", self.keyword

    @property
    def loading(self) -> bool:
        """Whether only loading a model can tell: from_pretrained hands on what it does not know."""
        known = self.change is not None or self.keyword in LOADING
        return bool(self.keyword) and known and loads_model(self.asked)


_NO_MODEL = re.compile(
    r"(Tokenizer|TokenizerFast|Config|Processor|FeatureExtractor|Pipeline|Dataset|Quantizer)$"
)
_OTHER_FRAMEWORK = re.compile(r"^(TF|Flax)[A-Z]")
_ARGUMENTS_CLASSES = frozenset({
    "TrainingArguments", "Seq2SeqTrainingArguments", "SFTConfig", "DPOConfig", "RewardConfig",
    "KTOConfig", "ORPOConfig", "CPOConfig", "GRPOConfig",
})  # fmt: skip
_METHODS = {
    ".gradient_checkpointing_enable": "transformers.PreTrainedModel.gradient_checkpointing_enable",
    ".push_to_hub": "transformers.PreTrainedModel.push_to_hub",
}
"""Methods of models that the table knows something of, by the class that has them."""
_LLAMAFACTORY_FIELDS = {"overwrite_output_dir"}
"""Its own TrainingArguments bring it back (src/llamafactory/hparams/training_args.py, 0.9.5)."""
_TELLING_FLAGS = frozenset({
    "bf16_full_eval", "ddp_find_unused_parameters", "ddp_timeout", "eval_strategy",
    "evaluation_strategy", "fp16_full_eval", "load_best_model_at_end", "logging_first_step",
    "logging_strategy", "metric_for_best_model", "per_device_train_batch_size",
    "remove_unused_columns", "save_strategy", "save_total_limit", "tf32",
})  # fmt: skip
"""Options that other programs rarely have by these names: with three of them it takes TrainingArguments."""


def loads_model(callee: str) -> bool:
    """Whether this is from_pretrained of a class that hands its keywords to transformers' models."""
    package, _, rest = callee.partition(".")
    owner, _, method = rest.rpartition(".")
    name = owner.rpartition(".")[2]
    if method != "from_pretrained" or _NO_MODEL.search(name) or _OTHER_FRAMEWORK.match(name):
        return False
    if package == "peft":
        return name.startswith("AutoPeftModel")
    return package in ("transformers", "trl")


def is_arguments(callee: str) -> bool:
    """Whether this makes TrainingArguments, or one of trl's that is made from them."""
    package, _, rest = callee.partition(".")
    return package in ("transformers", "trl") and rest.rpartition(".")[2] in _ARGUMENTS_CLASSES


def uses(workload: Workload) -> List[Use]:
    """All that it uses of the packages of the stack, each place once, in the order of the files."""
    found: Dict[Tuple[Place, str], Use] = {}
    for use in _all_uses(workload):
        found.setdefault((use.place, use.keyword), use)
    return list(found.values())


def _all_uses(workload: Workload) -> Iterator[Use]:
    for script in workload.scripts:
        for it in script.imports:
            if it.module.partition(".")[0] in PACKAGES and it.name != "*":
                asked = f"{it.module}.{it.name}" if it.name else it.module
                yield Use("import", asked, "", it.place, script=script, guarded=it.guarded)
        for call in script.calls:
            yield from _call_uses(script, call)
    for launch in workload.launches:
        yield from _flag_uses(workload, launch)
    stock = any(map(_parses_arguments, workload.scripts))
    for config in (*workload.configs_of("training"), *workload.configs_of("llamafactory")):
        for key, value in config.root.items():
            own = config.kind == "llamafactory" and key in _LLAMAFACTORY_FIELDS
            if ("transformers", ARGUMENTS, key) in _TABLE and value.key is not None and not own:
                sure = stock and config.kind == "training"
                yield Use("key", f"transformers.{ARGUMENTS}", key, value.key, value, sure=sure)


def _call_uses(script: Script, call: Call) -> Iterator[Use]:
    asked = _METHODS.get(call.callee, call.callee)
    package = asked.partition(".")[0]
    if package not in PACKAGES or asked == package:
        return
    guarded = any(it.guarded and it.name == call.name for it in script.imports)
    yield Use("call", asked, "", call.place, call=call, script=script, guarded=guarded)
    careful = guarded or bool(call.conditions & _TELLS_RELEASES)
    for keyword, value in call.arguments.items():
        if value.key is None or keyword in call.declares:
            continue
        use = Use("keyword", asked, keyword, value.key, value, call, script, guarded=careful)
        if call.callee in _METHODS and use.change is None:
            continue  # of what object it is a method is not known
        yield use


def _flag_uses(workload: Workload, launch: Launch) -> Iterator[Use]:
    flags = launch.flags
    script = next((it for it in workload.scripts if it.launch == launch), None)
    stock = script is not None and _parses_arguments(script)
    if script is not None:
        bound = {value.key for training in workload.trainings for value in training.settings.values()}
        takes = {name for name, value in flags.items() if stock or value.key in bound} - script.declares
    else:
        takes = set(flags) if len(_TELLING_FLAGS & set(flags)) >= 3 else set(flags) & {"evaluation_strategy"}
    if launch.launcher == "llamafactory-cli":
        takes -= _LLAMAFACTORY_FIELDS
    for name, value in flags.items():
        if name in takes and ("transformers", ARGUMENTS, name) in _TABLE and value.key is not None:
            yield Use("flag", f"transformers.{ARGUMENTS}", name, value.key, value, script=script, sure=stock)


_TELLS_RELEASES = frozenset({"try", "version", "__version__", "signature", "parameters", "hasattr"})
"""Names in a test that tells one release from another."""


def _parses_arguments(script: Script) -> bool:
    """Whether its options are the fields of the library's own TrainingArguments."""
    parsers = [call for call in script.calls if call.name in ("HfArgumentParser", "TrlParser")]
    return any(
        isinstance(symbol, Symbol) and is_arguments(symbol)
        for call in parsers
        for value in (*call.positional, *call.arguments.values())
        for symbol in _symbols(value)
    )


def _symbols(value: Value) -> Iterator[Any]:
    if isinstance(value.constant, (list, tuple)):
        for it in value.constant:
            yield from _symbols(it)
    else:
        yield value.constant


# --- Asking the installed libraries -------------------------------------------------------------------


def asks(case: Case) -> Iterable[Asked]:
    """The question about what this workload uses; none where it uses nothing that is installed."""
    packages = case.known(Packages)
    if case.workload is None or packages is None:
        return ()
    wanted: Dict[str, List[str]] = {}
    for use in uses(case.workload):
        if use.asked.partition(".")[0] in packages.installed:
            keywords = wanted.setdefault(use.asked, [])
            change = use.change
            if use.keyword:
                keywords += [use.keyword, *([change.rename] if change and change.rename else [])]
            elif change is not None and change.rename:
                wanted.setdefault(_renamed(use, change), [])
    if not wanted:
        return ()
    imports = tuple(it for it in PACKAGES if any(name.partition(".")[0] == it for name in wanted))
    question = Question(
        name=QUESTION.name, imports=imports, limit_s=QUESTION.limit_s, needs_imports=QUESTION.needs_imports
    )
    settings = {"wanted": {name: sorted(set(keywords)) for name, keywords in sorted(wanted.items())}}
    return (Asked(question, settings),)


class Verdict(NamedTuple):
    """What became of a use: `there`, `deprecated`, `gone`, `not-yet`, `unread`, or `unknown`.

    `asked` says that the installed library answered; `implied`, that its release is only inferred.
    `replaced` is whether the table's new name is there."""

    state: str
    version: str
    asked: bool = False
    implied: bool = False
    words: str = ""
    nearest: str = ""
    replaced: bool = False


def judge(case: Case, use: Use) -> Verdict:
    """What the installed library answers; what the table says of its release where it did not."""
    version, implied = _version(case, use.package)
    text = str(version) if version is not None else ""
    change = use.change
    state = change.state(version) if change and version else "unknown"
    replaced = bool(version and change and change.rename and _replaced(change, version))
    if state == "gone" and change is not None and change.unread:
        state = "unread"
    table = Verdict(state, text, implied=implied, replaced=replaced)
    answers = case.answer(QUESTION).get("interfaces")
    answer = answers.get(use.asked) if isinstance(answers, dict) else None
    if not isinstance(answer, dict):
        return table
    if change is not None and change.rename and not use.keyword:
        other = answers.get(_renamed(use, change)) if isinstance(answers, dict) else None
        if isinstance(other, dict):
            table = table._replace(replaced=not other.get("gone"))
    words = (answer.get("deprecated") or {}).get(use.keyword, "")
    table = table._replace(words=words)
    if answer.get("gone"):
        if use.keyword:
            return Verdict("unknown", text)  # the finding is that of the name
        gone = "not-yet" if state == "not-yet" else "gone"
        return table._replace(state=gone, asked=True)
    if not use.keyword:
        there = "deprecated" if words or state == "deprecated" else "there"
        return table._replace(state=there, asked=True)
    taken = answer.get("taken") or {}
    nearest = str((answer.get("nearest") or {}).get(use.keyword, ""))
    if change is not None and change.rename in taken:
        table = table._replace(replaced=taken[change.rename] is True or table.replaced)
    if taken.get(use.keyword) is None:  # **kwargs: the signature does not tell
        return table._replace(state="deprecated") if words and state != "gone" else table
    if taken[use.keyword] is False:
        gone = "not-yet" if state == "not-yet" else "gone"
        return table._replace(state=gone, asked=True, nearest=nearest)
    there = "deprecated" if words or state == "deprecated" else "there"
    return table._replace(state=there, asked=True)


def _renamed(use: Use, change: Change) -> str:
    """The qualified name that would replace what is asked."""
    return ".".join(change.rename if it == change.name else it for it in use.asked.split("."))


def _replaced(change: Change, version: Version) -> bool:
    newer = _TABLE.get((change.package, change.owner, change.rename))
    return newer is None or newer.state(version) in ("there", "deprecated")


def _version(case: Case, package: str) -> Tuple[Version | None, bool]:
    from packaging.version import Version

    version = case.version(package)
    if version is None and case.assumed and package in IMPLIED:
        of, least = IMPLIED[package]
        known = case.version(of)
        if known is not None and known >= Version(least):
            return Version(_OLDEST_IMPLIED[package]), True
    return version, False


# --- Remedies -----------------------------------------------------------------------------------------


def fixes(use: Use, verdict: Verdict) -> Iterator[Fix]:
    """What to do about a use that is gone, not there yet, or deprecated; nothing where nothing is known."""
    change = use.change
    if change is None:
        return
    if change.rename:
        yield _renaming(use, change, verdict)
    elif verdict.state == "not-yet":
        return
    elif change.switch is not None:
        yield _switching(use, *change.switch)
    elif change.advice:
        yield Fix(title="use what replaces it", kind="advice", applicability="manual", preview=change.advice)
    elif use.keyword:
        yield _removal(use, "unsafe", f"leave out {use.keyword}")


def _renaming(use: Use, change: Change, verdict: Verdict) -> Fix:
    """Safe where the new name is there; not in a dict that others may read."""
    new = change.rename
    edits = [it for it in ([_edit(use, "rename", new)] if use.keyword else _name_edits(use, change)) if it]
    safe = bool(edits) and edits[0].action != "replace" and not _takes_less(use, change)
    spelled = {"flag": f"--{new}", "key": f"{new}:", "keyword": f"{new}="}.get(use.kind, new)
    return Fix(
        title=f"use {spelled}",
        kind=_kind(use),
        applicability="manual" if not (edits and verdict.replaced) else "safe" if safe else "unsafe",
        preview=_becomes(use, new) or (f"{new}=..." if use.kind == "keyword" else spelled),
        edits=tuple(edits) if verdict.replaced else (),
    )


def _switching(use: Use, name: str, on: str, off: str) -> Fix:
    """A bool becomes another keyword's value. An expression is kept as a condition, because a config built
    with False may mean something: BitsAndBytesConfig(load_in_8bit=False) loads in 4 bits (5.23.0)."""
    removal, call, value = _edit(use, "remove"), use.call, use.value
    if use.kind != "keyword" or removal is None or call is None or value is None:
        return Fix(
            title="use what replaces it", kind="advice", applicability="manual", preview=f"{name}={on}"
        )
    written = not value.origin and value.place[3:] == use.place[3:]  # not the value of a variable
    if written and value.constant is False:
        return _removal(use, "safe", f"leave out {use.keyword}: False is the default")
    text = on if written and value.constant is True else f"{on} if {{{use.keyword}}} else {off}"
    taken = (
        name in call.arguments or call.open or any(_sets(use, call, other, name) for other in call.arguments)
    )
    at = call.place
    edits = [
        Edit(action="set-keyword", path=at.path, line=at.line, column=at.column, name=name, text=text),
        removal,
    ]
    config = on.partition("(")[0]
    if config.isidentifier():
        edits.append(
            Edit(action="add-import", path=at.path, line=1, text=f"from transformers import {config}")
        )
    return Fix(
        title=f"use {name}=",
        kind="edit",
        applicability="manual" if taken else "safe",
        preview=f"{name}={text.replace('{', '').replace('}', '')}",
        edits=() if taken else tuple(edits),
    )


def _sets(use: Use, call: Call, other: str, name: str) -> bool:
    """Whether another keyword of the call would become the same one."""
    change = use._replace(keyword=other).change
    same = (
        other != use.keyword and change is not None and change.switch is not None and change.switch[0] == name
    )
    return same and call.arguments[other].constant is not False


def _removal(use: Use, applicability: Literal["safe", "unsafe"], title: str) -> Fix:
    edit = _edit(use, "remove")
    return Fix(
        title=title,
        kind=_kind(use),
        applicability=applicability if edit else "manual",
        preview=_becomes(use, None) or f"{use.owner}(...)",
        edits=(edit,) if edit else (),
    )


def _kind(use: Use) -> Literal["edit", "config"]:
    return "config" if use.kind in ("flag", "key") else "edit"


def _becomes(use: Use, new: str | None) -> str:
    """A flag or key and what becomes of it, as its new name alone is no command to run; empty for others."""
    if use.kind not in ("flag", "key"):
        return ""
    dashes = "--" if use.kind == "flag" else ""
    return f"{dashes}{use.keyword} -> {f'{dashes}{new}' if new else '(nothing)'}"


def _edit(use: Use, how: Literal["rename", "remove"], text: str = "") -> Edit | None:
    """Renames or removes the keyword, key or flag where it stands; None where that is not known."""
    at = use.place
    if use.kind == "keyword" and not _is_keyword(use):
        if how == "remove" or at.end_column - at.column != len(use.keyword) + 2:
            return None
        return Edit(action="replace", path=at.path, line=at.line, column=at.column, text=f'"{text}"')
    action = f"{how}-{use.kind}"
    return Edit(
        action=action,  # type: ignore[arg-type]
        path=at.path,
        line=at.line,
        column=at.column,
        name=use.keyword,
        text=text,
    )


def _is_keyword(use: Use) -> bool:
    """Whether it is written `name=value`, and not as a key in a dict that is passed on."""
    if use.value is None or use.call is None:
        return False
    around = use.call.place
    inside = around.path == use.place.path and around.line <= use.place.line <= around.end_line
    return inside or use.value.place[3:] == use.place[3:]  # dict(name=value): both end where the value does


def _name_edits(use: Use, change: Change) -> List[Edit]:
    """Every import and call of the name at once: one without the others would break the script."""
    places = [it.place for it in _imports(use, change)] + [it.place for it in _calls(use, change)]
    return [
        Edit(
            action="rename-name",
            path=at.path,
            line=at.line,
            column=at.column,
            name=change.name,
            text=change.rename,
        )
        for at in sorted(set(places))
    ]


def _imports(use: Use, change: Change) -> Iterator[Import]:
    for it in use.script.imports if use.script else ():
        if it.name == change.name and it.module.partition(".")[0] == change.package:
            yield it


def _calls(use: Use, change: Change) -> Iterator[Call]:
    for call in use.script.calls if use.script else ():
        names = _METHODS.get(call.callee, call.callee).split(".")
        if names[0] == change.package and change.name in names:
            yield call


def _takes_less(use: Use, change: Change) -> bool:
    """prepare_model_for_int8_training took more than its successor, which knows only these."""
    known = {"model", "use_gradient_checkpointing"}
    return change.owner == "" and any(
        call.name == change.name and (len(call.positional) > 1 or set(call.arguments) - known)
        for call in _calls(use, change)
    )
