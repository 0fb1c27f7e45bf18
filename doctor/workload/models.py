"""What a call that loads a model says of it: quantised or not, in which dtype, on which devices."""

from __future__ import annotations

from typing import Literal, NamedTuple

from llm_doctor.workload.data import UNKNOWN, Call, Place, Story, Training, Value, Workload

HALF = frozenset({"float16", "half", "bfloat16", "fp16", "bf16"})
QUANTIZED_CLASSES = ("BitsAndBytesConfig", "BnbQuantizationConfig")
_TAKE_ARGUMENTS = ("llamafactory-cli", "trl", "swift")
"""Launchers whose options are TrainingArguments; an option of another program may mean something else."""


class Quantization(NamedTuple):
    """How a load quantises. `bits` is 8, 4, or None for another method (GPTQ, AWQ ...)."""

    bits: int | None
    value: Value
    """What says so: `load_in_8bit=True`, or the configuration's argument."""
    keyword: str
    """The argument of the load that carries it."""
    config: Call | None = None


def quantization(load: Call) -> Quantization | Literal["unknown"] | None:
    """How a load quantises; None where it is known that it does not."""
    unknown = load.open
    for bits in (8, 4):
        keyword = f"load_in_{bits}bit"
        value = load.argument(keyword)
        if value is None:
            continue
        if value.constant is True:
            return Quantization(bits, value, keyword)
        unknown = unknown or not value.known
    given = load.argument("quantization_config") or load.argument("bnb_quantization_config")
    if given is not None and given.constant is not None:
        keyword = "quantization_config"
        config = given.constant
        if isinstance(config, Call) and config.name in QUANTIZED_CLASSES:
            for bits in (8, 4):
                value = config.argument(f"load_in_{bits}bit")
                if value is not None and value.constant is True:
                    return Quantization(bits, value, keyword, config)
                unknown = unknown or (value is not None and not value.known)
            unknown = unknown or config.open
        elif isinstance(config, Call):
            return Quantization(None, given, keyword, config)
        else:
            unknown = True
    return "unknown" if unknown else None


def dtype(story: Story) -> Value | None:
    """The dtype that the weights are in when the model is loaded and cast; None where nothing says so.

    A Value whose constant is `float16`, `bfloat16`, `float32`, `auto`; UNKNOWN where it cannot be told."""
    found = None
    if story.load is not None:
        found = story.load.argument("torch_dtype") or story.load.argument("dtype")
        if found is not None:
            found = _named(found)
    for step in story.steps:
        cast = {"half": "float16", "bfloat16": "bfloat16", "float": "float32"}.get(step.name)
        if step.name == "to":
            words = [_named(it).constant for it in (*step.positional, *step.arguments.values())]
            cast = next((it for it in words if isinstance(it, str) and it in HALF | {"float32"}), None)
        if cast is not None:
            found = Value(cast, step.place, step.place)
    return found


def _named(value: Value) -> Value:
    text = value.constant
    if isinstance(text, str):
        last = text.rpartition(".")[2]
        same = {"half": "float16", "float": "float32", "fp16": "float16", "bf16": "bfloat16"}
        return value._replace(constant=same.get(last, last))
    return value


def dtype_place(story: Story, value: Value) -> Place:
    """Where the load or cast says the dtype: the keyword, not what a variable was set to elsewhere."""
    return value.key or value.place


def has_adapters(story: Story) -> bool:
    """Whether LoRA or another adapter is put on the model."""
    if story.step(
        "get_peft_model", "add_adapter", "PeftModelForCausalLM", "PeftModel", "inject_adapter_in_model"
    ):
        return True
    if any(step.name == "from_pretrained" and "Peft" in step.callee for step in story.steps):
        return True
    trainer = story.training.trainer if story.training is not None else None
    given = trainer.argument("peft_config") if trainer is not None else None
    return given is not None and given.constant is not None


def written(value: Value, name: str) -> str:
    """`bf16=True`, with where it came from: `bf16=True, from --bf16 on line 14 of train.sbatch`."""
    text = f"{name}={value.constant!r}" if not isinstance(value.constant, str) else f"{name}={value.constant}"
    return f"{text}, from {value.origin}" if value.origin else text


def has_training_arguments(training: Training) -> bool:
    """Whether its settings are TrainingArguments, as far as can be seen: not where all that is known of it
    are the flags of a program that is not at hand."""
    launch = training.launch
    return launch is None or training.place != launch.place or launch.launcher in _TAKE_ARGUMENTS


def uses_half_precision(workload: Workload) -> bool:
    """Whether anything in a workload asks for float16 or bfloat16, or leaves it open."""
    for training in workload.trainings:
        if any(
            training.settings[name].constant in (True, UNKNOWN)
            for name in ("fp16", "bf16")
            if name in training.settings
        ):
            return True
    for config in workload.configs_of("deepspeed"):
        enabled = [config.get(section, "enabled") for section in ("fp16", "bf16", "bfloat16")]
        if any(value is not None and value.constant is not False for value in enabled):
            return True
    for script in workload.scripts:
        for call in script.calls:
            given = [value.constant for value in (*call.arguments.values(), *call.positional)]
            if call.name in ("half", "bfloat16") or any(
                isinstance(it, str) and it.rpartition(".")[2] in HALF for it in given
            ):
                return True
    return False


def loads_in_8_bits(workload: Workload) -> bool:
    """Whether a script of a workload loads a model in 8 bits, or leaves it open."""
    for script in workload.scripts:
        for call in script.calls:
            found = quantization(call) if call.name == "from_pretrained" else None
            if found == "unknown" or (isinstance(found, Quantization) and found.bits == 8):
                return True
    named = ("load_in_8bit", "quantization_bit")  # of axolotl and LLaMA-Factory
    return any(config.get(name) for config in workload.configs for name in named)


def loads_in_workers(workload: Workload) -> bool | None:
    """Whether a data loader of a workload has workers; None where nothing says so, or it is not known."""
    given = [it.settings.get("dataloader_num_workers") for it in workload.trainings]
    given += [launch.flags.get("dataloader_num_workers") for launch in workload.launches]
    given += [
        call.argument("num_workers")
        for script in workload.scripts
        for call in script.calls
        if call.name == "DataLoader"
    ]
    known = [it.constant for it in given if it is not None and it.known]
    if any(str(it).isdigit() and int(str(it)) > 0 for it in known):
        return True
    return False if known and len(known) == len([it for it in given if it is not None]) else None


def uses_deepspeed(workload: Workload) -> bool:
    """Whether a workload is launched with DeepSpeed, configures it or imports it."""
    if any(True for _ in workload.configs_of("deepspeed")):
        return True
    for launch in workload.launches:
        words = (launch.launcher, *launch.chain, *launch.flags)
        if "deepspeed" in words or "use_deepspeed" in launch.options:
            return True
    imported = (it.module for script in workload.scripts for it in script.imports)
    return any(module.partition(".")[0] == "deepspeed" for module in imported)
