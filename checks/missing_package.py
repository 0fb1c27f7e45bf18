"""A package that a library needs for what the job asks of it is not installed."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class MissingPackage(Check):
    """A package that a library needs for what the job asks of it is not installed.

    ## What it finds

    In a log: the messages of transformers, peft, accelerate and others that name a package which was not
    found, and modules of the stack that are not there.

    ## Why it breaks

    Much of what the libraries can do hangs on packages that they do not install themselves: tokenizers of
    Llama need sentencepiece and protobuf, a device_map needs accelerate, code that comes with a model
    needs what its author had. An installation into another environment than the one that runs looks the
    same.

    ## How it is proven

    By the log alone.

    ## Fix

    Install the package into the environment that runs: `python -m pip install ...` with the same python.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.45.0/src/transformers/utils/import_utils.py
    - https://github.com/ChasonShi/MELoRA/issues/4
    - https://github.com/intel/xFasterTransformer/issues/282
    """

    name = "missing-package"
    topic = "package-conflict"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://huggingface.co/docs/transformers/installation"
    symptoms = (
        Symptom(
            pattern=r"(?P<who>[\w.]{2,60}) requires the (?P<what>SentencePiece|sentencepiece) library but"
            r" it was not found",
            example="LlamaTokenizer requires the SentencePiece library but it was not found in your"
            " environment.",
            counter_example="LlamaTokenizer uses SentencePiece",
            cause="{who} needs sentencepiece, which is not installed",
            fixes=(
                remedy("install it, then start Python anew", "python -m pip install sentencepiece protobuf"),
                remedy(
                    "use the fast tokenizer, where the model has one",
                    "AutoTokenizer.from_pretrained(name, use_fast=True)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:requires the|`self\.legacy = False`\) requires the) protobuf library but it was"
            r" not found",
            example="The new behaviour of LlamaTokenizer (with `self.legacy = False`) requires the"
            " protobuf library but it"
            " was not found in your environment.",
            counter_example="LlamaTokenizer uses protobuf",
            cause="The tokenizer needs protobuf, which is not installed",
            fixes=(
                remedy("install it, then start Python anew", "python -m pip install protobuf sentencepiece"),
            ),
        ),
        Symptom(
            pattern=r"requires (?!the (?:[Ss]entence[Pp]iece|protobuf))(?:the"
            r" )?(?P<what>[^\s`'\"]{1,12}(?: \w{1,16}){0,2})(?: library)?(?:\.|,|) (?:[Bb]ut"
            r" )?(?:it|that|which|they) (?:was|were) not"
            r" found in your environment",
            example="AutoModel requires the PyTorch library but it was not found in your environment.",
            counter_example="the token was not found in your environment variables",
            cause="{what} is needed and not installed",
        ),
        Symptom(
            pattern=r"library but it was not found in your environment",
            example="requires the protobuf library but it was not found in your environment. Checkout the"
            " instructions on the",
            counter_example="the token was not found in your environment variables",
        ),
        Symptom(
            pattern=r"requires the following packages that were not found in your environment:"
            r" (?P<what>[\w,.\x20-]{2,120})",
            example="ImportError: This modeling file requires the following packages that were not found"
            " in your"
            " environment: flash_attn. Run `pip install flash_attn`",
            counter_example="This modeling file requires a GPU",
            cause="The code that comes with the model needs packages that are not installed: {what}",
            fixes=(
                remedy("install them", "python -m pip install einops tiktoken transformers_stream_generator"),
                remedy(
                    "flash_attn is compiled against the torch that is there",
                    "python -m pip install flash-attn --no-build-isolation",
                ),
            ),
        ),
        Symptom(
            pattern=r"Missing requirements in your local environment for `(?P<model>[\w./-]{2,120})`",
            example="ImportError: Missing requirements in your local environment for `org/model`:\neinops",
            counter_example="the requirements of the environment",
            cause="{model} comes with code whose requirements are not installed",
        ),
        Symptom(
            pattern=r"FlashAttention-?(?P<version>\d?)` has been toggled on, but it cannot be used due to"
            r" the following error:"
            r" (?:the package|Flash Attention \d? is not available|flash_attn)",
            example="ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the"
            " following error: the"
            " package flash_attn seems to be not installed.",
            counter_example="FlashAttention2 has been toggled on",
            cause="FlashAttention is asked for (attn_implementation) and is not installed, or has no GPU",
            fixes=(
                remedy("install it", "python -m pip install flash-attn --no-build-isolation"),
                remedy("use torch's own", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"FlashAttention-?\d has been toggled on, but it cannot be used due to the following"
            r" error",
            example="ImportError: FlashAttention2 has been toggled on, but it cannot be used due to the"
            " following error:"
            " Flash Attention 2 is not available.",
            counter_example="FlashAttention2 has been toggled on",
            cause="FlashAttention is asked for (attn_implementation) and cannot be used here",
            fixes=(
                remedy("install it", "python -m pip install flash-attn --no-build-isolation"),
                remedy("use torch's own", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"Flash Attention 2(?:\.0)? is not available\. Please refer to",
            example="ImportError: Flash Attention 2 is not available. Please refer to the documentation of",
            counter_example="Flash Attention 2 is available",
            cause="FlashAttention 2 is asked for and not installed",
            fixes=(
                remedy("install it", "python -m pip install flash-attn --no-build-isolation"),
                remedy("use torch's own", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"Using `(?P<what>low_cpu_mem_usage=True|(?:a )?`device_map|(?:the"
            r" )?`(?:Seq2Seq)?Trainer|\w{2,12}` quantization|"
            r"mxfp4)[^\n]{0,60} requires `[Aa]ccelerate",
            example="ImportError: Using the `Trainer` with `PyTorch` requires `accelerate>=0.26.0`:"
            " Please run `pip install"
            " transformers[torch]` or `pip install 'accelerate>=0.26.0'`",
            counter_example="Using the Trainer",
            cause="accelerate is not installed, or too old, and is needed for what the job asks",
            fixes=(remedy("install it, then start Python anew", "python -m pip install -U accelerate"),),
        ),
        Symptom(
            pattern=r"--deepspeed requires (?:Accelerate|`accelerate`|deepspeed)|DeepSpeed is not"
            r" installed => run `pip install deepspeed"
            r"|`deepspeed` (?:>=|is not installed)[^\n]{0,40}",
            example="ImportError: DeepSpeed is not installed => run `pip install deepspeed` or build it"
            " from source.",
            counter_example="deepspeed is installed",
            cause="DeepSpeed is asked for and not installed in this environment",
            fixes=(remedy("install it", "python -m pip install deepspeed accelerate"),),
        ),
        Symptom(
            pattern=r"Pipeline requires|Unable to convert output to PyTorch tensors format, PyTorch is"
            r" not installed",
            example="ImportError: Unable to convert output to PyTorch tensors format, PyTorch is not"
            " installed.",
            counter_example="PyTorch is installed",
            cause="torch is not installed in the environment that runs",
            fixes=(remedy("install it", "python -m pip install torch"),),
        ),
        Symptom(
            pattern=r"None of PyTorch, TensorFlow >= 2\.0,? (?:or|and|nor) Flax have been found",
            example="None of PyTorch, TensorFlow >= 2.0, or Flax have been found. Models won't be"
            " available and only"
            " tokenizers, configuration and file/data utilities can be used.",
            counter_example="PyTorch 2.3 is available",
            standing="hint",
            cause="transformers finds no torch, or one that is too old for it",
            fixes=(
                remedy("install a current one", "python -m pip install -U torch"),
                remedy(
                    "keep the transformers that goes with the torch that is there",
                    'pip install "transformers<4.50"',
                ),
            ),
        ),
        Symptom(
            pattern=r"Disabling PyTorch because PyTorch ?>= ?(?P<wanted>[\d.]{1,6}) is required but found"
            r" (?P<found>[\w.+]{1,20})",
            example="Disabling PyTorch because PyTorch >= 2.1 is required but found 2.0.1+cu117",
            counter_example="PyTorch 2.1 is used",
            standing="hint",
            cause="This transformers wants torch {wanted} or later and switches torch {found} off",
            fixes=(
                remedy("upgrade torch", "python -m pip install -U torch"),
                remedy("keep an older transformers", 'pip install "transformers<4.49"'),
            ),
        ),
        Symptom(
            pattern=r"No module named"
            r" `(?P<module>sentencepiece|google|google\.protobuf|flash_attn|flash_attn_2_cuda|einops"
            r"|tiktoken|accelerate|bitsandbytes"
            r"|peft|deepspeed|trl|transformers|torch|torchvision|torchaudio|datasets|evaluate|safetensors"
            r"|tokenizers|huggingface_hub"
            r"|xformers|triton|vllm|apex|scipy|sklearn|transformers_stream_generator|auto_gptq|awq"
            r"|optimum|wandb|tensorboard"
            r"|tensorboardX|rouge_chinese|jieba|cpm_kernels|fire|gradio|pynvml|psutil|cpuinfo|pydantic"
            r"|numpy|packaging"
            r"|causal_conv1d|mamba_ssm|rotary_emb|dropout_layer_norm|flash_attn_cuda|fused_dense_lib"
            r"|amp_C|apex_C|fused_layer_norm_cuda"
            r"|transformer_engine|megatron|unsloth|liger_kernel|hf_transfer|hf_xet|loralib|tqdm|yaml"
            r"|omegaconf|timm|decord|av|qwen_vl_utils"
            r"|ray|modelscope|swift|llmtuner|llamafactory|petrel_client|pkg_resources|setuptools"
            r"|distutils|six|imp)`",
            example="ModuleNotFoundError: No module named 'flash_attn'",
            counter_example="ModuleNotFoundError: No module named 'my_project'",
            sure="likely",
            cause="The module {module} is not in the environment that runs",
            fixes=(
                remedy(
                    "install it with the python that runs the job (the package's name may differ: sklearn is"
                    " scikit-learn, google is protobuf, pkg_resources is in setuptools below 81)",
                    "python -m pip install {module}",
                ),
                remedy("see which python that is", 'python -c "import sys; print(sys.executable)"'),
            ),
        ),
        Symptom(
            pattern=r"Could not import module `(?P<name>\w{3,80})`\. Are this object`s requirements"
            r" defined correctly",
            example="ModuleNotFoundError: Could not import module 'LlamaForCausalLM'. Are this object's"
            " requirements defined"
            " correctly?",
            counter_example="Could not import module main",
            cause="transformers cannot import {name}: a package that it needs is missing, or broken; the"
            " traceback above"
            " names it",
            sure="likely",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"requires (?P<what>intel_extension_for_pytorch), which is not installed on this system",
            example="ValueError: CPU_Accelerator requires intel_extension_for_pytorch, which is not"
            " installed on this system.",
            counter_example="intel_extension_for_pytorch is installed",
            cause="DeepSpeed is told to run on the CPU (DS_ACCELERATOR=cpu) and this release needs {what}"
            " for that",
            fixes=(
                remedy("let it choose", "unset DS_ACCELERATOR"),
                remedy("upgrade: it is no longer needed", "pip install -U deepspeed"),
            ),
        ),
        Symptom(
            pattern=r"Couldn`t instantiate the backend tokenizer from one of",
            example="ValueError: Couldn't instantiate the backend tokenizer from one of: \n(1) a"
            " `tokenizers` library"
            " serialization file, \n(2) a slow tokenizer instance to convert or",
            counter_example="the backend tokenizer is fast",
            cause="The tokenizer has to be converted from a slow one, for which sentencepiece or tiktoken"
            " is not installed"
            " (or its file is missing)",
            fixes=(
                remedy(
                    "install both, then start Python anew",
                    "python -m pip install sentencepiece protobuf tiktoken",
                ),
            ),
        ),
        Symptom(
            pattern=r"`tiktoken` is required to read a `tiktoken` file|Converting from (?:SentencePiece"
            r" and )?Tiktoken failed",
            example="ValueError: Converting from SentencePiece and Tiktoken failed, if a converter for"
            " SentencePiece is"
            " available, provide a model path with a SentencePiece tokenizer.model file.",
            counter_example="tiktoken is used",
            cause="A tokenizer has to be converted from its tiktoken or SentencePiece file, for which a"
            " package (or the file)"
            " is missing",
            fixes=(
                remedy(
                    "install both, then start Python anew",
                    "python -m pip install tiktoken sentencepiece protobuf",
                ),
            ),
        ),
        Symptom(
            pattern=r"You need to install"
            r" (?P<what>sentencepiece|protobuf|accelerate|bitsandbytes|einops|tiktoken|[\w.-]{2,30}) to"
            r" (?:use|load|be able)",
            example="You need to install sentencepiece to use T5Tokenizer:"
            " https://github.com/google/sentencepiece",
            counter_example="You need to install the driver",
            cause="{what} is needed and not installed",
            fixes=(remedy("install it", "python -m pip install {what}"),),
        ),
        Symptom(
            pattern=r"(?:is|are) not installed\. Please (?:install|run `pip install)|Please install"
            r" (?:it|them) (?:with|via|using|by running) `pip install"
            r" (?P<what>[\w.-]{2,40})",
            example="ImportError: rouge_score is not installed. Please install it with `pip install"
            " rouge_score`",
            counter_example="the driver is installed",
            sure="likely",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"To be able to use (?P<what>[\w./-]{2,60}), you need to install the following"
            r" (?:dependenc|package)\w{1,4}",
            example="ImportError: To be able to use evaluate-metric/rouge, you need to install the"
            " following dependencies"
            "['rouge_score'] using 'pip install rouge_score' for instance'",
            counter_example="To be able to use it",
            cause="{what} needs packages that are not installed",
        ),
        Symptom(
            pattern=r"ast download using `hf_transfer` is enabled \(HF_HUB_ENABLE_HF_TRANSFER=1\) but"
            r" `hf_transfer` package is not"
            r" available",
            example="ValueError: Fast download using 'hf_transfer' is enabled"
            " (HF_HUB_ENABLE_HF_TRANSFER=1) but 'hf_transfer'"
            " package is not available in your environment. Try `pip install hf_transfer`.",
            counter_example="HF_HUB_ENABLE_HF_TRANSFER=0",
            cause="HF_HUB_ENABLE_HF_TRANSFER=1 is set and hf_transfer is not installed",
            fixes=(
                remedy("install it", "python -m pip install hf_transfer"),
                remedy("switch it off", "HF_HUB_ENABLE_HF_TRANSFER=0", "environment"),
            ),
        ),
    )
    remedies = (
        remedy(
            "install what the message names, with the python that runs the job",
            "python -m pip install PACKAGE",
        ),
        remedy("see which python that is", 'python -c "import sys; print(sys.executable)"'),
    )
