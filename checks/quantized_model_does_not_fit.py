"""The quantised model does not fit the GPUs, and its loader refuses to put the rest elsewhere."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class QuantizedModelDoesNotFit(Check):
    """The quantised model does not fit the GPUs, and its loader refuses to put the rest elsewhere.

    ## What it finds

    In a log: the refusals of transformers, accelerate, optimum and the quantisers to load a quantised
    model of which a part was mapped to the CPU or the disk.

    ## Why it breaks

    device_map="auto" counts the free memory of the GPUs and sends to the CPU what does not fit. Kernels
    for quantised weights work on the GPU, so the loader stops. What counts is free memory: another
    process, or an earlier model in a notebook, is enough. Old releases count a 4-bit model as if it had 8
    bits.

    ## How it is proven

    By the log alone.

    ## Fix

    Free memory or use more GPUs; load in 4 bits; or say that these modules may stay on the CPU in
    float32.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_4bit.py
    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    - https://github.com/huggingface/transformers/issues/22018
    """

    name = "quantized-model-does-not-fit"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_4bit.py"
    symptoms = (
        Symptom(
            pattern=r"Some modules are dispatched on the CPU or the disk",
            example="ValueError: Some modules are dispatched on the CPU or the disk. Make sure you have "
            "enough GPU RAM to fit the quantized model.",
            counter_example="Some parameters are on the meta device because they were offloaded to the disk",
            cause="The quantised model does not fit the free memory of the GPUs: device_map put a part of "
            "it on the CPU or the disk",
        ),
        Symptom(
            pattern=r"Make sure you have enough GPU RAM to fit the quantized mode",
            example="Make sure you have enough GPU RAM to fit the quantized model. If you have set a value "
            "for `max_memory`",
            counter_example="Make sure you have enough GPU RAM",
            cause="The quantised model does not fit the free memory of the GPUs: device_map put a part of "
            "it on the CPU or the disk",
        ),
        Symptom(
            pattern=r"you need to set "
            r"`(?P<name>llm_int8_enable_fp32_cpu_offload|load_in_8bit_fp32_cpu_offload)=True",
            example="If you want to offload some keys to `cpu` or `disk`, you need to set "
            "`llm_int8_enable_fp32_cpu_offload=True`.",
            counter_example="BitsAndBytesConfig(llm_int8_enable_fp32_cpu_offload=True)",
            cause="The device_map puts modules of a quantised model on the CPU or the disk, without "
            "{name}=True",
        ),
        Symptom(
            pattern=r"You are attempting to (?:load|use) an? [^\n]{0,40}model with a device_map that "
            r"contains a (?:CPU|cpu|disk)",
            example="ValueError: You are attempting to load an AWQ model with a device_map that contains a "
            "CPU or disk device. This is not supported.",
            counter_example="You are attempting to load an AWQ model",
            cause="The device_map puts a part of the quantised model on the CPU or the disk, which its "
            "kernels do not support",
            fixes=(
                remedy(
                    "keep all of it on the GPUs",
                    'device_map={{"": 0}}',
                    "edit",
                ),
                remedy(
                    "free memory on the GPUs: see who holds it",
                    "nvidia-smi",
                ),
                remedy(
                    "take a smaller model or more GPUs",
                ),
            ),
        ),
        Symptom(
            pattern=r"cpu/disk offload with a pre-quantized (?P<method>\w{2,20}) model",
            example="ValueError: You are attempting to perform cpu/disk offload with a pre-quantized "
            "torchao model This is not supported yet .",
            counter_example="perform cpu/disk offload with a model",
            cause="A part of the {method} model was mapped to the CPU or the disk, which is not supported",
        ),
        Symptom(
            pattern=r"Found modules on cpu/disk\. Using (?P<kernel>\w{3,20})",
            example="ValueError: Found modules on cpu/disk. Using Exllama or Exllamav2 backend requires all "
            "the modules to be on GPU.",
            counter_example="Found modules on cuda:0",
            cause="The GPTQ model does not fit the GPUs: a part of it is on the CPU or the disk, where "
            "{kernel} kernels do not run",
            fixes=(
                remedy(
                    "keep all of it on the GPUs",
                    'device_map={{"": 0}}',
                    "edit",
                ),
                remedy(
                    "switch the kernels off, which is slow",
                    "GPTQConfig(bits=4, use_exllama=False)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"To automatically compute the appropriate device map, you should upgrade",
            example="ValueError: You are using `device_map='auto'` on a 4bit loaded version of the model. "
            "To automatically compute the appropriate device map, you should upgrade your `accelerate` "
            "library",
            counter_example="the device map was computed",
            cause='This accelerate cannot count a 4-bit model for device_map="auto"',
            fixes=(
                remedy(
                    "upgrade accelerate",
                    "pip install -U accelerate",
                ),
                remedy(
                    "give a map yourself",
                    'device_map={{"": 0}}',
                    "edit",
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "see what holds the memory of the GPUs, and end it",
            "nvidia-smi",
        ),
        remedy(
            "let it use all of one GPU, no map to count for",
            'device_map={{"": 0}}',
            "edit",
        ),
        remedy(
            "load in 4 bits instead of 8",
            "BitsAndBytesConfig(load_in_4bit=True)",
            "edit",
        ),
        remedy(
            "let the rest stay on the CPU in float32, with a device_map of your own",
            "BitsAndBytesConfig(load_in_8bit=True, llm_int8_enable_fp32_cpu_offload=True)",
            "edit",
        ),
    )
