"""Edits of Python source: LibCST says where things stand, and only what an edit means is changed."""

from __future__ import annotations

import ast
import functools
import re
import warnings
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Sequence, Tuple, TypeVar

from llm_doctor.fixes.draft import (
    CommaList,
    HeldBack,
    Splice,
    first_on_its_line,
    indentation,
    line_end,
    line_start,
    line_starts,
    next_line,
    without_lines,
)
from llm_doctor.model import Edit

if TYPE_CHECKING:
    import libcst as cst

N = TypeVar("N", bound="cst.CSTNode")

DEPTH_LIMIT = 150
"""Of nested expressions: LibCST recurses, and ends the process or the stack far beyond it."""


def parses(text: str) -> bool:
    """Whether this is valid Python."""
    try:
        _parsed(text)
    except HeldBack:
        return False
    return True


def splices(text: str, at: int, edit: Edit, newline: str) -> List[Splice]:
    """What this edit changes in the text, where the place of the edit is at this offset.

    Nothing where it is so already. Raises HeldBack where it cannot be carried out."""
    source = _source(text)
    while at < len(text) and text[at] in " \t\f":  # the place of a line alone
        at += 1
    if edit.action == "rename-keyword":
        return _rename_keyword(source, at, edit)
    if edit.action == "remove-keyword":
        return _remove_keyword(source, at, edit.name)
    if edit.action == "set-keyword":
        return _set_keyword(source, at, edit, newline)
    if edit.action == "rename-name":
        return _rename_name(source, at, edit)
    if edit.action == "replace":
        start, end = source.span(_expression(source, at, edit.name))
        return [Splice(start, end, edit.text)]
    if edit.action in ("insert-before", "insert-after"):
        return _insert(source, at, edit.text, newline, after=edit.action == "insert-after")
    if edit.action == "remove-statement":
        return [_remove_statement(source, at)]
    if edit.action == "add-import":
        return _add_import(source, edit.text, newline)
    raise HeldBack(f"{edit.action} is no edit of a Python file")


class _Source:
    """A module with the spans of its nodes, in characters, and their parents."""

    def __init__(self, text: str) -> None:
        import libcst as cst
        from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider

        self.text = text
        self.tree = _parsed(text)
        try:
            # The tree is ours alone: copying it takes as long as parsing.
            wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
            self.module = wrapper.module
            positions = wrapper.resolve(PositionProvider)
            self._parents = wrapper.resolve(ParentNodeProvider)
        except (cst.ParserSyntaxError, RecursionError, KeyError) as error:
            raise HeldBack("its Python cannot be parsed with its comments kept") from error
        starts = line_starts(text)
        self._spans: Dict[cst.CSTNode, Tuple[int, int]] = {
            node: (
                starts[at.start.line - 1] + at.start.column,
                starts[min(at.end.line, len(starts)) - 1] + at.end.column,
            )
            for node, at in positions.items()
        }

    def span(self, node: cst.CSTNode) -> Tuple[int, int]:
        return self._spans[node]

    def parent(self, node: cst.CSTNode) -> cst.CSTNode:
        parent: cst.CSTNode = self._parents[node]
        return parent

    def code(self, node: cst.CSTNode) -> str:
        start, end = self.span(node)
        return self.text[start:end]

    # A class is told as what makes its instances: Type[N] takes no abstract ones.
    def all(self, kind: Callable[..., N]) -> Iterator[N]:
        wanted: Any = kind
        return (node for node in self._spans if isinstance(node, wanted))

    def around(self, at: int, kind: Callable[..., N]) -> List[N]:
        """The nodes that this offset is in, the innermost first."""
        found = [node for node in self.all(kind) if self._spans[node][0] <= at < self._spans[node][1]]
        return sorted(found, key=lambda node: self._spans[node][1] - self._spans[node][0])


@functools.lru_cache(maxsize=1)
def _source(text: str) -> _Source:
    return _Source(text)


@functools.lru_cache(maxsize=1)
def _parsed(text: str) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes in the user's strings
            tree = ast.parse(text)
    except SyntaxError as error:
        raise HeldBack(f"it is no Python that can be parsed (line {error.lineno}: {error.msg})") from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise HeldBack("it is no Python that can be parsed") from error
    level: List[ast.AST] = [tree]
    for _ in range(DEPTH_LIMIT):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise HeldBack("it is nested too deeply")
    return tree


# --- Keywords -----------------------------------------------------------------------------------------


def _rename_keyword(source: _Source, at: int, edit: Edit) -> List[Splice]:
    import libcst as cst

    for attribute in source.around(at, cst.Attribute):  # args.old = ...
        begins = (source.span(attribute)[0], source.span(attribute.attr)[0])
        if attribute.attr.value == edit.name and at in begins:
            return [Splice(*source.span(attribute.attr), edit.text)]
    for string in source.around(at, cst.SimpleString):  # kwargs["old"] = ...
        if string.raw_value == edit.name and isinstance(source.parent(string), cst.Index):
            return [_rename_key(source, string, edit.text)]
    item, siblings = _keyword(source, at, edit.name)
    if any(_keyword_name(it) == edit.text for it in siblings):
        raise HeldBack(f"{edit.text} is given there already")
    if isinstance(item, cst.DictElement):
        assert isinstance(item.key, cst.SimpleString)
        return [_rename_key(source, item.key, edit.text)]
    assert isinstance(item, cst.Arg) and item.keyword is not None
    return [Splice(*source.span(item.keyword), edit.text)]


def _rename_key(source: _Source, string: cst.SimpleString, name: str) -> Splice:
    start, end = source.span(string)
    return Splice(start + len(string.prefix) + len(string.quote), end - len(string.quote), name)


def _keyword_name(item: cst.CSTNode) -> str | None:
    import libcst as cst

    if isinstance(item, cst.Arg):
        return item.keyword.value if item.keyword is not None else None
    if isinstance(item, cst.DictElement) and isinstance(item.key, cst.SimpleString):
        return item.key.raw_value
    return None


def _keyword(source: _Source, at: int, name: str) -> Tuple[cst.CSTNode, Sequence[cst.CSTNode]]:
    """The argument of this name, or the entry of a dict literal, and all that stand beside it."""
    import libcst as cst

    for item in source.around(at, cst.CSTNode):
        found = _keyword_name(item)
        if found is None or name not in ("", found):
            continue
        holder = source.parent(item)
        if isinstance(holder, cst.Call):
            return item, holder.args
        if isinstance(holder, cst.Dict):
            return item, holder.elements
    raise HeldBack(f"there is no keyword {name} there")


def _remove_keyword(source: _Source, at: int, name: str) -> List[Splice]:
    item, siblings = _keyword(source, at, name)
    spans = [source.span(it) for it in siblings]
    closed_at = source.span(source.parent(item))[1] - 1
    return CommaList(source.text, spans, closed_at).without(spans.index(source.span(item)))


def _call(source: _Source, at: int) -> cst.Call:
    """Of calls that begin at one place, f(x).g(y), the first; else the innermost that the place is in."""
    import libcst as cst

    calls = source.around(at, cst.Call)
    call = next((it for it in calls if source.span(it)[0] == at), calls[0] if calls else None)
    if call is None:
        raise HeldBack("there is no call there")
    return call


def filled(text: str, at: int, code: str) -> str:
    """The code with `{keyword}` replaced by the source of that keyword's value in the call at this offset."""
    source = _source(text)
    values = {it.keyword.value: source.code(it.value) for it in _call(source, at).args if it.keyword}
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), code)


def _set_keyword(source: _Source, at: int, edit: Edit, newline: str) -> List[Splice]:
    call = _call(source, at)
    for argument in call.args:
        if argument.keyword is not None and argument.keyword.value == edit.name:
            start, end = source.span(argument.value)
            if source.text[start:end] == edit.text:
                return []
            # With the parentheses around the value, if there are some.
            start = source.text.index("=", source.span(argument.keyword)[1]) + 1
            start += len(source.text[start:]) - len(source.text[start:].lstrip())
            return [Splice(start, source.span(argument)[1], edit.text)]
    items = [source.span(it) for it in call.args]
    arguments = CommaList(source.text, items, source.span(call)[1] - 1)
    return arguments.with_item(f"{edit.name}={edit.text}", newline)


# --- Names and expressions ----------------------------------------------------------------------------


def _rename_name(source: _Source, at: int, edit: Edit) -> List[Splice]:
    """Renames what is imported under a name wherever the file uses it, its own aliases respected."""
    import libcst as cst

    root, _, old = edit.name.rpartition(".")
    root, new = root.partition(".")[0], edit.text.rpartition(".")[2]
    _must_not_define(source, old, new)
    found: List[Splice] = []
    bound = False
    for imported in source.all(cst.ImportFrom):
        if isinstance(imported.names, cst.ImportStar):
            continue
        module = _dotted(imported.module)
        if root and module.partition(".")[0] != root:
            continue
        aliases = list(imported.names)
        for index, alias in enumerate(aliases):
            if _dotted(alias.name) != old:
                continue
            bound = bound or alias.asname is None
            if alias.asname is None and any(_dotted(it.name) == new and not it.asname for it in aliases):
                found += _import_list(source, imported, aliases).without(index)
            else:
                found.append(Splice(*source.span(alias.name), new))
    modules = _imported_modules(source, root)
    for attribute in source.all(cst.Attribute):
        if attribute.attr.value == old:
            start, end = source.span(attribute)
            of_module = _dotted(attribute.value).partition(".")[0] in modules
            if of_module or (start <= at < end and not bound):
                found.append(Splice(*source.span(attribute.attr), new))
    for name in source.all(cst.Name):
        if name.value == old and (bound or source.span(name)[0] == at) and _is_use(source, name):
            found.append(Splice(*source.span(name), new))
    if not found:
        raise HeldBack(f"there is no {old} there")
    return sorted(set(found))


def _must_not_define(source: _Source, *names: str) -> None:
    """Raises HeldBack when the file gives one of these names a meaning of its own."""
    for node in ast.walk(source.tree):
        defined: str | None = None
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            defined = node.id
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.ExceptHandler)):
            defined = node.name
        elif isinstance(node, ast.arg):
            defined = node.arg
        if defined in names:
            raise HeldBack(f"the file defines {defined} itself, on line {getattr(node, 'lineno', 0)}")


def _imported_modules(source: _Source, root: str) -> List[str]:
    """The names under which modules are imported, of this package where one is named."""
    import libcst as cst

    names = []
    for imported in source.all(cst.Import):
        for alias in imported.names:
            module = _dotted(alias.name)
            if root in ("", module.partition(".")[0]):
                asname = alias.evaluated_alias
                names.append(asname or module.partition(".")[0])
    return names


def _dotted(node: cst.CSTNode | None) -> str:
    import libcst as cst

    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        base = _dotted(node.value)
        return f"{base}.{node.attr.value}" if base else ""
    return ""


def _is_use(source: _Source, name: cst.Name) -> bool:
    import libcst as cst

    parent = source.parent(name)
    if isinstance(parent, cst.Attribute):
        return parent.attr is not name and not isinstance(source.parent(parent), cst.ImportAlias)
    if isinstance(parent, cst.Arg):
        return parent.keyword is not name
    return not isinstance(parent, (cst.ImportAlias, cst.AsName, cst.ImportFrom, cst.Param))


def _expression(source: _Source, at: int, code: str) -> cst.BaseExpression:
    """The expression that begins there: the one that reads so, else the longest if it is but one thing."""
    import libcst as cst

    found = [it for it in source.around(at, cst.BaseExpression) if source.span(it)[0] == at]
    if code:
        same = [it for it in found if source.code(it) == code]
        if same:
            return same[0]
        raise HeldBack(f"there is no {code} there")
    if not found:
        raise HeldBack("there is no expression there")
    compound = (cst.BinaryOperation, cst.BooleanOperation, cst.Comparison, cst.IfExp, cst.Tuple)
    whole = found[-1]
    if len(found) > 1 and isinstance(whole, compound) and not whole.lpar:
        raise HeldBack("several expressions begin there")
    return whole


# --- Statements ---------------------------------------------------------------------------------------


def _statement(source: _Source, at: int) -> cst.CSTNode:
    import libcst as cst

    around = source.around(at, cst.CSTNode)
    node: cst.CSTNode | None = next((it for it in around if not isinstance(it, cst.Module)), None)
    while node is not None and not isinstance(node, cst.Module):
        if isinstance(node, cst.SimpleStatementLine):
            return node.body[0]
        if isinstance(node, (cst.BaseSmallStatement, cst.BaseCompoundStatement)):
            return node
        node = source.parent(node)
    raise HeldBack("there is no statement there")


def _insert(source: _Source, at: int, code: str, newline: str, *, after: bool) -> List[Splice]:
    import libcst as cst

    text, statement = source.text, _statement(source, at)
    if after and isinstance(statement, (cst.Return, cst.Raise, cst.Break, cst.Continue)):
        raise HeldBack("nothing runs behind that statement")
    start, end = _whole(source, statement)
    holder = source.parent(statement)
    if isinstance(holder, cst.SimpleStatementSuite) or (
        isinstance(holder, cst.SimpleStatementLine) and len(holder.body) > 1
    ):  # one of several on a line
        if after:
            return [] if _follows(text, end, code) else [Splice(end, end, f"; {code}")]
        return [Splice(start, start, f"{code}; ")]
    indent = indentation(text, start)
    lines = [indent + line if line.strip() else "" for line in code.splitlines()]
    if after:
        here = line_end(text, end)
        inserted = "".join(newline + line for line in lines)
        already = text[here:].replace("\r\n", "\n").startswith(inserted.replace("\r\n", "\n"))
    else:
        here = line_start(text, start)
        inserted = "".join(line + newline for line in lines)
        already = text[:here].replace("\r\n", "\n").endswith(inserted.replace("\r\n", "\n"))
    return [] if already else [Splice(here, here, inserted)]


def _follows(text: str, end: int, code: str) -> bool:
    return text[end:].lstrip(" \t").startswith(";") and text[end:].lstrip(" \t;").startswith(code)


def _whole(source: _Source, statement: cst.CSTNode) -> Tuple[int, int]:
    """The span of a statement from its first decorator to the end of its last line of code."""
    import libcst as cst

    start = source.span(statement)[0]
    if isinstance(statement, (cst.FunctionDef, cst.ClassDef)) and statement.decorators:
        start = source.span(statement.decorators[0])[0]
    if isinstance(statement, cst.BaseSmallStatement):
        return source.span(statement)
    if isinstance(statement, cst.If) and isinstance(source.parent(statement), cst.If):
        raise HeldBack("it is one branch of a statement")
    ends = [
        source.span(node)[1]
        for node in source.all(cst.BaseSmallStatement)
        if start <= source.span(node)[0] < source.span(statement)[1]
    ]
    return start, max(ends)


def _remove_statement(source: _Source, at: int) -> Splice:
    import libcst as cst

    text, statement = source.text, _statement(source, at)
    start, end = _whole(source, statement)
    holder = source.parent(statement)
    if isinstance(holder, (cst.SimpleStatementLine, cst.SimpleStatementSuite)) and len(holder.body) > 1:
        spans = [source.span(it) for it in holder.body]
        index = spans.index((start, end))
        if index + 1 < len(spans):
            return Splice(start, spans[index + 1][0], "")
        return Splice(spans[index - 1][1], end, "")
    if isinstance(holder, cst.SimpleStatementSuite):
        return Splice(start, end, "pass")
    if isinstance(holder, cst.SimpleStatementLine):
        holder = source.parent(holder)
    if isinstance(holder, cst.IndentedBlock) and len(holder.body) == 1:
        return Splice(start, end, "pass")
    if not first_on_its_line(text, start):
        raise HeldBack("it does not stand on a line of its own")
    return without_lines(text, start, end)


# --- Imports ------------------------------------------------------------------------------------------


def _import_list(source: _Source, imported: cst.ImportFrom, aliases: Sequence[cst.ImportAlias]) -> CommaList:
    closed_at = source.span(imported)[1] - 1 if imported.lpar is not None else None
    return CommaList(source.text, [source.span(alias) for alias in aliases], closed_at)


def _add_import(source: _Source, code: str, newline: str) -> List[Splice]:
    """Adds an import at the top, to the names that the file imports from that module where it does."""
    import libcst as cst

    try:
        (wanted,) = ast.parse(code).body
    except (SyntaxError, ValueError):
        raise HeldBack(f"{code!r} is no import") from None
    if not isinstance(wanted, (ast.Import, ast.ImportFrom)):
        raise HeldBack(f"{code!r} is no import")
    there = [node for node in source.tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    bound = {_bound_name(alias) for node in there for alias in node.names}
    missing = [alias for alias in wanted.names if _bound_name(alias) not in bound]
    if not missing:
        return []
    _must_not_define(source, *map(_bound_name, missing))
    if isinstance(wanted, ast.ImportFrom):
        for statement in source.module.body:
            small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
            if (
                isinstance(small, cst.ImportFrom)
                and not isinstance(small.names, cst.ImportStar)
                and _dotted(small.module) == (wanted.module or "")
                and len(small.relative) == wanted.level
            ):
                names = ", ".join(_alias_code(alias) for alias in missing)
                return _import_list(source, small, list(small.names)).with_item(names, newline)
        code = f"from {'.' * wanted.level}{wanted.module or ''} import "
        code += ", ".join(_alias_code(alias) for alias in missing)
    else:
        code = "import " + ", ".join(_alias_code(alias) for alias in missing)
    return [_new_import(source, wanted, code, newline)]


def _bound_name(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _alias_code(alias: ast.alias) -> str:
    return f"{alias.name} as {alias.asname}" if alias.asname else alias.name


def _new_import(source: _Source, wanted: ast.Import | ast.ImportFrom, code: str, newline: str) -> Splice:
    """A line behind the last import of the same package, else behind the imports at the top."""
    text, body = source.text, source.tree.body
    package = (getattr(wanted, "module", None) or wanted.names[0].name).partition(".")[0]
    anchor: ast.stmt | None = None
    same: ast.stmt | None = None
    for index, node in enumerate(body):
        docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if docstring and isinstance(node.value.value, str):  # type: ignore[attr-defined]
            anchor = node
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            anchor = node
            names = (
                [node.module or ""] if isinstance(node, ast.ImportFrom) else [it.name for it in node.names]
            )
            if any(name.partition(".")[0] == package for name in names):
                same = node
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            break
    anchor = same or anchor
    if anchor is not None:
        at = line_end(text, line_starts(text)[(anchor.end_lineno or anchor.lineno) - 1])
        return Splice(at, at, newline + code)
    # Behind the comments at the top: `#!` and the encoding must stay first.
    at = 0
    while text.startswith("#", at) and at < len(text):
        at = next_line(text, at)
    unfinished = at > 0 and text[at - 1] not in "\r\n"
    return Splice(at, at, newline + code if unfinished else code + newline)
