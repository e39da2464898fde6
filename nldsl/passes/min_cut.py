"""The cheapest way to cut a graph in two (Dinic): edges with capacities, a source, a sink."""

from __future__ import annotations

from collections import deque


class MinCut:
    """A graph that grows: ``node`` gives the number of a new node, ``edge`` joins two. 0 is the source, 1 the sink."""

    SOURCE, SINK = 0, 1

    def __init__(self) -> None:
        self._edges: list[list[int]] = [[], []]  # of each node; an edge and its reverse are numbers n and n ^ 1
        self._to: list[int] = []
        self._left: list[float] = []

    def node(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def edge(self, start: int, end: int, capacity: float) -> None:
        """Cutting it costs ``capacity`` where ``start`` is on the side of the source and ``end`` on that of the
        sink."""
        for node, other, left in ((start, end, capacity), (end, start, 0.0)):
            self._edges[node].append(len(self._to))
            self._to.append(other)
            self._left.append(left)

    def source_side(self) -> list[bool]:
        """Of every node, whether it is on the side of the source; where several cuts are cheapest the one nearest to
        the source. Every path from the source to the sink needs an edge with a finite capacity."""
        while True:
            level = self._levels()
            if level[self.SINK] < 0:
                return [n >= 0 for n in level]
            self._saturate(level)

    def _levels(self) -> list[int]:
        """How many edges with something left lead from the source to each node, -1 where there is no way."""
        level = [-1] * len(self._edges)
        level[self.SOURCE] = 0
        row = deque([self.SOURCE])
        while row:
            node = row.popleft()
            for edge in self._edges[node]:
                other = self._to[edge]
                if self._left[edge] > 0 and level[other] < 0:
                    level[other] = level[node] + 1
                    row.append(other)
        return level

    def _saturate(self, level: list[int]) -> None:
        """Send along shortest ways what they take."""
        at = [0] * len(self._edges)
        path: list[int] = []
        node = self.SOURCE
        while True:
            if node == self.SINK:
                flow = min(self._left[e] for e in path)
                for edge in path:
                    self._left[edge] -= flow
                    self._left[edge ^ 1] += flow
                first = next(n for n, e in enumerate(path) if self._left[e] <= 0)
                node = self._to[path[first] ^ 1]
                del path[first:]
                continue
            found = self._forward(level, at, node)
            if found is None:
                if not path:
                    return
                node = self._to[path.pop() ^ 1]
                at[node] += 1
                continue
            path.append(found)
            node = self._to[found]

    def _forward(self, level: list[int], at: list[int], node: int) -> int | None:
        """The next edge that leads one step away from the source; ``at``: where to look among the edges of a node."""
        while at[node] < len(self._edges[node]):
            edge = self._edges[node][at[node]]
            if self._left[edge] > 0 and level[self._to[edge]] == level[node] + 1:
                return edge
            at[node] += 1
        return None
