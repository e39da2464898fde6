"""Values while they are lowered: tensors that exist, and expressions over them that are not computed yet.

The dims of a value are its mapped axes, then its logical dims. A dim is *held* if a tensor lies along it; along any
other the value is the same everywhere. Reordering dims, stretching them and taking diagonals therefore cost nothing,
and a chain of pointwise operations is computed where it is used. Dims of size 1 are never held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Size = int | str  # a number, or the SSA value of an index
REAL, INT, BOOL = "f32", "i64", "i1"


@dataclass(frozen=True, eq=False)
class Node:
    """``elem`` is the type of its entries while it is computed; stored conditions are real numbers."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    elem: str

    @property
    def rank(self) -> int:
        return len(self.axes) + len(self.shape)


@dataclass(frozen=True, eq=False)
class Held(Node):
    """A tensor ``ssa`` of these ``sizes``; its dim ``n`` lies along dim ``where[n]``."""

    ssa: str
    sizes: tuple[Size, ...]
    where: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Literal(Node):
    value: float | int


@dataclass(frozen=True, eq=False)
class Scalar(Node):
    """An SSA value that is known outside the operation."""

    ssa: str


@dataclass(frozen=True, eq=False)
class Counter(Node):
    """The place along dim ``dim``, from 0."""

    dim: int


@dataclass(frozen=True, eq=False)
class Point(Node):
    """``op`` of ``nldsl/ir/ops.py`` on ``args``, which are lined up by the names of axes and from the right."""

    op: str
    args: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class View(Node):
    """Dim ``n`` of ``arg`` lies along dim ``where[n]``, or nowhere (then it is not held)."""

    arg: Node
    where: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Gather(Node):
    """Entries of a tensor: at ``index[n]`` along its dim ``n`` (an integer, lined up with the dims of this node), or
    along dim ``index[n]`` of this node where that is a number."""

    source: Held
    index: tuple[Node | int, ...]


@dataclass(frozen=True, eq=False)
class Reduce(Node):
    """``kind`` (add, max) of ``arg`` over its dims ``over``; the other ones are the dims of this node, in order."""

    arg: Node
    over: tuple[int, ...]
    kind: str


@dataclass(frozen=True, eq=False)
class Contract(Node):
    """The sum over all labels that are not in ``out`` of the product of ``args``. ``labels[n][d]``: of dim ``d`` of
    operand ``n``; ``out``: of the dims of this node."""

    args: tuple[Node, ...]
    labels: tuple[tuple[str, ...], ...]
    out: tuple[str, ...]
    sizes: dict[str, Size] = field(repr=False)


def alignment(arg: Node, axes: tuple[str, ...], rank: int) -> tuple[int | None, ...]:
    """For each dim of ``arg`` the dim of a result with these axes and ``rank`` logical dims. A dim of size 1 counts as
    one to which another operand may be stretched."""
    lead = [axes.index(a) for a in arg.axes]
    first = len(axes) + rank - len(arg.shape)
    return (*lead, *(first + n if size != 1 else None for n, size in enumerate(arg.shape)))


def held(node: Node) -> frozenset[int]:
    """The dims along which a value may differ. Computed once: expressions share their parts."""
    found: frozenset[int] | None = node.__dict__.get("_held")
    if found is None:
        found = _held(node)
        object.__setattr__(node, "_held", found)
    return found


def _held(node: Node) -> frozenset[int]:
    match node:
        case Held():
            return frozenset(node.where)
        case Counter():
            return frozenset((node.dim,))
        case Point():
            return frozenset(
                w
                for arg in node.args
                for d, w in enumerate(alignment(arg, node.axes, len(node.shape)))
                if w is not None and d in held(arg)
            )
        case View():
            inner = held(node.arg)
            return frozenset(w for d, w in enumerate(node.where) if w is not None and d in inner)
        case Gather():
            found: set[int] = set()
            for index in node.index:
                if isinstance(index, Node):
                    places = alignment(index, node.axes, len(node.shape))
                    found |= {w for d, w in enumerate(places) if w is not None and d in held(index)}
                else:
                    found.add(index)
            return frozenset(found)
        case Reduce():
            kept = [d for d in range(node.arg.rank) if d not in node.over]
            inner = held(node.arg)
            return frozenset(n for n, d in enumerate(kept) if d in inner)
        case Contract():
            seen = {
                label
                for arg, labels in zip(node.args, node.labels, strict=True)
                for d, label in enumerate(labels)
                if d in held(arg)
            }
            return frozenset(n for n, label in enumerate(node.out) if label in seen)
    return frozenset()


def fixed(node: Node) -> bool:
    """Whether an expression is made of nothing but numbers and places."""
    known: bool | None = node.__dict__.get("_fixed")
    if known is None:
        match node:
            case Literal() | Scalar() | Counter():
                known = True
            case Point():
                known = all(fixed(a) for a in node.args)
            case View():
                known = fixed(node.arg)
            case _:
                known = False
        object.__setattr__(node, "_fixed", known)
    return known


def work(node: Node) -> int:
    """The number of operations of an expression, written out."""
    known: int | None = node.__dict__.get("_work")
    if known is None:
        known = 0
        match node:
            case Point():
                known = 1 + sum(map(work, node.args))
            case View() | Reduce():
                known = work(node.arg)
            case Gather():
                known = 1 + sum(work(i) for i in node.index if isinstance(i, Node))
        object.__setattr__(node, "_work", known)
    return known


SIMPLE = frozenset(
    "add sub mul neg maximum minimum where relu abs lt le gt ge eq ne logical_and logical_or to_real".split()
)


def simple(node: Node) -> bool:
    """Whether an expression has nothing but quick operations on tensors that exist."""
    match node:
        case Held() | Literal() | Scalar() | Counter():
            return True
        case Point():
            return node.op in SIMPLE and all(map(simple, node.args))
        case View():
            return simple(node.arg)
    return False
