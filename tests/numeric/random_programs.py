"""Random well-typed programs for hypothesis: shapes, mapped axes, guards, states, anchors and derivatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from nldsl.ir import ops
from nldsl.ir.clocks import implies
from nldsl.ir.program import Program, Reset
from nldsl.ir.types import Clock, ShapeError, broadcast_shapes
from tests.numeric.maker import Array, Maker

SHAPES: list[tuple[int, ...]] = [(), (2,), (3,), (2, 3), (1, 3), (3, 3)]
# Operations that stay finite for finite operands, so that comparisons mean something.
UNARY = ["neg", "sin", "cos", "tanh", "sigmoid", "softplus", "abs", "relu", "sign", "erf", "stop_grad"]
BINARY = ["add", "sub", "mul", "maximum", "minimum", "gt"]
CLOCKS: list[Clock | None] = [None, None, None, Clock(2), Clock(3), Clock(4), Clock(2, start=True)]
Draw = st.DrawFn


@dataclass
class Made:
    program: Program
    params: dict[str, Array]
    inputs: dict[str, Array]


@st.composite
def programs(draw: Draw, grads: bool = True, size: int = 14) -> Made:
    """A program with parameters and inputs for five ticks."""
    made = Maker(heads=2)
    values = [made.input(f"x{n}", *draw(st.sampled_from(SHAPES))) for n in range(2)]
    values.append(made.param("p", *draw(st.sampled_from(SHAPES)), std=0.5))
    values.append(made.param("q", *draw(st.sampled_from(SHAPES)), axes=("heads",), std=0.5))
    resets = [Reset(), Reset("clock", Clock(2)), Reset("never")]
    states: dict[str, int] = {}
    for n, axes in enumerate([(), ("heads",)]):
        shape = draw(st.sampled_from(SHAPES))
        states[f"s{n}"] = made.state(f"s{n}", *shape, axes=axes, start=0.5, reset=draw(st.sampled_from(resets)))
        values.append(states[f"s{n}"])
    if draw(st.booleans()):
        values.append(made.anchor("s0", draw(st.integers(1, 3))))
    for _ in range(draw(st.integers(3, size))):
        _step(draw, made, values, grads)
    for name, start in states.items():
        type = made.body.type(start)
        fits = [v for v in values if _fits(made, v, type.shape, type.axes)]
        made.updates[name] = made.op("tanh", draw(st.sampled_from(fits)))
    for n, value in enumerate({values[-1], *(draw(st.sampled_from(values[-6:])) for _ in range(2))}):
        made.outputs.append((f"y{n}", _shown(made, value)))
    random = np.random.default_rng(draw(st.integers(0, 100)))
    program = made.program()
    inputs = {d.name: random.standard_normal((2, 5, *_shape(d.type.shape))) for d in program.inputs}
    heads = {"heads": 2}
    params = {
        p.name: random.standard_normal((*(heads[a] for a in p.type.axes), *_shape(p.type.shape)))
        for p in program.params
    }
    return Made(program, params, inputs)


def _shape(shape: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(int(s) for s in shape)


def _fits(made: Maker, value: int, shape: tuple[Any, ...], axes: tuple[str, ...]) -> bool:
    instr = made.body.instrs[value]
    return instr.guard is None and instr.type.shape == shape and set(instr.type.axes) <= set(axes)


def _shown(made: Maker, value: int) -> int:
    """A value as an output: at every tick, for all heads, and bounded."""
    guard = made.body.instrs[value].guard
    if guard is not None:
        zero = made.op("broadcast", 0.0, shape=made.body.type(value).shape)
        value = made.op("when", value, zero, clock=guard)
    if "heads" in made.body.type(value).axes:
        value = made.op("collect", value, axis="heads", size=2)
    return made.op("tanh", value)


def _step(draw: Draw, made: Maker, values: list[int], grads: bool) -> None:
    """One more operation; one that does not fit leaves everything as it is."""
    guard = draw(st.sampled_from(CLOCKS))
    usable = [v for v in values if implies(guard, made.body.instrs[v].guard)]
    recent = [v for v in values[-5:] if v in usable] or usable
    a = draw(st.sampled_from(recent))
    near = [v for v in usable if _together(made, a, v)]
    b, c = draw(st.sampled_from(near)), draw(st.sampled_from(near))
    kinds = [
        "unary",
        "binary",
        "binary",
        "contract",
        "where",
        "when",
        "when",
        "reduce",
        "shape",
        "axis",
        "scale",
        "square",
    ]
    kind = draw(st.sampled_from([*kinds, "grad", "grad", "grad"] if grads else kinds))
    if kind == "grad":
        b, c = draw(st.sampled_from(usable)), draw(st.sampled_from(usable[:6]))
    try:
        values.append(_operation(draw, made, kind, (a, b, c), guard))
    except ShapeError:
        return
    finally:
        made.body.guard = None


def _together(made: Maker, a: int, b: int) -> bool:
    try:
        broadcast_shapes([made.body.type(a).shape, made.body.type(b).shape])
    except ShapeError:
        return False
    return True


def _operation(draw: Draw, made: Maker, kind: str, operands: tuple[int, int, int], guard: Clock | None) -> int:
    a, b, c = operands
    shape = made.body.type(a).shape
    rank, axes = len(shape), made.body.type(a).axes
    match kind:
        case "unary":
            return made.op(draw(st.sampled_from(UNARY)), a, guard=guard)
        case "binary":
            return made.op(draw(st.sampled_from(BINARY)), a, b, guard=guard)
        case "square":
            return made.op("mul", a, a, guard=guard)
        case "scale":
            number = draw(st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0]))
            first, second = draw(st.permutations([a, number]))
            return made.op(draw(st.sampled_from(["add", "sub", "mul"])), first, second, guard=guard)
        case "where":
            return made.op("where", made.op("gt", a, 0.0, guard=guard), b, c, guard=guard)
        case "when":
            own = made.body.instrs[a].guard
            clock = own or draw(st.sampled_from([c for c in CLOCKS if c is not None]))
            outside = None if guard == clock else guard  # back to every tick
            if not implies(outside, made.body.instrs[b].guard):
                raise ShapeError("the other value is not there")
            return made.op("when", a, b, guard=outside, clock=clock)
        case "contract":
            return made.op("einsum", a, b, guard=guard, spec=_spec(draw, rank, len(made.body.type(b).shape)))
        case "reduce":
            if not rank:
                raise ShapeError("a scalar")
            dims = tuple(sorted(draw(st.sets(st.integers(0, rank - 1), min_size=1))))
            name = draw(st.sampled_from(["sum", "sum", "max", "cumsum"]))
            return made.op(
                name,
                a,
                guard=guard,
                **({"dim": dims[0], "reverse": draw(st.booleans())} if name == "cumsum" else {"dims": dims}),
            )
        case "shape":
            return _reshaped(draw, made, a, b, shape, guard)
        case "axis":
            if "heads" not in axes:
                if not rank or shape[0] != 2:
                    raise ShapeError("no rows")
                return made.op("spread", a, guard=guard, axis="heads")
            if draw(st.booleans()):
                return made.op("axis_sum", a, guard=guard, axis="heads")
            return made.op("collect", a, guard=guard, axis="heads", size=2)
    loss = made.op("sum", a, guard=guard, dims=tuple(range(rank))) if rank else a
    # small, so that derivatives of derivatives stay small
    loss = made.op("mul", 0.25, loss, guard=guard)
    return made.op("grad", loss, b, c, guard=guard, index=draw(st.integers(0, 1)))


def _reshaped(draw: Draw, made: Maker, a: int, b: int, shape: tuple[Any, ...], guard: Clock | None) -> int:
    rank = len(shape)
    match draw(st.sampled_from(["reshape", "broadcast", "concat", "slice", "pad", "transpose"])):
        case "reshape":
            target = draw(
                st.sampled_from(
                    [s for s in (*SHAPES, (3, 2), (6,), (1,)) if ops.product(s) == ops.product(shape)] or [shape]
                )
            )
            return made.op("reshape", a, guard=guard, shape=target)
        case "broadcast":
            return made.op("broadcast", a, guard=guard, shape=draw(st.sampled_from([*SHAPES, (2, *shape)])))
        case "concat":
            return made.op("concat", a, b, guard=guard, dim=0)
        case "slice":
            if not rank:
                raise ShapeError("a scalar")
            return made.op("slice", a, guard=guard, dim=0, start=draw(st.integers(0, 1)), stop=int(shape[0]))
        case "pad":
            if not rank:
                raise ShapeError("a scalar")
            return made.op("pad", a, guard=guard, dim=rank - 1, before=draw(st.integers(0, 1)), after=1)
    letters = "ijk"[:rank]
    return made.op("einsum", a, guard=guard, spec=f"{letters}->{letters[::-1]}")


def _spec(draw: Draw, left: int, right: int) -> str:
    first = "".join(draw(st.sampled_from("ijk")) for _ in range(left))
    second = "".join(draw(st.sampled_from("ijk")) for _ in range(right))
    output = draw(st.permutations(sorted(set(first + second))))
    return f"{first},{second}->" + "".join(output[: draw(st.integers(0, min(2, len(output))))])
