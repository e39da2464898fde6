"""Recurrences as one tick's computation: those that papers name, and some that none does."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.ir.program import Program
from nldsl.ir.types import Clock
from nldsl.passes.derive import Derive
from tests.numeric.chunk_run import Maker

V, K = 3, 4


def outer(m: Maker, v: int, k: int) -> int:
    return m.ein("i,j->ij", v, k)


def read(m: Maker, S: int, q: int) -> int:
    return m.ein("ij,j->i", S, q)


def gate(m: Maker, name: str, *shape: int) -> int:
    return int(m.sigmoid(m.input(name, *shape)))


def square(m: Maker, error: int) -> int:
    return int(m.mul(0.5, m.sum(m.mul(error, error), dims=(0,))))


def kvq(m: Maker) -> tuple[int, int, int]:
    return m.input("k", K), m.input("v", V), m.input("q", K)


def grads(m: Maker, loss: int, *xs: int) -> list[int]:
    return [m.body.emit("grad", loss, *xs, index=n) for n in range(len(xs))]


# ---- decay only


def linear_attention() -> Program:
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    new = m.updates["S"] = m.add(S, outer(m, v, k))
    m.outputs |= {"after": read(m, new, q), "before": read(m, S, q)}
    return m.program()


def retention() -> Program:
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    new = m.updates["S"] = m.add(m.mul(0.9, S), outer(m, v, k))
    m.outputs["y"] = read(m, new, q)
    return m.program()


def gated_linear(*side: int) -> Program:
    """Decay with a gate of that shape: scalar, [K] (key side), [V, 1] (value side), [V, K]."""
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    new = m.updates["S"] = m.add(m.mul(S, gate(m, "a", *side)), outer(m, v, k))
    m.outputs |= {"after": read(m, new, q), "before": read(m, S, q), "left": m.ein("ij,i->j", new, v)}
    return m.program()


def bonus() -> Program:
    """RWKV-6: the current token is read with a weight of its own."""
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    kv = outer(m, v, k)
    m.outputs["y"] = read(m, m.add(S, m.mul(kv, m.param("u", K))), q)
    m.updates["S"] = m.add(m.mul(S, gate(m, "w", K)), kv)
    return m.program()


def normalized() -> Program:
    m = Maker(heads=2)
    S, z = m.state("S", V, K), m.state("z", K)
    k, v, q = m.exp(m.input("k", K)), m.input("v", V), m.exp(m.input("q", K))
    m.updates["S"], m.updates["z"] = m.add(S, outer(m, v, k)), m.add(z, k)
    m.outputs["y"] = m.div(read(m, m.updates["S"], q), m.add(20.0, m.ein("j,j->", m.updates["z"], q)))
    return m.program()


def vector() -> Program:
    m = Maker(heads=2)
    h = m.state("h", 5)
    new = m.updates["h"] = m.add(m.mul(m.tanh(m.input("a", 5)), h), m.input("x", 5))
    m.outputs |= {"y": m.tanh(new), "z": h}
    return m.program()


def scalar() -> Program:
    m = Maker(heads=2)
    h = m.state("h")
    new = m.updates["h"] = m.add(m.mul(m.tanh(m.input("a")), h), m.input("x"))
    m.outputs["y"] = m.tanh(new)
    return m.program()


def state_space() -> Program:
    """Mamba: an elementwise decay made from a step size, the state itself read by every channel."""
    m = Maker()
    h, step = m.state("h", V, K), m.softplus(m.input("dt", V))
    decay = m.exp(m.mul(m.reshape(step, shape=(V, 1)), m.neg(m.exp(m.param("A", V, K)))))
    x, b, c = m.input("x", V), m.input("b", K), m.input("c", K)
    new = m.updates["h"] = m.add(m.mul(decay, h), outer(m, m.mul(step, x), b))
    m.outputs["y"] = read(m, new, c)
    return m.program()


# ---- decay and low rank


def delta(*side: int, gated: bool = True, erase_decayed: bool = True) -> Program:
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    D = m.mul(S, gate(m, "a", *side)) if gated else S
    error = m.sub(read(m, D if erase_decayed else S, k), v)
    new = m.updates["S"] = m.sub(D, m.mul(gate(m, "b"), outer(m, error, k)))
    m.outputs |= {"after": read(m, new, q), "before": read(m, S, q)}
    return m.program()


def dplr() -> Program:
    """RWKV-7: diagonal decay, erase on the undecayed state with a key of its own."""
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    erased = m.add(m.mul(S, gate(m, "w", K)), outer(m, read(m, S, m.input("a", K)), m.input("b", K)))
    new = m.updates["S"] = m.add(erased, outer(m, v, k))
    m.outputs["y"] = read(m, new, q)
    return m.program()


def householder(steps: int = 3) -> Program:
    m = Maker(heads=2)
    S = m.state("S", V, K)
    now = m.mul(S, gate(m, "a"))
    for n in range(steps):
        k, v, b = m.input(f"k{n}", K), m.input(f"v{n}", V), gate(m, f"b{n}")
        now = m.sub(now, m.mul(b, outer(m, m.sub(read(m, now, k), v), k)))
    m.updates["S"] = now
    m.outputs["y"] = read(m, now, m.input("q", K))
    return m.program()


def comba() -> Program:
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    D = m.mul(gate(m, "a"), S)
    error = m.sub(v, read(m, D, m.input("p", K)))
    new = m.updates["S"] = m.add(D, m.mul(gate(m, "b"), outer(m, error, k)))
    m.outputs["y"] = read(m, new, q)
    return m.program()


def vector_gates() -> Program:
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    D = m.mul(S, gate(m, "g", K))
    error = m.sub(v, read(m, D, m.mul(gate(m, "e", K), k)))
    new = m.updates["S"] = m.add(D, outer(m, m.mul(gate(m, "w", V), error), k))
    m.outputs["y"] = read(m, new, q)
    return m.program()


def oja() -> Program:
    """Decay on the value side, reads from the value side."""
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K), kvq(m)
    D = m.mul(S, m.reshape(gate(m, "g", V), shape=(V, 1)))
    error = m.mul(gate(m, "b"), m.sub(k, m.ein("ij,i->j", D, v)))
    new = m.updates["S"] = m.add(D, outer(m, v, error))
    m.outputs["y"] = read(m, new, q)
    return m.program()


def bias() -> Program:
    """A matrix and a vector that one error writes."""
    m = Maker(heads=2)
    W, B, (k, v, q) = m.state("W", V, K), m.state("B", V), kvq(m)
    step = m.mul(gate(m, "b"), m.sub(m.add(read(m, W, k), B), v))
    m.updates["W"], m.updates["B"] = m.sub(m.mul(gate(m, "a"), W), outer(m, step, k)), m.sub(B, step)
    m.outputs["y"] = m.add(read(m, m.updates["W"], q), m.updates["B"])
    return m.program()


# ---- stacked


def momentum(late: bool = False, *side: int) -> Program:
    m = Maker(heads=2)
    S, M, (k, v, q) = m.state("S", V, K), m.state("M", V, K), kvq(m)
    g = outer(m, m.mul(gate(m, "b"), m.sub(read(m, S, k), v)), k)
    new = m.updates["M"] = m.sub(m.mul(gate(m, "mu", *side), M), g)
    m.updates["S"] = m.add(m.mul(gate(m, "a", *side), S), m.mul(gate(m, "c"), M if late else new))
    m.outputs |= {"y": read(m, m.updates["S"], q), "u": read(m, new, q)}
    return m.program()


def three_states() -> Program:
    """A dense 3x3 transition with entries of either sign."""
    m = Maker(heads=2)
    names = "ABC"
    S, (k, v, q) = [m.state(n, V, K) for n in names], kvq(m)
    g = outer(m, m.sub(read(m, S[0], k), v), k)
    for i, name in enumerate(names):
        now = m.mul(g, -0.3 * (i + 1))
        for j in range(3):
            now = m.add(now, m.mul(m.mul(0.5, m.tanh(m.input(f"c{i}{j}"))), S[j]))
        m.updates[name] = now
    m.outputs["y"] = read(m, m.updates["C"], q)
    return m.program()


def chain() -> Program:
    """The second memory learns what the first one says after its write."""
    m = Maker(heads=2)
    S, R, (k, v, q) = m.state("S", V, K), m.state("R", V, K), kvq(m)
    b = gate(m, "b")
    new = m.updates["S"] = m.sub(m.mul(gate(m, "a"), S), m.mul(b, outer(m, m.sub(read(m, S, k), v), k)))
    error = m.sub(read(m, R, k), read(m, new, k))
    m.updates["R"] = m.sub(R, m.mul(b, outer(m, error, k)))
    m.outputs["y"] = read(m, m.updates["R"], q)
    return m.program()


def coupled() -> Program:
    m = Maker(heads=2)
    S, R, (k, v, q) = m.state("S", V, K), m.state("R", V, K), kvq(m)
    p, b = m.input("p", K), gate(m, "b")
    one = m.sub(m.add(read(m, S, k), read(m, R, p)), v)
    two = m.sub(read(m, R, k), m.mul(0.3, read(m, S, p)))
    m.updates["S"] = m.sub(m.mul(gate(m, "a"), S), m.mul(b, outer(m, one, k)))
    m.updates["R"] = m.sub(R, m.mul(b, outer(m, two, p)))
    m.outputs["y"] = m.add(read(m, m.updates["R"], q), read(m, S, q))
    return m.program()


# ---- anchors and clocks


def mlp(m: Maker, W: list[int], x: int) -> int:
    return m.ein("ij,j->i", W[1], m.tanh(m.ein("ij,j->i", W[0], x)))


def titans(period: int = 4, live: bool = True) -> Program:
    """Gradients at the anchor, momentum and decay per tick; ``live``: also reads of the deep memory at each tick."""
    m = Maker(heads=2)
    names = ("W1", 5, K), ("W2", V, 5)
    W, M = [m.state(*n) for n in names], [m.state("M" + n[0], *n[1:]) for n in names]
    A, (k, v, q) = [m.anchor(n[0], period) for n in names], kvq(m)
    decay, mu, rate = gate(m, "a"), gate(m, "mu"), gate(m, "rate")
    for n, g in enumerate(grads(m, square(m, m.sub(mlp(m, A, k), v)), *A)):
        name = names[n][0]
        new = m.updates["M" + name] = m.sub(m.mul(mu, M[n]), m.mul(rate, g))
        m.updates[name] = m.add(m.mul(decay, W[n]), new)
    if live:
        m.outputs["y"] = mlp(m, [m.updates["W1"], m.updates["W2"]], q)
    m.outputs["z"] = mlp(m, A, q)
    return Derive().apply(m.program())


def self_modifying(period: int = 4) -> Program:
    """Memories that make the keys, values and rates they all learn with; erase of rank one at each tick."""
    m = Maker(heads=2)
    x = m.input("x", K)
    boxes = {
        n: [m.state(n + "1", 6, K), m.state(n + "2", size, 6)] for n, size in zip("kvem", (K, K, 1, K), strict=True)
    }
    held = {n: [m.anchor(n + "1", period), m.anchor(n + "2", period)] for n in boxes}
    k, v = mlp(m, held["k"], x), mlp(m, held["v"], x)
    rate = m.mul(0.3, m.sigmoid(m.reshape(mlp(m, held["e"], x), shape=())))
    for n, (one, two) in boxes.items():
        target = m.stop_grad(mlp(m, held[n], v))
        g = grads(m, square(m, m.sub(mlp(m, held[n], k), target)), *held[n])
        erase = outer(m, read(m, one, k), k)
        m.updates[n + "1"] = m.sub(m.sub(m.mul(0.9, one), m.mul(rate, erase)), m.mul(rate, g[0]))
        m.updates[n + "2"] = m.sub(m.mul(0.9, two), m.mul(rate, g[1]))
    m.outputs |= {"y": mlp(m, held["m"], x), "live": mlp(m, boxes["m"], x)}
    return Derive().apply(m.program())


def slow(period: int = 4, start: bool = False) -> Program:
    """A memory that changes every few ticks by what was accumulated; read before and after."""
    m = Maker(heads=2)
    W, total, (k, v, q) = m.state("W", V, K), m.state("total", V, K), kvq(m)
    (g,) = grads(m, square(m, m.sub(m.tanh(read(m, W, k)), v)), W)
    if start:
        grown = m.updates["total"] = m.when(g, m.add(total, g), clock=Clock(period, start=True))
    else:
        grown = m.add(total, g)
        m.updates["total"] = m.when(m.mul(0.0, total), grown, clock=Clock(period))
    new = m.sub(W, m.mul(0.25, m.tanh(grown)))
    m.updates["W"] = m.when(new, W, clock=Clock(period))
    m.outputs |= {"after": read(m, m.updates["W"], q), "before": read(m, W, q)}
    m.outputs["total"] = read(m, m.updates["total"], q)
    return Derive().apply(m.program())


def resets() -> Program:
    m = Maker(heads=2)
    S, R, (k, v, q) = m.state("S", V, K, reset=Clock(5)), m.state("R", V, K), kvq(m)
    new = m.updates["S"] = m.sub(S, m.mul(0.5, outer(m, m.sub(read(m, S, k), v), k)))
    m.updates["R"] = m.add(R, outer(m, read(m, S, k), q))
    m.outputs |= {"y": read(m, new, q), "z": read(m, R, k)}
    return m.program()


def anchored_linear() -> Program:
    """TTT-Linear: gradients at the start of a mini-batch, prefix states read at each tick; reset now and then."""
    m = Maker(heads=2)
    S, (k, v, q) = m.state("S", V, K, reset=Clock(12)), kvq(m)
    error = m.sub(read(m, m.anchor("S", 3), k), v)
    new = m.updates["S"] = m.sub(m.mul(0.9, S), m.mul(0.5, outer(m, error, k)))
    m.outputs["y"] = read(m, new, q)
    return m.program()


PROGRAMS: dict[str, Callable[[], Program]] = {
    "linear attention": linear_attention,
    "retention": retention,
    "scalar gate": gated_linear,
    "key gate": lambda: gated_linear(K),
    "value gate": lambda: gated_linear(V, 1),
    "full gate": lambda: gated_linear(V, K),
    "bonus": bonus,
    "normalized": normalized,
    "vector": vector,
    "scalar": scalar,
    "state space": state_space,
    "delta": lambda: delta(gated=False),
    "gated delta": delta,
    "gated delta, undecayed erase": lambda: delta(erase_decayed=False),
    "KDA": lambda: delta(K),
    "KDA, undecayed erase": lambda: delta(K, erase_decayed=False),
    "delta, value gate": lambda: delta(V, 1),
    "delta, full gate": lambda: delta(V, K, erase_decayed=False),
    "DPLR": dplr,
    "Householder": householder,
    "Comba": comba,
    "vector gates": vector_gates,
    "Oja": oja,
    "bias": bias,
    "momentum": momentum,
    "late momentum": lambda: momentum(True),
    "momentum, key gates": lambda: momentum(False, K),
    "three states": three_states,
    "chain": chain,
    "coupled": coupled,
    "Titans": titans,
    "Titans, chunk reads": lambda: titans(live=False),
    "self-modifying": self_modifying,
    "slow": slow,
    "slow, reset at the start": lambda: slow(start=True),
    "resets": resets,
    "anchored linear": anchored_linear,
}
