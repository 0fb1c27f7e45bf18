"""A tiny Llama told to load in 8 bits by keyword and by configuration, and by the configuration alone."""

from typing import Any, Dict, List

from llm_doctor.patient.arms import device, tiny_llama_in_8_bits


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """There is one way to say it twice."""
    return [{}]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Both."""
    return _loaded(load_in_8bit=True)


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The configuration alone."""
    return _loaded()


def _loaded(**keyword: bool) -> Dict[str, Any]:
    from transformers import BitsAndBytesConfig

    model = tiny_llama_in_8_bits(
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": 0 if device() == "cuda" else "cpu"},
        **keyword,
    )
    return {"loaded": type(model).__name__}
