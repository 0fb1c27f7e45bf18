"""Machines that are made sick on purpose, and the rig that runs the doctor on each of them.

One file for each place where the sickness sits; `rig.py` says what a fault is and what a run must keep."""

from __future__ import annotations

from faults import interpreters, nodes, programs, stacks, surroundings
from faults.rig import Fault

FAULTS: tuple[Fault, ...] = (
    *stacks.FAULTS,
    *interpreters.FAULTS,
    *programs.FAULTS,
    *surroundings.FAULTS,
    *nodes.FAULTS,
)
