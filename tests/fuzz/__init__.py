"""Hostile input for every reader: tests/test_hostile_input.py, or for minutes `python -m fuzz SECONDS`."""
