"""What would steer a terminal, and how it is written out: names, errors and reports may hold anything."""

from __future__ import annotations

import re

CONTROLS = "\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""All that steers but escape, as a class of regular expressions: tab and line feed do no harm."""
_STEERS = re.compile(f"[\x1b{CONTROLS}]")


def written_out(text: str, steers: re.Pattern[str] = _STEERS) -> str:
    """The text with `\\x1b` in place of what steers."""
    return steers.sub(lambda found: repr(found[0])[1:-1], text)
