"""Accelerators of every vendor, seen on the PCI bus and under /dev without a vendor's library."""

from __future__ import annotations

import re

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Accelerator, Accelerators

SOURCE = "/sys/bus/pci/devices, /dev"

# PCI vendor numbers: https://pci-ids.ucw.cz
_VENDORS = {
    "0x10de": ("NVIDIA", "GPU"),
    "0x1002": ("AMD", "GPU"),
    "0x8086": ("Intel", "GPU"),
    "0x1da3": ("Intel", "Gaudi accelerator"),
    "0x19e5": ("Huawei", "Ascend accelerator"),
}
_CLASSES = ("0x0300", "0x0302", "0x0380", "0x1200")  # VGA, 3D, display, processing accelerator
_DEVICE_NODES = (
    (re.compile(r"kfd"), ("AMD", "GPU (ROCm)")),
    (re.compile(r"davinci\d+"), ("Huawei", "Ascend accelerator")),
    (re.compile(r"hl\d+"), ("Intel", "Gaudi accelerator")),
    (re.compile(r"accel"), ("Other", "accelerator")),
    (re.compile(r"nvidia(ctl|\d+)"), ("NVIDIA", "GPU")),
    (re.compile(r"dxg"), ("Microsoft", "GPU of the Windows host, through WSL")),
)


def read(host: Host) -> Accelerators:
    """What is on the bus; a device node stands in where the bus is hidden, as in many containers."""
    found = []
    for address in host.names("/sys/bus/pci/devices"):
        folder = f"/sys/bus/pci/devices/{address}"
        try:
            pci_class = host.read(f"{folder}/class").strip()
            vendor = host.read(f"{folder}/vendor").strip()
        except Unavailable:
            continue
        if pci_class.startswith(_CLASSES) and vendor in _VENDORS:
            name, what = _VENDORS[vendor]
            found.append(Accelerator(vendor=name, name=what, seen_at=folder))
    seen = {accelerator.vendor for accelerator in found}
    for node in host.names("/dev"):
        for pattern, (vendor, what) in _DEVICE_NODES:
            if pattern.fullmatch(node) and vendor not in seen:
                seen.add(vendor)
                found.append(Accelerator(vendor=vendor, name=what, seen_at=f"/dev/{node}"))
    platform = host.platform()
    if (platform.get("platform"), platform.get("machine")) == ("darwin", "arm64"):
        found.append(Accelerator(vendor="Apple", name="GPU (Metal)", seen_at="uname"))
    return Accelerators(accelerators=tuple(found))
