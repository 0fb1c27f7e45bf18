"""nvcc and torch disagree on CUDA, so DeepSpeed and other CUDA extensions cannot be built."""

from __future__ import annotations

import re
from typing import Callable, Iterable, Iterator

import msgspec
from packaging.version import Version

from llm_doctor.check import (
    Asked,
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    reproduced,
    sick,
    symptom_shown,
)
from llm_doctor.fixes import environment, packages
from llm_doctor.model import (
    Arm,
    BuildRule,
    CudaToolkits,
    DeepSpeedBuild,
    Finding,
    Fix,
    Gpus,
    Interpreter,
    Packages,
    Proof,
    ProofStatus,
    Severity,
    Subject,
    Toolkit,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.workload.data import Workload
from llm_doctor.workload.models import uses_deepspeed

CUDA_HOME = Question(name="torch-cuda-home", imports=("torch",))
DS_REPORT = Question(name="ds-report", imports=("torch", "deepspeed"), needs_imports=False, limit_s=60)
ASSERTION = Trial(name="deepspeed-cuda-assertion", imports=("torch", "deepspeed"))
BUILD = Trial(name="cuda-extension-build", imports=("torch",), limit_s=240, on_gpu=True)


class CudaToolkitMismatch(Check):
    """nvcc and torch disagree on CUDA, so DeepSpeed and other CUDA extensions cannot be built.

    ## What it finds

    The CUDA toolkit that torch would choose (`CUDA_HOME`, else the first `nvcc` on `PATH`, else
    `/usr/local/cuda`) is held against the CUDA version torch was built for, by the rule of the
    *installed* DeepSpeed. It also finds: no toolkit although DeepSpeed will want to compile, `CUDA_HOME`
    and the `nvcc` on `PATH` naming different versions, a chosen home without CUDA's headers, a `ds_report`
    that crashes or that says something else.

    ## Why it breaks

    DeepSpeed refuses to build its operators when `nvcc -V` and `torch.version.cuda` differ, except
    between minor versions that its table allows. Where the refusal happens differs by release: when
    operators are pre-compiled (`DS_BUILD_OPS=1 pip install`), when they are compiled at run time
    (FusedAdam, CPUAdam), or nowhere; releases 0.9.1 to 0.12.1 swallow it and quietly build an operator
    for the CPU alone. torch itself refuses every extension that pip (setuptools) builds when the major
    versions differ.

    ## How it is proven

    The rule is read out of the installed `deepspeed/ops/op_builder/builder.py`. The trial calls
    DeepSpeed's own assertion inside the patient, as it is and with each remedy this machine offers. With
    `--deep`, a CUDA extension of one kernel is compiled, loaded, and run where there is a GPU. What
    `ds_report` prints is compared with what was read without it.

    ## Fix

    Export `CUDA_HOME` of an installed toolkit that matches; or install a torch built for the toolkit's
    version; or install the toolkit of torch's version. `DS_SKIP_CUDA_CHECK=1` is offered only where
    DeepSpeed honours it and the major versions agree; it hides the difference and does not mend it.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/blob/master/op_builder/builder.py (`assert_no_cuda_mismatch`)
    - https://github.com/deepspeedai/DeepSpeed/pull/3085, /pull/3436, /pull/4639 (where the rule applies)
    - torch/utils/cpp_extension.py of torch 2.13.0, `_check_cuda_version` and `_find_cuda_home`
    - https://github.com/deepspeedai/DeepSpeed/issues/2055 (nvcc on PATH, yet "nvcc missing")
    """

    name = "cuda-toolkit-mismatch"
    topic = "cuda-toolkit"
    severity = "error"
    since = "0.1.0"
    needs = (TorchBuild, CudaToolkits)
    questions = (CUDA_HOME, DS_REPORT)
    trials = (ASSERTION, BUILD)
    url = "https://github.com/deepspeedai/DeepSpeed/issues/2055"
    symptoms = (
        Symptom(
            pattern=r"Installed CUDA version (?P<toolkit>[\d.]+) does not match the version "
            r"torch was compiled with (?P<built>\d+\.\d+)(?![\d.]* (?:but since|"
            r"Detected))",
            example="DeepSpeed Op Builder: Installed CUDA version 12.2 does not match the "
            "version torch was compiled with 11.7, unable to compile cuda/cpp extensions",
            counter_example="Installed CUDA version 11.8 does not match the version torch was "
            "compiled with 11.7 but since the APIs are compatible, accepting this "
            "combination",
            cause="nvcc is CUDA {toolkit} and torch was built for CUDA {built}: DeepSpeed refuses to compile",
        ),
        Symptom(
            pattern=r"Installed CUDA version (?P<toolkit>[\d.]+) does not match the version "
            r"torch was compiled with(?! [\d.]{1,12} (?:but since|Detected))",
            example="Exception: >- DeepSpeed Op Builder: Installed CUDA version 12.2 does not "
            "match the version torch was compiled with",
            counter_example="Installed CUDA version 11.8 does not match the version torch was "
            "compiled with 11.7 but since the APIs are compatible, accepting this "
            "combination",
            cause="nvcc is CUDA {toolkit} and torch was built for another: DeepSpeed refuses to compile",
        ),
        Symptom(
            pattern=r"detected CUDA version \((?P<toolkit>[\d.]+)\) mismatches the version that "
            r"was used to compile PyTorch \((?P<built>[\d.]+)\)",
            example="The detected CUDA version (13.0) mismatches the version that was used to "
            "compile\nPyTorch (12.1). Please make sure to use the same CUDA versions.",
            counter_example="The detected CUDA version (12.4) has a minor version mismatch with "
            "the version that was used to compile PyTorch (12.1). Most likely this "
            "shouldn't be a problem.",
            cause="nvcc is CUDA {toolkit} and torch was built for CUDA {built}: torch refuses to "
            "build an extension",
        ),
        Symptom(
            pattern=r"detected CUDA version \(\S{1,10}\) mismatches the version that was used to "
            r"compile",
            example="RuntimeError: ('The detected CUDA version (%s) mismatches the version that "
            "was used to compilePyTorch (%s). Please make sure to use the same CUDA "
            "versions.', '13.0', '12.8')",
            counter_example="The detected CUDA version (12.4) has a minor version mismatch with "
            "the version that was used to compile PyTorch (12.1). Most likely this "
            "shouldn't be a problem.",
        ),
        Symptom(
            pattern=r"compiled with a version of Cuda that does not match the version used to "
            r"compile",
            example="RuntimeError: Cuda extensions are being compiled with a version of Cuda "
            "that does not match the version used to compile Pytorch binaries.  Pytorch "
            "binaries were compiled with Cuda 11.7.",
            counter_example="Compiling cuda extensions with nvcc: NVIDIA (R) Cuda compiler driver",
        ),
        Symptom(
            pattern=r"CUDA version mismatch! DeepSpeed ops were compiled",
            example="RuntimeError: CUDA version mismatch! DeepSpeed ops were compiled and "
            "installed with a different version than what is being used at runtime.",
            counter_example="PyTorch version mismatch! DeepSpeed ops were compiled and installed "
            "with a different version",
            cause="DeepSpeed's operators were built with another CUDA than the torch of this job has",
            fixes=(
                remedy(
                    "build DeepSpeed again in this environment",
                    "pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation deepspeed",
                ),
            ),
        ),
        Symptom(
            pattern=r"is only supported on CUDA (?P<least>\d[\d.]*) and above",
            example="RuntimeError: FlashAttention is only supported on CUDA 11.7 and above.  "
            "Note: make sure nvcc has a supported version by running nvcc -V.",
            counter_example="FlashAttention only supports Ampere GPUs or newer.",
            cause="nvcc is older than CUDA {least}, the oldest that this extension can be built with",
        ),
        Symptom(
            pattern=r"Error building extension|Error compiling objects for extension",
            example="RuntimeError: Error building extension 'fused_adam'",
            counter_example="Building extension module fused_adam...",
            cause="A CUDA extension could not be built",
            standing="hint",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "let CUDA_HOME name an installed toolkit of torch's CUDA version",
            'export CUDA_HOME=/usr/local/cuda-$(python -c "import torch; print(torch.version.cuda)")',
            "environment",
        ),
        remedy(
            "install that toolkit into the conda environment",
            'conda install -c nvidia cuda-toolkit=$(python -c "import torch; print(torch.version.cuda)")',
        ),
        remedy("install the torch that is built for the CUDA version of nvcc (`nvcc -V`)"),
        remedy(
            "where the major versions agree, let DeepSpeed 0.9.3 and later build all the same",
            "export DS_SKIP_CUDA_CHECK=1",
            "environment",
        ),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """ds_report takes seconds: not for a job without DeepSpeed."""
        wanted = case.workload is None or uses_deepspeed(case.workload)
        return map(Asked, self.questions if wanted else ())

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Only DeepSpeed compiles operators while the job runs, and most of its releases do not look then."""
        return uses_deepspeed(workload) and finding.evidence.get("at_run_time") != "not-checked"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Judges by facts; the assertion and, with --deep, a build are there to contradict it."""
        torch, kits = case.fact(TorchBuild), case.fact(CudaToolkits)
        deepspeed = case.known(DeepSpeedBuild)
        reported = list(_ds_report_findings(case, torch, kits.chosen))
        yield from map(Suspicion, reported)
        if torch.cuda is None:
            if not reported:
                built_for = "the CPU" if torch.kind == "cpu" else torch.kind
                raise CannotTell(
                    f"torch {torch.version} is built for {built_for}: it has no CUDA version to hold a"
                    " toolkit against"
                )
        elif kits.chosen is None or kits.chosen.version is None:
            missing = _no_toolkit(kits)
            version = _deepspeed_version(case)
            if version is None and not reported:
                raise CannotTell(f"{missing}; nothing that is installed was seen to need one")
            if version is not None:
                yield Suspicion(_cannot_compile(missing, torch, kits, deepspeed, version))
        else:
            yield from map(Suspicion, _disagreements(case, kits, kits.chosen))
            mismatch = _mismatch(torch, kits.chosen, deepspeed, case, kits)
            trials = _trials(case, torch, kits, deepspeed)
            if mismatch is not None or trials:
                yield Suspicion(mismatch or _agreement(torch, kits.chosen), trials)
            if not kits.chosen.headers:
                yield Suspicion(_without_headers(kits, kits.chosen))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterable[Finding]:
        """The versions stand as they were read; a trial proves them, or contradicts them."""
        proof = next(reproduced(results), None)
        tried = next((result for result in results if result.cases), None)
        if finding.severity == "note":  # the versions agree: only a trial that broke is worth a word
            yield from _broken_all_the_same(finding, results)
        elif proof is not None:
            result, shown = proof
            yield msgspec.structs.replace(
                finding,
                confidence="proven",
                proof=Proof(trial=result.name, status="reproduced", case=shown),
                fixes=tuple(_verified(fix, results) for fix in finding.fixes),
            )
        elif tried is not None:
            proof_so_far = Proof(trial=tried.name, status=tried.status, case=tried.cases[0])
            # DeepSpeed's assertion speaks for DeepSpeed; torch's refusal of another major stands.
            withdrawn = (tried.name, tried.status) == (ASSERTION.name, "refuted")
            severity: Severity = finding.severity
            if withdrawn:
                severity = "warning" if finding.evidence.get("other_major") else "note"
            yield msgspec.structs.replace(finding, severity=severity, proof=proof_so_far)
        else:
            yield finding

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- What facts say -----------------------------------------------------------------------------------


def accepts(deepspeed: DeepSpeedBuild | None, toolkit: str, torch_cuda: str) -> bool:
    """Whether a build with this toolkit passes: DeepSpeed's rule, or torch's own without DeepSpeed."""
    torch_cuda = _minor(torch_cuda)
    if deepspeed is None:  # torch/utils/cpp_extension.py: another major raises, another minor warns
        return _major(toolkit) == _major(torch_cuda)
    row = deepspeed.accepted_minors.get(_major(toolkit), ())
    return toolkit == torch_cuda or (toolkit in row and torch_cuda in row)


def _mismatch(
    torch: TorchBuild,
    chosen: Toolkit,
    deepspeed: DeepSpeedBuild | None,
    case: Case,
    kits: CudaToolkits,
) -> Finding | None:
    assert torch.cuda is not None and chosen.version is not None
    if accepts(deepspeed, chosen.version, torch.cuda):
        return None
    other_major = _major(chosen.version) != _major(torch.cuda)
    message = (
        f"nvcc is CUDA {chosen.version} ({chosen.nvcc}) but torch {torch.version} was built for"
        f" CUDA {torch.cuda}: {_consequence(deepspeed, other_major)}"
    )
    reported = _ds_report_versions(case)
    if reported == {"nvcc version": chosen.version, "torch cuda version": _minor(torch.cuda)}:
        message += " (ds_report reads the same versions)"
    # torch refuses a foreign major in every build; a minor breaks only what DeepSpeed's rule stops.
    blocked = deepspeed is not None and (other_major or deepspeed.when_jit == "raises")
    return Finding(
        severity="error" if blocked else "warning",
        confidence="certain",
        message=message,
        subject=Subject(kind="toolkit", path=chosen.home),
        evidence={
            "toolkit": chosen.version,
            "toolkit_chosen_by": kits.chosen_by,
            "torch_cuda": torch.cuda,
            "other_major": other_major,
            "deepspeed": deepspeed.version if deepspeed else None,
            "at_run_time": deepspeed.when_jit if deepspeed else None,
            "ds_report": reported,
        },
        fixes=tuple(_remedies(torch, chosen, deepspeed, case, kits)),
    )


def _consequence(deepspeed: DeepSpeedBuild | None, other_major: bool) -> str:
    if deepspeed is None:
        return "torch refuses every CUDA extension that pip builds"
    rules: dict[BuildRule, str] = {
        "raises": "refuses to {} its operators",
        "builds-for-cpu": "silently builds its operators for the CPU alone",
        "not-checked": "does not look",
    }
    early, late = deepspeed.when_precompiled, deepspeed.when_jit
    said = rules[early].format("compile" if early == late else "pre-compile")
    if late != early:
        said += f" (at run time it {rules[late].format('compile')})"
    said = f"DeepSpeed {deepspeed.version} {said}"
    return f"{said}, and torch refuses every other CUDA extension that pip builds" if other_major else said


def _remedies(
    torch: TorchBuild, chosen: Toolkit, deepspeed: DeepSpeedBuild | None, case: Case, kits: CudaToolkits
) -> Iterator[Fix]:
    assert torch.cuda is not None and chosen.version is not None
    for kit in _matching(torch, deepspeed, kits):
        yield environment.export(
            f"use the CUDA {kit.version} toolkit that is installed", {"CUDA_HOME": kit.home}
        )
    # Before another torch: what else is installed was built for this one.
    yield packages.install_toolkit(_minor(torch.cuda))
    python = case.known(Interpreter)
    if python is not None:
        toolkit, runs = Version(chosen.version), _runs_here(case)
        line = packages.install_torch(
            lambda cuda: cuda == toolkit and runs(cuda),
            python=python.executable,
            python_version=python.version,
            torch_version=torch.version,
        )
        if line is not None:
            yield line
    if _skip_helps(torch, chosen, deepspeed):
        yield environment.export(
            "let DeepSpeed build across these minor versions (hides the difference)",
            {"DS_SKIP_CUDA_CHECK": "1"},
            safe=False,
        )


def _runs_here(case: Case) -> Callable[[Version], bool]:
    """Whether a torch for this CUDA version would run on the driver and the GPUs that are here."""
    driver = case.known(Gpus)
    if driver is None or driver.driver_cuda is None:
        return lambda cuda: True
    capabilities = [gpu.compute_capability for gpu in driver.gpus if gpu.compute_capability]
    return packages.runs_on(driver.driver_cuda, capabilities)


def _matching(torch: TorchBuild, deepspeed: DeepSpeedBuild | None, kits: CudaToolkits) -> list[Toolkit]:
    """The other toolkits that a build would accept, those equal to torch's CUDA and whole ones first."""
    assert torch.cuda is not None
    wanted = _minor(torch.cuda)
    fitting = [
        kit
        for kit in kits.toolkits
        if kit.version and kit.home != kits.chosen_home and accepts(deepspeed, kit.version, torch.cuda)
    ]
    return sorted(fitting, key=lambda kit: (kit.version != wanted, not kit.headers, kit.home))


def _skip_helps(torch: TorchBuild, chosen: Toolkit, deepspeed: DeepSpeedBuild | None) -> bool:
    """DeepSpeed reads the variable, something checks at all, and torch itself would build."""
    assert torch.cuda is not None and chosen.version is not None
    return (
        deepspeed is not None
        and deepspeed.honours_skip_variable
        and _major(chosen.version) == _major(torch.cuda)
    )


def _trials(
    case: Case, torch: TorchBuild, kits: CudaToolkits, deepspeed: DeepSpeedBuild | None
) -> tuple[TrialRequest, ...]:
    chosen = kits.chosen
    assert torch.cuda is not None and chosen is not None and chosen.version is not None
    homes: list[dict[str, str]] = []
    skip: list[dict[str, str]] = []
    if not accepts(deepspeed, chosen.version, torch.cuda):
        homes = [{"CUDA_HOME": kit.home} for kit in _matching(torch, deepspeed, kits)]
        if _skip_helps(torch, chosen, deepspeed):
            skip = [{"DS_SKIP_CUDA_CHECK": "1"}]
    trials = []
    if deepspeed is not None:
        trials.append(TrialRequest(ASSERTION, {"remedies": homes + skip}))
    if case.deep:
        trials.append(TrialRequest(BUILD, {"remedies": homes}))
    return tuple(trials)


def _agreement(torch: TorchBuild, chosen: Toolkit) -> Finding:
    return Finding(
        severity="note",
        confidence="certain",
        message=f"nvcc {chosen.version} and torch's CUDA {torch.cuda} may be mixed",
        subject=Subject(kind="toolkit", path=chosen.home),
        evidence={"toolkit": chosen.version, "torch_cuda": torch.cuda},
    )


def _broken_all_the_same(finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
    for result in results:
        for case in result.cases:
            error = (case.broken.error or "").partition("\n")[0] if case.broken is not None else ""
            if symptom_shown(CudaToolkitMismatch, error):
                yield msgspec.structs.replace(
                    finding,
                    severity="warning",
                    confidence="proven",
                    message=f"{finding.message}, and yet the trial {result.name} fails: {error}",
                    proof=Proof(trial=result.name, status=case.status, case=case),
                )


def _disagreements(case: Case, kits: CudaToolkits, chosen: Toolkit) -> Iterator[Finding]:
    on_path = kits.on_path
    if on_path is not None and on_path.version and on_path.version != chosen.version:
        yield Finding(
            severity="warning",
            confidence="certain",
            message=f"{kits.chosen_by} names CUDA {chosen.version} ({chosen.home}) but the nvcc on PATH is"
            f" CUDA {on_path.version} ({on_path.nvcc}): what calls nvcc by name builds for another version",
            subject=Subject(kind="toolkit", path=on_path.nvcc),
            fixes=(
                environment.prepend_to_path("put the chosen toolkit first on PATH", f"{chosen.home}/bin"),
            ),
        )
    theirs = case.answer(CUDA_HOME).get("cuda_home")
    if theirs is not None and str(theirs).rstrip("/") != (kits.chosen_home or "").rstrip("/"):
        yield Finding(
            severity="warning",
            confidence="certain",
            message=f"torch itself takes {theirs} for the CUDA toolkit, but the environment says"
            f" {kits.chosen_home}: something in the patient changes it",
            subject=Subject(kind="toolkit", path=str(theirs)),
        )


def _without_headers(kits: CudaToolkits, chosen: Toolkit) -> Finding:
    complete = [kit for kit in kits.toolkits if kit.headers and kit.version == chosen.version]
    return Finding(
        severity="warning",
        confidence="certain",
        message=f"torch takes {chosen.home} for the CUDA toolkit (by {kits.chosen_by}), but there is no"
        " cuda_runtime.h in it: C++ sources of an extension will not find CUDA's headers",
        subject=Subject(kind="toolkit", path=chosen.home),
        fixes=tuple(
            environment.export(f"name the whole toolkit, {kit.home}", {"CUDA_HOME": kit.home})
            for kit in complete[:1]
        ),
    )


def _no_toolkit(kits: CudaToolkits) -> str:
    if kits.chosen_home is None:
        return "no CUDA toolkit is on this machine (no CUDA_HOME, no nvcc on PATH, no /usr/local/cuda)"
    problem = kits.chosen.problem if kits.chosen else "there is nothing"
    return f"{kits.chosen_by} leads to {kits.chosen_home}, and {problem}"


def _deepspeed_version(case: Case) -> str | None:
    """Installed, even where its rule could not be read."""
    installed = case.known(Packages)
    deepspeed = case.known(DeepSpeedBuild)
    return deepspeed.version if deepspeed else installed.installed.get("deepspeed") if installed else None


def _cannot_compile(
    missing: str, torch: TorchBuild, kits: CudaToolkits, deepspeed: DeepSpeedBuild | None, version: str
) -> Finding:
    assert torch.cuda is not None
    usable = [kit for kit in kits.toolkits if kit.version and accepts(deepspeed, kit.version, torch.cuda)]
    use = [
        environment.export(f"use the CUDA {kit.version} toolkit that is installed", {"CUDA_HOME": kit.home})
        for kit in usable[:1]
    ]
    return Finding(
        severity="warning",
        confidence="certain",
        message=f"{missing}: DeepSpeed {version} cannot compile its operators (FusedAdam, CPUAdam); ZeRO"
        " itself works without",
        subject=Subject(kind="toolkit", path=kits.chosen_home),
        fixes=tuple(use or [packages.install_toolkit(_minor(torch.cuda))]),
    )


def _ds_report_findings(case: Case, torch: TorchBuild, chosen: Toolkit | None) -> Iterator[Finding]:
    said = case.answer(DS_REPORT)
    versions = _ds_report_versions(case)
    subject = Subject(kind="package", package="deepspeed")
    if said.get("crashed"):
        yield Finding(
            severity="warning",
            confidence="proven",
            message=f"ds_report crashes here: {str(said['crashed']).splitlines()[0][:300]}",
            subject=subject,
        )
    read = {"nvcc version": chosen.version if chosen else None, "torch cuda version": torch.cuda}
    for label, ours in read.items():
        theirs = versions.get(label)
        if theirs and ours and theirs != _minor(ours):
            yield Finding(
                severity="warning",
                confidence="certain",
                message=f"ds_report says {label} {theirs}, but it was read as {ours} without it:"
                " something in the patient changes the answer",
                subject=subject,
                evidence={"ds_report": theirs, "read": ours},
            )


def _ds_report_versions(case: Case) -> dict[str, str]:
    text = str(case.answer(DS_REPORT).get("text", ""))
    return dict(re.findall(r"^(nvcc version|torch cuda version) \.+ *(\d+\.\d+)", text, re.MULTILINE))


def _verified(fix: Fix, results: tuple[TrialResult, ...]) -> Fix:
    for _, case in reproduced(results):
        remedy = case.combination.get("remedy") or {}
        if remedy and fix.preview == environment.export("", remedy).preview:
            return msgspec.structs.replace(fix, verified=True)
    return fix


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def _major(version: str) -> str:
    return str(Version(version).major)


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def torch(version: str, cuda: str | None) -> TorchBuild:
        return TorchBuild(version=version, cuda=cuda, kind="cuda" if cuda else "cpu")

    def toolkits(*versions: str, by: str = "CUDA_HOME") -> CudaToolkits:
        found = tuple(
            Toolkit(
                home=f"/usr/local/cuda-{version}",
                nvcc=f"/usr/local/cuda-{version}/bin/nvcc",
                version=version,
                headers=True,
                found_by=("/usr/local",),
            )
            for version in versions
        )
        return CudaToolkits(
            toolkits=found, chosen_home=found[0].home if found else None, chosen_by=by if found else None
        )

    def deepspeed(version: str, jit: BuildRule = "not-checked", upto: int = 9) -> DeepSpeedBuild:
        return DeepSpeedBuild(
            version=version,
            accepted_minors={"12": tuple(f"12.{minor}" for minor in range(upto + 1) if minor != 7)},
            honours_skip_variable=True,
            when_precompiled="builds-for-cpu" if jit == "builds-for-cpu" else "raises",
            when_jit=jit,
        )

    def assertion(remedy: dict[str, str] | None, error: str | None) -> TrialResult:
        # Without a remedy to try, a fault that is there stays unproven.
        shown: ProofStatus = "reproduced" if remedy else "inconclusive"
        case = TrialCase(
            combination={"remedy": remedy},
            status=shown if error else "refuted",
            broken=Arm(outcome="raised" if error else "passed", error=error),
            fixed=Arm(outcome="passed") if remedy else None,
        )
        return TrialResult(name=ASSERTION.name, device="cpu", status=case.status, seconds=0.1, cases=(case,))

    raises = "Exception: Installed CUDA version {} does not match the version torch was compiled with"

    yield healthy(
        "nvcc 12.8 and a torch built for CUDA 12.8", case_of(torch("2.9.0+cu128", "12.8"), toolkits("12.8"))
    )
    yield healthy(
        "another minor version that DeepSpeed 0.17.2 accepts, and its own assertion agrees",
        case_of(torch("2.9.0+cu126", "12.6"), toolkits("12.8"), deepspeed("0.17.2")),
        assertion(None, None),
    )
    yield sick(
        "the same pair with a DeepSpeed whose table ends at 12.3, on a machine that also has 12.6",
        case_of(torch("2.9.0+cu126", "12.6"), toolkits("12.8", "12.6"), deepspeed("0.12.3", upto=3)),
        "warning: nvcc is CUDA 12.8 (/usr/local/cuda-12.8/bin/nvcc) but torch 2.9.0+cu126 was built for CUDA"
        " 12.6: DeepSpeed 0.12.3 refuses to pre-compile its operators (at run time it does not look)",
        trials=(assertion({"CUDA_HOME": "/usr/local/cuda-12.6"}, raises.format("12.8")),),
    )
    yield sick(
        "another major version, and a DeepSpeed that swallows its own refusal",
        case_of(torch("2.0.1+cu118", "11.8"), toolkits("12.1"), deepspeed("0.9.5", "builds-for-cpu", 1)),
        "error: nvcc is CUDA 12.1 (/usr/local/cuda-12.1/bin/nvcc) but torch 2.0.1+cu118 was built for CUDA"
        " 11.8: DeepSpeed 0.9.5 silently builds its operators for the CPU alone, and torch refuses every"
        " other CUDA extension that pip builds",
        trials=(assertion(None, raises.format("12.1")),),
    )
    yield sick(
        "another major version without DeepSpeed",
        case_of(torch("2.9.0+cu128", "12.8"), toolkits("13.0")),
        "warning: nvcc is CUDA 13.0 (/usr/local/cuda-13.0/bin/nvcc) but torch 2.9.0+cu128 was built for CUDA"
        " 12.8: torch refuses every CUDA extension that pip builds",
    )
    yield sick(
        "two minor versions of CUDA 13, which no DeepSpeed accepts yet",
        case_of(torch("2.14.0+cu132", "13.2"), toolkits("13.0"), deepspeed("0.19.8")),
        "warning: nvcc is CUDA 13.0 (/usr/local/cuda-13.0/bin/nvcc) but torch 2.14.0+cu132 was built for CUDA"
        " 13.2: DeepSpeed 0.19.8 refuses to pre-compile its operators (at run time it does not look)",
    )
    yield sick(
        "no toolkit, and DeepSpeed will want one",
        case_of(torch("2.9.0+cu128", "12.8"), toolkits(), deepspeed("0.19.8")),
        "warning: no CUDA toolkit is on this machine (no CUDA_HOME, no nvcc on PATH, no /usr/local/cuda):"
        " DeepSpeed 0.19.8 cannot compile its operators (FusedAdam, CPUAdam); ZeRO itself works without",
    )
    yield sick(
        "CUDA_HOME names one toolkit, PATH another, and torch was built for the first",
        case_of(
            torch("2.9.0+cu126", "12.6"),
            msgspec.structs.replace(toolkits("12.6", "11.8"), home_on_path="/usr/local/cuda-11.8"),
        ),
        "warning: CUDA_HOME names CUDA 12.6 (/usr/local/cuda-12.6) but the nvcc on PATH is CUDA 11.8"
        " (/usr/local/cuda-11.8/bin/nvcc): what calls nvcc by name builds for another version",
    )
    wrapper = Toolkit(home="/usr/local", nvcc="/usr/local/bin/nvcc", version="13.0", found_by=())
    yield sick(
        "a wrapper called nvcc outside of any toolkit",
        case_of(
            torch("2.9.0+cu130", "13.0"),
            CudaToolkits(
                chosen_home="/usr/local",
                chosen_by="nvcc on PATH",
                toolkits=(wrapper, *toolkits("13.0").toolkits),
            ),
        ),
        "warning: torch takes /usr/local for the CUDA toolkit (by nvcc on PATH), but there is no"
        " cuda_runtime.h in it: C++ sources of an extension will not find CUDA's headers",
    )
    yield sick(
        "ds_report says something else than was read",
        case_of(
            torch("2.9.0+cu128", "12.8"),
            toolkits("12.8"),
            ds_report={"text": "nvcc version ..................... 11.8", "crashed": None},
        ),
        "warning: ds_report says nvcc version 11.8, but it was read as 12.8 without it: something in the"
        " patient changes the answer",
    )
    yield sick(
        "ds_report crashes",
        case_of(
            torch("2.9.0+cu128", "12.8"),
            toolkits("12.8"),
            ds_report={"text": "", "crashed": "FileNotFoundError: '/usr/local/cuda/bin/nvcc'"},
        ),
        "warning: ds_report crashes here: FileNotFoundError: '/usr/local/cuda/bin/nvcc'",
    )
    yield sick(
        "the versions agree, and DeepSpeed's own assertion does not",
        case_of(torch("2.9.0+cu126", "12.6"), toolkits("12.6"), deepspeed("0.17.2")),
        "warning: nvcc 12.6 and torch's CUDA 12.6 may be mixed, and yet the trial deepspeed-cuda-assertion"
        f" fails: {raises.format('11.0')}",
        trials=(assertion(None, raises.format("11.0")),),
    )
    yield cannot_tell(
        "no toolkit, and nothing that needs one",
        case_of(torch("2.9.0+cu128", "12.8"), toolkits()),
        "no CUDA toolkit is on this machine (no CUDA_HOME, no nvcc on PATH, no /usr/local/cuda); nothing that"
        " is installed was seen to need one",
    )
    yield cannot_tell(
        "a CPU build of torch without a driver",
        case_of(torch("2.13.0+cpu", None), toolkits("13.0")),
        "torch 2.13.0+cpu is built for the CPU: it has no CUDA version to hold a toolkit against",
    )
