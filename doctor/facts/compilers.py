"""The host compiler and ninja, which every CUDA extension build calls, and Triton's C compiler."""

from __future__ import annotations

from llm_doctor.host import Host
from llm_doctor.model import Compilers, Tool

SOURCE = "$CXX, $CC, c++ --version, gcc --version, ninja --version"


def read(host: Host) -> Compilers:
    """What torch.utils.cpp_extension would call ($CXX, else c++; ninja), and Triton ($CC, else gcc or clang:
    python/triton/runtime/build.py, 2.0 to 3.6)."""
    # As words: "ccache g++" is a compiler too.
    named = {name: (host.env(name) or "").split() for name in ("CXX", "CC")}
    return Compilers(
        cxx=_tool(host, named["CXX"] or ["c++"]),
        cc=_tool(host, named["CC"]) if named["CC"] else _tool(host, ["gcc"]) or _tool(host, ["clang"]),
        ninja=_tool(host, ["ninja"]),
        not_there={name: words[0] for name, words in named.items() if words and not host.which(words[0])},
    )


def _tool(host: Host, words: list[str]) -> Tool | None:
    path = host.which(words[0])
    if path is None:
        return None
    done = host.run([path, *words[1:], "--version"], seconds=10)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        return Tool(path=path, version=f"unknown: {done.problem or 'prints no version'}")
    return Tool(path=path, version=lines[0].strip())
