"""A body before it becomes kernels: systems as products with inverses, concatenations taken apart where they end.

A system with several right sides side by side becomes one inverse and a product for each; the inverse is a value of
its own, which one kernel may leave to others. ``triangular_inverse`` is an operation of bodies for kernels alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.dims import Dim
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

INVERSE = "triangular_inverse"


@dataclass
class Apart:
    """``body`` is the new one, ``where`` has the place of each old value in it. ``order`` is that of all axes."""

    order: Sequence[str]
    body: list[Instr] = field(default_factory=list)
    where: dict[int, int] = field(default_factory=dict)
    pieces: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    inverses: dict[int, int] = field(default_factory=dict)

    def add(self, instr: Instr) -> int:
        self.body.append(instr)
        return len(self.body) - 1

    def take(self, old: Instr) -> int:
        """The value of an instruction of the old body, whose operands have been taken."""
        args = tuple(self.where[a] for a in old.args)
        instr = replace(old, args=args)
        if instr.op == "reshape" and self.body[args[0]].type == instr.type:
            return args[0]
        if instr.op == "slice":
            found = self._slice(instr)
            return self.add(instr) if found is None else found
        if instr.op == "solve_triangular":
            return self._solve(instr)
        if instr.op == "einsum" and len(args) == 2:
            found = self._product(instr)
            return self.add(instr) if found is None else found
        value = self.add(instr)
        if instr.op == "concat":
            self._remember(value, instr.attr("dim"), args)
        return value

    def _remember(self, value: int, dim: int, pieces: tuple[int, ...]) -> None:
        """Note of what a concatenation consists, where its pieces have all of its axes."""
        if all(self.body[p].type.axes == self.body[value].type.axes for p in pieces):
            flat: list[int] = []
            for piece in pieces:
                inner = self.pieces.get(piece)
                flat += inner[1] if inner and inner[0] == dim else [piece]
            self.pieces[value] = dim, tuple(flat)

    def _size(self, value: int, dim: int) -> Dim:
        return self.body[value].type.shape[dim]

    def _slice(self, instr: Instr) -> int | None:
        """The piece that a slice is, if it is one."""
        dim, start, stop = (instr.attr(name) for name in ("dim", "start", "stop"))
        own, pieces = self.pieces.get(instr.args[0], (-1, ()))
        at: Dim = 0
        for piece in pieces if own == dim else ():
            end = at + self._size(piece, dim)
            if at == start and end == stop and self.body[piece].type == instr.type:
                return piece
            at = end
        return None

    def _solve(self, instr: Instr) -> int:
        matrix, right = instr.args
        attrs = dict(instr.attrs)
        if not attrs.get("lower", True):
            raise UnsupportedError("an upper triangular system")
        if matrix not in self.inverses:
            type = self.body[matrix].type
            self.inverses[matrix] = self.add(Instr(INVERSE, (matrix,), (), type, instr.guard, span=instr.span))
        letters = "st" if attrs.get("transposed", False) else "ts"
        dim, pieces = self.pieces.get(right, (-1, ()))
        if dim != 1:
            return self._applied(instr, self.inverses[matrix], letters, right)
        parts = tuple(self._applied(instr, self.inverses[matrix], letters, p) for p in pieces)
        value = self.add(Instr("concat", parts, (("dim", 1),), instr.type, instr.guard, span=instr.span))
        self._remember(value, 1, parts)
        return value

    def _applied(self, instr: Instr, inverse: int, letters: str, right: int) -> int:
        type = self.body[right].type
        axes = {*self.body[inverse].type.axes, *type.axes}
        rest = "c" if len(type.shape) == 2 else ""
        spec = f"{letters},s{rest}->t{rest}"
        own = Type(type.shape, tuple(sorted(axes, key=self.order.index)))
        return self.add(Instr("einsum", (inverse, right), (("spec", spec),), own, instr.guard, instr.name, instr.span))

    def _product(self, instr: Instr) -> int | None:
        """A product that sums over concatenated entries as the sum of the products of the pieces."""
        one, two = instr.args
        if one not in self.pieces or two not in self.pieces:
            return None
        (left, right), output = split_spec(instr.attr("spec"))
        (da, a), (db, b) = self.pieces[one], self.pieces[two]
        label = left[da]
        sizes = [self._size(p, da) for p in a], [self._size(p, db) for p in b]
        if right[db] != label or label in output or sizes[0] != sizes[1]:
            return None
        total = None
        for p, q in zip(a, b, strict=True):
            part = self.add(replace(instr, args=(p, q)))
            total = part if total is None else self.add(replace(instr, op="add", args=(total, part), attrs=()))
        return total


def taken_apart(body: Sequence[Instr], order: Sequence[str]) -> tuple[tuple[Instr, ...], Mapping[int, int]]:
    """The new body, and where the values of the old one are in it. Raises UnsupportedError for a system that has no
    form in a kernel."""
    apart = Apart(order)
    for value, instr in enumerate(body):
        apart.where[value] = apart.take(instr)
    return tuple(apart.body), apart.where
