"""What a workload is made of, as far as it can be read without running it.

A value knows where it is written and how it came to be; what cannot be resolved is UNKNOWN, never a guess.
Lines and columns count from 1, columns in characters.
"""

from __future__ import annotations

import enum
from typing import Any, Dict, FrozenSet, Iterator, Literal, Mapping, NamedTuple, Tuple

import msgspec


class Place(NamedTuple):
    """A span of a file; the end column is the first one after it. `path` is as the user would write it."""

    path: str
    line: int
    column: int = 1
    end_line: int = 0
    end_column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Unknown(enum.Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"

    def __bool__(self) -> bool:
        raise TypeError("an unknown value is neither true nor false")


UNKNOWN = Unknown.UNKNOWN


class Symbol(str):
    """The qualified name of something imported, as `torch.float16`."""


class Value(NamedTuple):
    """A value as far as it is known, and the place that causes it.

    `constant` is a bool, int, float, str, None or Symbol; a list of Values; a dict of Values by key; a
    Call for an object that it makes (`BitsAndBytesConfig(load_in_8bit=True)`); or UNKNOWN.
    `key` is where the keyword, key or flag stands that holds it. `origin` says how it came from there
    ("--bf16 on line 14 of train.sbatch"); it is empty for a value that is written where it is used.
    """

    constant: Any
    place: Place
    key: Place | None = None
    origin: str = ""

    def under(self, key: Place | None) -> Value:
        """The same value, held by the keyword or key that stands there."""
        return Value(self.constant, self.place, key, self.origin)

    @property
    def known(self) -> bool:
        """Whether it is; the values inside a list or dict need not be."""
        return self.constant is not UNKNOWN

    @property
    def plain(self) -> Any:
        """The constant with the constants inside lists and dicts; UNKNOWN where one is not known."""
        return _plain(self.constant)

    def get(self, *keys: str) -> Value | None:
        """The value at the end of these keys of nested dicts; None where there is none."""
        value: Value | None = self
        for key in keys:
            value = value.constant.get(key) if value and isinstance(value.constant, dict) else None
        return value

    def items(self) -> Iterator[Tuple[str, Value]]:
        """The entries of a dict; none of anything else."""
        if isinstance(self.constant, dict):
            yield from self.constant.items()


def _plain(constant: Any) -> Any:
    if isinstance(constant, dict):
        return {key: value.plain for key, value in constant.items()}
    if isinstance(constant, (list, tuple)):
        return [value.plain for value in constant]
    return constant


class Problem(NamedTuple):
    """An input that could not be read, or not to its end, in one clear line."""

    path: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        where = f":{self.line}:{self.column}" if self.line else ""
        return f"{self.path}{where}: {self.message}"


# --- Launch lines ---------------------------------------------------------------------------------


class Job(NamedTuple):
    """What a job script asks its scheduler for, by the long names of SLURM's options
    (`gpus-per-node`, `nodes`, `mem`, `time`, `constraint`), values as written."""

    place: Place
    directives: Mapping[str, Value]


class Launch(NamedTuple):
    """One command that starts a training or inference program.

    `launcher` is the innermost one (`python`, `deepspeed`, `torchrun`, `accelerate`, `llamafactory-cli`,
    `axolotl`, `trl`); `chain` has all of them from the outside in (`srun`, `torchrun`). `options` are the
    launcher's own, long names with `_`; `arguments` are the program's, token by token. What not the command
    line says but a hostfile or accelerate's config file is in `options` as well, by its place there.
    """

    place: Place
    launcher: str
    chain: Tuple[str, ...] = ()
    options: Mapping[str, Value] = {}
    script: Value | None = None
    module: Value | None = None
    arguments: Tuple[Value, ...] = ()
    environment: Mapping[str, Value] = {}
    processes_per_node: int | None = None
    nodes: int | None = None
    job: Job | None = None
    directory: str = ""
    """Where relative paths begin, as the user would write it; empty for the current one."""

    @property
    def world_size(self) -> int | None:
        """Processes on all nodes; None where it is not known."""
        if self.processes_per_node is None or self.nodes is None:
            return None
        return self.processes_per_node * self.nodes

    @property
    def flags(self) -> Dict[str, Value]:
        """The program's long options: a flag without a value is True, one given twice is its last."""
        return flags(self.arguments)


def flags(arguments: Tuple[Value, ...]) -> Dict[str, Value]:
    """`--name value`, `--name=value` and `--flag` by name, with `_` for `-`.

    `key` is the place of the flag; several values are a list."""
    found: Dict[str, Value] = {}
    name, given, at = "", [], None  # type: str, list[Value], Value | None

    def close() -> None:
        if at is None:
            return
        origin = f"--{name} on line {at.place.line} of {at.place.path}"
        if not given:
            found[name] = Value(True, at.place, at.place, origin)
        elif len(given) == 1:
            found[name] = Value(given[0].constant, given[0].place, at.place, origin)
        else:
            found[name] = Value(list(given), given[0].place, at.place, origin)

    for argument in arguments:
        text = argument.constant
        if isinstance(text, str) and text.startswith("--") and len(text) > 2:
            close()
            spelled, equals, rest = text[2:].partition("=")
            name, at = spelled.replace("-", "_"), argument
            given = [Value(rest, argument.place)] if equals else []
        elif isinstance(text, str) and text.startswith("-") and text[1:2].isalpha():
            close()
            at = None
        elif at is not None:
            given.append(argument)
    close()
    return found


# --- Configurations -------------------------------------------------------------------------------


ConfigKind = Literal[
    "deepspeed", "accelerate", "axolotl", "llamafactory", "training", "requirements", "other"
]
"""`training` holds TrainingArguments by name, as TrlParser's YAML and HfArgumentParser's JSON do."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration, from a file or built in Python. Every value and key knows its place."""

    path: str
    kind: ConfigKind
    root: Value
    format: Literal["json", "yaml", "python", "text"]

    def get(self, *keys: str) -> Value | None:
        """The value at the end of these keys; None where there is none."""
        return self.root.get(*keys)


# --- Python ---------------------------------------------------------------------------------------


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A call that matters, with its arguments as far as they are known.

    `callee` is the qualified name as far as imports tell it (`transformers.AutoModel.from_pretrained`,
    `peft.get_peft_model`), or `.name` for a method of an object (`.gradient_checkpointing_enable`).
    `open` says that there may be more arguments than those in `arguments`, as of an unknown `**kwargs`.
    Of a class of the project `callee` is the library class that it is made from, and `declares` are the
    fields and parameters that it brings itself. `target` is the name that the result is
    bound to. `conditions` are the names in the tests around it, and `try`: what it hangs on.
    """

    callee: str
    place: Place
    positional: Tuple[Value, ...] = ()
    arguments: Mapping[str, Value] = {}
    open: bool = False
    declares: FrozenSet[str] = frozenset()
    target: str = ""
    conditions: FrozenSet[str] = frozenset()
    taken: bool = True
    """False where it needs other options than those of the launch line, or than the defaults."""

    @property
    def name(self) -> str:
        """The last part of the callee."""
        return self.callee.rpartition(".")[2]

    def argument(self, name: str, position: int | None = None) -> Value | None:
        """An argument by keyword or position; None where it is not given (or cannot be seen: `open`)."""
        if name in self.arguments:
            return self.arguments[name]
        if position is not None and position < len(self.positional):
            return self.positional[position]
        return None


class Import(NamedTuple):
    """One imported name: `module` and `name` (empty for `import module`), where it stands.

    `guarded` says that a `try` or an `if` stands around it: the script lives without it."""

    module: str
    name: str
    place: Place
    guarded: bool = False


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """One training run: TrainingArguments by name, wherever they were given.

    `open` says that there may be others that are not known. `trainer` is the call of the Trainer,
    if there is one; `place` is what the run is known from. `deepspeed` is the configuration it uses."""

    place: Place
    settings: Mapping[str, Value]
    open: bool = False
    trainer: Call | None = None
    deepspeed: Config | None = None
    launch: Launch | None = None

    def on(self, name: str) -> bool:
        """Whether this setting is known to be true."""
        value = self.settings.get(name)
        return value is not None and value.constant is True


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent way through a script, for one model: how it is loaded, what is done to it in order
    (get_peft_model, prepare_model_for_kbit_training, .half, hooks ...), and how it is trained.

    `calls` are all the calls that matter on that way, in order, those of other objects included.
    Conditions that are not known are tried both ways; `in_every_story` tells what holds in all of them.
    `off_default` stories take a branch that needs other options than the defaults."""

    script: str
    load: Call | None = None
    steps: Tuple[Call, ...] = ()
    training: Training | None = None
    calls: Tuple[Call, ...] = ()
    off_default: bool = False
    unseen: bool = False
    """Whether the model is handed to a function of the project that is not at hand: it may do anything."""

    def step(self, *names: str) -> Call | None:
        """The first step with one of these names."""
        return next((step for step in self.steps if step.name in names), None)


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """A Python file or notebook: what it imports, every call that matters once, and its stories."""

    path: str
    imports: Tuple[Import, ...] = ()
    calls: Tuple[Call, ...] = ()
    stories: Tuple[Story, ...] = ()
    launch: Launch | None = None
    environment: Mapping[str, Value] = {}
    """What it puts into os.environ itself, outside of its functions."""
    notebook: bool = False
    declares: FrozenSet[str] = frozenset()
    """Options that the script itself declares: of argparse, and the fields of its classes."""

    @property
    def variables(self) -> Mapping[str, Value]:
        """What its launch and then the script itself put into the environment."""
        return {**(self.launch.environment if self.launch is not None else {}), **self.environment}


class PathState(NamedTuple):
    """What is at a path that a configuration names, on this machine; `nearest` is the path itself or the
    first folder above it that is there, absolute, links resolved. `problem` says why nothing is known."""

    exists: bool
    nearest: str = ""
    writable: bool | None = None
    free_bytes: int | None = None
    problem: str = ""


class HostName(NamedTuple):
    """What this machine's resolver says of a host name: whether it knows it, and whether that is this machine
    itself. None where it was not asked, or does not answer."""

    resolves: bool | None = None
    own: bool | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """All that is about to be run."""

    files: Tuple[str, ...] = ()
    launches: Tuple[Launch, ...] = ()
    scripts: Tuple[Script, ...] = ()
    configs: Tuple[Config, ...] = ()
    trainings: Tuple[Training, ...] = ()
    problems: Tuple[Problem, ...] = ()
    ignored: Mapping[str, Mapping[int, FrozenSet[str]]] = {}
    """By path and line: the checks that a comment there silences; `*` is all of them."""
    paths: Mapping[str, PathState] = {}
    """What it offloads to, downloads to, saves to and loads from, as checks ask for it: see paths.py."""
    ports: Mapping[int, str] = {}
    """Of each port that a process of it would listen at here: `free`, `taken` or `forbidden`."""
    hosts: Mapping[str, HostName] = {}
    parameters: Mapping[str, int] = {}
    """How many parameters the model in a local folder has, by the folder as it is written."""

    def configs_of(self, kind: ConfigKind) -> Iterator[Config]:
        """The configurations of one kind."""
        return (config for config in self.configs if config.kind == kind)
