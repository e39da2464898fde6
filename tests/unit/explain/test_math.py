"""The equations of small memories, as text, as LaTeX, and as values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nldsl.backends.reference.interpreter import Reference, State
from nldsl.backends.reference.values import Value
from nldsl.explain.math import Math, equations, latex_lines, text_lines
from nldsl.explain.terms import Sym
from nldsl.ir.program import Program
from tests.conftest import Golden
from tests.unit.explain import programs
from tests.unit.explain.evaluate import evaluate

SIZES: dict[str, tuple[int, ...]] = {
    "delta": (3, 4),
    "gated_delta": (3, 4),
    "kda": (3, 4),
    "momentum": (3, 4),
    "deep": (3, 4),
    "slow": (3,),
    "diagonal": (4,),
    "exponentiated": (4,),
    "normalized": (5,),
}


def math_of(program: Program) -> Math:
    return equations(program, [s.name for s in program.states if not s.hidden])


@pytest.mark.parametrize("name", programs.ALL)
def test_text(name: str, golden: Golden) -> None:
    math = math_of(programs.ALL[name]())
    golden("\n".join([*text_lines(math), "", *math.notes]) + "\n")


@pytest.mark.parametrize("name", programs.ALL)
def test_latex(name: str, golden: Golden) -> None:
    golden(latex_lines(math_of(programs.ALL[name]())) + "\n", suffix=".tex")


def test_recognisable() -> None:
    """The equations of the papers, character by character."""
    assert text_lines(math_of(programs.delta()))[0] == "S ← S − rate·(S k − v) kᵀ"
    assert text_lines(math_of(programs.gated_delta()))[2].strip() == "= keep·S (I − rate·k kᵀ) + rate·v kᵀ"
    assert text_lines(math_of(programs.kda()))[2].strip() == "= S diag(a) (I − 2·rate·k kᵀ) + 2·rate·v kᵀ"
    assert text_lines(math_of(programs.diagonal()))[0] == "S ← S (diag(w) − kk (a ⊙ kk)ᵀ) + v kᵀ"


def values_of(program: Program, ticks: int = 3) -> tuple[list[NDArray[Any] | None], State, dict[str, NDArray[Any]]]:
    """Every value of the body at the last of a few ticks, the state it began with, and its inputs."""
    rng = np.random.default_rng(0)
    reference = Reference(program, {})
    state = reference.init_state(1)
    filled = {n: Value(rng.uniform(0.2, 1.0, v.array.shape), v.type) for n, v in state.values.items()}
    state = State(0, filled, {key: filled[key[0]] for key in state.anchors}, state.sizes)
    inputs: dict[str, NDArray[Any]] = {}
    for tick in range(ticks):
        inputs = {i.name: rng.normal(size=(1, *map(int, map(str, i.type.shape)))) for i in program.inputs}
        if tick < ticks - 1:
            _, state = reference.tick(state, inputs)
    now = State(state.tick + 1, state.values, state.anchors, state.sizes)
    given = {i.name: Value(inputs[i.name], i.type) for i in program.inputs}
    found = reference.evaluate(program.body, now, given)
    arrays = [None if v is None else v.array[0] if "batch" in v.type.axes else v.array for v in found]
    return arrays, state, inputs


@pytest.mark.parametrize("name", [n for n in programs.ALL if n != "slow"])
def test_values(name: str) -> None:
    """Each line, and each transition form, has the value of its instruction."""
    program = programs.ALL[name](*SIZES[name])
    math = math_of(program)
    body, state, inputs = values_of(program)
    names: dict[Sym, NDArray[Any]] = {}
    for line in math.lines:
        for sym in leaves(math):
            if sym.kind == "input":
                names[sym] = inputs[sym.name][0]
            elif sym.kind == "state":
                names[sym] = next(v.array[0] for n, v in state.values.items() if n.endswith(sym.name))
            elif sym.kind == "anchor":
                names[sym] = next(v.array[0] for (n, _), v in state.anchors.items() if n.endswith(sym.name))
        names[line.target] = evaluate(line.value, names)
        expected = body[line.number]
        assert expected is not None
        if line.named:  # any other line may stand for its instruction up to a factor
            np.testing.assert_allclose(names[line.target], expected, rtol=1e-9, atol=1e-12)
    for target, form in math.transitions:
        number = next(line.number for line in math.lines if line.target == target and line.kind == "update")
        expected = body[number]
        assert expected is not None
        np.testing.assert_allclose(evaluate(form, names), expected, rtol=1e-9, atol=1e-12)


def leaves(math: Math) -> set[Sym]:
    from nldsl.explain.terms import subterms

    terms = [line.value for line in math.lines] + [form for _, form in math.transitions]
    return {t for term in terms for t in subterms(term) if isinstance(t, Sym)}
