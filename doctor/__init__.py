"""llm-doctor: tries each suspected LLM training or inference failure in miniature on this very stack."""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's own, which the program must not import yet: see __main__.py
if TYPE_CHECKING:
    from llm_doctor.jupyter import Examined
    from llm_doctor.logs.data import Triage

__version__ = "0.1.0"
__all__ = ["__version__", "install", "run", "triage"]


def run(*words: str, python: str | None = None) -> Examined:
    """Examines this environment, or that of `python`, and the job of these words, if any are given; in a
    notebook the report is shown as a page. Nothing is imported into this process."""
    from llm_doctor.jupyter import run as run_examination

    return run_examination(words, python)


def triage(text: str) -> Triage:
    """The causes that stand in the text of a log: `triage(text).diagnoses`, the best first."""
    from llm_doctor.logs.reading import triage_text

    return triage_text(text)


def install() -> None:
    """From now on a traceback that ends this program has the diagnosis under it, where there is one."""
    from llm_doctor.logs.excepthook import install as install_hook

    install_hook()
