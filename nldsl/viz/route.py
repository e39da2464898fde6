"""The curves of the links: level lines, straight up or down along the rails, quarter turns in between."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.viz.scene import Link
from nldsl.viz.spread import Hop

__all__ = ["Point", "Rect", "Route", "route"]

Point = tuple[float, float]
_PORT, _ARROW, _RADIUS = 9.0, 7.0, 12.0
_ARC = 0.5523  # of the radius: the control points of a quarter circle


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True)
class Route:
    """Bezier points (one, then three per curve), the tips of the arrows, and where a label goes."""

    points: tuple[Point, ...]
    end: Point
    start: Point
    label: Point


def route(
    links: Sequence[Link], hops: Sequence[Sequence[Hop]], boxes: dict[str, Rect]
) -> tuple[tuple[Link, Route], ...]:
    """One route per link between two boxes; links to or from anything else are not drawn."""
    drawn = [(n, link) for n, link in enumerate(links) if link.source in boxes and link.target in boxes]
    ports = _ports(drawn, hops, boxes)
    routes = []
    for n, link in drawn:
        if hops[n]:
            made = _onward(link, list(hops[n]), ports[n, 0], ports[n, 1])
        else:
            made = _back(boxes[link.source], boxes[link.target], link.both, ports.get((n, 0)))
        routes.append((link, made))
    return tuple(routes)


def _ports(
    drawn: list[tuple[int, Link]], hops: Sequence[Sequence[Hop]], boxes: dict[str, Rect]
) -> dict[tuple[int, int], Point]:
    """Where each link leaves (0) and enters (1): the sides of a box shared among the kinds of links, in the order of
    their other ends."""
    sides: dict[tuple[str, str], dict[tuple[object, ...], list[tuple[int, int, float]]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for n, link in drawn:
        source, target = boxes[link.source], boxes[link.target]
        way = hops[n]
        if not way:
            if _stacked(source, target):
                down = source.y < target.y
                sides[link.source, "bottom" if down else "top"]["straight", n].append((n, 0, 1e9))
                sides[link.target, "top" if down else "bottom"]["straight", n].append((n, 0, 1e9))
            continue
        key: tuple[object, ...] = (link.style, link.dashed)
        sides[link.source, "right"][key].append((n, 0, way[0].last.y))
        if way[-1].drop:
            # the nearest turns first, so that no link crosses another one's turn
            come = way[-1].first.y
            side = "top" if come < target.y else "bottom"
            sides[link.target, side][key + (n,)].append((n, 1, abs(come - target.middle[1])))
        else:
            sides[link.target, "left"][key].append((n, 1, way[-1].first.y))
    ports: dict[tuple[int, int], Point] = {}
    for (id, side), groups in sides.items():
        box = boxes[id]
        level = side in ("left", "right")
        space = min(_PORT, ((box.height if level else box.width) - 10) / max(len(groups), 1))
        order = sorted(groups.values(), key=lambda ends: (sum(e[2] for e in ends) / len(ends), ends[0][0]))
        for place, ends in enumerate(order):
            off = (place - (len(order) - 1) / 2) * space
            for n, end, _ in ends:
                if level:
                    ports[n, end] = (box.right if side == "right" else box.x, box.middle[1] + off)
                else:
                    ports[n, end] = (box.middle[0] + off, box.bottom if side == "bottom" else box.y)
    return ports


def _stacked(source: Rect, target: Rect) -> bool:
    apart = source.bottom < target.y or target.bottom < source.y
    return apart and abs(source.middle[0] - target.middle[0]) < min(source.width, target.width) / 2


# ---------------------------------------------------------------- ways


def _onward(link: Link, way: list[Hop], start: Point, end: Point) -> Route:
    """From left to right, level at every place on the way."""
    points: list[Point] = [(start[0] + _ARROW, start[1]) if link.both else start]
    for hop in way:
        goal = (hop.last.x, hop.last.y) if hop is not way[-1] else end if hop.drop else (end[0] - _ARROW, end[1])
        if hop.drop:
            points += _turn(points[-1], goal)
        elif hop.rail is not None and abs(goal[1] - points[-1][1]) >= 2:
            points += _two_turns(points[-1], goal, hop.rail)
        else:
            points += _curve(points[-1], goal)
    a, b = points[0], points[3]
    return Route(tuple(points), end, start, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - 6))


def _line(a: Point, b: Point) -> list[Point]:
    return [((2 * a[0] + b[0]) / 3, (2 * a[1] + b[1]) / 3), ((a[0] + 2 * b[0]) / 3, (a[1] + 2 * b[1]) / 3), b]


def _curve(a: Point, b: Point) -> list[Point]:
    if abs(a[1] - b[1]) < 0.5:
        return _line(a, b)
    near = (min(b[0], a[0] + 2 * _RADIUS), b[1])  # a small step is made at once, the rest is level
    bend = (near[0] - a[0]) * 0.5
    step = [(a[0] + bend, a[1]), (near[0] - bend, near[1]), near]
    return step if near == b else [*step, *_line(near, b)]


def _turn(a: Point, end: Point) -> list[Point]:
    """Level, a quarter turn, and straight up or down to the arrow."""
    sign = 1.0 if end[1] > a[1] else -1.0
    last = (end[0], end[1] - sign * _ARROW)
    radius = max(min(_RADIUS, abs(last[1] - a[1]), end[0] - a[0]), 0.0)
    corner, below = (end[0] - radius, a[1]), (end[0], a[1] + sign * radius)
    arc = [(corner[0] + radius * _ARC, a[1]), (end[0], below[1] - sign * radius * _ARC), below]
    return [*_line(a, corner), *arc, *_line(below, last)]


def _two_turns(a: Point, b: Point, rail: float) -> list[Point]:
    """Level to the rail, along it, and level again."""
    sign = 1.0 if b[1] > a[1] else -1.0
    most = min(_RADIUS, abs(b[1] - a[1]) / 2)
    first, last = max(min(most, rail - a[0]), 0.0), max(min(most, b[0] - rail), 0.0)
    one, two = (rail - first, a[1]), (rail, a[1] + sign * first)
    three, four = (rail, b[1] - sign * last), (rail + last, b[1])
    enter = [(one[0] + first * _ARC, a[1]), (rail, two[1] - sign * first * _ARC), two]
    leave = [(rail, three[1] + sign * last * _ARC), (four[0] - last * _ARC, b[1]), four]
    return [*_line(a, one), *enter, *_line(two, three), *leave, *_line(four, b)]


def _back(source: Rect, target: Rect, both: bool, port: Point | None) -> Route:
    """To a box in the same column or to the left: from the top or bottom that faces it, or over both."""
    (sx, sy), (tx, _) = source.middle, target.middle
    apart = source.bottom < target.y or target.bottom < source.y
    if not apart:
        start, end = (sx, source.y), (tx, target.y)
        last = (end[0], end[1] - _ARROW)
        top = min(start[1], last[1]) - 26
        points = (start, (start[0], top), (last[0], top), last)
        return Route(points, end, start, ((sx + tx) / 2, top - 4))
    down = sy < target.y
    sign = 1 if down else -1
    start = (sx, source.bottom if down else source.y)
    end = (tx, target.y if down else target.bottom)
    if port is not None:
        start, end = (port[0], start[1]), (port[0], end[1])
        first = (port[0], start[1] + sign * _ARROW) if both else start
        straight = (first, *_line(first, (port[0], end[1] - sign * _ARROW)))
        return Route(straight, end, start, (port[0] + 4, (start[1] + end[1]) / 2))
    start = (sx - source.width / 4, start[1])
    last = (end[0], end[1] - sign * _ARROW)
    bend = sign * max(18.0, abs(last[1] - start[1]) / 2)
    points = (start, (start[0], start[1] + bend), (last[0], last[1] - bend), last)
    return Route(points, end, start, ((start[0] + tx) / 2 + 8, (start[1] + last[1]) / 2 - 6))
