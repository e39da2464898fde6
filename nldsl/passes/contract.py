"""Products and contractions of tensors whose dims are named by letters, as binary operations in a good order."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from string import ascii_letters

from nldsl.dims import Dim
from nldsl.ir.build import Builder

Letter = Hashable
GUESS = 64  # the size of a dim that is known only when the program runs


@dataclass(frozen=True)
class Operand:
    """A value and the letter of each of its dims; None for a dim of size 1."""

    value: int
    letters: tuple[Letter | None, ...]


def contract(builder: Builder, operands: Sequence[Operand], out: tuple[Letter, ...], scale: float = 1.0) -> Operand:
    """The product of the operands summed over the letters that are not in ``out``.

    The letters of the result are those of ``out`` that some operand has, in that order.
    """
    sizes: dict[Letter, Dim] = {}
    left = []
    for operand in operands:
        sizes.update(
            (x, s) for x, s in zip(operand.letters, builder.type(operand.value).shape, strict=True) if x is not None
        )
        left.append(_squeezed(builder, operand))
    if not left:
        return Operand(builder.const(float(scale)), ())
    while len(left) > 1:
        i, j = _best(left, out, sizes)
        rest = [o for n, o in enumerate(left) if n not in (i, j)]
        kept = _needed(rest, out)
        left = [*rest, _pair(builder, left[i], left[j], kept, () if rest else out)]
    (result,) = left
    result = arranged(builder, result, tuple(x for x in out if x in result.letters))
    return Operand(scaled(builder, result.value, scale), result.letters)


def scaled(builder: Builder, value: int, scale: float) -> int:
    """``scale`` times the value."""
    if scale == 1.0:
        return value
    return negative(builder, value) if scale == -1.0 else builder.emit("mul", value, builder.const(float(scale)))


def negative(builder: Builder, value: int) -> int:
    """``-value`` without a second sign."""
    instr = builder.instrs[value]
    return instr.args[0] if instr.op == "neg" else builder.emit("neg", value)


def added(builder: Builder, left: int, right: int) -> int:
    """``left + right``, as a difference where one has a sign."""
    for a, b in ((left, right), (right, left)):
        if builder.instrs[b].op == "neg":
            return builder.emit("sub", a, builder.instrs[b].args[0])
    return builder.emit("add", left, right)


def arranged(builder: Builder, operand: Operand, letters: tuple[Letter, ...]) -> Operand:
    """The operand with just these letters in this order; others are summed over."""
    if operand.letters == letters:
        return operand
    name = dict(zip(dict.fromkeys(operand.letters), ascii_letters, strict=False))
    spec = "".join(name[x] for x in operand.letters) + "->" + "".join(name[x] for x in letters)
    return Operand(builder.emit("einsum", operand.value, spec=spec), letters)


def placed(builder: Builder, operand: Operand, letters: tuple[Letter | None, ...]) -> int:
    """The operand as a tensor with one dim for each of ``letters``; size 1 where it has no such dim."""
    own = tuple(x for x in letters if x in operand.letters and x is not None)
    operand = arranged(builder, _squeezed(builder, operand), own)
    sizes = dict(zip(operand.letters, builder.type(operand.value).shape, strict=True))
    shape = tuple(sizes.get(x, 1) for x in letters)
    if shape == builder.type(operand.value).shape:
        return operand.value
    return builder.emit("reshape", operand.value, shape=shape)


def _squeezed(builder: Builder, operand: Operand) -> Operand:
    if None not in operand.letters:
        return operand
    shape = builder.type(operand.value).shape
    kept = tuple(s for s, x in zip(shape, operand.letters, strict=True) if x is not None)
    value = builder.emit("reshape", operand.value, shape=kept)
    return Operand(value, tuple(x for x in operand.letters if x is not None))


def _needed(operands: Sequence[Operand], out: tuple[Letter, ...]) -> set[Letter]:
    return {x for o in operands for x in o.letters if x is not None} | set(out)


def _count(letters: set[Letter], sizes: dict[Letter, Dim]) -> int:
    total = 1
    for letter in letters:
        size = sizes[letter]
        total *= size if isinstance(size, int) else GUESS
    return total


def _best(operands: list[Operand], out: tuple[Letter, ...], sizes: dict[Letter, Dim]) -> tuple[int, int]:
    """The pair whose product saves most memory; of equals, the first."""
    best, found = None, (0, 1)
    for i in range(len(operands)):
        for j in range(i + 1, len(operands)):
            a, b = set(operands[i].letters), set(operands[j].letters)
            kept = _needed([o for n, o in enumerate(operands) if n not in (i, j)], out)
            cost = _count((a | b) & kept, sizes) - _count(a, sizes) - _count(b, sizes)
            if best is None or cost < best:
                best, found = cost, (i, j)
    return found


def _pair(builder: Builder, a: Operand, b: Operand, kept: set[Letter], order: tuple[Letter, ...]) -> Operand:
    """The product of two, summed over what is not in ``kept``; the letters of ``order`` first, in that order."""
    union = tuple(dict.fromkeys((*a.letters, *b.letters)))
    plain = len(set(a.letters)) == len(a.letters) and len(set(b.letters)) == len(b.letters)
    if plain and all(x in kept for x in union):
        merged = _merged(a.letters, b.letters)
        return Operand(builder.emit("mul", placed(builder, a, merged), placed(builder, b, merged)), merged)
    result = tuple(x for x in dict.fromkeys((*order, *union)) if x in kept and x in union)
    name = dict(zip(union, ascii_letters, strict=False))
    spec = ",".join("".join(name[x] for x in o.letters) for o in (a, b)) + "->" + "".join(name[x] for x in result)
    return Operand(builder.emit("einsum", a.value, b.value, spec=spec), result)


def _merged(a: tuple[Letter, ...], b: tuple[Letter, ...]) -> tuple[Letter, ...]:
    """An order of all letters that keeps the order of both where that is possible."""
    result = list(a)
    place = 0
    for letter in b:
        if letter in result:
            place = max(place, result.index(letter) + 1)
        else:
            result.insert(place, letter)
            place += 1
    return tuple(result)
