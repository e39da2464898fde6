"""The level graph in the JSON that Google's Model Explorer reads: levels and blocks become its nested layers."""

from __future__ import annotations

from typing import Any

from nldsl.semantics.level_data import LevelGraph, Node
from nldsl.viz.escape import plain

__all__ = ["model_explorer"]


def model_explorer(graph: LevelGraph) -> dict[str, Any]:
    """Return a value of JSON types only; nothing is folded, since the viewer folds by itself."""
    incoming: dict[str, list[dict[str, str]]] = {n.id: [] for n in graph.nodes}
    for edge in graph.edges:
        if edge.target in incoming and edge.source in incoming:
            port = str(len(incoming[edge.target]))
            incoming[edge.target].append({
                "sourceNodeId": edge.source, "sourceNodeOutputId": "0", "targetNodeInputId": port,
            })  # fmt: skip
    levels = {level.id: plain(f"{level.cadence} {', '.join(level.names)}".strip()) for level in graph.levels}
    nodes = [
        {
            "id": node.id,
            "label": plain(node.label),
            "namespace": "/".join([levels[node.level], *_blocks(node)] if node.level else []),
            "attrs": [{"key": key, "value": plain(value, 200)} for key, value in _attributes(node)],
            "incomingEdges": incoming[node.id],
        }
        for node in graph.nodes
    ]
    return {"graphs": [{"id": plain(graph.name), "nodes": nodes}]}


def _blocks(node: Node) -> list[str]:
    """The names around a node; a slash would open another layer."""
    return [plain(name).replace("/", "_") for name in node.path.split(".")[:-1]]


def _attributes(node: Node) -> list[tuple[str, str]]:
    found = [("kind", node.kind), ("path", node.path), ("template", node.template), ("learns from", node.learns)]
    found += [(f"state {s.label}", f"[{', '.join(s.shape)}], every {s.period}, reset {s.reset}") for s in node.states]
    found += [(f"param {p.label}", f"[{', '.join(p.shape)}], {p.initializer}") for p in node.params]
    return [(key, value) for key, value in found if value]
