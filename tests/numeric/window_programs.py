"""Programs with shift registers: windows of streams, what is computed from them, and memories that learn from them."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.ir.program import Program
from nldsl.ir.types import Clock, Type
from tests.numeric.chunk_run import Maker

K, V, N = 4, 3, 5


def window(m: Maker, stream: int, n: int = N, name: str = "", reset: Clock | None = None) -> int:
    """``window(stream, n)``: [n, ..], the newest value last; a new register."""
    shape = tuple(int(str(s)) for s in m.body.type(stream).shape)
    name = name or f"window{len(m.states)}"
    held = m.state(name, n - 1, *shape, reset=reset)
    whole = m.concat(held, m.reshape(stream, shape=(1, *shape)), dim=0)
    m.updates[name] = m.slice(whole, dim=0, start=1, stop=n)
    return int(whole)


def mask(m: Maker, n: int = N) -> int:
    """1.0 where the window holds a value of the sequence."""
    tick = m.body.leaf("clock", Type((), (), "int"), scale=1, period=0)
    return int(m.ge(m.body.emit("iota", n=n), m.body.emit("sub", m.body.const(n), tick)))


def softmax(m: Maker, scores: int) -> int:
    top = m.stop_grad(m.max(scores, dims=(0,)))
    weights = m.exp(m.sub(scores, top))
    return int(m.div(weights, m.sum(weights, dims=(0,))))


def attention(n: int = N, masked: bool = True) -> Program:
    m = Maker(heads=2)
    q, k, v = m.input("q", K), m.input("k", K), m.input("v", V)
    scores = m.ein("ij,j->i", window(m, k, n), q)
    if masked:
        scores = m.where(mask(m, n), scores, -1e30)
    m.outputs["y"] = m.ein("i,ij->j", softmax(m, scores), window(m, v, n))
    return m.program()


def biased_attention() -> Program:
    """Scores with a bias of the place, a gate of the tick, and values that are squashed row by row."""
    m = Maker()
    q, k, v, gate = m.input("q", K), m.input("k", K), m.input("v", V), m.input("g")
    scores = m.ein("ij,j->i", m.tanh(window(m, k)), q)
    scores = m.add(m.mul(scores, m.sigmoid(gate)), m.param("bias", N))
    values = m.mul(window(m, v), m.param("scale", V))
    m.outputs["y"] = m.ein("i,ij->j", softmax(m, scores), values)
    return m.program()


def convolution(n: int = 11) -> Program:
    """A filter with a weight of each place and channel, a moving sum, and the largest of the window."""
    m = Maker()
    seen = window(m, m.input("x", V), n)
    m.outputs["y"] = m.ein("ij,ij->j", m.param("w", n, V), seen)
    m.outputs["sum"] = m.sum(seen, dims=(0,))
    m.outputs["max"] = m.max(seen, dims=(0,))
    m.outputs["oldest"] = m.reshape(m.slice(seen, dim=0, start=0, stop=1), shape=(V,))
    return m.program()


def omega(anchored: int = 4, momentum: bool = False, n: int = N, weights: bool = False) -> Program:
    """S <- a S - sum over the window of (S@ k - v) k'."""
    m = Maker(heads=2)
    m.body.axes.append("window")
    q, k, v, a = m.input("q", K), m.input("k", K), m.input("v", V), m.input("a")
    held = m.state("S", V, K)
    state = m.anchor("S", anchored)
    keys, values = window(m, k, n), window(m, v, n)
    key, value = m.spread(keys, axis="window"), m.spread(values, axis="window")
    error = m.sub(m.ein("ij,j->i", state, key), value)
    error = m.mul(m.spread(m.where(mask(m, n), 0.3, 0.0), axis="window"), error)
    if weights:
        error = m.mul(m.spread(m.param("fade", n), axis="window"), error)
    gradient = m.ein("ij,ik->jk", m.collect(error, axis="window", size=n), keys)
    write = gradient
    if momentum:
        moment = m.state("M", V, K)
        m.updates["M"] = write = m.add(m.mul(m.sigmoid(m.input("mu")), moment), gradient)
    m.updates["S"] = new = m.sub(m.mul(m.sigmoid(a), held), write)
    m.outputs["y"] = m.ein("ij,j->i", new, q)
    program = m.program()
    return with_axis(program, n)


def with_axis(program: Program, n: int) -> Program:
    from dataclasses import replace

    from nldsl.ir.program import Axis

    return replace(program, axes=(*program.axes, Axis("window", n)))


def deep_omega(n: int = N) -> Program:
    """The same for a network of two layers, whose gradients at the anchor are sums over the window."""
    m = Maker()
    m.body.axes.append("window")
    q, k, v, a = m.input("q", K), m.input("k", K), m.input("v", V), m.input("a")
    w1, w2 = m.state("W1", K, K), m.state("W2", V, K)
    a1, a2 = m.anchor("W1", 3), m.anchor("W2", 3)
    keys, values = window(m, k, n), window(m, v, n)
    key = m.spread(keys, axis="window")
    hidden = m.tanh(m.ein("ij,j->i", a1, key))
    error = m.sub(m.ein("ij,j->i", a2, hidden), m.spread(values, axis="window"))
    back = m.mul(m.ein("ij,i->j", a2, error), m.sub(1.0, m.mul(hidden, hidden)))
    rows = [m.collect(x, axis="window", size=n) for x in (error, hidden, back)]
    keep = m.sigmoid(a)
    m.updates["W2"] = m.sub(m.mul(keep, w2), m.mul(0.2, m.ein("ij,ik->jk", rows[0], rows[1])))
    m.updates["W1"] = m.sub(m.mul(keep, w1), m.mul(0.2, m.ein("ij,ik->jk", rows[2], keys)))
    m.outputs["y"] = m.ein("ij,j->i", m.updates["W2"], m.tanh(m.ein("ij,j->i", m.updates["W1"], q)))
    return with_axis(m.program(), n)


def window_of_reads() -> Program:
    """A linear memory, and attention over the last things that it answered."""
    m = Maker()
    q, k, v = m.input("q", K), m.input("k", K), m.input("v", V)
    held = m.state("S", V, K)
    m.updates["S"] = new = m.add(m.mul(m.sigmoid(m.input("a")), held), m.ein("i,j->ij", v, k))
    seen = window(m, m.ein("ij,j->i", new, q))
    weights = softmax(m, m.ein("ij,j->i", seen, m.input("p", V)))
    m.outputs["y"] = m.ein("i,ij->j", weights, seen)
    return m.program()


def window_into_memory() -> Program:
    """A window of answers that a second linear memory learns from, and resets inside a segment."""
    m = Maker()
    q, k, v = m.input("q", K), m.input("k", K), m.input("v", V)
    first = m.state("S", V, K)
    m.updates["S"] = new = m.add(m.mul(0.9, first), m.ein("i,j->ij", v, k))
    seen = window(m, m.ein("ij,j->i", new, q), reset=Clock(6))
    second = m.state("R", V, K)
    read = m.ein("ij,j->i", second, k)
    target = m.ein("i,ij->j", m.param("w", N), seen)
    m.updates["R"] = m.sub(second, m.mul(0.3, m.ein("i,j->ij", m.sub(read, target), k)))
    m.outputs["y"] = m.ein("ij,j->i", m.updates["R"], q)
    return m.program()


def window_by_hand() -> Program:
    """A register written as ``concat(s[1:], x)`` and read before it moves."""
    m = Maker()
    x = m.input("x", V)
    held = m.state("s", N, V)
    kept = m.slice(held, dim=0, start=1, stop=N)
    m.updates["s"] = m.concat(kept, m.reshape(x, shape=(1, V)), dim=0)
    m.outputs["before"] = m.ein("i,ij->j", m.param("w", N), held)
    m.outputs["kept"] = m.sum(kept, dims=(0,))
    m.outputs["after"] = m.ein("i,ij->j", m.param("u", N), m.updates["s"])
    return m.program()


WINDOWS: dict[str, Callable[[], Program]] = {
    "attention": attention,
    "attention without a mask": lambda: attention(masked=False),
    "attention longer than the sequence": lambda: attention(21),
    "biased attention": biased_attention,
    "convolution": convolution,
    "Omega": omega,
    "Omega with momentum": lambda: omega(momentum=True),
    "Omega with weights of age": lambda: omega(weights=True),
    "Omega with a window longer than the chunk": lambda: omega(3, n=11),
    "deep Omega": deep_omega,
    "window of reads": window_of_reads,
    "window into a memory": window_into_memory,
    "window by hand": window_by_hand,
}
