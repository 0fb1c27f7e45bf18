"""Remedies that install another build of a package, with the patient's own interpreter."""

from __future__ import annotations

import shlex
from typing import Callable, Iterable, NamedTuple

from packaging.version import Version

from llm_doctor.model import Fix


class _Wheels(NamedTuple):
    torch: str
    pythons: tuple[str, str]
    cudas: tuple[str, ...]


# Which CUDA versions torch's own index serves Linux wheels for, and for which Pythons, newest first. To 2.9
# from https://pytorch.org/get-started/previous-versions/ and RELEASE.md of pytorch; later ones from
# pytorch PR #175253 and #190355. The index cannot be asked: the doctor makes no connections.
_WHEELS = (
    _Wheels("2.14", ("3.10", "3.14"), ("12.6", "13.0", "13.2")),
    _Wheels("2.13", ("3.10", "3.14"), ("12.6", "13.0", "13.2")),
    _Wheels("2.12", ("3.10", "3.14"), ("12.6", "13.0", "13.2")),
    _Wheels("2.11", ("3.10", "3.14"), ("12.6", "12.8", "13.0")),
    _Wheels("2.10", ("3.10", "3.14"), ("12.6", "12.8", "13.0")),
    _Wheels("2.9", ("3.10", "3.14"), ("12.6", "12.8", "13.0")),
    _Wheels("2.8", ("3.9", "3.13"), ("12.6", "12.8", "12.9")),
    _Wheels("2.7", ("3.9", "3.13"), ("11.8", "12.6", "12.8")),
    _Wheels("2.6", ("3.9", "3.13"), ("11.8", "12.4", "12.6")),
    _Wheels("2.5", ("3.9", "3.12"), ("11.8", "12.1", "12.4")),
    _Wheels("2.4", ("3.8", "3.12"), ("11.8", "12.1", "12.4")),
    _Wheels("2.3", ("3.8", "3.12"), ("11.8", "12.1")),
    _Wheels("2.2", ("3.8", "3.12"), ("11.8", "12.1")),
    _Wheels("2.1", ("3.8", "3.11"), ("11.8", "12.1")),
    _Wheels("2.0", ("3.8", "3.11"), ("11.7", "11.8")),
    _Wheels("1.13", ("3.7", "3.10"), ("11.6", "11.7")),
    _Wheels("1.12", ("3.7", "3.10"), ("10.2", "11.3", "11.6")),
)


def install_torch(
    fits: Callable[[Version], bool], *, python: str, python_version: str, torch_version: str
) -> Fix | None:
    """The line that installs a torch whose CUDA version fits: the same release where it has such a wheel,
    else the nearest that has one and runs on this Python. None where there is no such wheel."""
    try:
        release, interpreter = Version(torch_version), Version(python_version)
    except ValueError:  # InvalidVersion, or more digits than Python reads
        return None
    python_minor = Version(f"{interpreter.major}.{interpreter.minor}")
    wheels = [
        (row.torch, cuda)
        for row in _WHEELS
        for cuda in reversed(row.cudas)
        if fits(Version(cuda)) and Version(row.pythons[0]) <= python_minor <= Version(row.pythons[1])
    ]
    if not wheels:
        return None
    order = [row.torch for row in _WHEELS]
    own = f"{release.major}.{release.minor}"
    position = order.index(own) if own in order else 0
    torch, cuda = min(wheels, key=lambda wheel: abs(order.index(wheel[0]) - position))
    tag = f"cu{cuda.replace('.', '')}"
    # The local version makes pip replace a build of the same release.
    wanted = f"torch=={release.public}+{tag}" if torch == own else f"torch=={torch}.*"
    index = f"https://download.pytorch.org/whl/{tag}"
    return Fix(
        title=f"install a torch built for CUDA {cuda}",
        kind="command",
        applicability="manual",
        preview=f"{shlex.quote(python)} -m pip install '{wanted}' --index-url {index}",
    )


def runs_on(driver_cuda: str, capabilities: Iterable[tuple[int, int]]) -> Callable[[Version], bool]:
    """Whether a wheel's CUDA version runs on this driver and on GPUs of these compute capabilities.

    Within a major version any minor runs on any driver of that major
    (https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html). GPUs before 7.5 have
    no kernels in wheels for CUDA 13, nor from torch 2.7 on reliably in those for 12.8 and later
    (pytorch #172352): 12.6 is what always has them."""
    newest = Version("12.6") if any(capability < (7, 5) for capability in capabilities) else None

    def fits(cuda: Version) -> bool:
        return cuda.major <= Version(driver_cuda).major and (newest is None or cuda <= newest)

    return fits


def install_toolkit(cuda: str) -> Fix:
    """Where the toolkit of this CUDA version (`12.8`) is to be had, and how a build finds it."""
    return Fix(
        title=f"install the CUDA {cuda} toolkit and point CUDA_HOME at it",
        kind="advice",
        applicability="manual",
        preview="# from https://developer.nvidia.com/cuda-toolkit-archive\n"
        f"export CUDA_HOME=/usr/local/cuda-{cuda}",
    )
