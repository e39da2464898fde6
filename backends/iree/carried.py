"""Values that a loop fills part by part."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.iree.lower import Lower
from nldsl.backends.iree.nodes import REAL, Held, Node, Size


@dataclass(frozen=True)
class Carried:
    """What a loop fills part by part: dim ``dim`` of a value of logical shape ``shape``."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    sizes: tuple[Size, ...]
    where: tuple[int, ...]
    dim: int

    @staticmethod
    def like(low: Lower, nodes: list[Node], shape: tuple[int, ...], dim: int) -> Carried:
        axes = low.merged(nodes)
        made = Held(axes, shape, REAL, "", (), ())
        where = tuple(d for d in range(made.rank) if low.size(made, d) != 1)
        return Carried(axes, shape, tuple(low.size(made, d) for d in where), where, len(axes) + dim)

    def value(self, ssa: str) -> Held:
        return Held(self.axes, self.shape, REAL, ssa, self.sizes, self.where)

    def put(self, low: Lower, part: Node, now: str, at: Size) -> str:
        """The carried value with ``part``, which has all dims but that one, at ``at``."""
        logical = self.dim - len(self.axes)
        shape = self.shape[:logical] + self.shape[logical + 1 :]
        place = self.where.index(self.dim)
        dims = [w - (w > self.dim) for w in self.where if w != self.dim]
        laid = low.laid(low.stretched(part, self.axes, shape), dims)
        return low.text.put((laid.ssa, laid.sizes), (now, self.sizes), REAL, place, at, None)
