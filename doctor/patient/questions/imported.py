"""Asked of each package of the stack: whether it can be imported at all. The worker has done so before."""

import sys
from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Being run is the answer; `folder` where Python made do with one that has no __init__.py."""
    module = sys.modules[settings["package"]]
    if getattr(module, "__file__", None) is None:
        return {"imported": True, "folder": next(iter(getattr(module, "__path__", [])), None)}
    return {"imported": True}
