"""How far to the right everything stands, and along which vertical lines the links change their height.

Columns keep their order but may overlap where their boxes are in different lanes. Links of one kind that leave one box,
or enter one, share a vertical line (a rail). A link from another lane to a box that is alone in its place turns into it
from above or below (a drop).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nldsl.viz.scene import DATA, Box, Link

__all__ = ["Hop", "Item", "spread"]

_ROW, _TRACK = 13.0, 7.0
_APART, _TURN, _STEP = 14.0, 15.0, 22.0
_RAIL, _ENTRY, _EXIT, _LEVEL = 7.0, 19.0, 9.0, 3.0
_BORDER = 26.0


@dataclass(eq=False)
class Item:
    """A box, or the place of a long link in a column."""

    lane: str
    column: int
    height: float
    width: float
    box: Box | None = None
    x: float = 0.0
    y: float = 0.0
    near: list[Item] = field(default_factory=list)

    @property
    def gap(self) -> float:
        """Room to the next item above or below."""
        return _ROW if self.box else _TRACK

    @property
    def left(self) -> float:
        return self.x - self.width / 2

    @property
    def right(self) -> float:
        return self.x + self.width / 2


@dataclass
class Hop:
    """One step of a link to the next column; `rail` is where it changes its height, if it does so in two turns."""

    first: Item
    last: Item
    drop: bool = False
    rail: float | None = None

    @property
    def span(self) -> tuple[float, float]:
        low, high = sorted((self.first.y, self.last.y))
        return low, high


@dataclass(frozen=True)
class _Obstacle:
    low: float
    high: float
    right: float
    solid: bool


def spread(
    links: Sequence[Link],
    chains: Sequence[Sequence[Item]],
    items: list[Item],
    apart: list[frozenset[str]],
    start: float,
) -> list[list[Hop]]:
    """Give every item its place from the left; the hops of every link, empty for one that goes back.

    `apart`: boxes that keep a distance from what is before and after them.
    """
    hops = [
        [Hop(a, b) for a, b in pairwise(chain)] if len(chain) > 1 and chain[0].column < chain[-1].column else []
        for chain in chains
    ]
    _choose_drops(links, hops, items)
    rails = _rails(links, hops)
    last = max((i.column for i in items), default=0)
    into: dict[int, list[Hop]] = defaultdict(list)
    for hop in (h for way in hops for h in way):
        into[hop.last.column].append(hop)
    obstacles: list[_Obstacle] = []
    edges = {frozenset(i.column for i in items if i.box and i.box.id in ids) for ids in apart}
    borders = {c for columns in edges if columns for c in (min(columns), max(columns) + 1)}
    at = start
    for column in range(last + 1):
        here = [i for i in items if i.column == column]
        if column in borders:
            before = [i.right for i in items if i.column < column and i.box and i.lane != DATA]
            obstacles += [_Obstacle(i.y, i.y, max(before) + _BORDER, False) for i in here if before and i.lane != DATA]
        at = _place(here, into[column], rails[column], obstacles, at if obstacles else start - _STEP, start)
        _set_rails(rails[column], obstacles)
        obstacles += [_Obstacle(i.y - i.height / 2, i.y + i.height / 2, i.right, i.box is not None) for i in here]
        for hop in into[column]:
            low, high = hop.span
            if hop.drop:
                obstacles.append(_Obstacle(low, high, hop.last.x + 8, False))
    return hops


def _choose_drops(links: Sequence[Link], hops: list[list[Hop]], items: list[Item]) -> None:
    fans: dict[tuple[int, str, int], int] = defaultdict(int)
    for link, way in zip(links, hops, strict=True):
        for hop in way[-1:]:
            fans[id(hop.first), link.style, hop.last.column] += 1
    alone: dict[tuple[str, int], int] = defaultdict(int)
    for item in items:
        alone[item.lane, item.column] += item.box is not None
    room: dict[tuple[int, bool], int] = defaultdict(int)
    for link, way in zip(links, hops, strict=True):
        if not way or fans[id(way[-1].first), link.style, way[-1].last.column] > 1:
            continue
        hop = way[-1]
        target = hop.last
        side = (id(target), hop.first.y < target.y)
        low, high = hop.span
        clear = not any(
            low - 4 < i.y + i.height / 2 and i.y - i.height / 2 < high + 4
            for i in items
            if i.column == target.column and i is not target
        )
        far = high - low > target.height / 2 + _TURN + 10
        if clear and far and hop.first.lane != target.lane and alone[target.lane, target.column] == 1:
            room[side] += 1
            hop.drop = room[side] <= max(1, int(target.width // 26))


def _rails(links: Sequence[Link], hops: list[list[Hop]]) -> dict[int, list[list[Hop]]]:
    """The groups of hops that share a vertical line, by the column they lead to."""
    fans: dict[tuple[int, str], int] = defaultdict(int)
    for link, way in zip(links, hops, strict=True):
        if way:
            fans[id(way[0].first), link.style] += 1
    groups: dict[int, dict[tuple[object, ...], list[Hop]]] = defaultdict(lambda: defaultdict(list))
    for n, (link, way) in enumerate(zip(links, hops, strict=True)):
        for hop in way:
            if hop.drop or hop.span[1] - hop.span[0] < _LEVEL:
                continue
            key: tuple[object, ...] = (n, id(hop))
            if hop is way[0] and fans[id(hop.first), link.style] > 1:
                key = ("out", id(hop.first), link.style, link.dashed)
            elif hop is way[-1]:
                key = ("in", id(hop.last), link.style, link.dashed)
            elif hop is way[0]:
                key = ("out", id(hop.first), link.style, link.dashed)
            groups[hop.last.column][key].append(hop)
    # where lines leave boxes that stand above one another, the upper box gets the line further left
    found: dict[int, list[list[Hop]]] = defaultdict(list)
    for column, by_key in groups.items():
        found[column] = sorted(by_key.values(), key=lambda group: min(h.first.y for h in group))
    return found


def _place(
    here: list[Item], into: list[Hop], rails: list[list[Hop]], obstacles: list[_Obstacle], at: float, start: float
) -> float:
    """The middle of a column: as far to the left as everything before it allows."""
    middle = at + _STEP
    room = _EXIT + _ENTRY + _RAIL * max(len(rails) - 1, 0)
    for item in here:
        middle = max(middle, start + item.width / 2)
        low, high = item.y - item.height / 2, item.y + item.height / 2
        for o in obstacles:
            if o.low - 6 < high and o.high + 6 > low:
                middle = max(middle, o.right + (_APART if o.solid and item.box else 6.0) + item.width / 2)
    for hop in into:
        target = hop.last
        if hop.drop:
            middle = max(middle, hop.first.right + _TURN + min(target.width / 4, 12))
        elif hop.span[1] - hop.span[0] < _LEVEL:
            middle = max(middle, hop.first.right + 24 + target.width / 2)
    for group in rails:
        low, high = min(h.span[0] for h in group), max(h.span[1] for h in group)
        edge = _edge(group, obstacles)
        for item in here:
            if item.y - item.height / 2 < high + 6 and item.y + item.height / 2 > low - 6:
                middle = max(middle, edge + room + item.width / 2)
    for item in here:
        item.x = middle
    return middle


def _edge(group: list[Hop], obstacles: list[_Obstacle]) -> float:
    """What a rail must stay to the right of."""
    low, high = min(h.span[0] for h in group), max(h.span[1] for h in group)
    crossing = [o.right for o in obstacles if o.solid and o.low < high and o.high > low]
    return max([*(h.first.right for h in group), *crossing])


def _set_rails(rails: list[list[Hop]], obstacles: list[_Obstacle]) -> None:
    if not rails:
        return
    right = min(h.last.left for group in rails for h in group) - _ENTRY
    for place, group in enumerate(rails):
        rail = max(right - _RAIL * (len(rails) - 1 - place), _edge(group, obstacles) + _EXIT)
        for hop in group:
            hop.rail = rail
