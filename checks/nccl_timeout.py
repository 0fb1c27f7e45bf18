"""A rank waited for the others in a collective until its time was out."""

from __future__ import annotations

from llm_doctor.check import Check, Symptom, remedy


class NcclTimeout(Check):
    """A rank waited for the others in a collective until its time was out.

    ## What it finds

    In a log: the watchdog of torch's NCCL process group in the wordings from 1.13 on, its heartbeat monitor,
    and the timeouts of gloo, of monitored barriers and of the store that ranks meet at.

    ## Why it breaks

    Every rank must reach every collective in the same order. One that died, that is still tokenizing, saving
    or downloading, or that took another branch keeps the others waiting; after 10 minutes of NCCL (30 of
    gloo, and of NCCL before torch 2.2) they give up. What is printed by the ranks that waited says little:
    the rank that did not come is the cause, and its own last lines tell why.

    ## How it is proven

    By the log alone. It is taken for the cause only where no other failure is in the log.

    ## Fix

    Look for the rank that is missing. Where it is only slow, let rank 0 alone prepare the data beforehand, or
    allow more time.

    ## References

    - https://github.com/pytorch/pytorch/blob/v2.5.0/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp
    - https://github.com/pytorch/pytorch/blob/v1.13.0/torch/csrc/distributed/c10d/ProcessGroupNCCL.cpp
    - https://github.com/hiyouga/LlamaFactory/issues/7396
    """

    name = "nccl-timeout"
    topic = "nccl"
    severity = "error"
    since = "0.1.0"
    of_log = True
    url = "https://pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group"
    symptoms = (
        Symptom(
            pattern=r"Watchdog caught collective operation timeout: WorkNCCL\((?:SeqNum=(?P<number>\d+), )?"
            r"OpType=(?P<operation>\w+)[^\n]{0,160}Timeout\(ms\)=(?P<limit>\d+)\)",
            example="[rank0]:[E321 02:07:08.408271257 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught "
            "collective operation timeout: WorkNCCL(SeqNum=1580, OpType=ALLREDUCE, NumelIn=466119168, "
            "NumelOut=466119168, Timeout(ms)=600000) ran for 600060 milliseconds before timing out.",
            counter_example="[E ProcessGroupNCCL.cpp:821] NCCL watchdog thread started!",
            cause="A rank waited in {operation} for {limit} ms, and another one did not come",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Watchdog caught collective operation timeout",
            example="RuntimeError: [Rank 1] Watchdog caught collective operation timeout: WorkNCCL(",
            counter_example="NCCL watchdog thread terminated normally",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Caught collective operation timeout",
            example="RuntimeError: [Rank 2] Caught collective operation timeout: WorkNCCL(OpType=BROADCAST, "
            "TensorShape=[1], Timeout(ms)=1800000) ran for 1808499 milliseconds before timing out.",
            counter_example="collective operation finished",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Timeout\(ms\)=(?P<limit>\d{1,12})\) ran for \d+ milliseconds before timing out",
            example="WorkNCCL(SeqNum=9, OpType=_ALLGATHER_BASE, Timeout(ms)=1800000) ran for 1800520 "
            "milliseconds before timing out.",
            counter_example="ran for 12 milliseconds",
            cause="A rank waited in a collective for {limit} ms, and another one did not come",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Some NCCL operations have failed or timed out",
            example="[E ProcessGroupNCCL.cpp:456] Some NCCL operations have failed or timed out. Due to the "
            "asynchronous nature of CUDA kernels, subsequent GPU operations might run on corrupted data.",
            counter_example="NCCL INFO comm 0x55 rank 0 nranks 2 - Init COMPLETE",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"To avoid (?:this|data) inconsistency, we are taking the entire process down",
            example="[E ProcessGroupNCCL.cpp:461] To avoid data inconsistency, we are taking the entire "
            "process down.",
            counter_example="To avoid deadlocks, parallelism is disabled",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Exception \(either an error or timeout\) detected by watchdog",
            example="[PG 1 Rank 0] Exception (either an error or timeout) detected by watchdog at work: "
            "1580, "
            "last enqueued NCCL work: 1582, last completed NCCL work: 1579.",
            counter_example="Process group watchdog thread started",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"watchdog thread terminated with exception: (?:\[[^\n\]]{1,30}\] )?Watchdog\b",
            example="[PG 0 Rank 3] Process group watchdog thread terminated with exception: [Rank 3] "
            "Watchdog "
            "caught collective operation timeout",
            counter_example="Process group watchdog thread terminated with exception: CUDA error: "
            "device-side "
            "assert triggered",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"timed out after waiting for \d{1,9} ?ms flight recorder dumps to finish",
            example="[rank3]:[W602 11:18:52.489301002 ProcessGroupNCCL.cpp:2111] [PG ID 1 PG GUID 1 Rank 3] "
            "timed out after waiting for 60000ms flight recorder dumps to finish.",
            counter_example="flight recorder is disabled",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Heartbeat monitor timed out",
            example="[PG 0 Rank 0] Heartbeat monitor timed out! Process will be terminated after dumping "
            "debug "
            "info.",
            counter_example="NCCL watchdog thread heartbeat is enabled",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"ProcessGroupNCCL` s watchdog got stuck for (?P<seconds>\d+) ?seconds",
            example="[PG 0 Rank 1] ProcessGroupNCCL's watchdog got stuck for 600 seconds without making "
            "progress in monitoring enqueued collectives.",
            counter_example="ProcessGroupNCCL initialization options: size: 2",
            cause="torch's NCCL watchdog was stuck for {seconds} s: a rank hangs in a CUDA call or an NCCL "
            "one",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Received (?:a )?(?:dump|timeout) signal (?:due to a collective timeout )?from",
            example="[PG 0 Rank 2] Received a dump signal due to a collective timeout from rank 5 and we "
            "will "
            "try our best to dump the debug info.",
            counter_example="Received signal 15",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Observed flight recorder dump signal from",
            example="[PG 0 Rank 0] Observed flight recorder dump signal from another rank via TCPStore.",
            counter_example="flight recorder enabled",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Timeout at (?:NCCL work|collective): ",
            example="[PG ID 0 Rank 0] Timeout at NCCL work: 12, last enqueued NCCL work: 12, last completed "
            "NCCL work: 11.",
            counter_example="Timeout at 30 seconds",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"failed to pass monitoredBarrier in (?P<limit>\d+) ?ms",
            example="RuntimeError: Rank 1 successfully reached monitoredBarrier, but received errors while "
            "waiting for send/recv from rank 0. [Rank 0]: Ranks 1 failed to pass monitoredBarrier in "
            "1800000 ms",
            counter_example="all ranks passed monitoredBarrier",
            cause="A rank did not come to a barrier within {limit} ms",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"successfully reached monitoredBarrier, but received errors",
            example="RuntimeError: Rank 3 successfully reached monitoredBarrier, but received errors while "
            "waiting for send/recv from rank 0. Please check rank 0 logs for faulty rank.",
            counter_example="monitoredBarrier passed",
            cause="A rank did not come to a barrier in time",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Timed out waiting (?P<limit>\d+) ?ms for (?:recv|send) operation to complete",
            example="RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out "
            "waiting 1800000ms for recv operation to complete",
            counter_example="Timed out waiting for clients",
            cause="A rank waited for another one over gloo for {limit} ms",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Application timeout caused pair closure",
            example="RuntimeError: [../third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:136] "
            "Application "
            "timeout caused pair closure",
            counter_example="Connection closed by peer [10.0.0.2]:4711",
            cause="A rank did not answer over gloo in time",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"wait timeout after (?P<limit>\d+) ?ms",
            example="torch.distributed.DistStoreError: wait timeout after 300000ms, keys: "
            "/default_pg/0//cuda//timeout_dump",
            counter_example="wait for the port, timeout 300 s",
            cause="A rank waited at the store for {limit} ms for what another one was to write there",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"barrier timeout after \d+ ?ms",
            example="torch.distributed.DistStoreError: barrier timeout after 300000ms, key: /init",
            counter_example="barrier passed after 300 ms",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"store->get\(`[^\n']{0,60}`\) got error: ",
            example="key-value store by key '0:1', but store->get('0:1') got error: Connection reset by peer",
            counter_example="store->get() returned 8 bytes",
            cause="A rank got no NCCL id from rank 0: rank 0 died before, or never came to its first "
            "collective",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"NCCL communicator and retrieving ncclUniqueId",
            example="RuntimeError: [1] is setting up NCCL communicator and retrieving ncclUniqueId from "
            "[0] via "
            "c10d key-value store by key '0', but store->get('0') got error: Socket Timeout",
            counter_example="ncclUniqueId was broadcast",
            cause="A rank got no NCCL id from rank 0: rank 0 died before, or never came to its first "
            "collective",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Error: Socket Timeout",
            example="torch.distributed.DistStoreError: Socket Timeout",
            counter_example="urllib3.exceptions.ReadTimeoutError: Read timed out.",
            cause="A rank waited at the store for another one in vain",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Timeout waiting for key:",
            example="RuntimeError: Timeout waiting for key: default_pg/0/0 after 300000 ms",
            counter_example="Timed out waiting for clients",
            cause="A rank waited at the store for another one in vain",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"are the lagging ranks that caused this timeout",
            example="[1, 3] are the lagging ranks that caused this timeout. They never joined any "
            "collectives",
            counter_example="ranks joined",
            standing="aftermath",
        ),
        Symptom(
            pattern=r"Detected mismatch between collectives on ranks",
            example="RuntimeError: Detected mismatch between collectives on ranks. Rank 0 is running "
            "collective: "
            "CollectiveFingerPrint(OpType=ALLREDUCE, TensorShape=[1]), but Rank 1 is running collective: "
            "CollectiveFingerPrint(OpType=BARRIER).",
            counter_example="all collectives match on ranks",
            cause="The ranks run different collectives at the same time: their programs took different ways",
            fixes=(
                remedy(
                    "let every rank call the same collectives in the same order: look for branches on the "
                    "rank,"
                    " and for batches that only some ranks have"
                ),
            ),
        ),
        Symptom(
            pattern=r"No available (?:shared memory broadcast )?block found in \d+ ?second",
            example="INFO shm_broadcast.py:501 No available shared memory broadcast block found in 60 "
            "seconds. "
            "This typically happens when some processes are hanging",
            counter_example="No available memory for the cache blocks",
            cause="vLLM's workers wait for one that hangs",
            standing="hint",
        ),
    )
    remedies = (
        remedy("look at the last lines of each rank's own log: the rank without this message is the cause"),
        remedy(
            "where a rank is only slow (tokenizing, saving, downloading), allow more time",
            "TrainingArguments(..., ddp_timeout=7200)",
            "edit",
        ),
        remedy(
            "say which collective and which rank, in the next run",
            "TORCH_DISTRIBUTED_DEBUG=DETAIL TORCH_NCCL_TRACE_BUFFER_SIZE=2000 NCCL_DEBUG=INFO",
            "environment",
        ),
        remedy(
            "if every rank hangs in its first collective, leave peer access aside to test the links",
            "NCCL_P2P_DISABLE=1",
            "environment",
        ),
    )
