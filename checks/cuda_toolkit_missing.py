"""There is no CUDA toolkit (nvcc, headers, libraries) to compile an extension with."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CudaToolkitMissing(Check):
    """There is no CUDA toolkit (nvcc, headers, libraries) to compile an extension with.

    ## What it finds

    In a log: DeepSpeed, torch, flash-attention, Triton or CMake that look for `CUDA_HOME`, `nvcc`,
    `ptxas`, CUDA's headers or the libraries to link with, and find none.

    ## Why it breaks

    The wheels of torch bring the runtime libraries of CUDA and no compiler. Whatever is compiled on the
    machine (DeepSpeed's operators, flash-attention or apex from source) needs a toolkit, found by
    `CUDA_HOME`, by `nvcc` on `PATH` or at `/usr/local/cuda`.

    ## How it is proven

    By the log alone.

    ## Fix

    Install a toolkit of torch's CUDA version, or name the one that is there; or take a wheel that is
    already compiled.

    ## References

    - https://github.com/Dao-AILab/flash-attention/issues/447
    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`_join_cuda_home`)
    - https://github.com/Dao-AILab/flash-attention/blob/main/setup.py
    """

    name = "cuda-toolkit-missing"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/Dao-AILab/flash-attention/issues/447"
    symptoms = (
        Symptom(
            pattern=r"CUDA_HOME does not exist, unable to compile",
            example="deepspeed.ops.op_builder.builder.MissingCUDAException: CUDA_HOME does not "
            "exist, unable to compile CUDA op(s)",
            counter_example="No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'",
            cause="There is no CUDA toolkit: CUDA_HOME is not set and nvcc was not found, so "
            "DeepSpeed cannot compile its operators",
        ),
        Symptom(
            pattern=r"Unable to run (?P<nvcc>\S{1,200}), unable to compile CUDA",
            example="MissingCUDAException: Unable to run /usr/local/cuda/bin/nvcc, unable to "
            "compile CUDA op(s): [Errno 2] No such file",
            counter_example="CUDA_HOME does not exist",
            cause="The CUDA toolkit has no compiler that runs: {nvcc}",
        ),
        Symptom(
            pattern=r"CUDA_HOME environment variable is not set",
            example="OSError: CUDA_HOME environment variable is not set. Please set it to your "
            "CUDA install root.",
            counter_example="ROCM_HOME environment variable is not set.",
            cause="There is no CUDA toolkit: CUDA_HOME is not set and nvcc was not found",
        ),
        Symptom(
            pattern=r"CUDA was not found on the system",
            example="RuntimeError: CUDA was not found on the system, please set the CUDA_HOME or "
            "the CUDA_PATH environment variable or add NVCC to your system PATH. The "
            "extension compilation will fail.",
            counter_example="CUDA was found on the system",
        ),
        Symptom(
            pattern=r"No such file or directory: `(?P<nvcc>[^`\n]{0,200}/bin/nvcc)\b",
            example="FileNotFoundError: [Errno 2] No such file or directory: '/usr/local/cuda/bin/nvcc'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
            cause="There is no CUDA compiler at {nvcc}",
        ),
        Symptom(
            pattern=r"bin/nvcc: (?:not found|No such file or directory|command not found)",
            example="/bin/sh: 1: /usr/local/cuda-11.7/bin/nvcc: not found",
            counter_example="/usr/local/cuda/bin/nvcc -c kernel.cu -o kernel.o",
        ),
        Symptom(
            pattern=r"\bnvcc: (?:command )?not found",
            example="sh: nvcc: command not found",
            counter_example="nvcc: NVIDIA (R) Cuda compiler driver",
        ),
        Symptom(
            pattern=r"raise_if_cuda_home_none\(",
            example='    raise_if_cuda_home_none("flash_attn")',
            counter_example="    if CUDA_HOME is None:",
            cause="There is no CUDA toolkit to build the package with: CUDA_HOME is not set",
            sure="likely",
        ),
        Symptom(
            pattern=r"but nvcc was not found",
            example="RuntimeError: --cuda_ext was requested, but nvcc was not found.  Are you "
            "sure your environment has nvcc available?",
            counter_example="nvcc was found at /usr/local/cuda/bin/nvcc",
            cause="nvcc is not there, and an extension is to be compiled from source",
        ),
        Symptom(
            pattern=r"Cannot find CUDA_HOME|Could not find CUDA_HOME",
            example="AssertionError: Cannot find CUDA_HOME. CUDA must be available to build the package.",
            counter_example="Found CUDA_HOME: /usr/local/cuda",
        ),
        Symptom(
            pattern=r"Could not find `nvcc and default cuda_home",
            example="RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist",
            counter_example="Could not find a version that satisfies the requirement nvidia-cuda-nvcc",
            cause="FlashInfer compiles its kernels when they are first used, and there is no nvcc",
        ),
        Symptom(
            pattern=r"Failed to find nvcc|No CMAKE_CUDA_COMPILER could be found",
            example="  Failed to find nvcc.",
            counter_example="-- The CUDA compiler identification is NVIDIA 12.4.131",
            cause="CMake finds no CUDA compiler",
        ),
        Symptom(
            pattern=r"fatal error: `(?P<header>(?:cuda|cuda_runtime|cuda_runtime_api|cuda_fp16|"
            r"cuda_bf16|cublas_v2|cublasLt|cusparse|cusolverDn|curand|curand_kernel|"
            r"cudnn|nvrtc|cuda_profiler_api|crt/host_defines|nv/target|"
            r"thrust/complex)(?:\.h)?)`: No such file",
            example="fatal error: cuda_runtime.h: No such file or directory",
            counter_example="fatal error: Python.h: No such file or directory",
            cause="The header {header} is missing: the CUDA toolkit is not there, or only a part of it",
            fixes=(
                remedy(
                    "install the whole toolkit, headers included",
                    'conda install -c nvidia cuda-toolkit=$(python -c "import torch; '
                    'print(torch.version.cuda)")',
                ),
                remedy(
                    "let CUDA_HOME name an installed toolkit of torch's CUDA version",
                    'export CUDA_HOME=/usr/local/cuda-$(python -c "import torch; print(torch.version.cuda)")',
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"cannot find -l(?P<library>cudart|cublas|cublasLt|curand|cusparse|cusolver|"
            r"cudnn|cuda|nvrtc)\b",
            example="/usr/bin/ld: cannot find -lcurand: No such file or directory",
            counter_example="/usr/bin/ld: cannot find -laio",
            cause="The linker does not find CUDA's library lib{library}.so",
            fixes=(
                remedy(
                    "let the linker see the toolkit's libraries (stubs: libcuda.so)",
                    "export LIBRARY_PATH=$CUDA_HOME/lib64:$CUDA_HOME/lib64/stubs:$LIBRARY_PATH",
                    "environment",
                ),
                remedy(
                    "install that toolkit into the conda environment",
                    'conda install -c nvidia cuda-toolkit=$(python -c "import torch; '
                    'print(torch.version.cuda)")',
                ),
            ),
        ),
        Symptom(
            pattern=r"libcuda\.so cannot found!",
            example="AssertionError: libcuda.so cannot found!",
            counter_example="OSError: libcuda.so.1: cannot open shared object file",
            cause="Triton does not find the driver's libcuda.so to link with",
            fixes=(
                remedy("make the driver's library known", "sudo ldconfig"),
                remedy(
                    "name its folder",
                    "export TRITON_LIBCUDA_PATH=/usr/lib/x86_64-linux-gnu",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"RuntimeError: (?:Cannot find|`?ptxas` failed to find) `(?P<tool>ptxas|"
            r"cuobjdump|nvdisasm)",
            example="RuntimeError: Cannot find ptxas",
            counter_example="ptxas info    : Used 32 registers",
            cause="Triton finds no {tool}",
        ),
        Symptom(
            pattern=r"No CUDA toolset found",
            example="CMake Error at CMakeDetermineCompilerId.cmake:491 (message): No CUDA toolset found.",
            counter_example="-- CUDA toolset: 12.4",
            cause="Visual Studio has no CUDA integration: the toolkit is missing, or was "
            "installed before Visual Studio",
        ),
    )
    remedies = (
        remedy(
            "install a toolkit of torch's CUDA version into the conda environment",
            'conda install -c nvidia cuda-toolkit=$(python -c "import torch; print(torch.version.cuda)")',
        ),
        remedy(
            "where one is installed, name it",
            "export CUDA_HOME=/usr/local/cuda PATH=/usr/local/cuda/bin:$PATH",
            "environment",
        ),
        remedy("use an image that has a compiler: the -devel, not the -runtime one"),
        remedy(
            "do without compiling: a wheel built for this Python, torch and CUDA; for DeepSpeed "
            "`pip install deepspeed` without DS_BUILD_OPS"
        ),
    )
