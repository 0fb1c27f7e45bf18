"""DDP waits for gradients of parameters that the loss does not depend on."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class DdpUnusedParameters(Check):
    """DDP waits for gradients of parameters that the loss does not depend on.

    ## What it finds

    In a log: the reducer's "expected to have finished reduction in the prior iteration", with the parameters
    that got no gradient where they are listed.

    ## Why it breaks

    DDP reduces gradients as they come and waits for all of them. Parameters that a forward pass leaves out,
    a frozen tower that still requires gradients, experts without tokens or an output not used in the loss
    get none.

    ## How it is proven

    By the log alone.

    ## Fix

    Freeze what is not trained, use every output in the loss, or let DDP look for them.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/reducer.cpp
    - https://github.com/huggingface/accelerate/issues/116
    - https://github.com/huggingface/diffusers/issues/5354
    """

    name = "ddp-unused-parameters"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html"
    symptoms = (
        Symptom(
            pattern=r"Parameter indices which did not receive grad for rank (?P<rank>\d+): (?P<indices>\d"
            r"[\d\x20]{0,60}\d)",
            example="Parameter indices which did not receive grad for rank 1: 578 579 580 581 582 583 584 "
            "585 586",
            counter_example="Parameter at index 559 has been marked as ready twice.",
            cause="On rank {rank} parameters {indices} (and perhaps more) got no gradient: the loss does "
            "not depend on"
            " them",
        ),
        Symptom(
            pattern=r"did not receive grad for rank",
            example="Parameters which did not receive grad for rank 0: classifier.weight, classifier.bias",
            counter_example="Parameter at index 559 has been marked as ready twice.",
        ),
        Symptom(
            pattern=r"Expected to have finished reduction in the prior iteration",
            example="RuntimeError: Expected to have finished reduction in the prior iteration before "
            "starting a new one.",
            counter_example="RuntimeError: Expected to mark a variable ready only once.",
        ),
        Symptom(
            pattern=r"module has parameters that were not used in producing",
            example="This error indicates that your module has parameters that were not used in producing "
            "loss.",
            counter_example="Some weights of the model checkpoint were not used when initializing",
        ),
        Symptom(
            pattern=r"your training graph has changed in this iteration",
            example="This error indicates that your training graph has changed in this iteration, e.g., "
            "one parameter is "
            "used in first iteration, but then got unused in the second iteration.",
            counter_example="static_graph is set to True",
            cause="The set of used parameters changes from step to step, against static_graph=True",
        ),
        Symptom(
            pattern=r"DistributedDataParallel is not needed when a module doesn`t have any parameters that "
            r"require",
            example="RuntimeError: DistributedDataParallel is not needed when a module doesn't have any "
            "parameters that "
            "require a gradient.",
            counter_example="find_unused_parameters=True was specified in DDP constructor, but did not "
            "find any unused",
            cause="No parameter of the wrapped model is trained: all are frozen",
            fixes=(
                remedy("unfreeze what is to be trained, or wrap only the model that is"),
                remedy(
                    "for a model that is only evaluated, accelerator.prepare_model(model, "
                    "evaluation_mode=True)"
                ),
            ),
        ),
        Symptom(
            pattern=r"DDP expects same model across all ranks",
            example="RuntimeError: DDP expects same model across all ranks, but Rank 1 has 290 params, "
            "while rank 0 has "
            "inconsistent 291 params.",
            counter_example="DDP expects the model on one device",
            cause="The model is not the same on all ranks",
            fixes=(remedy("build the same model on each rank: the same seed, config and package versions"),),
        ),
        Symptom(
            pattern=r"appears not to match (?:sizes|strides) of the same param in process",
            example="RuntimeError: [1]: params[3] in this process with sizes [32000, 4096] appears not to "
            "match sizes of the "
            "same param in process 0.",
            counter_example="size mismatch for lm_head.weight",
            cause="The model is not the same on all ranks: a parameter has another shape",
            fixes=(
                remedy("build the same model on each rank: the same tokenizer, config and package versions"),
            ),
        ),
        Symptom(
            pattern=r"one of the variables needed for gradient computation has been modified by an inplace "
            r"operation",
            example="RuntimeError: one of the variables needed for gradient computation has been modified "
            "by an inplace "
            "operation: [torch.cuda.FloatTensor [1, 512]] is at version 3; expected version 2 instead.",
            counter_example="element 0 of tensors does not require grad and does not have a grad_fn",
            cause="A tensor was changed in place between forward and backward: under DDP often a buffer "
            "that it"
            " broadcasts between two forward passes",
            standing="aftermath",
            sure="likely",
            fixes=(
                remedy(
                    "do not let DDP overwrite buffers",
                    "DistributedDataParallel(..., broadcast_buffers=False)",
                    "edit",
                ),
                remedy("find the operation", "torch.autograd.set_detect_anomaly(True)", "edit"),
            ),
        ),
    )
    remedies = (
        remedy("freeze what is not trained before wrapping", "parameter.requires_grad_(False)", "edit"),
        remedy("let DDP look for them (transformers)", "ddp_find_unused_parameters=True", "edit"),
        remedy(
            "the same with accelerate",
            "Accelerator(kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])",
            "edit",
        ),
        remedy("see their names", "TORCH_DISTRIBUTED_DEBUG=DETAIL", "environment"),
    )
