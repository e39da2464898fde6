"""The level graph as DOT, with every place and curve in it: `nop2` draws it as arranged, `dot` lays it out anew.

Identifiers are made here (`b0`, `b1`, ...); names from the program appear in labels only, through `escape.dot_html`.
"""

from __future__ import annotations

from typing import Any

from nldsl.extras import require
from nldsl.semantics.level_data import LevelGraph
from nldsl.viz.escape import dot_html
from nldsl.viz.layout import HEADER, Layout, Rect, arrange
from nldsl.viz.palette import FRAME, LIGHT, LINKS, QUIET, level_colors
from nldsl.viz.render import render
from nldsl.viz.route import Point, Route
from nldsl.viz.scene import LEGEND_STEP, Box, Lane, Line, Link, Scene, SceneOptions, legend_of, scene_of
from nldsl.viz.svg import clean_svg

__all__ = ["FONT", "box_ids", "dot", "dot_of_scene", "svg"]

FONT = "Helvetica,Arial,sans-serif"
_FOOT = 30.0  # room for the legend
_ROUND = ("input", "output", "loss", "optimizer", "hub", "clock")


def dot(graph: LevelGraph, options: SceneOptions | None = None, legend: bool = True) -> str:
    """DOT text; needs the package `graphviz`."""
    scene = scene_of(graph, options)
    return dot_of_scene(scene, arrange(scene), legend)


def svg(graph: LevelGraph, options: SceneOptions | None = None) -> str:
    """SVG with nothing in it but shapes and text."""
    scene = scene_of(graph, options)
    drawn = render(dot_of_scene(scene, arrange(scene)), "svg")
    return clean_svg(drawn, f"The levels of {scene.title}") + "\n"


def box_ids(scene: Scene) -> dict[str, str]:
    """The identifier of each box in the DOT and the SVG."""
    return {box.id: f"b{n}" for n, box in enumerate(scene.boxes)}


def dot_of_scene(scene: Scene, layout: Layout, legend: bool = True) -> str:
    """DOT text of an arranged scene."""
    graphviz = require("graphviz", "viz", "to write DOT")
    page = _Page(layout.height + (_FOOT if legend else 0.0))
    picture = graphviz.Digraph("levels")
    bounds = f"0,0,{layout.width:.2f},{page.height:.2f}"
    picture.attr("graph", bb=bounds, bgcolor=LIGHT.paper, fontname=FONT, rankdir="LR", pad="0.2")
    picture.attr("node", shape="box", style="rounded,filled", fixedsize="true", fontname=FONT, fontsize="9", margin="0")
    picture.attr("edge", fontname=FONT, fontsize="9", arrowsize="0.55")
    for n in range(len(scene.lanes)):
        _lane(picture, scene, layout, page, n)
    for n, (label, rect) in enumerate(layout.frames):
        _frame(picture, label, rect, page, n)
    ids = box_ids(scene)
    for n, (link, way) in enumerate(layout.routes):
        picture.edge(ids[link.source], ids[link.target], id=f"e{n}", **_edge(link, way, page))
    if legend:
        _legend(picture, scene, page)
    return str(picture.source)


def _lane(picture: Any, scene: Scene, layout: Layout, page: _Page, n: int) -> None:
    lane = scene.lanes[n]
    rect = layout.lanes[lane.id]
    accent, tint = level_colors(lane.position, LIGHT)
    color = tint if lane.level else LIGHT.paper
    ids = box_ids(scene)
    with picture.subgraph(name=f"cluster_lane{n}") as inside:
        look = {"style": "filled,rounded", "color": color, "fillcolor": color, "class": f"lane l{n}"}
        inside.attr(bb=page.bounds(rect), id=f"lane{n}", label="", **look)
        if lane.level:
            inside.node(f"h{n}", id=f"h{n}", **_header(lane, rect, page, accent), **{"class": f"header l{n}"})
        for box in scene.boxes:
            if box.lane == lane.id:
                look = {**page.node(layout.boxes[box.id]), **_look(box, accent), "class": f"box {box.kind} l{n}"}
                inside.node(ids[box.id], id=ids[box.id], **look)


def _frame(picture: Any, label: str, rect: Rect, page: _Page, n: int) -> None:
    text = f'<<FONT POINT-SIZE="9.5" COLOR="{LIGHT.muted}">{dot_html(label)}</FONT>>'
    middle = page.point((rect.x + rect.width / 2, rect.y + 9))
    look = {"style": "rounded,dashed", "bgcolor": "transparent", "color": FRAME, "penwidth": "0.9", "class": "frame"}
    with picture.subgraph(name=f"cluster_frame{n}") as inside:
        inside.attr(bb=page.bounds(rect), id=f"frame{n}", label=text, lp=middle, **look)


class _Page:
    """Points from the upper left corner to Graphviz's, which count from below."""

    def __init__(self, height: float) -> None:
        self.height = height

    def point(self, p: Point) -> str:
        return f"{p[0]:.2f},{self.height - p[1]:.2f}"

    def bounds(self, r: Rect) -> str:
        return f"{r.x:.2f},{self.height - r.y - r.height:.2f},{r.x + r.width:.2f},{self.height - r.y:.2f}"

    def node(self, r: Rect) -> dict[str, str]:
        return {"pos": self.point(r.middle), "width": f"{r.width / 72:.4f}", "height": f"{r.height / 72:.4f}"}


# ---------------------------------------------------------------- boxes


def _header(lane: Lane, rect: Rect, page: _Page, accent: str) -> dict[str, str]:
    rows = [_row(Line(lane.title, "title"), accent)]
    rows += [_row(Line(text, "muted"), accent) for text in lane.lines]
    place = page.node(Rect(4.0, rect.y, HEADER - 8, rect.height))
    return {**place, "shape": "plaintext", "style": "", "label": _table(rows, HEADER - 26)}


def _look(box: Box, accent: str) -> dict[str, str]:
    look = {"fillcolor": LIGHT.card, "style": "rounded,filled"}
    if box.kind in _ROUND:
        color = {"loss": LINKS["gradient"].light, "optimizer": accent, "hub": LINKS["generation"].light}
        text = "<BR/>".join(_text(line, accent) for line in box.lines)
        return {**look, "label": f"<{text}>", "color": color.get(box.kind, LIGHT.muted), "penwidth": "1.1"}
    rows = [_row(box.lines[0], accent, box.count)]
    rows += [_row(line, accent) for line in box.lines[1:]]
    look["label"] = _table(rows, box.size[0] - 14)
    if box.kind not in ("memory", "buffer", "level"):
        return {**look, "color": QUIET, "penwidth": "1.0"}
    style = "rounded,filled,dashed" if box.kind == "buffer" else "rounded,filled"
    return {**look, "color": accent, "penwidth": "1.3", "style": style}


def _text(line: Line, accent: str) -> str:
    color = {"title": LIGHT.ink, "badge": accent, "joint": LIGHT.ink}.get(line.tone, LIGHT.muted)
    text = dot_html(line.text)
    text = f"<B>{text}</B>" if line.tone == "title" else text
    return f'<FONT POINT-SIZE="{line.size:g}" COLOR="{color}">{text}</FONT>'


def _row(line: Line, accent: str, count: int = 1) -> str:
    text = _text(line, accent)
    if count > 1:
        text += f'<FONT POINT-SIZE="9.5" COLOR="{accent}">&#160;&#160;&#160;×{count}</FONT>'
    return f'<TR><TD ALIGN="LEFT" HEIGHT="{line.size + 3:g}">{text}</TD></TR>'


def _table(rows: list[str], width: float) -> str:
    start = f'<TABLE BORDER="0" CELLBORDER="0" CELLSPACING="0" CELLPADDING="0" WIDTH="{width:.0f}">'
    return f"<{start}{''.join(rows)}</TABLE>>"


# ---------------------------------------------------------------- links


def _edge(link: Link, way: Route, page: _Page) -> dict[str, str]:
    look = _line(link.style, link.dashed)
    spots = " ".join(page.point(p) for p in way.points)
    start = f"s,{page.point(way.start)} " if link.both else ""
    attributes = {**look, "pos": f"{start}e,{page.point(way.end)} {spots}", "class": f"link {link.style}"}
    if link.both:
        attributes |= {"dir": "both", "arrowtail": "onormal" if link.style == "backprop" else "vee"}
    if link.label:
        attributes["label"] = f'<<FONT COLOR="{look["color"]}">{dot_html(link.label)}</FONT>>'
        attributes["lp"] = page.point(way.label)
    return attributes


def _line(style: str, dashed: bool) -> dict[str, str]:
    look = LINKS[style]
    lines = {"style": "dashed"} if dashed else {"style": "dotted"} if look.dotted else {}
    return {"color": look.light, "penwidth": f"{look.width:g}", "arrowhead": look.head, **lines}


def _legend(picture: Any, scene: Scene, page: _Page) -> None:
    """One sample of each style that occurs, in a row below."""
    x, y = 12.0, page.height - _FOOT / 2 + 4
    for n, (style, label, dashed) in enumerate(legend_of(scene)):
        both = LINKS[style].both
        ends = (f"g{n}a", f"g{n}b")
        for end, at in zip(ends, (x, x + 26), strict=True):
            place = {"pos": page.point((at, y)), "width": "0.01", "height": "0.01"}
            picture.node(end, label="", shape="point", style="invis", **place)
        a, b = (x + 7 if both else x, y), (x + 19, y)
        path = " ".join(page.point(p) for p in (a, (a[0] + 3, y), (b[0] - 3, y), b))
        start = f"s,{page.point((x, y))} " if both else ""
        look = _line(style, dashed) | ({"dir": "both", "arrowtail": "onormal"} if both else {})
        picture.edge(*ends, pos=f"{start}e,{page.point((x + 26, y))} {path}", **look, **{"class": "legend"})
        width = Line(label, "muted").width
        text = f'<<FONT POINT-SIZE="9.5" COLOR="{LIGHT.muted}">{dot_html(label)}</FONT>>'
        place = page.node(Rect(x + 30, y - 7, width + 4, 14))
        picture.node(f"g{n}t", label=text, shape="plaintext", style="", **place, **{"class": "legend"})
        x += LEGEND_STEP + width
