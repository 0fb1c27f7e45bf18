"""Launch lines: which program a command starts, by which launcher, with how many processes on how many nodes.

The options are those of deepspeed 0.9 to 0.19.8 (launcher/runner.py), torch 2.0 to 2.13 (distributed/run.py)
and accelerate 0.20 to 1.15 (commands/launch.py); srun's are those of https://slurm.schedmd.com/srun.html,
mpirun's those of Open MPI 4 and MPICH 4.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from typing import Dict, List, Mapping, NamedTuple, Sequence, Tuple

from llm_doctor.host import Host, Unavailable
from llm_doctor.workload.config import read_config
from llm_doctor.workload.data import UNKNOWN, Job, Launch, Place, Value

COMMAND_LINE = "command line"
"""The path of what was given as words, not in a file."""
FILE_LIMIT = 1 << 20
"""Bytes of a hostfile or a configuration of accelerate."""
CHAIN_LIMIT = 20
"""Of launchers behind each other; there is no program behind so many."""
ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_PYTHON = re.compile(r"(python|pypy|ipython)[\d.]*(\.exe)?")
_PYTHON_VARIABLE = re.compile(r"\$\{?\w*(PYTHON|PY)\w*\}?|.*/python[\d.]*", re.IGNORECASE)
_NO_PROGRAM = frozenset({"setup.py", "get-pip.py", "collect_env.py"})
_NO_PROGRAM_MODULES = re.compile(
    r"(pip|venv|virtualenv|ensurepip|pytest|unittest|build|compileall|zipfile|tarfile|site|timeit|json\.tool"
    r"|http\.server|ipykernel|jupyter|notebook|black|isort|flake8|ruff|mypy|pylint|torch\.utils\.collect_env"
    r"|nltk\.downloader|bitsandbytes|xformers\.info|grpc_tools\.protoc|spacy|tensorboard\.main)"
)


class _Syntax(NamedTuple):
    """How a command's own options are told from the program behind them."""

    names: Mapping[str, str]
    """Each spelling, with `_` for `-`, and the name it stands for."""
    values: Mapping[str, int]
    """How many words follow each name; 0 for a flag."""
    abbreviates: bool = True
    last: Tuple[str, ...] = ()
    """Options after whose value the program's own arguments begin."""


def _syntax(described: str, *, abbreviates: bool = True, last: Tuple[str, ...] = ()) -> _Syntax:
    """From `N/nodes= quiet`: spellings by `/`, the longest is the name, and a `=` for each value."""
    names: Dict[str, str] = {}
    values: Dict[str, int] = {}
    for item in described.split():
        spellings = item.rstrip("=").split("/")
        name = max(spellings, key=len)
        values[name] = len(item) - len(item.rstrip("="))
        names.update(dict.fromkeys(spellings, name))
    return _Syntax(names, values, abbreviates, last)


_DEEPSPEED = _syntax(
    """H/hostfile= i/include= e/exclude= num_nodes= num_gpus= num_accelerators= master_port= master_addr=
    node_rank= launcher= launcher_args= module no_python no_local_rank no_ssh no_ssh_check force_multi
    save_pid enable_each_rank_log= autotuning= elastic_training min_elastic_nodes= max_elastic_nodes=
    bind_cores_to_rank bind_core_list= ssh_port= venv_script= log_level= q/quiet h/help"""
)
_TORCHRUN = _syntax(
    """nnodes= nproc_per_node= rdzv_backend= rdzv_endpoint= rdzv_id= rdzv_conf= standalone max_restarts=
    monitor_interval= start_method= event_log_handler= role= m/module no_python run_path log_dir= r/redirects=
    t/tee= local_ranks_filter= duplicate_stdout_filters= duplicate_stderr_filters= node_rank= master_addr=
    master_port= local_addr= logs_specs= numa_binding= signals_to_handle= shutdown_timeout= virtual_local_rank
    use_env h/help"""
)
_ACCELERATE = _syntax(
    """h/help config_file= q/quiet cpu multi_gpu tpu ipex mixed_precision= num_processes= num_machines=
    num_cpu_threads_per_process= enable_cpu_affinity dynamo_backend= dynamo_mode= dynamo_use_fullgraph
    dynamo_use_dynamic dynamo_use_regional_compilation use_deepspeed use_fsdp use_parallelism_config
    use_megatron_lm use_xpu use_mps_device gpu_ids= same_network machine_rank= main_process_ip=
    main_process_port= t/tee= log_dir= role= rdzv_backend= rdzv_conf= max_restarts= monitor_interval= m/module
    no_python tpu_cluster no_tpu_cluster tpu_use_sudo vm= env= main_training_function= downcast_bf16
    deepspeed_config_file= zero_stage= offload_optimizer_device= offload_param_device=
    offload_optimizer_nvme_path= offload_param_nvme_path= gradient_accumulation_steps= gradient_clipping=
    zero3_init_flag= zero3_save_16bit_model= deepspeed_hostfile= deepspeed_exclusion_filter=
    deepspeed_inclusion_filter= deepspeed_multinode_launcher= deepspeed_moe_layer_cls_names=
    fp8_use_autocast_during_eval mpirun_hostfile= mpirun_ccl= debug""",
    abbreviates=False,  # CustomArgumentParser(allow_abbrev=False)
)
_PYTHON_OPTIONS = _syntax("b B d E h i I O OO P q s S u v V x c= m= W= X=", last=("c", "m"))
_SRUN = _syntax(
    """A/account= b/begin= B/extra_node_info= c/cpus_per_task= C/constraint= d/dependency= D/chdir= e/error=
    E/preserve_env G/gpus= h/help H/hold i/input= I/immediate J/job_name= k/no_kill K/kill_on_bad_exit l/label
    L/licenses= m/distribution= M/clusters= n/ntasks= N/nodes= o/output= O/overcommit p/partition= q/qos=
    Q/quiet r/relative= s/oversubscribe S/core_spec= t/time= T/threads= u/unbuffered v/verbose V/version
    w/nodelist= W/wait= x/exclude= X/disable_status Z/no_allocate accel_bind= acctg_freq= bcast= bb= bbf=
    cluster_constraint= comment= container= contiguous cores_per_socket= cpu_bind= cpu_freq= cpus_per_gpu=
    deadline= delay_boot= epilog= exact exclusive export= external gpu_bind= gpu_freq= gpus_per_node=
    gpus_per_socket= gpus_per_task= gres= gres_flags= het_group= hint= jobid/job_id= mail_type= mail_user=
    mcs_label= mem= mem_bind= mem_per_cpu= mem_per_gpu= mincpus= mpi= msg_timeout= multi_prog network= nice
    ntasks_per_core= ntasks_per_gpu= ntasks_per_node= ntasks_per_socket= open_mode= overlap power= prefer=
    priority= profile= prolog= propagate pty reboot reservation= resv_ports send_libs signal= slurmd_debug=
    sockets_per_node= spread_job switches= task_epilog= task_prolog= test_only thread_spec=
    threads_per_core= time_min= tmp= tres_bind= tres_per_task= usage use_min_nodes whole x11
    container_image= container_mounts= container_workdir= container_name= container_writable
    no_container_mount_home container_mount_home container_remap_root container_env="""
)
_MPIRUN = _syntax(
    """np/n/c= N/npernode/ppn= H/host/hosts= f/hostfile/machinefile= x= mca== gmca== genv== env==
    genvlist= envlist= genvall map_by= bind_to= rank_by= prefix= wdir= wd= output_filename= timeout= tune= am=
    cpu_list= cpu_set= path= allow_run_as_root oversubscribe nooversubscribe tag_output timestamp_output
    report_bindings display_map display_allocation bynode byslot nolocal v q h l verbose quiet
    launcher= iface= bootstrap= rmk= print_rank_map"""
)
_HOROVODRUN = _syntax(
    """np/num_proc= H/hosts= hostfile= p/ssh_port= i/ssh_identity_file= network_interface/network_interfaces=
    gloo mpi gloo_timeout_seconds= verbose disable_cache output_filename= start_timeout= config_file=
    fusion_threshold_mb= cycle_time_ms= cache_capacity= timeline_filename= log_level= autotune mpi_args=
    min_np= max_np= slots= host_discovery_script= prefix_output_with_timestamp h/help"""
)


class _Wrapper(NamedTuple):
    """A command that runs the command behind its options.

    `skipped` words stand between: a duration, an image. `commands` are the subcommands that do so; `python`
    says that what follows are python's arguments."""

    syntax: _Syntax
    skipped: int = 0
    commands: Tuple[str, ...] = ()
    python: bool = False


_CONTAINER = _Wrapper(
    _syntax(
        """B/bind= H/home= W/workdir= S/scratch= env= env_file= pwd/cwd= overlay= o/mount= app= network=
        hostname= dns= fakeroot f nv nvccli rocm e/cleanenv c/contain C/containall i/ipc p/pid u/userns
        w/writable writable_tmpfs no_home compat no_mount= unsquash security= nohttps q/quiet d/debug"""
    ),
    skipped=1,
    commands=("exec", "run"),
)
_CONDA = _Wrapper(
    _syntax("n/name= p/prefix= no_capture_output live_stream s/no_stream cwd= v/verbose dev"),
    commands=("run",),
)
_RUNNER = _Wrapper(
    _syntax(
        """with= with_editable= with_requirements= p/python= package= extra= all_extras group= no_group=
        only_group= env_file= isolated active frozen locked no_sync no_project project= directory=
        e/environment= q/quiet v/verbose index_url= extra_index_url= no_dev dev offline refresh"""
    ),
    commands=("run",),
)
_NICE = _Wrapper(_syntax("n/adjustment= c/class= classdata= t/ignore"))
_WRAPPERS: Dict[str, _Wrapper] = {
    "nohup": _Wrapper(_syntax("help version")),
    "time": _Wrapper(_syntax("p/portability f/format= o/output= a/append v/verbose q/quiet")),
    "exec": _Wrapper(_syntax("a= c l")),
    "command": _Wrapper(_syntax("p")),
    "builtin": _Wrapper(_syntax("")),
    "setsid": _Wrapper(_syntax("c/ctty f/fork w/wait")),
    "sudo": _Wrapper(_syntax("E/preserve_env H/set_home n/non_interactive u/user= g/group= b i s")),
    "nice": _NICE,
    "ionice": _NICE,
    "stdbuf": _Wrapper(_syntax("i/input= o/output= e/error=")),
    "unbuffer": _Wrapper(_syntax("p")),
    "timeout": _Wrapper(_syntax("k/kill_after= s/signal= foreground preserve_status v/verbose"), skipped=1),
    "taskset": _Wrapper(_syntax("c/cpu_list= a/all_tasks p/pid")),
    "numactl": _Wrapper(
        _syntax(
            """i/interleave= w/weighted_interleave= p/preferred= P/preferred_many= m/membind= N/cpunodebind=
            C/physcpubind= l/localalloc a/all b/balancing"""
        )
    ),
    "env": _Wrapper(_syntax("i/ignore_environment u/unset= C/chdir= v/debug 0/null S/split_string")),
    "screen": _Wrapper(_syntax("d m D S= L Logfile= h= c= t=")),
    "srun": _Wrapper(_SRUN),
    "mpirun": _Wrapper(_MPIRUN),
    "mpiexec": _Wrapper(_MPIRUN),
    "orterun": _Wrapper(_MPIRUN),
    "horovodrun": _Wrapper(_HOROVODRUN),
    "singularity": _CONTAINER,
    "apptainer": _CONTAINER,
    "conda": _CONDA,
    "mamba": _CONDA,
    "micromamba": _CONDA,
    "poetry": _RUNNER,
    "uv": _RUNNER,
    "pipenv": _RUNNER,
    "pdm": _RUNNER,
    "rye": _RUNNER,
    "hatch": _RUNNER,
    "pixi": _RUNNER,
    "nsys": _Wrapper(
        _syntax("o/output= t/trace= s/sample= f/force_overwrite= w/show_output="), commands=("profile",)
    ),
    "ncu": _Wrapper(
        _syntax("o/export= f/force_overwrite k/kernel_name= c/launch_count= set= section= target_processes=")
    ),
    "py-spy": _Wrapper(
        _syntax("o/output= f/format= d/duration= r/rate= s/subprocesses n/native"), commands=("record",)
    ),
    "coverage": _Wrapper(
        _syntax("p/parallel_mode a/append branch source= include= omit= rcfile= L/pylib"), 0, ("run",), True
    ),
    "viztracer": _Wrapper(
        _syntax("o/output_file= tracer_entries= log_async open max_stack_depth="), 0, (), True
    ),
    "kernprof": _Wrapper(_syntax("l/line_by_line v/view b/builtin o/outfile= s/setup="), 0, (), True),
}
_PYTHON_TOOLS: Dict[str, _Wrapper] = {
    "pdb": _Wrapper(_syntax("c/command="), python=True),
    "ipdb": _Wrapper(_syntax("c/command="), python=True),
    "debugpy": _Wrapper(
        _syntax("listen= connect= wait_for_client log_to= configure_subProcess="), python=True
    ),
    "cProfile": _Wrapper(_syntax("o/outfile= s/sort="), python=True),
    "coverage": _WRAPPERS["coverage"],
    "memory_profiler": _Wrapper(_syntax("o= pdb_mmem= precision= timestamp include_children"), python=True),
    "viztracer": _WRAPPERS["viztracer"],
    "kernprof": _WRAPPERS["kernprof"],
    "torch.utils.bottleneck": _Wrapper(_syntax(""), python=True),
    "mpi4py": _Wrapper(_syntax(""), python=True),
}
"""What `python -m` runs another script or module with."""
_MODULES = {
    "torch.distributed.run": ("torchrun",),
    "torch.distributed.launch": ("torchrun",),
    "deepspeed.launcher.runner": ("deepspeed",),
    "accelerate.commands.launch": ("accelerate", "launch"),
    "accelerate.commands.accelerate_cli": ("accelerate",),
    "llamafactory.cli": ("llamafactory-cli",),
    "llamafactory.launcher": ("llamafactory-cli",),
    "axolotl.cli.main": ("axolotl",),
    "trl.cli": ("trl",),
    "horovod.runner": ("horovodrun",),
}
"""Modules that are a launcher, and the words that the launcher is called by otherwise."""
_COMMANDS = {
    "llamafactory-cli": ("train", "export", "chat", "api", "eval", "webchat"),
    "axolotl": ("train", "inference", "evaluate", "preprocess", "merge-lora", "quantize", "vllm-serve"),
    "trl": ("sft", "dpo", "kto", "grpo", "rloo", "reward", "ppo", "orpo", "chat", "vllm-serve"),
    "swift": ("sft", "pt", "rlhf", "infer", "export", "eval", "deploy", "sample", "rollout", "merge-lora"),
}
"""Frameworks with a command of their own, and which of their subcommands run a model."""
_SPELLINGS = {
    "lmf": "llamafactory-cli",
    "deepspeed.pt": "deepspeed",
    "ds": "deepspeed",
    "accelerate-launch": "accelerate",
    "mpiexec.hydra": "mpiexec",
}
LAUNCHERS = frozenset({"python", "deepspeed", "torchrun", "accelerate", *_COMMANDS, *_SPELLINGS, *_WRAPPERS})
"""What a launch line may begin with, by base name; python is any of its interpreters."""


class _World(NamedTuple):
    """How many processes a launcher starts, as far as it is known."""

    per_node: int | None
    nodes: int | None


_ONE = _World(1, 1)
_NOT_KNOWN = _World(None, None)


def is_launch(words: Sequence[str]) -> bool:
    """Whether the words of a command line are a launch line, rather than files and folders.

    Launchers and interpreters are, by base name, where something follows that they could start."""
    rest = list(words)
    while rest and ASSIGNMENT.fullmatch(rest[0]):
        rest = rest[1:]
    if len(rest) < 2:
        return False
    name = _name(rest[0])
    if name not in LAUNCHERS:
        return False
    if rest[0] == "accelerate-launch":
        return True
    commands = ("launch",) if name == "accelerate" else _COMMANDS.get(name, ())
    if name in _WRAPPERS:
        commands = _WRAPPERS[name].commands
        if not commands:
            return any(_name(word) in LAUNCHERS or word.endswith(".py") for word in rest[1:])
    if commands:
        return rest[1] in commands
    return any(word.startswith("-") or word.endswith(".py") for word in rest[1:])


def command_line(words: Sequence[str]) -> Tuple[Value, ...]:
    """The words of a command line with their places in it: line 1, columns as if joined by one blank."""
    found: List[Value] = []
    column = 1
    for word in words:
        found.append(Value(word, Place(COMMAND_LINE, 1, column, 1, column + len(word))))
        column += len(word) + 1
    return tuple(found)


def launch_of(
    words: Sequence[Value],
    *,
    host: Host,
    environment: Mapping[str, Value] = {},
    job: Job | None = None,
    directory: str = "",
) -> Launch | None:
    """The launch that these words are; None where they start no training or inference program.

    A word that is not known is UNKNOWN. Of files, it reads a hostfile and accelerate's configuration. Numbers
    among the launcher's options are ints. A framework's subcommand (`train`, `sft`) is `command` there."""
    if not words:
        return None
    return _Line(host, environment, job, directory, words[0].place).read(tuple(words))


class _Given(NamedTuple):
    """A launcher's options as they were read, and what follows them.

    `open` says that there may be others, as of a variable that is not known."""

    options: Dict[str, Value]
    rest: Tuple[Value, ...]
    open: bool
    pairs: Tuple[Tuple[str, Value], ...]

    def number(self, name: str) -> int | None:
        """The option as a number; None where it is not given or not known."""
        value = self.options.get(name)
        return _number(value)

    def on(self, name: str) -> bool:
        """Whether a flag is given."""
        value = self.options.get(name)
        return value is not None and value.constant is True


class _Line:
    """One command on its way from the outermost launcher to the program."""

    def __init__(
        self, host: Host, environment: Mapping[str, Value], job: Job | None, directory: str, place: Place
    ) -> None:
        self._host = host
        self._environment = dict(environment)
        self._job = job
        self._directory = directory
        self._place = place
        self._chain: List[str] = []
        self._tasks: _World | None = None
        """What srun or mpirun start of each program behind them."""

    def read(self, words: Tuple[Value, ...]) -> Launch | None:
        """Takes one launcher after the other off the words."""
        while len(self._chain) < CHAIN_LIMIT:
            words = self._take_assignments(words)
            if not words:
                return None
            first, rest = words[0].constant, words[1:]
            if first is UNKNOWN:
                return self._unknown_program(words)
            name = _name(str(first))
            if name == "python":
                read = self._python(rest)
                if read is None or isinstance(read, Launch):
                    return read
                words = read
            elif name in _WRAPPERS:
                words = self._unwrap(name, _WRAPPERS[name], rest)
            elif name == "deepspeed":
                return self._deepspeed(rest)
            elif name == "torchrun":
                return self._torchrun(rest)
            elif name == "accelerate" and (first == "accelerate-launch" or _is(rest[:1], "launch")):
                return self._accelerate(rest if first == "accelerate-launch" else rest[1:])
            elif name in _COMMANDS:
                return self._framework(name, rest)
            elif str(first).endswith(".py"):
                return self._program("python", words, self._tasks or _ONE)
            else:
                return None
        return None

    # --- What stands before a launcher -------------------------------------------------------------

    def _take_assignments(self, words: Tuple[Value, ...]) -> Tuple[Value, ...]:
        while words and isinstance(words[0].constant, str):
            match = ASSIGNMENT.fullmatch(words[0].constant)
            if match is None:
                break
            self._assign(match[1], match[2], words[0])
            words = words[1:]
        return words

    def _assign(self, name: str, text: str, word: Value) -> None:
        place = word.place
        if (place.line, place.column + len(name) + 1 + len(text)) == (place.end_line, place.end_column):
            place = place._replace(column=place.column + len(name) + 1)
        self._environment[name] = Value(text, place, word.place)

    def _unwrap(self, name: str, wrapper: _Wrapper, words: Tuple[Value, ...]) -> Tuple[Value, ...]:
        """What is behind a wrapper; nothing where it does not run a command."""
        if wrapper.commands:
            command = next((it for it in words if not str(it.constant).startswith("-")), None)
            if command is None or command.constant not in wrapper.commands:
                return ()
            at = words.index(command)
            words = (*words[:at], *words[at + 1 :])
        given = _options(wrapper.syntax, words)
        rest = given.rest[wrapper.skipped :]
        self._chain.append(name)
        if name == "srun":
            self._tasks = _srun_world(given, self._job)
        elif wrapper.syntax in (_MPIRUN, _HOROVODRUN):
            self._tasks = _mpi_world(given)
            for option, value in given.pairs:
                match = ASSIGNMENT.fullmatch(str(value.constant)) if option == "x" else None
                if match:
                    self._assign(match[1], match[2], value)
        if wrapper.python and rest:
            return (Value("python", rest[0].place), *rest)
        return rest

    def _unknown_program(self, words: Tuple[Value, ...]) -> Launch | None:
        """`$PYTHON -m module`, `$LAUNCHER train.py`: the program is known, what starts it is not."""
        if _PYTHON_VARIABLE.fullmatch(words[0].origin.strip('"')):
            read = self._python(words[1:])
            return read if read is None or isinstance(read, Launch) else self.read(read)
        given = _options(_PYTHON_OPTIONS, words[1:])
        program = given.rest[0].constant if given.rest else None
        if isinstance(program, str) and program.endswith(".py"):
            return self._program("", given.rest, _NOT_KNOWN)
        return None

    # --- The launchers -------------------------------------------------------------------------------

    def _python(self, words: Tuple[Value, ...]) -> Launch | Tuple[Value, ...] | None:
        """A launch, or the words of the launcher that a module is."""
        given = _options(_PYTHON_OPTIONS, words)
        world = self._tasks or _ONE
        module = given.options.get("m")
        if module is None:
            if "c" in given.options or not given.rest or given.rest[0].constant in ("-", ""):
                return None
            return self._program("python", given.rest, world)
        name = module.constant
        if name in _MODULES:
            return (*(Value(word, module.place) for word in _MODULES[name]), *given.rest)
        if name in _PYTHON_TOOLS:
            return self._unwrap(name, _PYTHON_TOOLS[name], given.rest)
        return self._module("python", module, given.rest, world, {})

    def _deepspeed(self, words: Tuple[Value, ...]) -> Launch | None:
        given = _options(_DEEPSPEED, words)
        accelerators = given.options.pop("num_accelerators", None)
        if accelerators is not None:
            given.options.setdefault("num_gpus", accelerators)
        return self._distributed("deepspeed", given, self._deepspeed_world(given))

    def _torchrun(self, words: Tuple[Value, ...]) -> Launch | None:
        given = _options(_TORCHRUN, words)
        absent = None if given.open else 1
        per_node = given.number("nproc_per_node") if "nproc_per_node" in given.options else absent
        nodes = given.number("nnodes") if "nnodes" in given.options else absent
        spread = given.options.get("nnodes")
        if spread is not None and isinstance(spread.constant, str):
            least, _, most = spread.constant.partition(":")
            if least == most and least.isdigit():
                nodes = int(least)
        return self._distributed("torchrun", given, _World(per_node, nodes))

    def _accelerate(self, words: Tuple[Value, ...]) -> Launch | None:
        given = _options(_ACCELERATE, words)
        config = self._accelerate_config(given)
        world = _accelerate_world(given, config)
        options = dict(given.options)
        for name, value in (config or {}).items():
            options.setdefault(name, value)
        return self._distributed("accelerate", given._replace(options=options), world)

    def _framework(self, name: str, words: Tuple[Value, ...]) -> Launch | None:
        if not words or words[0].constant not in _COMMANDS[name]:
            return None
        command, arguments = words[0], words[1:]
        return self._launch(
            name,
            {"command": command},
            arguments,
            self._framework_world(name, str(command.constant), arguments),
        )

    # --- What they start -----------------------------------------------------------------------------

    def _distributed(self, launcher: str, given: _Given, world: _World) -> Launch | None:
        if not given.rest:
            return None
        if given.on("no_python"):
            self._chain.append(launcher)
            inner = self.read(given.rest)
            if inner is None:
                return None
            return inner._replace(
                launcher=launcher, options=given.options, processes_per_node=world.per_node, nodes=world.nodes
            )
        if given.on("module"):
            return self._module(launcher, given.rest[0], given.rest[1:], world, given.options)
        return self._program(launcher, given.rest, world, given.options)

    def _module(
        self,
        launcher: str,
        module: Value,
        arguments: Tuple[Value, ...],
        world: _World,
        options: Mapping[str, Value],
    ) -> Launch | None:
        name = str(module.constant) if module.known else ""
        package, _, command = name.rpartition(".")
        framework = {"axolotl.cli": "axolotl", "swift.cli": "swift"}.get(package)
        command = command.replace("_", "-")
        if framework and command in _COMMANDS[framework]:
            self._chain.append(launcher)
            options = {**options, "command": Value(command, module.place)}
            return self._launch(framework, options, arguments, world, module=module)
        if name in _MODULES and _MODULES[name][0] in _COMMANDS:
            self._chain.append(launcher)
            inner = self._framework(_MODULES[name][0], arguments)
            return inner and inner._replace(
                options={**options, **inner.options},
                module=module,
                processes_per_node=world.per_node,
                nodes=world.nodes,
            )
        if _NO_PROGRAM_MODULES.fullmatch(name):
            return None
        return self._launch(launcher, options, arguments, world, module=module)

    def _program(
        self, launcher: str, words: Tuple[Value, ...], world: _World, options: Mapping[str, Value] = {}
    ) -> Launch | None:
        script = words[0]
        if script.known and posixpath.basename(str(script.constant)) in _NO_PROGRAM:
            return None
        return self._launch(launcher, options, words[1:], world, script=script)

    def _launch(
        self,
        launcher: str,
        options: Mapping[str, Value],
        arguments: Tuple[Value, ...],
        world: _World,
        *,
        script: Value | None = None,
        module: Value | None = None,
    ) -> Launch:
        return Launch(
            place=self._place,
            launcher=launcher,
            chain=(*self._chain, launcher),
            options=options,
            script=script,
            module=module,
            arguments=arguments,
            environment=self._environment,
            processes_per_node=world.per_node,
            nodes=world.nodes,
            job=self._job,
            directory=self._directory,
        )

    # --- How many processes --------------------------------------------------------------------------

    def _deepspeed_world(self, given: _Given) -> _World:
        """As main() of deepspeed/launcher/runner.py (0.19.8); /job/hostfile is taken to be absent."""
        gpus, nodes = given.number("num_gpus"), given.number("num_nodes")
        resource = {name: given.options.get(name) for name in ("include", "exclude", "hostfile")}
        if given.open or any(value is not None and not value.known for value in resource.values()):
            return _World(gpus, nodes)
        include, exclude, hostfile = (value and str(value.constant) for value in resource.values())
        pool = self._hostfile(hostfile) if hostfile else None
        if hostfile and pool is None:
            return _World(gpus, nodes)
        counted = "num_gpus" in given.options or "num_nodes" in given.options
        if include or exclude:
            if counted:
                return _NOT_KNOWN  # deepspeed refuses this
            return _filtered(pool, str(include or exclude), excluding=not include)
        if "launcher" in given.options and pool is None:
            return _World(gpus, nodes)  # the default hostfile it is, then
        if pool is None and not counted:
            visible = self._environment.get("CUDA_VISIBLE_DEVICES")
            text = visible.constant if visible else None
            return _World(len(text.split(",")) if isinstance(text, str) and text else None, 1)
        slots = [*(pool or {}).values()][:nodes]
        if "num_nodes" in given.options and nodes is None:
            return _World(gpus, None)
        if "num_gpus" not in given.options and len(set(slots)) == 1:
            gpus = slots[0]
        return _World(gpus, len(slots) or nodes or 1)

    def _hostfile(self, path: str) -> Dict[str, int] | None:
        _, text = self._user_file(path)
        pool: Dict[str, int] = {}
        for line in text.splitlines():
            if line.strip() and not line.strip().startswith("#"):
                match = re.match(r"(\S+)\s+slots=(\d+)", line.strip())
                if match is None:
                    return None
                pool[match[1]] = int(match[2])
        return pool or None

    def _user_file(self, path: str) -> Tuple[str, str]:
        """A file that the line names and its text; empty where there is none.

        Sought from the working directory, then beside the script that names it: it is often started there."""
        beside = posixpath.dirname(self._place.path)
        for base in dict.fromkeys((self._directory, "", beside, posixpath.dirname(beside))):
            found = posixpath.normpath(posixpath.join(base, path))
            with contextlib.suppress(Unavailable, UnicodeDecodeError):
                return found, self._host.user_file(found, FILE_LIMIT).decode("utf-8")
        return path, ""

    def _accelerate_config(self, given: _Given) -> Dict[str, Value] | None:
        """What the configuration file says, by the names of the options; None without one that can be read.

        As accelerate/commands/launch.py (1.15) `_validate_launch_command` takes it over."""
        named = given.options.get("config_file")
        if named is None:
            if given.open or given.on("cpu"):
                return None
            path = self._default_accelerate_config()
        elif isinstance(named.constant, str):
            path = named.constant
        else:
            return None
        config, _ = read_config(*self._user_file(path))
        if config is None or not isinstance(config.root.constant, dict):
            return None
        found: Dict[str, Value] = {}
        for name, value in config.root.items():
            if value.constant is None:
                continue
            found[name] = _from_config(name, value)
            prefix = {"fsdp_config": "fsdp_", "fp8_config": "fp8_", "dynamo_config": "dynamo_"}.get(name, "")
            for key, inner in value.items():
                key = key if key.startswith(prefix) else prefix + key
                found[key] = _from_config(f"{name}.{key}", inner)
        if "mixed_precision" not in found and "fp16" in found and found["fp16"].constant is True:
            found["mixed_precision"] = found["fp16"]._replace(constant="fp16")
        kind = found.get("distributed_type")
        chosen = ("multi_gpu", "tpu", "tpu_cluster", "use_deepspeed", "use_fsdp", "use_megatron_lm")
        if kind is not None and isinstance(kind.constant, str) and not any(map(given.on, chosen)):
            option = {"DEEPSPEED": "use_deepspeed", "FSDP": "use_fsdp", "MEGATRON_LM": "use_megatron_lm"}.get(
                kind.constant.upper(), "multi_gpu" if kind.constant.upper().startswith("MULTI_") else None
            )
            if option and kind.constant.upper() != "MULTI_CPU":
                found[option] = kind._replace(constant=True)
        return found

    def _default_accelerate_config(self) -> str:
        """As accelerate/commands/config/config_args.py (1.15) chooses it."""
        cache = self._host.env("HF_HOME")
        if cache is None:
            cache = posixpath.join(self._host.env("XDG_CACHE_HOME") or "~/.cache", "huggingface")
        return self._host.absolute(posixpath.join(cache, "accelerate", "default_config.yaml"))

    def _framework_world(self, name: str, command: str, arguments: Tuple[Value, ...]) -> _World:
        """LLaMA-Factory's launcher.py and ms-swift's cli/main.py start torchrun by these variables."""
        per_node, nodes = self._environment.get("NPROC_PER_NODE"), self._environment.get("NNODES")
        if name == "llamafactory-cli" and command == "train":
            return _World(_number(per_node), _number(nodes) if nodes else 1)
        if name == "swift":
            if per_node is None and nodes is None:
                return self._tasks or _ONE
            return _World(_number(per_node) if per_node else 1, _number(nodes) if nodes else 1)
        if name in ("axolotl", "trl"):
            return _NOT_KNOWN  # by the configuration of the accelerate that they start
        return self._tasks or _ONE


def _name(word: str) -> str:
    """What is called, by its base name, whichever interpreter python is."""
    name = posixpath.basename(word)
    return "python" if _PYTHON.fullmatch(name) else _SPELLINGS.get(name, name)


def _is(words: Sequence[Value], text: str) -> bool:
    return bool(words) and words[0].constant == text


def _number(value: Value | None) -> int | None:
    """A number that is known; torchrun's `gpu` and the -1 of a configuration are none."""
    if value is None or isinstance(value.constant, bool):
        return None
    if isinstance(value.constant, int):
        return value.constant if value.constant > 0 else None
    if isinstance(value.constant, str) and re.fullmatch(r"[0-9]{1,9}", value.constant):
        return int(value.constant) or None
    return None


def _from_config(name: str, value: Value) -> Value:
    origin = f"{name} on line {value.place.line} of {value.place.path}"
    return Value(value.constant, value.place, value.key, origin)


def _options(syntax: _Syntax, words: Tuple[Value, ...]) -> _Given:
    """The options up to the first word that is none, and does not belong to one."""
    pairs: List[Tuple[str, Value]] = []
    at, unclear = 0, False
    while at < len(words):
        word = words[at]
        text = word.constant
        if not isinstance(text, str):
            unclear = unclear or (at + 1 < len(words) and not words[at + 1].known)
            if not _hides_options(syntax, words[at + 1 :]):
                break
            unclear = True
            at += 1
            continue
        if text == "--":
            at += 1
            break
        if not text.startswith("-") or text == "-":
            break
        at += 1
        name, glued = _option(syntax, text)
        if name is None:  # several one-letter flags in one word
            for letter in text[1:]:
                pairs.append(
                    (syntax.names[letter], _as_option(syntax.names[letter], Value(True, word.place), word))
                )
            continue
        count = syntax.values.get(name)
        if count == 2 and at < len(words) and "=" in str(words[at].constant):
            count = 1  # mpirun -env NAME=VALUE as well as -env NAME VALUE
        if glued is not None:
            pairs.append((name, _as_option(name, Value(glued, word.place), word)))
            count = max(0, (count or 1) - 1)
            at += count
        elif count is None and at < len(words) and not _could_be_program(words[at]):
            pairs.append((name, _as_option(name, words[at], word)))
            at += 1
        elif count:
            if at < len(words):
                pairs.append((name, _as_option(name, words[at], word)))
            at += count
        else:
            pairs.append((name, _as_option(name, Value(True, word.place), word)))
        if name in syntax.last:
            break
    return _Given(dict(pairs), words[at:], unclear, tuple(pairs))


def _option(syntax: _Syntax, text: str) -> Tuple[str | None, str | None]:
    """The name of the option that a word is, and the value in the same word; no name for flags like `-uO`."""
    body = text.lstrip("-")
    spelled, equals, rest = body.partition("=")
    spelled = spelled.replace("-", "_")
    glued = rest if equals else None
    if spelled in syntax.names:
        return syntax.names[spelled], glued
    if text.startswith("--"):
        if syntax.abbreviates and spelled:
            meant = {name for written, name in syntax.names.items() if written.startswith(spelled)}
            if len(meant) == 1:
                return meant.pop(), glued
        return spelled, glued
    first = syntax.names.get(body[:1])
    if first is not None and syntax.values[first]:
        return first, body[1:]
    if first is not None and all(syntax.values.get(syntax.names.get(it, ""), 1) == 0 for it in body):
        return None, None
    if first is not None and not syntax.values[first]:  # python -um module
        last = syntax.names.get(body[-1:])
        if last in syntax.last:
            return last, None
    return spelled, glued


def _as_option(name: str, value: Value, flag: Value) -> Value:
    constant = value.constant
    if isinstance(constant, str) and re.fullmatch(r"[+-]?[0-9]{1,9}", constant):
        constant = int(constant)
    origin = f"--{name} on line {flag.place.line} of {flag.place.path}"
    return Value(constant, value.place, flag.place, origin)


def _could_be_program(word: Value) -> bool:
    """Whether a word after an option that is not known is rather the next option, or the program."""
    return (isinstance(word.constant, str) and word.constant.startswith("-")) or _is_script(word)


def _is_script(word: Value) -> bool:
    return isinstance(word.constant, str) and word.constant.endswith(".py")


def _hides_options(syntax: _Syntax, after: Sequence[Value]) -> bool:
    """Whether an unknown word stands for options of the launcher, for its program is still to come."""
    for word in after[:8]:
        if not isinstance(word.constant, str):
            continue
        if word.constant.startswith("-"):
            name, _ = _option(syntax, word.constant)
            return name is None or name in syntax.values
        return _is_script(word) or _name(word.constant) in LAUNCHERS
    return False


def _srun_world(given: _Given, job: Job | None) -> _World:
    """https://slurm.schedmd.com/srun.html: one task per node by default; the job's options are inherited."""

    def asked(name: str) -> Value | None:
        value = given.options.get(name)
        if value is None and job is not None:
            value = job.directives.get(name.replace("_", "-"))
        return value

    nodes, tasks, per_node = asked("nodes"), asked("ntasks"), asked("ntasks_per_node")
    if given.open:
        return _World(_number(given.options.get("ntasks_per_node")), _number(given.options.get("nodes")))
    count = _number(nodes)
    if nodes is None and (_number(tasks) == 1 or (tasks is None and job is not None)):
        count = 1
    if tasks is None:
        return _World(_number(per_node) if per_node else 1, count)
    total, most = _number(tasks), _number(per_node)
    if total is not None and most and nodes is None and total % most == 0:
        return _World(most, total // most)
    if total is not None and count:
        return _World(total // count if total % count == 0 else None, count)
    return _World(None, count)


def _mpi_world(given: _Given) -> _World:
    total, per_node = given.number("num_proc"), given.number("npernode")
    total = total if total is not None else given.number("np")
    hosts = next((given.options[name] for name in ("hosts", "host") if name in given.options), None)
    named = "hostfile" in given.options or "machinefile" in given.options
    if total is not None and per_node:
        return _World(per_node, total // per_node if total % per_node == 0 else None)
    if hosts is not None and isinstance(hosts.constant, str):
        nodes = len(hosts.constant.split(","))
        even = total is not None and total % nodes == 0
        return _World(total // nodes if even and total else None, nodes)
    if named or given.open or hosts is not None:
        return _World(per_node, None)
    return _World(total or per_node, 1)


def _accelerate_world(given: _Given, config: Mapping[str, Value] | None) -> _World:
    """As `_validate_launch_command` and `launch_command` of accelerate/commands/launch.py (1.15)."""
    settled = not given.open and (config is not None or "config_file" not in given.options)
    options = {**(config or {}), **given.options}
    processes, machines = options.get("num_processes"), options.get("num_machines")
    if given.on("cpu") and settled:
        return _ONE
    if processes is None and machines is None and config is None:
        return _NOT_KNOWN
    kind = (config or {}).get("distributed_type")
    chosen = any(
        name in options and options[name].constant is True
        for name in ("multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")
    )
    if kind is not None and kind.constant in ("NO", False) and not chosen:
        return _ONE
    nodes = _number(machines) if machines else (1 if settled else None)
    total = _number(processes)
    if total is None or nodes is None or total % nodes:
        return _World(None, nodes)
    return _World(total // nodes, nodes)


def _filtered(pool: Mapping[str, int] | None, named: str, *, excluding: bool) -> _World:
    """What --include or --exclude leave of the nodes (`worker-0@worker-1:0,2`)."""
    slots: Dict[str, int | None] = dict(pool or {}) if excluding else {}
    for part in named.split("@"):
        host, colon, numbers = part.partition(":")
        count = len(set(numbers.split(","))) if colon and numbers else None
        if not excluding:
            slots[host] = count if count is not None else (pool or {}).get(host)
        elif count is None:
            slots.pop(host, None)
        elif slots.get(host) is not None:
            slots[host] = (slots[host] or 0) - count
    left = [it for it in slots.values() if it != 0]
    if not left:
        return _World(None, 1 if pool is None else None)
    return _World(left[0] if len(set(left)) == 1 else None, len(left))
