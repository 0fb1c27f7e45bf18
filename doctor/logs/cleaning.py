"""A line of a log without what terminals, launchers and people put around it."""

from __future__ import annotations

import re
from typing import NamedTuple

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_]"
    r"|\[(?:\d{1,3};){0,4}\d{1,3}m"  # pasted without the escape character
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\ufeff]")
_PREFIX = re.compile(
    r"""
      [>\s]*>\s                                                        # quoted in a ticket
    | \s*\[(?:rank|default)(?P<rank>\d{1,5})\]:?\s?                    # torchrun
    | \s*\[\d+,(?P<mpi>\d{1,5})\]<std(?:err|out)>:\s?                  # mpirun --tag-output
    | \s*\((?P<actor>[\w.<>-]{0,60}\s?pid=\d+(?:,\sip=[\d.]+)?)\)\s?   # ray
    | \s*(?P<task>\d{1,5}):\s                                          # srun --label
    | (?P<host>[a-z][a-z0-9-]{0,60}\d):\s                              # pdsh
    | \d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)\s                     # continuous integration
    | \s*[│┃╎|](?:\s|$)                                                # a box
    """,
    re.VERBOSE,
)
_BOX = "│┃╎╭╮╰╯─━═┌┐└┘+|`~*-"
_BORDER = re.compile(rf"[\s{re.escape(_BOX)}]*$")
_BOX_END = re.compile(r"\s*[│┃╎]$")


class Line(NamedTuple):
    """What a process wrote, and by which mark it says who it is."""

    text: str
    speaker: str
    rank: int | None


def clean(raw: bytes) -> Line:
    """The line without escapes, prefixes and boxes; a border of a box is empty."""
    text = raw.decode("utf-8", "replace")
    # Most lines have none of it, and to see that is cheap.
    if "\x1b" in text or "m" in text[text.find("[") :][:12]:
        text = _ESCAPES.sub("", text)
    if not text.isprintable():
        text = _CONTROLS.sub("", text).replace("\xa0", " ")
    speaker, rank = "", None
    for _ in range(4):
        found = _PREFIX.match(text)
        if found is None:
            break
        text = text[found.end() :]
        for kind in ("rank", "mpi", "task"):
            if found[kind] is not None:
                speaker, rank = f"{speaker} {kind} {found[kind]}", int(found[kind])
        speaker += f" {found['actor'] or found['host'] or ''}".rstrip()
    text = text.rstrip()
    if text[-1:] in _BOX:
        text = "" if _BORDER.match(text) else _BOX_END.sub("", text)
    return Line(text, speaker, rank)
