"""How the operations over the ticks of a segment are written; ``segment.py`` has the functions they call."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.torch.layout import view
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, Expr, call
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME, Type

Writer = Callable[[Scope, Instr, list[Expr], Type], Expr]


def _real(scope: Scope, expr: Expr, axes: tuple[str, ...] | None = None) -> str:
    """The operand as a tensor; with ``axes``, laid out with just these."""
    expr = scope.real(scope.tensor(expr))
    if axes is None or expr.type.axes == axes:
        return expr.text
    return view(expr, Type(expr.type.shape, axes))


def _over_axes(text: str, decay: str, missing: bool) -> str:
    """The operand ``text``, also over the axes of copies that only the decays have, if any are ``missing``: blocks of
    ticks of both are put together."""
    return f"({text} + torch.zeros_like({decay}))" if missing else text


def _solve_triangular(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    matrix, right = (_real(scope, a, out.axes) for a in args)
    upper = "upper=False"
    if ("transposed", True) in instr.attrs:
        matrix, upper = f"{matrix if matrix.isidentifier() else f'({matrix})'}.mT", "upper=True"
    if len(out.shape) == 1:
        text = call("torch.linalg.solve_triangular", matrix, f"{right}[..., None]", upper, "unitriangular=True")
        return Expr(f"{text}.squeeze(-1)", out)
    return Expr(call("torch.linalg.solve_triangular", matrix, right, upper, "unitriangular=True"), out)


def _segprod(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    function = "scan_matrix_products" if instr.attr("matrix") else "scan_products"
    return Expr(call(function, _real(scope, args[0]), str(-len(args[0].type.shape))), out)


def _cumprod(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    flags = str(instr.attr("reverse")), str(instr.attr("exclusive"))
    return Expr(call("scan_cumprod", _real(scope, args[0]), str(-len(out.shape)), *flags), out)


def _decay_gram(scope: Scope, _instr: Instr, args: list[Expr], out: Type) -> Expr:
    q, decay, k = (_real(scope, a, out.axes) for a in args)
    missing = not set(args[1].type.axes) <= {*args[0].type.axes, *args[2].type.axes}
    return Expr(call("scan_decay_gram", q, decay, _over_axes(k, decay, missing)), out)


def _decay_gram_grad(scope: Scope, _instr: Instr, args: list[Expr], out: Type) -> Expr:
    return Expr(call("scan_decay_gram_grad", *(_real(scope, a, out.axes) for a in args)), out)


def _linear_scan(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    decay, new = args
    lead, rank = decay.type.shape[0], len(out.shape)
    if len(decay.type.shape) < rank:
        shape = (lead, *(1 for _ in range(rank - len(decay.type.shape))), *decay.type.shape[1:])
        sizes = scope.sizes(Type(shape, decay.type.axes))
        decay = Expr(f"{_real(scope, decay)}.reshape({', '.join(sizes)})", Type(shape, decay.type.axes))
    texts = [_real(scope, decay, out.axes), _real(scope, new, out.axes)]
    texts[1] = _over_axes(texts[1], texts[0], not set(decay.type.axes) <= set(new.type.axes))
    if ("reverse", True) not in instr.attrs:
        return Expr(call("scan_linear", *texts, str(-rank)), out)
    flipped = [f"{text if text.isidentifier() else f'({text})'}.flip({-rank})" for text in texts]
    return Expr(f"{call('scan_linear', *flipped, str(-rank))}.flip({-rank})", out)


def _lane(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    """One of the variables that hold the lanes of a value, which is taken apart once in each block of code."""
    (value,) = args
    axis = instr.attr("axis")
    key = id(scope.code), value.text, axis
    if key not in scope.lanes:
        axes = scope.layout.program.axes
        size = instr.attr("size") if axis == TIME else int(str(next(a.size for a in axes if a.name == axis)))
        hint = value.text if value.text.isidentifier() else "x"
        names = [scope.names.new(f"{hint}_{n}") for n in range(size)]
        targets = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
        scope.code.add(f"{targets} = {value.at(ATOM)}.unbind({value.type.axes.index(axis)})")
        scope.lanes[key] = names, scope.code  # the block is kept, so that its id stays its own
    return Expr(scope.lanes[key][0][instr.attr("index")], out, low=value.low)


TIME_TABLE: dict[str, Writer] = {
    "solve_triangular": _solve_triangular,
    "segprod": _segprod,
    "cumprod": _cumprod,
    "decay_gram": _decay_gram,
    "decay_gram_grad": _decay_gram_grad,
    "linear_scan": _linear_scan,
    "lane": _lane,
}
