"""Where torch compiles extensions on first use, and the locks of their builds.

As get_default_build_root of torch/utils/cpp_extension.py and torch/_appdirs.py have it (1.12.1 and 2.13.0):
$TORCH_EXTENSIONS_DIR, else torch_extensions in $XDG_CACHE_HOME or ~/.cache.
"""

from __future__ import annotations

from llm_doctor.host import Host
from llm_doctor.model import ExtensionBuilds, ExtensionLock

SOURCE = "$TORCH_EXTENSIONS_DIR, $XDG_CACHE_HOME, ~/.cache"


def read(host: Host) -> ExtensionBuilds:
    """Raises Unavailable where the folder does not answer."""
    folder, decided_by = "~/.cache/torch_extensions", None
    for variable, below in (("XDG_CACHE_HOME", "/torch_extensions"), ("TORCH_EXTENSIONS_DIR", "")):
        value = host.env(variable)
        if value:
            folder, decided_by = value.rstrip("/") + below, variable
    folder = host.absolute(folder)
    there = host.is_folder(folder)
    nearest = _nearest(host, folder)
    return ExtensionBuilds(
        folder=folder,
        decided_by=decided_by,
        nearest=host.real(nearest),
        problem=_problem(host, nearest),
        built=_built(host, folder) if there else (),
        locks=tuple(ExtensionLock(path=path, age_s=age, held=held) for path, age, held in host.locks(folder))
        if there
        else (),
    )


def _nearest(host: Host, folder: str) -> str:
    while folder != "/" and not host.exists(folder):
        folder = folder.rpartition("/")[0] or "/"
    return folder


def _problem(host: Host, nearest: str) -> str | None:
    if host.exists(nearest) and not host.is_folder(nearest):
        return f"{nearest} is not a folder"
    return f"this user may not write in {nearest}" if host.usable(nearest) is False else None


def _built(host: Host, folder: str) -> tuple[str, ...]:
    """NAME/NAME.so, or in the default folder py311_cu121/NAME/NAME.so."""
    above = [folder, *(f"{folder}/{name}" for name in host.names(folder) if name.startswith("py"))]
    return tuple(
        sorted(
            {
                name
                for parent in above
                for name in host.names(parent)
                if host.exists(f"{parent}/{name}/{name}.so")
            }
        )
    )
