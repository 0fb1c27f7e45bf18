"""The charts of docs/: SVG whose text is text, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Sequence, Tuple

CHARTS = Path(__file__).resolve().parent / "charts"
_OURS, _OTHERS = "#2a6fb0", "#9aa5b1"


def line(name: str, title: str, counted: str, points: Sequence[Tuple[int, float]]) -> None:
    """Seconds by the number of something, on a logarithmic axis where the numbers grow by tens."""
    figure, axes = _empty(6, 3.2)
    numbers, seconds = zip(*points)
    axes.plot(numbers, seconds, marker="o", color=_OURS)
    for number, second in points:
        axes.annotate(f"{second:.2f} s", (number, second), textcoords="offset points", xytext=(0, 7))
    if numbers[-1] > 100:
        axes.set_xscale("symlog", linthresh=10)
    axes.set_xticks(numbers, [f"{it:,}" for it in numbers])
    axes.minorticks_off()
    axes.set_ylim(0, max(seconds) * 1.25)
    axes.set(title=title, xlabel=counted, ylabel="seconds")
    _keep(figure, name)


def bars(name: str, title: str, unit: str, rows: Sequence[Tuple[str, float, bool]]) -> None:
    """A bar for each of several things, the least on top; the last field says which are ours."""
    figure, axes = _empty(7, 0.8 + 0.32 * len(rows))
    rows = sorted(rows, key=lambda row: -row[1])
    drawn = axes.barh(
        [row[0] for row in rows],
        [row[1] for row in rows],
        color=[_OURS if row[2] else _OTHERS for row in rows],
    )
    axes.bar_label(drawn, fmt="%.2f" if rows[0][1] < 100 else "%.0f", padding=3)
    axes.set_xlim(0, rows[0][1] * 1.12)
    axes.set(title=title, xlabel=unit)
    _keep(figure, name)


def _empty(width: float, height: float) -> Tuple[Any, Any]:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "llm-doctor", "font.size": 10})
    import matplotlib.pyplot as plot

    figure, axes = plot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _keep(figure: Any, name: str) -> None:
    import matplotlib.pyplot as plot

    CHARTS.mkdir(exist_ok=True)
    figure.savefig(CHARTS / f"{name}.svg", metadata={"Date": None})
    plot.close(figure)
