"""The import of each installed extension and of its compiled modules, beside the import of torch alone.

settings: {"modules": {"flash-attn": ["flash_attn", "flash_attn_2_cuda"], ...}}
"""

import importlib
import importlib.util
import sys
from typing import Any, Dict, List

from llm_doctor.patient.arms import Failed


def combinations(settings: Dict[str, Any]) -> List[Dict[str, Any]]:
    """One for each extension."""
    return [{"package": package} for package in settings["modules"]]


def broken(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """Its modules; of those that only some builds have, those that are there."""
    imported: List[str] = []
    for module in settings["modules"][combination["package"]]:
        if imported and "." not in module and importlib.util.find_spec(module) is None:
            continue
        try:
            importlib.import_module(module)
        except BaseException as error:  # SystemExit too
            # In the first line stands what, in a later one at most where.
            raise Failed("import %s: %s: %s" % (module, type(error).__name__, str(error).strip())) from error
        imported.append(module)
    # xformers catches what goes wrong when its library is loaded, and is slow or fails later.
    caught = getattr(sys.modules.get("xformers._cpp_lib"), "_cpp_library_load_exception", None)
    if combination["package"] == "xformers" and caught is not None:
        raise Failed("xformers did not load its library: %s: %s" % (type(caught).__name__, caught))
    return {"imported": imported}


def fixed(settings: Dict[str, Any], combination: Dict[str, Any]) -> Dict[str, Any]:
    """torch without it."""
    import torch

    return {"torch": str(torch.__version__), "sum": float(torch.ones(2).sum())}
