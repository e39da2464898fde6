"""Parameters of more than two dims as matrices: [out, in, height, width] as [out, in * height * width].

Kernels of an update know rows and columns. Where all that a program does treats the first dims of a parameter alike,
and the others alike (a sum over all of them, a factor for each of the first), they are one dim each: the entries lie
in memory in the same order. Which of the dims are rows is found by trying.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.ir import ops
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import Type

ROWS, COLUMNS = 0, 1
LETTERS = {ROWS: "r", COLUMNS: "c"}
Sides = tuple[int, ...]  # of each dim of a value, whether it is of the rows or of the columns


def collapsed(program: Program, live: set[int]) -> Program:
    """The program with values of at most two dims; as it is where it has no others. Of values that are not ``live``
    nothing is changed. Raises UnsupportedError where a dim would have to be both of the rows and of the columns."""
    if all(len(program.body[v].type.shape) <= 2 for v in live):
        return program
    whole = next((i.type.shape for i in program.inputs if i.name == "g"), ())
    for first in range(1, len(whole)):
        try:
            return _Collapse(program, live, first).run()
        except UnsupportedError:
            continue
    raise UnsupportedError("values of more than two dims")


class _Collapse:
    """One way to do it: the ``first`` dims of the gradient are the rows."""

    def __init__(self, program: Program, live: set[int], first: int) -> None:
        self.program, self.live = program, live
        self.whole = next(_sizes(i.type) for i in program.inputs if i.name == "g")
        self.parts = {ROWS: self.whole[:first], COLUMNS: self.whole[first:]}
        self.places: Sides = (ROWS,) * first + (COLUMNS,) * (len(self.whole) - first)
        self.sides: dict[int, Sides] = {}

    def run(self) -> Program:
        body = list(self.program.body)
        for value in sorted(self.live):
            body[value] = self._instr(value, body[value])
        states = tuple(
            replace(s, type=replace(s.type, shape=self._shape(_sizes(s.type), self._leaf(_sizes(s.type)))))
            for s in self.program.states
        )
        return replace(self.program, body=tuple(body), states=states)

    # ------------------------------------------------------------ which side the dims of a value are of

    def _instr(self, value: int, instr: Instr) -> Instr:
        own = _sizes(instr.type)
        self.sides[value] = self._sides(instr, own)
        attrs = dict(instr.attrs)
        if instr.op in ("sum", "max"):
            attrs["dims"] = self._gone(instr)
        elif instr.op == "einsum":
            attrs["spec"] = self._spec(instr)
        shape = self._shape(own, self.sides[value])
        if "shape" in attrs:
            attrs["shape"] = shape
        return replace(instr, attrs=tuple(attrs.items()), type=replace(instr.type, shape=shape))

    def _sides(self, instr: Instr, own: tuple[int, ...]) -> Sides:
        if not own:
            return ()
        if instr.op in ("input", "state"):
            return self._leaf(own)
        if instr.op in ("sum", "max"):
            return tuple(x for d, x in enumerate(self.sides[instr.args[0]]) if d not in instr.attr("dims"))
        if instr.op == "einsum":
            known = self._letters(instr)
            return tuple(known[x] for x in ops.split_spec(instr.attr("spec"))[1])
        if instr.op == "reshape":
            return self._reshaped(instr, own)
        if instr.op in ops.POINTWISE or instr.op in ("when", "broadcast", "stop_grad", "fixed"):
            return self._stretched(instr, own)
        raise UnsupportedError(f"`{instr.op}` of tensors")

    def _leaf(self, own: tuple[int, ...]) -> Sides:
        """Of a gradient, a weight or a state: like the gradient, or like its rows, or like its columns."""
        if len(own) == len(self.whole) or not own:
            return self.places[: len(own)]
        for side, part in self.parts.items():
            if own == part:
                return (side,) * len(own)
        raise UnsupportedError("a state of another shape")

    def _reshaped(self, instr: Instr, own: tuple[int, ...]) -> Sides:
        (arg,) = instr.args
        old = [(n, x) for n, x in zip(_sizes(self.program.body[arg].type), self.sides[arg], strict=True) if n != 1]
        if len(own) == len(self.whole):
            found = self.places
        elif 1 not in own:
            found = tuple(x for _, x in old)
        else:
            raise UnsupportedError("`reshape` that mixes dims")
        if [(n, x) for n, x in zip(own, found, strict=False) if n != 1] != old or len(found) != len(own):
            raise UnsupportedError("`reshape` that mixes dims")
        return found

    def _stretched(self, instr: Instr, own: tuple[int, ...]) -> Sides:
        """Entry by entry: dims are aligned from the last one."""
        widest = max(instr.args, key=lambda a: len(self.sides[a]))
        found = self.places if len(own) == len(self.whole) else self.sides[widest]
        if len(found) != len(own):
            raise UnsupportedError("`broadcast` to other dims")
        for arg in instr.args:
            sizes, sides = _sizes(self.program.body[arg].type), self.sides[arg]
            behind = found[len(found) - len(sides) :]
            if any(n != 1 and x != y for n, x, y in zip(sizes, sides, behind, strict=True)):
                raise UnsupportedError("rows beside columns")
        return found

    def _letters(self, instr: Instr) -> dict[str, int]:
        known: dict[str, int] = {}
        for word, arg in zip(ops.split_spec(instr.attr("spec"))[0], instr.args, strict=True):
            for letter, side in zip(word, self.sides[arg], strict=True):
                if known.setdefault(letter, side) != side or word.count(letter) > 1:
                    raise UnsupportedError("rows beside columns")
        return known

    # ------------------------------------------------------------ the same of two dims

    def _shape(self, own: tuple[int, ...], sides: Sides) -> tuple[int, ...]:
        """All of the rows or one, then all of the columns or one."""
        if list(sides) != sorted(sides):
            raise UnsupportedError("columns before rows")
        found = []
        for side in dict.fromkeys(sides):
            sizes = [n for n, x in zip(own, sides, strict=True) if x == side and n != 1]
            if sizes and sizes != [n for n in self.parts[side] if n != 1]:
                raise UnsupportedError("a part of the rows or of the columns")
            found.append(prod(sizes))
        return tuple(found)

    def _gone(self, instr: Instr) -> tuple[int, ...]:
        """The dims that a sum is over: sides of which nothing is left."""
        sides = self.sides[instr.args[0]]
        left = [x for d, x in enumerate(sides) if d not in instr.attr("dims")]
        return tuple(n for n, side in enumerate(dict.fromkeys(sides)) if side not in left)

    def _spec(self, instr: Instr) -> str:
        known = self._letters(instr)
        inputs, output = ops.split_spec(instr.attr("spec"))
        for side in (ROWS, COLUMNS):
            found = {tuple(x for x in word if known[x] == side) for word in (*inputs, output)} - {()}
            if len(found) > 1:
                raise UnsupportedError("a product of parts of the rows or of the columns")
        words = ["".join(LETTERS[x] for x in dict.fromkeys(known[x] for x in word)) for word in (*inputs, output)]
        return f"{','.join(words[:-1])}->{words[-1]}"


def _sizes(type: Type) -> tuple[int, ...]:
    sizes: list[Any] = list(type.shape)
    if any(not isinstance(n, int) for n in sizes):
        raise UnsupportedError("values whose sizes are not known")
    return tuple(sizes)
