"""The driver's library and its loaded kernel module are of different versions."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
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
from llm_doctor.model import Finding, Gpus, NvidiaModule, Subject


class DriverLibraryMismatch(Check):
    """The driver's library and its loaded kernel module are of different versions.

    ## What it finds

    NVML that refuses to start because of it. In a log: NVML, nvidia-smi, the container runtime and CUDA that
    say so.

    ## Why it breaks

    An upgrade of the driver (often by unattended-upgrades) replaces the libraries at once, the kernel
    module only when it is loaded anew. Jobs that run go on, new ones cannot start. In a container the
    libraries of an image can shadow the host's.

    ## How it is proven

    By NVML's own refusal on this node, or by the log.

    ## Fix

    Restart the machine, or stop what uses the GPUs and load the module again.

    ## References

    - https://github.com/tinygrad/open-gpu-kernel-modules/issues/47
    - https://github.com/Lightning-AI/pytorch-lightning/issues/10128
    - https://github.com/intelligent-machine-learning/atorch/issues/2 (error 803)
    """

    name = "driver-library-mismatch"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (NvidiaModule,)
    url = "https://github.com/tinygrad/open-gpu-kernel-modules/issues/47"
    symptoms = (
        Symptom(
            pattern=r"[Dd]river/library version mismatch",
            example="Failed to initialize NVML: Driver/library version mismatch",
            counter_example="NVML library version: 570.124",
        ),
        Symptom(
            pattern=r"RM has detected an NVML/RM version mismatch",
            example="pynvml.NVMLError_LibRmVersionMismatch: RM has detected an NVML/RM version mismatch.",
            counter_example="NVML Shared Library Not Found",
        ),
        Symptom(
            pattern=r"unsupported display driver / cuda driver combination",
            example="RuntimeError: Unexpected error from cudaGetDeviceCount(). Did you run some "
            "cuda functions before calling NumCudaDevices() that might have already set "
            "an error? Error 803: system has unsupported display driver / cuda driver "
            "combination",
            counter_example="Error 804: forward compatibility was attempted on non supported HW",
            cause="CUDA's user library and the loaded kernel module do not fit (error 803): an "
            "upgrade without a restart, or another libcuda.so first on LD_LIBRARY_PATH",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH|cudaErrorSystemDriverMismatch",
            example="CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
            counter_example="CUDA_ERROR_NO_DEVICE",
        ),
        Symptom(
            pattern=r"API mismatch: the (?:client|NVIDIA kernel module) has the version "
            r"(?P<client>\d[\d.]{2,20}\d),? but (?:NVRM:)? this (?:kernel module|NVIDIA "
            r"driver component) has (?:the)? version (?P<module>\d[\d.]{2,20}\d)",
            example="NVRM: API mismatch: the client has the version 535.129.03, but\nNVRM: this "
            "kernel module has the version 535.104.05.  Please",
            counter_example="API mismatch in the request",
            cause="The driver's libraries are {client}, the loaded kernel module is {module}",
        ),
        Symptom(
            pattern=r"API mismatch: the (?:client|NVIDIA kernel module) has the version "
            r"(?P<client>\d[\d.]{2,20}\d)",
            example="NVRM: API mismatch: the client has the version 535.129.03, but",
            counter_example="API mismatch in the request",
            cause="The driver's libraries ({client}) are not of the version of the loaded kernel module",
        ),
        Symptom(
            pattern=r"kernel version (?P<module>\d[\d.]{2,20}\d) does not match DSO version "
            r"(?P<client>\d[\d.]{2,20}\d)",
            example="kernel version 470.57.2 does not match DSO version 470.63.1 -- cannot find "
            "working devices in this configuration",
            counter_example="kernel reported version is: 470.57.2",
            cause="The driver's libraries are {client}, the loaded kernel module is {module}",
        ),
    )
    remedies = (
        remedy("restart the machine", "sudo reboot"),
        remedy(
            "with nothing on the GPUs, load the module anew",
            "sudo rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia && sudo modprobe nvidia",
        ),
        remedy(
            "in a container, or with conda: let no other libcuda.so come first",
            "unset LD_LIBRARY_PATH; ldconfig -p | grep libcuda",
            "environment",
        ),
        remedy(
            "and keep the driver from being upgraded under running jobs",
            "sudo apt-mark hold 'nvidia-driver-*' 'libnvidia-*'",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """NVML's own words."""
        said = case.facts.gpus.reason or ""
        if not symptom_shown(DriverLibraryMismatch, said):
            case.fact(Gpus)  # whatever else keeps NVML from answering
            return
        module = case.known(NvidiaModule)
        loaded = (
            f"the loaded kernel module is {module.version}" if module is not None else "no other is loaded"
        )
        finding = Finding(
            severity="error",
            confidence="certain",
            message=f"the driver's libraries do not fit its kernel module ({said}; {loaded}): no new process"
            " gets a GPU",
            subject=Subject(kind="driver"),
            fixes=self.remedies,
        )
        yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _examples() -> Iterator[Example]:
    module = NvidiaModule(version="535.161.08")
    reason = "NVML: RM has detected an NVML/RM version mismatch"
    yield sick(
        "the libraries were upgraded, the module was not loaded anew",
        without(Gpus, reason, case_of(module)),
        f"error: the driver's libraries do not fit its kernel module ({reason}; the loaded kernel module is"
        " 535.161.08): no new process gets a GPU",
    )
    yield healthy("a driver that answers", case_of(module, Gpus(driver="535.161.08")))
    yield cannot_tell("NVML does not answer at all", case_of(module), "not in this example")
