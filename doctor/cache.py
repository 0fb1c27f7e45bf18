"""Where the doctor keeps what is its own: reports, answers, what fixes replaced."""

from __future__ import annotations

import os
from pathlib import Path


def folder(name: str) -> Path:
    """The folder of this name in the doctor's cache (XDG Base Directory Specification: a path that is not
    absolute is no XDG_CACHE_HOME). Raises OSError where there is no home folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or ""
    try:
        root = Path(cache) if os.path.isabs(cache) else Path("~/.cache").expanduser()
    except RuntimeError as error:
        raise OSError("there is no home folder, nor XDG_CACHE_HOME") from error
    return root / "llm-doctor" / name
