"""One row per operation that has a derivative: operands, the operation in the IR, the same in torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, Initializer, InputDecl, ParamDecl, Program
from nldsl.ir.types import Type

SIZES = {"batch": 3, "heads": 2}
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Case:
    """``index``: the operands that are rows of a table of that size, not differentiable."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    build: Callable[..., int]
    torch: Callable[..., torch.Tensor]
    positive: bool = False
    index: dict[int, int] | None = None

    @property
    def differentiable(self) -> list[int]:
        return [i for i in range(len(self.shapes)) if i not in (self.index or {})]


def unary(op: str, function: Callable[..., torch.Tensor], positive: bool = False) -> Case:
    return Case(op, ((2, 3),), lambda b, x: b.emit(op, x), function, positive)


def binary(op: str, function: Callable[..., torch.Tensor], positive: bool = False) -> Case:
    return Case(op, ((2, 3), (3,)), lambda b, x, y: b.emit(op, x, y), function, positive)


def contraction(spec: str, *shapes: tuple[int, ...]) -> Case:
    return Case(f"einsum {spec}", shapes, lambda b, *x: b.emit("einsum", *x, spec=spec), lambda *x: _einsum(spec, *x))


def _einsum(spec: str, *operands: torch.Tensor) -> torch.Tensor:
    return torch.einsum(spec, *operands)


def _fresh(b: Builder, x: int) -> int:
    return b.emit("add", x, b.const(0.25))


def _positive_definite(b: Builder, x: int) -> int:
    eye = b.emit("one_hot", b.emit("iota", n=3), n=3)
    return b.emit("add", x, b.emit("mul", b.const(4.0), eye))


def _shifted(x: torch.Tensor) -> torch.Tensor:
    return x + 4.0 * torch.eye(3, dtype=x.dtype)


CASES = [
    unary("neg", torch.neg),
    unary("exp", torch.exp),
    unary("log", torch.log, positive=True),
    unary("log1p", torch.log1p, positive=True),
    unary("expm1", torch.expm1),
    unary("sqrt", torch.sqrt, positive=True),
    unary("rsqrt", torch.rsqrt, positive=True),
    unary("abs", torch.abs),
    unary("sign", torch.sign),
    unary("sin", torch.sin),
    unary("cos", torch.cos),
    unary("tanh", torch.tanh),
    unary("arctan", torch.arctan),
    unary("sigmoid", torch.sigmoid),
    unary("softplus", torch.nn.functional.softplus),
    unary("relu", torch.relu),
    unary("erf", torch.erf),
    unary("floor", torch.floor),
    unary("to_real", lambda x: x),
    binary("add", torch.add),
    binary("sub", torch.sub),
    binary("mul", torch.mul),
    binary("div", torch.div, positive=True),
    binary("pow", torch.pow, positive=True),
    binary("maximum", torch.maximum),
    binary("minimum", torch.minimum),
    binary("mod", lambda x, y: torch.remainder(x, y), positive=True),
    Case("mul stretched", ((1, 3), (2, 1)), lambda b, x, y: b.emit("mul", x, y), torch.mul),
    Case("mul scalar", ((), (2, 3)), lambda b, x, y: b.emit("mul", x, y), torch.mul),
    Case("square", ((2, 3),), lambda b, x: b.emit("mul", x, x), lambda x: x * x),
    Case("pow 3", ((2, 3),), lambda b, x: b.emit("pow", x, b.const(3.0)), lambda x: x**3),
    Case("pow 2", ((2, 3),), lambda b, x: b.emit("pow", x, b.const(2.0)), lambda x: x**2),
    Case("pow 1", ((2, 3),), lambda b, x: b.emit("pow", x, b.const(1.0)), lambda x: x**1),
    Case(
        "maximum tie",
        ((2, 3),),
        lambda b, x: b.emit("maximum", _fresh(b, x), _fresh(b, b.emit("mul", x, b.const(1.0)))),
        lambda x: torch.maximum(x + 0.25, x * 1.0 + 0.25),
    ),
    Case(
        "where",
        ((2, 3), (3,), (2, 1)),
        lambda b, c, x, y: b.emit("where", b.emit("gt", c, b.const(0.0)), x, y),
        lambda c, x, y: torch.where(c > 0, x, y),
    ),
    contraction("ij,j->i", (2, 3), (3,)),
    contraction("ij,jk->ki", (2, 3), (3, 4)),
    contraction("i,j->ij", (2,), (3,)),
    contraction("i,i->", (3,), (3,)),
    contraction("ij->ji", (2, 3)),
    contraction("ij->", (2, 3)),
    contraction("ij->j", (2, 3)),
    contraction("ii->", (3, 3)),
    contraction("ii->i", (3, 3)),
    contraction("iij->ij", (3, 3, 2)),
    contraction("ii,i->", (3, 3), (3,)),
    contraction("ij,k->k", (2, 3), (4,)),
    contraction("ij,k->ki", (2, 3), (4,)),
    contraction("ijk,jk,i->", (2, 3, 4), (3, 4), (2,)),
    contraction(",ij->ij", (), (2, 3)),
    contraction("ij,ij,ij->ij", (2, 3), (2, 3), (2, 3)),
    Case("sum", ((2, 3, 4),), lambda b, x: b.emit("sum", x, dims=(0, 2)), lambda x: x.sum((0, 2))),
    Case("max", ((2, 3),), lambda b, x: b.emit("max", x, dims=(1,)), lambda x: x.amax(1)),
    Case(
        "max ties",
        ((2, 3),),
        lambda b, x: b.emit("max", b.emit("sign", x), dims=(0, 1)),
        lambda x: torch.sign(x).amax((0, 1)),
    ),
    Case(
        "max tie",
        ((3,),),
        lambda b, x: b.emit("max", b.emit("concat", x, x, dim=0), dims=(0,)),
        lambda x: torch.cat([x, x]).amax(0),
    ),
    Case("cumsum", ((2, 3),), lambda b, x: b.emit("cumsum", x, dim=1, reverse=False), lambda x: x.cumsum(1)),
    Case(
        "cumsum reverse",
        ((2, 3),),
        lambda b, x: b.emit("cumsum", x, dim=0, reverse=True),
        lambda x: x.flip(0).cumsum(0).flip(0),
    ),
    Case("reshape", ((2, 3),), lambda b, x: b.emit("reshape", x, shape=(3, 2)), lambda x: x.reshape(3, 2)),
    Case("broadcast", ((2, 1),), lambda b, x: b.emit("broadcast", x, shape=(4, 2, 3)), lambda x: x.expand(4, 2, 3)),
    Case(
        "concat",
        ((2, 3), (2, 1), (2, 3)),
        lambda b, *x: b.emit("concat", *x, dim=1),
        lambda *x: torch.cat(x, 1),
    ),
    Case("slice", ((2, 5),), lambda b, x: b.emit("slice", x, dim=1, start=1, stop=4), lambda x: x[:, 1:4]),
    Case(
        "pad",
        ((2, 3),),
        lambda b, x: b.emit("pad", x, dim=1, before=1, after=2),
        lambda x: torch.nn.functional.pad(x, (1, 2)),
    ),
    Case("take", ((5, 3), (4,)), lambda b, t, i: b.emit("take", t, i), lambda t, i: t[i], index={1: 5}),
    Case("take one", ((5, 3), ()), lambda b, t, i: b.emit("take", t, i), lambda t, i: t[i], index={1: 5}),
    Case(
        "scatter_add",
        ((4, 3), (4,)),
        lambda b, r, i: b.emit("scatter_add", r, i, n=5),
        lambda r, i: torch.zeros(5, 3, dtype=r.dtype).index_add(0, i, r),
        index={1: 5},
    ),
    Case(
        "solve vector",
        ((3, 3), (3,)),
        lambda b, a, x: b.emit("solve", _positive_definite(b, a), x),
        lambda a, x: torch.linalg.solve(_shifted(a), x),
    ),
    Case(
        "solve matrix",
        ((3, 3), (3, 2)),
        lambda b, a, x: b.emit("solve", _positive_definite(b, a), x),
        lambda a, x: torch.linalg.solve(_shifted(a), x),
    ),
    Case("stop_grad", ((3,),), lambda b, x: b.emit("mul", x, b.emit("stop_grad", x)), lambda x: x * x.detach()),
    Case(
        "softmax",
        ((2, 3),),
        lambda b, x: _softmax(b, x),
        lambda x: torch.softmax(x, 1),
    ),
]


def _softmax(b: Builder, x: int) -> int:
    power = b.emit("exp", b.emit("sub", x, b.emit("stop_grad", b.emit("max", x, dims=(0, 1)))))
    return b.emit("div", power, b.emit("reshape", b.emit("sum", power, dims=(1,)), shape=(2, 1)))


@dataclass
class Operands:
    """A program under construction whose operands are inputs (with the axis of the batch) or parameters."""

    builder: Builder
    values: list[int]
    inputs: list[InputDecl]
    params: list[ParamDecl]

    def program(self, outputs: list[tuple[str, int]], losses: list[tuple[str, int]] | None = None) -> Program:
        axes = tuple(Axis(a, None if a == "batch" else SIZES[a]) for a in self.builder.axes)
        return Program(
            "case",
            axes,
            tuple(self.inputs),
            tuple(self.params),
            body=tuple(self.builder.instrs),
            outputs=tuple(outputs),
            losses=tuple(losses or ()),
        )


def operands(case: Case, axes: list[tuple[str, ...]]) -> Operands:
    """The operands of a case; operand i has ``axes[i % len]``."""
    builder = Builder(["batch", "heads"])
    made = Operands(builder, [], [], [])
    for i, shape in enumerate(case.shapes):
        own = axes[i % len(axes)]
        kind = "int" if i in (case.index or {}) else "real"
        if kind == "int":
            own = ("batch",)
        type = Type(shape, own, kind)
        if "batch" in own:
            made.inputs.append(InputDecl(f"x{i}", type))
            made.values.append(builder.leaf("input", type, f"x{i}", input=f"x{i}"))
        else:
            made.params.append(ParamDecl(f"x{i}", type, Initializer("normal", (1.0,))))
            made.values.append(builder.leaf("param", type, f"x{i}", param=f"x{i}"))
    return made


def data(case: Case, made: Operands, seed: int = 0) -> tuple[dict[str, Array], dict[str, Array]]:
    """Inputs of one tick (``[batch, *rest]``) and parameters."""
    random = np.random.default_rng(seed)

    def draw(i: int, type: Type) -> Array:
        shape = tuple(SIZES[a] for a in type.axes) + tuple(int(str(s)) for s in type.shape)
        if type.kind == "int":
            return random.integers(0, (case.index or {})[i], shape)
        x = random.standard_normal(shape)
        return np.abs(x) + 0.5 if case.positive else x

    inputs = {d.name: draw(int(d.name[1:]), d.type) for d in made.inputs}
    return inputs, {d.name: draw(int(d.name[1:]), d.type) for d in made.params}


def scalar_of(builder: Builder, value: int) -> int:
    """A loss whose second derivatives do not vanish: the sum of sin(y) + y^2 / 3."""
    bent = builder.emit("mul", builder.emit("mul", value, value), builder.const(1.0 / 3.0))
    rank = len(builder.type(value).shape)
    total = builder.emit("add", builder.emit("sin", value), bent)
    return builder.emit("sum", total, dims=tuple(range(rank))) if rank else total


def torch_scalar(y: torch.Tensor) -> torch.Tensor:
    return (torch.sin(y) + y * y / 3.0).sum()
