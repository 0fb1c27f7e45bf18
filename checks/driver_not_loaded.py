"""There is no NVIDIA driver: it is not installed, not loaded, or not visible here."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
    symptom_shown,
    without,
)
from llm_doctor.checks.device_nodes_missing import refuses
from llm_doctor.checks.driver_library_mismatch import DriverLibraryMismatch
from llm_doctor.model import Accelerator, Accelerators, Finding, Gpus, NvidiaModule, Subject


class DriverNotLoaded(Check):
    """There is no NVIDIA driver: it is not installed, not loaded, or not visible here.

    ## What it finds

    An NVIDIA GPU on the PCI bus that no driver drives, and a loaded kernel module whose library is missing,
    crashes or does not answer. In a log: torch, NVML, nvidia-smi and the container runtime that find no
    driver, and imports that fail because libcuda.so.1 is missing.

    ## Why it breaks

    libcuda.so.1 and libnvidia-ml.so.1 come with the driver and with nothing else. They are missing on a
    login node, in a container started without its GPUs, and after a kernel upgrade that the module was
    not built for.

    ## How it is proven

    By what the bus, the kernel and NVML say on this node, or by the log.

    ## Fix

    Install or load the driver; give the container its GPUs; run on a GPU node.

    ## References

    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    - https://github.com/pytorch/pytorch/issues/74733
    - https://github.com/vllm-project/vllm/issues/27268
    """

    name = "driver-not-loaded"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (Accelerators,)
    url = "https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp"
    symptoms = (
        Symptom(
            pattern=r"Error: Found no NVIDIA driver on your system",
            example="RuntimeError: Found no NVIDIA driver on your system. Please check that you "
            "have an NVIDIA GPU and installed a driver",
            counter_example="The NVIDIA driver on your system is too old (found version 11040)",
        ),
        Symptom(
            pattern=r"Found no NVIDIA driver on your system",
            example="UserWarning: CUDA initialization: Found no NVIDIA driver on your system. "
            "Please check that you have an NVIDIA GPU",
            counter_example="The NVIDIA driver on your system is too old (found version 11040)",
            standing="hint",
        ),
        Symptom(
            pattern=r"couldn't communicate with the NVIDIA driver",
            example="NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA "
            "driver. Make sure that the latest NVIDIA driver is installed and running.",
            counter_example="NVIDIA-SMI 550.54.14",
            cause="The driver's kernel module is not loaded: nvidia-smi cannot speak to it",
        ),
        Symptom(
            pattern=r"nvml error: (?:driver not loaded|not found|unknown error)",
            example="nvidia-container-cli: initialization error: nvml error: driver not loaded: unknown",
            counter_example="nvml error: driver/library version mismatch: unknown",
            cause="The host's driver is not loaded, so no container gets a GPU",
        ),
        Symptom(
            pattern=r"load library failed: (?P<library>libnvidia-ml\.so\.1|libcuda\.so\.1)",
            example="nvidia-container-cli: initialization error: load library failed: "
            "libnvidia-ml.so.1: cannot open shared object file: no such file or "
            "directory: unknown",
            counter_example="load library failed: libfoo.so",
            cause="The host has no driver: {library} is missing",
        ),
        Symptom(
            pattern=r"libcuda\.so(?:\.1)?: cannot open shared object",
            example="ImportError: libcuda.so.1: cannot open shared object file: No such file or directory",
            counter_example="ImportError: libcudart.so.12: cannot open shared object file: No such "
            "file or directory",
            cause="libcuda.so.1, which comes with the driver, is not to be found here",
        ),
        Symptom(
            pattern=r"Error_(?:LibraryNotFound|DriverNotLoaded)|NVML Shared Library Not Found|"
            r"Driver Not Loaded\b",
            example="pynvml.NVMLError_LibraryNotFound: NVML Shared Library Not Found",
            counter_example="pynvml.NVMLError_NotSupported: Not Supported",
            cause="NVML, which comes with the driver, is not to be found or not loaded",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA driver initialization failed, you might not have a CUDA gpu",
            example="RuntimeError: CUDA driver initialization failed, you might not have a CUDA gpu.",
            counter_example="CUDA initialization: CUDA unknown error",
            cause="The driver could not be initialised: no GPU here, or the driver is broken",
            sure="likely",
        ),
        Symptom(
            pattern=r"Failed to infer device type",
            example="RuntimeError: Failed to infer device type, please set the environment "
            "variable `VLLM_LOGGING_LEVEL=DEBUG`",
            counter_example="INFO Automatically detected platform cuda.",
            cause="vLLM finds no GPU: no driver is visible here, or torch has no CUDA",
            sure="likely",
        ),
        Symptom(
            pattern=r"No platform detected, vLLM is running on UnspecifiedPlatform",
            example="INFO 08-29 04:29:54 [__init__.py:245] No platform detected, vLLM is running "
            "on UnspecifiedPlatform",
            counter_example="INFO Automatically detected platform cuda.",
            cause="vLLM finds no GPU: no driver is visible here, or torch has no CUDA",
            standing="hint",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_STUB_LIBRARY|cudaErrorStubLibrary|CUDA driver is a stub library",
            example="RuntimeError: CUDA error: CUDA driver is a stub library",
            counter_example="LIBRARY_PATH=/usr/local/cuda/lib64/stubs",
            cause="The toolkit's stub of libcuda.so was loaded instead of the driver's library",
            fixes=(
                remedy(
                    "take the stubs folder off LD_LIBRARY_PATH (it is for linking: LIBRARY_PATH)",
                    "export LD_LIBRARY_PATH=$(echo $LD_LIBRARY_PATH | tr ':' '\\n' | grep -v stubs | paste "
                    "-sd:)",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"failed call to cuInit: (?P<error>CUDA_ERROR_(?!NO_DEVICE)\w{3,40}|UNKNOWN "
            r"ERROR)",
            example="failed call to cuInit: CUDA_ERROR_UNKNOWN: unknown error",
            counter_example="failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected",
            cause="The driver could not be initialised: {error}",
            sure="likely",
        ),
        Symptom(
            pattern=r"The NVIDIA Driver is present, but CUDA failed to initialize",
            example="ERROR: The NVIDIA Driver is present, but CUDA failed to initialize.  GPU functionality "
            "will not be available.",
            counter_example="NOTE: CUDA Forward Compatibility mode ENABLED.",
            cause="The driver is there, but CUDA cannot be initialized on it",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"The NVIDIA Driver was not detected\.",
            example="WARNING: The NVIDIA Driver was not detected.  GPU functionality will not be available.",
            counter_example="NOTE: The SHMEM allocation limit is set to the default of 64MB.",
            cause="The container was started without GPUs",
            standing="hint",
        ),
    )
    remedies = (
        remedy("see whether the driver works on the host", "nvidia-smi"),
        remedy("in a container: start it with its GPUs", "docker run --gpus all ..."),
        remedy(
            "on a cluster: run on a GPU node, and ask the scheduler for a GPU", "srun --gres=gpu:1 --pty bash"
        ),
        remedy(
            "on the host: load the module; after a kernel upgrade install the driver again",
            "sudo modprobe nvidia || sudo apt-get install --reinstall nvidia-dkms-580-server",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What is on the bus and in the kernel, against what NVML says."""
        if case.known(Gpus) is not None:
            return
        said = case.facts.gpus.reason or ""
        module = case.known(NvidiaModule)
        if module is not None and module.gpus:
            # Others speak of a library of another version, and of device nodes that are closed.
            if refuses(said) or symptom_shown(DriverLibraryMismatch, said):
                return
            missing = "is not found" in said
            if missing and not module.device_nodes:
                return  # a container that was given no GPU
            what = "its libraries are not here" if missing else f"NVML does not work: {said}"
            count = f"{len(module.gpus)} GPU{'s' if len(module.gpus) > 1 else ''}"
            yield _suspicion(f"the kernel module {module.version} drives {count}, and {what}")
            return
        on_bus = [
            it.seen_at
            for it in case.fact(Accelerators).accelerators
            if it.vendor == "NVIDIA" and it.seen_at.startswith("/sys/")
        ]
        if not on_bus:
            raise CannotTell("there is no NVIDIA GPU here")
        others = f" and {len(on_bus) - 1} more" if len(on_bus) > 1 else ""
        yield _suspicion(f"there is an NVIDIA GPU on the PCI bus ({on_bus[0]}){others}, and no driver for it")

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _suspicion(message: str) -> Suspicion:
    return Suspicion(
        Finding(
            severity="error",
            confidence="certain",
            message=message,
            subject=Subject(kind="driver"),
            fixes=DriverNotLoaded.remedies,
        )
    )


def _examples() -> Iterator[Example]:
    seen = Accelerators(
        accelerators=(Accelerator(vendor="NVIDIA", name="GPU", seen_at="/sys/bus/pci/devices/0000:3b:00.0"),)
    )
    yield sick(
        "a GPU on the bus, and no driver",
        case_of(seen),
        "error: there is an NVIDIA GPU on the PCI bus (/sys/bus/pci/devices/0000:3b:00.0), and no driver for"
        " it",
    )
    module = NvidiaModule(version="580.95.05", gpus=("0000:3b:00.0 NVIDIA H100",))
    yield sick(
        "the module is loaded, and its library crashes",
        without(Gpus, "NVML ended with signal SIGSEGV", case_of(seen, module)),
        "error: the kernel module 580.95.05 drives 1 GPU, and NVML does not work: NVML ended with signal"
        " SIGSEGV",
    )
    yield healthy("a driver that answers", case_of(seen, Gpus(driver="580.95.05")))
    yield cannot_tell("no NVIDIA GPU", case_of(Accelerators()), "there is no NVIDIA GPU here")
