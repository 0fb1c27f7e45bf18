"""Edits of JSON and YAML that touch nothing but the span of a key or a value; no file is written anew."""

from __future__ import annotations

import json
import re
from typing import Callable, Dict, List, NamedTuple, Sequence, Tuple

from llm_doctor.fixes.draft import (
    CommaList,
    HeldBack,
    Splice,
    first_on_its_line,
    line_end,
    line_start,
    without_lines,
)
from llm_doctor.model import Edit
from llm_doctor.workload.config import read_config
from llm_doctor.workload.data import Place, Value

Span = Tuple[int, int]


class _Entry(NamedTuple):
    """An entry of a mapping or list: the spans of key (its own for an item) and value."""

    name: str
    key: Span
    value: Span
    inside: _Holder | None

    @property
    def end(self) -> int:
        return max(self.key[1], self.value[1])


class _Holder(NamedTuple):
    """A mapping or a list; `block` is YAML's notation by lines."""

    span: Span
    entries: Sequence[_Entry]
    is_list: bool
    block: bool


def parses(path: str, text: str) -> bool:
    """Whether this is valid JSON or YAML, as the path says."""
    try:
        _read(path, text)
    except HeldBack:
        return False
    return True


def splices(path: str, text: str, at: int, edit: Edit, newline: str) -> List[Splice]:
    """What this edit changes in a text, as in llm_doctor.fixes.python; the path tells JSON from YAML."""
    yaml = path.lower().endswith((".yaml", ".yml"))
    root = _read(path, text)
    if edit.action == "set-key":
        return _set_key(text, root, edit, newline, yaml)
    holder, entry = _meant(root, at, edit.name)
    if edit.action == "rename-key":
        if _only(holder, edit.text) is not None:
            raise HeldBack(f"{edit.text} is given there already")
        return [Splice(*entry.key, _yaml_text(edit.text) if yaml else _json_text(edit.text))]
    if edit.action != "remove-key":
        raise HeldBack(f"{edit.action} is no edit of a configuration")
    if not holder.block:
        return _list(text, holder, yaml).without(holder.entries.index(entry))
    if len(holder.entries) == 1:  # without it this would be null, no mapping
        return [Splice(entry.key[0], entry.end, "{}")]
    if first_on_its_line(text, entry.key[0]):
        return [without_lines(text, entry.key[0], entry.end)]
    # `- key: value`: the item of a list begins with it
    return [Splice(entry.key[0], holder.entries[1].key[0], "")]


# --- What there is ------------------------------------------------------------------------------------


def _read(path: str, text: str) -> _Holder:
    config, problems = read_config(path, text)
    if config is None:
        raise HeldBack(f"it cannot be parsed (line {problems[0].line}: {problems[0].message})")
    repeated = next((it for it in problems if it.message.startswith("the key ")), None)
    if repeated is not None:
        raise HeldBack(f"a key stands in it twice (line {repeated.line})")
    starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def span(place: Place) -> Span:
        return starts[place.line - 1] + place.column - 1, starts[place.end_line - 1] + place.end_column - 1

    root = _holder(text, config.root, span(config.root.place), span)
    if root is None and config.root.constant is None and config.format == "yaml":  # nothing, or comments
        return _Holder((len(text), len(text)), (), is_list=False, block=True)
    if root is None:
        raise HeldBack("there are no keys in it")
    return root


def _holder(text: str, value: Value, within: Span, span: Callable[[Place], Span]) -> _Holder | None:
    if isinstance(value.constant, dict):
        named: Dict[str, Value] = value.constant
    elif isinstance(value.constant, list):
        named = {str(index): item for index, item in enumerate(value.constant)}
    else:
        return None
    # Behind an anchor or a tag.
    begun = re.compile(r"(?:[&!]\S*\s+)*(.?)").match(text, within[0])
    block = begun is None or begun[1] not in ("{", "[")
    entries: List[_Entry] = []
    for name, item in named.items():
        start, end = span(item.place)
        key = span(item.key) if item.key is not None and isinstance(value.constant, dict) else (start, start)
        if not within[0] <= key[0] < within[1]:
            continue  # of a mapping that is merged into this one
        if start == end and key != (start, end):  # the parser finds no value at the next word
            colon = re.compile(r"\s*:").match(text, key[1])
            start = end = colon.end() if colon else key[1]
        alias = item.origin.startswith("*")
        inside = None if alias else _holder(text, item, (start, end), span)
        if inside is not None and inside.block:
            end = max([it.end for it in inside.entries], default=start)
        elif inside is None and text[start:end][:1] in ("|", ">"):
            end = start + len(text[start:end].rstrip())
        entries.append(_Entry(name, key, (start, end), inside))
    return _Holder(within, entries, isinstance(value.constant, list), block)


def _deepest(root: _Holder, path: str) -> Tuple[_Holder, List[str]]:
    """The last mapping on the way that is there, and the keys that are left of it: one at least."""
    keys, holder = path.split("."), root
    while len(keys) > 1:
        entry = _only(holder, keys[0])
        if entry is None or entry.inside is None:
            break
        holder, keys = entry.inside, keys[1:]
    return holder, keys


def _only(holder: _Holder, name: str) -> _Entry | None:
    return next((entry for entry in holder.entries if entry.name == name), None)


def _meant(root: _Holder, at: int, name: str) -> Tuple[_Holder, _Entry]:
    """The entry that is meant: the innermost of this path or name at this offset, else that of the path."""
    found: Tuple[_Holder, _Entry] | None = None
    holder: _Holder | None = root
    path = ""
    while holder is not None:
        around = next((it for it in holder.entries if it.key[0] <= at < it.end), None)
        path = f"{path}.{around.name}" if around else path
        if around and not holder.is_list and name in ("", around.name, path[1:]):
            found = holder, around
        holder = around.inside if around else None
    if found is None and name:
        holder, keys = _deepest(root, name)
        entry = _only(holder, keys[0]) if len(keys) == 1 and not holder.is_list else None
        found = (holder, entry) if entry else None
    if found is None:
        raise HeldBack(f"there is no key {name}".rstrip())
    return found


# --- Setting a key ------------------------------------------------------------------------------------


def _set_key(text: str, root: _Holder, edit: Edit, newline: str, yaml: bool) -> List[Splice]:
    value = _yaml_value(edit.text) if yaml else _json_value(edit.text)
    holder, keys = _deepest(root, edit.name)
    entry = _only(holder, keys[0])
    if entry is not None and len(keys) == 1:
        return _replaced(text, entry, value)
    empty = entry is not None and entry.value[0] == entry.value[1] and holder.block
    if (entry is not None and not empty) or holder.is_list:
        raise HeldBack(f"{keys[0]} is no mapping there")
    if not holder.block:
        for key in reversed(keys[1:]):
            value = f"{{{_json_text(key)}: {value}}}"
        return _list(text, holder, yaml).with_item(f"{_key(keys[0], yaml)}: {value}", newline)
    if entry is not None:  # a key that is written without a value
        lines = _lines(keys[1:], value, _column(text, entry) + "  ")
        here = line_end(text, entry.end)
        return [Splice(here, here, "".join(newline + it for it in lines))]
    if not holder.entries:
        end, added = len(text), newline.join(_lines(keys, value, ""))
        unfinished = text and not text.endswith("\n")
        return [Splice(end, end, newline + added if unfinished else added + newline)]
    here = line_end(text, max(it.end for it in holder.entries))
    if here == len(text) and _is_block_scalar(text, holder.entries[-1]):
        raise HeldBack("the text at its end has no end of line")
    lines = _lines(keys, value, _column(text, holder.entries[0]))
    return [Splice(here, here, "".join(newline + it for it in lines))]


def _is_block_scalar(text: str, entry: _Entry) -> bool:
    """Whether it ends in one: lines after a `|`."""
    while entry.inside is not None and entry.inside.entries:
        entry = entry.inside.entries[-1]
    return text[entry.value[0] : entry.value[0] + 1] in ("|", ">")


def _replaced(text: str, entry: _Entry, value: str) -> List[Splice]:
    start, end = entry.value
    if start == end and text[start - 1] != ":":
        raise HeldBack(f"{entry.name} stands there without a colon")
    if start == end:
        return [Splice(start, end, f" {value}")]
    if entry.inside is None or not entry.inside.block:
        return [Splice(start, end, value)]
    colon = text.index(":", entry.key[1]) + 1
    first = line_end(text, colon)
    rest = text[colon:first].strip()
    if rest and not rest.startswith("#"):
        raise HeldBack(f"what {entry.name} holds has a name (an anchor or a tag)")
    return [Splice(colon, colon, f" {value}"), Splice(first, end, "")]


def _column(text: str, entry: _Entry) -> str:
    return " " * (entry.key[0] - line_start(text, entry.key[0]))


def _lines(keys: Sequence[str], value: str, indent: str) -> List[str]:
    parents = [f"{indent}{'  ' * depth}{_yaml_text(key)}:" for depth, key in enumerate(keys)]
    return [*parents[:-1], f"{parents[-1]} {value}"]


def _list(text: str, holder: _Holder, yaml: bool) -> CommaList:
    items = [(entry.key[0], entry.end) for entry in holder.entries]
    comment = r"\#" if yaml else r"(?:\#|//)"
    return CommaList(text, items, holder.span[1] - 1, comment=comment, trailing_comma=yaml)


def _json_value(text: str) -> str:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise HeldBack(f"{text!r} is no JSON value") from None
    return text


def _json_text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _key(name: str, yaml: bool) -> str:
    return _yaml_text(name) if yaml else _json_text(name)


def _yaml_value(text: str) -> str:
    value = json.loads(_json_value(text))
    if isinstance(value, str):
        return _yaml_text(value)
    if isinstance(value, float):  # PyYAML takes 1e-5 for a string: it wants a dot, and a sign
        text = re.sub(r"^(-?\d+)(?=[eE])", r"\1.0", text)
        return re.sub(r"([eE])(?=\d)", r"\1+", text)
    return text


def _yaml_text(text: str) -> str:
    """A string as YAML: without quotes where nobody can take it for something else."""
    words = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", text, re.ASCII) and text.lower() not in words
    return text if plain else json.dumps(text, ensure_ascii=True)
