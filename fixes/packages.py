"""Remedies that install another build of a package, with the patient's own interpreter."""

from __future__ import annotations

import shlex
from typing import NamedTuple

from packaging.version import InvalidVersion, Version

from llm_doctor.model import Fix


class _Wheels(NamedTuple):
    torch: str
    oldest_python: str
    cudas: tuple[str, ...]


# Which CUDA versions torch's own index serves Linux wheels for, newest release first. To 2.9 from
# https://pytorch.org/get-started/previous-versions/ and RELEASE.md of pytorch; from 2.12 see pytorch #190355.
# The index cannot be asked: the doctor makes no connections.
_WHEELS = (
    _Wheels("2.14", "3.10", ("12.6", "13.0", "13.2")),
    _Wheels("2.13", "3.10", ("12.6", "13.0", "13.2")),
    _Wheels("2.12", "3.10", ("12.6", "13.0", "13.2")),
    _Wheels("2.9", "3.10", ("12.6", "12.8", "13.0")),
    _Wheels("2.8", "3.9", ("12.6", "12.8", "12.9")),
    _Wheels("2.7", "3.9", ("11.8", "12.6", "12.8")),
    _Wheels("2.6", "3.9", ("11.8", "12.4", "12.6")),
    _Wheels("2.5", "3.9", ("11.8", "12.1", "12.4")),
    _Wheels("2.4", "3.8", ("11.8", "12.1", "12.4")),
    _Wheels("2.3", "3.8", ("11.8", "12.1")),
    _Wheels("2.2", "3.8", ("11.8", "12.1")),
    _Wheels("2.1", "3.8", ("11.8", "12.1")),
    _Wheels("2.0", "3.8", ("11.7", "11.8")),
    _Wheels("1.13", "3.7", ("11.6", "11.7")),
    _Wheels("1.12", "3.7", ("10.2", "11.3", "11.6")),
)


def install_torch_for(cuda: str, *, python: str, python_version: str, torch_version: str) -> Fix | None:
    """The line that installs a torch built for this CUDA version: the same release where it has such a
    wheel, else the newest that has one and runs on this Python. None where there is no such wheel."""
    release = _parsed(torch_version)
    wheels = [
        row for row in _WHEELS if cuda in row.cudas and Version(row.oldest_python) <= Version(python_version)
    ]
    if not wheels or release is None:
        return None
    same = f"{release.major}.{release.minor}"
    if same in (row.torch for row in wheels):
        wanted = f"torch=={release.public}"
    else:
        wanted = f"torch=={wheels[0].torch}.*"
    index = f"https://download.pytorch.org/whl/cu{cuda.replace('.', '')}"
    return Fix(
        title=f"install a torch built for CUDA {cuda}",
        kind="command",
        applicability="manual",
        preview=f"{shlex.quote(python)} -m pip install --force-reinstall '{wanted}' --index-url {index}",
    )


def _parsed(version: str) -> Version | None:
    try:
        return Version(version)
    except InvalidVersion:
        return None
