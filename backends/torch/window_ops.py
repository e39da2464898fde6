"""How the operations on windows are written; ``segment_windows.py`` has the functions they call."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, Expr, call
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

Writer = Callable[[Scope, Instr, list[Expr], Type], Expr]


def _unfold(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    x, rank = args[0] if not args[0].is_literal else scope.tensor(args[0]), len(args[0].type.shape)
    text = f"{x.at(ATOM)}.unfold({-rank}, {instr.attr('n')}, 1)"
    return Expr(text if rank == 1 else f"{text}.movedim(-1, {-rank})", out, ATOM, low=x.low, form=x.form)


def _band(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    x = scope.tensor(args[0])
    return Expr(call("scan_band", x.text, str(instr.attr("n")), str(-len(x.type.shape))), out, low=x.low)


def _unband(scope: Scope, _instr: Instr, args: list[Expr], out: Type) -> Expr:
    x = scope.tensor(args[0])
    return Expr(call("scan_unband", x.text, str(-len(x.type.shape))), out, low=x.low)


WINDOW_TABLE: dict[str, Writer] = {"unfold": _unfold, "band": _band, "unband": _unband}
