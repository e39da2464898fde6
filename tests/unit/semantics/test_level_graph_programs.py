"""The level graph of programs in the language: the names, clocks and marks that the front end gives."""

from __future__ import annotations

from nldsl.driver import Options, front
from nldsl.semantics.level_data import Edge, LevelGraph, Node
from nldsl.semantics.level_fold import fold
from nldsl.semantics.level_graph import build_level_graph

TITANS = """
memory Momentum() {
  state m: like g = 0
  learn(g, rate: [], beta: []) -> like g every tick {
    m <- beta * m - rate * g
    return m
  }
}
memory Deep(d: dim) {
  state W: [d, d] = learned normal(0.1) reset every 32 token
  optimizer surprise: Momentum()
  read(q: [d]) -> [d] = silu(W @ q)
  learn(k: [d], v: [d], rate: []) every token {
    g = grad(sum((read(k) - v) ^ 2), W) at start of 8
    W <- W + surprise.learn(g, rate, 0.9)
  }
}
model Titans(d: dim = 4, layers: int = 3) {
  level chapter = every 32 token
  level slow = every 8 step
  level step
  input x: [d]
  repeat layers {
    memory m: Deep(d)
    param wk, wq: [d, d]
    param wv: [d, d] at slow
    y = m.read(wq @ x)
    m.learn(wk @ x, stop_grad(wv @ x), 0.1)
    x = x + y
  }
  minimize sum(x * x) at step
  return x
}
"""

FAST = """
memory Sgd(rate: real) {
  learn(g) -> like g every tick = -rate * g
}
block Layer(x: [d]) {
  param w: [d, d]
  return x + silu(w @ x)
}
model Cms(d: dim = 4) {
  level fast = every 16 token with Sgd(0.1)
  level step
  input x: [d]
  y = Layer(Layer(x) at fast)
  minimize sum((y - next(x)) ^ 2) at step with Sgd(0.01)
  return y
}
"""

ATTENTION = """
block Attention(x: [d], n: int = 8) {
  param wq, wk, wv: [d, d]
  k = wk @ x
  v = wv @ x
  scores = softmax(where(window_mask(n) > 0.5, window(k, n) @ (wq @ x), -1e9))
  return scores @ window(v, n)
}
model Transformer(d: dim = 4) {
  level step
  input x: [d]
  y = x + Attention(x)
  minimize sum(y * y) at step
  return y
}
"""


def graph(text: str, **dims: int) -> LevelGraph:
    return build_level_graph(front("test.nl", Options(None, tuple(dims.items())), text))


def memory(found: LevelGraph, label: str) -> Node:
    return next(n for n in found.nodes if n.label == label and n.kind in ("memory", "buffer"))


def into(found: LevelGraph, node: Node) -> list[Edge]:
    return [e for e in found.edges if e.target == node.id]


def test_a_memory_with_its_optimizer() -> None:
    found = fold(graph(TITANS))
    assert [v.id for v in found.levels] == ["token-1.1", "token-1.2", "token-32", "step-1", "step-8"]
    m, surprise = memory(found, "m"), memory(found, "surprise")
    assert (m.count, surprise.count) == (3, 3)
    assert (m.level, surprise.level) == ("token-1.2", "token-1.1")
    assert (m.states[0].anchors, m.states[0].reset_period, m.learns) == ((8,), 32, "own")
    gradients = [e for e in found.edges if e.flow == "gradient" and e.target == surprise.id]
    assert [(e.source, e.names) for e in gradients] == [(m.id, ("g",))]
    assert [e.source for e in into(found, m) if e.flow == "reset"] == ["level:token-32"]
    detached = [e for e in into(found, m) if e.detached]
    assert [found.node(e.source).params[0].label for e in detached] == ["wv"]
    assert {e.transfer for e in into(found, m) if e.flow == "initialization"} == {"initialization"}


def test_parameters_that_no_gradient_reaches() -> None:
    found = graph(TITANS, layers=1)
    assert [p.label for n in found.nodes for p in n.params if not p.reached] == ["wv"]


def test_fast_weights() -> None:
    found = graph(FAST)
    assert [(v.id, v.names) for v in found.levels] == [("token-16", ("fast",)), ("step-1", ("step",))]
    (fast,) = [n for n in found.members("token-16") if n.kind == "memory"]
    assert fast.learns == "task"
    assert {e.target for e in found.edges if e.source == "loss:0"} == {"optimizer:fast", "optimizer:step"}
    assert [e.transfer for e in found.edges if e.source == fast.id] == ["backprop"]
    assert [e.transfer for e in into(found, fast) if e.flow == "initialization"] == ["initialization"]


def test_attention_is_nonparametric() -> None:
    found = graph(ATTENTION)
    assert [v.kind for v in found.levels] == ["nonparametric", "step"]
    buffers = found.members("nonparametric")
    assert all(s.hidden and s.label.startswith(("window_", "prev_")) for n in buffers for s in n.states)
    assert {e.flow for e in found.edges if e.target in {n.id for n in buffers}} == {"context"}
