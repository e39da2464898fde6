"""Differences named in the program's terms; sizes and inputs to verify with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nldsl.ir.row_limits import row_limits
from nldsl.standalone import Request
from nldsl.verify.compare import compare
from nldsl.verify.inputs import KINDS, is_usable, sample
from nldsl.verify.sizes import load_small, periods_of, ticks_for

FILE = Path(__file__).parents[1] / "explain" / "memories.nl"


def test_the_first_difference_has_a_name() -> None:
    wanted = np.zeros((2, 4, 3))
    got = wanted.copy()
    got[0, 3, 1] = 1.0
    got[1, 2, 0] = 0.5
    found = compare({"y": wanted}, {"y": got}, 1e-10, "output", {"y": ("batch", "time")})
    assert found.place == "output `y`: sequence 1, token 3, entry [0]: 0.5 instead of 0"
    assert found.error == pytest.approx(100.0)  # of entries that are all small


def test_what_is_not_a_number_differs_from_numbers_only() -> None:
    nan = np.array([np.nan, 1.0])
    assert compare({"y": nan}, {"y": nan.copy()}, 0.0, "output").error == 0
    assert compare({"y": nan}, {"y": np.array([0.0, 1.0])}, 0.0, "output").error == float("inf")


def test_missing_and_misshapen() -> None:
    assert "missing" in compare({"y": np.zeros(2)}, {}, 0.0, "output").place
    assert "shape [3], not [2]" in compare({"y": np.zeros(2)}, {"y": np.zeros(3)}, 0.0, "output").place


def test_sizes_are_small_and_divide() -> None:
    loaded = load_small(Request(FILE, "Small"))
    sizes = dict(loaded.dims)
    assert sizes["d"] < 32
    assert sizes["d"] % sizes["heads"] == 0
    assert sizes["vocab"] != sizes["d"]


def test_sizes_that_are_given_are_kept() -> None:
    assert dict(load_small(Request(FILE, "Small", dims=(("d", 12),))).dims)["d"] == 12


def test_ticks_cover_the_slowest_clock() -> None:
    program = load_small(Request(FILE, "Slow")).program
    assert periods_of(program) == (1, 4, 8)
    assert ticks_for(program) == 20


def test_inputs_stay_in_their_range() -> None:
    program = load_small(Request(FILE, "Small")).program
    limits = row_limits(program)
    drawn = sample(program, 2, 7, 0, "signed")
    assert set(drawn.inputs) == {"tokens", "next_tokens"}
    assert drawn.inputs["tokens"].max() < limits["tokens"]
    np.testing.assert_array_equal(drawn.inputs["tokens"][:, 1:], drawn.inputs["next_tokens"][:, :-1])


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_the_same_for_the_same_seed(kind: str) -> None:
    program = load_small(Request(FILE, "GatedDelta")).program
    first, second = (sample(program, 2, 5, 3, kind) for _ in range(2))
    for name, value in first.inputs.items():
        np.testing.assert_array_equal(value, second.inputs[name])
    assert is_usable(first.inputs)


def test_ticks_cover_more_than_one_segment() -> None:
    assert ticks_for(load_small(Request(FILE, "GatedDelta")).program) > 64


def test_long_windows_and_clocks_are_shortened(tmp_path: Path) -> None:
    file = tmp_path / "long.nl"
    file.write_text(
        "memory Long(d: dim, reach: int = 512, chunk: int = 2048) {\n  state s: [d] = 0 reset every chunk token\n"
        "  step(x: [d]) -> [d] {\n    s <- s + x\n    return s + sum(window(x, reach), axis = 0)\n  }\n}\n"
    )
    loaded = load_small(Request(file))
    assert dict(loaded.dims) == {"reach": 12, "chunk": 22}
    assert ticks_for(loaded.program) == 73  # more than one segment of the loop over the window
