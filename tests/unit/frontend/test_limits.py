"""No text makes the front end use much time, memory or stack."""

from __future__ import annotations

import inspect
import sys
import time

import pytest

from nldsl.diagnostics import DiagnosticBag
from nldsl.frontend.parse import parse
from nldsl.limits import Limits
from nldsl.source import SourceFile
from tests.unit.frontend.helpers import codes, mistakes, parsed

N = 10**6


def test_brackets_256_deep() -> None:
    parsed("x = " + "(" * 256 + "1" + ")" * 256)
    (found,) = mistakes("x = " + "(" * 257 + "1" + ")" * 257)
    assert (found.code, found.span.column) == ("NL0006", 4 + 257)


def test_blocks_256_deep() -> None:
    def nested(count: int) -> str:
        return "memory M {\n" + "if c {\n" * (count - 1) + "x = 1\n" + "}" * count

    parsed(nested(256))
    assert codes(nested(257)) == ["NL0006"]


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "-" * 2000 + "1",
        "x = " + "not " * 2000 + "a",
        "x = " + "a ^ " * 2000 + "a",
        "x = 1" + " + 1" * 2000,
        "x = a" + "'" * 2000,
        "x = a" + ".b" * 2000,
        "x = a" + "(1)" * 2000,
        "x = " + "sum of " * 2000 + "g",
        "x = " + "if a then b else " * 2000 + "c",
        "fn f() {\nif a { }" + " else if a { }" * 2000 + "\n}",
    ],
)
def test_depth_of_the_tree(text: str) -> None:
    assert codes(text) == ["NL0006"]


def test_tree_of_full_depth() -> None:
    parsed("x = 1" + " + 1" * 1000)


def test_depth_does_not_need_the_stack() -> None:
    limit = sys.getrecursionlimit()
    frames = len(inspect.stack())
    try:
        sys.setrecursionlimit(frames + 60)
        parsed("x = " + "(" * 256 + "1" + ")" * 256)
    finally:
        sys.setrecursionlimit(limit)


@pytest.mark.parametrize(
    "text",
    ["(" * N, "x = " + "(" * N, ")" * N, "([{" * 50 + ")" * N, "-" * N, '"' * N, "'" * N, "a " * (N // 2), ";" * N]
    + [
        "\n" * N,
        "1" * N,
        "a" * N,
        "é" * (N // 2),
        "f(\nstate\n" * (N // 10),
        "#" * N,
        "\x01" * N,
        "\t" * N,
        '"\n' * (N // 2),
    ]
    + ["a.b(" * (N // 4), "f(x) {\n" * (N // 8), "memory " * (N // 7), "{" * N, "[" * N, "x = {" * (N // 5)],
    ids=lambda text: ascii(text[:12]),
)
def test_a_million_characters(text: str) -> None:
    began = time.process_time()
    bag = DiagnosticBag()
    parse(SourceFile("x", text), bag)
    assert bag.has_errors or not text.strip("#\n;")
    assert time.process_time() - began < 6  # 1 on an idle machine


def test_file_size() -> None:
    limits = Limits(file_bytes=10)
    assert codes("x = 123456", limits) == []
    assert codes("x = 1234567", limits) == ["NL0005"]
    assert codes("# ééééé", limits) == ["NL0005"]
    assert codes("a b c d e f g h i j k", Limits(tokens=5)) == ["NL0005"]


def test_numbers_and_names() -> None:
    assert codes("x = 2147483648") == []
    assert codes("x = 2147483649") == ["NL0108"]
    assert codes("x = 0000000000000000000001") == []
    assert codes("x = " + "9" * 5000) == ["NL0108"]
    assert codes("x = 1e308") == []
    assert codes("x = 1e309") == ["NL0108"]
    assert codes("x = 1e-400") == ["NL0108"]
    assert codes("x = 0e-400") == []
    assert codes("a" * 64 + " = 1") == []
    assert codes("a" * 65 + " = 1") == ["NL0109"]
