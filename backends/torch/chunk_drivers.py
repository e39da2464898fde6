"""The functions around a run: they cut the ticks of a call into runs of equal segments, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

from nldsl.backends.torch.runs import Argument, Operands, axis_dim, without_segment
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import INDENT, Code, Expr, call
from nldsl.backends.torch.tick import Variables
from nldsl.dims import substitute
from nldsl.ir.chunk import TICKS, ChunkLoop
from nldsl.ir.ops import LEAVES, SEGMENT_LEAVES
from nldsl.ir.program import Program
from nldsl.ir.stages import stages
from nldsl.ir.types import TIME, Clock, Type

FREE = LEAVES | SEGMENT_LEAVES | frozenset("reshape broadcast slice spread collect lane stop_grad".split())  # views


@dataclass(frozen=True)
class Driver:
    """What a loop takes and gives; expressions are those of the function of a run."""

    inner: Variables
    operands: Operands
    outputs: list[tuple[int, Expr]]
    phase: ChunkLoop

    @property
    def states(self) -> list[str]:
        return [e.text for e in self.inner.all()]

    @property
    def tensors(self) -> list[str]:
        return [*self.states, *(a.inside.text for a in self.operands.arguments)]

    @property
    def head(self) -> list[str]:
        """The first arguments: what is no tensor."""
        return ["t"] if self.operands.streams else ["t", "T"]


def outer_dim(driver: Scope, type: Type) -> int:
    """Where time is outside the function of a run."""
    return axis_dim(driver.layout.with_axis(Type((), without_segment(type.axes))), TIME)


def cut(driver: Scope, text: str, type: Type) -> str:
    """A piece of a stream as N segments of T ticks, laid out as the run wants it."""
    dim, last = outer_dim(driver, type), axis_dim(type, TIME)
    moved = f"movedim(({dim}, {dim + 1}), (0, {last}))" if dim else f"movedim(1, {last})"
    moved = "" if (dim, last) == (0, 1) else f".{moved}.contiguous()"
    return f"{text}.unflatten({dim}, (segments, ticks)){moved}"


def uncut(driver: Scope, text: str, type: Type) -> str:
    """The opposite."""
    dim, last = outer_dim(driver, type), axis_dim(type, TIME)
    moved = f"movedim((0, {last}), ({dim}, {dim + 1}))" if dim else f"movedim({last}, 1)"
    moved = "" if (dim, last) == (0, 1) else f".{moved}"
    return f"{text}{moved}.flatten({dim}, {dim + 1})"


def write_runs(driver: Scope, phase: ChunkLoop, streams: list[Argument]) -> str:
    """The lines that say which runs there are; the name of their numbers of ticks."""
    code = driver.code
    if streams:
        first = streams[0].inside
        code.add(f"T = {first.text}.shape[{outer_dim(driver, first.type)}]")
    pairs = [_clock_pair(c) for c in phase.clocks]
    clocks = f"({', '.join(pairs)}{',' if len(pairs) == 1 else ''})"
    code.add(f"runs = scan_runs(t, T, {phase.size}, {clocks})")
    sizes = driver.names.new("sizes")
    code.add(f"{sizes} = [ticks * segments for ticks, segments in runs]")
    return sizes


def _clock_pair(clock: Clock) -> str:
    return f"({clock.period}, {1 % clock.period if clock.start else 0})"


def reserve(driver: Scope, names: list[str]) -> None:
    """These names are taken."""
    for name in names:
        driver.names.new(name)


def write_forward_driver(driver: Scope, run: Scope, what: Driver, starts: list[str], keeps: bool) -> None:
    """All runs of a call. ``keeps``: also the lists of ``starts``, run by run."""
    code, streams = driver.code, what.operands.streams
    reserve(driver, [*what.tensors, "t", "T"])
    driver.arguments = [*what.head, *what.tensors]
    sizes = write_runs(driver, what.phase, streams)
    parts = [(driver.names.new(f"{e.text}_parts"), e) for _, e in what.outputs]
    for name, _ in parts:
        code.add(f"{name} = []")
    kept = driver.names.new("starts")
    if keeps:
        code.add(f"{kept} = []")
    pieces = [driver.names.new(f"{a.inside.text}_part") for a in streams]
    items = [f"{a.inside.text}.split({sizes}, {outer_dim(driver, a.inside.type)})" for a in streams]
    _add_head(code, "(ticks, segments)", pieces, "runs", items)
    inside = Code()
    arguments = ["t", "ticks", "segments", *what.states]
    arguments += [cut(driver, piece, a.inside.type) for piece, a in zip(pieces, streams, strict=True)]
    arguments += [a.inside.text for a in what.operands.others]
    results = [driver.names.new(f"{e.text}_new") for _, e in what.outputs]
    lists = [driver.names.new(name) for name in starts]
    add_call_lines(inside, [*what.states, *results, *lists], run.name, arguments)
    inside.add("t += ticks * segments")
    for (name, expr), result in zip(parts, results, strict=True):
        inside.add(f"{name}.append({uncut(driver, result, expr.type)})")
    if keeps and lists:
        inside.add(f"{kept} += [{', '.join(lists)}]")
    code.extend(inside)
    joined = [f"torch.cat({name}, {outer_dim(driver, e.type)})" for name, e in parts]
    results = [*what.states, *joined]
    if keeps:
        code.add(f"return ({', '.join(results)}{',' if len(results) == 1 else ''}), {kept}")
    else:
        code.add(f"return {', '.join(results)}")
        widen(driver, what.inner.all())


def _add_head(code: Code, first: str, names: list[str], runs: str, items: list[str]) -> None:
    if not names:
        code.add(f"for {first} in {runs}:")
        return
    code.add(f"for {first}, {', '.join(names)} in zip(")
    for text in (runs, *items):
        code.add(f"{INDENT}{text},")
    code.add("):")


def add_call_lines(code: Code, targets: list[str], function: str, arguments: list[str]) -> None:
    """A call with one argument per line."""
    code.add(f"{', '.join(targets)} = {function}(")
    for text in arguments:
        code.add(f"{INDENT}{text},")
    code.add(")")


def kept_per_byte(what: Driver, program: Program) -> int:
    """About how many bytes autograd keeps of a loop for each byte of its arguments: an estimate from the body."""
    phase = what.phase
    stage, sizes = stages(phase), {a.name: a.size for a in (*program.axes, *phase.lanes) if a.size is not None}

    def entries(type: Type) -> int:
        total = 1
        for size in (*(phase.size if a == TIME else sizes.get(a, 1) for a in type.axes), *type.shape):
            known = substitute(size, {str(TICKS): phase.size})
            total *= known if isinstance(known, int) else 1
        return total

    made = {v for v, i in enumerate(phase.body) if stage[v] is not None and i.op not in FREE and i.args}
    given = sum(entries(i.type) for i in phase.body if i.op in ("given", "state"))
    return max(1, round(sum(entries(phase.body[v].type) for v in made) / max(1, given)))


def widen(function: Scope, states: list[Expr]) -> None:
    """Let a function of a loop compute in float32 what comes in half precision, and what autocast would."""
    first = next((e.text for e in states if e.type.kind == "real"), None)
    if first is not None:
        again = call("scan_wide", function.name, *function.arguments)
        function.code.lines[:0] = [f"if {call('scan_lowers', first)}:", f"{INDENT}return {again}"]


def write_entry(entry: Scope, forward: Scope, backward: Scope, what: Driver, recompute_above: int) -> None:
    """The function that the module calls: with the backward pass of the loop where it would keep much otherwise."""
    reserve(entry, [*what.tensors, "t", "T"])
    entry.arguments = [*what.head, *what.tensors]
    one = "[0]" if len(what.states) + len(what.outputs) == 1 else ""
    head = ", ".join(what.head) + ("," if len(what.head) == 1 else "")
    given = [f"({head})", *what.tensors]
    code = entry.code
    ratio = kept_per_byte(what, entry.layout.program)
    code.add(f"if {call('scan_derives', str(recompute_above // ratio), *what.tensors)}:")
    code.add(f"{INDENT}return {call('ScanFunction.apply', forward.name, backward.name, *given)}{one}")
    code.add(f"return {call(forward.name, *what.head, *what.tensors)}[0]{one}")
    widen(entry, what.inner.all())
