"""Activation checkpointing recomputed something else than the forward pass had computed."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CheckpointRecomputeDiffers(Check):
    """Activation checkpointing recomputed something else than the forward pass had computed.

    ## What it finds

    In a log: torch's CheckpointError in all its wordings: other shapes, another number of tensors, more of
    them.

    ## Why it breaks

    Checkpointed parts run a second time in backward and must do the same there. A key-value cache that
    grew, a branch on a flag that changed, another autocast state, ZeRO-3 parameters that are gathered in
    one pass and empty in the other, and experts routed anew do not.

    ## How it is proven

    By the log alone.

    ## Fix

    No cache while training, and reentrant checkpointing where the parameters are sharded by DeepSpeed or
    FSDP.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/utils/checkpoint.py
    - https://github.com/pytorch/pytorch/issues/155171
    """

    name = "checkpoint-recompute-differs"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/checkpoint.html"
    symptoms = (
        Symptom(
            pattern=r"recomputed metadata: {`shape`: torch\.Size\(\[0\]\)",
            example="recomputed metadata: {'shape': torch.Size([0]), 'dtype': torch.bfloat16, 'device': "
            "device(type='cuda', index=0)}",
            counter_example="recomputed metadata: {'shape': torch.Size([1, 12, 342, 128]), 'dtype': "
            "torch.bfloat16}",
            cause="A sharded parameter was gathered in the forward pass and is empty when its layer is "
            "computed again",
            fixes=(
                remedy(
                    "reentrant checkpointing under ZeRO-3 and FSDP",
                    'gradient_checkpointing_kwargs={{"use_reentrant": True}}',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Recomputed values for the following tensors have different metadata",
            example="torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: Recomputed values for "
            "the following "
            "tensors have different metadata than during the forward pass.",
            counter_example="torch.utils.checkpoint: please pass in use_reentrant=True or "
            "use_reentrant=False explicitly.",
            cause="Tensors have another shape, dtype or device when their layer is computed again in "
            "backward",
        ),
        Symptom(
            pattern=r"saved metadata: {`shape`: torch\.Size\((?P<shape>\[[\d,\x20]{0,60}\])\)",
            example="saved metadata: {'shape': torch.Size([1, 12, 171, 128]), 'dtype': torch.bfloat16}",
            counter_example="metadata: {'format': 'pt'}",
            cause="A tensor of shape {shape} has another shape, dtype or device when its layer is computed "
            "again in"
            " backward",
        ),
        Symptom(
            pattern=r"A different number of tensors was saved during the original forward and recomputation",
            example="torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: A different number of "
            "tensors was saved "
            "during the original forward and recomputation.",
            counter_example="tensors saved during forward: 12",
            cause="A layer saves another number of tensors when it is computed again in backward",
        ),
        Symptom(
            pattern=r"Number of tensors saved during forward: (?P<first>\d+) [^\n]{0,4} ?Number of tensors "
            r"saved during "
            r"recomputation: (?P<second>\d+)",
            example="Number of tensors saved during forward: 47\nNumber of tensors saved during "
            "recomputation: 9",
            counter_example="Number of tensors: 47",
            cause="A layer saved {first} tensors in the forward pass and {second} when it was computed again",
        ),
        Symptom(
            pattern=r"trying to save more tensors during recomputation than during the original forward",
            example="torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: trying to save more "
            "tensors during "
            "recomputation than during the original forward pass.",
            counter_example="tensors saved during forward: 12",
            cause="A layer saves more tensors when it is computed again in backward",
        ),
        Symptom(
            pattern=r"Unpack is being triggered for a tensor that was already unpacked once",
            example="torch.utils.checkpoint.CheckpointError: torch.utils.checkpoint: Unpack is being "
            "triggered for a tensor "
            "that was already unpacked once.",
            counter_example="not enough values to unpack",
            cause="Backward went through a checkpointed part twice",
        ),
        Symptom(
            pattern=r"Unpack is being triggered for a tensor that was either never recomputed",
            example="torch.utils.checkpoint: Unpack is being triggered for a tensor that was either never "
            "recomputed, or "
            "already unpacked once.",
            counter_example="not enough values to unpack",
            cause="Backward went through a checkpointed part twice",
        ),
        Symptom(
            pattern=r"encountered during backward,? but not found in storage",
            example="RuntimeError: aten.mm.default encountered during backward but not found in storage.",
            counter_example="not found in storage of the hub",
            cause="Selective checkpointing met an operation in backward that it had not seen in forward",
        ),
        Symptom(
            pattern=r"Trying to backward through the graph a second time",
            example="RuntimeError: Trying to backward through the graph a second time (or directly access "
            "saved tensors after"
            " they have already been freed).",
            counter_example="element 0 of tensors does not require grad and does not have a grad_fn",
            cause="Backward went twice through the same graph: a tensor with a history was kept from the "
            "step before",
            fixes=(
                remedy(
                    "detach what is kept from one step to the next, such as past_key_values",
                    "tensor.detach()",
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy("no key-value cache while training", "model.config.use_cache = False", "edit"),
        remedy(
            "under ZeRO-3 or FSDP, or with experts, the other kind of checkpointing",
            'gradient_checkpointing_kwargs={{"use_reentrant": True}}',
            "edit",
        ),
        remedy(
            "see which operations differ",
            "with torch.utils.checkpoint.set_checkpoint_debug_enabled(True): ...",
            "edit",
        ),
    )
