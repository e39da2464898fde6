"""A body with its products in the order that needs the fewest of them.

The way back of a loop is derived statement by statement, so that it contains the same product of three matrices in
several orders. Where two of the three are multiplied anyway, the third is applied to that:

* a sum over entries of a product and a third matrix, ``sum_c X[t, c] (Y Z)[t, c]``, is ``sum_k Y[t, k] (X Z')[t, k]``;
* ``A (B C)`` is ``(A B) C``, where nothing else needs ``B C``;
* ``A B + A C`` is ``A (B + C)``, where ``B + C`` is there.

Factors for each row or column are taken out of products for that. All are equal but for rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nldsl.ir.demand import reachable
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import Type

Labels = tuple[str, ...]  # of the dims of a value; "" for one of size 1


@dataclass(frozen=True)
class Factor:
    """A value and what its dims are called."""

    value: int
    labels: Labels


@dataclass(frozen=True)
class Stripped:
    """``sign`` times a matrix times vectors along its dims."""

    sign: int
    matrix: Factor
    scales: tuple[Factor, ...] = ()


@dataclass(frozen=True)
class Product:
    """A product of two matrices over ``label``: what is left of the operands without vectors along other dims."""

    value: int
    left: Stripped
    right: Stripped
    label: str
    output: Labels

    @property
    def key(self) -> tuple[tuple[int, int], ...]:
        """Which matrices, and over which dim of each."""
        sides = [(s.matrix.value, s.matrix.labels.index(self.label)) for s in (self.left, self.right)]
        return tuple(sorted(sides))


@dataclass
class Reader:
    """What the values of a body are made of. ``sequential`` are those that the loop over segments waits for, ``late``
    those that wait for it."""

    body: Sequence[Instr]
    users: Mapping[int, list[int]]
    sequential: Collection[int]
    late: Sequence[bool]

    @staticmethod
    def of(body: Sequence[Instr], carry: Sequence[int], results: Sequence[int], carried: Collection[str]) -> Reader:
        """``carried``: the operations that are leaves which the loop changes."""
        needed = reachable(body, [*carry, *results])
        users: dict[int, list[int]] = {}
        late: list[bool] = []
        for value, instr in enumerate(body):
            late.append(instr.op in carried or any(late[a] for a in instr.args))
            for arg in set(instr.args) if value in needed else ():
                users.setdefault(arg, []).append(value)
        for value in (*carry, *results):
            users.setdefault(value, []).append(-1)
        return Reader(body, users, reachable(body, carry), late)

    def shape(self, value: int) -> tuple[object, ...]:
        return self.body[value].type.shape

    def labelled(self, value: int, labels: Labels) -> Labels:
        """The labels of an operand of a pointwise operation whose result has these."""
        own = self.shape(value)
        last = labels[len(labels) - len(own) :]
        return tuple("" if size == 1 else label for size, label in zip(own, last, strict=True))

    def strip(self, value: int, labels: Labels, keep: str = "") -> Stripped:
        """A value without signs, and without vectors along dims other than ``keep``."""
        sign, scales = 1, list[Factor]()
        while True:
            instr = self.body[value]
            if instr.guard is not None:
                break
            if instr.op == "neg":
                sign, value = -sign, instr.args[0]
                labels = self.labelled(value, labels)
            elif instr.op == "reshape" and self._same_dims(value, instr.args[0]):
                value = instr.args[0]
                rest = iter([x for x in labels if x])
                labels = tuple("" if size == 1 else next(rest) for size in self.shape(value))
            elif instr.op == "mul":
                parts = [(a, self.labelled(a, labels)) for a in instr.args]
                thin = [n for n, (_, own) in enumerate(parts) if sum(map(bool, own)) < 2]
                if len(thin) != 1 or (keep and keep in parts[thin[0]][1]):
                    break
                scales.append(Factor(*parts[thin[0]]))
                value, labels = parts[1 - thin[0]]
                if sum(map(bool, labels)) < 2:
                    break
            else:
                break
        return Stripped(sign, Factor(value, labels), tuple(scales))

    def _same_dims(self, one: int, two: int) -> bool:
        return [s for s in self.shape(one) if s != 1] == [s for s in self.shape(two) if s != 1]

    def product(self, value: int, labels: Labels | None = None) -> Product | None:
        """A value as a product of two matrices; ``labels`` are those of the result, if they have names already."""
        instr = self.body[value]
        if instr.op != "einsum" or len(instr.args) != 2 or instr.guard is not None:
            return None
        (one, two), output = split_spec(instr.attr("spec"))
        gone = [x for x in one if x in two and x not in output]
        if len(gone) != 1 or any(len(set(x)) != 2 or len(x) != 2 for x in (one, two, output)):
            return None
        if {*output} != {*one, *two} - {*gone} or any(1 in self.shape(a) for a in instr.args):
            return None
        new = dict(zip(output, labels or tuple(output), strict=True)) | {gone[0]: "*" if labels else gone[0]}
        sides = [
            self.strip(a, tuple(new[x] for x in text), new[gone[0]])
            for a, text in zip(instr.args, (one, two), strict=True)
        ]
        if any(len(s.matrix.labels) != 2 or not all(s.matrix.labels) for s in sides):
            return None
        return Product(value, sides[0], sides[1], new[gone[0]], tuple(new[x] for x in output))

    def products(self) -> Iterator[Product]:
        """All products that something needs, in order."""
        for value in range(len(self.body)):
            if value in self.users:
                found = self.product(value)
                if found is not None:
                    yield found


@dataclass
class Rewriter:
    """``body`` is the new one, ``where`` has the place of each old value in it. ``order`` is that of all axes."""

    reader: Reader
    order: Sequence[str]
    body: list[Instr] = field(default_factory=list)
    where: dict[int, int] = field(default_factory=dict)
    bare: dict[int, int] = field(default_factory=dict)  # products without vectors, by the old value

    def add(self, instr: Instr) -> int:
        self.body.append(instr)
        return len(self.body) - 1

    def copy(self, value: int) -> None:
        instr = self.reader.body[value]
        self.where[value] = self.add(replace(instr, args=tuple(self.where[a] for a in instr.args)))

    def like(self, instr: Instr, op: str, args: tuple[int, ...], own: tuple[object, ...], **attrs: object) -> int:
        """An operation in the place of another: the same line of the program."""
        axes = {a for arg in args for a in self.body[arg].type.axes}
        type = Type(own, tuple(sorted(axes, key=self.order.index)))  # type: ignore[arg-type]
        return self.add(Instr(op, args, tuple(attrs.items()), type, None, instr.name, instr.span))

    def along(self, instr: Instr, value: int, scale: Factor, labels: Labels) -> int:
        """A value, whose dims have these labels, times a vector."""
        own, shape = self.where[scale.value], self.body[value].type.shape
        wanted = tuple(size if x and x in scale.labels else 1 for x, size in zip(labels, shape, strict=True))
        if self.body[own].type.shape not in (wanted, ()):
            own = self.like(instr, "reshape", (own,), wanted, shape=wanted)
        return self.like(instr, "mul", (value, own), shape)

    def signed(self, instr: Instr, value: int, sign: int) -> int:
        return value if sign > 0 else self.like(instr, "neg", (value,), self.body[value].type.shape)

    def product(self, found: Product) -> int:
        """The product of the matrices alone. Its operands have been taken."""
        if found.value not in self.bare:
            instr = self.reader.body[found.value]
            sides = (found.left.matrix, found.right.matrix)
            spec = _spec(sides[0].labels, sides[1].labels, found.output)
            args = tuple(self.where[s.value] for s in sides)
            self.bare[found.value] = self.like(instr, "einsum", args, instr.type.shape, spec=spec)
        return self.bare[found.value]

    def scaled(self, found: Product) -> int:
        """The product, with the vectors along its dims after it."""
        instr = self.reader.body[found.value]
        value = self.signed(instr, self.product(found), found.left.sign * found.right.sign)
        for scale in (*found.left.scales, *found.right.scales):
            value = self.along(instr, value, scale, found.output)
        return value


@dataclass(frozen=True)
class Turn:
    """``sum(X * (Y Z))`` as the sum of ``other``, which is Y, and the product ``known`` of X and Z."""

    sign: int
    other: Factor
    known: Product
    output: Labels  # those of ``known`` as ``other`` calls them
    inner: tuple[Factor, ...]  # vectors along what is summed
    outer: tuple[Factor, ...]
    left: str  # the label of the result


def turned_sums(reader: Reader) -> dict[int, Turn]:
    """The sums that become cheaper: nothing else needs the product in them, or the loop over segments has it and what
    comes after the loop has the other."""
    known: dict[tuple[tuple[int, int], ...], Product] = {}
    for product in reader.products():
        known.setdefault(product.key, product)
    found: dict[int, Turn] = {}
    for value, instr in enumerate(reader.body):
        if instr.op != "sum" or instr.guard is not None or len(instr.attr("dims")) != 1:
            continue
        turn = _turn(reader, known, value) if value in reader.users and value not in reader.sequential else None
        if turn is not None:
            found[value] = turn
    return found


def _turn(reader: Reader, known: Mapping[tuple[tuple[int, int], ...], Product], value: int) -> Turn | None:
    instr = reader.body[value]
    (arg,), (gone,) = instr.args, instr.attr("dims")
    inside = reader.body[arg]
    if inside.op != "mul" or len(inside.type.shape) != 2 or inside.guard is not None:
        return None
    labels = ("s", "t") if gone == 0 else ("t", "s")
    for one, two in (inside.args, inside.args[::-1]):
        if reader.shape(one) != inside.type.shape or reader.shape(two) != inside.type.shape:
            continue
        outside, whole = reader.strip(one, labels), reader.strip(two, labels)
        product = reader.product(whole.matrix.value, whole.matrix.labels) if len(whole.matrix.labels) == 2 else None
        if product is None or len(outside.matrix.labels) != 2:
            continue
        sides = [reader.strip(s.matrix.value, s.matrix.labels) for s in (product.left, product.right)]
        first, second = sides if "s" in sides[1].matrix.labels else sides[::-1]
        every = (outside, whole, product.left, product.right, *sides)
        scales = [x for s in every for x in s.scales]
        matrices = (outside.matrix, first.matrix, second.matrix)
        if any("s" in x.labels for x in scales) or any(len(m.labels) != 2 or not all(m.labels) for m in matrices):
            continue
        pair = [(m.value, m.labels.index("s")) for m in (outside.matrix, second.matrix)]
        other = known.get(tuple(sorted(pair)))
        if other is None or not _pays(reader, value, arg, product.value, other.value):
            continue
        if reader.late[other.value] and not reader.late[value]:
            continue
        # the labels of the product as it is there: those of its dims that are not summed
        new: dict[str, str] = {}
        for side in (other.left, other.right):
            mine = next(m for m, p in zip((outside.matrix, second.matrix), pair, strict=True) if _is(side, other, p))
            new |= dict(zip(side.matrix.labels, mine.labels, strict=True))
        if len(set(new.values())) != 3:
            continue  # the same matrix twice
        sign = 1
        for s in every:
            sign *= s.sign
        inner = tuple(x for x in scales if "*" in x.labels)
        outer = tuple(x for x in scales if "*" not in x.labels)
        return Turn(sign, first.matrix, other, tuple(new[x] for x in other.output), inner, outer, "t")
    return None


def _is(side: Stripped, product: Product, place: tuple[int, int]) -> bool:
    return (side.matrix.value, side.matrix.labels.index(product.label)) == place


def _pays(reader: Reader, value: int, arg: int, product: int, other: int) -> bool:
    if product == other or other in reader.sequential:
        return False
    alone = all(u in (arg, value) or reader.users.get(u) == [arg] for u in reader.users[product])
    return alone or product in reader.sequential


def _with_turns(reader: Reader, order: Sequence[str]) -> Rewriter:
    turns = turned_sums(reader)
    bare = {turn.known.value: turn.known for turn in turns.values()}
    new = Rewriter(reader, order)
    for value, instr in enumerate(reader.body):
        if value in bare:
            new.where[value] = new.scaled(bare[value])
        elif value in turns:
            new.where[value] = _turned(new, instr, turns[value])
        else:
            new.copy(value)
    return new


def _turned(new: Rewriter, instr: Instr, turn: Turn) -> int:
    product = new.product(turn.known)
    for scale in turn.inner:
        product = new.along(instr, product, scale, turn.output)
    other, shape = new.where[turn.other.value], instr.type.shape
    if turn.other.labels == turn.output:
        both = new.like(instr, "mul", (other, product), new.body[product].type.shape)
        total = new.like(instr, "sum", (both,), shape, dims=(turn.output.index("*"),))
    else:
        text = "".join("t" if x == turn.left else "k" for x in turn.other.labels)
        total = new.like(instr, "einsum", (other, product), shape, spec=f"{text},{text[::-1]}->t")
    total = new.signed(instr, total, turn.sign)
    for scale in turn.outer:
        total = new.along(instr, total, scale, (turn.left,))
    return total


# -- products of products


def _with_products(reader: Reader, order: Sequence[str]) -> Rewriter:
    """``A (B C)`` as ``(A B) C`` where ``A B`` is there, then sums of products with a common factor as one."""
    plain = {p.value: p for p in reader.products() if not (p.left.scales or p.right.scales)}
    known = {p.key: p for p in reversed(plain.values()) if p.left.sign * p.right.sign > 0}
    new = Rewriter(reader, order)
    for value, instr in enumerate(reader.body):
        if value in new.where:
            continue
        found = None
        if value in reader.users and value not in reader.sequential and instr.guard is None:
            found = next(_orders(reader, known, plain.get(value), True), None)
            if found is None and instr.op == "add":
                found = _common(reader, known, plain, value)
        if found is None:
            new.copy(value)
            continue
        one, two, output = found
        for factor in (one, two):
            if factor.value not in new.where:  # it stands later in the body, made of what stands before
                new.copy(factor.value)
        spec = _spec(one.labels, two.labels, output)
        args = (new.where[one.value], new.where[two.value])
        new.where[value] = new.like(instr, "einsum", args, instr.type.shape, spec=spec)
    return new


Pair = tuple[Factor, Factor, Labels]


def _orders(
    reader: Reader, known: Mapping[tuple[tuple[int, int], ...], Product], product: Product | None, alone: bool
) -> Iterator[Pair]:
    """A product with a product in it as a product with another that is there. ``alone``: nothing else needs the one
    in it."""
    if product is None or product.left.sign * product.right.sign < 0:
        return
    for one, two in ((product.left.matrix, product.right.matrix), (product.right.matrix, product.left.matrix)):
        inner = reader.product(two.value, two.labels)
        if inner is None or inner.left.scales or inner.right.scales or inner.left.sign * inner.right.sign < 0:
            continue
        if alone and len(reader.users[two.value]) > 1:
            continue
        first, second = inner.left.matrix, inner.right.matrix
        if product.label in second.labels:
            first, second = second, first
        pair = tuple(sorted((m.value, m.labels.index(product.label)) for m in (one, first)))
        other = known.get(pair)
        if other is None or other.value == product.value:
            continue
        if any(a >= product.value for a in reader.body[other.value].args):
            continue
        labels = _labels_of(other, product.label, one, first)
        if labels is not None:
            yield Factor(other.value, labels), second, product.output


def _labels_of(other: Product, label: str, one: Factor, two: Factor) -> Labels | None:
    """The labels of a product that is there, if it is that of these two."""
    new: dict[str, str] = {}
    for side in (other.left.matrix, other.right.matrix):
        at = side.labels.index(other.label)
        mine = next((m for m in (one, two) if m.value == side.value and m.labels.index(label) == at), None)
        if mine is None:
            return None
        new |= dict(zip(side.labels, mine.labels, strict=True))
    return tuple(new[x] for x in other.output) if len(set(new.values())) == 3 else None


def _common(
    reader: Reader,
    known: Mapping[tuple[tuple[int, int], ...], Product],
    plain: Mapping[int, Product],
    value: int,
) -> Pair | None:
    """A sum of two products with a common factor, where the sum of the others is there."""
    args = reader.body[value].args
    pairs = [_ways(reader, known, plain.get(a)) for a in args]
    if any(reader.users.get(a) != [value] for a in args):
        return None
    sums = {
        tuple(sorted(i.args)): v
        for v, i in enumerate(reader.body[:value])
        if i.op == "add" and v in reader.users and i.guard is None
    }
    for one, two, output in pairs[0]:
        for other, last, text in pairs[1]:
            if len(output) != 2:
                continue
            same = dict(zip(text, output, strict=True))
            for a, b in ((one, two), (two, one)):
                for c, d in ((other, last), (last, other)):
                    total = sums.get(tuple(sorted((b.value, d.value))))
                    if total is None or a.value != c.value or reader.shape(total) != reader.shape(b.value):
                        continue
                    if _renamed(c.labels, same) == _renamed(a.labels, {x: x for x in output}) and (
                        _renamed(d.labels, same) == _renamed(b.labels, {x: x for x in output})
                    ):
                        return a, Factor(total, b.labels), output
    return None


def _renamed(labels: Labels, names: Mapping[str, str]) -> Labels:
    return tuple(names.get(x, "*") for x in labels)


def _ways(reader: Reader, known: Mapping[tuple[tuple[int, int], ...], Product], product: Product | None) -> list[Pair]:
    """A product as it is, and in the orders that are there."""
    if product is None or product.left.sign * product.right.sign < 0:
        return []
    own = (product.left.matrix, product.right.matrix, product.output)
    return [own, *_orders(reader, known, product, False)]


def _spec(one: Labels, two: Labels, output: Labels) -> str:
    """A product as ``einsum`` calls it."""
    letters = dict(zip(dict.fromkeys((*one, *two)), "ijk", strict=False))
    return (
        ",".join("".join(letters[x] for x in text) for text in (one, two)) + "->" + "".join(letters[x] for x in output)
    )


def reordered(
    body: Sequence[Instr],
    carry: Sequence[int],
    results: Sequence[int],
    carried: Collection[str],
    order: Sequence[str],
) -> tuple[tuple[Instr, ...], Mapping[int, int]]:
    """The new body, and where the values of the old one are in it."""
    where = {value: value for value in range(len(body))}
    for step in (_with_turns, _with_products, _with_products):
        roots = [where[v] for v in carry], [where[v] for v in results]
        new = step(Reader.of(body, *roots, carried), order)
        where = {old: new.where[at] for old, at in where.items() if at in new.where}
        body = new.body
    return tuple(body), where
