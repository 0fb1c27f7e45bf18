"""Weights that ZeRO-3 or FSDP hold in shards are used, saved or loaded as if they were whole."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_DIVIDE = (
    remedy("take a number of GPUs for this dimension that divides the heads", "--tensor-parallel-size 2"),
    remedy("spread layers instead of heads", "--pipeline-parallel-size 3"),
)


class ShardedWeightsUsedWhole(Check):
    """Weights that ZeRO-3 or FSDP hold in shards are used, saved or loaded as if they were whole.

    ## What it finds

    In a log: empty weights met by a layer, ZeRO-3's complaints about a parameter in the wrong state, state
    dicts of another sharding, and dimensions that the number of GPUs does not divide.

    ## Why it breaks

    Under ZeRO-3 a parameter is empty outside of its own module's forward pass. Code that reads
    `model.lm_head.weight`, resizes embeddings, merges adapters or saves a state dict by itself gets tensors
    of size 0. A checkpoint of shards loads into the same number of ranks only.

    ## How it is proven

    By the log alone.

    ## Fix

    Gather what is read outside of forward; save through the engine or accelerate.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/v0.14.4/deepspeed/runtime/zero/partition_parameters.py
    - https://deepspeed.readthedocs.io/en/stable/zero3.html#deepspeed.zero.GatheredParameters
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/fsdp/_state_dict_utils.py
    - https://github.com/huggingface/safetensors/blob/v0.4.5/bindings/python/py_src/safetensors/torch.py
    """

    name = "sharded-weights-used-whole"
    topic = "sharding-checkpointing"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://deepspeed.readthedocs.io/en/stable/zero3.html"
    symptoms = (
        Symptom(
            pattern=r"`weight` must be 2-D",
            example="RuntimeError: 'weight' must be 2-D",
            counter_example="RuntimeError: 'weight' must be a Tensor",
            cause="The embedding is empty where it is used: ZeRO-3 or FSDP holds its weights in shards",
        ),
        Symptom(
            pattern=r"mat2 must be a matrix, got (?P<dimensions>\d)-D tensor",
            example="RuntimeError: mat2 must be a matrix, got 1-D tensor",
            counter_example="mat1 and mat2 shapes cannot be multiplied (8x4096 and 1x1)",
            cause="A weight is empty where it is used: ZeRO-3 or FSDP holds it in shards",
            sure="likely",
        ),
        Symptom(
            pattern=r"The size of tensor a \((?:0\) must match the size of tensor b|\d+\) must match the "
            r"size of tensor b \(0\))",
            example="RuntimeError: The size of tensor a (4096) must match the size of tensor b (0) at "
            "non-singleton "
            "dimension 2",
            counter_example="The size of tensor a (4096) must match the size of tensor b (2048) at "
            "non-singleton dimension 2",
            cause="A weight is empty where it is used: ZeRO-3 or FSDP holds it in shards",
            sure="likely",
        ),
        Symptom(
            pattern=r"ZeroParamStatus\.(?P<state>NOT_AVAILABLE|INFLIGHT)",
            example="{'id': 0, 'status': 'NOT_AVAILABLE'} ZeroParamStatus.NOT_AVAILABLE",
            counter_example="ZeroParamStatus.AVAILABLE",
            cause="A parameter of ZeRO-3 was in the state {state} when another was wanted: forward passes "
            "out of order, or"
            " after an error",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"`status`: `(?P<state>NOT_AVAILABLE|INFLIGHT)`",
            example="AssertionError: {'id': 0, 'status': 'NOT_AVAILABLE', 'numel': 0, 'ds_numel': 32000}",
            counter_example="'status': 'AVAILABLE'",
            cause="ZeRO-3 holds this parameter in shards and could not gather it when it was wanted",
        ),
        Symptom(
            pattern=r"param\.ds_status == ZeroParamStatus\.AVAILABLE",
            example="    assert param.ds_status == ZeroParamStatus.AVAILABLE, param.ds_summary()",
            counter_example="param.ds_status = ZeroParamStatus.NOT_AVAILABLE",
            cause="ZeRO-3 holds a parameter in shards and could not gather it when it was wanted",
        ),
        Symptom(
            pattern=r"already been assigned swap buffer",
            example="AssertionError: param 5 has already been assigned swap buffer id 0",
            counter_example="swap buffer allocated",
            cause="ZeRO-3 read the same parameter from NVMe twice: checkpointing or a forward pass out of "
            "order",
        ),
        Symptom(
            pattern=r"still have inflight params",
            example="RuntimeError: still have inflight params [{'id': 4, 'status': 'AVAILABLE'}]",
            counter_example="requests in flight",
            cause="A forward pass of ZeRO-3 ended while parameters were still being gathered: layers are "
            "skipped, or it ran"
            " outside of the engine",
        ),
        Symptom(
            pattern=r"tracing error at step \d{1,9}",
            example="RuntimeError: tracing error at step 42: module id: 5, expected the next 2 parameters "
            "in the parameter "
            "fetch queue to be",
            counter_example="tracing is enabled",
            cause="ZeRO-3 expects the same modules in the same order in each step, and this step took "
            "another way",
            fixes=(
                remedy(
                    "name modules that are not always used, such as experts, as leaves",
                    "deepspeed.utils.set_z3_leaf_modules(model, [MoeBlock])",
                    "edit",
                ),
                remedy("take ZeRO-2"),
            ),
        ),
        Symptom(
            pattern=r"expected (?:the next \d{1,5} parameters|there to be only one unique element|params "
            r"to be)[^\n]{0,60}"
            r" ?(?:fetch queue|<generator|partition)",
            example="ValueError: expected there to be only one unique element in <generator object "
            "Init._convert_to_deepspeed_"
            "param.<locals>.all_gather_coalesced>",
            counter_example="expected there to be two",
            cause="ZeRO-3 gathers parameters of different dtypes at once: adapters or norms are in another "
            "dtype",
            fixes=(remedy("one dtype for all parameters", "model.to(torch.bfloat16)", "edit"),),
        ),
        Symptom(
            pattern=r"DeepSpeed Zero-?3 is not compatible with `?low_cpu_mem_usage",
            example="ValueError: DeepSpeed Zero-3 is not compatible with `low_cpu_mem_usage=True` or with "
            "passing a "
            "`device_map`.",
            counter_example="low_cpu_mem_usage=True",
            cause="A model for ZeRO-3 cannot be loaded with low_cpu_mem_usage or a device_map",
            fixes=(
                remedy(
                    "leave both out; ZeRO-3 shards the model as it is loaded", "from_pretrained(name)", "edit"
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:Some|following) tensors share memory",
            example="RuntimeError: Some tensors share memory, this will lead to duplicate memory on disk "
            "and potential "
            "differences when loading them again: [{'lm_head.weight', 'model.embed_tokens.weight'}].",
            counter_example="Removed shared tensor while saving",
            cause="safetensors refuses to save tensors that share memory, such as tied embeddings",
            fixes=(
                remedy(
                    "save through the model",
                    "safetensors.torch.save_model(model, path)   # or model.save_pretrained(path)",
                    "edit",
                ),
                remedy("by pickle", "save_safetensors=False", "edit"),
            ),
        ),
        Symptom(
            pattern=r"The weights trying to be saved contained shared tensors",
            example="RuntimeError: The weights trying to be saved contained shared tensors "
            "[{'lm_head.weight', "
            "'model.embed_tokens.weight'}] that are mismatching the transformers base configuration.",
            counter_example="Removed shared tensor while saving",
            cause="Tensors share memory that the model's config does not declare as tied",
            fixes=(
                remedy("tie them, or copy one of them, before saving", "model.tie_weights()", "edit"),
                remedy("by pickle", "save_pretrained(path, safe_serialization=False)", "edit"),
            ),
        ),
        Symptom(
            pattern=r"None is covering the entire storage",
            example="RuntimeError: Error while trying to find names to remove to save state dict, but "
            "found no suitable name "
            "to keep for saving amongst: {'a', 'b'}. None is covering the entire storage.",
            counter_example="Removed shared tensor while saving",
            cause="safetensors cannot save views of a larger tensor, such as shards of FSDP's flat parameter",
            fixes=(
                remedy(
                    "gather the full state dict first", "state = accelerator.get_state_dict(model)", "edit"
                ),
                remedy("save the model by pickle", "save_safetensors=False", "edit"),
            ),
        ),
        Symptom(
            pattern=r"You are trying to save a non contiguous tensor: `(?P<tensor>[\w.]{1,200})`",
            example="ValueError: You are trying to save a non contiguous tensor: "
            "`model.layers.0.q_proj.weight` which is not "
            "allowed.",
            counter_example="You are trying to save a sparse tensor",
            cause="safetensors refuses to save {tensor}, which is a view with gaps",
            fixes=(remedy("make it contiguous", "tensor.contiguous()", "edit"),),
        ),
        Symptom(
            pattern=r"The checkpoint being loaded used a DP world size of (?P<then>\d+) but the current "
            r"world size is (?P<now>\d+)",
            example="deepspeed.runtime.zero.utils.ZeRORuntimeException: The checkpoint being loaded used a "
            "DP world size of 8 "
            "but the current world size is 4. Automatic adjustment of ZeRO's optimizer state partitioning "
            "with a new world "
            "size is not currently supported.",
            counter_example="world size is 4",
            cause="This ZeRO checkpoint was saved by {then} ranks and is loaded by {now}",
            fixes=(
                remedy("go on with as many ranks"),
                remedy(
                    "make it universal first",
                    "python -m deepspeed.checkpoint.ds_to_universal --input_folder CKPT --output_folder "
                    "UNIVERSAL",
                ),
                remedy("load the weights alone", "python zero_to_fp32.py CKPT OUTPUT"),
            ),
        ),
        Symptom(
            pattern=r"otal number of attention heads \((?P<heads>\d+)\) must be divisible by (?:the "
            r")?tensor parallel size "
            r"\((?P<gpus>\d+)\)",
            example="ValueError: Total number of attention heads (14) must be divisible by tensor parallel "
            "size (4).",
            counter_example="tensor parallel size 4",
            cause="{heads} attention heads cannot be shared by {gpus} GPUs",
            fixes=_DIVIDE,
        ),
        Symptom(
            pattern=r"must be divisible by (?:the )?(?:tensor|sequence|pipeline)[\x20_-]?(?:model"
            r"[\x20_-])?parallel[\x20_-]?(?:world[\x20_-])?"
            r"(?:size|degree)?",
            example="AssertionError: Number of heads (28) must be divisible by the sequence parallel size "
            "(8)!",
            counter_example="batch size must be divisible by 8",
            cause="A dimension of the model is not divisible by the number of GPUs that share it",
            fixes=_DIVIDE,
        ),
        Symptom(
            pattern=r"AssertionError: (?P<size>\d+) is not divisible by (?P<parts>\d+)",
            example="AssertionError: 151655 is not divisible by 4",
            counter_example="train_batch_size is not equal to micro_batch_per_gpu * gradient_acc_step * "
            "world_size",
            cause="{size} cannot be divided among {parts} GPUs",
            sure="likely",
            fixes=_DIVIDE,
        ),
        Symptom(
            pattern=r"does not support uneven sharding",
            example="NotImplementedError: FSDP does not support uneven sharding on dim 1: torch.Size([3, "
            "5]) (world size: 2)",
            counter_example="sharding strategy FULL_SHARD",
            cause="A parameter's dimension is not divisible by the number of ranks that shard it",
        ),
        Symptom(
            pattern=r"got mixed torch\.Tensor and DTensor",
            example="RuntimeError: aten.mm.default: got mixed torch.Tensor and DTensor, need to convert "
            "all torch.Tensor to "
            "DTensor before calling distributed operators!",
            counter_example="DTensor redistribute",
            cause="A sharded weight (DTensor) meets a plain tensor: a layer is used outside of its sharded "
            "module's forward",
            fixes=(
                remedy("call the wrapped module itself, not its parts or its parameters"),
                remedy("make it whole first", "weight.full_tensor()", "edit"),
            ),
        ),
        Symptom(
            pattern=r"Missing key in checkpoint state_dict: (?P<key>[\w.-]{1,200})",
            example="RuntimeError: Missing key in checkpoint state_dict: optimizer.state.0.step.",
            counter_example="Missing key(s) in state_dict: lm_head.weight",
            cause="The sharded checkpoint has no {key}, which the job wants to load from it",
            fixes=(
                remedy("load with the optimizer, and the settings of FSDP, that it was saved with"),
                remedy("load the model's state alone, and start the optimizer anew"),
            ),
        ),
        Symptom(
            pattern=r"is in the state_dict but the state_dict only has",
            example="AssertionError: FSDP assumes model.layers.0.q_proj.weight is in the state_dict but "
            "the state_dict"
            " only has odict_keys(['_flat_param']).",
            counter_example="Missing key(s) in state_dict",
            cause="FSDP's state dict lacks a parameter that it wrapped: tied or replaced after wrapping, "
            "or made on one"
            " rank only",
            fixes=(
                remedy(
                    "make the state dict on all ranks together, through accelerate",
                    "accelerator.get_state_dict(model)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"state_dict`? can only be used when parameters are flatten",
            example="RuntimeError: ``local_state_dict`` can only be used when parameters are flatten and "
            "sharded.",
            counter_example="local_state_dict is deprecated",
            cause="FSDP gives no local state dict in this state of its parameters",
            fixes=(
                remedy(
                    "ask for the sharded or the full one",
                    "fsdp_state_dict_type: SHARDED_STATE_DICT   # or FULL_STATE_DICT",
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"`_is_root` should not have been set",
            example="AssertionError: Non-root FSDP instance's `_is_root` should not have been set yet or "
            "should have been"
            " set to `False`",
            counter_example="FSDP instance is the root",
            cause="A part of the model was run, saved or wrapped by itself before the whole FSDP model was",
            fixes=(remedy("run the outermost FSDP module first, and only it"),),
        ),
    )
    remedies = (
        remedy(
            "gather what is read outside of its module's forward",
            "with deepspeed.zero.GatheredParameters(module.parameters()): ...",
            "edit",
        ),
        remedy("run forward through the engine, and evaluate or generate on all ranks together"),
        remedy(
            "ZeRO-2, where the model fits on one GPU", '{{"zero_optimization": {{"stage": 2}}}}', "config"
        ),
    )
