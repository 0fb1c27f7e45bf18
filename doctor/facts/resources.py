"""Processor, memory and limits of this process, out of /proc and the cgroup's files."""

from __future__ import annotations

import re

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Cpu, Limit, Limits, Memory

CPU_SOURCE = "/proc/cpuinfo, /proc/self/status, cgroup"
MEMORY_SOURCE = "/proc/meminfo, cgroup"
LIMITS_SOURCE = "/proc/self/limits"

# x86: AVX-512 and AMX; Arm: bf16 and i8mm, and sve. The ones that half precision and int8 run on.
_TELLING_FLAG = re.compile(
    r"amx_\w+|avx2|avx512f|avx512_(bf16|fp16|vnni)|avx_vnni|bf16|asimdhp|i8mm|sve2?|svebf16"
)
_CAP_IPC_LOCK = 14  # linux/capability.h
_UNLIMITED = 1 << 60
"""Version 1 of cgroups writes the largest page-aligned number where there is no limit."""


def cpu(host: Host) -> Cpu:
    """Model, number and telling flags. Raises Unavailable where there is no /proc."""
    text = host.read("/proc/cpuinfo")
    fields = dict(re.findall(r"(?m)^(model name|flags|Features|cpu model|Processor)\s*:\s*(.*)$", text))
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    logical = len(re.findall(r"(?m)^processor\s*:", text)) or 1
    allowed = re.search(r"(?m)^Cpus_allowed_list:\s*(\S+)", _text(host, "/proc/self/status"))
    return Cpu(
        name=fields.get("model name") or fields.get("cpu model") or fields.get("Processor") or "unknown",
        logical=logical,
        usable=_count(allowed.group(1)) if allowed else logical,
        quota=_cpu_quota(host),
        flags=tuple(sorted({flag for flag in flags if _TELLING_FLAG.fullmatch(flag)})),
    )


def memory(host: Host) -> Memory:
    """Sizes in bytes. Raises Unavailable where there is no /proc."""
    text = host.read("/proc/meminfo")
    sizes = {name: int(kib) << 10 for name, kib in re.findall(r"(?m)^(\w+):\s+(\d+) kB$", text)}
    if "MemTotal" not in sizes:
        raise Unavailable("/proc/meminfo names no MemTotal")
    limits = [
        value for value in _in_cgroup(host, "memory.max", "memory.limit_in_bytes") if value < _UNLIMITED
    ]
    used = _in_cgroup(host, "memory.current", "memory.usage_in_bytes")
    return Memory(
        total_bytes=sizes["MemTotal"],
        available_bytes=sizes.get("MemAvailable", sizes.get("MemFree", 0)),
        swap_bytes=sizes.get("SwapTotal", 0),
        cgroup_limit_bytes=min(limits, default=None),
        cgroup_used_bytes=used[0] if used and limits else None,
    )


def limits(host: Host) -> Limits:
    """Soft and hard limits. Raises Unavailable where there is no /proc."""
    text = host.read("/proc/self/limits")

    def limit(name: str) -> Limit:
        found = re.search(rf"(?m)^{name}\s+(\w+)\s+(\w+)", text)
        if found is None:
            raise Unavailable(f"/proc/self/limits names no {name}")
        soft, hard = (None if value == "unlimited" else int(value) for value in found.groups())
        return Limit(soft=soft, hard=hard)

    return Limits(
        locked_memory_bytes=limit("Max locked memory"),
        open_files=limit("Max open files"),
        processes=limit("Max processes"),
        address_space_bytes=limit("Max address space"),
        file_bytes=limit("Max file size"),
        may_lock=_may_lock(host),
    )


def _may_lock(host: Host) -> bool | None:
    found = re.search(r"(?m)^CapEff:\s+([0-9a-f]+)$", _text(host, "/proc/self/status"))
    return bool(int(found.group(1), 16) >> _CAP_IPC_LOCK & 1) if found else None


def _count(ranges: str) -> int:
    """How many numbers `0-3,8` names."""
    total = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        total += int(last or first) - int(first) + 1
    return total


def _cpu_quota(host: Host) -> float | None:
    quotas = []
    for folder in _cgroup_folders(host, "cpu"):
        # Version 2 has "quota period" in one file, version 1 two files; "max" and -1 are no limit.
        values = _text(host, f"{folder}/cpu.max").split() or [
            _text(host, f"{folder}/cpu.cfs_{what}_us").strip() for what in ("quota", "period")
        ]
        if len(values) == 2 and values[0].isdigit() and values[1].isdigit() and int(values[1]):
            quotas.append(int(values[0]) / int(values[1]))
    return min(quotas, default=None)


def _in_cgroup(host: Host, *names: str) -> list[int]:
    """The number in each file of these names, from this process's cgroup upwards."""
    texts = [
        _text(host, f"{folder}/{name}").strip()
        for folder in _cgroup_folders(host, "memory")
        for name in names
    ]
    return [int(text) for text in texts if text.isdigit()]


def _cgroup_folders(host: Host, controller: str) -> list[str]:
    """This process's cgroup and those above it, in both hierarchies; each limits those below it.

    Inside a container the path may be the host's, which is not there: the root then stands for it."""
    folders = []
    for line in _text(host, "/proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            root = "/sys/fs/cgroup"
        elif controller in controllers.split(","):
            root = f"/sys/fs/cgroup/{controllers}"
        else:
            continue
        while path not in ("", "/"):
            folders.append(f"{root}{path}")
            path = path.rpartition("/")[0]
        folders.append(root)
    return folders


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path)
    except Unavailable:
        return ""
