"""Line pictures as SVG, by matplotlib (an extra: ``pip install "nldsl-compiler[examples]"``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from examples.training import OUT


@dataclass(frozen=True)
class Curve:
    """Points, and where there are several seeds the lowest and the highest at each."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Panel:
    title: str
    x: str
    y: str
    curves: Mapping[str, Curve]
    log_x: bool = False
    log_y: bool = False
    ticks: Sequence[str] = ()  # names of the points, where x only counts them


def draw(name: str, panels: Sequence[Panel], columns: int = 3) -> None:
    """Write ``docs/experiments/<name>.svg``; the same colours mean the same in all panels."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"svg.hashsalt": "nldsl", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False)
    order = list(dict.fromkeys(label for panel in panels for label in panel.curves))
    for panel, axis in zip(panels, axes.flat, strict=False):
        for label, curve in panel.curves.items():
            colour = f"C{order.index(label)}"
            axis.plot(curve.x, curve.y, color=colour, label=label, marker="." if len(curve.x) < 20 else "")
            if curve.low:
                axis.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
        axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        if panel.ticks:
            axis.set_xticks(range(len(panel.ticks)), panel.ticks, rotation=30, ha="right")
        if panel.log_x:
            axis.set_xscale("log", base=2)
        if panel.log_y:
            axis.set_yscale("log")
    for axis in list(axes.flat)[len(panels) :]:
        axis.set_visible(False)
    handles = {label: h for a in axes.flat for h, label in zip(*a.get_legend_handles_labels(), strict=True)}
    wide = min(4, len(handles))
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=wide, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.085 * -(-len(handles) // wide) / rows))
    OUT.mkdir(parents=True, exist_ok=True)
    place = OUT / f"{name}.svg"
    figure.savefig(place, metadata={"Date": None})
    lines = place.read_text(encoding="utf-8").splitlines()
    place.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")
    plt.close(figure)
