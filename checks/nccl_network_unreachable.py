"""NCCL cannot reach another node: a wrong interface, a closed port, a link that is down, or a dead peer."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NcclNetworkUnreachable(Check):
    """NCCL cannot reach another node: a wrong interface, a closed port, a link that is down, or a dead peer.

    ## What it finds

    In a log: failed connections of NCCL's sockets and of gloo's, completions with an error of its InfiniBand
    transport, and the ncclSystemError or ncclRemoteError that torch makes of them.

    ## Why it breaks

    NCCL binds to the first interface it finds. With docker bridges, virtual interfaces or several networks
    that is often one which does not route to the other node; between nodes any port may be used, and a
    firewall that only opens the master's port stops it. A connection that breaks in the middle of a run means
    that the process at the other end has gone: its log has the cause.

    ## How it is proven

    By the log alone. A peer that has gone is taken for the cause only where no other failure is in the log.

    ## Fix

    Name the interface that routes between the nodes, open all ports between them, and read the log of the
    other node.

    ## References

    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/misc/socket.cc
    - https://github.com/NVIDIA/nccl/blob/v2.21.5-1/src/transport/net_ib.cc
    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname
    - https://github.com/NVIDIA/nccl/issues/697
    """

    name = "nccl-network-unreachable"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html#nccl-socket-ifname"
    symptoms = (
        Symptom(
            pattern=r"[Cc]onnect(?:ing)? to (?P<peer>[\w.:<>-]{3,80}) (?:failed|returned) :? "
            r"(?P<why>Connection refused|No route to host|Connection timed out|Network is unreachable)",
            example="node1:77:99 [0] include/socket.h:403 NCCL WARN Net : Connect to 172.17.0.1<40275> "
            "failed : "
            "No route to host",
            counter_example="NCCL INFO NET/Socket : Connected all rings",
            cause="NCCL cannot connect to {peer}: {why}",
        ),
        Symptom(
            pattern=r"Call to connect returned (?P<why>[A-Z][a-z]+(?:\x20[a-z]+){1,4})",
            example="NCCL INFO Call to connect returned Connection refused, retrying",
            counter_example="NCCL INFO Call to connect succeeded",
            cause="NCCL cannot connect to another rank: {why}",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"(?:Net|socketProgress[A-Za-z]{0,10}|ncclSocketProgress[A-Za-z]{0,10}|socket"
            r"[A-Za-z]{0,20}) ?: "
            r"Connection closed by remote peer",
            example="server1:6601:6625 [0] include/socket.h:385 NCCL WARN Net : Connection closed by "
            "remote peer",
            counter_example="Connection closed by client",
            cause="The process at the other end of an NCCL connection has gone",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Call to (?:recv from|send to) (?P<peer>[\w.:<>-]{3,70}) (?:failed|returned) :? "
            r"(?P<why>[A-Z][a-z]+(?:\x20[a-z]+){1,5})",
            example="misc/socket.cc:484 NCCL WARN socketStartConnect: Call to recv from 10.0.0.1<38991> "
            "failed : "
            "Connection timed out",
            counter_example="Call to ibv_create_cq failed",
            cause="The connection of NCCL to {peer} broke: {why}",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"socketStartConnect: Connect to (?P<peer>[^\n]{1,80}?) failed : (?P<why>[^\n]{4,60})",
            example="misc/socket.cc:483 NCCL WARN socketStartConnect: Connect to 10.1.0.3<45371> failed : "
            "Software caused connection abort",
            counter_example="NCCL INFO Bootstrap: Using eth0:10.1.0.3<0>",
            cause="NCCL cannot connect to {peer}: {why}",
        ),
        Symptom(
            pattern=r"socketPollConnect:? [Cc]onnect(?:ing)? to (?P<peer>[^\n]{1,80}?) "
            r"(?:failed|returned|timed)",
            example="misc/socket.cc:564 NCCL WARN socketPollConnect: connect to 10.1.0.3<45371> returned "
            "Connection refused, exceeded error retry count after 35 attempts",
            counter_example="socketPollConnect is ready",
            cause="NCCL cannot connect to {peer}",
        ),
        Symptom(
            pattern=r"(?:Bootstrap|NET/Socket|NET/IB) : (?:no|No) (?:usable listening |socket |IP "
            r")?interface found",
            example="bootstrap.cc:45 NCCL WARN Bootstrap : no socket interface found",
            counter_example="NCCL INFO Bootstrap : Using eth0:10.0.0.1<0>",
            cause="NCCL finds no network interface: NCCL_SOCKET_IFNAME names one that is not there, or "
            "there is"
            " only loopback",
        ),
        Symptom(
            pattern=r"No interface found in the same subnet as remote address (?P<peer>[\w.:<>]{3,60})",
            example="NCCL WARN NET/IB : No interface found in the same subnet as remote address "
            "10.0.0.1<4711>",
            counter_example="NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>",
            cause="This node has no interface in the network of {peer}",
        ),
        Symptom(
            pattern=r"Got completion from peer (?P<peer>[\w.:<>?-]{1,60}) with (?:status=|error )"
            r"(?P<status>\w{1,40}(?:\(\d{1,3}\))?)",
            example="ib_plugin.c:1615 NCCL WARN NET/IB : Got completion from peer 10.216.210.236<54862> with "
            "status=12 opcode=0 len=0 vendor err 129 (Recv)",
            counter_example="NCCL INFO NET/IB : Using [0]mlx5_0:1/IB",
            cause="InfiniBand to {peer} failed with status {status} (12: the peer does not answer; 5: flushed"
            " after another error)",
            standing="aftermath",
            fixes=(
                remedy("read the log of that node first: a process that died there looks the same from here"),
                remedy(
                    "on RoCE, name the GID index of the routed address, as show_gids prints it",
                    "NCCL_IB_GID_INDEX=3",
                    "environment",
                ),
                remedy("name the adapters that are cabled", "NCCL_IB_HCA=mlx5_0,mlx5_1", "environment"),
                remedy("leave InfiniBand aside to test it", "NCCL_IB_DISABLE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"Got completion with (?:status|error) (?P<status>\d{1,3}), opcode",
            example="transport/net_ib.cc:839 NCCL WARN NET/IB : Got completion with error 12, opcode 1, len "
            "32631, vendor err 129",
            counter_example="NCCL INFO NET/IB : Using [0]mlx5_0:1/IB",
            cause="InfiniBand failed with status {status} (12: the peer does not answer)",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"NCCL WARN [^\n]{0,20}Call to (?P<call>ibv_\w{3,30}) failed(?! with error Cannot "
            r"allocate memory)",
            example="spark01:2683:2826 [0] misc/ibvwrap.cc:268 NCCL WARN Call to ibv_create_cq failed",
            counter_example="NCCL WARN Call to ibv_reg_mr_iova2 failed with error Cannot allocate memory",
            cause="An InfiniBand call of NCCL failed: {call}",
            fixes=(
                remedy(
                    "let processes lock memory, and give a container the devices",
                    "docker run --ulimit memlock=-1 --device=/dev/infiniband --cap-add=IPC_LOCK ...",
                ),
                remedy(
                    "on RoCE, name the GID index of the routed address, as show_gids prints it",
                    "NCCL_IB_GID_INDEX=3",
                    "environment",
                ),
                remedy("leave InfiniBand aside to test it", "NCCL_IB_DISABLE=1", "environment"),
            ),
        ),
        Symptom(
            pattern=r"Call to (?P<call>ibv_\w{3,30}) failed with (?:error )?(?P<why>(?!error|Cannot "
            r"allocate)[^\n\x20][^\n]{3,60})",
            example="misc/ibvwrap.cc:190 NCCL WARN Call to ibv_modify_qp failed with error Connection "
            "timed out",
            counter_example="NCCL WARN Call to ibv_reg_mr failed with error Cannot allocate memory",
            cause="An InfiniBand call of NCCL failed: {call}, {why}",
        ),
        Symptom(
            pattern=r"NET/IB : [^\n]{0,60}async fatal event",
            example="NCCL WARN NET/IB : mlx5_0:1 async fatal event: local work queue catastrophic error",
            counter_example="NCCL WARN NET/IB : mlx5_0:1 Got non-fatal async event: port active(9)",
            cause="An InfiniBand adapter reports a fatal event",
        ),
        Symptom(
            pattern=r"Attempted to connect incompatible devices",
            example="NCCL WARN NET/IB : Attempted to connect incompatible devices: [0]mlx5_0:1/IB and "
            "[1]mlx5_2:1/RoCE. Try selecting NICs of only one link type using NCCL_IB_HCA",
            counter_example="NCCL INFO NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/IB",
            cause="The nodes' adapters are of different kinds (InfiniBand and RoCE)",
            fixes=(remedy("choose adapters of one kind", "NCCL_IB_HCA=mlx5_0,mlx5_1", "environment"),),
        ),
        Symptom(
            pattern=r"NET/Socket : socket progress error",
            example="transport/net_socket.cc:516 NCCL WARN NET/Socket : socket progress error",
            counter_example="NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Message truncated : received (?P<got>\d+) bytes instead of (?P<wanted>\d+)",
            example="bootstrap.cc:151 NCCL WARN Message truncated : received 1024 bytes instead of 256",
            counter_example="ncclInternalError: Internal check failed.",
            cause="NCCL got {got} bytes of another rank where it wanted {wanted}: the ranks run different "
            "versions of"
            " NCCL, or another program talks to its port",
            standing="aftermath",
            fixes=(remedy("install the same torch on every node, and end what is left of earlier runs"),),
        ),
        Symptom(
            pattern=r"unhandled system error",
            example="NCCL failure common.cu:921 'unhandled system error'",
            counter_example="unhandled cuda error",
            cause="A system call inside of NCCL failed: the network between the ranks, or /dev/shm",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"ncclSystemError: System call",
            example="ncclSystemError: System call (e.g. socket, malloc) or external library call failed or "
            "device error.",
            counter_example="ncclInternalError: Internal check failed.",
            cause="A system call inside of NCCL failed: the network between the ranks, or /dev/shm",
            standing="aftermath",
            sure="likely",
        ),
        Symptom(
            pattern=r"remote process exited or there was a network error",
            example="torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1275, remote "
            "process exited or there was a network error, NCCL version 2.18.1",
            counter_example="ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
            cause="A process at the other end has gone, or the network between the ranks broke",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"A call failed possibly due to a network error or a remote process exiting prematurely",
            example="ncclRemoteError: A call failed possibly due to a network error or a remote process "
            "exiting "
            "prematurely.",
            counter_example="ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
            cause="A process at the other end has gone, or the network between the ranks broke",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"gloo/[^\n]{0,80}Connection (?:closed|reset) by peer",
            example="RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by "
            "peer [10.0.0.2]:50312",
            counter_example="[../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connected",
            cause="The process at the other end of a gloo connection has gone",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Connection closed by peer \[(?P<peer>[\w.:]{3,50})\]:\d+",
            example="RuntimeError: Connection closed by peer [10.0.0.2]:50312",
            counter_example="Connection closed by remote host.",
            cause="The process at the other end of a gloo connection, {peer}, has gone",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Gloo connectFullMesh failed with",
            example="RuntimeError: Gloo connectFullMesh failed with [../third_party/gloo/gloo/transport/tcp/"
            "pair.cc:144] no error",
            counter_example="[Gloo] Rank 0 is connected to 7 peer ranks. Expected number of connected "
            "peers is : 7",
            cause="The ranks cannot connect to each other over gloo: it chose an interface that does not "
            "route",
            fixes=(
                remedy(
                    "name the interface that routes between the nodes",
                    "GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"gloo/[\w/.:]{0,60}\] (?:connect|timed out connecting|Connect timeout)[^\n]{0,120}",
            example="RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:799] connect "
            "[127.0.1.1]:33651:"
            " Connection refused",
            counter_example="[../third_party/gloo/gloo/transport/tcp/pair.cc:598] Connection closed by peer",
            cause="The ranks cannot connect to each other over gloo: it chose an interface that does not "
            "route",
            fixes=(
                remedy(
                    "name the interface that routes between the nodes; /etc/hosts must not map the host's own"
                    " name to 127.0.1.1",
                    "GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"Unable to (?:find address for|resolve hostname to a \(local\) address)",
            example="RuntimeError: [enforce fail at ../third_party/gloo/gloo/transport/tcp/device.cc:83] "
            "ifa != "
            "nullptr. Unable to find address for: eth0",
            counter_example="Unable to find a valid cuDNN algorithm",
            cause="gloo has no address to bind to: the interface is not there, or the host's own name does "
            "not"
            " resolve",
            fixes=(
                remedy(
                    "name an interface that `ip addr` lists, or lo on a single node",
                    "GLOO_SOCKET_IFNAME=lo",
                    "environment",
                ),
            ),
        ),
        Symptom(
            pattern=r"NCCL communicator was aborted on rank (?P<rank>\d+)",
            example="RuntimeError: NCCL communicator was aborted on rank 3.",
            counter_example="NCCL INFO comm 0x5 rank 3 nranks 8 - Destroy COMPLETE",
            cause="Rank {rank} gave up its NCCL communicator after another failure",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Proxy Call to rank (?P<rank>\d+) failed",
            example="proxy.cc:884 NCCL WARN Proxy Call to rank 1 failed (Connect)",
            counter_example="NCCL INFO New proxy send connection 3 from local rank 1, transport 2",
            cause="NCCL could not connect through rank {rank}",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Connection was likely closed\. Did the remote server shutdown or crash",
            example="torch.distributed.DistNetworkError: Failed to recv, got 0 bytes. Connection was likely "
            "closed. Did the remote server shutdown or crash?",
            counter_example="Connection was closed by the client",
            cause="The process that holds the job's store (rank 0) has gone",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"ncclRemoteError",
            example="ncclRemoteError: A call failed possibly due to a network error or a remote process "
            "exiting",
            counter_example="ncclSystemError: System call (e.g. socket, malloc)",
            cause="A process at the other end has gone, or the network between the ranks broke",
            standing="aftermath",
        ),
    )
    remedies = (
        remedy(
            "name the interface that routes between the nodes (ip addr shows them)",
            "NCCL_SOCKET_IFNAME=eth0",
            "environment",
        ),
        remedy(
            "let NCCL say what it tried: the line with WARN has the reason", "NCCL_DEBUG=INFO", "environment"
        ),
        remedy("open all TCP ports between the nodes, and read the log of the other node or rank"),
        remedy("leave InfiniBand aside to test it", "NCCL_IB_DISABLE=1", "environment"),
    )
