"""The text of one launch of an update with products or sums (``update_schedule.py``).

    numbers of the lane | the sum over k, if there is one | what follows entry by entry | stores, parts of sums

A lane is one copy of a parameter; a program has a tile of i and j. Sizes are numbers in the text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nldsl.backends.triton.builder import RESERVED
from nldsl.backends.triton.names import Names, mentions
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.scalar_text import Lines, Term, literal, worth_a_name
from nldsl.backends.triton.update_entries import signature
from nldsl.backends.triton.update_schedule import Launch, Schedule
from nldsl.backends.triton.update_values import WEIGHT, Index, Product, Values
from nldsl.ir.types import Clock

Layout = tuple[str, str]  # the indices along the rows and columns of a tile
Array = tuple[str, int | str]  # ("space", value), ("parts", value), ("state", name), ("input", name)
TILE: Layout = ("i", "j")
LONG = 1024  # parts that a launch adds up at once
FIXED = frozenset(
    "lane tile tile_i tile_j i j k first part at lanes_ptr rate REAL DOT KIND PRECISION ALIGNED STORED number row_of "
    "tile_of".split()
)
CONSTANTS = ("KIND", "REAL", "DOT", "PRECISION", "ALIGNED", "STORED")


@dataclass(frozen=True)
class LaunchText:
    """A kernel without its name (``NAME`` stands for it), what it takes, and how it is launched."""

    text: str
    arrays: tuple[Array, ...]  # tensors, in the order of the parameters
    numbers: tuple[str, ...]  # which of the shared numbers (and flags, and the rate) it takes
    constants: tuple[str, ...]
    lanes: bool  # whether it takes the table of addresses
    tiles: int
    warps: int
    guard: Clock | None


@dataclass
class Region:
    """Lines of a part of a kernel, and the entries that are known in it."""

    lines: Lines
    known: dict[tuple[int, Index, Layout], Term] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)


class LaunchWriter:
    """``depth``: how much of a sum of a product a program takes at once; ``before``: what was in memory."""

    def __init__(
        self, values: Values, schedule: Schedule, launch: Launch, number: int, depth: int, numbers: dict[object, str]
    ) -> None:
        self.v, self.launch, self.depth = values, launch, depth
        earlier = schedule.launches[:number]
        finals = {n for other in earlier for n in other.finals}
        self.spaces = {v for other in earlier for v in other.stores}
        self.states = {v: n for v, n in schedule.states.items() if n in finals}
        self.parts = {v: other for other in earlier for v in other.parts}
        self.numbers = numbers
        self.names = Names({*FIXED, *RESERVED, *numbers.values()})
        self.array_names = Names()
        self.arrays: dict[Array, str] = {}
        self.head = Region(Lines(self.names))
        self.loop = Region(Lines(self.names))
        self.tail = Region(Lines(self.names))
        self.bases: dict[str, str] = {}
        self.sizes = {"i": launch.space[0], "j": launch.space[1]}
        self.blocks = {"i": launch.tile[0], "j": launch.tile[1]}

    def write(self) -> LaunchText:
        launch = self.launch
        product = self._product(self.v.products[launch.product]) if launch.product is not None else []
        for value in launch.finishes:
            self._finish(value)
        self._stores()
        for value in launch.parts:
            self._part(value)
        body = [*self.bases.values(), *self.head.lines.lines, *product, *self.tail.lines.lines]
        return self._assembled(body)

    # ------------------------------------------------------------ the frame

    def _assembled(self, body: list[str]) -> LaunchText:
        launch, text = self.launch, "\n".join(body)
        tiles = launch.tiles
        head = ["lane = tl.program_id(1).to(tl.int64)"]
        indices = []
        for axis, place in (("i", 0), ("j", 1)):
            if mentions(text, axis):
                size = launch.tile[place]
                block = f"tl.arange(0, {size})"
                indices.append(f"{axis} = {f'tile_{axis} * {size} + ' if tiles[place] > 1 else ''}{block}")
        text = "\n".join([*indices, *body])
        if launch.mirrored:
            indices = ["if tile_i < tile_j:", f"{INDENT}return  # a copy of the tile below the diagonal", *indices]
        if launch.product is not None and tiles != (1, 1):
            head.append(f"tile_i, tile_j = tile_of(tl.program_id(0), {tiles[0]}, {tiles[1]})")
        elif tiles != (1, 1):
            head += [f"tile_i = tl.program_id(0) // {tiles[1]}"] * mentions(text, "tile_i")
            head += [f"tile_j = tl.program_id(0) % {tiles[1]}"] * mentions(text, "tile_j")
        numbers = [n for n in (*self.numbers.values(), "rate") if mentions(text, n)]
        head += [f"{n} = number({n}, STORED, REAL)" for n in numbers]
        body = [*head, *indices, *body]
        text = "\n".join(body)
        lanes = mentions(text, "lanes_ptr")
        constants = [c for c in CONSTANTS if mentions(text, c)]
        arrays = {key: name for key, name in self.arrays.items() if key[0] != "input"}
        arguments = [f"{name}_ptr" for name in arrays.values()] + ["lanes_ptr"] * lanes + numbers
        arguments += [f"{c}: tl.constexpr" for c in constants]
        lines = [*signature("NAME", arguments), f'{INDENT}"""{self._title()}"""', *(INDENT + line for line in body)]
        entries = launch.tile[0] * launch.tile[1]
        warps = 8 if entries >= 128 * 128 or (launch.product is None and entries >= 4096) else 4 if entries > 256 else 1
        warps = max(warps, 4) if launch.product is not None else warps
        return LaunchText(
            "\n".join(lines),
            tuple(arrays),
            tuple(numbers),
            tuple(constants),
            lanes,
            tiles[0] * tiles[1],
            warps,
            launch.guard,
        )

    def _title(self) -> str:
        """What the kernel is for, in a line."""
        launch = self.launch
        made = [self._hint(v) for v in launch.stores] + [n.rpartition(".")[2] for n in launch.finals]
        what = ", ".join(dict.fromkeys(made)) or "parts of sums"
        if launch.product is not None:
            return f"{what}: from a product of matrices, {launch.space[0]} x {launch.space[1]}."
        return f"{what}: {'sums, ' if launch.finishes else ''}entry by entry."

    # ------------------------------------------------------------ names and places

    def _hint(self, value: int) -> str:
        names = [n.rpartition(".")[2] for n, v in self.v.finals.items() if v == value]
        return self.v.body[value].name or (f"new_{names[0]}" if names else "x")

    def _array(self, key: Array, hint: str) -> str:
        if key not in self.arrays:
            self.arrays[key] = self.array_names.new(hint)
        return self.arrays[key]

    def _base(self, key: Array, hint: str, size: int) -> str:
        """A pointer to what belongs to this lane."""
        array = self._array(key, hint)
        if array not in self.bases:
            if key[0] == "input":
                place = 0 if key[1] == "g" else 1
                text = f"row_of(lanes_ptr + 2 * lane + {place}, KIND, ALIGNED)"
            else:
                text = f"{array}_ptr + lane * {size}" if size != 1 else f"{array}_ptr + lane"
            self.bases[array] = f"{array}_at = {text}"
        return f"{array}_at"

    def _along(self, axis: str, layout: Layout) -> str:
        return f"{axis}[:, None]" if axis == layout[0] else f"{axis}[None, :]"

    def _place(self, shape: tuple[int, ...], index: Index, layout: Layout) -> str:
        """The offset of an entry, empty for the first."""
        parts, stride = [], 1
        for axis, size in reversed(list(zip(index, shape, strict=True))):
            if axis is not None:
                text = self._along(axis, layout)
                parts.append(text if stride == 1 else f"{text} * {stride}")
            stride *= size
        return "".join(f" + {p}" for p in reversed(parts))

    def _mask(self, index: Index, layout: Layout, region: Region) -> str:
        """What is inside along these indices, as a variable; empty where everything is."""
        axes = dict.fromkeys(a for a in index if a is not None and self.sizes[a] % self.blocks[a])
        text = " & ".join(f"({self._along(a, layout)} < {self.sizes[a]})" for a in axes)
        if text and text not in region.masks:
            plain = text[1:-1] if len(axes) == 1 else text
            region.masks[text] = region.lines.named(Term(plain, 0), "inside").text
        return region.masks.get(text, "")

    def _load(self, base: str, shape: tuple[int, ...], index: Index, layout: Layout, region: Region) -> str:
        mask = self._mask(index, layout, region)
        more = f", mask={mask}, other=0.0" if mask else ""
        return f"tl.load({base}{self._place(shape, index, layout)}{more})"

    # ------------------------------------------------------------ entries

    def _at(self, value: int, index: Index, layout: Layout, region: Region) -> Term:
        """The entries of a value for a tile."""
        if not any(index):
            region, layout = self.head, TILE  # a number of the lane: before any loop
        key = value, index, layout
        if key in region.known:
            return region.known[key]
        term = self._entry(value, index, layout, region)
        region.known[key] = term
        return term

    def _memory(self, value: int) -> tuple[Array, str] | None:
        """Where a value lies in memory, as an array and a name for it."""
        instr = self.v.body[value]
        if value in self.states:
            name = self.states[value]
            return ("state", name), name.rpartition(".")[2]
        if value in self.spaces:
            return ("space", value), self._hint(value)
        if instr.op == "input":
            return ("input", instr.attr("input")), instr.attr("input")
        if instr.op == "state":
            return ("state", instr.attr("state")), instr.attr("state").rpartition(".")[2]
        return None

    def _entry(self, value: int, index: Index, layout: Layout, region: Region) -> Term:
        instr = self.v.body[value]
        if instr.op == "const":
            return literal(instr.attr("value"))
        if value in self.v.numbers:
            return Term(self.numbers[value])
        place = self._memory(value)
        if place is not None:
            key, hint = place
            shape = self.v.shape(value)
            text = self._load(self._base(key, hint, _product(shape)), shape, index, layout, region)
            return region.lines.named(Term(f"{text}.to(REAL)"), hint)
        if value in self.parts:
            return self._inline_sum(value)
        if instr.op == "iota":
            return literal(0.0) if index[0] is None else Term(self._along(index[0], layout), kind="int")
        args = [self._at(a, at, layout, region) for a, at in self.v.operands(value, index)]
        if instr.op in ("reshape", "broadcast", "stop_grad", "fixed"):
            return args[0]
        fires = str(self.numbers[instr.attr("clock")]) if instr.op == "when" else ""
        term = args[0]
        if instr.op == "einsum":
            for other in args[1:]:
                term = region.lines.operation("mul", [term, other])
        else:
            term = region.lines.value(instr, args, fires)
        uses = len(self.v.users[value]) + (value in self.launch.stores)
        return region.lines.named(term, self._hint(value)) if worth_a_name(term, uses, bool(instr.name)) else term

    def _inline_sum(self, value: int) -> Term:
        launch = self.parts[value]
        count = launch.tiles[0] * launch.tiles[1]
        base = self._base(("parts", value), f"{self._hint(value)}_parts", count)
        if count == 1:
            return self.head.lines.named(Term(f"tl.load({base})"), self._hint(value))
        function, neutral = self._reduction(value)
        part = f"tl.arange(0, {_power(count)})"
        mask = "" if count == _power(count) else f", mask={part} < {count}, other={neutral}"
        return self.head.lines.named(Term(f"{function}(tl.load({base} + {part}{mask}), 0)"), self._hint(value))

    def _reduction(self, value: int) -> tuple[str, str]:
        return ("tl.max", 'float("-inf")') if self.v.sums[value].op == "max" else ("tl.sum", "0.0")

    # ------------------------------------------------------------ products

    def _product(self, product: Product) -> list[str]:
        """The loop over k; the result is an entry of the tile."""
        depth = min(self.depth, max(16, _power(product.size)))
        self.sizes["k"], self.blocks["k"] = product.size, depth
        assert self.launch.product is not None
        name = self.names.new(self._hint(self.launch.product))
        left = self._operand(product.left, product.left_index, ("i", "k"))
        right = self._operand(product.right, product.right_index, ("k", "j"))
        lines = self.loop.lines.lines
        step = f"{name} = tl.dot({left}, {right}, {name}, input_precision=PRECISION, out_dtype=REAL)"
        self.tail.known[self.launch.product, TILE, TILE] = Term(name)
        return [
            f"{name} = tl.zeros(({self.blocks['i']}, {self.blocks['j']}), REAL)",
            f"for first in range(0, {product.size}, {depth}):",
            f"{INDENT}k = first + tl.arange(0, {depth})",
            *(INDENT + line for line in lines),
            INDENT + step,
        ]

    def _operand(self, value: int, index: Index, layout: Layout) -> str:
        hint = "left" if layout == ("i", "k") else "right"
        place = self._memory(value)
        if place is not None:
            shape = self.v.shape(value)
            text = f"{self._load(self._base(*place, _product(shape)), shape, index, layout, self.loop)}.to(DOT)"
        else:
            term = self._at(value, index, layout, self.loop)
            full = self._full(term, layout)
            mask = self._mask(("k",), layout, self.loop)
            text = f"tl.where({mask}, {full}, 0.0).to(DOT)" if mask else f"({full}).to(DOT)"
        return self.loop.lines.named(Term(text), hint).text

    def _full(self, term: Term, layout: Layout) -> str:
        """A term with all entries of a tile."""
        text = self._real(term)
        return f"tl.broadcast_to({text}, ({self.blocks[layout[0]]}, {self.blocks[layout[1]]}))"

    def _real(self, term: Term) -> str:
        if term.kind != "real":
            return f"({term.text}).to(REAL)"
        return term.text if term.number is None else f"tl.full((), {term.text}, REAL)"

    # ------------------------------------------------------------ sums and stores

    def _finish(self, value: int) -> None:
        """Add up the parts that another launch has left."""
        launch = self.parts[value]
        function, neutral = self._reduction(value)
        over = self.v.sums[value].over
        name = self.names.new(self._hint(value))
        size = _product(self.v.shape(value))
        tiles = launch.tiles[0] if over == {"i"} else launch.tiles[1] if over == {"j"} else 0
        count = tiles if size > 1 or self.v.shape(value) else launch.tiles[0] * launch.tiles[1]
        base = self._base(("parts", value), f"{self._hint(value)}_parts", count * size)
        lines = self.head.lines.lines
        add = "tl.maximum({}, {})" if function == "tl.max" else "{} + {}"
        if self.v.shape(value):
            mask = self._mask(("j",), TILE, self.head)
            load = f"tl.load({base} + part * {size} + j[None, :]" + (
                f", mask={mask}, other={neutral})" if mask else ")"
            )
            lines.append(f"{name} = tl.full((1, {self.blocks['j']}), {neutral}, REAL)")
            lines += [f"for part in range({count}):", f"{INDENT}{name} = {add.format(name, load)}"]
            self.tail.known[value, ("j",), TILE] = Term(name)
            self.head.known[value, ("j",), TILE] = Term(name)
            return
        lines.append(f"{name} = tl.full(({LONG},), {neutral}, REAL)")
        lines += [f"for first in range(0, {count}, {LONG}):", f"{INDENT}part = first + tl.arange(0, {LONG})"]
        load = f"tl.load({base} + part, mask=part < {count}, other={neutral})"
        lines.append(f"{INDENT}{name} = {add.format(name, load)}")
        total = self.head.lines.named(Term(f"{function}({name}, 0)"), self._hint(value))
        self.head.known[value, (), TILE] = total

    def _stores(self) -> None:
        """All that is stored is computed before: a state may take the value of another one."""
        launch, lines = self.launch, []
        for value in launch.stores:
            term = self._at(value, self.v.natural(value), TILE, self.tail)
            base = self._base(("space", value), self._hint(value), _product(self.v.shape(value)))
            lines += self._store(base, value, term)
        for name in launch.finals:
            value = self.v.finals[name]
            term = self._at(value, self.v.natural(value), TILE, self.tail)
            if name == WEIGHT:
                base = self._base(("input", WEIGHT), WEIGHT, _product(self.v.shape(value)))
                old = self._weight(value, base)
                change = self.tail.lines.operation("mul", [Term("rate"), term])
                term = self.tail.lines.operation("add", [old, change])
            else:
                base = self._base(("state", name), name.rpartition(".")[2], _product(self.v.shape(value)))
            lines += self._store(base, value, term)
        self.tail.lines.lines += lines

    def _weight(self, value: int, base: str) -> Term:
        index = self.v.natural(value)
        for (known, at, layout), term in self.tail.known.items():
            instr = self.v.body[known]
            if instr.op == "input" and instr.attr("input") == WEIGHT and (at, layout) == (index, TILE):
                return term
        load = self._load(base, self.v.shape(value), index, TILE, self.tail)
        return self.tail.lines.named(Term(f"{load}.to(REAL)"), WEIGHT)

    def _store(self, base: str, value: int, term: Term) -> list[str]:
        shape, index = self.v.shape(value), self.v.natural(value)
        term = self.tail.lines.named(term, "x") if self.launch.mirrored else term
        text = self._real(term)
        lines = []
        for layout in (TILE, ("j", "i")) if self.launch.mirrored else (TILE,):
            mask = self._mask(index, layout, self.tail)
            if layout == ("j", "i"):
                text = f"tl.trans({self._full(term, TILE)})"
                place = self._place(shape, ("j", "i"), layout)
            else:
                place = self._place(shape, index, layout)
            lines.append(f"tl.store({base}{place}, {text}{f', mask={mask}' if mask else ''})")
        return lines

    def _part(self, value: int) -> None:
        """What a tile adds to a sum."""
        made = self.v.sums[value]
        lines = self.tail.lines
        terms = [self._at(a, index, TILE, self.tail) for a, index in made.factors]
        term = terms[0]
        for other in terms[1:]:
            term = lines.operation("mul", [term, other])
        function, neutral = self._reduction(value)
        text = self._full(term, TILE)
        mask = self._mask(TILE, TILE, self.tail)
        if mask:
            text = f"tl.where({mask}, {text}, {neutral})"
        tiles, space = self.launch.tiles, self.launch.space
        size = _product(self.v.shape(value))
        if not self.v.shape(value):
            base = self._base(("parts", value), f"{self._hint(value)}_parts", tiles[0] * tiles[1])
            where = f" + tile_i * {tiles[1]} + tile_j" if tiles != (1, 1) else ""
            lines.lines.append(f"tl.store({base}{where}, {function}({function}({text}, 1), 0))")
            return
        kept, axis = ("j", 0) if made.over == {"i"} else ("i", 1)
        count = tiles[axis]
        base = self._base(("parts", value), f"{self._hint(value)}_parts", count * size)
        where = f" + tile_{'ij'[axis]} * {size}" if count > 1 else ""
        bound = f", mask={kept} < {size}" if space["ij".index(kept)] % self.blocks[kept] else ""
        lines.lines.append(f"tl.store({base}{where} + {kept}, {function}({text}, {axis}){bound})")


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


def _power(size: int) -> int:
    return 1 << (size - 1).bit_length()
