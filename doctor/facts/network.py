"""Network interfaces, and InfiniBand and RoCE adapters, by the names that NCCL and gloo are given."""

from __future__ import annotations

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Interface, Network

SOURCE = "/sys/class/net, /sys/class/infiniband"
_UP, _LOOPBACK = 0x1, 0x8
"""IFF_UP and IFF_LOOPBACK of linux/if.h."""
_ACTIVE = "4:"
"""IB_PORT_ACTIVE of rdma/ib_verbs.h."""


def read(host: Host) -> Network:
    """All of them; no address is read. Raises Unavailable where there is no /sys."""
    names = host.names("/sys/class/net")
    if not names:
        raise Unavailable("/sys/class/net names no interface")
    adapters = tuple(host.names("/sys/class/infiniband"))
    return Network(
        interfaces=tuple(_interface(host, name) for name in names if name != "bonding_masters"),
        infiniband=adapters,
        links={name: link for name in adapters for link in [_link(host, name)] if link},
    )


def _link(host: Host, adapter: str) -> str | None:
    """The link layer of its first active port; NCCL looks for one too (src/transport/net_ib.cc)."""
    ports = f"/sys/class/infiniband/{adapter}/ports"
    for port in host.names(ports):
        try:
            if host.read(f"{ports}/{port}/state").startswith(_ACTIVE):
                return host.read(f"{ports}/{port}/link_layer").strip()
        except Unavailable:
            continue
    return None


def _interface(host: Host, name: str) -> Interface:
    try:
        flags = int(host.read(f"/sys/class/net/{name}/flags").strip(), 16)
    except (Unavailable, ValueError):
        return Interface(name=name, loopback=name == "lo")
    return Interface(name=name, up=bool(flags & _UP), loopback=bool(flags & _LOOPBACK))
