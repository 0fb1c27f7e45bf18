"""llm-doctor: tries each suspected LLM training or inference failure in miniature on this very stack."""

__version__ = "0.1.0"
