"""The nodes of tests/nodes, each played to the whole program by the false driver, with a torch for CUDA."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

from false_node import NODES, Driver, described

from faults.rig import Fault, has

SAYS = {
    "busy": r"held by process 4242",
    "crash": r"NVML ended with signal SIGSEGV",
    "driver-too-old": r"driver 470\.256\.02",
    "exclusive": r"compute_mode: exclusive-process",
    "fabric-failed": r"fabric of GPU 7 is not set up",
    "full": r"of 15 GiB are free, and who holds the rest cannot be seen",
    "functions-missing": r"driver 418\.226\.00",
    "gpu-hangs": r"GPU 3 does not answer: did not answer within",
    "hot": r"GPU 2 .* is slowed down now .*it is too hot",
    "init-hangs": r"NVML did not end within 20 s",
    "lost-gpu": r"GPU 5 does not answer: GPU is lost",
    "lost-while-asked": r"GPU 1 does not answer: GPU is lost",
    "memory-errors": r"GPU 6 .*a row of its memory failed",
    "mig": r"gpus\.0\.mig: True",
    "narrow-bus": r"GPU 2 .*PCIe link has 4 of 16 lanes",
    "no-fabric-manager": r"NVLink fabric of GPU 0, .* is not set up",
    "no-gpus": r"gpus\.driver: 550\.90\.07",
    "no-permission": r"NVML: Insufficient Permissions",
    "not-supported": r"GRID A100D-40C",
    "nvlink-down": r"GPU 4 .*5 of its NVLinks are up",
    "power-brake": r"hw-power-brake",
    "prohibited": r"GPU 0 .*compute mode prohibited",
    "reset-required": r"GPU 2 does not answer: GPU requires restart",
    "retired-pages": r"GPU 1 .*failed pages of its memory",
    "switches-unmanaged": r"fabric-manager-down skipped: inconclusive|CUDA fails with error 802",
    "version-mismatch": r"libraries do not fit its kernel module",
    "xid": r"GPU 5: the driver reported Xid 119",
}
"""What must be said of a node that is not well; of the others, which GPUs they have."""
FOR_CUDA = {"site/torch/version.py": "__version__ = '2.9.0+cu126'\ncuda = '12.6'\n"}


def played(node: str, scene: Path) -> dict[str, str]:
    """The variables in which the program sees this node."""
    compiler = shutil.which("cc")
    assert compiler is not None
    return Driver(compiler, scene / "driver").play(node)


FAULTS = tuple(
    Fault(
        f"the node {node}",
        says=SAYS.get(node) or rf"gpus\.0\.name: {described(node)['gpu']['name']}",
        files=FOR_CUDA,
        make=partial(played, node),
        needs=has("cc"),
        slow=True,
    )
    for node in NODES
)
