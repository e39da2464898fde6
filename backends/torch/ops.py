"""How each operation of the IR is written in PyTorch; leaves, ``when`` and ``clock`` are in ``body.py``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nldsl.backends.torch import layout
from nldsl.backends.torch.added_products import added, scaled
from nldsl.backends.torch.contractions import einsum
from nldsl.backends.torch.layout import is_view, view
from nldsl.backends.torch.matrix_ops import MATRIX_TABLE
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ADD, AND, ATOM, COMPARE, MUL, OR, POWER, UNARY, Expr, call
from nldsl.backends.torch.time_ops import TIME_TABLE
from nldsl.backends.torch.window_ops import WINDOW_TABLE
from nldsl.ir import ops
from nldsl.ir.program import Instr
from nldsl.ir.types import BATCH, Type, broadcast_shapes

Writer = Callable[[Scope, Instr, list[Expr], Type], Expr]

# op -> the operator, how strongly it binds, how strongly its operands must
ARITHMETIC = {
    "add": ("+", ADD, ADD, ADD + 1),
    "sub": ("-", ADD, ADD, ADD + 1),
    "mul": ("*", MUL, MUL, MUL + 1),
    "div": ("/", MUL, MUL, MUL + 1),
    "mod": ("%", MUL, MUL, MUL + 1),
    "pow": ("**", POWER, ATOM, UNARY),
}
COMPARISON = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
LOGICAL = {"logical_and": ("&", AND), "logical_or": ("|", OR)}
FUNCTIONS = "exp log log1p expm1 sqrt rsqrt abs sign sin cos tanh arctan sigmoid relu erf floor".split()


def write(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    """The expression for an instruction applied to these operands; ``out`` is its type here."""
    return _TABLE[instr.op](scope, instr, args, out)


def _view(expr: Expr, out: Type, strength: int) -> str:
    """The operand lined up with the result, in parentheses where it binds weaker than ``strength``."""
    return view(expr, out) if is_view(expr, out) else expr.at(strength)


def _low(args: list[Expr]) -> bool:
    return all(a.low for a in args if not a.is_literal)


def _settled(scope: Scope, args: list[Expr], out: Type) -> list[Expr]:
    """The operands, with a number as a tensor where no tensor has the shape of the result."""
    shapes = [a.type.shape for a in args if not a.is_literal]
    if shapes and (not out.shape or broadcast_shapes(shapes) == out.shape):
        return args
    found = list(args)
    first = next((i for i, a in enumerate(args) if a.is_literal and a.type.shape == out.shape), None)
    if first is None:
        first = next((i for i, a in enumerate(args) if a.is_literal), None)
    if first is not None:
        found[first] = scope.tensor(args[first])
        return _settled(scope, found, out)
    return found


def _arithmetic(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    symbol, own, left, right = ARITHMETIC[instr.op]
    if out.kind == "real":
        args = [scope.real(a) for a in args]
    args = _settled(scope, args, out)
    if instr.op in ("add", "sub") and not scope.layout.autocast:
        joined = added(args[0], args[1], instr.op == "sub", out)
        if joined is not None:
            return joined
    texts = _view(args[0], out, left), _view(args[1], out, right)
    result = Expr(f"{texts[0]} {symbol} {texts[1]}", out, own, low=_low(args))
    for number, operand in (args, args[::-1]) if instr.op == "mul" else ():
        if operand.type == out:
            result = scaled(number, operand, result)
    return result


def _comparison(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    if not all(a.is_int or a.is_literal for a in args):
        args = [scope.real(a) for a in args]
    args = _settled(scope, args, out)
    left, right = (_view(a, out, COMPARE + 1) for a in args)
    return Expr(f"{left} {COMPARISON[instr.op]} {right}", out, COMPARE, form="bool")


def _bool(scope: Scope, expr: Expr) -> Expr:
    if expr.form == "bool":
        return expr
    return Expr(f"{scope.tensor(expr).at(COMPARE + 1)} != 0", expr.type, COMPARE, form="bool")


def _logical(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    symbol, strength = LOGICAL[instr.op]
    left, right = (_view(_bool(scope, a), out, ATOM) for a in _settled(scope, args, out))
    return Expr(f"{left} {symbol} {right}", out, strength, form="bool")


def _not(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    return Expr(f"~{_bool(scope, args[0]).at(ATOM)}", out, UNARY, form="bool")


def _where(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    condition, *branches = args
    if out.kind == "real":
        branches = [scope.real(b) for b in branches]
    if all(b.is_literal for b in branches):
        branches[0] = scope.tensor(branches[0])
    condition, *branches = _settled(scope, [_bool(scope, condition), *branches], out)
    texts = [view(e, out) for e in (condition, *branches)]
    return Expr(call("torch.where", *texts), out, low=_low(branches))


def _extremum(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    if out.kind == "real":
        args = [scope.real(a) for a in args]
    args = _settled(scope, args, out)
    for expr, bound in (args, args[::-1]):
        if bound.is_literal:
            side = "min" if instr.op == "maximum" else "max"
            return Expr(f"{expr.at(ATOM)}.clamp({side}={bound.text})", out, low=expr.low)
    return Expr(call(f"torch.{instr.op}", *(view(a, out) for a in args)), out, low=_low(args))


def _neg(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    operand = args[0] if out.kind == "int" else scope.real(args[0])
    return Expr(f"-{operand.at(UNARY)}", out, UNARY, operand.form, operand.low)


def _function(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operand = scope.tensor(args[0]) if out.kind == "int" else scope.tensor(scope.real(args[0]))
    return Expr(call(f"torch.{instr.op}", operand.text), out, low=operand.low)


def _softplus(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    # the default threshold of 20 is an error of 2e-9
    operand = scope.tensor(scope.real(args[0]))
    return Expr(call("F.softplus", operand.text, "threshold=40.0"), out, low=operand.low)


def _to_real(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    (operand,) = args
    if operand.is_literal:
        return Expr(operand.text if "." in operand.text else f"{operand.text}.0", out, operand.strength, "literal")
    real = scope.real(operand)
    return Expr(real.text, out, real.strength, real.form, real.low)


def _reduction(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operand, where = scope.tensor(args[0]), instr.attr("dims")
    if not where:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    method = "sum" if instr.op == "sum" else "amax"
    axes = layout.dims(where, len(operand.type.shape))
    axes += scope.added_in(operand) if method == "sum" else ""
    return Expr(f"{operand.at(ATOM)}.{method}({axes})", out, low=operand.low)


def _cumsum(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    dim = instr.attr("dim") - len(out.shape)
    flip = f".flip({dim})" if instr.attr("reverse") else ""
    return Expr(f"{scope.tensor(args[0]).at(ATOM)}{flip}.cumsum({dim}){flip}", out)


def _reshape(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    operand = scope.tensor(args[0])
    old, new = list(operand.type.shape), list(out.shape)
    if old == new:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    found = layout.regrouped(old, new)
    if found and found[0] == "unflatten":
        text = f"{operand.at(ATOM)}.unflatten({found[1]}, ({', '.join(map(scope.dim, found[2]))}))"
    elif found:
        where = ", ".join([str(found[1]), *map(scope.dim, found[2])])
        text = f"{operand.at(ATOM)}.{found[0]}({where})"
    else:
        text = f"{operand.at(ATOM)}.reshape({', '.join(scope.sizes(out)) or '()'})"
    return Expr(text, out, low=operand.low)


def _broadcast(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    if args[0].is_literal:
        return replace(args[0], type=out)
    operand = scope.tensor(args[0])
    if operand.type.shape == out.shape:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    if not operand.type.axes:
        return scope.stretched(operand, out)
    sizes = ["-1"] * len(out.axes) + [scope.dim(s) for s in out.shape]
    return Expr(f"{_view(operand, out, ATOM)}.expand({', '.join(sizes)})", out, low=operand.low)


def _concat(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    parts = [scope.stretched(a, Type(a.type.shape, out.axes, out.kind)) for a in args]
    dim = instr.attr("dim") - len(out.shape)
    return Expr(f"torch.cat([{', '.join(p.text for p in parts)}], {dim})", out, low=_low(parts))


def _slice(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operand, dim = scope.tensor(args[0]), instr.attr("dim")
    size, start, stop = operand.type.shape[dim], instr.attr("start"), instr.attr("stop")
    if start == 0 and stop == size:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    item = f"{'' if start == 0 else scope.dim(start)}:{'' if stop == size else scope.dim(stop)}"
    return Expr(f"{operand.at(ATOM)}[{layout.subscript(dim, len(out.shape), item)}]", out, low=operand.low)


def _pad(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operand = scope.tensor(args[0])
    behind = len(out.shape) - instr.attr("dim") - 1
    amounts = ["0", "0"] * behind + [scope.dim(instr.attr("before")), scope.dim(instr.attr("after"))]
    return Expr(call("F.pad", operand.text, f"({', '.join(amounts)})"), out, low=operand.low)


def _take(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    table, index = scope.tensor(args[0]), scope.tensor(args[1])
    if not table.type.axes:
        if len(table.type.shape) == 2:
            return Expr(call("F.embedding", index.text, table.text), out)
        return Expr(f"{table.at(ATOM)}[{index.text}]", out, low=table.low)
    rows = scope.stretched(table, Type(table.type.shape, out.axes, table.type.kind)).at(ATOM)
    rest, picks = len(table.type.shape) - 1, len(index.type.shape)
    index_text = scope.stretched(index, Type(index.type.shape, out.axes, "int")).at(ATOM)
    if picks != 1:
        index_text += f".flatten({-picks})" if picks else "[..., None]"
    if rest:
        rows += f".flatten({-rest})" if rest > 1 else ""
        text = f"torch.take_along_dim({rows}, {index_text}[..., None], -2)"
        if rest > 1:
            text += f".unflatten(-1, ({', '.join(map(scope.dim, table.type.shape[1:]))}))"
    else:
        text = f"torch.take_along_dim({rows}, {index_text}, -1)"
    where = -1 - rest
    if not picks:
        text += f".squeeze({where})"
    elif picks > 1:
        text += f".unflatten({where}, ({', '.join(map(scope.dim, index.type.shape))}))"
    return Expr(text, out, low=table.low)


def _scatter_add(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    rows, index = scope.tensor(args[0]), scope.tensor(args[1])
    picks, rest = len(index.type.shape), len(rows.type.shape) - len(index.type.shape)
    if not picks and not rest:
        row = _column(args[0], out)
        hot = _column(
            Expr(f"F.one_hot({index.text}, {scope.dim(out.shape[0])})", Type(out.shape, index.type.axes)), out
        )
        return Expr(f"{row} * {hot}.to({scope.need('dtype')})", out, MUL)
    flat = scope.sizes(Type((), out.axes))
    count, width = scope.dim(ops.product(index.type.shape)), scope.dim(ops.product(out.shape[1:]))
    values = scope.stretched(rows, Type(rows.type.shape, out.axes)).at(ATOM)
    if picks != 1 or rest != 1:
        values += f".reshape({', '.join([*flat, count, width])})"
    picked = scope.stretched(index, Type(index.type.shape, out.axes, "int")).at(ATOM)
    picked += f".reshape({', '.join([*flat, count, '1'])}).expand({', '.join([*flat, count, width])})"
    dtype, device = scope.need("dtype"), scope.need("device")
    zeros = f"torch.zeros(({', '.join([*flat, scope.dim(out.shape[0]), width])}), dtype={dtype}, device={device})"
    text = f"{zeros}.scatter_add({len(flat)}, {picked}, {values}.to({dtype}))"
    if rest != 1:
        text += f".reshape({', '.join(scope.sizes(out))})"
    return Expr(text, out)


def _column(expr: Expr, out: Type) -> str:
    """A scalar or vector per lane, lined up with a vector per lane."""
    if expr.is_literal or expr.type.shape:
        return _view(expr, out, ATOM)
    spread = Expr(f"{expr.at(ATOM)}[..., None]", Type((1,), expr.type.axes))
    return _view(spread, out, ATOM)


def _one_hot(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    index = scope.tensor(args[0])
    return Expr(f"F.one_hot({index.text}, {scope.dim(instr.attr('n'))}).to({scope.need('dtype')})", out)


def _spread(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operand = scope.tensor(args[0])
    return _moved(operand, len(operand.type.axes), out.axes.index(instr.attr("axis")), out)


def _collect(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    axis = instr.attr("axis")
    operand = scope.tensor(args[0])
    operand = scope.stretched(operand, scope.layout.with_axis(operand.type, axis))
    return _moved(operand, operand.type.axes.index(axis), len(out.axes), out)


def _moved(operand: Expr, source: int, target: int, out: Type) -> Expr:
    if source == target:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    return Expr(f"{operand.at(ATOM)}.movedim({source}, {target})", out, low=operand.low)


def _axis_sum(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    axis, operand = instr.attr("axis"), scope.tensor(args[0])
    if axis in operand.type.axes:
        return Expr(f"{operand.at(ATOM)}.sum({operand.type.axes.index(axis)})", out, low=operand.low)
    (size,) = scope.sizes(Type((), (axis,)))
    return Expr(f"{size} * {operand.at(UNARY)}", out, MUL, low=operand.low)


def _batch_mean(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    operand = scope.real(scope.tensor(args[0]))
    if BATCH not in operand.type.axes:
        return Expr(operand.text, out, operand.strength, low=operand.low)
    return Expr(f"{operand.at(ATOM)}.mean(0)", out, low=operand.low)


def _stop_grad(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    return Expr(f"{scope.tensor(args[0]).at(ATOM)}.detach()", out, low=args[0].low)


def _iota(scope: Scope, instr: Instr, _args: list[Expr], out: Type) -> Expr:
    return Expr(f"torch.arange({scope.dim(instr.attr('n'))}, device={scope.need('device')})", out)


def _solve(scope: Scope, _: Instr, args: list[Expr], out: Type) -> Expr:
    # PyTorch solves no systems in half precision, on no device
    wide = [scope.widened(scope.stretched(arg, Type(arg.type.shape, out.axes)), once=True) for arg in args]
    matrix, right = (operand.at(ATOM) for operand in wide)
    if len(out.shape) == 1:
        return Expr(f"torch.linalg.solve({matrix}, {right}[..., None]).squeeze(-1)", out, wide=not scope.within)
    return Expr(f"torch.linalg.solve({matrix}, {right})", out, wide=not scope.within)


def _einsum(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    return einsum(scope, instr.attr("spec"), args, out)


_TABLE: dict[str, Writer] = {
    **dict.fromkeys(ARITHMETIC, _arithmetic),
    **dict.fromkeys(COMPARISON, _comparison),
    **dict.fromkeys(LOGICAL, _logical),
    **dict.fromkeys(FUNCTIONS, _function),
    **dict.fromkeys(("maximum", "minimum"), _extremum),
    **dict.fromkeys(("sum", "max"), _reduction),
    "logical_not": _not,
    "where": _where,
    "neg": _neg,
    "softplus": _softplus,
    "to_real": _to_real,
    "einsum": _einsum,
    "cumsum": _cumsum,
    "reshape": _reshape,
    "broadcast": _broadcast,
    "concat": _concat,
    "slice": _slice,
    "pad": _pad,
    "take": _take,
    "scatter_add": _scatter_add,
    "one_hot": _one_hot,
    "spread": _spread,
    "collect": _collect,
    "axis_sum": _axis_sum,
    "batch_mean": _batch_mean,
    "stop_grad": _stop_grad,
    "iota": _iota,
    "solve": _solve,
    **TIME_TABLE,
    **WINDOW_TABLE,
    **MATRIX_TABLE,
}
