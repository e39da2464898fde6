"""Products with diagonal matrices as products with their diagonals: ``diag(g) @ S`` is ``column(g) * S``."""

from __future__ import annotations

from nldsl.ir import ops
from nldsl.passes.simplify_match import Match, Rule, rule


def _is_identity(m: Match, value: int) -> bool:
    """``one_hot(iota n)``, or the comparison of every row's number with every column's."""
    instr = m.of(value)
    if instr.op in ("to_real", "one_hot"):
        inner = m.of(instr.args[0])
        if instr.op == "to_real":
            return _is_identity(m, instr.args[0])
        return inner.op == "iota" and inner.attr("n") == instr.attr("n")
    if instr.op != "eq" or len(instr.type.shape) != 2 or instr.type.shape[0] != instr.type.shape[1]:
        return False
    column = [a for a in instr.args if m.builder.type(a).shape == (instr.type.shape[0], 1)]
    row = [a for a in instr.args if m.of(a).op == "iota"]
    return len(column) == 1 and len(row) == 1 and m.of(column[0]).op == "reshape" and m.of(column[0]).args == (row[0],)


def _diagonal(m: Match, value: int) -> int | None:
    """The diagonal of a matrix that is known to have nothing else: [n]."""
    instr = m.of(value)
    n = instr.type.shape[0] if len(instr.type.shape) == 2 else None
    candidates: tuple[tuple[int, int], ...] = ()
    if instr.op == "mul":
        candidates = (instr.args, instr.args[::-1])  # type: ignore[assignment]
    elif instr.op == "where" and m.number(instr.args[2]) == 0:
        candidates = ((instr.args[0], instr.args[1]),)
    for identity, along in candidates:
        shape = m.builder.type(along).shape
        if _is_identity(m, identity):
            if shape == (n,):
                return along
            if shape == (n, 1):
                return m.emit("reshape", along, shape=(n,))
    return None


def _diagonal_factor(m: Match) -> int | None:
    inputs, output = ops.split_spec(m.attrs["spec"])
    for at, letters in enumerate(inputs):
        if len(letters) != 2 or letters[0] == letters[1] or set(letters) <= set(output):
            continue
        kept = letters[0] if letters[0] in output else letters[1]
        dropped = letters[1] if kept == letters[0] else letters[0]
        others = [x.replace(dropped, kept) for n, x in enumerate(inputs) if n != at]
        if not others or any(len(set(x)) != len(x) for x in others) or not any(kept in x for x in others):
            continue
        rest = [a for n, a in enumerate(m.args) if n != at]
        if _is_identity(m, m.args[at]):
            return m.emit("einsum", *rest, spec=",".join(others) + "->" + output)
        along = _diagonal(m, m.args[at])
        if along is not None:
            return m.emit("einsum", along, *rest, spec=",".join([kept, *others]) + "->" + output)
    return None


DIAGONAL_RULES: tuple[Rule, ...] = (
    rule("diagonal-factor", "einsum(diag(v), x) --> einsum(v, x)", "einsum", _diagonal_factor),
)
