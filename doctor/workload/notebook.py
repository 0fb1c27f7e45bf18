"""Reads a Jupyter notebook: its code cells as one Python script, and what they start in a shell as launches.

What IPython adds to Python is told apart as IPython does it (IPython/core/inputtransformer2.py, 8.12): a line
that begins with `%`, `!`, `?`, `,`, `;` or `/` where a statement could begin, `x = !ls`, `x = %env HOME`,
`name?`, and cells that begin with `%%`. Every place is one of the .ipynb file itself.
"""

from __future__ import annotations

import ast
import bisect
import json
import json.scanner
import re
import shlex
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

from llm_doctor.host import real_host
from llm_doctor.workload.data import Launch, Place, Problem, Value
from llm_doctor.workload.python import Read, examine_source, parse
from llm_doctor.workload.shell import HIDDEN, read_shell
from llm_doctor.workload.source import Lines, dotted
from llm_doctor.workload.values import Neighbour

_PYTHON_CELL = re.compile(r"%%(time|timeit|capture|prun|debug|memit|wandb)\b[^\r\n]*")
"""Cell magics that run the cell as Python in the notebook's own process."""
_SHELL_CELL = re.compile(
    r"%%(?:bash|sh|zsh|shell|sx|system|!|script[ \t]+(?:--\S+[ \t]+)*(?:\S*/)?(?:ba|z)?sh\b)[^\r\n]*|%sh\b"
)
"""`%sh` is what Databricks has."""
_OTHER_CELL = re.compile(r"%%\S")
_OTHER_LANGUAGE = re.compile(r"%(md|sql|scala|r|fs|html)\b")
"""Where Databricks says the language of a whole cell. To others `%sql` is a magic of one line."""
_PREAMBLE = re.compile(r"(?:[ \t\f]*(?:#[^\r\n]*)?[\r\n])*")
_LINE = r"(?:\\\r?\n(?!\Z)|[^\r\n])*"
_MAGIC = re.compile(rf"[ \t\f]*(?P<line>[%!?,;/]{_LINE})")
_ASSIGNED = re.compile(rf"[ \t]*(?P<line>{_LINE})")
_LINE_MAGIC = re.compile(r"%{1,2}[ \t]*(\w+|!)[ \t]*")
_TIMED = frozenset({"time", "timeit", "prun", "memit"})
"""Line magics that run the rest of their line as Python."""
_OPTIONS = re.compile(r"(?:(?:-[DTlnprs][ \t]*\S+|-[-\w]+)[ \t]+)*")
_RUN_OPTIONS = re.compile(r"(?:-(?!m\s)\w+[ \t]+)*")
_RUN_TARGET = re.compile(r"-m\s|[\"']?[^\s\"']+\.py\b")
_SETS = re.compile(r"([A-Za-z_]\w*)[ \t]*[= \t][ \t]*(\S.*)", re.DOTALL | re.ASCII)
_AUTOMAGIC = re.compile(
    r"\s*(cd|pip|conda|mamba|uv|ls|ll|cat|cp|mv|rm|mkdir|rmdir|env|run|load_ext|matplotlib)[ \t][^\r\n]*\s*"
)
"""A cell of one line needs no % before these."""
_HELP = re.compile(r"\s*%{0,2}[\w.*\[\]'\"]+\?{1,2}\s*")
_EXPRESSION = re.compile(r"(?<!\$)\{[^\W\d][^{}]*\}")
"""Of Python, put into a shell command: `!python train.py --model {name}`."""
_CHARACTER = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL
)
"""One character as JSON writes it."""
_TOKEN = re.compile(
    r"""(?P<text>\"{3}(?:[^\\]|\\.)*?(?:\"{3}|\Z)|'{3}(?:[^\\]|\\.)*?(?:'{3}|\Z)"""
    r"""|"(?:[^"\\\r\n]|\\(?:\r\n|.))*"?|'(?:[^'\\\r\n]|\\(?:\r\n|.))*'?)"""
    r"""|(?P<comment>\#[^\r\n]*)|(?P<continued>\\\r?\n)|(?P<newline>\r\n?|\n)"""
    r"""|(?P<open>[(\[{])|(?P<close>[)\]}])"""
    r"""|(?P<assign>(?<![=!<>])=(?=[ \t]*(?:!|%{1,2}[ \t]*[^\W\d])))""",
    re.DOTALL,
)
"""What tells where a statement of Python ends."""


class _Spelled(str):
    """A text of the JSON file, and where it stands between its quotes."""

    begin: int
    end: int


class _Written(NamedTuple):
    """A text, and for each of its characters where in the file it is written."""

    text: str
    where: Sequence[int]

    def part(self, start: int, end: int | None = None) -> _Written:
        """A stretch of it."""
        return _Written(self.text[start:end], self.where[start:end])

    def made(self, text: str) -> _Written:
        """Another text, said to be written where this one begins."""
        return _Written(text, [self.where[0]] * len(text) if self.where else [0] * len(text))

    def after(self, text: str) -> _Written:
        """Another text, said to be written where this one ends."""
        return _Written(text, [self.where[-1] + 1] * len(text) if self.where else [0] * len(text))


class _Command(NamedTuple):
    """A text for the shell. One that `lasts` changes what the commands after it find, as `%cd` does."""

    written: _Written
    lasts: bool = False
    cell: bool = False


class _CellLines(Lines):
    """The lines of a text that is put together from pieces of a file."""

    def __init__(self, written: _Written, file: Lines) -> None:
        super().__init__(written.text)
        self._where, self._file = written.where, file

    def place(self, path: str, node: Any) -> Place:
        """The place of a node in the file."""
        return self.located(super().place(path, node))

    def located(self, place: Place) -> Place:
        """Where in the file that is."""
        line, column = self._position(place.line, place.column)
        end = self._position(place.end_line or place.line, place.end_column or place.column)
        return Place(place.path, line, column, *end)

    def _position(self, line: int, column: int) -> Tuple[int, int]:
        if not self._where:
            return 1, 1
        start = self.starts[min(max(line, 1), len(self.starts)) - 1]
        at = self._where[min(start + max(column, 1) - 1, len(self._where) - 1)]
        in_file = bisect.bisect_right(self._file.starts, at)
        return in_file, at - self._file.starts[in_file - 1] + 1


def read_notebook(path: str, text: str, neighbour: Neighbour) -> Read:
    """A notebook; `neighbour` finds files of the same project by module name.

    A cell that is no Python is a problem, and the others are read all the same; cells of another language
    are none of our business."""
    cells = _cells(path, text)
    if isinstance(cells, Problem):
        return Read(None, problems=(cells,))
    file = Lines(text)
    problems: List[Problem] = []
    whole: List[_Written] = []
    commands: List[_Command] = []
    for cell in cells:
        python = _python_of(cell, commands)
        lines = _CellLines(python, file)
        source = parse(path, python.text, lines)
        if isinstance(source, Problem) and _AUTOMAGIC.fullmatch(cell.text):
            python = _python_of(_joined([cell.made("%"), cell]), commands)
        elif isinstance(source, Problem):
            if not _OTHER_LANGUAGE.match(cell.text, _preamble(cell.text)):
                message = source.message.replace("it ", "a cell ", 1)
                problems.append(_in_file(source._replace(message=message), lines))
            continue
        else:
            commands.extend(_environment(source.tree, python))
            source.forget()
        whole.append(python)
    script = _joined(whole)
    lines = _CellLines(script, file)
    launches, shell_problems = _launches(path, commands, file)
    problems += shell_problems
    source = parse(path, script.text, lines)
    if isinstance(source, Problem):
        return Read(None, problems=(*problems, _in_file(source, lines)), launches=tuple(launches))
    read = examine_source(source, None, neighbour, notebook=True)
    return read._replace(problems=(*problems, *read.problems), launches=tuple(launches))


# --- The file ---------------------------------------------------------------------------------------------


def _cells(path: str, text: str) -> List[_Written] | Problem:
    """The code cells, each with a line end behind it; none of a notebook of another language."""
    try:
        book = _parsed(text)
        if not _is_python(book):
            return []
        sheets = [book] if "cells" in book else book["worksheets"]
        cells = [cell for sheet in sheets for cell in sheet["cells"] if cell.get("cell_type") == "code"]
    except json.JSONDecodeError as error:
        return Problem(path, f"a notebook is JSON, and this is not: {error.msg}", error.lineno, error.colno)
    except (KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return Problem(path, "it is no notebook: there are no cells in it")
    found = []
    for cell in cells:
        source = cell.get("source", cell.get("input"))  # `input` is that of nbformat 3
        parts = source if isinstance(source, list) else [source]
        spelled = [it for it in parts if isinstance(it, _Spelled)]
        if spelled:
            end = _Written("\n", [spelled[-1].end])
            found.append(_dedented(_joined([*(_written(it, text) for it in spelled), end])))
    return found


def _parsed(text: str) -> Any:
    """The JSON with every text a _Spelled. Raises json.JSONDecodeError and RecursionError."""
    decoder: Any = json.JSONDecoder()

    def spelled(source: str, begin: int, strict: bool) -> Tuple[_Spelled, int]:
        content, end = json.decoder.scanstring(source, begin, strict)  # type: ignore[attr-defined]
        found = _Spelled(content)
        found.begin, found.end = begin, end - 1
        return found, end

    decoder.parse_string = spelled
    decoder.parse_int = decoder.parse_float = str  # none of our business, whatever their size
    # The one in C would not call it.
    decoder.scan_once = json.scanner.py_make_scanner(decoder)  # type: ignore[attr-defined]
    return decoder.decode(text)


def _is_python(book: Any) -> bool:
    """Whether its kernel runs Python, as far as it says."""
    metadata = book.get("metadata") or {}
    named = [
        (metadata.get("kernelspec") or {}).get("language"),
        (metadata.get("language_info") or {}).get("name"),
    ]
    told = [it.lower() for it in named if isinstance(it, str)]
    return not told or any("py" in it for it in told)


def _written(spelled: _Spelled, text: str) -> _Written:
    raw = text[spelled.begin : spelled.end]
    if "\\" not in raw:
        return _Written(str(spelled), range(spelled.begin, spelled.end))
    return _Written(str(spelled), [spelled.begin + it.start() for it in _CHARACTER.finditer(raw)])


def _joined(parts: Sequence[_Written]) -> _Written:
    where = [at for part in parts for at in part.where]
    return _Written("".join(part.text for part in parts), where)


def _dedented(cell: _Written) -> _Written:
    """Without the indent of its first line, as IPython runs it."""
    first = re.match(r"(?:[ \t]*[\r\n])*([ \t]+)\S", cell.text)
    if first is None:
        return cell
    parts = []
    at = 0
    for match in re.finditer(rf"^{first[1]}", cell.text, re.MULTILINE):
        parts.append(cell.part(at, match.start()))
        at = match.end()
    return _joined([*parts, cell.part(at)])


def _in_file(problem: Problem, lines: _CellLines) -> Problem:
    if not problem.line:
        return problem
    place = lines.located(Place(problem.path, problem.line, problem.column))
    return problem._replace(line=place.line, column=place.column)


# --- From IPython to Python -------------------------------------------------------------------------------


def _preamble(cell: str) -> int:
    """Where it begins, without blank lines and comments: Colab has titles above a cell magic."""
    match = _PREAMBLE.match(cell)
    return match.end() if match else 0


def _python_of(cell: _Written, commands: List[_Command]) -> _Written:
    """The cell without what is IPython's own. What it gives to the shell is added to the commands."""
    begin = _preamble(cell.text)
    magic = _PYTHON_CELL.match(cell.text, begin)
    while magic is not None:
        cell = cell.part(magic.end())
        begin = _preamble(cell.text)
        magic = _PYTHON_CELL.match(cell.text, begin)
    magic = _SHELL_CELL.match(cell.text, begin)
    if magic is not None:
        commands.append(_Command(cell.part(magic.end()), cell=True))
        return cell.made("")
    if _OTHER_CELL.match(cell.text, begin):
        return cell.made("")
    return _joined(list(_statements(cell, commands)))


def _statements(cell: _Written, commands: List[_Command]) -> Iterator[_Written]:
    text, at = cell.text, 0
    while at < len(text):
        magic = _MAGIC.match(text, at)
        if magic is not None:
            yield cell.part(at, magic.start("line"))
            yield _line_magic(cell.part(*magic.span("line")), commands)
            at = magic.end()
            continue
        end, assigned = _end_of_statement(text, at)
        if assigned is not None:
            yield cell.part(at, assigned)
            magic = _ASSIGNED.match(text, assigned)
            assert magic is not None
            line = cell.part(*magic.span("line"))
            _line_magic(line, commands)
            yield line.made(" get_ipython()")  # some object: not known
            end = magic.end()
        elif _HELP.fullmatch(text, at, end):
            word = cell.part(at, end)
            indent = len(word.text) - len(word.text.lstrip())
            yield word.part(0, indent)
            yield word.part(indent).made("pass\n")
        else:
            yield cell.part(at, end)
        at = end


def _end_of_statement(text: str, at: int) -> Tuple[int, int | None]:
    """Where the line of the statement ends that begins here, or from where on a magic is assigned to it."""
    depth = 0
    for token in _TOKEN.finditer(text, at):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(0, depth - 1)
        elif not depth and kind == "newline":
            return token.end(), None
        elif not depth and kind == "assign":
            return token.end(), token.end()
    return len(text), None


def _line_magic(line: _Written, commands: List[_Command]) -> _Written:
    """What a line of IPython's is to Python. What it gives to the shell is added to the commands."""
    nothing = line.made("pass")
    if line.text.startswith("!"):
        commands.append(_Command(_expanded(line.part(2 if line.text.startswith("!!") else 1))))
        return nothing
    magic = _LINE_MAGIC.match(line.text)
    if magic is None or _HELP.fullmatch(line.text):
        return nothing
    name, rest = magic[1], line.part(magic.end())
    if name in _TIMED:
        statement = rest.part(_skipped(_OPTIONS, rest.text))
        return statement if statement.text.strip() else nothing
    rest = _expanded(rest)
    if name in ("env", "set_env"):
        sets = _SETS.fullmatch(rest.text.strip())
        if sets is not None:
            value = HIDDEN if HIDDEN in sets[2] or "$" in sets[2] else sets[2]
            commands.append(_exported(sets[1], value, line, rest))
    elif name in ("cd", "pushd", "popd"):
        folder = rest.made("$OLDPWD") if HIDDEN in rest.text else rest
        commands.append(_Command(_joined([line.made(f"{name} "), folder]), lasts=True))
    elif name == "run":
        target = rest.part(_skipped(_RUN_OPTIONS, rest.text))
        if _RUN_TARGET.match(target.text):
            commands.append(_Command(_joined([line.made("python "), target])))
    elif name in ("sx", "system", "sh", "!"):
        commands.append(_Command(rest))
    return nothing


def _skipped(pattern: re.Pattern[str], text: str) -> int:
    match = pattern.match(text)
    return match.end() if match else 0


def _expanded(command: _Written) -> _Written:
    """The command with what Python puts into it not known."""
    parts = []
    at = 0
    for match in _EXPRESSION.finditer(command.text):
        parts += [command.part(at, match.start()), command.part(match.start()).made(HIDDEN)]
        at = match.end()
    return _joined([*parts, command.part(at)])


# --- The shell --------------------------------------------------------------------------------------------


def _exported(name: str, value: str, key: _Written, at: _Written) -> _Command:
    export = [key.made(f"export {name}="), at.made(shlex.quote(value)), at.after("\n")]
    return _Command(_joined(export), lasts=True)


def _environment(tree: ast.Module, python: _Written) -> Iterator[_Command]:
    """What the cell gives to the processes that are started after it: os.environ["X"] = "1"."""
    if "environ" not in python.text and "chdir" not in python.text:
        return
    lines = Lines(python.text)

    def written(node: Any) -> _Written:
        start = lines.starts[node.lineno - 1] + lines.column(node.lineno, node.col_offset) - 1
        end_line = node.end_lineno
        end = lines.starts[end_line - 1] + lines.column(end_line, node.end_col_offset) - 1
        return python.part(start, end)

    values: Dict[int, ast.expr] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            values.update((id(target), statement.value) for target in statement.targets)
        call = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(call, ast.Call) and dotted(call.func) == "os.chdir" and len(call.args) == 1:
            folder = _text(call.args[0])
            place = written(call.args[0])
            chosen = "$OLDPWD" if folder is None else shlex.quote(folder)
            yield _Command(_joined([place.made(f"cd {chosen}"), place.after("\n")]), lasts=True)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Subscript) or isinstance(node.ctx, ast.Load):
            continue
        # In Python 3.8 the key is wrapped once more.
        name = _text(node.slice) or _text(getattr(node.slice, "value", None))
        if (
            dotted(node.value) not in ("os.environ", "environ")
            or not name
            or not _SETS.fullmatch(f"{name}=x")
        ):
            continue
        value = values.get(id(node))
        content = _text(value)
        # What stands in a branch or function may happen or not.
        yield _exported(name, HIDDEN if content is None else content, written(node), written(value or node))


def _text(node: Any) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _launches(path: str, commands: Sequence[_Command], file: Lines) -> Tuple[List[Launch], List[Problem]]:
    """What the commands start, in order; each but those that last is a shell of its own."""
    host = real_host()
    found: List[Launch] = []
    problems: List[Problem] = []
    parts: List[_Written] = []
    said = [it for it in commands if it.written.where]
    if not said:
        return [], []
    for written, lasts, cell in sorted(said, key=lambda it: it.written.where[0]):
        launches, errors = read_shell(path, written.text, host)
        if errors:
            # It would spoil those after it.
            lines = _CellLines(written, file)
            found += [_moved(it, lines) for it in launches]
            problems += [_in_file(it, lines) for it in errors if cell]
        elif lasts:
            parts += [written, written.after("\n\n")]
        elif launches:
            parts += [written.made("("), written, written.after("\n\n)\n")]
    script = _joined(parts)
    launches, _ = read_shell(path, script.text, host)
    lines = _CellLines(script, file)
    found += [_moved(it, lines) for it in launches]
    return sorted(found, key=lambda it: it.place[1:]), problems


def _moved(launch: Launch, lines: _CellLines) -> Launch:
    """The launch with every place that of the notebook."""
    path = launch.place.path

    def place(it: Place) -> Place:
        return lines.located(it) if it.path == path else it

    def line(match: re.Match[str]) -> str:
        return match[1] + str(lines.located(Place(path, int(match[2]))).line)

    def moved(value: Value) -> Value:
        constant = value.constant
        if isinstance(constant, list):
            constant = [moved(it) for it in constant]
        origin = re.sub(rf"( on line )(\d+)(?= of {re.escape(path)})", line, value.origin)
        return Value(constant, place(value.place), value.key and place(value.key), origin)

    return launch._replace(
        place=place(launch.place),
        options={name: moved(value) for name, value in launch.options.items()},
        script=launch.script and moved(launch.script),
        module=launch.module and moved(launch.module),
        arguments=tuple(map(moved, launch.arguments)),
        environment={name: moved(value) for name, value in launch.environment.items()},
    )
