"""A variable of NCCL, gloo or torch is set that breaks collectives, slows them down, or has an old name."""

from __future__ import annotations

from typing import Iterable, Iterator, NamedTuple

import msgspec

from llm_doctor.check import (
    CannotTell,
    Case,
    Check,
    Example,
    Suspicion,
    at,
    cannot_tell,
    case_of,
    healthy,
    sick,
)
from llm_doctor.model import (
    Environment,
    Finding,
    Fix,
    Gpu,
    Gpus,
    Interface,
    Network,
    Packages,
    Severity,
    Subject,
)
from llm_doctor.patient.all_reduce import names_one
from llm_doctor.workload.data import Launch, Place, Value, Workload

RENAMED_IN = (2, 2)
"""The torch that renamed its own variables: https://github.com/pytorch/pytorch/pull/114077"""
_RENAMED = ("NCCL_BLOCKING_WAIT", "NCCL_ASYNC_ERROR_HANDLING", "NCCL_DESYNC_DEBUG", "NCCL_ENABLE_TIMING")
_ALGORITHMS = ("Tree", "Ring", "CollNet", "CollNetDirect", "CollNetChain", "NVLS", "NVLSTree", "PAT")
"""ncclAlgoStr of NCCL 2.8 to 2.28; the third name became the two behind it."""
_LEFT_UNUSED: tuple[tuple[str, str, Severity], ...] = (
    ("InfiniBand", "InfiniBand", "warning"),
    ("Ethernet", "RDMA over Ethernet", "note"),
)
"""By link layer, those that NCCL's own transport uses: EFA (Unspecified) has a plugin, which stays on."""
_OF_GLOO = ("GLOO_SOCKET_IFNAME", "TORCH_DISTRIBUTED_DEBUG")
_OF_NCCL = ("NCCL_", "TORCH_NCCL_", "CUDA_LAUNCH_BLOCKING")


class NcclEnvironmentRisky(Check):
    """A variable of NCCL, gloo or torch is set that breaks collectives, slows them down, or has an old name.

    ## What it finds

    In the environment of the doctor, on a node with NVIDIA GPUs, and in what launch lines and scripts of a
    workload set: NCCL_SOCKET_IFNAME that names no interface which is up, or the loopback alone in a job of
    several nodes; GLOO_SOCKET_IFNAME with a name that is no interface's; NCCL_IB_HCA that names no adapter,
    and NCCL_NET=IB where none is left to use; NCCL_P2P_DISABLE (or NCCL_P2P_LEVEL=LOC), NCCL_SHM_DISABLE and
    NCCL_IB_DISABLE left on; NCCL_ALGO with an algorithm that NCCL does not know, NCCL_PROTO that allows LL128
    between GPUs without NVLink; (TORCH_)NCCL_BLOCKING_WAIT and CUDA_LAUNCH_BLOCKING left on,
    (TORCH_)NCCL_ASYNC_ERROR_HANDLING off; NCCL_DEBUG=TRACE and TORCH_DISTRIBUTED_DEBUG=DETAIL; torch's own
    variables by their names of before 2.2, which it takes with a warning. Without a GPU the environment of
    the doctor is judged for gloo alone.

    ## Why it breaks

    Such variables are set to get around a fault and stay in a script or image for years, on machines that do
    not have the fault. NCCL finds no interface and ends, or moves gradients through main memory and sockets
    instead of NVLink and InfiniBand, at a tenth of the speed and without a word.

    ## How it is proven

    Interfaces, adapters and links are those of this node. Whether NCCL works with the variables as they are
    is tried by process-group-broken, on idle GPUs.

    ## Fix

    Unset the variable, or let it name what is there.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    - src/misc/utils.cc (parseStringList: a name ends at a colon), src/graph/paths.cc (ncclGetLevel) and
      src/graph/tuning.cc (parseList; LL128 by default only over NVLink) of https://github.com/NVIDIA/nccl
    - https://github.com/pytorch/pytorch/pull/114077 (the names since torch 2.2)
    - https://github.com/ray-project/ray/issues/29419 (NCCL_BLOCKING_WAIT is slow)
    - https://pytorch.org/docs/stable/distributed.html#torch-distributed-debug
    - https://docs.nvidia.com/cuda/cuda-c-programming-guide/#cuda-environment-variables
    """

    name = "nccl-environment-risky"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html"

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """What a job would inherit from here, and what the workload sets itself."""
        workload = case.workload
        gpus = case.known(Gpus)
        on_node = gpus is not None and bool(gpus.gpus)
        if not on_node and workload is None:
            case.fact(Gpus)
            raise CannotTell("the driver names no GPU")
        found = list(_inherited(case, on_node))
        found += _of_workload(case) if workload is not None else ()
        yield from found
        if found or on_node:
            return
        left = [name for name in case.fact(Environment).variables if name.startswith(_OF_NCCL)]
        if left:
            verb = "are" if len(left) > 1 else "is"
            raise CannotTell(f"{' and '.join(left)} {verb} set here, and there is no NVIDIA GPU to judge by")

    def concerns(self, workload: Workload, finding: Finding) -> bool:
        """One process speaks to nobody."""
        alone = bool(workload.launches) and all(it.world_size == 1 for it in workload.launches)
        return not alone or finding.evidence.get("variable") == "CUDA_LAUNCH_BLOCKING"

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


class _Risk(NamedTuple):
    severity: Severity
    effect: str


class _Node:
    """What is known of the node that a variable is for; nothing of one that may be another."""

    def __init__(self, here: Case | None, several_nodes: bool, patient: Case | None = None) -> None:
        self.gpus = here.known(Gpus) if here is not None else None
        self.network = here.known(Network) if here is not None else None
        self.several_nodes = several_nodes
        environment = here.known(Environment) if here is not None else None
        self.variables = environment.variables if environment is not None else {}
        case = here or patient
        self.torch = case.version("torch") if case is not None else None


def _inherited(case: Case, on_node: bool) -> Iterator[Suspicion]:
    """What a job gets from the doctor's environment; without a GPU the processes of a job speak over gloo."""
    variables = case.known(Environment)
    if variables is None or not (on_node or _has_several_processes_here(case.workload)):
        return
    node = _Node(case, several_nodes=_several_nodes(variables, case.workload))
    for name, value in variables.variables.items():
        for risk in _judged(name, value, node) if on_node or name in _OF_GLOO else ():
            yield Suspicion(_finding(name, value, risk, Subject(kind="environment")))


def _has_several_processes_here(workload: Workload | None) -> bool:
    """A batch job runs on another node."""
    launches = workload.launches if workload is not None else ()
    return any(it.job is None and (it.processes_per_node or 1) > 1 for it in launches)


def _of_workload(case: Case) -> Iterator[Suspicion]:
    assert case.workload is not None
    told = set()
    for name, given, launch in _set_by(case.workload):
        several = launch is not None and launch.nodes is not None and launch.nodes > 1
        place = given.key or given.place
        if isinstance(given.constant, (str, int)) and (name, place) not in told:
            told.add((name, place))
            # A file may be meant for other machines: what this one has says nothing.
            for risk in _judged(name, str(given.constant), _Node(None, several, case)):
                yield Suspicion(_finding(name, str(given.constant), risk, at(place, "variable")))


def _set_by(workload: Workload) -> Iterator[tuple[str, Value, Launch | None]]:
    for launch in workload.launches:
        for name, value in launch.environment.items():
            yield name, value, launch
    for script in workload.scripts:
        for name, value in script.environment.items():
            yield name, value, script.launch


def _several_nodes(variables: Environment, workload: Workload | None) -> bool:
    count = variables.variables.get("SLURM_JOB_NUM_NODES", variables.variables.get("SLURM_NNODES", "1"))
    launches = workload.launches if workload is not None else ()
    return count not in ("", "0", "1") or any((launch.nodes or 1) > 1 for launch in launches)


def _judged(name: str, value: str, node: _Node) -> Iterator[_Risk]:
    on = value.strip().lower() in ("1", "true", "yes", "on")
    plain = name[len("TORCH_") :] if name.startswith("TORCH_NCCL_") else name
    if name == "NCCL_SOCKET_IFNAME" and value:
        yield from _interface(value, node)
    elif name == "GLOO_SOCKET_IFNAME" and value and node.network is not None:
        yield from _interfaces_of_gloo(value, node.network)
    elif name == "NCCL_IB_HCA" and value and node.network is not None:
        yield from _adapter(value, node.network, node.variables.get("NCCL_NET", ""))
    elif name == "NCCL_NET" and value.upper() == "IB":
        if node.network is not None and not node.network.infiniband:
            yield _Risk("error", "this node has no InfiniBand or RoCE adapter: NCCL ends")
    elif name == "NCCL_ALGO":
        yield from _algorithm(value)
    elif (name == "NCCL_P2P_DISABLE" and on) or (name == "NCCL_P2P_LEVEL" and value in ("LOC", "0")):
        yield from _peer_access(node)
    elif name == "NCCL_SHM_DISABLE" and on:
        yield _Risk("note", "GPUs without peer access speak over the network card, more slowly")
    elif name == "NCCL_IB_DISABLE" and on:
        yield from _infiniband(node.network)
    elif name == "NCCL_PROTO" and "LL128" in value.upper().split(",") and not value.startswith("^"):
        yield from _ll128(node.gpus)
    elif name == "NCCL_DEBUG" and value.upper() == "TRACE":
        yield _Risk("note", "fills the log; INFO says what is wanted, WARN what went wrong")
    elif name == "CUDA_LAUNCH_BLOCKING" and on:
        yield _Risk("warning", "every kernel is waited for: a debugging aid that slows training down")
    elif name == "TORCH_DISTRIBUTED_DEBUG" and value.upper() == "DETAIL":
        yield _Risk("note", "every collective is checked across the ranks first, which slows training down")
    elif plain == "NCCL_BLOCKING_WAIT" and on:
        yield _Risk("warning", "the CPU waits for every collective, which slows training down")
    elif plain == "NCCL_ASYNC_ERROR_HANDLING" and value.strip() == "0":
        yield _Risk("warning", "a rank that fails leaves the others waiting for ever")
    if name in _RENAMED and node.torch is not None and node.torch.release >= RENAMED_IN:
        yield _Risk("note", f"torch calls it TORCH_{name} since 2.2, and warns of the old name")


def _interface(value: str, node: _Node) -> Iterator[_Risk]:
    if node.network is not None:
        up = [it.name for it in node.network.interfaces if it.up is not False]
        if not names_one(value, up, exact=False):
            yield _Risk("error", f"names no interface of this node that is up ({', '.join(up)}): NCCL ends")
            return
    if node.several_nodes and value.lstrip("=") == "lo":
        yield _Risk("error", "the loopback does not reach the other nodes of the job")


def _interfaces_of_gloo(value: str, network: Network) -> Iterator[_Risk]:
    there = [it.name for it in network.interfaces]
    absent = [it for it in value.split(",") if it not in there]
    if absent:
        named = "names" if absent == value.split(",") else f"{', '.join(absent)} is"
        yield _Risk("error", f"{named} no interface of this node ({', '.join(there)}): gloo ends")


def _adapter(value: str, network: Network, net: str) -> Iterator[_Risk]:
    there = network.infiniband
    if names_one(value, list(there), exact=False):
        return
    names_none = f"names no adapter of this node ({', '.join(there)})"
    if not there and net.upper() != "IB":  # else NCCL_NET is what is told
        yield _Risk("warning", "this node has no InfiniBand or RoCE adapter: NCCL falls back to sockets")
    elif there and net.upper() == "IB":
        yield _Risk("error", f"{names_none}, and NCCL_NET={net} leaves no other way: NCCL ends")
    elif there:
        yield _Risk("warning", f"{names_none}: NCCL falls back to sockets")


def _algorithm(value: str) -> Iterator[_Risk]:
    """`ring`, `^nvls,pat`, and since 2.24 for single collectives: `ring;allreduce:tree,pat`."""
    named = (it for part in value.split(";") for it in part.rpartition(":")[2].lstrip("^").split(","))
    known = [it.lower() for it in _ALGORITHMS]
    unknown = [it for it in named if it and it.lower() not in known]
    if unknown:
        are = "is no algorithm" if len(unknown) == 1 else "are no algorithms"
        yield _Risk(
            "warning",
            f"{', '.join(unknown)} {are} of NCCL's ({', '.join(_ALGORITHMS)}): a recent NCCL ends, an older"
            " one leaves it out",
        )


def _peer_access(node: _Node) -> Iterator[_Risk]:
    if node.gpus is None:
        yield _Risk("note", "GPUs that could reach each other go through main memory")
    elif any(gpu.nvlinks_active for gpu in node.gpus.gpus):
        yield _Risk("warning", "NVLink is left unused: GPUs go through main memory")
    elif len(node.gpus.gpus) > 1 and not any("GeForce RTX" in str(gpu.name) for gpu in node.gpus.gpus):
        yield _Risk("note", "GPUs that could reach each other over PCIe go through main memory")


def _infiniband(network: Network | None) -> Iterator[_Risk]:
    if network is None:
        yield _Risk("note", "where there is InfiniBand it is left unused")
        return
    # A card that could do RoCE is often there for Ethernet alone: in a cloud's machine, above all.
    for link, kind, severity in _LEFT_UNUSED:
        adapters = [name for name, its in network.links.items() if its == link]
        if adapters:
            yield _Risk(severity, f"{kind} ({', '.join(adapters)}) is left unused: nodes speak over sockets")
            return


def _ll128(gpus: Gpus | None) -> Iterator[_Risk]:
    """It needs stores of 128 bytes that arrive whole, which NCCL counts on over NVLink alone."""
    if gpus is None:
        yield _Risk("note", "LL128 may corrupt data between GPUs without NVLink")
    elif len(gpus.gpus) > 1 and not any(gpu.nvlinks_active for gpu in gpus.gpus):
        yield _Risk(
            "warning",
            "LL128 may corrupt data between GPUs without NVLink, where NCCL does not choose it by itself",
        )


def _finding(name: str, value: str, risk: _Risk, subject: Subject) -> Finding:
    return Finding(
        severity=risk.severity,
        confidence="certain" if risk.severity == "error" else "likely",
        message=f"{name}={value}: {risk.effect}",
        subject=subject,
        evidence={"variable": name, "value": value},
        fixes=(
            Fix(
                title="take it away",
                kind="environment",
                applicability="manual",
                preview=f"unset {name}",
            ),
        ),
    )


# --- Examples -------------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    linked = Gpus(
        driver="580.65", gpus=tuple(Gpu(index=i, name="NVIDIA A100", nvlinks_active=12) for i in range(2))
    )
    network = Network(
        interfaces=(
            Interface(name="eth0", up=True),
            Interface(name="ib0", up=False),
            Interface(name="lo", up=True, loopback=True),
        ),
        infiniband=("mlx5_0",),
        links={"mlx5_0": "InfiniBand"},
    )
    stack = Packages(installed={"torch": "2.6.0"}, modules={})

    def setting(**variables: str) -> Case:
        return case_of(Environment(variables=variables), linked, network, stack)

    yield healthy("an interface that is there", setting(NCCL_SOCKET_IFNAME="eth", NCCL_DEBUG="INFO"))
    yield sick(
        "one that is down",
        setting(NCCL_SOCKET_IFNAME="ib0"),
        "error: NCCL_SOCKET_IFNAME=ib0: names no interface of this node that is up (eth0, lo): NCCL ends",
    )
    yield sick(
        "workarounds left on",
        setting(NCCL_P2P_DISABLE="1", NCCL_IB_DISABLE="1", NCCL_BLOCKING_WAIT="0"),
        "warning: NCCL_P2P_DISABLE=1: NVLink is left unused: GPUs go through main memory",
        "warning: NCCL_IB_DISABLE=1: InfiniBand (mlx5_0) is left unused: nodes speak over sockets",
        "note: NCCL_BLOCKING_WAIT=0: torch calls it TORCH_NCCL_BLOCKING_WAIT since 2.2, and warns of the old"
        " name",
    )
    here = Place("job.sbatch", 7)
    launch = Launch(
        place=here,
        launcher="torchrun",
        nodes=2,
        processes_per_node=8,
        environment={"NCCL_SOCKET_IFNAME": Value("lo", here), "CUDA_LAUNCH_BLOCKING": Value("1", here)},
    )
    yield sick(
        "a job script",
        msgspec.structs.replace(setting(), workload=Workload(launches=(launch,))),
        "error: NCCL_SOCKET_IFNAME=lo: the loopback does not reach the other nodes of the job",
        "warning: CUDA_LAUNCH_BLOCKING=1: every kernel is waited for: a debugging aid that slows training"
        " down",
    )
    yield cannot_tell(
        "a node without GPUs",
        case_of(Environment(variables={"NCCL_P2P_DISABLE": "1"})),
        "not in this example",
    )
