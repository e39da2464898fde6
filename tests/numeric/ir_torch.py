"""A small torch evaluator of bodies, the oracle and the workhorse of the tests of chunking.

A value is a tensor whose first dims are its mapped axes, in the order of its type, then its logical dims.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from nldsl.dims import Dim, Poly
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "neg": torch.neg,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": torch.nn.functional.softplus,
    "relu": torch.relu,
    "abs": torch.abs,
    "sin": torch.sin,
    "to_real": lambda x: x,
    "stop_grad": lambda x: x.detach(),
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": torch.pow,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "ge": torch.ge,
    "gt": torch.gt,
    "le": torch.le,
    "lt": torch.lt,
    "eq": torch.eq,
    "mod": torch.remainder,
}


def size(dim: Dim, ticks: int) -> int:
    if isinstance(dim, int):
        return dim
    assert isinstance(dim, Poly)
    total = 0
    for monomial, coefficient in dim.terms:
        powers = sum(power for name, power in monomial if name == "ticks")
        assert powers == sum(power for _, power in monomial)
        total += int(coefficient) * ticks**powers
    return total


class Evaluator:
    """Evaluates a body lazily; ``leaf`` gives the value of a leaf instruction, ``fires`` whether a clock does."""

    def __init__(
        self,
        body: Sequence[Instr],
        leaf: Callable[[Instr], Tensor],
        fires: Callable[[Any], bool],
        ticks: int = 1,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        self.body = body
        self.leaf = leaf
        self.fires = fires
        self.ticks = ticks
        self.dtype = dtype
        self.known: dict[int, Tensor] = {}
        self.lengths: dict[str, int] = {}  # of mapped axes that a value may not have

    def __call__(self, value: int) -> Tensor:
        stack = [value]
        while stack:
            at = stack[-1]
            if at in self.known:
                stack.pop()
                continue
            instr = self.body[at]
            needed = self.operands(instr)
            missing = [a for a in needed if a not in self.known]
            if missing:
                stack.extend(missing)
                continue
            self.known[at] = self.compute(instr)
            stack.pop()
        return self.known[value]

    def operands(self, instr: Instr) -> tuple[int, ...]:
        if instr.op == "when":
            return (instr.args[0] if self.fires(instr.attr("clock")) else instr.args[1],)
        return instr.args

    def aligned(self, arg: int, axes: tuple[str, ...], rank: int | None = None) -> Tensor:
        """With a dim for each of ``axes``; logical dims padded with ones to ``rank``."""
        value, type = self.known[arg], self.body[arg].type
        own = type.axes
        logical = value.shape[len(own) :]
        shape = [1] * len(axes)
        for n, axis in enumerate(own):
            shape[axes.index(axis)] = value.shape[n]
        missing = 0 if rank is None else rank - len(logical)
        return value.reshape([*shape, *([1] * missing), *logical])

    def compute(self, instr: Instr) -> Tensor:
        op, type = instr.op, instr.type
        attrs = dict(instr.attrs)
        if op == "const":
            return torch.tensor(float(attrs["value"]), dtype=self.dtype)
        if op == "iota":
            return torch.arange(size(attrs["n"], self.ticks), dtype=self.dtype)
        if not instr.args:
            return self.leaf(instr)
        if op == "when":
            chosen = self.operands(instr)[0]
            return self.full(self.aligned(chosen, type.axes), type)
        axes = type.axes
        if op in UNARY:
            return UNARY[op](self.known[instr.args[0]])
        if op in BINARY or op == "where":
            args = [self.aligned(a, axes, len(type.shape)) for a in instr.args]
            if op == "where":
                return torch.where(args[0] != 0, args[1], args[2])
            return BINARY[op](*args).to(self.dtype)
        found: Tensor = getattr(self, "op_" + op)(instr, attrs, axes)
        return found

    def full(self, value: Tensor, type: Type) -> Tensor:
        shape = [size(s, self.ticks) for s in type.shape]
        return value.expand(*value.shape[: len(type.axes)], *shape)

    # ---- the other operations

    def op_einsum(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        inputs, output = attrs["spec"].split("->")
        spec = ",".join("..." + x for x in inputs.split(",")) + "->..." + output
        return torch.einsum(spec, *(self.aligned(a, axes) for a in instr.args))

    def op_sum(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        dims = [len(axes) + d for d in attrs["dims"]]
        value = self.known[instr.args[0]]
        return value.sum(dims) if dims else value

    def op_max(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        return self.known[instr.args[0]].amax([len(axes) + d for d in attrs["dims"]])

    def op_reshape(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value = self.known[instr.args[0]]
        return value.reshape([*value.shape[: len(axes)], *(size(s, self.ticks) for s in attrs["shape"])])

    def op_broadcast(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        return self.full(self.aligned(instr.args[0], axes, len(instr.type.shape)), instr.type)

    def op_concat(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        args = [self.aligned(a, axes) for a in instr.args]
        lead = [max(a.shape[n] for a in args) for n in range(len(axes))]
        return torch.cat([a.expand(*lead, *a.shape[len(axes) :]) for a in args], len(axes) + attrs["dim"])

    def op_slice(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        start, stop = size(attrs["start"], self.ticks), size(attrs["stop"], self.ticks)
        return self.known[instr.args[0]].narrow(len(axes) + attrs["dim"], start, stop - start)

    def op_pad(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value, dim = self.known[instr.args[0]], len(axes) + attrs["dim"]
        before, after = list(value.shape), list(value.shape)
        before[dim], after[dim] = size(attrs["before"], self.ticks), size(attrs["after"], self.ticks)
        return torch.cat([value.new_zeros(before), value, value.new_zeros(after)], dim)

    def op_one_hot(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        index = self.known[instr.args[0]]
        return (index.unsqueeze(-1) == torch.arange(size(attrs["n"], self.ticks))).to(self.dtype)

    def op_spread(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        own = self.body[instr.args[0]].type.axes
        return self.known[instr.args[0]].movedim(len(own), axes.index(attrs["axis"]))

    def op_collect(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        own = self.body[instr.args[0]].type.axes
        value = self.known[instr.args[0]].movedim(own.index(attrs["axis"]), len(axes))
        shape = list(value.shape)
        shape[len(axes)] = size(attrs["size"], self.ticks)
        return value.expand(shape)

    def op_lane(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        own = self.body[instr.args[0]].type.axes
        return self.known[instr.args[0]].select(own.index(attrs["axis"]), attrs["index"])

    def op_stop_grad(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        return self.known[instr.args[0]].detach()

    # ---- over time: straight from their definitions

    def op_solve_triangular(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        matrix, right = (self.aligned(a, axes) for a in instr.args)
        vector = len(instr.type.shape) == 1
        right = right.unsqueeze(-1) if vector else right
        unit = torch.eye(matrix.shape[-1], dtype=self.dtype) + matrix.tril(-1)
        found = torch.linalg.solve(unit.mT if attrs.get("transposed") else unit, right)
        result: Tensor = found.squeeze(-1) if vector else found
        return result

    def op_segprod(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value = self.known[instr.args[0]].movedim(len(axes), 0)
        rank = len(axes)
        return segprod(value, attrs["matrix"], rank).movedim((0, 1), (rank, rank + 1))

    def op_cumprod(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value = self.known[instr.args[0]]
        dim = len(axes)
        if attrs["reverse"]:
            value = value.flip(dim)
        found = running(value.movedim(dim, 0)).movedim(0, dim)
        if attrs["exclusive"]:
            length = value.shape[dim]
            found = torch.cat([torch.ones_like(found.narrow(dim, 0, min(1, length))), found], dim).narrow(
                dim, 0, length
            )
        return found.flip(dim) if attrs["reverse"] else found

    def op_cumsum(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        assert not attrs["reverse"]
        return self.known[instr.args[0]].cumsum(len(axes) + attrs["dim"])

    def op_linear_scan(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        rank = len(axes)
        b = self.full(self.aligned(instr.args[1], axes), instr.type)
        a = self.known[instr.args[0]]
        own = self.body[instr.args[0]].type
        a = a.reshape(*a.shape[: len(own.axes) + 1], *([1] * (b.dim() - rank - len(own.shape))), *own_rest(a, own))
        shape = [1] * rank
        for n, axis in enumerate(own.axes):
            shape[axes.index(axis)] = a.shape[n]
        a = a.reshape(*shape, *a.shape[len(own.axes) :])
        lead = [max(x, y) for x, y in zip(a.shape[:rank], b.shape[:rank], strict=True)]
        b = b.expand(*lead, *b.shape[rank:])
        if attrs.get("reverse"):
            return scan(a.flip(rank).movedim(rank, 0), b.flip(rank).movedim(rank, 0)).movedim(0, rank).flip(rank)
        return scan(a.movedim(rank, 0), b.movedim(rank, 0)).movedim(0, rank)

    def op_decay_gram_grad(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        d, q, a, k = (self.aligned(arg, axes) for arg in instr.args)
        lead = (d.sum((-1, -2)) + (q + a + k).sum((-1, -2))).shape
        d, q, a, k = (x.expand(*lead, *x.shape[len(axes) :]).detach() for x in (d, q, a, k))
        rank = len(axes)

        def gram(q: Tensor, a: Tensor, k: Tensor) -> Tensor:
            table = segprod(a.movedim(rank, 0), False, rank).movedim((0, 1), (rank, rank + 1))
            return torch.einsum("...tc,...tsc,...sc->...ts", q, table, k)

        pull = torch.func.vjp(gram, q, a, k)[1]
        return torch.stack(pull(d), rank)

    def op_axis_sum(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        own = self.body[instr.args[0]].type.axes
        if attrs["axis"] in own:
            return self.known[instr.args[0]].sum(own.index(attrs["axis"]))
        return self.known[instr.args[0]] * self.lengths[attrs["axis"]]

    def op_decay_gram(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        q, a, k = (self.aligned(arg, axes) for arg in instr.args)
        rank = len(axes)
        table = segprod(a.movedim(rank, 0), False, rank).movedim((0, 1), (rank, rank + 1))
        return torch.einsum("...tc,...tsc,...sc->...ts", q, table, k)

    def op_matrix_scan(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        rank = len(axes)
        a, b = (self.aligned(arg, axes) for arg in instr.args)
        shapes = zip(a.shape[:rank], b.shape[:rank], strict=True)
        lead = [max(x, y) for x, y in shapes]
        a, b = (x.expand(*lead, *x.shape[rank:]).movedim(rank, 0) for x in (a, b))
        order = range(len(b)) if not attrs["reverse"] else reversed(range(len(b)))
        rows, x = {}, torch.zeros_like(b[0])
        for t in order:
            rows[t] = x = a[t] @ x + b[t]
        return torch.stack([rows[t] for t in range(len(b))], rank)

    def op_two_sided_scan(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        rank = len(axes)
        a, w, b = (self.aligned(arg, axes) for arg in instr.args)
        lead = torch.broadcast_shapes(a.shape[:rank], w.shape[:rank], b.shape[:rank])  # type: ignore[no-untyped-call]
        a, w, b = (x.expand(*lead, *x.shape[rank:]).movedim(rank, 0) for x in (a, w, b))
        order = range(len(w)) if not attrs["reverse"] else reversed(range(len(w)))
        rows, x = {}, torch.zeros_like(w[0])
        for t in order:
            rows[t] = x = a[t] @ x @ b[t] + w[t]
        return torch.stack([rows[t] for t in range(len(w))], rank)

    # ---- over windows: straight from their definitions

    def op_unfold(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value, dim = self.known[instr.args[0]], len(axes)
        count = value.shape[dim] - attrs["n"] + 1
        return torch.stack([value.narrow(dim, t, attrs["n"]) for t in range(count)], dim)

    def op_band(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value, dim = self.known[instr.args[0]], len(axes)
        return torch.stack([x.narrow(dim, t, attrs["n"]) for t, x in enumerate(value.unbind(dim))], dim)

    def op_unband(self, instr: Instr, attrs: dict[str, Any], axes: tuple[str, ...]) -> Tensor:
        value, dim = self.known[instr.args[0]], len(axes)
        count, rows = value.shape[dim], []
        for t, x in enumerate(value.unbind(dim)):
            before, after = list(x.shape), list(x.shape)
            before[dim], after[dim] = t, count - 1 - t
            rows.append(torch.cat([x.new_zeros(before), x, x.new_zeros(after)], dim))
        return torch.stack(rows, dim)


def own_rest(value: Tensor, type: Type) -> torch.Size:
    return value.shape[len(type.axes) + 1 :]


def scan(a: Tensor, b: Tensor) -> Tensor:
    """x[t] = a[t] x[t-1] + b[t] over the first dim."""
    rows = [b[0]]
    for t in range(1, b.shape[0]):
        rows.append(a[t] * rows[-1] + b[t])
    return torch.stack(rows)


def running(value: Tensor) -> Tensor:
    """Products over the first dim, by doubling."""
    step = 1
    while step < value.shape[0]:
        value = torch.cat([value[:step], value[step:] * value[:-step]])
        step *= 2
    return value


def segprod(value: Tensor, matrix: bool, rank: int) -> Tensor:
    """[T, ..] -> [T, T, ..], tick by tick; ``matrix``: the two dims after ``rank`` axes are a matrix."""
    count = value.shape[0]
    if matrix:
        unit = torch.eye(value.shape[1 + rank], dtype=value.dtype)
        extra = value.dim() - rank - 3
        one = unit.reshape(*([1] * rank), *unit.shape, *([1] * extra)).expand(value.shape[1:])
        spec = "...ij,...jk->...ik"
        moved = value.movedim((1 + rank, 2 + rank), (-2, -1))
        one = one.movedim((rank, rank + 1), (-2, -1))
    else:
        one, spec, moved = torch.ones_like(value[0]), "", value
    rows: list[Tensor] = []
    for t in range(count):
        if t == 0:
            row = one.unsqueeze(0)
        else:
            earlier = (
                torch.einsum(spec, moved[t].unsqueeze(0), rows[-1]) if matrix else moved[t].unsqueeze(0) * rows[-1]
            )
            row = torch.cat([earlier, one.unsqueeze(0)])
        rows.append(row)
    full = [torch.cat([r, torch.zeros_like(one).unsqueeze(0).expand(count - r.shape[0], *one.shape)]) for r in rows]
    table = torch.stack(full)
    return table.movedim((-2, -1), (2 + rank, 3 + rank)) if matrix else table


Streams = Mapping[str, Tensor]
