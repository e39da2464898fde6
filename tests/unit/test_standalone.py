"""Memories by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics import DiagnosticError
from nldsl.standalone import Request, load

FILE = Path(__file__).parent / "explain" / "memories.nl"


def names(request: Request) -> tuple[list[str], list[str], list[str]]:
    program = load(request).program
    return [i.name for i in program.inputs], [s.name for s in program.states], [n for n, _ in program.outputs]


def test_reads_then_learns() -> None:
    inputs, states, outputs = names(Request(FILE, "GatedDelta"))
    assert inputs == ["q", "k", "v", "rate", "keep"]
    assert states == ["S"]
    assert outputs == ["read(q)"]


def test_sizes_are_chosen_where_they_are_missing() -> None:
    loaded = load(Request(FILE, "GatedDelta", dims=(("dk", 9),), sizes=(2, 3)))
    assert loaded.sizes == (("dv", 2),)
    assert loaded.program.state("S").type.shape == (2, 9)


def test_sizes_as_symbols() -> None:
    loaded = load(Request(FILE, "Deep"), symbolic=True)
    assert loaded.symbolic is not None
    assert [str(d) for d in loaded.symbolic.state("W1").type.shape] == ["hidden", "d"]


def test_a_step_of_its_own_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "own.nl"
    file.write_text(
        "memory Count() {\n  state n: [] = 0\n  step(x: []) -> [] {\n    n <- n + x\n    return n\n  }\n}\n"
        "memory Free() {\n  state m: like g = 0\n  learn(g) -> like g { m <- m + g; return m }\n}\n"
    )
    loaded = load(Request(file, "Count"), symbolic=True)
    assert not loaded.alone
    assert [name for name, _ in loaded.program.outputs] == ["y"]
    free = load(Request(file, "Free"))
    assert free.free == "[3, 2]"
    assert [name for name, _ in free.program.outputs] == ["learn(g)"]


def test_mistakes_are_the_programs_own(tmp_path: Path) -> None:
    file = tmp_path / "wrong.nl"
    file.write_text("memory Wrong(d: dim) {\n  state S: [d] = 0\n  learn(k: [d]) { S <- S + kk }\n}\n")
    with pytest.raises(DiagnosticError) as caught:
        load(Request(file))
    assert all(d.span.line <= 4 for d in caught.value.diagnostics)


def test_sizes_that_only_an_input_knows() -> None:
    loaded = load(Request(FILE, "Gate", sizes=(2, 3)), symbolic=True)
    assert loaded.sizes == (("hidden", 2), ("n", 3))
    assert loaded.program.param("w").type.shape == (2, 3)
    assert loaded.symbolic is not None
    assert [str(d) for d in loaded.symbolic.param("w").type.shape] == ["hidden", "n"]


def test_missing_arguments_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "open.nl"
    file.write_text("memory Open(loss: fn) {\n  state s: [] = 0\n  learn(x: []) { s <- s + x }\n}\n")
    with pytest.raises(DiagnosticError, match="`loss` of `Open` has no value"):
        load(Request(file))
