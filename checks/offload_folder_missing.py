"""The model does not fit GPU and CPU memory, and there is no folder to offload the rest to."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class OffloadFolderMissing(Check):
    """The model does not fit GPU and CPU memory, and there is no folder to offload the rest to.

    ## What it finds

    In a log: transformers, accelerate and peft asking for an offload folder, or refusing to offload all
    of a model to the disk.

    ## Why it breaks

    device_map="auto" fills the GPUs, then the CPU, then the disk. What goes to the disk needs a folder,
    except for safetensors files in later releases. It also happens where no GPU is seen and memory is
    short.

    ## How it is proven

    By the log alone.

    ## Fix

    Free memory or take a smaller dtype so that nothing goes to the disk; or name a folder, which is slow.

    ## References

    - https://github.com/huggingface/accelerate/blob/v0.30.1/src/accelerate/big_modeling.py
    - https://huggingface.co/docs/accelerate/concept_guides/big_model_inference
    """

    name = "offload-folder-missing"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/accelerate/blob/v0.30.1/src/accelerate/big_modeling.py"
    symptoms = (
        Symptom(
            pattern=r"We need an `offload_dir` to dispatch this model",
            example="ValueError: We need an `offload_dir` to dispatch this model according to this "
            "`device_map`, the following submodules need to be offloaded",
            counter_example="the offload_dir is used",
        ),
        Symptom(
            pattern=r"submodule will be offloaded to disk, please pass along an `offload_folder",
            example="ValueError: At least one of the model submodule will be offloaded to disk, please pass "
            "along an `offload_folder`.",
            counter_example="the offload_folder is used",
        ),
        Symptom(
            pattern=r"had weights offloaded to the disk\. Please provide an `offload_folder",
            example="ValueError: The current `device_map` had weights offloaded to the disk. Please provide "
            "an `offload_folder` for them.",
            counter_example="weights offloaded to the disk",
        ),
        Symptom(
            pattern=r"You are trying to offload the whole model to the disk",
            example="ValueError: You are trying to offload the whole model to the disk. Please use the "
            "`disk_offload` function instead.",
            counter_example="the whole model was loaded",
            cause="No GPU or CPU memory was found for any part of the model: device_map sends all of it to "
            "the disk",
        ),
    )
    remedies = (
        remedy(
            "use less memory: 16 bits, or 4",
            "torch_dtype=torch.float16",
            "edit",
        ),
        remedy(
            "free GPU and CPU memory; see who holds it",
            "nvidia-smi",
        ),
        remedy(
            "name a folder with room (slow)",
            'offload_folder="offload"',
            "edit",
        ),
        remedy(
            "for peft: give it to PeftModel.from_pretrained too",
            'PeftModel.from_pretrained(model, name, offload_folder="offload")',
            "edit",
        ),
    )
