"""A quantised model is asked for where no GPU is seen."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class BitsandbytesWithoutGpu(Check):
    """A quantised model is asked for where no GPU is seen.

    ## What it finds

    In a log: refusals to quantise without a GPU, and the lines by which bitsandbytes tells that it loaded
    its CPU-only library.

    ## Why it breaks

    Most quantisation kernels are CUDA kernels. Without a GPU that torch can use - a CPU build of torch,
    no driver, a node or notebook without GPU, a Mac, CUDA_VISIBLE_DEVICES empty - bitsandbytes loads a
    library without them. The import goes well, with a warning; the first load or product fails.

    ## How it is proven

    By the log alone.

    ## Fix

    Make torch see the GPU: a CUDA build of torch, a driver, a GPU runtime. Without a GPU, load without
    quantisation.

    ## References

    - https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.47.0/bitsandbytes/cextension.py
    - https://github.com/huggingface/transformers/blob/v4.46.3/src/transformers/quantizers/quantizer_bnb_8bit.py
    - https://huggingface.co/docs/bitsandbytes/installation
    - https://github.com/bitsandbytes-foundation/bitsandbytes/issues/680
    """

    name = "bitsandbytes-without-gpu"
    topic = "quantized-loading"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/bitsandbytes-foundation/bitsandbytes/blob/0.47.0/bitsandbytes/cextension.py"
    symptoms = (
        Symptom(
            pattern=r"libcudart\.so not found in any environmental path",
            example="CUDA_SETUP: WARNING! libcudart.so not found in any environmental path. Searching in "
            "backup paths...",
            counter_example="Found duplicate ['libcudart.so'] files",
            cause="bitsandbytes finds no CUDA runtime (libcudart.so) on its search paths",
            standing="hint",
        ),
        Symptom(
            pattern=r"No GPU (?:or (?:Intel )?XPU )?found\. A GPU (?:or (?:Intel )?XPU )?is needed for "
            r"(?:\w{3,8} )?quantization",
            example="RuntimeError: No GPU found. A GPU is needed for quantization.",
            counter_example="No GPU found. Running on the CPU",
            cause="Quantisation is asked for and torch sees no GPU",
        ),
        Symptom(
            pattern=r"Device type not supported for FP4 quantization: ?(?P<device>\w{3,6})",
            example="NotImplementedError: Device type not supported for FP4 quantization: cpu",
            counter_example="FP4 quantization is supported",
            cause="This bitsandbytes quantises to 4 bits on a GPU only, and the weights are on {device}",
        ),
        Symptom(
            pattern=r"Quantization is only supported on the GPU",
            example="ValueError: Quantization is only supported on the GPU.",
            counter_example="Quantization is supported on the CPU",
            cause="Quantisation is asked for and the model is on the CPU",
        ),
        Symptom(
            pattern=r"GPU is required to (?:quantize or )?run (?P<method>\w{3,10}) ?quantized? model",
            example="RuntimeError: GPU is required to run AWQ quantized model.",
            counter_example="A GPU is required to run this",
            cause="A quantised model is loaded and torch sees no GPU",
        ),
        Symptom(
            pattern=r"AWQ is only available on GPU",
            example="ValueError: AWQ is only available on GPU",
            counter_example="AWQ is available",
            cause="An AWQ model is loaded and torch sees no GPU",
        ),
        Symptom(
            pattern=r"Load pretrained model to do quantization requires CUDA available",
            example="EnvironmentError: Load pretrained model to do quantization requires CUDA available.",
            counter_example="quantization with CUDA",
            cause="GPTQ quantisation is asked for and torch sees no GPU",
        ),
        Symptom(
            pattern=r"quantization is only supported on GPU",
            example="NotImplementedError: HIGGS quantization is only supported on GPU. Please use a "
            "different quantizer.",
            counter_example="quantization is supported on GPU",
            cause="Quantisation is asked for and torch sees no GPU",
        ),
        Symptom(
            pattern=r"[Qq]uantiz[^\n]{0,60} requires a (?:CUDA )?GPU(?! with)",
            example="RuntimeError: Quantizing a model using MXFP4 requires a GPU",
            counter_example="Quantizing a model using MXFP4 requires Triton",
            cause="Quantisation is asked for and torch sees no GPU",
        ),
        Symptom(
            pattern=r"installed version of bitsandbytes \(<0\.43\.1\) requires CUDA, but CUDA is not "
            r"available",
            example="ImportError: The installed version of bitsandbytes (<0.43.1) requires CUDA, but CUDA "
            "is not available.",
            counter_example="The installed version of bitsandbytes requires torch",
            cause="bitsandbytes before 0.43.1 needs CUDA, and torch has none",
        ),
        Symptom(
            pattern=r"CUDA is required but not available for bitsandbytes",
            example="RuntimeError: CUDA is required but not available for bitsandbytes. Please consider "
            "installing the multi-platform enabled version of bitsandbytes",
            counter_example="CUDA is available for bitsandbytes",
            cause="bitsandbytes needs CUDA, and torch has none",
        ),
        Symptom(
            pattern=r"None of the available devices `[^\n]{0,80} are supported by the bitsandbytes",
            example="RuntimeError: None of the available devices `available_devices = None` are supported "
            "by the bitsandbytes version you have installed",
            counter_example="devices are supported by the bitsandbytes version",
            cause="bitsandbytes supports none of the devices that torch sees",
        ),
        Symptom(
            pattern=r"WARNING: No GPU detected! Check your CUDA paths\. Proce",
            example="WARNING: No GPU detected! Check your CUDA paths. Proceeding to load CPU-only library...",
            counter_example="GPU detected",
            cause="bitsandbytes sees no GPU and loads its CPU-only library",
            standing="hint",
        ),
        Symptom(
            pattern=r"libcuda\.so not found! Do you have a CUDA driver installed",
            example="CUDA SETUP: WARNING! libcuda.so not found! Do you have a CUDA driver installed? If you "
            "are on a cluster, make sure you are on a CUDA machine!",
            counter_example="libcuda.so found",
            cause="bitsandbytes finds no NVIDIA driver library",
            standing="hint",
        ),
        Symptom(
            pattern=r"No libcudart\.so found! Install CUDA or the cudatoolkit package",
            example="WARNING: No libcudart.so found! Install CUDA or the cudatoolkit package (anaconda)!",
            counter_example="libcudart.so found",
            cause="bitsandbytes finds no CUDA runtime library",
            standing="hint",
            fixes=(
                remedy(
                    "put the CUDA runtime on the path of the loader",
                    "LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH",
                    "environment",
                ),
                remedy(
                    "install a current bitsandbytes, which takes torch's own",
                    "pip install -U bitsandbytes",
                ),
            ),
        ),
        Symptom(
            pattern=r"installed version of bitsandbytes was compiled without GPU support",
            example="UserWarning: The installed version of bitsandbytes was compiled without GPU support. "
            "8-bit optimizers and GPU quantization are unavailable.",
            counter_example="The installed version of bitsandbytes was compiled with GPU support",
            cause="bitsandbytes loaded its CPU-only library: torch or bitsandbytes sees no GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"bitsandbytes[^\n]{0,30} is (?:currently )?running as CPU-only",
            example="WARNING: bitsandbytes is running as CPU-only!",
            counter_example="bitsandbytes is running",
            cause="bitsandbytes loaded its CPU-only library: torch sees no GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"(?:bin|Loading binary|Defaulting to) [^\n]{0,200}libbitsandbytes_cpu\.",
            example="bin /env/bitsandbytes/libbitsandbytes_cpu.so",
            counter_example="bin /env/bitsandbytes/libbitsandbytes_cuda118.so",
            cause="bitsandbytes loaded its CPU-only library: torch or bitsandbytes sees no GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"libbitsandbytes_cpu\.so: undefined symbol: cadam",
            example="/env/bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: cadam32bit_grad_fp32",
            counter_example="/env/bitsandbytes/libbitsandbytes_cuda118.so",
            cause="bitsandbytes loaded its CPU-only library: torch or bitsandbytes sees no GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"AttributeError: [^\n]{0,200} undefined symbol: cadam",
            example="AttributeError: /env/bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: "
            "cadam32bit_g32",
            counter_example="/env/bitsandbytes/libbitsandbytes_cpu.so: undefined symbol: "
            "cadam32bit_grad_fp32",
            cause="bitsandbytes loaded its CPU-only library, in which the optimizers are missing",
        ),
        Symptom(
            pattern=r"`NoneType` object has no attribute `cadam",
            example="'NoneType' object has no attribute 'cadam32bit_grad_fp32'",
            counter_example="'NoneType' object has no attribute 'config'",
            cause="bitsandbytes has no library with GPU support for this system",
            standing="hint",
        ),
        Symptom(
            pattern=r"The 8-bit optimizer is not available on your device",
            example="The 8-bit optimizer is not available on your device, only available on CUDA for now.",
            counter_example="The 8-bit optimizer is available",
            cause="bitsandbytes loaded its CPU-only library: torch sees no GPU",
            standing="hint",
        ),
        Symptom(
            pattern=r"Unsloth: No NVIDIA GPU found",
            example="RuntimeError: Unsloth: No NVIDIA GPU found? Unsloth currently only supports GPUs!",
            counter_example="Unsloth: NVIDIA GPU found",
            cause="Unsloth needs a GPU and torch sees none",
        ),
    )
    remedies = (
        remedy(
            "see whether torch is a CUDA build and sees the GPU",
            'python -c "import torch; print(torch.version.cuda, torch.cuda.is_available())"',
        ),
        remedy(
            "install a CUDA build of torch where it is a CPU build",
            "pip install torch --index-url https://download.pytorch.org/whl/cu126",
        ),
        remedy(
            "install a current bitsandbytes: it has Windows libraries, and CPU ones that can quantise",
            "pip install -U bitsandbytes",
        ),
        remedy(
            "without a GPU, load without quantisation",
            'AutoModelForCausalLM.from_pretrained(name, torch_dtype="auto")',
            "edit",
        ),
    )
