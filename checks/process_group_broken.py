"""Processes of this node cannot add up a tensor between them: a job of several fails or hangs."""

from __future__ import annotations

import re
from typing import Any, Iterable, Iterator, Sequence

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    Trial,
    TrialRequest,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.fixes import environment
from llm_doctor.host import PATIENT_CODE
from llm_doctor.model import (
    Arm,
    Environment,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Mounts,
    Packages,
    Proof,
    ProofStatus,
    Severity,
    Subject,
    TorchBuild,
    TrialCase,
    TrialResult,
)
from llm_doctor.places import Place, places
from llm_doctor.workload.data import Workload

GLOO = Trial(name="process-group-broken", imports=("torch",), limit_s=60)
NCCL = Trial(
    name="nccl-all-reduce",
    imports=("torch",),
    file=str(PATIENT_CODE / "trials" / "process_group_broken.py"),
    limit_s=150,
    on_gpu=True,
    gpu_only=True,
)
_CAN_BREAK_NCCL = re.compile(r"(TORCH_)?NCCL_(?!DEBUG|VERSION$)")
"""NCCL_VERSION is what NVIDIA's images say of themselves."""
_NO_FAULT_OF_THE_NODE = re.compile(
    r"used more than \d+ GiB of memory|rank \d+ in [^:]+: (AttributeError|ImportError|ModuleNotFoundError): "
)
"""A limit of ours, and a torch that lacks a part of itself: nothing was tried between processes."""
_ONE_PROCESS = ("exclusive-process", "exclusive-thread")
_SMALL_SHM = 64 << 20
"""What Docker and Kubernetes give a container that asks for nothing."""


class ProcessGroupBroken(Check):
    """Processes of this node cannot add up a tensor between them: a job of several fails or hangs.

    ## What it finds

    An all-reduce between two processes that fails or does not end: over gloo at the loopback address, and at
    the node's own name, as torchrun's processes meet; over NCCL on two idle GPUs (on one, by a single rank)
    where something here could break it (NCCL's variables are set, /dev/shm is small), where the workload
    starts several processes, or with `--deep`; not on GPUs that let in one process, which the doctor's other
    trials hold. And, as far as it can be seen, the reason: a variable that
    names no interface, a name that does not resolve or is another machine's, connections that are dropped, a
    full /dev/shm, NCCL's own warning.

    ## Why it breaks

    Data-parallel training begins with a meeting at rank 0's store and an all-reduce. What stands in its way,
    a firewall, a container without the right interface, a host name that nobody knows, mostly shows as a job
    that hangs at its start, until a time limit of 10 to 30 minutes ends it.

    ## How it is proven

    By doing it: the ranks make a store, a process group and an all-reduce of 4 MiB in the patient, within 8 s
    (NCCL: 25 s), and say which step they are in. In the fixed arm none of the backend's variables is set, the
    ranks meet at 127.0.0.1, and remedies are tried in turn: the loopback interface; for NCCL then no peer
    access, and no shared memory.

    ## Fix

    Unset the variable, or set it to an interface that is there; give the node's name an address in
    /etc/hosts; for torchrun, `--master_addr 127.0.0.1`.

    ## References

    - torch/csrc/distributed/c10d/ProcessGroupGloo.cpp (createDefaultDevice: the host's name, else loopback)
    - torch/distributed/elastic/agent/server/api.py (`_get_fq_hostname`)
    - https://pytorch.org/docs/stable/distributed.html#common-environment-variables
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html
    """

    name = "process-group-broken"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    needs = (Packages,)
    trials = (GLOO, NCCL)
    url = "https://pytorch.org/docs/stable/distributed.html#common-environment-variables"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Nothing is suspected of gloo: it costs a tenth of a second to try."""
        if "torch" not in case.fact(Packages).installed:
            raise CannotTell("torch is not installed")
        if case.workload is not None and not several_processes(case.workload):
            raise CannotTell("nothing in the workload starts several processes on a node")
        own_name = "error" if case.workload is not None and _by_torchrun(case.workload) else "warning"
        finding = Finding(
            severity="error",
            confidence="certain",
            message="processes of this node cannot work together",
            subject=Subject(kind="node"),
            evidence={"own_name": own_name},
        )
        yield Suspicion(finding, (TrialRequest(GLOO, {"backend": "gloo"}),))
        gpus = _gpus_to_try(case)
        if gpus:
            yield Suspicion(finding, (TrialRequest(NCCL, {"backend": "nccl", "gpus": gpus}),))

    def conclude(self, finding: Finding, results: tuple[TrialResult, ...]) -> Iterator[Finding]:
        """An all-reduce that failed is told whether or not a remedy was found; of several the first one."""
        for result in results:
            for case in result.cases:
                arm = case.broken
                if arm is None or arm.outcome not in ("failed", "killed", "timeout"):
                    continue
                if _NO_FAULT_OF_THE_NODE.match(arm.error or ""):
                    continue
                yield _told(finding, result, case, arm)
                break

    def remark(self, case: Case, results: Sequence[TrialResult]) -> str | None:
        """Why NCCL was left out where there was a reason to try it."""
        found = _idle_gpus(case)
        if found and not _gpus_to_try(case):
            return (
                f"NCCL was not tried: GPU {', '.join(str(it.gpu) for it in found)} in compute mode"
                " exclusive-process, where the doctor's other trials are the one process"
            )
        return None

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def several_processes(workload: Workload) -> bool:
    """Whether a launch starts several processes on a node, or may."""
    launchers = ("torchrun", "deepspeed", "accelerate", "mpirun", "srun")
    return any(
        launch.processes_per_node != 1 and (launch.processes_per_node or set(launchers) & set(launch.chain))
        for launch in workload.launches
    )


def _by_torchrun(workload: Workload) -> bool:
    return any("torchrun" in launch.chain for launch in workload.launches)


def _gpus_to_try(case: Case) -> list[str]:
    """The UUIDs of two idle GPUs, or one, where there is a reason to try NCCL.

    Its ranks are processes beside the doctor's lanes, which keep their contexts."""
    gpus = case.known(Gpus)
    alone = {gpu.index for gpu in gpus.gpus if gpu.compute_mode in _ONE_PROCESS} if gpus else set()
    return [place.uuid for place in _idle_gpus(case) if place.gpu not in alone][:2]


def _idle_gpus(case: Case) -> Sequence[Place]:
    """Idle GPUs, where there is a reason to try NCCL: it takes some seconds."""
    gpus, torch = case.known(Gpus), case.known(TorchBuild)
    if gpus is None or torch is None or torch.kind != "cuda":
        return []
    environment, mounts = case.known(Environment), case.known(Mounts)
    variables = environment.variables if environment is not None else {}
    shm = mounts.of("/dev/shm") if mounts is not None else None
    risky = any(map(_CAN_BREAK_NCCL.match, variables))
    small = shm is not None and shm.free_bytes is not None and shm.free_bytes <= _SMALL_SHM
    if not (risky or small or case.deep or case.workload is not None):
        return []
    return places(gpus, variables.get("CUDA_VISIBLE_DEVICES")).idle


def _told(finding: Finding, result: TrialResult, case: TrialCase, arm: Arm) -> Finding:
    over = {"gloo": "gloo", "nccl": "NCCL"}[case.combination["backend"]]
    by_name = case.combination["meeting"] == "own-name"
    ranks = case.combination["ranks"]
    what = "an all-reduce of one rank" if ranks == 1 else f"an all-reduce of {ranks} processes"
    how = " that meet at the node's own name, as torchrun's do," if by_name else ""
    error = str(arm.error).strip().partition("\n")[0][:300]
    reason = arm.measured.get("reason")
    severity: Severity = finding.evidence["own_name"] if by_name else finding.severity
    return msgspec.structs.replace(
        finding,
        severity=severity,
        confidence="proven" if case.status == "reproduced" else "certain",
        message=f"{what} over {over}{how} fails: {reason or error}",
        evidence={"combination": case.combination, "device": result.device, **arm.measured},
        proof=Proof(trial=result.name, status=case.status, case=case),
        fixes=tuple(_fixes(case, by_name)),
    )


def _fixes(case: TrialCase, by_name: bool) -> Iterator[Fix]:
    passed = case.fixed is not None and case.fixed.outcome == "passed"
    measured: dict[str, Any] = case.fixed.measured if case.fixed is not None else {}
    if not passed:
        return
    if by_name:
        yield Fix(
            title="let the node's name mean the node itself",
            kind="command",
            applicability="manual",
            preview='echo "127.0.0.1 $(hostname)" | sudo tee -a /etc/hosts',
        )
        yield Fix(
            title="meet at the loopback address",
            kind="command",
            applicability="manual",
            preview="torchrun --master_addr 127.0.0.1 --master_port 29501 ...",
            verified=True,
        )
        return
    unset = measured.get("without") or []
    if unset:
        yield Fix(
            title="take the variables away that are set",
            kind="environment",
            applicability="manual",
            preview=f"unset {' '.join(unset)}",
        )
    remedy = measured.get("remedy")
    if remedy:
        # What makes one node work on its loopback keeps two nodes apart.
        fix = environment.export("on this node alone: so it works", remedy, safe=False, verified=True)
        gone = [name for name in unset if name not in remedy]
        # Seen to work is what the fixed arm did, and it took the variables away as well.
        lines = [f"unset {' '.join(gone)}"] if gone else []
        yield msgspec.structs.replace(fix, preview="\n".join([*lines, fix.preview]))


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    stack = Packages(installed={"torch": "2.6.0"}, modules={})

    def tried(
        broken: Arm, status: ProofStatus, meeting: str = "loopback", backend: str = "gloo", **fixed: Any
    ) -> TrialResult:
        case = TrialCase(
            combination={"backend": backend, "meeting": meeting, "ranks": 2},
            status=status,
            broken=broken,
            fixed=Arm(outcome="passed", measured=fixed),
        )
        name = GLOO.name if backend == "gloo" else NCCL.name
        device = "cpu" if backend == "gloo" else "cuda:0"
        return TrialResult(name=name, device=device, status=status, seconds=0.1, cases=(case,))

    passed = Arm(outcome="passed", measured={"seconds": 0.1})
    yield healthy("two processes add up", case_of(stack), tried(passed, "refuted"))
    yield sick(
        "a variable that names no interface",
        case_of(stack),
        "error: an all-reduce of 2 processes over gloo fails: GLOO_SOCKET_IFNAME=ib7 names no interface of"
        " this node (eth0, lo)",
        trials=(
            tried(
                Arm(
                    outcome="failed",
                    error="rank 0 in making the process group: RuntimeError: Unable to find address for: ib7",
                    measured={"reason": "GLOO_SOCKET_IFNAME=ib7 names no interface of this node (eth0, lo)"},
                ),
                "reproduced",
                remedy={"GLOO_SOCKET_IFNAME": "lo"},
                without=["GLOO_SOCKET_IFNAME"],
            ),
        ),
    )
    yield sick(
        "a name that nobody knows",
        case_of(stack),
        "warning: an all-reduce of 2 processes over gloo that meet at the node's own name, as torchrun's do,"
        " fails: this node's own name does not resolve",
        trials=(
            tried(
                Arm(
                    outcome="failed",
                    error="hangs in meeting at the store for 11 s",
                    measured={"reason": "this node's own name does not resolve"},
                ),
                "reproduced",
                meeting="own-name",
            ),
        ),
    )
    two = Gpus(
        driver="580.65",
        gpus=tuple(
            Gpu(
                index=i,
                uuid=f"GPU-{i}",
                processes=(),
                memory_total_bytes=80 << 30,
                memory_free_bytes=79 << 30,
            )
            for i in range(2)
        ),
    )
    built = TorchBuild(version="2.6.0+cu124", cuda="12.4", kind="cuda")
    switched = Environment(variables={"NCCL_P2P_LEVEL": "SYS"})
    yield sick(
        "GPUs whose peer access hangs",
        case_of(stack, two, built, switched),
        "error: an all-reduce of 2 processes over NCCL fails: hangs in the all-reduce for 28 s",
        trials=(
            tried(passed, "refuted"),
            tried(
                Arm(outcome="failed", error="hangs in the all-reduce for 28 s", measured={"reason": ""}),
                "reproduced",
                backend="nccl",
                remedy={"NCCL_P2P_DISABLE": "1"},
                without=["NCCL_P2P_LEVEL"],
            ),
        ),
    )
    for title, arm in (
        ("the doctor's own limit", Arm(outcome="killed", error="used more than 4 GiB of memory")),
        (
            "a torch that lacks a part of itself",
            Arm(outcome="failed", error="rank 0 in starting: ImportError: cannot import name 'distributed'"),
        ),
    ):
        result = msgspec.structs.replace(tried(arm, "inconclusive"), reason=arm.error)
        yield cannot_tell(title, case_of(stack), f"inconclusive: {arm.error}", result)
    without = Packages(installed={}, modules={})
    yield cannot_tell("no torch", case_of(without), "torch is not installed")
