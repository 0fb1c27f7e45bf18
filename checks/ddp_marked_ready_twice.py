"""DDP sees one parameter's gradient twice: reentrant checkpointing under DistributedDataParallel."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DdpMarkedReadyTwice(Check):
    """DDP sees one parameter's gradient twice: reentrant checkpointing under DistributedDataParallel.

    ## What it finds

    In a log: the reducer's "marked as ready twice" and "mark a variable ready only once".

    ## Why it breaks

    Reentrant checkpointing runs backward inside of backward, and the hook of a parameter used in two
    checkpointed parts fires in each. With `find_unused_parameters=True` the reducer has also marked
    parameters that it did not find in the outer graph, which is all that are inside of a checkpoint.

    ## How it is proven

    By the log alone.

    ## Fix

    Checkpointing that is not reentrant, or a DDP that does not look for unused parameters.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/reducer.cpp
    - https://github.com/huggingface/transformers/issues/23728
    - https://github.com/modelscope/ms-swift/issues/2746
    """

    name = "ddp-marked-ready-twice"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/checkpoint.html"
    symptoms = (
        Symptom(
            pattern=r"with name (?P<parameter>[\w.\x20]{1,200}) has been marked as ready twice",
            example="Parameter at index 129 with name "
            "base_model.model.layers.31.self_attn.v_proj.lora_B.weight has been "
            "marked as ready twice.",
            counter_example="Parameter at index 129 did not receive grad",
            cause="DDP got the gradient of {parameter} twice in one backward pass",
        ),
        Symptom(
            pattern=r"has been marked as ready twice",
            example="Parameter at index 559 has been marked as ready twice.",
            counter_example="Parameter indices which did not receive grad for rank 1: 578 579",
        ),
        Symptom(
            pattern=r"mark a variable ready only once",
            example="RuntimeError: Expected to mark a variable ready only once. This error is caused by "
            "one of the "
            "following reasons:",
            counter_example="Expected to have finished reduction in the prior iteration before starting a "
            "new one.",
        ),
        Symptom(
            pattern=r"marking a variable ready multiple times",
            example="different reentrant backward passes multiple times, and hence marking a variable "
            "ready multiple times.",
            counter_example="the variable is ready",
        ),
        Symptom(
            pattern=r"The parameter (?P<parameter>[\w.,/=:\x20]{1,200}) has already been reduced",
            example="AssertionError: The parameter 447 has already been reduced. Gradient computed twice "
            "for this "
            "partition. Multiple gradient reduction is currently not supported",
            counter_example="gradients were reduced",
            cause="DeepSpeed got the gradient of parameter {parameter} twice in one backward pass: reentrant"
            " checkpointing, or a layer used twice",
        ),
        Symptom(
            pattern=r"Gradient computed twice for this partition",
            example="AssertionError: Gradient computed twice for this partition. Multiple gradient "
            "reduction is currently "
            "not supported",
            counter_example="gradients were reduced",
            cause="DeepSpeed got a parameter's gradient twice in one backward pass: reentrant "
            "checkpointing, or a layer"
            " used twice",
        ),
        Symptom(
            pattern=r"in self\.params_in_ipg_bucket\)\) == len",
            example="    assert len(set(p.ds_id for p in self.params_in_ipg_bucket)) == "
            "len(self.params_in_ipg_bucket)",
            counter_example="self.params_in_ipg_bucket.append(param)",
            cause="ZeRO-3 got a parameter's gradient twice in one backward pass: reentrant checkpointing, "
            "or a layer"
            " used twice",
        ),
        Symptom(
            pattern=r"Checkpointing is not compatible with \.grad\(\) or passing an `inputs` parameter",
            example="RuntimeError: Checkpointing is not compatible with .grad() or passing an `inputs` "
            "parameter to "
            ".backward().",
            counter_example="torch.utils.checkpoint: please pass in use_reentrant=True or "
            "use_reentrant=False explicitly.",
            cause="Reentrant checkpointing does not work where gradients of chosen inputs are asked",
        ),
    )
    remedies = (
        remedy(
            "checkpointing that is not reentrant",
            'gradient_checkpointing_kwargs={{"use_reentrant": False}}',
            "edit",
        ),
        remedy("do not let DDP look for unused parameters", "ddp_find_unused_parameters=False", "edit"),
        remedy(
            "where the graph is the same in each step",
            "DistributedDataParallel(..., static_graph=True)",
            "edit",
        ),
    )
