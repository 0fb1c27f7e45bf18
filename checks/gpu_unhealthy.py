"""A GPU is broken or has hung: memory errors, off the bus, a reset is needed."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GpuUnhealthy(Check):
    """A GPU is broken or has hung: memory errors, off the bus, a reset is needed.

    ## What it finds

    In a log: uncorrectable ECC and NVLink errors, the driver's Xid messages that mean hardware, and a
    GPU that is lost.

    ## Why it breaks

    Memory fails, a link or a power cable is loose, a GPU overheats, its firmware hangs. What was on it
    is lost, and other ranks then wait for it until NCCL's time is up. Xid 13, 31, 43 and 45 come from
    faulty programs and are not meant here.

    ## How it is proven

    By the log alone.

    ## Fix

    Take the node out, reset the GPU, have it replaced when it comes back.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
    - https://github.com/NVIDIA/open-gpu-kernel-modules/issues/507
    - https://github.com/huggingface/accelerate/issues/1192
    """

    name = "gpu-unhealthy"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"
    symptoms = (
        Symptom(
            pattern=r"uncorrectable ECC error (?:was )?encountered",
            example="RuntimeError: CUDA error: uncorrectable ECC error encountered",
            counter_example="Volatile Uncorr. ECC: 0",
            cause="The GPU's memory has an error that cannot be corrected",
        ),
        Symptom(
            pattern=r"uncorrectable NVLink error was detected",
            example="RuntimeError: CUDA error: uncorrectable NVLink error was detected during the execution",
            counter_example="NVLink 0: 26.562 GB/s",
            cause="An NVLink has an error that cannot be corrected",
        ),
        Symptom(
            pattern=r"fallen off the bus",
            example="NVRM: Xid (PCI:0000:4f:00): 79, pid='<unknown>', name=<unknown>, GPU has "
            "fallen off the bus.",
            counter_example="GPU 00000000:4F:00.0",
            cause="A GPU has fallen off the bus (Xid 79)",
        ),
        Symptom(
            pattern=r"Xid \(PCI:(?P<gpu>[\w:.]{7,20})\): (?P<xid>48|6[124]|7[449]|79|8[18]|"
            r"9[245]|1(?:0[69]|1[09]|2[0-5]|36|4[0-9]|5[0-9]))\b",
            example="NVRM: Xid (PCI:0000:3b:00): 48, pid=1234, DBE (double bit error) ECC Error",
            counter_example="NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, name=python, MMU Fault",
            cause="The driver reports Xid {xid} of the GPU at {gpu}: a fault of the hardware or its firmware",
        ),
        Symptom(
            pattern=r"Unable to determine the device handle for (?:gpu|GPU)\d{0,2}:? "
            r"?(?P<gpu>[\w:.]{4,24}): (?P<why>[^\n]{3,60})",
            example="Unable to determine the device handle for GPU 0000:89:00.0: Unknown Error",
            counter_example="GPU 00000000:89:00.0",
            cause="The driver has lost the GPU at {gpu}: {why}",
        ),
        Symptom(
            pattern=r"Reboot the system to recover this GPU|NVMLError_GpuIsLost",
            example="Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  "
            "Reboot the system to recover this GPU",
            counter_example="GPU memory is lost between runs",
            cause="The driver has lost a GPU; the machine has to be restarted",
        ),
        Symptom(
            pattern=r"hardware stack error|CUDA_ERROR_HARDWARE_STACK_ERROR",
            example="RuntimeError: CUDA error: hardware stack error",
            counter_example="stack smashing detected",
            cause="The GPU reports a hardware stack error: a broken GPU, or a kernel that ran wild",
            sure="likely",
        ),
        Symptom(
            pattern=r"GPU(?:\s?\d{1,2})? requires (?:a )?reset|GPU needs (?:to be )?reset|"
            r"CUDA_ERROR_CONTAINED|CUDA error: Invalid access of peer GPU memory over "
            r"nvlink or a hardware error",
            example="GPU requires reset",
            counter_example="nvidia-smi --gpu-reset",
        ),
        Symptom(
            pattern=r"(?:RmInitAdapter|rm_init_adapter) failed",
            example="NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x24:0x65:1477)",
            counter_example="NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
            cause="The driver cannot start a GPU",
        ),
        Symptom(
            pattern=r"Remapping Failure Occurred : Yes",
            example="    Remapping Failure Occurred            : Yes",
            counter_example="    Remapping Failure Occurred            : No",
            cause="The GPU has no spare memory rows left: it has to be replaced",
        ),
    )
    remedies = (
        remedy(
            "see which GPU it is and what it counts",
            "nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT && sudo dmesg | grep -i xid",
        ),
        remedy(
            "with nothing running on it, reset it; else restart the machine",
            "sudo nvidia-smi --gpu-reset -i 0",
        ),
        remedy(
            "take the node out of the queue and run the vendor's diagnosis; what comes back has to "
            "be replaced",
            "dcgmi diag -r 3",
        ),
        remedy("start the job again from its last checkpoint, without that GPU"),
    )
