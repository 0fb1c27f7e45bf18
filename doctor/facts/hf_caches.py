"""Where Hugging Face's libraries put downloads: their own expressions, read out of the installed files.

Which variable wins differs between releases: transformers 4.29 ranks HUGGINGFACE_HUB_CACHE below
TRANSFORMERS_CACHE and does not know HF_HUB_CACHE; 5.0 has none of its own. So the assignments in the
libraries' own files are evaluated here, as far as they join paths and ask variables. Nothing of theirs is
run: importing transformers.utils.hub may move a whole cache.
"""

from __future__ import annotations

import ast
import os.path
import re
from typing import Mapping, NamedTuple

from llm_doctor.host import Answer, Host, Unavailable
from llm_doctor.model import CachedModel, CacheFolder, HfCaches, Packages

SOURCE = "huggingface_hub, transformers and datasets read as text; statvfs"

# For each purpose the constants that may hold it, the one that wins first, and where they are.
_HUB = "huggingface_hub/constants.py"
_TRANSFORMERS = "transformers/utils/hub.py"
_DATASETS = "datasets/config.py"
_CONSTANTS = {
    "models": (
        (_TRANSFORMERS, "TRANSFORMERS_CACHE"),
        (_HUB, "HF_HUB_CACHE"),
        (_HUB, "HUGGINGFACE_HUB_CACHE"),
    ),
    "hub": ((_HUB, "HF_HUB_CACHE"), (_HUB, "HUGGINGFACE_HUB_CACHE")),
    "xet": ((_HUB, "HF_XET_CACHE"),),
    "datasets": ((_DATASETS, "HF_DATASETS_CACHE"),),
}


# Where users keep what is large, by the variables that say so.
_ELSEWHERE = ("HOME", "SCRATCH", "WORK", "PROJECT", "SLURM_TMPDIR")


class Value(NamedTuple):
    """A string that a library computes, the variable that decided it, if one did, and whether a `~` in it was
    resolved."""

    text: str
    decided_by: str | None = None
    expanded: bool = False


def read(host: Host, packages: Packages) -> HfCaches:
    """Every folder with its room, and what is cached. Raises Unavailable without huggingface_hub."""
    values = _values(host, packages)
    places: dict[str, Value] = {}
    for purpose, constants in _CONSTANTS.items():
        found = next((values[file][name] for file, name in constants if name in values.get(file, {})), None)
        if found is not None:
            # A ~ that the library has left in is a folder of that name.
            is_rooted = found.expanded or found.text.startswith("/")
            rooted = found.text if is_rooted else f"./{found.text}"
            places[purpose] = found._replace(text=host.absolute(rooted))
    if not places:
        raise Unavailable("huggingface_hub and transformers are not installed")
    others = [Value(value, name) for name in _ELSEWHERE for value in (host.env(name),) if value]
    known = [*places.items(), *(("elsewhere", other) for other in others)]
    disks = host.disks(sorted({place.text for _, place in known}))
    folders = tuple(_folder(purpose, place, disks.get(place.text, {})) for purpose, place in known)
    models = next((folder for folder in folders if folder.purpose == "models"), None)
    sizes = host.sizes(models.path) if models and models.exists and not models.problem else {}
    cached = [
        CachedModel(name=name.partition("--")[2].replace("--", "/"), size_bytes=size)
        for name, size in sizes.items()
        if name.startswith(("models--", "datasets--"))
    ]
    token = f"{os.path.dirname(models.path)}/token" if models and not models.problem else ""
    return HfCaches(
        folders=folders,
        cached=tuple(sorted(cached, key=lambda it: (-it.size_bytes, it.name))),
        token_path=token if token and host.exists(token) else None,
    )


def _folder(purpose: str, place: Value, disk: Answer) -> CacheFolder:
    return CacheFolder(
        purpose=purpose,  # type: ignore[arg-type]
        path=place.text,
        decided_by=place.decided_by,
        exists=bool(disk.get("exists")),
        nearest=disk.get("nearest"),
        writable=disk.get("writable"),
        free_bytes=disk.get("free_bytes"),
        inodes_free=disk.get("inodes_free"),
        problem=disk.get("error") or (None if disk.get("is_folder", True) else "it is a file, not a folder"),
    )


def _values(host: Host, packages: Packages) -> dict[str, dict[str, Value]]:
    values: dict[str, dict[str, Value]] = {}
    for file in (_HUB, _TRANSFORMERS, _DATASETS):
        package, _, inside = file.partition("/")
        init = packages.modules.get(package)
        if init is None:
            continue
        try:
            source = host.read(os.path.join(os.path.dirname(init), inside))
        except Unavailable:  # a release that had it elsewhere
            continue
        values[file] = evaluated(source, host, values.get(_HUB, {}))
    return values


def evaluated(source: str, host: Host, constants: Mapping[str, Value]) -> dict[str, Value]:
    """The strings assigned at module level that can be computed from constants and variables.

    `constants` are those of huggingface_hub.constants, which the others refer to."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    names: dict[str, Value] = {}
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            targets, expression = statement.targets, statement.value
        elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
            targets, expression = [statement.target], statement.value
        else:
            continue
        value = _value(expression, host, {**constants, **names})
        for target in targets:
            if isinstance(target, ast.Name):
                names.pop(target.id, None)
                if value is not None:
                    names[target.id] = value
    return names


def _value(node: ast.expr, host: Host, names: Mapping[str, Value]) -> Value | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return Value(node.value)
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):  # constants.HF_HOME
        return names.get(node.attr)
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        values = (_value(part, host, names) for part in node.values)
        return next((value for value in values if value is not None and value.text), None)
    if not isinstance(node, ast.Call) or node.keywords or not node.args:
        return None
    function = _dotted(node.func)
    arguments = [_value(argument, host, names) for argument in node.args]
    first = arguments[0]
    if first is None:
        return None
    if function in ("os.getenv", "os.environ.get"):
        value = host.env(first.text)
        return Value(value, first.text) if value is not None else (arguments[1:] or [None])[0]
    if function == "os.path.join" and all(arguments):
        parts = [argument for argument in arguments if argument is not None]
        decided_by = next((part.decided_by for part in parts if part.decided_by), None)
        return Value(os.path.join(*(part.text for part in parts)), decided_by, parts[0].expanded)
    if function == "os.path.expanduser":
        if not first.text.startswith("~"):
            return first
        return first._replace(text=host.absolute(first.text), expanded=True)
    if function == "os.path.expandvars":
        return first._replace(text=_expanded(first.text, host))
    return first if function in ("Path", "pathlib.Path", "str") else None


def _dotted(node: ast.expr) -> str:
    return (
        f"{_dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    )


def _expanded(text: str, host: Host) -> str:
    def value(match: re.Match[str]) -> str:
        known = host.env(match.group(1) or match.group(2))
        return match.group() if known is None else known

    return re.sub(r"\$(?:(\w+)|\{([^}]*)\})", value, text)
