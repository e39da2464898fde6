"""Which tiles lie in memory in the type of matrix products, where that is a half type.

What a kernel leaves for later ones is float32, unless that would be for nothing: a tile that later kernels only
multiply is rounded there in any case. A tile that is made of products and goes, scaled and added to others alone, into
products again or into a result is rounded once more, as much as each of their operands: as in kernels written by hand.
What goes into anything else (a division by it, an exponential, a scan), and every gate, stays float32, and so do the
states within a loop. So does, where a state goes through a long chain of products (``exact.py``), what is not only
multiplied: one rounding more for each of them is too much there.
"""

from __future__ import annotations

from nldsl.backends.triton.exact import has_long_chain
from nldsl.backends.triton.job import Job, Key
from nldsl.backends.triton.pressure import SAME
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME

VIEWS = SAME | frozenset("broadcast slice pad concat".split())
SCALES = frozenset({"mul", "div"})  # by another value: that of the first operand, or of either
ADDS = frozenset({"add", "sub", "neg"})


class Narrow:
    """For the values of a job: ``values``, and the carried ``keys`` as they are kept for other kernels."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.users: dict[int, list[int]] = {}
        for value, instr in enumerate(job.body):
            if job.stages[value] is not None:
                for arg in set(instr.args):
                    self.users.setdefault(arg, []).append(value)
        self.made = self._made()
        self.multiplied = self._ends(VIEWS)
        self.linear = self._ends(VIEWS | SCALES | ADDS | {"einsum"})
        self.short = not has_long_chain(job)

    @property
    def values(self) -> frozenset[int]:
        """The values that may be narrow."""
        found = range(len(self.job.body))
        return frozenset(v for v in found if self.job.stages[v] is not None and self._matrix(v) and self._may(v))

    def keys(self) -> dict[Key, bool]:
        """Of the carried values that something reads as they were at the beginning of a segment, whether they may."""
        found: dict[Key, bool] = {}
        for value, key in (*self.job.carried.items(), *self.job.boundaries.items()):
            if self.job.stages[value] is not None:
                found[key] = found.get(key, True) and self._matrix(value) and self.linear[value]
        return found

    def _may(self, value: int) -> bool:
        return self.multiplied[value] or (self.short and self.made[value] and self.linear[value])

    def _matrix(self, value: int) -> bool:
        """Whether it has two dims: vectors are small, and gates more often than not."""
        type = self.job.body[value].type
        axes = [a for a in type.axes if a not in self.job.lanes and a != TIME]
        return type.kind == "real" and len(axes) + sum(s != 1 for s in type.shape) + (TIME in type.axes) >= 2

    def _made(self) -> list[bool]:
        """Whether a value is made of products: scaled, added up."""
        found: list[bool] = []
        for value, instr in enumerate(self.job.body):
            if value in self.job.carried or value in self.job.boundaries:
                made = True
            elif instr.op == "einsum":
                made = any(_contracts(instr, n) for n in range(len(instr.args))) or any(found[a] for a in instr.args)
            elif instr.op in VIEWS | SCALES | ADDS and instr.args:
                made = any(found[a] for a in instr.args)
            else:
                made = False
            found.append(made)
        return found

    def _ends(self, through: frozenset[str]) -> list[bool]:
        """Whether all that is done with a value are these operations until it is contracted, or a result."""
        roots = {v for _, v in (*self.job.outputs, *self.job.sums, *self.job.carry)}
        whole = through > VIEWS  # whether it may be added to something
        found = [True] * len(self.job.body)
        for value in reversed(range(len(self.job.body))):
            found[value] = whole or value not in roots
            for user in self.users.get(value, ()):
                instr = self.job.body[user]
                for place, arg in enumerate(instr.args):
                    if arg == value and not self._ends_in(instr, place, user, through, found):
                        found[value] = False
        return found

    def _ends_in(self, instr: Instr, place: int, user: int, through: frozenset[str], found: list[bool]) -> bool:
        if instr.op == "einsum" and _contracts(instr, place):
            return True
        if instr.op in ("sum", "axis_sum") and "mul" in through:
            return True
        if (instr.op == "where" and place > 0) or instr.op == "when":
            return found[user]
        alone = instr.args.count(instr.args[place]) == 1
        return instr.op in through and alone and not (instr.op == "div" and place) and found[user]


def narrow_keys(*jobs: Job) -> frozenset[Key]:
    """The carried values that may be narrow at the beginning of segments, for all jobs that read them there."""
    found: dict[Key, bool] = {}
    for job in jobs:
        for key, may in Narrow(job).keys().items():
            found[key] = found.get(key, True) and may
    return frozenset(key for key, may in found.items() if may)


def _contracts(instr: Instr, place: int) -> bool:
    """Whether an operand has a dim that a product sums over."""
    inputs, output = split_spec(instr.attr("spec"))
    return bool(set(inputs[place]) - set(output))
