"""The state of one elaboration: the program being collected and the place in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag, Related
from nldsl.dims import Dim
from nldsl.frontend import ast
from nldsl.ir.build import Builder
from nldsl.ir.ops import product
from nldsl.ir.program import Axis, InputDecl, MemoryInfo, ParamDecl
from nldsl.ir.types import BATCH, Clock, ShapeError, Type
from nldsl.limits import Limits
from nldsl.semantics.values import POISON, Cell, Instance, LevelValue, Poison, Tensor
from nldsl.source import NO_SPAN, Span


class TooMuchError(Exception):
    """A limit was reached; the diagnostic is already in the bag. Stops this elaboration, nothing else."""


@dataclass
class MinimizeInfo:
    level: str
    value: int
    optimizer: Any
    span: Span


@dataclass
class FastWeight:
    """A parameter on a level of tokens: a state that its level's optimizer changes within the sequence."""

    cell: Cell
    level: str
    instance: Instance


@dataclass
class Context:
    """``generic``: checking a declaration for all sizes; loops over unknown counts run once."""

    bag: DiagnosticBag
    limits: Limits = field(default_factory=Limits)
    generic: bool = False
    batched: bool = True

    axes: list[Axis] = field(default_factory=list)
    axis_names: list[str] = field(default_factory=list)
    inputs: dict[str, InputDecl] = field(default_factory=dict)
    params: dict[str, ParamDecl] = field(default_factory=dict)
    cells: dict[str, Cell] = field(default_factory=dict)
    memories: list[MemoryInfo] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    levels: dict[str, LevelValue] = field(default_factory=dict)
    level_optimizers: dict[str, Any] = field(default_factory=dict)
    minimized: list[MinimizeInfo] = field(default_factory=list)
    fast_weights: list[FastWeight] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    probes: dict[str, int] = field(default_factory=dict)
    live_gradients: set[Span] = field(default_factory=set)  # places of a `grad` that was not zero
    zero_gradients: dict[Span, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # and of those that were
    expectations: list[ast.Expect] = field(default_factory=list)
    delays: dict[Any, Cell] = field(default_factory=dict)  # buffers of past values, one per stream

    # the place: restored by the context managers below
    level: str | None = None  # level for new parameters
    around: LevelValue | None = None  # the level around a level of tokens: `(Block(x) at fast) at slow`
    anchor: int | None = None  # period of the enclosing ``at start of``
    scale: int = 1  # base ticks per ``tick`` of the enclosing method
    unrolled: tuple[str, ...] = ()  # rounds of ``repeat``/``for`` around this place, for names
    calls: tuple[Any, ...] = ()  # call sites around this place, for the identity of instances
    lanes: tuple[str, ...] = ()  # mapped axes around this place
    accumulators: list[Cell] = field(default_factory=list)  # of the enclosing ``every`` block
    outer_guard: Clock | None = None  # the clock around that block
    outer_scope: Any = None  # and the scope around it
    outer_place: dict[str, Any] = field(default_factory=dict)  # and these four, of that scope
    every_text: str = ""  # and its clock, as written
    pure: str = ""  # set to "fn"/"objective"/... inside a function
    active: tuple[Any, ...] = ()  # functions and methods being inlined, to refuse recursion
    guard_free: bool = False
    in_minimize: bool = False
    expanded: int = 0
    state_bytes: int = 0
    depth: int = 0

    def __post_init__(self) -> None:
        self.body = Builder(self.axis_names, limit=self.limits.ir_nodes)
        self.init = Builder(self.axis_names, limit=self.limits.ir_nodes)
        self.builder = self.body

    # ------------------------------------------------------------ diagnostics

    def error(
        self,
        code: str,
        span: Span,
        message: str,
        *,
        label: str = "",
        related: tuple[Related, ...] = (),
        notes: tuple[str, ...] = (),
        hints: tuple[str, ...] = (),
    ) -> Poison:
        """Add a diagnostic; the value of whatever failed is poison, which stays silent from here on."""
        self.bag.error(code, span, message, label=label, related=related, notes=notes, hints=hints)
        return POISON

    def count_expansion(self, amount: int, span: Span) -> None:
        self.expanded += amount
        if self.expanded > self.limits.expansion:
            self.error(
                "NL0010",
                span,
                f"the program unrolls to more than {self.limits.expansion} statements",
                hints=("fewer rounds of `repeat`, `iterate` or `for`",),
            )
            raise TooMuchError

    # ------------------------------------------------------------ values

    def emit(
        self,
        op: str,
        *args: Tensor,
        span: Span = NO_SPAN,
        name: str = "",
        code: str = "NL0301",
        hints: tuple[str, ...] = (),
        **attrs: Any,
    ) -> Any:
        """One instruction on tensors of the current body; a shape error becomes a diagnostic."""
        for arg in args:
            if isinstance(arg, Poison):
                return POISON
            if arg.builder is not self.builder:
                return self.error(
                    "NL0213",
                    span,
                    "an initial value is computed before the first token: it cannot use a value of the tick",
                    hints=("initial values may use parameters, other states and numbers",),
                )
        try:
            value = self.builder.emit(op, *(a.id for a in args), span=span, name=name, **attrs)
        except ShapeError as problem:
            return self.error(code, span, str(problem), hints=hints)
        except OverflowError:
            self.error("NL0010", span, f"the program has more than {self.limits.ir_nodes} operations")
            raise TooMuchError from None
        return Tensor(value, self.builder)

    def const(self, value: float | int, span: Span = NO_SPAN) -> Tensor:
        return Tensor(self.builder.const(value, span), self.builder)

    def level_name(self, level: str | None) -> str:
        """The level that trains a learned initial value: never a level of tokens, which only changes it."""
        known = self.levels.get(level or "")
        return "" if known is None or known.base == "token" else known.name

    def new_axis(self, name: str, size: Dim) -> str:
        taken, candidate, n = set(self.axis_names) | {BATCH, "time"}, name, 2
        while candidate in taken:
            candidate, n = f"{name}_{n}", n + 1
        self.axis_names.append(candidate)
        self.axes.append(Axis(candidate, size))
        return candidate

    def state_type(self, shape: tuple[Dim, ...], axes: tuple[str, ...], shared: bool, kind: str = "real") -> Type:
        names = axes if shared or not self.batched else (BATCH, *axes)
        return Type(shape, self.body.order(names), kind)

    def add_cell(self, cell: Cell) -> Cell:
        """Register a state and make its leaf in the body."""
        name, n = cell.name, 2
        while name in self.cells:
            name, n = f"{cell.name}_{n}", n + 1
        cell.name = name
        self.cells[name] = cell
        entries = product(
            (*cell.type.shape, *(a.size for a in self.axes if a.name in cell.type.axes and a.size is not None))
        )
        self.state_bytes += 8 * entries if isinstance(entries, int) else 0
        if self.state_bytes > self.limits.state_bytes:
            self.error(
                "NL0012",
                cell.span,
                f"the states of one sequence take more than {self.limits.state_bytes >> 30} GiB",
                hints=("smaller dimensions, or fewer copies",),
            )
            raise TooMuchError
        cell.start = self.leaf("state", cell.type, name.rpartition(".")[2], cell.span, state=name)
        cell.current = cell.start
        return cell

    def leaf(self, op: str, type: Type, name: str, span: Span, **attrs: Any) -> int:
        """A leaf of the body, outside every guard."""
        guard, self.body.guard = self.body.guard, None
        try:
            return self.body.leaf(op, type, name=name, span=span, **attrs)
        finally:
            self.body.guard = guard

    # ------------------------------------------------------------ places

    @contextlib.contextmanager
    def place(self, **changes: Any) -> Iterator[None]:
        """Change attributes of the place for the duration of a block."""
        before = {name: getattr(self, name) for name in changes}
        for name, value in changes.items():
            setattr(self, name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(self, name, value)

    @contextlib.contextmanager
    def guarded(self, clock: Clock | None) -> Iterator[None]:
        before, self.body.guard = self.body.guard, clock
        try:
            yield
        finally:
            self.body.guard = before

    def active_owner(self) -> str:
        """The instance whose method is being inlined."""
        for entry in reversed(self.active):
            if isinstance(entry, tuple):
                return str(entry[0])
        return ""

    @property
    def guard(self) -> Clock | None:
        return self.body.guard

    @contextlib.contextmanager
    def nested(self, span: Span) -> Iterator[None]:
        """Guards against runaway call depth."""
        self.depth += 1
        if self.depth > self.limits.call_depth:
            self.depth = 0
            self.error("NL0011", span, f"calls nest deeper than {self.limits.call_depth}")
            raise TooMuchError
        try:
            yield
        finally:
            self.depth -= 1


def path_key(node: Any) -> tuple[str, int, int]:
    """What identifies a place in the text."""
    span: Span = node.span
    return span.file.path, span.start, span.end


__all__ = ["Context", "FastWeight", "MinimizeInfo", "TooMuchError", "ast", "path_key"]
