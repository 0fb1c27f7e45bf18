"""Nodes that are described in tests/nodes/*.toml, played by a false driver that the real pynvml loads.

`like` names the node that another one begins from. `gpu` is what every GPU has, `gpus` what one has of its
own (`index` names one of the node that this one is like). `fails` says what a function of NVML does instead
of answering: an error by its name, "hang" or "crash". `missing` are functions that the library lacks.
`nvswitches` are PCI addresses. `log` is what the driver wrote to the kernel's log; without it, the log may
not be read.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Mapping

import pynvml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TESTS = Path(__file__).resolve().parent
NODES = sorted(path.stem for path in (TESTS / "nodes").glob("*.toml"))


def described(name: str) -> dict[str, Any]:
    """The node of that name, with all that it has from the node that it is like."""
    own = tomllib.loads((TESTS / "nodes" / f"{name}.toml").read_text())
    node: dict[str, Any] = described(own.pop("like")) if "like" in own else {"gpu": {}, "gpus": []}
    gpus: list[dict[str, Any]] = node["gpus"]
    for gpu in own.pop("gpus", ()):
        if "index" in gpu:
            gpus[gpu["index"]].update(gpu)
        else:
            gpus.append({**gpu, "index": len(gpus)})
    return {**node, **own, "gpu": {**node["gpu"], **own.get("gpu", {})}, "gpus": gpus}


class Driver:
    """Compiles the driver that plays nodes, once for each set of functions that it lacks."""

    def __init__(self, compiler: str, folder: Path) -> None:
        self._compiler = compiler
        self._folder = folder

    def play(
        self, name: str, count: int | None = None, delay_us: int = 0, **changes: object
    ) -> dict[str, str]:
        """The environment in which programs see the node `name`.

        `count` is for how many GPUs it has, the missing ones like its others; `delay_us` for how long each
        query takes; `changes` are for every GPU."""
        node = described(name)
        node["gpu"] = {**node["gpu"], **changes}
        if count is not None:
            further = range(len(node["gpus"]), count)
            node["gpus"] += [{"index": it, "bus_id": f"00000001:{it:02X}:00.0"} for it in further]
            del node["gpus"][count:]
        lines = [*_lines(node), f"* delay_us {delay_us}"]
        folder = self._folder / hashlib.sha256("\n".join([name, *lines]).encode()).hexdigest()[:16]
        if not folder.is_dir():
            _write_files(node, folder)
            (folder / "node").write_text("\n".join(lines) + "\n")
        library = self._compiled("false_nvml.c", "libnvidia-ml.so.1", tuple(node.get("missing", ())))
        return {
            "FALSE_NODE": str(folder / "node"),
            "FALSE_FILES": str(folder),
            "LD_LIBRARY_PATH": str(library.parent),
            "LD_PRELOAD": str(self._compiled("false_driver_files.c", "libfalse-files.so")),
        }

    def _compiled(self, source: str, library: str, missing: tuple[str, ...] = ()) -> Path:
        folder = self._folder / hashlib.sha256(" ".join([source, *missing]).encode()).hexdigest()[:16]
        if not folder.is_dir():
            folder.mkdir(parents=True)
            hidden = "".join(f" {function};" for function in missing)
            (folder / "symbols").write_text(f"{{ global: *;{' local:' + hidden if hidden else ''} }};\n")
            argv = [self._compiler, "-shared", "-fPIC", f"-Wl,--version-script={folder / 'symbols'}"]
            argv += ["-o", str(folder / library), str(TESTS / "native" / source), "-ldl"]
            subprocess.run(argv, check=True)
        return folder / library


def _lines(node: Mapping[str, Any]) -> list[str]:
    """As false_nvml.c reads them: `GPU KEY VALUE`, the later line wins."""
    major, minor = node["cuda"].split(".")
    whole = {
        "driver": node["driver"],
        "cuda": int(major) * 1000 + int(minor) * 10,
        "count": len(node["gpus"]),
        "fails": node.get("fails", {}),
    }
    lines = [f"* {line}" for line in (*_settings(node["gpu"]), *_settings(whole))]
    for gpu in node["gpus"]:
        lines += [f"{gpu['index']} {line}" for line in _settings({"uuid": _uuid(gpu), **gpu})]
    return lines


def _uuid(gpu: Mapping[str, Any]) -> str:
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_OID, gpu['bus_id'])}"


def _settings(gpu: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in gpu.items():
        if key == "fails":
            lines += [f"{function} {_instead(what)}" for function, what in value.items()]
        elif key == "mig_devices":
            lines += [f"mig_uuid_{at} {device}" for at, device in enumerate(value)]
        elif key == "compute_mode":
            lines.append(f"compute_mode {getattr(pynvml, f'NVML_COMPUTEMODE_{value}')}")
        elif key == "fabric":
            state, status = value
            lines.append(f"fabric {getattr(pynvml, f'NVML_GPU_FABRIC_STATE_{state}')} {_number(status)}")
        elif key == "processes":
            lines.append("processes " + " ".join(f"{pid} {mib}" for pid, mib in value))
        elif key == "remapped_rows":
            lines.append("remapped_rows " + " ".join(map(str, value)))
        else:
            lines.append(f"{key} {int(value) if isinstance(value, bool) else value}")
    return lines


def _instead(what: str) -> str:
    return what if what in ("hang", "crash") else str(_number(what))


def _number(error: str) -> int:
    number: int = getattr(pynvml, "NVML_SUCCESS" if error == "SUCCESS" else f"NVML_ERROR_{error}")
    return number


def _write_files(node: Mapping[str, Any], folder: Path) -> None:
    """What the driver and the kernel show of the GPUs."""
    driver = folder / "proc/driver/nvidia"
    driver.mkdir(parents=True)
    module = node.get("kernel_module", node["driver"])
    (driver / "version").write_text(
        f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {module}  Tue Jan  2 03:04:05 UTC 2024\n"
    )
    devices = folder / "dev"
    devices.mkdir()
    for name in ("nvidiactl", "nvidia-uvm", *(f"nvidia{gpu['index']}" for gpu in node["gpus"])):
        (devices / name).write_text("")
    if "log" in node:
        records = [f"4,{at},{at * 1000},-;{text}\n" for at, text in enumerate(node["log"])]
        (devices / "kmsg").write_text("".join(records))
    (folder / "sys/module/nvidia_uvm").mkdir(parents=True)
    (folder / "sys/bus/pci/devices").mkdir(parents=True)
    for address in node.get("nvswitches", ()):
        (folder / "proc/driver/nvidia-nvswitch/devices" / address).mkdir(parents=True)
    for gpu in node["gpus"]:
        address = gpu["bus_id"][4:].lower()
        (driver / "gpus" / address).mkdir(parents=True)
        model = node["gpu"]["name"]
        (driver / "gpus" / address / "information").write_text(
            f"Model: \t\t {model}\nIRQ:   \t\t {40 + gpu['index']}\n"
        )
        device = folder / "sys/bus/pci/devices" / address
        device.mkdir()
        (device / "class").write_text("0x030200\n")
        (device / "vendor").write_text("0x10de\n")
