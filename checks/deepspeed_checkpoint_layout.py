"""There is no DeepSpeed checkpoint where one is to be resumed from, or this run cannot read it."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DeepspeedCheckpointLayout(Check):
    """There is no DeepSpeed checkpoint where one is to be resumed from, or this run cannot read it.

    ## What it finds

    In a log: folders without a checkpoint of DeepSpeed's kind, and checkpoints that this run's layout
    cannot read.

    ## Why it breaks

    Each rank saves its own part of the optimizer's state. With another number of ranks or another stage
    the parts no longer fit; only the universal format can be cut anew. The tag in the file `latest` says
    which folder to read.

    ## How it is proven

    By the log alone.

    ## Fix

    The same layout, the universal format, or the weights alone.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/v0.9.5/deepspeed/runtime/engine.py
    - https://www.deepspeed.ai/tutorials/universal-checkpointing/
    """

    name = "deepspeed-checkpoint-layout"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://www.deepspeed.ai/tutorials/universal-checkpointing/"
    symptoms = (
        Symptom(
            pattern=r"Can`t find a valid checkpoint at (?P<path>[^\n]{1,200})",
            example="ValueError: Can't find a valid checkpoint at output/checkpoint-500",
            counter_example="No checkpoint found, starting from scratch",
            cause="{path} is no DeepSpeed checkpoint: there is no global_step folder in it",
            fixes=(
                remedy("name the folder of a checkpoint that DeepSpeed wrote", "ls output/checkpoint-*/"),
                remedy(
                    "if only weights were saved (save_only_model), start from them",
                    "--model_name_or_path output/checkpoint-500",
                ),
            ),
        ),
        Symptom(
            pattern=r"\[deepspeed\] failed to resume from checkpoint (?P<path>[^\n]{1,200})",
            example="ValueError: [deepspeed] failed to resume from checkpoint output/checkpoint-500",
            counter_example="[deepspeed] resuming from checkpoint",
            cause="DeepSpeed could not read the checkpoint {path}",
        ),
        Symptom(
            pattern=r"Unable to find latest file at (?P<path>[^\n,]{1,200})",
            example="ValueError: Unable to find latest file at output/latest, if trying to load latest"
            " checkpoint please ensure this file exists or pass an explicit checkpoint tag",
            counter_example="the latest file was found",
            cause="The checkpoint folder has no file `latest`: {path}",
            fixes=(remedy("name the tag", 'engine.load_checkpoint(folder, tag="global_step500")', "edit"),),
        ),
        Symptom(
            pattern=r"ZeRO checkpoint parameter-alignment layout does not match",
            example="RuntimeError: The ZeRO checkpoint parameter-alignment layout does not match the current",
            counter_example="ZeRO checkpoint loaded",
        ),
    )
    remedies = (
        remedy("resume with the same number of GPUs and the same ZeRO stage"),
        remedy(
            "convert the checkpoint to the universal format",
            "python -m deepspeed.checkpoint.ds_to_universal --input_folder IN --output_folder OUT",
        ),
        remedy("take its weights alone", "python zero_to_fp32.py . pytorch_model.bin"),
    )
