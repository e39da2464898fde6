"""Lists of a symbolic length, in a check for all sizes."""

from __future__ import annotations

import pytest

from nldsl.api import check_text


@pytest.mark.parametrize(
    "value", ["[f(x[i]) for i in range(size(x, 0))]", "[f(x[i]) for i in range(length(range(n)))]"]
)
def test_a_comprehension_over_rows_has_their_number(value: str) -> None:
    text = f"fn f(x: [d]) -> [d] = 2 * x\nfn rows(x: [n, d]) -> [n, d] = {value}\n"
    assert check_text(text) == []


def test_another_number_of_rows_is_a_mistake() -> None:
    text = "fn rows(x: [n, d]) -> [d, n] = [x[i] for i in range(size(x, 0))]\n"
    assert [d.code for d in check_text(text)] == ["NL0307"]
