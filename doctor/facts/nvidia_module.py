"""NVIDIA's kernel module, its device nodes and switches, and the errors that it wrote to the kernel's log."""

from __future__ import annotations

import re

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import NvidiaModule

SOURCE = "/proc/driver, /dev/nvidia*, /dev/kmsg"
_NODE = re.compile(r"nvidia(ctl|-uvm|\d+)")
_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_COMPAT = "/usr/local/cuda/compat"
"""Where the packages cuda-compat-* put their libcuda, as NVIDIA's images have it."""


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
        xid_lines=tuple(xid_lines),
        log_problem=problem,
        device_nodes={
            f"/dev/{name}": host.usable(f"/dev/{name}") is not False
            for name in host.names("/dev")
            if _NODE.fullmatch(name)
        },
        uvm_loaded=host.exists("/sys/module/nvidia_uvm"),
        makes_nodes=host.exists("/usr/bin/nvidia-modprobe"),  # the very path that libcuda starts
        nvswitches=tuple(_nvswitches(host)),
        fabric_manager=host.runs("nv-fabricmanager"),
        compat_libraries=tuple(
            f"{_COMPAT}/{name}" for name in host.names(_COMPAT) if re.fullmatch(r"libcuda\.so\.\d+\..+", name)
        ),
    )


def _nvswitches(host: Host) -> list[str]:
    """PCI addresses of the NVSwitches that the module drives."""
    for folder in ("/proc/driver/nvidia-nvswitch/devices", "/sys/bus/pci/drivers/nvidia-nvswitch"):
        found = [name for name in host.names(folder) if _PCI_ADDRESS.fullmatch(name)]
        if found:
            return found
    return []


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
