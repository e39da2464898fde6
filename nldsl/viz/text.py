"""The level graph for a terminal: levels with what is in them and what feeds it, and when each is updated."""

from __future__ import annotations

from collections import defaultdict

from nldsl.semantics.level_data import Edge, LevelGraph, Node
from nldsl.viz.escape import plain
from nldsl.viz.palette import LINKS
from nldsl.viz.scene import Lane, Scene, SceneOptions, counted, scene_of
from nldsl.viz.timeline import timeline

__all__ = ["text"]

_WIDTH = 100
_PLAIN = str.maketrans({"●": "*", "←": "<-", "→": "->", "×": "x", "·": "-", "█": "#", "■": "#", "─": "-", "∇": "grad"})


def text(graph: LevelGraph, options: SceneOptions | None = None, ascii_only: bool = False) -> str:
    """Plain text, at most about 100 columns wide, without colours."""
    scene = scene_of(graph, options)
    drawn = scene.graph
    memories = sum(n.count for n in drawn.nodes if n.kind == "memory")
    facts = [counted(len(drawn.levels), "level"), *([counted(memories, "memory")] if memories else [])]
    lines = [f"{scene.title} · {' · '.join(facts)}, fastest first", ""]
    labels = _labels(drawn)
    for lane in scene.lanes:
        if lane.level:
            lines += [*_lane(scene, lane, labels), ""]
    for node in drawn.nodes:
        if node.kind in ("loss", "output"):
            sources = dict.fromkeys(labels[e.source] for e in drawn.edges if e.target == node.id)
            lines.append(f"{plain(node.label)} ← {', '.join(sources) or 'nothing'}")
    lines += ["", *_clocks(drawn)]
    shown = "\n".join(line.rstrip() for line in lines) + "\n"
    return shown.translate(_PLAIN).encode("ascii", "replace").decode() if ascii_only else shown


def _labels(graph: LevelGraph) -> dict[str, str]:
    """What a box is called in the text; with its path where two would be called the same."""
    names: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        names["initial values" if node.kind == "initial" else node.label].append(node)
    labels = {}
    for name, nodes in names.items():
        for node in nodes:
            paths = [n.path for n in nodes]
            more = f" ({node.path})" if len(nodes) > 1 and node.path and paths.count(node.path) == 1 else ""
            if paths.count(node.path) > 1 and node.level:
                more = f" ({graph.level(node.level).cadence})"
            labels[node.id] = plain(name, 40) + plain(more, 60)
    return labels | {f"level:{v.id}": v.cadence for v in graph.levels}


def _lane(scene: Scene, lane: Lane, labels: dict[str, str]) -> list[str]:
    lines = [f"● {lane.title}" + "".join(f" · {text}" for text in lane.lines)]
    boxes = [b for b in scene.boxes if b.lane == lane.id and b.node]
    width = min(max((len(labels[b.node.id]) for b in boxes if b.node), default=0), 36)
    for box in boxes:
        node = box.node
        assert node is not None
        if node.kind == "optimizer":
            lines.append(f"    {plain(node.label)}, the optimizer ← gradient of the loss")
            continue
        count = f"×{box.count}" if box.count > 1 else ""
        about = " · ".join(line.text for line in box.lines[1:])
        lines.append(f"    {labels[node.id]:<{width}} {count:>3}  {about}"[:_WIDTH])
        lines += _feeds(scene.graph, node, labels)
    return lines


def _feeds(graph: LevelGraph, node: Node, labels: dict[str, str]) -> list[str]:
    """One line per kind of edge that comes in."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for edge in graph.edges:
        if edge.target == node.id and not (edge.next and edge.source == node.id):
            kinds[_kind(edge)][labels[edge.source] + _notes(edge)] = None
    width = max(len(style.label) for style in LINKS.values())
    order = [k for k in LINKS if k in kinds]
    return [line for k in order for line in _wrapped(f"      ← {LINKS[k].label:<{width}}  ", list(kinds[k]))]


def _kind(edge: Edge) -> str:
    return edge.flow if edge.flow in ("gradient", "reset") else edge.transfer or "context"


def _notes(edge: Edge) -> str:
    notes = [plain(", ".join(edge.names), 30)] if edge.names and edge.flow != "initialization" else []
    notes += ["no derivative"] if edge.detached else []
    notes += ["next round"] if edge.next else []
    return f" ({'; '.join(notes)})" if notes else ""


def _wrapped(head: str, items: list[str]) -> list[str]:
    lines, line = [], head
    for n, item in enumerate(items):
        piece = item + ("," if n < len(items) - 1 else "")
        if len(line) + len(piece) > _WIDTH and line.strip() and line != head:
            lines.append(line)
            line = " " * len(head)
        line += piece + " "
    return [*lines, line]


# ---------------------------------------------------------------- clocks


def _clocks(graph: LevelGraph) -> list[str]:
    """A line per level: a block where it is updated."""
    rows = timeline(graph)
    width = max((len(r["title"]) for r in rows), default=0)
    lines = []
    for unit, title in (("token", "tokens"), ("step", "steps")):
        mine = [r for r in rows if r["kind"] == unit]
        if not mine:
            continue
        room = _WIDTH - width - 2
        longest = max(r["period"] for r in mine)
        count = min(room, max(16, 2 * longest))
        scale = -(-2 * longest // count) if 2 * longest > count else 1
        marks = "".join(f"{n * scale:<8}" for n in range(8, count + 1, 8))
        lines.append(f"{title:<{width}}  {scale:<7}{marks}"[:_WIDTH])
        for row in mine:
            cells = (
                any(t % row["period"] == 0 for t in range(c * scale + 1, (c + 1) * scale + 1)) for c in range(count)
            )
            full = row["period"] <= scale
            lines.append(f"{row['title']:<{width}}  " + "".join(("█" if full else "■") if c else "─" for c in cells))
        lines.append("")
    return lines[:-1]
