"""The processes of a job cannot meet: the master's port is taken or none, or its name does not resolve."""

from __future__ import annotations

from typing import Iterable, Iterator

import msgspec

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
from llm_doctor.model import Confidence, Environment, Finding, Fix, Severity
from llm_doctor.workload.data import HostName, Launch, Place, Value, Workload
from llm_doctor.workload.launch import COMMAND_LINE
from llm_doctor.workload.paths import Rendezvous, host_name, rendezvous, starts_here

_BY_ADDRESS = (
    remedy(
        "take the first node's address, or its name as the others' resolver knows it",
        'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    ),
)


class RendezvousUnreachable(Check):
    """The processes of a job cannot meet: the master's port is taken or none, or its name does not resolve.

    ## What it finds

    Of `--master_port`, `--main_process_port`, `--rdzv_endpoint` and `MASTER_PORT`: a text that is no number,
    a number above 65535, and, where this machine is the master, a port that something else listens at or
    that this user may not use. Of `--master_addr`, `--main_process_ip`, `--rdzv_endpoint` and `MASTER_ADDR`:
    a name that this machine's resolver does not know.

    ## Why it breaks

    Rank 0 opens a store at that port, and all ranks connect to it. Two jobs with the default port 29500 on
    one node are the usual case: the second one ends with "address already in use". With a name that nobody
    knows, every rank waits until its time is out.

    ## How it is proven

    The port is opened as torch's store opens it, and closed at once. A name is looked up by the system's
    resolver, as the job will do, within 5 s; one that does not answer proves nothing. The script of a batch
    job is judged so only inside of its job, and nothing is looked up of a folder of many scripts.

    ## Fix

    Another port: `--master_port 29501`, or let torchrun choose by `--standalone` on a single node. The name
    or address of the first node, as `scontrol show hostnames` prints it.

    ## References

    - torch/csrc/distributed/c10d/socket.cpp (SocketListenOp: every address, SO_REUSEADDR)
    - deepspeed/launcher/runner.py, main (0.9.5, 0.19.8: 127.0.0.1 on a single node)
    - https://github.com/huggingface/accelerate/pull/3576 (1.8.0 takes another port on a single node)
    """

    name = "rendezvous-unreachable"
    topic = "host-limits"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://pytorch.org/docs/stable/elastic/run.html"
    symptoms = (
        Symptom(
            pattern=r"The server socket has failed to listen on any local network address\. port: "
            r"(?P<port>\d{1,5}),"
            r"[^\n]{0,80} EADDRINUSE",
            example="torch.distributed.DistNetworkError: The server socket has failed to listen on any local"
            " network address. port: 29500, useIpv6: false, code: -98, name: EADDRINUSE, message: address"
            " already in use",
            counter_example="The server socket is listening on port 29500",
            cause="Port {port} is taken: another job, or what is left of one, listens there",
        ),
        Symptom(
            pattern=r"server socket has failed to (?:bind to|listen on) [^\n]{0,60}?:(?P<port>\d{2,5})\)? "
            r"\(errno: 98",
            example="[W socket.cpp:464] [c10d] The server socket has failed to bind to [::]:29500 (errno: "
            "98 - Address"
            " already in use).",
            counter_example="The server socket has started to listen on [::]:29500.",
            cause="Port {port} is taken: another job, or what is left of one, listens there",
        ),
        Symptom(
            pattern=r"server socket has failed to (?:listen|bind)",
            example="[E socket.cpp:500] [c10d] The server socket has failed to listen on any local network "
            "address.",
            counter_example="The server socket has started to listen on [::]:29500.",
        ),
        Symptom(
            pattern=r"EADDRINUSE",
            example="torch.distributed.DistNetworkError: code: -98, name: EADDRINUSE, message: address "
            "already in use",
            counter_example="code: -13, name: EACCES, message: permission denied",
            cause="The port is taken: another job, or what is left of one, listens there",
        ),
        Symptom(
            pattern=r"[Aa]ddress already in use",
            example="RuntimeError: Address already in use",
            counter_example="Address family not supported by protocol",
            cause="The port is taken: another job, or what is left of one, listens there",
        ),
        Symptom(
            pattern=r"attempting to bind on address (?P<place>[^\n]{1,60}?): address already in use",
            example="[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address "
            "already in use",
            counter_example="Uvicorn running on http://0.0.0.0:8000",
            cause="The address {place} is taken: another server listens there",
        ),
        Symptom(
            pattern=r"(?:Tried to|Trying to) launch distributed communication on port `(?P<port>\d{1,5})`, "
            r"but another process",
            example="ConnectionError: Tried to launch distributed communication on port `29500`, but "
            "another process is"
            " utilizing it. Please specify a different port",
            counter_example="Launching distributed communication on port `29500`",
            cause="Port {port} is taken: another job, or what is left of one, listens there",
        ),
        Symptom(
            pattern=r"IPv4 network addresses of \((?P<master>[^)\n]{1,80})\) cannot be retrieved \(gai "
            r"error: -\d{1,3} - (?P<why>[^)\n]{4,60})\)",
            example="[W socket.cpp:601] [c10d] The IPv4 network addresses of (node-1, 29500) cannot be"
            " retrieved (gai error: -2 - Name or service not known).",
            counter_example="[W socket.cpp:601] [c10d] The IPv6 network addresses of (node-1, 29500) "
            "cannot be"
            " retrieved (gai error: -2 - Name or service not known).",
            cause="The master ({master}) does not resolve on this node: {why}",
            standing="hint",
            fixes=_BY_ADDRESS,
        ),
        Symptom(
            pattern=r"getaddrinfo[^\n]{0,40} Name or service not known",
            example="RuntimeError: getaddrinfo: Name or service not known",
            counter_example="getaddrinfo: ok",
            cause="The master's name does not resolve on this node",
            fixes=_BY_ADDRESS,
        ),
        Symptom(
            pattern=r"rendezvous endpoint `(?P<given>[^`'\n]{1,80})` must be an integer between",
            example="ValueError: The port number of the rendezvous endpoint '127.0.0.1:66665' must be an"
            " integer between 0 and 65536.",
            counter_example="ValueError: The hostname of the rendezvous endpoint ':29400' must be non-empty.",
            cause="{given} ends in no port: a number up to 65535 is wanted",
        ),
    )
    remedies = (
        remedy(
            "another port, or any free one on a single node",
            "torchrun --master_port 29501 ...   # or --standalone",
        ),
        remedy(
            "see who listens at torch's default port, and end what is left of an earlier run",
            "ss -ltnp 'sport = :29500'",
        ),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every launch line by itself; each place is spoken of once."""
        assert case.workload is not None
        if not case.workload.launches:
            raise CannotTell("no launch line in the workload")
        environment = case.known(Environment)
        in_job = environment is not None and "SLURM_JOB_ID" in environment.variables
        told = set()
        for launch in case.workload.launches:
            meeting = rendezvous(launch)
            findings = list(_port_by_itself(launch, meeting))
            if starts_here(launch, in_job) and not case.assumed:
                findings = findings or list(_port_here(case, case.workload, launch, meeting))
                findings += _name(case.workload, launch, meeting)
            for finding in findings:
                if (finding.subject, finding.message) not in told:
                    told.add((finding.subject, finding.message))
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


def _port_by_itself(launch: Launch, meeting: Rendezvous) -> Iterator[Finding]:
    """What can be no port on any machine."""
    value = meeting.port
    if value is None or not value.known or meeting.port_number is not None:
        return
    text = str(value.constant)
    if isinstance(value.constant, bool) or not text.strip("-_.").isalnum():
        return  # a template's place holder
    if text.isdigit() and int(text) < 1 << 16:
        return  # 0: any port
    why = "above 65535, the highest one" if text.isdigit() else "no number"
    yield _finding("error", f"port {text} is {why}: the launch fails", value, _other_port(launch))


def _port_here(case: Case, workload: Workload, launch: Launch, meeting: Rendezvous) -> Iterator[Finding]:
    number = meeting.port_number
    state = workload.ports.get(number) if number is not None else None
    if state not in ("taken", "forbidden") or not meeting.serves or not _is_master(workload, meeting):
        return
    value = meeting.port or Value(None, launch.place)
    which = "" if meeting.port else ", deepspeed's default,"
    if state == "forbidden":
        yield _finding(
            "error", f"port {number}{which} may not be used by this user", value, _other_port(launch)
        )
        return
    version = case.version("accelerate")
    message = f"port {number}{which} is taken on this machine"
    if "accelerate" in launch.chain and meeting.alone and (version is None or version.release >= (1, 8)):
        moves = "accelerate takes another one, from 1.8 on"
        severity: Severity = "note" if version is not None else "warning"
        yield _finding(severity, f"{message}: {moves}", value, _other_port(launch))
    else:
        yield _finding("error", f"{message} already", value, _other_port(launch))


def _is_master(workload: Workload, meeting: Rendezvous) -> bool:
    address = meeting.address
    if address is None:
        return meeting.alone
    if address.constant in ("localhost", "127.0.0.1", "::1", "0.0.0.0"):
        return True
    name = host_name(address)
    return name is not None and workload.hosts.get(name, HostName()).own is True


def _name(workload: Workload, launch: Launch, meeting: Rendezvous) -> Iterator[Finding]:
    name = host_name(meeting.address)
    if name is None or meeting.address is None or workload.hosts.get(name, HostName()).resolves is not False:
        return
    # What is in a file may be meant for other machines.
    is_now = launch.place.path == COMMAND_LINE
    fix = Fix(
        title="name the first node as the resolver knows it",
        kind="command",
        applicability="manual",
        preview='MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
    )
    yield _finding(
        "error" if is_now else "warning",
        f"the master {name} does not resolve on this machine",
        meeting.address,
        fix,
        confidence="certain" if is_now else "likely",
    )


def _other_port(launch: Launch) -> Fix:
    option = "main_process_port" if "accelerate" in launch.chain else "master_port"
    return Fix(title="another port", kind="command", applicability="manual", preview=f"--{option} 29501")


def _finding(
    severity: Severity, message: str, value: Value, *fixes: Fix, confidence: Confidence = "certain"
) -> Finding:
    return Finding(
        severity=severity,
        confidence=confidence,
        message=message,
        subject=at(value.key or value.place, "launch"),
        fixes=fixes,
    )


# --- Examples ----------------------------------------------------------------------------------------


_NOT_ASKED = HostName()


def _examples() -> Iterator[Example]:
    def launched(
        launcher: str, nodes: int, state: str, hosts: HostName = _NOT_ASKED, **options: object
    ) -> Case:
        here = Place(COMMAND_LINE, 1)
        launch = Launch(
            place=here,
            launcher=launcher,
            chain=(launcher,),
            options={name: Value(it, here, here) for name, it in options.items()},
            processes_per_node=8,
            nodes=nodes,
        )
        workload = Workload(launches=(launch,), ports={29500: state}, hosts={"node-1": hosts})
        return msgspec.structs.replace(case_of(), workload=workload)

    yield healthy("a free port", launched("torchrun", 1, "free", master_port=29500))
    yield healthy(
        "the port of another master",
        launched("torchrun", 2, "taken", HostName(True, False), master_addr="node-1", master_port=29500),
    )
    yield sick(
        "a second job on this node",
        launched("deepspeed", 1, "taken"),
        "error: port 29500, deepspeed's default, is taken on this machine already",
    )
    yield sick(
        "a number that is no port",
        launched("torchrun", 1, "free", master_port=66665),
        "error: port 66665 is above 65535, the highest one: the launch fails",
    )
    yield sick(
        "a name that nobody knows",
        launched("torchrun", 2, "free", HostName(False), master_addr="node-1", master_port=29500),
        "error: the master node-1 does not resolve on this machine",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
