"""The console that text reports are drawn on: at any width, with colour or without, and into a string."""

from __future__ import annotations

import io
import re

from rich.console import Console

from llm_doctor.terminal import CONTROLS, written_out

_NO_STYLE_BUT_OURS = re.compile(rf"\x1b(?!\[[0-9;]*m)|[{CONTROLS}]")


def console(*, width: int, color: bool) -> Console:
    """An empty one. Text is drawn as it is: nothing in it is markup, an emoji's name or a number to mark."""
    return Console(
        file=io.StringIO(),
        width=max(width, 20),
        height=25,  # else the terminal is asked for it at every line
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def drawn(paper: Console) -> str:
    """What was drawn on it, without spaces at the ends of lines.

    What would steer the terminal is written out: errors of libraries and reports of others may hold it."""
    assert isinstance(paper.file, io.StringIO)
    text = paper.file.getvalue()
    text = written_out(text) if paper.no_color else written_out(text, _NO_STYLE_BUT_OURS)
    return "\n".join(line.rstrip() for line in text.split("\n"))
