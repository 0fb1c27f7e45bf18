"""The model that --model names: the size of its weights, from a local folder or the local cache alone."""

from __future__ import annotations

import re

from llm_doctor.host import Host, Unavailable
from llm_doctor.model import HfCaches, Model

SOURCE = "the folder that --model names, or the cache's own files"

# What from_pretrained takes, the first kind that is there: both kinds in one repository are the same weights.
_WEIGHTS = (
    (re.compile(r"model(-\d+-of-(\d+))?\.safetensors"), "model.safetensors.index.json"),
    (re.compile(r"pytorch_model(-\d+-of-(\d+))?\.bin"), "pytorch_model.bin.index.json"),
    (re.compile(r".*()()\.(safetensors|bin|gguf|pth?|ckpt|h5|msgpack)"), ""),
)


def read(host: Host, name: str | None, caches: HfCaches | None) -> Model:
    """Its size in bytes. Raises Unavailable where that cannot be known without the network."""
    if name is None:
        raise Unavailable("no --model was given")
    folder = host.absolute(name)
    if name and host.is_folder(folder):
        size, _ = _weights(host, folder)
        if not size:
            raise Unavailable(f"there are no weights in the folder {name}")
        return Model(name=name, found_in=folder, weight_bytes=size)
    name = name.rstrip("/")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise Unavailable(f"there is no folder {name}")
    cache = caches.models if caches else None
    if cache is None:
        raise Unavailable("it is not known where models are cached")
    repository = f"{cache.path}/models--{name.replace('/', '--')}"
    for snapshot in _snapshots(host, repository):
        size, present = _weights(host, snapshot)
        if size:
            return Model(name=name, found_in=snapshot, weight_bytes=size, cached_bytes=min(present, size))
    raise Unavailable(
        f"the size of {name} is not known: the cache has no index of its weights, and the doctor"
        " makes no connections"
    )


def _snapshots(host: Host, repository: str) -> list[str]:
    """The one that `main` is first."""
    try:
        main = host.read(f"{repository}/refs/main").strip()
    except Unavailable:
        main = ""
    revisions = host.names(f"{repository}/snapshots")
    return [f"{repository}/snapshots/{it}" for it in sorted(revisions, key=lambda it: it != main)]


def _weights(host: Host, folder: str) -> tuple[int, int]:
    """Bytes of all weights by their index, and of those that are there. 0 where neither is known."""
    sizes = host.file_sizes(folder)
    for pattern, index in _WEIGHTS:
        shards = {name: match for name in sizes for match in (pattern.fullmatch(name),) if match}
        present = sum(sizes[name] for name in shards)
        total = _total(host, f"{folder}/{index}") if index in sizes else 0
        if not total and shards:  # of shards without an index the names tell how many there are
            number = max(int(match.group(2) or 0) for match in shards.values())
            total = present * max(number, len(shards)) // len(shards)
        if total:
            return total, min(present, total)
    return 0, 0


def _total(host: Host, index: str) -> int:
    """Bytes by an index, 0 where it does not tell. The number stands first: a large one is not read whole."""
    try:
        found = re.search(r'"total_size"\s*:\s*([\d.]+(?:[eE]\+?\d+)?)', host.read(index))
    except Unavailable:
        return 0
    return int(float(found.group(1))) if found else 0
