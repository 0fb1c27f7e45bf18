"""Mounted file systems, with their room; each is asked in a thread of a child that may hang."""

from __future__ import annotations

import re
from typing import Literal

from llm_doctor.host import Answer, Host
from llm_doctor.model import Mount, Mounts

SOURCE = "/proc/self/mountinfo, statvfs"

# FUSE is another machine or an object store, but for fuse-overlayfs and NTFS (fuseblk).
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|lustre|beegfs|gpfs|ceph|glusterfs|panfs|wekafs|afs|9p|virtiofs|davfs|ocfs2|gfs2"
    r"|orangefs|fuse(\.\S+)?"
)
_MEMORY = ("tmpfs", "ramfs", "devtmpfs")
_OVERLAY = ("overlay", "aufs", "fuse.fuse-overlayfs")
# The kernel's own: nothing can be stored there.
_KERNEL = re.compile(
    r"proc|sysfs|cgroup2?|devpts|mqueue|debugfs|tracefs|securityfs|pstore|bpf|configfs|fusectl|hugetlbfs|binfmt_misc"
    r"|autofs|efivarfs|nsfs|rpc_pipefs|selinuxfs|ramfs|devtmpfs|fuse\.lxcfs|fuse\.gvfsd-fuse|fuse\.portal|squashfs"
)


def read(host: Host) -> Mounts:
    """All that files can be stored on. Raises Unavailable where there is no /proc."""
    found: dict[str, tuple[str, str, bool, bool]] = {}
    for line in host.read("/proc/self/mountinfo").splitlines():
        # 36 35 98:0 /root /mount/point options [tags] - filesystem device options
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 2 or _KERNEL.fullmatch(rest[0]):
            continue
        if fields[4].startswith(("/proc/", "/sys/")):
            continue
        read_only = "ro" in fields[5].split(",") or "ro" in rest[-1].split(",")
        no_exec = "noexec" in fields[5].split(",")
        # The last one covers.
        found[_unescaped(fields[4])] = (rest[0], _unescaped(rest[1]), read_only, no_exec)
    disks = host.disks(sorted(found))
    # Containers mount single files, /etc/hosts for one.
    folders = [path for path in sorted(found) if disks.get(path, {}).get("is_folder", True)]
    return Mounts(mounts=tuple(_mount(path, *found[path], disks.get(path, {})) for path in folders))


def _mount(path: str, filesystem: str, device: str, read_only: bool, no_exec: bool, disk: Answer) -> Mount:
    return Mount(
        path=path,
        filesystem=filesystem,
        device=device,
        kind=kind(filesystem),
        read_only=read_only,
        writable=disk.get("writable"),
        total_bytes=disk.get("total_bytes"),
        free_bytes=disk.get("free_bytes"),
        inodes=disk.get("inodes"),
        inodes_free=disk.get("inodes_free"),
        problem=disk.get("error"),
        no_exec=no_exec,
    )


def kind(filesystem: str) -> Literal["local", "memory", "overlay", "network"]:
    """Where files on it are kept: this machine's disk or memory, a container's layer, another machine."""
    if filesystem in _MEMORY:
        return "memory"
    if filesystem in _OVERLAY:
        return "overlay"
    return "network" if _NETWORK.fullmatch(filesystem) else "local"


def _unescaped(text: str) -> str:
    # The kernel writes space, tab, newline and backslash as octal numbers.
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)
