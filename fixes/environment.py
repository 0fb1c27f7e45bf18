"""Remedies that set environment variables for the job."""

from __future__ import annotations

import shlex

from llm_doctor.model import Fix


def export(title: str, variables: dict[str, str], *, safe: bool = True, verified: bool | None = None) -> Fix:
    """Lines to paste above the launch line. Unsafe where it hides a fault instead of mending it."""
    return Fix(
        title=title,
        kind="environment",
        applicability="safe" if safe else "unsafe",
        preview="\n".join(f"export {name}={_quoted(value)}" for name, value in variables.items()),
        verified=verified,
    )


def prepend_to_path(title: str, folder: str) -> Fix:
    """The line that puts a folder first on PATH."""
    return Fix(
        title=title,
        kind="environment",
        applicability="safe",
        preview=f"export PATH={_quoted(folder)}:$PATH",
    )


def _quoted(value: str) -> str:
    # `~` must stay unquoted: it is what a home folder is called in a report.
    return value if value.startswith("~/") and " " not in value else shlex.quote(value)
