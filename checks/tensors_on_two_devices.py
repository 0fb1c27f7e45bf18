"""An operation is given tensors of two devices: something was left on the CPU or on another GPU."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class TensorsOnTwoDevices(Check):
    """An operation is given tensors of two devices: something was left on the CPU or on another GPU.

    ## What it finds

    In a log: torch, Triton, bitsandbytes and the losses of transformers refusing operands of different
    devices.

    ## Why it breaks

    Inputs that were not moved; adapters or heads added after the model was moved; masks and caches made
    on the CPU; a model that device_map split over GPUs with a layer cut in two, or a label that meets
    logits of another GPU. Under Trainer or DataParallel a second visible GPU is enough.

    ## How it is proven

    By the log alone.

    ## Fix

    Move what the message names to the device of the weights; keep layers whole in a device_map; let the
    job see one GPU.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/core/adaption.cpp
    - https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/TensorUtils.cpp
    - https://huggingface.co/docs/accelerate/concept_guides/big_model_inference
    - https://github.com/hpcaitech/ColossalAI/issues/3554
    """

    name = "tensors-on-two-devices"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.5.0/aten/src/ATen/core/adaption.cpp"
    symptoms = (
        Symptom(
            pattern=r"found at least two devices, (?P<first>[\w:]{3,12}) and (?P<second>[\w:]{3,12})! "
            r"\(when checking argument for argument (?P<argument>\w{1,30}) in method "
            r"(?P<method>\w{3,80})",
            example="RuntimeError: Expected all tensors to be on the same device, but found at least two "
            "devices, cuda:1 and cpu! (when checking argument for argument mat2 in method wrapper_mm)",
            counter_example="found at least two devices",
            cause="{method} is given tensors on {first} and on {second}: look at {argument}",
        ),
        Symptom(
            pattern=r"found at least two devices",
            example="RuntimeError: Expected all tensors to be on the same device, but found at least two "
            "devices",
            counter_example="found at least two errors",
            cause="An operation is given tensors of two devices",
        ),
        Symptom(
            pattern=r"Expected all tensors to be on the same device, but got (?P<argument>\w{1,30}) is on "
            r"(?P<first>[\w:]{3,12}), different from other tensors on (?P<second>[\w:]{3,12})",
            example="RuntimeError: Expected all tensors to be on the same device, but got index is on "
            "cuda:0, different from other tensors on cpu (when checking argument in method "
            "wrapper_CUDA__index_select)",
            counter_example="Expected all tensors to be on the same device",
            cause="{argument} is on {first}, the other tensors on {second}",
        ),
        Symptom(
            pattern=r"Expected all tensors to be on the same device(?!, but)",
            example="RuntimeError: Expected all tensors to be on the same device. Expected NPU tensor, "
            "please check whether the input tensor device is correct.",
            counter_example="all tensors are on the same device",
            cause="An operation is given tensors of two devices",
        ),
        Symptom(
            pattern=r"indices should be either on (?P<first>[\w:]{3,12}) or on the same device as the "
            r"indexed tensor \((?P<second>[\w:]{3,12})\)",
            example="RuntimeError: indices should be either on cpu or on the same device as the indexed "
            "tensor (cpu)",
            counter_example="the indices are on the cpu",
            cause="A tensor on {second} is indexed by one of another device",
        ),
        Symptom(
            pattern=r"indices should be either on cpu or on the same device as the indexed tensor(?! \()",
            example="RuntimeError: indices should be either on cpu or on the same device as the indexed "
            "tensor",
            counter_example="the indices are on the cpu",
            cause="A tensor is indexed by one of another device",
        ),
        Symptom(
            pattern=r"Input type \((?P<input>torch\.(?:cuda\.)?\w{4,18}|CUDA\w{4,16}|CPU\w{4,16})\) and "
            r"(?:weight|bias) type \((?P<weight>torch\.(?:cuda\.)?\w{4,18}|CUDA\w{4,16}|CPU\w{4,16})\) "
            r"should be the same",
            example="RuntimeError: Input type (torch.FloatTensor) and weight type (torch.cuda.FloatTensor) "
            "should be the same",
            counter_example="Input type (float) and bias type (c10::Half) should be the same",
            cause="A convolution is given a {input} and has weights that are {weight}",
        ),
        Symptom(
            pattern=r"Input, output and indices must be on the current device",
            example="RuntimeError: Input, output and indices must be on the current device",
            counter_example="Input and output are on the current device",
            cause="An embedding and its token ids are on different devices",
        ),
        Symptom(
            pattern=r"Tensor for (?:argument #\d{1,2} )?`\w{1,30}` is on (?P<first>CPU|GPU|[\w:]{3,12}), "
            r"but expected (?:it|them) to be on (?P<second>GPU|CPU|[\w:]{3,12})",
            example="RuntimeError: Tensor for argument #2 'mat1' is on CPU, but expected it to be on GPU "
            "(while checking arguments for addmm)",
            counter_example="Tensor for argument #2 is on CPU",
            cause="A tensor is on {first} and is wanted on {second}",
        ),
        Symptom(
            pattern=r"but expected (?:it|them) to be on (?P<second>GPU|CPU)",
            example="Tensor for 'out' is on CPU, Tensor for argument #1 'self' is on CPU, but expected them "
            "to be on GPU (while checking arguments for addmm)",
            counter_example="but expected it to be true",
            cause="A tensor is wanted on the {second} and is on another device",
        ),
        Symptom(
            pattern=r"Expected object of device type (?P<second>\w{3,6}) but got device type "
            r"(?P<first>\w{3,6})",
            example="RuntimeError: Expected object of device type cuda but got device type cpu for argument "
            "#1 'self' in call to _th_addmm",
            counter_example="object of device type cuda",
            cause="A tensor is on {first} and is wanted on {second}",
        ),
        Symptom(
            pattern=r"[Ee]xpected device (?P<second>[\w:]{3,12}) but got device (?P<first>[\w:]{3,12})",
            example="RuntimeError: expected device cuda:0 but got device cpu",
            counter_example="expected device cuda:0",
            cause="A tensor is on {first} and is wanted on {second}",
        ),
        Symptom(
            pattern=r"expected both inputs to be on same device, but input a is on (?P<first>[\w:]{3,12}) "
            r"and input b is on (?P<second>[\w:]{3,12})",
            example="RuntimeError: binary_op(): expected both inputs to be on same device, but input a is "
            "on cuda:0 and input b is on cpu",
            counter_example="both inputs are on the same device",
            cause="An operation is given tensors on {first} and on {second}",
        ),
        Symptom(
            pattern=r"Expected tensors? (?:for argument|used as|to have)[^\n]{0,120} to have the same "
            r"device as tensor for argument",
            example="RuntimeError: Expected tensor for argument #1 'input' to have the same device as "
            "tensor for argument #2 'weight'; but device 0 does not equal 1 (while checking arguments "
            "for cudnn_batch_norm)",
            counter_example="tensor for argument #1",
            cause="An operation is given tensors of two devices",
        ),
        Symptom(
            pattern=r"Expected tensor to have (?P<second>CPU|CUDA) (?:DeviceType|Backend), but got tensor "
            r"with (?P<first>CPU|CUDA)",
            example="RuntimeError: Expected tensor to have CUDA DeviceType, but got tensor with CPU "
            "DeviceType",
            counter_example="tensor with CPU DeviceType",
            cause="A tensor is on the {first} and is wanted on {second}",
        ),
        Symptom(
            pattern=r"Expected query, key, and value to have the same device type",
            example="RuntimeError: Expected query, key, and value to have the same device type, but got "
            "query.device: cuda:0 key.device: cpu and value.device: cpu instead.",
            counter_example="query, key, and value have the same device",
            cause="Attention is given query, key and value of different devices",
        ),
        Symptom(
            pattern=r"Pointer argument \(at (?P<number>\d{1,3})\) cannot be accessed from Triton",
            example="ValueError: Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)",
            counter_example="Pointer argument (at 0)",
            cause="A Triton kernel is given a tensor on the CPU, or one of another GPU than the current one",
            fixes=(
                remedy(
                    "move the model and its inputs to the GPU",
                    'model = model.to("cuda")',
                    "edit",
                ),
                remedy(
                    "with several GPUs, make the tensor's own the current one",
                    "torch.cuda.set_device(local_rank)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Expected a `(?P<second>\w{3,6})` device type for generator but found "
            r"`(?P<first>\w{3,6})",
            example="RuntimeError: Expected a 'cuda' device type for generator but found 'cpu'",
            counter_example="device type for generator",
            cause="A generator of random numbers is on {first} and is wanted on {second}",
            fixes=(
                remedy(
                    "make the generator on the device",
                    'torch.Generator(device="cuda")',
                    "edit",
                ),
                remedy(
                    "where torch.set_default_device is called: not before the data loader",
                ),
            ),
        ),
        Symptom(
            pattern=r"Placeholder storage has not been allocated on MPS device",
            example="RuntimeError: Placeholder storage has not been allocated on MPS device!",
            counter_example="storage on MPS device",
            cause="The model is on the Mac GPU and an input is not",
            fixes=(
                remedy(
                    "move the inputs to it",
                    'inputs = inputs.to("mps")',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"[Ii]nput tensors need to be on the same (?:GPU|device), but found",
            example="TypeError: Input tensors need to be on the same GPU, but found the following tensor "
            "and device combinations",
            counter_example="Input tensors are on the same GPU",
            cause="bitsandbytes is given tensors of two devices",
        ),
        Symptom(
            pattern=r"the optimizer parameters are not on the same device",
            example="ValueError: The model and the optimizer parameters are not on the same device, which "
            "probably means you created an optimizer around your model **before** putting on the device.",
            counter_example="the optimizer parameters are on the device",
            cause="The optimizer was made before the model was moved, so it holds the parameters on the CPU",
            fixes=(
                remedy(
                    "move the model first, then make the optimizer",
                    'model = model.to("cuda")\noptimizer = torch.optim.AdamW(model.parameters())',
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"You are calling \.generate\(\) with the `input_ids` being on a device type different",
            example="UserWarning: You are calling .generate() with the `input_ids` being on a device type "
            "different than your model's device.",
            counter_example="You are calling .generate()",
            cause="generate() is given input_ids of another device than the model's",
            standing="hint",
        ),
        Symptom(
            pattern=r"(?:Input|input) and (?:parameter|hidden) tensors are not at the same device",
            example="RuntimeError: Input and parameter tensors are not at the same device, found input "
            "tensor at cpu and parameter tensor at cuda:0",
            counter_example="input and parameter tensors",
            cause="A recurrent layer and its input are on different devices",
        ),
        Symptom(
            pattern=r"All tensors must be on (?:the same|one|CUDA|GPU) ?device",
            example="ValueError: All tensors must be on the same device",
            counter_example="tensors must be on",
            cause="An operation is given tensors of two devices",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "move what you feed to the model's device",
            "inputs = {{key: value.to(model.device) for key, value in inputs.items()}}",
            "edit",
        ),
        remedy(
            "move the model again after adapters or heads were added",
            'model = model.to("cuda")',
            "edit",
        ),
        remedy(
            "let the job see one GPU only",
            "CUDA_VISIBLE_DEVICES=0",
            "environment",
        ),
        remedy(
            "put the whole model on one GPU",
            'device_map={{"": 0}}',
            "edit",
        ),
    )
