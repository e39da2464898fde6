"""What was prepared for all segments at once, of one segment."""

from __future__ import annotations

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import Node
from nldsl.backends.iree.shapes import pick
from nldsl.ir.stages import SEGMENT


class LazyPicks(dict[int, Node]):
    """A value of segment ``at`` is cut out when it is asked for: only what is used."""

    def __init__(self, low: Lower, prepared: dict[int, Node], at: str) -> None:
        super().__init__()
        self.low, self.prepared, self.at = low, prepared, at

    def inside(self, low: Lower) -> LazyPicks:
        """The same in a branch: what is cut out there is not known outside."""
        found = LazyPicks(low, self.prepared, self.at)
        found.update(self)
        return found

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) or value in self.prepared

    def __missing__(self, value: int) -> Node:
        node = self.prepared[value]
        if SEGMENT in node.axes:
            node = pick(self.low, node, node.axes.index(SEGMENT), self.at)
        self[value] = node
        return node
