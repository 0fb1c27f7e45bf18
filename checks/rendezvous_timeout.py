"""Some ranks never came to the rendezvous: the master did not answer, or fewer nodes came than were told."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class RendezvousTimeout(Check):
    """Some ranks never came to the rendezvous: the master did not answer, or fewer nodes came than were told.

    ## What it finds

    In a log: torch's client socket that cannot connect to the store, its server that waits for clients in
    vain, and torchrun's rendezvous that times out or is closed.

    ## Why it breaks

    Rank 0 holds a store at MASTER_ADDR:MASTER_PORT and waits until WORLD_SIZE ranks are there. A firewall, an
    address of another network, a master that was started later or died, or one node too few keeps them apart.

    ## How it is proven

    By the log alone.

    ## Fix

    The address of the first node, a port that is open between the nodes, and as many nodes started as the
    launch line says.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/socket.cpp
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/TCPStore.cpp
    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/distributed/elastic/rendezvous/dynamic_rendezvous.py
    """

    name = "rendezvous-timeout"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/elastic/run.html"
    symptoms = (
        Symptom(
            pattern=r"The client socket has timed out after (?P<limit>\w{1,12}) while trying to connect to "
            r"\((?P<master>[^)\n]{1,80})\)",
            example="torch.distributed.DistNetworkError: The client socket has timed out after 60000ms "
            "while trying "
            "to connect to (10.0.0.1, 29500).",
            counter_example="The client socket has connected to [node1]:29500 on [node2]:50104.",
            cause="The master at ({master}) did not answer within {limit}",
        ),
        Symptom(
            pattern=r"The client socket has timed out",
            example="TimeoutError: The client socket has timed out after 900s while trying to connect",
            counter_example="The client socket has connected to [node1]:29500 on [node2]:50104.",
        ),
        Symptom(
            pattern=r"client socket has failed to connect to (?:any network address of )?\(?(?P<master>"
            r"[\w.:\[\],\x20-]{3,80}?)\)?"
            r"(?: \(errno: (?:110|113|101) - (?P<why>[A-Za-z\x20]{4,60})\)|\.)",
            example="[W socket.cpp:601] [c10d] The client socket has failed to connect to "
            "[::ffff:10.0.0.1]:29500 "
            "(errno: 110 - Connection timed out).",
            counter_example="The client socket has connected to [node1]:29500 on [node2]:50104.",
            cause="The master's store at {master} cannot be reached",
            standing="hint",
        ),
        Symptom(
            pattern=r"failed to connect/validate to host (?P<master>[\w.:-]{1,80}) - timed out",
            example="torch.distributed.DistNetworkError: TCP client failed to connect/validate to host "
            "10.0.0.1:29500 - timed out (try=10, timeout=300000ms): Connection reset by peer",
            counter_example="TCP client connected to host 10.0.0.1:29500",
            cause="The master's store at {master} did not answer",
        ),
        Symptom(
            pattern=r"Timed out after (?P<limit>\d{1,9}) ?(?:ms|seconds) waiting for (?:clients|workers)\. "
            r"(?P<came>\d+)/(?P<wanted>\d+) "
            r"(?:clients|workers) joined",
            example="torch.distributed.DistStoreError: Timed out after 1801 seconds waiting for clients. 1/2 "
            "clients joined.",
            counter_example="waiting for clients to leave",
            cause="Of {wanted} ranks only {came} came to the store within {limit} s",
        ),
        Symptom(
            pattern=r"seconds waiting for (?:clients|workers)\.",
            example="Timed out after 1801 seconds waiting for clients. 1/",
            counter_example="waiting for clients to leave",
        ),
        Symptom(
            pattern=r"Timed out initializing process group in store based barrier on rank ?:? (?P<rank>\d+)",
            example="RuntimeError: Timed out initializing process group in store based barrier on rank: 1, "
            "for key: "
            "store_based_barrier_key:1 (world_size=8, worker_count=4, timeout=0:30:00)",
            counter_example="Rank 1: Completed store-based barrier for key:store_based_barrier_key:1 with "
            "8 nodes.",
            cause="Rank {rank} waited for the others while the process group was made, and some did not come",
        ),
        Symptom(
            pattern=r"The connection to the C10d store has failed",
            example="torch.distributed.elastic.rendezvous.api.RendezvousConnectionError: The connection to "
            "the C10d "
            "store has failed. See inner exception for details.",
            counter_example="The node has joined round 0 of the rendezvous",
            cause="The node that holds torchrun's store cannot be reached, or it has ended",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"RendezvousTimeoutError",
            example="torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError",
            counter_example="torch.distributed.elastic.rendezvous.api.RendezvousClosedError",
            cause="Fewer nodes came to torchrun's rendezvous than --nnodes says",
        ),
        Symptom(
            pattern=r"RendezvousClosedError",
            example="torch.distributed.elastic.rendezvous.api.RendezvousClosedError",
            counter_example="torch.distributed.elastic.rendezvous.api.RendezvousTimeoutError",
            cause="torchrun's rendezvous was closed already: another node ended first, or the id of an "
            "earlier run is"
            " used again",
            standing="aftermath",
        ),
    )
    remedies = (
        remedy(
            "take the first node's address as the others see it",
            'MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        ),
        remedy("try the port from another node, while the master waits", "nc -vz $MASTER_ADDR $MASTER_PORT"),
        remedy("start every node: --nnodes, --node_rank and --nproc_per_node must add up to the world size"),
        remedy(
            "name the interface that routes between the nodes",
            "GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0",
            "environment",
        ),
    )
