"""The level graph of programs built by hand: levels, order, flow, transfers, folding, JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from nldsl.ir.program import Level, Program, Reset
from nldsl.ir.types import BATCH, Clock
from nldsl.semantics.level_data import Edge, LevelGraph
from nldsl.semantics.level_fold import fold, fold_repeats, merge_blocks
from nldsl.semantics.level_graph import SCHEMA, build_level_graph
from tests.unit.viz.programs import D, Sketch, cross_entropy, hope, window

STEP = Level("step", "step", 1, optimizer_name="AdamW")


def levels(graph: LevelGraph) -> list[str]:
    return [level.id for level in graph.levels]


def between(graph: LevelGraph, source: str, target: str) -> list[Edge]:
    """Edges by the ends of the paths."""
    ids = {n.id: n.path or n.id for n in graph.nodes}
    return [
        e
        for e in graph.edges
        if ids.get(e.source, e.source).endswith(source) and ids.get(e.target, e.target).endswith(target)
    ]


def one(graph: LevelGraph, source: str, target: str, **wanted: object) -> Edge:
    found = [e for e in between(graph, source, target) if all(getattr(e, k) == v for k, v in wanted.items())]
    assert len(found) == 1, found
    return found[0]


def delta(s: Sketch, path: str, x: int, clock: Clock | None = None) -> int:
    """A linear memory: read, then one gradient step; projections of its own."""
    s.memory(path, "Delta")
    w = s.state(path, "S", (D, D), clock=clock)
    q, k, v = (s.apply(s.param(path, n, (D, D)), x, n[1]) for n in ("wq", "wk", "wv"))
    y = s.apply(w, q, "y")
    g = s.op("grad", s.l2(s.apply(w, k), v), w, index=0)
    new = s.op("sub", w, g, name="S")
    s.updates[f"{path}.S"] = new if clock is None else s.op("when", new, w, clock=clock)
    return y


def small(clock: Clock | None = None) -> Program:
    s = Sketch(levels=[STEP])
    x = s.input("x", (D,), "real")
    y = s.linear("head", delta(s, "m", x, clock), 8)
    s.outputs, s.losses = [("y", y)], [("step", cross_entropy(s, y, s.input("target"), 8))]
    return s.done()


# ---------------------------------------------------------------- levels and their order


def test_levels_are_ordered_by_frequency() -> None:
    graph = build_level_graph(hope())
    assert levels(graph) == ["nonparametric", "token-1", "token-16", "step-1", "step-4", "step-16"]
    assert graph.level("token-16").names == ("fast",)
    assert [v.cadence for v in graph.levels] == [
        "at once", "every token", "every 16 tokens", "every step", "every 4 steps", "every 16 steps",
    ]  # fmt: skip


def test_momentum_is_before_the_weights_it_moves() -> None:
    graph = build_level_graph(hope(1, momentum=True))
    assert levels(graph)[1:3] == ["token-1.1", "token-1.2"]
    assert [n.label for n in graph.members("token-1.2")] == ["m"]
    assert "surprise" in [n.label for n in graph.members("token-1.1")]


def test_moments_that_do_not_need_each_other_share_a_level() -> None:
    s = Sketch()
    g = s.input("g", (D,), "real")
    s.memory("adam", "Adam")
    m, v = s.state("adam", "m", (D,)), s.state("adam", "v", (D,))
    s.updates["adam.m"] = new_m = s.op("add", s.op("mul", s.op("const", value=0.9), m), g)
    s.updates["adam.v"] = new_v = s.op("add", s.op("mul", s.op("const", value=0.9), v), s.op("mul", g, g))
    s.outputs = [("change", s.op("div", new_m, s.op("sqrt", new_v)))]
    graph = build_level_graph(s.done())
    assert levels(graph) == ["token-1"]
    assert [s.label for s in graph.nodes[-1].states] == ["m", "v"]


def test_depth_is_not_frequency() -> None:
    """Layers that read after writing need each other's new states; they stay on one level."""
    s = Sketch()
    x = s.input("x", (D,), "real")
    for n in range(3):
        path = f"layers.{n}"
        s.memory(path, "Linear attention")
        old = s.state(path, "S", (D, D))
        new = s.op("add", old, s.op("einsum", x, x, spec="i,j->ij"))
        s.updates[f"{path}.S"] = new
        x = s.apply(new, x)
    s.outputs = [("y", x)]
    graph = build_level_graph(s.done())
    assert levels(graph) == ["token-1"]
    assert one(graph, "layers.0", "layers.1", role="read").flow == "context"


def test_frozen_and_unused() -> None:
    s = Sketch(levels=[Level("slow", "token", 64)])
    x = s.input("x", (D,), "real")
    fixed = s.state("m", "basis", (D, D))
    s.outputs = [("y", s.apply(s.param("p", "w", (D, D), level=""), s.apply(fixed, x)))]
    graph = build_level_graph(s.done())
    assert levels(graph) == ["token-64", "frozen"]
    assert graph.members("token-64") == ()
    assert {n.path for n in graph.members("frozen")} == {"m", "p"}


def test_a_state_on_a_slower_clock() -> None:
    graph = build_level_graph(small(Clock(8)))
    assert levels(graph) == ["token-8", "step-1"]
    assert graph.members("token-8")[0].states[0].period == 8


def test_a_stored_value_is_nonparametric_and_a_held_one_is_not() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    last, held = s.state("a", "last", (D,)), s.state("b", "held", (D,), clock=Clock(4))
    s.updates["a.last"] = x
    s.updates["b.held"] = s.op("when", x, held, clock=Clock(4))
    s.outputs = [("y", s.op("add", last, held))]
    graph = build_level_graph(s.done())
    assert {n.path: n.level for n in graph.nodes if n.level} == {"a": "nonparametric", "b": "token-4"}


def test_accumulators_of_the_compiler_are_not_memories() -> None:
    graph = build_level_graph(hope(1))
    assert not [s for n in graph.nodes for s in n.states if s.name.endswith(("sum_up", "sum_down"))]


# ---------------------------------------------------------------- flow and transfers


def test_direct_parametric_and_own_objective() -> None:
    graph = build_level_graph(small())
    memory = next(n for n in graph.nodes if n.kind == "memory")
    assert memory.learns == "own"
    assert {e.transfer for e in graph.edges if e.target == memory.id} == {"direct"}
    assert one(graph, "m", "head").transfer == "direct"


def test_generation_with_names_and_stop_grad() -> None:
    graph = build_level_graph(hope(1))
    assert one(graph, "memory.mk", "memory.mv").names == ("k",)
    assert one(graph, "memory.mrate", "memory.m").names == ("rate",)
    value = one(graph, "memory.mv", "memory.mk")
    assert (value.transfer, value.role, value.detached) == ("generation", "learn", True)
    assert not one(graph, "memory.mv", "memory.m").detached


def test_gradients_to_an_optimizer_inside_and_back() -> None:
    graph = build_level_graph(hope(1, momentum=True))
    stream = one(graph, "memory.m", "m.surprise")
    assert (stream.flow, stream.transfer, stream.names) == ("gradient", "generation", ("g",))
    back = one(graph, "m.surprise", "memory.m")
    assert (back.flow, back.transfer, back.role) == ("context", "direct", "learn")


def test_backprop_between_levels_of_one_loss() -> None:
    graph = merge_blocks(build_level_graph(hope(1)))
    assert one(graph, "cms.slow", "cms.mid").transfer == "backprop"
    assert one(graph, "cms.mid", "cms.fast", flow="context").transfer == "backprop"
    fast = next(n for n in graph.nodes if n.path.endswith("cms.fast") and n.kind == "memory")
    assert fast.learns == "task"


def test_initialization() -> None:
    graph = build_level_graph(hope(1))
    found = [e for e in between(graph, "memory.m", "memory.m") if e.flow == "initialization"]
    assert [e.transfer for e in found] == ["initialization"]
    assert graph.node(found[0].source).kind == "initial"


def test_nonparametric_transfer() -> None:
    s = Sketch(levels=[STEP])
    x = s.input("x", (D,), "real")
    past = window(s, "conv", s.linear("before", x, D), 4)
    y = s.op("einsum", s.param("after", "taps", (4, D)), past, spec="ij,ij->j")
    s.outputs, s.losses = [("y", y)], [("step", s.op("sum", y, dims=(0,)))]
    graph = build_level_graph(s.done())
    assert one(graph, "conv", "after").transfer == "nonparametric"
    assert one(graph, "before", "conv").transfer == ""
    assert next(n for n in graph.nodes if n.kind == "buffer").label == "window of x"


def test_losses_lead_to_the_optimizers_of_their_levels() -> None:
    graph = build_level_graph(hope(1))
    targets = [e.target for e in graph.edges if e.source == "loss:0"]
    assert targets == ["optimizer:fast", "optimizer:step", "optimizer:mid", "optimizer:slow"]


def test_anchors_and_resets() -> None:
    program = hope(1)
    m = next(n for n in build_level_graph(program).nodes if n.path.endswith("memory.m") and n.kind == "memory")
    assert {s.anchors for s in m.states} == {(64,)}
    assert {(s.reset, s.reset_period) for s in m.states} == {("clock", 64)}
    # where a level has that period, its boundary is what resets
    graph = build_level_graph(replace(program, levels=(*program.levels, Level("chapter", "token", 64))))
    assert one(graph, "level:token-64", "memory.m").flow == "reset"


def test_parameters_without_gradient() -> None:
    s = Sketch(levels=[STEP])
    x = s.input("x", (D,), "real")
    y = s.op("add", s.op("stop_grad", s.linear("dead", x, D)), s.linear("alive", x, D))
    s.outputs, s.losses = [("y", y)], [("step", s.op("sum", y, dims=(0,)))]
    graph = build_level_graph(s.done())
    assert {n.path: n.params[0].reached for n in graph.nodes if n.params} == {"dead": False, "alive": True}


def test_a_residual_stream_comes_from_its_last_stop() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    for n in range(4):
        x = s.op("add", x, s.linear(f"l{n}", x, D))
    s.outputs = [("y", x)]
    graph = build_level_graph(s.done())
    assert len(graph.edges) == 5
    assert one(graph, "l0", "l1").flow == "context"


def test_never_reset_and_shared() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    old = s.state("m", "S", (D,), reset=Reset("never"))
    s.updates["m.S"] = s.op("add", s.op("mul", old, x), x)
    s.states[0] = replace(s.states[0], shared=True)
    s.outputs = [("y", old)]
    state = build_level_graph(s.done()).nodes[-1].states[0]
    assert (state.reset, state.shared) == ("never", True)


# ---------------------------------------------------------------- folding


@pytest.mark.parametrize("layers", [2, 5])
def test_equal_layers_fold(layers: int) -> None:
    graph = fold_repeats(build_level_graph(hope(layers)))
    mk = next(n for n in graph.nodes if n.label == "mk" and n.kind == "memory")
    assert (mk.path, mk.count) == ("layers.*.memory.mk", layers)
    assert mk.parts == tuple(f"layers.{n}.memory.mk" for n in range(layers))
    assert [e.next for e in between(graph, "cms.fast", "layers.*.norm")] == [True]


def test_unequal_layers_do_not_fold() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    for n, size in enumerate((16, 16, 32, 32, 8)):
        x = s.linear(f"layers.{n}.a", x, size)
    s.outputs = [("y", x)]
    graph = fold_repeats(build_level_graph(s.done()))
    counts = {n.path: n.count for n in graph.nodes if n.params}
    # the second 16 takes 16 and the second 32 takes 32, so no two are equal
    assert counts == {f"layers.{n}.a": 1 for n in range(5)}


def test_runs_of_equal_layers_fold() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    for n in range(4):
        x = s.linear(f"layers.{n}.a", x, D) if n < 3 else s.norm(f"layers.{n}.a", x)
    s.outputs = [("y", x)]
    counts = {n.path: n.count for n in fold_repeats(build_level_graph(s.done())).nodes if n.params}
    assert counts == {"layers.0-2.a": 3, "layers.3.a": 1}


def test_blocks_merge_only_if_nothing_comes_back() -> None:
    s = Sketch()
    x = s.input("x", (D,), "real")
    s.memory("block", "Block", "block")
    x = s.linear("block.inner", s.linear("block.first", x, D), D)
    old = s.state("block.mem", "S", (D, D))
    s.updates["block.mem.S"] = s.op("add", s.op("mul", old, old), s.op("einsum", x, x, spec="i,j->ij"))
    s.outputs = [("y", s.linear("block.last", s.apply(old, x), D))]
    nodes = {n.label for n in fold(build_level_graph(s.done()), limit=1).nodes if n.params}
    assert nodes == {"first + inner", "last"}


def test_a_block_of_weights_is_one_box() -> None:
    graph = merge_blocks(build_level_graph(hope(1)))
    slow = next(n for n in graph.nodes if n.label == "slow")
    assert [p.label for p in slow.params] == ["up.weight", "down.weight"]


def test_folding_twice_changes_nothing() -> None:
    once = fold(build_level_graph(hope(3)))
    assert fold(once) == once


# ---------------------------------------------------------------- JSON


def test_json_is_stable_and_complete() -> None:
    graph = build_level_graph(hope(2))
    value = json.loads(json.dumps(graph.to_json()))
    assert value["schema"] == SCHEMA
    assert set(value) == {"schema", "name", "levels", "nodes", "edges"}
    ids = {n["id"] for n in value["nodes"]} | {f"level:{v['id']}" for v in value["levels"]}
    assert len(ids) == len(value["nodes"]) + len(value["levels"])
    assert all(e["source"] in ids and e["target"] in ids for e in value["edges"])
    assert {n["level"] for n in value["nodes"] if n["level"]} <= {v["id"] for v in value["levels"]}
    assert build_level_graph(hope(2)) == graph


def test_every_state_and_parameter_is_in_one_node() -> None:
    program = hope(2, momentum=True)
    graph = build_level_graph(program)
    states = sorted(s.name for n in graph.nodes for s in n.states)
    assert states == sorted(s.name for s in program.states if not s.name.rpartition(".")[2].startswith("sum_"))
    assert sorted(p.name for n in graph.nodes for p in n.params) == sorted(p.name for p in program.params)


def test_an_empty_program() -> None:
    graph = build_level_graph(Program("nothing"))
    assert graph.to_json()["nodes"] == []
    assert fold(graph) == graph


def test_a_recurrent_network() -> None:
    """The output is the state: h <- tanh(W h + U x), y = h."""
    s = Sketch(levels=[STEP], axes=[BATCH])
    x = s.input("x", (D,), "real")
    s.memory("cell", "Rnn")
    h = s.state("cell", "h", (D,))
    pre = s.op("add", s.apply(s.param("cell", "W", (D, D)), h), s.apply(s.param("cell", "U", (D, D)), x))
    s.updates["cell.h"] = new = s.op("tanh", pre, name="h")
    s.outputs, s.losses = [("y", new)], [("step", s.op("sum", new, dims=(0,)))]
    graph = build_level_graph(s.done())
    assert between(graph, "cell", "output:y")
    into = [e for e in graph.edges if e.target == "memory:cell"]
    assert {e.role for e in into} == {"learn"}
    assert {e.transfer for e in into} == {"direct"}
