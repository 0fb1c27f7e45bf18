"""A tiny Llama loaded with one keyword of from_pretrained, and with what stands for it today.

from_pretrained takes any keyword and hands on what it does not know to the model, which may refuse it."""

import tempfile
from typing import Any, Dict, List

from llm_doctor.patient.arms import tiny_llama

NEUTRAL = {
    "trust_remote_code": False,
    "low_cpu_mem_usage": False,
    "output_loading_info": False,
    "ignore_mismatched_sizes": False,
    "force_download": False,
    "local_files_only": False,
    "offload_state_dict": False,
    "offload_buffers": False,
    "load_in_8bit": False,
    "load_in_4bit": False,
    "from_tf": False,
    "from_flax": False,
    "_fast_init": True,
    "weights_only": True,
    "revision": "main",
    "subfolder": "",
    "dtype": "auto",
    "torch_dtype": "auto",
}  # type: Dict[str, Any]
"""Values that ask for nothing; None for the others. A keyword is refused whatever its value."""


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Each keyword that the workload passes, with the one that replaces it or None."""
    return [{"keyword": keyword, "instead": instead} for keyword, instead in settings["loads"]]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With the keyword."""
    return _loaded(combination["keyword"])


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """With the one that replaces it, or without."""
    return _loaded(combination["instead"])


def _loaded(keyword: Any) -> Dict[str, Any]:
    from transformers import AutoModelForCausalLM

    how = {keyword: NEUTRAL.get(keyword)} if keyword else {}
    with tempfile.TemporaryDirectory() as folder:
        tiny_llama().save_pretrained(folder)
        loaded = AutoModelForCausalLM.from_pretrained(folder, **how)
    return {"loaded": type(loaded).__name__}
