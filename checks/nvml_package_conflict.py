"""The deprecated package pynvml stands beside or in place of nvidia-ml-py."""

from __future__ import annotations

from typing import Iterable, Iterator

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Symptom,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.model import Finding, Gpu, Gpus, Packages, Requirements, Severity, SharedModule, Subject


class NvmlPackageConflict(Check):
    """The deprecated package pynvml stands beside or in place of nvidia-ml-py.

    ## What it finds

    On a node with NVIDIA GPUs: the packages pynvml and nvidia-ml-py that both bring a module called pynvml,
    or pynvml alone.

    ## Why it breaks

    NVIDIA's bindings are the package nvidia-ml-py; what is imported is called pynvml all the same. The
    package of that name brought bindings of its own until release 11.5, and they are found first: a folder
    goes before a file. Code that wants a newer function, or a newer version of a structure, then fails with
    an AttributeError or gets wrong numbers of memory. Later releases only ask for nvidia-ml-py and warn;
    torch hands that warning on.

    ## How it is proven

    By the lists of files of both packages, and the file that `import pynvml` would take in the patient.

    ## Fix

    Uninstall pynvml, and install nvidia-ml-py again: both may have written the same files.

    ## References

    - https://pypi.org/project/pynvml/ (deprecated, use nvidia-ml-py)
    - https://github.com/flashinfer-ai/flashinfer/issues/1693
    - https://github.com/gpuopenanalytics/pynvml
    """

    name = "nvml-package-conflict"
    topic = "package-conflict"
    severity = "warning"
    since = "0.1.0"
    needs = (Packages, Gpus)
    url = "https://pypi.org/project/pynvml/"
    symptoms = (
        Symptom(
            pattern=r"module `pynvml(?:\.nvml)?` has no attribute `(?P<name>\w{3,80})",
            example="AttributeError: module 'pynvml' has no attribute 'nvmlDeviceGetMemoryInfo_v2'",
            counter_example="ModuleNotFoundError: No module named 'pynvml'",
            cause="The bindings called pynvml have no {name}: an old package pynvml goes before nvidia-ml-py",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "keep NVIDIA's own package alone",
            "python -m pip uninstall -y pynvml && python -m pip install --force-reinstall nvidia-ml-py",
        ),
        remedy("see which of them is imported", 'python -c "import pynvml; print(pynvml.__file__)"'),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """The two packages, and which of them an import takes."""
        packages, gpus = case.fact(Packages), case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        old, new = (packages.installed.get(name) for name in ("pynvml", "nvidia-ml-py"))
        if old is None:
            return
        requirements = case.known(Requirements)
        shared = requirements.shared_modules if requirements is not None else ()
        both = any(it.module == "pynvml" and "pynvml" in it.packages for it in shared)
        # A folder is the old package's; NVIDIA's is one file.
        taken = packages.modules.get("pynvml", "")
        severity: Severity = "note"
        message = f"the package pynvml {old} is deprecated, and nvidia-ml-py {new} has taken its place"
        if both:
            severity = "warning"
            message = f"pynvml {old} and nvidia-ml-py {new} both bring the module pynvml"
            if taken.endswith("/pynvml/__init__.py"):
                message += f", and an import takes that of pynvml {old}"
        elif new is None:
            message = f"the package pynvml {old} is deprecated, and nvidia-ml-py is not installed"
        finding = Finding(
            severity=severity,
            confidence="certain",
            message=message,
            subject=Subject(kind="package", package="pynvml"),
            evidence={"pynvml": old, "nvidia_ml_py": new, "imported_from": taken or None},
            fixes=self.remedies[:1],
        )
        yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    node = Gpus(driver="580.65.06", gpus=(Gpu(index=0, name="NVIDIA A100"),))

    def stack(taken: str, **installed: str) -> Packages:
        named = {name.replace("_", "-"): version for name, version in installed.items()}
        return Packages(installed=named, modules={"pynvml": f"/env/site-packages/{taken}"})

    both = Requirements(shared_modules=(SharedModule(module="pynvml", packages=("nvidia-ml-py", "pynvml")),))
    yield healthy("NVIDIA's own", case_of(stack("pynvml.py", nvidia_ml_py="13.580.65"), Requirements(), node))
    yield sick(
        "an old pynvml shadows it",
        case_of(stack("pynvml/__init__.py", pynvml="11.5.3", nvidia_ml_py="13.580.65"), both, node),
        "warning: pynvml 11.5.3 and nvidia-ml-py 13.580.65 both bring the module pynvml, and an import takes"
        " that of pynvml 11.5.3",
    )
    yield sick(
        "a pynvml that only asks for the other",
        case_of(stack("pynvml.py", pynvml="13.0.1", nvidia_ml_py="13.580.65"), Requirements(), node),
        "note: the package pynvml 13.0.1 is deprecated, and nvidia-ml-py 13.580.65 has taken its place",
    )
    yield sick(
        "the old one alone",
        case_of(stack("pynvml/__init__.py", pynvml="11.5.3"), Requirements(), node),
        "note: the package pynvml 11.5.3 is deprecated, and nvidia-ml-py is not installed",
    )
    yield cannot_tell(
        "no GPU",
        case_of(stack("pynvml/__init__.py", pynvml="11.5.3"), Requirements(), Gpus(driver="580.65.06")),
        "there is no NVIDIA GPU here",
    )
