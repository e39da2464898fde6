"""The op table: every operation of the per-token IR with its typing rule. See ``types.py`` for mapped axes.

Leaves          input(name) param(name) state(name) anchor(state, period) const(value) iota(n) clock(scale, period)
Pointwise       UNARY, BINARY, where(c, a, b): logical shapes broadcast from the right, as in NumPy
Contraction     einsum(spec) on the logical dims, one letter each: "ij,j->i"
Reductions      sum(dims) max(dims), cumsum(dim, reverse)
Shapes          reshape(shape) broadcast(shape) concat(dim) slice(dim, start, stop) pad(dim, before, after)
Indexing        take(table, index): rows; scatter_add(rows, index; n): its transpose; one_hot(n)
Axes            spread(axis): first dim becomes a mapped axis, lane h takes row h (of its own tensor, if the value has
                the axis already); collect(axis): back; axis_sum(axis), batch_mean. A value without the axis is the same
                in all its lanes: ``axis_sum(1.0, batch)`` is the size of the batch
Derivatives     grad(loss, x1..xn; index): d loss / d x_index, expanded by ``passes/derive.py``; stop_grad;
                fixed: a constant for every ``grad``, removed when they are expanded
Clocks          when(new, old; clock): new at the ticks of the clock, old otherwise
Algebra         solve(A, b): A^-1 b, b a vector or a matrix
Time            only in chunk-parallel bodies: see time_ops.py, window_ops.py and matrix_ops.py
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl.dims import Dim
from nldsl.ir.matrix_ops import MATRIX_RULES
from nldsl.ir.time_ops import TIME_RULES
from nldsl.ir.types import BATCH, ShapeError, Type, broadcast_shapes
from nldsl.ir.window_ops import WINDOW_RULES

UNARY = frozenset(
    "neg exp log log1p expm1 sqrt rsqrt abs sign sin cos tanh arctan sigmoid softplus relu erf floor".split()
    + ["logical_not", "to_real"]
)
BINARY = frozenset("add sub mul div pow maximum minimum lt le gt ge eq ne mod logical_and logical_or".split())
COMPARISONS = frozenset("lt le gt ge eq ne logical_and logical_or logical_not".split())
POINTWISE = UNARY | BINARY | {"where"}
KEEPS_INTEGERS = frozenset("neg abs sign floor relu add sub mul maximum minimum mod where".split())
LEAVES = frozenset("input param state anchor const iota clock".split())

SEGMENT_LEAVES = frozenset("given boundary cotangent cotangent_of kept".split())  # of time_ops.py

Rule = Callable[[list[Type], dict[str, Any]], Type]
AxisMerge = Callable[[tuple[str, ...]], tuple[str, ...]]


def infer(op: str, types: list[Type], attrs: dict[str, Any], order: AxisMerge) -> Type:
    """The type of ``op`` applied to operands of these types. ``order`` sorts axis names. Raises ShapeError."""
    axes = order(tuple(axis for t in types for axis in t.axes))
    if op in POINTWISE:
        chosen = types[1:] if op == "where" else types  # the condition does not matter
        whole = op in KEEPS_INTEGERS and all(t.kind == "int" for t in chosen)
        return Type(broadcast_shapes([t.shape for t in types]), axes, "int" if whole else "real")
    rule = _RULES.get(op)
    if rule is None:
        raise KeyError(f"no such op: {op}")
    result = rule(types, attrs)
    if op == "spread":
        axes = order((*axes, attrs["axis"]))
    elif op in ("collect", "axis_sum", "lane"):
        axes = tuple(a for a in axes if a != attrs["axis"])
    elif op == "batch_mean":
        axes = tuple(a for a in axes if a != BATCH)
    elif op == "grad":
        # one derivative per lane of the loss, and never fewer lanes than the variable has
        axes = order((*types[0].axes, *types[1 + attrs["index"]].axes))
    return Type(result.shape, axes, result.kind)


def split_spec(spec: str) -> tuple[list[str], str]:
    """Letters of the operands and of the result."""
    inputs, _, output = spec.partition("->")
    return inputs.split(","), output


def mixes(instr: Any, types: list[Type]) -> bool:
    """Whether an ``einsum`` of operands of these types is a product with a matrix or a vector that lies otherwise, and
    not one of entries, or of vectors that lie alike."""
    inputs, output = split_spec(instr.attr("spec"))
    alike = len({(frozenset(letters), t.axes) for letters, t in zip(inputs, types, strict=True)}) == 1
    return not alike and not {*"".join(inputs)} <= {*output}


def _einsum(types: list[Type], attrs: dict[str, Any]) -> Type:
    inputs, output = split_spec(attrs["spec"])
    if len(inputs) != len(types):
        raise ShapeError(f'"{attrs["spec"]}" names {len(inputs)} operands, got {len(types)}')
    sizes: dict[str, Dim] = {}
    for letters, t in zip(inputs, types, strict=False):
        if len(letters) != len(t.shape):
            raise ShapeError(f'"{letters}" has {len(letters)} dimensions, the operand {t.shown} has {len(t.shape)}')
        for letter, size in zip(letters, t.shape, strict=False):
            if sizes.setdefault(letter, size) != size:
                raise ShapeError(f"{sizes[letter]} is not {size}")
    missing = [letter for letter in output if letter not in sizes]
    if missing:
        raise ShapeError(f'"{attrs["spec"]}": {missing[0]!r} is not in an operand')
    return Type(tuple(sizes[letter] for letter in output))


def _reduce(types: list[Type], attrs: dict[str, Any]) -> Type:
    (t,) = types
    dims = attrs["dims"]
    if any(not 0 <= d < len(t.shape) for d in dims):
        raise ShapeError(f"axis {dims[0]} of a tensor of shape {t.shown}")
    return Type(tuple(s for i, s in enumerate(t.shape) if i not in dims), (), t.kind)


def _reshape(types: list[Type], attrs: dict[str, Any]) -> Type:
    (t,) = types
    if product(t.shape) != product(attrs["shape"]):
        raise ShapeError(f"{t.shown} has {product(t.shape)} entries, the new shape has {product(attrs['shape'])}")
    return Type(tuple(attrs["shape"]), (), t.kind)


def _broadcast(types: list[Type], attrs: dict[str, Any]) -> Type:
    shape = tuple(attrs["shape"])
    if broadcast_shapes([types[0].shape, shape]) != shape:
        raise ShapeError(f"{types[0].shown} does not stretch to [{', '.join(map(str, shape))}]")
    return Type(shape, (), types[0].kind)


def _concat(types: list[Type], attrs: dict[str, Any]) -> Type:
    dim = attrs["dim"]
    first = types[0].shape
    if any(len(t.shape) != len(first) or not 0 <= dim < len(first) for t in types):
        raise ShapeError("concat: " + " and ".join(t.shown for t in types) + f" on axis {dim}")
    for t in types[1:]:
        if any(a != b for i, (a, b) in enumerate(zip(first, t.shape, strict=False)) if i != dim):
            raise ShapeError(f"concat: {types[0].shown} and {t.shown} differ outside axis {dim}")
    total: Dim = 0
    for t in types:
        total = total + t.shape[dim]
    return Type(first[:dim] + (total,) + first[dim + 1 :], (), types[0].kind)


def _slice(types: list[Type], attrs: dict[str, Any]) -> Type:
    (t,) = types
    dim, start, stop = attrs["dim"], attrs["start"], attrs["stop"]
    size = t.shape[dim]
    if isinstance(start, int) and isinstance(stop, int) and not 0 <= start <= stop:
        raise ShapeError(f"slice {start}:{stop} of axis {dim} of {t.shown}")
    if isinstance(stop, int) and isinstance(size, int) and stop > size:
        raise ShapeError(f"slice {start}:{stop} goes beyond axis {dim} of {t.shown}")
    return Type(t.shape[:dim] + (stop - start,) + t.shape[dim + 1 :], (), t.kind)


def _pad(types: list[Type], attrs: dict[str, Any]) -> Type:
    (t,), dim = types, attrs["dim"]
    return Type(t.shape[:dim] + (t.shape[dim] + attrs["before"] + attrs["after"],) + t.shape[dim + 1 :], (), t.kind)


def _take(types: list[Type], attrs: dict[str, Any]) -> Type:
    table, index = types
    if not table.shape:
        raise ShapeError("a scalar cannot be indexed")
    return Type(index.shape + table.shape[1:], (), table.kind)


def _scatter_add(types: list[Type], attrs: dict[str, Any]) -> Type:
    rows, index = types
    return Type((attrs["n"],) + rows.shape[len(index.shape) :], (), rows.kind)


def _solve(types: list[Type], attrs: dict[str, Any]) -> Type:
    matrix, right = types
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ShapeError(f"solve needs a square matrix, got {matrix.shown}")
    if len(right.shape) not in (1, 2) or right.shape[0] != matrix.shape[0]:
        raise ShapeError(f"solve: {matrix.shown} and {right.shown} do not fit")
    return Type(right.shape)


def _same(types: list[Type], attrs: dict[str, Any]) -> Type:
    return types[0]


def _when(types: list[Type], attrs: dict[str, Any]) -> Type:
    if types[0].shape != types[1].shape:
        raise ShapeError(f"{types[0].shown} and {types[1]} differ")
    return types[0]


def _spread(types: list[Type], attrs: dict[str, Any]) -> Type:
    return Type(types[0].shape[1:], (), types[0].kind)


def _collect(types: list[Type], attrs: dict[str, Any]) -> Type:
    return Type((attrs["size"], *types[0].shape), (), types[0].kind)


def _declared(types: list[Type], attrs: dict[str, Any]) -> Type:
    raise AssertionError("leaves carry their type")


_RULES: dict[str, Rule] = {
    "einsum": _einsum,
    "sum": _reduce,
    "max": _reduce,
    "cumsum": _same,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "take": _take,
    "scatter_add": _scatter_add,
    "one_hot": lambda types, attrs: Type((*types[0].shape, attrs["n"])),
    "spread": _spread,
    "collect": _collect,
    "axis_sum": _same,
    "batch_mean": _same,
    "grad": lambda types, attrs: Type(types[1 + attrs["index"]].shape),
    "stop_grad": _same,
    "fixed": _same,
    "when": _when,
    "solve": _solve,
    "const": lambda types, attrs: Type((), (), "int" if isinstance(attrs["value"], int) else "real"),
    "iota": lambda types, attrs: Type((attrs["n"],), (), "int"),
    "clock": lambda types, attrs: Type((), (), "int"),
    "input": _declared,
    "param": _declared,
    "state": _declared,
    "anchor": _declared,
    **TIME_RULES,
    **WINDOW_RULES,
    **MATRIX_RULES,
}
ALL_OPS = frozenset(_RULES) | POINTWISE


def product(shape: tuple[Dim, ...]) -> Dim:
    """The number of entries of a shape."""
    total: Dim = 1
    for size in shape:
        total = total * size
    return total
