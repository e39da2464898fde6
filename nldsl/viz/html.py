"""One page with everything in it: the picture, what it is made from, the clock timeline, and our own script.

The page asks nobody for anything: its policy allows the one style and the one script whose hashes it names, and no
connection at all. Program text enters as escaped HTML, as cleaned SVG, or as JSON that the script sets as text.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import asdict
from importlib import resources
from typing import Any

from nldsl.ir.program import Program
from nldsl.semantics.level_data import LevelGraph
from nldsl.viz.dot import box_ids, dot_of_scene
from nldsl.viz.escape import html_text, plain, script_json
from nldsl.viz.layout import Layout, arrange
from nldsl.viz.palette import DARK, LIGHT, LINKS
from nldsl.viz.render import render
from nldsl.viz.scene import Scene, SceneOptions, counted, scene_of, short_number
from nldsl.viz.svg import clean_svg, color_names, theme_rules
from nldsl.viz.timeline import timeline, token_counts

__all__ = ["page"]

_SCRIPTS = ("page.js", "detail.js", "timeline.js")
_STEPS = 32
_LINES = 24  # of an explained update
_LIGHT_ONLY = (
    "--soft:#f3f4f6;--focus:#2f6fd0;--shadow:0 1px 2px rgba(20,28,40,.05);--lift:0 6px 24px rgba(20,28,40,.14)"
)
_DARK_ONLY = "--soft:#252c36;--focus:#6ea8ff;--shadow:none;--lift:0 8px 28px rgba(0,0,0,.5)"


def page(graph: LevelGraph, program: Program | None = None, options: SceneOptions | None = None) -> str:
    """HTML text. With `program`, the page says how each state is updated, if that can be derived."""
    scene = scene_of(graph, options)
    layout = arrange(scene)
    positions = [lane.position for lane in scene.lanes]
    drawn = render(dot_of_scene(scene, layout, legend=False), "svg")
    style = _themes(positions) + _read("page.css")
    script = "\n".join(_read(name) for name in _SCRIPTS)
    data = {**_data(scene, layout), "updates": _updates(program, scene.graph) if program else {}}
    parts = {
        "policy": f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        "title": html_text(scene.title),
        "summary": html_text(_summary(scene.graph), 200),
        "picture": clean_svg(drawn, f"The levels of {scene.title}", color_names(positions)),
        "style": style,
        "script": script,
        "data": script_json(data),
    }
    # in one pass: what was put in is not looked at again
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def _read(name: str) -> str:
    return resources.files("nldsl.viz").joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _themes(positions: list[float]) -> str:
    """The colours as custom properties, for both themes, and a class for every use."""
    light, dark = theme_rules(positions, LIGHT), theme_rules(positions, DARK)
    lines = {"light": _properties(light) + _LIGHT_ONLY, "dark": _properties(dark) + _DARK_ONLY}
    rules = [
        f":root{{color-scheme:light;{lines['light']}}}",
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{lines['dark']}}}}}",
        f":root[data-theme=dark]{{color-scheme:dark;{lines['dark']}}}",
    ]
    uses = {"f": "fill", "s": "stroke", "b": "background"}
    rules += [f".{use}-{name}{{{what}:var(--{name})}}" for name in light for use, what in uses.items()]
    return "\n".join(rules) + "\n"


def _properties(colors: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colors.items())


def _data(scene: Scene, layout: Layout) -> dict[str, Any]:
    """What the script works with; boxes and edges in the order of the ids in the picture."""
    number = {box.id: n for n, box in enumerate(scene.boxes)}
    assert list(box_ids(scene)) == list(number)
    boxes = [
        {"lane": b.lane, "kind": b.kind, "label": b.lines[0].text, "node": b.node.id if b.node else ""}
        for b in scene.boxes
    ]
    edges = [
        {"source": number[x.source], "target": number[x.target], "style": x.style, "dashed": x.dashed}
        for x, _ in layout.routes
    ]
    used = [style for style in LINKS if any(x.style == style for x, _ in layout.routes)]
    return {
        "graph": scene.graph.to_json(),
        "lanes": [{"id": v.id, "title": v.title, "lines": list(v.lines)} for v in scene.lanes],
        "boxes": boxes,
        "edges": edges,
        "links": {key: asdict(style) for key, style in LINKS.items()},
        "used": used,
        "timeline": timeline(scene.graph),
        "tokens": token_counts(scene.graph),
        "steps": _STEPS,
    }


def _summary(graph: LevelGraph) -> str:
    memories = sum(n.count for n in graph.nodes if n.kind == "memory")
    weights = sum(p.size * n.count for n in graph.nodes for p in n.params)
    facts = [counted(len(graph.levels), "level")]
    facts += [counted(memories, "memory")] if memories else []
    facts += [f"{short_number(weights)} weights"] if weights else []
    return " · ".join(facts)


def _updates(program: Program, graph: LevelGraph) -> dict[str, str]:
    """How each state is updated, in mathematics, where the explanations are installed and know it."""
    try:
        from nldsl.explain import explain_update
    except ImportError:
        return {}
    known = {s.name for s in program.states}
    names = [s.name for n in graph.nodes for s in n.states if not s.hidden and s.name in known]
    texts = {name: explain_update(program, name).splitlines() for name in names}
    return {name: "\n".join(plain(line, 400) for line in lines[:_LINES]) for name, lines in texts.items()}
