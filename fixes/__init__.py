"""Remedies: one file per kind, and the only code that writes to the user's files."""
