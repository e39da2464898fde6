"""Where boxes and links go: nothing overlaps, everything is in its lane, and it always ends."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from itertools import combinations, pairwise

import pytest

from nldsl.semantics.level_data import Edge, Level, LevelGraph, Node
from nldsl.semantics.level_graph import build_level_graph
from nldsl.viz.layout import HEADER, Layout, Rect, arrange
from nldsl.viz.scene import Scene, SceneOptions, scene_of
from tests.unit.viz.programs import hope

KINDS = [("context", ""), ("context", "direct"), ("context", "generation"), ("context", "backprop")]


def random_graph(seed: int, count: int, edges: int) -> LevelGraph:
    chance = random.Random(seed)
    levels = tuple(Level(f"token-{n}", "token", n) for n in range(1, chance.randint(2, 6)))
    nodes = tuple(Node(f"memory:{n}", "memory", f"m{n}", chance.choice(levels).id, f"a{n}") for n in range(count))
    ends = tuple(Node(f"{kind}:x", kind, kind) for kind in ("input", "output", "loss"))
    made = []
    for _ in range(edges):
        source, target = chance.choice(nodes + ends[:1]), chance.choice(nodes + ends[1:])
        made.append(Edge(source.id, target.id, *chance.choice(KINDS), role=chance.choice(("read", "learn"))))
    return LevelGraph("random", levels, (*ends, *nodes), tuple(made))


def overlap(a: Rect, b: Rect) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def check(scene: Scene, layout: Layout) -> None:
    for (one, a), (other, b) in combinations(layout.boxes.items(), 2):
        assert not overlap(a, b), (one, other)
    for box in scene.boxes:
        rect, lane = layout.boxes[box.id], layout.lanes[box.lane]
        assert lane.y <= rect.y
        assert rect.bottom <= lane.bottom
        assert rect.x >= HEADER
        assert rect.right <= layout.width
    rows = list(layout.lanes.values())
    assert all(a.bottom < b.y for a, b in pairwise(rows))
    for link, way in layout.routes:
        assert len(way.points) % 3 == 1
        for tip, id in ((way.start, link.source), (way.end, link.target)):
            rect = layout.boxes[id]
            assert rect.x - 1 <= tip[0] <= rect.right + 1
            assert rect.y - 1 <= tip[1] <= rect.bottom + 1


@pytest.mark.parametrize("layers", [1, 4])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_a_real_program(layers: int, momentum: bool, folded: bool) -> None:
    scene = scene_of(build_level_graph(hope(layers, momentum)), SceneOptions(fold=folded))
    check(scene, arrange(scene))


@pytest.mark.parametrize("seed", range(25))
def test_random_graphs(seed: int) -> None:
    chance = random.Random(seed)
    count = chance.randint(1, 24)
    scene = scene_of(random_graph(seed, count, chance.randint(0, 3 * count)))
    layout = arrange(scene)
    check(scene, layout)
    assert layout == arrange(scene)


def spots(points: tuple[tuple[float, float], ...]) -> Iterator[tuple[float, float]]:
    """Places along the curves."""
    for k in range(0, len(points) - 1, 3):
        for t in (i / 20 for i in range(21)):
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            here = points[k : k + 4]
            x = sum(w * p[0] for w, p in zip(weights, here, strict=True))
            yield x, sum(w * p[1] for w, p in zip(weights, here, strict=True))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_no_link_runs_through_a_box(layers: int, momentum: bool, folded: bool) -> None:
    layout = arrange(scene_of(build_level_graph(hope(layers, momentum)), SceneOptions(fold=folded)))
    for link, way in layout.routes:
        for id, r in layout.boxes.items():
            if id not in (link.source, link.target):
                inside = [p for p in spots(way.points) if r.x < p[0] < r.right and r.y < p[1] < r.bottom]
                assert not inside, (link, id)


def test_links_flow_to_the_right() -> None:
    scene = scene_of(build_level_graph(hope(2)))
    layout = arrange(scene)
    for link, way in layout.routes:
        if link.style in ("context", "direct", "backprop"):
            xs = [p[0] for p in way.points]
            assert all(a <= b + 1e-6 for a, b in pairwise(xs)), link


def test_equal_layers_have_a_frame() -> None:
    layout = arrange(scene_of(build_level_graph(hope(3))))
    ((label, frame),) = layout.frames
    assert label == "layers × 3"
    inside = [id for id, r in layout.boxes.items() if overlap(r, frame)]
    assert len([id for id in inside if "layers" not in id and not id.startswith("hub")]) == 0


def test_memories_that_generate_for_each_other_meet_in_a_joint() -> None:
    scene = scene_of(build_level_graph(hope(1)))
    (hub,) = [b for b in scene.boxes if b.kind == "hub"]
    assert hub.lines[0].text == "k · v · rate · keep"
    assert [(x.both, x.dashed) for x in scene.links if x.target == hub.id] == [(True, False)] * 4
    assert len([x for x in scene.links if x.source == hub.id]) == 1


def test_too_many_boxes_collapse_levels() -> None:
    graph = random_graph(0, 300, 900)
    started = time.monotonic()
    scene = scene_of(graph, SceneOptions(limit=40))
    arrange(scene)
    assert time.monotonic() - started < 10
    assert len(scene.graph.nodes) <= 300
    assert any(b.kind == "level" for b in scene.boxes)


def test_a_large_graph_ends_in_time() -> None:
    graph = random_graph(1, 160, 600)
    started = time.monotonic()
    arrange(scene_of(graph))
    assert time.monotonic() - started < 20


def test_chosen_levels_collapse_by_name() -> None:
    scene = scene_of(build_level_graph(hope(1)), SceneOptions(collapsed=frozenset({"fast", "token-1"})))
    levels = {b.lane: b for b in scene.boxes if b.kind == "level"}
    assert set(levels) == {"token-16", "token-1"}
    assert levels["token-1"].lines[0].text == "5 memories"
    check(scene, arrange(scene))
