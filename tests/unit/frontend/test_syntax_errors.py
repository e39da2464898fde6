"""What is said about syntax errors: pinned, one program per mistake; and that one mistake does not hide the next."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.diagnostics import DiagnosticBag
from nldsl.diagnostics.render import render
from nldsl.frontend.parse import parse
from nldsl.source import SourceFile
from tests.conftest import Golden
from tests.unit.frontend.helpers import codes, mistakes

PROGRAMS = sorted((Path(__file__).parents[2] / "programs" / "syntax_errors").glob("*.nl"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_message(path: Path, golden: Golden) -> None:
    bag = DiagnosticBag()
    assert parse(SourceFile(path.name, path.read_text(encoding="utf-8")), bag) is None
    golden(render(bag))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_every_message_points_at_something(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for found in mistakes(text):
        assert 0 <= found.span.start <= found.span.end <= len(text)
        assert not found.span.is_none
        assert found.message[0] not in "ABCDEFGHIJKLMNOPQRSTVWXYZ"  # U is for U+200B


def lines_of_errors(text: str) -> list[int]:
    return [d.span.line for d in mistakes(text)]


def test_goes_on_after_errors() -> None:
    text = """\
memory A {
  state S: [d] == 0
  read(q [d]) -> [d] = q
  learn(k: [d]) {
    x = 1 +* 2
    y = 3
    z = [1 2]
    repeat 3 {
      a b
    }
  }
}
fn f(x: []) -> [] = x
fn g(x: []) -> = x
memory B(level: dim) {
  state : [d]
}
c == 3
"""
    assert lines_of_errors(text) == [2, 3, 5, 7, 9, 14, 15, 16, 18]


def test_a_wrong_head_does_not_hide_its_block() -> None:
    assert lines_of_errors("memory M(3) {\nstate S == 0\nf() {\nx y\n}\n}\nx y") == [1, 2, 4, 7]
    assert lines_of_errors("fn f() {\nif x = 1 {\ny z\n} else {\ny z\n}\n}") == [2, 3, 5]


def test_brackets() -> None:
    assert codes("x = (1\ny = 2") == ["NL0111"]
    assert codes("memory M {\nread() = f(1\nlearn() { }\nstate S\n}") == ["NL0111"]
    assert codes("memory M {\nread() = f(1\nstate S\n}\nx y") == ["NL0111", "NL0101"]
    assert codes("x = (1]") == ["NL0112"]
    assert codes("x = ([1)") == ["NL0112"]
    assert codes("x = 1)\ny = 2]\n}\nz = 3") == ["NL0112"] * 3
    assert codes("memory M {\nstate S\nmemory N {\nstate T\n}") == ["NL0111"]
    assert codes("memory M {\nstate S\n\nfn f(x) = x") == ["NL0111"]
    assert codes("memory M {\n learn() {\n x = 1\n}\nx = 2\n") == ["NL0111"]


def test_one_mistake_is_told_once() -> None:
    assert len(mistakes("class M(nn.Module):\n  def read(self, q):\n    return q\n")) == 1
    assert len(mistakes("memory M(d: dim):\n  state S: [d]\n  read() = S\nfn f() = 1")) == 1
    assert len(mistakes("x = 'a b c'")) == 1
    assert len(mistakes("x = €uro")) == 1


def test_the_bag_bounds_the_number() -> None:
    bag = DiagnosticBag(limit=3)
    assert parse(SourceFile("x", "x y\n" * 100), bag) is None
    assert len(bag) == 3


def test_at_the_end() -> None:
    for text in (
        "memory",
        "memory M",
        "memory M(",
        "memory M(d",
        "memory M {",
        "fn f(x) =",
        "x =",
        "import",
        "x = {",
        "x = f(a,",
    ):
        (found, *_) = mistakes(text)
        assert found.span.end <= len(text)
