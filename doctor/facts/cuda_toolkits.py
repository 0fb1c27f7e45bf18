"""Every CUDA toolkit on the machine, and the one that torch would choose.

The choice follows _find_cuda_home of torch/utils/cpp_extension.py (the same in 1.12.1 and 2.13.0):
$CUDA_HOME or $CUDA_PATH, else the folder above the bin of the first nvcc on PATH, else /usr/local/cuda.
"""

from __future__ import annotations

import contextlib
import os.path
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Iterator

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import CudaToolkits, Packages, Toolkit

SOURCE = "$CUDA_HOME, $CUDA_PATH, PATH, /usr/local, /opt, conda, pip; nvcc -V"

_FOLDERS = ("/usr/local", "/opt", "/opt/nvidia", "/usr/lib")
_NAMES = re.compile(r"cuda([-.]?\d+([.]\d+)?)?|nvidia-cuda-toolkit")


def read(host: Host, packages: Packages | None) -> CudaToolkits:
    """All toolkits, each asked for its version once, and the chosen home."""
    nvcc = host.which("nvcc")
    chosen_home, chosen_by = _chosen(host, nvcc)
    homes: dict[str, tuple[str, list[str]]] = {}
    for home, by in _candidates(host, nvcc, chosen_home, chosen_by, packages):
        if home == chosen_home or host.exists(f"{home}/bin/nvcc"):
            # /usr/local/cuda is usually a link to a versioned folder: one toolkit, first name kept.
            _, found_by = homes.setdefault(host.real(home), (home, []))
            if by not in found_by:
                found_by.append(by)
    with ThreadPoolExecutor(max_workers=8) as pool:
        toolkits = tuple(pool.map(lambda item: _toolkit(host, *item), homes.values()))
    return CudaToolkits(
        toolkits=toolkits,
        chosen_home=chosen_home,
        chosen_by=chosen_by,
        cuda_home_variable=host.env("CUDA_HOME"),
        nvcc_on_path=nvcc,
        home_on_path=homes[host.real(os.path.dirname(os.path.dirname(nvcc)))][0] if nvcc else None,
    )


def _chosen(host: Host, nvcc: str | None) -> tuple[str | None, str | None]:
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        value = host.env(variable)
        if value:
            return value.rstrip("/") or "/", variable
    if nvcc:
        return os.path.dirname(os.path.dirname(nvcc)), "nvcc on PATH"
    if host.exists("/usr/local/cuda"):
        return "/usr/local/cuda", "the default /usr/local/cuda"
    return None, None


def _candidates(
    host: Host,
    nvcc: str | None,
    chosen_home: str | None,
    chosen_by: str | None,
    packages: Packages | None,
) -> Iterator[tuple[str, str]]:
    if chosen_home and chosen_by:
        yield chosen_home, chosen_by
    for variable in ("CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"):
        value = host.env(variable)
        if value:
            yield value.rstrip("/"), variable
    if nvcc:
        yield os.path.dirname(os.path.dirname(nvcc)), "nvcc on PATH"
    for folder in _FOLDERS:
        for name in host.names(folder):
            if _NAMES.fullmatch(name):
                yield f"{folder}/{name}", folder
    torch_file = packages.modules.get("torch") if packages else None
    if torch_file:  # NVIDIA's wheels: nvidia/cuda_nvcc for CUDA 12, nvidia/cu13 for CUDA 13
        site_packages = os.path.dirname(os.path.dirname(torch_file))
        for name in host.names(f"{site_packages}/nvidia"):
            yield f"{site_packages}/nvidia/{name}", "a pip package"


def _toolkit(host: Host, home: str, found_by: list[str]) -> Toolkit:
    nvcc = f"{home}/bin/nvcc"
    version, problem = None, None
    if not host.exists(nvcc):
        problem = "there is no bin/nvcc in it"
    else:
        done = host.run([nvcc, "-V"], seconds=10)
        release = re.search(r"\brelease (\d+\.\d+)", done.stdout)
        if release:
            version = release.group(1)
        else:
            problem = f"its nvcc {done.problem or 'prints no version'}"
    headers = any(
        host.exists(f"{home}/{place}/cuda_runtime.h")
        for place in ("include", "targets/x86_64-linux/include", "targets/sbsa-linux/include")
    )
    return Toolkit(
        home=home,
        nvcc=nvcc,
        found_by=tuple(found_by),
        version=version,
        headers=headers,
        problem=problem,
        newest_gcc=_newest_gcc(host, home),
    )


def _newest_gcc(host: Host, home: str) -> int | None:
    # Every nvcc includes this header first; it refuses a gcc that is newer.
    for place in ("include", "targets/x86_64-linux/include", "targets/sbsa-linux/include"):
        with contextlib.suppress(Unavailable):
            text = host.read(f"{home}/{place}/crt/host_config.h")
            found = re.search(r"gcc versions later than (\d+) are not supported", text)
            return int(found.group(1)) if found else None
    return None
