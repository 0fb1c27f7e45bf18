"""A Python file as it is written: its scopes, what each name is bound to and under which conditions, and the
statements that hold calls of interest. Values are worked out later, and only those that are asked for.

Indexing looks at statements, not into their expressions: it costs a fraction of the parse.
"""

from __future__ import annotations

import ast
import bisect
import collections
import functools
import itertools
import re
from typing import (
    Any,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Sequence,
    Set,
    Tuple,
    Union,
)

from llm_doctor.workload.data import Import, Place

PACKAGES = ("transformers", "peft", "accelerate", "deepspeed", "bitsandbytes", "trl", "datasets", "torch_xla")
"""Everything that is imported from these is of interest."""

METHODS = frozenset(
    """
    from_pretrained from_config prepare_model_for_int8_training prepare_model_for_kbit_training
    get_peft_model gradient_checkpointing_enable activation_checkpointing_enable
    gradient_checkpointing_disable enable_input_require_grads register_forward_hook
    register_full_backward_hook requires_grad_ half bfloat16 backward autocast GradScaler
    set_default_dtype set_device is_bf16_supported get_device_capability DataParallel
    DistributedDataParallel FullyShardedDataParallel init_process_group notebook_launcher
    set_per_process_memory_fraction add_adapter unscale_ push_to_hub
    """.split()
)
"""Calls of interest by the last part of their name, whatever they are called on."""
CASTS = frozenset({"to", "float", "cast", "type"})
"""Of interest when they name a dtype or belong to a model; too common to look for in every file."""

TELLING = tuple(
    """
    from_pretrained from_config get_peft_model prepare_model_for_ Trainer TrainingArguments Accelerator
    initialize init_inference autocast gradient_checkpointing load_dataset Config( Plugin( pipeline(
    push_to_hub notebook_launcher use_auth_token device_map dispatch requires_grad
    """.split()
)
"""Words of files that load, prepare or train models."""
_WORDS = (
    "float16",  # bfloat16 as well
    "float32",
    "torch.half",
    ".float()",
    "Fire(",
    "typer.run(",
    ".prepare(",
)
"""Words of lines that are of interest whatever is imported."""
_APART = bytes(it if it >= 128 or chr(it).isalnum() or it == ord("_") else ord(" ") for it in range(256))
"""Takes identifiers apart, for bytes.translate."""
CHANGES = frozenset("update setdefault pop popitem clear append extend insert remove sort reverse".split())
"""Methods that change the dict or list that they are called on."""

_TERMINATORS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_EXITS = frozenset({"exit", "_exit", "abort"})
Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class Guard(NamedTuple):
    """A condition that holds where something stands: this test came out like that."""

    test: ast.expr | None
    """None for what stands in a `try`, which runs, and for an exception handler, which is taken not to."""
    outcome: bool


Guards = Tuple[Guard, ...]


class Definition(NamedTuple):
    """One binding of a name. `number` is the position in a tuple that is unpacked."""

    order: int
    guards: Guards
    kind: str
    node: Any
    number: int | None = None


class Statement(NamedTuple):
    """Expressions with calls of interest, in the order in which they run."""

    order: int
    guards: Guards
    expressions: Tuple[ast.expr, ...]


class Scope:
    """A module, function or class body."""

    def __init__(self, source: Source, node: Any, parent: Scope | None, name: str) -> None:
        self.source, self.node, self.parent, self.name = source, node, parent, name
        source.scopes.append(self)
        self.names: Dict[str, List[Definition]] = {}
        self.changes: Dict[str, List[Definition]] = {}
        """`d["k"] = v` and `d.update(...)` by the name of d."""
        self.statements: List[Statement] = []
        self.returns: List[Definition] = []
        self.functions: List[Scope] = []
        self.classes: Dict[str, Scope] = {}
        self.parameters: Set[str] = set()
        self.annotations: Dict[str, str] | None = None
        self.tests: Dict[int, int] = {}
        """By the id of a test: the order of its statement."""
        self.loops: List[Tuple[int, int]] = []
        """The orders of the statements of each loop: after the first, up to the last."""
        self.targets: Dict[int, str] = {}
        """By the id of a value: the name that it is bound to."""
        self._order = 0
        self._indexed = False

    @property
    def is_class(self) -> bool:
        """Whether it is a class body."""
        return isinstance(self.node, ast.ClassDef)

    @functools.cached_property
    def attributes(self) -> Dict[str, List[Tuple[Scope, Definition]]]:
        """Of a class: what its methods bind each `self.name` to, and in which of them."""
        found: Dict[str, List[Tuple[Scope, Definition]]] = {}
        for function in self.index().functions:
            for name, definitions in function.index().names.items():
                if name.startswith("self."):
                    found.setdefault(name, []).extend((function, it) for it in definitions)
        return found

    @functools.cached_property
    def changed_attributes(self) -> Set[str]:
        """Of a class: the dicts and lists that its methods change."""
        return {name for function in self.index().functions for name in function.index().changes}

    @functools.cached_property
    def named_elsewhere(self) -> bool:
        """Whether the file has its name in another place as well."""
        return self.source.text.count(self.name) > 1

    def index(self) -> Scope:
        """Looks at the statements, once."""
        if not self._indexed:
            self._indexed = True
            if isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                arguments = self.node.args
                everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                everything += [it for it in (arguments.vararg, arguments.kwarg) if it]
                self.parameters = {it.arg for it in everything}
            self._body(self.node.body, ())
        return self

    def function(self, name: str) -> Scope | None:
        """A function that is defined here, by its name."""
        return self._functions.get(name)

    @functools.cached_property
    def _functions(self) -> Dict[str, Scope]:
        return {it.name: it for it in reversed(self.index().functions)}

    @functools.cached_property
    def calls(self) -> List[Tuple[Statement, int, int, ast.Call, str]]:
        """The calls of its statements, in the order in which they run, with the numbers of the statement and
        of the call in it, and the name that is called, if it is one."""
        return [
            (statement, number, nested, node, dotted(node.func))
            for number, statement in enumerate(self.index().statements)
            for nested, node in enumerate(itertools.chain.from_iterable(map(calls, statement.expressions)))
        ]

    def _define(self, name: str, guards: Guards, kind: str, node: Any, index: int | None = None) -> None:
        self.names.setdefault(name, []).append(Definition(self._order, guards, kind, node, index))

    def _body(self, body: Sequence[ast.stmt], guards: Guards) -> None:
        for statement in body:
            self._order += 1
            handle = _HANDLERS.get(type(statement))
            if handle is not None:
                after = handle(self, statement, guards)
                if after is not None:
                    guards = after
            elif isinstance(statement, (ast.With, ast.AsyncWith)):
                self._note(guards, statement.items[0].context_expr, *statement.items[1:])
                for item in statement.items:
                    if item.optional_vars is not None:
                        self._target(item.optional_vars, item.context_expr, guards)
                self._body(statement.body, guards)
            elif isinstance(statement, (ast.For, ast.AsyncFor)):
                self._note(guards, statement.iter)
                self._each(statement.target, statement.iter, guards)
                begin = self._order
                self._body(statement.body, guards)
                self.loops.append((begin, self._order))
                self._body(statement.orelse, guards)
            elif hasattr(statement, "cases"):  # match, from Python 3.10 on
                for case in statement.cases:
                    self._body(
                        case.body, (*guards, Guard(ast.Name(f"case {case.pattern.lineno}", ast.Load()), True))
                    )

    def _note(self, guards: Guards, expression: ast.expr, *further: ast.withitem) -> None:
        """Keeps a statement that a line of interest is in."""
        last = further[-1].context_expr if further else expression
        if self.source.interesting(expression.lineno, last.end_lineno or last.lineno):
            expressions = (expression, *(it.context_expr for it in further))
            self.statements.append(Statement(self._order, guards, expressions))

    def _target(self, target: ast.expr, value: ast.expr, guards: Guards) -> None:
        if isinstance(target, ast.Name):
            self._define(target.id, guards, "value", value)
            self.targets[id(value)] = target.id
        elif isinstance(target, (ast.Tuple, ast.List)):
            same = isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts)
            for number, part in enumerate(target.elts):
                if isinstance(part, ast.Starred):
                    self._unknown(part.value, guards)
                elif same:
                    self._target(part, value.elts[number], guards)  # type: ignore[attr-defined]
                else:
                    name = dotted(part)
                    if name:
                        self._define(name, guards, "item", value, number)
        elif isinstance(target, ast.Attribute):
            name = dotted(target)
            if name:
                self._define(name, guards, "value", value)
                self.targets[id(value)] = name
        elif isinstance(target, ast.Subscript):
            self._change(target, guards, "setitem", (target, value))

    def _change(self, target: ast.expr, guards: Guards, kind: str, node: Any) -> None:
        """Keeps what is done to a dict or list, by the name at the root of `d["a"]["b"]`."""
        while isinstance(target, ast.Subscript):
            target = target.value
        name = dotted(target)
        if name:
            self.changes.setdefault(name, []).append(Definition(self._order, guards, kind, node))

    def _method(self, call: ast.expr, guards: Guards) -> None:
        """A call that changes what it is called on."""
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in CHANGES:
            nested = isinstance(call.func.value, ast.Subscript)
            kind = (
                "touched"
                if nested or call.func.attr not in ("update", "setdefault", "pop")
                else call.func.attr
            )
            self._change(call.func.value, guards, kind, call)

    def _each(self, target: ast.expr, iterable: ast.expr, guards: Guards) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._define(node.id, guards, "each", iterable)

    def _unknown(self, target: ast.expr, guards: Guards) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name):
                self._define(node.id, guards, "unknown", node)

    # --- One method a kind of statement; what it returns are the guards of the statements after it --------

    def _assign(self, statement: ast.Assign, guards: Guards) -> None:
        self._method(statement.value, guards)
        for target in statement.targets:
            self._target(target, statement.value, guards)
        self._note(guards, statement.value)

    def _annotated(self, statement: ast.AnnAssign, guards: Guards) -> None:
        if statement.value is not None:
            self._target(statement.target, statement.value, guards)
            self._note(guards, statement.value)

    def _augmented(self, statement: ast.AugAssign, guards: Guards) -> None:
        name = dotted(statement.target)
        if name:
            self._define(name, guards, "augmented", statement)

    def _expression(self, statement: ast.Expr, guards: Guards) -> None:
        value = statement.value
        if isinstance(value, ast.Call):
            function = value.func
            self._method(value, guards)
            if isinstance(function, ast.Attribute):
                if function.attr == "add_argument":
                    self.source.options[destination(value)] = (self, self._order, value)
                elif function.attr == "set_defaults":
                    for keyword in value.keywords:
                        self.source.defaults[keyword.arg or ""] = (self, self._order, keyword.value)
            elif isinstance(function, ast.Name):
                self._own_function(function.id, value, guards)
        self._note(guards, value)

    def _own_function(self, name: str, call: ast.Call, guards: Guards) -> None:
        if name == "setattr" and len(call.args) == 3:
            target, attribute = dotted(call.args[0]), call.args[1]
            if target and isinstance(attribute, ast.Constant):
                self._define(f"{target}.{attribute.value!s}", guards, "value", call.args[2])
            return
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            if isinstance(argument, ast.Name):
                self._change(argument, guards, "passed", (call, argument))

    def _delete(self, statement: ast.Delete, guards: Guards) -> None:
        for target in statement.targets:
            if isinstance(target, ast.Subscript):
                self._change(target, guards, "touched", statement)
            else:
                name = dotted(target)
                if name:
                    self._define(name, guards, "unknown", target)

    def _if(self, statement: ast.If, guards: Guards) -> Guards:
        self._note(guards, statement.test)
        self.tests[id(statement.test)] = self._order
        inside, otherwise = Guard(statement.test, True), Guard(statement.test, False)
        self._body(statement.body, (*guards, inside))
        if statement.orelse:
            self._body(statement.orelse, (*guards, otherwise))
            if ends(statement.orelse):
                return (*guards, inside)
        if ends(statement.body):
            return (*guards, otherwise)
        return guards

    def _while(self, statement: ast.While, guards: Guards) -> None:
        self._note(guards, statement.test)
        begin = self._order
        self._body(statement.body, guards)
        self.loops.append((begin, self._order))
        self._body(statement.orelse, guards)

    def _try(self, statement: ast.Try, guards: Guards) -> None:
        self._body(statement.body, (*guards, Guard(None, True)) if statement.handlers else guards)
        for handler in statement.handlers:
            self._body(handler.body, (*guards, Guard(None, False)))
        self._body(statement.orelse, guards)
        self._body(statement.finalbody, guards)

    def _function(self, statement: Function, guards: Guards) -> None:
        scope = Scope(self.source, statement, self, statement.name)
        self.functions.append(scope)
        self._define(statement.name, guards, "function", scope)
        for decorator in statement.decorator_list:
            self._note(guards, decorator)

    def _class(self, statement: ast.ClassDef, guards: Guards) -> None:
        scope = Scope(self.source, statement, self, statement.name)
        self.classes[statement.name] = scope
        self._define(statement.name, guards, "class", scope)

    def _import(self, statement: ast.Import, guards: Guards) -> None:
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            self._define(bound, guards, "import", alias.name if alias.asname else bound)

    def _import_from(self, statement: ast.ImportFrom, guards: Guards) -> None:
        module = "." * statement.level + (statement.module or "")
        for alias in statement.names:
            joined = f"{module}{alias.name}" if module.endswith(".") else f"{module}.{alias.name}"
            self._define(alias.asname or alias.name, guards, "import", joined)

    def _return(self, statement: ast.Return, guards: Guards) -> None:
        if statement.value is not None:
            self.returns.append(Definition(self._order, guards, "value", statement.value))
            self._note(guards, statement.value)

    def _assert(self, statement: ast.Assert, guards: Guards) -> None:
        self._note(guards, statement.test)


_HANDLERS: Dict[type, Any] = {
    ast.Assign: Scope._assign,
    ast.AnnAssign: Scope._annotated,
    ast.AugAssign: Scope._augmented,
    ast.Expr: Scope._expression,
    ast.If: Scope._if,
    ast.While: Scope._while,
    ast.Try: Scope._try,
    ast.FunctionDef: Scope._function,
    ast.AsyncFunctionDef: Scope._function,
    ast.ClassDef: Scope._class,
    ast.Import: Scope._import,
    ast.ImportFrom: Scope._import_from,
    ast.Return: Scope._return,
    ast.Assert: Scope._assert,
    ast.Delete: Scope._delete,
}
if hasattr(ast, "TryStar"):
    _HANDLERS[ast.TryStar] = Scope._try


class Source:
    """One parsed file. Raises what ast.parse does."""

    def __init__(self, path: str, text: str, tree: ast.Module, lines: Lines) -> None:
        self.path, self.text, self.tree, self.lines = path, text, tree, lines
        self.scopes: List[Scope] = []
        self.options: Dict[str, Tuple[Scope, int, ast.Call]] = {}
        """Every add_argument that was come by, by the name of the attribute that it makes."""
        self.defaults: Dict[str, Tuple[Scope, int, ast.expr]] = {}
        """The same of set_defaults."""
        self._names: Dict[int, Set[str]] = {}
        self.aliases: Set[str] = set()
        """Names that things of interest are imported as."""
        self.imports = tuple(_imports(tree, self)) if may_matter(text) else ()
        self.tracked = {it.name or it.module for it in self.imports if tracked(it.module)} | self.aliases
        self.matters = (bool(self.tracked) and any(word in text for word in TELLING)) or "bfloat16" in text
        """Whether there is more in it to be examined than what it imports."""
        self.module = Scope(self, tree, None, "")

    @property
    def declares(self) -> FrozenSet[str]:
        """Options of argparse, and the fields of the classes of this file."""
        fields = {
            it.target.id
            for statement in self.tree.body
            if isinstance(statement, ast.ClassDef)
            for it in statement.body
            if isinstance(it, ast.AnnAssign) and isinstance(it.target, ast.Name)
        }
        return frozenset(fields | set(self.options))

    def forget(self) -> None:
        """Lets go of the tree: scopes and sources hold each other, and no cycles are collected in a run."""
        for scope in self.scopes:
            scope.__dict__.clear()
        self.__dict__.clear()

    def names_in(self, test: ast.expr) -> Set[str]:
        """The names and attributes in a test."""
        if id(test) not in self._names:
            names = self._names[id(test)] = set()
            for node in ast.walk(test):
                if isinstance(node, ast.Name):
                    names.add(node.id)
                elif isinstance(node, ast.Attribute):
                    names.add(node.attr)
        return self._names[id(test)]

    def interesting(self, first: int, last: int) -> bool:
        """Whether something of interest is written on one of these lines."""
        return first in self._hit if first == last else _between(self._hits, first, last)

    @functools.cached_property
    def _hit(self) -> FrozenSet[int]:
        return frozenset(self._hits)

    def mark(self, words: Iterable[str]) -> None:
        """Makes every line with one of these words one of interest."""
        found = set(self._hits)
        for word in words:
            found.update(self.lines_with(word))
        self._hits = self._with_callers(found)
        self.__dict__.pop("_hit", None)

    def lines_with(self, word: str) -> List[int]:
        """The lines on which a word begins, in order."""
        found = []
        text, starts = self.text, self.lines.starts
        at = text.find(word)
        while at >= 0:
            line = bisect.bisect_right(starts, at)
            found.append(line)
            # Once a line is enough.
            at = text.find(word, starts[line]) if line < len(starts) else -1
        return found

    def place(self, node: Any) -> Place:
        """Where a node stands, in characters."""
        return self.lines.place(self.path, node)

    def place_of_call(self, node: ast.Call) -> Place:
        """Where a call stands; of one in a chain of calls, where its own name stands."""
        place = self.place(node)
        function = node.func
        if not isinstance(function, ast.Attribute) or not isinstance(function.value, ast.Call):
            return place
        name = self.place(function)
        return place._replace(line=name.end_line, column=max(1, name.end_column - len(function.attr)))

    @functools.cached_property
    def assigned_elsewhere(self) -> Set[str]:
        """Names of the module that functions assign to."""
        if "global " not in self.text and "nonlocal " not in self.text:
            return set()
        found = re.findall(r"^[ \t]+(?:global|nonlocal)[ \t]+([\w, \t]+)", self.text, re.MULTILINE)
        return {name.strip() for names in found for name in names.split(",")}

    @functools.cached_property
    def _identifiers(self) -> Mapping[str, int]:
        """The words of the text, comments and all, and how often each is there."""
        return collections.Counter(self.text.encode("utf-8", "replace").translate(_APART).decode().split())

    @functools.cached_property
    def _hits(self) -> List[int]:
        words = set(METHODS)
        for name in self.tracked:
            words.add(name.rpartition(".")[2])
        words.update(_local_subclasses(self.tree, words))
        found: Set[int] = set()
        for word in (*words.intersection(self._identifiers), *_WORDS):
            found.update(self.lines_with(word))
        return self._with_callers(found)

    def _with_callers(self, found: Set[int]) -> List[int]:
        """The lines, and those that call a function of this file in which one of them is; and so on."""
        functions = list(_functions(self.tree)) if found else []
        hits = sorted(found)
        searched: Set[str] = set()
        while functions:
            left = []
            for function in functions:
                at = bisect.bisect_left(hits, function.lineno)
                if at >= len(hits) or hits[at] > (function.end_lineno or 0):
                    left.append(function)
                    continue
                if function.name not in searched and self._identifiers[function.name] > 1:
                    found.update(self.lines_with(f"{function.name}("))
                searched.add(function.name)
            if len(left) == len(functions):
                break
            functions, hits = left, sorted(found)
        return hits


class Lines:
    """The lines of a text, to turn the parser's columns of bytes into columns of characters."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._ascii = text.isascii()

    @functools.cached_property
    def starts(self) -> List[int]:
        """The offset at which each line begins."""
        if "\r" in self.text:
            return [0, *(match.end() for match in re.finditer("\r\n|\r|\n", self.text))]
        lengths = map((1).__add__, map(len, self.text.split("\n")))
        return list(itertools.accumulate(lengths, initial=0))[:-1]

    @functools.cached_property
    def _wide(self) -> Set[int]:
        """The lines on which a character may take several bytes."""
        found = re.finditer("[^\x00-\x7f]", self.text)
        return {bisect.bisect_right(self.starts, match.start()) for match in found}

    def column(self, line: int, offset: int) -> int:
        """The column, from 1, of an offset in bytes."""
        if self._ascii or line > len(self.starts) or line not in self._wide:
            return offset + 1
        start = self.starts[line - 1]
        end = self.starts[line] if line < len(self.starts) else len(self.text)
        return len(self.text[start:end].encode("utf-8", "replace")[:offset].decode("utf-8", "ignore")) + 1

    def place(self, path: str, node: Any) -> Place:
        """The place of a node with a position."""
        line, end = node.lineno, node.end_lineno or node.lineno
        if self._ascii:
            return Place(path, line, node.col_offset + 1, end, node.end_col_offset + 1)
        column = self.column(line, node.col_offset)
        end_column = self.column(end, node.end_col_offset or node.col_offset)
        return Place(path, line, column, end, end_column)

    def located(self, place: Place) -> Place:
        """Where in its file that is which stands at this place of the text."""
        return place


def may_matter(text: str) -> bool:
    """Whether a file may have anything of interest in it, by its words: a look before the parse."""
    return any(name in text for name in PACKAGES) or "bfloat16" in text


def _between(lines: Sequence[int], first: int, last: int | None) -> bool:
    """Whether one of these lines, in order, is between two."""
    at = bisect.bisect_left(lines, first)
    return at < len(lines) and lines[at] <= (last or first)


def tracked(module: str) -> bool:
    """Whether a module belongs to a package of interest."""
    return module.partition(".")[0] in PACKAGES


def dotted(node: ast.AST) -> str:
    """`a.b.c` of a chain of names; empty for anything else."""
    parts = ""
    while type(node) is ast.Attribute:
        parts = f".{node.attr}{parts}"
        node = node.value
    return node.id + parts if type(node) is ast.Name else ""


def destination(call: ast.Call) -> str:
    """The attribute that an add_argument makes."""
    for keyword in call.keywords:
        if keyword.arg == "dest" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    texts = [it.value for it in call.args if isinstance(it, ast.Constant) and isinstance(it.value, str)]
    chosen = next((it for it in texts if it.startswith("--")), texts[0] if texts else "")
    return chosen.lstrip("-").replace("-", "_")


def ends(body: Sequence[ast.stmt]) -> bool:
    """Whether nothing that comes after this body runs."""
    last = body[-1]
    if isinstance(last, _TERMINATORS):
        return True
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        return dotted(last.value.func).rpartition(".")[2] in _EXITS
    return False


def calls(expression: ast.expr) -> Iterator[ast.Call]:
    """The calls in an expression, inner ones first, as they run; those in lambdas as well."""
    stack: List[Tuple[ast.AST, bool]] = [(expression, False)]
    while stack:
        node, done = stack.pop()
        if done:
            yield node  # type: ignore[misc]
            continue
        kind = type(node)
        if kind is ast.Name or kind is ast.Constant:
            continue
        if kind is ast.Call:
            stack.append((node, True))
        # As ast.iter_child_nodes does it, which makes two generators for each node.
        for field in reversed(kind._fields):
            child = getattr(node, field, None)
            if isinstance(child, list):
                stack.extend((it, False) for it in reversed(child) if isinstance(it, ast.AST))
            elif isinstance(child, ast.AST):
                stack.append((child, False))


def _imports(tree: ast.Module, source: Source) -> Iterator[Import]:
    """Every import of the file, functions and branches included."""
    stack: List[Tuple[ast.stmt, bool]] = [(statement, False) for statement in reversed(tree.body)]
    lines = source.lines_with("import")
    while stack:
        node, guarded = stack.pop()
        kind = type(node)
        if kind is ast.Import:
            for alias in node.names:  # type: ignore[attr-defined]
                if alias.asname and tracked(alias.name):
                    source.aliases.add(alias.asname)
                yield Import(alias.name, "", _alias_place(source, node, alias), guarded)
        elif kind is ast.ImportFrom:
            module = "." * node.level + (node.module or "")  # type: ignore[attr-defined]
            for alias in node.names:  # type: ignore[attr-defined]
                if alias.asname and tracked(module):
                    source.aliases.add(alias.asname)
                yield Import(module, alias.name, _alias_place(source, node, alias), guarded)
        elif kind in _WITH_BODY and _between(lines, node.lineno, node.end_lineno):
            inside = guarded or kind in (ast.If, ast.Try)
            for field in ("finalbody", "orelse", "body"):
                stack.extend((it, inside) for it in reversed(getattr(node, field, ())))
            for handler in getattr(node, "handlers", ()):
                stack.extend((it, True) for it in reversed(handler.body))


_WITH_BODY = (
    ast.If,
    ast.Try,
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.With,
    ast.For,
    ast.While,
)


def _alias_place(source: Source, statement: Any, alias: Any) -> Place:
    # Names of an import have a position of their own from Python 3.10 on only.
    if hasattr(alias, "lineno"):
        return source.place(alias)
    word = re.compile(rf"\b{re.escape(alias.name)}\b")
    lines, last = source.lines, statement.end_lineno or statement.lineno
    begin = lines.starts[statement.lineno - 1] + lines.column(statement.lineno, statement.col_offset) - 1
    end = lines.starts[last] if last < len(lines.starts) else len(source.text)
    found = word.search(source.text, begin, end)
    if found is None:
        return source.place(statement)
    line = bisect.bisect_right(lines.starts, found.start())
    column = found.start() - lines.starts[line - 1] + 1
    return lines.located(Place(source.path, line, column, line, column + len(alias.name)))


def _functions(tree: ast.Module) -> Iterator[Function]:
    """The functions of a module and the methods of its classes."""
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield statement
        elif isinstance(statement, ast.ClassDef):
            yield from (
                it for it in statement.body if isinstance(it, (ast.FunctionDef, ast.AsyncFunctionDef))
            )


def _local_subclasses(tree: ast.Module, words: Set[str]) -> Iterator[str]:
    """Classes of the file that are made from something of interest."""
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            bases = {dotted(base).rpartition(".")[2] for base in statement.bases}
            if bases & words or any(base.endswith(("Trainer", "TrainingArguments")) for base in bases):
                words.add(statement.name)
                yield statement.name
