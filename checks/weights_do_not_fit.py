"""The weights that are loaded are not those of the model that is built."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class WeightsDoNotFit(Check):
    """The weights that are loaded are not those of the model that is built.

    ## What it finds

    In a log: sizes that differ, missing and unexpected keys, and tensors of no elements.

    ## Why it breaks

    A checkpoint fits one architecture only: another number of labels, another vocabulary, another rank of
    LoRA or another base model changes the shapes, and a wrapper (DDP's `module.`, PEFT's
    `base_model.model.`, torch.compile's `_orig_mod.`) changes the names. A shape of [0] comes from
    ZeRO-3: the weights were saved while every rank held a part of them only.

    ## How it is proven

    By the log alone.

    ## Fix

    Build the model from the configuration that was saved with the weights; save under ZeRO-3 with the
    weights gathered.

    ## References

    - https://github.com/huggingface/peft/issues/1443
    - https://github.com/huggingface/peft/issues/276
    - https://pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.load_state_dict
    """

    name = "weights-do-not-fit"
    topic = "model-files"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/generated/torch.nn.Module.html#torch.nn.Module.load_state_dict"
    symptoms = (
        Symptom(
            pattern=r"(?:Error\(s\) in loading state_dict for \w{2,80}: )?size mismatch for"
            r" (?P<name>[\w.-]{3,160}): copying a param with shape torch\.Size\(\[0\]\)",
            example="size mismatch for"
            " base_model.model.model.layers.0.mlp.gate_proj.lora_B.default.weight: copying a param with shape"
            " torch.Size([0]) from checkpoint, the shape in current model is torch.Size([14336, 16]).",
            counter_example="size mismatch for lm_head.weight: copying a param with shape"
            " torch.Size([32000, 4096]) from checkpoint",
            cause="{name} is empty in the checkpoint: it was saved under ZeRO-3 without gathering the"
            " weights",
            fixes=(
                remedy(
                    "put them together from DeepSpeed's own checkpoint, if there is one",
                    "python zero_to_fp32.py . pytorch_model.bin",
                ),
                remedy(
                    "and have them gathered from now on",
                    '"stage3_gather_16bit_weights_on_model_save": true',
                    "config",
                ),
                remedy("train with ZeRO-2", '"zero_optimization": {{"stage": 2}}', "config"),
            ),
        ),
        Symptom(
            pattern=r"(?:Error\(s\) in loading state_dict for \w{2,80}: )?size mismatch for"
            r" (?P<name>[\w.-]{3,160}): copying a param with shape"
            r" torch\.Size\(\[(?P<then>[\d,\x20]{0,60})\]\) from"
            r" checkpoint,? ?the shape in current model is torch\.Size\(\[(?P<now>[\d,\x20]{0,60})\]\)",
            example="size mismatch for"
            " base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight: copying a param with shape"
            " torch.Size([32, 1024]) from checkpoint, the shape in current model is torch.Size([16, 1024]).",
            counter_example="the shape in current model is torch.Size([16, 1024])",
            cause="{name} has the shape [{then}] in the checkpoint and [{now}] in the model",
        ),
        Symptom(
            pattern=r"size mismatch for (?P<name>[\w.-]{3,160}): copying a param",
            example="size mismatch for lm_head.weight: copying a param with shape",
            counter_example="size mismatch, m1: [32 x 10], m2: [20 x 5]",
            cause="{name} has another shape in the checkpoint than in the model",
        ),
        Symptom(
            pattern=r"Error\(s\) in loading state_dict for (?P<model>\w{2,80}):"
            r" (?P<what>Missing|Unexpected) key\(s\) in state_dict:"
            r" (?P<keys>[^\n]{2,120})",
            example="RuntimeError: Error(s) in loading state_dict for LlamaForCausalLM:\n\tMissing key(s)"
            " in state_dict:"
            ' "model.embed_tokens.weight", "lm_head.weight".',
            counter_example="Some weights of LlamaForCausalLM were not initialized",
            cause="{what} keys when the weights are loaded into {model}: {keys}",
        ),
        Symptom(
            pattern=r"Error\(s\) in loading state_dict for (?P<model>\w{2,80})",
            example="RuntimeError: Error(s) in loading state_dict for PeftModelForCausalLM:",
            counter_example="loading state_dict for PeftModelForCausalLM",
            cause="The weights do not fit {model}",
        ),
        Symptom(
            pattern=r"Error\(s\) in loading state_dict",
            example="RuntimeError: Error(s) in loading state_dict:",
            counter_example="state_dict was loaded",
            cause="The weights do not fit the model",
        ),
        Symptom(
            pattern=r"(?P<what>Missing|Unexpected) key\(s\) in state_dict: (?P<keys>[^\n]{2,120})",
            example='Unexpected key(s) in state_dict: "module.lm_head.weight".',
            counter_example="Unexpected key in the JSON",
            cause="{what} keys when the weights are loaded: {keys}",
        ),
        Symptom(
            pattern=r"You (?:should|may) (?:pass|consider adding|use) `ignore_mismatched_sizes=True`",
            example="RuntimeError: You set `ignore_mismatched_sizes` to `False`, thus raising an error."
            " You may consider adding"
            " `ignore_mismatched_sizes=True` in the model `from_pretrained` method.",
            counter_example="ignore_mismatched_sizes=True",
            cause="Some weights of the checkpoint have other shapes than in the model",
            fixes=(
                remedy(
                    "if only the head differs, let it be made anew",
                    "from_pretrained(name, num_labels=3, ignore_mismatched_sizes=True)",
                    "edit",
                ),
                remedy("else load the weights that belong to this configuration"),
            ),
        ),
        Symptom(
            pattern=r"Trying to set a tensor of shape torch\.Size\(\[(?P<then>[\d,\x20]{0,60})\]\) in"
            r" `(?P<name>[\w.]{2,80})` \(which has shape"
            r" torch\.Size\(\[(?P<now>[\d,\x20]{0,60})\]\)\)",
            example='ValueError: Trying to set a tensor of shape torch.Size([1024, 4096]) in "weight"'
            " (which has shape"
            " torch.Size([4096, 4096])), this look incorrect.",
            counter_example="set a tensor of shape torch.Size([2, 2])",
            cause="A {name} has the shape [{then}] in the checkpoint and [{now}] in the model: the"
            " installed transformers builds"
            " another model, or the weights are of another one",
            fixes=(
                remedy(
                    "upgrade: the model may be newer than the installed transformers",
                    "pip install -U transformers",
                ),
                remedy(
                    "compare config.json with the weights; after tokens were added, resize before loading",
                    "model.resize_token_embeddings(len(tokenizer))",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Trying to set a tensor of shape|does not have a parameter or a buffer named"
            r" (?P<name>\w{1,60})",
            example="ValueError: LlamaModel does not have a parameter or a buffer named lm_head.",
            counter_example="a parameter named weight",
            cause="The weights are not those of the model that is built",
        ),
        Symptom(
            pattern=r"There were mismatched keys in the checkpoint model loaded|mismatched keys in the"
            r" checkpoint",
            example="There were mismatched keys in the checkpoint model loaded: ['lm_head.weight']",
            counter_example="There were missing keys in the checkpoint model loaded: ['lm_head.weight'].",
            standing="hint",
        ),
        Symptom(
            pattern=r"Target modules (?P<modules>[^\n]{2,120}) not found in the base model",
            example="ValueError: Target modules {'query_key_value'} not found in the base model. Please"
            " check the target modules and try"
            " again.",
            counter_example="Target modules were found",
            cause="LoRA is to be put on modules that this model does not have: {modules}",
            fixes=(
                remedy(
                    "name modules that it has",
                    'print({{n.split(".")[-1] for n, m in model.named_modules() if m.__class__.__name__'
                    ' == "Linear"}})',
                    "edit",
                ),
                remedy("all linear ones", 'target_modules="all-linear"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"(?:Attempted to load weight \(torch\.Size|The size of tensor |attention"
            r" `hidden_size)[^\n]{0,160}(?:into parameter|vocab|pretrained)",
            example="AssertionError: Attempted to load weight (torch.Size([128256, 4096])) into parameter"
            " (torch.Size([128264, 4096]))",
            counter_example="The size of tensor a (3) must match the size of tensor b (4)",
            cause="vLLM is given weights of other shapes than the model's configuration says",
        ),
    )
    remedies = (
        remedy(
            "build the model from the configuration that was saved with the weights",
            "AutoModelForCausalLM.from_pretrained(folder)",
            "edit",
        ),
        remedy(
            "an adapter is loaded onto the base model that its adapter_config.json names",
            "PeftModel.from_pretrained(base, folder)",
            "edit",
        ),
        remedy(
            "names that only differ by a prefix of a wrapper are renamed",
            '{{k.removeprefix("module."): v for k, v in state.items()}}',
            "edit",
        ),
    )
