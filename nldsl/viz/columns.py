"""The order from left to right: a column for every box, by the longest way of forward links to it."""

from __future__ import annotations

from nldsl.viz.scene import DATA, Scene

__all__ = ["columns_of"]

_FIRST = {"context": 0, "direct": 0, "nonparametric": 0, "backprop": 0, "generation": 1, "initialization": 2}


def columns_of(scene: Scene) -> dict[str, int]:
    """The column of each box, counted from 0. Links that would close a circle do not count; context comes first."""
    after: dict[str, list[str]] = {b.id: [] for b in scene.boxes}
    forward = [x for x in scene.links if x.forward and x.source in after and x.target in after]
    for link in sorted(forward, key=lambda x: _FIRST.get(x.style, 3)):
        if link.target not in after[link.source] and not _reaches(after, link.target, link.source):
            after[link.source].append(link.target)
    order = _topological(after)
    column = dict.fromkeys(order, 0)
    for id in order:
        for target in after[id]:
            column[target] = max(column[target], column[id] + 1)
    fed = {t for targets in after.values() for t in targets}
    for id in reversed(order):  # what nothing feeds stands next to what it feeds
        if id not in fed and after[id]:
            column[id] = min(column[t] for t in after[id]) - 1
    _place_ends(scene, after, column)
    last = max((column[b.id] for b in scene.boxes if b.kind != "optimizer"), default=0)
    for b in scene.boxes:
        if b.kind == "optimizer":
            column[b.id] = last + 1
    first = min(column.values(), default=0)
    return {id: c - first for id, c in column.items()}


def _place_ends(scene: Scene, after: dict[str, list[str]], column: dict[str, int]) -> None:
    """Inputs, outputs and losses stand above what they are linked to, where the way down is clear."""
    row = {lane.id: n for n, lane in enumerate(scene.lanes)}
    lane = {b.id: b.lane for b in scene.boxes}
    before = {t: [s for s, targets in after.items() if t in targets] for t in after}

    def clear(id: str) -> bool:
        """Whether nothing stands between a box and the upper end of its column."""
        return not any(
            column[o] == column[id] and o != id and lane[o] != DATA and row[lane[o]] <= row[lane[id]] for o in column
        )

    taken: set[int] = set()
    for box in scene.boxes:
        inner = [s for s in before[box.id] if lane[s] != DATA]
        if box.lane != DATA or box.kind == "input" or not inner:
            continue
        last = max(inner, key=lambda s: column[s])
        least = max((column[s] + 1 for s in before[box.id] if lane[s] == DATA and before[s]), default=0)
        column[box.id] = max(column[last] if clear(last) and column[last] not in taken else column[last] + 1, least)
        taken.add(column[box.id])
    for box in scene.boxes:
        targets = after[box.id]
        if box.kind != "input" or not targets:
            continue
        first = min(targets, key=lambda t: column[t])
        alone = [t for t in targets if column[t] == column[first]] == [first] and lane[first] != DATA
        above = alone and clear(first) and column[first] not in taken
        column[box.id] = column[first] - (not above)
        taken.add(column[box.id])


def _reaches(after: dict[str, list[str]], start: str, goal: str) -> bool:
    seen, work = {start}, [start]
    while work:
        id = work.pop()
        if id == goal:
            return True
        work += [t for t in after[id] if t not in seen]
        seen.update(after[id])
    return False


def _topological(after: dict[str, list[str]]) -> list[str]:
    waiting = dict.fromkeys(after, 0)
    for targets in after.values():
        for target in targets:
            waiting[target] += 1
    ready = [id for id, count in waiting.items() if not count]
    order = []
    while ready:
        id = ready.pop(0)
        order.append(id)
        for target in after[id]:
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return order
