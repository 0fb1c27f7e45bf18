"""From the words of the command line to a workload: a launch line, or files and folders.

Each kind of file has a reader of its own, loaded when there is one. A file that cannot be read is a
problem in one line, and the others are read all the same.
"""

from __future__ import annotations

import functools
import gc
import os
import re
from typing import TYPE_CHECKING, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Sequence, Set, Tuple

import msgspec

from llm_doctor.host import Host, Unavailable, real_host
from llm_doctor.workload.data import (
    Config,
    Launch,
    Place,
    Problem,
    Script,
    Story,
    Training,
    Value,
    Workload,
)

if TYPE_CHECKING:
    from llm_doctor.workload.python import Read
    from llm_doctor.workload.source import Source

SIZE_LIMIT = 8 << 20
"""Bytes. A script or configuration is smaller; what is larger is data."""
FOLDER_SIZE_LIMIT = 1 << 20
"""Bytes of a file that nobody named: a larger one beside scripts is data, and not worth a line."""
FILES_LIMIT = 20_000
CHUNK = 8
"""Scripts that are handed to another process at once."""
SIDE_BY_SIDE = 64
"""Scripts that are worth a process of their own to read them."""
NEIGHBOURS_KEPT = 8
"""Parsed files of the project that are kept for the next script."""
LAUNCHES_LIMIT = 4
"""Ways of launching one script that are looked at, each by itself."""

MAKING = ("from_pretrained", "get_peft_model", "Trainer(", "TrainingArguments(", "deepspeed.initialize")
"""Words of files in which models are made or trained."""
_KINDS = {
    ".py": "python",
    ".ipynb": "notebook",
    ".sh": "shell",
    ".bash": "shell",
    ".sbatch": "shell",
    ".slurm": "shell",
    ".json": "config",
    ".yaml": "config",
    ".yml": "config",
    ".txt": "requirements",
    ".lock": "requirements",
}
_RUN_SCRIPTS = frozenset(("bash", "sh", "zsh", "dash", "source", "sbatch", "qsub", "bsub"))
"""Commands whose first word that is no option is a job script; its own arguments are not known to it."""
_IGNORED = re.compile(r"#\s*llm-doctor:\s*ignore\[([\w\s,*-]+)\]")
_LOCKED = re.compile(r"(requirements|constraints)[\w.-]*\.txt|[\w.-]+\.lock|environment\.ya?ml")


Ignored = Mapping[str, Mapping[int, FrozenSet[str]]]
"""By path and line: the checks that a comment silences."""


class NoWorkload(ValueError):
    """The words of the command line are no workload; the message says why."""


def read_workload(host: Host, words: Sequence[str]) -> Workload:
    """What the words name. Raises NoWorkload where they are a command that starts no program."""
    from llm_doctor.workload import launch
    from llm_doctor.workload.paths import with_paths

    # A recording is of a machine, not of somebody's files: those are always read here and now.
    reader = _Reader(real_host())
    if launch.is_launch(words):
        started = launch.launch_of(launch.command_line(words), host=real_host())
        if started is None:
            raise NoWorkload(f"{' '.join(words)}: no Python program is started by that")
        reader.launches.append(started)
    elif os.path.basename(words[0]) in _RUN_SCRIPTS and len(words) > 1:
        reader.read_path(next((word for word in words[1:] if not word.startswith("-")), words[-1]))
    else:
        for word in words:
            reader.read_path(word)
    return with_paths(reader.workload(), host)


def is_job_script(words: Sequence[str]) -> bool:
    """Whether the words of a command line give a shell or scheduler a script that is there."""
    named = next((word for word in words[1:] if not word.startswith("-")), None)
    return os.path.basename(words[0]) in _RUN_SCRIPTS and named is not None and os.path.isfile(named)


class _Reader:
    """Files that were asked for, and those that they lead to."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.files: Dict[str, None] = {}
        self.launches: List[Launch] = []
        self._scripts: List[Script] = []
        self._configs: Dict[str, Config] = {}
        self._trainings: List[Training] = []
        self._problems: List[Problem] = []
        self._ignored: Dict[str, Mapping[int, FrozenSet[str]]] = {}
        self._order: Dict[str, int] = {}
        """When each file was come by: problems are told in that order."""
        self._python: Dict[str, bool] = {}
        """Python files, and whether somebody named them."""
        self._ahead: Dict[str, bytes] = {}
        self._texts: Dict[str, str | None] = {}
        self._names: Dict[str, FrozenSet[str]] = {}
        self._neighbours: Dict[str, Source] = {}
        """Files of the project as scripts import them, the last ones that were needed."""
        self._missing: Set[Tuple[str, str]] = set()
        """Folders and modules that are no files of the project there."""

    # --- Files -----------------------------------------------------------------------------------------

    def read_path(self, path: str) -> None:
        """A file, or what a folder holds."""
        try:
            if self._host.is_folder(path):
                found = self._host.files_below(path, tuple(_KINDS), FILES_LIMIT)
                for name in found:
                    self._read_file(name, named=False)
                if len(found) >= FILES_LIMIT:
                    self._problems.append(
                        Problem(path, f"more than {FILES_LIMIT} files: the rest is not read")
                    )
            else:
                self._read_file(path, named=True)
        except Unavailable as error:
            self._problems.append(Problem(path, str(error)))

    def _read_file(self, path: str, named: bool) -> None:
        if path in self.files:
            return
        self._order.setdefault(path, len(self._order))
        kind = _KINDS.get(os.path.splitext(path)[1].lower())
        base = os.path.basename(path)
        if kind == "requirements" or base in ("environment.yaml", "environment.yml"):
            kind = "requirements" if _LOCKED.fullmatch(base) else None
        if kind is None and not named:
            return
        if kind == "python":  # read where it is examined, which may be in another process
            self.files[path] = None
            self._python[path] = named
            return
        text = self._text(path, SIZE_LIMIT if named else FOLDER_SIZE_LIMIT, named)
        if text is None:
            return
        self.files[path] = None
        if kind is None:
            kind = _kind_by_text(text)
        if kind == "python":
            self._python[path] = named
        elif kind == "notebook":
            from llm_doctor.workload.notebook import read_notebook

            self._take(read_notebook(path, text, self._neighbour))
        elif kind == "shell":
            from llm_doctor.workload.shell import read_shell

            launches, problems = read_shell(path, text, self._host)
            self.launches.extend(launches)
            self._problems.extend(problems)
        elif kind == "config":
            self._read_config(path, text)
        elif kind == "requirements":
            from llm_doctor.workload.requirements import versions

            pinned = versions(path, text)
            if pinned:
                root = Value(dict(pinned), Place(path, 1))
                self._configs[path] = Config(path=path, kind="requirements", root=root, format="text")
        else:
            self._problems.append(
                Problem(path, "it is no Python, notebook, shell script, JSON or YAML by its name or text")
            )

    def _text(self, path: str, limit: int, named: bool) -> str | None:
        """The text of a file once; None, and a problem where somebody named it, when it is none."""
        if path not in self._texts:
            self._texts[path] = None
            try:
                data = self._ahead.pop(path, None) or self._host.user_file(path, limit)
            except Unavailable as error:
                if named or "larger" not in str(error):
                    self._problems.append(Problem(path, str(error)))
                return None
            decoded = _decoded(path, data)
            if isinstance(decoded, Problem):
                self._problems.append(decoded)
                return None
            self._texts[path] = decoded
            if "llm-doctor:" in decoded:
                self._ignored[path] = dict(_ignored(decoded))
        return self._texts[path]

    def _read_config(self, path: str, text: str) -> None:
        from llm_doctor.workload.config import read_config

        config, problems = read_config(path, text)
        self._problems.extend(problems)
        if config is not None:
            self._configs[path] = config

    # --- From one file to another ----------------------------------------------------------------------

    def workload(self) -> Workload:
        """Follows the launches and puts everything together."""
        launched: Dict[str, Tuple[Launch, ...]] = {}
        for launch in list(self.launches):
            script = self._script_of(launch)
            named = launch.script
            if script is None and named is not None and type(named.constant) is str:
                place = named.place
                message = f"{named.constant} is not there: what it does is not examined"
                self._problems.append(Problem(place.path, message, place.line, place.column))
            if script is not None:
                launched[script] = (*launched.get(script, ()), launch)
            self._configs_of(launch)
            if script is None:
                self._trainings.extend(_by_flags(launch))
        tasks = [
            Task(path, how, self._python.get(path, True))
            for path in dict.fromkeys([*self._python, *launched])
            for how in launched.get(path, ())[:LAUNCHES_LIMIT] or (None,)
        ]
        for (path, how, _), (read, ignored, there) in zip(tasks, _read_all(tasks)):
            if there:
                self.files[path] = None
            else:
                self.files.pop(path, None)
            self._ignored.update(ignored)
            self._take(read)
            if how is not None and not read.trainings:
                self._trainings.extend(_by_flags(how))
        for config in list(self._configs.values()):
            if config.kind in ("training", "llamafactory", "axolotl"):
                self._trainings.append(
                    Training(place=config.root.place, settings=dict(config.root.items()), open=True)
                )
        return self._together()

    def read_scripts(self, tasks: Sequence[Task]) -> List[Examined]:
        """Scripts, each by itself."""
        self._ahead = self._host.user_files([task.path for task in tasks], FOLDER_SIZE_LIMIT)
        return [self._read_script(*task) for task in tasks]

    def _read_script(self, path: str, launch: Launch | None, named: bool) -> Examined:
        from llm_doctor.workload.python import Read, read_python

        self._problems.clear()
        text = self._text(path, SIZE_LIMIT if named else FOLDER_SIZE_LIMIT, named)
        if text is None:
            return Examined(Read(None, problems=tuple(self._problems)), {}, False)
        directory = launch.directory if launch is not None else ""

        def entries(value: Value) -> Mapping[str, Value]:
            config = self._config_at(value.constant, path, directory)
            return dict(config.root.items()) if config is not None else {}

        read = read_python(path, text, launch, self._neighbour, entries)
        while len(self._neighbours) > NEIGHBOURS_KEPT:
            self._neighbours.pop(next(iter(self._neighbours))).forget()
        return Examined(read, {path: self._ignored[path]} if path in self._ignored else {}, True)

    def _take(self, read: Read) -> None:
        if read.script is not None:
            self._scripts.append(read.script)
        self._trainings.extend(read.trainings)
        self._problems.extend(read.problems)
        self.launches.extend(read.launches)
        for config in read.configs:
            self._configs[f"{config.path}:{config.root.place.line}"] = config

    def _script_of(self, launch: Launch) -> str | None:
        """The file that a launch starts, if it is at hand."""
        for value in (launch.script, launch.module):
            if value is None or not isinstance(value.constant, str):
                continue
            name = value.constant
            if value is launch.module:
                name = name.replace(".", "/") + ".py"
            found = self._find(name, launch.place.path, launch.directory)
            if found is not None:
                return found
        return None

    def _find(self, name: str, beside: str, directory: str = "") -> str | None:
        """A file by a relative path: seen from where the command runs, else from where it is written."""
        if os.path.isabs(name):
            return name if self._host.exists(name) else None
        parent = os.path.dirname(beside)
        for base in (directory, "", parent, os.path.dirname(parent)):
            path = os.path.normpath(os.path.join(base, name))
            if self._host.exists(path) and not self._host.is_folder(path):
                return path
        return None

    def _configs_of(self, launch: Launch) -> None:
        """Reads the configurations that a launch line names."""
        named = [*launch.flags.values(), *launch.options.values(), *launch.arguments]
        for value in named:
            text = value.constant
            if isinstance(text, str) and text.endswith((".json", ".yaml", ".yml")) and "\n" not in text:
                self._config_at(text, launch.place.path, launch.directory)

    def _config_at(self, name: str, beside: str, directory: str = "") -> Config | None:
        path = self._find(name, beside, directory)
        if path is None:
            return None
        if path not in self._configs:
            text = self._text(path, SIZE_LIMIT, True)
            if text is not None:
                self.files[path] = None
                self._read_config(path, text)
        return self._configs.get(path)

    def _neighbour(self, source: Source, module: str, telling: FrozenSet[str]) -> Source | None:
        """A file of the same project by the module name that a script imports it by."""
        from llm_doctor.workload.python import parse

        folder = os.path.dirname(source.path)
        if (folder, module) in self._missing:
            return None
        name = module.lstrip(".")
        for _ in range(max(0, len(module) - len(name) - 1)):
            folder = os.path.join(folder, "..")
        if not name:
            return None
        relative = name.replace(".", "/")
        for base in dict.fromkeys((folder, os.path.dirname(folder), "")):
            for candidate in (f"{relative}.py", f"{relative}/__init__.py"):
                path = os.path.normpath(os.path.join(base, candidate))
                if not self._is_there(path):
                    continue
                text = self._text(path, FOLDER_SIZE_LIMIT, False)
                if text is None or (telling and not _tells(text, telling)):
                    return None
                parsed = self._neighbours.pop(path, None) or parse(path, text)
                if isinstance(parsed, Problem):
                    return None
                self._neighbours[path] = parsed
                return parsed
        self._missing.add((folder, module))
        return None

    def _is_there(self, path: str) -> bool:
        """Whether there is such a file or folder; each folder is looked into once."""
        folder, name = os.path.split(path)
        if folder not in self._names:
            above, last = os.path.split(folder)
            if above in self._names and last not in self._names[above] and last not in ("", ".", ".."):
                return False
            self._names[folder] = frozenset(self._host.names(folder or "."))
        return name in self._names[folder]

    # --- Together --------------------------------------------------------------------------------------

    def _together(self) -> Workload:
        with_deepspeed = {id(it): self._with_deepspeed(it) for it in self._trainings}
        scripts = tuple(
            msgspec.structs.replace(
                script, stories=tuple(self._story(story, with_deepspeed) for story in script.stories)
            )
            for script in self._scripts
        )
        return Workload(
            files=tuple(self.files),
            launches=tuple(self.launches),
            scripts=scripts,
            configs=tuple(self._configs.values()),
            trainings=tuple(with_deepspeed.values()),
            problems=tuple(sorted(self._problems, key=lambda it: self._order.get(it.path, len(self._order)))),
            ignored=self._ignored,
        )

    def _story(self, story: Story, known: Mapping[int, Training]) -> Story:
        if story.training is None:
            return story
        training = known.get(id(story.training)) or self._with_deepspeed(story.training)
        return msgspec.structs.replace(story, training=training)

    def _with_deepspeed(self, training: Training) -> Training:
        """The training with the DeepSpeed configuration that it names, or the only one there is."""
        value = training.settings.get("deepspeed")
        launch = training.launch
        if launch is not None and (value is None or not isinstance(value.constant, (str, dict))):
            named_by = [launch.flags.get("deepspeed"), launch.flags.get("deepspeed_config")]
            named_by.append(launch.options.get("deepspeed_config_file"))
            texts = [it for it in named_by if it is not None and type(it.constant) is str]
            value = texts[0] if texts else value
        config = None
        if value is not None and isinstance(value.constant, str) and not isinstance(value.constant, bool):
            directory = launch.directory if launch is not None else ""
            config = self._config_at(value.constant, value.place.path, directory)
        elif value is not None and isinstance(value.constant, dict):
            config = Config(path=value.place.path, kind="deepspeed", root=value, format="python")
            self._configs.setdefault(f"{config.path}:{value.place.line}", config)
        elif value is not None and not value.known:
            named = [it for it in self._configs.values() if it.kind == "deepspeed"]
            config = named[0] if len(named) == 1 else None
        if config is None or config.kind != "deepspeed":
            return training
        return msgspec.structs.replace(training, deepspeed=config)


def _tells(text: str, functions: FrozenSet[str]) -> bool:
    """Whether a function makes or trains models, by the words in it: a look before the parse."""
    for name in functions:
        begin = text.find(f"def {name}(")
        while begin >= 0:
            end = re.compile(r"^(def|class|@)\b", re.MULTILINE).search(text, begin + 4)
            body = text[begin : end.start() if end else len(text)]
            if any(word in body for word in MAKING):
                return True
            begin = text.find(f"def {name}(", begin + 4)
    return False


class Task(NamedTuple):
    """A script, how it is launched, and whether somebody named it."""

    path: str
    launch: Launch | None
    named: bool


class Examined(NamedTuple):
    """What a script says, where its comments silence what, and whether it could be read at all."""

    read: Read
    ignored: Ignored
    there: bool


def _read_all(tasks: Sequence[Task]) -> Iterator[Examined]:
    """Scripts in order; many of them side by side."""
    processes = min(len(os.sched_getaffinity(0)), len(tasks) // SIDE_BY_SIDE, 8)
    if processes < 2:
        yield from _Reader(real_host()).read_scripts(tasks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    chunks = [tasks[begin : begin + CHUNK] for begin in range(0, len(tasks), CHUNK)]
    # Not forked: the threads that read the node are running.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes - 1, mp_context=context) as pool:
        futures = [pool.submit(_read_chunk, chunk) for chunk in chunks]
        mine: Dict[int, List[Examined]] = {}
        reader = _Reader(real_host())
        # From the end, until what is left is being read elsewhere.
        for number in reversed(range(len(chunks))):
            if not futures[number].cancel():
                break
            mine[number] = reader.read_scripts(chunks[number])
        for number, future in enumerate(futures):
            yield from mine[number] if number in mine else future.result()


@functools.lru_cache(maxsize=None)
def _reader_of_this_process() -> _Reader:
    gc.disable()  # a tree has no cycles, and what has is let go of by hand
    return _Reader(real_host())


def _read_chunk(tasks: Sequence[Task]) -> List[Examined]:
    """In a process that was started for it."""
    return _reader_of_this_process().read_scripts(tasks)


def _by_flags(launch: Launch) -> Iterator[Training]:
    """A training whose script is not at hand, or does not tell: the options of the launch line by name."""
    from llm_doctor.workload.values import typed

    flags = launch.flags
    if flags:
        settings = {name: typed(value, "") for name, value in flags.items()}
        yield Training(place=launch.place, settings=settings, open=True, launch=launch)


def _kind_by_text(text: str) -> str | None:
    first = text.lstrip()[:200]
    if first.startswith("#!"):
        line = first.partition("\n")[0]
        return "python" if "python" in line else "shell" if re.search(r"\b(ba|da|z|k)?sh\b", line) else None
    return "config" if first.startswith("{") else None


def _decoded(path: str, data: bytes) -> str | Problem:
    """Text as Python reads source: UTF-8, or what a coding line says."""
    import codecs
    import tokenize

    for mark, name in ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16")):
        if data.startswith(mark):
            return Problem(path, f"it is {name}, not UTF-8", 1, 1)
    zero = data.find(b"\0")
    if zero >= 0:
        return Problem(path, "it is a binary file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lines = iter(data.split(b"\n", 2)[:2])
        try:
            encoding, _ = tokenize.detect_encoding(lambda: next(lines, b""))
            return data.decode(encoding)
        except (SyntaxError, LookupError, UnicodeDecodeError):
            line = data.count(b"\n", 0, error.start) + 1
            column = error.start - data.rfind(b"\n", 0, error.start)
            return Problem(path, f"it is not UTF-8: byte 0x{data[error.start]:02x}", line, column)


def _ignored(text: str) -> Iterator[Tuple[int, FrozenSet[str]]]:
    """The lines that say of which checks they want to hear nothing."""
    for number, line in enumerate(text.split("\n"), 1):
        found = _IGNORED.search(line)
        if found is not None:
            yield number, frozenset(name.strip() for name in found[1].split(","))
