"""Asked of each package of the stack: whether it can be imported at all. The worker has done so before."""

from typing import Any, Dict


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Being run is the answer."""
    return {"imported": True}
