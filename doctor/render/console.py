"""The console that text reports are drawn on: at any width, with colour or without, and into a string."""

from __future__ import annotations

import io
import re

from rich.console import Console

_CONTROLS = "\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
_NO_STYLE = re.compile(f"[\x1b{_CONTROLS}]")
_NO_STYLE_BUT_OURS = re.compile(rf"\x1b(?!\[[0-9;]*m)|[{_CONTROLS}]")


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
    steers = _NO_STYLE if paper.no_color else _NO_STYLE_BUT_OURS
    text = steers.sub(lambda found: repr(found[0])[1:-1], paper.file.getvalue())
    return "\n".join(line.rstrip() for line in text.split("\n"))
