"""The native libraries in the installed bitsandbytes: for which CUDA versions, CPUs, other devices."""

from __future__ import annotations

import os.path
import re

from packaging.version import Version

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import BitsAndBytesBuild, Packages

SOURCE = "file names in the package bitsandbytes"


def read(host: Host, packages: Packages) -> BitsAndBytesBuild:
    """What is shipped. Raises Unavailable where it is not installed or its folder cannot be listed."""
    init = packages.modules.get("bitsandbytes")
    if init is None:
        raise Unavailable("bitsandbytes is not installed")
    listed = host.names(os.path.dirname(init))
    if os.path.basename(init) not in listed:
        raise Unavailable("the folder of bitsandbytes cannot be listed")
    names = "\n".join(listed)
    # libbitsandbytes_cuda126.so; to 0.41 each also as ..._nocublaslt.so, for GPUs before 7.5.
    built = set(re.findall(r"(?m)^libbitsandbytes_(\w+?)(?:_nocublaslt)?\.(?:so|dylib|dll)$", names))
    cuda = {it: f"{it[4:6]}.{it[6]}" for it in built if re.fullmatch(r"cuda\d{3}", it)}
    return BitsAndBytesBuild(
        version=packages.installed.get("bitsandbytes", "unknown"),
        cuda=tuple(sorted(cuda.values(), key=Version)),
        cpu="cpu" in built,
        others=tuple(sorted(built - {"cpu", *cuda})),
    )
