"""What `--assume` says of a machine that is not at hand: versions of packages, and GPUs.

Nothing of the real patient is kept beside an assumption: a mixture of two stacks is neither.
"""

from __future__ import annotations

import re
from typing import Any, Sequence

import msgspec

from llm_doctor.model import Fact, Facts, Gpu, Gpus, Packages
from llm_doctor.workload.data import Value, Workload

SOURCE = "--assume"

# Compute capability and memory (GiB) by the model's name:
# https://developer.nvidia.com/cuda-gpus and the data sheets.
_GPUS: tuple[tuple[str, tuple[int, int], int | None], ...] = (
    (r"\bP100\b", (6, 0), 16),
    (r"\b(P40|P4)\b", (6, 1), 24),
    (r"\bGTX 10[678]0", (6, 1), 8),
    (r"\bV100\b", (7, 0), 16),
    (r"\bTITAN V\b", (7, 0), 12),
    (r"\bT4\b", (7, 5), 15),
    (r"\b(RTX 20[678]0|Quadro RTX|TITAN RTX)", (7, 5), 11),
    (r"\bA100\b|\bA800\b|\bA30\b", (8, 0), 40),
    (r"\b(A10G?|A16|A2|A40|RTX A\d000|RTX 30[56789]0)\b", (8, 6), 24),
    (r"\bOrin\b", (8, 7), None),
    (r"\b(L4|L40S?|L20|RTX 40[56789]0|RTX \d000 Ada)\b", (8, 9), 24),
    (r"\bGH200\b|\bH200\b", (9, 0), 141),
    (r"\bH20\b", (9, 0), 96),
    (r"\b(H100|H800)\b", (9, 0), 80),
    (r"\b(B200|GB200|B100)\b", (10, 0), 180),
    (r"\b(B300|GB300)\b", (10, 3), 288),
    (r"\bRTX (50[56789]0|PRO \d000)", (12, 0), 32),
)


class NotAnAssumption(ValueError):
    """A text that assumes nothing; the message says what was expected."""


def check(assumptions: Sequence[str]) -> None:
    """Raises NotAnAssumption, for the command line."""
    _parsed(assumptions)


def apply(facts: Facts, assumptions: Sequence[str]) -> Facts:
    """The facts of the assumed machine. Everything about the patient that was not assumed is unavailable."""
    if not assumptions:
        return facts
    versions, gpu, count = _parsed(assumptions)
    about_patient = (
        "packages",
        "requirements",
        "torch_build",
        "deepspeed_build",
        "bitsandbytes_build",
        "gpus",
        "nvidia_module",
        "accelerators",
        "cuda_toolkits",
    )
    changed: dict[str, Fact[Any]] = {
        name: Fact(status="unavailable", source=SOURCE, seconds=0.0, reason="another machine is assumed")
        for name in about_patient
    }
    if versions:
        changed["packages"] = _assumed(Packages(installed=versions, modules={}))
    if gpu is not None:
        changed["gpus"] = _assumed(Gpus(driver="assumed", gpus=tuple(_gpu(gpu, n) for n in range(count))))
    return msgspec.structs.replace(facts, **changed)


STACK = ("torch", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "trl")


def pinned(facts: Facts, workload: Workload | None, assumed: bool) -> dict[str, Value]:
    """The versions that requirements and lock files of the workload pin: where a patient has none of the
    stack, and beside those that are assumed."""
    installed = facts.packages.value.installed if facts.packages.value is not None else {}
    if workload is None or (not assumed and set(STACK) & set(installed)):
        return {}
    found: dict[str, Value] = {}
    for config in workload.configs_of("requirements"):
        for name, value in config.root.items():
            if name in STACK and name not in installed and isinstance(value.constant, str):
                found.setdefault(name, value)
    return found


def with_versions(facts: Facts, versions: dict[str, str], assumed: bool) -> Facts:
    """The facts with these versions: beside those that are assumed, else in place of a patient's."""
    known = facts.packages.value.installed if assumed and facts.packages.value is not None else {}
    packages = Packages(installed={**known, **versions}, modules={})
    return msgspec.structs.replace(facts, packages=_assumed(packages))


def _assumed(value: Any) -> Fact[Any]:
    return Fact(status="ok", source=SOURCE, seconds=0.0, value=value)


def _parsed(assumptions: Sequence[str]) -> tuple[dict[str, str], str | None, int]:
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    versions: dict[str, str] = {}
    gpu, count = None, 1
    for text in assumptions:
        name, equals, value = text.partition("=")
        name, value = name.strip(), value.lstrip("=").strip()
        if not equals or not name or not value:
            raise NotAnAssumption(f"{text!r}: NAME=VALUE is expected, as transformers=4.29.2 or gpus=4")
        if name == "gpu":
            gpu = value
        elif name == "gpus":
            if not value.isdigit() or not 0 <= int(value) <= 1024:
                raise NotAnAssumption(f"{text!r}: a number of GPUs is expected")
            count = int(value)
        else:
            try:
                Version(value)
            except ValueError:  # InvalidVersion, or more digits than Python reads
                raise NotAnAssumption(f"{text!r}: {value!r} is no version") from None
            versions[canonicalize_name(name)] = value
    if count != 1 and gpu is None:
        gpu = "GPU"
    return versions, gpu, count


def _gpu(name: str, index: int) -> Gpu:
    for pattern, capability, gib in _GPUS:
        if re.search(pattern, name, re.IGNORECASE):
            # A size in the name is the card's own; 80 GB and 80 GiB are the same card.
            own = re.search(r"(\d+)\s?G(i?B)?\b", name, re.IGNORECASE)
            memory = int(own[1]) if own else gib
            return Gpu(
                index=index,
                name=name,
                compute_capability=capability,
                memory_total_bytes=memory << 30 if memory else None,
            )
    return Gpu(index=index, name=name)
