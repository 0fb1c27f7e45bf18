"""A checkpoint was saved on a GPU that is not here, and torch.load wants to put it back there."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CheckpointOfAnotherDevice(Check):
    """A checkpoint was saved on a GPU that is not here, and torch.load wants to put it back there.

    ## What it finds

    In a log: torch.load refusing to restore tensors on a CUDA device, or on a number of GPU, that this
    process does not see.

    ## Why it breaks

    torch.save writes with each tensor the device that it was on, and torch.load puts it there unless
    map_location says otherwise. It fails on a node without a visible GPU, or with fewer of them.

    ## How it is proven

    By the log alone.

    ## Fix

    Load with map_location.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/serialization.py
    - https://pytorch.org/docs/stable/generated/torch.load.html
    """

    name = "checkpoint-of-another-device"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.5.0/torch/serialization.py"
    symptoms = (
        Symptom(
            pattern=r"Attempting to deserialize object on an? (?P<kind>\w{2,8}) device but "
            r"torch\.\w{2,8}\.is_available\(\) is False",
            example="RuntimeError: Attempting to deserialize object on a CUDA device but "
            "torch.cuda.is_available() is False.",
            counter_example="Attempting to deserialize object",
            cause="The checkpoint holds {kind} tensors, and torch sees no such device here",
        ),
        Symptom(
            pattern=r"Attempting to deserialize object on (?P<kind>\w{2,8}) device (?P<number>\d{1,3}) but "
            r"torch\.\w{2,8}\.device_count\(\) is (?P<count>\d{1,3})",
            example="RuntimeError: Attempting to deserialize object on CUDA device 2 but "
            "torch.cuda.device_count() is 1.",
            counter_example="Attempting to deserialize object",
            cause="The checkpoint holds tensors of {kind} device {number}, and this process sees {count}",
        ),
        Symptom(
            pattern=r"don't know how to restore data location of [\w.]{3,40} \(tagged with "
            r"(?P<tag>[\w:]{2,20})\)",
            example="RuntimeError: don't know how to restore data location of torch.storage.UntypedStorage "
            "(tagged with hpu:0)",
            counter_example="restore data location",
            cause="The checkpoint holds tensors of {tag}, which this torch does not know",
        ),
    )
    remedies = (
        remedy(
            "say where to put it",
            'torch.load(path, map_location="cpu")',
            "edit",
        ),
        remedy(
            "see whether torch sees the GPU",
            'python -c "import torch; print(torch.version.cuda, torch.cuda.is_available())"',
        ),
    )
