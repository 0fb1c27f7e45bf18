"""What a trial's arms use inside the patient."""

import contextlib
import inspect
import os
import shutil
import tempfile
import uuid
from typing import Any, Dict, Iterator, List, Optional


class Failed(Exception):
    """Raised by an arm that ran and was wrong: a gradient that is None, memory that doubled.

    `measured` holds its numbers, with their units in the key."""

    def __init__(self, message: str, measured: Optional[Dict[str, Any]] = None) -> None:
        super().__init__(message)
        self.measured = measured or {}


@contextlib.contextmanager
def scratch_folder(beside: str) -> Iterator[str]:
    """A new folder in this one, gone afterwards.

    Its name is written down before it is made, so that worker or doctor remove it when we are killed."""
    path = os.path.join(beside, ".llm-doctor-%s" % uuid.uuid4().hex[:12])
    with open(os.path.join(os.environ["TMPDIR"], "scratch-folders"), "a") as made:
        made.write(path + "\n")
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def device() -> str:
    """`cuda` when this lane was given a GPU that torch can use, else `cpu`."""
    import torch

    return "cuda" if os.environ.get("LLM_DOCTOR_GPU") and torch.cuda.is_available() else "cpu"


def tiny_llama(**settings: Any) -> Any:
    """A Llama of two layers and width 64 from a config, with the same random weights every time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        **settings,
    )
    return LlamaForCausalLM(config)


def tiny_llama_in_8_bits(**how: Any) -> Any:
    """The same Llama, saved in float16 and loaded with these arguments of from_pretrained."""
    from transformers import LlamaForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        tiny_llama().half().save_pretrained(folder)
        return LlamaForCausalLM.from_pretrained(folder, **how)


def with_lora(model: Any, modules_to_save: Optional[List[str]] = None) -> Any:
    """The model wrapped by the installed peft, with small adapters on its query and value projections."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=8,
        lora_dropout=0.0,
        target_modules=["q_proj", "v_proj"],
        modules_to_save=modules_to_save,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def tiny_batch(where: str) -> Dict[str, Any]:
    """One sequence of eight tokens with its labels; shape (1, 8)."""
    import torch

    tokens = torch.arange(8, device=where).view(1, 8)
    return {"input_ids": tokens, "labels": tokens}


def checkpointing_method(model: Any) -> Any:
    """The method that turns activation checkpointing on; transformers 5.23 renamed it."""
    for name in ("gradient_checkpointing_enable", "activation_checkpointing_enable"):
        method = getattr(model, name, None)
        if method is not None:
            return method
    raise AttributeError("this model has no method that turns activation checkpointing on")


def accepts(function: Any, parameter: str) -> bool:
    """Whether a function's signature names this parameter."""
    return parameter in inspect.signature(function).parameters


@contextlib.contextmanager
def autocast(where: str) -> Iterator[str]:
    """torch.autocast in the dtype nearest fp16 that the device's autocast has; yields its name."""
    import torch

    for dtype in (torch.float16, torch.bfloat16):
        try:
            context = torch.autocast(device_type=where, dtype=dtype)
            with context:
                pass
        except RuntimeError:  # torch before 2.1 on a CPU: "AutocastCPU only support Bfloat16"
            continue
        with context:
            yield str(dtype).rpartition(".")[2]
        return
    raise RuntimeError("torch.autocast has no half precision on %s" % where)
