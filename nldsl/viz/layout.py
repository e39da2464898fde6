"""Where everything goes: one lane per level, columns in the order in which values flow.

A layered layout in which the lane of every box is given. Columns come from the longest way of forward links; long links
take a place of their own in the columns they cross; boxes move up and down within their lanes until links are straight.
No step depends on chance or on the order of a set, and each ends after a fixed number of rounds.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from nldsl.viz.columns import columns_of
from nldsl.viz.route import Rect, Route, route
from nldsl.viz.scene import DATA, Frame, Link, Scene, legend_width
from nldsl.viz.spread import Item, spread

__all__ = ["HEADER", "Layout", "Rect", "Route", "arrange"]

HEADER = 132.0  # width of the column with the names of the levels
_PAD, _TRACK, _LANE_GAP = 13.0, 7.0, 8.0
_FRAME_ROOM = 18.0
_SWEEPS = 24


@dataclass(frozen=True)
class Layout:
    """Coordinates in points, from the upper left corner."""

    width: float
    height: float
    lanes: dict[str, Rect]
    boxes: dict[str, Rect]
    routes: tuple[tuple[Link, Route], ...]
    frames: tuple[tuple[str, Rect], ...]


def arrange(scene: Scene) -> Layout:
    """Place a scene."""
    columns = columns_of(scene)
    items = {b.id: Item(b.lane, columns[b.id], b.size[1], b.size[0], b) for b in scene.boxes}
    chains = _chains(scene, items)
    everything = [*items.values(), *(i for chain in chains for i in chain[1:-1])]
    last = max((i.column for i in everything), default=0)
    cells: dict[tuple[str, int], list[Item]] = defaultdict(list)
    for item in everything:
        cells[item.lane, item.column].append(item)
    lanes = _lane_rows(scene, cells)
    rows = dict(lanes)
    if scene.frames:  # their labels have the lower end of the first lane
        rows[DATA] = (lanes[DATA][0], lanes[DATA][1] - _FRAME_ROOM)
    _settle(cells, rows, [lane.id for lane in scene.lanes], last)
    _straighten(chains, cells, rows)
    _align(chains, cells)
    apart = [frame.boxes for frame in scene.frames if _is_block(scene, frame, columns)]
    hops = spread(scene.links, chains, everything, apart, HEADER + _PAD)
    boxes = {id: Rect(i.x - i.width / 2, i.y - i.height / 2, i.width, i.height) for id, i in items.items()}
    width = max([HEADER, legend_width(scene), *(i.right for i in everything)]) + _PAD
    routes = route(scene.links, hops, boxes)
    frames = _frames(scene, boxes, lanes)
    rects = {id: Rect(0.0, top, width, bottom - top) for id, (top, bottom) in lanes.items()}
    return Layout(width, max(bottom for _, bottom in lanes.values()), rects, boxes, routes, frames)


def _chains(scene: Scene, items: dict[str, Item]) -> list[list[Item]]:
    """For each link its way: the two boxes, and a place in every column between them."""
    crowd: dict[tuple[str, int], int] = defaultdict(int)
    for item in items.values():
        crowd[item.lane, item.column] += 1
    order = [lane.id for lane in scene.lanes]
    chains: list[list[Item]] = []
    for link in scene.links:
        if link.source not in items or link.target not in items:
            chains.append([])
            continue
        first, last = items[link.source], items[link.target]
        between = range(first.column + 1, last.column)
        low, high = sorted((order.index(first.lane), order.index(last.lane)))
        best = min(order[low : high + 1], key=lambda lane: (sum(crowd[lane, c] for c in between), lane != last.lane))
        chain = [first, *(Item(best, c, 2.0, 0.0) for c in between), last]
        for a, b in pairwise(chain):
            a.near.append(b)
            b.near.append(a)
        for item in chain[1:-1]:
            crowd[item.lane, item.column] += 1
        chains.append(chain)
    return chains


# ---------------------------------------------------------------- rows


def _lane_rows(scene: Scene, cells: dict[tuple[str, int], list[Item]]) -> dict[str, tuple[float, float]]:
    """Top and bottom of each lane."""
    rows: dict[str, tuple[float, float]] = {}
    top = 0.0
    for lane in scene.lanes:
        heights = [_stack(items) for (id, _), items in cells.items() if id == lane.id]
        least = 30.0 if lane.id == DATA else 24.0 + 13.0 * (1 + len(lane.lines))
        room = _FRAME_ROOM if lane.id == DATA and scene.frames else 0.0
        height = max([least, *(h + 2 * _PAD for h in heights)]) + room
        rows[lane.id] = (top, top + height)
        top += height + _LANE_GAP
    return rows


def _stack(items: list[Item]) -> float:
    return sum(i.height for i in items) + sum(max(a.gap, b.gap) for a, b in pairwise(items))


def _settle(
    cells: dict[tuple[str, int], list[Item]], lanes: dict[str, tuple[float, float]], order: list[str], last: int
) -> None:
    """Order the items of each cell, then move them towards what they are linked to."""
    for (lane, _), items in cells.items():
        top, bottom = lanes[lane]
        at = (top + bottom - _stack(items)) / 2
        for item in items:
            item.y = at + item.height / 2
            at += item.height + item.gap
    for sweep in range(_SWEEPS):
        columns = range(last + 1) if sweep % 2 == 0 else range(last, -1, -1)
        for column in columns:
            for lane in order:
                items = cells.get((lane, column), [])
                if not items:
                    continue
                wanted = {id(i): _wanted(i, sweep) for i in items}
                if sweep < _SWEEPS // 2:
                    items.sort(key=lambda i: wanted[id(i)])
                _place(items, [wanted[id(i)] for i in items], *lanes[lane])


def _straighten(
    chains: list[list[Item]], cells: dict[tuple[str, int], list[Item]], lanes: dict[str, tuple[float, float]]
) -> None:
    """Long links run level wherever there is room at one height all the way."""
    for chain in chains:
        way = chain[1:-1]
        if len(way) < 2:
            continue
        top, bottom = lanes[way[0].lane]
        heights = sorted(i.y for i in way)
        for y in (chain[-1].y, chain[0].y, heights[len(heights) // 2], *heights):
            if top + _TRACK <= y <= bottom - _TRACK and all(_free(i, y, cells[i.lane, i.column]) for i in way):
                for item in way:
                    item.y = y
                break


def _align(chains: list[list[Item]], cells: dict[tuple[str, int], list[Item]]) -> None:
    """A box alone in its place, next to one alone in its, takes that one's height."""
    for chain in sorted((c for c in chains if len(c) == 2), key=lambda c: c[0].column):
        a, b = chain
        alone = len(cells[a.lane, a.column]) == 1 and len(cells[b.lane, b.column]) == 1
        if a.lane == b.lane and alone and abs(a.height - b.height) < 16:
            b.y = a.y


def _free(item: Item, y: float, items: list[Item]) -> bool:
    return all(i is item or abs(i.y - y) >= (i.height + item.height) / 2 + _TRACK / 2 for i in items)


def _wanted(item: Item, sweep: int) -> float:
    """Where an item wants to be: at its neighbours to the side the sweep comes from, in the end between all of them."""
    near = item.near
    if sweep < _SWEEPS - 6:
        side = [i for i in near if (i.column < item.column) == (sweep % 2 == 0) and i.column != item.column]
        near = side or near
    if not near:
        return item.y
    # the places of one long link hold together more strongly, so that it runs straight
    weights = [4.0 if not item.box and not i.box else 1.0 for i in near]
    return sum(w * i.y for w, i in zip(weights, near, strict=True)) / sum(weights)


def _place(items: list[Item], wanted: list[float], top: float, bottom: float) -> None:
    """The closest places to the wanted ones in this order without overlap, within the lane (pooled neighbours)."""
    offset, offsets = 0.0, []
    for n, item in enumerate(items):
        offset += 0.0 if n == 0 else max(items[n - 1].gap, item.gap) + (items[n - 1].height + item.height) / 2
        offsets.append(offset)
    pools: list[tuple[float, int]] = []  # mean of (wanted - offset), members
    for want, off in zip(wanted, offsets, strict=True):
        value, count = want - off, 1
        while pools and pools[-1][0] > value:
            other, members = pools.pop()
            value, count = (value * count + other * members) / (count + members), count + members
        pools.append((value, count))
    base = [value for value, count in pools for _ in range(count)]
    low = top + _PAD + items[0].height / 2
    high = bottom - _PAD - items[-1].height / 2 - offsets[-1]
    for item, value, off in zip(items, base, offsets, strict=True):
        item.y = min(max(value, low), max(high, low)) + off


def _is_block(scene: Scene, frame: Frame, columns: dict[str, int]) -> bool:
    """Whether nothing else stands in the columns of a frame."""
    inside = [columns[id] for id in frame.boxes if id in columns]
    others = [
        columns[b.id]
        for b in scene.boxes
        if b.id not in frame.boxes and b.kind not in ("hub", "clock") and b.lane != DATA
    ]
    return bool(inside) and not any(min(inside) <= c <= max(inside) for c in others)


def _frames(
    scene: Scene, boxes: dict[str, Rect], lanes: dict[str, tuple[float, float]]
) -> tuple[tuple[str, Rect], ...]:
    """Around equal layers, where nothing else stands between their boxes."""
    frames = []
    data = lanes[DATA][1]
    bottom = max(b for _, b in lanes.values())
    others = {b.id for b in scene.boxes if b.kind not in ("hub", "clock") and b.lane != DATA}
    for frame in scene.frames:
        inside = [boxes[id] for id in frame.boxes if id in boxes]
        left = min(r.x for r in inside) - 12
        right = max(r.x + r.width for r in inside) + 12
        strangers = [
            r for id, r in boxes.items() if id in others - frame.boxes and r.x < right and r.x + r.width > left
        ]
        if not strangers:
            frames.append(
                (frame.label, Rect(left, data - _FRAME_ROOM + 2, right - left, bottom - data + _FRAME_ROOM + 4))
            )
    return tuple(frames)
