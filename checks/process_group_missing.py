"""The process group is not there or cannot do what is asked: no launcher, no NCCL, tensors on the CPU."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class ProcessGroupMissing(Check):
    """The process group is not there or cannot do what is asked: no launcher, no NCCL, tensors on the CPU.

    ## What it finds

    In a log: a script that was started without a launcher, a torch without NCCL, a process group that is made
    never or twice, and collectives on tensors that its backend does not take.

    ## Why it breaks

    Each process learns its rank from variables that a launcher sets. NCCL moves tensors of NVIDIA GPUs
    only, and is not in the builds of torch for Windows, macOS and the CPU.

    ## How it is proven

    By the log alone.

    ## Fix

    Start the script by torchrun, accelerate or deepspeed, with a backend that fits the machine.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/distributed_c10d.py
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/rendezvous.py
    """

    name = "process-group-missing"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/distributed.html"
    symptoms = (
        Symptom(
            pattern=r"environment variable (?P<name>RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|LOCAL_RANK) "
            r"expected, but not "
            r"set",
            example="ValueError: Error initializing torch.distributed using env:// rendezvous: environment "
            "variable "
            "RANK expected, but not set",
            counter_example="environment variable HF_TOKEN is not set",
            cause="{name} is not set: the script was started without a launcher",
            fixes=(
                remedy("start it by a launcher", "torchrun --nproc_per_node=2 train.py"),
                remedy(
                    "for one process, set all of them",
                    "RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=localhost MASTER_PORT=29500",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"Tensors must be CUDA and dense",
            example="RuntimeError: Tensors must be CUDA and dense",
            counter_example="Tensors must be contiguous",
            cause="A tensor on the CPU was given to a collective of NCCL",
            fixes=(
                remedy(
                    "take gloo for tensors on the CPU beside nccl",
                    'torch.distributed.init_process_group("cpu:gloo,cuda:nccl")',
                    "edit",
                ),
                remedy("move model and tensors to the GPU before they are wrapped or sent"),
            ),
        ),
        Symptom(
            pattern=r"No backend type associated with device type (?P<device>\w+)",
            example="RuntimeError: No backend type associated with device type cpu",
            counter_example="RuntimeError: Expected one of cpu, cuda device type at start of device string",
            cause="A collective was asked for a tensor on {device}, and the process group has no backend "
            "for it",
            fixes=(
                remedy(
                    "take gloo for tensors on the CPU beside nccl",
                    'torch.distributed.init_process_group("cpu:gloo,cuda:nccl")',
                    "edit",
                ),
                remedy("move model and tensors to the GPU before they are wrapped or sent"),
            ),
        ),
        Symptom(
            pattern=r"Distributed package doesn`t have (?P<backend>NCCL|MPI|GLOO|UCC|XCCL) built in",
            example="RuntimeError: Distributed package doesn't have NCCL built in",
            counter_example="torch.distributed is not available",
            cause="This torch is built without {backend} (Windows, macOS and CPU builds have no NCCL)",
            fixes=(
                remedy(
                    "on Windows or without a GPU, take gloo", 'init_process_group(backend="gloo")', "edit"
                ),
                remedy(
                    "on Linux with a GPU, install a CUDA build of torch",
                    "pip install --force-reinstall torch",
                ),
            ),
        ),
        Symptom(
            pattern=r"Default process group has not been initialized",
            example="ValueError: Default process group has not been initialized, please make sure to call "
            "init_process_group.",
            counter_example="trying to initialize the default process group twice!",
            cause="A distributed call was made in a process that no launcher started, or before the "
            "process group"
            " was made",
            standing="aftermath",
            fixes=(
                remedy("start the script by a launcher", "torchrun --nproc_per_node=2 train.py"),
                remedy("make the group first", "torch.distributed.init_process_group()", "edit"),
            ),
        ),
        Symptom(
            pattern=r"trying to initialize the default process group twice",
            example="ValueError: trying to initialize the default process group twice!",
            counter_example="Default process group has not been initialized",
            cause="The process group is made twice in one process",
            fixes=(
                remedy(
                    "make it only where there is none",
                    "if not torch.distributed.is_initialized(): ...",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (remedy("start the script by a launcher", "torchrun --nproc_per_node=2 train.py"),)
