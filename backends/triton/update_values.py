"""What the values of an update are to kernels: which need a launch of their own, and where an entry of the others is.

An entry of a value is named by indices, one for each of its dims: ``i`` and ``j`` of a tile of results, ``k`` along a
sum, None in a dim of size 1. Most operations only say which entries of their operands an entry needs (``operands``).
Products of matrices and sums over dims (``products``, ``sums``) need launches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_collapse import collapsed
from nldsl.ir import ops
from nldsl.ir.entrywise import Entrywise
from nldsl.ir.program import Instr, Program

Index = tuple[str | None, ...]
Shape = tuple[int, ...]
WEIGHT = "weight"  # the place of the weight among the states
COPIES = frozenset({"stop_grad", "fixed"})


@dataclass(frozen=True)
class Product:
    """``left[row, k] right[k, column]``: operands with their indices in terms of i, j, k."""

    left: int
    left_index: Index
    right: int
    right_index: Index
    size: int  # of the sum


@dataclass(frozen=True)
class Sum:
    """A sum (or maximum) of a product of entries over a tile's dims ``over``; ``space`` are the sizes of i and j."""

    op: str
    space: tuple[int, int]
    factors: tuple[tuple[int, Index], ...]
    over: frozenset[str]


class Values:
    """The analysis of one program. Raises UnsupportedError for what has no form in kernels."""

    def __init__(self, program: Program) -> None:
        if program.axes or any(s.shared or s.reset.kind == "clock" for s in program.states):
            raise UnsupportedError("states that are shared or reset")
        (change,) = (value for _, value in program.outputs)
        updates = dict(program.updates)
        self.finals: dict[str, int] = {s.name: updates[s.name] for s in program.states if s.name in updates}
        self.finals[WEIGHT] = change
        self.body = program.body
        self.live = self._live(self.finals.values())
        self.program = collapsed(program, self.live)
        self.body = self.program.body
        self.users: dict[int, set[int]] = {v: set() for v in self.live}
        for value in self.live:
            for arg in self.body[value].args:
                self.users[arg].add(value)
        for value in self.live:
            self._check(value)

    def _live(self, roots: Iterable[int]) -> set[int]:
        found: set[int] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value not in found:
                found.add(value)
                stack.extend(self.body[value].args)
        return found

    def _check(self, value: int) -> None:
        instr = self.body[value]
        if instr.op == "param":
            raise UnsupportedError("learned parameters of the optimizer")
        if len(instr.type.shape) > 2 or any(not isinstance(size, int) for size in instr.type.shape):
            raise UnsupportedError("values of more than two dims")
        if not (value in self.products or value in self.sums or instr.op in ops.LEAVES):
            self.operands(value, tuple("ij"[: len(self.shape(value))]))

    # ------------------------------------------------------------ kinds of values

    def shape(self, value: int) -> Shape:
        return tuple(int(str(size)) for size in self.body[value].type.shape)

    def space(self, value: int) -> tuple[int, int]:
        """The sizes of i and j where the value is computed entry by entry."""
        sizes = (1, 1, *self.shape(value))
        return sizes[-2], sizes[-1]

    def natural(self, value: int) -> Index:
        """The indices of its entries there."""
        return ("i", "j")[2 - len(self.shape(value)) :]

    @cached_property
    def products(self) -> dict[int, Product]:
        found = {}
        for value in self.live:
            instr = self.body[value]
            if instr.op == "einsum" and (made := self._product(instr)):
                found[value] = made
        return found

    @cached_property
    def sums(self) -> dict[int, Sum]:
        found = {}
        for value in self.live:
            instr = self.body[value]
            if instr.op in ("sum", "max") and instr.attr("dims"):
                found[value] = self._sum(instr)
            elif instr.op == "einsum" and value not in self.products:
                inputs, output = ops.split_spec(instr.attr("spec"))
                if set("".join(inputs)) - set(output):
                    found[value] = self._contraction(instr, inputs, output)
        return found

    @cached_property
    def numbers(self) -> set[int]:
        """Those that follow from the tick alone, the same for all parameters."""
        numbers: set[int] = set()
        for value in sorted(self.live):
            instr = self.body[value]
            alone = instr.op in ("const", "clock") or (instr.op in (*ops.POINTWISE, *COPIES, "when") and instr.args)
            if alone and not instr.type.shape and all(a in numbers for a in instr.args):
                numbers.add(value)
        return numbers

    @cached_property
    def shared(self) -> Entrywise:
        """The same as the numbers of a rule."""
        others = frozenset(self.live - self.numbers)
        rows = tuple((name, 0.0, value) for name, value in self.finals.items() if name != WEIGHT)
        return Entrywise(self.body, others, rows, (), self.finals[WEIGHT])

    def symmetric(self, value: int) -> bool:
        """Whether it is a symmetric matrix, as far as the algebra shows."""
        return self._symmetry(value)

    # ------------------------------------------------------------ products and sums

    def _product(self, instr: Instr) -> Product | None:
        inputs, output = ops.split_spec(instr.attr("spec"))
        if len(inputs) != 2 or any(len(x) != 2 or x[0] == x[1] for x in inputs) or len(set(output)) != 2:
            return None
        (left, right), (a, b) = inputs, instr.args
        common = (set(left) & set(right)) - set(output)
        if len(common) != 1 or len(set(left + right)) != 3:
            return None
        if output[0] not in left:
            (left, right), (a, b) = (right, left), (b, a)
        (inner,) = common
        names = {output[0]: "i", output[1]: "j", inner: "k"}
        size = self.shape(a)[left.index(inner)]
        return Product(a, tuple(names[x] for x in left), b, tuple(names[x] for x in right), size)

    def _sum(self, instr: Instr) -> Sum:
        (arg,) = instr.args
        over = frozenset(self.natural(arg)[d] for d in instr.attr("dims"))
        return Sum(instr.op, self.space(arg), ((arg, self.natural(arg)),), frozenset(x for x in over if x))

    def _contraction(self, instr: Instr, inputs: list[str], output: str) -> Sum:
        letters = list(dict.fromkeys("".join(sorted(inputs, key=len, reverse=True))))
        if len(letters) > 2 or any(len(set(x)) != len(x) for x in inputs):
            raise UnsupportedError(f"the contraction {instr.attr('spec')}")
        names = dict(zip(letters, "ij" if len(letters) == 2 else "j", strict=True))
        sizes: dict[str, int] = {}
        for word, arg in zip(inputs, instr.args, strict=True):
            sizes.update(zip((names[x] for x in word), self.shape(arg), strict=True))
        factors = tuple((a, tuple(names[x] for x in word)) for word, a in zip(inputs, instr.args, strict=True))
        over = frozenset(names[x] for x in letters if x not in output)
        if len(output) == 2:
            raise UnsupportedError(f"the contraction {instr.attr('spec')}")
        return Sum("sum", (sizes.get("i", 1), sizes["j"]), factors, over)

    # ------------------------------------------------------------ entries of operands

    def operands(self, value: int, index: Index) -> list[tuple[int, Index]]:
        """The entries of the operands that an entry needs. Raises UnsupportedError where that is no single entry."""
        instr = self.body[value]
        if instr.op in ops.POINTWISE or instr.op in ("when", "broadcast", *COPIES):
            return [(a, self._stretched(a, self.shape(value), index)) for a in instr.args]
        if instr.op == "reshape":
            return [(instr.args[0], self._reshaped(value, instr.args[0], index))]
        if instr.op == "einsum":
            inputs, output = ops.split_spec(instr.attr("spec"))
            if len(set(output)) == len(output) and not set("".join(inputs)) - set(output):
                names = dict(zip(output, index, strict=True))
                return [(a, tuple(names[x] for x in word)) for word, a in zip(inputs, instr.args, strict=True)]
        raise UnsupportedError(f"`{instr.op}` of matrices")

    def _stretched(self, arg: int, shape: Shape, index: Index) -> Index:
        own = self.shape(arg)
        places = index[len(index) - len(own) :]
        wide = shape[len(shape) - len(own) :]
        return tuple(None if n == 1 and m != 1 else x for x, n, m in zip(places, own, wide, strict=True))

    def _reshaped(self, value: int, arg: int, index: Index) -> Index:
        new, old = self.shape(value), self.shape(arg)
        if [n for n in new if n != 1] != [n for n in old if n != 1]:
            raise UnsupportedError("`reshape` that mixes dims")
        kept = iter([x for x, n in zip(index, new, strict=True) if n != 1])
        return tuple(None if n == 1 else next(kept) for n in old)

    # ------------------------------------------------------------ symmetry

    def _symmetry(self, value: int) -> bool:
        return value in self._symmetric

    @cached_property
    def _symmetric(self) -> set[int]:
        """Symmetric values, if the states that begin and remain symmetric are."""
        square = {s.name for s in self.program.states if len(s.type.shape) == 2 and s.type.shape[0] == s.type.shape[1]}
        starts = symmetric_values(self.program.init, set())
        states = {s.name for s in self.program.states if s.name in square and s.init in starts}
        while True:
            found = symmetric_values(self.body, states)
            kept = {s for s in states if self.finals.get(s) is None or self.finals[s] in found}
            if kept == states:
                return found
            states = kept


def symmetric_values(body: tuple[Instr, ...], states: set[str]) -> set[int]:
    """The matrices of a body that equal their transposes, if these states do; numbers count too."""
    found: set[int] = set()
    for value, instr in enumerate(body):
        shape = instr.type.shape
        if not shape:
            found.add(value)
        elif len(shape) != 2 or shape[0] != shape[1]:
            continue
        elif instr.op == "state":
            if instr.attr("state") in states:
                found.add(value)
        elif instr.op == "einsum":
            inputs, output = ops.split_spec(instr.attr("spec"))
            same = len(set(instr.args)) == 1
            if len(inputs) == 2 and same and len(output) == 2:
                left, right = inputs
                gram = left.replace(output[0], output[1]) == right and output[0] not in right
                if gram or instr.args[0] in found:
                    found.add(value)
            elif sorted(inputs) in ([output], ["", output], [output[::-1]]) and found.issuperset(instr.args):
                found.add(value)
        else:
            pointwise = instr.op in (*ops.POINTWISE, "when", "broadcast", *COPIES)
            if (pointwise and found.issuperset(instr.args)) or _identity(body, instr):
                found.add(value)
    return found


def _identity(body: tuple[Instr, ...], instr: Instr) -> bool:
    """Whether it compares the numbers of rows with those of columns."""
    if instr.op != "eq":
        return False
    parts = [body[a] for a in instr.args]
    inner = [body[p.args[0]].op if p.op == "reshape" else p.op for p in parts]
    return inner == ["iota", "iota"] and {p.op for p in parts} == {"iota", "reshape"}
