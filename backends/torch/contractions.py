"""``einsum`` as the fastest plain form: a product, a sum of a product, a matrix product, ``torch.einsum`` else.

Dimensions are *labels*: the names of mapped axes and the letters of the spec. Layouts are lists of labels.
"""

from __future__ import annotations

import string

from nldsl.backends.torch.added_products import matrix_product, scaled
from nldsl.backends.torch.layout import indexed
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, MUL, Expr
from nldsl.ir.ops import split_spec
from nldsl.ir.types import Type

Labels = list[str]


def einsum(scope: Scope, spec: str, args: list[Expr], out: Type) -> Expr:
    """The contraction of these operands."""
    letters, output = split_spec(spec)
    target = [*out.axes, *output]
    factors = [a for a in args if a.is_literal and not a.type.shape]
    rest = [(a, text) for a, text in zip(args, letters, strict=True) if a not in factors]
    operands = [(scope.real(scope.tensor(a)), [*a.type.axes, *text]) for a, text in rest]
    if not operands:
        operands = [(scope.tensor(factors.pop()), [])]
    if len(operands) == 1:
        result = _one(*operands[0], target, out)
    elif len(operands) == 2:
        result = _two(scope, *operands[0], *operands[1], target, out)
    else:
        result = None
    if result is None:
        result = _general(operands, target, out)
    for factor in factors:
        result = scaled(factor, result, Expr(f"{factor.text} * {result.at(MUL)}", out, MUL, low=result.low))
    return result


def _general(operands: list[tuple[Expr, Labels]], target: Labels, out: Type) -> Expr:
    """``torch.einsum``, with a capital for each mapped axis."""
    letter: dict[str, str] = {}
    for labels in [*(labels for _, labels in operands), target]:
        for label in labels:
            if label not in letter:
                wish = [label, label[0].upper(), *string.ascii_uppercase]
                letter[label] = next(w for w in wish if len(w) == 1 and w.isalpha() and w not in letter.values())
    spec = ",".join("".join(letter[label] for label in labels) for _, labels in operands)
    spec += "->" + "".join(letter[label] for label in target)
    texts = ", ".join(e.text for e, _ in operands)
    return Expr(f'torch.einsum("{spec}", {texts})', out, low=True)


def _summed(expr: Expr, labels: Labels, gone: Labels) -> tuple[Expr, Labels]:
    """The operand summed over these labels."""
    if not gone:
        return expr, labels
    where = [str(labels.index(label) - len(labels)) for label in gone]
    axis = where[0] if len(where) == 1 else f"({', '.join(where)})"
    left = [label for label in labels if label not in gone]
    return Expr(f"{expr.at(ATOM)}.sum({axis})", expr.type, low=expr.low), left


def _ordered(expr: Expr, labels: Labels, wanted: Labels) -> Expr:
    """The operand with its dimensions in another order."""
    if labels == wanted:
        return expr
    if len(labels) > 1 and labels[:-2] == wanted[:-2]:
        return Expr(f"{expr.at(ATOM)}.mT", expr.type, low=expr.low)
    order = ", ".join(str(labels.index(label)) for label in wanted)
    return Expr(f"{expr.at(ATOM)}.permute({order})", expr.type, low=expr.low)


def _one(expr: Expr, labels: Labels, target: Labels, out: Type) -> Expr | None:
    doubled = sorted({label for label in labels if labels.count(label) > 1})
    if len(doubled) == 1 and labels.count(doubled[0]) == 2:
        first = labels.index(doubled[0])
        second = labels.index(doubled[0], first + 1)
        rank = len(labels)
        expr = Expr(f"{expr.at(ATOM)}.diagonal(0, {first - rank}, {second - rank})", expr.type, low=expr.low)
        labels = [label for label in labels if label != doubled[0]] + doubled
    elif doubled:
        return None
    expr, labels = _summed(expr, labels, [label for label in labels if label not in target])
    expr = _ordered(expr, labels, [label for label in target if label in labels])
    return Expr(expr.text, out, expr.strength, low=expr.low)


def _two(scope: Scope, a: Expr, la: Labels, b: Expr, lb: Labels, target: Labels, out: Type) -> Expr | None:
    if len(set(la)) < len(la) or len(set(lb)) < len(lb):
        return None
    a, la = _summed(a, la, [x for x in la if x not in lb and x not in target])
    b, lb = _summed(b, lb, [x for x in lb if x not in la and x not in target])
    contracted = [x for x in la if x in lb and x not in target]
    low = a.low and b.low
    if not contracted:
        left, right = _spread_out(a, la, target), _spread_out(b, lb, target)
        return Expr(f"{left.at(MUL)} * {right.at(MUL + 1)}", out, MUL, low=low)
    batch = [x for x in target if x in la and x in lb]
    rows = [x for x in target if x in la and x not in lb]
    columns = [x for x in target if x in lb and x not in la]
    if not rows and not columns:
        if la != lb or la != batch + contracted:
            return None
        axis = ", ".join(str(-1 - i) for i in range(len(contracted)))
        axis = axis if len(contracted) == 1 else f"({axis})"
        return Expr(f"({a.at(MUL)} * {b.at(MUL + 1)}).sum({axis}{scope.added_in(a, b)})", out, low=low)
    if len(contracted) > 1:
        return None
    return _product(a, la, b, lb, target, out) or _product(b, lb, a, la, target, out)


def _spread_out(expr: Expr, labels: Labels, target: Labels) -> Expr:
    expr = _ordered(expr, labels, [x for x in target if x in labels])
    text = indexed(expr, [x in labels for x in target])
    return expr if text == expr.text else Expr(text, expr.type, low=expr.low)


def _product(a: Expr, la: Labels, b: Expr, lb: Labels, target: Labels, out: Type) -> Expr | None:
    """``a @ b``, summed over the last label of ``a``; None where the layouts do not allow it."""
    (k,) = (x for x in la if x in lb and x not in target)
    batch = [x for x in target if x in la and x in lb]
    rows = [x for x in target if x in la and x not in lb]
    columns = [x for x in target if x in lb and x not in la]
    if len(columns) > 1:
        return None
    if not batch:  # one matrix (or vector) for everything: a single large product
        if target != rows + columns or len(la) < 1:
            return None
        if la != [*rows, k] and not (len(la) == 2 and la == [k, *rows]):
            return None
        left, right = _ordered(a, la, [*rows, k]), _ordered(b, lb, [k, *columns])
        return matrix_product(left, right, out, len(rows) == 1 and len(columns) == 1)
    if len(rows) > 1 or not rows or target != batch + rows + columns:
        return None
    if sorted(la[: len(batch)]) != sorted(batch) or la[: len(batch)] != batch or lb[: len(batch)] != batch:
        return None
    left = _ordered(a, la, [*batch, *rows, k])
    if columns:
        right = _ordered(b, lb, [*batch, k, *columns])
        return matrix_product(left, right, out, len(batch) == 1)
    return Expr(f"({left.at(MUL + 1)} @ {b.at(ATOM)}[..., None]).squeeze(-1)", out, low=True)
