"""What the report says of a workload: which files were read, what they start, what could not be read."""

from __future__ import annotations

from typing import Any, Dict

from llm_doctor.workload.data import Launch, Workload


def summary(workload: Workload) -> Dict[str, Any]:
    """The `workload` of a report, as JSON can hold it."""
    return {
        "files": list(workload.files),
        "launches": [_launch(launch) for launch in workload.launches],
        "problems": [
            {"path": it.path, "line": it.line or None, "column": it.column or None, "message": it.message}
            for it in workload.problems
        ],
    }


def _launch(launch: Launch) -> Dict[str, Any]:
    program = launch.script or launch.module
    return {
        "path": launch.place.path,
        "line": launch.place.line,
        "launcher": launch.launcher,
        "program": program.constant if program and program.known else None,
        "processes_per_node": launch.processes_per_node,
        "nodes": launch.nodes,
    }
