"""Curves, drawn to PNG."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curve:
    """Series over the same `x`; `log` where x grows by factors."""

    name: str
    title: str
    x_label: str
    y_label: str
    x: list[float]
    series: dict[str, list[float]]
    log: bool = False


def draw(curve: Curve, path: Path) -> None:
    import matplotlib

    matplotlib.use("agg")  # no display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    points = "o" if len(curve.x) <= 20 else ""
    for name, values in curve.series.items():
        axes.plot(curve.x, values, marker=points, linestyle="-" if name == "Tundish" else "--", label=name)
    if curve.log:
        axes.set_xscale("log", base=10 if curve.x[-1] > 1000 else 2)
    axes.set(title=curve.title, xlabel=curve.x_label, ylabel=curve.y_label)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    # Without the date and version that it writes otherwise: the same figures give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
