"""An operator that is compiled on the machine could not be built: ninja, compiler, headers."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class CannotCompileOps(Check):
    """An operator that is compiled on the machine could not be built: ninja, compiler, headers.

    ## What it finds

    In a log: torch, DeepSpeed and Triton that miss ninja, a C or C++ compiler, Python's headers, or
    whose compiler failed; and what falls over when an operator was not built.

    ## Why it breaks

    DeepSpeed's FusedAdam and CPUAdam, Triton's launchers and every source distribution with CUDA code
    are compiled when first used or installed. The last message ("Error building extension") only says
    that it failed: the compiler's own words stand above it or after it.

    ## How it is proven

    By the log alone.

    ## Fix

    Install what is missing and remove the half-built folder under `~/.cache/torch_extensions`.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`_run_ninja_build`)
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.16.9/op_builder/builder.py (`jit_load`)
    - https://github.com/vllm-project/vllm/issues/15013
    """

    name = "cannot-compile-ops"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py"
    symptoms = (
        Symptom(
            pattern=r"Ninja is required to load C\+\+ extensions",
            example="RuntimeError: Ninja is required to load C++ extensions",
            counter_example="Detected CUDA files, patching ldflags",
            cause="ninja is not installed, or not on PATH",
            fixes=(
                remedy(
                    "install ninja in this environment, and let its folder be on PATH", "pip install ninja"
                ),
            ),
        ),
        Symptom(
            pattern=r"due to `?ninja`? not being installed",
            example="RuntimeError: Unable to JIT load the fused_adam op due to ninja not being installed.",
            counter_example="ninja: no work to do.",
            cause="ninja is not installed, or not on PATH",
            fixes=(
                remedy(
                    "install ninja in this environment, and let its folder be on PATH", "pip install ninja"
                ),
            ),
        ),
        Symptom(
            pattern=r"No such file or directory: `ninja\b",
            example="FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: "
            "'/usr/local/cuda/bin/nvcc'",
            cause="ninja is not installed, or not on PATH",
            fixes=(
                remedy(
                    "install ninja in this environment, and let its folder be on PATH", "pip install ninja"
                ),
            ),
        ),
        Symptom(
            pattern=r"Unable to JIT load the (?P<op>\w{1,60}) op due to it not being compatible",
            example="RuntimeError: Unable to JIT load the async_io op due to it not being "
            "compatible due to hardware/software issue.",
            counter_example="async_io: please install the libaio-dev package with apt",
            cause="DeepSpeed cannot build its operator {op} here: something it needs is missing",
            fixes=(
                remedy("see what it misses", "ds_report"),
                remedy("for async_io (offload to NVMe): install libaio", "sudo apt-get install libaio-dev"),
            ),
        ),
        Symptom(
            pattern=r"fatal error: `?libaio\.h|cannot find -laio\b",
            example="fatal error: libaio.h: No such file or directory",
            counter_example="[WARNING] async_io requires the dev libaio .so object and headers but "
            "these were not found.",
            cause="libaio is missing, which DeepSpeed's async_io is built with",
            fixes=(remedy("install libaio", "sudo apt-get install libaio-dev"),),
        ),
        Symptom(
            pattern=r"fatal error: `?Python\.h",
            example="fatal error: Python.h: No such file or directory",
            counter_example="fatal error: cuda_runtime.h: No such file or directory",
            cause="Python's headers are missing, without which no extension can be compiled",
            fixes=(
                remedy("install the headers of this very Python", "sudo apt-get install python3-dev"),
                remedy("use a conda or uv Python, which has them"),
            ),
        ),
        Symptom(
            pattern=r"Failed to find C(?:\+\+)? compiler",
            example="RuntimeError: Failed to find C compiler. Please specify via CC environment variable.",
            counter_example="Found C compiler: gcc",
            cause="There is no C compiler, and Triton needs one for the launchers of its kernels",
            fixes=(
                remedy("install a compiler", "sudo apt-get install build-essential"),
                remedy("where one is installed, name it", "export CC=/usr/bin/gcc", "environment"),
                remedy("run without compiling: torch.compile off, for vLLM `--enforce-eager`"),
            ),
        ),
        Symptom(
            pattern=r"unable to execute `(?P<compiler>(?:x86_64-[\w-]{1,40}-|"
            r"aarch64-[\w-]{1,40}-)?(?:gcc|g\+\+|cc|c\+\+|nvcc|clang))\b`: No such file",
            example="error: unable to execute 'gcc': No such file or directory",
            counter_example="gcc: error: unrecognized command-line option",
            cause="There is no compiler {compiler}",
        ),
        Symptom(
            pattern=r"No such file or directory: `(?P<compiler>(?:x86_64-[\w-]{1,40}-)?(?:gcc|"
            r"g\+\+|c\+\+|clang)(?:-\d+)?)(?![\w./+-])",
            example="FileNotFoundError: [Errno 2] No such file or directory: 'g++'",
            counter_example="FileNotFoundError: [Errno 2] No such file or directory: 'ninja'",
            cause="There is no compiler {compiler}",
        ),
        Symptom(
            pattern=r"error: command `\S{0,200}(?P<compiler>gcc|g\+\+|cc|c\+\+|clang|"
            r"nvcc)(?:\.exe)?` failed",
            example="error: command '/usr/bin/gcc' failed with exit code 1",
            counter_example="error: command 'git' failed",
            cause="The compiler {compiler} failed; its own message stands above",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"Microsoft Visual C\+\+ 14\.\d or greater is required",
            example="error: Microsoft Visual C++ 14.0 or greater is required. Get it with "
            '"Microsoft C++ Build Tools"',
            counter_example="Microsoft Visual C++ Redistributable is installed",
            cause="There is no C++ compiler on this Windows machine",
            fixes=(
                remedy("install the Build Tools for Visual Studio, with the workload for C++ on the desktop"),
                remedy("use Linux or WSL 2, for which there are wheels"),
            ),
        ),
        Symptom(
            pattern=r"Command `\[`where`, `cl`\]` returned non-zero",
            example="subprocess.CalledProcessError: Command '['where', 'cl']' returned non-zero "
            "exit status 1.",
            counter_example="Command '['ninja', '-v']' returned non-zero exit status 1.",
            cause="There is no C++ compiler (cl.exe) on PATH",
            fixes=(remedy("run in the Native Tools Command Prompt of the Visual Studio Build Tools"),),
        ),
        Symptom(
            pattern=r"compatible compiler is required to use PyTorch|You need "
            r"C\+\+(?P<standard>1[47]) to compile PyTorch|C\+\+17 or later compatible "
            r"compiler is required",
            example="#error C++17 or later compatible compiler is required to use PyTorch.",
            counter_example="Your compiler (c++) may be ABI-incompatible with PyTorch!",
            cause="The extension is compiled for an older C++ than this torch's headers need",
            fixes=(
                remedy("take a release of the extension that is as new as this torch"),
                remedy(
                    "install a newer compiler (gcc 9 or later)",
                    "sudo apt-get install g++ && export CXX=g++",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:arch_list|ccs)\[-1\] \+= `\+PTX` IndexError",
            example="    arch_list[-1] += '+PTX'\nIndexError: list index out of range",
            counter_example="IndexError: list index out of range",
            cause="An extension is compiled where torch sees no GPU, so nothing says for which architecture",
            fixes=(
                remedy(
                    "name the architectures to compile for",
                    "export TORCH_CUDA_ARCH_LIST='8.0;9.0'",
                    "environment",
                ),
                remedy("build where the GPUs are visible", "nvidia-smi"),
            ),
        ),
        Symptom(
            pattern=r"trying to build PyTorch with a too old version of (?P<compiler>GCC|Clang)",
            example="C++17.h:13:2: error: #error \"You're trying to build PyTorch with a too old version of "
            'GCC. We need GCC 9 or later."',
            counter_example="-- The CXX compiler identification is GNU 12.2.0",
            cause="The {compiler} that is found is too old for this torch's headers",
            fixes=(
                remedy(
                    "install a newer compiler (gcc 9 or later) and name it",
                    "export CC=gcc-11 CXX=g++-11",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"unrecognized command[ -]line option `-std=c\+\+(?:14|17|20)",
            example="g++: error: unrecognized command line option '-std=c++17'",
            counter_example="cc1plus: warning: command-line option '-Wstrict-prototypes' is valid for C",
            cause="The compiler is too old for the C++ of this torch",
            fixes=(
                remedy(
                    "install a newer compiler (gcc 9 or later) and name it",
                    "export CC=gcc-11 CXX=g++-11",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"Cannot find a working triton installation",
            example="RuntimeError: Cannot find a working triton installation. Either the package "
            "is not installed or it is too old.",
            counter_example="Triton is installed: 3.1.0",
            cause="torch.compile needs Triton, which is not installed or does not work here",
            fixes=(
                remedy("install the Triton that this torch wants", "pip install --force-reinstall torch"),
                remedy("run without torch.compile", "TORCHDYNAMO_DISABLE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"Command `\[`[^\n]{1,300}(?:main|cuda_utils|__triton_launcher|launcher)\.c`,",
            example="subprocess.CalledProcessError: Command '['/usr/bin/gcc', "
            "'/tmp/tmpabc/main.c', '-O3', '-shared', '-fPIC', '-o', "
            "'/tmp/tmpabc/cuda_utils.so']' returned non-zero exit status 1.",
            counter_example="Command '['git', 'clone']' returned non-zero exit status 128.",
            cause="The compiler failed on the small C file that Triton writes: mostly Python.h, "
            "libcuda.so or cuda.h is missing",
            standing="aftermath",
            sure="likely",
            fixes=(
                remedy(
                    "install Python's headers and a compiler",
                    "sudo apt-get install python3-dev build-essential",
                ),
                remedy("make the driver's library known to the linker", "sudo ldconfig"),
            ),
        ),
        Symptom(
            pattern=r"(?:RuntimeError: )?Error building extension `(?P<name>[\w.-]{1,80})`:?",
            example="RuntimeError: Error building extension 'fused_adam'",
            counter_example="Building extension module fused_adam...",
            cause="The extension {name} could not be built; the compiler's message stands after it",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Error compiling objects for extension",
            example="RuntimeError: Error compiling objects for extension",
            counter_example="Emitting ninja build file build.ninja...",
            cause="An extension could not be compiled; the compiler's message stands above",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Command `\[`ninja`[^\n]{0,60} returned non-zero",
            example="subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero "
            "exit status 1.",
            counter_example="ninja: no work to do.",
            cause="ninja ran a compiler that failed; its message stands above",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"ninja: build stopped: ",
            example="ninja: build stopped: subcommand failed.",
            counter_example="ninja: no work to do.",
            cause="A compiler that ninja ran failed; its message stands above",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:AttributeError: )?`DeepSpeedCPU\w{3,8}` object has no attribute "
            r"`ds_opt_\w{3,8}`",
            example="AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'",
            counter_example="AttributeError: 'Adam' object has no attribute 'step_count'",
            cause="DeepSpeed's CPU optimizer was not built: this is only what its clean-up says",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"ImportError: [^\n]{0,200}torch_extensions/[^\n]{1,200}\.so: cannot open "
            r"shared object file: No such file or directory",
            example="ImportError: "
            "/root/.cache/torch_extensions/py310_cu118/fused_adam/fused_adam.so: cannot "
            "open shared object file: No such file or directory",
            counter_example="ImportError: libcudart.so.12: cannot open shared object file: No such "
            "file or directory",
            cause="An operator was not built, mostly because the build failed in another process",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "read the compiler's first line with `error:`, and build again from nothing",
            "rm -rf ~/.cache/torch_extensions && pip install ninja",
        ),
        remedy(
            "install a compiler and Python's headers",
            "sudo apt-get install build-essential python3-dev ninja-build",
        ),
        remedy(
            "use optimizers that need no build",
            '"zero_force_ds_cpu_optimizer": false, "optimizer": {{"type": "AdamW", "params": '
            '{{"torch_adam": true}}}}',
            "config",
        ),
    )
