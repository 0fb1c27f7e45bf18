"""What the expressions of a script are worth, in one consistent world.

A world decides each condition that cannot be worked out one way, and keeps to it: two branches on the same
test go together. `worlds` tries every way that was come by.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
    Tuple,
    TypeVar,
)

from llm_doctor.workload import data
from llm_doctor.workload.data import UNKNOWN, Call, Launch, Place, Symbol, Value
from llm_doctor.workload.source import (
    CASTS,
    METHODS,
    Definition,
    Guard,
    Guards,
    Scope,
    Source,
    dotted,
    tracked,
)

WORLD_LIMIT = 32
"""Ways through a script that are looked at for one story."""
DEPTH_LIMIT = 60
"""Expressions within expressions, names behind names: what is deeper is unknown."""
STEP_LIMIT = 60_000
"""Expressions that are worked out in one script. No training script comes near it; generated ones do."""
END = 1 << 30
"""After every statement of a scope."""

T = TypeVar("T")


class OpenDict(Dict[Any, Any]):
    """A dict of Values that may hold more than is known."""


class _Open(Exception):
    """A question that a cautious reader leaves open."""


class Frame:
    """A scope that runs: how it was called, and from where. There is one for each way of being called."""

    def __init__(
        self,
        scope: Scope,
        caller: Frame | None = None,
        call: ast.Call | None = None,
        order: int = 0,
        guards: Guards = (),
        launched: str = "",
    ) -> None:
        self.scope = scope.index()
        self.caller, self.call, self.order, self.guards = caller, call, order, guards
        self.launched = launched
        """`fire` or `typer`, where that calls it with the options of the command line."""
        self.depth: int = caller.depth + 1 if caller else 0
        self.position: Tuple[int, ...] = (*caller.position, order) if caller else ()
        self.outermost: Frame = caller.outermost if caller else self
        self.source: Source = scope.source
        """The file that it is in."""
        self.around: Frame | None = None
        """The frame of the scope in which its function is written; None for a module."""


Neighbour = Callable[[Source, str, FrozenSet[str]], "Source | None"]
"""A file of the same project, by the file that imports it and the module's name; with names of functions only
when one of them makes or trains models."""


Entries = Callable[[Value], Mapping[str, Value]]
"""The entries of the configuration file that a value names; none where it is not at hand."""


class _Branch:
    """What was worked out hangs on an open question: what it is for each answer that was come by."""

    __slots__ = ("outcomes", "question")

    def __init__(self, question: str) -> None:
        self.question = question
        self.outcomes: Dict[bool, Any] = {}


Table = Dict[Any, Any]
"""What was worked out by node or name, frame and order; a _Branch where an open question has a part in it."""
_MISSING = object()


class Memory:
    """What was worked out, so that it is in every world that answers the same questions alike."""

    def __init__(self) -> None:
        self.values: Table = {}
        self.truths: Table = {}
        self.bindings: Table = {}
        self.questions: Table = {}
        self.guards: Table = {}
        self.calls: Table = {}
        self.roots: Table = {}


class Script:
    """What is known besides the file: its launch, and the files of its project."""

    def __init__(
        self, source: Source, launch: Launch | None, neighbour: Neighbour, entries: Entries = lambda value: {}
    ) -> None:
        self.source, self.launch, self._neighbour = source, launch, neighbour
        self.entries = entries
        self.flags = launch.flags if launch else {}
        self.steps_left = STEP_LIMIT
        self.dumps: Dict[int, str] = {}
        self.defaults_of: Dict[int, Dict[str, Value]] = {}
        self.constants: Dict[int, Value] = {}
        self.memory = Memory()
        self._memories: Dict[FrozenSet[Tuple[str, bool]], Memory] = {frozenset(): self.memory}
        self.nothing = Value(UNKNOWN, Place(source.path, 1))
        self._modules: Dict[str, Source | None] = {}
        self._absent: set[Tuple[str, FrozenSet[str]]] = set()
        self._frames: Dict[Tuple[int, ...], Frame] = {}
        self.cautious = Cautious(self)

    def forget(self) -> None:
        """Lets go of everything but what was found; other scripts may need the files of the project."""
        self.source.forget()
        for frame in self._frames.values():
            frame.__dict__.clear()
        self.cautious.__dict__.clear()
        self.__dict__.clear()

    def memory_of(self, given: Mapping[str, bool]) -> Memory:
        """What the worlds share in which these questions come out like this."""
        return self._memories.setdefault(frozenset(given.items()), Memory())

    def frame(self, scope: Scope) -> Frame:
        """The frame of a scope that nothing here calls."""
        return self._frames.get((id(scope),)) or self._keep((id(scope),), Frame(scope))

    def called(self, scope: Scope, frame: Frame, call: ast.Call, order: int, guards: Guards) -> Frame:
        """The frame of a local function that is called here."""
        key = (id(scope), id(call), id(frame))
        return self._frames.get(key) or self._keep(key, Frame(scope, frame, call, order, guards))

    def _keep(self, key: Tuple[int, ...], frame: Frame) -> Frame:
        self._frames[key] = frame
        parent = frame.scope.parent
        if parent is not None:
            caller = frame.caller
            while caller is not None and caller.scope is not parent:
                caller = caller.caller
            frame.around = caller or self.frame(parent)
        return frame

    def module(self, source: Source, name: str, telling: FrozenSet[str] = frozenset()) -> Source | None:
        """A file of the same project by its module's name, one import deep; None where there is none, or,
        with `telling`, where none of these functions makes or trains a model."""
        if source is not self.source or tracked(name):
            return None
        if self._modules.get(name) is None and (name, telling) not in self._absent:
            found = self._modules[name] = self._neighbour(source, name, telling)
            if found is None:
                self._absent.add((name, telling))
        return self._modules.get(name)


class World:
    """One way through a script. `taken` are the decisions in the order in which they came up."""

    def __init__(
        self, script: Script, prefix: Sequence[bool] = (), given: Mapping[str, bool] | None = None
    ) -> None:
        self.script = script
        self._given: Dict[str, bool] = dict(given or {})
        """Questions that come out like this whatever the options' defaults say."""
        self._prefix = list(prefix)
        self._decided: Dict[str, bool] = {}
        self.taken: List[bool] = []
        self._depth = 0
        self._memory = script.memory_of(self._given)
        self._own = Memory()
        """What only holds here and now: it hangs on something that is being worked out."""
        self._trail: List[Tuple[str, bool] | None] = []
        """The open questions that had a part in what is worked out, with their answers; None for what is only
        known here and now."""

    # --- Conditions -----------------------------------------------------------------------------------

    def decide(self, key: str) -> bool:
        """How this world answers a question that nothing answers: yes at first."""
        if key not in self._decided:
            outcome = self._prefix[len(self.taken)] if len(self.taken) < len(self._prefix) else True
            self.taken.append(outcome)
            self._decided[key] = outcome
        outcome = self._decided[key]
        self._trail.append((key, outcome))
        return outcome

    def recall(self, table: str, key: Any, work: Callable[..., Any], *arguments: Any) -> Any:
        """What this work comes to, which is done once for the same answers to open questions."""
        known = getattr(self._memory, table)
        found = known.get(key, _MISSING)
        if type(found) is _Branch:
            found = self._followed(found)
        if found is not _MISSING:
            return found
        own = getattr(self._own, table)
        if key in own:
            self._trail.append(None)
            return own[key]
        before = len(self._trail)
        outcome = work(*arguments)
        self._remember(known, own, key, before, outcome)
        return outcome

    def _followed(self, branch: _Branch) -> Any:
        """What is known for the answers that this world gives."""
        found: Any = branch
        while type(found) is _Branch:
            found = found.outcomes.get(self.decide(found.question), _MISSING)
        return found

    def _remember(self, known: Table, own: Table, key: Any, before: int, outcome: Any) -> None:
        if len(self._trail) == before:
            known[key] = outcome
            return
        trail = self._trail[before:]
        if None in trail:
            own[key] = outcome
            return
        table, at = known, key
        for question, answer in dict(trail).items():  # type: ignore[arg-type]
            branch = table.get(at)
            if type(branch) is not _Branch:
                branch = table[at] = _Branch(question)
            elif branch.question != question:
                return
            table, at = branch.outcomes, answer
        table[at] = outcome

    def given_answer(self, question: str) -> bool | None:
        """How a question comes out whatever the options' defaults say; None where that is not given."""
        return self._given.get(question)

    def holds(self, guards: Guards, frame: Frame, order: int = END) -> bool:
        """Whether everything around something comes out so that it runs."""
        if not guards:
            return True
        return bool(self.recall("guards", (id(guards), id(frame), order), self._hold, guards, frame, order))

    def _hold(self, guards: Guards, frame: Frame, order: int) -> bool:
        for test, outcome in guards:
            if test is None:
                if not outcome:
                    return False
                continue
            if self.truth(test, frame, order) != outcome:
                return False
        return True

    def runs(self, frame: Frame, guards: Guards) -> bool:
        """The same, with how its function came to be called."""
        at: Frame | None = frame
        while at is not None and at.caller is not None:
            if not self.holds(at.guards, at.caller):
                return False
            at = at.caller
        return self.holds(guards, frame)

    def truth(self, test: ast.expr, frame: Frame, order: int = END) -> bool:
        """How a test comes out: by its value, else by decision."""
        order = _order_of(test, frame, order)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return not self.truth(test.operand, frame, order)
        if isinstance(test, ast.BoolOp):
            wanted = isinstance(test.op, ast.Or)
            known = [self._known_truth(it, frame, order) for it in test.values]
            if wanted in known:
                return wanted
            for it, outcome in zip(test.values, known):
                if outcome is None and self.truth(it, frame, order) is wanted:
                    return wanted
            return not wanted
        outcome = self._known_truth(test, frame, order)
        if outcome is not None:
            return outcome
        flipped, key = self._question(test, frame, order)
        return self.decide(key) != flipped

    def _known_truth(self, test: ast.expr, frame: Frame, order: int) -> bool | None:
        if self._given and not isinstance(test, (ast.BoolOp, ast.Constant)):
            flipped, question = self._question(test, frame, order)
            answer = self.given_answer(question)
            if answer is not None:
                return answer != flipped
        key = (id(test), id(frame), order)
        return self.recall("truths", key, self._work_out, test, frame, order)  # type: ignore[no-any-return]

    def _work_out(self, test: ast.expr, frame: Frame, order: int) -> bool | None:
        if isinstance(test, ast.BoolOp):
            known = [self._known_truth(it, frame, order) for it in test.values]
            wanted = isinstance(test.op, ast.Or)
            return wanted if wanted in known else None if None in known else not wanted
        constant = self.value(test, frame, order).constant
        if constant is UNKNOWN:
            return None
        if isinstance(constant, OpenDict):
            return True if constant else None
        if isinstance(constant, Symbol):
            return True if _is_thing(constant) else None
        if isinstance(constant, (Call, Local, _Options, Instance, _Parser, _Merged)):
            return True
        return bool(constant)

    def _question(self, test: ast.expr, frame: Frame, order: int) -> Tuple[bool, str]:
        """A test as a question that two branches share, and whether it is asked the other way round."""
        key = (id(test), id(frame), order)
        return self.recall("questions", key, self._put, test, frame, order)  # type: ignore[no-any-return]

    def _put(self, test: ast.expr, frame: Frame, order: int) -> Tuple[bool, str]:
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            left, op, right = test.left, test.ops[0], test.comparators[0]
            if (
                isinstance(right, ast.Constant)
                and right.value is None
                and isinstance(op, (ast.Is, ast.IsNot))
            ):
                return isinstance(op, ast.Is), self._spelled(left, frame, order)
            spelled = f"{self._spelled(left, frame, order)} == {self._spelled(right, frame, order)}"
            if isinstance(op, (ast.Eq, ast.NotEq)):
                return isinstance(op, ast.NotEq), spelled
        return False, self._spelled(test, frame, order)

    def _spelled(self, node: ast.AST, frame: Frame, order: int) -> str:
        """An expression as text in which every name says what it is bound to."""
        if isinstance(node, ast.Name):
            found = self.find(node.id, frame, order)
            if found is None:
                return node.id
            where, definition = found
            alias = definition.kind == "value" and isinstance(definition.node, (ast.Name, ast.Attribute))
            if alias and self._depth < DEPTH_LIMIT:
                self._depth += 1
                try:
                    return self._spelled(definition.node, where, definition.order)
                finally:
                    self._depth -= 1
            return f"{node.id}@{id(definition.node)}"
        if isinstance(node, ast.Attribute):
            return f"{self._spelled(node.value, frame, order)}.{node.attr}"
        if isinstance(node, ast.Constant):
            return repr(node.value)
        if isinstance(node, ast.Call):
            parts = [self._spelled(it, frame, order) for it in (node.func, *node.args)]
            return f"{parts[0]}({', '.join(parts[1:])})"
        names = sorted({it.id for it in ast.walk(node) if isinstance(it, ast.Name)})
        bound = ",".join(self._spelled(ast.Name(name, ast.Load()), frame, order) for name in names)
        if id(node) not in self.script.dumps:
            self.script.dumps[id(node)] = ast.dump(node)
        return f"{self.script.dumps[id(node)]}|{bound}"

    # --- Names ----------------------------------------------------------------------------------------

    def find(self, name: str, frame: Frame, order: int) -> Tuple[Frame, Definition] | None:
        """The binding of a name that is seen before this statement, in this scope or around it."""
        key = (name, id(frame), order)
        return self.recall("bindings", key, self._look_for, name, frame, order)  # type: ignore[no-any-return]

    def _look_for(self, name: str, frame: Frame, order: int) -> Tuple[Frame, Definition] | None:
        at: Frame | None = frame
        here = order
        while at is not None:
            if not at.scope.is_class or at is frame:
                definitions = at.scope.names.get(name, ())
                for definition in reversed(definitions):
                    if definition.order < here and self.holds(definition.guards, at, definition.order):
                        if _changes_in_loop(at.scope, definitions, definition, here):
                            return at, definition._replace(kind="unknown")
                        if at.scope.parent is None and name in at.source.assigned_elsewhere:
                            return at, definition._replace(kind="unknown")
                        return at, definition
                if name in at.scope.parameters:
                    return None
            here = _called_from(at)
            at = at.around
        return None

    def frame(self, scope: Scope) -> Frame:
        """The frame of a scope that nothing here calls."""
        return self.script.frame(scope)

    def _name(self, name: str, node: ast.expr, frame: Frame, order: int) -> Value:
        found = self.find(name, frame, order)
        if found is not None:
            where, definition = found
            value = self.definition(definition, where)
            return self._changed(value, name, where, definition.order, order if where is frame else END)
        at: Frame | None = frame
        while at is not None:
            if name in at.scope.parameters:
                value = self._parameter(name, at)
                return self._changed(value, name, at, -1, order if at is frame else END)
            at = at.around
        return self.unknown(node, frame)

    def definition(self, definition: Definition, frame: Frame) -> Value:
        """What a binding in the scope of this frame is worth."""
        kind, node = definition.kind, definition.node
        if kind == "value":
            return self.value(node, frame, definition.order)
        if kind == "item":
            whole = self.value(node, frame, definition.order).constant
            if isinstance(whole, list) and definition.number is not None and definition.number < len(whole):
                item = whole[definition.number]
                if isinstance(item, Value):
                    return item
            return self.unknown(node, frame)
        if kind == "import":
            return self.imported(node, frame)
        if kind in ("function", "class"):
            return Value(Local(node), frame.source.place(node.node))
        if kind == "augmented" and isinstance(node.op, (ast.Add, ast.BitOr)):
            return self.value(
                ast.copy_location(ast.BinOp(node.target, node.op, node.value), node), frame, definition.order
            )
        return self.unknown(node, frame)

    def imported(self, qualified: str, frame: Frame) -> Value:
        """What an import stands for: something of another file of the project, else a Symbol."""
        place = Place(frame.source.path, 1)
        module, _, name = qualified.rpartition(".")
        if module and not tracked(qualified):
            other = self.script.module(frame.source, module)
            if other is not None:
                at = self.frame(other.module)
                bound = self.find(name, at, END)
                if bound is not None:
                    return self.definition(bound[1], bound[0])
        elif not module:
            other = self.script.module(frame.source, qualified)
            if other is not None:
                return Value(Local(other.module), place)
        return Value(Symbol(qualified.lstrip(".")), place)

    def _changed(self, value: Value, name: str, frame: Frame, after: int, before: int) -> Value:
        """A dict with what was put into it between its binding and here."""
        changes = frame.scope.changes.get(name)
        if not changes or not isinstance(value.constant, (dict, list)):
            return value
        if isinstance(value.constant, list):
            happened = [it for it in changes if after < it.order < before and it.kind != "passed"]
            return value._replace(constant=UNKNOWN) if happened else value
        entries = type(value.constant)(value.constant)
        for change in changes:
            if not after < change.order < before or not self.holds(change.guards, frame, change.order):
                continue
            if change.kind == "touched":
                return value._replace(constant=UNKNOWN)
            if change.kind == "passed":
                if self._may_change(change, frame):
                    return value._replace(constant=UNKNOWN)
            elif change.kind == "setitem":
                target, assigned = change.node
                entries = self._set_item(entries, target, assigned, frame, change.order)
            elif change.kind == "pop":
                key = (
                    self.value(change.node.args[0], frame, change.order).constant
                    if change.node.args
                    else None
                )
                if key in entries:
                    del entries[key]
            else:
                entries = self._updated(entries, change.node, frame, change.order)
        return value._replace(constant=entries)

    def _may_change(self, change: Definition, frame: Frame) -> bool:
        """Whether a function of the project that is handed a dict changes it."""
        call, argument = change.node
        function = self.value(call.func, frame, change.order).constant
        if not isinstance(function, Local) or function.scope.is_class:
            return False
        inside = function.scope.index()
        return any(argument_of(call, inside.node.args, name) is argument for name in inside.changes)

    def _set_item(
        self, entries: Dict[Any, Value], target: ast.Subscript, assigned: ast.expr, frame: Frame, order: int
    ) -> Dict[Any, Value]:
        keys: List[Any] = []
        node: ast.expr = target
        while isinstance(node, ast.Subscript):
            keys.append(self.value(_key(node), frame, order).constant)
            node = node.value
        keys.reverse()
        if any(not isinstance(key, (str, int)) for key in keys) or not keys:
            return _overridden(entries)
        inner = entries
        for key in keys[:-1]:
            below = inner.get(key)
            if below is None or not isinstance(below.constant, dict):
                return entries
            copied = type(below.constant)(below.constant)
            inner[key] = below._replace(constant=copied)
            inner = copied
        value = self.value(assigned, frame, order)
        inner[keys[-1]] = value.under(frame.source.place(target))
        return entries

    def _updated(
        self, entries: Dict[Any, Value], call: ast.Call, frame: Frame, order: int
    ) -> Dict[Any, Value]:
        new = self._dict_call(call, frame, order)
        if isinstance(new, OpenDict):
            entries = _overridden(entries)
        both = {**entries, **new}
        return OpenDict(both) if isinstance(entries, OpenDict) else both

    def _parameter(self, name: str, frame: Frame) -> Value:
        node, call = frame.scope.node, frame.call
        arguments = node.args
        everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        parameter = next((it for it in everything if it.arg == name), None)
        if frame.launched and parameter is not None:
            annotation = _annotation(parameter) if frame.launched == "typer" else ""
            if name in self.script.flags:
                return typed(self.script.flags[name], annotation)
            for negated in (f"no_{name}", f"no{name}"):
                if negated in self.script.flags:
                    return self.script.flags[negated]._replace(constant=False)
        if call is not None and frame.caller is not None:
            given = argument_of(call, arguments, name)
            if given is not None:
                return self.value(given, frame.caller, frame.order)
            if any(keyword.arg is None for keyword in call.keywords):
                return self.unknown(node, frame)
        default = default_of(arguments, name)
        # A function that is called by ways that are not followed need not have its defaults.
        elsewhere = call is None and not frame.launched and frame.scope.named_elsewhere
        if default is None or elsewhere:
            return self.unknown(parameter or node, frame)
        value = self.value(default, frame.around or frame, END)
        value = typer_default(value)
        if value.origin:
            return value
        return value._replace(
            key=frame.source.place(parameter) if parameter is not None else None,
            origin=f"the default of {name} on line {value.place.line}",
        )

    # --- Expressions ----------------------------------------------------------------------------------

    def unknown(self, node: Any, frame: Frame) -> Value:
        """A value that nothing is known of, but where it is written."""
        node = getattr(node, "node", node)
        if not hasattr(node, "lineno"):
            return self.script.nothing
        return Value(UNKNOWN, frame.source.place(node))

    def value(self, node: ast.expr, frame: Frame, order: int) -> Value:
        """What an expression is worth where it stands."""
        kind = type(node)
        if kind is ast.Constant:
            constant = self.script.constants.get(id(node))
            if constant is None:
                constant = Value(node.value, frame.source.place(node))  # type: ignore[attr-defined]
                self.script.constants[id(node)] = constant
            return constant
        key = (id(node), id(frame), order)
        known, own = self._memory.values, self._own.values
        found = known.get(key, _MISSING)
        if type(found) is _Branch:
            found = self._followed(found)
        if found is not _MISSING:
            return found  # type: ignore[no-any-return]
        if key in own:
            self._trail.append(None)
            return own[key]  # type: ignore[no-any-return]
        self.script.steps_left -= 1
        if self._depth >= DEPTH_LIMIT or self.script.steps_left < 0:
            return self.unknown(node, frame)
        handle = _EXPRESSIONS.get(kind)
        if handle is None:
            return self.unknown(node, frame)
        self._depth += 1
        own[key] = self.script.nothing  # for a name that is defined by itself
        before = len(self._trail)
        try:
            value: Value = handle(self, node, frame, order)
        except (ArithmeticError, TypeError, ValueError, KeyError, IndexError, MemoryError):
            value = self.unknown(node, frame)
        finally:
            self._depth -= 1
        del own[key]
        self._remember(known, own, key, before, value)
        return value

    def _of_name(self, node: ast.Name, frame: Frame, order: int) -> Value:
        return self._name(node.id, node, frame, order)

    def _of_attribute(self, node: ast.Attribute, frame: Frame, order: int) -> Value:
        name = dotted(node)
        if name:
            found = self.find(name, frame, order)
            if found is not None:
                where, definition = found
                value = self.definition(definition, where)
                return self._changed(value, name, where, definition.order, order if where is frame else END)
            if name.startswith("self."):
                return self._of_self(name, node, frame)
        base = self.value(node.value, frame, order)
        constant = base.constant
        if self._given and isinstance(constant, (_Options, Instance)):
            question = self._spelled(node, frame, order)
            answer = self.given_answer(question)
            if answer is not None:
                return Value(answer, frame.source.place(node))
        if isinstance(constant, Symbol):
            if constant == "sys" and node.attr == "argv":
                return self._argv(frame.source.place(node))
            return Value(Symbol(f"{constant}.{node.attr}"), frame.source.place(node))
        if isinstance(constant, _Merged):
            for part in constant.parts:
                found_in = self._part(part, node, frame)
                if found_in is not None:
                    return found_in
            return self.unknown(node, frame)
        if isinstance(constant, _Options):
            return self._option(constant, node.attr, node, frame)
        if isinstance(constant, Instance):
            return self._field(constant, node.attr, node, frame)
        if isinstance(constant, Call):
            return constant.arguments.get(node.attr) or self.unknown(node, frame)
        if isinstance(constant, Local) and constant.scope.parent is None:  # a module of the project
            bound = self.find(node.attr, self.frame(constant.scope), END)
            if bound is not None:
                return self.definition(bound[1], bound[0])
        if isinstance(constant, dict) and node.attr in constant:
            entry = constant[node.attr]
            return entry if isinstance(entry, Value) else self.unknown(node, frame)
        return self.unknown(node, frame)

    def _part(self, part: Any, node: ast.Attribute, frame: Frame) -> Value | None:
        """What one of several namespaces that were put together knows of a name."""
        if isinstance(part, dict):
            return part.get(node.attr)
        if isinstance(part, _Options):
            known = node.attr in part.source.options or node.attr in (part.flags or ())
            return self._option(part, node.attr, node, frame) if known else None
        if isinstance(part, Instance):
            return self.fields(part).get(node.attr)
        return None

    def _argv(self, place: Place) -> Value:
        """The words of the launch line; without one, those of a script that is given no options."""
        launch = self.script.launch
        given = launch.arguments if launch is not None else ()
        if any(not it.known for it in given) and sum(it.known for it in given) < 2:
            return Value(UNKNOWN, place)  # "$@" may be any number of words, or a settings file alone
        return Value([Value(self.script.source.path, place), *given], place)

    def _of_self(self, name: str, node: ast.expr, frame: Frame) -> Value:
        scope: Scope | None = frame.scope
        while scope is not None and not scope.is_class:
            scope = scope.parent
        if scope is None:
            return self.unknown(node, frame)
        if name in scope.changed_attributes:
            return self.unknown(node, frame)
        bound = scope.attributes.get(name, ())
        if len(bound) == 1:
            function, definition = bound[0]
            at = self.frame(function)
            if self.holds(definition.guards, at, definition.order):
                return self.definition(definition, at)
        attribute = scope.names.get(name.partition(".")[2])
        if len(bound) < 2 and attribute:
            return self.definition(attribute[-1], self.frame(scope))
        return self.unknown(node, frame)

    def _of_subscript(self, node: ast.Subscript, frame: Frame, order: int) -> Value:
        index = _key(node)
        base = self.value(node.value, frame, order).constant
        if isinstance(index, ast.Slice):
            bounds = [
                None if it is None else self.value(it, frame, order).constant
                for it in (index.lower, index.upper, index.step)
            ]
            if isinstance(base, list) and all(it is None or isinstance(it, int) for it in bounds):
                return Value(base[slice(*bounds)], frame.source.place(node))
            return self.unknown(node, frame)
        key = self.value(index, frame, order).constant
        if base == "os.environ" and isinstance(key, str):
            return self._environment(key, None, node, frame, order)
        if isinstance(base, dict) and not isinstance(key, (Call, dict, list)) and key in base:
            return base[key]  # type: ignore[no-any-return]
        if isinstance(base, list) and isinstance(key, int) and -len(base) <= key < len(base):
            return base[key]  # type: ignore[no-any-return]
        return self.unknown(node, frame)

    def _of_dict(self, node: ast.Dict, frame: Frame, order: int) -> Value:
        entries: Dict[Any, Value] = {}
        for key, item in zip(node.keys, node.values):
            if key is None:
                spread = self.value(item, frame, order).constant
                if isinstance(spread, dict):
                    entries = (
                        OpenDict({**entries, **spread})
                        if isinstance(spread, OpenDict)
                        else _with(entries, spread)
                    )
                else:
                    entries = _overridden(entries)
                continue
            name = self.value(key, frame, order).constant
            if isinstance(name, (str, int, float, bool)) or name is None:
                entries[name] = self.value(item, frame, order).under(frame.source.place(key))
            else:
                entries = OpenDict(entries)
        return Value(entries, frame.source.place(node))

    def _of_list(self, node: Any, frame: Frame, order: int) -> Value:
        if any(isinstance(it, ast.Starred) for it in node.elts):
            return self.unknown(node, frame)
        return Value([self.value(it, frame, order) for it in node.elts], frame.source.place(node))

    def _of_conditional(self, node: ast.IfExp, frame: Frame, order: int) -> Value:
        if self._known_truth(node.test, frame, order) is None:
            one, other = self.value(node.body, frame, order), self.value(node.orelse, frame, order)
            if not one.known and not other.known:
                return self.unknown(node, frame)  # whichever: nothing is to be decided
        chosen = node.body if self.truth(node.test, frame, order) else node.orelse
        return self.value(chosen, frame, order)

    def _of_bool(self, node: ast.BoolOp, frame: Frame, order: int) -> Value:
        wanted = isinstance(node.op, ast.Or)
        value = None
        for it in node.values:
            value = self.value(it, frame, order)
            outcome = self._known_truth(it, frame, order)
            if outcome is wanted:
                return value
            if outcome is None:
                if (
                    wanted
                    and it is not node.values[-1]
                    and (not self.value(node.values[-1], frame, order).known or self.truth(it, frame, order))
                ):
                    return self.unknown(node, frame)
                if not wanted:
                    rest = [self._known_truth(other, frame, order) for other in node.values]
                    if False in rest:
                        return Value(False, frame.source.place(node))
                    return self.unknown(node, frame)
        return value or self.unknown(node, frame)

    def _of_unary(self, node: ast.UnaryOp, frame: Frame, order: int) -> Value:
        if isinstance(node.op, ast.Not):
            outcome = self._known_truth(node.operand, frame, order)
            if outcome is None:
                return self.unknown(node, frame)
            inner = self.value(node.operand, frame, order)
            return Value(not outcome, inner.place, inner.key, inner.origin)
        constant = self.value(node.operand, frame, order).constant
        if isinstance(node.op, ast.USub) and isinstance(constant, (int, float)):
            return Value(-constant, frame.source.place(node))
        return self.unknown(node, frame)

    def _of_compare(self, node: ast.Compare, frame: Frame, order: int) -> Value:
        if len(node.ops) != 1:
            return self.unknown(node, frame)
        compare = _COMPARISONS.get(type(node.ops[0]))
        left = self.value(node.left, frame, order)
        right = self.value(node.comparators[0], frame, order)
        if compare is None or not left.known or not right.known:
            return self.unknown(node, frame)
        one, other = left.plain, right.plain
        if _holds_unknown(one) or _holds_unknown(other):
            return self.unknown(node, frame)
        symbols = [it for it in (one, other) if isinstance(it, Symbol)]
        if symbols:
            # What a name of a library is worth is not known, only what it is not.
            same_kind = len(symbols) == 2 or one is None or other is None
            if not same_kind or not all(map(_is_thing, symbols)):
                return self.unknown(node, frame)
        if isinstance(node.ops[0], (ast.Is, ast.IsNot)) and not (
            one is None or other is None or isinstance(other, bool)
        ):
            return self.unknown(node, frame)
        for it in (one, other):
            if isinstance(it, (Local, _Options, Instance, Call)) and one is not None and other is not None:
                return self.unknown(node, frame)
        return Value(bool(compare(one, other)), left.place, left.key, left.origin)

    def _of_binary(self, node: ast.BinOp, frame: Frame, order: int) -> Value:
        left, right = self.value(node.left, frame, order), self.value(node.right, frame, order)
        one, other = left.constant, right.constant
        place = frame.source.place(node)
        if isinstance(node.op, ast.BitOr) and isinstance(one, dict) and isinstance(other, dict):
            return Value(_with(one, other), place)
        if isinstance(node.op, ast.Add) and isinstance(one, list) and isinstance(other, list):
            return Value([*one, *other], place)
        compute = _ARITHMETIC.get(type(node.op))
        numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
        texts = type(one) is str and type(other) is str and isinstance(node.op, ast.Add)
        if compute is not None and (numbers or texts):
            return Value(compute(one, other), place)
        return self.unknown(node, frame)

    def _of_text(self, node: ast.JoinedStr, frame: Frame, order: int) -> Value:
        parts = []
        for it in node.values:
            if isinstance(it, ast.FormattedValue):
                if it.format_spec is not None or it.conversion not in (-1, ord("s")):
                    return self.unknown(node, frame)
                it = it.value
            constant = self.value(it, frame, order).constant
            if not isinstance(constant, (str, int, float)) or isinstance(constant, Symbol):
                return self.unknown(node, frame)
            parts.append(str(constant))
        return Value("".join(parts), frame.source.place(node))

    def _of_named(self, node: ast.NamedExpr, frame: Frame, order: int) -> Value:
        return self.value(node.value, frame, order)

    # --- Calls ----------------------------------------------------------------------------------------

    def callee(self, node: ast.Call, frame: Frame, order: int) -> Value:
        """What is called: a Symbol, something of the project, or UNKNOWN for a method of an object."""
        return self.value(node.func, frame, order)

    def _of_call(self, node: ast.Call, frame: Frame, order: int) -> Value:
        function = self.callee(node, frame, order).constant
        if isinstance(function, Local):
            return self._of_local_call(node, function.scope, frame, order)
        name = str(function) if isinstance(function, Symbol) else ""
        if not name and isinstance(node.func, ast.Name):
            name = node.func.id
        if not name and isinstance(node.func, ast.Attribute):
            return self._of_method(node, node.func, frame, order)
        last = name.rpartition(".")[2]
        if last == "dict" and name == "dict":
            return Value(self._dict_call(node, frame, order), frame.source.place(node))
        if name in _CONVERSIONS and len(node.args) == 1 and not node.keywords:
            return self._converted(name, node, frame, order)
        if name in ("os.environ.get", "os.getenv", "environ.get") and node.args:
            variable = self.value(node.args[0], frame, order).constant
            default = (
                self.value(node.args[1], frame, order)
                if len(node.args) > 1
                else Value(None, frame.source.place(node))
            )
            if isinstance(variable, str):
                return self._environment(variable, default, node, frame, order)
        if name == "getattr" and len(node.args) >= 2:
            base, attribute = (self.value(it, frame, order).constant for it in node.args[:2])
            if isinstance(base, Symbol) and isinstance(attribute, str):
                inner = self.value(node.args[1], frame, order)
                return Value(Symbol(f"{base}.{attribute}"), inner.place, inner.key, inner.origin)
            if isinstance(attribute, str) and isinstance(base, (_Options, Instance)):
                return self.value(
                    ast.copy_location(ast.Attribute(node.args[0], attribute, ast.Load()), node), frame, order
                )
        if name == "vars" and len(node.args) == 1:
            return self.value(node.args[0], frame, order)
        if name in ("argparse.Namespace", "types.SimpleNamespace"):
            parts: List[Any] = [
                self.value(it.value, frame, order).constant for it in node.keywords if it.arg is None
            ]
            own = {it.arg: self.value(it.value, frame, order) for it in node.keywords if it.arg}
            return Value(_Merged([own, *reversed(parts)]), frame.source.place(node))
        if name in ("copy.copy", "copy.deepcopy", "easydict.EasyDict") and len(node.args) == 1:
            return self.value(node.args[0], frame, order)
        if last == "ArgumentParser" or last in ("HfArgumentParser", "TrlParser", "H4ArgumentParser"):
            return Value(_Parser(node, frame, order, last), frame.source.place(node))
        made = last[:1].isupper()  # an object that is told by its arguments
        if made and isinstance(function, Symbol) and (tracked(name) or name.startswith(("torch.", "typer."))):
            return Value(self.make_call(node, frame, order), frame.source.place(node))
        return self.unknown(node, frame)

    def _of_method(self, node: ast.Call, function: ast.Attribute, frame: Frame, order: int) -> Value:
        base = self.value(function.value, frame, order).constant
        attribute = function.attr
        if isinstance(base, dict):
            if attribute == "get" and node.args:
                key = self.value(node.args[0], frame, order).constant
                if isinstance(key, (str, int)) and key in base:
                    return base[key]  # type: ignore[no-any-return]
                if not isinstance(base, OpenDict):
                    return (
                        self.value(node.args[1], frame, order)
                        if len(node.args) > 1
                        else Value(None, frame.source.place(node))
                    )
            if attribute == "copy":
                return Value(base, frame.source.place(node))
        if isinstance(base, _Parser):
            return self._parsed(base, attribute, node, frame)
        if (
            isinstance(base, str)
            and not isinstance(base, Symbol)
            and attribute in ("lower", "upper", "strip", "endswith", "startswith")
        ):
            words = [self.value(it, frame, order).plain for it in node.args]
            if all(type(it) is str for it in words):
                return Value(getattr(base, attribute)(*words), frame.source.place(node))
        return self.unknown(node, frame)

    def _parsed(self, parser: _Parser, method: str, node: ast.Call, frame: Frame) -> Value:
        place = frame.source.place(node)
        if method in ("parse_args", "parse_known_args"):
            flags = None
            if node.args:
                words = self.value(node.args[0], frame, END).constant
                if words is not None and not isinstance(words, list):
                    return self.unknown(node, frame)
                flags = data.flags(tuple(words)) if words is not None else None
            options = Value(_Options(frame.source, flags), place)
            if method == "parse_known_args":
                return Value([options, Value(UNKNOWN, place)], place)
            return options
        if method.startswith("parse") and parser.node.args:
            from_flags = method in ("parse_args_into_dataclasses", "parse_args_and_config")
            from_file = not from_flags or (
                parser.name != "HfArgumentParser" and "config" in self.script.flags
            )
            given = self.value(parser.node.args[0], parser.frame, parser.order)
            classes = given.constant if isinstance(given.constant, list) else [given]
            entries: Mapping[str, Value] = {}
            if from_file:
                written = [*node.args, *(it.value for it in node.keywords)]
                named = self.value(written[0], frame, END) if written and not from_flags else None
                named = named or self.script.flags.get("config")
                if named is not None and type(named.constant) is str:
                    entries = self.script.entries(named)
            return Value(
                [Value(Instance(it.constant, None, from_flags, from_file, entries), place) for it in classes],
                place,
            )
        if method == "parse" and parser.name == "H4ArgumentParser":
            return self._parsed(parser, "parse_args_into_dataclasses", node, frame)
        return self.unknown(node, frame)

    def _of_local_call(self, node: ast.Call, scope: Scope, frame: Frame, order: int) -> Value:
        if scope.is_class:
            return Value(
                Instance(Local(scope), self.make_call(node, frame, order), False), frame.source.place(node)
            )
        if frame.depth > 6 or not isinstance(scope.node, ast.FunctionDef):
            return self.unknown(node, frame)
        inside = self.script.called(scope, frame, node, order, ())
        for returned in inside.scope.returns:
            if self.holds(returned.guards, inside, returned.order):
                return self.value(returned.node, inside, returned.order)
        return self.unknown(node, frame)

    def returned(
        self, node: ast.Call, scope: Scope, frame: Frame, order: int
    ) -> Tuple[ast.expr, Frame, int] | None:
        """The expression that a local function returns here, and where it stands."""
        if scope.is_class or frame.depth > 6:
            return None
        inside = self.script.called(scope, frame, node, order, ())
        for it in inside.scope.returns:
            if self.holds(it.guards, inside, it.order):
                return it.node, inside, it.order
        return None

    def made_call(self, node: ast.Call, frame: Frame, order: int) -> Call:
        """The same as make_call, once for the same answers."""
        key = (id(node), id(frame), order)
        return self.recall("calls", key, self.make_call, node, frame, order)  # type: ignore[no-any-return]

    def make_call(self, node: ast.Call, frame: Frame, order: int) -> Call:
        """A call with its arguments, `**` laid out.

        For arguments that no others depend on nothing is decided: they are known in every world or not."""
        function = self.callee(node, frame, order).constant
        if isinstance(function, Symbol):
            callee = str(function)
        elif isinstance(function, Local):
            callee = base_of(self, function.scope)
        elif isinstance(node.func, ast.Attribute):
            callee = f".{node.func.attr}"
        else:
            callee = dotted(node.func)
        arguments: Dict[str, Value] = {}
        positional: List[Value] = []
        unseen = False
        if not _is_told_by_values(callee):
            return self._outline(node, callee, frame)
        for it in node.args:
            if isinstance(it, ast.Starred):
                spread_list = self.value(it.value, frame, order).constant
                if isinstance(spread_list, list):
                    positional.extend(spread_list)
                else:
                    unseen = True
                    break
            else:
                positional.append(self.script.cautious.value(it, frame, order))
        for keyword in node.keywords:
            in_step = keyword.arg is None or keyword.arg in IN_STEP
            value = (self if in_step else self.script.cautious).value(keyword.value, frame, order)
            if keyword.arg is not None:
                arguments[keyword.arg] = value.under(_keyword_place(keyword, frame.source))
                continue
            spread = value.constant
            if not isinstance(spread, dict):
                unseen = True
                continue
            unseen = unseen or isinstance(spread, OpenDict)
            arguments.update({key: it for key, it in spread.items() if isinstance(key, str)})
        return Call(
            callee=callee,
            place=frame.source.place_of_call(node),
            positional=tuple(map(_told, positional)),
            arguments={name: _told(value) for name, value in arguments.items()},
            open=unseen,
            declares=self._declared(function.scope) if isinstance(function, Local) else frozenset(),
            target=frame.scope.targets.get(id(node), ""),
        )

    def _outline(self, node: ast.Call, callee: str, frame: Frame) -> Call:
        """A call of which only the names of the keywords matter."""
        nothing = self.script.nothing
        return Call(
            callee=callee,
            place=frame.source.place_of_call(node),
            positional=tuple(nothing for _ in node.args),
            arguments={
                it.arg: nothing.under(_keyword_place(it, frame.source))
                for it in node.keywords
                if it.arg is not None
            },
            open=any(it.arg is None for it in node.keywords),
        )

    def _declared(self, scope: Scope) -> FrozenSet[str]:
        """The fields and the parameters of a class of the project."""
        found: set[str] = set()
        for it in self._with_bases(scope) if scope.is_class else ():
            found.update(_annotations(it))
            made = it.index().function("__init__")
            found.update(made.index().parameters if made is not None else ())
        return frozenset(found)

    def _dict_call(self, node: ast.Call, frame: Frame, order: int) -> Dict[Any, Value]:
        entries: Dict[Any, Value] = {}
        spreads = [*node.args, *(it.value for it in node.keywords if it.arg is None)]
        for it in spreads:
            spread = self.value(it, frame, order).constant
            entries = _with(entries, spread) if isinstance(spread, dict) else _overridden(entries)
        for keyword in node.keywords:
            if keyword.arg is not None:
                value = self.value(keyword.value, frame, order)
                entries[keyword.arg] = value.under(_keyword_place(keyword, frame.source))
        return entries

    def _converted(self, name: str, node: ast.Call, frame: Frame, order: int) -> Value:
        inner = self.value(node.args[0], frame, order)
        constant = inner.constant
        if name == "bool":
            outcome = self._known_truth(node.args[0], frame, order)
            return inner._replace(constant=UNKNOWN if outcome is None else outcome)
        if name in ("list", "tuple"):
            return inner if isinstance(constant, list) else self.unknown(node, frame)
        if name == "len":
            return (
                Value(len(constant), inner.place) if isinstance(constant, list) else self.unknown(node, frame)
            )
        if isinstance(constant, Symbol) or not isinstance(constant, (str, int, float)):
            return inner._replace(constant=UNKNOWN)
        return inner._replace(constant=_CONVERSIONS[name](constant))

    def _environment(
        self, name: str, default: Value | None, node: ast.expr, frame: Frame, order: int
    ) -> Value:
        launch = self.script.launch
        place = frame.source.place(node)
        given = self.variable(name, frame, order)
        if given is not None:
            return given
        if launch is not None:
            if name in launch.environment:
                return launch.environment[name]
            size = {"WORLD_SIZE": launch.world_size, "LOCAL_WORLD_SIZE": launch.processes_per_node}.get(name)
            if size is not None and launch.launcher != "python":
                return Value(
                    str(size),
                    place,
                    origin=f"{launch.launcher} on line {launch.place.line} of {launch.place.path}",
                )
            if size is not None and default is not None:
                return default
        return Value(UNKNOWN, place)

    def variables(self, frame: Frame) -> Dict[str, Value]:
        """What the statements of a scope put into the environment of its process, as it is at their end."""
        found: Dict[str, Value] = {}
        for change in _changes_of_environment(frame.scope):
            if change.kind == "setitem":
                name = self.value(_key(change.node[0]), frame, change.order).constant
                value = self.variable(name, frame, END) if type(name) is str else None
                if value is not None:
                    found[name] = _told(value)
        return found

    def variable(self, name: str, frame: Frame, before: int) -> Value | None:
        """What was put into a variable of the environment before this statement, in this scope or around it;
        None where nothing was."""
        at: Frame | None = frame
        while at is not None:
            for change in reversed(_changes_of_environment(at.scope)):
                value = self._put_into(name, change, at) if change.order < before else None
                if value is not None and self.holds(change.guards, at, change.order):
                    return value
            before = _called_from(at)
            at = at.around
        return None

    def _put_into(self, name: str, change: Definition, frame: Frame) -> Value | None:
        if change.kind == "setitem":
            target, assigned = change.node
            if self.value(_key(target), frame, change.order).constant != name:
                return None
            return self.value(assigned, frame, change.order).under(frame.source.place(target))
        words = {getattr(it, "value", None) for it in ast.walk(change.node) if isinstance(it, ast.Constant)}
        words.update(it.arg for it in ast.walk(change.node) if isinstance(it, ast.keyword))
        return self.unknown(change.node, frame) if name in words else None

    # --- Options of the command line ------------------------------------------------------------------

    def _option(self, options: _Options, name: str, node: ast.expr, frame: Frame) -> Value:
        specification = options.source.options.get(name) or self.script.source.options.get(name)
        flags = self.script.flags if options.flags is None else options.flags
        if specification is None:
            flag = flags.get(name)
            return flag if flag is not None else self.unknown(node, frame)
        scope, order, call = specification
        value = self._argparse(call, self.frame(scope), order, flags)
        set_default = options.source.defaults.get(name)
        if set_default is not None and value.origin.startswith("the default"):
            scope, order, default = set_default
            value = self.value(default, self.frame(scope), order)
            return value._replace(origin=f"set_defaults on line {value.place.line}")
        return value

    def _argparse(self, call: ast.Call, frame: Frame, order: int, flags: Mapping[str, Value]) -> Value:
        keywords = {it.arg: it.value for it in call.keywords if it.arg}
        action = keywords.get("action")
        kind = action.value if isinstance(action, ast.Constant) else "" if action is None else None
        place = frame.source.place(call)
        spelled = next((it.value for it in call.args if isinstance(it, ast.Constant)), "")
        words = [it.value for it in call.args if isinstance(it, ast.Constant) and isinstance(it.value, str)]
        names = [word[2:].replace("-", "_") for word in words if word.startswith("--")]
        flag = next((flags[name] for name in names if name in flags), None)
        if flag is None and flags is self.script.flags:
            flag = self._short_option([word for word in words if re.fullmatch("-[A-Za-z]\\w*", word)])
        switch = "BooleanOptionalAction" in dotted(action) if action is not None else False
        if switch and flag is None:
            flag = next((flags[f"no_{name}"] for name in names if f"no_{name}" in flags), None)
            if flag is not None:
                return flag._replace(constant=False)
        if flag is not None:
            if switch or kind in ("store_true", "store_false"):
                return flag._replace(constant=kind != "store_false")
            if kind not in ("", "store"):
                return flag._replace(constant=UNKNOWN)
            value = _of_type(flag, keywords.get("type"))
            many = keywords.get("nargs")
            if many is not None and not isinstance(value.constant, list):
                one = isinstance(many, ast.Constant) and many.value == "?"
                return value if one else value._replace(constant=[value])
            return value
        default = keywords.get("default")
        origin = f"the default of {spelled!s} on line {place.line}"
        if default is not None:
            value = self.value(default, frame, order)
            if type(value.constant) is str:
                value = _of_type(value, keywords.get("type"))
            return value._replace(key=place, origin=value.origin or origin)
        if kind in ("store_true", "store_false"):
            return Value(kind == "store_false", place, place, origin)
        required = keywords.get("required")
        if not str(spelled).startswith("-") or (isinstance(required, ast.Constant) and required.value):
            return Value(UNKNOWN, place)
        return Value(None, place, place, origin)

    def _short_option(self, words: Sequence[str]) -> Value | None:
        """What the launch line gives by `-x value`."""
        given = self.script.launch.arguments if self.script.launch is not None else ()
        for number, word in enumerate(given):
            text = word.constant
            if not isinstance(text, str) or not words:
                continue
            if text in words:
                origin = f"{text} on line {word.place.line} of {word.place.path}"
                after = given[number + 1] if number + 1 < len(given) else None
                if after is not None and not str(after.constant).startswith("-"):
                    return Value(after.constant, after.place, word.place, origin)
                return Value(True, word.place, word.place, origin)
            if text.startswith(tuple(words)) and not text.startswith("--"):  # -x5, -x=5
                return Value(UNKNOWN, word.place)
        return None

    def _field(self, instance: Instance, name: str, node: ast.expr, frame: Frame) -> Value:
        settings = self.fields(instance)
        if name in settings:
            return settings[name]
        call = instance.call
        if (instance.from_file and not instance.entries) or (call is not None and call.open):
            return self.unknown(node, frame)
        if instance.is_training_arguments(self):
            default = _TRAINING_DEFAULTS.get(name, UNKNOWN)
            return Value(default, frame.source.place(node), origin=f"TrainingArguments' default of {name}")
        return self.unknown(node, frame)

    def fields(self, instance: Instance) -> Dict[str, Value]:
        """What is known of a dataclass's fields: defaults, what it was called with, options of the launch."""
        found: Dict[str, Value] = {}
        if isinstance(instance.of, Local):
            for scope in reversed(self._with_bases(instance.of.scope)):
                found.update(self._defaults(scope))
        if instance.call is not None:
            own = not tracked(instance.call.callee)  # else the library's own fields come first
            found.update(zip(list(found) if own else (), instance.call.positional))
            found.update(instance.call.arguments)
        if instance.entries:
            mine = instance.is_training_arguments(self)
            found.update({k: v for k, v in instance.entries.items() if mine or k in found})
        elif instance.from_file:  # it may say otherwise than each default
            found = {name: value._replace(constant=UNKNOWN) for name, value in found.items()}
        if instance.from_flags:
            annotations = (
                {k: v for it in self._with_bases(instance.of.scope) for k, v in _annotations(it).items()}
                if isinstance(instance.of, Local)
                else {}
            )
            mine = instance.is_training_arguments(self)
            for name, flag in self.script.flags.items():
                turned_off = name[3:] if name.startswith("no_") else ""
                if turned_off in annotations and annotations[turned_off] == "bool":
                    found[turned_off] = flag._replace(constant=False)
                elif annotations.get(name) == "list":
                    many = flag.constant if isinstance(flag.constant, list) else [flag]
                    found[name] = flag._replace(constant=many)
                elif name in found or name in annotations or mine:
                    found[name] = typed(flag, annotations.get(name, ""))
        return found

    def _with_bases(self, scope: Scope, depth: int = 0) -> List[Scope]:
        scopes = [scope]
        for base in scope.node.bases:
            constant = self.value(base, self.frame(scope.parent), END).constant if scope.parent else None
            if isinstance(constant, Local) and constant.scope.is_class and depth < 5:
                scopes += self._with_bases(constant.scope, depth + 1)
        return scopes

    def _defaults(self, scope: Scope) -> Dict[str, Value]:
        """The defaults of a class's own fields. They are worked out once: what they hang on is unknown."""
        known = self.script.defaults_of.get(id(scope))
        if known is None:
            known = self.script.defaults_of[id(scope)] = self.script.cautious.work_out_defaults(scope)
        return known

    def work_out_defaults(self, scope: Scope) -> Dict[str, Value]:
        """The same, for the first time."""
        found = {}
        frame = self.frame(scope)
        later = scope.index().function("__post_init__")
        changed_later = (
            {name[5:] for name in later.index().names if name.startswith("self.")} if later else ()
        )
        for statement in scope.node.body:
            if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
                continue
            name, default = statement.target.id, statement.value
            if isinstance(default, ast.Call) and dotted(default.func).endswith("field"):
                default = next((it.value for it in default.keywords if it.arg == "default"), None)
            if default is None or name in changed_later:
                found[name] = Value(UNKNOWN, frame.source.place(statement))
                continue
            value = self.value(default, frame, END)
            origin = value.origin or f"the default of {name} on line {value.place.line}"
            found[name] = value._replace(key=frame.source.place(statement.target), origin=origin)
        return found


_EXPRESSIONS: Dict[type, Any] = {
    ast.Name: World._of_name,
    ast.Attribute: World._of_attribute,
    ast.Subscript: World._of_subscript,
    ast.Dict: World._of_dict,
    ast.List: World._of_list,
    ast.Tuple: World._of_list,
    ast.Set: World._of_list,
    ast.IfExp: World._of_conditional,
    ast.BoolOp: World._of_bool,
    ast.UnaryOp: World._of_unary,
    ast.Compare: World._of_compare,
    ast.BinOp: World._of_binary,
    ast.JoinedStr: World._of_text,
    ast.NamedExpr: World._of_named,
    ast.Call: World._of_call,
}
_COMPARISONS: Dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Is: lambda one, other: one is other,
    ast.IsNot: lambda one, other: one is not other,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda one, other: one in other,
    ast.NotIn: lambda one, other: one not in other,
}
_ARITHMETIC: Dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: lambda one, other: one * other if abs(one) < 1e18 and abs(other) < 1e18 else UNKNOWN,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CONVERSIONS: Dict[str, Any] = {
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "list": list,
    "tuple": tuple,
    "len": len,
}
_TRAINING_DEFAULTS: Mapping[str, Any] = {
    "fp16": False,
    "bf16": False,
    "gradient_checkpointing": False,
    "deepspeed": None,
    "resume_from_checkpoint": None,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
}
"""transformers/training_args.py, the same in 4.29 and 5.23."""


class Local:
    """A function, class or module of the project."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope


class _Options:
    """What parse_args returned: of the parser of this file, and the words that it was given, if not the
    command line's."""

    def __init__(self, source: Source, flags: Mapping[str, Value] | None) -> None:
        self.source, self.flags = source, flags


class _Merged:
    """Several namespaces put together: argparse.Namespace(**vars(one), **vars(other))."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = parts


class _Parser:
    """A parser of the command line; its first argument are the dataclasses, of those that have such."""

    def __init__(self, node: ast.Call, frame: Frame, order: int, name: str) -> None:
        self.node, self.frame, self.order, self.name = node, frame, order, name


class Instance:
    """A dataclass that was made from the command line, or called."""

    def __init__(
        self,
        of: Any,
        call: Call | None,
        from_flags: bool,
        from_file: bool = False,
        entries: Mapping[str, Value] | None = None,
    ) -> None:
        self.of, self.call, self.from_flags, self.from_file = of, call, from_flags, from_file
        self.entries = entries or {}
        """What the file says that it is read from; empty where that is not at hand."""

    def is_training_arguments(self, world: World) -> bool:
        """Whether it is TrainingArguments or made from them."""
        name = base_of(world, self.of.scope) if isinstance(self.of, Local) else str(self.of)
        return is_training_arguments(name)


def _told(value: Value) -> Value:
    """A value as the rest of the doctor may see it."""
    if isinstance(value.constant, Instance) and value.constant.call is not None:
        return value._replace(constant=value.constant.call)
    return value._replace(constant=UNKNOWN) if isinstance(value.constant, _INTERNAL) else value


_INTERNAL = (Local, _Options, _Parser, Instance, _Merged)


def is_training_arguments(name: str) -> bool:
    """Whether a qualified class name is TrainingArguments or a descendant of it in transformers or trl."""
    last = name.rpartition(".")[2]
    if last.endswith("TrainingArguments"):
        return tracked(name) or "." not in name
    return name.startswith("trl.") and last.endswith("Config") and last not in _OTHER_TRL


_OTHER_TRL = frozenset({"ModelConfig", "PPOConfig", "ScriptConfig", "JudgeConfig"})


def base_of(world: World, scope: Scope, depth: int = 0) -> str:
    """The qualified name of the library class that a class of the project is made from; else its own."""
    for base in scope.node.bases if scope.is_class else ():
        constant = world.value(base, world.frame(scope.parent), END).constant if scope.parent else None
        if isinstance(constant, Local) and constant.scope.is_class and depth < 5:
            name = base_of(world, constant.scope, depth + 1)
            if tracked(name):
                return name
        if isinstance(constant, Symbol):
            if tracked(constant):
                return str(constant)
            if constant.endswith(("Trainer", "TrainingArguments")):
                return str(constant)
    return scope.name


class _Way(NamedTuple):
    """What is taken to have come out so that something runs, and what was worked out on the way."""

    by_default: bool
    """Whether the options' defaults lead there."""
    given: Dict[str, bool]
    own: Memory
    memory: Memory


class Cautious(World):
    """Sees what holds in every world: what hangs on an open question is unknown."""

    def __init__(self, script: Script) -> None:
        super().__init__(script)
        self._ways: Dict[Tuple[int, Guards], _Way] = {}
        """By frame and guards."""

    def decide(self, key: str) -> bool:
        """Raises _Open unless it is given."""
        answer = self.given_answer(key)
        if answer is None:
            self._trail.append(None)
            raise _Open
        return answer

    def given_answer(self, question: str) -> bool | None:
        """How a question comes out on the way to the call that is looked at."""
        answer = self._given.get(question)
        if answer is not None:
            self._trail.append(None)
        return answer

    def _followed(self, branch: _Branch) -> Any:
        return _MISSING

    def value(self, node: ast.expr, frame: Frame, order: int) -> Value:
        """What an expression is worth whatever the open questions are."""
        try:
            return super().value(node, frame, order)
        except _Open:
            value = self.unknown(node, frame)
            self._own.values[(id(node), id(frame), order)] = value
            self._trail.append(None)
            return value

    def reaches(self, frame: Frame, guards: Guards) -> bool:
        """Takes it that something runs from here on; False where that is not what the options' defaults do.

        What has to be given for it, `given` tells."""
        way = self._way(frame, guards)
        by_default, self._given, self._own, self._memory = way
        return by_default

    def _way(self, frame: Frame, guards: Guards) -> _Way:
        if not guards:
            if frame.caller is not None:
                return self._way(frame.caller, frame.guards)
            return self._ways.setdefault((id(frame), ()), _Way(True, {}, Memory(), self.script.memory))
        known = len(guards)
        while known and (id(frame), guards[:known]) not in self._ways:
            known -= 1
        way = self._ways[id(frame), guards[:known]] if known else self._way(frame, ())
        for number in range(known, len(guards)):
            way = self._ways[id(frame), guards[: number + 1]] = self._further(way, guards[number], frame)
        return way

    def variable(self, name: str, frame: Frame, before: int) -> Value | None:
        """What was put into a variable; unknown where that hangs on an open question."""
        try:
            return super().variable(name, frame, before)
        except _Open:
            self._trail.append(None)
            return self.script.nothing

    def _further(self, way: _Way, guard: Guard, frame: Frame) -> _Way:
        if guard.test is None:
            return way._replace(by_default=way.by_default and guard.outcome)
        self._given, self._own, self._memory = dict(way.given), Memory(), way.memory
        by_default = self._take(guard.test, guard.outcome, frame) and way.by_default
        own = way.own if self._given == way.given else Memory()
        return _Way(by_default, self._given, own, self._memory)

    @property
    def given(self) -> Dict[str, bool]:
        """The questions that were taken to come out like this."""
        return dict(self._given)

    def _take(self, test: ast.expr, outcome: bool, frame: Frame) -> bool:
        """Takes a test to have come out like this; False where it cannot."""
        order = _order_of(test, frame, END)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self._take(test.operand, not outcome, frame)
        try:
            known = self._known_truth(test, frame, order)
        except _Open:
            known = None
        if known == outcome:
            return True
        if isinstance(test, ast.BoolOp):
            if isinstance(test.op, ast.And) is outcome:  # then each part came out like this
                taken = [self._take(part, outcome, frame) for part in test.values]  # each of them
                return all(taken)
            return known is None
        try:
            flipped, key = self._question(test, frame, order)
        except _Open:
            return True
        self._given[key] = outcome != flipped
        if known is not None:
            self._own = Memory()
            self._memory = Memory()  # what the defaults make of it does not hold here
        return known is None


IN_STEP = frozenset(
    """
    load_in_8bit load_in_4bit quantization_config device_map torch_dtype dtype config fp16 bf16
    gradient_checkpointing gradient_checkpointing_kwargs deepspeed fsdp args model peft_config config_params
    use_gradient_checkpointing modules_to_save mixed_precision half_precision_backend
    """.split()
)
"""Arguments that have to fit each other: their open questions are decided together."""


def worlds(
    script: Script,
    look: Callable[[World], T],
    given: Mapping[str, bool] | None = None,
    limit: int = WORLD_LIMIT,
) -> Iterator[T]:
    """What is seen in each world, the one where every open question is answered yes first."""
    prefix: List[bool] = []
    for _ in range(limit):
        if script.steps_left < 0:
            return
        world = World(script, prefix, given)
        yield look(world)
        prefix = list(world.taken)
        while prefix and not prefix[-1]:
            prefix.pop()
        if not prefix:
            return
        prefix[-1] = False


def typed(value: Value, annotation: str) -> Value:
    """A text of the command line as its type makes it."""
    text = value.constant
    if not isinstance(text, str) or isinstance(text, Symbol):
        return value
    lowered = text.lower()
    kind = annotation.rpartition(".")[2].lower()
    try:
        if kind == "int":
            return value._replace(constant=int(text))
        if kind == "float":
            return value._replace(constant=float(text))
    except ValueError:
        return value._replace(constant=UNKNOWN)
    if kind in ("bool", "str2bool", "string_to_bool", "strtobool") or (
        kind not in ("str", "string") and lowered in ("true", "false")
    ):
        if lowered in ("true", "1", "yes", "t", "y"):
            return value._replace(constant=True)
        if lowered in ("false", "0", "no", "f", "n"):
            return value._replace(constant=False)
    if kind == "":
        for convert in (int, float):
            try:
                return value._replace(constant=convert(text))
            except ValueError:
                continue
        if lowered == "none":
            return value._replace(constant=None)
    return value


def _of_type(value: Value, kind: ast.expr | None) -> Value:
    """A word of the command line as the `type` of its add_argument makes it."""
    name = dotted(kind).rpartition(".")[2] if kind is not None else "str"
    if name == "bool":  # of argparse: every text but the empty one
        return value._replace(constant=bool(value.constant)) if type(value.constant) is str else value
    if name in ("str", "Path", "int", "float") or "bool" in name.lower():
        return typed(value, name)
    return value._replace(constant=UNKNOWN)


def argument_of(call: ast.Call, arguments: ast.arguments, name: str) -> ast.expr | None:
    """What a call of a local function gives for one of its parameters; None where that cannot be told."""
    for keyword in call.keywords:
        if keyword.arg == name:
            return keyword.value
    names = [it.arg for it in (*arguments.posonlyargs, *arguments.args)]
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    if name not in names or any(isinstance(it, ast.Starred) for it in call.args):
        return None
    number = names.index(name)
    return call.args[number] if number < len(call.args) else None


def default_of(arguments: ast.arguments, name: str) -> ast.expr | None:
    """The default of a parameter, as written."""
    positional = [*arguments.posonlyargs, *arguments.args]
    for parameter, default in zip(reversed(positional), reversed(arguments.defaults)):
        if parameter.arg == name:
            return default
    for parameter, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults):
        if parameter.arg == name:
            return keyword_default
    return None


def typer_default(value: Value) -> Value:
    """`typer.Option(default, ...)` stands for its default."""
    call = value.constant
    if isinstance(call, Call) and call.callee in ("typer.Option", "typer.Argument"):
        return call.argument("default", 0) or value
    return value


def _annotation(parameter: ast.arg) -> str:
    return _type_name(parameter.annotation) if parameter.annotation is not None else ""


def _annotations(scope: Scope) -> Dict[str, str]:
    """The types of a class's fields, by name."""
    if scope.annotations is None:
        scope.annotations = dict(_work_out_annotations(scope))
    return scope.annotations


def _work_out_annotations(scope: Scope) -> Dict[str, str]:
    return {
        it.target.id: _type_name(it.annotation)
        for it in scope.node.body
        if isinstance(it, ast.AnnAssign) and isinstance(it.target, ast.Name)
    }


def _type_name(node: ast.expr) -> str:
    """`int` of `int` and `Optional[int]`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    names = [it.id for it in ast.walk(node) if isinstance(it, ast.Name)]
    if "List" in names or "list" in names:
        return "list"
    return next((name for name in ("bool", "int", "float", "str") if name in names), "")


def _is_index(node: Any) -> bool:
    return type(node).__name__ == "Index"  # to Python 3.8


_PLAIN = frozenset(
    "load_dataset prepare initialize init_inference notebook_launcher snapshot_download pipeline".split()
)


def _is_told_by_values(callee: str) -> bool:
    """Whether it matters what a call is given: not of set_seed and its like."""
    last = callee.rpartition(".")[2]
    return last[:1].isupper() or last in METHODS or last in CASTS or last in _PLAIN


def _overridden(entries: Dict[Any, Value]) -> OpenDict:
    """A dict after something unknown was put into it: each value may be another one."""
    return OpenDict({key: value._replace(constant=UNKNOWN) for key, value in entries.items()})


def _with(one: Dict[Any, Value], other: Dict[Any, Value]) -> Dict[Any, Value]:
    if isinstance(other, OpenDict):
        one = _overridden(one)
    both = {**one, **other}
    return OpenDict(both) if isinstance(one, OpenDict) else both


def _keyword_place(keyword: ast.keyword, source: Source) -> Place:
    if hasattr(keyword, "lineno"):
        return source.place(keyword)
    # To Python 3.8 a keyword has no position of its own: it stands before its value.
    value, lines, node = source.place(keyword.value), source.lines, keyword.value
    start = lines.starts[node.lineno - 1] + lines.column(node.lineno, node.col_offset) - 1
    found = source.text.rfind(str(keyword.arg), 0, start)
    if found < 0:
        return value
    line = 1 + source.text.count("\n", 0, found)
    place = lines.located(Place(value.path, line, found - lines.starts[line - 1] + 1))
    return place._replace(end_line=value.end_line, end_column=value.end_column)


def _order_of(test: ast.expr, frame: Frame, order: int) -> int:
    """Where a test stands: what is bound after it, as in its own branches, has no part in it."""
    return frame.scope.tests.get(id(test), order)


def _is_thing(symbol: Symbol) -> bool:
    """Whether a name is that of a class, function or dtype of a library: true, and nothing else is it."""
    last = symbol.rpartition(".")[2]
    if last.startswith("__") or last.isupper():
        return False
    return tracked(symbol) or symbol.partition(".")[0] in ("torch", "typing", "functools")


def _holds_unknown(plain: Any) -> bool:
    if isinstance(plain, dict):
        return any(map(_holds_unknown, plain.values()))
    return any(map(_holds_unknown, plain)) if isinstance(plain, list) else plain is UNKNOWN


def _changes_in_loop(
    scope: Scope, definitions: Sequence[Definition], definition: Definition, here: int
) -> bool:
    """Whether the next turn of a loop sees another binding of a name, or one that is made from the last."""
    for begin, end in scope.loops:
        if begin < here <= end and any(here <= it.order <= end for it in definitions):
            return True
        if definition.kind == "augmented" and begin < definition.order <= end:
            return True
    return False


def _changes_of_environment(scope: Scope) -> List[Definition]:
    """What is put into os.environ, in order."""
    return [*scope.changes.get("environ", ()), *scope.changes.get("os.environ", ())]


def _key(target: ast.Subscript) -> ast.expr:
    """What stands between the brackets; up to Python 3.8 it is wrapped once more."""
    index = target.slice
    return getattr(index, "value", index) if _is_index(index) else index


def _called_from(frame: Frame) -> int:
    """Where the scope around a frame's function stands when it is called."""
    parent = frame.scope.parent
    at = frame
    while at.caller is not None:
        if at.caller.scope is parent:
            return at.order
        at = at.caller
    return END
