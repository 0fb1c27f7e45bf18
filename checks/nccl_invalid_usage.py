"""NCCL refuses how it is used: two ranks on one GPU, ranks that disagree, or different versions."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_SAME_GPU = (
    remedy(
        "give each process its own GPU before anything touches CUDA",
        'torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))',
        "edit",
    ),
    remedy(
        "start no more processes on a node than it has GPUs",
        "torchrun --nproc_per_node=$(nvidia-smi -L | wc -l) train.py",
    ),
    remedy(
        "let all processes see all GPUs: no CUDA_VISIBLE_DEVICES that names a single one for several ranks"
    ),
)


class NcclInvalidUsage(Check):
    """NCCL refuses how it is used: two ranks on one GPU, ranks that disagree, or different versions.

    ## What it finds

    In a log: ncclInvalidUsage, ncclInvalidArgument and ncclInternalError, and the line of NCCL that says why.

    ## Why it breaks

    The usual case is two ranks on one GPU: more processes than GPUs, the same CUDA_VISIBLE_DEVICES for all,
    or no `set_device`, so that every rank takes GPU 0. Ranks on nodes with different versions of NCCL
    cannot talk to each other either.

    ## How it is proven

    By the log alone.

    ## Fix

    One GPU for each rank, and the same packages on all nodes.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/init.cc
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/NCCLUtils.cpp
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """

    name = "nccl-invalid-usage"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html"
    symptoms = (
        Symptom(
            pattern=r"Duplicate GPU detected ?: rank (?P<one>\d+) and rank (?P<two>\d+) both on CUDA device "
            r"(?P<device>\w{1,16})",
            example="init.cc:521 NCCL WARN Duplicate GPU detected : rank 1 and rank 0 both on CUDA device "
            "1a000",
            counter_example="NCCL INFO comm 0x5 rank 1 nranks 2 cudaDev 1 busId 1b000 - Init COMPLETE",
            cause="Ranks {one} and {two} are on the same GPU ({device})",
            fixes=_SAME_GPU,
        ),
        Symptom(
            pattern=r"Duplicate GPU detected",
            example="ncclInvalidUsage. Last error: Duplicate GPU detected : rank",
            counter_example="GPU detected: NVIDIA A100",
            cause="Two ranks are on the same GPU",
            fixes=_SAME_GPU,
        ),
        Symptom(
            pattern=r"Mismatched NCCL version detected ?: rank (?P<one>\d+) version (?P<first>\d+) rank "
            r"(?P<two>\d+) version (?P<second>\d+)",
            example="init.cc:840 NCCL WARN Mismatched NCCL version detected : rank 0 version 21805 rank 8 "
            "version "
            "22005",
            counter_example="NCCL version 2.18.5+cuda12.1",
            cause="Rank {one} runs NCCL {first} and rank {two} runs NCCL {second}",
            fixes=(remedy("install the same torch, and the same nvidia-nccl package, on every node"),),
        ),
        Symptom(
            pattern=r"Bootstrap Root : rank (?P<rank>\d+) of (?P<ranks>\d+) ranks has already checked in",
            example="bootstrap.cc:131 NCCL WARN Bootstrap Root : rank 1 of 8 ranks has already checked in",
            counter_example="NCCL INFO Bootstrap : Using eth0:10.0.0.1<0>",
            cause="Two processes say that they are rank {rank} of {ranks}",
            fixes=(
                remedy(
                    "give each process its own rank: start one launcher on each node, with its own "
                    "--node_rank,"
                    " or let SLURM start every process",
                    "srun --ntasks-per-node=1 torchrun --nnodes=$SLURM_NNODES --node_rank=$SLURM_NODEID ...",
                ),
            ),
        ),
        Symptom(
            pattern=r"ncclInvalidUsage",
            example="ncclInvalidUsage: This usually reflects invalid usage of NCCL library (such as too "
            "many async "
            "ops, too many collectives at once, mixing streams in a group, etc).",
            counter_example="ncclSystemError: System call (e.g. socket, malloc) or external library call "
            "failed",
            cause="NCCL was used in a way it does not allow; most often two ranks are on the same GPU",
            sure="likely",
            fixes=_SAME_GPU,
        ),
        Symptom(
            pattern=r"\d, invalid usage[^\n]{0,60}, NCCL version (?P<version>[\d.]{3,12})",
            example="RuntimeError: NCCL error in: "
            "../torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp:1269, invalid "
            "usage, NCCL version 2.14.3",
            counter_example="unhandled system error, NCCL version 2.14.3",
            cause="NCCL {version} was used in a way it does not allow; most often two ranks are on the "
            "same GPU",
            sure="likely",
            fixes=_SAME_GPU,
        ),
        Symptom(
            pattern=r"NCCL (?:Error|failure|error)[^\n]{0,60}: invalid usage",
            example="RuntimeError: NCCL Error 5: invalid usage",
            counter_example="RuntimeError: NCCL Error 2: unhandled system error",
            cause="NCCL was used in a way it does not allow; most often two ranks are on the same GPU",
            sure="likely",
            fixes=_SAME_GPU,
        ),
        Symptom(
            pattern=r"ncclInvalidArgument",
            example="ncclInvalidArgument: Invalid value for an argument (such as invalid pointer, device "
            "count, "
            "ip:host pair, etc).",
            counter_example="ncclSystemError: System call (e.g. socket, malloc) or external library call "
            "failed",
            cause="NCCL was given a value it cannot use: a device that is not there, or ranks that disagree",
            sure="likely",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"ncclInternalError",
            example="ncclInternalError: Internal check failed. This is either a bug in NCCL or due to memory "
            "corruption",
            counter_example="ncclSystemError: System call (e.g. socket, malloc) or external library call "
            "failed",
            cause="A check inside of NCCL failed: ranks with different versions or settings, or NCCL "
            "cannot read"
            " this machine's devices; the line with WARN before it has the reason",
            sure="likely",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"NCCL (?:Error|failure|error)[^\n]{0,120}internal error",
            example="RuntimeError: NCCL Error 3: internal error",
            counter_example="RuntimeError: NCCL Error 2: unhandled system error",
            cause="A check inside of NCCL failed: ranks with different versions or settings, or NCCL "
            "cannot read"
            " this machine's devices; the line with WARN before it has the reason",
            sure="likely",
            standing="aftermath",
        ),
    )
    remedies = (
        remedy("let NCCL say why: the line with WARN has the reason", "NCCL_DEBUG=INFO", "environment"),
        remedy("install the same torch, and the same nvidia-nccl package, on every node"),
    )
