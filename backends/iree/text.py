"""MLIR as text: names of values, operations on tensors, places in the program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from nldsl.backends.iree.nodes import BOOL, INT, REAL, Size
from nldsl.backends.iree.parts import called, tensor_type, unlike_number
from nldsl.source import Span


def number(value: float, elem: str) -> str:
    """A literal of that type."""
    if elem == INT:
        return str(int(value))
    if elem == BOOL:
        return "true" if value else "false"
    if value != value:
        return "0x7FC00000"
    if value in (float("inf"), float("-inf")):
        return "0x7F800000" if value > 0 else "0xFF800000"
    return f"{float(value):.9e}"


Carried = tuple[str, Sequence[Size], str]  # a tensor: its value, sizes and element type
_VIEWS = (
    "flow.tensor.tie_shape",
    "tensor.expand_shape",
    "tensor.collapse_shape",
    "tensor.cast",
    "tensor.extract_slice",
)
SHARED = 60  # lines of a loop that is a function of its own
_ZERO = """func.func private @zero() -> index attributes {noinline} {
  %c0 = arith.constant 0 : index
  %0 = util.optimization_barrier %c0 : index
  return %0 : index
}
"""
DEVICE = "main"  # the name of the one device of a module


@dataclass
class Text:
    """The lines of a function. ``place``: where in the program what is written now comes from."""

    lines: list[str] = field(default_factory=list)
    count: int = 0
    depth: int = 1
    place: Span | None = None
    constants: dict[tuple[str, str], str] = field(default_factory=dict)
    head: list[str] = field(default_factory=list)  # constants: they stand first
    origins: dict[str, str] = field(default_factory=dict)  # the tensor that one is only another view of
    said: dict[str, str] = field(default_factory=dict)  # what each value is
    tensors: dict[str, tuple[tuple[Size, ...], str]] = field(default_factory=dict)  # sizes and types of entries
    alone: set[str] = field(default_factory=set)  # constants that are there to be like no other one
    functions: dict[str, str] = field(default_factory=dict)  # what is called, by name (``parts.py``)
    written_out: dict[str, tuple[str, list[str]]] = field(default_factory=dict)  # calls: the function, and its loop
    last: str = ""  # the results of the loop that was begun last

    def new(self) -> str:
        self.count += 1
        return f"%{self.count}"

    def add(self, line: str, at: bool = False) -> None:
        self.lines.append("  " * self.depth + line + (self.location() if at else ""))

    def let(self, what: str, at: bool = False) -> str:
        """A new value that is ``what``."""
        name = self.new()
        self.said[name] = what
        self.add(f"{name} = {what}", at)
        if what.startswith(_VIEWS):
            of = what.split(" ")[1].partition("[")[0]
            self.origins[name] = self.origins.get(of, of)
        return name

    def tensor(self, what: str, sizes: Sequence[Size], elem: str) -> str:
        """A new tensor of these sizes that is ``what``."""
        name = self.let(what)
        self.tensors[name] = (tuple(sizes), elem)
        return name

    def location(self) -> str:
        span = self.place
        if span is None or span.is_none:
            return ""
        name = "".join(c if c.isalnum() or c in "._-/" else "_" for c in str(span.file.path).rpartition("/")[2])
        return f' loc("{name}":{span.line}:{span.column})'

    def const(self, value: float, elem: str) -> str:
        """A scalar; equal ones are one value."""
        text = str(int(value)) if elem == "index" else number(value, elem)
        if (text, elem) not in self.constants:
            name = self.constants[text, elem] = f"%c{len(self.constants)}"
            written = text if elem == BOOL else f"{text} : {elem}"
            self.head.append(f"  {name} = arith.constant {written}")
        return self.constants[text, elem]

    def written(self, value: float, elem: str) -> str:
        """A literal as ``const`` writes it."""
        return number(value, elem)

    def index(self, size: Size) -> str:
        return self.const(size, "index") if isinstance(size, int) else size

    # ------------------------------------------------------------ sizes and numbers

    def index_op(self, op: str, left: Size, right: Size) -> Size:
        """``addi``, ``subi``, ``muli``, ``divui``, ``remui``, ``minui`` on sizes."""
        if isinstance(left, int) and isinstance(right, int):
            made = {"addi": left + right, "subi": left - right, "muli": left * right}
            made |= {"minui": min(left, right), "maxui": max(left, right)}
            if op in made:
                return made[op]
            return left // right if op == "divui" else left % right
        if (op, right) in (("muli", 1), ("addi", 0), ("subi", 0), ("divui", 1)):
            return left
        if (op, left) in (("muli", 1), ("addi", 0)):
            return right
        return self.let(f"arith.{op} {self.index(left)}, {self.index(right)} : index")

    def integer(self, size: Size) -> str:
        """A size as an i64."""
        return self.const(size, INT) if isinstance(size, int) else self.let(f"arith.index_cast {size} : index to i64")

    def int_op(self, op: str, left: str, right: str) -> str:
        return self.let(f"arith.{op} {left}, {right} : i64")

    def as_size(self, integer: str) -> str:
        return self.let(f"arith.index_cast {integer} : i64 to index")

    # ------------------------------------------------------------ tensors

    def empty(self, sizes: Sequence[Size], elem: str) -> str:
        dynamic = ", ".join(s for s in sizes if isinstance(s, str))
        return self.tensor(f"tensor.empty({dynamic}) : {tensor_type(sizes, elem)}", sizes, elem)

    def nearly_zero(self) -> float:
        """Below 1e-33, and each time another number: of several loop-carried tensors that begin as one, IREE 3.13 frees
        the memory too early, or lets them share it. Added to a sum it changes no number above 1e-25."""
        self.count += 1
        value = unlike_number(self.count, REAL)
        self.alone.add(self.const(value, REAL))
        return value

    def unlike(self, sizes: Sequence[Size], elem: str) -> str:
        """A tensor that is like no other one, nearly zero (``nearly_zero``)."""
        if elem == REAL:
            return self.fill(self.nearly_zero(), sizes, elem)
        self.count += 1
        value = unlike_number(self.count, elem)
        self.alone.add(self.const(value, elem))
        return self.fill(value, sizes, elem)

    def fill(self, value: float, sizes: Sequence[Size], elem: str) -> str:
        type = tensor_type(sizes, elem)
        start = self.empty(sizes, elem)
        what = f"linalg.fill ins({self.const(value, elem)} : {elem}) outs({start} : {type}) -> {type}"
        return self.tensor(what, sizes, elem)

    def cut(self, ssa: str, sizes: Sequence[Size], elem: str, dim: int, start: Size, length: Size | None) -> str:
        """``length`` entries along a dim; None: the one at ``start``, without the dim."""
        offsets: list[Size] = [start if n == dim else 0 for n in range(len(sizes))]
        wanted: list[Size] = [(1 if length is None else length) if n == dim else s for n, s in enumerate(sizes)]
        kept = [s for n, s in enumerate(wanted) if n != dim or length is not None]
        what = f"tensor.extract_slice {ssa}{_window(offsets, wanted)} : {tensor_type(sizes, elem)}"
        return self.tensor(f"{what} to {tensor_type(kept, elem)}", kept, elem)

    def put(
        self,
        part: tuple[str, Sequence[Size]],
        into: tuple[str, Sequence[Size]],
        elem: str,
        dim: int,
        start: Size,
        length: Size | None,
    ) -> str:
        """``into`` with ``part`` at ``start`` along a dim; ``length`` None: the part does not have the dim."""
        (ssa, own), (target, sizes) = part, into
        offsets: list[Size] = [start if n == dim else 0 for n in range(len(sizes))]
        wanted: list[Size] = [(1 if length is None else length) if n == dim else s for n, s in enumerate(sizes)]
        # IREE would let what makes the part write into the middle of the whole, as if that were aligned: it is not
        ssa = self.apart(ssa, own, elem)
        what = f"tensor.insert_slice {ssa} into {target}{_window(offsets, wanted)} : {tensor_type(own, elem)}"
        return self.tensor(f"{what} into {tensor_type(sizes, elem)}", sizes, elem)

    def expand(self, ssa: str, sizes: Sequence[Size], elem: str, groups: Sequence[Sequence[Size]]) -> str:
        """Each dim as several ones."""
        if all(len(g) == 1 for g in groups):
            return ssa
        flat = [s for g in groups for s in g]
        what = f"tensor.expand_shape {ssa} {_groups(groups)} output_shape [{', '.join(map(str, flat))}] :"
        return self.tensor(f"{what} {tensor_type(sizes, elem)} into {tensor_type(flat, elem)}", flat, elem)

    def collapse(
        self, ssa: str, sizes: Sequence[Size], elem: str, groups: Sequence[Sequence[Size]], result: Sequence[Size]
    ) -> str:
        """Several dims as one."""
        if all(len(g) == 1 for g in groups):
            return ssa
        types = tensor_type(sizes, elem), tensor_type(result, elem)
        return self.tensor(f"tensor.collapse_shape {ssa} {_groups(groups)} : {types[0]} into {types[1]}", result, elem)

    def tied(self, ssa: str, sizes: Sequence[Size], elem: str) -> str:
        """The same tensor, known to have these sizes: the compiler does not find out by itself that arguments, and what
        loops carry, have the same batch."""
        dynamic = [s for s in sizes if isinstance(s, str)]
        if not dynamic:
            return ssa
        what = f"flow.tensor.tie_shape {ssa} : {tensor_type(sizes, elem)}{{{', '.join(dynamic)}}}"
        return self.tensor(what, sizes, elem)

    def cast(self, ssa: str, sizes: Sequence[Size], wanted: Sequence[Size], elem: str) -> str:
        """The same tensor with other sizes known."""
        old, new = tensor_type(sizes, elem), tensor_type(wanted, elem)
        return ssa if old == new else self.tensor(f"tensor.cast {ssa} : {old} to {new}", wanted, elem)

    def generic(
        self,
        sizes: Sequence[Size],
        reduced: frozenset[int],
        ins: Sequence[tuple[str, Sequence[Size], str, Sequence[int]]],
        start: str,
        out: Sequence[int],
        elem: str,
        body: Sequence[str],
        names: tuple[Sequence[str], str],
    ) -> str:
        """One ``linalg.generic`` over dims of these sizes. ``ins``: tensor, sizes, type, dims; ``out``: the dims of the
        result; ``body`` uses the block arguments ``names`` and ends with the yield."""
        dims = ", ".join(f"d{n}" for n in range(len(sizes)))

        def affine(of: Sequence[int]) -> str:
            return f"affine_map<({dims}) -> ({', '.join(f'd{n}' for n in of)})>"

        kinds = ", ".join('"reduction"' if n in reduced else '"parallel"' for n in range(len(sizes)))
        maps = ", ".join([*(affine(i[3]) for i in ins), affine(out)])
        result = tensor_type([sizes[n] for n in out], elem)
        given = ""
        if ins:
            types = ", ".join(tensor_type(i[1], i[2]) for i in ins)
            given = f"ins({', '.join(i[0] for i in ins)} : {types}) "
        name = self.new()
        head = f"{name} = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{kinds}]}}"
        self.add(f"{head} {given}outs({start} : {result}) {{")
        arguments = [f"{n}: {i[2]}" for n, i in zip(names[0], ins, strict=True)] + [f"{names[1]}: {elem}"]
        self.add(f"^bb0({', '.join(arguments)}):")
        self.depth += 1
        for line in body:
            self.add(line)
        self.depth -= 1
        self.add(f"}} -> {result}", at=True)
        self.tensors[name] = (tuple(sizes[n] for n in out), elem)
        return name

    def pinned(self, tensor: Carried) -> str:
        """The same tensor, known to be on the one device there is. IREE does not find that out for what a loop carries
        if nobody says so, and then copies all of it in every round (and in some functions lost its memory)."""
        ssa, sizes, elem = tensor
        type, dynamic = tensor_type(sizes, elem), ", ".join(s for s in sizes if isinstance(s, str))
        tail = f"{{{dynamic}}}" if dynamic else ""
        ssa = self.let(f"flow.tensor.transfer {ssa} : {type}{tail} to #hal.device.promise<@{DEVICE}>")
        return self.apart(ssa, sizes, elem)

    def apart(self, ssa: str, sizes: Sequence[Size], elem: str) -> str:
        """The same tensor, of which the compiler does not know where it comes from."""
        what = f"util.optimization_barrier {ssa} : {tensor_type(sizes, elem)}"
        return self.tied(self.tensor(what, sizes, elem), sizes, elem)

    def first_round(self) -> str:
        """0, as the result of a call. IREE 3.13 decides when memory is free from what it sees in a function, and is
        wrong about what loops carry (freed too early, or written while it is read); it keeps out of functions that call
        others, where memory is free once nothing refers to it."""
        self.functions.setdefault("zero", _ZERO)
        return self.let("func.call @zero() : () -> index")

    @contextmanager
    def loop(
        self, count: Size, carried: Sequence[Carried]
    ) -> Iterator[tuple[str, list[str], Callable[[list[str]], list[str]]]]:
        """``scf.for`` over ``count`` rounds with tensors carried: the number of the round, the tensors in it, and how
        to end it, which gives the tensors after the loop (once the loop is left)."""
        begin, before = len(self.lines), self.count
        first = [self.pinned(tensor) for tensor in carried]
        zero = self.first_round() if self.depth == 1 else self.const(0, "index")
        number_, one = self.new(), self.const(1, "index")
        inside = [self.new() for _ in carried]
        self.last = result = self.new()
        types = ", ".join(tensor_type(sizes, elem) for _, sizes, elem in carried)
        given = ", ".join(f"{i} = {v}" for i, v in zip(inside, first, strict=True))
        head = f"scf.for {number_} = {zero} to {self.index(count)} step {one}"
        if carried:
            self.add(f"{result}:{len(carried)} = {head} iter_args({given}) -> ({types}) {{")
        else:
            self.add(f"{head} {{")
        self.depth += 1

        def end(values: list[str]) -> list[str]:
            # the place of a tensor inside a larger piece of memory is lost from one round to the next in IREE 3.13
            values = [self.apart(v, *t[1:]) for v, t in zip(values, carried, strict=True)]
            if carried:
                self.add(f"scf.yield {', '.join(values)} : {types}")
            return [f"{result}#{n}" for n in range(len(carried))]

        yield number_, [self.tied(i, *t[1:]) for i, t in zip(inside, carried, strict=True)], end
        self.depth -= 1
        self.add("}")
        for n, (_, sizes, elem) in enumerate(carried):
            self.tensors[f"{result}#{n}"] = (tuple(sizes), elem)
        if self.depth == 1 and carried and len(self.lines) - begin >= SHARED:
            gives = [(sizes, elem) for _, sizes, elem in carried]
            self.lines[begin:] = [called(self, self.lines[begin:], before, result, gives)]

    @contextmanager
    def only_if(
        self, condition: str, otherwise: Sequence[Carried]
    ) -> Iterator[tuple[list[str], Callable[[list[str]], object]]]:
        """A branch, as a loop of one round or none: values that leave an ``scf.if`` lose their memory in IREE 3.13. The
        results, which else are those of ``otherwise``, and how to end it."""
        zero, one = self.const(0, "index"), self.const(1, "index")
        rounds = self.let(f"arith.select {condition}, {one}, {zero} : index")
        with self.loop(rounds, otherwise) as (_, _, close):
            ended: list[list[str]] = []
            names = [f"{self.last}#{n}" for n in range(len(otherwise))]
            yield names, ended.append
            close(ended[0])

    def positive(self, size: Size) -> str:
        """Whether a size is not 0."""
        return self.let(f"arith.cmpi ne, {self.index(size)}, {self.const(0, 'index')} : index")


def _window(offsets: Sequence[Size], sizes: Sequence[Size]) -> str:
    ones = ", ".join("1" for _ in sizes)
    return f"[{', '.join(map(str, offsets))}] [{', '.join(map(str, sizes))}] [{ones}]"


def _groups(groups: Sequence[Sequence[Size]]) -> str:
    found, at = [], 0
    for group in groups:
        found.append("[" + ", ".join(str(at + n) for n in range(len(group))) + "]")
        at += len(group)
    return "[" + ", ".join(found) + "]"


__all__ = ["REAL", "Text", "number", "tensor_type"]
