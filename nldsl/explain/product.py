"""Products of terms: scalar, elementwise and matrix products, transposes, and contractions recognised as such."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from nldsl.dims import Dim
from nldsl.explain.terms import (
    Call,
    Chain,
    Contraction,
    Diag,
    Hadamard,
    Norm2,
    Num,
    Number,
    Power,
    Sym,
    Term,
    Transpose,
    common_shape,
    merged,
    parts,
    power,
    scaled,
)
from nldsl.ir.ops import split_spec


def times(left: Term, right: Term) -> Term:
    """The pointwise product; a vector times a matrix scales columns, a column times a matrix scales rows."""
    a, s, x = parts(left)
    b, r, y = parts(right)
    if x is not None and isinstance(x, Num):
        x = None if y is not None and common_shape((x, y)) == y.shape else x
    if y is not None and isinstance(y, Num):
        y = None if x is not None and common_shape((x, y)) == x.shape else y
    x, first = _without_ones(x, y)
    y, second = _without_ones(y, x)
    scalars = merged((*s, *r, *first, *second))
    if x is None or y is None:
        return scaled(a * b, scalars, y if x is None else x)
    return scaled(a * b, scalars, elementwise(x, y))


def _without_ones(core: Term | None, other: Term | None) -> tuple[Term | None, tuple[Term, ...]]:
    """A tensor of one entry next to a larger one is a scalar factor."""
    if core is None or other is None or core.shape != (1,) or other.shape == (1,) or isinstance(core, Num):
        return core, ()
    return None, (replace(core, shape=()),)


def divide(top: Term, bottom: Term) -> Term:
    """The pointwise quotient."""
    return times(top, power(bottom, Num((), -1)))


def elementwise(x: Term, y: Term) -> Term:
    """The product of two cores."""
    if x.shape == y.shape:
        return hadamard(x, y)
    if isinstance(x, Call) and x.function == "column":
        inner = x.args[0]
        if len(y.shape) == 1:
            return chain(inner, transpose(y))
        if isinstance(y, Call) and y.function == "row":
            return chain(inner, transpose(y.args[0]))
        if len(y.shape) == 2 and y.shape[0] == inner.shape[0]:
            return chain(Diag((inner.shape[0], inner.shape[0]), inner), y)
    if isinstance(y, Call) and y.function == "column":
        return elementwise(y, x)
    for matrix, vector in ((x, y), (y, x)):
        scale = vector.args[0] if isinstance(vector, Call) and vector.function == "row" else vector
        if len(matrix.shape) == 2 and len(scale.shape) == 1 and matrix.shape[1] == scale.shape[0]:
            return chain(matrix, Diag((scale.shape[0], scale.shape[0]), scale))
    return hadamard(x, y)


def hadamard(*factors: Term) -> Term:
    """Flat elementwise product of terms without coefficients, equal factors as powers."""
    flat: list[Term] = []
    shape = common_shape(factors)
    for factor in factors:
        flat.extend(factor.factors if isinstance(factor, Hadamard) and factor.shape == shape else (factor,))
    product = merged(tuple(flat))
    if not product:
        return Num(shape, 1)
    return product[0] if len(product) == 1 else Hadamard(shape, product)


def transpose(term: Term) -> Term:
    """The transpose of a matrix, or a vector as a row."""
    coefficient, scalars, core = parts(term)
    if core is None:
        return term
    return scaled(coefficient, scalars, _transpose_core(core))


def _transpose_core(core: Term) -> Term:
    shape = tuple(reversed(core.shape)) if len(core.shape) == 2 else core.shape
    if isinstance(core, Transpose):
        return core.of
    if isinstance(core, Diag):
        return core
    if isinstance(core, Chain):
        return Chain(shape, tuple(_transpose_core(f) for f in reversed(core.factors)))
    return Transpose(shape, core)


def chain(*factors: Term) -> Term:
    """The matrix product. A row is a ``Transpose`` of a vector; any other vector is a column."""
    coefficient: Number = 1
    scalars: tuple[Term, ...] = ()
    flat: list[Term] = []
    for factor in factors:
        c, s, core = parts(factor)
        coefficient, scalars = coefficient * c, (*scalars, *s)
        if core is None:
            continue
        flat.extend(core.factors if isinstance(core, Chain) else (core,))
    identity = next((f for f in flat if _is_identity(f)), None)
    flat = [f for f in flat if not _is_identity(f)]
    if identity is not None and not flat:
        flat = [identity]
    flat = _absorb_diagonals(flat)
    if len(flat) == 1:
        return scaled(coefficient, scalars, flat[0])
    if not is_row(flat[0]) or not is_column(flat[-1]):
        return scaled(coefficient, merged(scalars), Chain(_chain_shape(flat), tuple(flat)))
    return scaled(coefficient, merged((*scalars, _inner(flat))), None)


def _is_identity(term: Term) -> bool:
    return isinstance(term, Sym) and term.kind == "word" and term.name == "I"


def is_row(term: Term) -> bool:
    """Whether a factor of a chain is a vector written as a row."""
    return isinstance(term, Transpose) and len(term.of.shape) == 1


def is_column(term: Term) -> bool:
    """Whether a factor of a chain is a vector written as a column."""
    return len(term.shape) == 1 and not is_row(term)


def _inner(flat: list[Term]) -> Term:
    first = flat[0]
    if len(flat) == 2 and isinstance(first, Transpose) and _square_root(first.of) and _square_root(flat[1]):
        return inner(first.of, flat[1])
    if len(flat) == 2 and isinstance(first, Transpose) and first.of == flat[1]:
        return Norm2((), flat[1])
    return Chain((), tuple(flat))


def _chain_shape(flat: list[Term]) -> tuple[Dim, ...]:
    first, last = flat[0], flat[-1]
    rows = () if is_row(first) else first.shape[:1]
    columns = () if is_column(last) else last.shape[-1:]
    return (*rows, *columns)


def _absorb_diagonals(flat: list[Term]) -> list[Term]:
    """``diag(a) x --> a ⊙ x`` for a column x, and the same for rows."""
    out: list[Term] = []
    for factor in reversed(flat):
        if out and isinstance(factor, Diag) and is_column(out[-1]):
            out[-1] = hadamard(factor.of, out[-1])
        else:
            out.append(factor)
    out.reverse()
    result: list[Term] = []
    for factor in out:
        last = result[-1] if result else None
        if isinstance(factor, Diag) and isinstance(last, Transpose) and is_row(last):
            result[-1] = Transpose(factor.of.shape, hadamard(last.of, factor.of))
        else:
            result.append(factor)
    return result


def contract(spec: str, args: list[Term]) -> Term:
    """An einsum as matrix products where its network of indices is made of paths; a ``Contraction`` otherwise."""
    inputs, output = split_spec(spec)
    coefficient: Number = 1
    scalars: tuple[Term, ...] = ()
    operands: list[tuple[str, Term]] = []
    for letters, term in zip(inputs, args, strict=True):
        c, s, core = parts(term)
        coefficient, scalars = coefficient * c, (*scalars, *s)
        if core is not None:
            operands.append((letters, core))
    result = _network(operands, output)
    if result is None:
        cores = tuple(core for _, core in operands)
        sizes = {x: d for letters, core in operands for x, d in zip(letters, core.shape, strict=True)}
        shape = tuple(sizes[x] for x in output)
        result = Contraction(shape, ",".join(x for x, _ in operands) + "->" + output, cores)
    more, extra, core = parts(result)
    return scaled(coefficient * more, merged((*scalars, *extra)), core)


def _network(operands: list[tuple[str, Term]], output: str) -> Term | None:
    if (
        len(output) > 2
        or any(len(x) > 2 or len(set(x)) < len(x) for x, _ in operands)
        or len(set(output)) < len(output)
    ):
        return None
    if any(len(core.shape) != len(x) for x, core in operands):
        return None
    operands = _merge_same(operands, output)
    if len(operands) == 1 and operands[0][0] == "" == output:
        return operands[0][1]
    prepared = _only_pairs(operands, output)
    return None if prepared is None else _paths(*prepared)


def _merge_same(operands: list[tuple[str, Term]], output: str) -> list[tuple[str, Term]]:
    """Operands over the same indices: elementwise products, unless that would hide an inner product."""
    merged: list[tuple[str, Term]] = []
    for letters, term in operands:
        position = next((i for i, (x, _) in enumerate(merged) if set(x) == set(letters)), None)
        counts = Counter("".join(x for x, _ in operands) + output)
        if position is None or not letters:
            merged.append((letters, term))
            continue
        other, held = merged[position]
        aligned = term if other == letters else transpose(term)
        if len(letters) == 2 and all(counts[x] == 2 for x in letters) and len(operands) == 2:
            return [("", inner(held, aligned))]
        if len(letters) == 1 and counts[letters] == 2:
            merged.append((letters, term))  # an inner product of vectors is a path
        else:
            merged[position] = (other, hadamard(held, aligned))
    return merged


def inner(left: Term, right: Term) -> Term:
    """The sum of the products of all entries."""
    if left == right:
        return Norm2((), left)
    roots = [_square_root(left), _square_root(right)]
    if roots[0] is not None and roots[1] is not None:
        return Norm2((), hadamard(roots[0], roots[1]))
    return Call((), "inner", (left, right))


def _square_root(term: Term) -> Term | None:
    return term.base if isinstance(term, Power) and term.exponent == Num((), 2) else None


def _only_pairs(operands: list[tuple[str, Term]], output: str) -> tuple[list[tuple[str, Term]], str] | None:
    """Make every index occur exactly twice: vectors on busy indices become diagonals, lonely indices meet ones."""
    fresh = iter("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    operands = list(operands)
    while True:
        counts = Counter("".join(x for x, _ in operands) + output)
        busy = next((x for x in counts if counts[x] > 2), None)
        lonely = next((x for x in counts if counts[x] == 1), None)
        if busy is not None:
            position = next((i for i, (x, _) in enumerate(operands) if x == busy), None)
            if position is None:
                return None
            new, (_, vector) = next(fresh), operands[position]
            operands[position] = (busy + new, Diag((vector.shape[0], vector.shape[0]), vector))
            if busy in output:
                output = output.replace(busy, new)
            else:
                last = max(i for i, (x, _) in enumerate(operands) if busy in x and i != position)
                operands[last] = (operands[last][0].replace(busy, new), operands[last][1])
        elif lonely is not None:
            if lonely in output:
                return None
            holder, term = next((x, t) for x, t in operands if lonely in x)
            operands.append((lonely, Sym((term.shape[holder.index(lonely)],), "1", "word")))
        else:
            return operands, output


def _paths(operands: list[tuple[str, Term]], output: str) -> Term | None:
    left = list(operands)

    def walk(letter: str) -> tuple[list[Term], str]:
        """Follow an index through the operands; the end is an output index or "" at a vector."""
        factors: list[Term] = []
        while letter:
            position = next((i for i, (x, _) in enumerate(left) if letter in x), None)
            if position is None:
                return factors, letter
            letters, term = left.pop(position)
            if len(letters) == 1:
                factors.append(term)
                return factors, ""
            factors.append(term if letters[0] == letter else transpose(term))
            letter = letters[1] if letters[0] == letter else letters[0]
        return factors, ""

    pieces: list[Term] = []
    if output:
        factors, end = walk(output[0])
        if len(output) == 2 and not end:
            others, _ = walk(output[1])
            factors = [*factors, transpose(chain(*others))]
        if not factors:
            return None
        pieces.append(_row_sums(factors) or chain(*factors))
    while left:
        vector = next((i for i, (x, _) in enumerate(left) if len(x) == 1), None)
        if vector is None:
            return _trace(left, pieces)
        letters, term = left.pop(vector)
        factors, _ = walk(letters)
        pieces.append(_scalar_path(term, factors))
    result = pieces[0]
    for piece in pieces[1:]:
        result = times(result, piece)
    return result


def _row_sums(factors: list[Term]) -> Term | None:
    """A matrix times ones: a sum along an axis."""
    if len(factors) != 2 or factors[1] != Sym(factors[1].shape, "1", "word") or len(factors[0].shape) != 2:
        return None
    matrix = factors[0]
    of, axis = (matrix.of, 0) if isinstance(matrix, Transpose) else (matrix, 1)
    return Call(matrix.shape[:1], "sum", (of,), (f"axis = {axis}",))


def _scalar_path(start: Term, factors: list[Term]) -> Term:
    one = Sym(start.shape, "1", "word")
    if len(factors) == 1 and one in (start, factors[0]):
        return Call((), "sum", (factors[0] if start == one else start,))
    return chain(transpose(start), *factors)


def _trace(cycle: list[tuple[str, Term]], pieces: list[Term]) -> Term | None:
    if pieces or len(cycle) != 2:
        return None
    (a, x), (b, y) = cycle
    return Call((), "tr", (chain(x, y if b == a[::-1] else transpose(y)),))
