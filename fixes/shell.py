"""Edits of the flags in shell scripts, word by word as the shell's grammar sees them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, List, NamedTuple, Sequence, Tuple

from llm_doctor.fixes.draft import HeldBack, Splice
from llm_doctor.model import Edit

if TYPE_CHECKING:
    import tree_sitter


class _Word(NamedTuple):
    start: int
    end: int
    text: str

    @property
    def is_flag(self) -> bool:
        return bool(re.match(r"--?[A-Za-z]", self.text))


def parses(text: str) -> bool:
    """Whether the shell's grammar reads all of it; there are valid scripts that it does not."""
    return not _tree(text).has_error


def splices(text: str, at: int, edit: Edit) -> List[Splice]:
    """What this edit changes in the text, where the place of the edit is at this offset.

    Flags are named with or without their dashes. `set-flag` adds a flag that the command has not
    behind the word at the place. Raises HeldBack where it cannot be carried out."""
    words, index = _words(text, at)
    flag = next((it for it in [index, *range(len(words))] if _names(words[it], edit.name)), None)
    if edit.action == "set-flag":
        return _set_flag(words, flag, index, edit)
    if flag is None:
        raise HeldBack(f"there is no {_dashed(edit.name)} there")
    word = words[flag]
    name, equals, _ = word.text.partition("=")
    if edit.action == "rename-flag":
        new = _dashed(edit.text)
        if any(_names(it, new) for it in words):
            raise HeldBack(f"{new} is given there already")
        return [Splice(word.start, word.start + len(name), new)]
    if edit.action != "remove-flag":
        raise HeldBack(f"{edit.action} is no edit of a shell script")
    last = flag if equals else flag + _values(words, flag, edit.text)
    # With the white space before it, and the line continuation there.
    start = words[flag - 1].end if flag else word.start
    return [Splice(start, words[last].end, "")]


def _set_flag(words: Sequence[_Word], flag: int | None, index: int, edit: Edit) -> List[Splice]:
    if flag is None:
        end = words[index].end
        return [Splice(end, end, f" {_dashed(edit.name)} {edit.text}".rstrip())]
    word = words[flag]
    name, equals, _ = word.text.partition("=")
    if equals:
        return [Splice(word.start + len(name) + 1, word.end, edit.text)]
    following = words[flag + 1] if flag + 1 < len(words) else None
    if following is not None and not following.is_flag and edit.text:
        return [Splice(following.start, following.end, edit.text)]
    return [Splice(word.end, word.end, f" {edit.text}".rstrip())]


def _values(words: Sequence[_Word], flag: int, value: str) -> int:
    """How many words behind a flag are its values. Raises HeldBack where that is not known: the next word may
    be the program."""
    count = 0
    for word in words[flag + 1 :]:
        if word.is_flag or (count and word.text.lstrip('"').startswith("$")):  # "$@" is no second value
            break
        count += 1
    if count == 0 or (value and words[flag + 1].text.strip("'\"") == value):
        return min(count, 1)
    if not any(it.text.endswith(".py") or it.text == "-m" for it in words[:flag]):
        raise HeldBack(f"whether {words[flag + 1].text} belongs to {words[flag].text} cannot be told")
    return count


def _dashed(name: str) -> str:
    return name if name.startswith("-") else f"--{name}"


def _names(word: _Word, name: str) -> bool:
    spelled = word.text.partition("=")[0]
    return spelled.startswith("-") and _bare(spelled) == _bare(name)


def _bare(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _words(text: str, at: int) -> Tuple[List[_Word], int]:
    """The words of the command, array or quoted list of arguments at this offset, and which one is there."""
    data = text.encode("utf-8", "surrogateescape")
    byte = len(text[:at].encode("utf-8", "surrogateescape"))
    node = _tree(text).descendant_for_byte_range(byte, byte + 1)
    while node is not None:
        holder = node.parent
        if holder is not None and node.is_named and holder.type in ("command", "array"):
            if holder.has_error:
                raise HeldBack("the command cannot be parsed")
            found = [it for it in holder.named_children if it.type not in ("comment", "variable_assignment")]
            words = [_Word(*_characters(data, it.start_byte, it.end_byte), _text(it)) for it in found]
            return words, next(i for i, it in enumerate(words) if it.start <= at < it.end)
        quoted = node.type in ("string", "raw_string")
        if quoted and holder is not None and holder.type == "variable_assignment":  # ARGS="--one 1 --two 2"
            inside = _characters(data, node.start_byte + 1, node.end_byte - 1)
            tokens = re.compile(r"[^\s\\]\S*").finditer(text, *inside)
            words = [_Word(it.start(), it.end(), it[0]) for it in tokens]
            there = [i for i, it in enumerate(words) if it.start <= at < it.end]
            if there:
                return words, there[0]
        node = holder
    raise HeldBack("there is no word of a command there")


def _characters(data: bytes, start: int, end: int) -> Tuple[int, int]:
    begin = len(data[:start].decode("utf-8", "surrogateescape"))
    return begin, begin + len(data[start:end].decode("utf-8", "surrogateescape"))


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode("utf-8", "surrogateescape")


def _tree(text: str) -> tree_sitter.Node:
    import tree_sitter
    import tree_sitter_bash

    data = text.encode("utf-8", "surrogateescape")
    grammar = tree_sitter_bash.language()
    try:
        parser = tree_sitter.Parser(tree_sitter.Language(grammar))
    except TypeError:  # before tree-sitter 0.22, the last one for Python 3.8
        parser = tree_sitter.Parser()
        parser.set_language(tree_sitter.Language(grammar, "bash"))  # type: ignore[attr-defined, call-overload]
    return parser.parse(data).root_node
