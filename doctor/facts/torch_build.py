"""What the installed torch was built for, out of torch/version.py as text."""

from __future__ import annotations

import ast
import os.path

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import Packages, TorchBuild

SOURCE = "torch/version.py"


def read(host: Host, packages: Packages) -> TorchBuild:
    """Version, CUDA version and kind of build. Raises Unavailable where there is no torch."""
    init = packages.modules.get("torch")
    if init is None:
        raise Unavailable("torch is not installed")
    values = constants(host.read(os.path.join(os.path.dirname(init), "version.py")))
    version = values.get("__version__") or packages.installed.get("torch")
    if version is None:
        raise Unavailable("torch/version.py names no version")
    cuda = values.get("cuda")
    if cuda:
        return TorchBuild(version=version, cuda=cuda, kind="cuda")
    kind = next((kind for kind, name in (("rocm", "hip"), ("xpu", "xpu")) if values.get(name)), "cpu")
    return TorchBuild(version=version, cuda=None, kind=kind)  # type: ignore[arg-type]


def constants(source: str) -> dict[str, str]:
    """The string constants assigned at module level: `cuda = '10.2'`, `cuda: Optional[str] = None`."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise Unavailable(f"torch/version.py cannot be read: {error}") from error
    values: dict[str, str] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, value = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, value = [statement.target], statement.value
        else:
            continue
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            values.update({t.id: value.value for t in targets if isinstance(t, ast.Name)})
    return values
