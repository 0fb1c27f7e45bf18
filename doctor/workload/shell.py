"""Shell scripts: every launch line in them, with the values that the script itself gives to its variables.

The text is parsed, never run. What only a run could tell ($1, a command's output, a variable from outside) is
UNKNOWN, and so is what a branch or a loop may have changed.
"""

from __future__ import annotations

import ast
import bisect
import contextlib
import operator
import posixpath
import re
import time
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from llm_doctor.host import Host
from llm_doctor.workload.data import UNKNOWN, Job, Launch, Place, Problem, Value
from llm_doctor.workload.launch import launch_of

DEPTH_LIMIT = 40
"""Of nested branches, loops, calls and quoted scripts; what is deeper is not read."""
WORDS_LIMIT = 5000
"""Of one command; one with more is data."""
TEXT_LIMIT = 100_000
"""Characters of a variable's value."""
WORK_LIMIT = 200_000
"""Words that a script is followed through; where variables grow, it is the square of the lines."""
MARKS = ("|", "<<", "=(")
MARKS_LIMIT = 3000
"""Of each of these marks in a file; the parser's time grows with the square of their number."""
PARSE_LIMIT_S = 3.0
"""Of processor time; a script of 10,000 lines takes a tenth."""
HIDDEN = "\ue000"
"""Stands for what is not known in a text that is parsed again, as `bash -c "$CMD"`."""
_EXPANSIONS = frozenset(
    {
        "simple_expansion",
        "expansion",
        "command_substitution",
        "arithmetic_expansion",
        "process_substitution",
    }
)
_CONTAINERS = frozenset(
    {"program", "compound_statement", "do_group", "negated_command", "variable_assignments", "ERROR"}
)
_STOPS = frozenset({"exit", "return", "break", "continue"})
_TESTS = ("[", "((", "test ", "grep ", "command -v", "which ")


class _Run(NamedTuple):
    """A stretch of text that is written in one piece, and where: offsets in the file.

    The site is where the word at hand refers to it: the same for literal text, `$X` for what X holds."""

    text: str | None
    start: int
    end: int
    site: Tuple[int, int]
    splits: bool = False
    """Whether blanks in it part words, as in an expansion without quotes."""

    def at_site(self) -> _Run:
        """The same text, said to be written at the site."""
        return self._replace(start=self.site[0], end=self.site[1])


_Runs = Tuple[_Run, ...]


class _Variable(NamedTuple):
    """What a variable holds: one text, or the elements of an array."""

    fields: Tuple[_Runs, ...]
    array: bool = False

    @property
    def texts(self) -> List[str | None]:
        """The text of each field; None where it is not known."""
        return [_text(runs) for runs in self.fields]


class _State(NamedTuple):
    """What the script has done so far to what comes next."""

    variables: Dict[str, _Variable]
    exported: Dict[str, Tuple[int, int]]
    """By name, where that is written."""
    directory: List[str]

    def copy(self) -> _State:
        """One that can go another way."""
        return _State(dict(self.variables), dict(self.exported), list(self.directory))


class _Text:
    """A text to parse, and where in the file each of its characters is written."""

    def __init__(self, runs: Sequence[_Run]) -> None:
        self.text = "".join(HIDDEN if run.text is None else run.text for run in runs)
        self._runs = runs
        self._starts: List[int] = []
        length = 0
        for run in runs:
            self._starts.append(length)
            length += 1 if run.text is None else len(run.text)

    @property
    def whole(self) -> bool:
        """Whether it is written in one piece, as the file itself is."""
        return len(self._runs) == 1

    def run(self, text: str, start: int, end: int) -> _Run:
        """Literal text that stands from start to end."""
        first, last = self.offset(start), self.offset(max(start, end - 1)) + (1 if end > start else 0)
        return _Run(text, first, last, (first, last))

    def offset(self, at: int) -> int:
        """Where in the file this character of the text is written."""
        if not self._runs:
            return 0
        index = max(0, bisect.bisect_right(self._starts, at) - 1)
        run = self._runs[index]
        exact = run.text is not None and len(run.text) == run.end - run.start
        return run.start + (at - self._starts[index] if exact else 0)


def read_shell(path: str, text: str, host: Host) -> Tuple[List[Launch], List[Problem]]:
    """Every launch in a shell script, in the order of the script, and its first syntax error.

    Never raises on any text. Through `host` it reads what a launch line names: a hostfile, accelerate's
    configuration."""
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        return [], [Problem(path, "binary data (a NUL byte), not a shell script", line, 1)]
    for mark in MARKS:
        if text.count(mark) > MARKS_LIMIT:
            return [], [Problem(path, f"more than {MARKS_LIMIT} times {mark!r}: data, not a shell script")]
    script = _Script(path, text, host)
    # The blank before a carriage return is no continuation to bash; what was meant is clear.
    unix = text.replace("\\\r\n", " \\\n").replace("\r\n", " \n")
    # Two things that the grammar does not know: a comment between continued lines, and the old $[1 + 2].
    unix = re.sub("`#[^`\n]*`", lambda match: " " * len(match[0]), unix)
    unix = _OLD_ARITHMETIC.sub(lambda match: "$" + "_" * (len(match[0]) - 1), unix)
    try:
        script.read(_Text([_Run(unix, 0, len(unix), (0, len(unix)))]), depth=0)
    except _TooMuch:
        problem = f"its commands come to more than {WORK_LIMIT:,} words; those after them are not read"
        script.problems.append(Problem(path, problem))
    except _Endless:
        problem = f"it is not parsed within {PARSE_LIMIT_S:g} s: data, not a shell script"
        script.problems.append(Problem(path, problem))
    return script.launches, script.problems


class _Endless(Exception):
    """The parser does not come to an end: on what is no shell script its time grows with the square."""


class _TooMuch(Exception):
    """The script is followed no further."""


class _Script:
    """One file, statement by statement."""

    def __init__(self, path: str, text: str, host: Host) -> None:
        self.launches: List[Launch] = []
        self.problems: List[Problem] = []
        self._path = path
        self._host = host
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self._job = _job(self, text)
        self._state = _State({}, {}, [""])
        self._functions: Dict[str, Tuple[Any, _Text]] = {}
        self._prefix: Tuple[Value, ...] = ()
        self._worked = 0
        if self._job is not None:
            self._inherit(self._job)

    def read(self, text: _Text, depth: int) -> None:
        """Reads a script, or one that is quoted in it."""
        tree = _parse(text.text)
        if depth == 0 and tree.root_node.has_error:
            self._report_error(tree.root_node, text)
        self._statements([tree.root_node], text, depth)
        if depth == 0:
            while self._functions:
                self._call(next(iter(self._functions)), depth)

    def place(self, start: int, end: int) -> Place:
        """The place of a span of the file."""
        line, last = bisect.bisect_right(self._starts, start), bisect.bisect_right(self._starts, end)
        column, end_column = start - self._starts[line - 1] + 1, end - self._starts[last - 1] + 1
        return Place(self._path, line, column, last, end_column)

    def _work(self, words: int) -> None:
        self._worked += words
        if self._worked > WORK_LIMIT:
            raise _TooMuch

    def _report_error(self, root: Any, text: _Text) -> None:
        node = root
        while node.type != "ERROR" and not node.is_missing:
            broken = [it for it in node.children if it.has_error or it.is_missing]
            if not broken:
                break
            node = broken[0]
        opened = [it for it in node.children if it.type in _OPENING]
        node = next((it for it in node.children if it.type == "ERROR"), opened[-1] if opened else node)
        written = _source(node, text).strip().partition("\n")[0][:40]
        told = f"unexpected {written!r}" if written else "the statement is not complete"
        if node.is_missing or node in opened:
            told = f"{node.type!r} is missing" if node.is_missing else f"{node.type!r} is never closed"
        at = text.offset(min(node.start_byte, len(text.text.rstrip())))
        place = self.place(at, at)
        self.problems.append(Problem(self._path, f"a syntax error: {told}", place.line, place.column))

    def _inherit(self, job: Job) -> None:
        """What SLURM sets in the job by its directives (https://slurm.schedmd.com/sbatch.html)."""
        for directive, names in {
            "nodes": ("SLURM_NNODES", "SLURM_JOB_NUM_NODES"),
            "ntasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
            "ntasks-per-node": ("SLURM_NTASKS_PER_NODE",),
            "gpus-per-node": ("SLURM_GPUS_PER_NODE",),
            "cpus-per-task": ("SLURM_CPUS_PER_TASK",),
        }.items():
            value = job.directives.get(directive)
            if value is not None and isinstance(value.constant, str) and value.constant.isdigit():
                place = value.place
                start = self._starts[place.line - 1] + place.column - 1
                end = start + len(value.constant)
                run = _Run(value.constant, start, end, (start, end))
                self._state.variables.update(dict.fromkeys(names, _Variable(((run,),))))
        folder = job.directives.get("chdir")
        if folder is not None and isinstance(folder.constant, str):
            self._state.directory[0] = folder.constant

    # --- Statements ----------------------------------------------------------------------------------

    def _statements(self, nodes: Sequence[Any], text: _Text, depth: int) -> bool:
        """Follows statements in order. Returns whether they end the script, function or loop turn."""
        if depth > DEPTH_LIMIT:
            return False
        pending = list(reversed(nodes))
        while pending:
            node = pending.pop()
            kind = node.type
            if kind in _CONTAINERS:
                pending.extend(reversed(node.children))
            elif kind == "command":
                if self._command(node, text, depth):
                    return True
            elif kind in ("variable_assignment", "declaration_command"):
                self._declare(node, text)
            elif kind == "unset_command":
                for name in re.findall(r"\w+", _source(node, text))[1:]:
                    self._state.variables.pop(name, None)
                    self._state.exported.pop(name, None)
            elif kind == "redirected_statement":
                self._redirected(node, text, depth)
            elif kind == "list":
                if self._list(node, text, depth):
                    return True
            elif kind in ("subshell", "pipeline"):
                before = self._state.copy()
                self._statements(node.children, text, depth + 1)
                self._state = before
            elif kind in ("if_statement", "case_statement"):
                if self._branches(node, text, depth):
                    return True
            elif kind in ("for_statement", "c_style_for_statement", "while_statement"):
                self._loop(node, text, depth)
            elif kind == "function_definition":
                name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
                if name is not None and body is not None:
                    self._functions[_source(name, text)] = (body, text)
        return False

    def _list(self, node: Any, text: _Text, depth: int) -> bool:
        """`a && b || c`. What follows a test is a branch; what follows anything else is taken to be run."""
        parts: List[Any] = [node]
        while parts[0].type == "list":  # it leans to the left, as deep as it is long
            parts[:1] = parts[0].children
        branched = False
        before = self._state.copy()
        for part in parts:
            if not part.is_named:
                continue
            stops = self._statements([part], text, depth + 1)
            if stops and not branched:
                return len(parts) == 1
            branched = branched or part.type == "test_command" or _source(part, text).startswith(_TESTS)
        if branched:
            self._state = _merged([before, self._state])
        return False

    def _redirected(self, node: Any, text: _Text, depth: int) -> None:
        body = node.child_by_field_name("body")
        redirects = [it for it in node.children if it.type.endswith("_redirect")]
        # In `python a.py > log --bf16` the grammar takes the last word for a second file.
        more = [word for it in redirects if it.type == "file_redirect" for word in _destinations(it)[1:]]
        documents = [it for it in redirects if it.type == "heredoc_redirect"]
        if body is not None and body.type == "command":
            self._command(body, text, depth, more, documents)
        elif body is not None:
            self._statements([body], text, depth)
        for document in documents:  # `cat <<EOF > file && python a.py`
            rest = [it for it in document.children if it.type not in ("heredoc_body", "file_redirect")]
            self._statements(rest, text, depth + 1)

    def _branches(self, node: Any, text: _Text, depth: int) -> bool:
        """Each branch on its own; after them, what all have in common is known."""
        ways: List[List[Any]] = [[]]
        complete = False
        for child in node.children:
            if child.type in ("elif_clause", "case_item"):
                ways.append(child.children)
                complete = complete or (
                    child.type == "case_item" and _source(child, text).lstrip("( ").startswith("*)")
                )
            elif child.type == "else_clause":
                ways.append(child.children)
                complete = True
            elif node.type == "if_statement":
                ways[0].append(child)
        ways = [way for way in ways if way]
        before = self._state
        after = [] if complete else [before]
        for way in ways:
            self._state = before.copy()
            never = way[0].type in ("if", "elif") and _source(way[1], text) == "false"
            if never or not self._statements(way, text, depth + 1):
                after.append(self._state)
        self._state = _merged(after) if after else before
        return not after

    def _loop(self, node: Any, text: _Text, depth: int) -> None:
        """What a turn changes is not known at its start: it may be the second."""
        for name in _assigned(node, text):
            self._state.variables[name] = _NOT_KNOWN
        before = self._state.copy()
        turn = [it for it in node.children if it.type not in ("variable_name", "variable_assignment")]
        self._statements(turn, text, depth + 1)
        self._state = _merged([before, self._state])

    def _call(self, name: str, depth: int) -> None:
        """A function's body at its first call, or at the end of the script."""
        body, text = self._functions.pop(name)
        self._statements([body], text, depth + 1)
        for changed in _assigned(body, text):
            self._state.variables[changed] = _NOT_KNOWN

    # --- Variables -----------------------------------------------------------------------------------

    def _declare(self, node: Any, text: _Text) -> None:
        """`X=1`, `export X=1 Y`, `declare -x X`, `local X=1`."""
        if node.type == "variable_assignment":
            self._assign(node, text)
            return
        keyword, *names = [it for it in node.children if it.type != "comment"]
        exports = _source(keyword, text) == "export"
        for child in names:
            written = _source(child, text)
            if written.startswith("-"):
                exports = exports or ("x" in written and not exports)
            elif child.type == "variable_assignment":
                name = self._assign(child, text)
                if exports and name:
                    self._state.exported[name] = self._span(child, text)
            elif exports and re.fullmatch(r"\w+", written):
                self._state.exported[written] = self._span(child, text)

    def _assign(self, node: Any, text: _Text) -> str | None:
        """The name that is assigned to; None for an element of an array."""
        written = _source(node, text)
        match = re.match(r"(\w+)(\+?=)", written)
        if match is None:
            bare = re.match(r"\w+", written)
            if bare:
                self._state.variables[bare[0]] = _NOT_KNOWN
            return None
        name, appends = match[1], match[2] == "+="
        variable = self._value_of(node, text, node.start_byte + match.end())
        if appends:
            held = self._state.variables.get(name, _NOT_KNOWN)
            if variable.array or held.array:
                variable = _Variable((*held.fields, *variable.fields), array=True)
            else:
                variable = _Variable(
                    (held.fields[0] + variable.fields[0] if held.fields else variable.fields[0],)
                )
        self._work(sum(map(len, variable.fields)))
        if sum(len(run.text or "") for runs in variable.fields for run in runs) > TEXT_LIMIT:
            variable = _NOT_KNOWN
        self._state.variables[name] = variable
        return name

    def _value_of(self, node: Any, text: _Text, start: int) -> _Variable:
        array = next((it for it in node.children if it.type == "array"), None)
        if array is None:
            atoms = self._atoms(node, text, start, node.end_byte)
            return _Variable((_settled([run for run in atoms if run is not None]),))
        fields: List[_Runs] = []
        for child in array.children:
            if child.is_named and child.type != "comment":
                fields.extend(self._fields(child, text))
        return _Variable(tuple(fields), array=True)

    # --- Words ---------------------------------------------------------------------------------------

    def _fields(self, node: Any, text: _Text) -> Iterator[_Runs]:
        """The words that one word of the script becomes."""
        atoms = self._atoms(node, text, node.start_byte, node.end_byte)
        quoted = text.text[node.start_byte : node.start_byte + 1] in "\"'"
        field: List[_Run] = []
        begun = quoted
        for run in atoms:
            if run is None:  # the end of an element of "${ARRAY[@]}"
                if field or begun:
                    yield _settled(field)
                field, begun = [], False
            elif run.splits and run.text is not None:
                for piece in _pieces(run):
                    if piece.text and piece.text.isspace():
                        if field:
                            yield _settled(field)
                        field, begun = [], False
                    else:
                        field.append(piece)
            else:
                field.append(run)
        if field or (begun and not atoms):
            yield _settled(field) if field else (text.run("", node.start_byte, node.end_byte),)

    def _atoms(self, node: Any, text: _Text, start: int, end: int) -> List[_Run | None]:
        """The runs of a stretch of the script, without quotes and with variables; None ends an element."""
        found: List[_Run | None] = []
        at, quote = start, ""
        for expansion in _expansions(node, start, end):
            # In a string the grammar counts the blanks before an expansion in.
            sign = _SIGN.search(text.text, expansion.start_byte, expansion.end_byte)
            begin = sign.start() if sign else expansion.start_byte
            quote = self._literal(text, at, begin, quote, found)
            found.extend(self._expanded(expansion, text, begin, quoted=quote == '"'))
            at = expansion.end_byte
        self._literal(text, at, end, quote, found)
        return found

    def _literal(self, text: _Text, at: int, end: int, quote: str, found: List[_Run | None]) -> str:
        """Adds literal text, without its quotes. Returns the quote that is open at the end."""
        source = text.text
        while at < end:
            special = _SPECIAL[quote].search(source, at, end)
            stop = special.start() if special else end
            for part in _PARTS.finditer(source, at, stop):
                run = text.run(part[0], part.start(), part.end())
                several = not quote and any("," in it or ".." in it for it in _BRACES.findall(part[0]))
                found.append(run._replace(text=None) if several or part[0] == HIDDEN else run)
            if special is None:
                return quote
            mark = special[0]
            at = special.end()
            if mark in ("'", '"', "$'", '$"'):
                quote = "" if quote else mark[-1] if mark != "$'" else "$'"
            elif mark.startswith("\\") and mark != "\\\n":
                character = _ESCAPES.get(mark[1:], mark[1:]) if quote == "$'" else mark[1:]
                found.append(text.run(character, stop, at))
        return quote

    def _expanded(self, node: Any, text: _Text, begin: int, *, quoted: bool) -> Iterator[_Run | None]:
        source = text.text[begin : node.end_byte]
        _, start, end, *_ = text.run("", begin, node.end_byte)
        unknown = _Run(None, start, end, (start, end))
        parameter = _PARAMETER.fullmatch(source)
        if node.type == "command_substitution" and _OWN_FOLDER.fullmatch(source):
            yield unknown._replace(text=posixpath.dirname(self._path) or ".")
        elif node.type == "arithmetic_expansion":
            yield unknown._replace(text=self._sum(source[3:-2]))
        elif node.type in ("simple_expansion", "expansion") and parameter is not None:
            name = parameter["plain"] or parameter["name"]
            held = self._state.variables.get(name)
            chosen = _chosen(held, parameter["operator"] or "", positional=name.isdigit())
            if chosen == "other":
                atoms = self._atoms(node, text, begin + parameter.start("other"), node.end_byte - 1)
                for run in atoms:
                    yield run and run._replace(splits=run.splits or not quoted)
            elif chosen == "value" and held is not None:
                yield from _elements(held, parameter["index"] or "", unknown, quoted)
            elif chosen != "nothing":
                yield unknown
        else:
            yield unknown

    def _sum(self, expression: str) -> str | None:
        """What `$((NODES * GPUS))` comes to, of numbers that are known."""
        unknown = False

        def number(match: re.Match[str]) -> str:
            nonlocal unknown
            variable = self._state.variables.get(match[1])
            text = variable.texts[0] if variable and len(variable.fields) == 1 else None
            unknown = unknown or text is None or not re.fullmatch("[0-9]{1,9}", text)
            return str(text)

        written = re.sub(r"\$?\{?\b([A-Za-z_]\w*)\}?", number, expression).strip()
        if unknown or len(written) > 200 or not re.fullmatch(r"[0-9+*/() -]+", written):
            return None
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return _evaluated(ast.parse(written, mode="eval").body)
        return None

    def _span(self, node: Any, text: _Text) -> Tuple[int, int]:
        run = text.run("", node.start_byte, node.end_byte)
        return run.start, run.end

    def _value(self, runs: _Runs, raw: str) -> Iterator[Value]:
        """The word; `--name=` with something unknown behind it as two words, which mean the same."""
        content = _text(runs)
        place = self.place(*_extent(runs))
        if content is not None:
            yield Value(content, place)
            return
        flag = re.match(r"(--[A-Za-z][\w-]*)=", runs[0].text or "")
        if flag:
            start = runs[0].start
            yield Value(flag[1], self.place(start, min(runs[0].end, start + len(flag[1]))))
        yield Value(UNKNOWN, place, None, "" if HIDDEN in raw else raw)

    # --- Commands ------------------------------------------------------------------------------------

    def _command(
        self,
        node: Any,
        text: _Text,
        depth: int,
        more: Sequence[Any] = (),
        documents: Sequence[Any] = (),
    ) -> bool:
        """One simple command. Returns whether nothing after it is reached."""
        if node.child_count > WORDS_LIMIT:
            return False
        assigned: Dict[str, Value] = {}
        fields: List[_Runs] = []
        words: List[Value] = []
        begin = _begin(node, text)
        for child in (*node.children, *more):
            if child.start_byte < begin:
                self._assign(child, text)
            elif child.type == "variable_assignment":
                assigned.update(self._assigned_here(child, text))
            elif child.is_named and child.type != "comment" and not child.type.endswith("_redirect"):
                for runs in self._fields(child, text):
                    for value in self._value(runs, _source(child, text)):
                        words.append(value)
                        fields.append(runs)
        self._work(len(words))
        if not words or len(words) > WORDS_LIMIT:
            return False
        name = words[0].constant
        if not isinstance(name, str):
            name = ""
        if name in _STOPS:
            return True
        if name in self._functions:
            self._call(name, depth)
        elif name in ("cd", "pushd", "popd"):
            self._change_directory(name, words)
        elif name in ("read", "mapfile", "readarray", "getopts"):
            for word in words[1:]:
                if isinstance(word.constant, str) and word.constant.isidentifier():
                    self._state.variables[word.constant] = _NOT_KNOWN
        elif not self._quoted_script(words, fields, documents, text, depth):
            environment = {**self._environment(), **assigned}
            launch = launch_of(
                (*self._prefix, *words),
                host=self._host,
                environment=environment,
                job=self._job,
                directory=self._state.directory[-1],
            )
            if launch is not None:
                run = text.run("", begin, node.end_byte)
                span = self.place(run.start, run.end)
                self.launches.append(launch._replace(place=span if text.whole else words[0].place))
        return False

    def _assigned_here(self, node: Any, text: _Text) -> Iterator[Tuple[str, Value]]:
        match = re.match(r"(\w+)=", _source(node, text))
        if match:
            variable = self._value_of(node, text, node.start_byte + match.end())
            yield match[1], self._as_value(variable, self._span(node, text))

    def _as_value(self, variable: _Variable, key: Tuple[int, int]) -> Value:
        runs = variable.fields[0] if variable.fields else ()
        if not runs:
            return Value(UNKNOWN if variable.array else "", self.place(*key), self.place(*key))
        content = UNKNOWN if variable.array or _text(runs) is None else _text(runs)
        return Value(content, self.place(*_extent(runs)), self.place(*key))

    def _environment(self) -> Dict[str, Value]:
        found: Dict[str, Value] = {}
        for name, key in self._state.exported.items():
            variable = self._state.variables.get(name)
            unknown = Value(UNKNOWN, self.place(*key), self.place(*key))
            found[name] = unknown if variable in (None, _NOT_KNOWN) else self._as_value(variable, key)
        return found

    def _change_directory(self, name: str, words: Sequence[Value]) -> None:
        """A folder that is not known stays as it is written: nothing will be found in it."""
        folders = self._state.directory
        target = next((it for it in words[1:] if not str(it.constant).startswith("-")), None)
        if name == "popd" or (target is None and len(words) > 1):
            if len(folders) > 1:
                folders.pop()
            return
        folder = "~" if target is None else target.origin if not target.known else str(target.constant)
        absolute = folder.startswith(("/", "~", "$", '"$'))
        joined = folder if absolute else posixpath.normpath(posixpath.join(folders[-1], folder))
        folders.append("" if joined == "." else joined)

    def _quoted_script(
        self,
        words: Sequence[Value],
        fields: Sequence[_Runs],
        documents: Sequence[Any],
        text: _Text,
        depth: int,
    ) -> bool:
        """`eval`, `bash -c "..."`, also behind srun and its like, `sbatch --wrap` and `bash <<EOF`."""
        names = [posixpath.basename(str(word.constant)) if word.known else "" for word in words]
        inner: List[_Run] = []
        prefix: Sequence[Value] = ()
        if names[0] == "eval":
            for before, runs in zip(fields, fields[1:]):
                if runs is before:
                    continue  # `--name=$X`, which counts as two words
                inner.extend((*runs, _Run(" ", runs[-1].end, runs[-1].end, runs[-1].site)))
        elif names[0] == "sbatch":
            for word, runs in zip(words, fields):
                if str(word.constant).startswith("--wrap="):
                    first = runs[0]
                    inner = [first._replace(text=str(first.text)[7:], start=first.start + 7), *runs[1:]]
        else:
            for at, name in enumerate(names[:-2]):
                option = words[at + 1].constant
                if name in _SHELLS and isinstance(option, str) and re.fullmatch(r"-[a-z]*c", option):
                    inner, prefix = list(fields[at + 2]), words[:at]
                    break
        if inner:
            self._nested(_Text(inner), prefix, depth)
            return True
        if documents and len(words) == 1 and names[0] in (*_SHELLS, "sbatch"):
            for document in documents:
                for body in document.children:
                    if body.type == "heredoc_body":
                        written = text.text[body.start_byte : body.end_byte]
                        self._nested(_Text([text.run(written, body.start_byte, body.end_byte)]), (), depth)
            return True
        return False

    def _nested(self, text: _Text, prefix: Sequence[Value], depth: int) -> None:
        self._work(len(text.text) // 4)
        if depth >= DEPTH_LIMIT or len(text.text) > TEXT_LIMIT:
            return
        before, outer = self._state.copy(), self._prefix
        self._prefix = (*outer, *prefix)
        self.read(text, depth + 1)
        self._state, self._prefix = before, outer


_SHELLS = ("bash", "sh", "zsh", "dash")
_OPENING = frozenset({'"', "'", "`", "$(", "(", "{", "if", "for", "while", "case", "do", "then"})
_NOT_KNOWN = _Variable(((_Run(None, 0, 0, (0, 0)),),))
_SPECIAL = {
    "": re.compile(r"\\[\s\S]|\$?['\"]"),
    "'": re.compile("'"),
    '"': re.compile(r'\\[$`"\\\n]|"'),
    "$'": re.compile(r"\\[\s\S]|'"),
}
_OLD_ARITHMETIC = re.compile(r"(?<=[=\s\"])\$\[(?:[^\[\]\n]|\[[^\[\]\n]*\])*\]")
_SIGN = re.compile(r"[$`<>]")
_PARTS = re.compile(f"{HIDDEN}|[^{HIDDEN}]+")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_BRACES = re.compile(r"\{[^{}\s]*\}")
"""`a{1,2}` becomes several words."""
_PARAMETER = re.compile(
    r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?:\[(?P<index>[^\]]*)\])?"
    r"(?:(?P<operator>:?[-=+?]|[#%/^,@:])(?P<other>[\s\S]*))?\})"
)
_OWN_FOLDER = re.compile(
    r"\$\(\s*(?:cd\s+(?:--\s+)?\"?\$\(\s*)?dirname\s+(?:--\s+)?[\"']?\$\{?(?:0|BASH_SOURCE(?:\[0\])?)\}?[\"']?\s*"
    r"(?:\)\"?(?:\s*&?>\s*/dev/null(?:\s+2>&1)?)?\s*(?:&&|;)\s*pwd(?:\s+-P)?\s*)?\)"
)
"""The folder of the script, however it is asked for."""


def _parse(text: str) -> Any:
    """The syntax tree, whose offsets are those of the text's characters."""
    import tree_sitter_bash
    from tree_sitter import Language, Parser

    pointer: Any = tree_sitter_bash.language()
    language: Any = Language
    parser: Any
    try:
        parser = Parser(language(pointer))
    except TypeError:  # tree-sitter 0.21
        parser = Parser()
        parser.set_language(language(pointer, "bash"))
    # One byte for each character, a line after a last one that is continued.
    data = re.sub(r"[^\x00-\x7f]", "x", text).encode("ascii") + b"\n\n"
    until = time.thread_time() + PARSE_LIMIT_S

    def piece(at: int, point: object) -> bytes:
        return data[at : at + (1 << 12)] if time.thread_time() < until else b""

    tree = parser.parse(piece)
    if time.thread_time() >= until:
        raise _Endless
    return tree


def _source(node: Any, text: _Text) -> str:
    return text.text[node.start_byte : node.end_byte]


def _begin(command: Any, text: _Text) -> int:
    """Where a command begins: the grammar counts assignments in that end in `}` on the line before."""
    begin = at = int(command.start_byte)
    for child in command.children:
        if child.type == "variable_assignment":
            at = child.end_byte
        elif child.type == "command_name" and begin < child.start_byte:
            if re.search(r"(?<!\\)\n", text.text[at : child.start_byte]):
                begin = int(child.start_byte)
            break
    return begin


def _expansions(node: Any, start: int, end: int) -> Iterator[Any]:
    """The outermost expansions between two offsets, in order."""
    pending = [node]
    while pending:
        it = pending.pop()
        if it.type in _EXPANSIONS and it.start_byte >= start and it.end_byte <= end:
            yield it
        elif it.end_byte > start and it.start_byte < end:
            pending.extend(reversed(it.children))


def _destinations(redirect: Any) -> List[Any]:
    return [it for it in redirect.children if it.is_named and it.type != "file_descriptor"]


def _chosen(held: _Variable | None, operator: str, *, positional: bool) -> str:
    """What `${X}`, `${X:-other}` or `${X:+other}` is: the `value`, the `other`, `nothing` or `unknown`."""
    if not operator:
        return "unknown" if held is None else "value"
    if not operator.endswith(("-", "=", "+")):
        return "unknown"
    if held is None:  # from outside, if at all
        return "unknown" if positional or operator.endswith("+") else "other"
    texts = held.texts[:1] or [""]
    if texts[0] is None:
        return "unknown"
    empty = operator.startswith(":") and not texts[0]
    if operator.endswith("+"):
        return "nothing" if empty else "other"
    return "other" if empty else "value"


def _elements(held: _Variable, index: str, unknown: _Run, quoted: bool) -> Iterator[_Run | None]:
    """What a variable holds, as it is put in where `unknown` stands."""
    fields = held.fields
    if index in ("", "0"):
        fields = fields[:1]
    elif index.isdigit() and held.array:
        fields = fields[int(index) : int(index) + 1]
    elif index not in ("@", "*"):
        fields = ()
    if len(fields) > WORDS_LIMIT or (not fields and index not in ("@", "*")):
        yield unknown
        return
    for number, field in enumerate(fields):
        if number:
            yield None if index == "@" and quoted else unknown._replace(text=" ", splits=not quoted)
        for run in field:
            nowhere = run.text is None and not run.end
            yield unknown if nowhere else run._replace(site=unknown.site, splits=not quoted)


def _evaluated(node: ast.expr) -> str | None:
    operators = {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.floordiv,
    }
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in operators:
        left, right = _evaluated(node.left), _evaluated(node.right)
        if left is not None and right is not None and not (isinstance(node.op, ast.Div) and int(right) == 0):
            return str(operators[type(node.op)](int(left), int(right)))
    return None


def _assigned(node: Any, text: _Text) -> Set[str]:
    """The names of all variables that are assigned somewhere in it."""
    found: Set[str] = set()
    pending = [node]
    while pending:
        it = pending.pop()
        if it.type in ("variable_assignment", "for_statement"):
            name = re.search(r"\w+", _source(it, text)[3 if it.type == "for_statement" else 0 :])
            if name:
                found.add(name[0])
        pending.extend(it.children)
    return found


def _text(runs: Sequence[_Run]) -> str | None:
    parts = [run.text for run in runs]
    return None if None in parts else "".join(part or "" for part in parts)


def _pieces(run: _Run) -> Iterator[_Run]:
    """Words and blanks, one by one."""
    if run.text is None or not re.search(r"\s", run.text):
        yield run
        return
    exact = len(run.text) == run.end - run.start
    own = run.site == (run.start, run.end)
    for match in re.finditer(r"\s+|\S+", run.text):
        start, end = (run.start + match.start(), run.start + match.end()) if exact else (run.start, run.end)
        yield run._replace(text=match[0], start=start, end=end, site=(start, end) if own else run.site)


def _settled(runs: Sequence[_Run]) -> _Runs:
    """Each word in it that is put together from several sources is written where it is put together."""
    settled: List[_Run] = []
    word: List[_Run] = []

    def end_word() -> None:
        settled.extend(map(_Run.at_site, word) if _mixed(word) else word)
        word.clear()

    for run in runs:
        for piece in _pieces(run):
            if piece.text is not None and piece.text.isspace():
                end_word()
                settled.append(piece)
            else:
                word.append(piece)
    end_word()
    return tuple(settled)


def _mixed(runs: Sequence[_Run]) -> bool:
    return len({run.site if run.site != (run.start, run.end) else None for run in runs}) > 1


def _extent(runs: Sequence[_Run]) -> Tuple[int, int]:
    """From where to where a word is written."""
    apart = any(
        not 0 <= after.start - run.end <= 3 for run, after in zip(runs, runs[1:])
    )  # quotes are between
    if apart or _mixed(runs):
        return runs[0].site[0], runs[-1].site[1]
    return runs[0].start, runs[-1].end


def _merged(states: Sequence[_State]) -> _State:
    """What holds after any of several ways."""
    merged = states[0].copy()
    for other in states[1:]:
        for name in {*merged.variables, *other.variables}:
            ours, theirs = merged.variables.get(name), other.variables.get(name)
            if ours is None or theirs is None or (ours.texts, ours.array) != (theirs.texts, theirs.array):
                merged.variables[name] = _NOT_KNOWN
        merged.exported.update(other.exported)
    return merged


# --- SLURM's directives ---------------------------------------------------------------------------

_SHORT = {
    "A": "account",
    "C": "constraint",
    "D": "chdir",
    "G": "gpus",
    "J": "job-name",
    "N": "nodes",
    "a": "array",
    "c": "cpus-per-task",
    "d": "dependency",
    "e": "error",
    "i": "input",
    "n": "ntasks",
    "o": "output",
    "p": "partition",
    "q": "qos",
    "t": "time",
    "w": "nodelist",
    "x": "exclude",
}
_DIRECTIVE = re.compile(r"(?:\"[^\"\n]*\"|'[^'\n]*'|[^\s\"'])+")


def _job(script: _Script, text: str) -> Job | None:
    """The `#SBATCH` lines above the first command, as sbatch reads them."""
    directives: Dict[str, Value] = {}
    first: Place | None = None
    offset = 0
    for line in text.splitlines(keepends=True):
        start, offset = offset, offset + len(line)
        if line.strip() and not line.startswith("#"):
            break
        if not re.match(r"#SBATCH\s", line):
            continue
        words = [
            (match[0].replace('"', "").replace("'", ""), start + match.start(), start + match.end())
            for match in _DIRECTIVE.finditer(line, 7)
        ]
        words = words[: next((at for at, word in enumerate(words) if word[0].startswith("#")), len(words))]
        first = first or script.place(start, start + len(line.rstrip()))
        while words:
            (word, begin, end), words = words[0], words[1:]
            key = script.place(begin, end)
            if word.startswith("--"):
                name, equals, value = word[2:].partition("=")
            else:
                name, value = _SHORT.get(word[1:2], word[1:2]), word[2:].lstrip("=")
                equals = value
            if not word.startswith("-") or not name:
                continue
            if equals:
                directives[name] = Value(value, script.place(end - len(value), end), key)
            elif words and not words[0][0].startswith("-"):
                value, begin, end = words.pop(0)
                directives[name] = Value(value, script.place(begin, end), key)
            else:
                directives[name] = Value(True, key, key)
    return Job(first, directives) if first is not None else None
