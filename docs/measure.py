"""Prints what the trials measure on this machine's devices; --write puts it into docs/measured.md.

    .venv/bin/python docs/measure.py --write
    .venv/bin/python docs/measure.py --python ~/envs/train --write

Each model of device has a column, and keeps it until it is measured again: docs/measured.json holds the
figures of all."""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, Mapping

DOCS = Path(__file__).resolve().parent
KEPT, PAGE = DOCS / "measured.json", DOCS / "measured.md"
NOT_RUN = "not run on a GPU"

Figures = Mapping[str, str]

ROWS = (
    "stack",
    "date",
    "CUDA context",
    "ZeRO buckets by the rule",
    "ZeRO buckets as allocated",
    "reduce buckets held by an engine with overlap_comm, stages 1, 2, 3",
    "bfloat16 product",
    "float16 product",
    "bfloat16 product, largest error",
    "torch.cuda.is_bf16_supported()",
    "weights of a tiny Llama in 8 bits, of its float16 bytes",
    "int8 product, largest error",
    "int8 product, time of the ordinary layer's",
    "cache: write, read",
)


def report(python: str) -> dict[str, Any]:
    """A full run with --deep."""
    argv = [sys.executable, "-m", "llm_doctor", "run", "--deep", "--budget", "300", "--format", "json"]
    done = subprocess.run([*argv, "--python", python], stdout=subprocess.PIPE, check=False)
    return dict(json.loads(done.stdout))


def columns(examined: Mapping[str, Any]) -> dict[str, Figures]:
    """The figures by device, as `NVIDIA H100 80GB HBM3` or `CPU: AMD EPYC`."""
    gpus = (examined["facts"]["gpus"]["value"] or {}).get("gpus", ())
    names = {f"cuda:{gpu['index']}": str(gpu["name"]) for gpu in gpus}
    names["cpu"] = f"CPU: {(examined['facts']['cpu']['value'] or {}).get('name', 'unknown')}"
    trials = [trial for check in examined["checks"] for trial in check["trials"]]
    found: dict[str, dict[str, str]] = {}
    for trial in trials:
        name = names.get(trial["device"])
        if name is not None:
            for row, figure in figures(trial):
                found.setdefault(name, {}).setdefault(row, figure)
    common = {
        "stack": stack(examined),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    return {name: {**common, **rows} for name, rows in found.items()}


def stack(examined: Mapping[str, Any]) -> str:
    """What was measured with."""
    installed = (examined["facts"]["packages"]["value"] or {}).get("installed", {})
    named = [
        f"{name} {installed[name]}" for name in ("torch", "bitsandbytes", "deepspeed") if name in installed
    ]
    driver = (examined["facts"]["gpus"]["value"] or {}).get("driver")
    return ", ".join([*named, *([f"driver {driver}"] if driver else [])])


def figures(trial: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rows that a trial's result fills."""
    cases = [case for case in trial["cases"] if case["broken"] and case["broken"]["measured"]]
    measured = [case["broken"]["measured"] for case in cases]
    if trial["name"] == "zero-bucket-oom" and measured:
        allocated = [it for it in measured if "allocated_bytes" in it]
        if not allocated:
            return
        largest = max(allocated, key=lambda it: int(it["bucket_bytes"]))
        yield "CUDA context", f"{largest['context_bytes'] / (1 << 20):.0f} MiB"
        yield "ZeRO buckets by the rule", f"{largest['bucket_bytes']:,} bytes"
        yield (
            "ZeRO buckets as allocated",
            f"{largest['allocated_bytes']:,} of {largest['tried_bytes']:,} bytes",
        )
    elif trial["name"] == "zero-engine-buckets" and measured:
        yield ROWS[5], ", ".join(str(it["buckets_held"]) for it in measured)
    elif trial["name"] == "bf16-unsupported" and measured:
        product, fixed = measured[0], (cases[0]["fixed"] or {"measured": {}})["measured"]
        rates = {**fixed, **product}
        for dtype in ("bfloat16", "float16"):
            if f"{dtype}_tflops_per_s" in rates:
                size = f"{product['size']} cubed"
                yield f"{dtype} product", f"{rates[f'{dtype}_tflops_per_s']} TFLOP/s ({size})"
        yield "bfloat16 product, largest error", f"{product['relative_error']:.2g}"
        says = product.get("torch_says", {})
        yield ROWS[9], str(says.get("is_bf16_supported", says.get("error", "not asked")))
    elif trial["name"] == "int8-without-device-map" and measured:
        done = next((it for it in measured if it["int8_parameters"]), measured[0])
        yield ROWS[10], f"{done['parameter_bytes'] / done['float16_bytes']:.2f}"
    elif trial["name"] == "int8-product-broken" and measured:
        yield ROWS[11], f"{measured[0]['relative_error']:.2g}"
        ordinary = (cases[0]["fixed"] or {"measured": {}})["measured"].get("seconds")
        if ordinary:
            yield ROWS[12], f"{measured[0]['seconds'] / ordinary:.1f} times"
    elif trial["name"] == "cache-dir-too-small" and measured:
        yield ROWS[13], f"{measured[0]['write_mb_per_s']:.0f}, {measured[0]['read_mb_per_s']:.0f} MB/s"


def page(kept: Mapping[str, Figures]) -> str:
    """docs/measured.md; without a GPU among the devices, a column that says so row by row."""
    devices = dict(sorted(kept.items(), key=lambda item: item[0].startswith("CPU")))
    if all(name.startswith("CPU") for name in devices):
        devices = {"NVIDIA GPU": dict.fromkeys(ROWS, NOT_RUN), **devices}
    lines = [
        "# What was measured",
        "",
        "By the doctor's own trials, with `--deep`, on each kind of device that was at hand: `make measure`.",
        "`-` is what a trial does not measure on that device, or what could not be tried there.",
        "",
        f"| | {' | '.join(devices)} |",
        f"| --- |{' --- |' * len(devices)}",
    ]
    for row in ROWS:
        cells = [figures.get(row, "-") for figures in devices.values()]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints the page, and writes it with --write."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--python", default=sys.executable, metavar="PATH", help="the patient (default: this)"
    )
    arguments.add_argument("--write", action="store_true", help="write the page and its figures")
    options = arguments.parse_args()
    before = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else {}
    kept = {**before, **columns(report(options.python))}
    print(page(kept))
    if options.write:
        KEPT.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        PAGE.write_text(page(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
