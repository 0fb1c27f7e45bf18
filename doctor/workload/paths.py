"""What the machine says of what a workload names: paths, ports, host names. Checks stay pure by it.

A name is looked up by the system's own resolver, which may ask the network's name server: no file tells
whether MASTER_ADDR resolves, and the job asks the same of the same server. Of a folder of scripts none is.
"""

from __future__ import annotations

import posixpath
import re
from typing import Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import msgspec

from llm_doctor.host import Host, Unavailable
from llm_doctor.workload.data import (
    Call,
    Config,
    HostName,
    Launch,
    PathState,
    Training,
    Value,
    Workload,
)

OFFLOAD_SECTIONS = ("offload_param", "offload_optimizer")
HUB_VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TRANSFORMERS_CACHE")
CACHE_VARIABLES = ("HF_HOME", *HUB_VARIABLES, "HF_DATASETS_CACHE")
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
LOOKED_UP = 4
"""Launches, names and folders of models that are looked up at most: more are a collection, not a job."""
_DOWNLOADS = re.compile(r"(transformers|peft|trl|datasets)\..*|(from_pretrained|load_dataset)")
# What datasets has a builder for, or what is no name of the Hub.
_BUILDERS = frozenset(
    """
    json csv parquet text arrow pandas sql xml imagefolder audiofolder videofolder pdffolder webdataset
    generator spark cache
    """.split()
)
# Folders that a job makes itself look like OWNER/NAME.
_MADE = re.compile(
    r"(?i)(out(put)?s?|check_?points?|ckpts?|results?|models?|weights?|saved?\w*|exp\w*|runs?|logs?|data\w*|tmp|work\w*)"
    r"[\w.-]*/.*|.*/(checkpoint|step|epoch)[_-]?\d+"
)
# Of the names without an owner, those that the Hub has: its first models.
_OLD_NAMES = re.compile(
    r"(gpt2|bert|roberta|distil|t5|xlm|xlnet|albert|camembert|openai-gpt|ctrl|transfo-xl)[\w.-]*"
)
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "float64": 8}


class Named(NamedTuple):
    """A model or data set that a workload loads by name, and where."""

    value: Value
    is_dataset: bool
    call: Call | None
    launch: Launch | None
    variables: Mapping[str, Value] = {}
    """What the launch and the script put into the environment."""

    @property
    def directory(self) -> str:
        """Where relative paths begin."""
        return self.launch.directory if self.launch is not None else ""

    @property
    def name(self) -> str:
        """`owner/name`, or the name alone."""
        return str(self.value.constant)


class Rendezvous(NamedTuple):
    """Where the processes of a launch meet: what its options and variables say of address and port.

    `serves` says that a store listens at that port, which is in vain where it is taken: torchrun's c10d
    backend is shared by jobs. `default_port` is what the launcher takes where no port is given."""

    address: Value | None = None
    port: Value | None = None
    default_port: int | None = None
    serves: bool = False
    alone: bool = False
    """Whether all processes are on one machine, where the job is started."""

    @property
    def port_number(self) -> int | None:
        """The port, if it is one."""
        number = self.default_port if self.port is None else self.port.constant
        if isinstance(number, str) and re.fullmatch(r"\d{1,9}", number):
            number = int(number)
        return number if type(number) is int and 0 < number < 1 << 16 else None


def with_paths(workload: Workload, host: Host) -> Workload:
    """The workload with the state of every path that checks ask for, of its ports and masters."""
    wanted = {
        value.constant for config in workload.configs_of("deepspeed") for value in offload_paths(config)
    }
    wanted.update(cache.path for cache in caches(workload))
    wanted.update(path for training in workload.trainings for path in output_paths(training))
    offline_here = any(is_true(host.env(name)) for name in OFFLINE_VARIABLES)
    for named in named_on_the_hub(workload):
        if offline_here or says_offline(named):
            wanted.update(local_paths(named))
            wanted.update(cache_entries(named, {name: host.env(name) for name in _PLACES}))
    ports, hosts = _meetings(workload, host)
    return msgspec.structs.replace(
        workload,
        paths=_states(host, sorted(wanted)) if wanted else {},
        ports=ports,
        hosts=hosts,
        parameters=_parameters(workload, host),
    )


def offload_paths(config: Config) -> Iterator[Value]:
    """Every nvme_path of a DeepSpeed configuration that is a text."""
    for section in OFFLOAD_SECTIONS:
        value = config.get("zero_optimization", section, "nvme_path")
        if value is not None and type(value.constant) is str and value.constant:
            yield value


def _states(host: Host, paths: Sequence[str]) -> Dict[str, PathState]:
    rooted = {path: host.absolute(path) if path.startswith("~") else path for path in paths}
    try:
        answers = host.disks(sorted(set(rooted.values())))
    except Unavailable as error:
        return {path: PathState(exists=True, problem=str(error)) for path in paths}
    states = {}
    for path in paths:
        answer = answers.get(rooted[path], {"error": "not known"})
        if "error" in answer:
            states[path] = PathState(exists=True, problem=str(answer["error"]))
        else:
            writable, free = answer.get("writable"), answer.get("free_bytes")
            states[path] = PathState(
                exists=bool(answer.get("exists")),
                nearest=str(answer.get("nearest") or ""),
                writable=writable if isinstance(writable, bool) else None,
                free_bytes=free if isinstance(free, int) else None,
            )
    return states


def _path(value: Value | None, directory: str) -> str | None:
    """The path that a value is, seen from where the doctor runs; None where it is none, or not known."""
    text = value.constant if value is not None else None
    if type(text) is not str or not text.strip() or "\0" in text or "\n" in text or "://" in text:
        return None
    if re.search(r"[$<>{}*?]", text):  # a template's place holder
        return None
    return posixpath.join(directory, text) if directory and not text.startswith("~") else text


# --- Where downloads go ------------------------------------------------------------------------------


class Cache(NamedTuple):
    """A place to download to that a workload names: its path, and the variable or keyword that gives it."""

    value: Value
    path: str
    name: str
    of_models: bool = True
    """Whether models go there, as far as that is known: else data sets alone."""


def caches(workload: Workload) -> Iterator[Cache]:
    """Each place that the workload names to download to, once for each place where that is written."""
    found: Dict[Tuple[object, str], Cache] = {}
    for value, directory, name, of_models in _caches(workload):
        path = _path(value, directory)
        if path is not None:
            first = found.setdefault((value.place, path), Cache(value, path, name, of_models))
            found[value.place, path] = first._replace(of_models=first.of_models or of_models)
    yield from found.values()


def _caches(workload: Workload) -> Iterator[Tuple[Value, str, str, bool]]:
    for launch in workload.launches:
        for name in CACHE_VARIABLES:
            if name in launch.environment:
                yield launch.environment[name], launch.directory, name, name != "HF_DATASETS_CACHE"
        if "cache_dir" in launch.flags:
            yield launch.flags["cache_dir"], launch.directory, "--cache_dir", True
    for script in workload.scripts:
        directory = script.launch.directory if script.launch is not None else ""
        for name in CACHE_VARIABLES:
            if name in script.environment:
                yield script.environment[name], directory, name, name != "HF_DATASETS_CACHE"
        for call in script.calls:
            if "cache_dir" in call.arguments and _DOWNLOADS.fullmatch(call.callee.lstrip(".")):
                yield call.arguments["cache_dir"], directory, "cache_dir", call.name != "load_dataset"
    for config in workload.configs:
        value = config.get("cache_dir") if config.kind in ("llamafactory", "training") else None
        if value is not None:
            yield value, "", "cache_dir", True


# --- What is saved -----------------------------------------------------------------------------------


def output_paths(training: Training) -> Iterator[str]:
    """The path of output_dir, where it is known."""
    path = _path(training.settings.get("output_dir"), training.launch.directory if training.launch else "")
    if path is not None:
        yield path


def _parameters(workload: Workload, host: Host) -> Dict[str, int]:
    """Of the folders that trained models are loaded from, how many parameters are in them."""
    from llm_doctor.facts import model

    loads = [
        value.constant
        for named in named_models(workload)
        for value in [named.value]
        if not named.is_dataset and value.known
    ]
    folders = [
        it
        for it in dict.fromkeys(map(str, loads))
        if it.startswith(("/", ".", "~")) and host.is_folder(host.absolute(it))
    ]
    found: Dict[str, int] = {}
    for folder in folders[:LOOKED_UP]:
        try:
            size = model.read(host, folder, None).weight_bytes
            config = host.read(posixpath.join(host.absolute(folder), "config.json"))
        except Unavailable:
            continue
        dtype = re.search(r'"(?:torch_)?dtype"\s*:\s*"(?:torch\.)?(\w+)"', config)
        if dtype is not None and dtype[1] in _BYTES and "quantization_config" not in config:
            found[folder] = size // _BYTES[dtype[1]]
    return found


# --- What is loaded ----------------------------------------------------------------------------------

_PLACES = (*CACHE_VARIABLES, "XDG_CACHE_HOME")


def named_models(workload: Workload) -> Iterator[Named]:
    """Every model and data set that is loaded by a text, once for each place where that is written."""
    seen = set()
    for named in _named_models(workload):
        if type(named.value.constant) is str and named.value.constant and named.value.place not in seen:
            seen.add(named.value.place)
            yield named


def _named_models(workload: Workload) -> Iterator[Named]:
    for script in workload.scripts:
        for call in script.calls:
            if not _DOWNLOADS.fullmatch(call.callee.lstrip(".")):
                continue
            if call.name == "load_dataset":
                value = call.argument("path", 0)
            elif call.name == "from_pretrained" and "Peft" in call.callee and "Config" not in call.callee:
                value = call.argument("model_id", 1)
            elif call.name == "from_pretrained":
                value = call.argument("pretrained_model_name_or_path", 0)
            else:
                value = None
            if value is not None:
                yield Named(value, call.name == "load_dataset", call, script.launch, script.variables)
    for launch in workload.launches:
        if "model_name_or_path" in launch.flags:
            yield Named(launch.flags["model_name_or_path"], False, None, launch, launch.environment)
    names = {"llamafactory": "model_name_or_path", "training": "model_name_or_path", "axolotl": "base_model"}
    for config in workload.configs:
        value = config.get(names[config.kind]) if config.kind in names else None
        if value is not None:
            yield Named(value, False, None, None)


def named_on_the_hub(workload: Workload) -> Iterator[Named]:
    """Those of them whose text may be a name on the Hugging Face Hub, and is no folder that a job makes."""
    for named in named_models(workload):
        is_name = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", named.name) and not named.name.endswith(".py")
        if not is_name or _MADE.fullmatch(named.name) or (named.is_dataset and named.name in _BUILDERS):
            continue
        if "/" in named.name or named.is_dataset or _OLD_NAMES.fullmatch(named.name):
            yield named


def is_true(text: object) -> bool:
    """As huggingface_hub and transformers read their switches (huggingface_hub/constants.py)."""
    return isinstance(text, str) and text.upper() in ("1", "ON", "YES", "TRUE")


def says_offline(named: Named) -> Value | None:
    """What of the workload itself keeps this from being downloaded."""
    given = named.call.argument("local_files_only") if named.call is not None else None
    if given is not None and given.constant is True:
        return given
    for name in OFFLINE_VARIABLES:
        concerns = named.is_dataset or name != "HF_DATASETS_OFFLINE"
        if concerns and name in named.variables and is_true(named.variables[name].constant):
            return named.variables[name]
    return None


def local_paths(named: Named) -> List[str]:
    """The folder that the name may also be."""
    path = _path(named.value, named.directory)
    return [path, named.name] if path is not None else [named.name]


def cache_entries(named: Named, variables: Mapping[str, str | None]) -> List[str]:
    """The folders that it would lie in once it was downloaded, by any release; none where that is not known.

    `variables` are those of the doctor's own environment: the launch line's come before them."""
    given = named.call.argument("cache_dir") if named.call is not None else None
    if named.call is not None and named.call.open and given is None:
        return []
    if given is not None and given.constant is not None:
        folder = _path(given, named.directory)
        return _entries(named, [folder]) if folder is not None else []
    settings: Dict[str, str] = {name: text for name, text in variables.items() if text}
    for name, value in named.variables.items():
        if name in _PLACES:
            path = _path(value, named.directory)
            if path is None:
                return []
            settings[name] = path
    home = settings.get("HF_HOME") or posixpath.join(
        settings.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"
    )
    folders = [f"{home}/hub", *(settings[name] for name in HUB_VARIABLES if name in settings)]
    if named.is_dataset:
        folders += [settings.get("HF_DATASETS_CACHE", f"{home}/datasets")]
    return _entries(named, folders)


def _entries(named: Named, folders: Iterable[str]) -> List[str]:
    kind = "datasets" if named.is_dataset else "models"
    names = [f"{kind}--{named.name.replace('/', '--')}"]
    if named.is_dataset:  # as datasets keeps what it has prepared
        owner, slash, last = named.name.rpartition("/")
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", last).lower()
        names += [f"{owner}___{it}" if slash else it for it in (last, snake)] + [last]
    return [posixpath.join(folder, name) for folder in folders for name in dict.fromkeys(names)]


# --- Where processes meet ----------------------------------------------------------------------------


def rendezvous(launch: Launch) -> Rendezvous:
    """Where the processes of a launch meet.

    As deepspeed/launcher/runner.py (0.9.5, 0.19.8), torch/distributed/run.py (1.12, 2.13) and
    accelerate/utils/launch.py (0.20.3, 1.15) make it of their options."""
    options, alone = launch.options, launch.nodes == 1
    if "deepspeed" in launch.chain:
        if "hostfile" not in options and alone:  # the address is then set to 127.0.0.1
            return Rendezvous(None, options.get("master_port"), 29500, serves=True, alone=True)
        return Rendezvous(options.get("master_addr"), options.get("master_port"), serves=True)
    if "torchrun" in launch.chain:
        if "standalone" in options:
            return Rendezvous()
        if "rdzv_endpoint" in options:
            return _endpoint(options["rdzv_endpoint"])
        backend = options.get("rdzv_backend")
        if backend is not None and backend.constant != "static":
            return Rendezvous()
        return Rendezvous(
            options.get("master_addr"),
            options.get("master_port"),
            serves=_is_first(options.get("node_rank")),
            alone=alone,
        )
    if "accelerate" in launch.chain:
        address = options.get("main_process_ip") if launch.nodes != 1 else None
        return Rendezvous(
            address,
            options.get("main_process_port"),
            serves=_is_first(options.get("machine_rank")) and launch.processes_per_node != 1,
            alone=alone,
        )
    return _by_variables(launch)


def _by_variables(launch: Launch) -> Rendezvous:
    """torch.distributed's own variables, where something says that there are several processes."""
    environment = launch.environment
    distributed = any(name in environment for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    starts = launch.launcher in ("llamafactory-cli", "swift") and (launch.processes_per_node or 0) > 1
    if not distributed and not starts and not (launch.world_size or 0) > 1:
        return Rendezvous()
    return Rendezvous(
        environment.get("MASTER_ADDR"),
        environment.get("MASTER_PORT"),
        serves=_is_first(environment.get("RANK")) and _is_first(environment.get("NODE_RANK")),
        alone=launch.nodes == 1,
    )


def _endpoint(value: Value) -> Rendezvous:
    """`host:port` of --rdzv_endpoint."""
    if type(value.constant) is not str:
        return Rendezvous()
    name, _, port = value.constant.partition(":")
    return Rendezvous(value._replace(constant=name), value._replace(constant=port) if port else None)


def _is_first(rank: Value | None) -> bool:
    return rank is None or rank.constant in (0, "0")


def starts_here(launch: Launch, in_job: bool) -> bool:
    """Whether this machine is where it starts: a batch script is handed to another one."""
    return launch.job is None or in_job


def host_name(value: Value | None) -> str | None:
    """The value as the name of a host: no literal address, and nothing that is still to be filled in."""
    text = value.constant if value is not None else None
    if type(text) is not str or not re.fullmatch(
        r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9])?\.?", text
    ):
        return None
    return None if re.fullmatch(r"[\d.]+", text) else text


def _meetings(workload: Workload, host: Host) -> Tuple[Dict[int, str], Dict[str, HostName]]:
    in_job = bool(host.env("SLURM_JOB_ID"))
    places = [rendezvous(launch) for launch in workload.launches if starts_here(launch, in_job)]
    ports: Dict[int, str] = {}
    for number in {place.port_number for place in places if place.serves}:
        state = host.port(number) if number is not None else None
        if number is not None and state is not None:
            ports[number] = state
    names = {name for place in places for name in [host_name(place.address)] if name is not None}
    if len(workload.launches) > LOOKED_UP:
        return ports, {}
    return ports, {name: HostName(*host.resolve(name)) for name in sorted(names)}
