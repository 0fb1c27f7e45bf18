"""A launch line contradicts itself, or starts more processes on a node than there are GPUs for."""

from __future__ import annotations

import re
from typing import Iterable, Iterator, Mapping

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
from llm_doctor.model import Confidence, Edit, Environment, Finding, Fix, Gpu, Gpus, Severity
from llm_doctor.workload.data import Job, Launch, Place, Value, Workload
from llm_doctor.workload.launch import COMMAND_LINE

_COUNTS = ("nproc_per_node", "num_gpus", "num_processes")
_ONE_OF = ("cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp")


class LauncherConflict(Check):
    """A launch line contradicts itself, or starts more processes on a node than there are GPUs for.

    ## What it finds

    - `deepspeed` with `--include` or `--exclude` beside `--num_gpus` or `--num_nodes`, or with both filters;
    - `CUDA_VISIBLE_DEVICES` beside `deepspeed --include` or `--num_gpus`, or `accelerate --gpu_ids`, where
      the processes get GPUs that it hides;
    - `torchrun --standalone` for several nodes;
    - `accelerate launch --multi_gpu` with one process, and two of `--cpu --multi_gpu --tpu --use_deepspeed
      --use_fsdp`;
    - more processes on a node than GPUs that they see: by `CUDA_VISIBLE_DEVICES`, by what the batch job asks
      for, or by what this node has.

    ## Why it breaks

    The launchers refuse the first ones with a ValueError, before the script is started. deepspeed sets
    `CUDA_VISIBLE_DEVICES` itself and says so in one line that is lost among others. `--standalone` meets at
    localhost, where the other nodes never come. A process without a GPU of its own ends with "invalid device
    ordinal", or shares one and runs out of memory.

    ## How it is proven

    By the launchers' own rules, the same in deepspeed 0.9.5 and 0.19.8, torch 1.12 and 2.13, accelerate
    0.20.3 and 1.15. Nothing is launched.

    ## Fix

    Say it once: drop the option that the other one already says; start as many processes as there are GPUs.

    ## References

    - deepspeed/launcher/runner.py, main and parse_resource_filter (0.9.5, 0.19.8)
    - accelerate/commands/launch.py, _validate_launch_command (0.20.3, 1.15.0)
    - torch/distributed/run.py, run (2.13.0)
    - https://slurm.schedmd.com/sbatch.html#OPT_gres
    """

    name = "launcher-conflict"
    topic = "device-placement"
    severity = "error"
    since = "0.1.0"
    of_workload = True
    url = "https://www.deepspeed.ai/getting-started/#resource-configuration-single-node"
    symptoms = (
        Symptom(
            pattern=r"Cannot specify num_nodes/gpus with include/exclude"
            r"|include_str and exclude_str are mutually exclusive",
            example="ValueError: Cannot specify num_nodes/gpus with include/exclude",
            counter_example="ValueError: Cannot specify a negative number of GPUs",
            cause="The launch line names GPUs twice: --include or --exclude, and a number of nodes or GPUs",
            fixes=(remedy("keep one of them", "deepspeed --include localhost:0,1 train.py"),),
        ),
        Symptom(
            pattern=r"No slot `(?P<slot>\d+)` specified on host `(?P<host>[\w.-]{1,80})",
            example="ValueError: No slot '8' specified on host 'localhost'",
            counter_example="ValueError: Hostname 'worker-0' not found in hostfile",
            cause="The launch line asks for GPU {slot} on {host}, which has no such slot",
            fixes=(
                remedy(
                    "name GPUs that are there: numbers begin with 0",
                    "deepspeed --include localhost:0,1 train.py",
                ),
            ),
        ),
        Symptom(
            pattern=r"Hostname `(?P<host>[\w.-]{1,80})` not found in hostfile",
            example="ValueError: Hostname 'worker-0' not found in hostfile",
            counter_example="ssh: Could not resolve hostname worker-0: Name or service not known",
            cause="The launch line names the host {host}, which the hostfile does not have",
            fixes=(remedy("add a line to the hostfile", "{host} slots=8", "config"),),
        ),
        Symptom(
            pattern=r"Hostfile (is not formatted correctly|contains multiple entries|contains a bad entry)"
            r"|Hostfile [^\n]{0,200}unable to proceed",
            example="ValueError: Hostfile contains a bad entry: worker-1 8, unable to proceed with training",
            counter_example="Unable to find hostfile, will proceed with training with local resources only.",
            cause="DeepSpeed cannot read its hostfile",
            fixes=(remedy("one host a line, each once", "worker-1 slots=8\nworker-2 slots=8", "config"),),
        ),
        Symptom(
            pattern=r"You need to use at least 2 processes to use `--multi_gpu`",
            example="ValueError: You need to use at least 2 processes to use `--multi_gpu`.",
            counter_example="ValueError: You need to manually pass in `--num_processes`.",
            cause="accelerate launch --multi_gpu is given one process",
            fixes=(
                remedy("name the number of GPUs", "accelerate launch --multi_gpu --num_processes 8 train.py"),
            ),
        ),
        Symptom(
            pattern=r"You can only use one of `--cpu`, `--multi_gpu`",
            example="ValueError: You can only use one of `--cpu`, `--multi_gpu`, `--tpu`,"
            " `--use_deepspeed`, `--use_fsdp` at a time.",
            counter_example="ValueError: You need to manually pass in `--num_processes`.",
            cause="accelerate launch is given several kinds of run at a time",
            fixes=(remedy("keep one of --cpu, --multi_gpu, --tpu, --use_deepspeed and --use_fsdp"),),
        ),
        Symptom(
            pattern=r"Less than two GPU ids were configured and tried to run on (with|on) multiple GPUs",
            example="ValueError: Less than two GPU ids were configured and tried to run on on multiple GPUs.",
            counter_example="two GPU ids were configured",
            cause="accelerate is to use several GPUs and its configuration names one",
            fixes=(remedy("name them all", "accelerate launch --gpu_ids 0,1 train.py"),),
        ),
        Symptom(
            pattern=r"CUDA error: invalid device ordinal|CUDA error \(?\w{0,20}\)?:? ?invalid device ordinal",
            example="RuntimeError: CUDA error: invalid device ordinal",
            counter_example="RuntimeError: CUDA error: out of memory",
            cause="A process asks for a GPU number that it does not see: more processes than GPUs, or a"
            " number counted without regard to CUDA_VISIBLE_DEVICES",
        ),
    )
    remedies = (
        remedy("start one process for each GPU that is visible", "torchrun --nproc_per_node gpu train.py"),
        remedy("look at what is visible", "nvidia-smi -L; echo $CUDA_VISIBLE_DEVICES"),
    )

    def examine(self, case: Case) -> Iterator[Suspicion]:
        """Every launch line by itself."""
        assert case.workload is not None
        if not case.workload.launches:
            raise CannotTell("no launch line in the workload")
        told = set()
        for launch in case.workload.launches:
            findings = [
                *_deepspeed(launch),
                *_hidden_gpus(launch),
                *_accelerate(launch),
                *_standalone(launch),
            ]
            if not any(it.severity == "error" for it in findings):
                findings += _too_many(case, launch)
            for finding in findings:  # several launches may share a configuration
                if (finding.subject, finding.message) not in told:
                    told.add((finding.subject, finding.message))
                    yield Suspicion(finding)

    def examples(self) -> Iterable[Example]:
        """Kept beside the check: see the end of this file."""
        return _examples()


# --- What the launchers refuse -----------------------------------------------------------------------


def _deepspeed(launch: Launch) -> Iterator[Finding]:
    if "deepspeed" not in launch.chain:
        return
    filters = [(name, value) for name in ("include", "exclude") for value in _text(launch, name)]
    if not filters:
        return
    name, value = filters[0]
    if len(filters) > 1:
        message = "--include and --exclude are both given: deepspeed takes one of them"
        yield _finding(
            "error", message, filters[1][1], _without(launch, "exclude", filters[1][1], safe=False)
        )
    for counted in ("num_gpus", "num_nodes"):
        number = launch.options.get(counted)
        if number is None or type(number.constant) is not int or number.constant < 0:
            continue
        message = (
            f"--{counted} {number.constant} is given with --{name} {value.constant}: deepspeed refuses both"
        )
        slots = _slots(value)
        same = counted == "num_gpus" and name == "include" and slots is not None
        fix = _without(launch, counted, number, safe=same and len(slots or ()) == number.constant)
        yield _finding("error", message, number, fix)


def _accelerate(launch: Launch) -> Iterator[Finding]:
    if "accelerate" not in launch.chain:
        return
    # Checked before the configuration file is read.
    given = {name: it for name, it in launch.options.items() if it.place.path == launch.place.path}
    kinds = [name for name in _ONE_OF if name in given and given[name].constant is True]
    if len(kinds) > 1:
        flags = " and ".join(f"--{it}" for it in kinds)
        yield _finding("error", f"{flags} exclude each other: accelerate takes one of them", given[kinds[1]])
    number = given.get("num_processes")
    if "multi_gpu" in kinds and number is not None and number.constant in (0, 1):
        message = f"--multi_gpu with --num_processes {number.constant}: accelerate wants at least 2"
        yield _finding(
            "error", message, number, _without(launch, "multi_gpu", given["multi_gpu"], safe=False)
        )


def _standalone(launch: Launch) -> Iterator[Finding]:
    nodes = launch.options.get("nnodes")
    if "torchrun" not in launch.chain or "standalone" not in launch.options or nodes is None:
        return
    least = str(nodes.constant).partition(":")[0]
    if nodes.known and least.isdigit() and int(least) > 1:
        message = f"--standalone with --nnodes {nodes.constant}: each node waits for the others at localhost"
        fix = Fix(
            title="meet at the first node",
            kind="command",
            applicability="manual",
            preview="--rdzv_backend c10d --rdzv_endpoint FIRST_NODE:29400",
        )
        yield _finding("error", message, nodes, fix)


# --- What is ignored ---------------------------------------------------------------------------------


def _hidden_gpus(launch: Launch) -> Iterator[Finding]:
    """GPUs that CUDA_VISIBLE_DEVICES hides, and that the launcher gives to the processes all the same."""
    variable = launch.environment.get("CUDA_VISIBLE_DEVICES")
    visible = _numbers(variable.constant) if variable is not None else None
    if variable is None or visible is None or "hostfile" in launch.options:
        return
    options = launch.options
    used: Iterable[int] | None = None
    if "deepspeed" in launch.chain and "include" in options:
        name, used = "include", _slots(options["include"])
    elif "deepspeed" in launch.chain and type(options.get("num_gpus", variable).constant) is int:
        name, used = "num_gpus", range(options["num_gpus"].constant)
    elif "accelerate" in launch.chain and "gpu_ids" in options:
        name, used = (
            "gpu_ids",
            _numbers(str(options["gpu_ids"].constant)) if options["gpu_ids"].known else None,
        )
    if used is None:
        return
    hidden = sorted(set(used) - set(visible))
    if hidden:
        value = options[name]
        numbers = ", ".join(map(str, hidden))
        more = "GPUs" if len(hidden) > 1 else "GPU"
        message = (
            f"CUDA_VISIBLE_DEVICES={variable.constant} is overridden by --{name} {value.constant}: the"
            f" processes get {more} {numbers}, which it hides"
        )
        fix = Fix(
            title="name the GPUs once",
            kind="command",
            applicability="manual",
            preview=f"deepspeed --include localhost:{variable.constant}"
            if "deepspeed" in launch.chain
            else f"--gpu_ids {variable.constant}",
        )
        yield _finding("warning", message, variable, fix)


# --- More processes than GPUs ------------------------------------------------------------------------


def _too_many(case: Case, launch: Launch) -> Iterator[Finding]:
    number = launch.processes_per_node
    one_each = any(it in launch.chain for it in ("torchrun", "deepspeed", "accelerate"))
    if number is None or number < 2 or not (one_each or "NPROC_PER_NODE" in launch.environment):
        return
    if any(getattr(launch.options.get(it), "constant", None) is True for it in ("cpu", "use_cpu", "tpu")):
        return
    seen = _gpus_for(case, launch)
    if seen is None or number <= seen[0]:
        return
    count, where = seen
    value = next((launch.options[it] for it in _COUNTS if it in launch.options), None)
    gpus = "1 GPU" if count == 1 else f"{count} GPUs"
    message = f"{number} processes are started on each node, and {where} {gpus}"
    fix = _as_many(launch, count)
    yield _finding("warning", message, value or Value(None, launch.place), fix, confidence="likely")


def _as_many(launch: Launch, gpus: int) -> Fix:
    """Where the number of processes is given: how it reads with one process for each GPU."""
    title = "start one process for each GPU that they see"
    for name in _COUNTS:
        if name in launch.options:
            value = launch.options[name]
            # accelerate counts the processes of all nodes.
            wanted = gpus * (launch.nodes or 1) if name == "num_processes" else gpus
            said = f"--{name} " if value.place.path == launch.place.path else f"{name}: "
            return remedy(title, f"{said}{value.constant} -> {said}{wanted}", "config")
    variable = launch.environment.get("NPROC_PER_NODE")
    if variable is None:
        return remedy(title)
    return remedy(title, f"NPROC_PER_NODE={variable.constant} -> NPROC_PER_NODE={gpus}", "config")


def _gpus_for(case: Case, launch: Launch) -> tuple[int, str] | None:
    """How many GPUs the processes of a node see, and by what; None where it is not known."""
    variable = launch.environment.get("CUDA_VISIBLE_DEVICES")
    # deepspeed lets itself be told by it only where no option says which GPUs.
    heeded = "deepspeed" not in launch.chain and "gpu_ids" not in launch.options
    if variable is not None and heeded:
        text = variable.constant
        if not isinstance(text, str) or not text.strip():
            return None
        items = [it for it in text.split(",") if it.strip()]
        return len(items), f"CUDA_VISIBLE_DEVICES={text} shows them"
    environment = case.known(Environment)
    variables: Mapping[str, str] = environment.variables if environment is not None else {}
    if launch.job is not None and "SLURM_JOB_ID" not in variables:
        asked = _asked_for(launch.job)
        return (asked, "the job asks for") if asked is not None else None
    gpus = case.known(Gpus)
    # Of an assumed GPU nobody has said that it is the only one.
    if gpus is None or not gpus.gpus or (case.assumed and len(gpus.gpus) == 1):
        return None
    if any(gpu.mig for gpu in gpus.gpus):
        return None
    outer = variables.get("CUDA_VISIBLE_DEVICES", "")
    if heeded and outer and not case.assumed:
        return len(outer.split(",")), f"CUDA_VISIBLE_DEVICES={outer} shows them"
    return len(gpus.gpus), "the assumed node has" if case.assumed else "this node has"


def _asked_for(job: Job) -> int | None:
    """GPUs on each node that a batch job asks for; None where that is not known.

    https://slurm.schedmd.com/sbatch.html: `--gres=gpu:a100:4`, `--gpus-per-node=a100:4`; with --exclusive
    all of a node's are given."""
    if "exclusive" in job.directives:
        return None
    value = job.directives.get("gpus-per-node")
    if value is None:
        value = job.directives.get("gres")
        if value is not None and not re.fullmatch(r"gpu(:[\w.-]+)*(\(S:[\d,-]+\))?", str(value.constant)):
            return None
    if value is None and str(getattr(job.directives.get("nodes"), "constant", "")) == "1":
        value = job.directives.get("gpus")
    if value is None or not value.known:
        return None
    last = str(value.constant).partition("(")[0].rpartition(":")[2]
    if last.isdigit():
        return int(last)
    return 1 if last == "gpu" else None


# --- Values ------------------------------------------------------------------------------------------


def _text(launch: Launch, name: str) -> Iterator[Value]:
    """An option that is a text, and not an empty one."""
    value = launch.options.get(name)
    if value is not None and isinstance(value.constant, (str, int)) and value.constant != "":
        yield value


def _slots(value: Value) -> list[int] | None:
    """The GPUs that --include names on one host, as `localhost:0,2`; None where it is not that."""
    match = re.fullmatch(r"(?:localhost|127\.0\.0\.1):([\d,]+)", str(value.constant)) if value.known else None
    return _numbers(match[1]) if match else None


def _numbers(text: object) -> list[int] | None:
    if not isinstance(text, str) or not re.fullmatch(r"\s*\d{1,4}(\s*,\s*\d{1,4})*\s*,?\s*", text):
        return None
    return [int(it) for it in re.findall(r"\d+", text)]


def _without(launch: Launch, name: str, value: Value, *, safe: bool) -> Fix:
    place = value.key or value.place
    text = "" if value.constant is True else str(value.constant)
    edit = Edit(
        action="remove-flag",
        path=place.path,
        line=place.line,
        column=place.column,
        name=f"--{name}",
        text=text,
    )
    return Fix(
        title=f"drop --{name}",
        kind="config",
        applicability="safe" if safe else "unsafe",  # which of the two is meant is not written there
        preview=f"{f'--{name} {text}'.rstrip()} -> (nothing)",
        edits=(edit,) if place.path == launch.place.path != COMMAND_LINE else (),
    )


def _finding(
    severity: Severity, message: str, value: Value, *fixes: Fix, confidence: Confidence = "certain"
) -> Finding:
    place = value.key or value.place
    return Finding(
        severity=severity, confidence=confidence, message=message, subject=at(place, "launch"), fixes=fixes
    )


# --- Examples ----------------------------------------------------------------------------------------


def _examples() -> Iterator[Example]:
    here = Place("train.sh", 7)

    def launched(
        launcher: str,
        nodes: int = 1,
        processes: int | None = None,
        environment: Mapping[str, str] = {},
        facts: Iterable[object] = (),
        **options: object,
    ) -> Case:
        launch = Launch(
            place=here,
            launcher=launcher,
            chain=(launcher,),
            options={name: Value(it, here, here) for name, it in options.items()},
            environment={name: Value(it, Place("train.sh", 3)) for name, it in environment.items()},
            processes_per_node=processes,
            nodes=nodes,
        )
        return msgspec.structs.replace(case_of(*facts), workload=Workload(launches=(launch,)))

    four = Gpus(driver="535.183.01", gpus=tuple(Gpu(index=number, name="Tesla T4") for number in range(4)))
    yield healthy("GPUs by --include", launched("deepspeed", include="localhost:0,1", processes=2))
    yield healthy(
        "a process for each GPU", launched("torchrun", nproc_per_node=4, processes=4, facts=(four,))
    )
    yield sick(
        "--include with --num_gpus",
        launched("deepspeed", include="localhost:1,0", num_gpus=2),
        "error: --num_gpus 2 is given with --include localhost:1,0: deepspeed refuses both",
    )
    yield sick(
        "CUDA_VISIBLE_DEVICES beside --num_gpus",
        launched("deepspeed", num_gpus=2, processes=2, environment={"CUDA_VISIBLE_DEVICES": "2,3"}),
        "warning: CUDA_VISIBLE_DEVICES=2,3 is overridden by --num_gpus 2: the processes get GPUs 0, 1, which"
        " it hides",
    )
    yield sick(
        "one process of several GPUs",
        launched("accelerate", multi_gpu=True, num_processes=1),
        "error: --multi_gpu with --num_processes 1: accelerate wants at least 2",
    )
    yield sick(
        "several nodes that meet at localhost",
        launched("torchrun", nodes=2, standalone=True, nnodes=2),
        "error: --standalone with --nnodes 2: each node waits for the others at localhost",
    )
    yield sick(
        "eight processes on four GPUs",
        launched("torchrun", nproc_per_node=8, processes=8, facts=(four,)),
        "warning: 8 processes are started on each node, and this node has 4 GPUs",
    )
    yield cannot_tell("no workload", case_of(), "no workload was given")
