"""The job asks for a GPU that it cannot see."""

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
    at,
    cannot_tell,
    case_of,
    healthy,
    remedy,
    sick,
)
from llm_doctor.fixes import environment
from llm_doctor.model import Environment, Finding, Gpu, Gpus, Severity, Subject
from llm_doctor.workload.data import Launch, Place, Script, Value, Workload

VARIABLE = "CUDA_VISIBLE_DEVICES"
HIDES_ALL = ("", "-1", "NoDevFiles")
"""`NoDevFiles` is what SLURM sets for a job that asked for no GPU."""


_NUMBER = re.compile(r"[+-]?\d+")


class VisibleDevicesWrong(Check):
    """The job asks for a GPU that it cannot see.

    ## What it finds

    `CUDA_VISIBLE_DEVICES`, as it is set where the doctor runs, and as launch lines and scripts of the
    workload set it, held against the GPUs of this node: empty, an index that does not exist, a GPU named
    twice, a UUID (of a GPU or a MIG device) that no GPU has or that two begin with, numbers that no comma
    separates (`0 1` is GPU 0). In a log: torch, CUDA,
    DeepSpeed, Lightning and vLLM that find no GPU, or fewer than the job names.

    ## Why it breaks

    CUDA_VISIBLE_DEVICES, the scheduler and the container decide which GPUs a process sees; it counts
    those from 0. CUDA says nothing of an entry that it does not know: it stops there, and the GPUs named
    behind it are hidden. Of an entry that begins with a number it reads the number and ignores the rest. A
    GPU that is named twice hides all of them. More processes than GPUs end in "invalid device ordinal".

    ## How it is proven

    By CUDA's rule and the driver's list of GPUs; there is nothing to try.

    ## Fix

    Start as many processes as there are visible GPUs, and let the variable name GPUs that exist.

    ## References

    - https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    - torch/cuda/__init__.py of torch 2.13.0, `_parse_visible_devices` (strtoul, repeated ids, UUIDs)
    - https://docs.nvidia.com/datacenter/tesla/mig-user-guide/ (MIG devices by UUID)
    - https://github.com/pytorch/pytorch/blob/main/c10/cuda/CUDAFunctions.cpp
    - https://github.com/XLabs-AI/x-flux/issues/44
    - https://github.com/vllm-project/vllm/issues/807
    """

    name = "visible-devices-wrong"
    topic = "driver-gpu"
    severity = "error"
    since = "0.1.0"
    needs = (Gpus,)
    url = "https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables"
    symptoms = (
        Symptom(
            pattern=r"No (?:CUDA|HIP) GPUs are available",
            example="RuntimeError: No CUDA GPUs are available",
            counter_example="CUDA GPUs available: 8",
            cause="torch sees a driver and no GPU: CUDA_VISIBLE_DEVICES is empty or wrong, or "
            "the job was given none",
            sure="likely",
        ),
        Symptom(
            pattern=r"(?:CUDA|HIP) error: invalid device ordinal",
            example="RuntimeError: CUDA error: invalid device ordinal",
            counter_example="CUDA error: invalid argument",
            cause="A process asks for a GPU of a number that does not exist: more processes than "
            "visible GPUs, or a fixed number",
        ),
        Symptom(
            pattern=r"invalid device ordinal",
            example="cuda runtime error (101) : invalid device ordinal at "
            "/pytorch/torch/csrc/cuda/Module.cpp:59",
            counter_example="invalid device function",
            cause="A process asks for a GPU of a number that does not exist: more processes than "
            "visible GPUs, or a fixed number",
        ),
        Symptom(
            pattern=r"device=(?P<device>[^\n,]{0,6}), num_gpus=(?P<count>[^\n]{0,6}?)(?=\W|$)",
            example="device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at "
            '"../aten/src/ATen/cuda/CUDAContext.cpp":49, please report a bug to PyTorch. '
            "device=1, num_gpus=1",
            counter_example="num_gpus=8",
            cause="A process asks for a GPU of a number that does not exist",
        ),
        Symptom(
            pattern=r"device >= 0 && device < num_gpus",
            example="RuntimeError: device >= 0 && device < num_gpus INTERNAL ASSERT FAILED at "
            '"../aten/src/ATen/cuda/CUDAContext.cpp":49',
            counter_example="device_count = num_gpus",
            cause="A process asks for a GPU of a number that does not exist",
        ),
        Symptom(
            pattern=r"AssertionError: Invalid device id",
            example="AssertionError: Invalid device id",
            counter_example="Invalid user id",
            cause="A GPU is asked for of a number that does not exist",
        ),
        Symptom(
            pattern=r"[Nn]o CUDA-capable device is detected",
            example="RuntimeError: CUDA error: no CUDA-capable device is detected",
            counter_example="all CUDA-capable devices are busy or unavailable",
            cause="CUDA sees a driver and no GPU: CUDA_VISIBLE_DEVICES is empty or wrong, or the "
            "job was given none",
            sure="likely",
        ),
        Symptom(
            pattern=r"CUDA_ERROR_INVALID_DEVICE\b|cudaErrorInvalidDevice\b",
            example="CUDA_ERROR_INVALID_DEVICE: invalid device ordinal",
            counter_example="CUDA_ERROR_INVALID_VALUE",
            cause="A GPU is asked for of a number that does not exist",
        ),
        Symptom(
            pattern=r"invalid literal for int\(\) with base 10: `(?P<uuid>(?:GPU|"
            r"MIG)-[\w/-]{1,60})",
            example="ValueError: invalid literal for int() with base 10: "
            "'MIG-4b2e1d5c-0f6a-5c11-9d0e-c2d3b1a0f7aa'",
            counter_example="ValueError: invalid literal for int() with base 10: 'abc'",
            cause="CUDA_VISIBLE_DEVICES holds the name {uuid}, and this library wants numbers",
            fixes=(
                remedy("name the GPUs by number", "export CUDA_VISIBLE_DEVICES=0", "environment"),
                remedy("with MIG: use a release of the library that takes names"),
            ),
        ),
        Symptom(
            pattern=r"You requested (?:gpu|GPUs?): \[(?P<asked>[\d, ]{1,40})\][^\n]{0,10} But "
            r"your machine only has: \[(?P<has>[\d, ]{0,40})\]",
            example="MisconfigurationException: You requested gpu: [0, 1]\n But your machine only has: [0]",
            counter_example="You requested GPUs",
            cause="GPUs {asked} are asked for, and the machine has {has}",
        ),
        Symptom(
            pattern=r"No slot `(?P<slot>\d{1,3})` specified on host",
            example="ValueError: No slot '8' specified on host 'localhost'",
            counter_example="worker-0 slots=8",
            cause="DeepSpeed was told to use GPU {slot}, which the hostfile or this machine does not have",
        ),
        Symptom(
            pattern=r"world size \((?P<asked>\d{1,5})\) is larger than the number of available "
            r"GPUs \((?P<has>\d{1,4})\)|required GPUs exceeds the total number of "
            r"available GPUs",
            example="ValueError: The number of required GPUs exceeds the total number of "
            "available GPUs in the placement group.",
            counter_example="World size is 8",
            cause="More GPUs are asked for than there are",
        ),
        Symptom(
            pattern=r"No GPU[s]? (?:found|detected|available)?[^\n]{0,20}CUDA_VISIBLE_DEVICES is "
            r"(?:set to )?empty|CUDA_VISIBLE_DEVICES is set to empty",
            example="RuntimeError: CUDA_VISIBLE_DEVICES is set to empty string, which means GPU "
            "support is disabled.",
            counter_example="CUDA_VISIBLE_DEVICES=0,1",
            cause="CUDA_VISIBLE_DEVICES is empty, which hides every GPU",
        ),
        Symptom(
            pattern=r"fp16 mixed precision requires a (?:GPU|device in)",
            example="ValueError: fp16 mixed precision requires a GPU (not 'cpu').",
            counter_example="fp16 mixed precision requires PyTorch >= 1.6",
            cause="float16 training is asked for, and torch sees no GPU",
            sure="likely",
        ),
        Symptom(
            pattern=r"can only be used on CUDA (?:devices|or)",
            example="ValueError: FP16 Mixed precision training with AMP or APEX (`--fp16`) and "
            "FP16 half precision evaluation (`--fp16_full_eval`) can only be used on "
            "CUDA devices.",
            counter_example="Flash attention can be used on CUDA devices",
            cause="Mixed precision is asked for, and torch sees no GPU",
            sure="likely",
        ),
    )
    remedies = (
        remedy(
            "see what the job sees",
            'echo "$CUDA_VISIBLE_DEVICES"; nvidia-smi -L; python -c "import torch; '
            'print(torch.cuda.device_count())"',
        ),
        remedy(
            "let the variable name GPUs that exist, before the program starts",
            "export CUDA_VISIBLE_DEVICES=0,1",
            "environment",
        ),
        remedy("start one process for each visible GPU", "torchrun --nproc_per_node=gpu train.py"),
        remedy(
            "under a scheduler or docker: ask for GPUs", "srun --gres=gpu:2 ... / docker run --gpus all ..."
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every value that a process of the job may get."""
        gpus = case.fact(Gpus)
        if not gpus.gpus:
            raise CannotTell("there is no NVIDIA GPU here")
        launches = case.workload.launches if case.workload is not None else ()
        for value in _of_workload(case):
            finding = _judged(str(value.constant), gpus, value)
            if finding is not None:
                yield Suspicion(finding)
        outer = _outer(case)
        if outer is not None and not (launches and all(VARIABLE in it.environment for it in launches)):
            finding = _judged(outer, gpus, None)
            if finding is not None:
                yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


class Seen(NamedTuple):
    """What CUDA makes of a value: the GPUs that it shows, whole or parts of them, and the entry that it stops
    at with the reason.

    `gpus` is None where an entry cannot be told from here."""

    gpus: tuple[int, ...] | None
    stops_at: str = ""
    because: str = ""


def seen(value: str, gpus: Gpus) -> Seen:
    """CUDA's rule: indices as strtoul reads them, or beginnings of UUIDs; it stops at the first that names no
    device, and shows nothing where one is named twice."""
    if value.strip() in HIDES_ALL:
        return Seen(())
    found: list[int | _Part] = []
    for entry in _entries(value):
        device = _device(entry, gpus)
        if device is None:
            return Seen(None)
        if isinstance(device, _Nothing):
            return Seen(_numbers(found), entry, device.because)
        if device in found:
            return Seen((), entry, "it names the same GPU again, and then CUDA shows none")
        found.append(device)
    return Seen(_numbers(found))


def _entries(value: str) -> list[str]:
    return [it.strip() for it in value.split(",")]


def job_gpus(case: Case) -> frozenset[int]:
    """The numbers of the GPUs that the job may use: all of them where it cannot be told."""
    gpus = case.fact(Gpus)
    everything = frozenset(gpu.index for gpu in gpus.gpus)
    outer = _outer(case)
    launches = case.workload.launches if case.workload is not None else ()
    values = [_text(it.environment[VARIABLE]) if VARIABLE in it.environment else outer for it in launches]
    found: set[int] = set()
    for value in values or [outer]:
        shown = seen(value, gpus).gpus if value is not None else None
        # CUDA counts from the fastest GPU on, NVML along the bus: of unlike GPUs the numbers may differ.
        if shown is None or (
            len({gpu.name for gpu in gpus.gpus}) > 1 and re.search(r"(^|,) *\d", value or "")
        ):
            return everything
        found.update(shown)
    return frozenset(found)


class _Nothing(NamedTuple):
    because: str


class _Part(NamedTuple):
    """A MIG device."""

    gpu: int
    uuid: str


def _device(entry: str, gpus: Gpus) -> int | _Part | _Nothing | None:
    """The number of the GPU, or the MIG device, that an entry names; None where unknown."""
    if entry.startswith("GPU-"):
        return _by_uuid(entry, gpus)
    if entry.startswith("MIG-"):
        return _by_mig_uuid(entry, gpus)
    number = _NUMBER.match(entry)
    if number is None:
        return _Nothing("it is neither a number nor a UUID")
    if not 0 <= int(number[0]) < len(gpus.gpus):
        last = len(gpus.gpus) - 1
        return _Nothing("this node has GPU 0 alone" if last == 0 else f"this node has GPUs 0 to {last}")
    return gpus.gpus[int(number[0])].index


def _by_uuid(entry: str, gpus: Gpus) -> int | _Nothing | None:
    named = [gpu.index for gpu in gpus.gpus if gpu.uuid and gpu.uuid.lower().startswith(entry.lower())]
    if len(named) > 1:
        return _Nothing(f"the UUIDs of GPUs {', '.join(map(str, named))} begin so")
    if named:
        return named[0]
    return _Nothing("no GPU has this UUID") if all(gpu.uuid for gpu in gpus.gpus) else None


def _by_mig_uuid(entry: str, gpus: Gpus) -> _Part | _Nothing | None:
    if any(gpu.problem for gpu in gpus.gpus):
        return None
    divided = [gpu for gpu in gpus.gpus if gpu.mig]
    if not divided:
        return _Nothing("no GPU is divided by MIG")
    if entry.startswith("MIG-GPU-") or any(gpu.mig_uuids is None for gpu in divided):
        return None  # the names of drivers before 470, or a driver that does not list them
    parts = [_Part(gpu.index, uuid) for gpu in divided for uuid in gpu.mig_uuids or ()]
    named = [part for part in parts if part.uuid.startswith(entry)]
    return named[0] if len(named) == 1 else _Nothing("no MIG device has this UUID" if not named else "two do")


def _numbers(found: list[int | _Part]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(it.gpu if isinstance(it, _Part) else it for it in found))


def _outer(case: Case) -> str | None:
    """Its value where the doctor runs; of an assumed node that says nothing."""
    variables = case.known(Environment)
    return variables.variables.get(VARIABLE) if variables is not None and not case.assumed else None


def _of_workload(case: Case) -> Iterator[Value]:
    """The known values that the workload sets, but for batch jobs, which run on another node."""
    variables = case.known(Environment)
    queued = variables is None or "SLURM_JOB_ID" not in variables.variables
    if case.workload is None:
        return
    given = [
        *(it.environment.get(VARIABLE) for it in case.workload.launches if not (it.job and queued)),
        *(it.environment.get(VARIABLE) for it in case.workload.scripts),
    ]
    for value in {it.place: it for it in given if it is not None}.values():
        if _text(value) is not None:
            yield value


def _text(value: Value) -> str | None:
    constant = value.constant
    return str(constant) if isinstance(constant, (str, int)) and not isinstance(constant, bool) else None


def _listed(gpus: Sequence[int]) -> str:
    """`GPU 0`, or `GPUs 0, 1 and 2`."""
    *first, last = map(str, gpus)
    return f"GPUs {', '.join(first)} and {last}" if first else f"GPU {last}"


def _judged(text: str, gpus: Gpus, value: Value | None) -> Finding | None:
    shown = seen(text, gpus)
    count = "the GPU" if len(gpus.gpus) == 1 else f"all {len(gpus.gpus)} GPUs"
    if text.strip() in HIDES_ALL:
        # Who writes that into a launch line means it.
        severity: Severity = "warning" if value is None else "note"
        message = f"{VARIABLE} is {text.strip() or 'empty'}: it hides {count} of this node from CUDA"
    elif not shown.stops_at:
        cut = [(entry, it[0]) for entry in _entries(text) for it in [_NUMBER.match(entry)] if it]
        cut = [(entry, number) for entry, number in cut if entry != number]
        if not (cut and shown.gpus):
            return None
        read = " and ".join(f"{entry!r} as {number}" for entry, number in cut)
        severity = "warning"
        message = f"{VARIABLE}={text}: CUDA reads {read}, so it sees only {_listed(shown.gpus)}"
    else:
        severity = "error" if shown.gpus == () else "warning"
        sees = "stops there"
        if shown.gpus is not None:
            a_part = "a part of " if text.startswith("MIG-") else ""
            sees = f"sees only {a_part}{_listed(shown.gpus)}" if shown.gpus else "sees no GPU"
        message = f"{VARIABLE}={text}: {shown.stops_at!r} is no device ({shown.because}), so CUDA {sees}"
        if shown.because.startswith("it names"):
            message = f"{VARIABLE}={text}: {shown.stops_at!r} stands there twice, and then CUDA shows no GPU"
    there = ",".join(str(gpu.index) for gpu in gpus.gpus if gpu.problem is None)
    return Finding(
        severity=severity,
        confidence="certain",
        message=message,
        subject=at(value.place, "launch") if value is not None else Subject(kind="variable"),
        evidence={"value": text, "gpus": len(gpus.gpus)},
        fixes=(environment.export("name GPUs that are here", {VARIABLE: there}, safe=False),)
        if there
        else (),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    def node(count: int, **settings: object) -> Gpus:
        name = "NVIDIA A100-SXM4-80GB"
        gpus = [Gpu(index=n, name=name, uuid=f"GPU-{n}{n}aa-1", **settings) for n in range(count)]  # type: ignore[arg-type]
        return Gpus(driver="580.65.06", gpus=tuple(gpus))

    def case(value: str | None, gpus: Gpus) -> Case:
        return case_of(gpus, Environment(variables={VARIABLE: value} if value is not None else {}))

    def launched(value: str, gpus: Gpus) -> Case:
        place = Place("train.sh", 3)
        launch = Launch(place, "torchrun", environment={VARIABLE: Value(value, place)})
        return Case(
            facts=case(None, gpus).facts,
            workload=Workload(files=("train.sh",), launches=(launch,), scripts=(Script(path="train.py"),)),
        )

    divided = node(1, mig=True, mig_uuids=("MIG-5c89-1", "MIG-77ab-2"))
    yield healthy("not set", case(None, node(8)))
    yield healthy("two of eight, by number and by UUID", case("3, GPU-55aa", node(8)))
    yield healthy("a MIG device", case("MIG-77ab", divided))
    yield sick(
        "an index that does not exist",
        case("0,1,8", node(8)),
        "warning: CUDA_VISIBLE_DEVICES=0,1,8: '8' is no device (this node has GPUs 0 to 7), so CUDA sees"
        " only GPUs 0 and 1",
    )
    yield sick(
        "numbers that no comma separates",
        case("0 1", node(8)),
        "warning: CUDA_VISIBLE_DEVICES=0 1: CUDA reads '0 1' as 0, so it sees only GPU 0",
    )
    yield sick(
        "numbers of another node",
        case("4,5", node(4)),
        "error: CUDA_VISIBLE_DEVICES=4,5: '4' is no device (this node has GPUs 0 to 3), so CUDA sees no GPU",
    )
    yield sick(
        "a GPU that is named twice",
        launched("0,0", node(2)),
        "error: CUDA_VISIBLE_DEVICES=0,0: '0' stands there twice, and then CUDA shows no GPU",
    )
    yield sick(
        "a UUID of another node",
        case("GPU-99ff", node(2)),
        "error: CUDA_VISIBLE_DEVICES=GPU-99ff: 'GPU-99ff' is no device (no GPU has this UUID), so CUDA sees"
        " no GPU",
    )
    yield sick(
        "a MIG device that is gone",
        case("MIG-0000", divided),
        "error: CUDA_VISIBLE_DEVICES=MIG-0000: 'MIG-0000' is no device (no MIG device has this UUID), so CUDA"
        " sees no GPU",
    )
    yield sick(
        "set, but to nothing",
        case("", node(8)),
        "warning: CUDA_VISIBLE_DEVICES is empty: it hides all 8 GPUs of this node from CUDA",
    )
    yield sick(
        "a launch line that wants the CPU",
        launched("-1", node(1)),
        "note: CUDA_VISIBLE_DEVICES is -1: it hides the GPU of this node from CUDA",
    )
    yield cannot_tell("no GPU", case("0", Gpus(driver="580.65.06")), "there is no NVIDIA GPU here")
