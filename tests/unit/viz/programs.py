"""Programs built by hand, without the front end: what the pictures are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nldsl.ir.build import Builder
from nldsl.ir.program import (
    Axis,
    Initializer,
    InputDecl,
    Level,
    MemoryInfo,
    ParamDecl,
    Program,
    Reset,
    StateDecl,
)
from nldsl.ir.types import BATCH, Clock, Type

D = 64
PER_SEQUENCE = Reset()


@dataclass
class Sketch:
    """Collects a program; methods return value numbers of the body."""

    name: str = "Model"
    axes: list[str] = field(default_factory=lambda: [BATCH])
    inputs: list[InputDecl] = field(default_factory=list)
    params: list[ParamDecl] = field(default_factory=list)
    states: list[StateDecl] = field(default_factory=list)
    updates: dict[str, int] = field(default_factory=dict)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    losses: list[tuple[str, int]] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    memories: list[MemoryInfo] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.body = Builder(self.axes)
        self.init = Builder(self.axes)

    def input(self, name: str, shape: tuple[int, ...] = (), kind: str = "int", source: str = "", ahead: int = 0) -> int:
        type = Type(shape, (BATCH,), kind)
        self.inputs.append(InputDecl(name, type, source, ahead))
        return self.body.leaf("input", type, name=name, input=name)

    def param(self, owner: str, name: str, shape: tuple[int, ...], level: str = "step") -> int:
        path = f"{owner}.{name}" if owner else name
        self.params.append(ParamDecl(path, Type(shape), Initializer("normal", (0.02,)), level, owner))
        return self.body.leaf("param", Type(shape), name=name, param=path)

    def state(
        self,
        owner: str,
        name: str,
        shape: tuple[int, ...],
        learned: str | None = None,
        clock: Clock | None = None,
        reset: Reset = PER_SEQUENCE,
        hidden: bool = False,
        axes: tuple[str, ...] = (),
    ) -> int:
        """A state; `learned` is the level that trains its initial value."""
        path = f"{owner}.{name}" if owner else name
        if learned is None:
            init = self.init.emit("broadcast", self.init.const(0.0), shape=shape)
        else:
            type = Type(shape, axes)
            self.params.append(ParamDecl(f"{path}_0", type, Initializer("normal", (0.1,)), learned, owner))
            init = self.init.leaf("param", type, name=f"{name}_0", param=f"{path}_0")
        type = Type(shape, (BATCH, *axes))
        self.states.append(StateDecl(path, type, init, reset, owner, hidden=hidden, clock=clock))
        return self.body.leaf("state", type, name=name, state=path)

    def anchor(self, state: str, period: int) -> int:
        decl = next(s for s in self.states if s.name == state)
        return self.body.leaf("anchor", decl.type, state=state, period=period)

    def memory(self, path: str, template: str, kind: str = "memory", level: str = "") -> None:
        self.memories.append(MemoryInfo(path, template, kind, level=level))

    def op(self, op: str, *args: int, name: str = "", **attrs: Any) -> int:
        return self.body.emit(op, *args, name=name, **attrs)

    def apply(self, w: int, x: int, name: str = "") -> int:
        return self.op("einsum", w, x, name=name, spec="ij,j->i")

    def silu(self, x: int) -> int:
        return self.op("mul", x, self.op("sigmoid", x))

    def l2(self, a: int, b: int) -> int:
        e = self.op("sub", a, b)
        return self.op("sum", self.op("mul", e, e), dims=(0,), name="loss")

    def norm(self, path: str, x: int) -> int:
        self.memory(path, "RmsNorm", "block")
        weight = self.param(path, "scale", (D,))
        total = self.op("sum", self.op("mul", x, x), dims=(0,))
        return self.op("mul", self.op("mul", x, self.op("rsqrt", total)), weight)

    def linear(self, path: str, x: int, out: int, level: str = "step", name: str = "") -> int:
        self.memory(path, "Linear", "block")
        size = self.body.type(x).shape[0]
        assert isinstance(size, int)
        return self.apply(self.param(path, "weight", (out, size), level), x, name)

    def mlp(self, path: str, x: int, level: str = "step") -> int:
        self.memory(path, "Mlp", "block", level)
        inner = self.linear(f"{path}.up", x, 2 * D, level)
        return self.op("add", x, self.linear(f"{path}.down", self.silu(inner), D, level))

    def done(self) -> Program:
        axes = tuple(Axis(a, self.sizes.get(a)) for a in self.axes)
        return Program(
            self.name, axes, tuple(self.inputs), tuple(self.params), tuple(self.states), tuple(self.body.instrs),
            tuple(self.updates.items()), tuple(self.outputs), tuple(self.losses), (), tuple(self.init.instrs),
            tuple(self.levels), tuple(self.memories),
        )  # fmt: skip


def cross_entropy(s: Sketch, logits: int, target: int, classes: int) -> int:
    picked = s.op("sum", s.op("mul", logits, s.op("one_hot", target, n=classes)), dims=(0,))
    total = s.op("log", s.op("sum", s.op("exp", logits), dims=(0,)))
    return s.op("sub", total, picked, name="loss")


class Deep:
    """A residual memory of two matrices, read at the anchor of `period` ticks."""

    def __init__(self, s: Sketch, path: str, period: int = 16, reset: Reset = PER_SEQUENCE) -> None:
        self.s, self.path = s, path
        s.memory(path, "ResidualMlp")
        self.w = [s.state(path, w, (D, D), "step", reset=reset, axes=("heads",)) for w in ("W1", "W2")]
        self.anchored = [s.anchor(f"{path}.{w}", period) for w in ("W1", "W2")]
        self.new = list(self.w)

    def read(self, x: int, name: str = "") -> int:
        return self._read(self.new, x, name)

    def _read(self, w: list[int], x: int, name: str) -> int:
        s = self.s
        return s.op("add", x, s.apply(w[0], s.silu(s.apply(w[1], x))), name=name)

    def learn(self, k: int, v: int, rate: int, keep: int, through: Callable[[int, int], int] | None = None) -> None:
        s = self.s
        loss = s.l2(self._read(self.anchored, k, ""), v)
        for n, w in enumerate(("W1", "W2")):
            g = s.op("grad", loss, *self.anchored, index=n, name="g")
            step = through(n, g) if through else s.op("neg", s.op("mul", rate, g))
            self.new[n] = s.op("add", s.op("mul", keep, self.w[n]), step, name=w)
            s.updates[f"{self.path}.{w}"] = self.new[n]


def self_modifying(s: Sketch, path: str, x: int, momentum: bool = False) -> int:
    """Five memories that generate each other's keys, values, rates and retentions."""
    s.memory(path, "SelfModifying")
    reset = Reset("clock", Clock(64))
    mk, mv, mrate, mkeep = (Deep(s, f"{path}.{n}") for n in ("mk", "mv", "mrate", "mkeep"))
    m = Deep(s, f"{path}.m", 64, reset)
    wq = s.param(path, "wq", (D, D))
    k, v = mk.read(x, "k"), mv.read(x, "v")
    rate = s.op("softplus", mrate.read(x), name="rate")
    keep = s.op("sigmoid", mkeep.read(x), name="keep")
    rate = s.op("sum", rate, dims=(0,), name="rate")
    keep = s.op("sum", keep, dims=(0,), name="keep")
    y = m.read(s.apply(wq, x, "q"), "y")
    for one in (mk, mv, mrate, mkeep):
        one.learn(k, s.op("stop_grad", one.read(v)), rate, keep)
    through = None
    if momentum:
        s.memory(f"{path}.m.surprise", "Momentum")

        def through(n: int, g: int) -> int:
            name = f"m{n}"
            old = s.state(f"{path}.m.surprise", name, (D, D), axes=("heads",))
            new = s.op("sub", s.op("mul", s.op("tanh", rate), old), s.op("mul", rate, g), name=name)
            s.updates[f"{path}.m.surprise.{name}"] = new
            return new

    m.learn(k, m.read(v), rate, keep, through)
    return s.op("axis_sum", y, axis="heads")


def fast_mlp(s: Sketch, path: str, x: int, period: int) -> tuple[int, Callable[[int], None]]:
    """A block whose weights learn within the sequence; the second result makes their updates from the task loss."""
    s.memory(path, "Mlp", "block", "fast")
    clock = Clock(period)
    w = {n: s.state(path, n, (D, D), "step", clock) for n in ("up", "down")}
    y = s.op("add", x, s.apply(w["down"], s.silu(s.apply(w["up"], x))))

    def learn(loss: int) -> None:
        for n, (name, old) in enumerate(w.items()):
            g = s.op("grad", loss, *w.values(), index=n)
            total = s.op("add", s.state(path, f"sum_{name}", (D, D), hidden=True), g)
            zero = s.op("broadcast", s.op("const", value=0.0), shape=(D, D))
            s.updates[f"{path}.sum_{name}"] = s.op("when", zero, total, clock=clock)
            new = s.op("sub", old, s.op("mul", s.op("const", value=0.1), total))
            s.updates[f"{path}.{name}"] = s.op("when", new, old, clock=clock)

    return y, learn


def window(s: Sketch, owner: str, x: int, size: int, name: str = "x") -> int:
    """The last `size` values."""
    shape = s.body.type(x).shape
    old = s.state(owner, f"window_{name}", (size - 1, *shape), hidden=True)  # type: ignore[arg-type]
    buffer = s.op("concat", old, s.op("reshape", x, shape=(1, *shape)), dim=0, name=f"window_{name}")
    s.updates[f"{owner}.window_{name}"] = s.op("slice", buffer, dim=0, start=1, stop=size)
    return buffer


def hope(layers: int = 2, momentum: bool = False) -> Program:
    """A language model with memories on five clocks."""
    s = Sketch("HopeLM", [BATCH, "heads"], sizes={"heads": 4})
    s.levels = [
        Level("fast", "token", 16, optimizer_name="SGD"),
        Level("step", "step", 1, optimizer_name="AdamW"),
        Level("mid", "step", 4, optimizer_name="AdamW"),
        Level("slow", "step", 16, optimizer_name="AdamW"),
    ]
    tokens = s.input("tokens")
    target = s.input("next_tokens", source="tokens", ahead=1)
    s.memory("embed", "Embed", "block")
    x = s.op("take", s.param("embed", "table", (256, D)), tokens, name="x")
    learners = []
    for n in range(layers):
        here = f"layers.{n}"
        inner = s.norm(f"{here}.norm", x)
        s.memory(f"{here}.conv", "Conv", "block")
        past = window(s, f"{here}.conv", inner, 4)
        inner = s.op("einsum", s.param(f"{here}.conv", "taps", (4, D)), past, spec="ij,ij->j")
        y = self_modifying(s, f"{here}.memory", inner, momentum)
        x = s.op("add", x, s.linear(f"{here}.out", y, D), name="x")
        s.memory(f"{here}.cms", "Cms", "block")
        z = s.norm(f"{here}.cms.norm", x)
        z = s.mlp(f"{here}.cms.slow", z, "slow")
        z = s.mlp(f"{here}.cms.mid", z, "mid")
        z, learn = fast_mlp(s, f"{here}.cms.fast", z, 16)
        learners.append(learn)
        x = s.op("add", x, z, name="x")
    logits = s.linear("head", s.norm("norm", x), 256, name="logits")
    loss = cross_entropy(s, logits, target, 256)
    for learn in learners:
        learn(loss)
    s.outputs = [("logits", logits)]
    s.losses = [("step", loss)]
    return s.done()
