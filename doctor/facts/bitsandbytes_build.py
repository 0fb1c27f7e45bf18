"""The native libraries in the installed bitsandbytes: for which CUDA versions, and for CPUs."""

from __future__ import annotations

import os.path
import re

from packaging.version import Version

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import BitsAndBytesBuild, Packages

SOURCE = "file names in the package bitsandbytes"


def read(host: Host, packages: Packages) -> BitsAndBytesBuild:
    """What is shipped. Raises Unavailable where bitsandbytes is not installed."""
    init = packages.modules.get("bitsandbytes")
    if init is None:
        raise Unavailable("bitsandbytes is not installed")
    names = host.names(os.path.dirname(init))
    # libbitsandbytes_cuda126.so; to 0.41 each also as ..._nocublaslt.so, for GPUs before 7.5.
    digits = set(re.findall(r"(?m)^libbitsandbytes_cuda(\d{3})(?:_nocublaslt)?\.so$", "\n".join(names)))
    return BitsAndBytesBuild(
        version=packages.installed.get("bitsandbytes", "unknown"),
        cuda=tuple(sorted((f"{it[:2]}.{it[2]}" for it in digits), key=Version)),
        cpu="libbitsandbytes_cpu.so" in names,
    )
