"""Which optimizers do the same to every entry of a parameter: their tick as a program of one entry.

Such an update needs no shapes: all parameters of a level are one long list of entries. ``tensorwise`` also allows sums
and maxima over all entries of a parameter (norms, means). The analysis reads the algebra alone. It gives up (None) at
the first operation that mixes entries in another way (a product of matrices, a slice), and at states that a flat list
of entries cannot hold (anchors, resets on a clock, states shared by a batch).
"""

from __future__ import annotations

from dataclasses import replace

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.entrywise import ENTRY, REDUCTIONS, Entrywise, Tensorwise
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import Type

Shape = tuple[Dim, ...]
COPIES = frozenset({"broadcast", "reshape", "stop_grad", "fixed"})


def entrywise(program: Program, shape: Shape) -> Entrywise | None:
    """The tick of an optimizer for parameters of this shape as that of one entry, or None.

    Needs: inputs ``g`` and perhaps ``weight`` of that shape, one output; ``grad`` expanded.
    """
    rule = tensorwise(program, shape)
    if rule is None or rule.has_sums:
        return None
    entries = frozenset(value for value, kind in enumerate(rule.kinds()) if kind == ENTRY)
    return Entrywise(rule.body, entries, rule.states, rule.numbers, rule.change)


def tensorwise(program: Program, shape: Shape) -> Tensorwise | None:
    """The same, where sums over all entries of a parameter may be part of the tick."""
    if program.axes or program.params or len(program.outputs) != 1:
        return None
    if any(s.shared or s.reset.kind == "clock" or s.type.shape not in (shape, ()) for s in program.states):
        return None
    body: list[Instr] = []
    number: dict[int, int] = {}
    for value, instr in enumerate(program.body):
        found = _scalar(program.body, instr, shape, number)
        if found is None:
            return None
        if isinstance(found, int):
            number[value] = found
            continue
        body += found
        if instr.op == "einsum" and any(ops.split_spec(instr.attr("spec"))[0]) and not instr.type.shape:
            body.append(Instr("sum", (len(body) - 1,), (), Type()))
        number[value] = len(body) - 1
    starts = {s.name: _number(program.init, s.init) for s in program.states}
    known = {name: start for name, start in starts.items() if start is not None}
    if len(known) < len(starts):
        return None
    updates = dict(program.updates)
    new_value = {name: number[v] for name, v in updates.items()}
    for state in program.states:  # a state that no tick changes is what it reads
        if state.name not in updates:
            body.append(Instr("state", (), (("state", state.name),), Type()))
            new_value[state.name] = len(body) - 1
    rows = [(s, (s.name, known[s.name], new_value[s.name])) for s in program.states]
    return Tensorwise(
        tuple(body),
        tuple(row for s, row in rows if s.type.shape == shape),
        tuple(row for s, row in rows if s.type.shape != shape),
        number[program.outputs[0][1]],
    )


def _scalar(body: tuple[Instr, ...], instr: Instr, shape: Shape, number: dict[int, int]) -> list[Instr] | int | None:
    """The instruction for one entry, the value that it is a copy of, or None where it mixes entries."""
    if instr.type.axes or instr.type.shape not in (shape, ()):
        return None
    args = tuple(number[a] for a in instr.args)
    if instr.op in COPIES:
        return args[0] if body[instr.args[0]].type.shape in (shape, (), instr.type.shape) else None
    plain = replace(instr, args=args, type=Type((), (), instr.type.kind), guard=None)
    if instr.op in REDUCTIONS:
        whole = body[instr.args[0]].type.shape
        return (
            [replace(plain, attrs=())] if whole == shape and set(instr.attr("dims")) == set(range(len(shape))) else None
        )
    if instr.op in ops.POINTWISE or instr.op in ("when", "const", "clock", "input", "state"):
        return [plain]
    if instr.op == "einsum":
        return _product(instr, args, len(shape))
    return None


def _product(instr: Instr, args: tuple[int, ...], rank: int) -> list[Instr] | int | None:
    """A contraction that sums over nothing is a product of its operands; one that sums over all dims of both (or of one
    where the other is a number) is a product too, and is summed by the caller."""
    inputs, output = ops.split_spec(instr.attr("spec"))
    whole = output or max(inputs, key=len)
    if len(set(whole)) != len(whole) or any(letters not in (whole, "") for letters in inputs):
        return None
    if not output and any(inputs) and len(whole) != rank:
        return None
    if len(args) == 1:
        return args[0] if output or not whole else [replace(instr, op="to_real", attrs=(), type=Type(), guard=None)]
    if len(args) != 2:
        return None
    return [replace(instr, op="mul", args=args, attrs=(), type=Type(), guard=None)]


def _number(init: tuple[Instr, ...], value: int) -> float | None:
    """An initial value that is one number for all entries."""
    instr = init[value]
    if instr.op == "const":
        return float(instr.attr("value"))
    if instr.op in COPIES or instr.op == "to_real":
        return _number(init, instr.args[0])
    return None
