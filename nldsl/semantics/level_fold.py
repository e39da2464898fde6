"""Smaller graphs that say the same: weights that work together in one box, equal layers once."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

from nldsl.semantics.level_data import Edge, LevelGraph, Node

__all__ = ["fold", "fold_repeats", "merge_blocks", "merge_weights"]

_MERGED = ("weights", "initial")


def fold(graph: LevelGraph, limit: int = 20) -> LevelGraph:
    """What one wants to look at: equal layers once, a block of weights in one box, fewer boxes if above `limit`."""
    graph = merge_blocks(fold_repeats(graph))
    graph = graph if len(graph.nodes) <= limit else merge_weights(graph, _outer_block)
    through = {(e.source, e.target, e.flow) for e in graph.edges if not e.detached}
    kept = (e for e in graph.edges if not e.detached or (e.source, e.target, e.flow) not in through)
    return replace(graph, edges=tuple(kept))


# ---------------------------------------------------------------- equal layers


def fold_repeats(graph: LevelGraph) -> LevelGraph:
    """Rounds of a loop (`layers.0`, `layers.1`, ...) that hold the same become one, `layers.*`, the innermost first."""
    while True:
        ids = _equal_rounds(graph)
        if not ids:
            return graph
        graph = _renamed(graph, ids)


def _equal_rounds(graph: LevelGraph) -> dict[str, tuple[str, str, int]]:
    """For the nodes of one loop: the new path, the round it comes from and the number of rounds, by node id."""
    loops: dict[str, dict[int, list[Node]]] = defaultdict(lambda: defaultdict(list))
    for node in graph.nodes:
        for match in re.finditer(r"(?:^|(?<=\.))(\d+)(?=\.|$)", node.path):
            loops[node.path[: match.start()]][int(match[1])].append(node)
    for prefix in sorted(loops, key=lambda p: (-p.count("."), p)):
        rounds = loops[prefix]
        runs = groupby(sorted(rounds), key=lambda n: _signature(rounds[n], f"{prefix}{n}"))
        for run in (list(numbers) for _, numbers in runs):
            if len(run) < 2 or run[-1] - run[0] != len(run) - 1:
                continue
            star = "*" if len(run) == len(rounds) else f"{run[0]}-{run[-1]}"
            return {
                node.id: (f"{prefix}{star}" + node.path.removeprefix(f"{prefix}{n}"), str(n), len(run))
                for n in run
                for node in rounds[n]
            }
    return {}


def _signature(nodes: list[Node], prefix: str) -> list[tuple[object, ...]]:
    return sorted(
        (n.kind, n.path.removeprefix(prefix), n.template, n.level, n.copies, n.count, n.learns, repr(_shapes(n)))
        for n in nodes
    )


def _shapes(node: Node) -> tuple[object, ...]:
    states = tuple((s.label, s.shape, s.period, s.reset, s.reset_period, s.anchors) for s in node.states)
    return states, tuple((p.label, p.shape, p.level, p.reached) for p in node.params)


def _renamed(graph: LevelGraph, ids: dict[str, tuple[str, str, int]]) -> LevelGraph:
    made: dict[tuple[object, ...], Node] = {}
    new: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        if node.id not in ids:
            nodes.append(node)
            continue
        path, _, count = ids[node.id]
        key = (node.kind, path, node.level, repr(_shapes(node)))
        if key not in made:
            id = f"{node.kind}:{path}:{node.level}"
            while id in {m.id for m in made.values()}:
                id += "'"
            label = re.sub(r"\.\d+$", "", node.label)
            made[key] = replace(node, id=id, path=path, label=label, count=node.count * count, parts=())
            nodes.append(made[key])
        new[node.id] = made[key].id
    parts: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes:
        if node.id in new:
            parts[new[node.id]] += node.parts
    nodes = [replace(n, parts=tuple(dict.fromkeys(parts[n.id]))) if n.id in parts else n for n in nodes]

    def across(edge: Edge) -> bool:
        return edge.source in ids and edge.target in ids and ids[edge.source][1] != ids[edge.target][1]

    edges = [
        replace(e, source=new.get(e.source, e.source), target=new.get(e.target, e.target), next=e.next or across(e))
        for e in graph.edges
    ]
    return replace(graph, nodes=tuple(nodes), edges=_distinct(edges))


def _distinct(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """Each edge once, with all its names; one to the next round gives way to one within the round."""
    kept: dict[tuple[object, ...], Edge] = {}
    for edge in sorted(edges, key=lambda e: e.next):
        key = (edge.source, edge.target, edge.flow, edge.role, edge.detached)
        known = kept.get(key)
        if known is None:
            if edge.source != edge.target or edge.next:
                kept[key] = edge
        elif not edge.next or known.next:
            kept[key] = replace(known, names=tuple(dict.fromkeys((*known.names, *edge.names))))
    return tuple(kept.values())


# ---------------------------------------------------------------- weights


def merge_blocks(graph: LevelGraph) -> LevelGraph:
    """One box for a block without states whose weights all live on one level; initial values by what holds them."""
    mixed: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for node in graph.nodes:
        if node.level and node.kind != "optimizer":
            for path in _ancestors(node.path):
                mixed[path].add((node.kind, node.level))

    def block(node: Node) -> str:
        if node.kind == "initial":
            return node.path.rpartition(".")[0] or node.path
        whole = [p for p in _ancestors(node.path) if len(mixed[p]) == 1 and not _is_round(p)]
        return whole[-1] if whole else node.path

    return merge_weights(graph, block)


def _outer_block(node: Node) -> str:
    """The outermost round around a node, or everything outside of all rounds."""
    if node.kind == "initial":
        return node.path
    return next((p for p in reversed(_ancestors(node.path)) if _is_round(p)), "") or "."


def _ancestors(path: str) -> list[str]:
    """A path and everything around it, innermost first."""
    names = path.split(".") if path else []
    return [".".join(names[:n]) for n in range(len(names), 0, -1)]


def _is_round(path: str) -> bool:
    last = path.rpartition(".")[2]
    return last == "*" or last.replace("-", "").isdigit()


def merge_weights(graph: LevelGraph, block: Callable[[Node], str]) -> LevelGraph:
    """Merge weights of one level and one block, as long as nothing they feed comes back to them."""
    into: dict[str, str] = {n.id: n.id for n in graph.nodes}
    after: dict[str, set[str]] = defaultdict(set)  # between boxes, not nodes: it is kept up to date below
    before: dict[str, set[str]] = defaultdict(set)
    for e in graph.edges:
        if e.flow in ("context", "initialization") and not e.next and e.source != e.target:
            after[e.source].add(e.target)
            before[e.target].add(e.source)
    boxes: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for node in graph.nodes:
        name = block(node) if node.kind in _MERGED else ""
        if not name:
            continue
        found = boxes[node.kind, node.level, name, str(node.count)]
        for box in reversed(found):
            if not _comes_back(after, box, node.id) and not _comes_back(after, node.id, box):
                into[node.id] = box
                _join(after, before, box, node.id)
                break
        else:
            found.append(node.id)
    return _merged(graph, into)


def _comes_back(after: dict[str, set[str]], start: str, goal: str) -> bool:
    """Whether a way leads from one box to the other through something else."""
    seen = {start}
    work = list(after[start] - {goal})
    while work:
        box = work.pop()
        if box in seen:
            continue
        seen.add(box)
        if goal in after[box]:
            return True
        work += after[box] - seen
    return False


def _join(after: dict[str, set[str]], before: dict[str, set[str]], box: str, node: str) -> None:
    """The box takes over what leads to and from the node."""
    for forth, back in ((after, before), (before, after)):
        for other in forth.pop(node, set()):
            back[other].discard(node)
            if other != box:
                forth[box].add(other)
                back[other].add(box)
        forth[box].discard(node)


def _merged(graph: LevelGraph, into: dict[str, str]) -> LevelGraph:
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes:
        groups[into[node.id]].append(node)
    nodes = [group[0] if len(group) == 1 else _one(group, graph) for group in groups.values()]
    edges = [
        replace(e, source=into.get(e.source, e.source), target=into.get(e.target, e.target))
        for e in graph.edges
        if into.get(e.source, e.source) != into.get(e.target, e.target) or e.next
    ]
    return replace(graph, nodes=tuple(nodes), edges=_distinct(edges))


def _counted(names: Iterable[str]) -> str:
    """rmsnorm + 3 linear, for rmsnorm, linear, linear_2, linear_3."""
    counts = Counter(re.sub(r"_\d+$", "", name) for name in dict.fromkeys(names))
    return " + ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items())


def _one(group: list[Node], graph: LevelGraph) -> Node:
    """A box named after the block it is all of, or after what is in it."""
    first = group[0]
    chains = [_ancestors(n.path) for n in group]
    path = next((p for p in chains[0] if all(p in chain for chain in chains)), "")
    ids = {n.id for n in group}
    whole = all(
        n.id in ids for n in graph.nodes if n.kind == first.kind and (n.path == path or n.path.startswith(f"{path}."))
    )
    inside = _counted(n.path.rpartition(".")[2] if n.path != path else n.label for n in group)
    label = path.rpartition(".")[2] if whole and path and not _is_round(path) and first.kind != "initial" else inside
    params = tuple(
        replace(p, label=p.label if n.path == path else f"{n.path.removeprefix(path + '.')}.{p.label}")
        for n in group
        for p in n.params
    )
    parts = tuple(dict.fromkeys(p for n in group for p in n.parts))
    template = first.template if {n.path for n in group} == {path} else ""
    return replace(first, path=path, label=label or first.label, template=template, params=params, parts=parts)
