"""Configurations with the place of every key and value: JSON, YAML and what is asked of TOML.

Files are read token by token on an explicit stack: nothing is constructed, no tag is followed, and neither
ten thousand brackets nor aliases of aliases cost more than a sentence.
"""

from __future__ import annotations

import bisect
import contextlib
import json
import re
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Literal, Mapping, NamedTuple, Tuple

from llm_doctor.workload.data import UNKNOWN, Config, ConfigKind, Place, Problem, Value

DEPTH_LIMIT = 100
VALUE_LIMIT = 200_000
"""Values that aliases may expand to, and that a file may hold: one with more is data."""
YAML_LIMIT = 1 << 18
"""Characters; YAML is read at a quarter of a megabyte a second, and slower where it is odd."""
POSITIONS_LIMIT = 1 << 18
"""Characters of a JSON file of no kind known here, above which the places of its values are not sought."""


class Broken(Exception):
    """What is wrong with a file, and where in its text."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


def read_config(path: str, text: str) -> Tuple[Config | None, List[Problem]]:
    """The configuration in a .json, .yaml or .yml file, and what is wrong with it.

    There is none where what is wrong leaves doubt about what is meant. Never raises on any text."""
    lines = _Lines(path, text)
    form: Literal["json", "yaml"] = "yaml" if path.lower().endswith((".yaml", ".yml")) else "json"
    problems: List[Problem] = []
    try:
        _check_characters(text)
        root = _yaml(lines, problems) if form == "yaml" else _json(lines, problems)
    except Broken as error:
        line, column = lines.position(error.offset)
        problems.append(Problem(path, str(error), line, column))
        return None, problems
    kind = classify(root, form)
    if kind == "other":
        problems = []  # what only DeepSpeed's reader would mind
    return Config(path=path, kind=kind, root=root, format=form), problems


class _Lines:
    """A text and where its lines begin."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def position(self, offset: int) -> Tuple[int, int]:
        """Line and column, both from 1."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def between(self, place: Place) -> str:
        """The text there."""
        start = self._starts[place.line - 1] + place.column - 1
        return self.text[start : self._starts[place.end_line - 1] + place.end_column - 1]

    def place(self, start: int, end: int) -> Place:
        """The place of a span of the text."""
        return Place(self.path, *self.position(start), *self.position(end))


def _check_characters(text: str) -> None:
    nul = text.find("\0")
    if nul >= 0:
        wide = text.count("\0", 0, 400) > min(len(text), 400) // 4
        raise Broken("UTF-16 text, UTF-8 is expected" if wide else "binary data (a NUL byte)", nul)
    if text.startswith(("\ufffe", "\xff\xfe", "\xfe\xff", "\udcff\udcfe", "\udcfe\udcff")):
        raise Broken("UTF-16 text, UTF-8 is expected", 0)
    surrogate = re.search("[\ud800-\udfff]", text)  # how bytes that are no UTF-8 are decoded
    if surrogate:
        raise Broken("not UTF-8 text", surrogate.start())


# --- JSON -----------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|\#[^\n]*|/\*[\s\S]*?\*/)
      | (?P<mark>[{}\[\],:])
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<number>-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.]))
      | (?P<word>-?[A-Za-z_]\w*)""",
    re.VERBOSE,
)
_SPACE = re.compile(r"[ \t\r\n]*")
_WORDS = {"true": True, "false": False, "null": None, "NaN": float("nan")}
_WORDS.update({"Infinity": float("inf"), "-Infinity": float("-inf")})
_PLACEHOLDER = re.compile(r"\{\{|\{%|\$\{|<%")
_CLOSING = {"{": "}", "[": "]"}


_ONLY_HJSON = "DeepSpeed's own reader takes it, that of Trainer and accelerate does not"


class _Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


class _Open:
    """A dict or list that is not closed yet, and the key that waits for its value."""

    def __init__(self, constant: Any, start: int, key: Place | None) -> None:
        self.constant = constant
        self.start = start
        self.key = key
        self.waiting: Tuple[str, Place] | None = None

    @property
    def place_of_key(self) -> Place | None:
        """Of the key that waits."""
        return self.waiting[1] if self.waiting else None

    def put(self, value: Value) -> None:
        """Takes a value in; of a key that comes twice the last one counts."""
        if isinstance(self.constant, list):
            self.constant.append(value)
        elif self.waiting is not None:
            self.constant[self.waiting[0]] = value
            self.waiting = None


def _json(lines: _Lines, problems: List[Problem]) -> Value:
    text = lines.text
    if not text.strip("\ufeff \t\r\n"):
        raise Broken("the file is empty", 0)
    whole = lines.place(0, len(text))
    if not text.lstrip("\ufeff \t\r\n").startswith(("{", "/", "#")) or len(text) > POSITIONS_LIMIT:
        with contextlib.suppress(ValueError, RecursionError):
            plain = json.loads(text)
            if not isinstance(plain, dict) or _kind_of(set(plain), plain.get, "json") == "other":
                return Value(UNKNOWN, whole)
    try:
        return _json_document(lines, problems)
    except Broken as error:
        placeholder = _PLACEHOLDER.search(text)
        if placeholder and placeholder.start() <= error.offset + 1:
            message = f"a template with {placeholder[0]} placeholders, not JSON until they are filled in"
            raise Broken(message, placeholder.start()) from None
        raise


def _tokens(text: str, offset: int) -> Iterator[_Token]:
    while True:
        space = _SPACE.match(text, offset)
        offset = space.end() if space else offset
        if offset >= len(text):
            yield _Token("end", "", offset, offset)
            return
        found = _TOKEN.match(text, offset)
        if found is None:
            raise Broken(_unreadable(text, offset), offset)
        yield _Token(str(found.lastgroup), found[0], offset, found.end())
        offset = found.end()


def _unreadable(text: str, offset: int) -> str:
    character = text[offset]
    if character == '"':
        return "a string that is not closed on its line"
    if character == "'":
        return "a string in single quotes: JSON wants double ones"
    if character.isdigit() or character in "-+.":
        return "not a number as JSON writes it"
    return f"unexpected {character!r}"


def _json_document(lines: _Lines, problems: List[Problem]) -> Value:
    """One JSON value. Comments and trailing commas are told of, and taken: DeepSpeed reads with hjson
    (deepspeed/runtime/config.py), Trainer and accelerate with json (accelerate/utils/deepspeed.py)."""
    text = lines.text
    stack: List[_Open] = []
    root: Value | None = None
    expected = "a value"
    comma: _Token | None = None
    commented = False
    count = 0
    start = 1 if text.startswith("\ufeff") else 0
    if start:
        problems.append(_note(lines, 0, "a byte order mark: json.load refuses the file"))

    def complete(value: Value) -> str:
        nonlocal root, count
        count += 1
        if count > VALUE_LIMIT:
            raise Broken(f"more than {VALUE_LIMIT:,} values: data, not a configuration", token.start)
        if not stack:
            root = value
            return "the end of the file"
        stack[-1].put(value)
        return "',' or '}'" if isinstance(stack[-1].constant, dict) else "',' or ']'"

    for token in _tokens(text, start):
        if token.kind == "comment":
            if not commented:
                message = f"a comment: {_ONLY_HJSON}"
                problems.append(_note(lines, token.start, message))
            commented = True
            continue
        if token.kind == "end" and root is not None:
            return root
        if root is not None:
            if root.place.line == root.place.end_line < lines.position(token.start)[0]:
                return Value(UNKNOWN, root.place)  # JSON Lines: data, whatever it is
            raise Broken("more after the end of the JSON value", token.start)
        opened = stack[-1] if stack else None
        if opened and token.text == _CLOSING[text[opened.start]] and _may_close(expected, opened, comma):
            if comma:
                problems.append(_note(lines, comma.start, f"a comma before {token.text!r}: {_ONLY_HJSON}"))
            comma = None
            stack.pop()
            expected = complete(Value(opened.constant, lines.place(opened.start, token.end), opened.key))
        elif opened and expected == "a key in quotes" and token.kind == "string":
            name = _string(token)
            before = opened.constant.get(name)
            if before is not None:
                message = (
                    f"the key {name!r} stands here and on line {before.key.line}: the last one counts,"
                    " and DeepSpeed's own reader refuses the file"
                )
                problems.append(_note(lines, token.start, message))
            opened.waiting = name, lines.place(token.start, token.end)
            expected, comma = "':'", None
        elif opened and expected == "':'" and token.text == ":":
            expected = "a value"
        elif opened and expected.startswith("','") and token.text == ",":
            expected = "a key in quotes" if isinstance(opened.constant, dict) else "a value"
            comma = token
        elif expected == "a value" and token.text in ("{", "["):
            if len(stack) >= DEPTH_LIMIT:
                raise Broken(f"nested deeper than {DEPTH_LIMIT} levels", token.start)
            new: Any = {} if token.text == "{" else []
            stack.append(_Open(new, token.start, opened.place_of_key if opened else None))
            expected = "a key in quotes" if token.text == "{" else "a value"
            comma = None
        elif expected == "a value" and token.kind in ("string", "number", "word"):
            key = opened.place_of_key if opened else None
            expected = complete(Value(_scalar(token), lines.place(token.start, token.end), key))
            comma = None
        else:
            told = "the file ends" if token.kind == "end" else repr(token.text[:30])
            raise Broken(f"{told} where {expected} is expected", token.start)
    raise AssertionError("the last token is the end")


def _may_close(expected: str, opened: _Open, comma: _Token | None) -> bool:
    return expected.startswith("','") or comma is not None or (not opened.constant and not opened.waiting)


def _note(lines: _Lines, offset: int, message: str) -> Problem:
    return Problem(lines.path, message, *lines.position(offset))


def _string(token: _Token) -> str:
    inside = token.text[1:-1]
    if "\\" not in inside:
        return inside
    try:
        return str(json.loads(token.text))
    except ValueError:
        raise Broken("an escape that JSON does not know", token.start) from None


def _scalar(token: _Token) -> Any:
    if token.kind == "string":
        return _string(token)
    if token.kind == "word":
        if token.text not in _WORDS:
            message = f"{token.text[:40]} where a value is expected: quotes are missing, or it is a template"
            raise Broken(message, token.start)
        return _WORDS[token.text]
    return _number(token.text)


def _number(text: str) -> Any:
    try:
        return float(text) if re.search("[.eE]", text) else int(text)
    except ValueError:  # Python refuses to convert thousands of digits
        return UNKNOWN


# --- YAML -----------------------------------------------------------------------------------------

# As PyYAML's safe_load resolves plain scalars (yaml/resolver.py, YAML 1.1), but for numbers like 2e-5: to it
# they are strings, which every trainer behind it turns into numbers.
_YAML_INT = re.compile(r"[-+]?(?:0|[1-9][0-9_]*)$")
_YAML_BASED = re.compile(r"[-+]?0(?:x[0-9a-fA-F_]+|b[01_]+|[0-7_]+)$")
_YAML_FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$")
_YAML_WORDS: Dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
for _words, _meaning in (("yes true on", True), ("no false off", False)):
    for _word in _words.split():
        _YAML_WORDS.update({_word: _meaning, _word.title(): _meaning, _word.upper(): _meaning})


def _yaml(lines: _Lines, problems: List[Problem]) -> Value:
    """The first document, made of the parser's events; an alias is the value that it names."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    if len(lines.text) > YAML_LIMIT:
        raise Broken(f"more than {YAML_LIMIT:,} characters of YAML: data, not a configuration", 0)
    try:
        return _yaml_document(lines, YAML(typ="safe", pure=True).parse(lines.text), problems)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        offset = mark.index if mark is not None else 0
        placeholder = _PLACEHOLDER.search(lines.text)
        if placeholder:
            message = f"a template with {placeholder[0]} placeholders, not YAML until they are filled in"
            raise Broken(message, placeholder.start()) from None
        raise Broken(f"not YAML: {error.problem or error.context}", offset) from None
    except YAMLError as error:
        raise Broken(f"not YAML: {str(error).partition(chr(10))[0]}", 0) from None
    except (
        RecursionError,
        ValueError,
        AttributeError,
        TypeError,
        IndexError,
    ) as error:  # the parser's own faults
        raise Broken(f"not YAML that can be read ({type(error).__name__})", 0) from None


def _yaml_document(lines: _Lines, events: Any, problems: List[Problem]) -> Value:
    from ruamel.yaml import events as ev

    stack: List[_Open] = []
    names: List[str | None] = []
    anchors: Dict[str, Tuple[Value, int]] = {}
    sizes: List[int] = []
    root = Value(None, lines.place(0, 0))

    def put(value: Value, size: int) -> None:
        nonlocal root
        if not stack:
            root = value
            return
        sizes[-1] += size
        if sizes[-1] > VALUE_LIMIT:
            offset = event.start_mark.index
            raise Broken(f"more than {VALUE_LIMIT:,} values, those of aliases included", offset)
        opened = stack[-1]
        if isinstance(opened.constant, dict) and opened.waiting is None:
            _yaml_key(lines, opened, value, problems)
        elif opened.waiting is not None and opened.waiting[0] == "<<":
            _merge(opened, value)
        else:
            opened.put(value)

    for event in events:
        key = stack[-1].place_of_key if stack else None
        if isinstance(event, (ev.MappingStartEvent, ev.SequenceStartEvent)):
            if len(stack) >= DEPTH_LIMIT:
                raise Broken(f"nested deeper than {DEPTH_LIMIT} levels", event.start_mark.index)
            new: Any = {} if isinstance(event, ev.MappingStartEvent) else []
            stack.append(_Open(new, event.start_mark.index, key))
            names.append(event.anchor)
            sizes.append(1)
        elif isinstance(event, (ev.MappingEndEvent, ev.SequenceEndEvent)):
            closed, name, size = stack.pop(), names.pop(), sizes.pop()
            place = lines.place(closed.start, max(closed.start, event.end_mark.index))
            value = Value(closed.constant, place, closed.key)
            if name:
                anchors[name] = value, size
            put(value, size)
        elif isinstance(event, ev.ScalarEvent):
            place = lines.place(event.start_mark.index, event.end_mark.index)
            value = Value(_yaml_scalar(event), place, key)
            if event.anchor:
                anchors[event.anchor] = value, 1
            put(value, 1)
        elif isinstance(event, ev.AliasEvent):
            place = lines.place(event.start_mark.index, event.end_mark.index)
            if event.anchor not in anchors:
                raise Broken(
                    f"not YAML: no anchor {event.anchor!r} before this alias", event.start_mark.index
                )
            named, size = anchors[event.anchor]
            put(Value(named.constant, place, key, f"*{event.anchor} on line {place.line}"), size)
        elif isinstance(event, ev.DocumentEndEvent):
            break
    return root


def _yaml_key(lines: _Lines, opened: _Open, key: Value, problems: List[Problem]) -> None:
    if isinstance(key.constant, (dict, list)) or key.constant is UNKNOWN:
        name = f"? on line {key.place.line}, column {key.place.column}"  # no name that anybody asks for
    else:
        # Keys that YAML takes for something else, as `on` or 1, stay as they are written.
        name = key.constant if isinstance(key.constant, str) else lines.between(key.place).strip()
    before = opened.constant.get(name)
    if before is not None and before.key is not None and name != "<<":
        message = f"the key {name!r} stands here and on line {before.key.line}: the last one counts"
        problems.append(Problem(lines.path, message, key.place.line, key.place.column))
    opened.waiting = name, key.place


def _merge(opened: _Open, value: Value) -> None:
    """`<<`: what is not said here."""
    opened.waiting = None
    for source in value.constant if isinstance(value.constant, list) else [value]:
        for name, inherited in source.items():
            opened.constant.setdefault(name, inherited)


def _yaml_scalar(event: Any) -> Any:
    tag = str(event.tag) if event.tag is not None else ""
    if tag and tag not in ("!", "tag:yaml.org,2002:str"):
        return UNKNOWN
    text = str(event.value)
    if tag or not event.implicit[0]:
        return text
    if text in _YAML_WORDS:
        return _YAML_WORDS[text]
    if _YAML_INT.match(text) or _YAML_FLOAT.match(text):
        return _number(text.replace("_", ""))
    if _YAML_BASED.match(text):
        return UNKNOWN
    return text


# --- Kinds ----------------------------------------------------------------------------------------


def _set(names: str) -> FrozenSet[str]:
    return frozenset(names.split())


# Sections that DeepSpeedConfig reads, by a key that they hold (deepspeed/runtime/constants.py).
_DEEPSPEED_SECTIONS = {
    "fp16": "enabled",
    "bf16": "enabled",
    "bfloat16": "enabled",
    "optimizer": "type",
    "scheduler": "type",
}
_DEEPSPEED_KEYS = _set(
    "train_batch_size gradient_accumulation_steps gradient_clipping steps_per_print wall_clock_breakdown"
    " zero_allow_untested_optimizer zero_force_ds_cpu_optimizer prescale_gradients dump_state"
    " activation_checkpointing flops_profiler autotuning tensorboard wandb csv_monitor comms_logger aio"
    " elasticity communication_data_type data_efficiency compression_training quantize_training"
    " hybrid_engine"
)
_MODEL_KEYS = _set(
    "model_type architectures hidden_size num_layers num-layers hidden-size vocab_size tokenizer_class"
    " log_history per_device_train_batch_size model_name_or_path"
)
_AXOLOTL_KEYS = _set(
    "datasets sequence_len micro_batch_size adapter pretraining_dataset lora_r sample_packing"
)
_LLAMAFACTORY_KEYS = _set("finetuning_type template infer_backend dataset_dir export_dir cutoff_len")
_TRAINING_KEYS = _set(
    "per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size num_train_epochs"
    " gradient_accumulation_steps learning_rate output_dir max_steps save_steps logging_steps warmup_ratio"
    " warmup_steps lr_scheduler_type gradient_checkpointing report_to save_strategy eval_strategy"
    " evaluation_strategy save_total_limit do_train model_name_or_path bf16 fp16 seed"
)
_TELLTALE_TRAINING_KEYS = _set(
    "per_device_train_batch_size per_device_eval_batch_size per_gpu_train_batch_size num_train_epochs"
    " lr_scheduler_type save_total_limit evaluation_strategy eval_strategy logging_steps"
)


def classify(root: Value, form: str) -> ConfigKind:
    """What a configuration is for, told by its keys. What is not certain is `other`."""
    if not isinstance(root.constant, dict):
        return "other"
    values: Mapping[str, Value] = root.constant

    def plain(name: str) -> Any:
        value = values.get(name)
        return dict(value.items()) if value is not None and isinstance(value.constant, dict) else value

    return _kind_of(set(values), plain, form)


def _kind_of(keys: set[str], value: Callable[[str], Any], form: str) -> ConfigKind:
    if form == "json" and _is_deepspeed(keys, value):
        return "deepspeed"
    if form == "yaml" and keys & {"dependencies"} and keys & {"channels", "prefix"}:
        return "requirements"  # a conda environment
    if form == "json" and {"_meta", "default", "develop"} <= keys:
        return "requirements"  # Pipfile.lock
    if keys & {"compute_environment", "distributed_type"} and len(keys) > 1:
        return "accelerate"
    if "base_model" in keys and keys & _AXOLOTL_KEYS:
        return "axolotl"
    if "model_name_or_path" in keys and (keys & _LLAMAFACTORY_KEYS) and keys & {"stage", "template"}:
        return "llamafactory"
    if keys & _TELLTALE_TRAINING_KEYS and len(keys & _TRAINING_KEYS) > 1 and "log_history" not in keys:
        return "training"
    return "other"


def _is_deepspeed(keys: set[str], value: Callable[[str], Any]) -> bool:
    if isinstance(value("zero_optimization"), dict):
        return not keys & {"model_type", "architectures"}
    if keys & _MODEL_KEYS:
        return False
    sections = {name for name, held in _DEEPSPEED_SECTIONS.items() if held in (value(name) or ())}
    if "train_micro_batch_size_per_gpu" in keys:
        return bool(sections or keys & _DEEPSPEED_KEYS) or len(keys) == 1
    return bool(sections) and len(sections) + len(keys & _DEEPSPEED_KEYS) > 1
