"""Sizes in words."""

from __future__ import annotations


def gb(size_bytes: float) -> str:
    """Decimal, as disks and model files are sold: `72.1 GB`, `64 MB`."""
    return _in(size_bytes, 1000, ("B", "kB", "MB", "GB", "TB", "PB"))


def gib(size_bytes: float) -> str:
    """Binary, as memory is counted: `31.7 GiB`, `256 MiB`."""
    return _in(size_bytes, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))


def _in(size: float, step: int, units: tuple[str, ...]) -> str:
    power = 0
    while abs(size) >= step and power < len(units) - 1:
        size, power = size / step, power + 1
    return f"{size:.0f} {units[power]}" if size >= 100 or size == int(size) else f"{size:.1f} {units[power]}"
