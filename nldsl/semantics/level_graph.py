"""The level graph of a program, built from its per-token IR alone.

Levels are ordered from the fastest to the slowest: buffers of past values (they take in their context at once: infinite
frequency), states by the period of their clock, parameters by the period of the training level, and what never changes.
Where two states of one memory tick together but one needs the other's new value, the other one is before it (`order`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from nldsl.ir.program import Program
from nldsl.semantics.level_clock import Rate, rates_of, reached_params
from nldsl.semantics.level_data import SCHEMA, Edge, Level, LevelGraph, Node, ParamBox, StateBox
from nldsl.semantics.level_flow import Flow, trace
from nldsl.semantics.level_fold import merge_weights
from nldsl.semantics.level_parts import Part, parts_of
from nldsl.source import Span

__all__ = ["SCHEMA", "Edge", "Level", "LevelGraph", "Node", "ParamBox", "StateBox", "build_level_graph"]


def build_level_graph(program: Program) -> LevelGraph:
    """The graph of a program, from its IR alone."""
    rates = rates_of(program)
    parts, part_of = parts_of(program, rates)
    flow = trace(program, parts, part_of, rates.carriers)
    levels, level_of = _levels(program, parts)
    reached = reached_params(program)
    nodes = [_node(part, level_of, flow, reached) for part in parts]
    nodes = _ends(program) + nodes
    optimizers = _optimizers(program, levels, nodes, flow)
    known = {n.id: n for n in (*nodes, *optimizers)}
    edges = [*_flow_edges(flow, known), *_loss_edges(program, flow, known, levels), *_reset_edges(nodes, levels)]
    graph = LevelGraph(program.name, levels, (*nodes, *optimizers), tuple(edges))
    return merge_weights(graph, lambda node: node.path)


def _levels(program: Program, parts: list[Part]) -> tuple[tuple[Level, ...], dict[Rate, str]]:
    """The levels that something lives on or that the program declares, fastest first."""
    rates = {part.rate for part in parts}
    declared: dict[Rate, list[str]] = {}
    for level in program.levels:
        found = [r for r in rates if (r.kind, r.period) == (level.base, level.period)] or [
            Rate(level.base, level.period)
        ]
        rates.update(found)
        for rate in found:
            declared.setdefault(rate, []).append(level.name)
    made, ids = [], {}
    for rate in sorted(rates, key=Rate.key):
        orders = sorted(r.order for r in rates if (r.kind, r.period) == (rate.kind, rate.period))
        order = orders.index(rate.order)
        name = rate.kind if rate.kind in ("nonparametric", "frozen") else f"{rate.kind}-{rate.period}"
        ids[rate] = name if len(orders) == 1 else f"{name}.{order + 1}"
        made.append(Level(ids[rate], rate.kind, rate.period, order, len(orders), tuple(declared.get(rate, ()))))
    return tuple(made), ids


def _node(part: Part, level_of: dict[Rate, str], flow: Flow, reached: set[str]) -> Node:
    params = tuple(replace(p, reached=p.name in reached) for p in part.params)
    anchors = flow.anchors
    states = tuple(replace(s, anchors=tuple(sorted(anchors.get(s.name, ())))) for s in part.states)
    learns = "task" if part.id in flow.task else "own" if part.id in flow.own else ""
    return Node(
        part.id,
        part.kind,
        part.label,
        level_of[part.rate],
        part.path,
        part.template,
        states,
        params,
        part.copies,
        parts=(part.path,),
        learns=learns,
        source=part.source,
    )


def _ends(program: Program) -> list[Node]:
    """Inputs, outputs and losses: the nodes outside every level."""
    nodes = [Node(f"input:{i.name}", "input", i.name, source=_place(i.span)) for i in program.inputs]
    nodes += [Node(f"output:{name}", "output", name) for name, _ in program.outputs]
    nodes += [
        Node(f"loss:{n}", "loss", f"loss at {name}" if name else "loss") for n, (name, _) in enumerate(program.losses)
    ]
    return nodes


def _place(span: Span) -> str:
    return "" if span.is_none else str(span)


def _optimizers(program: Program, levels: tuple[Level, ...], nodes: list[Node], flow: Flow) -> list[Node]:
    """One node per declared level on which the task loss trains something."""
    made = []
    trained = {n.level for n in nodes if n.kind in ("weights", "initial") or n.id in flow.task}
    for declared in program.levels:
        for level in levels:
            if (
                declared.name in level.names
                and level.id in trained
                and (declared.optimizer_name or level.kind == "step")
            ):
                label = declared.optimizer_name or "gradient step"
                made.append(Node(f"optimizer:{declared.name}", "optimizer", label, level.id, declared.name))
                break
    return made


def _flow_edges(flow: Flow, known: dict[str, Node]) -> list[Edge]:
    edges = []
    streams = {(e.source, e.target) for e in flow.edges if e.gradient}
    for e in flow.edges:
        kind = "initialization" if e.role == "init" else "gradient" if e.gradient else "context"
        edge = Edge(e.source, e.target, kind, "", "" if e.role == "init" else e.role, e.names, e.detached)
        source, target = known[e.source], known[e.target]
        answers = (e.target, e.source) in streams
        edges.append(replace(edge, transfer=_transfer(edge, source, target, answers)))
    return edges


def _transfer(edge: Edge, source: Node, target: Node, answers: bool) -> str:
    """Which of the five transfers an edge is. `answers`: it returns what came of a gradient stream."""
    if edge.flow == "initialization":
        return "initialization"
    if not source.level or not target.level or target.kind == "buffer":
        return ""
    if edge.flow == "gradient":
        return "generation"
    if source.kind == "memory" and target.kind == "memory" and edge.role == "learn" and not answers:
        return "generation"
    if source.level == target.level:
        return ""
    if source.kind == "buffer":
        return "nonparametric"
    if _by_task(source) and _by_task(target):
        return "backprop"
    return "direct"


def _by_task(node: Node) -> bool:
    """Whether the loss of the task itself changes it."""
    return node.learns == "task" or (node.kind == "weights" and any(p.level and p.reached for p in node.params))


def _loss_edges(program: Program, flow: Flow, known: dict[str, Node], levels: tuple[Level, ...]) -> list[Edge]:
    """From each loss to the optimizers of the levels it trains; straight to a memory whose level has none."""
    optimizers: dict[str, list[str]] = defaultdict(list)
    for node in known.values():
        if node.kind == "optimizer":
            optimizers[node.level].append(node.id)
    edges = []
    for loss in (f"loss:{n}" for n in range(len(program.losses))):
        edges += [Edge(loss, o, "gradient") for level in levels for o in optimizers.get(level.id, ())]
        direct = [p for p in sorted(flow.task) if known[p].level not in optimizers]
        edges += [Edge(loss, part, "gradient", role="learn") for part in direct]
    return edges


def _reset_edges(nodes: list[Node], levels: tuple[Level, ...]) -> list[Edge]:
    """From a level to the memories that are reset at its boundaries."""
    edges = []
    for node in nodes:
        for period in sorted({s.reset_period for s in node.states if s.reset_period and not s.hidden}):
            named = [v for v in levels if v.kind == "token" and v.period == period and v.id != node.level]
            edges += [Edge(f"level:{v.id}", node.id, "reset") for v in named[:1]]
    return edges
