"""Which segments of a call have the forms for its end."""

from __future__ import annotations

import pytest

from nldsl.ir.ending import endings_of
from nldsl.ir.types import Clock


@pytest.mark.parametrize(
    ("runs", "shares", "steady", "expected"),
    [
        ([(8, 3)], [], False, [(8, 3, -1)]),
        ([(8, 3)], [0.5], False, [(8, 2, -1), (8, 1, 0)]),
        ([(8, 3), (2, 1)], [0.5], False, [(8, 3, -1), (2, 1, 0)]),
        ([(8, 3)], [0.5, 0.6], False, [(8, 1, -1), (8, 1, 1), (8, 1, 0)]),
        ([(8, 3)], [0.5, 0.6], True, [(8, 2, 1), (8, 1, 0)]),
        ([(8, 1)], [0.5, 0.6], True, [(8, 1, 0)]),
    ],
)
def test_the_last_segments(
    runs: list[tuple[int, int]], shares: list[float], steady: bool, expected: list[tuple[int, int, int]]
) -> None:
    assert endings_of(0, runs, (), shares, steady, 0.0) == expected


@pytest.mark.parametrize(("tick", "expected"), [(0, [(4, 2, -1), (4, 1, 1), (4, 1, 0)]), (4, [(4, 3, -1), (4, 1, 0)])])
def test_up_to_a_segment_at_whose_end_a_clock_fires(tick: int, expected: list[tuple[int, int, int]]) -> None:
    assert endings_of(tick, [(4, 4)], (Clock(8),), [0.5, 0.6], True, 0.0) == expected


def test_what_is_not_worth_functions_of_its_own() -> None:
    assert endings_of(0, [(8, 20)], (), [0.5], False, 0.03) == [(8, 20, -1)]
    assert endings_of(0, [(8, 10)], (), [0.5], False, 0.03) == [(8, 9, -1), (8, 1, 0)]
