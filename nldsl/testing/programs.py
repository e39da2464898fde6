"""Random syntax trees: every construct of the language, in every place where it may stand.

The programs follow the grammar and nothing else: their names mean nothing. `pick(n)` chooses among 0 .. n-1; it may be
a random number generator or hypothesis, so both make the same programs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from nldsl.frontend import ast

__all__ = ["Maker"]

T = TypeVar("T")

# Words that look like keywords of other places are here on purpose: they are plain names.
NAMES = ("x", "S", "m1", "token", "step", "tick", "read", "learn", "sum", "int", "list", "gamma_2", "_", "fnord", "W")
NUMBERS = ("0", "1", "16", "0.5", "1e-8", "2.5E+3", "007")
TEXTS = ("", "ij,j->i", 'a "quoted" text', "back\\slash", "two\nlines", "# no comment", "memories/delta", "ünïcode →")
TYPE_NAMES = ("dim", "int", "real", "bool", "text", "level", "fn", "memory", "block", "init")
DOCS = ("", "", "", "One line.", "Two lines,\nthe second.", "With an empty\n\none.")

# Operators by how tightly they bind, weakest first; each level's operands are of the next.
LEVELS: tuple[tuple[str, ...], ...] = (
    ("or",),
    ("and",),
    ("not",),
    ("<", "<=", ">", ">=", "==", "!="),
    ("+", "-"),
    ("*", "/", "//", "%"),
    ("@",),
    ("neg",),
    ("^",),
)
NOT, COMPARISON, SUM, SIGN, POWER, POSTFIX = 2, 3, 4, 7, 8, 9


class Maker:
    """Makes trees whose size is bounded by `budget`, the number of choices left before only small things are made."""

    def __init__(self, pick: Callable[[int], int], budget: int = 60) -> None:
        self.pick = pick
        self.budget = budget

    def one(self, choices: Sequence[T]) -> T:
        return choices[self.pick(len(choices))]

    def maybe(self, make: Callable[[], T]) -> T | None:
        return make() if self.coin() else None

    def coin(self) -> bool:
        return self.pick(2) == 1

    def some(self, make: Callable[[], T], least: int = 0, most: int = 3) -> tuple[T, ...]:
        if self.budget <= 0:
            most = least
        return tuple(make() for _ in range(least + self.pick(most - least + 1)))

    def spend(self) -> bool:
        """Whether something large may be made."""
        self.budget -= 1
        return self.budget > 0

    def name(self) -> str:
        return self.one(NAMES)

    def names(self) -> tuple[str, ...]:
        return self.some(self.name, 1)

    def doc(self) -> str:
        return self.one(DOCS)

    # ------------------------------------------------------------ expressions

    def expr(self) -> ast.Expr:
        if self.spend():
            choice = self.pick(8)
            if choice == 7:
                return ast.Anchor(self.expr(), self.choice())
        return self.choice()

    def choice(self) -> ast.Expr:
        if self.spend() and self.pick(8) == 7:
            return ast.IfExpr(self.expr(), self.expr(), self.choice())
        return self.operation(0)

    def operation(self, level: int) -> ast.Expr:
        """An expression whose outermost operator is of this level or binds more tightly."""
        if not self.spend() or self.coin():
            return self.reduction()
        level = min(level + self.pick(POSTFIX - level + 1), POSTFIX)
        if level == POSTFIX:
            return self.reduction()
        op = self.one(LEVELS[level])
        if level == NOT:
            return ast.Unary("not", self.operation(NOT))
        if level == SIGN:
            return ast.Unary("-", self.operation(SIGN))
        if level == COMPARISON:
            return ast.Binary(op, self.operation(SUM), self.operation(SUM))
        if level == POWER:
            return ast.Binary(op, self.reduction(), self.operation(SIGN))
        return ast.Binary(op, self.operation(level), self.operation(level + 1))

    def reduction(self) -> ast.Expr:
        if self.spend() and self.pick(8) == 7:
            return ast.Reduce(self.name(), self.reduction())
        return self.postfix()

    def postfix(self) -> ast.Expr:
        value = self.primary()
        while self.spend() and self.coin():
            kind = self.pick(8)
            if kind == 0:
                value = ast.Call(value, self.some(self.argument))
            elif kind == 1:
                value = ast.Call(value, (ast.Argument(self.comprehension(False)),))
            elif kind == 2:
                value = ast.Index(value, self.expr())
            elif kind == 3:
                value = ast.Slice(value, self.maybe(self.expr), self.maybe(self.expr))
            elif kind == 4 and not isinstance(value, ast.Number):
                value = ast.Member(value, self.name())
            elif kind == 5:
                value = ast.Transpose(value)
            elif kind == 6:
                value = ast.AtLevel(value, self.name())
            else:
                break
        return value

    def primary(self) -> ast.Expr:
        small: tuple[Callable[[], ast.Expr], ...] = (
            lambda: ast.Name(self.name()),
            lambda: ast.Number(self.one(NUMBERS)),
            lambda: ast.Name(self.name()),
            lambda: ast.Bool(self.coin()),
            lambda: ast.Text(self.one(TEXTS)),
        )
        large: tuple[Callable[[], ast.Expr], ...] = (
            lambda: ast.Paren(self.expr()),
            lambda: ast.ListExpr(self.some(self.expr)),
            lambda: ast.GroupExpr(self.some(self.expr, 1)),
            lambda: self.comprehension(False),
            lambda: self.comprehension(True),
        )
        return self.one(small + large if self.spend() else small)()

    def comprehension(self, stack: bool) -> ast.Comprehension:
        return ast.Comprehension(self.expr(), self.name(), self.expr(), stack)

    def argument(self) -> ast.Argument:
        name = self.maybe(self.name)
        value = self.expr()
        if isinstance(value, ast.Comprehension) and not value.stack:
            value = ast.Paren(value)  # alone in a call it would be the call's own
        return ast.Argument(value, name)

    def closed(self) -> ast.Expr:
        """An expression without `at` or `of` outside of brackets, which would be words of the statement."""
        value = self.expr()
        return value if isinstance(value, (ast.Name, ast.Number, ast.ListExpr, ast.GroupExpr)) else ast.Paren(value)

    # ------------------------------------------------------------ types

    def type(self) -> ast.TypeExpr:
        kind = self.pick(6)
        if kind == 0:
            return ast.TensorType((), integer=self.coin(), any_shape=True)
        if kind == 1:
            return ast.LikeType(self.name())
        if kind == 2:
            return ast.NamedType(self.one(TYPE_NAMES))
        if kind == 3:
            return ast.ListType(self.one(TYPE_NAMES))
        return ast.TensorType(self.some(self.expr), integer=kind == 4)

    # ------------------------------------------------------------ statements

    def body(self) -> tuple[ast.Statement, ...]:
        return self.some(self.statement)

    def target(self) -> ast.Target:
        kind = self.pick(4)
        if kind == 0:
            return ast.Target(self.names(), group=True)
        if kind == 1:
            return ast.Target((self.name(), self.name()))
        return ast.Target((self.name(),))

    def expression_statement(self) -> ast.Statement:
        value = self.expr()
        return ast.ExprStatement(_without_brace(value))

    def clock(self) -> ast.Clock:
        return ast.Clock(self.maybe(lambda: _without_brace(self.operation(SUM))), self.name())

    def statement(self) -> ast.Statement:
        small: tuple[Callable[[], ast.Statement], ...] = (
            lambda: ast.Bind(self.target(), self.expr()),
            lambda: ast.Assign(self.target(), self.expr()),
            lambda: ast.Return(self.expr()),
            lambda: ast.Bind(ast.Target((self.name(),)), self.expr(), self.type()),
            self.expression_statement,
            lambda: ast.Expect(self.expr()),
            self.state,
            lambda: ast.Parameter(
                self.names(), self.maybe(self.type), self.maybe(self.closed), self.maybe(self.name), self.doc()
            ),
            self.instance,
            lambda: ast.Input(self.name(), self.type(), self.doc()),
            lambda: ast.Level(self.name(), self.maybe(self.clock), self.maybe(self.expr), self.doc()),
            lambda: ast.Minimize(self.closed(), self.maybe(self.name), self.maybe(self.closed)),
        )
        large: tuple[Callable[[], ast.Statement], ...] = (
            lambda: ast.Repeat(_without_brace(self.expr()), self.body()),
            lambda: ast.Iterate(_without_brace(self.expr()), self.body()),
            lambda: ast.For(self.name(), self.expr(), self.body()),
            self.if_statement,
            lambda: ast.Every(self.clock(), self.body()),
            self.method,
        )
        return self.one(small + large if self.spend() else small)()

    def if_statement(self) -> ast.If:
        has_else = self.coin()
        return ast.If(self.expr(), self.body(), self.body() if has_else else (), has_else)

    def state(self) -> ast.State:
        initial = self.maybe(self.expr)
        learned = initial is not None and self.coin()
        return ast.State(
            self.names(), self.maybe(self.type), initial, learned, self.coin(), self.maybe(self.reset), self.doc()
        )

    def reset(self) -> ast.Reset:
        kind = self.one(("per", "every", "at", "never"))
        if kind == "never":
            return ast.Reset(kind)
        count = self.maybe(lambda: _without_brace(self.operation(SUM))) if kind == "every" else None
        return ast.Reset(kind, self.name(), count)

    def instance(self) -> ast.Instance:
        return ast.Instance(
            self.one(("memory", "optimizer")),
            self.names(),
            self.closed(),
            self.maybe(self.closed),
            self.doc(),
        )

    def param(self) -> ast.Param:
        return ast.Param(self.name(), self.maybe(self.type), self.maybe(self.expr))

    def method(self) -> ast.Method:
        short = self.coin()
        body = (ast.Return(self.expr()),) if short else self.body()
        return ast.Method(
            self.name(),
            self.some(self.param),
            self.maybe(self.type),
            self.maybe(self.clock),
            body,
            short,
            self.doc(),
        )

    # ------------------------------------------------------------ files

    def declaration(self) -> ast.Declaration:
        kind = self.pick(4)
        if kind == 0:
            short = self.coin()
            body = (ast.Return(self.expr()),) if short else self.body()
            keyword = self.one(("fn", "objective", "retention"))
            return ast.Function(
                keyword, self.name(), self.some(self.param), self.maybe(self.type), body, short, self.doc()
            )
        if kind == 1:
            return ast.Constant(self.name(), self.expr(), self.doc())
        if kind == 2:
            return ast.Example(self.one(TEXTS), self.body(), self.doc())
        keyword = self.one(("memory", "block", "model"))
        return ast.Unit(keyword, self.name(), self.some(self.param), self.body(), self.doc())

    def imported(self) -> ast.Import:
        path = self.one(TEXTS)
        if self.coin():
            return ast.Import(path, (), self.name())
        return ast.Import(path, self.some(lambda: (self.name(), self.name()), 1))

    def file(self) -> ast.File:
        declarations = self.some(self.declaration, 0, 4)
        imports = self.some(self.imported, 0, 2)
        doc = self.doc() if imports or declarations else ""
        return ast.File(imports, declarations, doc)


def _without_brace(value: ast.Expr) -> ast.Expr:
    """Put an expression that begins with a brace in parentheses, where the brace would be that of a target or block."""
    first = value
    while True:
        inner = getattr(first, "left", None) or getattr(first, "function", None)
        if inner is None and isinstance(
            first, (ast.Member, ast.Index, ast.Slice, ast.Transpose, ast.Anchor, ast.AtLevel)
        ):
            inner = first.value
        if inner is None:
            break
        first = inner
    return ast.Paren(value) if isinstance(first, ast.GroupExpr) else value
