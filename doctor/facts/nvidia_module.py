"""NVIDIA's kernel module, and the errors that it wrote to the kernel's log."""

from __future__ import annotations

import re

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import NvidiaModule

SOURCE = "/proc/driver/nvidia, /dev/kmsg"


def read(host: Host) -> NvidiaModule:
    """Its version, GPUs and Xid lines. Raises Unavailable where the module is not loaded."""
    try:
        text = host.read("/proc/driver/nvidia/version")
    except Unavailable as error:
        raise Unavailable("NVIDIA's kernel module is not loaded (/proc/driver/nvidia is absent)") from error
    version = re.search(r"\b\d{3}\.\d+(\.\d+)?\b", text)
    try:
        xid_lines, problem = [line for line in host.kernel_log() if "Xid" in line], None
    except Unavailable as error:
        xid_lines, problem = [], f"the kernel's log cannot be read: {error}"
    return NvidiaModule(
        version=version.group() if version else text.partition("\n")[0].strip(),
        gpus=tuple(_gpus(host)),
        xid_lines=tuple(xid_lines[-20:]),
        log_problem=problem,
    )


def _gpus(host: Host) -> list[str]:
    """`0000:3b:00.0 Tesla V100-SXM2-32GB` for each, as the module lists them."""
    found = []
    for address in host.names("/proc/driver/nvidia/gpus"):
        try:
            text = host.read(f"/proc/driver/nvidia/gpus/{address}/information")
        except Unavailable:
            text = ""
        model = re.search(r"(?m)^Model:\s*(.+?)\s*$", text)
        found.append(f"{address} {model.group(1) if model else 'of unknown model'}")
    return found
