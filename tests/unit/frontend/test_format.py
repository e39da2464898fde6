"""The formatter."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics import DiagnosticError
from nldsl.frontend.format import WIDTH, format_source
from tests.unit.frontend.helpers import parsed

PROGRAMS = sorted((Path(__file__).parents[3] / "stdlib").rglob("*.nl")) + sorted(
    (Path(__file__).parents[2] / "programs" / "syntax").glob("*.nl")
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("\n\n# c\n\n", "# c\n"),
        ("x=1", "x = 1\n"),
        ("x = 1;y = 2 ; ", "x = 1\ny = 2\n"),
        ("x = 1\n\n\n\ny = 2", "x = 1\n\ny = 2\n"),
        ("x = 1\r\ny = 2\r\n", "x = 1\ny = 2\n"),
        ("x = -  1 - - y", "x = -1 - -y\n"),
        ("x = a - (-b)^2 ** - 3", "x = a - (-b)^2 ** -3\n"),
        ("x = beta ^ clock( )", "x = beta ^ clock()\n"),
        ("x = f ( a ,b = 2 ) [ 1 : n ] ' . c", "x = f(a, b = 2)[1:n]'.c\n"),
        ("x = [ 1,2 ] ; y = { a,b }", "x = [1, 2]\ny = {a, b}\n"),
        ("x = 3 .a", "x = 3 .a\n"),
        ("x = a<b and not c", "x = a < b and not c\n"),
        ("x = f(x)at slow(y)", "x = f(x) at slow(y)\n"),
        ("x = sum of(g)", "x = sum of (g)\n"),
        ("fn f(x:int [n],y :[...])->[ ]=x", "fn f(x: int[n], y: [...]) -> [] = x\n"),
        ("memory M{}", "memory M {}\n"),
        ("memory M {\n}", "memory M {}\n"),
        ("memory M { state S }", "memory M { state S }\n"),
        ("memory M { state S; state T }", "memory M {\n  state S\n  state T\n}\n"),
        ("memory M { f() { x } }", "memory M {\n  f() { x }\n}\n"),
        ("memory M { state S # c\n}", "memory M {\n  state S  # c\n}\n"),
        ("memory M { # c\nstate S\n}", "memory M {  # c\n  state S\n}\n"),
        ("memory M {\n\n# c\n\nstate S\n# d\n\n}", "memory M {\n  # c\n\n  state S\n  # d\n}\n"),
        ("fn f() {\nif a { x } else { y }\n}", "fn f() {\n  if a { x } else { y }\n}\n"),
        (
            "fn f() {\nif a {\nx }\nelse if b { y }\nelse { z }\n}",
            "fn f() {\n  if a {\n    x\n  } else if b { y } else { z }\n}\n",
        ),
        ("fn f() {\nif a {\nx\n} # c\nelse { y }\n}", "fn f() {\n  if a {\n    x\n  }  # c\n  else { y }\n}\n"),
        ("x = f(\na,\n b\n)", "x = f(\n  a,\n  b\n)\n"),
        ("x = f(g(\na\n))", "x = f(g(\n  a\n))\n"),
        ("x = a +\n b", "x = a +\n  b\n"),
        ("x = (a\n- b)", "x = (a\n  - b)\n"),
        ("x = [a, # one\nb]", "x = [a,  # one\n  b]\n"),
        ("x = [\n# one\nb]", "x = [\n  # one\n  b]\n"),
        ("## doc\nx = 1", "## doc\nx = 1\n"),
        ("## doc\n;\nx = 1", "## doc\n\nx = 1\n"),
        ("memory M {\n\tstate S\n}", "memory M {\n  state S\n}\n"),
        ("memory M {\nevery - n token {\nx\n}\n}", "memory M {\n  every -n token {\n    x\n  }\n}\n"),
    ],
)
def test_format(before: str, after: str) -> None:
    assert format_source(before) == after
    assert format_source(after) == after


def test_long_lines() -> None:
    names = [f"parameter_{n}" for n in range(12)]
    text = format_source(f"fn f({': [], '.join(names)}: []) -> [] {{ x }}")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert text.startswith("fn f(\n  parameter_0: [], ")
    assert "\n) -> [] {" in text
    text = format_source(f"x = {'a' * 50} + f({', '.join(names)})")
    assert text.splitlines()[0] == f"x = {'a' * 50} + f("
    text = format_source("fn f(x: []) -> [] = " + "a" * 40 + " + " + "b" * 45)
    assert text == "fn f(x: []) -> [] =\n  " + "a" * 40 + " + " + "b" * 45 + "\n"
    text = format_source("memory M {\n  memory " + ", ".join(names) + ": Delta(1)\n}")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_a_line_that_cannot_be_broken() -> None:
    text = "x = " + " + ".join(["aaaaaaaaaa"] * 12) + "\n"
    assert format_source(text) == text


def test_a_million_characters() -> None:
    text = format_source("x = [" + "1, " * 100_000 + "1]")
    assert max(map(len, text.splitlines())) <= WIDTH
    assert format_source(text) == text


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    after = format_source(text)
    assert parsed(after) == parsed(text)
    assert format_source(after) == after


def test_wrong_programs_are_left_alone() -> None:
    with pytest.raises(DiagnosticError) as caught:
        format_source("x =", "a.nl")
    assert str(caught.value).startswith("a.nl:1:4: error[NL0101]")
