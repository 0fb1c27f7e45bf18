"""A GPU is broken or has hung: memory errors, off the bus, a reset is needed."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, NamedTuple, Sequence

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
from llm_doctor.checks.visible_devices_wrong import job_gpus
from llm_doctor.host import KEPT_OF_EACH_XID
from llm_doctor.model import (
    Confidence,
    Environment,
    Finding,
    Fix,
    Gpu,
    Gpus,
    NvidiaModule,
    RemappedRows,
    Severity,
    Subject,
    TrialResult,
)

# What the driver's Xid numbers mean, and whether NVIDIA's catalogue asks for a reset of the GPU or more.
# https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html (Resolution Bucket, Immediate Action)
_HARDWARE = {
    46: "the GPU stopped processing",
    48: "a double-bit ECC error",
    54: "auxiliary power is not connected",
    62: "its micro-controller halted",
    64: "a memory row or page could not be retired",
    74: "an NVLink error",
    79: "the GPU fell off the bus",
    95: "an uncontained memory error",
    109: "a context switch timed out",
    110: "a security fault",
    119: "its system processor (GSP) did not answer",
    120: "its system processor (GSP) failed",
    136: "a link could not be trained",
    140: "an ECC error that was not recovered",
    143: "the GPU could not be initialised",
    **dict.fromkeys(range(144, 151), "an NVLink error"),
    156: "a resource of the GPU was retired",
    158: "a fatal timeout",
}
_PASSING = {
    63: "a memory row or page was retired",
    92: "many single-bit ECC errors, all corrected",
    94: "a memory error that was contained: one program had to end",
    121: "corrected errors on the link to the CPU",
    155: "an NVLink went down, which may have been meant to",
    157: "a resource of the GPU could not be retired",
}
_PROGRAMS = {
    8: "a program's kernel ran too long",
    13: "a program's kernel failed",
    31: "a program touched memory that it has not",
    32: "a program's commands were corrupted",
    43: "a program was stopped after its own fault",
    45: "a program was ended, and its work removed",
    69: "a program's kernel was refused",
    137: "a program touched memory of another GPU that it has not",
}
_CONTAINED = 94
"""A fault of the hardware too: what ended is the program that a log is of."""
_RECOVERY = 154
"""Says after others what it takes: None, Drain P2P, GPU Reset Required, Node Reboot Required."""
_SLOWED = {
    "hw-thermal": "it is too hot",
    "sw-thermal": "it is too hot",
    "hw-power-brake": "the power supply asks for less",
}
"""The bare hw-slowdown "may be also reported during PState or clock change" (nvml.h)."""


class GpuUnhealthy(Check):
    """A GPU is broken or has hung: memory errors, off the bus, a reset is needed.

    ## What it finds

    A GPU that does not answer the driver; ECC errors that could not be corrected since the driver was loaded;
    memory rows or pages that wait for a reset to be replaced, or for which there is no spare; Xid messages of
    the kernel's log since the machine started, by their meaning; a GPU that is slowed down by heat or by the
    power supply. In a log: uncorrectable ECC and NVLink errors, the driver's Xid messages that mean hardware,
    and a GPU that is lost.

    ## Why it breaks

    Memory fails, a link or a power cable is loose, a GPU overheats, its firmware hangs. What was on it
    is lost, and other ranks then wait for it until NCCL's time is up. Xid 13, 31, 43 and 45 come from
    faulty programs and are notes. GPUs from the A100 on contain an error and go on until they can be reset;
    earlier ones have to be reset.

    ## How it is proven

    By what the driver counts (NVML) and wrote to the kernel's log. A broken GPU is left alone. That an Xid
    was written does not say that the fault is still there: it may have been reset since.

    ## Fix

    Take the node out, reset the GPU, have it replaced when it comes back.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
    - https://docs.nvidia.com/deploy/a100-gpu-mem-error-mgmt/index.html (row remapping, containment)
    - https://docs.nvidia.com/deploy/dynamic-page-retirement/index.html
    - https://github.com/NVIDIA/open-gpu-kernel-modules/issues/507
    - https://github.com/huggingface/accelerate/issues/1192
    """

    name = "gpu-unhealthy"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (Gpus,)
    url = "https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html"
    symptoms = (
        Symptom(
            pattern=r"uncorrectable ECC error (?:was )?encountered",
            example="RuntimeError: CUDA error: uncorrectable ECC error encountered",
            counter_example="Volatile Uncorr. ECC: 0",
            cause="The GPU's memory has an error that cannot be corrected",
        ),
        Symptom(
            pattern=r"uncorrectable NVLink error was detected",
            example="RuntimeError: CUDA error: uncorrectable NVLink error was detected during the execution",
            counter_example="NVLink 0: 26.562 GB/s",
            cause="An NVLink has an error that cannot be corrected",
        ),
        Symptom(
            pattern=r"fallen off the bus",
            example="NVRM: Xid (PCI:0000:4f:00): 79, pid='<unknown>', name=<unknown>, GPU has "
            "fallen off the bus.",
            counter_example="GPU 00000000:4F:00.0",
            cause="A GPU has fallen off the bus (Xid 79)",
        ),
        Symptom(
            pattern=r"Xid \(PCI:(?P<gpu>[\w:.]{7,20})[^)\n]{0,40}\): (?P<xid>"
            + "|".join(map(str, (*_HARDWARE, _CONTAINED)))
            + rf"|{_RECOVERY}(?=[^\n]{{0,90}} to 0x\w{{1,4}} \((?!None)))\b",
            example="NVRM: Xid (PCI:0000:3b:00): 48, pid=1234, DBE (double bit error) ECC Error",
            counter_example="NVRM: Xid (PCI:0000:3b:00): 31, pid=1234, name=python, MMU Fault",
            cause="The driver reports Xid {xid} of the GPU at {gpu}: a fault of the hardware or its firmware",
        ),
        Symptom(
            pattern=r"Unable to determine the device handle for (?:gpu|GPU)\d{0,2}:? "
            r"?(?P<gpu>[\w:.]{4,24}): (?P<why>[^\n]{3,60})",
            example="Unable to determine the device handle for GPU 0000:89:00.0: Unknown Error",
            counter_example="GPU 00000000:89:00.0",
            cause="The driver has lost the GPU at {gpu}: {why}",
        ),
        Symptom(
            pattern=r"Reboot the system to recover this GPU|NVMLError_GpuIsLost",
            example="Unable to determine the device handle for GPU 0000:02:00.0: GPU is lost.  "
            "Reboot the system to recover this GPU",
            counter_example="GPU memory is lost between runs",
            cause="The driver has lost a GPU; the machine has to be restarted",
        ),
        Symptom(
            pattern=r"hardware stack error|CUDA_ERROR_HARDWARE_STACK_ERROR",
            example="RuntimeError: CUDA error: hardware stack error",
            counter_example="stack smashing detected",
            cause="The GPU reports a hardware stack error: a broken GPU, or a kernel that ran wild",
            sure="likely",
        ),
        Symptom(
            pattern=r"GPU(?:\s?\d{1,2})? requires (?:a )?reset|GPU needs (?:to be )?reset|"
            r"CUDA_ERROR_CONTAINED|CUDA error: Invalid access of peer GPU memory over "
            r"nvlink or a hardware error",
            example="GPU requires reset",
            counter_example="nvidia-smi --gpu-reset",
        ),
        Symptom(
            pattern=r"(?:RmInitAdapter|rm_init_adapter) failed",
            example="NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x24:0x65:1477)",
            counter_example="NVRM: loading NVIDIA UNIX x86_64 Kernel Module",
            cause="The driver cannot start a GPU",
        ),
        Symptom(
            pattern=r"Remapping Failure Occurred : Yes",
            example="    Remapping Failure Occurred            : Yes",
            counter_example="    Remapping Failure Occurred            : No",
            cause="The GPU has no spare memory rows left: it has to be replaced",
        ),
    )
    remedies = (
        remedy(
            "see which GPU it is and what it counts",
            "nvidia-smi -q -d ECC,ROW_REMAPPER,PAGE_RETIREMENT && sudo dmesg | grep -i xid",
        ),
        remedy(
            "with nothing running on it, reset it; else restart the machine",
            "sudo nvidia-smi --gpu-reset -i 0",
        ),
        remedy(
            "take the node out of the queue and run the vendor's diagnosis; what comes back has to "
            "be replaced",
            "dcgmi diag -r 3",
        ),
        remedy("start the job again from its last checkpoint, without that GPU"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Each GPU as the driver counts it, then the kernel's log; of GPUs that the job hides, notes."""
        gpus = case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        mine = job_gpus(case)
        module = case.known(NvidiaModule)
        xids = _xids(module.xid_lines if module is not None else ())
        of_gpu = _addresses(gpus, module, xids)
        for gpu in gpus.gpus:
            for severity, message, fixes in _sick(gpu):
                if gpu.problem is not None:  # what the log says of a GPU that is gone is the same fault
                    told = [xid.said for xid in xids.pop(of_gpu.get(gpu.index, ""), [])]
                    message = "; ".join([message, *told])
                yield _suspicion(gpu.index, severity if gpu.index in mine else "note", message, fixes)
        at_address = {address: index for index, address in of_gpu.items()}
        for address, numbers in xids.items():
            index = at_address.get(address)
            for xid in numbers:
                hidden = index is not None and index not in mine
                where = f"GPU {index}" if index is not None else f"the GPU at {address}"
                severity = "note" if hidden else xid.severity
                yield _suspicion(index, severity, f"{where}: {xid.said}", _xid_fixes(address), "likely")

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """That Xid messages could not be read."""
        module = case.known(NvidiaModule)
        return module.log_problem if module is not None else None

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _suspicion(
    gpu: int | None,
    severity: Severity,
    message: str,
    fixes: tuple[Fix, ...],
    confidence: Confidence = "certain",
) -> Suspicion:
    subject = Subject(kind="gpu", gpu=gpu)
    return Suspicion(
        Finding(severity=severity, confidence=confidence, message=message, subject=subject, fixes=fixes)
    )


def _sick(gpu: Gpu) -> Iterator[tuple[Severity, str, tuple[Fix, ...]]]:
    what = f"GPU {gpu.index} ({gpu.name})" if gpu.name else f"GPU {gpu.index}"
    reset = remedy(
        "with nothing running on it, reset it; else restart the machine",
        f"sudo nvidia-smi --gpu-reset -i {gpu.index}",
    )
    replace = remedy(
        "take it out of the job, run the vendor's diagnosis and have it replaced", "dcgmi diag -r 3"
    )
    if gpu.problem is not None:
        gone = re.search("(?i)lost|reset|restart", gpu.problem)
        yield "error" if gone else "warning", f"{what} does not answer: {gpu.problem}", (reset, replace)
        return
    rows = gpu.remapped_rows
    if rows is not None and rows.failed:
        yield "error", f"{what}: a row of its memory failed, and there is no spare one left", (replace,)
    errors = gpu.ecc_errors_volatile or 0
    plural = "s" if errors > 1 else ""
    count = f"{errors} ECC error{plural} that could not be corrected since the driver was loaded"
    if rows is not None and rows.pending:
        also = f", after {count}" if errors else ""
        yield "warning", f"{what}: failed rows of its memory wait for a reset to be replaced{also}", (reset,)
    elif errors:
        # Before the A100 (no rows to remap) a page that failed stays in use until the reset.
        yield "warning" if rows is not None else "error", f"{what}: {count}", (reset, replace)
    if gpu.retired_pages_pending:
        yield "warning", f"{what}: failed pages of its memory wait for a reset to be retired", (reset,)
    slowed = [it for it in gpu.throttle_reasons or () if it in _SLOWED]
    if slowed:
        why = "; ".join(dict.fromkeys(_SLOWED[it] for it in slowed))
        cool = remedy(
            "look at its temperature, power and fans", "nvidia-smi -q -d TEMPERATURE,POWER,PERFORMANCE"
        )
        yield "warning", f"{what} is slowed down now ({', '.join(slowed)}): {why}", (cool,)


# --- The kernel's log ---------------------------------------------------------------------------------


class _Xid(NamedTuple):
    severity: Severity
    said: str


def _xid_fixes(address: str) -> tuple[Fix, ...]:
    return (
        remedy("see what the kernel wrote, and when", "sudo dmesg --ctime | grep -i xid"),
        remedy("reset the GPU where that was not done since", f"sudo nvidia-smi --gpu-reset -i {address}.0"),
    )


def _xids(lines: Sequence[str]) -> dict[str, list[_Xid]]:
    """By PCI address: each number once, with how often it stands there. What a recovery ended is left out."""
    counted: dict[str, dict[int, int]] = {}
    actions: dict[str, str] = {}
    for line in lines:
        read = re.search(r"Xid \((?:PCI:)?([0-9A-Fa-f:]{7,16})[^)]*\): (\d{1,4})\b", line)
        if read is None:
            continue
        address, number = read[1].lower(), int(read[2])
        if number == _RECOVERY:
            action = re.search(r"to 0x\w+ \(([\w ]+)\)", line)
            actions[address] = action[1] if action else ""
            if actions[address] == "None":
                counted.pop(address, None)
        else:
            numbers = counted.setdefault(address, {})
            numbers[number] = numbers.get(number, 0) + 1
    return {
        address: [_meaning(number, times, actions.get(address, "")) for number, times in numbers.items()]
        for address, numbers in counted.items()
    }


def _meaning(number: int, times: int, action: str) -> _Xid:
    more = " or more" if times >= KEPT_OF_EACH_XID else ""
    often = f", {times} times{more}" if times > 1 else ""
    if number in _HARDWARE:
        wants = f" The driver says: {action}." if action and action != "None" else ""
        said = (
            f"the driver reported Xid {number} since the machine started{often}: {_HARDWARE[number]}.{wants}"
        )
        return _Xid("warning", said.rstrip("."))
    known = {**_PASSING, **_PROGRAMS}
    what = known.get(number, "see NVIDIA's catalogue for what it means")
    return _Xid("note", f"the driver reported Xid {number} since the machine started{often}: {what}")


def _addresses(gpus: Gpus, module: NvidiaModule | None, xids: Iterable[str]) -> dict[int, str]:
    """Where each GPU is on the bus, as the kernel's log has it: `0000:3b:00`, of NVML's `00000000:3B:00.0`.

    Of a lost GPU NVML does not tell it. GPUs are numbered along the bus, so the addresses that the driver or
    the log has beside the known ones are those of the lost GPUs, where there are as many."""
    known = {gpu.index: _short(gpu.pci_bus_id[-12:]) for gpu in gpus.gpus if gpu.pci_bus_id}
    lost = [gpu.index for gpu in gpus.gpus if not gpu.pci_bus_id]
    listed = {_short(line.partition(" ")[0]) for line in (module.gpus if module is not None else ())}
    left = sorted((listed | set(xids)) - set(known.values()))
    return {**known, **(dict(zip(lost, left)) if len(lost) == len(left) else {})}


def _short(address: str) -> str:
    return address.lower().partition(".")[0]


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(**settings: object) -> Gpus:
        name = "NVIDIA A100-SXM4-80GB"
        gpus = (
            Gpu(index=0, name=name, pci_bus_id="00000000:3B:00.0", **settings),  # type: ignore[arg-type]
            Gpu(index=1, name=name, pci_bus_id="00000000:D8:00.0"),
        )
        return Gpus(driver="580.65.06", gpus=gpus)

    def logged(*lines: str, problem: str | None = None) -> NvidiaModule:
        return NvidiaModule(version="580.65.06", xid_lines=lines, log_problem=problem)

    def rows(pending: bool = False, failed: bool = False) -> RemappedRows:
        return RemappedRows(correctable=0, uncorrectable=1, pending=pending, failed=failed)

    off_the_bus = (
        "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    )
    page_fault = (
        "NVRM: Xid (PCI:0000:d8:00): 31, pid=4242, name=python3, Ch 00000008, intr 00000000. MMU Fault"
    )
    what = "GPU 0 (NVIDIA A100-SXM4-80GB)"
    yield healthy(
        "errors of long ago, whose rows were replaced",
        case_of(node(ecc_errors_volatile=0, ecc_errors_aggregate=3, remapped_rows=rows()), logged()),
    )
    yield healthy(
        "slow because it is idle, or by the power limit",
        case_of(node(throttle_reasons=("gpu-idle", "sw-power-cap")), logged()),
    )
    yield healthy(
        "an Xid from which the driver recovered",
        case_of(
            node(),
            logged(
                off_the_bus,
                "NVRM: Xid (PCI:0000:3b:00): 154, GPU recovery action changed from 0x2 (Node Reboot Required)"
                " to 0x0 (None)",
            ),
        ),
    )
    lost = Gpus(driver="580.65.06", gpus=(Gpu(index=0, problem="GPU is lost"),))
    yield sick("one GPU is gone", case_of(lost), "error: GPU 0 does not answer: GPU is lost")
    yield sick(
        "one GPU is gone, and the log says why",
        case_of(lost, logged(off_the_bus)),
        "error: GPU 0 does not answer: GPU is lost; the driver reported Xid 79 since the machine started: the"
        " GPU fell off the bus",
    )
    hung = Gpus(driver="580.65.06", gpus=(Gpu(index=0, problem="GPU requires restart"),))
    yield sick("one has to be reset", case_of(hung), "error: GPU 0 does not answer: GPU requires restart")
    yield sick(
        "a memory row waits for its replacement",
        case_of(node(ecc_errors_volatile=2, remapped_rows=rows(pending=True))),
        f"warning: {what}: failed rows of its memory wait for a reset to be replaced, after 2 ECC errors that"
        " could not be corrected since the driver was loaded",
    )
    yield sick(
        "no spare row is left",
        case_of(node(remapped_rows=rows(failed=True))),
        f"error: {what}: a row of its memory failed, and there is no spare one left",
    )
    yield sick(
        "a GPU without row remapping",
        case_of(node(ecc_errors_volatile=1)),
        f"error: {what}: 1 ECC error that could not be corrected since the driver was loaded",
    )
    yield sick(
        "too hot",
        case_of(node(throttle_reasons=("hw-slowdown", "hw-thermal"))),
        f"warning: {what} is slowed down now (hw-thermal): it is too hot",
    )
    yield sick(
        "Xid messages of hardware and of programs",
        case_of(node(), logged(off_the_bus, page_fault, page_fault)),
        "warning: GPU 0: the driver reported Xid 79 since the machine started: the GPU fell off the bus",
        "note: GPU 1: the driver reported Xid 31 since the machine started, 2 times: a program touched memory"
        " that it has not",
    )
    yield sick(
        "the job does not use the sick one",
        case_of(node(remapped_rows=rows(failed=True)), Environment(variables={"CUDA_VISIBLE_DEVICES": "1"})),
        f"note: {what}: a row of its memory failed, and there is no spare one left",
    )
    yield cannot_tell("no GPU", case_of(Gpus(driver="580.65.06")), "there is no NVIDIA GPU here")
