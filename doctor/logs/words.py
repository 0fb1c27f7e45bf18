"""The words by which symptoms are looked for before their patterns are tried: one in every text of each."""

from __future__ import annotations

import re
from typing import Dict, FrozenSet, Generic, Iterable, Iterator, List, NamedTuple, Tuple, TypeVar

T = TypeVar("T")

_REPEAT = re.compile(r"(?:[?*+]|\{\d*(?:,\d*)?\})[?+]?")
SHORTEST = 4
"""Letters. A shorter word is in too many lines."""
_LETTERS = re.compile("[A-Za-z]+")
APART = bytes(it if chr(it).isalpha() and it < 128 else ord(" ") for it in range(256))
"""Takes the words of a text apart, for bytes.translate."""
_EVERYWHERE = frozenset(
    """
    able about access after again all allocate already also another any argument attempt available batch
    been before being bytes cache cannot call called check checkpoint class command compile compiled
    config configuration connect connection could create cuda CUDA currently data dataset dataloader
    default device devices dimension directory disk does done dtype enabled epoch error Error errors
    exception Exception exit expected fail failed failing failure file files float following found from
    function given gradient grad have import INFO initialize input install installed instead kernel key
    launch layer length library line load loaded loading local logging loss machine main make match
    memory message method minimum missing mode model models module modules more must name node None
    number only open optimizer option options other output package parameter parameters path please
    Please port process processes python Python rank read remote required requires RuntimeError running
    runtime same save script server set should shape size some state step steps support supported system
    tensor tensors than that their then there this time timeout tokenizer torch train training
    transformers trying type unable unexpected used user using value ValueError values variable version
    wait warning was weight weights were when which while will with without word worker world would
    write your answer question going right last first still until they into each such
    """.split()
)
"""Words that stand in healthy logs: many lines would be looked at for them."""


class Word(NamedTuple):
    """Characters that stand together in every text of a pattern; `token` are letters of it with none beside
    them, empty where it cannot be said that there is none."""

    text: str
    token: str


Option = FrozenSet[Word]
"""Words of which one has to be in a text."""


class Indexed(NamedTuple, Generic[T]):
    """A symptom under one of its words; of each of `others` one is in every text of it as well."""

    symptom: T
    others: Tuple[Tuple[bytes, ...], ...]


class Index(NamedTuple, Generic[T]):
    """Symptoms by a word that is in every text of theirs."""

    tokens: Dict[bytes, List[Indexed[T]]]
    """By letters that stand alone."""
    parts: Dict[bytes, List[Indexed[T]]]
    """By characters that have to be looked for within words: those of the few that have no such letters."""


def index(symptoms: Iterable[Tuple[str, T]]) -> Index[T]:
    """The index of symptoms that are given with their patterns. One without any such word is not in it."""
    found: Index[T] = Index({}, {})
    for pattern, symptom in symptoms:
        options = needed(pattern)
        chosen = max((it for it in options if all(word.token for word in it)), key=_worth, default=None)
        by_token = chosen is not None
        if chosen is None:
            chosen = max(options, key=lambda it: min(len(word.text) for word in it), default=frozenset())
        others = {tuple(word.text.encode() for word in option) for option in options if option != chosen}
        rarest_first = sorted(others, key=lambda it: min(map(len, it)), reverse=True)
        for key in {(word.token if by_token else word.text).encode() for word in chosen}:
            table = found.tokens if by_token else found.parts
            table.setdefault(key, []).append(Indexed(symptom, tuple(rarest_first)))
    return found


def _worth(option: Option) -> Tuple[bool, int, int]:
    """Few words, none of them everywhere, and long ones."""
    rare = not any(word.token in _EVERYWHERE for word in option)
    return rare, -len(option), min(len(word.token) for word in option)


def needed(pattern: str, alone: bool = True) -> List[Option]:
    """What has to be in every text of a pattern (of check.Symptom's kind). `alone` says whether no letter
    stands before and after it."""
    alternatives = list(_alternatives(pattern))
    if len(alternatives) > 1:
        each = [_best(part, alone) for part in alternatives]
        return [frozenset().union(*each)] if all(each) else []
    words, groups = _sequence(alternatives[0], alone)
    options = [frozenset((word,)) for word in words]
    for group in groups:
        options += needed(group, False)
    return options


def _best(pattern: str, alone: bool) -> Option:
    return max(
        needed(pattern, alone),
        key=lambda option: (all(word.token for word in option), _worth(option)),
        default=frozenset(),
    )


def _sequence(pattern: str, alone: bool) -> Tuple[List[Word], List[str]]:
    """The words that stand in a pattern without alternatives, and the groups that have to match."""
    words: List[Word] = []
    groups: List[str] = []
    run, before = "", alone
    at = 0

    def end(after: bool) -> None:
        nonlocal run, before
        if len(run.strip()) >= 2:
            words.append(Word(run, _token(run, before, after)))
        run, before = "", after

    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            literal = not pattern[at + 1].isalnum()
            following, text = at + (4 if pattern[at + 1] == "x" else 2), pattern[at + 1]
        elif character == "[":
            literal, following, text = False, _end_of_class(pattern, at), ""
        elif character == "(":
            literal, following, text = False, _end_of_group(pattern, at), ""
            if not pattern.startswith(("(?=", "(?!", "(?<=", "(?<!"), at):
                text = _inside(pattern[at:following])
        else:
            literal, following, text = character not in ".^$ `", at + 1, character
        repeat = _REPEAT.match(pattern, following)
        if literal and repeat is None:
            run += text
        else:
            end(repeat is None and (character in "^$ `" or (character == "\\" and text in "bsd")))
            if character == "(" and text and not (repeat and repeat[0].startswith(("?", "*", "{0", "{,"))):
                groups.append(text)
        at = repeat.end() if repeat else following
    end(alone)
    return words, groups


def _token(run: str, before: bool, after: bool) -> str:
    """The best letters of a run that no letter is beside."""
    found = [
        it[0]
        for it in _LETTERS.finditer(run)
        if (before or it.start() > 0) and (after or it.end() < len(run)) and len(it[0]) >= SHORTEST
    ]
    return max(found, key=lambda token: (token not in _EVERYWHERE, len(token)), default="")


def _alternatives(pattern: str) -> Iterator[str]:
    """The parts of a pattern between its outermost bars."""
    begin = at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\\":
            at += 2
        elif character == "[":
            at = _end_of_class(pattern, at)
        elif character == "(":
            at = _end_of_group(pattern, at)
        else:
            if character == "|":
                yield pattern[begin:at]
                begin = at + 1
            at += 1
    yield pattern[begin:]


def _inside(group: str) -> str:
    """What stands in a group, without `?:` or its name."""
    inner = group[1:-1]
    if inner.startswith("?P<"):
        return inner.partition(">")[2]
    return inner[2:] if inner.startswith("?:") else inner


def _end_of_class(pattern: str, at: int) -> int:
    at += 2 if pattern.startswith("^", at + 1) else 1
    at += 1 if pattern.startswith("]", at) else 0
    while pattern[at] != "]":
        at += 2 if pattern[at] == "\\" else 1
    return at + 1


def _end_of_group(pattern: str, at: int) -> int:
    at += 1
    while pattern[at] != ")":
        if pattern[at] == "(":
            at = _end_of_group(pattern, at)
        elif pattern[at] == "[":
            at = _end_of_class(pattern, at)
        else:
            at += 2 if pattern[at] == "\\" else 1
    return at + 1
