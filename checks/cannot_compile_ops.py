"""An operator that is compiled on the machine could not be built: ninja, compiler, headers."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.fixes import environment
from llm_doctor.model import (
    Arm,
    Compilers,
    CudaToolkits,
    ExtensionBuilds,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interpreter,
    Mount,
    Mounts,
    Packages,
    Proof,
    ProofStatus,
    Subject,
    Tool,
    Toolkit,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Workload
from llm_doctor.workload.models import uses_deepspeed

TRIAL = Trial(name="cannot-compile-ops", imports=("torch",), limit_s=90)


class CannotCompileOps(Check):
    """An operator that is compiled on the machine could not be built: ninja, compiler, headers.

    ## What it finds

    Where DeepSpeed is installed, or the workload imports torch's cpp_extension: no ninja or C++ compiler on
    PATH, a `CXX`, or beside a GPU a `CC`, that names a compiler which is not there, no Python.h of the
    patient, an extension folder that cannot be made or written, or that nothing can be loaded from (noexec),
    a gcc newer than the chosen nvcc accepts. Where Triton is installed beside a GPU: no C compiler (`CC`,
    else gcc or clang) and no Python.h. In a log: torch, DeepSpeed and Triton that miss
    ninja, a C or C++ compiler, Python's headers, or whose compiler failed; and what falls over when an
    operator was not built.

    ## Why it breaks

    DeepSpeed's FusedAdam and CPUAdam, Triton's launchers and every source distribution with CUDA code
    are compiled when first used or installed. The last message ("Error building extension") only says
    that it failed: the compiler's own words stand above it or after it.

    ## How it is proven

    For what torch builds, where something is missing, where a variable names an extension folder that is yet
    to be made, and with `--deep`: an extension of one C++ function is compiled by
    `torch.utils.cpp_extension.load`, with torch's own idea of compiler and folder, and loaded; that takes
    half a second. The fixed arm does it in the temporary folder with the programs beside the interpreter on
    PATH. Which gcc an nvcc accepts is read from its own header, crt/host_config.h.

    ## Fix

    Install what is missing and remove the half-built folder under `~/.cache/torch_extensions`.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.13.0/torch/utils/cpp_extension.py (`_run_ninja_build`)
    - https://github.com/deepspeedai/DeepSpeed/blob/v0.16.9/op_builder/builder.py (`jit_load`)
    - https://docs.nvidia.com/cuda/cuda-installation-guide-linux/#host-compiler-support-policy
    - https://github.com/triton-lang/triton/blob/v3.2.0/python/triton/runtime/build.py (`CC`)
    - https://github.com/vllm-project/vllm/issues/15013
    """

    name = "cannot-compile-ops"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
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

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What a build would miss; the build itself has the last word."""
        compilers, packages = case.fact(Compilers), case.fact(Packages)
        gpus = case.known(Gpus)
        on_gpu = gpus is not None and bool(gpus.gpus)
        extensions = ["DeepSpeed"] if "deepspeed" in packages.installed else []
        if case.workload is not None and _imports_cpp_extension(case.workload):
            extensions.append("torch.utils.cpp_extension")
        # It compiles for GPUs alone.
        triton = ["Triton"] if on_gpu and "triton" in packages.installed else []
        if "torch" not in packages.installed or not extensions + triton:
            raise CannotTell("nothing that is installed compiles operators while a job runs")
        builds = case.known(ExtensionBuilds)
        trials: tuple[TrialRequest, ...] = ()
        if builds is not None and builds.nearest is not None:
            trials = (TrialRequest(TRIAL, {"folder": builds.folder}),)

        def finding(who: list[str], lacks: str, what: str = "operators", *fixes: Fix) -> Finding:
            return Finding(
                severity="warning" if on_gpu or case.workload is not None else "note",
                confidence="likely",
                message=f"{' and '.join(who)} cannot compile {what}{': ' if lacks else ''}{lacks}",
                subject=Subject(kind="node"),
                evidence={"compiling": who, **({"missing": lacks} if lacks else {})},
                fixes=fixes,
            )

        found = list(_missing(compilers, builds, case.known(Mounts))) if extensions else []
        for what, fix in found:
            yield Suspicion(finding(extensions, what, "operators", fix), trials)
        for what, fix in _no_headers(case.known(Interpreter)):
            found.append((what, fix))
            # The trial builds as torch does, with ninja, which Triton has no need of.
            yield Suspicion(
                finding(extensions + triton, what, "operators", fix), trials if extensions else ()
            )
        # g++ brings gcc along; and a recording of an earlier version has only c++.
        if triton and not (compilers.cc or compilers.cxx or "CC" in compilers.not_there):
            yield Suspicion(finding(triton, "there is no C compiler on PATH", "operators", _INSTALL_COMPILER))
        # A place that somebody chose, and where nothing was built yet.
        untried = builds is not None and builds.decided_by is not None and builds.nearest != builds.folder
        if extensions and (case.deep or untried) and not found:
            yield Suspicion(finding(extensions, ""), trials)
        if on_gpu and "CC" in compilers.not_there:
            # Triton compiles its launchers with it, nvcc gets it as -ccbin; the trial's C++ knows only CXX.
            what, fix = _not_there("CC", compilers)
            yield Suspicion(_certain(finding(extensions + triton, what, "operators for a GPU", fix)))
        too_new = _too_new(case, compilers) if extensions else None
        if too_new:
            yield Suspicion(_certain(finding(extensions, too_new, "CUDA operators")))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
        """A build that works refutes what seemed to be missing; one that fails says why."""
        tried = [(result, case) for result in results for case in result.cases if case.broken is not None]
        if not tried:
            if "missing" in finding.evidence:
                yield finding
            return
        result, case = tried[0]
        arm = case.broken
        if arm is None or arm.outcome == "passed":
            return
        error = str(arm.error).strip().partition("\n")[0]
        missing = "missing" in finding.evidence
        elsewhere = not missing and error.startswith("nothing can be built in ")
        yield msgspec.structs.replace(
            finding,
            confidence="proven" if case.status == "reproduced" else "certain",
            message=finding.message if missing else f"{finding.message}: {error}",
            evidence={**finding.evidence, "error": error},
            fixes=tuple(_verified(fix, case) for fix in ((_ELSEWHERE,) if elsewhere else finding.fixes)),
            proof=Proof(trial=result.name, status=case.status, case=case),
        )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """DeepSpeed, torch.compile and torch's cpp_extension compile while a job runs."""
        return (
            uses_deepspeed(workload)
            or _imports_cpp_extension(workload)
            or any(call.callee == "torch.compile" for script in workload.scripts for call in script.calls)
        )

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _imports_cpp_extension(workload: Workload) -> bool:
    return any("cpp_extension" in it.module for script in workload.scripts for it in script.imports)


def _certain(finding: Finding) -> Finding:
    return msgspec.structs.replace(finding, confidence="certain")


def _missing(
    compilers: Compilers, builds: ExtensionBuilds | None, mounts: Mounts | None
) -> Iterator[tuple[str, Fix]]:
    """What torch.utils.cpp_extension would miss."""
    if compilers.ninja is None:
        yield (
            "there is no ninja on PATH",
            _command("install it, and activate the environment so that it is on PATH", "pip install ninja"),
        )
    if "CXX" in compilers.not_there:
        yield _not_there("CXX", compilers)
    elif compilers.cxx is None:
        yield "there is no C++ compiler on PATH", _INSTALL_COMPILER
    mount = (
        mounts.of(builds.nearest) if mounts is not None and builds is not None and builds.nearest else None
    )
    if builds is not None and mount is not None and (mount.no_exec or mount.read_only):
        state = "mounted noexec: nothing can be loaded from it" if mount.no_exec else "read-only"
        yield f"{builds.folder} is {state}", _ELSEWHERE
    elif builds is not None and builds.problem is not None:
        yield f"nothing can be built in {builds.folder}: {builds.problem}", _ELSEWHERE


def _no_headers(python: Interpreter | None) -> Iterator[tuple[str, Fix]]:
    if python is not None and python.headers is False:
        minor = ".".join(python.version.split(".")[:2])
        yield (
            f"the headers of Python {minor} (Python.h) are missing",
            _command("install them", f"sudo apt-get install python{minor}-dev"),
        )


def _not_there(variable: str, compilers: Compilers) -> tuple[str, Fix]:
    return (
        f"{variable}={compilers.not_there[variable]} is not there",
        Fix(
            title="let the default compiler be taken",
            kind="environment",
            applicability="manual",
            preview=f"unset {variable}",
        ),
    )


def _verified(fix: Fix, case: TrialCase) -> Fix:
    """The fixed arm goes without CXX, and builds below /var/tmp where it may."""
    done = case.fixed.measured.get("folder") if case.fixed is not None else None
    tried = fix.preview == "unset CXX" or (fix == _ELSEWHERE and done == "/var/tmp")
    return msgspec.structs.replace(fix, verified=True) if tried and case.status == "reproduced" else fix


_ELSEWHERE = environment.export("build elsewhere", {"TORCH_EXTENSIONS_DIR": "/var/tmp/torch_extensions"})


def _command(title: str, preview: str) -> Fix:
    return Fix(title=title, kind="command", applicability="manual", preview=preview)


_INSTALL_COMPILER = _command("install one", "sudo apt-get install build-essential")


def _too_new(case: Case, compilers: Compilers) -> str | None:
    """A gcc that the chosen nvcc's own header refuses."""
    kits, torch = case.known(CudaToolkits), case.known(TorchBuild)
    kit = kits.chosen if kits is not None else None
    if kit is None or kit.newest_gcc is None or compilers.cxx is None or torch is None or torch.cuda is None:
        return None
    # "g++ (Debian 12.2.0-14) 12.2.0", "g++ (GCC) 14.1.1 20240507 (Red Hat 14.1.1-1)"; clang has other rules.
    found = re.search(r"\) (\d+)\.\d+", compilers.cxx.version)
    if found is None or "clang" in compilers.cxx.version or int(found[1]) <= kit.newest_gcc:
        return None
    return f"nvcc {kit.version} refuses gcc {found[1]}, {kit.newest_gcc} is the newest that it accepts"


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0", "deepspeed": "0.16.4"}, modules={})
    cache = "/home/ann/.cache"
    builds = ExtensionBuilds(folder=f"{cache}/torch_extensions", nearest=cache)
    gcc = Tool(path="/usr/bin/c++", version="c++ (Debian 12.2.0-14) 12.2.0")
    ninja = Tool(path="/usr/bin/ninja", version="1.11.1")
    whole = Compilers(cxx=gcc, ninja=ninja)

    def tried(status: ProofStatus, error: str | None = None) -> TrialResult:
        case = TrialCase(
            combination={"language": "c++"},
            status=status,
            broken=Arm(outcome="failed", error=error) if error else Arm(outcome="passed"),
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(name=TRIAL.name, device="cpu", status=status, seconds=0.5, cases=(case,))

    def home(**options: Any) -> Mounts:
        options = {"read_only": False, **options}
        return Mounts(mounts=(Mount(path="/home", filesystem="ext4", device="d", kind="local", **options),))

    yield healthy("all that a build needs", case_of(stack, whole, builds, home()))
    yield healthy(
        "a ninja that torch finds all the same",
        case_of(stack, Compilers(cxx=gcc), builds),
        tried("refuted"),
    )
    yield sick(
        "no ninja",
        case_of(stack, Compilers(cxx=gcc), builds),
        "note: DeepSpeed cannot compile operators: there is no ninja on PATH",
        trials=(tried("reproduced", "Ninja is required to load C++ extensions"),),
    )
    yield sick(
        "a home that nothing can be loaded from, on a GPU node",
        case_of(stack, whole, builds, home(no_exec=True), Gpus(driver="580.65", gpus=(_GPU,))),
        "warning: DeepSpeed cannot compile operators: /home/ann/.cache/torch_extensions is mounted noexec:"
        " nothing can be loaded from it",
    )
    yield sick(
        "a folder that cannot be made",
        case_of(
            stack,
            whole,
            ExtensionBuilds(
                folder="/data/ann/ext", nearest="/data/ann", problem="this user may not write in /data/ann"
            ),
        ),
        "note: DeepSpeed cannot compile operators: nothing can be built in /data/ann/ext: this user may not"
        " write in /data/ann",
    )
    yield sick(
        "a CC that names nothing, on a GPU node",
        case_of(
            stack,
            Compilers(cxx=gcc, ninja=ninja, not_there={"CC": "/opt/gcc-9/bin/gcc"}),
            builds,
            Gpus(driver="580.65", gpus=(_GPU,)),
        ),
        "warning: DeepSpeed cannot compile operators for a GPU: CC=/opt/gcc-9/bin/gcc is not there",
    )
    yield sick(
        "a gcc that is too new",
        case_of(
            stack,
            Compilers(cxx=Tool(path="/usr/bin/c++", version="c++ (GCC) 14.1.1 20240507"), ninja=ninja),
            TorchBuild(version="2.1.0+cu118", cuda="11.8", kind="cuda"),
            CudaToolkits(toolkits=(_KIT,), chosen_home=_KIT.home),
            builds,
        ),
        "note: DeepSpeed cannot compile CUDA operators: nvcc 11.8 refuses gcc 14, 11 is the newest that it"
        " accepts",
    )
    with_triton = Packages(installed={"torch": "2.6.0", "triton": "3.2.0"}, modules={})
    beside_a_gpu = Gpus(driver="580.65", gpus=(_GPU,))
    cc = Tool(path="/usr/bin/gcc", version="gcc (Debian 12.2.0-14) 12.2.0")
    yield healthy(
        "Triton alone, which needs neither ninja nor a C++ compiler nor torch's folder",
        case_of(
            with_triton,
            Compilers(cc=cc),
            ExtensionBuilds(folder="/data/ext", nearest="/data", problem="this user may not write in /data"),
            beside_a_gpu,
        ),
    )
    yield sick(
        "Triton alone, and no compiler",
        case_of(with_triton, Compilers(), builds, beside_a_gpu),
        "warning: Triton cannot compile operators: there is no C compiler on PATH",
    )
    yield sick(
        "Triton alone, and a Python without headers",
        case_of(
            with_triton,
            Compilers(cc=cc),
            builds,
            beside_a_gpu,
            Interpreter(
                executable="/usr/bin/python3",
                version="3.11.2",
                implementation="CPython",
                prefix="/usr",
                chosen_by="PATH",
                headers=False,
            ),
        ),
        "warning: Triton cannot compile operators: the headers of Python 3.11 (Python.h) are missing",
    )
    only_torch = Packages(installed={"torch": "2.6.0"}, modules={})
    yield cannot_tell(
        "nothing that compiles",
        case_of(only_torch, whole),
        "nothing that is installed compiles operators while a job runs",
    )


_GPU = Gpu(index=0, name="NVIDIA A100")
_KIT = Toolkit(
    home="/usr/local/cuda",
    nvcc="/usr/local/cuda/bin/nvcc",
    found_by=("/usr/local",),
    version="11.8",
    newest_gcc=11,
)
