"""The operations of a kernel as data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

WORD = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?!\w|=[^=])")  # no attributes, no names of arguments


@dataclass
class Op:
    """``target = text``, or only ``text`` where it is done for its effect. ``kind`` is for readers of the list: index,
    load, store, dot, scan, solve, reduce, gather, pointwise, view, loop."""

    kind: str
    text: str
    target: str = ""
    keep: bool = False
    inner: Block | None = None
    note: str = ""

    def words(self) -> list[str]:
        """The names in the text, as often as they stand there."""
        return WORD.findall(self.text)

    def uses(self) -> set[str]:
        """The names in the text."""
        return set(self.words())


@dataclass
class Block:
    """Operations in order. A name that an outer block knows is known in the inner one."""

    outer: Block | None = None
    ops: list[Op] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    def find(self, text: str) -> str | None:
        found = self.known.get(text)
        return found if found or self.outer is None else self.outer.find(text)

    def walk(self) -> Iterator[Op]:
        for op in self.ops:
            yield op
            if op.inner is not None:
                yield from op.inner.walk()
