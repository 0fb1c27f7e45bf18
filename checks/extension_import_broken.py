"""A compiled extension cannot be loaded: it was built for another torch, CUDA or Python."""

from __future__ import annotations

import re
from typing import Iterable, Iterator

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
from llm_doctor.model import (
    Arm,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Packages,
    Proof,
    ProofStatus,
    Subject,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Workload

TRIAL = Trial(name="extension-import-broken", imports=("torch",), limit_s=60)
MODULES = {
    "apex": ("apex", "amp_C"),
    "causal-conv1d": ("causal_conv1d", "causal_conv1d_cuda"),
    "flash-attn": ("flash_attn", "flash_attn_2_cuda"),
    "mamba-ssm": ("selective_scan_cuda",),
    "torchaudio": ("torchaudio",),
    "torchvision": ("torchvision", "torchvision.ops"),
    "triton": ("triton", "triton.language"),
    "xformers": ("xformers", "xformers.ops"),
}
"""What is imported of each extension: the first always, a compiled module where the build has it."""
_WANTS_A_GPU = re.compile(r"NVIDIA driver|no CUDA|CUDA GPUs|active drivers|CUDA_VISIBLE_DEVICES|is_available")


class ExtensionImportBroken(Check):
    """A compiled extension cannot be loaded: it was built for another torch, CUDA or Python.

    ## What it finds

    Each of flash-attn, xformers, apex, triton, torchvision, torchaudio, mamba-ssm and causal-conv1d that is
    installed in the patient and cannot be imported, beside a torch that can (bitsandbytes and deepspeed are
    imported by stack-import-broken). In a log: undefined symbols and missing libraries when flash_attn,
    xformers, torchvision, apex, vllm or torch itself are imported, operators that are not registered, and
    warnings that an extension was built for another torch.

    ## Why it breaks

    An extension is linked against the very torch that it was built with: its C++ interface changes from
    one minor release to the next, and with the C++ ABI. Upgrading torch alone leaves flash-attn,
    xformers, torchvision and the like behind.

    ## How it is proven

    By importing it, with its compiled modules, in a process of the patient that may crash or hang. The fixed
    arm imports torch without it. Both see no GPU: an extension that wants one is not spoken of.

    ## Fix

    Install the extension anew after torch: a wheel for this torch, CUDA and Python, or a build against
    it.

    ## References

    - https://github.com/Dao-AILab/flash-attention/issues/1691
    - https://github.com/Dao-AILab/flash-attention/issues/966
    - https://github.com/facebookresearch/xformers/issues/982
    - https://github.com/pytorch/pytorch/issues/131284
    - https://github.com/pytorch/vision#installation
    """

    name = "extension-import-broken"
    topic = "package-conflict"
    severity = "error"
    since = "0.1.0"
    url = "https://github.com/Dao-AILab/flash-attention#installation-and-features"
    symptoms = (
        Symptom(
            pattern=r"(?P<file>flash_attn\w{0,30}|flash_attn_2_cuda|flash_attn_3)[\w.-]{0,60}\.so:"
            r" undefined symbol: (?P<symbol>\w{3,300})",
            example="ImportError:"
            " /env/lib/python3.10/site-packages/flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so:"
            " undefined symbol: _ZN3c104cuda9SetDeviceEi",
            counter_example="ld: warning: undefined symbol in an archive that is not used",
            cause="flash-attn was built for another torch (or C++ ABI) than the installed one",
            fixes=(
                remedy(
                    "build it against this torch",
                    "pip uninstall -y flash-attn && pip install flash-attn --no-build-isolation"
                    " --no-cache-dir",
                ),
                remedy(
                    "take the wheel for this torch, CUDA, Python and C++ ABI from its releases",
                    'python -c "import torch; print(torch.__version__, torch.version.cuda,'
                    ' torch._C._GLIBCXX_USE_CXX11_ABI)"',
                ),
                remedy("do without", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"(?<![\w.-])(?P<file>(?!libbitsandbytes)[\w+-]{2,60})[\w.+-]{0,60}\.so[\w.]{0,8}:"
            r" undefined symbol: (?!io_submit)(?P<symbol>\w{3,300})",
            example="OSError: /env/lib/python3.10/site-packages/torchaudio/lib/libtorchaudio.so:"
            " undefined symbol:"
            " _ZNK5torch8autograd4Node4nameEv",
            counter_example="ld: warning: undefined symbol in an archive that is not used",
            cause="{file} was built for another torch, CUDA or C++ ABI than the installed one: {symbol}"
            " is not there",
        ),
        Symptom(
            pattern=r"undefined symbol:"
            r" (?P<symbol>_Z\w{3,300}|cublas\w{3,60}|cudnn\w{3,60}|nccl\w{3,60}|nvJitLink\w{0,60}"
            r"|__nvJitLink\w{0,60}"
            r"|cusparse\w{3,60}|cuda\w{3,60}|iJIT_NotifyEvent)",
            example="undefined symbol: _ZN3c104cuda9SetDeviceEi",
            counter_example="undefined symbol: io_submit",
            cause="A compiled package was built for another torch or CUDA library than the one that is"
            " loaded: {symbol} is not"
            " there",
        ),
        Symptom(
            pattern=r"(?P<library>lib(?:cudart|cublas|cublasLt|cudnn\w{0,20}|nccl|nvrtc|cusparse\w{0,6}"
            r"|cusolver|cufft|curand|cupti|nvToolsExt|nvJitLink"
            r"|cufile|nvshmem\w{0,10}|c10\w{0,8}|torch\w{0,20}|mpi\w{0,4}|openblas\w{0,8}|mkl\w{0,20}"
            r"|stdc\+\+|GL|gomp[\w-]{0,12}|cuda_\w{3,20})"
            r"[\w.-]{0,20}): cannot open shared object file",
            example="ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
            counter_example="libcuda.so.1: cannot open shared object file: No such file or directory",
            cause="{library} is not there, or not where it is looked for: a package was built for a CUDA"
            " or torch that is not"
            " installed",
            fixes=(
                remedy("install torch anew with its CUDA libraries", "pip install --force-reinstall torch"),
                remedy(
                    "and what was built against another torch, after it",
                    "pip install --force-reinstall --no-build-isolation --no-deps flash-attn",
                ),
                remedy(
                    "let the library be found, where a toolkit of that release is installed",
                    "export LD_LIBRARY_PATH=/usr/local/cuda/lib64:$LD_LIBRARY_PATH",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:ImportError|OSError):"
            r" (?!\S*(?:libcuda\.so|libbitsandbytes|torch_extensions|libnvidia-ml))(?P<library>\S{3,200}):"
            r" cannot open shared object file",
            example="ImportError: libcusparseLt.so.0: cannot open shared object file: No such file or"
            " directory",
            counter_example="FileNotFoundError: config.json: No such file or directory",
            cause="{library} cannot be loaded: it is not there, or not where it is looked for",
        ),
        Symptom(
            pattern=r"operator (?P<operator>\w{2,30}::\w{2,60}) does not exist",
            example="RuntimeError: operator torchvision::nms does not exist",
            counter_example="the operator does not exist in SQL",
            cause="The operator {operator} is not registered: its package was built for another torch"
            " than the installed one",
            fixes=(
                remedy(
                    "install torch and its companions in one command",
                    "pip install --force-reinstall torch torchvision torchaudio",
                ),
                remedy("torchvision is not needed for text models", "pip uninstall -y torchvision"),
            ),
        ),
        Symptom(
            pattern=r"No such operator (?P<operator>(?!aten)\w{2,30}::\w{2,60})",
            example="RuntimeError: No such operator torchvision::nms",
            counter_example="No such operator",
            cause="The operator {operator} is not registered: its package was built for another torch"
            " than the installed one",
            fixes=(
                remedy(
                    "install torch and its companions in one command",
                    "pip install --force-reinstall torch torchvision torchaudio",
                ),
            ),
        ),
        Symptom(
            pattern=r"`_OpNamespace` `(?P<package>[\w]{2,40})` object has no attribute"
            r" `(?P<operator>\w{2,60})",
            example="AttributeError: '_OpNamespace' '_C' object has no attribute 'silu_and_mul'",
            counter_example="AttributeError: 'Namespace' object has no attribute 'lr'",
            cause="The compiled operators of {package} (vLLM: _C) are not loaded: they were built for"
            " another torch or GPU"
            " than this one",
            fixes=(
                remedy("install it anew with the torch that it wants", "pip install --force-reinstall vllm"),
            ),
        ),
        Symptom(
            pattern=r"`_OpNamespace` `\w{2,40}` object has no attribute",
            example="AttributeError: '_OpNamespace' '_C_cache_ops' object has no attribute"
            " 'reshape_and_cache'",
            counter_example="AttributeError: 'Namespace' object has no attribute 'lr'",
        ),
        Symptom(
            pattern=r"Couldn`t load custom C\+\+ ops",
            example="RuntimeError: Couldn't load custom C++ ops. This can happen if your PyTorch and"
            " torchvision versions are"
            " incompatible, or if you had errors while compiling torchvision from source.",
            counter_example="custom C++ ops were loaded",
            cause="torchvision was built for another torch than the installed one",
            fixes=(remedy("install both in one command", "pip install --force-reinstall torch torchvision"),),
        ),
        Symptom(
            pattern=r"(?:Detected that PyTorch and (?P<package>\w{5,12}) were compiled with different"
            r" CUDA(?: major)? versions)",
            example="RuntimeError: Detected that PyTorch and torchvision were compiled with different"
            " CUDA major versions."
            " PyTorch has CUDA Version=11.7 and torchvision has CUDA Version=12.1.",
            counter_example="PyTorch and torchvision are installed",
            cause="torch and {package} were compiled for different CUDA releases",
            fixes=(
                remedy(
                    "install both in one command from one index",
                    "pip install --force-reinstall torch torchvision torchaudio",
                ),
            ),
        ),
        Symptom(
            pattern=r"xFormers (?:can`t|wasn`t able to) (?:load|build with)? ?C\+\+/CUDA"
            r" extensions[^\n]{0,40} xFormers was built for: PyTorch"
            r" (?P<built>[\w.+]{3,20})[^\n]{0,30}\(you have (?P<installed>[\w.+]{3,20})\)",
            example="WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:\n"
            "    PyTorch 2.1.2+cu121 with CUDA 1201 (you have 2.3.0+cu121)",
            counter_example="xFormers 0.0.25",
            standing="hint",
            cause="xformers was built for torch {built} and torch {installed} is installed",
            fixes=(
                remedy("install the xformers for this torch", "pip install -U xformers"),
                remedy("the torch for this xformers", "pip install torch=={built}"),
            ),
        ),
        Symptom(
            pattern=r"xFormers can`t load C\+\+/CUDA extensions",
            example="WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions.",
            counter_example="xFormers 0.0.25",
            standing="hint",
            cause="xformers was built for another torch than the installed one",
            fixes=(remedy("install the xformers for this torch", "pip install -U xformers"),),
        ),
        Symptom(
            pattern=r"No operator found for `memory_efficient_attention_(?P<which>forward|backward)`",
            example="NotImplementedError: No operator found for `memory_efficient_attention_forward` with"
            " inputs:",
            counter_example="memory_efficient_attention is used",
            standing="aftermath",
            sure="likely",
            cause="xformers has no kernel for this call: it was built for another torch, or the GPU, type"
            " or size is not one"
            " that it has kernels for (the lines below say which)",
            fixes=(
                remedy("see what it has", "python -m xformers.info"),
                remedy("install the xformers for this torch", "pip install -U xformers"),
                remedy("use torch's own attention", 'attn_implementation="sdpa"', "edit"),
            ),
        ),
        Symptom(
            pattern=r"DLL load failed while importing (?P<module>\w{2,40})",
            example="ImportError: DLL load failed while importing libtriton: The specified module could"
            " not be found.",
            counter_example="the DLL was loaded",
            cause="{module} cannot be loaded: a DLL that it needs is missing or of another release",
            fixes=(
                remedy("install the Visual C++ runtime of Microsoft, then the package anew"),
                remedy(
                    "install torch and what was built for it in one command",
                    "pip install --force-reinstall torch torchvision",
                ),
            ),
        ),
        Symptom(
            pattern=r"Error loading [^\n]{0,200}(?P<dll>\w{2,40}\.dll)` or one of its dependencies",
            example="OSError: [WinError 126] The specified module could not be found. Error loading"
            ' "C:\\env\\Lib\\site-packages'
            '\\torch\\lib\\fbgemm.dll" or one of its dependencies.',
            counter_example="Error loading the data set",
            cause="{dll} of torch cannot be loaded: a DLL that it needs is missing",
            fixes=(
                remedy("install the Visual C++ runtime of Microsoft"),
                remedy("install torch anew", "pip install --force-reinstall torch"),
            ),
        ),
        Symptom(
            pattern=r"Failed to load PyTorch C extensions|Failed to load (?:the )?custom c\+\+ ops|Could"
            r" not load this library:"
            r"|Could not load library lib(?:cudnn\w{1,20}|cublas\w{0,10})",
            example="ImportError: Failed to load PyTorch C extensions: It appears that PyTorch has loaded"
            " the `torch/_C` folder"
            " of the PyTorch repository rather than the C extensions",
            counter_example="PyTorch was loaded",
            cause="A compiled library of the stack cannot be loaded",
        ),
        Symptom(
            pattern=r"Failed to import from vllm\._C with",
            example="WARNING Failed to import from vllm._C with ImportError('libcudart.so.12: cannot open"
            " shared object file')",
            counter_example="vllm._C was imported",
            standing="hint",
            cause="vLLM's compiled part cannot be loaded: it was built for another torch or CUDA",
            fixes=(
                remedy("install it anew with the torch that it wants", "pip install --force-reinstall vllm"),
            ),
        ),
        Symptom(
            pattern=r"PyTorch version mismatch! (?:DeepSpeed|deepspeed) ops were compiled",
            example="RuntimeError: PyTorch version mismatch! DeepSpeed ops were compiled and installed"
            " with a different version"
            " than what is being used at runtime. Please re-install DeepSpeed or switch torch versions.",
            counter_example="DeepSpeed ops were compiled",
            cause="DeepSpeed's ops were compiled for another torch than the installed one",
            fixes=(
                remedy(
                    "install it anew",
                    "pip install --force-reinstall --no-build-isolation --no-cache-dir deepspeed",
                ),
            ),
        ),
        Symptom(
            pattern=r"(?:cannot allocate memory in static TLS block|version `libcudnn_ops_infer\.so\.8`"
            r" not defined in file|libcudnn\w{0,30}[^\n]{0,80}"
            r"symbol lookup error)",
            example="ImportError: /lib/aarch64-linux-gnu/libgomp.so.1: cannot allocate memory in static"
            " TLS block",
            counter_example="cannot allocate memory",
            cause="A library is loaded too late, or another copy of it comes first",
            fixes=(
                remedy(
                    "load it before the rest", "LD_PRELOAD=/lib/aarch64-linux-gnu/libgomp.so.1", "environment"
                ),
                remedy("take other CUDA folders out of the search path", "unset LD_LIBRARY_PATH"),
            ),
        ),
        Symptom(
            pattern=r"(?:torch|vllm|flash_attn|xformers|apex)[\w./-]{0,80}\.so: (?:wrong ELF"
            r" class|invalid ELF header|file too short)",
            example="ImportError: /env/lib/python3.10/site-packages/torch/lib/libtorch_global_deps.so:"
            " file too short",
            counter_example="the file is too short",
            cause="A compiled library is of another architecture, or its file is not complete",
            fixes=(remedy("install the package anew", "pip install --force-reinstall --no-cache-dir torch"),),
        ),
    )
    remedies = (
        remedy(
            "install what the message names anew, after torch",
            "pip install --force-reinstall --no-build-isolation --no-deps --no-cache-dir PACKAGE",
        ),
        remedy(
            "see which torch is there",
            'python -c "import torch; print(torch.__version__, torch.version.cuda)"',
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What is installed is imported; nothing else is known of it."""
        installed = case.fact(Packages).installed
        if "torch" not in installed:
            raise CannotTell("torch is not installed")
        extensions = {name: list(modules) for name, modules in MODULES.items() if name in installed}
        if not extensions:
            raise CannotTell("no extension that is known to break is installed")
        gpus = case.known(Gpus)
        finding = Finding(
            severity="warning",
            confidence="certain",
            message="an extension cannot be imported",
            subject=Subject(kind="package"),
            evidence={"gpu": gpus is not None and bool(gpus.gpus), "torch": installed["torch"]},
        )
        yield Suspicion(finding, (TrialRequest(TRIAL, {"modules": extensions}),))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
        """Each extension whose import failed, in whatever way."""
        for result in results:
            for case in result.cases:
                arm, package = case.broken, str(case.combination["package"])
                if arm is None or arm.outcome not in ("failed", "killed", "timeout"):
                    continue
                error = str(arm.error).strip().partition("\n")[0]
                if _wants_a_gpu(str(arm.error), finding.evidence["gpu"]):
                    continue
                yield msgspec.structs.replace(
                    finding,
                    confidence="proven" if case.status == "reproduced" else "certain",
                    message=f"{package} cannot be imported beside torch {finding.evidence['torch']}: {error}",
                    subject=Subject(kind="package", package=package),
                    evidence={**finding.evidence, "combination": case.combination},
                    proof=Proof(trial=result.name, status=case.status, case=case),
                    fixes=(
                        Fix(
                            title="install it again for this torch",
                            kind="command",
                            applicability="manual",
                            preview="python -m pip install --force-reinstall --no-deps --no-build-isolation"
                            f" --no-cache-dir {package}",
                        ),
                    ),
                )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Whether it is imported or asked for; transformers imports torchvision where it is installed."""
        package = str(finding.subject.package)
        if package == "torchvision":
            return True
        imported = {it.module.partition(".")[0] for script in workload.scripts for it in script.imports}
        asked = any(
            str(value.constant).startswith("flash_attention")
            for script in workload.scripts
            for call in script.calls
            for value in call.arguments.values()
        )
        return not imported or package.replace("-", "_") in imported or (package == "flash-attn" and asked)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _wants_a_gpu(error: str, on_gpu: bool) -> bool:
    """Trials on the CPU see no GPU; only the driver's library is there where the node has one."""
    return bool(_WANTS_A_GPU.search(error)) or ("libcuda.so" in error and not on_gpu)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0", "flash-attn": "2.7.4"}, modules={})

    def tried(status: ProofStatus, error: str | None = None) -> TrialResult:
        case = TrialCase(
            combination={"package": "flash-attn"},
            status=status,
            broken=Arm(outcome="failed", error=error) if error else Arm(outcome="passed"),
            fixed=Arm(outcome="passed"),
        )
        return TrialResult(name=TRIAL.name, device="cpu", status=status, seconds=0.2, cases=(case,))

    yield healthy("an extension for this torch", case_of(stack), tried("refuted"))
    symbol = "flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi"
    yield sick(
        "an extension for another torch",
        case_of(stack),
        "warning: flash-attn cannot be imported beside torch 2.6.0: import flash_attn: ImportError: "
        + symbol,
        trials=(tried("reproduced", f"import flash_attn: ImportError: {symbol}"),),
    )
    yield healthy(
        "an extension that wants a driver, where there is no GPU",
        case_of(stack),
        tried("reproduced", "import flash_attn: ImportError: libcuda.so.1: cannot open shared object file"),
    )
    yield healthy(
        "an extension that asks for the GPU when imported, which the trial does not see",
        case_of(stack, Gpus(driver="580.65", gpus=(Gpu(index=0, name="NVIDIA H100"),))),
        tried(
            "reproduced",
            "import flash_attn: RuntimeError: 0 active drivers ([]). There should only be one.",
        ),
    )
    only_torch = Packages(installed={"torch": "2.6.0"}, modules={})
    yield cannot_tell("no extension", case_of(only_torch), "no extension that is known to break is installed")
