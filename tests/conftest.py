"""What the tests share: the program as a subprocess, patients made on the spot, a C compiler."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any, Callable, Mapping

import jsonschema
import pytest
from false_node import Driver

ROOT = Path(__file__).resolve().parent.parent
# What a developer's shell has set must not choose the patient.
NEUTRAL = {
    name: value
    for name, value in os.environ.items()
    if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_HOME", "CUDA_PATH", "NO_COLOR", "PYTHONPATH")
}

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def run_doctor(
    *arguments: str, env: Mapping[str, str | None] | None = None, timeout: float = 180, **keywords: Any
) -> subprocess.CompletedProcess[str]:
    """The program, as a user runs it; a variable set to None is unset."""
    environment = {**NEUTRAL, **(env or {})}
    return subprocess.run(
        [sys.executable, "-m", "llm_doctor", *arguments],
        env={name: value for name, value in environment.items() if value is not None},
        timeout=timeout,
        **{"capture_output": True, "text": True, **keywords},
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The JSON report that a run printed, valid against the committed schema."""
    assert "Traceback" not in done.stderr, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    schema = json.loads((ROOT / "docs" / "report.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(report)
    return report


def check_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    """One check's part of a report."""
    return next(check for check in report["checks"] if check["name"] == name)


@pytest.fixture
def doctor() -> Run:
    return run_doctor


@pytest.fixture
def make_patient(tmp_path: Path) -> Callable[..., Path]:
    """Makes an environment of this Python and returns its interpreter.

    `modules` are written as files; `packages` get their metadata; `behind` folders come after those on
    sys.path, so that a broken package can stand before a whole stack."""

    def make(
        modules: Mapping[str, str] | None = None,
        packages: Mapping[str, str] | None = None,
        behind: tuple[str, ...] = (),
    ) -> Path:
        folder = tmp_path / "patient"
        venv.create(folder, symlinks=True)
        site = next((folder / "lib").glob("python*/site-packages"))
        for name, source in (modules or {}).items():
            (site / name).parent.mkdir(parents=True, exist_ok=True)
            (site / name).write_text(source)
        for name, version in (packages or {}).items():
            info = site / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (site / "behind.pth").write_text("".join(f"{path}\n" for path in behind))
        return folder / "bin" / "python"

    return make


@pytest.fixture(scope="session")
def stack_site() -> str:
    """The site-packages of the stack that this environment has; skips where there is none."""
    torch = pytest.importorskip("torch", reason="the stack is not installed (make test installs it)")
    return str(Path(torch.__file__).parent.parent)


@pytest.fixture(scope="session")
def compile_library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Compiles tests/native/NAME into a shared library of the given file name; returns its folder."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")

    def compile_(source: str, library: str) -> Path:
        folder = tmp_path_factory.mktemp("native")
        subprocess.run(
            [
                compiler,
                "-shared",
                "-fPIC",
                "-o",
                str(folder / library),
                str(ROOT / "tests/native" / source),
                "-ldl",
            ],
            check=True,
        )
        return folder

    return compile_


@pytest.fixture(scope="session")
def false_driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """Plays the nodes of tests/nodes: `false_driver.play("v100")` is the environment of one."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    return Driver(compiler, tmp_path_factory.mktemp("nodes"))


def processes_with(marker: str) -> list[int]:
    """The running processes whose environment holds this text."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if marker.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue
    return found
