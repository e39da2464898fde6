"""The curves of the links: level at both ends, smooth in between, each at its own port."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.viz.scene import Link

__all__ = ["Point", "Rect", "Route", "route"]

Point = tuple[float, float]
Stretch = tuple[float, float, float]  # left, right, y
_PORT = 9.0
_ARROW = 7.0


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2


@dataclass(frozen=True)
class Route:
    """Bezier points (one, then three per curve), the tips of the arrows, and where a label goes."""

    points: tuple[Point, ...]
    end: Point
    start: Point
    label: Point


def route(
    links: Sequence[Link], ways: Sequence[Sequence[Stretch]], boxes: dict[str, Rect]
) -> tuple[tuple[Link, Route], ...]:
    """One route per link between two boxes; links to or from anything else are not drawn."""
    drawn = [(n, link) for n, link in enumerate(links) if link.source in boxes and link.target in boxes]
    ports = _ports(drawn, ways, boxes)
    routes = []
    for n, link in drawn:
        source, target = boxes[link.source], boxes[link.target]
        if source.x + source.width <= target.x:
            made = _onward(link, list(ways[n]), ports[n, 0], ports[n, 1])
        else:
            made = _back(source, target)
        routes.append((link, made))
    return tuple(routes)


def _ports(
    drawn: list[tuple[int, Link]], ways: Sequence[Sequence[Stretch]], boxes: dict[str, Rect]
) -> dict[tuple[int, int], Point]:
    """Where each link leaves (0) and enters (1): spread over the side of the box, in the order of the other ends."""
    sides: dict[tuple[str, int], list[tuple[float, str, int]]] = defaultdict(list)
    for n, link in drawn:
        source, target = boxes[link.source], boxes[link.target]
        way = ways[n]
        sides[link.source, 0].append((way[0][2] if way else target.middle[1], link.style, n))
        sides[link.target, 1].append((way[-1][2] if way else source.middle[1], link.style, n))
    ports = {}
    for (id, end), ends in sides.items():
        box = boxes[id]
        space = min(_PORT, (box.height - 8) / max(len(ends), 1))
        for place, (_, _, n) in enumerate(sorted(ends)):
            y = box.middle[1] + (place - (len(ends) - 1) / 2) * space
            ports[n, end] = (box.x + box.width if end == 0 else box.x, y)
    return ports


def _onward(link: Link, way: list[Stretch], start: Point, end: Point) -> Route:
    """From left to right, level through every column in between."""
    first = (start[0] + _ARROW, start[1]) if link.both else start
    last = (end[0] - _ARROW, end[1])
    points: list[Point] = [first]
    at = first
    for left, right, y in way:
        points += _curve(at, (left, y))
        points += _curve((left, y), (right, y))
        at = (right, y)
    points += _curve(at, last)
    n = 0 if not way else 1
    a, b = points[n * 3], points[n * 3 + 3]
    label = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - 6)
    return Route(tuple(points), end, start, label)


def _curve(a: Point, b: Point) -> list[Point]:
    bend = (b[0] - a[0]) * (0.5 if abs(a[1] - b[1]) < 60 else 0.62)
    return [(a[0] + bend, a[1]), (b[0] - bend, b[1]), b]


def _back(source: Rect, target: Rect) -> Route:
    """To a box in the same column or to the left: from the top or bottom that faces it, or around the side."""
    (sx, sy), (tx, ty) = source.middle, target.middle
    if source.y + source.height < target.y or target.y + target.height < source.y:
        down = sy < ty
        start = (sx, source.y + source.height) if down else (sx, source.y)
        end = (tx, target.y) if down else (tx, target.y + target.height)
        sign = 1 if down else -1
        last = (end[0], end[1] - sign * _ARROW)
        bend = sign * max(18.0, abs(last[1] - start[1]) / 2)
        points = (start, (start[0], start[1] + bend), (last[0], last[1] - bend), last)
    else:
        start, end = (sx, source.y), (tx, target.y)
        last = (end[0], end[1] - _ARROW)
        top = min(start[1], last[1]) - 26
        points = (start, (start[0], top), (last[0], top), last)
    label = ((points[0][0] + points[3][0]) / 2, (points[1][1] + points[2][1]) / 2 - 4)
    return Route(points, end, start, label)
