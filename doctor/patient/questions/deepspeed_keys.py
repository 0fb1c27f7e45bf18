"""Which keys the installed DeepSpeed knows, by its own DeepSpeedConfig and its configuration classes."""

import ast
import contextlib
import copy
import inspect
import io
import logging
from typing import Any, Dict, Iterator, List, Optional, Set

UNKNOWN_KEY = "llm_doctor_unknown_key"


class Watched(Dict[str, Any]):
    """A configuration that remembers which of its keys were asked for."""

    def __init__(self, items: Dict[str, Any], asked: Set[str]) -> None:
        super().__init__(items)
        self.asked = asked

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self.asked.add(str(key))
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of any dict."""
        self.asked.add(str(key))
        return super().get(key, default)

    def keys(self) -> Any:
        """Itself: `key in config.keys()` is how DeepSpeed asks."""
        return self

    def __copy__(self) -> "Watched":
        return self

    def __deepcopy__(self, memo: Any) -> "Watched":
        return self


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """`top` are the keys that are read, `refused` those that stop the engine, with DeepSpeed's own words.

    `named` are other words that its source looks up in a configuration.
    `sections` has, by dotted path, the keys of each section that is checked: `rejects` says whether an
    unknown one is an error there, `deprecated` which are old names, and of what."""
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return _answer()
    finally:
        logging.disable(logging.NOTSET)


def _answer() -> Dict[str, Any]:
    import deepspeed
    from deepspeed.runtime import config as runtime
    from deepspeed.runtime import constants

    asked: Set[str] = set()
    runtime.DeepSpeedConfig(Watched({"train_batch_size": 1}, asked))
    refused = {}
    for key in sorted(asked):
        error = _build({key: {}})
        # checkpoint refuses some of its values with the same class: an empty section is none of them.
        if type(error).__name__ == "DeepSpeedConfigError":
            refused[key] = str(error)
    sections: Dict[str, Any] = {}
    for key in sorted(asked - set(refused)):
        error = _build({key: {UNKNOWN_KEY: 0}})
        model = _model_of(error)
        if model is not None:
            sections.update(_describe(key, model, set()))
    for old in getattr(runtime, "_REMOVED_ZERO_CONFIG_KEYS", {}):
        error = _build({"zero_optimization": {old: 0}})
        if error is not None:
            refused["zero_optimization." + old] = str(error)
    # Before fp16 and bf16 had classes of their own their keys were constants, and others were ignored.
    plain = {"fp16": "FP16_", "bf16": "BFLOAT16_", "bfloat16": "BFLOAT16_"}
    for key, prefix in plain.items():
        if key in asked and key not in sections:
            keys = [
                value
                for name, value in vars(constants).items()
                if name.startswith(prefix) and isinstance(value, str) and value.isidentifier()
            ]
            if keys:
                sections[key] = {"keys": sorted(keys), "rejects": False, "deprecated": {}}
    return {
        "version": str(deepspeed.__version__),
        "top": sorted(asked),
        "named": sorted(_looked_up(deepspeed) | _looked_up(runtime)),
        "refused": refused,
        "sections": sections,
    }


def _looked_up(module: Any) -> Set[str]:
    """The keys that a module's source looks up in something called config, as `"key" in config`.

    DeepSpeed reads a few before DeepSpeedConfig does, or only where processes talk to each other."""
    found: Set[str] = set()
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return found
    for node in ast.walk(tree):
        key: Any = None
        holder: Any = None
        if isinstance(node, ast.Compare) and len(node.comparators) == 1:
            key, holder = node.left, node.comparators[0]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            key, holder = node.args[0], node.func.value if node.func.attr == "get" else None
        elif isinstance(node, ast.Subscript):
            key, holder = getattr(node.slice, "value", node.slice), node.value
        if isinstance(key, ast.Constant):
            key = key.value  # before Python 3.9 an index held its constant one level deeper
        if (
            isinstance(key, str)
            and key.isidentifier()
            and isinstance(holder, ast.Name)
            and "config" in holder.id
        ):
            found.add(key)
    return found


def _build(part: Dict[str, Any]) -> Optional[Exception]:
    """What DeepSpeed says to a configuration with this part; None when it takes it."""
    from deepspeed.runtime.config import DeepSpeedConfig

    try:
        DeepSpeedConfig(dict({"train_batch_size": 1}, **copy.deepcopy(part)))
    except Exception as error:
        return error
    return None


def _model_of(error: Any) -> Any:
    """The class that refused the unknown key; None where it was something else that was wrong."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    if type(error).__name__ != "ValidationError":
        return None
    for problem in error.errors():
        location = list(problem["loc"])
        if location and location[-1] == UNKNOWN_KEY:
            # pydantic 1 keeps the class, pydantic 2 its name.
            name = getattr(getattr(error, "model", None), "__name__", None) or error.title
            model = next((it for it in _below(DeepSpeedConfigModel) if it.__name__ == name), None)
            for step in location[:-1]:
                model = _nested(model, str(step)) if model is not None else None
            return model
    return None


def _below(model: Any) -> Iterator[Any]:
    for child in model.__subclasses__():
        yield child
        for grandchild in _below(child):
            yield grandchild


def _fields(model: Any) -> Dict[str, Any]:
    fields = getattr(model, "model_fields", None)
    return dict(fields if isinstance(fields, dict) else model.__fields__)


def _nested(model: Any, name: str) -> Any:
    """The configuration class of a field, as of offload_param; None where it holds plain values."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    field = _fields(model).get(name)
    kind = getattr(field, "annotation", None) or getattr(field, "outer_type_", None)
    waiting = [kind]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, DeepSpeedConfigModel):
            return kind
        waiting.extend(getattr(kind, "__args__", None) or ())
    return None


def _describe(path: str, model: Any, seen: Set[Any]) -> Dict[str, Any]:
    keys: List[str] = []
    deprecated, found = {}, {}
    for name, field in _fields(model).items():
        alias = getattr(field, "alias", None) or name
        keys += [name] if alias == name else [name, alias]
        extra = getattr(field, "json_schema_extra", None)
        if extra is None:
            extra = getattr(getattr(field, "field_info", None), "extra", None)
        if isinstance(extra, dict) and extra.get("deprecated"):
            deprecated[alias] = str(extra.get("new_param") or "")
        inner = _nested(model, name)
        if inner is not None and inner not in seen:
            found.update(_describe(path + "." + alias, inner, seen | {model}))
    found[path] = {"keys": sorted(keys), "rejects": True, "deprecated": deprecated}
    return found
