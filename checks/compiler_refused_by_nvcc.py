"""nvcc does not work with the C++ compiler of this machine."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CompilerRefusedByNvcc(Check):
    """nvcc does not work with the C++ compiler of this machine.

    ## What it finds

    In a log: nvcc, or torch before it, that refuses the version of gcc, clang or Visual Studio, and the
    errors in the C++ library's headers that an nvcc gives which does not refuse.

    ## Why it breaks

    Each release of nvcc knows the host compilers up to a version. A distribution's upgrade brings a
    newer one: gcc 12 is too new for CUDA 11.7, gcc 14 for CUDA 12.3.

    ## How it is proven

    By the log alone.

    ## Fix

    Install an older compiler beside it and name it; or use a newer toolkit.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`CUDA_GCC_VERSIONS`)
    - https://github.com/deepspeedai/DeepSpeed/issues/2707
    - https://github.com/deepspeedai/DeepSpeed/issues/3890
    """

    name = "compiler-refused-by-nvcc"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py"
    symptoms = (
        Symptom(
            pattern=r"unsupported GNU version! gcc versions later than (?P<most>\d+) are not "
            r"supported",
            example="error: #error -- unsupported GNU version! gcc versions later than 11 are "
            "not supported! The nvcc flag '-allow-unsupported-compiler' can be used to "
            "override this version check",
            counter_example="gcc version 11.4.0 (Ubuntu 11.4.0-1ubuntu1~22.04)",
            cause="gcc is newer than {most}, the newest that this nvcc works with",
            fixes=(
                remedy(
                    "install that compiler and name it",
                    "sudo apt-get install g++-{most} && export CC=gcc-{most} CXX=g++-{most} "
                    "NVCC_PREPEND_FLAGS='-ccbin g++-{most}'",
                ),
                remedy("use a newer toolkit whose nvcc knows this gcc"),
            ),
        ),
        Symptom(
            pattern=r"unsupported Microsoft Visual Studio version!",
            example="fatal error C1189: #error:  -- unsupported Microsoft Visual Studio version! "
            "Only the versions between 2017 and 2019 (inclusive) are supported!",
            counter_example="Microsoft Visual Studio 2019",
            cause="nvcc does not know this Visual Studio: it is too new for the toolkit",
        ),
        Symptom(
            pattern=r"unsupported clang version!",
            example="error -- unsupported clang version! clang version must be less than 16 and "
            "greater than 3.2",
            counter_example="clang version 14.0.0",
            cause="nvcc does not know this clang",
        ),
        Symptom(
            pattern=r"current installed version of (?P<compiler>\S{1,80}) "
            r"\((?P<installed>[\w.]{1,20})\) is (?P<how>greater|less) than the (?:max|"
            r"min)imum required version by CUDA (?P<toolkit>[\d.]*\d)",
            example="RuntimeError: The current installed version of g++ (12.3.0) is greater than "
            "the maximum required version by CUDA 11.7. Please make sure to use an "
            "adequate version of g++ (>=6.0.0, <12.0).",
            counter_example="There are no g++ version bounds defined for CUDA version 12.9",
            cause="{compiler} {installed} is not among the compilers that CUDA {toolkit} works with",
        ),
        Symptom(
            pattern=r"No supported (?P<compiler>\S{1,20}) host compiler found",
            example="nvcc fatal   : No supported gcc/g++ host compiler found, but clang-14 is available.",
            counter_example="host compiler: gcc",
            cause="nvcc finds no {compiler} that it works with",
        ),
        Symptom(
            pattern=r"nvcc fatal   : Cannot find compiler|nvcc fatal : (?:Cannot find|Failed to "
            r"preprocess host) compiler|Unsupported NVHPC compiler found",
            example="nvcc fatal   : Cannot find compiler 'cl.exe' in PATH",
            counter_example="nvcc fatal   : Unsupported gpu architecture 'compute_86'",
            cause="nvcc finds no host compiler that it works with",
        ),
        Symptom(
            pattern=r"error: parameter packs not expanded with",
            example="/usr/include/c++/11/bits/std_function.h:435:145: error: parameter packs not "
            "expanded with '...':",
            counter_example="warning: parameter is unused",
            cause="The headers of this gcc are too new for nvcc",
        ),
        Symptom(
            pattern=r"error: `identifier `__(?P<what>builtin_ia32|Bfloat16|"
            r"is_nothrow_new_constructible)|identifier `__builtin_ia32\w{3,40}` is "
            r"undefined",
            example='amxtileintrin.h(42): error: identifier "__builtin_ia32_ldtilecfg" is undefined',
            counter_example='error: identifier "foo" is undefined',
            cause="The headers of this gcc are too new for nvcc",
        ),
        Symptom(
            pattern=r"identifier `_Float(?:32|64|128)x?` is undefined",
            example='error: identifier "_Float32" is undefined',
            counter_example='error: identifier "foo" is undefined',
            cause="The headers of this C library are too new for nvcc",
        ),
    )
    remedies = (
        remedy(
            "install a compiler that this nvcc knows and name it",
            "export CC=gcc-11 CXX=g++-11 NVCC_PREPEND_FLAGS='-ccbin g++-11'",
            "environment",
        ),
        remedy("with conda, a compiler in the environment", "conda install -c conda-forge gxx_linux-64=11"),
        remedy("use a newer toolkit whose nvcc knows this compiler"),
    )
