"""The syntax tree: one class per construct of ``docs/reference/language.md``, one-to-one with the text.

Every node is a frozen dataclass with tuples; ``span`` is ignored by comparison, so two texts that
differ only in layout give equal trees (the formatter relies on this).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nldsl.source import NO_SPAN, Span


def _span() -> Span:
    return field(default=NO_SPAN, compare=False, repr=False)


@dataclass(frozen=True)
class Node:
    """Base of all nodes. Every node has a span, a field of its own class so that it comes last."""

    if TYPE_CHECKING:

        @property
        def span(self) -> Span: ...


# ---------------------------------------------------------------- expressions


@dataclass(frozen=True)
class Expr(Node):
    pass


@dataclass(frozen=True)
class Number(Expr):
    text: str  # as written; ``value`` is exact for integers
    span: Span = _span()

    @property
    def value(self) -> int | float:
        return int(self.text) if self.text.isdigit() else float(self.text)


@dataclass(frozen=True)
class Text(Expr):
    value: str
    span: Span = _span()


@dataclass(frozen=True)
class Bool(Expr):
    value: bool
    span: Span = _span()


@dataclass(frozen=True)
class Name(Expr):
    id: str
    span: Span = _span()


@dataclass(frozen=True)
class Paren(Expr):
    """Kept so that the formatter and carets are faithful."""

    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class ListExpr(Expr):
    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class GroupExpr(Expr):
    """``{a, b}``"""

    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Unary(Expr):
    op: str  # "-" | "not"
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Binary(Expr):
    op: str  # + - * / // % @ ^ or and < <= > >= == !=   ("**" is stored as "^")
    left: Expr
    right: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Transpose(Expr):
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Member(Expr):
    value: Expr
    name: str
    span: Span = _span()


@dataclass(frozen=True)
class Index(Expr):
    value: Expr
    index: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Slice(Expr):
    value: Expr
    start: Expr | None
    stop: Expr | None
    span: Span = _span()


@dataclass(frozen=True)
class Argument(Node):
    value: Expr
    name: str | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Call(Expr):
    function: Expr
    arguments: tuple[Argument, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Comprehension(Expr):
    """``e for i in over``: as the single argument of a call, in parentheses or (``stack``) in brackets."""

    value: Expr
    variable: str
    over: Expr
    stack: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class IfExpr(Expr):
    condition: Expr
    then: Expr
    otherwise: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Anchor(Expr):
    """``value at start of period``"""

    value: Expr
    period: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Reduce(Expr):
    """``sum of g``: a stream brought to the clock of the enclosing ``every`` block."""

    kind: str
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class AtLevel(Expr):
    """``Block(...) at level``"""

    value: Expr
    level: str
    span: Span = _span()


# ---------------------------------------------------------------- types


@dataclass(frozen=True)
class TypeExpr(Node):
    pass


@dataclass(frozen=True)
class TensorType(TypeExpr):
    dims: tuple[Expr, ...]
    integer: bool = False
    any_shape: bool = False  # [...]
    span: Span = _span()


@dataclass(frozen=True)
class LikeType(TypeExpr):
    name: str
    span: Span = _span()


@dataclass(frozen=True)
class NamedType(TypeExpr):
    name: str  # dim int real bool text level fn memory block init
    span: Span = _span()


@dataclass(frozen=True)
class ListType(TypeExpr):
    item: str
    span: Span = _span()


# ---------------------------------------------------------------- statements


@dataclass(frozen=True)
class Statement(Node):
    pass


@dataclass(frozen=True)
class Target(Node):
    """``S``, ``m.S`` (path of two) or ``{a, b}`` (``group``)."""

    names: tuple[str, ...]
    group: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Bind(Statement):
    """``x = e``"""

    target: Target
    value: Expr
    type: TypeExpr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Assign(Statement):
    """``S <- e``"""

    target: Target
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Return(Statement):
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class ExprStatement(Statement):
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Repeat(Statement):
    count: Expr
    body: tuple[Statement, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Iterate(Statement):
    count: Expr
    body: tuple[Statement, ...]
    span: Span = _span()


@dataclass(frozen=True)
class For(Statement):
    variable: str
    over: Expr
    body: tuple[Statement, ...]
    span: Span = _span()


@dataclass(frozen=True)
class If(Statement):
    condition: Expr
    then: tuple[Statement, ...]
    otherwise: tuple[Statement, ...] = ()
    has_else: bool = False
    span: Span = _span()


@dataclass(frozen=True)
class Clock(Node):
    """``every 16 token``, ``every slow`` (``count`` is None)."""

    count: Expr | None
    base: str
    span: Span = _span()


@dataclass(frozen=True)
class Every(Statement):
    clock: Clock
    body: tuple[Statement, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Expect(Statement):
    """``expect e``, in examples only: ``e`` holds in every entry (``==`` on reals: to 1e-9)."""

    value: Expr
    span: Span = _span()


# ---------------------------------------------------------------- members of units (also statements)


@dataclass(frozen=True)
class Reset(Node):
    kind: str  # "per" | "every" | "at" | "never"
    base: str = ""  # per NAME / every .. NAME / at NAME
    count: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class State(Statement):
    names: tuple[str, ...]
    type: TypeExpr | None = None
    initial: Expr | None = None
    learned: bool = False
    shared: bool = False
    reset: Reset | None = None
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Parameter(Statement):
    """``param w: [m, n] = normal(0.1) at slow``"""

    names: tuple[str, ...]
    type: TypeExpr | None = None
    initial: Expr | None = None
    level: str | None = None
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Instance(Statement):
    """``memory a, b: heads of GatedDelta(dk, dv)``; ``keyword`` is ``memory`` or ``optimizer``."""

    keyword: str
    names: tuple[str, ...]
    template: Expr
    copies: Expr | None = None
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Input(Statement):
    name: str
    type: TypeExpr
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Level(Statement):
    name: str
    clock: Clock | None = None
    optimizer: Expr | None = None
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Minimize(Statement):
    value: Expr
    level: str | None = None
    optimizer: Expr | None = None
    span: Span = _span()


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Param(Node):
    """A parameter of a function, method or unit."""

    name: str
    type: TypeExpr | None = None
    default: Expr | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Declaration(Node):
    pass


@dataclass(frozen=True)
class Function(Declaration):
    """``fn``, ``objective`` or ``retention``. ``body`` is one ``Return`` when written with ``=``."""

    keyword: str
    name: str
    params: tuple[Param, ...]
    result: TypeExpr | None
    body: tuple[Statement, ...]
    short: bool = False  # written as ``= expr``
    doc: str = ""
    span: Span = _span()
    name_span: Span = _span()


@dataclass(frozen=True)
class Method(Statement):
    name: str
    params: tuple[Param, ...]
    result: TypeExpr | None
    clock: Clock | None
    body: tuple[Statement, ...]
    short: bool = False
    doc: str = ""
    span: Span = _span()
    name_span: Span = _span()


@dataclass(frozen=True)
class Unit(Declaration):
    """``memory``, ``block`` or ``model``; methods are among the members."""

    keyword: str
    name: str
    params: tuple[Param, ...]
    members: tuple[Statement, ...]
    doc: str = ""
    span: Span = _span()
    name_span: Span = _span()


@dataclass(frozen=True)
class Constant(Declaration):
    name: str
    value: Expr
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Example(Declaration):
    """``example "text" { ... }``: checked and run by the tests."""

    title: str
    body: tuple[Statement, ...]
    doc: str = ""
    span: Span = _span()


@dataclass(frozen=True)
class Import(Node):
    """``import "p" as n`` (``names`` empty) or ``from "p" import a as b``: pairs (name, alias or name)."""

    path: str
    names: tuple[tuple[str, str], ...] = ()
    alias: str | None = None
    span: Span = _span()
    path_span: Span = _span()


@dataclass(frozen=True)
class File(Node):
    imports: tuple[Import, ...]
    declarations: tuple[Declaration, ...]
    doc: str = ""  # leading ``##`` lines separated by an empty line from the first declaration
    span: Span = _span()
