"""An examination from Python, shown as a page in a notebook."""

from __future__ import annotations

import html
import subprocess
import sys

import msgspec

from llm_doctor.model import Report


class Examined:
    """A report that a notebook shows as its page, and anything else as text."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __repr__(self) -> str:
        from llm_doctor.render import text

        return text.render(self.report, width=80, color=False)

    def _repr_html_(self) -> str:
        from llm_doctor.formats import renderer

        page = renderer("html", width=80, color=False)(self.report)
        # In a frame: the page's own styles are not for the notebook around it.
        style = "width: 100%; height: 40em; border: 1px solid #8886"
        return f'<iframe title="llm-doctor report" style="{style}" srcdoc="{html.escape(page)}"></iframe>'


def run(words: tuple[str, ...], python: str | None) -> Examined:
    """What `llm-doctor run` says, in a process of its own. Raises RuntimeError where it says nothing."""
    command = [sys.executable, "-m", "llm_doctor", "run", "--format", "json", "--quiet"]
    command += ["--python", python or sys.executable, *words]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True)
    try:
        return Examined(msgspec.json.decode(done.stdout, type=Report))
    except msgspec.DecodeError as error:
        said = done.stderr.decode("utf-8", "replace").strip() or str(error)
        raise RuntimeError(f"llm-doctor run: {said}") from error
