"""The update of one state by itself, as the pages of level graphs show it."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.explain import explain_update
from nldsl.standalone import Request, load

STDLIB = Path(__file__).parents[3] / "stdlib"


@pytest.mark.parametrize("file", ["optimizers/m3", "memories/tnt", "memories/ttt", "models/hope"])
def test_every_state_has_an_update(file: str) -> None:
    program = load(Request(STDLIB / f"{file}.nl")).program
    for state in program.states:
        if not state.hidden:
            assert "←" in explain_update(program, state.name)


def test_what_a_slow_clock_writes_is_named_after_the_state() -> None:
    program = load(Request(STDLIB / "optimizers/m3.nl")).program
    assert "m2⁺" in explain_update(program, "slow")
