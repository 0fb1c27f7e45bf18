"""A GPU's PCIe or NVLink connection is narrower than it could be, or than its siblings'."""

from __future__ import annotations

from typing import Iterable, Iterator, Sequence, Tuple

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.checks.visible_devices_wrong import job_gpus
from llm_doctor.model import Confidence, Environment, Finding, Gpu, Gpus, Severity, Subject


class GpuDegradedLink(Check):
    """A GPU's PCIe or NVLink connection is narrower than it could be, or than its siblings'.

    ## What it finds

    A PCIe link of fewer lanes than GPU and slot have (of an idle GPU a note, unless an idle sibling has
    more); a slot that gives a GPU fewer lanes or an earlier generation than the slots of its siblings, the
    other GPUs of the same model; NVLinks that are down while the same links of a sibling are up.

    ## Why it breaks

    A card that is not seated well, a riser or cable, a slot that shares its lanes, a BIOS setting: the link
    comes up with what is left. Nothing fails. Every copy to that GPU takes several times as long, and in data
    parallel training all ranks wait for the slowest one at every step.

    ## How it is proven

    By the driver's numbers that do not depend on load. The present PCIe *generation* is not among them: an
    idle GPU lowers it to save power, and may lower its width. Inactive NVLinks say nothing by themselves
    either: cards have connectors for bridges that nobody bought, and a GPU that MIG divides uses none.

    ## Fix

    Seat the card and its cables anew, look at slot and BIOS; reset the GPU where an NVLink is down.

    ## References

    - https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceQueries.html (nvmlDeviceGetCurrPcieLinkWidth,
      nvmlDeviceGetMaxPcieLinkGeneration, nvmlDeviceGetNvLinkState)
    - https://docs.nvidia.com/deploy/nvidia-smi/index.html (PCIe, generation and width: "may be reduced when
      the GPU is not in use")
    - https://docs.nvidia.com/datacenter/tesla/mig-user-guide/deployment-considerations.html (no peer-to-peer)
    """

    name = "gpu-degraded-link"
    topic = "driver-gpu"
    severity = "warning"
    since = "0.1.0"
    needs = (Gpus,)
    url = "https://docs.nvidia.com/deploy/nvidia-smi/index.html"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Each GPU by its own maximum and by its siblings. Of GPUs that the job does not use: notes."""
        gpus = case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        answering = [gpu for gpu in gpus.gpus if gpu.problem is None]
        if all(gpu.pcie_width is None and gpu.nvlinks_active is None for gpu in answering):
            raise CannotTell("the driver tells neither the width of PCIe links nor the state of NVLinks")
        mine = job_gpus(case)
        for gpu in answering:
            siblings = [it for it in answering if it.name == gpu.name and it.index != gpu.index]
            for severity, confidence, message in (*_pcie(gpu, siblings), *_nvlink(gpu, siblings)):
                yield Suspicion(_finding(gpu, severity if gpu.index in mine else "note", confidence, message))

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


_Said = Tuple[Severity, Confidence, str]


def _may_rest(gpu: Gpu) -> bool:
    return gpu.throttle_reasons is None or "gpu-idle" in gpu.throttle_reasons


def _pcie(gpu: Gpu, siblings: Sequence[Gpu]) -> Iterator[_Said]:
    width, most = gpu.pcie_width, gpu.pcie_width_max
    # In a virtual machine a driver may tell 0. Half the lanes on every GPU is how some servers and clouds
    # wire them (the T4 of AWS's g4dn has 8 of 16).
    widest = max((it.pcie_width or 0 for it in siblings), default=0)
    if width and most and width < most and (width < widest or 2 * width < most):
        message = f"its PCIe link has {width} of {most} lanes"
        if not _may_rest(gpu):
            yield "warning", "certain", message
        elif any(_may_rest(it) and (it.pcie_width or 0) > width for it in siblings):
            yield "warning", "likely", message
        else:
            yield "note", "likely", f"{message}, which an idle GPU may have lowered"
        return
    wider = max((it.pcie_width_max or 0 for it in siblings), default=0)
    if most and most < wider:
        message = f"its slot gives it {most} PCIe lanes, and another {gpu.name} here has {wider}"
        yield "warning", "likely", message
    later = max((it.pcie_generation_max or 0 for it in siblings), default=0)
    if gpu.pcie_generation_max and gpu.pcie_generation_max < later:
        slot = f"its slot is PCIe generation {gpu.pcie_generation_max}"
        yield "warning", "likely", f"{slot}, and another {gpu.name} here has {later}"


def _nvlink(gpu: Gpu, siblings: Sequence[Gpu]) -> Iterator[_Said]:
    active, linked = gpu.nvlinks_active, [it.nvlinks_active for it in siblings if it.nvlinks_active]
    if gpu.mig or active is None or not gpu.nvlinks_inactive:
        return
    if active == 0 and len(linked) % 2 == 0:
        return  # bridges join cards in pairs, and this one may have none
    most = max(linked, default=0)
    if active < most:
        yield "warning", "certain", f"{active} of its NVLinks are up, and another {gpu.name} here has {most}"


def _finding(gpu: Gpu, severity: Severity, confidence: Confidence, message: str) -> Finding:
    if "NVLink" in message:
        fixes = (
            remedy("see which link is down", f"nvidia-smi nvlink --status -i {gpu.index}"),
            remedy(
                "with nothing running, reset the GPUs; else restart the machine",
                "sudo nvidia-smi --gpu-reset",
            ),
        )
    else:
        fixes = (
            remedy(
                "look at the link under load",
                f"nvidia-smi -i {gpu.index} --format=csv"
                " --query-gpu=pcie.link.width.current,pcie.link.gen.current",
            ),
            remedy("seat the card, its riser and cables anew; look at the slot and the BIOS"),
        )
    return Finding(
        severity=severity,
        confidence=confidence,
        message=f"GPU {gpu.index} ({gpu.name}): {message}",
        subject=Subject(kind="gpu", gpu=gpu.index),
        evidence={
            "pcie_width": gpu.pcie_width,
            "pcie_width_max": gpu.pcie_width_max,
            "pcie_generation_max": gpu.pcie_generation_max,
            "nvlinks_active": gpu.nvlinks_active,
            "nvlinks_inactive": gpu.nvlinks_inactive,
        },
        fixes=fixes,
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(*changes: dict[str, int]) -> Gpus:
        whole = {
            "pcie_width": 16,
            "pcie_width_max": 16,
            "pcie_generation": 4,
            "pcie_generation_max": 4,
            "nvlinks_active": 12,
            "nvlinks_inactive": 0,
        }
        gpus = [
            Gpu(index=index, name="NVIDIA A100", **{**whole, **change})  # type: ignore[arg-type]
            for index, change in enumerate(changes)
        ]
        return Gpus(driver="580.65.06", gpus=tuple(gpus))

    yield healthy("an idle GPU has lowered its generation", case_of(node({"pcie_generation": 1}, {})))
    bridgeless = {"nvlinks_active": 0, "nvlinks_inactive": 12}
    yield healthy("cards without bridges", case_of(node(bridgeless, bridgeless)))
    yield healthy("two of four cards have a bridge", case_of(node({}, {}, bridgeless, bridgeless)))
    yield sick(
        "a card that sits badly",
        case_of(node({"pcie_width": 4, "pcie_generation": 1}, {})),
        "warning: GPU 0 (NVIDIA A100): its PCIe link has 4 of 16 lanes",
    )
    yield sick(
        "an idle GPU that has no siblings",
        case_of(node({"pcie_width": 4, "pcie_generation": 1})),
        "note: GPU 0 (NVIDIA A100): its PCIe link has 4 of 16 lanes, which an idle GPU may have lowered",
    )
    yield sick(
        "a slot with fewer lanes, of an earlier generation",
        case_of(node({}, {"pcie_width": 8, "pcie_width_max": 8, "pcie_generation_max": 3})),
        "warning: GPU 1 (NVIDIA A100): its slot gives it 8 PCIe lanes, and another NVIDIA A100 here has 16",
        "warning: GPU 1 (NVIDIA A100): its slot is PCIe generation 3, and another NVIDIA A100 here has 4",
    )
    yield sick(
        "an NVLink is down",
        case_of(node({"nvlinks_active": 11, "nvlinks_inactive": 1}, {})),
        "warning: GPU 0 (NVIDIA A100): 11 of its NVLinks are up, and another NVIDIA A100 here has 12",
    )
    yield sick(
        "the job does not use that one",
        case_of(node({"pcie_width": 4}, {}), Environment(variables={"CUDA_VISIBLE_DEVICES": "1"})),
        "note: GPU 0 (NVIDIA A100): its PCIe link has 4 of 16 lanes",
    )
    yield cannot_tell("no GPU", case_of(Gpus(driver="580.65.06")), "there is no NVIDIA GPU here")
    yield cannot_tell(
        "a virtual machine that tells nothing",
        case_of(Gpus(driver="580.65.06", gpus=(Gpu(index=0, name="NVIDIA A100"),))),
        "the driver tells neither the width of PCIe links nor the state of NVLinks",
    )
