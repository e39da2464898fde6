"""Names and what they stand for.

A scope is lexical; loops bind in the scope around them, ``every`` blocks open a new one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nldsl.semantics.values import Value
from nldsl.source import NO_SPAN, Span

if TYPE_CHECKING:
    from nldsl.ir.types import Clock
    from nldsl.semantics.values import Instance


@dataclass
class Binding:
    value: Value
    span: Span = NO_SPAN
    clock: Clock | None = None  # the guard under which the name was bound
    argument: bool = False  # of a call: what it means inside does not depend on what was given


@dataclass
class Scope:
    """``instance``: the memory or block whose members are visible here."""

    parent: Scope | None = None
    instance: Instance | None = None
    bindings: dict[str, Binding] = field(default_factory=dict)
    slower: bool = False  # the body of an ``every`` block

    def child(self, instance: Instance | None = None, slower: bool = False) -> Scope:
        return Scope(self, instance or self.instance, slower=slower)

    def bind(
        self, name: str, value: Value, span: Span = NO_SPAN, clock: Clock | None = None, argument: bool = False
    ) -> None:
        self.bindings[name] = Binding(value, span, clock, argument)

    def find(self, name: str) -> Binding | None:
        scope: Scope | None = self
        while scope is not None:
            binding = scope.bindings.get(name)
            if binding is not None:
                return binding
            scope = scope.parent
        return None

    def crosses(self, name: str) -> bool:
        """Whether the name is bound outside the ``every`` block that uses it."""
        scope: Scope | None = self
        while scope is not None and name not in scope.bindings:
            if scope.slower:
                return True
            scope = scope.parent
        return False

    def holder(self, name: str) -> Scope | None:
        """The scope that binds the name."""
        scope: Scope | None = self
        while scope is not None and name not in scope.bindings:
            scope = scope.parent
        return scope

    def names(self) -> list[str]:
        found: list[str] = []
        scope: Scope | None = self
        while scope is not None:
            found.extend(scope.bindings)
            scope = scope.parent
        return found
