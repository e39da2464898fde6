"""How the scans of matrices are written; ``segment_matrix.py`` has the functions that they call."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.backends.torch.layout import view
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import Expr, call
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

Writer = Callable[[Scope, Instr, list[Expr], Type], Expr]


def _matrix_scan(scope: Scope, instr: Instr, args: list[Expr], out: Type) -> Expr:
    operands = [scope.real(scope.tensor(a)) for a in args]
    texts = [e.text if e.type.axes == out.axes else view(e, Type(e.type.shape, out.axes)) for e in operands]
    function = "scan_matrix_linear" if instr.op == "matrix_scan" else "scan_two_sided"
    return Expr(call(function, *texts, str(instr.attr("reverse"))), out)


MATRIX_TABLE: dict[str, Writer] = {"matrix_scan": _matrix_scan, "two_sided_scan": _matrix_scan}
