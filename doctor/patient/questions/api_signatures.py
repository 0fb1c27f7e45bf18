"""What the installed libraries take, asked of themselves: names, and keywords of classes and functions."""

import difflib
import importlib
import inspect
import re
import sys
import warnings
from typing import Any, Dict, List, Optional

_PROBE = "llm_doctor_asks"


def answer(settings: Dict[str, Any]) -> Dict[str, Any]:
    """For each qualified name in `wanted`: whether it is `gone`; of each keyword whether it is `taken` (None
    where only a call could tell), what is `deprecated` in the library's own words, and the `nearest` name.

    What cannot be asked, because an import of its own fails, is left out."""
    interfaces = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, keywords in settings["wanted"].items():
            try:
                interfaces[name] = _interface(name, keywords)
            except BaseException:  # a library that exits while it is imported too: one name's answer is lost
                continue
    return {"interfaces": interfaces}


class Gone(Exception):
    """There is no such name; what it was looked for in was imported without an error."""


def _interface(name: str, keywords: List[str]) -> Dict[str, Any]:
    try:
        thing = _find(name)
    except Gone:
        return {"gone": True}
    told = {"gone": False, "taken": {}, "deprecated": {}, "nearest": {}}  # type: Dict[str, Any]
    own = _words(_source(thing), name.rpartition(".")[2]) if inspect.isroutine(thing) else None
    if own:
        told["deprecated"][""] = own
    for keyword in keywords:
        taken = _takes(thing, keyword, told)
        told["taken"][keyword] = taken
        if taken is not False:
            words = _deprecated(thing, keyword)
            if words:
                told["deprecated"].setdefault(keyword, words)
    return told


def _find(name: str) -> Any:
    parts = name.split(".")
    thing = importlib.import_module(parts[0])  # type: Any
    for depth, part in enumerate(parts[1:], 2):
        try:
            thing = getattr(thing, part)
            continue
        except AttributeError:
            if not inspect.ismodule(thing):
                raise Gone from None
        module = ".".join(parts[:depth])
        try:
            thing = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name == module:
                raise Gone from None
            raise
    return thing


def _takes(thing: Any, keyword: str, told: Dict[str, Any]) -> Optional[bool]:
    parameters = inspect.signature(thing).parameters
    if keyword in parameters:
        return parameters[keyword].kind != inspect.Parameter.POSITIONAL_ONLY
    if any(it.kind == inspect.Parameter.VAR_KEYWORD for it in parameters.values()):
        return None
    function = thing.__init__ if inspect.isclass(thing) else thing
    if hasattr(function, "__wrapped__"):
        # A decorator may take what the signature does not name, as transformers.utils.deprecation does.
        if _closed(function):
            return _wrapper_takes(thing, function, keyword, told)
        return None
    near = difflib.get_close_matches(keyword, list(parameters), 1, 0.85)
    if near:
        told["nearest"][keyword] = near[0]
    return False


def _closed(function: Any) -> bool:
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and not code.co_flags & inspect.CO_VARKEYWORDS


def _wrapper_takes(thing: Any, function: Any, keyword: str, told: Dict[str, Any]) -> Optional[bool]:
    # Two keywords are passed, and nobody takes the second: the body never runs, and the error names the
    # first one that is not taken.
    arguments = [object.__new__(thing)] if inspect.isclass(thing) else []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            function(*arguments, **{keyword: None, _PROBE: None})
    except TypeError as error:
        named = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if named is None:
            return None
        for warning in caught:
            if keyword in str(warning.message):
                told["deprecated"][keyword] = _line(str(warning.message))
        return named[1] == _PROBE
    except Exception:
        return None
    return None


def _deprecated(thing: Any, keyword: str) -> Optional[str]:
    field = getattr(thing, "__dataclass_fields__", {}).get(keyword) if inspect.isclass(thing) else None
    help_text = str(field.metadata.get("help", "")) if field is not None else ""
    if re.search(r"^deprecated\b|(argument|is|been) deprecated\b", help_text, re.IGNORECASE):
        return _line(help_text)
    return _words(_source(thing), keyword)


def _source(thing: Any) -> str:
    thing = inspect.unwrap(thing)
    places = [thing]  # type: List[Any]
    if getattr(thing, "__name__", "") == "from_pretrained":
        # It hands its keywords on, within its file and to the models' base class.
        files = (thing.__module__, "transformers.modeling_utils")
        places = [sys.modules[name] for name in files if name in sys.modules]
    text = ""
    for place in places:
        try:
            text += inspect.getsource(place)
        except (OSError, TypeError):  # no source was installed
            continue
    return text


def _words(source: str, name: str) -> Optional[str]:
    # At the beginning of a message: "passing `x` to `name` is deprecated" is said of something else.
    pattern = r"[\"'](?:The )?`?%s`? (?:is|has been|argument is|was) deprecated[^\"\n]*" % re.escape(name)
    found = re.search(pattern, source)
    return _line(found.group().strip("\"'")) if found else None


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()[:200]
