"""Reads a Python script or notebook: the calls that matter, and the stories they make.

A story is one consistent way of one model through the script, from its load to its training.
"""

from __future__ import annotations

import ast
import functools
import re
import symtable
import warnings
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, NamedTuple, Tuple

import msgspec

from llm_doctor.workload.data import (
    UNKNOWN,
    Call,
    Config,
    Launch,
    Place,
    Problem,
    Script,
    Story,
    Symbol,
    Training,
    Value,
)
from llm_doctor.workload.source import (
    CASTS,
    METHODS,
    Definition,
    Guards,
    Lines,
    Scope,
    Source,
    dotted,
    may_matter,
    tracked,
)
from llm_doctor.workload.values import (
    END,
    Entries,
    Frame,
    Instance,
    Local,
    Neighbour,
    World,
    argument_of,
    base_of,
    is_training_arguments,
    worlds,
)
from llm_doctor.workload.values import Script as Reading

LOADS = frozenset({"from_pretrained", "from_config"})
WRAPS = frozenset(
    """
    get_peft_model prepare_model_for_int8_training prepare_model_for_kbit_training PeftModel
    PeftModelForCausalLM load_checkpoint_and_dispatch dispatch_model compile
    DataParallel DistributedDataParallel FullyShardedDataParallel prepare inject_adapter_in_model
    """.split()
)
"""Functions that do something to the model they are given and return it."""
STEPS = frozenset(
    """
    gradient_checkpointing_enable activation_checkpointing_enable gradient_checkpointing_disable
    enable_input_require_grads register_forward_hook requires_grad_ half bfloat16 float to type
    add_adapter load_adapter
    """.split()
)
"""Methods that do something to the model they are called on."""
_SAME = frozenset(
    """
    half float bfloat16 to cuda cpu eval train get_input_embeddings get_output_embeddings
    get_base_model merge_and_unload unwrap_model named_parameters parameters modules named_modules
    quantize to_bettertransformer double requires_grad_ from_pretrained
    """.split()
)
"""Methods whose result belongs to the same model."""
_NOT_MODELS = re.compile(
    r"(Tokenizer|Config|Processor|FeatureExtractor|Dataset|Scheduler|Template|Pipeline|Vocab)\w*(\.from_\w+)?$"
)
LIBRARIES = frozenset(
    """
    argparse collections contextlib copy dataclasses datetime functools gc itertools json logging math os
    pathlib shutil subprocess sys tempfile time typing warnings datasets einops evaluate fire flash_attn
    huggingface_hub jieba loguru matplotlib nltk numpy pandas PIL rouge rouge_chinese safetensors scipy
    random re sentencepiece sklearn tensorboard torch torchvision tqdm typer wandb xformers yaml
    """.split()
)
"""Modules that are no part of anybody's project."""
OFF_DEFAULT_LIMIT = 6
"""Calls of one script that only other options than the default ones lead to, of which stories are told."""
_HERE = frozenset(["model", "net", "module", "base_model"])

_PYTHON_2 = re.compile(
    r"^\s*(print\s+[^(\s=]|exec\s+[\"']|raise\s+\w+\s*,|except\s+\w+\s*,\s*\w+\s*:)", re.MULTILINE
)


class Read(NamedTuple):
    """What was made of a file."""

    script: Script | None
    trainings: Tuple[Training, ...] = ()
    configs: Tuple[Config, ...] = ()
    problems: Tuple[Problem, ...] = ()
    launches: Tuple[Launch, ...] = ()
    """What a notebook starts in a shell."""


class Event(NamedTuple):
    """A call of interest on its way through the script; events sort by when they happen."""

    position: Tuple[int, ...]
    frame: Frame
    order: int
    guards: Guards
    node: ast.Call


def read_python(
    path: str,
    text: str,
    launch: Launch | None,
    neighbour: Neighbour,
    entries: Entries = lambda value: {},
) -> Read:
    """A script; `neighbour` finds files of the same project by module name, `entries` configurations."""
    if launch is None and not may_matter(text):
        # The compiler's own look at it tells valid from invalid without making a tree of Python objects.
        problem = _tried(lambda: symtable.symtable(text, path, "exec"), path, text)
        return Read(None, problems=(problem,)) if isinstance(problem, Problem) else Read(Script(path=path))
    source = parse(path, text)
    if isinstance(source, Problem):
        return Read(None, problems=(source,))
    return examine_source(source, launch, neighbour, False, entries)


def parse(path: str, text: str, lines: Lines | None = None) -> Source | Problem:
    """The file parsed, or why it cannot be, in one line; `lines` say where its text stands, if elsewhere."""
    tree = _tried(lambda: ast.parse(text), path, text)
    if isinstance(tree, Problem):
        return tree
    try:
        return Source(path, text, tree, lines or Lines(text))
    except RecursionError:
        return Problem(path, "it cannot be examined: it is nested too deeply", 1, 1)


def _tried(read: Callable[[], Any], path: str, text: str) -> Any:
    """What the compiler makes of a text, or the Problem that it has with it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes: theirs to see when they run it
            return read()
    except SyntaxError as error:
        python_2 = _PYTHON_2.search(text)
        message = "it is written for Python 2" if python_2 else f"it is no valid Python: {error.msg}"
        return Problem(path, message, error.lineno or 1, max(1, error.offset or 1))
    except (ValueError, RecursionError, MemoryError) as error:
        return Problem(path, f"it cannot be parsed: {error or type(error).__name__}", 1, 1)


def examine_source(
    source: Source,
    launch: Launch | None,
    neighbour: Neighbour,
    notebook: bool,
    entries: Entries = lambda value: {},
) -> Read:
    """What a parsed file says."""
    if not source.matters and launch is None:
        read = Read(Script(path=source.path, imports=source.imports, notebook=notebook))
        source.forget()
        return read
    reading = Reading(source, launch, neighbour, entries)
    try:
        return _Reader(reading, notebook).read()
    except RecursionError:
        return Read(
            None, problems=(Problem(source.path, "it cannot be examined: it is nested too deeply", 1, 1),)
        )
    finally:
        reading.forget()


class _Reader:
    """Goes through one script."""

    def __init__(self, reading: Reading, notebook: bool) -> None:
        self._reading, self._notebook = reading, notebook
        self._source = reading.source
        self._candidates: List[Tuple[Event, ast.expr | None]] = []
        """The events that may belong to a model's story, with what they are done to."""
        self._unseen: set[str] = set()
        """Functions of files that are not at hand, which are called with something like a model."""
        if any(word in self._source.text for word in ("__main__", "Trainer(", "Fire(", ".backward(")):
            self._find_helpers()  # a program, not a library
        self._first = World(reading)
        self._entered: Dict[int, Frame] = {}

    def _find_helpers(self) -> None:
        """Marks the lines that call functions of other files in which models are made or trained."""
        text = self._source.text
        words: List[str] = []
        for statement in self._source.tree.body:
            if isinstance(statement, ast.Import):
                for alias in statement.names:
                    word = f"{alias.asname or alias.name.partition('.')[0]}."
                    if self._foreign(alias.name) and word in text:
                        called = frozenset(re.findall(rf"{re.escape(word)}(\w+)\(", text))
                        if self._reading.module(self._source, alias.name, called) is not None:
                            words.append(word)
            elif isinstance(statement, ast.ImportFrom):
                module = "." * statement.level + (statement.module or "")
                for alias in statement.names if self._foreign(module) else ():
                    bound = alias.asname or alias.name
                    if f"{bound}(" not in text:
                        continue
                    if self._reading.module(self._source, module, frozenset((alias.name,))) is not None:
                        words.append(f"{bound}(")
                    elif (
                        self._is_handed_a_model(bound) and self._reading.module(self._source, module) is None
                    ):
                        words.append(f"{bound}(")
                        self._unseen.add(bound)
        if words:
            self._source.mark(words)

    def _foreign(self, module: str) -> bool:
        """Whether a module may be one of this project."""
        return not tracked(module) and module.partition(".")[0] not in LIBRARIES

    def _is_handed_a_model(self, function: str) -> bool:
        """Whether a line calls a function with something that is called a model."""
        text = self._source.text
        at = text.find(f"{function}(")
        while at >= 0:
            end = text.find("\n", at)
            if "model" in text[at + len(function) : end if end >= 0 else None]:
                return True
            at = text.find(f"{function}(", at + 1)
        return False

    def read(self) -> Read:
        """The script with its stories and trainings."""
        events = self._events()
        called: Dict[Place, Call] = {}
        off_default: List[Tuple[Event, Dict[str, bool]]] = []
        cautious = self._reading.cautious
        for event in events:
            # Looked at even where the options' defaults do not lead: somebody may give them.
            taken = cautious.reaches(event.frame, event.guards)
            if not taken:
                off_default.append((event, cautious.given))
            call = cautious.make_call(event.node, event.frame, event.order)
            call = msgspec.structs.replace(call, conditions=_conditions(event), taken=taken)
            # A function that is called twice is gone through twice: what differs is not known.
            called[call.place] = _merged(called[call.place], call) if call.place in called else call
        main = self._reading.frame(self._source.module)
        cautious.reaches(main, ())
        self._candidates = [(event, self._operand(event)) for event in events if self._may_be_step(event)]
        stories, trainings = self._stories(events)
        if self._reading.launch is None:
            stories += self._off_default(events, off_default, stories)
        script = Script(
            path=self._source.path,
            imports=self._source.imports,
            calls=tuple(called.values()),
            stories=tuple(stories),
            launch=self._reading.launch,
            environment=cautious.variables(main),
            notebook=self._notebook,
            declares=self._source.declares,
        )
        return Read(script, tuple(trainings))

    # --- The events ----------------------------------------------------------------------------------------

    def _events(self) -> List[Event]:
        """Every call of interest, in the order in which the script runs them, local functions gone into."""
        found: List[Event] = []
        self._linearize(self._first.frame(self._source.module), found, 0, set())
        for scope in self._functions(self._source.module):
            if id(scope) not in self._entered and self._source.interesting(
                scope.node.lineno, scope.node.end_lineno
            ):
                # Nothing in this file calls it: gone into by itself.
                frame = self._first.frame(scope)
                frame.position = (END, scope.node.lineno)
                if any(
                    dotted(getattr(it, "func", it)).endswith(".command") for it in scope.node.decorator_list
                ):
                    frame.launched = "typer"
                self._entered[id(scope)] = frame
                self._linearize(frame, found, 0, set())
        found.sort(key=lambda event: event.position)
        return found

    def _functions(self, scope: Scope) -> Iterator[Scope]:
        for function in scope.index().functions:
            yield function
            yield from self._functions(function)
        for inner in scope.classes.values():
            yield from self._functions(inner)

    def _linearize(self, frame: Frame, found: List[Event], depth: int, inside: set[int]) -> None:
        for statement, number, nested, node, name in frame.scope.calls:
            position = (*frame.position, statement.order, number, nested)
            local = self._local(name, frame) if name else None
            if local is not None and not local.is_class:
                self._enter(local, frame, node, statement, position, found, depth, inside)
                continue
            launched = self._launched(name, node, frame)
            if launched is not None:
                by = "typer" if "typer" in name else "fire"
                self._enter(launched, frame, node, statement, position, found, depth, inside, by)
            elif self._matters(name, node, frame, local):
                found.append(Event(position, frame, statement.order, statement.guards, node))

    def _enter(
        self,
        scope: Scope,
        frame: Frame,
        node: ast.Call,
        statement: Any,
        position: Tuple[int, ...],
        found: List[Event],
        depth: int,
        inside: set[int],
        launched: str = "",
    ) -> None:
        if id(scope) in inside or depth > 6:
            return
        new = self._reading.called(scope, frame, node, statement.order, statement.guards)
        new.guards, new.position, new.launched = statement.guards, position, launched
        if launched:
            new.call = None
        self._entered[id(scope)] = new
        self._linearize(new, found, depth + 1, inside | {id(scope)})

    def _bound(self, name: str, frame: Frame) -> List[Definition] | None:
        """Everything that a name is bound to in the innermost scope that knows it."""
        at: Frame | None = frame
        while at is not None:
            if name in at.scope.names:
                return at.scope.names[name]
            at = at.around
        return None

    def _local(self, name: str, frame: Frame) -> Scope | None:
        base = name.partition(".")[0]
        if base == "self" and name.count(".") == 1:
            scope: Scope | None = frame.scope
            while scope is not None and not scope.is_class:
                scope = scope.parent
            return scope.function(name[5:]) if scope is not None else None
        bound = self._bound(base, frame)
        if not bound or bound[-1].kind not in ("function", "class", "import"):
            return None
        if bound[-1].kind == "import":
            if tracked(str(bound[-1].node)):
                return None
            value = self._first.imported(bound[-1].node, frame).constant
            if isinstance(value, Local) and "." in name and value.scope.parent is None:
                return value.scope.function(name.partition(".")[2])
            return value.scope if isinstance(value, Local) and value.scope.parent is not None else None
        return bound[-1].node if "." not in name else None

    def _launched(self, name: str, node: ast.Call, frame: Frame) -> Scope | None:
        """The function that fire or typer calls with the options of the command line."""
        if name not in ("fire.Fire", "Fire", "typer.run") or not node.args:
            return None
        target = dotted(node.args[0])
        return self._local(target, frame) if target else None

    def _matters(self, name: str, node: ast.Call, frame: Frame, local: Scope | None) -> bool:
        last = name.rpartition(".")[2] if name else getattr(node.func, "attr", "")
        if name in self._unseen:
            return True
        if last in METHODS or local is not None:
            return True
        if last in CASTS:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            return any("float" in name or name.endswith("half") for name in map(dotted, given)) or (
                last == "float" and isinstance(node.func, ast.Attribute) and not node.args
            )
        base = name.partition(".")[0]
        bound = self._bound(base, frame)
        if bound and bound[-1].kind == "import":
            return tracked(str(bound[-1].node))
        return last in ("prepare", "initialize", "init_inference") or any(
            isinstance(it.value, ast.Attribute) and it.value.attr in ("bfloat16", "float16")
            for it in node.keywords
        )

    # --- Stories -------------------------------------------------------------------------------------------

    def _stories(self, events: List[Event]) -> Tuple[List[Story], List[Training]]:
        stories: List[Story] = []
        trainings: Dict[Place, Training] = {}
        trainers = [event for event in events if self._is_trainer(event)]
        arguments = [event for event in events if self._is_arguments(event)]
        told: set[Place] = set()
        for event in trainers:
            for story in worlds(self._reading, functools.partial(self._trained, event)):
                if story is not None and story not in stories:
                    stories.append(story)
                    if story.training is not None:
                        trainings.setdefault(story.training.place, story.training)
                    if story.load is not None:
                        told.add(story.load.place)
        for event in events:
            if event.frame.source.place_of_call(event.node) not in told and self._is_load(event):
                for story in worlds(self._reading, functools.partial(self._loaded, event)):
                    if story is not None and story not in stories:
                        stories.append(story)
        spoken = {place for it in trainings.values() for place in [it.place]}
        for event in arguments:
            place = event.frame.source.place_of_call(event.node)
            if place in spoken:
                continue
            for training in worlds(self._reading, functools.partial(self._by_arguments, event)):
                if training is not None:
                    trainings.setdefault(training.place, training)
                    break
        return stories, list(trainings.values())

    def _off_default(
        self, events: List[Event], away: List[Tuple[Event, Dict[str, bool]]], known: List[Story]
    ) -> List[Story]:
        """Stories of trainings that pass a step or load which the options' defaults leave out."""
        trainers = [event for event in events if self._is_trainer(event)]
        # What hangs on the same options goes together.
        groups: Dict[FrozenSet[Tuple[str, bool]], List[Event]] = {}
        for event, given in away:
            if self._operand(event) is not None or self._is_load(event):
                groups.setdefault(frozenset(given.items()), []).append(event)
        found: List[Story] = []
        for options, group in list(groups.items())[:OFF_DEFAULT_LIMIT]:
            places = {event.frame.source.place_of_call(event.node) for event in group}
            around = {id(event.frame.outermost) for event in group}
            for trainer in trainers:
                if id(trainer.frame.outermost) not in around:
                    continue
                look = functools.partial(self._trained, trainer)
                for story in worlds(self._reading, look, dict(options), OFF_DEFAULT_LIMIT):
                    if story is None or places.isdisjoint(call.place for call in story.calls):
                        continue
                    story = msgspec.structs.replace(story, off_default=True)
                    if story not in found and story not in known:
                        found.append(story)
        return found

    def _callee(self, event: Event, world: World | None = None) -> str:
        world = world or self._first
        function = world.callee(event.node, event.frame, event.order).constant
        if isinstance(function, Symbol):
            return str(function)
        if isinstance(function, Local):
            return base_of(world, function.scope)
        name = getattr(event.node.func, "attr", "")
        return f".{name}" if name else dotted(event.node.func)

    def _is_trainer(self, event: Event) -> bool:
        name = self._callee(event)
        last = name.rpartition(".")[2]
        if last.endswith("Trainer") and not name.startswith("."):
            return True
        if name == "deepspeed.initialize":
            return True
        return last == "prepare" and name.startswith(".") and self._reads_accelerate()

    def _reads_accelerate(self) -> bool:
        return any(it.module.partition(".")[0] == "accelerate" for it in self._source.imports)

    def _is_arguments(self, event: Event) -> bool:
        return is_training_arguments(self._callee(event))

    def _is_load(self, event: Event) -> bool:
        name = self._callee(event)
        return name.rpartition(".")[2] in LOADS and is_model(name)

    def _trained(self, event: Event, world: World) -> Story | None:
        if not world.runs(event.frame, event.guards):
            return None
        call = world.made_call(event.node, event.frame, event.order)
        model = self._model_argument(event.node, call.name)
        root = self._root_of_operand(world, model, event) if model is not None else None
        text = self._source.text
        only_evaluates = call.name.endswith("Trainer") and ".train(" not in text and ".evaluate(" in text
        training = None if only_evaluates else self._training(world, event, call)
        return self._story(world, root, event.frame.outermost, training, event)

    def _loaded(self, event: Event, world: World) -> Story | None:
        if not world.runs(event.frame, event.guards):
            return None
        return self._story(world, (id(event.node), id(event.frame)), event.frame.outermost)

    def _story(
        self,
        world: World,
        root: Any,
        around: Frame,
        training: Training | None = None,
        trainer: Event | None = None,
    ) -> Story | None:
        load = None
        steps: List[Call] = []
        trained_by = training.trainer if training is not None else None
        unseen = False
        for event, operand in self._candidates:
            if trainer is not None and event.position > trainer.position:
                break
            if event.frame.outermost is not around:
                continue
            if root is not None and (id(event.node), id(event.frame)) == root:
                load = world.made_call(event.node, event.frame, event.order)
                continue
            if root is None or (trainer is not None and event.node is trainer.node):
                continue
            if operand is None and dotted(event.node.func) in self._unseen:
                given = [*event.node.args, *(it.value for it in event.node.keywords)]
                roots = (self._root_of_operand(world, it, event) for it in given)
                unseen = unseen or (root in roots and world.runs(event.frame, event.guards))
                continue
            if operand is None or self._root_of_operand(world, operand, event) != root:
                continue
            if world.runs(event.frame, event.guards):
                steps.append(world.made_call(event.node, event.frame, event.order))
        passed = [it for it in (load, *steps, trained_by) if it is not None]
        if not passed:
            return None
        return Story(
            script=self._source.path,
            load=load,
            steps=tuple(steps),
            training=training,
            calls=tuple(passed),
            unseen=unseen,
        )

    def _may_be_step(self, event: Event) -> bool:
        name = dotted(event.node.func)
        if self._operand(event) is not None or name in self._unseen:
            return True
        return name.rpartition(".")[2] in LOADS or self._is_load(event)

    def _model_argument(self, node: ast.Call, name: str) -> ast.expr | None:
        for keyword in node.keywords:
            if keyword.arg in ("model", "module"):
                return keyword.value
        if name == "initialize":  # deepspeed.initialize(args, model, ...)
            return node.args[1] if len(node.args) > 1 else None
        if name == "prepare":
            named = [
                it for it in node.args if dotted(it).rpartition(".")[2] in _HERE or "model" in dotted(it)
            ]
            return named[0] if named else None
        return node.args[0] if node.args and not isinstance(node.args[0], ast.Starred) else None

    def _operand(self, event: Event) -> ast.expr | None:
        """The model that a step is done to."""
        node = event.node
        function = node.func
        name = dotted(function).rpartition(".")[2] or getattr(function, "attr", "")
        if name in WRAPS or (name == "from_pretrained" and "Peft" in dotted(function)):
            return self._model_argument(node, name)
        if isinstance(function, ast.Attribute) and name in STEPS:
            return function.value
        return None

    def _root_of_operand(self, world: World, node: ast.expr, event: Event) -> Any:
        key = (id(node), id(event.frame), event.order)
        return world.recall("roots", key, self._root, world, node, event.frame, event.order, 0)

    def _root(self, world: World, node: ast.expr, frame: Frame, order: int, depth: int) -> Any:
        """What a model was before anything was done to it: the call that made it, as an identity."""
        if depth > 40:
            return None
        if isinstance(node, ast.Name):
            found = world.find(node.id, frame, order)
            if found is not None:
                where, definition = found
                if definition.kind == "value":
                    return self._root(world, definition.node, where, definition.order, depth + 1)
                if definition.kind == "item":
                    return self._item(world, definition, where, depth + 1)
                if definition.kind == "each":  # a parameter or module of it
                    return self._root(world, definition.node, where, definition.order, depth + 1)
                return ("name", id(definition.node))
            return self._root_of_parameter(world, node.id, frame, depth)
        if isinstance(node, ast.Attribute):
            name = dotted(node)
            found = world.find(name, frame, order) if name else None
            if found is not None and found[1].kind == "value":
                return self._root(world, found[1].node, found[0], found[1].order, depth + 1)
            if name.startswith("self."):
                return ("self", name)
            return self._root(world, node.value, frame, order, depth + 1)
        if isinstance(node, ast.IfExp):
            chosen = node.body if world.truth(node.test, frame, order) else node.orelse
            return self._root(world, chosen, frame, order, depth + 1)
        if isinstance(node, ast.Call):
            return self._root_of_call(world, node, frame, order, depth)
        if isinstance(node, ast.Subscript):
            return self._root(world, node.value, frame, order, depth + 1)
        return ("expression", id(node))

    def _root_of_parameter(self, world: World, name: str, frame: Frame, depth: int) -> Any:
        at: Frame | None = frame
        while at is not None:
            if name in at.scope.parameters:
                break
            at = at.around
        if at is None:
            return ("free", name)
        if at.call is not None and at.caller is not None:
            given = argument_of(at.call, at.scope.node.args, name)
            if given is not None:
                return self._root(world, given, at.caller, at.order, depth + 1)
        return ("parameter", id(at.scope), name)

    def _root_of_call(self, world: World, node: ast.Call, frame: Frame, order: int, depth: int) -> Any:
        function = node.func
        name = dotted(function)
        last = name.rpartition(".")[2] or getattr(function, "attr", "")
        callee = world.callee(node, frame, order).constant
        if isinstance(callee, Local):
            returned = world.returned(node, callee.scope, frame, order)
            if returned is not None:
                return self._root(world, *returned, depth + 1)
            return (id(node), id(frame))
        if last in WRAPS or (last == "from_pretrained" and "Peft" in name):
            operand = self._model_argument(node, last)
            if operand is not None:
                return self._root(world, operand, frame, order, depth + 1)
        if last in LOADS or isinstance(callee, Symbol):
            return (id(node), id(frame))
        if isinstance(function, ast.Attribute) and last in _SAME:
            return self._root(world, function.value, frame, order, depth + 1)
        return (id(node), id(frame))

    def _item(self, world: World, definition: Any, frame: Frame, depth: int) -> Any:
        """One of several things that a call returns."""
        node, index = definition.node, definition.number
        if isinstance(node, ast.Call):
            callee = world.callee(node, frame, definition.order).constant
            last = dotted(node.func).rpartition(".")[2]
            if isinstance(callee, Local):
                returned = world.returned(node, callee.scope, frame, definition.order)
                if (
                    returned is not None
                    and isinstance(returned[0], ast.Tuple)
                    and index < len(returned[0].elts)
                ):
                    return self._root(world, returned[0].elts[index], returned[1], returned[2], depth + 1)
            elif last == "prepare" and index < len(node.args):
                return self._root(world, node.args[index], frame, definition.order, depth + 1)
            elif last == "initialize" and index == 0:
                model = self._model_argument(node, last)
                if model is not None:
                    return self._root(world, model, frame, definition.order, depth + 1)
        return ("item", id(node), index)

    # --- Trainings -----------------------------------------------------------------------------------------

    def _training(self, world: World, event: Event, trainer: Call) -> Training:
        settings: Dict[str, Value] = {}
        place, unseen = trainer.place, False
        if not trainer.name.endswith("Trainer"):
            unseen = True  # a loop of one's own: what is not given has no default of TrainingArguments
        if trainer.name == "initialize":
            config = trainer.argument("config") or trainer.argument("config_params")
            if config is not None:
                settings["deepspeed"] = config
        if trainer.name.endswith("Trainer"):
            node = next((it.value for it in event.node.keywords if it.arg == "args"), None)
            if node is None and len(event.node.args) > 1:
                node = event.node.args[1]
            if node is None:
                unseen = True
            else:
                value = world.value(node, event.frame, event.order)
                unseen = not value.known
                place, settings, unseen = self._settings(world, value, node, event, place)
        return Training(
            place=place,
            settings=settings,
            open=unseen,
            trainer=trainer,
            launch=self._reading.launch,
        )

    def _settings(
        self, world: World, value: Value, node: ast.expr, event: Event, place: Place
    ) -> Tuple[Place, Dict[str, Value], bool]:
        settings: Dict[str, Value] = {}
        unseen = False
        constant = value.constant
        if isinstance(constant, Call):
            place, settings, unseen = constant.place, dict(constant.arguments), constant.open
        elif isinstance(constant, Instance):
            settings = world.fields(constant)
            unseen = constant.call.open if constant.call is not None else False
            place = constant.call.place if constant.call is not None else value.place
        else:
            return place, settings, True
        # What was assigned to it afterwards: training_args.fp16 = True
        name = dotted(node)
        if name:
            for bound in event.frame.scope.names:
                if bound.startswith(f"{name}.") and bound.count(".") == name.count(".") + 1:
                    found = world.find(bound, event.frame, event.order)
                    if found is not None and found[0] is event.frame:
                        assigned = world.definition(found[1], found[0])
                        settings[bound.rpartition(".")[2]] = assigned
        return place, settings, unseen

    def _by_arguments(self, event: Event, world: World) -> Training | None:
        if not world.runs(event.frame, event.guards):
            return None
        call = world.made_call(event.node, event.frame, event.order)
        return Training(
            place=call.place, settings=call.arguments, open=call.open, launch=self._reading.launch
        )


def _conditions(event: Event) -> FrozenSet[str]:
    """The names in the tests that an event hangs on; `try` for what stands in one."""
    names: set[str] = set()
    at: Frame | None = event.frame
    guards = event.guards
    while at is not None:
        for test, _ in guards:
            names |= at.scope.source.names_in(test) if test is not None else {"try"}
        guards, at = at.guards, at.caller
    return frozenset(names)


def is_model(callee: str) -> bool:
    """Whether a load by this name makes a model, as far as the name tells."""
    return _NOT_MODELS.search(callee.rpartition(".from_")[0] or callee) is None


def _merged(one: Call, other: Call) -> Call:
    """Two views of one call: what they differ in is not known."""
    if one == other:
        return one
    arguments: Dict[str, Value] = {}
    for name in {**one.arguments, **other.arguments}:
        mine, theirs = one.arguments.get(name), other.arguments.get(name)
        value = mine or theirs
        assert value is not None
        same = mine is not None and theirs is not None and mine.constant == theirs.constant
        arguments[name] = value if same else value._replace(constant=UNKNOWN)
    given_in_one = set(one.arguments) ^ set(other.arguments)
    positional = tuple(
        mine if mine.constant == theirs.constant else mine._replace(constant=UNKNOWN)
        for mine, theirs in zip(one.positional, other.positional)
    )
    return Call(
        callee=one.callee,
        place=one.place,
        positional=positional,
        arguments=arguments,
        open=one.open or other.open or bool(given_in_one),
    )
