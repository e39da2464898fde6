"""A matrix product that is added to something, as one call.

``torch.addmm`` and ``torch.baddbmm`` read what it is added to once, where ``c * x + a @ b`` goes through memory three
times more.

Not under autocast, where the call would take all three in half precision.
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.backends.torch.target_ast import MUL, Expr, Scaled, call
from nldsl.ir.types import Type


def matrix_product(left: Expr, right: Expr, out: Type, plain: bool) -> Expr:
    """``left @ right``; ``plain``: two matrices, or one matrix each for every row of one batch."""
    text = f"{left.at(MUL + 1)} @ {right.at(MUL + 1)}"
    return Expr(text, out, MUL, low=True, parts=Scaled("", left.text, right.text) if plain else None)


def scaled(number: Expr, operand: Expr, result: Expr) -> Expr:
    """``result``, which is ``number * operand``, with what it is made of."""
    if not number.is_literal or operand.form != "tensor" or operand.type.kind != "real":
        return result
    if operand.parts is None:
        return replace(result, parts=Scaled(number.text, operand.text))
    return result if operand.parts.number else replace(result, parts=replace(operand.parts, number=number.text))


def added(left: Expr, right: Expr, minus: bool, out: Type) -> Expr | None:
    """``left + right`` (``left - right``) as one call, where one of them is a matrix product."""
    if any(e.form != "tensor" or e.type != out for e in (left, right)):
        return None
    for product, other in ((right, left), (left, right)):
        parts = product.parts
        if parts is None or not parts.right:
            continue
        rest = other.parts if other.parts is not None and not other.parts.right else Scaled("", other.text)
        numbers = [_signed(rest.number, minus and other is right), _signed(parts.number, minus and product is right)]
        options = [f"{name}={n}" for name, n in zip(("beta", "alpha"), numbers, strict=True) if n]
        name = "torch.addmm" if len(out.shape) + len(out.axes) == 2 else "torch.baddbmm"
        return Expr(call(name, rest.left, parts.left, parts.right, *options), out, low=left.low and right.low)
    return None


def _signed(number: str, minus: bool) -> str:
    if not minus:
        return number
    return number[1:] if number.startswith("-") else f"-{number or 1}"
