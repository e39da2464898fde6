"""Common factors of sums: the distributive law, for contractions and for products of entries.

    A x + B x  -->  (A + B) x        one contraction instead of two
    a * x - b * x  -->  (a - b) * x

A sum is a tree of additions and subtractions of values of one shape that nothing else needs. A write that reaches a
state on two ways (directly, and through its momentum) gives such sums, and so do their derivatives. The result is the
same to rounding. Factors that are sums themselves are worked on in turn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.ir import ops
from nldsl.ir.build import Builder
from nldsl.ir.demand import reachable
from nldsl.ir.program import Instr

SUMS = frozenset("add sub neg".split())
ROUNDS = 6


@dataclass(frozen=True)
class Part:
    """A value of a sum, with its sign."""

    value: int
    sign: int


def factored(
    body: tuple[Instr, ...], roots: Sequence[int], axes: Sequence[str]
) -> tuple[tuple[Instr, ...], dict[int, int]]:
    """The body with fewer products, and the new number of every value of it that is still there."""
    number = {v: v for v in range(len(body))}
    for _ in range(ROUNDS):
        after, moved = _Round(body, [number[r] for r in roots], axes).run()
        number = {old: moved[new] for old, new in number.items() if new in moved}
        if after == body:
            break
        body = after
    return body, number


class _Round:
    def __init__(self, body: tuple[Instr, ...], roots: list[int], axes: Sequence[str]) -> None:
        self.body = body
        self.roots = roots
        self.live = reachable(body, roots)
        self.uses = Counter(a for v in self.live for a in body[v].args)
        self.uses.update(roots)
        self.users: dict[int, int] = {a: v for v in sorted(self.live) for a in body[v].args}
        self.builder = Builder(list(axes))
        self.made: dict[int, int] = {}

    def run(self) -> tuple[tuple[Instr, ...], dict[int, int]]:
        builder = self.builder
        for value in sorted(self.live):
            instr = self.body[value]
            builder.guard = instr.guard
            attrs = dict(instr.attrs)
            if not instr.args:
                self.made[value] = builder.leaf(instr.op, instr.type, instr.name, instr.span, **attrs)
                continue
            found = self._sum(value) if self._is_root(value) else None
            if found is None:
                args = [self.made[a] for a in instr.args]
                found = builder.emit(instr.op, *args, name=instr.name, span=instr.span, **attrs)
            self.made[value] = found
        builder.guard = None
        ends = [self.made[r] for r in self.roots]
        needed = sorted(reachable(tuple(builder.instrs), ends))
        place = {v: n for n, v in enumerate(needed)}
        instrs = (builder.instrs[v] for v in needed)
        body = tuple(
            Instr(i.op, tuple(place[a] for a in i.args), i.attrs, i.type, i.guard, i.name, i.span) for i in instrs
        )
        return body, {old: place[new] for old, new in self.made.items() if new in place}

    # ---- sums

    def _is_root(self, value: int) -> bool:
        instr = self.body[value]
        if instr.op not in SUMS or instr.type.kind != "real":
            return False
        user = self.users.get(value)
        return user is None or not self._inside(value, user)

    def _inside(self, value: int, user: int) -> bool:
        """Whether a value is nothing but a part of the sum ``user``."""
        mine, sum_ = self.body[value], self.body[user]
        alone = self.uses[value] == 1 and sum_.op in SUMS
        return alone and mine.type == sum_.type and mine.guard == sum_.guard

    def _parts(self, value: int, sign: int) -> list[Part]:
        """What a sum adds up, from left to right. Without recursion: an iteration may add up thousands of terms."""
        found: list[Part] = []
        stack = [(value, sign, value)]
        while stack:
            at, sign, user = stack.pop()
            instr = self.body[at]
            if at != value and not (instr.op in SUMS and self._inside(at, user)):
                found.append(Part(at, sign))
                continue
            for position in reversed(range(len(instr.args))):
                minus = instr.op == "neg" or (instr.op == "sub" and position == 1)
                stack.append((instr.args[position], -sign if minus else sign, at))
        return found

    def _sum(self, value: int) -> int | None:
        """The sum anew, or None if no two parts have a factor in common."""
        parts, total = self._parts(value, 1), self.body[value]
        groups: dict[object, list[tuple[int, int]]] = {}
        for n, part in enumerate(parts):
            for side, key in self._keys(part.value, total):
                groups.setdefault(key, []).append((n, side))
        taken: set[int] = set()
        merged: dict[int, tuple[int, int]] = {}
        for members in sorted(groups.values(), key=len, reverse=True):
            free = [(n, side) for n, side in members if n not in taken]
            if len({n for n, _ in free}) < 2:
                continue
            free = list({n: (n, side) for n, side in reversed(free)}.values())[::-1]
            taken.update(n for n, _ in free)
            first = free[0][0]
            merged[first] = self._product(parts, free), parts[first].sign
        if not merged:
            return None
        kept = [
            merged.get(n, (self.made[p.value], p.sign)) for n, p in enumerate(parts) if n in merged or n not in taken
        ]
        return self._added(kept)

    def _keys(self, value: int, total: Instr) -> list[tuple[int, object]]:
        """For each operand of a product: a key that products share which differ in this operand alone."""
        instr = self.body[value]
        if self.uses[value] != 1 or instr.type != total.type or instr.guard != total.guard or len(instr.args) != 2:
            return []
        found: list[tuple[int, object]] = []
        for side in (0, 1):
            own, other = instr.args[side], instr.args[1 - side]
            if instr.op == "einsum":
                inputs, output = ops.split_spec(instr.attr("spec"))
                spec = _canonical((inputs[1 - side], inputs[side], output))
                found.append((side, ("einsum", spec, other, self.body[own].type)))
            elif instr.op == "mul" and self.body[other].op != "const":
                found.append((side, ("mul", other, self.body[own].type)))
        return found

    def _product(self, parts: list[Part], members: list[tuple[int, int]]) -> int:
        """The product of the common factor and the sum of the others; its sign is that of the first."""
        first, side = members[0]
        signs = [(self.made[self.body[parts[n].value].args[s]], parts[n].sign * parts[first].sign) for n, s in members]
        instr = self.body[parts[first].value]
        args = [self.made[a] for a in instr.args]
        args[side] = self._added(signs)
        return self.builder.emit(instr.op, *args, span=instr.span, **dict(instr.attrs))

    def _added(self, parts: list[tuple[int, int]]) -> int:
        """Values with signs added up; the first that is positive comes first."""
        start = next((n for n, (_, sign) in enumerate(parts) if sign > 0), None)
        if start is None:
            return self.builder.emit("neg", self._added([(v, 1) for v, _ in parts]))
        total = parts[start][0]
        for n, (value, sign) in enumerate(parts):
            if n != start:
                total = self.builder.emit("add" if sign > 0 else "sub", total, value)
        return total


def _canonical(terms: tuple[str, ...]) -> str:
    """The letters renamed in the order in which they occur."""
    names: dict[str, str] = {}
    return ",".join("".join(names.setdefault(x, chr(ord("a") + len(names))) for x in term) for term in terms)
