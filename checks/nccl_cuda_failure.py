"""A CUDA call inside of NCCL failed: peer access between the GPUs, multicast, or an earlier failure."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NcclCudaFailure(Check):
    """A CUDA call inside of NCCL failed: peer access between the GPUs, multicast, or an earlier failure.

    ## What it finds

    In a log: "unhandled cuda error" of NCCL, its failures to open another GPU's memory, and those to bind
    multicast memory of NVLink SHARP.

    ## Why it breaks

    NCCL lets GPUs read each other's memory where the driver says they can. In virtual machines, behind an
    IOMMU or between consumer cards that answer is sometimes wrong; NVLink SHARP needs the fabric manager,
    and room in a container. A kernel that crashed before shows here too, as NCCL makes the next CUDA call.

    ## How it is proven

    By the log alone.

    ## Fix

    Let NCCL say which call failed, and leave out the way between the GPUs that does not work.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/transport/p2p.cc
    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/transport/nvls.cc
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-p2p-disable
    """

    name = "nccl-cuda-failure"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"
    symptoms = (
        Symptom(
            pattern=r"failed to (?:peer with|open CUDA IPC handle|get CUDA IPC handle)",
            example="transport/p2p.cc:230 NCCL WARN failed to open CUDA IPC handle : 217 peer access is not "
            "supported between these two devices",
            counter_example="NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
            cause="NCCL cannot open another GPU's memory: peer access does not work on this machine",
        ),
        Symptom(
            pattern=r"Cuda failure (?:\d+ )?`peer access is not supported",
            example="transport/p2p.cc:238 NCCL WARN Cuda failure 'peer access is not supported between "
            "these two "
            "devices'",
            counter_example="NCCL WARN Cuda failure 'out of memory'",
            cause="NCCL cannot open another GPU's memory: peer access does not work on this machine",
        ),
        Symptom(
            pattern=r"peer access is not supported between these two devices",
            example="RuntimeError: CUDA error: peer access is not supported between these two devices",
            counter_example="CUDA error: invalid device ordinal",
            cause="Two GPUs of this machine cannot read each other's memory",
        ),
        Symptom(
            pattern=r"Failed to bind NVLink SHARP \(NVLS\) Multicast memory",
            example="transport/nvls.cc:254 NCCL WARN Failed to bind NVLink SHARP (NVLS) Multicast memory "
            "of size "
            "2097152 : CUDA error 2 'out of memory'.",
            counter_example="NCCL INFO NVLS multicast support is not available on dev 0",
            cause="NVLink SHARP's multicast memory cannot be bound",
            fixes=(
                remedy("go without NVLink SHARP", "NCCL_NVLS_ENABLE=0", "environment"),
                remedy("restart the fabric manager", "systemctl restart nvidia-fabricmanager"),
            ),
        ),
        Symptom(
            pattern=r"NCCL WARN Cuda failure (?:\d+ )?`(?P<why>[^'\n]{4,90}?)`",
            example="enqueue.cc:100 NCCL WARN Cuda failure 'invalid device function'",
            counter_example="NCCL INFO cudaDriverVersion 12020",
            cause="A CUDA call inside of NCCL failed: {why}",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Last error:\s{1,4}Cuda failure (?:\d+ )?`(?P<why>[^'\n]{4,90}?)`",
            example="Last error:\nCuda failure 1 'invalid argument'",
            counter_example="Last error:\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device "
            "1a000",
            cause="A CUDA call inside of NCCL failed: {why}",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"unhandled cuda error",
            example="RuntimeError: NCCL error in: ../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1269, "
            "unhandled cuda error, NCCL version 2.14.3",
            counter_example="unhandled system error, NCCL version 2.14.3",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"ncclUnhandledCudaError",
            example="ncclUnhandledCudaError: Call to CUDA function failed.",
            counter_example="ncclSystemError: System call (e.g. socket, malloc)",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"doesn`t support faster communication broadband via P2P or IB",
            example="NotImplementedError: Using RTX 4000 series doesn't support faster communication "
            "broadband via "
            'P2P or IB. Please set `NCCL_P2P_DISABLE="1"` and `NCCL_IB_DISABLE="1" or use `accelerate '
            "launch` "
            "which will do this automatically.",
            counter_example="NCCL INFO Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
            cause="These GPUs have no peer access, and the script was not started by accelerate launch",
            fixes=(
                remedy("say so to NCCL", "NCCL_P2P_DISABLE=1 NCCL_IB_DISABLE=1", "environment"),
                remedy("start it by accelerate, which does so", "accelerate launch train.py"),
            ),
        ),
    )
    remedies = (
        remedy("let NCCL say which call failed: the line with WARN has it", "NCCL_DEBUG=INFO", "environment"),
        remedy("leave peer access between the GPUs out", "NCCL_P2P_DISABLE=1", "environment"),
        remedy("leave NVLink SHARP and cuMem out", "NCCL_NVLS_ENABLE=0 NCCL_CUMEM_ENABLE=0", "environment"),
    )
