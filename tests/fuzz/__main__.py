"""Reads hostile input for a while: `python -m fuzz SECONDS [TARGET...]`, from the folder tests/.

Every target gets its share of the time, new seeds each time, and ends at its first failure, which is printed
with the input at its shortest."""

from __future__ import annotations

import random
import sys
import time
import traceback
from typing import Any, Iterator, Tuple

from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz import inputs
from fuzz.targets import TARGETS, Target

BATCH = 200
SHORT, LONG = 2000, 16000
KINDS = {
    "python": "python",
    "notebook": "json",
    "json": "json",
    "yaml": "yaml",
    "shell": "shell",
    "requirements": "text",
    "lock": "toml",
    "settings": "toml",
    "log": "log",
}
"""Targets, and the words of their grammar, each of which is repeated."""


def run(target: Target, seconds: float) -> tuple[int, BaseException | None]:
    """How many inputs were read, and what the first one did that broke a promise."""
    read = 0

    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(target.inputs())
    def batch(it: Any) -> None:
        nonlocal read
        read += 1
        target.read(it)

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            seed(random.getrandbits(64))(batch)()
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return read, error
    return read, None


def main() -> None:
    """Prints a line for each target; 1 where one failed."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    chosen = [TARGETS[name] for name in sys.argv[2:] or TARGETS]
    failed = False
    for target in chosen:
        began = time.monotonic()
        read, error = run(target, seconds / len(chosen))
        print(f"{target.name:14} {read:7} inputs {time.monotonic() - began:6.1f} s", flush=True)
        if error is not None:
            failed = True
            traceback.print_exception(type(error), error, error.__traceback__)
            print("\n".join(getattr(error, "__notes__", ())), flush=True)
    for name, piece, short, long in growth() if not sys.argv[2:] else ():
        failed = True
        print(f"{name}: {piece!r} {SHORT} times {short:.2f} s, {LONG} times {long:.2f} s")
    sys.exit(failed)


def growth() -> Iterator[Tuple[str, str, float, float]]:
    """Where eight times as much of one piece takes far more than eight times as long."""
    for name, kind in KINDS.items():
        for piece in inputs.words_of(kind):
            if len(piece) > 60:
                continue
            taken = []
            for count in (SHORT, LONG):
                began = time.process_time()
                TARGETS[name].read((piece * count).encode("utf-8", "surrogatepass"))
                taken.append(time.process_time() - began)
            if taken[1] > 5.0 and taken[1] > 3 * LONG / SHORT * taken[0]:
                yield name, piece, taken[0], taken[1]
    print("growth looked at", flush=True)


if __name__ == "__main__":
    main()
