"""The host compiler and ninja, which every CUDA extension build calls."""

from __future__ import annotations

from llm_doctor.host import Host
from llm_doctor.model import Compilers, Tool

SOURCE = "c++ --version, ninja --version"


def read(host: Host) -> Compilers:
    """The compiler that torch.utils.cpp_extension would call ($CXX, else c++), and ninja."""
    return Compilers(cxx=_tool(host, host.env("CXX") or "c++"), ninja=_tool(host, "ninja"))


def _tool(host: Host, program: str) -> Tool | None:
    path = host.which(program)
    if path is None:
        return None
    done = host.run([path, "--version"], seconds=10)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return Tool(path=path, version=f"unknown: {done.problem or 'prints no version'}")
    return Tool(path=path, version=lines[0].strip())
