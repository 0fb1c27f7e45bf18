"""No parameter needs a gradient: everything is frozen, so there is nothing to train."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NothingToTrain(Check):
    """No parameter needs a gradient: everything is frozen, so there is nothing to train.

    ## What it finds

    In a log: optimizers that are given no parameters.

    ## Why it breaks

    The prepare calls of peft freeze the whole model. An adapter that is loaded by
    PeftModel.from_pretrained is for inference unless it is asked for otherwise; target_modules that match
    nothing, or a step that freezes after the adapters were put on, leave nothing.

    ## How it is proven

    By the log alone.

    ## Fix

    Put adapters on after freezing, load them as trainable, and look at the count of trainable parameters.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/optim/optimizer.py
    - https://huggingface.co/docs/peft/package_reference/peft_model
    """

    name = "nothing-to-train"
    topic = "input-grads"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.5.0/torch/optim/optimizer.py"
    symptoms = (
        Symptom(
            pattern=r"optimizer got an empty parameter list",
            example="ValueError: optimizer got an empty parameter list",
            counter_example="optimizer got a parameter list",
            cause="The optimizer is given no parameter: nothing in the model is trainable",
        ),
    )
    remedies = (
        remedy(
            "load an adapter to go on with it",
            "PeftModel.from_pretrained(model, path, is_trainable=True)",
            "edit",
        ),
        remedy(
            "put new adapters on after the model was frozen",
            'model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM"))',
            "edit",
        ),
        remedy(
            "see what is trained",
            "model.print_trainable_parameters()",
            "edit",
        ),
    )
