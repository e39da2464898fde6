"""MLIR as text: a function under construction, its constants, its loops, and what is known in each of its blocks.

Text needs no bindings, so that ``nldsl emit --stage mlir`` works without the wheel. Values are *scalars* (width 0) or
*vectors*; their element is real (``f``), an integer (``i``, i32) or a condition (``b``, i1).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

MEMREF = {"f32": "memref<?xf32>", "f64": "memref<?xf64>", "i64": "memref<?xi64>"}
# Of a function that is called: for the inliners of MLIR and of LLVM, and so that a call is direct.
ATTRIBUTES = "no_inline, llvm.no_inline, llvm.linkage = #llvm.linkage<internal>"


@dataclass(frozen=True)
class Val:
    """An SSA value: its name, its element, its width (0: a scalar)."""

    name: str
    kind: str = "f"
    width: int = 0


@dataclass(frozen=True)
class Ix:
    """A position: a number plus multiples of SSA indices."""

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    def __add__(self, other: Ix | int) -> Ix:
        if isinstance(other, int):
            return Ix(self.const + other, self.terms)
        found = dict(self.terms)
        for name, factor in other.terms:
            found[name] = found.get(name, 0) + factor
        return Ix(self.const + other.const, tuple((n, f) for n, f in found.items() if f))

    def __mul__(self, factor: int) -> Ix:
        return Ix(self.const * factor, tuple((n, f * factor) for n, f in self.terms) if factor else ())


def at(name: str) -> Ix:
    """The position that an SSA index holds."""
    return Ix(0, ((name, 1),))


@dataclass
class Function:
    """The text of one function. ``real`` is f32 or f64; ``lanes`` how many of them the widest vectors have.

    Constants stand at the top. ``known`` is a stack with what each open block has computed, so that nothing is
    computed twice in a block or in one inside it.
    """

    name: str
    real: str
    lanes: int
    lines: list[str] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    helpers: dict[str, str] = field(default_factory=dict)  # functions that its code calls
    known: list[dict[Hashable, Val | str]] = field(default_factory=lambda: [{}])
    depth: int = 1
    count: int = 0
    location: str = ""
    touched: Callable[[str], None] = lambda buffer: None  # told of every access to memory

    # -- lines

    def fresh(self, hint: str = "") -> str:
        self.count += 1
        return f"%{hint}{self.count}"

    def line(self, text: str) -> None:
        self.lines.append("  " * self.depth + text)

    def op(self, text: str, hint: str = "") -> str:
        name = self.fresh(hint)
        self.line(f"{name} = {text}")
        return name

    def once(self, key: Hashable, make: Callable[[], Val]) -> Val:
        """A value of this block, made where it is needed first."""
        for block in reversed(self.known):
            if key in block:
                found = block[key]
                assert isinstance(found, Val)
                return found
        made = self.known[-1][key] = make()
        return made

    def _once(self, text: str) -> str:
        for block in reversed(self.known):
            if text in block:
                found = block[text]
                assert isinstance(found, str)
                return found
        made = self.known[-1][text] = self.op(text)
        return made

    @contextmanager
    def fence(self) -> Iterator[None]:
        """What is loaded inside is not known outside: memory changes between steps."""
        self.known.append({})
        yield
        self.known.pop()

    # -- constants

    def _constant(self, text: str, hint: str) -> str:
        if text not in self.constants:
            self.constants[text] = f"%{hint}_{len(self.constants)}"
        return self.constants[text]

    def index(self, value: int) -> str:
        name = f"%c{value}" if value >= 0 else f"%cm{-value}"
        self.constants[f"arith.constant {value} : index"] = name
        return name

    def element(self, kind: str) -> str:
        return {"f": self.real, "i": "i32", "b": "i1"}[kind]

    def type(self, kind: str, width: int) -> str:
        return f"vector<{width}x{self.element(kind)}>" if width else self.element(kind)

    def number(self, value: float, width: int = 0) -> Val:
        """A real constant, exact to the last bit."""
        text = repr(float(value))
        if text in ("inf", "-inf", "nan") or "e" in text or "." not in text:
            code, size = (">f", 8) if self.real == "f32" else (">d", 16)
            try:
                bits = struct.pack(code, float(value))
            except OverflowError:
                bits = struct.pack(code, float("inf") if value > 0 else float("-inf"))
            text = "0x" + bits.hex().upper().rjust(size, "0")
        shown = f"dense<{text}>" if width else text
        return Val(self._constant(f"arith.constant {shown} : {self.type('f', width)}", "f"), "f", width)

    def integer(self, value: int, width: int = 0) -> Val:
        shown = f"dense<{value}>" if width else str(value)
        return Val(self._constant(f"arith.constant {shown} : {self.type('i', width)}", "i"), "i", width)

    def truth(self, value: bool) -> Val:
        return Val(self._constant(f"arith.constant {'true' if value else 'false'}", "b"), "b", 0)

    def steps(self, width: int) -> Val:
        """0, 1, 2, .. as integers."""
        text = ", ".join(map(str, range(width)))
        return Val(self._constant(f"arith.constant dense<[{text}]> : vector<{width}xi32>", "i"), "i", width)

    # -- positions

    def position(self, place: Ix) -> str:
        """A position as an SSA index: outer loops first, the number last, so that parts are shared."""
        total = ""
        for name, factor in sorted(place.terms, key=lambda t: int("".join(c for c in t[0] if c.isdigit()) or "0")):
            term = name if factor == 1 else self._once(f"arith.muli {name}, {self.index(factor)} : index")
            total = self._once(f"arith.addi {total}, {term} : index") if total else term
        if not total:
            return self.index(place.const)
        if place.const:
            total = self._once(f"arith.addi {total}, {self.index(place.const)} : index")
        return total

    def as_integer(self, place: Ix) -> Val:
        name = self.position(place)
        return Val(self._once(f"arith.index_cast {name} : index to i32"), "i")

    # -- values

    def same_width(self, values: Sequence[Val]) -> list[Val]:
        """Scalars stretched to the width of the vectors among them."""
        width = max(v.width for v in values)
        return [self.spread(v, width) for v in values]

    def spread(self, value: Val, width: int) -> Val:
        if value.width == width:
            return value
        assert value.width == 0, "a vector of another width"
        text = f"vector.broadcast {value.name} : {self.type(value.kind, 0)} to {self.type(value.kind, width)}"
        return Val(self._once(text), value.kind, width)

    def apply(self, op: str, *values: Val, kind: str = "", suffix: str = "") -> Val:
        """``op`` on values of one width; the type of the first is printed."""
        given = self.same_width(values)
        names = ", ".join(v.name for v in given)
        text = f"{op} {names}{suffix} : {self.type(given[0].kind, given[0].width)}"
        return Val(self._once(text), kind or given[0].kind, given[0].width)

    def select(self, condition: Val, yes: Val, no: Val) -> Val:
        yes, no = self.same_width([yes, no])
        if condition.width and not yes.width:
            yes, no = self.spread(yes, condition.width), self.spread(no, condition.width)
        text = f"arith.select {condition.name}, {yes.name}, {no.name} : "
        if condition.width:
            text += f"{self.type('b', condition.width)}, "
        return Val(self._once(text + self.type(yes.kind, yes.width)), yes.kind, yes.width)

    def cast(self, value: Val, kind: str) -> Val:
        """The same numbers as another kind of element."""
        if value.kind == kind:
            return value
        if kind == "b":
            zero = self.number(0.0, value.width) if value.kind == "f" else self.integer(0, value.width)
            op = "arith.cmpf une," if value.kind == "f" else "arith.cmpi ne,"
            return self.apply(op, value, zero, kind="b")
        op = {"fi": "arith.fptosi", "if": "arith.sitofp", "bf": "arith.uitofp", "bi": "arith.extui"}[value.kind + kind]
        text = f"{op} {value.name} : {self.type(value.kind, value.width)} to {self.type(kind, value.width)}"
        return Val(self._once(text), kind, value.width)

    def join(self, values: Sequence[Val]) -> Val:
        """A vector of scalars."""
        names = ", ".join(v.name for v in values)
        kind = values[0].kind
        return Val(self.op(f"vector.from_elements {names} : {self.type(kind, len(values))}"), kind, len(values))

    # -- blocks

    @contextmanager
    def loop(self, start: str, stop: str, step: int, hint: str = "i") -> Iterator[str]:
        """``for`` without results; gives the index."""
        name = self.fresh(hint)
        self.line(f"scf.for {name} = {start} to {stop} step {self.index(step)} {{")
        with self._block():
            yield name
        self.line("}" + self.location)

    def reduce(
        self, stop: str, step: int, start: Sequence[Val], body: Callable[[str, list[Val]], list[Val]], first: str = ""
    ) -> list[Val]:
        """``for`` that carries values; ``body`` gets the index and the values, and gives the new ones."""
        index, given, result = self.fresh("k"), [self.fresh("s") for _ in start], self.fresh("r")
        types = ", ".join(self.type(v.kind, v.width) for v in start)
        pairs = ", ".join(f"{n} = {v.name}" for n, v in zip(given, start, strict=True))
        several = f":{len(start)}" if len(start) > 1 else ""
        head = f"{result}{several} = scf.for {index} = {first or self.index(0)} to {stop}"
        self.line(f"{head} step {self.index(step)} iter_args({pairs}) -> ({types}) {{")
        with self._block():
            new = body(index, [Val(n, v.kind, v.width) for n, v in zip(given, start, strict=True)])
            self.line(f"scf.yield {', '.join(v.name for v in new)} : {types}")
        self.line("}" + self.location)
        names = [result] if len(start) == 1 else [f"{result}#{n}" for n in range(len(start))]
        return [Val(n, v.kind, v.width) for n, v in zip(names, start, strict=True)]

    @contextmanager
    def when(self, condition: Val) -> Iterator[None]:
        self.line(f"scf.if {condition.name} {{")
        with self._block():
            yield
        self.line("}" + self.location)

    @contextmanager
    def _block(self) -> Iterator[None]:
        self.depth += 1
        with self.fence():
            yield
        self.depth -= 1
