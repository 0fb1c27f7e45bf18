"""Asked in a child of the doctor: the driver and the GPUs, as NVML tells them, written as JSON.

argv: the parent's sys.path as JSON, and the descriptor to write on. A query that fails leaves its field
null; a GPU that fails leaves only its problem ("GPU is lost").
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

_COMPUTE_MODES = ("default", "exclusive-thread", "prohibited", "exclusive-process")
_THROTTLE_REASONS = (  # the word of bit 0, of bit 1, ...
    "gpu-idle",
    "applications-clocks",
    "sw-power-cap",
    "hw-slowdown",
    "sync-boost",
    "sw-thermal",
    "hw-thermal",
    "hw-power-brake",
    "display-clock",
    "board-limit",
    "reliability",
)
# As many as the newest GPU has. The bindings' own NVML_NVLINK_MAX_LINKS is of their age: 12 before the H100,
# which has 18.
_NVLINKS = 36


def main() -> None:
    """Writes `{"driver", "driver_cuda", "gpus"}`, or `{"error"}` where NVML cannot be asked."""
    sys.path[:] = json.loads(sys.argv[1])
    with os.fdopen(int(sys.argv[2]), "w") as results:
        try:
            answer = _ask()
        except Exception as error:
            answer = {"error": _reason(error)}
        json.dump(answer, results)


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".") or type(error).__name__
    if text == "NVML Shared Library Not Found":
        return "no NVIDIA driver is installed here (libnvidia-ml.so.1 is not found)"
    return f"NVML: {text}"


def _ask() -> dict[str, Any]:
    import pynvml as nvml

    nvml.nvmlInit()
    try:
        version = _optional(lambda nvml: nvml.nvmlSystemGetCudaDriverVersion_v2(), nvml)
        return {
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
            "gpus": [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())],
        }
    finally:
        nvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    try:
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(nvml.nvmlDeviceGetName(gpu))
        fields = {field: _optional(query, nvml, gpu) for field, query in _FIELDS.items()}
        return {"index": index, "name": name, **fields, **_nvlinks(nvml, gpu)}
    except Exception as error:
        return {"index": index, "problem": str(error)}


def _uncorrected(nvml: Any, gpu: Any, counter: int) -> int:
    total: int = nvml.nvmlDeviceGetTotalEccErrors(gpu, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, counter)
    return total


def _remapped_rows(correctable: int, uncorrectable: int, pending: int, failed: int) -> dict[str, Any]:
    return {
        "correctable": correctable,
        "uncorrectable": uncorrectable,
        "pending": bool(pending),
        "failed": bool(failed),
    }


def _throttle_reasons(nvml: Any, gpu: Any) -> list[str]:
    try:
        bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(gpu)
    except (AttributeError, nvml.NVMLError_FunctionNotFound):  # bindings or a driver before 535
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu)
    return [word for bit, word in enumerate(_THROTTLE_REASONS) if bits >> bit & 1]


# Lambdas, for bindings without the function must fail where _optional sees it.
_FIELDS: dict[str, Callable[[Any, Any], Any]] = {
    "uuid": lambda nvml, gpu: _text(nvml.nvmlDeviceGetUUID(gpu)),
    "pci_bus_id": lambda nvml, gpu: _text(nvml.nvmlDeviceGetPciInfo(gpu).busId),
    "compute_capability": lambda nvml, gpu: list(nvml.nvmlDeviceGetCudaComputeCapability(gpu)),
    "memory_total_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    "memory_free_bytes": lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).free,
    "processes": lambda nvml, gpu: [
        {"pid": process.pid, "memory_bytes": process.usedGpuMemory}
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    ],
    "compute_mode": lambda nvml, gpu: _COMPUTE_MODES[nvml.nvmlDeviceGetComputeMode(gpu)],
    "persistence": lambda nvml, gpu: bool(nvml.nvmlDeviceGetPersistenceMode(gpu)),
    "mig": lambda nvml, gpu: bool(nvml.nvmlDeviceGetMigMode(gpu)[0]),
    "ecc": lambda nvml, gpu: bool(nvml.nvmlDeviceGetEccMode(gpu)[0]),
    "ecc_errors_volatile": lambda nvml, gpu: _uncorrected(nvml, gpu, nvml.NVML_VOLATILE_ECC),
    "ecc_errors_aggregate": lambda nvml, gpu: _uncorrected(nvml, gpu, nvml.NVML_AGGREGATE_ECC),
    "remapped_rows": lambda nvml, gpu: _remapped_rows(*nvml.nvmlDeviceGetRemappedRows(gpu)),
    "throttle_reasons": _throttle_reasons,
    "pcie_generation": lambda nvml, gpu: nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    "pcie_generation_max": lambda nvml, gpu: nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu),
    "pcie_width": lambda nvml, gpu: nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu),
    "pcie_width_max": lambda nvml, gpu: nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu),
}


def _nvlinks(nvml: Any, gpu: Any) -> dict[str, int | None]:
    # A link that this GPU lacks fails, and is passed over: nothing says that those it has are the first ones.
    states = [
        _optional(lambda nvml, gpu, link: nvml.nvmlDeviceGetNvLinkState(gpu, link), nvml, gpu, link)
        for link in range(_NVLINKS)
    ]
    known = [bool(state) for state in states if state is not None]
    return {
        "nvlinks_active": known.count(True) if known else None,
        "nvlinks_inactive": known.count(False) if known else None,
    }


def _optional(query: Callable[..., Any], nvml: Any, *arguments: Any) -> Any:
    try:
        return query(nvml, *arguments)
    except (nvml.NVMLError_GpuIsLost, nvml.NVMLError_ResetRequired):
        raise  # what was read before would look like a healthy GPU
    except Exception:  # not supported by these bindings, this driver or this GPU: the field stays unknown
        return None


def _text(value: Any) -> Any:
    # NVML bindings before 12 return bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


main()
