"""When each level is updated: the rows of the clock timeline."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from nldsl.semantics.level_data import LevelGraph
from nldsl.viz.escape import plain
from nldsl.viz.scene import level_title, shown_names

__all__ = ["timeline", "token_counts"]


def timeline(graph: LevelGraph) -> list[dict[str, Any]]:
    """One row per level, fastest first: its clock, and the anchors and resets of what is on it."""
    rows = []
    for level in graph.levels:
        anchors: dict[int, dict[str, None]] = defaultdict(dict)
        resets: dict[int, dict[str, None]] = defaultdict(dict)
        for node in graph.members(level.id):
            for state in node.states:
                for period in state.anchors:
                    anchors[period][plain(node.label, 24)] = None
                if state.reset_period and not state.hidden:
                    resets[state.reset_period][plain(node.label, 24)] = None
        names = shown_names(level)
        title = level_title(level) + (f" ({plain(names, 20)})" if names else "")
        rows.append({
            "id": level.id,
            "title": title,
            "kind": level.kind,
            "period": level.period,
            "anchors": [{"period": p, "of": list(of)} for p, of in sorted(anchors.items())],
            "resets": [{"period": p, "of": list(of)} for p, of in sorted(resets.items())],
        })  # fmt: skip
    return rows


def token_counts(graph: LevelGraph) -> list[int]:
    """Lengths of a sequence to look at: the first shows the slowest token clock a few times."""
    periods = [v.period for v in graph.levels if v.kind == "token"]
    periods += [a for n in graph.nodes for s in n.states for a in (*s.anchors, s.reset_period)]
    first = 64
    while first < 2 * max(periods, default=1) and first < 2**16:
        first *= 2
    return [first, 4 * first, 16 * first]
