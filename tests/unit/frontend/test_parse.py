"""Every construct gives its node, with the span of its text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from nldsl.frontend import ast
from nldsl.source import Span
from tests.unit.frontend.helpers import codes, expression, parsed, shape, statement, statements

PROGRAMS = sorted((Path(__file__).parents[2] / "programs" / "syntax").glob("*.nl"))


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("a * b @ c", "(a * (b @ c))"),
        ("-a @ b", "((- a) @ b)"),
        ("-a ^ b", "(- (a ^ b))"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("d ** -0.5", "(d ^ (- 0.5))"),
        ("a ** b", "(a ^ b)"),
        ("a // b % c", "((a // b) % c)"),
        ("not a == b", "(not (a == b))"),
        ("not a and b or c", "(((not a) and b) or c)"),
        ("a + 1 < b * 2", "((a + 1) < (b * 2))"),
        ("if a then b else c + d", "(a ? b : (c + d))"),
        ("if a then b else if c then d else e", "(a ? b : (c ? d : e))"),
        ("a + b at start of c", "((a + b) start c)"),
        ("if a then b else c at start of d", "((a ? b : c) start d)"),
        ("a at start of 4 at start of 2", "((a start 4) start 2)"),
        ("sum of g ^ 2", "((sum of g) ^ 2)"),
        ("sum of g[i]", "(sum of g[i])"),
        ("sum of mean of g'", "(sum of (mean of (g)'))"),
        ("b * sum of g", "(b * (sum of g))"),
        ("x + f(h)(x) at slow", "(x + (f[h][x] at slow))"),
        ("f(h) at slow(x)", "(f[h] at slow)[x]"),
        ("W' @ x", "((W)' @ x)"),
        ("m.read(q).x", "m.read[q].x"),
        ("a < -b", "(a < (- b))"),
        ("- - a", "(- (- a))"),
        ("g(x) at start of chunk", "(g[x] start chunk)"),
        ("f(x) at slow at start of 4", "((f[x] at slow) start 4)"),
    ],
)
def test_precedence(text: str, tree: str) -> None:
    assert shape(expression(text)) == tree


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("12", ast.Number("12")),
        ('"a\\"b\\\\c\\nd"', ast.Text('a"b\\c\nd')),
        ("true", ast.Bool(True)),
        ("[]", ast.ListExpr(())),
        ("[1, x,]", ast.ListExpr((ast.Number("1"), ast.Name("x")))),
        ("{a, b}", ast.GroupExpr((ast.Name("a"), ast.Name("b")))),
        ("(a)", ast.Paren(ast.Name("a"))),
        ("x[1:2]", ast.Slice(ast.Name("x"), ast.Number("1"), ast.Number("2"))),
        ("x[:]", ast.Slice(ast.Name("x"), None, None)),
        ("x[1:]", ast.Slice(ast.Name("x"), ast.Number("1"), None)),
        ("f()", ast.Call(ast.Name("f"), ())),
        ("f(1, a = 2,)", ast.Call(ast.Name("f"), (ast.Argument(ast.Number("1")), ast.Argument(ast.Number("2"), "a")))),
        (
            "sum(e for i in r)",
            ast.Call(ast.Name("sum"), (ast.Argument(ast.Comprehension(ast.Name("e"), "i", ast.Name("r"))),)),
        ),
        ("(e for i in r)", ast.Comprehension(ast.Name("e"), "i", ast.Name("r"))),
        ("[e for i in r]", ast.Comprehension(ast.Name("e"), "i", ast.Name("r"), stack=True)),
    ],
)
def test_expressions(text: str, node: ast.Expr) -> None:
    assert expression(text) == node


X = ast.Name("x")
ONE = ast.Number("1")
D = ast.TensorType((ast.Name("d"),))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("y = x", ast.Bind(ast.Target(("y",)), X)),
        ("y: [d] = x", ast.Bind(ast.Target(("y",)), X, D)),
        ("y <- x", ast.Assign(ast.Target(("y",)), X)),
        ("m.S <- x", ast.Assign(ast.Target(("m", "S")), X)),
        ("m.\n S = x", ast.Bind(ast.Target(("m", "S")), X)),
        ("{a, b} <- x", ast.Assign(ast.Target(("a", "b"), group=True), X)),
        ("return x", ast.Return(X)),
        ("x", ast.ExprStatement(X)),
        ("m.read(x)", ast.ExprStatement(ast.Call(ast.Member(ast.Name("m"), "read"), (ast.Argument(X),)))),
        ("read(x)", ast.ExprStatement(ast.Call(ast.Name("read"), (ast.Argument(X),)))),
        ("sum of x", ast.ExprStatement(ast.Reduce("sum", X))),
        ("repeat 1 { x }", ast.Repeat(ONE, (ast.ExprStatement(X),))),
        ("iterate 1 {}", ast.Iterate(ONE, ())),
        ("for i in {x} { }", ast.For("i", ast.GroupExpr((X,)), ())),
        ("if x { x }", ast.If(X, (ast.ExprStatement(X),))),
        ("if x { } else { x }", ast.If(X, (), (ast.ExprStatement(X),), True)),
        ("if x { }\nelse if x { }", ast.If(X, (), (ast.If(X, ()),), True)),
        ("every token { }", ast.Every(ast.Clock(None, "token"), ())),
        ("every 2 * x token { }", ast.Every(ast.Clock(ast.Binary("*", ast.Number("2"), X), "token"), ())),
        ("every x token { }", ast.Every(ast.Clock(X, "token"), ())),
        ("expect x", ast.Expect(X)),
        ("state S", ast.State(("S",))),
        ("state S, T: [d] = 1", ast.State(("S", "T"), D, ONE)),
        ("shared state S = learned x", ast.State(("S",), None, X, learned=True, shared=True)),
        (
            "state S: like g reset per sequence",
            ast.State(("S",), ast.LikeType("g"), reset=ast.Reset("per", "sequence")),
        ),
        ("state S reset every 1 token", ast.State(("S",), reset=ast.Reset("every", "token", ONE))),
        ("state S reset every slow", ast.State(("S",), reset=ast.Reset("every", "slow"))),
        ("state S = x reset at slow", ast.State(("S",), None, X, reset=ast.Reset("at", "slow"))),
        ("state S reset never", ast.State(("S",), reset=ast.Reset("never"))),
        ("param w: [d] = x at slow", ast.Parameter(("w",), D, X, "slow")),
        ("param w = f(x at slow)", ast.Parameter(("w",), None, expression("f(x at slow)"))),
        ("memory m: x", ast.Instance("memory", ("m",), X)),
        ("memory m, n: 1 of x", ast.Instance("memory", ("m", "n"), X, ONE)),
        ("memory m: x of f(sum of x)", ast.Instance("memory", ("m",), expression("f(sum of x)"), X)),
        ("optimizer o: f(x) at slow", ast.Instance("optimizer", ("o",), expression("f(x) at slow"))),
        ("input x: int[]", ast.Input("x", ast.TensorType((), integer=True))),
        ("level step", ast.Level("step")),
        ("level l = every 1 token with x", ast.Level("l", ast.Clock(ONE, "token"), X)),
        ("minimize x + f(x) at step with x", ast.Minimize(expression("x + f(x)"), "step", X)),
        ("minimize x at start of 1 at step", ast.Minimize(ast.Anchor(X, ONE), "step")),
        ("read(x) = x", ast.Method("read", (ast.Param("x"),), None, None, (ast.Return(X),), short=True)),
        ("read() -> [d] { x }", ast.Method("read", (), D, None, (ast.ExprStatement(X),))),
        (
            "step(x: [d] = 1) -> like x every 1 token { }",
            ast.Method("step", (ast.Param("x", D, ONE),), ast.LikeType("x"), ast.Clock(ONE, "token"), ()),
        ),
    ],
)
def test_statements(text: str, node: ast.Statement) -> None:
    assert statement(text) == node


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("[]", ast.TensorType(())),
        ("[n, 2 * d]", ast.TensorType((ast.Name("n"), ast.Binary("*", ast.Number("2"), ast.Name("d"))))),
        ("[...]", ast.TensorType((), any_shape=True)),
        ("int[n]", ast.TensorType((ast.Name("n"),), integer=True)),
        ("int[...]", ast.TensorType((), integer=True, any_shape=True)),
        ("int", ast.NamedType("int")),
        ("memory", ast.NamedType("memory")),
        ("level", ast.NamedType("level")),
        ("list[level]", ast.ListType("level")),
        ("list[dim]", ast.ListType("dim")),
        ("like g", ast.LikeType("g")),
    ],
)
def test_types(text: str, node: ast.TypeExpr) -> None:
    (function,) = parsed(f"fn f(x: {text}) -> {text} = x").declarations
    assert isinstance(function, ast.Function)
    assert function.params[0].type == node
    assert function.result == node


def test_declarations() -> None:
    file = parsed(
        'import "m/n" as a\nfrom "./b.nl" import c, d as e\n'
        'objective o(x) = 1\nmemory M {}\nblock B(x: [d]) { return x }\ngolden = 2\nexample "t" { expect x }'
    )
    assert file.imports == (
        ast.Import("m/n", (), "a"),
        ast.Import("./b.nl", (("c", "c"), ("d", "e"))),
    )
    assert file.declarations == (
        ast.Function("objective", "o", (ast.Param("x"),), None, (ast.Return(ONE),), short=True),
        ast.Unit("memory", "M", (), ()),
        ast.Unit("block", "B", (ast.Param("x", D),), (ast.Return(X),)),
        ast.Constant("golden", ast.Number("2")),
        ast.Example("t", (ast.Expect(X),)),
    )


def test_plain_names_of_the_language() -> None:
    """Words of clocks, reductions and types are names like others."""
    statements("token = step\ntick = read + learn\nsum = mean of last\nint = list[dim]\nsequence = per_ + init")


def test_line_ends() -> None:
    two = (ast.Bind(ast.Target(("a",)), X), ast.Bind(ast.Target(("b",)), X))
    for text in ("a = x\nb = x", "a = x; b = x", "a =\n x\n\n;\nb =\n\nx", "a = x # c\n# c\nb = x;", "a = x;;b = x"):
        assert statements(text) == two
    assert expression("f(\n1\n,\n\n2\n)") == expression("f(1, 2)")
    assert expression("{\na,\nb\n}") == expression("{a, b}")
    assert expression("a +\nb and\nnot\nc") == expression("a + b and not c")
    assert expression("if a\nthen b\nelse c") == expression("if a then b else c")
    assert expression("a at start\nof\nb") == expression("a at start of b")
    assert codes("x = a\n+ b") == ["NL0101"]
    assert parsed("") == ast.File((), ())
    assert parsed("\n;\n# c\n") == ast.File((), ())
    assert parsed("x = 1\r\ny = 2\r\n") == parsed("x = 1\ny = 2")


def test_braces_of_blocks_and_groups() -> None:
    assert statement("if x { x } else { x }") == statement("if x {\nx\n}\n\nelse {\nx\n}")
    assert statement("y = if x then {a, b} else {c, d}") == ast.Bind(
        ast.Target(("y",)), expression("if x then {a, b} else {c, d}")
    )
    for text in ("return {a}", "y = {a}", "f({a}, {b})", "y = a + {b}", "y = [{a}]", "expect {a} == {b}"):
        statement(text)
    statement("for i in {a, b} { {a, b} <- {b, a} }")


def test_documentation() -> None:
    file = parsed(
        "## The file.\n##\n## More.\n\n## Of M.\n## Two lines.\nmemory M {\n  ##  Of S.\n  state S; state T\n\n"
        "  ## Not of U.\n\n  state U # trailing\n  state V ## no doc\n  state W\n  # no doc\n  param p\n"
        "  ## Of read.\n  read() = S\n}\n## last"
    )
    assert file.doc == "The file.\n\nMore."
    (unit,) = file.declarations
    assert isinstance(unit, ast.Unit)
    assert unit.doc == "Of M.\nTwo lines."
    assert [getattr(m, "doc", None) for m in unit.members] == [" Of S.", "", "", "", "", "", "Of read."]


@pytest.mark.parametrize(
    ("text", "doc", "of_first"),
    [
        ("## a\nx = 1", "", "a"),
        ("## a\n\nx = 1", "a", ""),
        ('## a\nimport "m" as m\nx = 1', "a", ""),
        ("## a\n\n## b\nx = 1", "a", "b"),
        ("# c\n## a\n\nx = 1", "a", ""),
        ("x = 1\n## a\n", "", ""),
    ],
)
def test_documentation_of_the_file(text: str, doc: str, of_first: str) -> None:
    file = parsed(text)
    assert file.doc == doc
    first = file.declarations[0]
    assert isinstance(first, ast.Constant)
    assert first.doc == of_first


def nodes(node: object) -> Iterator[ast.Node]:
    if isinstance(node, tuple):
        for item in node:
            yield from nodes(item)
    elif isinstance(node, ast.Node):
        yield node
        for field in dataclasses.fields(node):
            yield from nodes(getattr(node, field.name))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_spans(path: Path) -> None:
    """Every node has a span, inside that of its parent, that begins and ends with a token."""
    file = parsed(path.read_text(encoding="utf-8"))
    for node in nodes(file):
        span = getattr(node, "span", None)
        assert isinstance(span, Span)
        assert not span.is_none
        if not isinstance(node, ast.File):
            assert span.text == span.text.strip()
            assert span.text
        for field in dataclasses.fields(node):
            for inner in nodes(getattr(node, field.name)):
                assert span.start <= inner.span.start <= inner.span.end <= span.end


def test_spans_of_names() -> None:
    file = parsed('from "p" import a\nfn f(x) = x\nmemory M { read(q) = q }')
    function, unit = file.declarations
    assert isinstance(function, ast.Function)
    assert isinstance(unit, ast.Unit)
    method = unit.members[0]
    assert isinstance(method, ast.Method)
    assert file.imports[0].path_span.text == '"p"'
    assert [n.name_span.text for n in (function, unit, method)] == ["f", "M", "read"]
    assert unit.span.text == "memory M { read(q) = q }"
    assert function.params[0].span.text == "x"


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_programs(path: Path) -> None:
    assert parsed(path.read_text(encoding="utf-8")).declarations
