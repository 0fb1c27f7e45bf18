"""The formats that a report is drawn in, by name and by the suffix of a file."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Callable

if TYPE_CHECKING:  # not loaded for a name
    from llm_doctor.model import Report

FORMATS = ("text", "json", "markdown", "html", "sarif", "junit", "github")
_BY_SUFFIX = {
    ".json": "json",
    ".md": "markdown",
    ".html": "html",
    ".htm": "html",
    ".sarif": "sarif",
    ".sarif.json": "sarif",
    ".xml": "junit",
    ".txt": "text",
    ".log": "text",
}


def by_suffix(path: str) -> str | None:
    """The format that a file's name asks for: text without a suffix, None for one that tells nothing."""
    name = path.rpartition("/")[2].lower()
    for suffix in sorted(_BY_SUFFIX, key=len, reverse=True):
        if name.endswith(suffix):
            return _BY_SUFFIX[suffix]
    return "text" if "." not in name.lstrip(".") else None


def renderer(
    name: str, *, width: int, color: bool, verbose: bool = False, quiet: bool = False
) -> Callable[[Report], str]:
    """What draws a report in this format; `width` and the rest are those of text."""
    module = importlib.import_module(f"llm_doctor.render.{name}")
    if name == "text":
        return functools.partial(module.render, width=width, color=color, verbose=verbose, quiet=quiet)
    render: Callable[[Report], str] = module.render
    return render
