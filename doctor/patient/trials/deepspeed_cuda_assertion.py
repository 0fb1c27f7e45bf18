"""The installed DeepSpeed's own assertion on CUDA versions, called as its builders call it.

settings: {"remedies": [{"CUDA_HOME": ...} or {"DS_SKIP_CUDA_CHECK": "1"}, ...]}
"""

import importlib
import os
from typing import Any, Dict, List


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """One for each remedy that this machine offers; without any, the assertion alone."""
    return [{"remedy": remedy} for remedy in settings["remedies"] or [None]]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The toolkit that torch chooses here, with the assertion in force."""
    os.environ.pop("DS_SKIP_CUDA_CHECK", None)
    return _assertion()


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """The same with the remedy's environment."""
    os.environ.update(combination["remedy"])
    return _assertion()


def _assertion() -> Dict[str, Any]:
    from torch.utils import cpp_extension

    importlib.reload(cpp_extension)  # CUDA_HOME is computed on import
    from deepspeed.ops.op_builder import builder

    accepted = builder.assert_no_cuda_mismatch("llm-doctor")
    if accepted is False:  # before 0.9.1: no CUDA device, nothing was compared
        raise RuntimeError("DeepSpeed compared nothing: torch sees no CUDA device")
    version = getattr(builder, "installed_cuda_version", None)  # since 0.4.0
    toolkit = ".".join(map(str, version())) if version is not None else None
    return {"toolkit": toolkit, "cuda_home": cpp_extension.CUDA_HOME}
