"""Guesses at misspelt names."""

from __future__ import annotations

from nldsl.diagnostics.suggest import did_you_mean, suggest


def test_nearest_first() -> None:
    assert suggest("reed", ["read", "learn", "reel", "write"])[0] in ("read", "reel")
    assert suggest("READ", ["read", "ready"])[0] == "read"
    assert suggest("xyz", ["read", "learn"]) == []
    assert suggest("read", ["read"]) == []


def test_order_does_not_depend_on_the_candidates() -> None:
    names = ["ab", "ac", "ad", "ae"]
    assert suggest("aa", names) == suggest("aa", reversed(names))


def test_hint() -> None:
    assert did_you_mean("lern", ["learn"]) == ("did you mean `learn`?",)
    assert did_you_mean("state1", ["state2", "state3"]) in (
        ("did you mean `state3` or `state2`?",),
        ("did you mean `state2` or `state3`?",),
    )
    assert did_you_mean("xyz", ["learn"]) == ()


def test_hostile_names_are_compared_in_bounded_time() -> None:
    assert suggest("a" * 1_000_000, ["b" * 1_000_000] * 10 + [f"n{i}" for i in range(10_000)]) == []
