"""The loader does not find a usable bitsandbytes or accelerate for a quantised model."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class BitsandbytesNotUsable(Check):
    """The loader does not find a usable bitsandbytes or accelerate for a quantised model.

    ## What it finds

    In a log: transformers, accelerate, peft and vLLM asking for bitsandbytes, for accelerate, or for
    newer releases of them.

    ## Why it breaks

    The loader asks for the packages by their metadata. They are missing, too old, in another environment
    than the one that runs, or installed after the process had started. Releases of 2023 and 2024 give the
    same answer where torch sees no GPU: for them bitsandbytes is then "not available".

    ## How it is proven

    By the log alone.

    ## Fix

    Install both into the environment that runs the job, restart the process or notebook, and see that
    torch sees the GPU.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_8bit.py
    - https://github.com/huggingface/transformers/blob/v4.31.0/src/transformers/modeling_utils.py
    - https://huggingface.co/docs/transformers/quantization/bitsandbytes
    - https://github.com/bigcode-project/starcoder2/issues/6
    """

    name = "bitsandbytes-not-usable"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_8bit.py"
    symptoms = (
        Symptom(
            pattern=r"Using `load_in_8bit=True` requires Accelerate",
            example="ImportError: Using `load_in_8bit=True` requires Accelerate: `pip install accelerate` "
            "and the latest version of bitsandbytes",
            counter_example="Using `load_in_8bit=True` is deprecated",
            cause="accelerate or bitsandbytes is missing, too old, or unusable without a GPU",
        ),
        Symptom(
            pattern=r"Using `bitsandbytes` (?P<bits>[48])-bit quantization requires",
            example="ImportError: Using `bitsandbytes` 8-bit quantization requires the latest version of "
            "bitsandbytes: `pip install -U bitsandbytes`",
            counter_example="Using `bitsandbytes` 8-bit quantization",
            cause="The {bits}-bit load finds no usable bitsandbytes or accelerate: missing, too old, or "
            "unusable without a GPU",
        ),
        Symptom(
            pattern=r"requires [^\n]{0,80} the latest version of bitsandbytes",
            example="requires Accelerate: `pip install accelerate` and the latest version of bitsandbytes "
            "`pip install bitsandbytes`",
            counter_example="you have the latest version of bitsandbytes",
            cause="accelerate or bitsandbytes is missing, too old, or unusable without a GPU",
        ),
        Symptom(
            pattern=r"the latest version of bitsandbytes:? `?pip install",
            example="and the latest version of bitsandbytes: `pip install -i INDEX bitsandbytes`",
            counter_example="you have the latest version of bitsandbytes",
            cause="accelerate or bitsandbytes is missing, too old, or unusable without a GPU",
        ),
        Symptom(
            pattern=r"PackageNotFoundError: bitsandbytes\b",
            example="importlib.metadata.PackageNotFoundError: bitsandbytes",
            counter_example="importlib.metadata.PackageNotFoundError: my-package",
            cause="bitsandbytes is not installed where the job runs",
        ),
        Symptom(
            pattern=r"version of `bitsandbytes` that is not compatible with",
            example="ImportError: You have a version of `bitsandbytes` that is not compatible with 8bit "
            "inference and training make sure you have the latest version of `bitsandbytes` installed",
            counter_example="a version of `bitsandbytes` that is compatible",
            cause="The installed bitsandbytes is too old for this load",
        ),
        Symptom(
            pattern=r"4 bit quantization requires bitsandbytes>=0\.39",
            example="ValueError: 4 bit quantization requires bitsandbytes>=0.39.0 - please upgrade your "
            "bitsandbytes version",
            counter_example="4 bit quantization works",
            cause="The installed bitsandbytes is too old for 4 bits",
        ),
        Symptom(
            pattern=r"the version of bitsandbytes is not compatible with (?:int4|int8|4-bit|8-bit) "
            r"serialization",
            example="ValueError: Detected int8 weights but the version of bitsandbytes is not compatible "
            "with int8 serialization.",
            counter_example="the version of bitsandbytes is compatible",
            cause="The checkpoint holds quantised weights and the installed bitsandbytes is too old to read "
            "them",
        ),
        Symptom(
            pattern=r"you don't have the correct `bitsandbytes` version to support",
            example="but you don't have the correct `bitsandbytes` version to support 4 and 8 bit "
            "serialization.",
            counter_example="you have the correct `bitsandbytes` version",
            cause="The checkpoint holds quantised weights and the installed bitsandbytes is too old to read "
            "them",
            standing="hint",
        ),
        Symptom(
            pattern=r"No package metadata was found for "
            r"`?(?P<package>bitsandbytes|accelerate|auto[-_]gptq|autoawq|gptqmodel|optimum)",
            example="importlib.metadata.PackageNotFoundError: No package metadata was found for bitsandbytes",
            counter_example="No package metadata was found for flash_attn",
            cause="{package} is not installed in the environment of this job",
        ),
        Symptom(
            pattern=r"bitsandbytes` is not installed but it seems that the model",
            example="ValueError: bitsandbytes is not installed but it seems that the model has been loaded "
            "in 4bit precision",
            counter_example="bitsandbytes is installed",
            cause="The model was loaded in 4 bits and bitsandbytes is not to be found",
        ),
        Symptom(
            pattern=r"Trainer tried to instantiate bnb [^\n]{0,20} but ",
            example="ValueError: Trainer tried to instantiate bnb Adam8bit but bnb is not installed!",
            counter_example="Trainer instantiates Adam",
            cause="An 8-bit optimizer is asked for and bitsandbytes is not to be found",
        ),
        Symptom(
            pattern=r"AdEMAMix optimizer is not supported by your current version of `bitsandbytes",
            example="ValueError: The AdEMAMix optimizer is not supported by your current version of "
            "`bitsandbytes`.",
            counter_example="The AdEMAMix optimizer is slow",
            cause="The installed bitsandbytes is too old for the AdEMAMix optimizer",
        ),
        Symptom(
            pattern=r"your `bitsandbytes` version doesn't support it",
            example="NotImplementedError: You are calling `save_pretrained` to a 4-bit converted model, but "
            "your `bitsandbytes` version doesn't support it.",
            counter_example="your `bitsandbytes` version supports it",
            cause="The installed bitsandbytes is too old to save quantised weights",
        ),
        Symptom(
            pattern=r"calling `save_pretrained` on a 4-bit converted model\. This is currently not supported",
            example="NotImplementedError: You are calling `save_pretrained` on a 4-bit converted model. "
            "This is currently not supported",
            counter_example="You are calling `save_pretrained`",
            cause="This transformers cannot save a 4-bit model",
            fixes=(
                remedy(
                    "upgrade both",
                    "pip install -U transformers bitsandbytes",
                ),
                remedy(
                    "save the adapters alone: call save_pretrained of the PeftModel",
                ),
            ),
        ),
        Symptom(
            pattern=r"Please install bitsandbytes(?:>=|==)(?P<asked>[\d.]{3,10}) via",
            example="ImportError: Please install bitsandbytes>=0.46.1 via `pip install "
            "bitsandbytes>=0.46.1` to use bitsandbytes quantizer.",
            counter_example="Please install bitsandbytes",
            cause="vLLM asks for bitsandbytes {asked}",
        ),
        Symptom(
            pattern=r"bitsandbytes version is wrong\. Please install bitsandbytes",
            example="ImportError: bitsandbytes version is wrong. Please install bitsandbytes>=0.44.0.",
            counter_example="the bitsandbytes version is right",
            cause="The installed bitsandbytes is too old for vLLM",
        ),
    )
    remedies = (
        remedy(
            "install them in the environment of this job, then restart the process",
            "pip install -U bitsandbytes accelerate",
        ),
        remedy(
            "see that it is the python that runs the job",
            "python -m pip show bitsandbytes accelerate transformers",
        ),
        remedy(
            "see whether torch is a CUDA build and sees the GPU",
            'python -c "import torch; print(torch.version.cuda, torch.cuda.is_available())"',
        ),
        remedy(
            "transformers and bitsandbytes of one age fit best",
            "pip install -U transformers",
        ),
    )
