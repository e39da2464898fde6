"""The whole report on programs from their text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nldsl.dims import symbol
from nldsl.explain import explain_file, explain_update, report_of
from nldsl.explain.math import equations, text_lines
from nldsl.explain.report import dim_text
from nldsl.standalone import Request, load
from tests.conftest import Golden

FILE = Path(__file__).parent / "memories.nl"
NAMES = ("GatedDelta", "Deep", "Slow", "Window", "Exponentiated", "Small", "Siblings", "Gate")


def plain(text: str) -> str:
    """Without the folder that the tests are in."""
    return text.replace(str(FILE.parent) + "/", "")


@pytest.mark.parametrize("name", NAMES)
def test_text(name: str, golden: Golden) -> None:
    golden(plain(explain_file(FILE, name)))


@pytest.mark.parametrize("name", NAMES)
def test_latex(name: str, golden: Golden) -> None:
    text = explain_file(FILE, name, latex=True)
    assert text.count("{") == text.count("}")
    assert text.count(r"\left") == text.count(r"\right")
    golden(text, suffix=".tex")


def test_json(golden: Golden) -> None:
    text = plain(explain_file(FILE, "GatedDelta", as_json=True))
    assert json.loads(text)["memories"][0]["states"][0]["shape"] == ["dv", "dk"]
    golden(text + "\n", suffix=".json")


def test_sizes_of_the_command_line() -> None:
    assert "S: [4, 3]" in explain_file(FILE, "GatedDelta", dims={"dk": 3, "dv": 4})


def test_reason_and_place_of_what_is_not_linear() -> None:
    (loop,) = [loop.recurrence for loop in report_of(FILE, "Exponentiated").loops if loop.recurrence is not None]
    assert loop.kind == "nonlinear"
    assert loop.why == "log is not linear"
    assert loop.span.text == "log(W)"


def test_reads_before_and_after() -> None:
    """The same reading at two places in the order of statements."""
    program = load(Request(FILE, "GatedDelta", again=True)).program
    assert [name for name, _ in program.outputs] == ["read(q)", "read(q) after learning"]
    lines = text_lines(equations(program, ["S"]))
    assert lines[0].split(" = ")[1] == "S q"
    assert lines[-1].split(" = ")[1] == "S⁺ q"


def test_an_optimizer_is_shown_with_what_it_trains() -> None:
    (section,) = report_of(FILE, "Siblings").sections
    lines = [" ".join(line.split()) for line in text_lines(section.math)]
    assert "m.w1 ← beta·m.w1 − rate·e hᵀ" in lines
    assert "m.w2 ← beta·m.w2 − rate·(net.w1@4ᵀ e ⊙ gelu′(z)) kᵀ" in lines
    assert "net.w1 ← keep·net.w1 + m.w1⁺" in lines


def test_update_for_a_picture() -> None:
    program = load(Request(FILE, "GatedDelta")).program
    assert explain_update(program, "S").splitlines()[0] == "S′ = keep·S"
    assert "read" not in explain_update(program, "S")


def test_formula_of_a_size() -> None:
    d, h = symbol("d"), symbol("heads")
    assert dim_text(d * d * 2 + d * h - 3) == "d·heads + 2·d² − 3"
    assert dim_text(12345) == "12,345"
