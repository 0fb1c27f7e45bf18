"""Reads what somebody is about to run, without running it: launch lines, scripts, configurations."""
