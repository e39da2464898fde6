# mypy: disable-error-code="no-any-return, misc"
"""Titans' wirings, the five transfers, inner loops, self-modifying memories: hand loops with torch.func.grad."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from tests.oracles.harness import Case, Tensors, agree, both_backends, normal
from tests.oracles.test_deep import Weights, each_sequence, half, slopes, whole

LOOP = "loop with torch.func.grad"


def unit(x: torch.Tensor, epsilon: float = 1e-6) -> torch.Tensor:
    return x * torch.rsqrt((x**2).sum() + epsilon)


def rmsnorm(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
    return gain * x * torch.rsqrt((x * x).mean() + 1e-6)


# ---------------------------------------------------------------- Titans: as context, as gate, as layer


def silu_layers(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return w[0] @ F.silu(w[1] @ x)


class LongTerm:
    """Titans' memory with its projections: gradients at the start of the chunk, momentum and retention per token."""

    def __init__(self, p: Tensors, chunk: int) -> None:
        self.p, self.chunk, self.t = p, chunk, 0
        self.w: Weights = tuple(p[f"m.m.net.w{n}_0"] for n in (1, 2))
        self.s: Weights = tuple(torch.zeros_like(a) for a in self.w)
        self.anchor = self.w

    def read(self, x: torch.Tensor, anchored: bool = False) -> torch.Tensor:
        if self.t % self.chunk == 0:
            self.anchor = self.w
        return silu_layers(self.anchor if anchored else self.w, unit(self.p["m.wq"] @ x))

    def learn(self, x: torch.Tensor) -> None:
        if self.t % self.chunk == 0:
            self.anchor = self.w
        k, v = unit(F.silu(self.p["m.wk"] @ x)), F.silu(self.p["m.wv"] @ x)
        rate, beta, keep = (
            torch.sigmoid(self.p[f"m.gate_of{n}.w"] @ x + self.p[f"m.gate_of{n}.b"]) for n in ("", "_2", "_3")
        )
        g = slopes(lambda w: whole(silu_layers(w, k), v), self.anchor)
        self.s = tuple(beta * a - 0.1 * rate * b for a, b in zip(self.s, g, strict=True))
        self.w = tuple(keep * a + b for a, b in zip(self.w, self.s, strict=True))
        self.t += 1


def attend(p: Tensors, x: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
    q, k, v = p["attend.wq"] @ x, torch.stack(rows) @ p["attend.wk"].T, torch.stack(rows) @ p["attend.wv"].T
    y = F.scaled_dot_product_attention(q[None, None], k[None], v[None])
    return p["attend.wo"] @ y[0, 0]


def gated(p: Tensors, y: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return rmsnorm(y, p["gated.rmsnorm.gain"]) * torch.sigmoid(rmsnorm(z, p["gated.rmsnorm_2.gain"]))


def as_context(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    memory, found, here = LongTerm(p, 3), [], list[tuple[torch.Tensor, torch.Tensor]]()
    for t, token in enumerate(x["x"]):
        here = ([] if t % 3 == 0 else here) + [(memory.read(token, anchored=True), token)]
        y = attend(p, token, [*p["P"], *(h for h, _ in here), *(s for _, s in here)])
        memory.learn(y)
        found.append(gated(p, y, memory.read(y)))
    return found


def as_gate(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    memory, found = LongTerm(p, 3), []
    for t, token in enumerate(x["x"]):
        y = attend(p, token, [*p["P"], *x["x"][max(0, t - 3) : t + 1]])
        memory.learn(token)
        found.append(gated(p, y, memory.read(token)))
    return found


def as_layer(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    memory, answers, found = LongTerm(p, 3), list[torch.Tensor](), []
    for token in x["x"]:
        memory.learn(token)
        answers.append(memory.read(token))
        found.append(attend(p, answers[-1], [*p["P"], *answers[-4:]]))
    return found


def titans_text(name: str, arguments: str) -> str:
    return f"""
from "blocks/titans" import {name}
block Test(x: [3]) {{
  return {name}(x, persistent = 2, top = 0.1, {arguments})
}}
"""


def inside(oracle: Callable[[Tensors, Tensors], list[torch.Tensor]], name: str) -> Callable[..., torch.Tensor]:
    """The parameters of the only block, by their names inside it."""

    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        return oracle(x, {n.removeprefix(f"{name}."): q for n, q in p.items()})

    return each_sequence(run)


# ---------------------------------------------------------------- inner loops


def two_tanh_layers(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return w[0] @ torch.tanh(w[1] @ x)


def maml(second_order: bool) -> Callable[[Tensors, Tensors], torch.Tensor]:
    def task(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        found = []
        for support, labels, query in zip(x["support"], x["labels"], x["query"], strict=True):
            w: Weights = (p["m.net.w1_0"], p["m.net.w2_0"])

            def loss(w: Weights, support: torch.Tensor = support, labels: torch.Tensor = labels) -> torch.Tensor:
                return torch.stack(
                    [half(two_tanh_layers(w, a), b) for a, b in zip(support, labels, strict=True)]
                ).mean()

            for _step in range(3):
                g = slopes(loss, w if second_order else tuple(a.detach() for a in w))
                w = tuple(a - 0.1 * b for a, b in zip(w, g if second_order else (b.detach() for b in g), strict=True))
            found.append(two_tanh_layers(w, query))
        return found

    return each_sequence(task)


def maml_text(second_order: bool) -> str:
    return f"""
from "nested/maml" import Maml
from "structures" import TwoLayer
block Test(support: [4, 3], labels: [4, 2], query: [3]) {{
  memory m: Maml(3, 2, structure = TwoLayer(3, 2, 5, tanh), steps = 3, second_order = {str(second_order).lower()})
  return m.step(support, labels, query)
}}
"""


def learning_to_optimize(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w, m, v = (torch.zeros(1, 3, dtype=torch.float64) for _ in range(3))
    found = []
    for a, b in zip(x["x"], x["y"], strict=True):
        r = w @ a - b
        found.append(0.5 * r @ r)
        g = torch.outer(r, a)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        features = torch.stack([g, m, g / (v.sqrt() + 1e-8)], -1)
        w = w - 0.1 * (m + torch.tanh(features @ p["rule.w"].T + p["rule.b"]) @ p["rule.out"])
    return found


def learned_rate(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    w, found = torch.zeros(2, 3, dtype=torch.float64), []
    for a, b in zip(x["x"], x["y"], strict=True):
        found.append(w @ a)
        w = w - p["log_rate"].exp() * torch.outer(w @ a - b, a)
    return found


# ---------------------------------------------------------------- the five transfers


def block(name: str, arguments: str) -> str:
    return f"""
from "nested/transfers" import {name}
block Test(x: [3]) {{
  return {name}(x, {arguments})
}}
"""


def fast_weights(x: Tensors, p: Tensors) -> torch.Tensor:
    q, k, v = (x["x"] @ p[f"fast_weights.{n}"].T for n in ("wq", "wk", "wv"))
    return torch.tril(q @ k.transpose(1, 2)) @ v


def from_context(x: Tensors, p: Tensors) -> torch.Tensor:
    q, k, v = (x["x"] @ p[f"from_context.{n}"].T for n in ("wq", "wk", "wv"))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def initialized(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    found, w = [], p["M_0"]
    for t, (q, k, v) in enumerate(zip(x["q"], x["k"], x["v"], strict=True)):
        w = p["M_0"] if t % 3 == 0 else w
        w = w - 0.1 * torch.outer(w @ k - v, k)
        found.append(w @ q)
    return found


def generated(x: Tensors, p: Tensors) -> list[torch.Tensor]:
    c, found = torch.zeros(3, dtype=torch.float64), []
    for token in x["x"]:
        c = 0.9 * c + 0.1 * token
        left, right = (p["left"] @ c).reshape(2, 4), (p["right"] @ c).reshape(2, 3)
        found.append(p["base"] @ token + left.T @ (right @ token))
    return found


# ---------------------------------------------------------------- self-modifying Titans


def residual_silu(w: Weights, x: torch.Tensor) -> torch.Tensor:
    return x + w[0] @ F.silu(w[1] @ x)


def self_modifying(erase: bool) -> Callable[[Tensors, Tensors], list[torch.Tensor]]:
    def run(x: Tensors, p: Tensors) -> list[torch.Tensor]:
        boxes = {n: (p[f"{n}.w1_0"], p[f"{n}.w2_0"]) for n in ("mk", "mv", "mrate", "mkeep", "m")}
        start, found = boxes, []
        for t, token in enumerate(x["x"]):
            start = dict(boxes) if t % 3 == 0 else start
            k, v = unit(residual_silu(start["mk"], token)), unit(residual_silu(start["mv"], token))
            rate = 0.2 * torch.sigmoid(residual_silu(start["mrate"], token).mean() - 1)
            keep = torch.sigmoid(residual_silu(start["mkeep"], token).mean() + 7)
            found.append(residual_silu(start["m"], unit(p["wq"] @ token)))
            for n, (w1, w2) in boxes.items():
                target = residual_silu(start[n], v)
                # the target is given: training goes through it, the memory's own gradient does not
                g1, g2 = inner_slopes(start[n], k, target)
                retained = w2 @ (keep * torch.eye(3, dtype=k.dtype) - rate * torch.outer(k, k)) if erase else keep * w2
                boxes[n] = (keep * w1 - rate * g1, retained - rate * g2)
        return found

    return run


def inner_slopes(w: Weights, k: torch.Tensor, target: torch.Tensor) -> Weights:
    """The gradients of half the squared error, written out."""
    z = w[1] @ k
    s = torch.sigmoid(z)
    r = k + w[0] @ (z * s) - target
    return torch.outer(r, z * s), torch.outer((w[0].T @ r) * (s + z * s * (1 - s)), k)


CASES = [
    Case(
        "context.nl", "Test", {}, inside(as_context, "memory_as_context"), LOOP, label="(MemoryAsContext)", ticks=8,
        text=titans_text("MemoryAsContext", "segment = 3"),
    ),
    Case(
        "gate.nl", "Test", {}, inside(as_gate, "memory_as_gate"), LOOP, label="(MemoryAsGate)", ticks=8,
        text=titans_text("MemoryAsGate", "reach = 4, chunk = 3"),
    ),
    Case(
        "layer.nl", "Test", {}, inside(as_layer, "memory_as_layer"), LOOP, label="(MemoryAsLayer)", ticks=8,
        text=titans_text("MemoryAsLayer", "reach = 4, chunk = 3"),
    ),
    Case("maml.nl", "Test", {}, maml(True), LOOP, label="(Maml)", text=maml_text(True), ticks=3),
    Case("maml.nl", "Test", {}, maml(False), LOOP, label="(Maml, first order)", text=maml_text(False), ticks=3),
    Case(
        "nested/maml", "LearningToOptimize", {"dk": 3, "hidden": 4}, each_sequence(learning_to_optimize), "loop",
    ),
    Case("nested/maml", "LearnedRate", {"dk": 3, "dv": 2}, each_sequence(learned_rate), "loop"),
    Case("one.nl", "Test", {}, fast_weights, "parallel form", label="(FastWeights)", text=block("FastWeights", "4, 2")),
    Case(
        "two.nl", "Test", {}, from_context, "torch scaled_dot_product_attention", label="(FromContext)",
        text=block("FromContext", "4, 2, reach = 16"),
    ),
    Case(
        "nested/transfers", "Initialized", {"dk": 3, "dv": 2, "context": 3}, each_sequence(initialized), "loop",
        draws={"k": normal},
    ),
    Case(
        "five.nl", "Test", {}, inside(generated, "generated"), "loop", label="(Generated)",
        text=block("Generated", "4, rank = 2"),
    ),
    Case(
        "memories/self_modifying", "SelfModifying", {"d": 3, "hidden": 4, "chunk": 3},
        each_sequence(self_modifying(True)), "loop, gradients written out", ticks=8,
    ),
    Case(
        "memories/self_modifying", "SelfModifying", {"d": 3, "hidden": 4, "chunk": 3, "erase": False},
        each_sequence(self_modifying(False)), "loop, gradients written out", ticks=8, label="(no erasure)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("case", "backend"), both_backends(CASES))
def test_agrees(case: Case, backend: str) -> None:
    agree(case, backend)
