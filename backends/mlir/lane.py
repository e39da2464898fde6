"""The values of a body for one lane: what is stored, and what is computed where it is used.

Mapped axes are either lanes (each has its own call of the loop's body) or *inner* axes, which are leading dimensions of
the tensors of a lane; time is always one of these. ``Lane.at`` gives entries of any value as code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field

from nldsl.backends.mlir import vector_math as vm
from nldsl.backends.mlir.memory import Buffer
from nldsl.backends.mlir.text import Function, Ix, Val
from nldsl.backends.mlir.views import UnsupportedError, View, entries, load, regrouped, row_major
from nldsl.dims import Dim, substitute
from nldsl.ir import ops
from nldsl.ir.chunk import TICKS
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.triangular import Terms, Triangles, terms
from nldsl.ir.types import BATCH, Clock

Index = tuple[Ix, ...]
Vec = tuple[int, int]

HEAVY = frozenset(
    "sum max cumsum concat pad scatter_add solve".split()
    + "solve_triangular segprod cumprod decay_gram decay_gram_grad linear_scan matrix_scan unband".split()
)
MOVES = frozenset("collect spread slice reshape lane broadcast stop_grad einsum unfold band".split())
COSTS = {"exp": 12, "log": 14, "log1p": 20, "expm1": 20, "tanh": 24, "sigmoid": 16, "softplus": 30, "div": 6, "sqrt": 8}
COSTS |= {"rsqrt": 10, "sin": 40, "cos": 40, "arctan": 40, "erf": 40, "pow": 40, "mod": 8}


@dataclass(frozen=True)
class Product:
    """A sum of products: operands with the labels of their dimensions, and those of the result. ``bounds``: which of
    its terms count, see ``nldsl.ir.triangular.terms``."""

    args: tuple[int, ...]
    labels: tuple[tuple[str, ...], ...]
    output: tuple[str, ...]
    bounds: Terms


@dataclass
class Lane:
    """``sizes``: the inner axes in canonical order. ``views``: values that are in memory."""

    f: Function
    body: Sequence[Instr]
    needed: Set[int]
    roots: Counter[int]
    ticks: int
    sizes: dict[str, int]
    views: dict[int, View] = field(default_factory=dict)
    overrides: dict[int, Val] = field(default_factory=dict)
    buffers: list[Buffer] = field(default_factory=list)
    tick: Ix = field(default_factory=Ix)  # the number of the last tick before the segment
    fires: dict[Clock, Val] = field(default_factory=dict)
    step: int = 0
    users: dict[int, list[int]] = field(default_factory=dict)
    stored: set[int] = field(default_factory=set)
    packed: dict[object, View] = field(default_factory=dict)
    products: dict[int, Product] = field(default_factory=dict)
    zero: Sequence[Triangles] = ()  # which entries of each value are zero, and which nobody needs
    need: Mapping[int, Triangles] = field(default_factory=dict)
    gathers: list[tuple[View, int]] | None = None  # what code on trial reads across, see layout.py
    formed: dict[int, tuple[tuple[str, ...], tuple[int, ...]]] = field(default_factory=dict)
    still: set[str] = field(default_factory=set)  # buffers that are the same in all segments
    opening: list[str] | None = None  # lines of what is done once, before all segments

    # -- sizes

    def size(self, dim: Dim) -> int:
        found = substitute(dim, {str(TICKS): self.ticks})
        if not isinstance(found, int):
            raise UnsupportedError(f"a size is known only when the program runs: {found}")
        return found

    def axes(self, value: int) -> tuple[str, ...]:
        """The inner axes of a value."""
        return self._formed(value)[0]

    def dims(self, value: int) -> tuple[int, ...]:
        return self._formed(value)[1]

    def _formed(self, value: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """The inner axes and the dimensions of a value; found once."""
        found = self.formed.get(value)
        if found is None:
            type = self.body[value].type
            axes = tuple(a for a in type.axes if a in self.sizes)
            dims = (*(self.sizes[a] for a in axes), *(self.size(s) for s in type.shape))
            found = self.formed[value] = axes, dims
        return found

    # -- what is stored

    def heavy(self, value: int) -> bool:
        """Whether the value has code of its own, which leaves it in memory."""
        instr = self.body[value]
        if instr.op in ("sum", "max") and not instr.attr("dims"):
            return False
        if instr.op in ("axis_sum", "batch_mean"):
            return self.summed(value) in self.axes(instr.args[0])
        return instr.op in HEAVY or (instr.op == "einsum" and self.contracts(value))

    def summed(self, value: int) -> str:
        """The axis over which a value is a sum or a mean."""
        instr = self.body[value]
        return BATCH if instr.op == "batch_mean" else str(instr.attr("axis"))

    def contracts(self, value: int) -> bool:
        letters, output = split_spec(self.body[value].attr("spec"))
        return any(x not in output for text in letters for x in text)

    def plan(self) -> None:
        """Which values are stored besides those that must be: used often, or far more often than there are entries."""
        for v in sorted(self.needed):
            for a in self.body[v].args:
                self.users.setdefault(a, []).append(v)
        absorbed = self._products()
        costs: dict[int, int] = {}
        for v in sorted(self.needed):
            instr = self.body[v]
            if v in absorbed:
                costs[v] = 1
                continue
            if self.heavy(v):
                self.stored.add(v)
                costs[v] = 1
                continue
            if not instr.args:
                costs[v] = 0 if instr.op == "const" else 1
                continue
            cost = sum(costs[a] for a in instr.args)
            if instr.op in ops.POINTWISE or instr.op in ("when", "one_hot", "take"):
                cost += COSTS.get(instr.op, 1)
            users = self.users.get(v, [])
            own = entries(self.dims(v))
            wider = any(entries(self.dims(u)) > own for u in users if not self.heavy(u))
            again = len(users) + (v in self.roots) > 1
            if (cost >= 4 and again) or (cost >= 4 and wider) or cost > 40:
                self.stored.add(v)
                cost = 1
            costs[v] = cost

    def _products(self) -> set[int]:
        """Sums of products; a product that is only summed along an axis is part of that sum."""
        absorbed: set[int] = set()
        for v in sorted(self.needed):
            instr = self.body[v]
            source = v
            if instr.op == "axis_sum":
                source = instr.args[0]
                if self.body[source].op != "einsum" or self.users.get(source) != [v] or source in self.roots:
                    continue
            elif instr.op != "einsum" or not self.contracts(v):
                continue
            product = self.body[source]
            letters, output = split_spec(product.attr("spec"))
            if len(product.args) < 2 and len(set(letters[0])) == len(letters[0]):
                continue  # a plain sum; one along a diagonal goes as a product does
            labels = tuple((*self.axes(a), *x) for a, x in zip(product.args, letters, strict=True))
            out = (*self.axes(v), *output)
            if source != v and not any(instr.attr("axis") in x for x in labels):
                continue
            if source != v:
                absorbed.add(source)
            self.products.pop(source, None)
            bounds = terms(product, self.zero, self.need.get(source, {})) if self.zero else {}
            self.products[v] = Product(product.args, labels, out, bounds)
        return absorbed

    # -- memory

    def scratch(self, dims: Sequence[int], last: int | None = None) -> View:
        """Room for a tensor."""
        name = f"%buf{len(self.buffers)}"
        self.buffers.append(Buffer(name, entries(dims), self.step, self.step))
        return View(name, Ix(), row_major(dims, last), tuple(dims))

    @contextmanager
    def before_segments(self, source: View) -> Iterator[None]:
        """Code for the newest buffer, made of ``source``: where that is the same in all segments it is done once."""
        f, opening = self.f, self.opening
        if opening is None or not self.is_still(source):
            yield
            return
        self.buffers[-1].first, self.buffers[-1].last = 0, 1 << 30
        kept = f.lines, f.known, f.depth
        f.lines, f.known, f.depth = opening, [{}], 3
        yield
        f.lines, f.known, f.depth = kept

    def is_still(self, view: View) -> bool:
        """Whether copies of a tensor are made once for all segments."""
        return self.opening is not None and view.buffer in self.still

    def touched(self, buffer: str) -> None:
        """Note that memory is used in this step."""
        if buffer.startswith("%buf"):
            held = self.buffers[int(buffer[4:])]
            held.last = max(held.last, self.step)

    def view(self, value: int) -> View | None:
        """The value in memory, if it is there (or is a view of one that is)."""
        found = self.views.get(value)
        if found is None:
            found = self._derived(value)
            if found is not None:
                self.views[value] = found
        return found

    def _derived(self, value: int) -> View | None:
        instr = self.body[value]
        if instr.op not in MOVES:
            return None
        if instr.op == "einsum" and (self.contracts(value) or len(instr.args) > 1):
            return None
        source = self.view(instr.args[0])
        if source is None:
            return None
        if instr.op == "reshape":
            rank = len(self.axes(value))
            lead = source.dims[:rank]
            return source.reshaped((*lead, *self.dims(value)[rank:])) if lead == self.dims(value)[:rank] else None
        probe = [Ix(0, ((f"d{d}", 1),)) for d in range(len(self.dims(value)))]
        inside = self.mapped(value, tuple(probe), None)
        if inside is None:
            return None
        base, strides = source.base, [0] * len(probe)
        for position, stride, size in zip(inside[0], source.strides, source.dims, strict=True):
            if size == 1 and not position.terms:
                continue
            base = base + position.const * stride
            for name, factor in position.terms:
                strides[int(name[1:])] += factor * stride
        return View(source.buffer, base, tuple(strides), self.dims(value), source.element)

    # -- entries as code

    def at(self, value: int, index: Index, vec: Vec | None) -> Val:
        """One entry of a value, or ``vec = (dim, width)`` of them; a scalar where they are all the same."""
        if value in self.overrides:
            return self.overrides[value]
        if vec is not None and self.dims(value)[vec[0]] == 1:
            vec = None
        view = self.view(value)
        if view is not None:
            if vec is not None and view.step(vec[0]) not in (0, 1) and not view.element:
                found = self.packed.get(("packed", view, vec[0]))
                if found is None and self.gathers is not None:
                    self.gathers.append((view, vec[0]))
                view = found or view
            return load(self.f, view, index, vec)
        return self.f.once((value, index, vec), lambda: self._compute(value, index, vec))

    def _compute(self, value: int, index: Index, vec: Vec | None) -> Val:
        instr, f = self.body[value], self.f
        op = instr.op
        if op == "const":
            number = instr.attr("value")
            return f.integer(number) if isinstance(number, int) else f.number(number)
        if op == "iota":
            first = f.as_integer(index[0])
            return first if vec is None else f.apply("arith.addi", first, f.steps(vec[1]))
        if op == "clock":
            return self._clock(instr, index, vec)
        if op == "when":
            new, old = (self.at(a, *self.lined_up(a, value, index, vec)) for a in instr.args)
            return f.select(self.fires[instr.attr("clock")], f.cast(new, "f"), f.cast(old, "f"))
        if op in ops.POINTWISE:
            return self._pointwise(value, index, vec)
        if op == "einsum":
            return self._product(value, index, vec)
        if op == "one_hot":
            return self._one_hot(value, index, vec)
        if op == "take":
            return self._take(value, index, vec)
        if op == "batch_mean":  # of what is the same for all sequences
            return self.at(instr.args[0], index, vec)
        if op == "axis_sum":  # the same
            if instr.attr("axis") not in self.sizes:
                raise UnsupportedError("a sum over an axis that the value does not have")
            one = f.cast(self.at(instr.args[0], index, vec), "f")
            return vm.mul(f, *f.same_width([one, f.number(float(self.sizes[instr.attr("axis")]))]))
        if op in MOVES or op in ("sum", "max"):
            inside = self.mapped(value, index, vec)
            if inside is not None:
                return self.at(instr.args[0], *inside)
            return self._one_by_one(value, index, vec)
        raise UnsupportedError(f"the operation `{op}`")

    def _one_by_one(self, value: int, index: Index, vec: Vec | None) -> Val:
        """The entries of a vector each by itself."""
        if vec is None:
            raise UnsupportedError(f"`{self.body[value].op}` of a value that is not in memory")
        dim, width = vec
        moved = [(*index[:dim], index[dim] + n, *index[dim + 1 :]) for n in range(width)]
        return self.f.join([self.at(value, place, None) for place in moved])

    def _clock(self, instr: Instr, index: Index, vec: Vec | None) -> Val:
        f = self.f
        tick = f.as_integer(self.tick + 1 + (index[0] if index else 0))
        if vec is not None:
            tick = f.apply("arith.addi", tick, f.steps(vec[1]))
        scale, period = instr.attr("scale"), instr.attr("period")
        n = tick if scale == 1 else f.apply("arith.divsi", tick, f.integer(scale))
        if not period:
            return n
        n = f.apply("arith.remsi", f.apply("arith.subi", n, f.integer(1)), f.integer(period))
        return f.apply("arith.addi", n, f.integer(1))

    def _pointwise(self, value: int, index: Index, vec: Vec | None) -> Val:
        instr, f = self.body[value], self.f
        args = [self.at(a, *self.lined_up(a, value, index, vec)) for a in instr.args]
        op = instr.op
        if op == "where":
            whole = all(a.kind == "i" for a in args[1:])
            yes, no = (a if whole else f.cast(a, "f") for a in args[1:])
            return f.select(f.cast(args[0], "b"), yes, no)
        if op == "to_real":
            return f.cast(args[0], "f")
        if op == "logical_not":
            return f.apply("arith.xori", f.cast(args[0], "b"), f.spread(f.truth(True), args[0].width), kind="b")
        if op in ("logical_and", "logical_or"):
            name = "arith.andi" if op == "logical_and" else "arith.ori"
            return f.apply(name, f.cast(args[0], "b"), f.cast(args[1], "b"))
        whole = all(a.kind == "i" for a in args)
        if op in vm.COMPARE:
            if whole:
                return f.apply(f"arith.cmpi {vm.INTEGER_COMPARE[op]},", *args, kind="b")
            return vm.compare(f, vm.COMPARE[op], *(f.cast(a, "f") for a in args))
        if whole and op in vm.INTEGER:
            return f.apply(vm.INTEGER[op], *args)
        real = [f.cast(a, "f") for a in args]
        if op in vm.UNARY:
            return vm.UNARY[op](f, real[0])
        if op == "pow":
            return self._power(instr, real)
        return vm.BINARY[op](f, *f.same_width(real))

    def _power(self, instr: Instr, args: list[Val]) -> Val:
        exponent, f = self.body[instr.args[1]], self.f
        number = exponent.attr("value") if exponent.op == "const" else None
        if number == 2:
            return vm.mul(f, args[0], args[0])
        if number == 0.5:
            return f.apply("math.sqrt", args[0])
        if number == -1:
            return vm.div(f, f.number(1.0), args[0])
        if isinstance(number, (int, float)) and 0 < number <= 4 and 2 * number == int(2 * number):
            return self._half_power(args[0], int(2 * number))
        return vm.power(f, *f.same_width(args))

    def _half_power(self, base: Val, halves: int) -> Val:
        """A power with an exponent of so many halves: products and a root. The C library's is called entry by entry."""
        found = self.f.apply("math.sqrt", base) if halves % 2 else None
        for _ in range(halves // 2):
            found = base if found is None else vm.mul(self.f, found, base)
        assert found is not None
        return found

    def _product(self, value: int, index: Index, vec: Vec | None) -> Val:
        """An einsum that sums nothing: a product of its operands."""
        instr = self.body[value]
        letters, output = split_spec(instr.attr("spec"))
        labels = [*self.axes(value), *output]
        total: Val | None = None
        for arg, text in zip(instr.args, letters, strict=True):
            inside = self.by_labels(arg, [*self.axes(arg), *text], labels, index, vec)
            factor = self.f.cast(self.at(arg, *inside), "f")
            total = factor if total is None else vm.mul(self.f, total, factor)
        assert total is not None
        return total

    def by_labels(
        self, arg: int, own: Sequence[str], labels: Sequence[str], index: Index, vec: Vec | None
    ) -> tuple[Index, Vec | None]:
        inside = tuple(index[labels.index(x)] for x in own)
        if vec is None or labels[vec[0]] not in own:
            return inside, None
        return inside, (list(own).index(labels[vec[0]]), vec[1])

    def _one_hot(self, value: int, index: Index, vec: Vec | None) -> Val:
        f, last = self.f, len(index) - 1
        arg = self.body[value].args[0]
        inner = vec if vec is not None and vec[0] != last else None
        picked = f.cast(self.at(arg, index[:-1], inner), "i")
        own = f.as_integer(index[-1])
        if vec is not None and vec[0] == last:
            own = f.apply("arith.addi", own, f.steps(vec[1]))
        return f.cast(f.apply("arith.cmpi eq,", *f.same_width([picked, own]), kind="b"), "f")

    def _take(self, value: int, index: Index, vec: Vec | None) -> Val:
        table, picks = self.body[value].args
        lead = len(self.axes(value))
        count = len(self.body[picks].type.shape)
        if vec is not None and vec[0] < lead + count:
            return self._one_by_one(value, index, vec)
        inner = dict(zip(self.axes(value), index, strict=False))
        place = (*(inner[a] for a in self.axes(picks)), *index[lead : lead + count])
        row = self.f.cast(self.at(picks, place, None), "i")
        name = self.f.op(f"arith.index_cast {row.name} : i32 to index")
        whole = (*(inner[a] for a in self.axes(table)), Ix(0, ((name, 1),)), *index[lead + count :])
        moved = None if vec is None else (vec[0] - lead - count + len(self.axes(table)) + 1, vec[1])
        return self.at(table, whole, moved)

    # -- which entry of an operand

    def lined_up(self, arg: int, value: int, index: Index, vec: Vec | None) -> tuple[Index, Vec | None]:
        """The entry of an operand of a pointwise operation: axes by name, logical dimensions from the right."""
        own, outer = self.axes(arg), self.axes(value)
        dims = self.dims(arg)
        rank, total = len(dims) - len(own), len(index) - len(outer)
        places = [outer.index(a) for a in own] + [len(outer) + total - rank + n for n in range(rank)]
        inside = tuple(Ix() if size == 1 else index[p] for p, size in zip(places, dims, strict=True))
        if vec is None or vec[0] not in places or dims[places.index(vec[0])] == 1:
            return inside, None
        return inside, (places.index(vec[0]), vec[1])

    def mapped(self, value: int, index: Index, vec: Vec | None) -> tuple[Index, Vec | None] | None:
        """The entry of the operand of an operation that only moves entries; None where that is no plain index."""
        instr = self.body[value]
        op, arg = instr.op, instr.args[0]
        own, outer = self.axes(arg), self.axes(value)
        lead = len(outer)
        places: list[int | Ix]
        if op in ("broadcast", "stop_grad", "to_real", "sum", "max"):
            return self.lined_up(arg, value, index, vec)
        if op == "einsum":
            letters, output = split_spec(instr.attr("spec"))
            labels, mine = [*outer, *output], [*own, *letters[0]]
            if len(set(mine)) < len(mine) and vec is not None and mine.count(labels[vec[0]]) > 1:
                return None
            return self.by_labels(arg, mine, labels, index, vec)
        if op == "collect":
            places = [lead if a == instr.attr("axis") else outer.index(a) for a in own]
            places += range(lead + 1, len(index))
        elif op == "spread":
            axis = instr.attr("axis")
            if axis not in self.sizes:
                raise UnsupportedError(f"`spread` over the lanes {axis}")
            places = [outer.index(a) for a in own]
            first = outer.index(axis)
            places += [first, *range(lead, len(index))]
        elif op == "lane":
            axis = instr.attr("axis")
            places = [Ix(instr.attr("index")) if a == axis else outer.index(a) for a in own]
            places += range(lead, len(index))
        elif op in ("unfold", "band"):  # of ir/window_ops.py
            first = lead if op == "unfold" else lead + 1
            seen = index[lead] + index[lead + 1]
            inside = (*index[:first], seen, *index[lead + 2 :])
            if vec is None or vec[0] < lead:
                return inside, vec
            if op == "band" and vec[0] == lead:
                return None
            return inside, (first if vec[0] < lead + 2 else vec[0] - (op == "unfold"), vec[1])
        elif op == "slice":
            dim = lead + instr.attr("dim")
            moved = (*index[:dim], index[dim] + self.size(instr.attr("start")), *index[dim + 1 :])
            return moved, vec
        else:
            assert op == "reshape", op
            return self._reshaped(value, index, vec)
        inside = tuple(index[p] if isinstance(p, int) else p for p in places)
        found = places.index(vec[0]) if vec is not None and vec[0] in places else None
        return inside, None if found is None or vec is None else (found, vec[1])

    def _reshaped(self, value: int, index: Index, vec: Vec | None) -> tuple[Index, Vec | None] | None:
        """Dimensions that are split, and dimensions of length 1: their place follows from the new ones."""
        new, old = self.dims(value), self.dims(self.body[value].args[0])
        inside: list[Ix] = [Ix()] * len(old)
        moved: Vec | None = None
        for left, right in regrouped(old, new):
            wide = [d for d in left if old[d] != 1]
            if len(wide) > 1:
                return None
            step = 1
            for d in reversed(right):
                if wide and new[d] != 1:
                    inside[wide[0]] = inside[wide[0]] + index[d] * step
                    if vec is not None and vec[0] == d:
                        if step != 1:
                            return None
                        moved = (wide[0], vec[1])
                step *= new[d]
        return tuple(inside), moved
