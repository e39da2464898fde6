"""The level graph as Mermaid, which GitHub and many editors draw."""

from __future__ import annotations

from nldsl.semantics.level_data import LevelGraph
from nldsl.viz.escape import mermaid_text
from nldsl.viz.palette import LIGHT, LINKS, level_colors
from nldsl.viz.scene import Box, SceneOptions, scene_of

__all__ = ["mermaid"]

_SHAPES = {
    "input": ("([", "])"),
    "output": ("([", "])"),
    "loss": ("([", "])"),
    "hub": ("((", "))"),
    "optimizer": ("{{", "}}"),
}


def mermaid(graph: LevelGraph, options: SceneOptions | None = None) -> str:
    """A `flowchart`; identifiers are made here, names appear in quoted texts only."""
    scene = scene_of(graph, options)
    ids = {box.id: f"b{n}" for n, box in enumerate(scene.boxes)}
    lines = ["flowchart LR"]
    for n, lane in enumerate(scene.lanes):
        inside = [f"{ids[b.id]}{_label(b)}" for b in scene.boxes if b.lane == lane.id]
        if lane.level and inside:
            lines += [f'  subgraph l{n}["{mermaid_text(lane.title)}"]', *(f"    {line}" for line in inside), "  end"]
        else:
            lines += [f"  {line}" for line in inside]
    styles = []
    drawn = [x for x in scene.links if x.source in ids and x.target in ids]
    for n, link in enumerate(drawn):
        arrow = ("<" if link.both else "") + ("-.->" if link.dashed or LINKS[link.style].dotted else "-->")
        label = f'|"{mermaid_text(link.label)}"|' if link.label else ""
        lines.append(f"  {ids[link.source]} {arrow}{label} {ids[link.target]}")
        styles.append(f"  linkStyle {n} stroke:{LINKS[link.style].light}")
    for n, lane in enumerate(scene.lanes):
        accent, tint = level_colors(lane.position, LIGHT)
        if lane.level and any(b.lane == lane.id for b in scene.boxes):
            styles.append(f"  style l{n} fill:{tint},stroke:{accent}")
    return "\n".join([*lines, *styles]) + "\n"


def _label(box: Box) -> str:
    start, end = _SHAPES.get(box.kind, ("[", "]"))
    count = f" ×{box.count}" if box.count > 1 else ""
    text = "<br/>".join(mermaid_text(line.text) + (count if n == 0 else "") for n, line in enumerate(box.lines))
    return f'{start}"{text}"{end}'
