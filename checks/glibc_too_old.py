"""A library needs a newer C or C++ runtime than this system, or this environment, has."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy

_CXX = (
    remedy("take the C++ runtime of conda-forge", "conda install -c conda-forge libstdcxx-ng"),
    remedy(
        "and let it be found before the system's",
        'LD_LIBRARY_PATH="$CONDA_PREFIX/lib:$LD_LIBRARY_PATH"',
        "environment",
    ),
)


class GlibcTooOld(Check):
    """A library needs a newer C or C++ runtime than this system, or this environment, has.

    ## What it finds

    In a log: the dynamic linker's "version GLIBC_x not found", and the same for GLIBCXX and CXXABI.

    ## Why it breaks

    A wheel built on a newer system, or an extension compiled here by a newer compiler, names symbol versions
    that the running system's libc.so.6 or the libstdc++.so.6 found first does not have. glibc comes with the
    system and cannot be upgraded by itself; libstdc++ can come from conda.

    ## How it is proven

    By the log alone.

    ## Fix

    A container or a newer system for glibc, or a release of the package built for an older one; conda's
    libstdc++ for the rest.

    ## References

    - https://github.com/AnswerDotAI/fsdp_qlora/issues/76
    - https://github.com/pypa/manylinux
    """

    name = "glibc-too-old"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pypa/manylinux"
    symptoms = (
        Symptom(
            pattern=r"version `GLIBC_(?P<wanted>[\d.]{3,8})` not found \(required by (?P<library>"
            r"[^)\n]{3,300})\)",
            example="ImportError: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by "
            "/home/me/env/lib/python3.11/"
            "site-packages/bitsandbytes/libbitsandbytes_cuda128.so)",
            counter_example="glibc 2.34 found",
            cause="{library} needs glibc {wanted}, and this system's is older",
        ),
        Symptom(
            pattern=r"version `GLIBC_(?P<wanted>[\d.]{3,8})` not found",
            example="python: /lib64/libm.so.6: version `GLIBC_2.29' not found",
            counter_example="glibc 2.34 found",
            cause="A library needs glibc {wanted}, and this system's is older",
        ),
        Symptom(
            pattern=r"version `GLIBCXX_(?P<wanted>[\d.]{3,8})` not found",
            example="ImportError: /usr/lib/x86_64-linux-gnu/libstdc++.so.6: version `GLIBCXX_3.4.30' not "
            "found (required by "
            "/home/me/.cache/torch_extensions/py310_cu117/cpu_adam/cpu_adam.so)",
            counter_example="strings libstdc++.so.6 | grep GLIBCXX_3.4.30",
            cause="A library needs GLIBCXX_{wanted}, and the libstdc++.so.6 that is found first is older",
            fixes=_CXX,
        ),
        Symptom(
            pattern=r"version `CXXABI_(?P<wanted>[\d.]{3,8})` not found",
            example="ImportError: /lib64/libstdc++.so.6: version `CXXABI_1.3.13' not found (required by "
            "a.so)",
            counter_example="CXXABI_1.3.13",
            cause="A library needs CXXABI_{wanted}, and the libstdc++.so.6 that is found first is older",
            fixes=_CXX,
        ),
        Symptom(
            pattern=r"is not a supported wheel on this platform",
            example="ERROR: flash_attn-2.5.8+cu122torch2.3-cp310-cp310-linux_x86_64.whl is not a supported "
            "wheel on this "
            "platform.",
            counter_example="Building wheel for flash_attn",
            cause="The wheel is for another Python, another system or a newer glibc",
            sure="likely",
            fixes=(
                remedy(
                    "see which tags this Python takes", "pip debug --verbose | grep -A5 'Compatible tags'"
                ),
            ),
        ),
    )
    remedies = (
        remedy(
            "run in a container with a newer system",
            "docker run --gpus all pytorch/pytorch ...   # or apptainer exec --nv",
        ),
        remedy(
            "take an older release of that package, built for an older glibc",
            "ldd --version   # what this system has",
        ),
        remedy("build the package here", "pip install --no-binary PACKAGE PACKAGE"),
    )
