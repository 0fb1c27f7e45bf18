"""A GPTQ or AWQ model is loaded without the packages or the compiled kernels it needs."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class GptqAwqKernelsMissing(Check):
    """A GPTQ or AWQ model is loaded without the packages or the compiled kernels it needs.

    ## What it finds

    In a log: transformers asking for optimum, auto-gptq, gptqmodel or autoawq, and these packages telling
    that their compiled kernels are not there or cannot do what is asked.

    ## Why it breaks

    These formats are read by packages of their own, which hold CUDA kernels compiled for one torch and
    one CUDA. Where the wheel does not fit, the Python part is installed and the kernels are missing.

    ## How it is proven

    By the log alone.

    ## Fix

    Install the package that today's transformers asks for, built for the installed torch.

    ## References

    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_gptq.py
    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_awq.py
    - https://github.com/AutoGPTQ/AutoGPTQ/issues/402
    - https://github.com/casper-hansen/AutoAWQ/issues/374
    """

    name = "gptq-awq-kernels-missing"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_gptq.py"
    symptoms = (
        Symptom(
            pattern=r"Loading an? (?P<method>\w{3,12}) quantized model requires (?P<needs>[\w-]{3,20})",
            example="ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)",
            counter_example="Loading a GPTQ quantized model",
            cause="A {method} model needs {needs}, which is not installed or too old",
            fixes=(
                remedy(
                    "install it",
                    "pip install -U {needs}",
                ),
                remedy(
                    "today's transformers reads GPTQ and AWQ through gptqmodel",
                    "pip install -U transformers optimum gptqmodel --no-build-isolation",
                ),
            ),
        ),
        Symptom(
            pattern=r"You need a version of auto_gptq >= (?P<asked>[\d.]{3,8}) to use GPTQ",
            example="ImportError: You need a version of auto_gptq >= 0.4.2 to use GPTQ: `pip install "
            "--upgrade auto-gptq`",
            counter_example="auto_gptq 0.7.1",
            cause="auto-gptq is older than {asked}",
        ),
        Symptom(
            pattern=r"You need optimum > [\d.]{3,8} and auto-gptq >",
            example="ValueError: You need optimum > 1.13.2 and auto-gptq > 0.4.2 . Make sure to have that "
            "version installed",
            counter_example="optimum 1.24",
            cause="optimum or auto-gptq is too old",
        ),
        Symptom(
            pattern=r"gptqmodel version should be >= (?P<asked>[\d.]{3,8})",
            example="ImportError: The gptqmodel version should be >= 1.4.3, optimum version should >= 1.24.0",
            counter_example="gptqmodel version 2.0",
            cause="gptqmodel is older than {asked}, or optimum too old",
        ),
        Symptom(
            pattern=r"You current version of `(?P<package>autoawq|optimum)` does not support",
            example="ValueError: You current version of `autoawq` does not support module fusing, please "
            "upgrade `autoawq` package to at least 0.1.7.",
            counter_example="Your version of autoawq",
            cause="{package} is too old for what is asked",
            fixes=(
                remedy(
                    "upgrade it",
                    "pip install -U {package}",
                ),
            ),
        ),
        Symptom(
            pattern=r"Trying to use the (?P<kernel>exllama|exllama v2|marlin) backend, but could not import",
            example="ValueError: Trying to use the exllama backend, but could not import the C++/CUDA "
            "dependencies with the following error: exllama_kernels",
            counter_example="Using the exllama backend",
            cause="The compiled {kernel} kernels cannot be imported",
        ),
        Symptom(
            pattern=r"name `(?P<missing>autogptq_cuda\w{0,6}|exl_ext|awq_ext|exlv2_ext|awq_inference_engine|"
            r"exllama_import_exception)` is not defined",
            example="NameError: name 'autogptq_cuda_256' is not defined",
            counter_example="NameError: name 'model' is not defined",
            cause="The compiled kernels of the GPTQ or AWQ package are not installed ({missing})",
        ),
        Symptom(
            pattern=r"No module named "
            r"`(?P<missing>autogptq_cuda\w{0,6}|exllama_kernels|exllamav2_kernels|awq_ext|exl_ext|exlv2_"
            r"ext|awq_inference_engine|awq_v2_ext|quant_cuda|autogptq_marlin_cuda)",
            example="ModuleNotFoundError: No module named 'exllama_kernels'",
            counter_example="ModuleNotFoundError: No module named 'optimum'",
            cause="The compiled kernels of the GPTQ or AWQ package are not installed ({missing})",
        ),
        Symptom(
            pattern=r"External (?P<kernel>AWQ|AWQ V2|ExLlama|ExLlamaV2|Marlin) kernels are not properly "
            r"installed",
            example="ModuleNotFoundError: External AWQ kernels are not properly installed.",
            counter_example="External kernels are installed",
            cause="The compiled {kernel} kernels cannot be imported",
        ),
        Symptom(
            pattern=r"AWQ kernels could not be loaded",
            example="AssertionError: AWQ kernels could not be loaded. Please install them from "
            "https://github.com/casper-hansen/AutoAWQ_kernels",
            counter_example="AWQ kernels were loaded",
            cause="The compiled AWQ kernels cannot be imported",
            fixes=(
                remedy(
                    "install the kernels for this torch",
                    "pip install -U autoawq autoawq-kernels",
                ),
            ),
        ),
        Symptom(
            pattern=r"either triton or autoawq-kernels is needed to be installed",
            example="ValueError: either triton or autoawq-kernels is needed to be installed to use "
            "`.backward()`.",
            counter_example="triton is installed",
            cause="AWQ layers cannot be trained through without triton or autoawq-kernels",
        ),
        Symptom(
            pattern=r"Exllama(?:v2)? kernel does not support (?P<what>training|query/key/value fusion)",
            example="NotImplementedError: Exllama kernel does not support training.",
            counter_example="Exllama kernel supports inference",
            cause="ExLlama kernels do not support {what}",
            fixes=(
                remedy(
                    "switch them off to train",
                    "GPTQConfig(bits=4, use_exllama=False)",
                    "edit",
                ),
                remedy(
                    "with auto-gptq itself: inject_fused_attention=False",
                    "inject_fused_attention=False",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Exllama(?:v2)? kernel supports only bits=4, requested bits=(?P<bits>\d)",
            example="ValueError: Exllama kernel supports only bits=4, requested bits=8. Something is wrong "
            "in the model initialization.",
            counter_example="Exllama kernel with bits=4",
            cause="The model has {bits} bits, and ExLlama kernels know 4 only",
            fixes=(
                remedy(
                    "switch them off",
                    "GPTQConfig(bits=8, use_exllama=False)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"should be called only when using the exllama backend",
            example="The method exllama_set_max_input_length should be called only when using the exllama "
            "backend **with act-order**.",
            counter_example="the exllama backend",
            cause="exllama_set_max_input_length is called for a model that does not run on ExLlama kernels "
            "with act-order",
        ),
        Symptom(
            pattern=r"temp_state buffer is too small",
            example="RuntimeError: The temp_state buffer is too small in the exllama backend for GPTQ with "
            "act-order.",
            counter_example="the buffer is large enough",
            cause="The prompt is longer than the buffer of the ExLlama kernels",
            fixes=(
                remedy(
                    "enlarge it",
                    "model = exllama_set_max_input_length(model, max_input_length=4096)",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"Marlin is not available due to cuda/device support",
            example="TypeError: use_marlin is true but Marlin is not available due to cuda/device support.",
            counter_example="use_marlin is false",
            cause="Marlin kernels are asked for and this GPU or build has none",
            fixes=(
                remedy(
                    "leave use_marlin out",
                    "use_marlin=False",
                    "edit",
                ),
            ),
        ),
        Symptom(
            pattern=r"_kernels not installed\.",
            example="ERROR:auto_gptq.nn_modules.qlinear.qlinear_exllama:exllama_kernels not installed.",
            counter_example="exllama_kernels installed",
            cause="The compiled kernels of auto-gptq are not installed",
            standing="hint",
        ),
        Symptom(
            pattern=r"CUDA (?:kernels for auto_gptq are|extension) not installed",
            example="CUDA extension not installed.",
            counter_example="CUDA extension installed",
            cause="The compiled kernels of auto-gptq are not installed: inference is slow, or fails",
            standing="hint",
        ),
    )
    remedies = (
        remedy(
            "install what today's transformers reads these formats with",
            "pip install -U transformers optimum gptqmodel --no-build-isolation",
        ),
        remedy(
            "auto-gptq in a wheel for the installed torch and CUDA",
            "pip install auto-gptq --no-build-isolation",
        ),
        remedy(
            "take the unquantised checkpoint, quantised at the load",
            "quantization_config=BitsAndBytesConfig(load_in_4bit=True)",
            "edit",
        ),
    )
