"""A DeepSpeed configuration has a key that the installed DeepSpeed does not know."""

from __future__ import annotations

import difflib
from typing import Any, FrozenSet, Iterable, Iterator, Mapping, NamedTuple

import msgspec

from llm_doctor.check import (
    Asked,
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import Confidence, Edit, Finding, Fix, Packages, Severity
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Config, Place, Value, Workload

KEYS = Question(
    name="deepspeed-keys", imports=("torch", "deepspeed", "deepspeed.runtime.config"), limit_s=30.0
)
SURE_OF_SPELLING = 0.9
NEAR = 0.75
"""Similarity (difflib) from which a key is the other one misspelled, or may be."""
READ_BY_OTHERS = {
    "msamp": "accelerate",  # accelerate/utils/dataclasses.py, DeepSpeedPlugin
    "inference": "transformers",  # transformers/integrations/deepspeed.py
    "quantize_training": "DeepSpeedExamples' Mixture-of-Quantization",
    "sequence_parallel_size": "DeepSpeed's Ulysses",
    "data_parallel_size": "DeepSpeed's Ulysses",
    "monitor_config": "",
}
"""Top-level keys that stand in published configurations for others than DeepSpeedConfig to read."""
COMMENTS = frozenset(("comment", "comments", "note", "notes", "description", "name"))


class Section(NamedTuple):
    """What is known of one section: its keys, and whether another one is an error."""

    keys: FrozenSet[str]
    rejects: bool
    deprecated: Mapping[str, str]


class Known(NamedTuple):
    """What DeepSpeed knows, by itself where it could be asked."""

    top: FrozenSet[str]
    sections: Mapping[str, Section]
    refused: Mapping[str, str]
    confidence: Confidence


class DeepspeedUnknownKey(Check):
    """A DeepSpeed configuration has a key that the installed DeepSpeed does not know.

    ## What it finds

    Keys that the installed DeepSpeed neither reads nor takes, at the top and in every section that it
    checks, with the nearest key that it does know; keys of features that it has removed; old names of keys.

    ## Why it breaks

    At the top DeepSpeed reads what it knows and says nothing of the rest: `gradient_cliping` switches
    clipping off without a word. In `zero_optimization` and what stands below it an unknown key is a
    `ValidationError` when the engine starts, on every rank, after the model was loaded; in `fp16` and
    `bf16` it is one from 0.17.1 on and was ignored before. Values of `"auto"` are dropped before that.
    Sections that DeepSpeed hands on as they are (`optimizer.params`, `scheduler.params`) are not judged.

    ## How it is proven

    The installed DeepSpeed is asked: its `DeepSpeedConfig` is given a configuration that remembers which keys
    were looked up, and an unknown key in each section. Without it (`--assume`, `--no-probes`) a list of
    the keys of 0.9.5 and 0.19.8 stands in, and a key that either knows is not spoken of.

    ## Fix

    Spell the key as DeepSpeed does, or remove it.

    ## References

    - deepspeed/runtime/config.py and config_utils.py (0.9.5, 0.19.8)
    - https://github.com/deepspeedai/DeepSpeed/pull/2004 (unknown keys are rejected in sections, 0.7.0)
    - https://www.deepspeed.ai/docs/config-json/
    """

    name = "deepspeed-unknown-key"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    questions = (KEYS,)
    url = "https://www.deepspeed.ai/docs/config-json/"
    symptoms = (
        Symptom(
            pattern=r"validation errors? for (?P<section>(DeepSpeed|Hybrid|Comms|TensorBoard|Wandb|CSV|Comet"
            r"|Compile|ZenFlow|AIO)\w{0,40}) (?P<key>[\w.]{2,60}) [Ee]xtra (fields|inputs are) not permitted",
            example="1 validation error for DeepSpeedZeroConfig\noverlap_com\n"
            "  Extra inputs are not permitted [type=extra_forbidden, input_value=True, input_type=bool]",
            counter_example="1 validation error for DeepSpeedZeroConfig\nstage\n  Input should be 3",
            cause="{section} of the installed DeepSpeed does not know the key {key}",
            fixes=(
                remedy("remove {key} from the DeepSpeed configuration, or mend its spelling"),
                remedy("if the key is newer than this DeepSpeed", "pip install -U deepspeed"),
            ),
        ),
        Symptom(
            pattern=r"validation errors? for DeepSpeed\w{0,40}[\s\S]{0,400}?"
            r"[Ee]xtra (fields|inputs are) not permitted",
            example="2 validation errors for DeepSpeedZeroConfig\nstage\n  Input should be 3\noverlap_com\n"
            "  Extra inputs are not permitted [type=extra_forbidden, input_value=True, input_type=bool]",
            counter_example="1 validation error for DeepSpeedZeroConfig\nstage\n  Input should be 3",
        ),
        Symptom(
            pattern=r"\b(?P<key>(zero_|stage3_|offload_|overlap_|contiguous_|reduce_|allgather_|gather_16bit"
            r"|sub_group|memory_eff|auto_cast|loss_scale|initial_scale|hysteresis|min_loss|round_robin|mics_"
            r"|pin_memory|cpu_offload)\w{0,50}) [Ee]xtra (fields|inputs are) not permitted",
            example="zero_quantized_gradients\n  extra fields not permitted (type=value_error.extra)",
            counter_example="learning_rate\n  extra fields not permitted (type=value_error.extra)",
            cause="The installed DeepSpeed does not know the key {key}",
        ),
        Symptom(
            pattern=r"Cannot provide deprecated parameter `(?P<old>\w{2,60})` and replacing parameter"
            r" `(?P<new>[\w.]{2,60})` together",
            example="AssertionError: Cannot provide deprecated parameter 'cpu_offload' and replacing"
            " parameter"
            " 'offload_optimizer' together",
            counter_example="Config parameter cpu_offload is deprecated use offload_optimizer instead",
            cause="The DeepSpeed configuration has {old} and {new}, which has taken its place",
            fixes=(remedy("remove {old}"),),
        ),
        Symptom(
            pattern=r"DeepSpeedConfigError: [^\n]{0,200}has been removed",
            example="deepspeed.runtime.config.DeepSpeedConfigError: Elastic training has been removed; the"
            " 'elasticity' configuration block is no longer supported.",
            counter_example="DeepSpeedConfigError: Checkpoint config contains invalid tag_validation",
            cause="The DeepSpeed configuration has a section for something that the installed DeepSpeed no"
            " longer has",
            fixes=(
                remedy("remove the section that the message names"),
                remedy("keep the release that has it", 'pip install "deepspeed<0.19"'),
            ),
        ),
    )
    remedies = (
        remedy("remove the key from the DeepSpeed configuration, or mend its spelling"),
        remedy("if the key is newer than the installed DeepSpeed", "pip install -U deepspeed"),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """Nothing where there is no configuration to judge."""
        return super().asks(case) if case.workload and any(case.workload.configs_of("deepspeed")) else ()

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every key of every DeepSpeed configuration against what is known."""
        configs = deepspeed.configs(case)
        version = (case.known(Packages) or Packages(installed={}, modules={})).installed.get("deepspeed")
        if version is None:
            raise CannotTell("deepspeed is not installed")
        known = _known(case)
        for config in configs:
            for name, value in config.root.items():
                for finding in _top(config, name, value, known, version):
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- What is known --------------------------------------------------------------------------------------


def _known(case: Case) -> Known:
    answer: Mapping[str, Any] = case.answer(KEYS)
    if not answer:
        return _from_table(case)
    sections = {
        path: Section(frozenset(it["keys"]), bool(it["rejects"]), it["deprecated"])
        for path, it in answer["sections"].items()
    }
    top = frozenset(answer["top"]) | frozenset(answer["named"])
    return Known(top, sections, answer["refused"], "certain")


# The keys that DeepSpeed 0.9.5 and 0.19.8 answered to the question above, together.
_TOP = """activation_checkpointing aio amp autotuning bf16 bfloat16 checkpoint comet comms_logger
communication_data_type compile compression_training csv_monitor curriculum_learning data_efficiency
data_types dataloader_drop_last datastates_ckpt disable_allgather disable_python_gc dump_state
eigenvalue elasticity expert_parallel flops_profiler fp16 gradient_accumulation_steps
gradient_allreduce_op gradient_clipping gradient_predivide_factor graph_harvesting hybrid_engine
log_level managed_gradient_accumulation memory_breakdown nebula optimizer pipeline prescale_gradients
progressive_layer_drop quantize_training scheduler seq_parallel_communication_data_type sparse_attention
sparse_gradients steps_per_print tensor_parallel tensorboard timers torch_autocast train_batch_size
train_micro_batch_size_per_gpu use_data_before_expert_parallelism vocabulary_size wall_clock_breakdown
wandb weight_quantization zero_allow_untested_optimizer zero_force_ds_cpu_optimizer zero_optimization"""
_SECTIONS = {
    "zero_optimization": """allgather_bucket_size allgather_partitions allgather_sequential
    compute_grad_norm contiguous_gradients cpu_offload cpu_offload_param cpu_offload_use_pin_memory
    elastic_checkpoint enable_sanity_checks gather_16bit_weights_on_model_save ignore_unused_parameters
    leaf_module legacy_stage1 load_from_fp32_weights log_trace_cache_warnings max_live_parameters
    max_reuse_distance memory_efficient_linear mics_hierarchical_params_gather mics_shard_size
    model_persistence_threshold module_granularity_threshold offload_optimizer offload_param overlap_comm
    override_module_apply param_persistence_threshold parameter_alignment pipeline_loading_checkpoint
    prefetch_bucket_size reduce_bucket_size reduce_scatter round_robin_gradients
    save_muon_momentum_buffer_in_memory stage stage3_allgather_sequential
    stage3_gather_16bit_weights_on_model_save stage3_gather_fp16_weights_on_model_save
    stage3_max_live_parameters stage3_max_reuse_distance stage3_model_persistence_threshold
    stage3_module_granularity_threshold stage3_param_persistence_threshold stage3_prefetch_bucket_size
    stage3_use_all_reduce_for_fetch_params sub_group_size use_all_reduce_for_fetch_params
    use_multi_rank_bucket_allreduce zenflow zero_hpz_partition_size zero_quantized_gradients
    zero_quantized_nontrainable_weights zero_quantized_weights zeropp_loco_param""",
    "zero_optimization.offload_param": "buffer_count buffer_size device max_in_cpu nvme_path pin_memory",
    "zero_optimization.offload_optimizer": """buffer_count cpuadam_cores_perc device fast_init nvme_path
    pin_memory pipeline pipeline_read pipeline_write ratio super_offload""",
    "fp16": """auto_cast
    consecutive_hysteresis enabled fp16_master_weights_and_grads hysteresis initial_scale_power loss_scale
    loss_scale_window min_loss_scale""",
    "bf16": """bf16_master_weights_and_grads bf16_optimizer_states
    check_grad_overflow enabled immediate_grad_update""",
}
_DEPRECATED = {
    "cpu_offload": "offload_optimizer",
    "cpu_offload_param": "offload_param",
    "cpu_offload_use_pin_memory": "offload_param or offload_optimizer",
    "stage3_gather_fp16_weights_on_model_save": "stage3_gather_16bit_weights_on_model_save",
}


def _from_table(case: Case) -> Known:
    from packaging.version import Version

    installed = case.version("deepspeed")
    # deepspeed/runtime/precision_config.py came with 0.17.1.
    rejects_precision = installed is not None and installed >= Version("0.17.1")
    sections = {}
    for path, keys in {**_SECTIONS, "bfloat16": _SECTIONS["bf16"]}.items():
        rejects = rejects_precision or path.startswith("zero_optimization")
        deprecated = _DEPRECATED if path == "zero_optimization" else {}
        sections[path] = Section(frozenset(keys.split()), rejects, deprecated)
    return Known(frozenset(_TOP.split()), sections, {}, "likely")


# --- Judging --------------------------------------------------------------------------------------------


def _top(config: Config, name: str, value: Value, known: Known, version: str) -> Iterator[Finding]:
    place = value.key or value.place
    if name in known.refused:
        words = known.refused[name].partition(" See ")[0].strip().rstrip(".")
        message = f"DeepSpeed {version} refuses {name}: {words}"
        yield _finding("error", known, message, config, place, name, (_removal(config, place, name),))
    elif name in known.top:
        if name in known.sections:
            yield from _section(config, name, value, known, version)
    elif name in READ_BY_OTHERS:
        if name == "monitor_config":
            message = (
                f"DeepSpeed {version} does not read monitor_config: tensorboard, wandb and csv_monitor stand"
                " at the top themselves"
            )
            yield _finding("note", known, message, config, place, name, ())
    elif not _is_comment(name):
        home = next((path for path, section in known.sections.items() if name in section.keys), None)
        belongs = f"; it belongs in {home}" if home else ""
        message = f"{name} is no key that DeepSpeed {version} reads: it is ignored{belongs}"
        fixes = () if home else _fixes(config, place, "", name, known.top)
        yield _finding("warning", known, message + _nearest_told(fixes), config, place, name, fixes)


def _section(config: Config, path: str, holder: Value, known: Known, version: str) -> Iterator[Finding]:
    section = known.sections[path]
    for name, value in holder.items():
        place, dotted = value.key or value.place, f"{path}.{name}"
        if dotted in known.refused:
            words = known.refused[dotted].partition(" See ")[0].strip().rstrip(".")
            message = f"DeepSpeed {version} refuses {dotted}: {words}"
            yield _finding("error", known, message, config, place, dotted, (_removal(config, place, dotted),))
        elif name in section.deprecated:
            instead = section.deprecated[name]
            message = f"{dotted} is an old name" + (f": it is {instead} now" if instead else "")
            yield _finding("note", known, message, config, place, dotted, ())
        elif name in section.keys:
            if dotted in known.sections:
                yield from _section(config, dotted, value, known, version)
        elif section.rejects or not _is_comment(name):
            dropped = value.constant == deepspeed.AUTO
            fails = section.rejects and not dropped
            # A value that is not known may be "auto" after all.
            severity: Severity = "error" if fails and value.known else "warning"
            what = "refuses it with a ValidationError" if fails else "ignores it"
            fixes = _fixes(config, place, path, name, section.keys - {key for key, _ in holder.items()})
            message = f"{name} is no key of {path}: DeepSpeed {version} {what}"
            yield _finding(severity, known, message + _nearest_told(fixes), config, place, dotted, fixes)


def _is_comment(name: str) -> bool:
    return name.startswith(("_", "/", "#", "$", "//")) or name.lower() in COMMENTS


def _finding(
    severity: Severity,
    known: Known,
    message: str,
    config: Config,
    place: Place,
    dotted: str,
    fixes: tuple[Fix, ...],
) -> Finding:
    return Finding(
        severity=severity,
        confidence=known.confidence,
        message=message,
        subject=deepspeed.at(place),
        evidence={"key": dotted},
        fixes=fixes,
    )


def _fixes(config: Config, place: Place, path: str, name: str, keys: Iterable[str]) -> tuple[Fix, ...]:
    dotted = f"{path}.{name}" if path else name
    absent = [key for key in keys if path or config.get(key) is None]
    near = difflib.get_close_matches(name, sorted(absent), n=1, cutoff=NEAR)
    if not near:
        return (_removal(config, place, dotted),)
    sure = difflib.SequenceMatcher(None, name, near[0]).ratio() >= SURE_OF_SPELLING
    edit = Edit(
        action="rename-key", path=config.path, line=place.line, column=place.column, name=dotted, text=near[0]
    )
    return (
        Fix(
            title=f"write {near[0]}",
            kind="config",
            applicability="safe" if sure else "unsafe",
            preview=f"{name} -> {near[0]}",
            edits=(edit,),
        ),
    )


def _nearest_told(fixes: tuple[Fix, ...]) -> str:
    renamed = next((edit.text for fix in fixes for edit in fix.edits if edit.action == "rename-key"), None)
    return f"; the nearest one is {renamed}" if renamed else ""


def _removal(config: Config, place: Place, dotted: str) -> Fix:
    edit = Edit(action="remove-key", path=config.path, line=place.line, column=place.column, name=dotted)
    return Fix(
        title=f"remove {dotted}",
        kind="config",
        applicability="unsafe",  # somebody meant something by it
        preview=f"remove {dotted}",
        edits=(edit,),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"deepspeed": "0.19.8"}, modules={})
    answer = {
        "version": "0.19.8",
        "top": ["train_batch_size", "gradient_clipping", "zero_optimization", "fp16", "compression_training"],
        "named": [],
        "refused": {"compression_training": "The DeepSpeed compression library has been removed. See 8489."},
        "sections": {
            "zero_optimization": {
                "keys": ["stage", "overlap_comm", "cpu_offload"],
                "rejects": True,
                "deprecated": {"cpu_offload": "offload_optimizer"},
            },
            "fp16": {"keys": ["enabled", "loss_scale"], "rejects": True, "deprecated": {}},
        },
    }
    yield healthy(
        "every key is known, and a comment is one",
        deepspeed.example(
            '{"_comment": "ours", "train_batch_size": 8, "zero_optimization": {"stage": 2}}',
            stack,
            deepspeed_keys=answer,
        ),
    )
    yield sick(
        "a misspelled key at the top and one in a section",
        deepspeed.example(
            '{"train_batch_size": 8, "gradient_cliping": 1.0,\n "zero_optimization": {"overlap_com": true}}',
            stack,
            deepspeed_keys=answer,
        ),
        "warning: gradient_cliping is no key that DeepSpeed 0.19.8 reads: it is ignored; the nearest one is"
        " gradient_clipping",
        "error: overlap_com is no key of zero_optimization: DeepSpeed 0.19.8 refuses it with a"
        " ValidationError;"
        " the nearest one is overlap_comm",
    )
    yield sick(
        "a section that was removed, and an old name",
        deepspeed.example(
            '{"compression_training": {}, "zero_optimization": {"cpu_offload": true}}',
            stack,
            deepspeed_keys=answer,
        ),
        "error: DeepSpeed 0.19.8 refuses compression_training: The DeepSpeed compression library has"
        " been removed",
        "note: zero_optimization.cpu_offload is an old name: it is offload_optimizer now",
    )
    yield sick(
        "apex's opt_level, with a DeepSpeed that could not be asked",
        deepspeed.example(
            '{"train_batch_size": 8, "fp16": {"enabled": true, "opt_level": "O2"}}',
            Packages(installed={"deepspeed": "0.9.2"}, modules={}),
        ),
        "warning: opt_level is no key of fp16: DeepSpeed 0.9.2 ignores it",
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(stack), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
