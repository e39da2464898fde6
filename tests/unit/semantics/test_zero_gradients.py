"""A gradient of a loss that was not computed from its variable is zero: that is said, once, and only where it is so."""

from __future__ import annotations

import pytest

from nldsl.api import check_text

HEAD = "memory M(d: dim) {\n  state S, W: [d, d] = 0\n  step(q: [d], k: [d], v: [d]) -> [d] {\n"
TAIL = "    return S @ q\n  }\n}\n"
LOSS = "sum((S @ k - v)^2)"


def warnings(body: str) -> list[tuple[str, tuple[str, ...]]]:
    found = check_text(HEAD + "".join(f"    {line}\n" for line in body.splitlines()) + TAIL, "m.nl")
    assert not any(d.is_error for d in found), found
    return [(d.message, d.hints) for d in found if d.code == "NL0504"]


@pytest.mark.parametrize(
    ("body", "name", "hint"),
    [
        (f"S <- S - grad({LOSS}, W)", "W", ""),
        (f"S <- S - outer(grad({LOSS}, q), k)", "q", ""),
        (f"loss = {LOSS}\nS <- 0.9 * S\nS <- S - grad(loss, S)", "S", "assigned after the loss"),
        (f"loss = {LOSS}\nS <- S - grad(loss, S) at start of 4", "S", "at start of"),
    ],
)
def test_a_gradient_that_is_always_zero(body: str, name: str, hint: str) -> None:
    [(message, hints)] = warnings(body)
    assert f"`{name}`" in message
    assert hint in " ".join(hints)


@pytest.mark.parametrize(
    "body",
    [
        f"loss = {LOSS}\nS <- S - grad(loss, S)",
        f"S <- S - grad({LOSS}, S) at start of 4",
        f"S <- S - grad({LOSS}, {{S, W}})[0]",  # one of several is enough
        "y = S @ k\nS <- S - outer(grad(sum((y - v)^2), y), k)",
        f"x = W\niterate 2 {{\n  S <- S - grad({LOSS} + sum(x^2), W)\n  x = S\n}}",  # zero in one round only
    ],
)
def test_other_gradients(body: str) -> None:
    assert warnings(body) == []
