"""Adds the diagnosis under the traceback of a program that asked for it."""

from __future__ import annotations

import contextlib
import sys
import traceback
from types import TracebackType
from typing import Type


def install() -> None:
    """Puts itself behind whatever hook there is; a second time does nothing."""
    before = sys.excepthook
    if getattr(before, "of_llm_doctor", False):
        return

    def hook(kind: Type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            return
        # Whatever goes wrong here, the traceback has been shown and the program ends as it would have.
        with contextlib.suppress(Exception):
            shown = _diagnosis("".join(traceback.format_exception(kind, error, trace)))
            if shown and sys.stderr is not None:
                sys.stderr.write(f"\n{shown}")
                sys.stderr.flush()

    hook.of_llm_doctor = True  # type: ignore[attr-defined]
    sys.excepthook = hook


def _diagnosis(text: str) -> str:
    from llm_doctor.logs.reading import triage_text
    from llm_doctor.render import triage

    found = triage_text(text, "traceback")
    return triage.text(found, width=80, color=False) if found.diagnoses else ""
