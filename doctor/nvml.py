"""Asked in a child of the doctor: the driver and the GPUs, as NVML tells them, written as JSON.

argv: the parent's sys.path as JSON, and the descriptor to write on. A query that fails leaves its field
out; a GPU that fails leaves its problem ("GPU is lost").
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable


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
    import pynvml

    pynvml.nvmlInit()
    try:
        version = _optional(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return {
            "driver": _text(pynvml.nvmlSystemGetDriverVersion()),
            "driver_cuda": None if version is None else f"{version // 1000}.{version % 1000 // 10}",
            "gpus": [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())],
        }
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> dict[str, Any]:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        name = _text(pynvml.nvmlDeviceGetName(handle))
    except Exception as error:
        return {"index": index, "problem": str(error)}
    memory = _optional(pynvml.nvmlDeviceGetMemoryInfo, handle)
    capability = _optional(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    processes = _optional(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    return {
        "index": index,
        "name": name,
        "uuid": _text(_optional(pynvml.nvmlDeviceGetUUID, handle)),
        "compute_capability": None if capability is None else list(capability),
        "memory_total_bytes": None if memory is None else memory.total,
        "memory_free_bytes": None if memory is None else memory.free,
        "processes": None
        if processes is None
        else [{"pid": process.pid, "memory_bytes": process.usedGpuMemory} for process in processes],
    }


def _optional(query: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return query(*arguments)
    except Exception:  # not supported by this driver or GPU: the field stays unknown
        return None


def _text(value: Any) -> Any:
    # NVML bindings before 12 return bytes.
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


main()
