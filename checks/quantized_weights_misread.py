"""Quantised weights are read or used as what they are not: without their scales, or as plain weights."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class QuantizedWeightsMisread(Check):
    """Quantised weights are read or used as what they are not: without their scales, or as plain weights.

    ## What it finds

    In a log: quantised checkpoints whose scales are missing, weights that are still packed in a plain
    matrix product, layers that were never quantised, and quantisation methods this release does not know.

    ## Why it breaks

    A 4-bit weight is a flat column of bytes with its scales beside it; an 8-bit one int8 with a scale a
    row. Code that reads them as plain tensors - another loader, ZeRO-3 or FSDP set up for float
    parameters, a merge, a release that does not know the method - meets a wrong dtype or shape.

    ## How it is proven

    By the log alone.

    ## Fix

    Load with the quantisation method that wrote the checkpoint, with current releases; or take the
    unquantised checkpoint.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_4bit.py
    - https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.47.0/bitsandbytes/functional.py
    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/auto.py
    """

    name = "quantized-weights-misread"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_4bit.py"
    symptoms = (
        Symptom(
            pattern=r"does not contain `bitsandbytes__\*",
            example="ValueError: Supplied state dict for model.layers.0.mlp.up_proj.weight does not contain "
            "`bitsandbytes__*` and possibly other `quantized_stats` components.",
            counter_example="the state dict contains bitsandbytes__nf4",
            cause="The 4-bit checkpoint lacks the scales of its weights",
        ),
        Symptom(
            pattern=r"Missing quantization component `SCB",
            example="ValueError: Missing quantization component `SCB`",
            counter_example="found quantization component SCB",
            cause="The 8-bit checkpoint lacks the scales of its weights",
        ),
        Symptom(
            pattern=r"when loading 8-bit prequantized weight",
            example="ValueError: Incompatible dtype `torch.float16` when loading 8-bit prequantized weight. "
            "Expected `torch.int8`.",
            counter_example="loading 8-bit prequantized weight",
            cause="The checkpoint says that it is 8-bit and holds other weights",
        ),
        Symptom(
            pattern=r"not compatible with parameter quantization status",
            example="ValueError: Value dtype `torch.int8` is not compatible with parameter quantization "
            "status.",
            counter_example="the parameter quantization status",
            cause="The checkpoint's weights do not fit how the model is loaded: quantised against plain",
        ),
        Symptom(
            pattern=r"mat1 and mat2 shapes cannot be multiplied \(\d{1,8}x\d{1,8} and "
            r"(?:1x\d{5,12}|\d{5,12}x1)\)",
            example="RuntimeError: mat1 and mat2 shapes cannot be multiplied (15x4096 and 1x8388608)",
            counter_example="RuntimeError: mat1 and mat2 shapes cannot be multiplied (8x64 and 32x64)",
            cause="A 4-bit weight is multiplied while it is still packed: its layer is not the quantised one",
        ),
        Symptom(
            pattern=r"FP4 quantization state not initialized",
            example="FP4 quantization state not initialized. Please call .cuda() or .to(device) on the "
            "LinearFP4 layer first.",
            counter_example="FP4 quantization state initialized",
            cause="A 4-bit layer is used before its weights were quantised, which happens when they move to "
            "the GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"assert (?:module\.weight|self\.weight|quant_state|weight\.quant_state|[\w.]{1,40}quant"
            r"_state) ?(?:is not None|\.shape)",
            example="    assert quant_state is not None",
            counter_example="assert state is not None",
            cause="A 4-bit layer is used before its weights were quantised, which happens when they move to "
            "the GPU",
            sure="likely",
        ),
        Symptom(
            pattern=r"Blockwise (?:4bit )?(?:de)?quantization only supports 16/32-bit floats, but got "
            r"torch\.(?P<dtype>\w{3,12})",
            example="ValueError: Blockwise quantization only supports 16/32-bit floats, but got torch.uint8",
            counter_example="Blockwise quantization only supports blocks",
            cause="Weights that are {dtype} already are quantised once more",
        ),
        Symptom(
            pattern=r"Only Tensors of floating point(?: and complex)? dtype can require gradients",
            example="RuntimeError: Only Tensors of floating point and complex dtype can require gradients",
            counter_example="Tensors of floating point dtype",
            cause="Quantised weights are made parameters that want a gradient: by ZeRO-3, FSDP or plain code",
            sure="likely",
            fixes=(
                remedy(
                    "use a release that can shard quantised models, with its quant_storage a float dtype",
                    "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_storage=torch.bfloat16)",
                    "edit",
                ),
                remedy(
                    "train adapters on the quantised model without ZeRO-3",
                ),
            ),
        ),
        Symptom(
            pattern=r"Unknown quantization type, got (?P<method>[\w.-]{1,40}) - supported types are",
            example="ValueError: Unknown quantization type, got fp8 - supported types are: ['awq', "
            "'bitsandbytes_4bit']",
            counter_example="quantization type fp8",
            cause="This transformers does not know the quantisation method {method} of the checkpoint",
            fixes=(
                remedy(
                    "upgrade transformers",
                    "pip install -U transformers",
                ),
            ),
        ),
        Symptom(
            pattern=r"cannot quantize with AWQ a non-quantized model",
            example="ValueError: You cannot quantize with AWQ a non-quantized model using transformers, "
            "please refer to the quantization documentation",
            counter_example="the model is pre-quantized",
            cause="This method reads checkpoints that are quantised already, and this one is not",
        ),
        Symptom(
            pattern=r"does require the model to be pre-quantized",
            example="ValueError: The quantization method QuantizationMethod.AWQ does require the model to "
            "be pre-quantized. You explicitly passed `pre_quantized=False`",
            counter_example="the model is pre-quantized",
            cause="This method reads checkpoints that are quantised already, and this one is not",
        ),
        Symptom(
            pattern=r"Did not found a `quantization_config` in",
            example="ValueError: Did not found a `quantization_config` in Config. Make sure that the model "
            "is correctly quantized.",
            counter_example="found a quantization_config",
            cause="The model is to be dequantised or trained as quantised, and its configuration does not "
            "say how it was quantised",
        ),
        Symptom(
            pattern=r"Unknown quantization method: (?P<method>[\w.-]{2,40})\. Must be one of",
            example="ValueError: Unknown quantization method: gguf2. Must be one of ['awq', 'gptq'].",
            counter_example="quantization method: gptq",
            cause="This vLLM does not know the quantisation method {method}",
            fixes=(
                remedy(
                    "upgrade vLLM, or take a checkpoint of a method that it lists",
                    "pip install -U vllm",
                ),
            ),
        ),
        Symptom(
            pattern=r"[Qq]uantization method specified in the model config \((?P<model>\w{2,30})\) does not "
            r"match",
            example="ValueError: Quantization method specified in the model config (gptq) does not match "
            "the quantization method specified in the `quantization` argument (awq).",
            counter_example="Quantization method specified in the model config",
            cause="The checkpoint is quantised with {model}, and another method is asked for",
            fixes=(
                remedy(
                    "leave the quantization option out: it is read from the checkpoint",
                ),
            ),
        ),
        Symptom(
            pattern=r"exactly one `quant_state` item with ending from",
            example="ValueError: There should be exactly one `quant_state` item with ending from "
            "['bitsandbytes__fp4']. Detected [].",
            counter_example="quant_state items were found",
            cause="The 4-bit checkpoint lacks the scales of its weights",
        ),
        Symptom(
            pattern=r"8bit or 4bit but no linear modules were found in your model",
            example="You are loading your model in 8bit or 4bit but no linear modules were found in your "
            "model.",
            counter_example="linear modules were found in your model",
            cause="The load in 4 or 8 bits found no linear layer to quantise",
            standing="hint",
        ),
    )
    remedies = (
        remedy(
            "load with the quantisation that the checkpoint says, by current releases",
            "pip install -U transformers accelerate bitsandbytes peft",
        ),
        remedy(
            "take the unquantised checkpoint and quantise at the load",
            "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
            "edit",
        ),
        remedy(
            "let the loader put the weights on the GPU: that is where they are quantised",
            'device_map={{"": 0}}',
            "edit",
        ),
    )
