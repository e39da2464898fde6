"""What names and expressions stand for while a program is elaborated.

Static values are plain Python: ``int``, ``float``, ``bool``, ``str``, ``Poly`` (a symbolic size) and ``Unknown`` (a
static value that a generic check does not know). Everything else is one of the classes below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nldsl.dims import Dim, Poly
from nldsl.frontend import ast
from nldsl.ir.build import Builder
from nldsl.ir.program import Initializer, Reset
from nldsl.ir.types import Clock, Type
from nldsl.source import Span

if TYPE_CHECKING:
    from nldsl.semantics.scope import Scope


@dataclass(frozen=True)
class Poison:
    """The value of an expression that already caused a diagnostic: using it causes no second one."""


POISON = Poison()


@dataclass(frozen=True)
class Unknown:
    """A static value of this kind (``real``, ``int``, ``bool``, ``text``) that a generic check does not know."""

    kind: str


@dataclass(frozen=True)
class Tensor:
    """A value of the tick (or, with the init builder, of the reset)."""

    id: int
    builder: Builder = field(compare=False, repr=False)

    @property
    def type(self) -> Type:
        return self.builder.type(self.id)


@dataclass(frozen=True)
class Group:
    items: tuple[Any, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListValue:
    """``count``, in a generic check: the list has this symbolic length, and ``items`` holds one that stands for all."""

    items: tuple[Any, ...]
    count: Any = None


@dataclass
class Cell:
    """One state tensor. ``current`` is its value at this point of the tick."""

    name: str
    type: Type
    init: int
    owner: str
    span: Span
    reset: Reset = Reset()
    shared: bool = False
    hidden: bool = False
    current: int = -1
    start: int = -1  # the leaf: the value at the beginning of the tick
    clock: Clock | None = None
    written: bool = False


@dataclass(frozen=True)
class StateRef:
    """A state by name: a tree of cells (a group's states are several cells)."""

    name: str
    cells: Any  # Cell | tuple of trees
    names: tuple[str, ...] = ()

    def leaves(self) -> list[Cell]:
        return [self.cells] if isinstance(self.cells, Cell) else [c for ref in self.cells for c in ref.leaves()]


@dataclass(frozen=True)
class FunctionValue:
    decl: ast.Function
    scope: Scope = field(compare=False, repr=False)


@dataclass(frozen=True)
class Builtin:
    name: str
    apply: Callable[..., Any] = field(compare=False, repr=False)


@dataclass(frozen=True)
class Template:
    """A memory, block or model; ``bound`` are the arguments given so far: ``GatedDelta(dk, dv)`` is no instance yet."""

    decl: ast.Unit
    scope: Scope = field(compare=False, repr=False)
    bound: tuple[tuple[str, Any], ...] = ()
    level: str | None = None


@dataclass
class Instance:
    """A memory or block with its own states and parameters."""

    path: str
    decl: ast.Unit
    scope: Scope
    axes: tuple[str, ...]  # mapped axes of everything it owns, without batch
    own_axis: str | None = None
    copies: Dim | None = None
    level: str | None = None
    span: Span | None = None
    cells: list[Cell] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    children: list[Instance] = field(default_factory=list)
    declared: dict[Any, Any] = field(default_factory=dict)
    deferred: dict[str, ast.State] = field(default_factory=dict)  # ``like g`` states before their first use
    ready: bool = False


@dataclass(frozen=True)
class BoundMethod:
    instance: Instance
    method: ast.Method


@dataclass(frozen=True)
class LevelValue:
    """``base``: token | step | tick."""

    name: str
    base: str
    period: int
    span: Span = field(compare=False, repr=False)


@dataclass(frozen=True)
class InitValue:
    initializer: Initializer


@dataclass(frozen=True)
class WindowIndex:
    """``i`` of ``for i in window(n)``: position in the window, a mapped axis."""

    axis: str
    size: Dim


@dataclass(frozen=True)
class WindowRange:
    size: Dim


@dataclass(frozen=True)
class Namespace:
    scope: Scope = field(compare=False, repr=False)
    name: str = ""


Value = Any


def is_static_number(value: Value) -> bool:
    return isinstance(value, (int, float, Poly)) or (
        isinstance(value, Unknown) and value.kind in ("real", "int", "bool")
    )


def describe(value: Value) -> str:
    """What a value is, in the user's words."""
    if isinstance(value, bool):
        return "a bool"
    if isinstance(value, (int, float)):
        return f"the number {value}"
    if isinstance(value, Poly):
        return f"the size {value}"
    if isinstance(value, str):
        return f'the text "{value[:40]}"'
    if isinstance(value, Unknown):
        return f"a {value.kind}"
    if isinstance(value, Tensor):
        return f"a tensor {show_type(value.type)}"
    if isinstance(value, StateRef):
        return f"the state `{value.name}`"
    if isinstance(value, Group):
        return f"a group of {len(value.items)}"
    if isinstance(value, Template):
        return f"the {value.decl.keyword} `{value.decl.name}`"
    if isinstance(value, Instance):
        return f"an instance of `{value.decl.name}`"
    if isinstance(value, FunctionValue):
        return f"the {value.decl.keyword} `{value.decl.name}`"
    names: dict[type, str] = {
        ListValue: "a list",
        BoundMethod: "a method",
        Builtin: "a built-in function",
        LevelValue: "a level",
        InitValue: "an initializer",
        WindowIndex: "a window position",
        WindowRange: "a window",
        Namespace: "an imported file",
    }
    return names.get(type(value), "nothing")


def article(noun: str) -> str:
    """The noun with its article."""
    return ("an " if noun[:1] in "aeiou" else "a ") + noun


def show_type(type: Type) -> str:
    """The shape as a user writes it; mapped axes are the compiler's business."""
    return ("int" if type.kind == "int" else "") + "[" + ", ".join(str(d) for d in type.shape) + "]"
