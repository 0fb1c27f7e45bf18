"""Asked in a child of the doctor: the driver and the GPUs, as NVML tells them, written as JSON.

argv: the parent's sys.path as JSON, and the descriptor to write on. A query that fails leaves its field
null; a GPU that fails, or does not answer in time, leaves only its problem ("GPU is lost").
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
import time
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
_FABRIC_STATES = ("not-supported", "not-started", "in-progress", "completed")
_GPUS_LIMIT_S = 15.0
"""For all GPUs together, from the start: the parent's limit (host.NVML_LIMIT_S) is longer, so that the GPUs
that answer are told of beside one that hangs."""
_BEGAN = time.monotonic()


def main() -> None:
    """Writes `{"driver", "driver_cuda", "gpus"}`, or `{"error"}` where NVML cannot be asked."""
    sys.path[:] = json.loads(sys.argv[1])
    with os.fdopen(int(sys.argv[2]), "w") as results:
        try:
            answer = _ask()
        except Exception as error:
            answer = {"error": _reason(error)}
        json.dump(answer, results)
    os._exit(0)  # a thread that hangs in the driver must not keep this process


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".") or type(error).__name__
    if text == "NVML Shared Library Not Found":
        return "no NVIDIA driver is installed here (libnvidia-ml.so.1 is not found)"
    return f"NVML: {text}"


def _ask() -> dict[str, Any]:
    import pynvml as nvml

    nvml.nvmlInit()  # the end of this process shuts it down: nvmlShutdown would wait for a call that hangs
    version = _optional(lambda nvml: nvml.nvmlSystemGetCudaDriverVersion_v2(), nvml)
    return {
        "driver": _text(nvml.nvmlSystemGetDriverVersion()),
        "driver_cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
        "gpus": _gpus(nvml, nvml.nvmlDeviceGetCount()),
    }


def _gpus(nvml: Any, count: int) -> list[dict[str, Any]]:
    """All of them at once: NVML may be called by several threads, and waking a GPU up takes it a second."""
    answers: dict[int, dict[str, Any]] = {}

    def ask(index: int) -> None:
        answers[index] = _gpu(nvml, index)

    threads = [threading.Thread(target=ask, args=(index,), daemon=True) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, _BEGAN + _GPUS_LIMIT_S - time.monotonic()))
    late = f"did not answer within {_GPUS_LIMIT_S:g} s"
    return [answers.get(index) or {"index": index, "problem": late} for index in range(count)]


def _gpu(nvml: Any, index: int) -> dict[str, Any]:
    try:
        gpu = nvml.nvmlDeviceGetHandleByIndex(index)
        fields = {field: _optional(query, nvml, gpu) for field, query in _FIELDS.items()}
        return {
            "index": index,
            "name": _text(nvml.nvmlDeviceGetName(gpu)),
            **fields,
            **(_optional(_memory, nvml, gpu) or {}),
            **(_optional(_fabric, nvml, gpu) or {}),
            **_nvlinks(nvml, gpu),
        }
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


def _memory(nvml: Any, gpu: Any) -> dict[str, int]:
    memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
    return {"memory_total_bytes": memory.total, "memory_free_bytes": memory.free}


def _processes(nvml: Any, gpu: Any) -> list[dict[str, Any]]:
    running = "nvmlDeviceGetComputeRunningProcesses"
    processes = _newest(nvml, gpu, f"{running}_v3", f"{running}_v2", running)  # drivers since 510, since 450
    return [{"pid": process.pid, "memory_bytes": process.usedGpuMemory} for process in processes]


def _mig_uuids(nvml: Any, gpu: Any) -> list[str]:
    """Of the parts that a GPU is divided into; CUDA_VISIBLE_DEVICES takes them."""
    if not nvml.nvmlDeviceGetMigMode(gpu)[0]:
        return []
    return _each(_mig_uuid, nvml, gpu, nvml.nvmlDeviceGetMaxMigDeviceCount(gpu))


def _mig_uuid(nvml: Any, gpu: Any, part: int) -> Any:
    return _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, part)))


def _fabric(nvml: Any, gpu: Any) -> dict[str, str | None]:
    """Where the GPU stands with its NVSwitches. Its status counts only once the state is completed:
    nvmlGpuFabricInfoV_t in nvml.h."""
    info = nvml.c_nvmlGpuFabricInfoV_t()
    nvml.nvmlDeviceGetGpuFabricInfoV(gpu, ctypes.byref(info))
    state = _FABRIC_STATES[info.state]
    status = "success" if info.status == nvml.NVML_SUCCESS else str(nvml.NVMLError(info.status))
    return {"fabric_state": state, "fabric_status": status if state == "completed" else None}


def _newest(nvml: Any, gpu: Any, *functions: str) -> Any:
    """The answer of the first of these functions that both the bindings and the driver have."""
    for function in functions[:-1]:
        try:
            return getattr(nvml, function)(gpu)
        except (AttributeError, nvml.NVMLError_FunctionNotFound):
            continue
    return getattr(nvml, functions[-1])(gpu)


def _throttle_reasons(nvml: Any, gpu: Any) -> list[str]:
    bits = _newest(
        nvml,
        gpu,
        "nvmlDeviceGetCurrentClocksEventReasons",  # since 535
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    )
    return [word for bit, word in enumerate(_THROTTLE_REASONS) if bits >> bit & 1]


# Lambdas, for bindings without the function must fail where _optional sees it.
_FIELDS: dict[str, Callable[[Any, Any], Any]] = {
    "uuid": lambda nvml, gpu: _text(nvml.nvmlDeviceGetUUID(gpu)),
    "pci_bus_id": lambda nvml, gpu: _text(nvml.nvmlDeviceGetPciInfo(gpu).busId),
    "compute_capability": lambda nvml, gpu: list(nvml.nvmlDeviceGetCudaComputeCapability(gpu)),
    "processes": _processes,
    "compute_mode": lambda nvml, gpu: _COMPUTE_MODES[nvml.nvmlDeviceGetComputeMode(gpu)],
    "persistence": lambda nvml, gpu: bool(nvml.nvmlDeviceGetPersistenceMode(gpu)),
    "mig": lambda nvml, gpu: bool(nvml.nvmlDeviceGetMigMode(gpu)[0]),
    "mig_uuids": _mig_uuids,
    "ecc": lambda nvml, gpu: bool(nvml.nvmlDeviceGetEccMode(gpu)[0]),
    "ecc_errors_volatile": lambda nvml, gpu: _uncorrected(nvml, gpu, nvml.NVML_VOLATILE_ECC),
    "ecc_errors_aggregate": lambda nvml, gpu: _uncorrected(nvml, gpu, nvml.NVML_AGGREGATE_ECC),
    "remapped_rows": lambda nvml, gpu: _remapped_rows(*nvml.nvmlDeviceGetRemappedRows(gpu)),
    "retired_pages_pending": lambda nvml, gpu: bool(nvml.nvmlDeviceGetRetiredPagesPendingStatus(gpu)),
    "throttle_reasons": _throttle_reasons,
    "pcie_generation": lambda nvml, gpu: nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu),
    "pcie_generation_max": lambda nvml, gpu: nvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu),
    "pcie_width": lambda nvml, gpu: nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu),
    "pcie_width_max": lambda nvml, gpu: nvml.nvmlDeviceGetMaxPcieLinkWidth(gpu),
}


def _nvlinks(nvml: Any, gpu: Any) -> dict[str, int | None]:
    # A link that this GPU lacks fails, and is passed over: nothing says that those it has are the first ones.
    states = _each(lambda nvml, gpu, link: nvml.nvmlDeviceGetNvLinkState(gpu, link), nvml, gpu, _NVLINKS)
    active = sum(map(bool, states))
    return {
        "nvlinks_active": active if states else None,
        "nvlinks_inactive": len(states) - active if states else None,
    }


def _each(query: Callable[[Any, Any, int], Any], nvml: Any, gpu: Any, count: int) -> list[Any]:
    """The answers of those of `count` links or parts that there are."""
    answers = [_optional(query, nvml, gpu, index) for index in range(count)]
    return [answer for answer in answers if answer is not None]


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
