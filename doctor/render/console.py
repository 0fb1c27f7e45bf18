"""The console that text reports are drawn on: at any width, with colour or without, and into a string."""

from __future__ import annotations

import io

from rich.console import Console


def console(*, width: int, color: bool) -> Console:
    """An empty one. Text is drawn as it is: nothing in it is markup, an emoji's name or a number to mark."""
    return Console(
        file=io.StringIO(),
        width=max(width, 20),
        force_terminal=color,
        no_color=not color,
        color_system="standard" if color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def drawn(paper: Console) -> str:
    """What was drawn on it, without spaces at the ends of lines."""
    assert isinstance(paper.file, io.StringIO)
    return "\n".join(line.rstrip() for line in paper.file.getvalue().split("\n"))
