"""Strongly connected components, without recursion: a body may be deeper than Python's stack."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)


def components(edges: Mapping[Node, Sequence[Node]]) -> list[list[Node]]:
    """Strongly connected components of ``node -> nodes it needs``, each after everything it needs (Tarjan 1972)."""
    index: dict[Node, int] = {}
    low: dict[Node, int] = {}
    path: list[Node] = []
    on_path: set[Node] = set()
    found: list[list[Node]] = []
    for root in edges:
        if root in index:
            continue
        work: list[tuple[Node, int]] = [(root, 0)]
        while work:
            node, position = work.pop()
            if node not in index:
                index[node] = low[node] = len(index)
                path.append(node)
                on_path.add(node)
            needs = edges[node]
            while position < len(needs) and needs[position] in index:
                if needs[position] in on_path:
                    low[node] = min(low[node], index[needs[position]])
                position += 1
            if position < len(needs):
                work.append((node, position))
                work.append((needs[position], 0))
                continue
            if low[node] == index[node]:
                component = []
                while True:
                    member = path.pop()
                    on_path.discard(member)
                    component.append(member)
                    if member == node:
                        break
                found.append(component)
            if work:
                parent = work[-1][0]
                low[parent] = min(low[parent], low[node])
    return found
