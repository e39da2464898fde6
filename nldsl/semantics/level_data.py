"""The level graph of a program: levels, nodes and edges, and their stable form as JSON.

A *level* holds everything that is updated equally often. docs/reference/level-graph.md describes `LevelGraph.to_json`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from nldsl.semantics.level_parts import ParamBox, StateBox

__all__ = ["SCHEMA", "Edge", "Level", "LevelGraph", "Node", "ParamBox", "StateBox"]

SCHEMA = "nldsl.level-graph/1"


@dataclass(frozen=True)
class Node:
    """A thing that is drawn.

    `kind`: memory (its states change), buffer (past values), weights (parameters), initial (parameters that are initial
    values), optimizer (of a level), input, output, loss. `level` is empty for the last three. `learns` says from which
    loss the states follow: "own" (an objective inside the program), "task" (what `minimize` names) or nothing.
    `count` is the number of equal nodes this one stands for, `parts` the paths of what was merged into it.
    """

    id: str
    kind: str
    label: str
    level: str = ""
    path: str = ""
    template: str = ""
    states: tuple[StateBox, ...] = ()
    params: tuple[ParamBox, ...] = ()
    copies: str = ""
    count: int = 1
    parts: tuple[str, ...] = ()
    learns: str = ""
    source: str = ""


@dataclass(frozen=True)
class Edge:
    """`flow`: context, gradient, initialization or reset. `transfer`: which of the five kinds it is, or nothing.

    `role` says what a memory does with the value: "read" (it passes through) or "learn" (it only changes the states).
    `names` are the program's names of the values. `detached`: no derivative goes back along it. `next`: it goes from
    one of the equal nodes to the one that follows.
    """

    source: str
    target: str
    flow: str
    transfer: str = ""
    role: str = ""
    names: tuple[str, ...] = ()
    detached: bool = False
    next: bool = False


@dataclass(frozen=True)
class Level:
    """`kind`: nonparametric, token, step or frozen. `period` counts in that unit; 0 where there is none."""

    id: str
    kind: str
    period: int
    order: int = 0
    orders: int = 1
    names: tuple[str, ...] = ()

    @property
    def cadence(self) -> str:
        """When it is updated, in words."""
        if self.kind == "nonparametric":
            return "at once"
        if self.kind == "frozen":
            return "never"
        return f"every {self.kind}" if self.period == 1 else f"every {self.period} {self.kind}s"


@dataclass(frozen=True)
class LevelGraph:
    """Levels from the fastest to the slowest, and what is in and between them."""

    name: str
    levels: tuple[Level, ...] = ()
    nodes: tuple[Node, ...] = ()
    edges: tuple[Edge, ...] = ()

    def node(self, id: str) -> Node:
        return next(n for n in self.nodes if n.id == id)

    def level(self, id: str) -> Level:
        return next(v for v in self.levels if v.id == id)

    def members(self, level: str) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.level == level)

    def to_json(self) -> dict[str, Any]:
        """Return a value of JSON types only."""
        levels = [{**asdict(level), "cadence": level.cadence} for level in self.levels]
        return {
            "schema": SCHEMA,
            "name": self.name,
            "levels": levels,
            "nodes": [asdict(node) for node in self.nodes],
            "edges": [asdict(edge) for edge in self.edges],
        }
