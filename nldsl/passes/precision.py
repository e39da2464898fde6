"""Which values of a program must not be rounded to half precision: gates, from their first nonlinearity on.

    rate = softplus(dt + bias); keep = exp(-rate * exp(a)); M <- keep * M + rate * outer(v, k)

A factor of a state is there again at every later tick, and so is its rounding error: a decay of 0.999 is 1 in bfloat16
and forgets nothing. So what multiplies a state on its way to its next value, entry by entry, is a *gate*; and with it
the pointwise work that makes it from products, inputs and parameters. Nothing else is: keys, values and queries are
rounded once, and their errors average out. Sums (means, norms, losses) are the other kind: they are added up in
float32, and what is computed from them alone follows. So does what counts, ticks or places: bfloat16 has no 257, and
``1 - 0.999 ^ clock()`` is 0 in it.

Needs: a program without ``grad``. Guarantees: only adds types; a backend that has none but one may ignore them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nldsl.ir.demand import reachable, roots
from nldsl.ir.graphs import components
from nldsl.ir.ops import LEAVES, POINTWISE, mixes, split_spec
from nldsl.ir.program import Instr, Program

MOVED = frozenset("reshape broadcast concat slice pad spread collect when stop_grad".split())
SUMMED = frozenset("sum max cumsum axis_sum batch_mean".split())
FACTORS = {"mul": (0, 1), "div": (1,), "pow": (1,)}  # the places of what may be a factor of the other operand

Node = int | str  # a value, or the name of a state


def wide_values(program: Program) -> frozenset[int]:
    """The values of the body that a module in half precision computes in float32: gates, and what only lies between
    them and the products, inputs and parameters they are made from. Products themselves keep their operands' type; the
    result of one that is a gate, or goes into one, is widened."""
    body = program.body
    cycles = _cycles(program)
    stack = [a for value in cycles if isinstance(value, int) for a in _factors(body, value, cycles)]
    found: set[int] = set()
    while stack:
        value = stack.pop()
        instr = body[value]
        if value in found or value in cycles or instr.op in LEAVES or instr.type.kind != "real":
            continue
        found.add(value)
        if _is_pointwise(body, instr):
            stack.extend(instr.args)
    live = sorted(reachable(body, roots(program)))
    sums = {v for v in live if v not in cycles and _is_sum(body, body[v])}
    counts = {v for v in live if body[v].op == "to_real" and body[body[v].args[0]].type.kind == "int"}
    return _followed(body, live, cycles, _computed(body, found) | sums | (counts - {*cycles}))


def _cycles(program: Program) -> dict[Node, int]:
    """Values and states on the way from a state to its next value, with the number of their cycle."""
    body, updates = program.body, dict(program.updates)
    live = sorted(reachable(body, roots(program)))
    edges: dict[Node, list[Node]] = {v: list(body[v].args) for v in live}
    for value in live:
        if body[value].op in ("state", "anchor"):
            edges[value].append(body[value].attr("state"))
    for state in program.states:
        edges[state.name] = [updates[state.name]] if state.name in updates else []
    found: dict[Node, int] = {}
    for number, component in enumerate(components(edges)):
        if len(component) > 1:
            found.update(dict.fromkeys(component, number))
    return found


def _factors(body: tuple[Instr, ...], value: int, cycles: Mapping[Node, int]) -> list[int]:
    """The operands that scale, entry by entry, what comes from a state of the cycle."""
    instr, own = body[value], cycles[value]
    inside = [cycles.get(a) == own for a in instr.args]
    if instr.op in FACTORS:
        return [instr.args[n] for n in FACTORS[instr.op] if not inside[n]]
    if instr.op != "einsum":
        return []
    letters, output = split_spec(instr.attr("spec"))
    state = {x for text, known in zip(letters, inside, strict=True) if known for x in text}
    scales = [not known and {*text} <= state & {*output} for text, known in zip(letters, inside, strict=True)]
    return [a for a, scaling in zip(instr.args, scales, strict=True) if scaling]


def _is_pointwise(body: tuple[Instr, ...], instr: Instr) -> bool:
    """Whether an operation belongs to the making of a gate: a norm, but no product with a matrix."""
    if instr.op == "einsum":
        return not mixes(instr, [body[a].type for a in instr.args])
    return instr.op in POINTWISE | MOVED | SUMMED


def _computed(body: tuple[Instr, ...], values: set[int]) -> set[int]:
    """Without those that are inputs or parameters in another place or shape: these are as exact as they are given."""
    found: set[int] = set()
    for value in sorted(values):
        if body[value].op not in MOVED or any(a in found for a in body[value].args):
            found.add(value)
    return found


def _is_sum(body: tuple[Instr, ...], instr: Instr) -> bool:
    """Whether an operation adds up what one place of a tensor has: a mean, a norm, a loss."""
    if instr.type.kind != "real" or len(instr.type.shape) >= max(
        (len(body[a].type.shape) for a in instr.args), default=0
    ):
        return False
    return instr.op == "sum" or (instr.op == "einsum" and not mixes(instr, [body[a].type for a in instr.args]))


def _followed(
    body: tuple[Instr, ...], live: Sequence[int], cycles: Mapping[Node, int], gates: set[int]
) -> frozenset[int]:
    """With what is computed from gates, sums and counts alone: little is left of ``1 - keep`` where ``keep`` was
    rounded. A vector that goes on to something else is rounded then, once: it is a key."""
    found = set(gates)
    for value in live:
        instr = body[value]
        made = [a in found for a in instr.args if body[a].op not in ("const", "param", "iota")]
        if value not in cycles and instr.type.kind == "real" and made and all(made) and _is_pointwise(body, instr):
            found.add(value)
    users: dict[int, list[int]] = {}
    for value in live:
        for arg in body[value].args:
            users.setdefault(arg, []).append(value)
    for value in sorted(found - gates, reverse=True):
        if body[value].type.shape and not any(u in found for u in users.get(value, ())):
            found.discard(value)
    return frozenset(found)
