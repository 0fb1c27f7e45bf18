"""Operating system, container and WSL."""

from __future__ import annotations

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import System

SOURCE = "uname, /etc/os-release, /proc"


def read(host: Host) -> System:
    """What this machine runs, and what it runs in."""
    platform = host.platform()
    kernel = str(platform.get("kernel", "unknown"))
    return System(
        os=_os_name(host) or str(platform.get("platform", "unknown")),
        kernel=kernel,
        machine=str(platform.get("machine", "unknown")),
        c_library=platform.get("c_library"),
        container=_container(host),
        wsl=("2" if "WSL2" in kernel else "1") if "microsoft" in kernel.lower() else None,
    )


def _os_name(host: Host) -> str | None:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        for line in _text(host, path).splitlines():
            key, _, value = line.partition("=")
            if key == "PRETTY_NAME":
                return value.strip().strip("\"'") or None
    return None


def _container(host: Host) -> str | None:
    if host.env("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for variable in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if host.env(variable):
            return variable.partition("_")[0].lower()
    if host.exists("/.dockerenv"):
        return "docker"
    if host.exists("/run/.containerenv"):
        return "podman"
    # systemd's interface: whoever makes the container says so in PID 1's environment or here.
    named = host.env("container") or _text(host, "/run/systemd/container").strip()
    if named:
        return named
    cgroup = _text(host, "/proc/1/cgroup")
    for word in ("kubepods", "docker", "lxc", "containerd"):
        if word in cgroup:
            return "kubernetes" if word == "kubepods" else word
    return None


def _text(host: Host, path: str) -> str:
    try:
        return host.read(path)
    except Unavailable:
        return ""
