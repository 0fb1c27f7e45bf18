"""Reads a log once, in bounded memory, and tells what the failure was.

Healthy logs say the same things over and over. Lines that differ in their digits alone are looked at once;
of those that are new, only the ones with a word of some symptom; and only there patterns are tried, each on
a few lines of one process, freed of what terminals and launchers put around them.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple, Type

import msgspec

from llm_doctor import registry
from llm_doctor.check import Check, Symptom
from llm_doctor.logs import words
from llm_doctor.logs.cleaning import Line, clean
from llm_doctor.logs.data import Diagnosis, UnknownError
from llm_doctor.model import Fix

BLOCK = 1 << 20
"""Bytes that are looked at together."""
OVERLAP = 16 << 10
"""Bytes before and after a block that patterns may look into."""
LINE_LIMIT = 4000
"""Bytes. A longer line is looked at in pieces."""
BEFORE, AFTER = 2, 8
"""Lines of the same process that a message may begin before, and end after, the word that was found."""
AWAY = 40
"""Lines of other processes that may stand between them."""
TRACEBACK = 200
"""Lines above an exception in which its traceback is looked for."""
SHAPES_LIMIT = 200_000
ERRORS_LIMIT = 50

_DIGITS = bytes(ord("0") if chr(it).isdigit() else it for it in range(128)) + bytes(range(128, 256))
_ERROR = re.compile(
    r"(?P<name>(?:\w+\.)*[A-Z]\w*(?:Error|Exception|Fault|Interrupt|Exit|Iteration))\b(?:: |:?$)"
)
_WRAPPERS = (
    "ChildFailedError",
    "CalledProcessError",
    "SystemExit",
    "ProcessExitedException",
    "ProcessRaisedException",
    "RayTaskError",
)
"""Exceptions that say that another process failed, not why."""
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?'
    r"|File (?P<file2>[^\s\"]+):(?P<line2>\d+), in (?P<function2>\w+)"
    r"|^(?P<file3>\S+\.py) in (?P<function3>\w+)\("
)
_LIBRARY = re.compile(r"site-packages|dist-packages|/lib/python\d|\\lib\\|<frozen|<string>|/runpy\.py")
_ERROR_WORDS = (b"Error", b"Exception", b"Fault", b"Interrupt", b"Exit", b"Iteration")


class _Known(NamedTuple):
    """A symptom with its check."""

    check: Type[Check]
    symptom: Symptom


class _Match(NamedTuple):
    known: _Known
    line: int
    last: int
    rank: int | None
    excerpt: str
    found: re.Match[str]


class _Failed(NamedTuple):
    """An exception, and the last line of it in the log."""

    line: int
    error: str
    frame: str | None


@functools.lru_cache(maxsize=1)
def _index() -> words.Index[_Known]:
    checks = [entry.check for entry in registry.registered(logs=True) if entry.check is not None]
    return words.index((it.pattern, _Known(check, it)) for check in checks for it in check.symptoms)


class Triager:
    """Takes a log piece by piece. `feed` and then `finish`, once."""

    def __init__(self, lines_before: int = 0) -> None:
        self._index = _index()
        self._buffer = b""
        self._before: List[bytes] = []
        self._line = lines_before + 1
        self._shapes: Set[int] = set()
        self._matches: Dict[Tuple[Type[Check], str], _Match] = {}
        self._failed: List[_Failed] = []

    def feed(self, data: bytes) -> None:
        """More of the log, as UTF-8 or something near it."""
        self._buffer += data
        while len(self._buffer) > BLOCK + OVERLAP:
            end = self._buffer.rfind(b"\n", 0, BLOCK) + 1 or self._buffer.rfind(b"\r", 0, BLOCK) + 1 or BLOCK
            block, self._buffer = self._buffer[:end], self._buffer[end:]
            self._look(block, self._buffer[:OVERLAP])

    def finish(self) -> Tuple[Tuple[Diagnosis, ...], UnknownError | None]:
        """The causes, the best first; where there is none, the exception that nobody knows."""
        self._look(self._buffer, b"")
        self._buffer = b""
        matches = sorted(self._matches.values(), key=lambda it: (it.line, -len(it.found[0])))
        matches = _causes(matches, self._unknown(matches))
        if matches:
            return tuple(map(_diagnosis, matches)), None
        unknown = self._failed[-1] if self._failed else None
        return (), UnknownError(**unknown._asdict()) if unknown is not None else None

    def _unknown(self, matches: Sequence[_Match]) -> List[_Failed]:
        """The exceptions that no match speaks of. Some only say that the next lines have the reason."""
        spoken = {line for it in matches for line in range(it.line, it.last + 1)}
        told = {line - back for line in spoken for back in range(1, 4)}
        return [
            it
            for it in self._failed
            if it.line not in spoken and not (it.line in told and it.error.endswith((":", "traceback)")))
        ]

    # --- Looking ------------------------------------------------------------------------------------------

    def _look(self, block: bytes, after: bytes) -> None:
        """Looks at whole lines (of a longer line, at a piece); `after` is the beginning of what follows."""
        lines = _lines(block)
        following = _lines(after)[:AWAY]
        fresh = self._fresh(lines)
        wanted = self._wanted(lines, fresh)
        if wanted:
            context = [*self._before, *lines, *following]
            offset = len(self._before)
            numbers = self._numbers(context, offset)
            for at in sorted(wanted):
                self._examine(context, numbers, at + offset, wanted[at])
        self._line += sum(1 for it in lines if not it.endswith(b"\r"))
        self._before = [*self._before, *lines][-TRACEBACK:]

    def _fresh(self, lines: List[bytes]) -> List[int]:
        """The lines that are unlike all before, digits aside."""
        if not lines:
            return []
        shapes = b"\n".join(lines).translate(_DIGITS).split(b"\n")
        new = {shape for shape in set(shapes) if hash(shape) not in self._shapes}
        if not new:
            return []
        if len(self._shapes) > SHAPES_LIMIT:
            self._shapes.clear()
        self._shapes.update(map(hash, new))
        found = []
        for number, shape in enumerate(shapes):
            if shape in new:
                new.discard(shape)
                found.append(number)
        return found

    def _wanted(self, lines: List[bytes], fresh: Sequence[int]) -> Dict[int, List[bytes]]:
        """Of these lines the ones with words of symptoms, and which they are."""
        text = b"\n".join([lines[it] for it in fresh])
        starts = list(itertools.accumulate((len(lines[it]) + 1 for it in fresh), initial=0))
        wanted: Dict[int, List[bytes]] = {}
        present = self._index.tokens.keys() & set(text.translate(words.APART).split())
        for word in (*present, *self._index.parts, *_ERROR_WORDS):
            at = text.find(word)
            while at >= 0:
                line = bisect.bisect_right(starts, at) - 1
                wanted.setdefault(fresh[line], []).append(word)
                at = text.find(word, starts[line + 1])
        return wanted

    def _numbers(self, context: List[bytes], offset: int) -> List[int]:
        """The line in the log of each piece: what ends in a carriage return goes on in the same line."""
        steps = [0 if it.endswith(b"\r") else 1 for it in context]
        begin = self._line - sum(steps[:offset])
        return list(itertools.accumulate(steps, initial=begin))

    def _examine(self, context: List[bytes], numbers: List[int], at: int, found: Sequence[bytes]) -> None:
        marked = context[at][:1] in b"[(" or b": " in context[at][:64]
        before, after = (AWAY, AWAY) if marked else (BEFORE * 2, AFTER * 2)
        around = b"\n".join(context[max(0, at - before) : at + after])
        suspected = [
            indexed.symptom
            for word in found
            for indexed in (*self._index.tokens.get(word, ()), *self._index.parts.get(word, ()))
            if all(any(word in around for word in others) for others in indexed.others)
        ]
        if suspected:
            self._try(suspected, context, numbers, at)
        if not any(word in _ERROR_WORDS for word in found):
            return
        own = clean(context[at])
        error = _ERROR.match(own.text.strip())
        if error is not None and not error["name"].endswith(_WRAPPERS):
            self._failed.append(_Failed(numbers[at], _short(own.text.strip()), _frame(context, at, own)))
            del self._failed[ERRORS_LIMIT // 2 : -ERRORS_LIMIT // 2]

    def _try(self, suspected: Sequence[_Known], context: List[bytes], numbers: List[int], at: int) -> None:
        window = _window(context, at)
        text = "\n".join(line.text for _, line in window)
        starts = list(itertools.accumulate((len(line.text) + 1 for _, line in window), initial=0))
        rank = window[0][1].rank
        for known in suspected:
            key = (known.check, known.symptom.pattern)
            match = None if key in self._matches else known.symptom.search(text)
            if match is None:
                continue
            begin = bisect.bisect_right(starts, match.start()) - 1
            end = max(begin + 1, bisect.bisect_left(starts, match.end()))
            lines = window[begin:end]
            excerpt = _short(" ".join(line.text.strip() for _, line in lines), match[0])
            first, last = numbers[lines[0][0]], numbers[lines[-1][0]]
            self._matches[key] = _Match(known, first, last, rank, excerpt, match)


def _lines(block: bytes) -> List[bytes]:
    """The lines. Progress bars overwrite theirs: each state of one ends in a carriage return, and so does
    each piece of a line that goes on."""
    if b"\r" in block:
        block = block.replace(b"\r\n", b"\n").replace(b"\r", b"\r\n")
    lines = block.split(b"\n")
    lines[-1] += b"\r"  # it goes on, or is empty
    if lines[-1] == b"\r":
        lines.pop()
    if max(map(len, lines), default=0) > LINE_LIMIT:
        lines = [piece for line in lines for piece in _pieces(line)]
    return lines


def _pieces(line: bytes) -> Iterator[bytes]:
    """A long line cut at spaces, where there are any."""
    while len(line) > LINE_LIMIT:
        end = line.rfind(b" ", LINE_LIMIT // 2, LINE_LIMIT) + 1 or LINE_LIMIT
        yield line[:end] + b"\r"
        line = line[end:]
    yield line


def _window(context: List[bytes], at: int) -> List[Tuple[int, Line]]:
    """The line and those around it that the same process wrote, without empty ones."""
    own = clean(context[at])

    def near(numbers: Iterator[int], count: int) -> Iterator[Tuple[int, Line]]:
        for number in numbers:
            line = clean(context[number])
            if line.speaker == own.speaker and line.text:
                yield number, line
                count -= 1
                if not count:
                    return

    before = list(near(iter(range(at - 1, max(-1, at - AWAY), -1)), BEFORE))
    after = near(iter(range(at + 1, min(len(context), at + AWAY))), AFTER)
    return [*reversed(before), (at, own), *after]


def _frame(context: List[bytes], at: int, own: Line) -> str | None:
    """The last frame above an exception that is no library's, else the last."""
    last = None
    for number in range(at - 1, max(-1, at - TRACEBACK), -1):
        line = clean(context[number])
        if line.speaker != own.speaker:
            continue
        if line.text.startswith("Traceback (most recent"):
            break
        found = _FRAME.search(line.text)
        if found is None:
            continue
        file = found["file"] or found["file2"] or found["file3"]
        number_of = found["line"] or found["line2"]
        function = found["function"] or found["function2"] or found["function3"]
        spelled = file + (f":{number_of}" if number_of else "") + (f", in {function}" if function else "")
        if not _LIBRARY.search(file):
            return spelled
        last = last or spelled
    return last


def _causes(matches: Sequence[_Match], unknown: Sequence[_Failed]) -> List[_Match]:
    """Failures in the order of the log; else what fell over, unless an exception that nobody knows came
    before it; else what was warned of, unless something failed."""
    by_standing: Dict[str, List[_Match]] = {"failure": [], "aftermath": [], "hint": []}
    for match in matches:
        by_standing[match.known.symptom.standing].append(match)
    chosen = by_standing["failure"]
    if not chosen:
        first = min((it.line for it in unknown), default=None)
        chosen = [it for it in by_standing["aftermath"] if first is None or it.line <= first]
        if not chosen and first is None:
            chosen = by_standing["hint"]
    found: Dict[Type[Check], _Match] = {}
    for match in chosen:
        found.setdefault(match.known.check, match)
    return list(found.values())


def _diagnosis(match: _Match) -> Diagnosis:
    check, symptom = match.known
    groups = {name: text.strip() for name, text in match.found.groupdict().items() if text is not None}
    cause = _filled(symptom.cause, groups) or check.summary()
    fixes = (_with_groups(fix, groups) for fix in symptom.fixes or check.remedies)
    return Diagnosis(
        check=check.name,
        topic=check.topic,
        confidence=symptom.sure,
        line=match.line,
        excerpt=match.excerpt,
        cause=cause.rstrip("."),
        fixes=tuple(fix for fix in fixes if fix is not None),
        rank=match.rank,
        url=check.url,
    )


def _filled(template: str, groups: Dict[str, str]) -> str | None:
    """The template with the groups in it; None where one has nothing."""
    try:
        return template.format(**groups)
    except (KeyError, IndexError, ValueError):
        return None


def _with_groups(fix: Fix, groups: Dict[str, str]) -> Fix | None:
    title, preview = _filled(fix.title, groups), _filled(fix.preview, groups)
    if title is None or preview is None:
        return None
    return msgspec.structs.replace(fix, title=title, preview=preview)


def _short(text: str, around: str = "") -> str:
    """At most 300 characters, with what matched in them.

    No word is cut at its front: a secret is known by it, and would be shown."""
    if len(text) <= 300:
        return text
    at = max(0, text.find(around[:40]))
    begin = max(0, min(at - 40, len(text) - 300))
    if begin:
        space = re.search(r"\s", text[begin - 1 : at])
        begin = begin + space.start() if space else at
    return ("..." if begin else "") + text[begin : begin + 300] + ("..." if begin + 300 < len(text) else "")
