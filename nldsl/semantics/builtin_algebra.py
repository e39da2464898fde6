"""Built-in reductions, shapes, products and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nldsl import dims
from nldsl.dims import Dim, Poly
from nldsl.ir.ops import product
from nldsl.ir.program import Initializer
from nldsl.semantics.arithmetic import pointwise, transposed
from nldsl.semantics.context import Context
from nldsl.semantics.scope import Scope
from nldsl.semantics.tensors import as_real, leaves, map_groups, rvalue, stack, to_tensor
from nldsl.semantics.values import POISON, Group, InitValue, ListValue, Poison, Tensor, Unknown, Value, show_type
from nldsl.source import Span

Apply = Callable[[Context, Scope, list[Value], dict[str, Value], Span], Value]
ALGEBRA: dict[str, Apply] = {}


def builtin(name: str, low: int, high: int, *named_allowed: str) -> Callable[[Apply], Apply]:
    """Register an entry that takes ``low`` to ``high`` positional arguments and these named ones."""

    def register(apply: Apply) -> Apply:
        def checked(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
            if not low <= len(args) <= high or any(n not in named_allowed for n in named):
                return NotImplemented
            return apply(ctx, scope, args, named, span)

        ALGEBRA[name] = checked
        return apply

    return register


def tensor_of(ctx: Context, value: Value, span: Span) -> Tensor | Poison:
    """A real tensor."""
    tensor = to_tensor(ctx, value, span)
    return tensor if isinstance(tensor, Poison) else as_real(ctx, tensor, span)


def _axes(ctx: Context, tensor: Tensor, named: dict[str, Value], span: Span) -> tuple[int, ...] | None:
    rank = len(tensor.type.shape)
    if "axis" not in named:
        return tuple(range(rank))
    axis = named["axis"]
    if isinstance(axis, bool) or not isinstance(axis, int) or not -rank <= axis < rank:
        ctx.error("NL0305", span, f"{show_type(tensor.type)} has no axis {axis if isinstance(axis, int) else '?'}")
        return None
    return (axis % rank,)


def _reduce(op: str) -> Apply:
    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        value = rvalue(ctx, args[0], span)
        if isinstance(value, Group) and "axis" not in named:
            parts = [apply(ctx, scope, [item], named, span) for item in value.items]
            return _combine(ctx, parts, "add" if op == "sum" else "maximum", span)
        tensor = tensor_of(ctx, value, span)
        if isinstance(tensor, Poison):
            return POISON
        axes = _axes(ctx, tensor, named, span)
        if axes is None:
            return POISON
        return tensor if not axes else ctx.emit(op, tensor, span=span, dims=axes)

    return apply


def _combine(ctx: Context, parts: list[Value], op: str, span: Span) -> Value:
    if not parts or any(isinstance(p, Poison) for p in parts):
        return POISON
    total = parts[0]
    for part in parts[1:]:
        total = pointwise(ctx, op, span, total, part)
    return total


builtin("sum", 1, 1, "axis")(_reduce("sum"))
builtin("max", 1, 1, "axis")(_reduce("max"))


@builtin("mean", 1, 1, "axis")
def mean(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    flat = leaves(ctx, args[0], span)
    if isinstance(flat, Poison):
        return POISON
    count: Dim = 0
    for tensor in flat:
        axes = _axes(ctx, tensor, named, span)
        if axes is None:
            return POISON
        count = count + product(tuple(tensor.type.shape[a] for a in axes))
    total = ALGEBRA["sum"](ctx, scope, args, named, span)
    return pointwise(ctx, "div", span, total, float(count) if isinstance(count, int) else 1.0)


def _inner(ctx: Context, left: Value, right: Value, span: Span) -> Value:
    """The inner product of all entries, of tensors or of groups."""
    a, b = leaves(ctx, left, span), leaves(ctx, right, span)
    if isinstance(a, Poison) or isinstance(b, Poison):
        return POISON
    if len(a) != len(b):
        return ctx.error("NL0304", span, f"groups of {len(a)} and {len(b)} fields do not combine")
    parts = []
    for x, y in zip(a, b, strict=False):
        if x.type.shape != y.type.shape:
            return ctx.error("NL0301", span, f"shapes {show_type(x.type)} and {show_type(y.type)} do not fit")
        letters = "ijklmnop"[: len(x.type.shape)]
        parts.append(
            ctx.emit("einsum", as_real(ctx, x, span), as_real(ctx, y, span), span=span, spec=f"{letters},{letters}->")
        )
    return _combine(ctx, parts, "add", span)


@builtin("dot", 2, 2)
def dot(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return _inner(ctx, args[0], args[1], span)


@builtin("norm", 1, 1)
def norm(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    total = _inner(ctx, args[0], args[0], span)
    return POISON if isinstance(total, Poison) else pointwise(ctx, "sqrt", span, total)


@builtin("trace", 1, 1)
def trace(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = tensor_of(ctx, args[0], span)
    return POISON if isinstance(tensor, Poison) else ctx.emit("einsum", tensor, span=span, spec="ii->")


@builtin("outer", 2, 2)
def outer(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    def one(a: Value, b: Value) -> Value:
        x, y = tensor_of(ctx, a, span), tensor_of(ctx, b, span)
        if isinstance(x, Poison) or isinstance(y, Poison):
            return POISON
        return ctx.emit("einsum", x, y, span=span, spec="i,j->ij")

    return map_groups(ctx, span, one, *args)


@builtin("einsum", 2, 9)
def einsum(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    spec = args[0]
    if not isinstance(spec, str):
        return NotImplemented
    spec = spec.replace(" ", "")
    left, arrow, right = spec.partition("->")
    if (
        not arrow
        or not (left.replace(",", "") + right).isalpha()
        or len(set(right)) != len(right)
        or not spec.isascii()
    ):
        return ctx.error("NL0310", span, '`einsum` needs a text such as "ij,j->i"')
    tensors = [tensor_of(ctx, a, span) for a in args[1:]]
    if any(isinstance(t, Poison) for t in tensors):
        return POISON
    return ctx.emit("einsum", *(t for t in tensors if isinstance(t, Tensor)), span=span, code="NL0310", spec=spec)


@builtin("solve", 2, 2)
def solve(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    a, b = tensor_of(ctx, args[0], span), tensor_of(ctx, args[1], span)
    return POISON if isinstance(a, Poison) or isinstance(b, Poison) else ctx.emit("solve", a, b, span=span)


@builtin("transpose", 1, 1)
def transpose(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    return map_groups(ctx, span, lambda v: transposed(ctx, v, span), args[0])


# ---------------------------------------------------------------- shapes


def static_shape(ctx: Context, value: Value, span: Span) -> tuple[Dim, ...] | None:
    items = value.items if isinstance(value, ListValue) else (value,)
    for item in items:
        if isinstance(item, bool) or not isinstance(item, (int, Poly)) or (isinstance(item, int) and item < 1):
            ctx.error("NL0302", span, "a shape is a list of positive integers: `[a, b]`")
            return None
    return tuple(items)


@builtin("reshape", 2, 2)
def reshape(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor, shape = to_tensor(ctx, args[0], span), static_shape(ctx, args[1], span)
    if isinstance(tensor, Poison) or shape is None:
        return POISON
    return tensor if tensor.type.shape == shape else ctx.emit("reshape", tensor, span=span, shape=shape)


@builtin("broadcast", 2, 2)
def broadcast(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor, shape = to_tensor(ctx, args[0], span), static_shape(ctx, args[1], span)
    if isinstance(tensor, Poison) or shape is None:
        return POISON
    return tensor if tensor.type.shape == shape else ctx.emit("broadcast", tensor, span=span, shape=shape)


def _filled(number: float) -> Apply:
    def apply(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
        if not args:
            return InitValue(Initializer("constant", (number,)))
        shape = static_shape(ctx, args[0], span)
        return POISON if shape is None else ctx.emit("broadcast", ctx.const(number), span=span, shape=shape)

    return apply


builtin("zeros", 0, 1)(_filled(0.0))
builtin("ones", 0, 1)(_filled(1.0))


@builtin("identity", 1, 1)
def identity(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    """``identity(n)``: a matrix; ``identity(0.5)``: an initializer."""
    size = args[0]
    if isinstance(size, (float, Unknown)):
        return InitValue(Initializer("identity", (size if isinstance(size, float) else 1.0,)))
    if not isinstance(size, (int, Poly)) or isinstance(size, bool):
        return NotImplemented
    rows = ctx.emit("reshape", ctx.emit("iota", n=size), span=span, shape=(size, 1))
    return ctx.emit("eq", rows, ctx.emit("iota", n=size), span=span)


@builtin("iota", 1, 1)
def iota(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    if not isinstance(args[0], (int, Poly)) or isinstance(args[0], bool):
        return NotImplemented
    return ctx.emit("iota", span=span, n=args[0])


@builtin("column", 1, 1)
def column(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = to_tensor(ctx, args[0], span)
    return (
        POISON if isinstance(tensor, Poison) else ctx.emit("reshape", tensor, span=span, shape=(*tensor.type.shape, 1))
    )


@builtin("row", 1, 1)
def row(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = to_tensor(ctx, args[0], span)
    return (
        POISON if isinstance(tensor, Poison) else ctx.emit("reshape", tensor, span=span, shape=(1, *tensor.type.shape))
    )


@builtin("diag", 1, 1)
def diag(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = tensor_of(ctx, args[0], span)
    if isinstance(tensor, Poison):
        return POISON
    if len(tensor.type.shape) != 1:
        return ctx.error("NL0301", span, f"`diag` makes a matrix of a vector, found {show_type(tensor.type)}")
    return pointwise(ctx, "mul", span, identity(ctx, scope, [tensor.type.shape[0]], {}, span), tensor)


@builtin("concat", 1, 64, "axis")
def concat(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    items = args[0].items if len(args) == 1 and isinstance(args[0], (ListValue, Group)) else tuple(args)
    tensors = [tensor_of(ctx, a, span) for a in items]
    if any(isinstance(t, Poison) for t in tensors):
        return POISON
    parts = [t for t in tensors if isinstance(t, Tensor)]
    axis = named.get("axis", 0)
    rank = len(parts[0].type.shape) if parts else 0
    if not isinstance(axis, int) or not -rank <= axis < rank:
        return ctx.error("NL0305", span, "there is no such axis")
    return parts[0] if len(parts) == 1 else ctx.emit("concat", *parts, span=span, dim=axis % rank)


@builtin("stack", 1, 64)
def stacked(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    items = args[0].items if len(args) == 1 and isinstance(args[0], (ListValue, Group)) else tuple(args)
    tensors = [to_tensor(ctx, a, span) for a in items]
    if any(isinstance(t, Poison) for t in tensors):
        return POISON
    return stack(ctx, [t for t in tensors if isinstance(t, Tensor)], span)


@builtin("split", 2, 2)
def split(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor, count = to_tensor(ctx, args[0], span), args[1]
    if isinstance(tensor, Poison):
        return POISON
    if isinstance(count, (Poly, Unknown)):
        return ListValue((tensor,))
    if not isinstance(count, int) or count < 1 or count > 256 or not tensor.type.shape:
        return NotImplemented
    part = dims.divide(tensor.type.shape[0], count)
    if part is None:
        return ctx.error("NL0302", span, f"{show_type(tensor.type)} does not split into {count} equal parts")
    pieces = tuple(
        ctx.emit("slice", tensor, span=span, dim=0, start=part * n, stop=part * (n + 1)) for n in range(count)
    )
    return POISON if any(isinstance(p, Poison) for p in pieces) else ListValue(pieces)


@builtin("triangle", 1, 1)
def triangle(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = tensor_of(ctx, args[0], span)
    if isinstance(tensor, Poison):
        return POISON
    if len(tensor.type.shape) != 2:
        return ctx.error("NL0301", span, f"`triangle` takes a matrix, found {show_type(tensor.type)}")
    rows = ctx.emit("reshape", ctx.emit("iota", n=tensor.type.shape[0]), shape=(tensor.type.shape[0], 1))
    keep = ctx.emit("ge", rows, ctx.emit("iota", n=tensor.type.shape[1]), span=span)
    return ctx.emit("where", keep, tensor, ctx.const(0.0), span=span)


@builtin("one_hot", 2, 2)
def one_hot(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = to_tensor(ctx, args[0], span)
    if isinstance(tensor, Poison) or not isinstance(args[1], (int, Poly)):
        return POISON if isinstance(tensor, Poison) else NotImplemented
    return ctx.emit("one_hot", tensor, span=span, n=args[1])


# ---------------------------------------------------------------- along the last axis


def _keepdim(ctx: Context, value: Value, span: Span) -> Value:
    if not isinstance(value, Tensor):
        return POISON
    return ctx.emit("reshape", value, span=span, shape=(*value.type.shape, 1))


def _last(ctx: Context, args: list[Value], span: Span, what: str) -> Tensor | Poison:
    tensor = tensor_of(ctx, args[0], span)
    if isinstance(tensor, Tensor) and not tensor.type.shape:
        return ctx.error("NL0301", span, f"`{what}` works along the last axis, a scalar has none")
    return tensor


def _log_sum_exp(ctx: Context, tensor: Tensor, span: Span) -> Value:
    last = (len(tensor.type.shape) - 1,)
    top = ctx.emit("stop_grad", ctx.emit("max", tensor, span=span, dims=last), span=span)
    shifted = pointwise(ctx, "sub", span, tensor, _keepdim(ctx, top, span))
    total = ctx.emit("sum", pointwise(ctx, "exp", span, shifted), span=span, dims=last)
    return pointwise(ctx, "add", span, pointwise(ctx, "log", span, total), top)


@builtin("softmax", 1, 1)
def softmax(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = _last(ctx, args, span, "softmax")
    if isinstance(tensor, Poison):
        return POISON
    last = (len(tensor.type.shape) - 1,)
    top = ctx.emit("stop_grad", ctx.emit("max", tensor, span=span, dims=last), span=span)
    power = pointwise(ctx, "exp", span, pointwise(ctx, "sub", span, tensor, _keepdim(ctx, top, span)))
    return pointwise(ctx, "div", span, power, _keepdim(ctx, ctx.emit("sum", power, span=span, dims=last), span))


@builtin("log_softmax", 1, 1)
def log_softmax(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = _last(ctx, args, span, "log_softmax")
    if isinstance(tensor, Poison):
        return POISON
    return pointwise(ctx, "sub", span, tensor, _keepdim(ctx, _log_sum_exp(ctx, tensor, span), span))


@builtin("logsumexp", 1, 1)
def logsumexp(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = _last(ctx, args, span, "logsumexp")
    return POISON if isinstance(tensor, Poison) else _log_sum_exp(ctx, tensor, span)


@builtin("unit", 1, 2)
def unit(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = _last(ctx, args, span, "unit")
    if isinstance(tensor, Poison):
        return POISON
    epsilon: Any = args[1] if len(args) == 2 else 1e-6
    squares = ctx.emit(
        "sum", pointwise(ctx, "mul", span, tensor, tensor), span=span, dims=(len(tensor.type.shape) - 1,)
    )
    length = pointwise(ctx, "rsqrt", span, pointwise(ctx, "add", span, squares, epsilon))
    return pointwise(ctx, "mul", span, tensor, _keepdim(ctx, length, span))


@builtin("cumsum", 1, 1)
def cumsum(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    tensor = _last(ctx, args, span, "cumsum")
    if isinstance(tensor, Poison):
        return POISON
    return ctx.emit("cumsum", tensor, span=span, dim=len(tensor.type.shape) - 1, reverse=False)


@builtin("cross_entropy", 2, 2)
def cross_entropy(ctx: Context, scope: Scope, args: list[Value], named: dict[str, Value], span: Span) -> Value:
    logits, target = tensor_of(ctx, args[0], span), to_tensor(ctx, args[1], span)
    if isinstance(logits, Poison) or isinstance(target, Poison):
        return POISON
    if len(logits.type.shape) != 1 or target.type.kind != "int" or target.type.shape:
        return ctx.error(
            "NL0301",
            span,
            "`cross_entropy` takes logits [n] and an integer target, "
            f"found {show_type(logits.type)} and {show_type(target.type)}",
        )
    picked = ctx.emit("take", logits, target, span=span)
    return pointwise(ctx, "sub", span, _log_sum_exp(ctx, logits, span), picked)
