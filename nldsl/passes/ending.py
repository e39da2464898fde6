"""Forms of a loop's last segments for calls whose final states nobody reads (``ir/ending.py``).

    carry: {state: value}     -->   those states that a later segment reads, and what they need
    cotangent(state)          -->   0, where no later segment reads the state; simplified

Needs: a chunk loop with its backward pass, if it has one. Guarantees: the same outputs and the same gradients, to
rounding. Which states a segment reads is found from the last one backwards. Before the last one no clock fires at the
end of a segment: that is for the caller to see to. There are as many forms as leave out enough to be worth functions.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from nldsl.dims import Dim
from nldsl.ir.backward import BackwardLoop, Key
from nldsl.ir.build import Builder
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.demand import reachable
from nldsl.ir.ending import Ending
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import TIME, Type
from nldsl.passes.backward import SUMS_LAST
from nldsl.passes.cost_schedule import Sizes
from nldsl.passes.cost_segment import segment_work
from nldsl.passes.keep import kept_for
from nldsl.passes.simplify import simplify_body
from nldsl.passes.simplify_scans import SCAN_RULES

K = TypeVar("K", bound=Hashable)
STRETCHED = ("broadcast", "spread")
WORTH = 0.9  # of the work of a whole segment: forms that do more than this are none


def endings(
    loop: ChunkLoop, backward: BackwardLoop | None, program: Program, keeping: BackwardLoop | None = None
) -> tuple[Ending, ...]:
    """From the last segment backwards, until the states that are read before are those that are read after; empty where
    even the last segment has to do nearly everything. ``keeping``: the way back that reads kept values."""
    found: list[Ending] = []
    read: frozenset[Key] = frozenset()
    whole = _work(loop, backward, program)
    while whole is not None and (not found or read != found[-1].read):
        short = _forward(loop, program, read, last=not found)
        back = None if backward is None else _backward(replace(backward, loop=short), program, read, last=not found)
        left = _work(short, back, program)
        if left is None or left > WORTH * whole:
            break
        kept = None if keeping is None else _keeping(keeping, program, read, last=not found)
        before = _read_before(short if kept is None else kept.loop, read)
        found.append(Ending(read, short, back, left / whole, before == read, kept))
        read = before
    return tuple(found)


def _forward(loop: ChunkLoop, program: Program, read: frozenset[Key], last: bool) -> ChunkLoop:
    """A segment that gives its outputs and the states of ``read``."""
    axes, sizes = _axes(loop, program)
    builder, values = _again(loop.body, axes, frozenset(), quiet=not last)
    carry = [(name, values[v]) for name, v in loop.carry if (name, 0) in read]
    outputs = [(value, values[v]) for value, v in loop.outputs]
    roots = [*(v for _, v in (*carry, *outputs)), *(values[k.inside] for k in loop.kept)]
    body, number = simplify_body(tuple(builder.instrs), roots, axes, sizes, more=SCAN_RULES if loop.serial else ())
    # what stays as it is needs no copy of itself
    kept = tuple((n, number[v]) for n, v in carry if not _is_state(body[number[v]], n))
    left = tuple(replace(k, inside=number[values[k.inside]]) for k in loop.kept)
    return replace(loop, body=body, carry=kept, outputs=tuple((value, number[v]) for value, v in outputs), kept=left)


def _is_state(instr: Instr, name: str) -> bool:
    return instr.op == "state" and bool(instr.attr("state") == name)


def _read_before(loop: ChunkLoop, read: frozenset[Key]) -> frozenset[Key]:
    """What must be right at the beginning of a segment after which ``read`` is read."""
    leaves = (loop.body[v] for v in reachable(loop.body, [v for _, v in (*loop.outputs, *loop.carry)]))
    found = {(i.attr("state"), dict(i.attrs).get("period", 0)) for i in leaves if i.op in ("state", "anchor")}
    changed = {name for name, _ in loop.carry}
    found |= {key for key in read if key[1] or key[0] not in changed}
    return frozenset(found | {(name, 0) for name, _ in found})  # an anchor may be taken of the state


def _backward(backward: BackwardLoop, program: Program, read: frozenset[Key], last: bool) -> BackwardLoop:
    """The way back where the cotangents of all states but those of ``read`` are zero."""
    loop = backward.loop
    axes, sizes = _axes(loop, program)
    builder, values = _again(backward.body, axes, read, quiet=not last)
    roots = [values[v] for _, v in (*backward.carry, *backward.outputs, *backward.sums)]
    more = SCAN_RULES if loop.serial else ()
    body, number = simplify_body(tuple(builder.instrs), roots, axes, sizes, SUMS_LAST, more=more)
    zero = _zero_values(body)
    carry = [(key, v) for key, v in _moved(backward.carry, values, number) if key in read or v not in zero]
    sums = [(leaf, v) for leaf, v in _moved(backward.sums, values, number) if v not in zero]
    outputs = _moved(backward.outputs, values, number)
    return replace(backward, body=body, carry=tuple(carry), outputs=tuple(outputs), sums=tuple(sums), forward=())


def _keeping(keeping: BackwardLoop, program: Program, read: frozenset[Key], last: bool) -> BackwardLoop:
    """The way back that reads kept values, and (its ``loop``) a segment that keeps those alone that are still read."""
    back = _backward(keeping, program, read, last)
    wanted = kept_for(back, {k.value: k.inside for k in keeping.loop.kept})
    return replace(back, loop=_forward(replace(keeping.loop, kept=wanted), program, read, last))


def _axes(loop: ChunkLoop, program: Program) -> tuple[list[str], dict[str, Dim]]:
    """The axes that a body has, and their sizes."""
    sizes = {a.name: a.size for a in (*program.axes, *loop.lanes) if a.size is not None} | {TIME: TICKS}
    return [*program.axis_names(), *(a.name for a in loop.lanes)], sizes


def _again(body: Sequence[Instr], axes: list[str], read: frozenset[Key], quiet: bool) -> tuple[Builder, list[int]]:
    """A body once more: cotangents of what is not in ``read`` are zero, and, where it is ``quiet``, no clock fires."""
    builder, values = Builder(list(axes)), list[int]()
    for instr in body:
        builder.guard = None if quiet else instr.guard
        attrs = dict(instr.attrs)
        args = [values[a] for a in instr.args]
        if instr.op == "cotangent" and (instr.attr("state"), instr.attr("period")) not in read:
            builder.guard = None
            values.append(_zeros(builder, instr.type))
        elif instr.op == "when" and quiet:
            values.append(args[1])
        elif not args and instr.op not in ("const", "iota"):
            values.append(builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs))
        else:
            values.append(builder.emit(instr.op, *args, name=instr.name, span=instr.span, **attrs))
    builder.guard = None
    return builder, values


def _moved(pairs: Iterable[tuple[K, int]], values: Sequence[int], number: dict[int, int]) -> list[tuple[K, int]]:
    return [(key, number[values[v]]) for key, v in pairs]


def _zeros(builder: Builder, type: Type) -> int:
    zero = builder.const(0.0)
    return builder.emit("broadcast", zero, shape=type.shape) if type.shape else zero


def _zero_values(body: Sequence[Instr]) -> set[int]:
    """The values that are plainly zero."""
    found: set[int] = set()
    for v, instr in enumerate(body):
        if (instr.op == "const" and instr.attr("value") == 0) or (instr.op in STRETCHED and instr.args[0] in found):
            found.add(v)
    return found


def _work(loop: ChunkLoop, backward: BackwardLoop | None, program: Program) -> float | None:
    """Of a segment of full length, forward and backward; None where a size is known only by its name."""
    sizes = Sizes(program, {a.name: a.size for a in loop.lanes}, loop.size)
    total = segment_work(loop.body, [v for _, v in (*loop.carry, *loop.outputs)], sizes)
    if backward is None or total is None:
        return total
    back = segment_work(backward.body, [v for _, v in (*backward.carry, *backward.outputs, *backward.sums)], sizes)
    return None if back is None else total + back
