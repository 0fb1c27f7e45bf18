"""Times drawing a large report in every format: 8 GPUs, 300 packages, 200 findings.

.venv/bin/python docs/reports.py            a table of Markdown
.venv/bin/python docs/reports.py FILE       keeps that report too, for `llm-doctor show`
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from pathlib import Path

import msgspec

from llm_doctor import formats, registry
from llm_doctor.check import facts_of
from llm_doctor.model import (
    SCHEMA,
    Answer,
    Arm,
    CheckResult,
    Doctor,
    Edit,
    Environment,
    Finding,
    Fix,
    Gpu,
    GpuProcess,
    Gpus,
    Limit,
    Limits,
    Memory,
    Mount,
    Mounts,
    Packages,
    Patient,
    Proof,
    RemappedRows,
    Report,
    Subject,
    System,
    TorchBuild,
    TrialCase,
    TrialResult,
)

ROUNDS = 7
WANTED_S = 0.15
GIB = 1 << 30
SEVERITIES = ("error", "warning", "note", "warning")


def report() -> Report:
    """What a node of eight GPUs and a job of a hundred scripts could come to, where nearly all goes wrong."""
    checks = [entry for entry in registry.registered() if entry.check is not None]
    findings = [_finding(number) for number in range(200)]
    results = [
        CheckResult(
            name=entry.name,
            topic=entry.check.topic if entry.check else "",
            outcome="findings" if findings[number :: len(checks)] else "pass",
            seconds=0.25,
            trials=_trials(entry.name) if number % 3 == 0 else (),
            findings=tuple(findings[number :: len(checks)]),
        )
        for number, entry in enumerate(checks)
    ]
    files = [f"src/train_{number}.py" for number in range(100)]
    return Report(
        schema=SCHEMA,
        doctor=Doctor(version="0.1.0"),
        started="2026-11-21T08:00:00Z",
        seconds=61.2,
        verdict="fail",
        exit_code=1,
        patient=Patient(python="~/env/bin/python", version="3.11.7", chosen_by="$VIRTUAL_ENV"),
        facts=facts_of(
            System(os="Ubuntu 24.04 LTS", kernel="6.8.0", machine="x86_64", container="docker"),
            Gpus(driver="580.95.05", driver_cuda="13.0", gpus=tuple(map(_gpu, range(8)))),
            Packages(
                installed={f"package-{number}": f"1.{number}.0" for number in range(300)},
                modules={f"module_{number}": f"~/env/lib/module_{number}.py" for number in range(30)},
            ),
            TorchBuild(version="2.9.0+cu128", cuda="12.8", kind="cuda"),
            Memory(total_bytes=2048 * GIB, available_bytes=1900 * GIB, cgroup_limit_bytes=1024 * GIB),
            Limits(locked_memory_bytes=Limit(), open_files=Limit(soft=1024), processes=Limit(soft=9, hard=9)),
            Mounts(mounts=tuple(map(_mount, range(30)))),
            Environment(variables={f"NCCL_VARIABLE_{number}": "1" for number in range(30)}),
        ),
        answers={
            f"question-{number}": Answer(
                status="ok", source="torch", seconds=0.1, value={f"field_{n}": n for n in range(20)}
            )
            for number in range(10)
        },
        checks=tuple(results),
        workload={"files": files, "launches": [], "problems": []},
    )


def _gpu(index: int) -> Gpu:
    return Gpu(
        index=index,
        name="NVIDIA H100 80GB HBM3",
        uuid=f"<gpu-{index}>",
        pci_bus_id=f"00000000:{index:02X}:00.0",
        compute_capability=(9, 0),
        memory_total_bytes=80 * GIB,
        memory_free_bytes=(79 - index) * GIB,
        processes=tuple(GpuProcess(pid=pid, memory_bytes=GIB) for pid in range(4)),
        compute_mode="default",
        persistence=True,
        mig=False,
        ecc=True,
        ecc_errors_volatile=0,
        ecc_errors_aggregate=2,
        remapped_rows=RemappedRows(correctable=0, uncorrectable=1, pending=False, failed=False),
        throttle_reasons=("sw-power-cap",),
        pcie_generation=5,
        pcie_generation_max=5,
        pcie_width=16,
        pcie_width_max=16,
        nvlinks_active=18,
        nvlinks_inactive=0,
    )


def _mount(number: int) -> Mount:
    return Mount(
        path=f"/data/{number}",
        filesystem="ext4",
        device=f"/dev/nvme{number}n1",
        kind="local",
        read_only=False,
        writable=True,
        total_bytes=4000 * GIB,
        free_bytes=number * 50 * GIB,
        inodes=10**8,
        inodes_free=10**7,
    )


def _trials(check: str) -> tuple[TrialResult, ...]:
    return tuple(
        TrialResult(
            name=check,
            device=f"cuda:{device}",
            status="reproduced",
            seconds=0.4,
            cases=tuple(map(_case, range(4))),
        )
        for device in range(8)
    )


def _case(number: int) -> TrialCase:
    return TrialCase(
        combination={"order": "after-wrapping", "use_reentrant": True, "number": number},
        status="reproduced",
        broken=Arm(outcome="raised", seconds=0.1, error="RuntimeError: element 0 does not require grad"),
        fixed=Arm(outcome="passed", seconds=0.1, measured={"parameter_bytes": number * GIB}),
    )


def _finding(number: int) -> Finding:
    place = Subject(
        kind="script", path=f"src/train_{number % 100}.py", line=number + 1, column=5, end_column=30
    )
    edit = Edit(action="rename-keyword", path=f"src/train_{number % 100}.py", line=number + 1, name="a")
    proof = Proof(trial="lora-without-input-grads", status="reproduced", case=_case(number))
    return Finding(
        severity=SEVERITIES[number % 4],  # type: ignore[arg-type]
        confidence="proven" if number % 2 else "certain",
        message=f"evaluation_strategy= is not taken by TrainingArguments in transformers 5.{number}.0: use "
        "eval_strategy; the node has 31.7 GiB | of <memory>, and the job asks for `63.4 GiB`",
        subject=place if number % 4 else Subject(kind="gpu", gpu=number % 8),
        evidence={"wanted_bytes": number * GIB, "free_bytes": GIB, "from": {"a": 1, "b": [1, 2, 3]}},
        proof=proof if number % 2 else None,
        fixes=(
            Fix(
                title="use eval_strategy=",
                kind="edit",
                applicability="safe",
                preview="TrainingArguments(\n    eval_strategy=...,\n)",
                verified=True,
                edits=(edit,),
            ),
            Fix(title="ask", kind="advice", applicability="manual", preview=f"# number {number}"),
        ),
        url="https://huggingface.co/docs/transformers",
    )


def main() -> None:
    """Draws it in each format, the first time and seven times more. Processor time: it waits for nothing."""
    large = report()
    if sys.argv[1:]:
        Path(sys.argv[1]).write_bytes(msgspec.json.encode(large))
    gc.disable()  # as the program does
    print("| format | median, ms | the first time, ms | kB |")
    print("| --- | ---: | ---: | ---: |")
    slow = []
    for name, verbose in [("text", True), *((name, False) for name in formats.FORMATS)]:
        title = f"{name} --verbose" if verbose else name
        seconds = []
        for _ in range(1 + ROUNDS):
            began = time.process_time()
            text = formats.renderer(name, width=100, color=True, verbose=verbose)(large)
            seconds.append(time.process_time() - began)
        median = statistics.median(seconds[1:])
        print(f"| {title} | {median * 1e3:.0f} | {seconds[0] * 1e3:.0f} | {len(text.encode()) / 1e3:,.0f} |")
        slow += [title] if median > WANTED_S else []
    print(f"\nto reach: {WANTED_S * 1e3:.0f} ms; slower: {', '.join(slow) or 'none'}")


if __name__ == "__main__":
    main()
