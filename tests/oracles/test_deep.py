# mypy: disable-error-code="no-any-return, misc"
"""MIRAS, ATLAS, TNT, LaCT and implicit steps against loops over the tokens with torch.func.grad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tests.oracles.harness import Case, Tensors, agree, between, both_backends, normal

gelu = torch.nn.GELU(approximate="tanh")
Weights = tuple[torch.Tensor, ...]
Read = Callable[[Weights, torch.Tensor], torch.Tensor]
Loss = Callable[..., torch.Tensor]


def each_sequence(run: Callable[[Tensors, Tensors], list[torch.Tensor]]) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """An oracle for batches from one for a sequence."""

    def oracle(x: Tensors, p: Tensors) -> torch.Tensor:
        batch = next(iter(x.values())).shape[0]
        return torch.stack([torch.stack(run({n: t[b] for n, t in x.items()}, p)) for b in range(batch)])

    return oracle


def slopes(loss: Callable[[Weights], torch.Tensor], at: Weights) -> Weights:
    found: Weights = torch.func.grad(loss)(at)
    return found


def standardize(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def half(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return 0.5 * ((a - b) ** 2).sum()


def whole(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2).sum()


def inner(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return -a @ b


def residual(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return x + standardize(w[0] @ gelu(w[1] @ x))


def matrix(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return w[0] @ x


# ---------------------------------------------------------------- MIRAS


def miras(bias: Loss, retain: Callable[..., torch.Tensor]) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """A learned matrix, any bias and retention."""

    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        w, found = p["m.net.W_0"], []
        for q, k, v, rate, keep in zip(x["q"], x["k"], x["v"], x["rate"], x["keep"], strict=True):
            (g,) = slopes(lambda w, k=k, v=v: bias(w[0] @ k, v), (w,))
            w = retain(w, -rate * g, keep)
            found.append(w @ q)
        return found

    return each_sequence(run)


def decay(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return keep * w + step


def huber(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return F.huber_loss(a, b, reduction="sum", delta=0.5)


def huber_norm(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    size = (a - b).norm()
    return torch.where(size <= 1.0, size**2 / 2, size - 0.5)


def mixture(a: torch.Tensor, b: torch.Tensor, delta: Any = 1.0) -> torch.Tensor:
    r = a - b
    return torch.where((r**2).sum() <= delta**2, half(a, b), delta * (r**2 + 1e-6).sqrt().sum())


def cubic(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2 + 1e-6).pow(1.5).sum()


def cubic_printed(r: torch.Tensor) -> torch.Tensor:
    """The gradient of the cubes with respect to the error, as printed."""
    return 3 * torch.tanh(10 * r) * (r**2 + 1e-6)


def absolute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return ((a - b) ** 2 + 1e-6).sqrt().sum()


def robust(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return half(a, b) + (a - b).norm()


def elastic(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return F.softshrink(keep * w + step, 0.01)


def smooth_elastic(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    z = keep * w + step
    return z.abs() * torch.atan(z / 0.01) / (torch.pi / 2)


def logistic(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(keep * torch.logit(w) + step)


def simplex(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.softmax(keep * w.log() + step, -1)


def chi_square(w: torch.Tensor, step: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """f = (x - 1)^2 / 2 has g(y) = 1 + y: the multiplier of each row is a mean with the weights."""
    mean = ((w * (1 + step)).sum(-1, keepdim=True) - 1) / w.sum(-1, keepdim=True)
    return w * (1 + step - mean)


def miras_text(bias: str, retain: str, positive: bool = False) -> str:
    first = "uniform(0.3, 0.7)" if positive else "normal(1.0)"
    return f"""
from "memories/miras" import Miras
from "objectives" import l2, l1, lp, huber, huber_norm, huber_mixture, robust
from "retentions" import decay, elastic, logistic, simplex, divergence
objective narrow(pred: [n], target: [n]) -> [] = huber(pred, target, 0.5)
retention smooth(W: [...], step: like W, keep: [...]) -> like W = elastic(W, step, keep, smooth = true)
fn chi_square(y: [...]) -> like y = 1 + y
retention chi(W: [...], step: like W, keep: [...]) -> like W = divergence(W, step, chi_square)
memory First() {{
  state W: [3, 4] = learned {first}
  read(x: [4]) -> [3] = W @ x
}}
memory Test() {{
  memory m: Miras(4, 3, structure = First(), bias = {bias}, retain = {retain})
  step(q: [4], k: [4], v: [3], rate: [], keep: []) -> [3] = m.step(q, k, v, rate, keep)
}}
"""


BIASES: list[tuple[str, Loss]] = [
    ("l2", half),
    ("l1", absolute),
    ("lp", cubic),
    ("narrow", huber),
    ("huber_norm", huber_norm),
    ("huber_mixture", mixture),
    ("robust", robust),
]
RETENTIONS: list[tuple[str, Callable[..., torch.Tensor], bool]] = [
    ("elastic", elastic, False),
    ("smooth", smooth_elastic, False),
    ("logistic", logistic, True),
    ("simplex", simplex, True),
    ("chi", chi_square, True),
]


def yaad(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w: Weights = (p["net.w1_0"], p["net.w2_0"])
    anchor, found = w, []
    for t, (q, k, v) in enumerate(zip(x["q"], x["k"], x["v"], strict=True)):
        anchor = w if t % 3 == 0 else anchor
        g = slopes(lambda w, k=k, v=v, d=x["delta"][t]: mixture(residual(w, k), v, d), anchor)
        w = tuple(x["keep"][t] * a - x["rate"][t] * b for a, b in zip(w, g, strict=True))
        found.append(residual(w, q))
    return found


def moneta(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    def normalized(a: torch.Tensor) -> torch.Tensor:
        return a / (((a**2 + 1e-12) ** 2).sum() ** 0.25) ** 2

    a: Weights = (p["a1_0"], p["a2_0"])
    anchor, found = a, []
    for t, (q, k, v) in enumerate(zip(x["q"], x["k"], x["v"], strict=True)):
        w = tuple(normalized(m) for m in a)
        anchor = w if t % 3 == 0 else anchor
        g = slopes(lambda w, k=k, v=v: cubic(residual(w, k), v), anchor)
        a = tuple(x["keep"][t] * m - x["rate"][t] * s for m, s in zip(a, g, strict=True))
        found.append(residual(tuple(normalized(m) for m in a), q))
    return found


def memora(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w: Weights = (torch.softmax(p["a1_0"], -1), torch.softmax(p["a2_0"], -1))
    anchor, found = w, []
    for t, (q, k, v) in enumerate(zip(x["q"], x["k"], x["v"], strict=True)):
        anchor = w if t % 3 == 0 else anchor
        g = slopes(lambda w, k=k, v=v: half(residual(w, k), v), anchor)
        w = tuple(simplex(a, -x["rate"][t] * b, x["keep"][t]) for a, b in zip(w, g, strict=True))
        found.append(residual(w, q))
    return found


# ---------------------------------------------------------------- ATLAS


def polynomial(x: torch.Tensor) -> torch.Tensor:
    i, j = torch.triu_indices(len(x), len(x))
    return torch.cat([torch.ones(1, dtype=x.dtype), x, 0.5 * x[i] * x[j]])


def exponential(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.ones(1, dtype=x.dtype), x, torch.kron(x, x) / 2**0.5])


def omega(
    loss: Loss,
    reach: int,
    phi: Callable[[torch.Tensor], torch.Tensor] = lambda x: x,
    read: Read = matrix,
    chunk: int = 1,
    first: Callable[[Tensors], Weights] = lambda p: (torch.zeros(()),),
    muon: bool = False,
) -> Callable[[Tensors, Tensors], torch.Tensor]:
    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        f = [phi(k) for k in x["k"]]
        w = first(p)
        if w[0].ndim == 0:
            w = (torch.zeros(x["v"].shape[-1], len(f[0]), dtype=f[0].dtype),)
        anchor, s, found = w, tuple(torch.zeros_like(a) for a in w), []
        for t in range(len(f)):
            anchor = w if t % chunk == 0 else anchor
            seen = range(max(0, t - reach + 1), t + 1)

            def windowed(w: Weights, seen: range = seen) -> torch.Tensor:
                return torch.stack([x["gamma"][i] * loss(read(w, f[i]), x["v"][i]) for i in seen]).sum()

            g = slopes(windowed, anchor)
            if muon:
                s = tuple(x["beta"][t] * a + b for a, b in zip(s, g, strict=True))
                g = tuple(x["rate"][t] * newton_schulz(a) for a in s)
            w = tuple(x["keep"][t] * a - b for a, b in zip(w, g, strict=True))
            found.append(read(w, phi(x["q"][t])))
        return found

    return each_sequence(run)


def newton_schulz(g: torch.Tensor, schedule: list[tuple[float, float, float]] | None = None) -> torch.Tensor:
    x = g / g.norm()
    for a, b, c in schedule or [(3.4445, -4.7750, 2.0315)] * 5:
        x = a * x + b * x @ x.T @ x + c * x @ x.T @ x @ x.T @ x
    return x


def two_layers(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return w[0] @ gelu(w[1] @ x)


def omega_text(name: str, arguments: str) -> str:
    return f"""
from "memories/atlas" import {name}
block Test(q: [3], k: [3], v: [2], gamma: [], keep: []) {{
  memory m: {name}(3, 2, {arguments})
  return m.step(q, k, v, gamma, keep)
}}
"""


# ---------------------------------------------------------------- TNT, LaCT, implicit steps


def tnt(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    def read(w: Weights, q: torch.Tensor) -> torch.Tensor:
        return w[0] @ F.silu(w[1] @ q)

    def first(n: int) -> Weights:
        return p[f"chunk.{n}.local.w1_0"], p[f"chunk.{n}.local.w2_0"]

    chunks, shard, long = (1, 3), 6, 4
    whole_w: Weights = (p["whole.w1_0"], p["whole.w2_0"])
    pending = [torch.zeros_like(w) for w in whole_w]
    locals_w, anchors = [first(0), first(1)], [first(0), first(1)]
    keys, found = torch.zeros(3, 3, dtype=torch.float64), []
    for t, (q, k, v, rate) in enumerate(zip(x["q"], x["k"], x["v"], x["rate"], strict=True)):
        if t % shard == 0:
            locals_w, keys = [first(0), first(1)], torch.zeros_like(keys)
        y, keys = read(whole_w, q), keys + torch.outer(k, k)
        for n, chunk in enumerate(chunks):
            if t % chunk == 0:
                anchors[n] = locals_w[n]
            g = slopes(lambda w, k=k, v=v: whole(read(w, k), v), anchors[n])
            locals_w[n] = tuple(a - rate * b for a, b in zip(locals_w[n], g, strict=True))
            y = y + read(locals_w[n], keys @ q)
        g = slopes(lambda w, k=k, v=v: whole(read(w, k), v), whole_w)
        pending = [a + rate * b for a, b in zip(pending, g, strict=True)]
        if (t + 1) % long == 0:
            whole_w = tuple(a - b for a, b in zip(whole_w, pending, strict=True))
            pending = [torch.zeros_like(w) for w in whole_w]
        found.append(y)
    return found


LACT = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]


def lact(muon: bool) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """The block form: all tokens of a chunk at once, the gradients written out as in the paper's code."""

    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        w0, w1, w2 = first = tuple(p[f"w{n}_0"] for n in range(3))
        last, found = [torch.zeros_like(w) for w in first], []
        for at in range(0, len(x["q"]), 3):
            here = slice(at, at + 3)
            q, k, v, lr = (x[n][here] for n in ("q", "k", "v", "rates"))
            found += list((F.silu(q @ w0.T) * (q @ w2.T)) @ w1.T)
            if len(k) < 3:
                break
            gate, up = k @ w0.T, k @ w2.T
            hidden, back = F.silu(gate) * up, v @ w1
            sig = torch.sigmoid(gate)
            slope = sig * (1 + gate * (1 - sig))
            steps = [
                (lr[:, 0:1] * back * up * slope).T @ k,
                (lr[:, 1:2] * v).T @ hidden,
                (lr[:, 2:3] * back * F.silu(gate)).T @ k,
            ]
            last = [s + x["beta"][here].mean() * d for s, d in zip(steps, last, strict=True)]
            change = [newton_schulz(d, LACT) for d in last] if muon else last
            moved = [w + d for w, d in zip((w0, w1, w2), change, strict=True)]
            w0, w1, w2 = (
                w / (w.norm(dim=1, keepdim=True) + 1e-5) * f.norm(dim=1, keepdim=True)
                for w, f in zip(moved, first, strict=True)
            )
        return found

    return each_sequence(run)


def proximal(x: Tensors, _: Tensors) -> torch.Tensor:
    """The minimizer in closed form, by Sherman and Morrison."""

    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        w, found = torch.zeros(3, 4, dtype=torch.float64), []
        for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):
            w = w - rate / (1 + rate * k @ k) * torch.outer(w @ k - v, k)
            found.append(w @ q)
        return found

    return each_sequence(run)(x, _)


@each_sequence
def inner_steps(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w, found = torch.zeros(3, 4, dtype=torch.float64), []
    for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):

        def objective(m: Weights, at: Weights = (w, k, v, rate)) -> torch.Tensor:
            before, key, value, weight = at
            return weight * half(m[0] @ key, value) + 0.5 * ((m[0] - before) ** 2).sum()

        for _step in range(5):
            (g,) = slopes(objective, (w,))
            w = w - 0.5 * g
        found.append(w @ q)
    return found


def delta_descent(exact: bool) -> Callable[[Tensors, Tensors], torch.Tensor]:
    """The minimizer as a linear system (exact), or the printed rule."""

    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        w, found = p["W_0"], []
        for q, k, v, rate in zip(x["q"], x["k"], x["v"], x["rate"], strict=True):
            u = v - w @ k  # the negative gradient of l2 at the output
            if exact:
                system = torch.eye(4, dtype=w.dtype) + rate * torch.outer(k, k)
                w = torch.linalg.solve(system, (w + rate * torch.outer(u, k)).T).T
            else:
                r = rate / (1 + rate)
                w = w @ (torch.eye(4, dtype=w.dtype) - r * torch.outer(k, k)) + r * torch.outer(u, k)
            found.append(w @ q)
        return found

    return each_sequence(run)


DESCENT = """
from "optimizers/delta" import DeltaDescent
from "objectives" import l2
memory Test(exact: bool) {
  optimizer opt: DeltaDescent(exact = exact)
  state W: [3, 4] = learned normal(0.5)
  step(q: [4], k: [4], v: [3], rate: []) -> [3] every token {
    W <- W + opt.learn(grad(l2(W @ k, v), W), weight = W, x = k, rate = rate)
    return W @ q
  }
}
"""

GAMMA = {"gamma": between(0.1, 0.6), "beta": between(0.2, 0.8)}
D3 = {"d": 3, "hidden": 4, "chunk": 3}
LOOP = "loop with torch.func.grad"
CASES = [
    *(
        Case(
            "miras.nl",
            "Test",
            {},
            miras(loss, decay),
            LOOP,
            label=f"(Miras, bias = {name})",
            text=miras_text(name, "decay"),
        )
        for name, loss in BIASES
    ),
    *(
        Case(
            "miras.nl",
            "Test",
            {},
            miras(half, rule),
            LOOP,
            label=f"(Miras, retain = {name})",
            text=miras_text("l2", name, positive),
            draws={"rate": between(0.05, 0.2)},
        )
        for name, rule, positive in RETENTIONS
    ),
    Case("memories/miras", "Yaad", D3, each_sequence(yaad), LOOP, draws={"delta": between(0.5, 3.0)}, ticks=8),
    Case("memories/miras", "Moneta", D3, each_sequence(moneta), LOOP, ticks=8, draws={"rate": between(0.01, 0.05)}),
    Case("memories/miras", "Memora", D3, each_sequence(memora), LOOP, ticks=8),
    Case("memories/atlas", "Omega", {"dk": 3, "dv": 2, "reach": 3, "chunk": 1}, omega(whole, 3), LOOP, draws=GAMMA),
    Case(
        "dla.nl",
        "Test",
        {},
        omega(inner, 1, chunk=2),
        LOOP,
        label="(DLA)",
        text=omega_text("DLA", "chunk = 2"),
        draws=GAMMA,
    ),
    Case(
        "swla.nl", "Test", {}, omega(inner, 3), LOOP, label="(SWLA)", text=omega_text("SWLA", "reach = 3"), draws=GAMMA
    ),
    Case(
        "omeganet.nl",
        "Test",
        {},
        omega(whole, 3, polynomial, chunk=2),
        LOOP,
        label="(OmegaNet)",
        draws=GAMMA,
        text=omega_text("OmegaNet", "reach = 3, features = 10, chunk = 2"),
    ),
    Case(
        "deep.nl",
        "Test",
        {},
        omega(inner, 1, exponential),
        LOOP,
        label="(DeepTransformer)",
        draws=GAMMA,
        text=omega_text("DeepTransformer", "features = 13"),
    ),
    Case(
        "sliding.nl",
        "Test",
        {},
        omega(inner, 3, exponential),
        LOOP,
        label="(SlidingDeepTransformer)",
        draws=GAMMA,
        text=omega_text("SlidingDeepTransformer", "features = 13, reach = 3"),
    ),
    Case(
        "dot.nl",
        "Test",
        {},
        omega(whole, 3, exponential),
        LOOP,
        label="(Dot)",
        draws=GAMMA | {"gamma": between(0.01, 0.1)},
        text=omega_text("Dot", "features = 13, reach = 3, chunk = 1"),
    ),
    Case(
        "memories/atlas",
        "Atlas",
        {"d": 3, "reach": 2, "chunk": 2},
        omega(whole, 2, read=two_layers, chunk=2, first=lambda p: (p["net.w1_0"], p["net.w2_0"]), muon=True),
        LOOP,
        draws=GAMMA,
        ticks=5,
    ),
    Case(
        "memories/tnt",
        "TNT",
        {"d": 3, "hidden": 4, "global_chunk": 4, "chunks": [1, 3], "shard": 6},
        each_sequence(tnt),
        LOOP,
        ticks=8,
        draws={"rate": between(0.05, 0.2)},
    ),
    Case(
        "memories/lact",
        "LaCT",
        {"dk": 3, "dv": 2, "hidden": 4, "chunk": 3},
        lact(False),
        "block form",
        ticks=8,
        draws={"rates": between(0.01, 0.2)},
    ),
    Case(
        "memories/lact",
        "LaCT",
        {"dk": 3, "dv": 2, "hidden": 4, "chunk": 3, "muon": True},
        lact(True),
        "block form",
        ticks=8,
        label="(Muon)",
        draws={"rates": between(0.01, 0.2)},
    ),
    Case("memories/proximal", "Proximal", {"dk": 4, "dv": 3, "steps": 5}, inner_steps, LOOP, ticks=4),
    Case(
        "memories/proximal",
        "Proximal",
        {"dk": 4, "dv": 3, "steps": 26, "inner": 0.67},
        proximal,
        "closed form",
        label="(26 steps)",
        ticks=4,
        backends=("reference",),  # the chunked form of so many writes in a tick takes minutes to find
    ),
    Case(
        "descent.nl",
        "Test",
        {"exact": True},
        delta_descent(True),
        "linear solve",
        label="(DeltaDescent, exact)",
        text=DESCENT,
        draws={"k": normal},
    ),
    Case(
        "descent.nl",
        "Test",
        {"exact": False},
        delta_descent(False),
        "loop",
        label="(DeltaDescent, printed)",
        text=DESCENT,
    ),
]


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
