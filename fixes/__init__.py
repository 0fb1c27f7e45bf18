"""Remedies: one file per kind. A fix is text here; what writes to the user's files will be here too."""
