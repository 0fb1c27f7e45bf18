"""Times `llm-doctor triage` on a log of a gigabyte and on a hundred small ones.

.venv/bin/python docs/logs.py [MEGABYTES]
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Iterator

WANTED_MB_PER_S = 50
WANTED_MIB = 200
DOCTOR = [sys.executable, "-m", "llm_doctor", "triage", "--format", "json"]
FAILURE = (
    "[rank3]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.50 GiB. "
    "GPU 3 has a total capacity of 79.35 GiB of which 415.19 MiB is free.\n"
)
WORDS = """
    the model answers a question about memory and errors in training it was not able to load every file that
    was failing on some device but the expected value of each tensor is right and no warning is worth a line
""".split()


def training(chance: random.Random) -> Iterator[str]:
    """What a training of many days says: steps, progress bars, generated text, warnings, log lines."""
    for step in itertools.count(1):
        loss, rate = chance.random(), chance.random() * 1e-5
        norm = loss * 3
        yield f"{{'loss': {loss:.4f}, 'grad_norm': {norm:.4f}, 'learning_rate': {rate:.3e}}}\n"
        if step % 3 == 0:
            bar = "█" * (step % 10)
            yield f"\r {step % 100}%|{bar:<10}| {step}/272400 [13:58:09<86:18:35, {loss * 90:.2f}s/it]"
        if step % 5 == 0:
            yield f"[2023-06-07 22:16:{step % 60:02},018] [INFO] [logging.py:96:log_dist] step={step}\n"
        if step % 7 == 0:
            yield " ".join(chance.choices(WORDS, k=24)) + "\n"
        if step % 50 == 0:
            yield "[rank1]:W0321 02:07:08.408 torch/utils/checkpoint.py:61] UserWarning: it does no harm\n"


def write(path: Path, size: int) -> None:
    """A log of at least this many bytes whose failure is at its end."""
    chance = random.Random(7)
    block: list[str] = []
    length = 0
    for text in training(chance):
        block.append(text)
        length += len(text)
        if length > 32 << 20:
            break
    data = "".join(block).encode()
    lines = data.split(b"\n")
    with path.open("wb") as file:
        while file.tell() < size:
            chance.shuffle(lines)  # other lines are neighbours, so that no block comes twice
            file.write(b"\n".join(lines))
        file.write(b"\n" + FAILURE.encode())


def measure(arguments: list[str]) -> tuple[float, float, str]:
    """Seconds and MiB of one call, and what it said."""
    began = time.perf_counter()
    process = subprocess.Popen([*DOCTOR, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read().decode()
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - began, usage.ru_maxrss / 1024, said


def main() -> None:
    """Prints both figures."""
    megabytes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "train.log")
        # In a process of its own: what this one holds would be counted as its children's.
        subprocess.run(
            [sys.executable, __file__, "--write", str(log), str(megabytes * 1_000_000)], check=True
        )
        size = log.stat().st_size / 1e6
        seconds, mebibytes, said = measure([str(log)])
        assert '"gpu-out-of-memory"' in said, said
        speed = size / seconds
        print(f"{size:.0f} MB: {seconds:.1f} s, {speed:.0f} MB/s (wanted: {WANTED_MB_PER_S}), ", end="")
        print(f"{mebibytes:.0f} MiB (at most {WANTED_MIB})")
        small = []
        chance = random.Random(8)
        for number in range(100):
            path = Path(folder, f"{number}.log")
            lines = [text for text, _ in zip(training(chance), range(40))]
            path.write_text("".join(lines) + FAILURE)
            small.append(str(path))
        seconds, mebibytes, said = measure(small)
        assert said.count('"gpu-out-of-memory"') == 100, said
        print(f"100 logs: {seconds:.2f} s (wanted: 1), {mebibytes:.0f} MiB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
