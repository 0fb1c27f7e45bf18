"""A file's text while fixes are tried on it, one after the other, each at places of the original text."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Sequence, Tuple

_NEWLINE = re.compile(r"\r\n?|\n")


class HeldBack(Exception):
    """A fix that is not carried out; the message says why in one clause."""


class Splice(NamedTuple):
    """A span of the text, by offsets in characters, and what comes in its place."""

    start: int
    end: int
    text: str


class _Region(NamedTuple):
    """A span of the original that was changed, and where its replacement stands now."""

    original_start: int
    original_end: int
    start: int
    end: int


class Draft:
    """A text with the changes made so far. Nothing is changed in place: a fix that fails leaves no trace."""

    def __init__(self, original: str, text: str | None = None, regions: Tuple[_Region, ...] = ()) -> None:
        self.original = original
        self.text = original if text is None else text
        self._regions = regions

    @property
    def newline(self) -> str:
        """How lines end here."""
        found = _NEWLINE.search(self.original)
        return found.group() if found else "\n"

    def offset(self, line: int, column: int) -> int:
        """Where a place of the original is now. Raises HeldBack when it is no more, or never was."""
        starts = line_starts(self.original)
        if not 1 <= line <= len(starts):
            raise HeldBack(f"there is no line {line}")
        place = starts[line - 1] + max(column, 1) - 1
        if place > len(self.original):
            raise HeldBack(f"there is no column {column} on line {line}")
        moved = 0
        for region in self._regions:
            if region.original_start <= place < region.original_end:
                raise HeldBack("it overlaps another fix")
            if region.original_end <= place:
                moved = region.end - region.original_end
        return place + moved

    def replacement(self, line: int, column: int) -> str | None:
        """What stands now where this place of the original was; None where that was not changed."""
        starts = line_starts(self.original)
        place = starts[min(max(line, 1), len(starts)) - 1] + column - 1
        for region in self._regions:
            if region.original_start <= place < region.original_end:
                return self.text[region.start : region.end]
        return None

    def line_now(self, line: int) -> int:
        """The line on which this line of the original begins now."""
        starts = line_starts(self.original)
        place = starts[min(max(line, 1), len(starts)) - 1]
        now = place
        for region in self._regions:
            if region.original_start <= place < region.original_end:
                now = region.start
            elif region.original_end <= place:
                now = place + region.end - region.original_end
        return len(_NEWLINE.findall(self.text[:now])) + 1

    def spliced(self, splices: Sequence[Splice]) -> Draft:
        """The draft after these changes. Raises HeldBack when one touches what was changed before."""
        wanted = sorted({it for it in splices if self.text[it.start : it.end] != it.text})
        for one, other in zip(wanted, wanted[1:]):
            if other.start < one.end or one[:2] == other[:2]:
                raise HeldBack("its edits overlap each other")
        for splice in wanted:
            if any(splice.start < it.end and it.start < splice.end for it in self._regions):
                raise HeldBack("it overlaps another fix")
        if not wanted:
            return self
        text, at = "", 0
        for splice in wanted:
            text += self.text[at : splice.start] + splice.text
            at = splice.end
        return Draft(self.original, text + self.text[at:], self._with(wanted))

    def _with(self, splices: Sequence[Splice]) -> Tuple[_Region, ...]:
        merged: List[Tuple[int, int, bool, str]] = [
            (it.start, it.end, False, self.text[it.start : it.end]) for it in self._regions
        ]
        merged += [(it.start, it.end, True, it.text) for it in splices]
        regions: List[_Region] = []
        old = iter(self._regions)
        behind = 0  # how much of the original the text so far is ahead of, before and after this change
        ahead = 0
        for start, end, new, text in sorted(merged):
            if new:
                original_start, original_end = start - behind, end - behind
            else:
                region = next(old)
                original_start, original_end = region.original_start, region.original_end
                behind = end - original_end
            now = original_start + ahead
            regions.append(_Region(original_start, original_end, now, now + len(text)))
            ahead = now + len(text) - original_end
        return tuple(regions)


def line_starts(text: str) -> List[int]:
    """Where each line begins, in characters."""
    return [0, *(found.end() for found in _NEWLINE.finditer(text))]


def line_start(text: str, at: int) -> int:
    """Where the line of this offset begins."""
    return max(text.rfind("\n", 0, at), text.rfind("\r", 0, at)) + 1


def line_end(text: str, at: int) -> int:
    """Where the line of this offset ends: its newline, or the end of the text."""
    found = _NEWLINE.search(text, at)
    return found.start() if found else len(text)


def next_line(text: str, at: int) -> int:
    """Where the line after this offset begins; the end of the text after its last line."""
    found = _NEWLINE.search(text, at)
    return found.end() if found else len(text)


def indentation(text: str, at: int) -> str:
    """The white space before the first word of the line of this offset."""
    start = line_start(text, at)
    found = re.compile(r"[ \t\f]*").match(text, start)
    return found.group() if found else ""


def first_on_its_line(text: str, at: int) -> bool:
    """Whether nothing but white space stands before it on its line."""
    return not text[line_start(text, at) : at].strip(" \t\f")


def without_lines(text: str, start: int, end: int) -> Splice:
    """Takes out every line of this span. A last line that has no newline leaves none behind."""
    begin = line_start(text, start)
    if line_end(text, end) == len(text) and begin > 0:
        begin -= 2 if text.startswith("\r\n", begin - 2) else 1
    return Splice(begin, next_line(text, end), "")


# --- Lists with commas: arguments, imported names, the entries of a mapping -------------------------


class CommaList(NamedTuple):
    """The items of a list in source text, by their spans, and where it is closed.

    `closed_at` is None where no bracket encloses the list: then a line does not end inside it. `comment` is
    the pattern that a comment begins with; `trailing_comma` says whether the last item may have one."""

    text: str
    items: Sequence[Tuple[int, int]]
    closed_at: int | None
    comment: str = "#"
    trailing_comma: bool = True

    def without(self, index: int) -> List[Splice]:
        """Takes an item out: with its line and the comment there, where the line is its own."""
        text = self.text
        start, end = self.items[index]
        behind = self._behind(end)
        alone = re.compile(rf"[ \t]*({self.comment}[^\r\n]*)?(\r\n?|\n)").match(text, behind)
        last = index == len(self.items) - 1
        if self.closed_at is not None and alone and first_on_its_line(text, start):
            splices = [Splice(line_start(text, start), alone.end(), "")]
            if last and index > 0 and not self.trailing_comma:
                before = self.items[index - 1][1]
                splices.append(Splice(before, self._behind(before), ""))
            return splices
        if not last:
            following = self.items[index + 1][0]
            if index > 0 and "\n" in text[behind:following]:
                return [Splice(self._behind(self.items[index - 1][1]), behind, "")]
            return [Splice(start, following, "")]
        if index == 0:
            return [Splice(start, behind, "")]
        before = self.items[index - 1][1]
        if re.search(self.comment, text[before:start]):
            comma = [] if self.trailing_comma else [Splice(before, self._behind(before), "")]
            return [*comma, Splice(start, behind, "")]
        return [Splice(before, end, "")]

    def with_item(self, item: str, newline: str) -> List[Splice]:
        """Adds an item behind the last one, on a line of its own where that one has one."""
        text = self.text
        if not self.items:
            assert self.closed_at is not None
            return [Splice(self.closed_at, self.closed_at, item)]
        start, end = self.items[-1]
        behind = self._behind(end)
        comma = "," if behind > end else ""
        closing_later = self.closed_at is not None and line_end(text, behind) < self.closed_at
        if self.closed_at is None or not first_on_its_line(text, start):
            return [Splice(behind, behind, f" {item}," if comma else f", {item}")]
        own_line = f"{newline}{indentation(text, start)}{item}{comma}"
        if not closing_later:
            return [Splice(behind, behind, own_line if comma else f",{own_line}")]
        after = line_end(text, behind)  # behind a comment of the last item
        if comma:
            return [Splice(after, after, own_line)]
        if after == end:
            return [Splice(end, end, f",{own_line}")]
        return [Splice(end, end, ","), Splice(after, after, own_line)]

    def _behind(self, end: int) -> int:
        """Behind the comma that follows an item; its end where there is none."""
        gap = rf"(?:\s|\\\r?\n|{self.comment}[^\r\n]*)*,"
        found = re.compile(gap).match(self.text, end)
        return found.end() if found else end
