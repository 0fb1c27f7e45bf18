"""DeepSpeed is to offload to an NVMe path that is not there, not writable, too small or on a network."""

from __future__ import annotations

from typing import Any, Iterable, Iterator

import msgspec

from llm_doctor.check import (
    Asked,
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
from llm_doctor.model import Confidence, Finding, Fix, Mount, Mounts, Packages, Severity
from llm_doctor.units import gib
from llm_doctor.workload import deepspeed
from llm_doctor.workload.data import Config, PathState, Place, Value, Workload
from llm_doctor.workload.paths import OFFLOAD_SECTIONS

DS_REPORT = Question(name="ds-report", imports=("torch", "deepspeed"), needs_imports=False, limit_s=60)
SMALL_BYTES = 20 << 30
"""The optimizer's state takes 12 bytes a parameter: this holds that of a model of 1.8 billion."""


class DeepspeedOffloadPath(Check):
    """DeepSpeed is to offload to an NVMe path that is not there, not writable, too small or on a network.

    ## What it finds

    `offload_param` and `offload_optimizer` with the device `nvme` and no `nvme_path`; a path that does
    not exist or cannot be written to, that has no room worth the name, or that is in memory or on a
    network file system; and a node where DeepSpeed's asynchronous input and output cannot be built,
    because libaio is not there.

    ## Why it breaks

    Without a path DeepSpeed asserts, or joins a path to nothing. A path that is not there is made, on
    whatever file system its parent is: as a user an error, as root in a container the overlay that was
    not meant. The optimizer's state takes 12 bytes a parameter, all of them read and written at every
    step, for which a network is too slow.

    ## How it is proven

    The paths, mounts and DeepSpeed's own `ds_report` of this node are read; nothing is written there.

    ## Fix

    A folder on a local NVMe disk, and `apt install libaio-dev`; or the device `cpu`.

    ## References

    - deepspeed/runtime/swap_tensor/partitioned_param_swapper.py, runtime/zero/stage3.py (0.19.8)
    - deepspeed/ops/op_builder/async_io.py (0.19.8)
    - https://www.deepspeed.ai/docs/config-json/#parameter-offloading
    """

    name = "deepspeed-offload-path"
    topic = "deepspeed-config"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    questions = (DS_REPORT,)
    url = "https://www.deepspeed.ai/docs/config-json/#parameter-offloading"
    symptoms = (
        Symptom(
            pattern=r"`nvme_path` in DeepSpeed Config cannot be None",
            example='AssertionError: "nvme_path" in DeepSpeed Config cannot be None if remote device is nvme',
            counter_example="the nvme_path of the DeepSpeed config is /local_nvme",
            cause="DeepSpeed is to offload to NVMe and no nvme_path says where",
        ),
        Symptom(
            pattern=r"(?P<why>Permission denied|No such file or directory|Read-only file system):"
            r" `(?P<path>[^'\"\n]{1,200}zero_stage_3[^'\"\n]{0,100})",
            example="PermissionError: [Errno 13] Permission denied: '/local_nvme/zero_stage_3'",
            counter_example="PermissionError: [Errno 13] Permission denied: '/data/output'",
            cause="The NVMe path that DeepSpeed is to offload to cannot be used: {path}: {why}",
        ),
        Symptom(
            pattern=r"`offload_param` must be defined in DeepSpeed Config if remote device is",
            example='AssertionError: "offload_param" must be defined in DeepSpeed Config if remote device is'
            " nvme.",
            counter_example='"offload_param" is defined in the DeepSpeed config',
            cause="DeepSpeed is to offload parameters to NVMe and offload_param does not say where",
        ),
        Symptom(
            pattern=r"Not enough buffers \d{1,9} for swapping \d{1,9}",
            example="AssertionError: Not enough buffers 5 for swapping 8",
            counter_example="Not enough buffers to read",
            cause="DeepSpeed's offloading to NVMe has fewer buffers than one layer has parameters",
            fixes=(
                remedy(
                    "give it more",
                    '"offload_param": {{"device": "nvme", "nvme_path": "/local_nvme", "buffer_count": 10}}',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"More elements \d{1,12} than buffer size \d{1,12}",
            example="AssertionError: More elements 525336576 than buffer size 100000000",
            counter_example="buffer size 100000000",
            cause="A parameter is larger than the buffers of DeepSpeed's offloading to NVMe",
            fixes=(
                remedy(
                    "make a buffer at least as large as the largest parameter (often the embedding)",
                    '"offload_param": {{"device": "nvme", "nvme_path": "/local_nvme", "buffer_size": 1e9}}',
                    "config",
                ),
            ),
        ),
        Symptom(
            pattern=r"(Unable to JIT load the |Error building extension `)async_io",
            example="RuntimeError: Unable to JIT load the async_io op due to it not being compatible due to"
            " hardware/software issue.",
            counter_example="async_io ............... [NO] ....... [OKAY]",
            standing="hint",
            cause="Offloading to NVMe needs libaio, which is not there to compile DeepSpeed's async_io with",
            fixes=(
                remedy("install its headers", "apt-get install libaio-dev"),
                remedy("offload to the CPU", '"offload_param": {{"device": "cpu"}}', "config"),
            ),
        ),
    )
    remedies = (
        remedy(
            "name a local NVMe folder that every rank may write to",
            '"offload_param": {{"device": "nvme", "nvme_path": "/local_nvme"}}',
            "config",
        ),
        remedy("offload to the CPU's memory", '"offload_param": {{"device": "cpu"}}', "config"),
    )

    def asks(self, case: Case) -> Iterable[Asked]:
        """Nothing where nothing goes to NVMe."""
        wanted = case.workload is not None and any(
            _sections(config) for config in case.workload.configs_of("deepspeed")
        )
        return super().asks(case) if wanted else ()

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every section that offloads to NVMe."""
        for config in deepspeed.configs(case):
            for section, device in _sections(config):
                path = config.get("zero_optimization", section, "nvme_path")
                if path is None or path.constant is None:
                    message = f'{section} goes to "nvme" and has no nvme_path'
                    yield _suspicion("error", "certain", message, device.place, _elsewhere(section))
                elif type(path.constant) is str and case.workload is not None:
                    state = case.workload.paths.get(path.constant)
                    if state is not None:
                        yield from _judge(case, section, path, state)
                yield from _aio(case, section, device)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _sections(config: Config) -> list[tuple[str, Value]]:
    found = []
    for section in OFFLOAD_SECTIONS:
        device = config.get("zero_optimization", section, "device")
        if device is not None and device.constant == "nvme":
            found.append((section, device))
    return found


def _judge(case: Case, section: str, path: Value, state: PathState) -> Iterator[Suspicion]:
    where = f"nvme_path {path.constant} of {section}"
    # Another machine is assumed: what is here says little of it.
    confidence: Confidence = "likely" if case.assumed else "certain"
    if state.problem:
        yield _suspicion("warning", confidence, f"{where}: {state.problem}", path.place)
        return
    if not state.exists and (case.assumed or state.writable is not True):
        message = f"{where} does not exist" + ("" if state.writable else ", and cannot be made here")
        severity: Severity = "warning" if case.assumed else "error"
        yield _suspicion(severity, confidence, message, path.place, _elsewhere(section))
        return
    if not state.exists:
        message = f"{where} does not exist: DeepSpeed would make it in {state.nearest}, whatever disk that is"
        yield _suspicion("warning", confidence, message, path.place)
    elif state.writable is False:
        yield _suspicion("error", confidence, f"{where} cannot be written to", path.place)
        return
    mounts = case.known(Mounts)
    mount = mounts.of(state.nearest) if mounts and state.nearest and not case.assumed else None
    if mount is not None and mount.kind in ("network", "memory"):
        kind = "a network file system" if mount.kind == "network" else "in memory"
        message = f"{where} is on {kind} ({mount.filesystem} at {mount.path}), not on an NVMe disk"
        yield _suspicion("warning", confidence, message, path.place)
    if state.free_bytes is not None and state.free_bytes < SMALL_BYTES and not case.assumed:
        message = (
            f"{where} has {gib(state.free_bytes)} free: the optimizer's state takes 12 bytes a parameter"
        )
        yield _suspicion("warning", "likely", message, path.place)


def _aio(case: Case, section: str, device: Value) -> Iterator[Suspicion]:
    report = str(case.answer(DS_REPORT).get("text", ""))
    if deepspeed.op_is_compatible(report, "async_io") is False:
        message = f"{section} goes to NVMe, and ds_report says that async_io cannot be built"
        told = " (libaio was not found)" if "libaio" in report else ""
        fix = Fix(
            title="install libaio's headers",
            kind="command",
            applicability="manual",
            preview="apt-get install libaio-dev",
        )
        yield _suspicion("error", "certain", message + told, device.place, fix)


def _elsewhere(section: str) -> Fix:
    return Fix(
        title="name a folder on a local NVMe disk, or offload to the CPU",
        kind="advice",
        applicability="manual",
        preview=f'"{section}": {{"device": "nvme", "nvme_path": "/path/on/a/local/disk"}}',
    )


def _suspicion(
    severity: Severity, confidence: Confidence, message: str, place: Place, *fixes: Fix
) -> Suspicion:
    return Suspicion(
        Finding(
            severity=severity,
            confidence=confidence,
            message=message,
            subject=deepspeed.at(place),
            fixes=fixes,
        )
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    text = (
        '{"train_batch_size": 8, "zero_optimization": {"stage": 3,\n'
        ' "offload_optimizer": {"device": "nvme", "nvme_path": "/nvme"}}}'
    )

    def with_path(state: PathState, *facts: object, **answers: Any) -> Case:
        case = deepspeed.example(text, *facts, **answers)
        assert case.workload is not None
        workload = msgspec.structs.replace(case.workload, paths={"/nvme": state})
        return msgspec.structs.replace(case, workload=workload)

    def mounted(filesystem: str, kind: str) -> Mounts:
        mount = msgspec.convert(
            {"path": "/nvme", "filesystem": filesystem, "device": "x", "kind": kind, "read_only": False},
            Mount,
        )
        return Mounts(mounts=(mount,))

    there = PathState(exists=True, nearest="/nvme", writable=True, free_bytes=900 << 30)
    yield healthy("a folder on a local disk", with_path(there, mounted("xfs", "local")))
    yield sick(
        "no path",
        deepspeed.example(
            '{"train_batch_size": 8, "zero_optimization": {"stage": 3, "offload_param": {"device": "nvme"}}}'
        ),
        'error: offload_param goes to "nvme" and has no nvme_path',
    )
    yield sick(
        "a path that is not there",
        with_path(PathState(exists=False, nearest="/", writable=False)),
        "error: nvme_path /nvme of offload_optimizer does not exist, and cannot be made here",
    )
    yield sick(
        "a small network file system",
        with_path(there._replace(free_bytes=5 << 30), mounted("nfs4", "network")),
        "warning: nvme_path /nvme of offload_optimizer is on a network file system (nfs4 at /nvme), not on an"
        " NVMe disk",
        "warning: nvme_path /nvme of offload_optimizer has 5 GiB free: the optimizer's state takes 12"
        " bytes a"
        " parameter",
    )
    yield sick(
        "no libaio",
        with_path(
            there,
            Packages(installed={"deepspeed": "0.19.8"}, modules={}),
            ds_report={"text": "async_io requires the dev libaio .so object\nasync_io .... [NO] .... [NO]"},
        ),
        "error: offload_optimizer goes to NVMe, and ds_report says that async_io cannot be built (libaio"
        " was not"
        " found)",
    )
    yield cannot_tell(
        "no configuration",
        msgspec.structs.replace(case_of(), workload=Workload()),
        deepspeed.NO_CONFIG,
    )
