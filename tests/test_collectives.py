"""The checks of NCCL's and gloo's variables and of process groups; fixes that can be carried out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import check_of, report_of, run_doctor
from hypothesis import given
from hypothesis import strategies as st

from llm_doctor.check import Case, facts_of
from llm_doctor.checks.launcher_conflict import LauncherConflict
from llm_doctor.checks.nccl_environment_risky import NcclEnvironmentRisky
from llm_doctor.checks.process_group_broken import NCCL, ProcessGroupBroken
from llm_doctor.checks.removed_api import RemovedApi
from llm_doctor.examination import check_case
from llm_doctor.host import real_host
from llm_doctor.model import (
    CheckResult,
    Environment,
    Gpu,
    Gpus,
    Interface,
    Network,
    Packages,
    TorchBuild,
    TrialResult,
)
from llm_doctor.workload.data import Launch, Place, Workload
from llm_doctor.workload.reading import read_workload

# --- NCCL's and gloo's variables --------------------------------------------------------------------------

TWO = Gpus(driver="580.65", gpus=tuple(Gpu(index=i, name="NVIDIA A100", nvlinks_active=12) for i in range(2)))
INTERFACES = (Interface(name="eth0", up=True), Interface(name="lo", up=True, loopback=True))
PLAIN = Network(interfaces=INTERFACES)
WITH_ADAPTERS = Network(interfaces=INTERFACES, infiniband=("mlx5_0",), links={"mlx5_0": "InfiniBand"})
ON_ETHERNET = Network(interfaces=INTERFACES, infiniband=("mlx5_0",), links={"mlx5_0": "Ethernet"})
EFA = Network(interfaces=INTERFACES, infiniband=("rdmap0s31",), links={"rdmap0s31": "Unspecified"})
UNPLUGGED = Network(interfaces=INTERFACES, infiniband=("mlx5_0",))


def judged(variables: dict[str, str], *facts: object, processes: int | None = None) -> CheckResult:
    """With a launch of so many processes, where the number is given."""
    launch = Launch(Place("train.sh", 1), "torchrun", chain=("torchrun",), processes_per_node=processes)
    workload = Workload(launches=(launch,)) if processes is not None else None
    case = Case(facts=facts_of(Environment(variables=variables), *facts), workload=workload)
    return check_case(NcclEnvironmentRisky, case, ())


def said(result: CheckResult) -> list[str]:
    return [f"{it.severity}: {it.message}" for it in result.findings]


@pytest.mark.parametrize(
    ("variables", "network", "expected"),
    [
        (
            {"NCCL_P2P_LEVEL": "LOC"},
            PLAIN,
            "warning: NCCL_P2P_LEVEL=LOC: NVLink is left unused: GPUs go through main memory",
        ),
        (
            {"NCCL_P2P_LEVEL": "0"},
            PLAIN,
            "warning: NCCL_P2P_LEVEL=0: NVLink is left unused: GPUs go through main memory",
        ),
        (
            {"NCCL_NET": "IB"},
            PLAIN,
            "error: NCCL_NET=IB: this node has no InfiniBand or RoCE adapter: NCCL ends",
        ),
        (
            {"NCCL_IB_HCA": "mlx5_0"},
            PLAIN,
            "warning: NCCL_IB_HCA=mlx5_0: this node has no InfiniBand or RoCE adapter: NCCL falls back to"
            " sockets",
        ),
        (
            {"NCCL_IB_HCA": "mlx5_9:1"},
            WITH_ADAPTERS,
            "warning: NCCL_IB_HCA=mlx5_9:1: names no adapter of this node (mlx5_0): NCCL falls back to"
            " sockets",
        ),
        (
            {"NCCL_NET": "ib", "NCCL_IB_HCA": "=mlx5_9"},
            WITH_ADAPTERS,
            "error: NCCL_IB_HCA==mlx5_9: names no adapter of this node (mlx5_0), and NCCL_NET=ib leaves no"
            " other way: NCCL ends",
        ),
        (
            {"NCCL_ALGO": "Rnig,tree"},
            PLAIN,
            "warning: NCCL_ALGO=Rnig,tree: Rnig is no algorithm of NCCL's (Tree, Ring, CollNet,"
            " CollNetDirect, CollNetChain, NVLS, NVLSTree, PAT): a recent NCCL ends, an older one leaves it"
            " out",
        ),
        (
            {"NCCL_ALGO": "allreduce:^tree,nvsl;broadcast:ring"},
            PLAIN,
            "warning: NCCL_ALGO=allreduce:^tree,nvsl;broadcast:ring: nvsl is no algorithm of NCCL's (Tree,"
            " Ring, CollNet, CollNetDirect, CollNetChain, NVLS, NVLSTree, PAT): a recent NCCL ends, an older"
            " one leaves it out",
        ),
        (
            {"GLOO_SOCKET_IFNAME": "eth"},
            PLAIN,
            "error: GLOO_SOCKET_IFNAME=eth: names no interface of this node (eth0, lo): gloo ends",
        ),
        (
            {"GLOO_SOCKET_IFNAME": "eth0,ib7"},
            PLAIN,
            "error: GLOO_SOCKET_IFNAME=eth0,ib7: ib7 is no interface of this node (eth0, lo): gloo ends",
        ),
        (
            {"NCCL_IB_DISABLE": "1"},
            WITH_ADAPTERS,
            "warning: NCCL_IB_DISABLE=1: InfiniBand (mlx5_0) is left unused: nodes speak over sockets",
        ),
        (
            {"NCCL_IB_DISABLE": "1"},
            ON_ETHERNET,
            "note: NCCL_IB_DISABLE=1: RDMA over Ethernet (mlx5_0) is left unused: nodes speak over sockets",
        ),
        (
            {"NCCL_SOCKET_IFNAME": "ib0:1"},
            PLAIN,
            "error: NCCL_SOCKET_IFNAME=ib0:1: names no interface of this node that is up (eth0, lo): NCCL"
            " ends",
        ),
    ],
)
def test_what_a_variable_does_on_this_node(
    variables: dict[str, str], network: Network, expected: str
) -> None:
    assert said(judged(variables, TWO, network)) == [expected]


@pytest.mark.parametrize(
    ("variables", "network"),
    [
        ({"NCCL_SOCKET_IFNAME": "eth0:1"}, PLAIN),
        ({"NCCL_SOCKET_IFNAME": "=eth0:1,ib0:2"}, PLAIN),
        ({"NCCL_P2P_LEVEL": "NVL"}, PLAIN),
        ({"NCCL_P2P_LEVEL": "2"}, PLAIN),
        ({"NCCL_NET": "Socket"}, PLAIN),
        ({"NCCL_NET": "AWS Libfabric"}, PLAIN),
        ({"NCCL_NET": "IB", "NCCL_IB_HCA": "mlx5"}, WITH_ADAPTERS),
        ({"NCCL_ALGO": "^nvls,NVLSTREE"}, PLAIN),
        ({"NCCL_IB_DISABLE": "1"}, PLAIN),
        ({"NCCL_IB_DISABLE": "1"}, EFA),
        ({"NCCL_IB_DISABLE": "1"}, UNPLUGGED),
        ({"NCCL_PROTO": "LL,LL128,Simple"}, PLAIN),
        ({"NCCL_PROTO": "Simple,LL128"}, PLAIN),
        ({"NCCL_PROTO": "LL128"}, PLAIN),
        ({"NCCL_ALGO": "ring,collnetdirect;allreduce:tree,pat;broadcast:ring"}, PLAIN),
        ({"NCCL_ALGO": ""}, PLAIN),
        ({"GLOO_SOCKET_IFNAME": "lo,eth0"}, PLAIN),
        ({"GLOO_SOCKET_IFNAME": ""}, PLAIN),
    ],
)
def test_what_does_no_harm_on_this_node(variables: dict[str, str], network: Network) -> None:
    result = judged(variables, TWO, network)
    assert (said(result), result.outcome) == ([], "pass")


def test_ll128_is_a_risk_between_gpus_without_nvlink() -> None:
    cards = Gpus(driver="580.65", gpus=tuple(Gpu(index=i, name="NVIDIA A10") for i in range(2)))
    for value in ("LL128", "Simple,LL128"):
        assert said(judged({"NCCL_PROTO": value}, cards)) == [
            f"warning: NCCL_PROTO={value}: LL128 may corrupt data between GPUs without NVLink, where NCCL"
            " does not choose it by itself"
        ]
    assert said(judged({"NCCL_PROTO": "^LL128"}, cards)) == []
    assert said(judged({"NCCL_PROTO": "LL128"}, msgspec.structs.replace(cards, gpus=cards.gpus[:1]))) == []


@given(st.sampled_from(["NCCL_ALGO", "NCCL_NET", "NCCL_IB_HCA", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"]))
def test_where_the_interfaces_are_not_known_nothing_is_said_of_names(name: str) -> None:
    assert said(judged({name: "IB" if name == "NCCL_NET" else "ring"}, TWO)) == []


@given(st.text(max_size=40), st.text(max_size=20))
def test_any_value_is_read(value: str, adapter: str) -> None:
    names = ("NCCL_ALGO", "NCCL_NET", "NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_P2P_LEVEL")
    result = judged({**dict.fromkeys(names, value), "NCCL_IB_HCA": adapter}, TWO, WITH_ADAPTERS)
    assert result.outcome in ("pass", "findings")


def test_without_a_gpu_gloo_is_judged_and_nccl_left_open() -> None:
    """The variables where the doctor runs, for a job of several processes."""
    gloo = {"GLOO_SOCKET_IFNAME": "ib7"}
    found = judged(gloo, PLAIN, processes=2)
    assert said(found) == [
        "error: GLOO_SOCKET_IFNAME=ib7: names no interface of this node (eth0, lo): gloo ends"
    ]
    # Of what was judged beside it too: a finding says nothing of the rest.
    assert said(judged({**gloo, "NCCL_P2P_DISABLE": "1"}, PLAIN, processes=2)) == said(found)
    for variables in ({"NCCL_P2P_DISABLE": "1"}, {"NCCL_ALGO": "x", "TORCH_NCCL_BLOCKING_WAIT": "1"}):
        left = judged(variables, PLAIN, processes=2)
        names = " and ".join(variables)
        verb = "are" if len(variables) > 1 else "is"
        assert (left.outcome, left.reason) == (
            "skipped",
            f"{names} {verb} set here, and there is no NVIDIA GPU to judge by",
        )
    nothing_set = judged({"PATH": "/bin", "GLOO_SOCKET_IFNAME": "lo"}, PLAIN, processes=2)
    assert (nothing_set.outcome, nothing_set.reason) == ("pass", None)


def test_without_a_gpu_and_without_the_environment_nothing_is_passed() -> None:
    launch = Launch(Place("train.sh", 1), "torchrun", chain=("torchrun",), processes_per_node=2)
    result = check_case(
        NcclEnvironmentRisky, Case(facts=facts_of(), workload=Workload(launches=(launch,))), ()
    )
    assert (result.outcome, result.reason) == ("skipped", "not in this example")


def test_gloo_has_nothing_to_do_for_one_process() -> None:
    result = judged({"GLOO_SOCKET_IFNAME": "ib7"}, PLAIN, processes=1)
    assert [it.severity for it in result.findings if it.severity != "note"] == []


def test_the_old_names_are_taken_with_a_warning() -> None:
    stack = Packages(installed={"torch": "2.6.0"}, modules={})
    (message,) = said(judged({"NCCL_BLOCKING_WAIT": "0"}, TWO, stack))
    assert message == (
        "note: NCCL_BLOCKING_WAIT=0: torch calls it TORCH_NCCL_BLOCKING_WAIT since 2.2, and warns of the old"
        " name"
    )
    assert "does nothing" not in NcclEnvironmentRisky.documentation()


# --- Processes that must meet -----------------------------------------------------------------------------


STACK = (
    Packages(installed={"torch": "2.9.0"}, modules={}),
    TorchBuild(version="2.9.0+cu128", cuda="12.8", kind="cuda"),
)


def idle(mode: str) -> Gpus:
    """Two GPUs that nobody uses."""
    memory = {"memory_total_bytes": 80 << 30, "memory_free_bytes": 79 << 30}
    return Gpus(
        driver="580.65",
        gpus=tuple(
            Gpu(index=i, uuid=f"GPU-{i}", processes=(), compute_mode=mode, **memory) for i in range(2)
        ),
    )


def nccl_is_tried(case: Case) -> bool:
    suspicions = ProcessGroupBroken().examine(case)
    return any(request.trial is NCCL for suspicion in suspicions for request in suspicion.trials)


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("NCCL_P2P_DISABLE", True),
        ("TORCH_NCCL_BLOCKING_WAIT", True),
        ("NCCL_VERSION", False),
        ("NCCL_DEBUG", False),
        ("NCCL_DEBUG_SUBSYS", False),
        ("OMP_NUM_THREADS", False),
    ],
)
def test_nccl_is_tried_where_a_variable_could_break_it(name: str, tried: bool) -> None:
    case = Case(facts=facts_of(*STACK, idle("default"), Environment(variables={name: "1"})))
    assert nccl_is_tried(case) is tried


def test_nccl_is_not_tried_on_a_gpu_that_another_trial_holds() -> None:
    """Its ranks would be refused by a GPU that lets in one process."""
    gloo = TrialResult(name="process-group-broken", device="cpu", status="refuted", seconds=0.1)
    variables = Environment(variables={"NCCL_P2P_DISABLE": "1"})
    for mode, reason in (
        (
            "exclusive-process",
            "NCCL was not tried: GPU 0, 1 in compute mode exclusive-process, where the doctor's other trials"
            " are the one process",
        ),
        ("default", None),
    ):
        case = Case(facts=facts_of(*STACK, idle(mode), variables))
        assert nccl_is_tried(case) is (reason is None)
        assert ProcessGroupBroken().remark(case, [gloo]) == reason
    # Without a reason to try NCCL there is nothing to tell.
    assert ProcessGroupBroken().remark(Case(facts=facts_of(*STACK, idle("exclusive-process"))), []) is None


def process_group(**environment: str) -> dict[str, Any]:
    arguments = ("run", "--format", "json", "--only", "process-group-broken", "--python", sys.executable)
    return check_of(report_of(run_doctor(*arguments, env=environment)), "process-group-broken")


def test_what_is_seen_to_work_works_when_it_is_pasted(stack_site: str) -> None:
    broken = {"GLOO_DEVICE_TRANSPORT": "TCP_TLS", "GLOO_SOCKET_IFNAME": ""}
    (finding,) = process_group(**broken)["findings"]
    (verified,) = [fix for fix in finding["fixes"] if fix["verified"]]
    assert verified["preview"] == "unset GLOO_DEVICE_TRANSPORT\nexport GLOO_SOCKET_IFNAME=lo"
    pasted = dict(broken)
    for line in verified["preview"].splitlines():
        command, _, rest = line.partition(" ")
        if command == "unset":
            for name in rest.split():
                del pasted[name]
        else:
            name, _, value = rest.partition("=")
            pasted[name] = value
    assert process_group(**pasted)["outcome"] == "pass"


# --- Launch lines and old names: a fix is one that can be carried out ---------------------------------------


def launched(line: str) -> Workload:
    return read_workload(real_host(), line.split())


def fixes_of(line: str, *facts: object) -> list[tuple[str, str]]:
    (finding,) = check_case(
        LauncherConflict, Case(facts=facts_of(*facts), workload=launched(line)), ()
    ).findings
    return [(fix.kind, fix.preview) for fix in finding.fixes]


@pytest.mark.parametrize(
    ("line", "preview"),
    [
        (
            "CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node=4 train.py",
            "--nproc_per_node 4 -> --nproc_per_node 2",
        ),
        ("torchrun --nproc-per-node 4 train.py", "--nproc_per_node 4 -> --nproc_per_node 2"),
        ("deepspeed --num_gpus 4 train.py", "--num_gpus 4 -> --num_gpus 2"),
        (
            "accelerate launch --num_processes 4 --num_machines 1 train.py",
            "--num_processes 4 -> --num_processes 2",
        ),
        (
            "accelerate launch --num_processes 8 --num_machines 2 --machine_rank 0 train.py",
            "--num_processes 8 -> --num_processes 4",
        ),
        ("NPROC_PER_NODE=4 llamafactory-cli train x.yaml", "NPROC_PER_NODE=4 -> NPROC_PER_NODE=2"),
    ],
)
def test_too_many_processes_are_made_as_many_as_there_are_gpus(line: str, preview: str) -> None:
    assert fixes_of(line, TWO) == [("config", preview)]


@pytest.mark.parametrize("line", ["python train.py --evaluation_strategy epoch"])
def test_a_renamed_flag_is_shown_with_both_names(line: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "from transformers import HfArgumentParser, TrainingArguments\n"
        "args = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()\n"
    )
    (tmp_path / "train.sh").write_text(line.replace("train.py", str(tmp_path / "train.py")) + "\n")
    found = {}
    for version, name in (("5.23.0", "removed-api"), ("4.45.0", "deprecated-api")):
        arguments = ("run", "--no-probes", "--format", "json", "--assume", f"transformers={version}")
        done = run_doctor(*arguments, "--only", name, str(tmp_path / "train.sh"))
        ((fix,),) = [it["fixes"] for it in check_of(report_of(done), name)["findings"]]
        found[name] = (fix["kind"], fix["preview"], [it["action"] for it in fix["edits"]])
    renamed = ("config", "--evaluation_strategy -> --eval_strategy", ["rename-flag"])
    assert found == {"removed-api": renamed, "deprecated-api": renamed}


def test_a_renamed_key_is_shown_with_both_names() -> None:
    (case,) = (it.case for it in RemovedApi().examples() if it.title == "a key of a TrainingArguments file")
    (finding,) = check_case(RemovedApi, case, ()).findings
    assert [(it.kind, it.preview) for it in finding.fixes] == [
        ("config", "evaluation_strategy -> eval_strategy")
    ]
