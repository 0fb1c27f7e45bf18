"""A package of the stack is installed and cannot be imported."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    Asked,
    CannotTell,
    Case,
    Check,
    Example,
    Question,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.host import PATIENT_CODE
from llm_doctor.model import Answer, Finding, Packages, Subject
from llm_doctor.workload.data import Workload
from llm_doctor.workload.models import Quantization, quantization, uses_deepspeed

STACK = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "deepspeed")

IMPORTS = {
    package: Question(
        name=f"import-{package}", imports=(package,), file=str(PATIENT_CODE / "questions" / "imported.py")
    )
    for package in STACK
}


def import_of(package: str) -> Asked:
    """The question whether a package of the stack can be imported."""
    return Asked(IMPORTS[package], {"package": package})


class StackImportBroken(Check):
    """A package of the stack is installed and cannot be imported.

    ## What it finds

    Whether each of torch, transformers, accelerate, peft, bitsandbytes and deepspeed that is installed can be
    imported by the patient, and is not just a folder without `__init__.py`. Of torch it is an error, of
    another package a warning: not every job uses it.

    ## Why it breaks

    A shared library is missing or of another version, two packages want different versions of a third, a file
    was lost on the way to the node. The job dies on its first line, after it has waited for its turn.

    ## How it is proven

    By importing it, inside the patient, in a process that may crash or hang.

    ## Fix

    The error names what is missing. Reinstalling the named package in the same environment mends a lost file;
    `pip check` names versions that do not fit.

    ## References

    - https://github.com/deepspeedai/DeepSpeed/issues/7452 (import fails where nvcc is missing)
    - https://pip.pypa.io/en/stable/cli/pip_check/
    """

    name = "stack-import-broken"
    topic = "package-conflict"
    severity = "error"
    since = "0.1.0"
    needs = (Packages,)
    questions = tuple(IMPORTS.values())
    url = "https://pip.pypa.io/en/stable/cli/pip_check/"
    symptoms = (
        Symptom(
            pattern=r"ImportError: \S{1,200}: cannot open shared object file",
            example="ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
            counter_example="FileNotFoundError: config.json: No such file or directory",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"ImportError: \S{1,200}: undefined symbol: \S{1,200}",
            example="ImportError: flash_attn_2_cuda.so: undefined symbol: _ZN3c104cuda9SetDeviceEi",
            counter_example="ld: warning: undefined symbol in an archive that is not used",
            standing="aftermath",
            sure="likely",
        ),
    )
    remedies = (
        remedy("examine which package of the stack cannot be imported, and why", "llm-doctor run"),
        remedy("see who wants which release", "pip check"),
    )

    def asks(self, case: Case) -> Iterator[Asked]:
        """Each package of the stack by its own name."""
        return map(import_of, IMPORTS)

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """One finding for each package whose import did not end well."""
        asked = {package: case.answers.get(question.name) for package, question in IMPORTS.items()}
        tried = {package: answer for package, answer in asked.items() if answer is not None}
        if not tried:
            raise CannotTell("no package of the stack was imported")
        for package, answer in tried.items():
            name = f"{package} {case.fact(Packages).installed.get(package, '')}"
            folder = answer.value.get("folder") if isinstance(answer.value, dict) else None
            if answer.status == "unavailable" and (answer.reason or "").startswith("import "):
                error = (answer.reason or "").partition(": ")[2]
                message = f"{name} cannot be imported: {error.splitlines()[0]}"
                evidence = {"error": error}
            elif folder:
                message = f"{name} is a folder without __init__.py: there is nothing in it to use"
                evidence = {"folder": folder}
            else:
                continue
            yield Suspicion(
                Finding(
                    severity="error" if package == "torch" else "warning",
                    confidence="proven",
                    message=message,
                    subject=Subject(kind="package", package=package),
                    evidence=evidence,
                )
            )

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """Whether anything of the workload imports the package, as far as that can be seen."""
        package = str(finding.subject.package)
        if package == "deepspeed":
            return uses_deepspeed(workload)
        imported = {it.module.partition(".")[0] for script in workload.scripts for it in script.imports}
        if package == "bitsandbytes":
            calls = (call for script in workload.scripts for call in script.calls)
            return package in imported or any(isinstance(quantization(it), Quantization) for it in calls)
        # The others import each other, and a workload without scripts may import anything.
        return package in ("torch", "transformers", "accelerate") or not imported or package in imported

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.9.0", "bitsandbytes": "0.45.0"}, modules={})
    well = {"imported": True}

    def broken(reason: str) -> Answer:
        return Answer(status="unavailable", source="example", seconds=0.0, reason=reason)

    yield healthy(
        "what is installed can be imported", case_of(stack, import_torch=well, import_bitsandbytes=well)
    )
    yield sick(
        "a library is missing, and another package crashes the interpreter",
        Case(
            facts=case_of(stack).facts,
            answers={
                "import-torch": broken("import torch: OSError: libcudart.so.12: cannot open shared object"),
                "import-bitsandbytes": broken("import bitsandbytes: signal SIGSEGV"),
            },
        ),
        "error: torch 2.9.0 cannot be imported: OSError: libcudart.so.12: cannot open shared object",
        "warning: bitsandbytes 0.45.0 cannot be imported: signal SIGSEGV",
    )
    yield sick(
        "an interrupted removal left torch's folder, which Python imports as a namespace",
        case_of(stack, import_torch={"imported": True, "folder": "/env/site-packages/torch"}),
        "error: torch 2.9.0 is a folder without __init__.py: there is nothing in it to use",
    )
    yield cannot_tell("nothing was imported", case_of(stack), "no package of the stack was imported")
