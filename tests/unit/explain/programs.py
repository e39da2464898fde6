"""Small programs built by hand, as the front end and ``derive`` leave them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nldsl.dims import Dim, symbol
from nldsl.ir.build import Builder
from nldsl.ir.program import Axis, InputDecl, Level, MemoryInfo, Program, StateDecl
from nldsl.ir.types import BATCH, Clock, Type

DK, DV, D, HIDDEN = symbol("dk"), symbol("dv"), symbol("d"), symbol("hidden")


class Maker:
    """A builder with the declarations of a program."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.body = Builder([BATCH])
        self.init = Builder([BATCH])
        self.inputs: list[InputDecl] = []
        self.states: list[StateDecl] = []
        self.updates: list[tuple[str, int]] = []
        self.outputs: list[tuple[str, int]] = []

    def input(self, name: str, *shape: Dim) -> int:
        type = Type(shape, (BATCH,))
        self.inputs.append(InputDecl(name, type))
        return self.body.leaf("input", type, name, input=name)

    def state(self, name: str, *shape: Dim, hidden: bool = False) -> int:
        type = Type(shape, (BATCH,))
        zero = self.init.emit("broadcast", self.init.const(0.0), shape=shape)
        self.states.append(StateDecl(name, type, zero, hidden=hidden))
        return self.body.leaf("state", type, name.rpartition(".")[2], state=name)

    def anchor(self, name: str, period: int) -> int:
        type = next(s.type for s in self.states if s.name == name)
        return self.body.leaf("anchor", type, name, state=name, period=period)

    def op(self, op: str, *args: int | float, name: str = "", **attrs: Any) -> int:
        """An instruction; integers are values, other numbers constants."""
        values = [a if isinstance(a, int) else self.body.const(a) for a in args]
        return self.body.emit(op, *values, name=name, **attrs)

    def einsum(self, spec: str, *args: int, name: str = "") -> int:
        return self.op("einsum", *args, name=name, spec=spec)

    def assign(self, state: str, value: int, clock: Clock | None = None) -> None:
        self.updates.append((state, value))
        self.states = [replace(s, clock=clock) if s.name == state else s for s in self.states]

    def output(self, name: str, value: int) -> None:
        self.outputs.append((name, value))

    def program(self, *levels: Level) -> Program:
        return Program(
            name=self.name,
            axes=(Axis(BATCH, None),),
            inputs=tuple(self.inputs),
            states=tuple(self.states),
            body=tuple(self.body.instrs),
            updates=tuple(self.updates),
            outputs=tuple(self.outputs),
            init=tuple(self.init.instrs),
            levels=levels,
            memories=(MemoryInfo("", self.name, "memory", tuple(s.name for s in self.states if not s.hidden)),),
        )


def delta(dk: Dim = DK, dv: Dim = DV) -> Program:
    """``S <- S - rate * grad(l2(S @ k, v), S)`` with the half in the loss."""
    m = Maker("Delta")
    k, v, rate, q = m.input("k", dk), m.input("v", dv), m.input("rate"), m.input("q", dk)
    s = m.state("S", dv, dk)
    error = m.op("sub", m.einsum("ij,j->i", s, k, name="pred"), v)
    gradient = m.einsum("i,j->ij", m.op("mul", error, 1.0), k)
    new = m.op("sub", s, m.op("mul", rate, gradient), name="S")
    m.assign("S", new)
    m.output("y", m.einsum("ij,j->i", new, q))
    return m.program()


def gated_delta(dk: Dim = DK, dv: Dim = DV) -> Program:
    """Decay first, then one step on the decayed state."""
    m = Maker("GatedDelta")
    k, v = m.input("k", dk), m.input("v", dv)
    rate, keep, q = m.input("rate"), m.input("keep"), m.input("q", dk)
    s = m.state("S", dv, dk)
    decayed = m.op("mul", keep, s, name="S")
    error = m.op("sub", m.einsum("ij,j->i", decayed, k), v)
    new = m.op("sub", decayed, m.op("mul", rate, m.einsum("i,j->ij", error, k)), name="S")
    m.assign("S", new)
    m.output("y", m.einsum("ij,j->i", new, q))
    return m.program()


def kda(dk: Dim = DK, dv: Dim = DV) -> Program:
    """A decay of its own for each key channel, with the unhalved loss."""
    m = Maker("Kda")
    k, v = m.input("k", dk), m.input("v", dv)
    rate, a, q = m.input("rate"), m.input("a", dk), m.input("q", dk)
    s = m.state("S", dv, dk)
    decayed = m.op("mul", s, a, name="S")
    error = m.op("sub", m.einsum("ij,j->i", decayed, k), v)
    gradient = m.einsum("i,j->ij", m.op("mul", 2.0, error), k)
    new = m.op("sub", decayed, m.op("mul", rate, gradient), name="S")
    m.assign("S", new)
    m.output("y", m.einsum("ij,j->i", s, q))
    return m.program()


def momentum(dk: Dim = DK, dv: Dim = DV) -> Program:
    """A linear memory whose step is a momentum."""
    m = Maker("MomentumDelta")
    k, v = m.input("k", dk), m.input("v", dv)
    rate, beta, keep, q = m.input("rate"), m.input("beta"), m.input("keep"), m.input("q", dk)
    s, mom = m.state("S", dv, dk), m.state("surprise.m", dv, dk)
    error = m.op("sub", m.einsum("ij,j->i", s, k), v)
    gradient = m.einsum("i,j->ij", m.op("mul", 2.0, error), k, name="g")
    step = m.op("sub", m.op("mul", beta, mom), m.op("mul", rate, gradient), name="m")
    new = m.op("add", m.op("mul", keep, s), step, name="S")
    m.assign("surprise.m", step)
    m.assign("S", new)
    m.output("y", m.einsum("ij,j->i", new, q))
    return m.program()


def deep(d: Dim = D, hidden: Dim = HIDDEN, period: int = 16) -> Program:
    """Titans' shape: a residual two-layer memory, gradients at the start of the chunk, momentum and forgetting."""
    m = Maker("Deep")
    k, v, rate = m.input("k", d), m.input("v", d), m.input("rate")
    beta, keep, q = m.input("beta"), m.input("keep"), m.input("q", d)
    w1, w2 = m.state("W1", hidden, d), m.state("W2", d, hidden)
    m1, m2 = m.state("surprise.m.0", hidden, d), m.state("surprise.m.1", d, hidden)
    a1, a2 = m.anchor("W1", period), m.anchor("W2", period)

    z = m.einsum("ij,j->i", a1, k)
    gate = m.op("sigmoid", z)
    h = m.op("mul", z, gate)
    error = m.op("sub", m.op("add", k, m.einsum("ij,j->i", a2, h)), v)
    cotangent = m.op("mul", error, 2.0)
    g2 = m.einsum("i,j->ij", cotangent, h)
    dh = m.einsum("i,ij->j", cotangent, a2)
    slope = m.op("mul", gate, m.op("sub", 1.0, gate))
    dz = m.op("add", m.op("mul", dh, gate), m.op("mul", m.op("mul", dh, z), slope))
    g1 = m.einsum("i,j->ij", dz, k)
    for name, mom, weight, gradient in (("0", m1, w1, g1), ("1", m2, w2, g2)):
        step = m.op("sub", m.op("mul", beta, mom), m.op("mul", rate, gradient), name="m")
        m.assign("surprise.m." + name, step)
        m.assign("W" + str(int(name) + 1), m.op("add", m.op("mul", keep, weight), step))
    new = dict(m.updates)
    zq = m.einsum("ij,j->i", new["W1"], q)
    hq = m.op("mul", zq, m.op("sigmoid", zq))
    m.output("y", m.op("add", q, m.einsum("ij,j->i", new["W2"], hq)))
    return m.program()


def slow(d: Dim = D) -> Program:
    """A state that takes a step every 16 ticks from the sum of a stream."""
    m = Maker("Slow")
    g, q = m.input("g", d), m.input("q", d)
    s, total = m.state("w", d), m.state("sum_g", d, hidden=True)
    clock = Clock(16)
    summed = m.op("add", total, g, name="sum_g")
    m.body.guard = clock
    step = m.op("sub", s, m.op("mul", 0.1, summed))
    m.body.guard = None
    new = m.op("when", step, s, clock=clock, name="w")
    m.assign("w", new, clock)
    zero = m.op("broadcast", 0.0, shape=(d,))
    m.assign("sum_g", m.op("when", zero, summed, clock=clock))
    m.output("y", m.op("mul", s, q))
    return m.program()


def diagonal(d: Dim = D) -> Program:
    """RWKV-7's shape: the state times a diagonal minus a rank-one matrix."""
    m = Maker("Diagonal")
    w, kk, a = m.input("w", d), m.input("kk", d), m.input("a", d)
    v, k, q = m.input("v", d), m.input("k", d), m.input("q", d)
    s = m.state("S", d, d)
    numbers = m.op("iota", n=d)
    identity = m.op("eq", m.op("reshape", numbers, shape=(d, 1)), numbers)
    erase = m.einsum("i,j->ij", kk, m.op("mul", a, kk))
    transition = m.op("sub", m.op("mul", identity, m.op("reshape", w, shape=(1, d))), erase)
    new = m.op("add", m.einsum("ij,jk->ik", s, transition), m.einsum("i,j->ij", v, k))
    m.assign("S", new)
    m.output("y", m.einsum("ij,j->i", new, q))
    return m.program()


def exponentiated(d: Dim = D) -> Program:
    """Memora's shape: exponentiated gradient, a softmax of each row of the state."""
    m = Maker("Exponentiated")
    k, v, rate = m.input("k", d), m.input("v", d), m.input("rate")
    s = m.state("W", d, d)
    error = m.op("sub", m.einsum("ij,j->i", s, k), v)
    logits = m.op("sub", m.op("mul", 0.9, m.op("log", s)), m.op("mul", rate, m.einsum("i,j->ij", error, k)))
    top = m.op("reshape", m.op("stop_grad", m.op("max", logits, dims=(1,))), shape=(d, 1))
    weights = m.op("exp", m.op("sub", logits, top))
    total = m.op("reshape", m.op("sum", weights, dims=(1,)), shape=(d, 1))
    m.assign("W", m.op("div", weights, total))
    return m.program()


def normalized(d: int = 5) -> Program:
    """TTT's shape: a squared error behind a norm without gain, gradients at the start of the mini-batch."""
    m = Maker("Normalized")
    k, v, rate = m.input("k", d), m.input("v", d), m.input("rate")
    s = m.state("W", d, d)
    h = m.einsum("ij,j->i", m.anchor("W", 16), k)
    mean = m.op("div", m.op("sum", h, dims=(0,)), float(d))
    c = m.op("sub", h, mean, name="c")
    variance = m.op("div", m.op("sum", m.op("mul", c, c), dims=(0,)), float(d))
    scale = m.op("rsqrt", m.op("add", variance, 1e-6))
    error = m.op("sub", m.op("mul", c, scale), m.op("sub", v, k))
    inner = m.op("div", m.op("sum", m.op("mul", error, c), dims=(0,)), float(d))
    cube = m.op("mul", m.op("mul", scale, scale), scale)
    back = m.op("sub", m.op("mul", error, scale), m.op("mul", m.op("mul", inner, cube), c))
    center = m.op("sub", back, m.op("div", m.op("sum", back, dims=(0,)), float(d)))
    m.assign("W", m.op("sub", s, m.op("mul", rate, m.einsum("i,j->ij", center, k))))
    return m.program()


ALL = {f.__name__: f for f in (delta, gated_delta, kda, momentum, deep, slow, diagonal, exponentiated, normalized)}
