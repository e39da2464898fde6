"""An update of all entries of many tensors as kernels: one launch, and one before it for each depth of sums.

    name_entries     what is done to some entries of one tensor, given where they lie
    name_update      a launch over the blocks of all tensors: reads and writes every state and weight once
    name_sums_1, ..  launches over pieces of tensors, which leave a part of each sum

Tensors are found by a table; sums are finished by whoever needs them, always in the same order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.backends.triton.builder import RESERVED
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.names import Names, mentions
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.scalar_text import Lines, Term, literal, worth_a_name
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.ir.entrywise import ENTRY, OWN, REDUCTIONS, SHARED, Tensorwise
from nldsl.ir.program import Instr

IMPORTS = ("import triton", "import triton.language as tl")
MOST_VALUES = 2000
COLUMNS = "G WEIGHT START COUNT WIDE FIRST PIECES LENGTH ALL".split()  # of the table of tensors
# what the kernels call their own
FIXED = frozenset(
    "tensors_ptr blocks_ptr pieces_ptr partials_ptr given_ptr row begin end count inner inside whole tensor block "
    "piece part number total largest rate SIZE PARTS KIND REAL ROW STORED g_at weight_at at".split()
    + COLUMNS
)


@dataclass(frozen=True)
class EntryKernels:
    """The kernels of a rule; ``sums`` are the names of the launches before ``update``.

    All take: the table of tensors, that of blocks (of pieces, for sums), the states of entries, of each state that is
    one number per tensor the old and the new values, the parts of sums, the given numbers, then the shared values in
    the order of ``Entrywise.needed_numbers``, the flags of ``needed_clocks``, the rate. What there is none of is left
    out."""

    source: str
    sums: tuple[str, ...]
    update: str
    partials: int  # how many sums there are
    given: int  # how many numbers each tensor brings
    states: tuple[str, ...]  # those of entries, as the program calls them
    held: tuple[str, ...]  # those that are one number for each tensor


def write_entries(rule: Tensorwise, title: str = "optimizer") -> EntryKernels:
    """The kernels of an update. Raises UnsupportedError for an operation that has no form in a kernel."""
    if len(rule.body) > MOST_VALUES:
        raise UnsupportedError(f"the update has {len(rule.body)} operations")
    return Writer(rule, title).write()


@dataclass
class Scope:
    """The lines of one function, and the term of each value in it."""

    lines: Lines
    terms: dict[int, Term] = field(default_factory=dict)


class Writer:
    """Writes the kernels of one rule."""

    def __init__(self, rule: Tensorwise, title: str) -> None:
        self.rule, self.title = rule, title
        self.kinds, self.depths = rule.kinds(), rule.depths()
        self.sums = [v for v, instr in enumerate(rule.body) if instr.op in REDUCTIONS and v in self._live()]
        names = Names({*FIXED, *RESERVED})
        self.state_names = {name: names.new(name.rpartition(".")[2]) for name, _, _ in rule.states}
        self.held_names = {name: names.new(name.rpartition(".")[2]) for name, _, _ in rule.numbers}
        shared = rule.shared()
        self.numbers = {v: names.new(rule.body[v].name or f"x{v}") for v in shared.needed_numbers()}
        self.flags = {clock: names.new("fires") for clock in shared.needed_clocks()}
        self.sum_names = {v: names.new(rule.body[v].name or f"sum_{n}") for n, v in enumerate(self.sums)}
        own = {*self.numbers.values(), *self.flags.values(), *self.sum_names.values()}
        self.taken = {*FIXED, *RESERVED, *own}
        self.hints = {value: f"new_{self.state_names[name]}" for name, _, value in rule.states}
        self.hints |= {value: f"new_{self.held_names[name]}" for name, _, value in rule.numbers}

    def write(self) -> EntryKernels:
        depths = sorted({self.depths[v] for v in self.sums})
        parts = [part for depth in depths for part in self._sum_kernel(depth)]
        parts += self._update_kernel()
        body = "\n\n\n".join(parts)
        library = [*called("update_library_kernels", body)]
        library = [*called("library", "\n".join([*library, body])), *library]
        head = [f'"""The update of {self.title} in kernels, compiled by nldsl."""', "", *IMPORTS, ""]
        head += [
            "# what the table of tensors has for each: addresses, the place of its states, entries, pieces for sums"
        ]
        head += [f"{name} = tl.constexpr({n})" for n, name in enumerate(COLUMNS)]
        head += [f"ROW = tl.constexpr({len(COLUMNS)})"]
        return EntryKernels(
            "\n\n\n".join(["\n".join(head), *library, *parts]) + "\n",
            tuple(f"{self.title}_sums_{depth}" for depth in depths),
            f"{self.title}_update",
            len(self.sums),
            self._given(),
            tuple(self.state_names),
            tuple(self.held_names) if self.rule.has_sums else (),
        )

    # ------------------------------------------------------------ which values

    def _live(self) -> set[int]:
        return self._needed(self.rule.roots(), lambda _: False)

    def _needed(self, roots: Iterable[int], known: Callable[[int], bool]) -> set[int]:
        """The values that ``roots`` need, not through what is ``known``."""
        found: set[int] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value not in found:
                found.add(value)
                if not known(value):
                    stack.extend(self.rule.body[value].args)
        return found

    def _is_number(self, value: int) -> bool:
        return self.kinds[value] == SHARED

    # ------------------------------------------------------------ the function for some entries

    def _entries(self, name: str, roots: Sequence[int], sums: Sequence[int]) -> tuple[list[str], list[str], str]:
        """The function for the entries of a block: the arrays it takes, the numbers it takes, its text. It gives what
        is added to ``sums``, or stores the new values where there are none."""
        store = not sums
        body = self.rule.body
        values = self._needed(roots, lambda v: self.kinds[v] != ENTRY)
        outer = sorted(v for v in values if self.kinds[v] != ENTRY and body[v].op != "const")
        names = Names(self.taken)
        scope = Scope(Lines(names))
        given: list[str] = []
        for value in outer:
            text = self.numbers.get(value) or self.sum_names.get(value) or names.new(body[value].name or f"x{value}")
            scope.terms[value] = Term(text)
            given.append(text)
        clocks = {body[v].attr("clock") for v in values if body[v].op == "when" and self.kinds[v] == ENTRY}
        given += [text for clock, text in self.flags.items() if clock in clocks]
        arrays = self._arrays(values, store)
        uses = Counter(a for v in values if self.kinds[v] == ENTRY for a in body[v].args)
        uses.update(roots)
        for value in sorted(values):
            if body[value].op == "const":
                scope.terms[value] = literal(body[value].attr("value"))
            elif self.kinds[value] == ENTRY:
                scope.terms[value] = self._entry(scope.lines, value, scope.terms, uses[value])
        if store:
            self._stores(scope)
        else:
            self._parts(scope, sums)
        head = [*(f"{a}_at" for a in arrays), "inside", *given, *(["rate"] if store else []), "REAL: tl.constexpr"]
        text = "\n".join([*signature(name, head), *(INDENT + line for line in scope.lines.lines)])
        return arrays, given, text

    def _arrays(self, values: set[int], store: bool) -> list[str]:
        """The tensors that a function reads or writes: gradient, weight, states."""
        read = {self._array(self.rule.body[v]) for v in values if self.rule.body[v].op in ("input", "state")}
        every = ["g", "weight", *self.state_names.values()]
        wanted = read | {"weight", *self.state_names.values()} if store else read
        return [a for a in every if a in wanted]

    def _array(self, instr: Instr) -> str:
        return instr.attr("input") if instr.op == "input" else self.state_names.get(instr.attr("state"), "")

    def _entry(self, lines: Lines, value: int, terms: dict[int, Term], uses: int) -> Term:
        instr = self.rule.body[value]
        if instr.op in ("input", "state"):
            array = self._array(instr)
            return lines.named(Term(f"tl.load({array}_at, mask=inside, other=0.0).to(REAL)"), array)
        fires = self.flags[instr.attr("clock")] if instr.op == "when" else ""
        term = lines.value(instr, [terms[a] for a in instr.args], fires)
        if worth_a_name(term, uses, bool(instr.name)):
            return lines.named(term, self._hint(value))
        return term

    def _hint(self, value: int) -> str:
        return self.rule.body[value].name or self.hints.get(value, "x")

    def _stores(self, scope: Scope) -> None:
        """All that is stored is computed before: a state may take the value of another one."""
        weight = next((t for v, t in scope.terms.items() if self._is_weight(v)), None)
        if weight is None:
            weight = scope.lines.named(Term("tl.load(weight_at, mask=inside, other=0.0).to(REAL)"), "weight")
        added = scope.lines.operation("mul", [Term("rate"), scope.terms[self.rule.change]])
        new = [(self.state_names[name], scope.terms[value]) for name, _, value in self.rule.states]
        new.append(("weight", scope.lines.operation("add", [weight, added])))
        for array, term in new:
            text = term.text if term.kind == "real" else f"({term.text}).to(REAL)"
            scope.lines.lines.append(f"tl.store({array}_at, {text}, mask=inside)")

    def _is_weight(self, value: int) -> bool:
        instr = self.rule.body[value]
        return instr.op == "input" and bool(instr.attr("input") == "weight")

    def _parts(self, scope: Scope, sums: Sequence[int]) -> None:
        """What the entries add to each sum; outside of the tensor what changes nothing."""
        found = []
        for value in sums:
            term = scope.terms[self.rule.body[value].args[0]]
            text = term.text if term.kind == "real" else f"({term.text}).to(REAL)"
            found.append(f"tl.where(inside, {text}, {self._neutral(value)})")
        scope.lines.lines.append(f"return {', '.join(found)}")

    def _neutral(self, value: int) -> str:
        return "0.0" if self.rule.body[value].op == "sum" else 'float("-inf")'

    # ------------------------------------------------------------ numbers of one tensor

    def _own(self, roots: Iterable[int], lines: Lines) -> dict[int, Term]:
        """The numbers that a tensor has of its own, from finished sums and what it brings."""
        body = self.rule.body
        values = self._needed(roots, lambda v: self.kinds[v] == SHARED or body[v].op in REDUCTIONS)
        terms: dict[int, Term] = {}
        for value in sorted(values):
            instr = body[value]
            if instr.op == "const":
                terms[value] = literal(instr.attr("value"))
            elif self.kinds[value] == SHARED:
                terms[value] = Term(self.numbers[value])
            elif instr.op in REDUCTIONS:
                place, function = self.sums.index(value), "total" if instr.op == "sum" else "largest"
                text = f"{function}(partials_ptr, {place}, row, PARTS)"
                terms[value] = lines.named(Term(text), self.sum_names[value])
            elif instr.op == "given":
                text = f"tl.load(given_ptr + tensor * {self._given()} + {instr.attr('slot')})"
                terms[value] = lines.named(Term(text), f"given_{instr.attr('slot')}")
            elif instr.op == "state":
                name = self.held_names[instr.attr("state")]
                terms[value] = lines.named(Term(f"tl.load({name}_ptr + tensor).to(REAL)"), name)
            else:
                fires = self.flags[instr.attr("clock")] if instr.op == "when" else ""
                terms[value] = lines.named(lines.value(instr, [terms[a] for a in instr.args], fires), self._hint(value))
        return terms

    def _given(self) -> int:
        return sum(instr.op == "given" for instr in self.rule.body)

    def _prologue(self, roots: Sequence[int], more: Sequence[int] = ()) -> tuple[list[str], dict[int, Term]]:
        """Lines that compute the numbers of the tensor that entries need (and ``more``), and what each is."""
        lines = Lines(Names(self.taken))
        values = self._needed(roots, lambda v: self.kinds[v] != ENTRY)
        own = [v for v in values if self.kinds[v] == OWN]
        terms = self._own([*own, *more], lines)
        return lines.lines, terms

    # ------------------------------------------------------------ launches

    def _sum_kernel(self, depth: int) -> list[str]:
        name = f"{self.title}_sums_{depth}"
        sums = [v for v in self.sums if self.depths[v] == depth]
        roots = list(dict.fromkeys(self.rule.body[v].args[0] for v in sums))
        arrays, given, text = self._entries(f"{name}_entries", roots, sums)
        lines, terms = self._prologue(roots)
        passed = self._passed(given, terms, roots)
        parts = [self.sum_names[v] for v in sums]
        found = [f"part_{n}" for n in range(len(sums))]
        call = f"{name}_entries({{}}, {', '.join([*passed, 'REAL'])})"
        body = [
            "piece = tl.program_id(0).to(tl.int64)",
            "tensor = tl.load(pieces_ptr + 2 * piece)",
            "row = tensors_ptr + tensor * ROW",
            *lines,
            "begin = tl.load(pieces_ptr + 2 * piece + 1)",
            "end = tl.minimum(begin + tl.load(row + LENGTH), tl.load(row + COUNT))",
            "whole = begin + (end - begin) // SIZE * SIZE",
            "whole = tl.where(tl.load(row + WIDE) != 0, whole, begin)",
        ]
        for value, part in zip(sums, parts, strict=True):
            body.append(f"{part} = tl.full((SIZE,), {self._neutral(value)}, REAL)")
        for first, last, wide in (("begin", "whole", True), ("whole", "end", False)):
            body.append(f"for at in range({first}, {last}, SIZE):")
            mask = "tl.full((SIZE,), True, tl.int1)" if wide else "inner < end"
            inside = ["inner = at + tl.arange(0, SIZE)", *self._places(arrays, wide), f"inside = {mask}"]
            inside.append(f"{', '.join(found)} = {call.format(', '.join([*(f'{a}_at' for a in arrays), 'inside']))}")
            for value, part, now in zip(sums, parts, found, strict=True):
                plus = f"{part} + {now}" if self.rule.body[value].op == "sum" else f"tl.maximum({part}, {now})"
                inside.append(f"{part} = {plus}")
            body += [INDENT + line for line in inside]
        for value, part in zip(sums, parts, strict=True):
            function = "tl.sum" if self.rule.body[value].op == "sum" else "tl.max"
            place = self.sums.index(value)
            body.append(f"tl.store(partials_ptr + {place} * tl.num_programs(0) + piece, {function}({part}, 0))")
        return [text, self._kernel(name, "pieces_ptr", body)]

    def _update_kernel(self) -> list[str]:
        name = f"{self.title}_update"
        roots = [value for _, _, value in self.rule.states] + [self.rule.change]
        arrays, given, text = self._entries(f"{self.title}_entries", roots, ())
        held = {self.held_names[n]: value for n, _, value in self.rule.numbers} if self.rule.has_sums else {}
        lines, terms = self._prologue(roots, tuple(held.values()))
        passed = self._passed(given, terms, roots)
        body = [
            "block = tl.program_id(0).to(tl.int64)",
            "tensor = tl.load(blocks_ptr + 2 * block)",
            "row = tensors_ptr + tensor * ROW",
            "rate = number(rate, STORED, REAL)",
            *lines,
            "begin = tl.load(blocks_ptr + 2 * block + 1)",
            "count = tl.load(row + COUNT)",
            "inner = begin + tl.arange(0, SIZE)",
        ]
        call = ", ".join([*(f"{a}_at" for a in arrays), "inside", *passed, "rate", "REAL"])
        for head, wide in (("if (begin + SIZE <= count) & (tl.load(row + WIDE) != 0):", True), ("else:", False)):
            mask = "tl.full((SIZE,), True, tl.int1)" if wide else "inner < count"
            inside = [*self._places(arrays, wide), f"inside = {mask}", f"{self.title}_entries({call})"]
            body += [head, *(INDENT + line for line in inside)]
        if held:
            body.append("if begin == 0:")
            for array, value in held.items():
                body.append(f"{INDENT}tl.store({array}_new_ptr + tensor, {terms[value].text})")
        return [text, self._kernel(name, "blocks_ptr", body)]

    def _passed(self, given: list[str], terms: dict[int, Term], roots: Sequence[int]) -> list[str]:
        """What stands for each number that the function of entries takes."""
        body = self.rule.body
        values = self._needed(roots, lambda v: self.kinds[v] != ENTRY)
        outer = sorted(v for v in values if self.kinds[v] != ENTRY and body[v].op != "const")
        texts = [terms[v].text if v in terms else self.numbers[v] for v in outer]
        return [*texts, *given[len(outer) :]]

    def _places(self, arrays: list[str], wide: bool) -> list[str]:
        """Where the entries lie. ``wide``: all addresses are multiples of 16 bytes."""
        lines = []
        for array in arrays:
            if array in ("g", "weight"):
                place = f"tl.load(row + {array.upper()}).to(tl.pointer_type(KIND))"
                lines.append(f"{array}_at = {f'tl.multiple_of({place}, 16)' if wide else place} + inner")
            else:
                place = "tl.load(row + START)"
                lines.append(f"{array}_at = {array}_ptr + {f'tl.multiple_of({place}, 16)' if wide else place} + inner")
        return lines

    def _kernel(self, name: str, work: str, body: list[str]) -> str:
        text = "\n".join(body)
        lines = [
            f"{n} = number({n}, STORED, REAL)"
            for n in (*self.numbers.values(), *self.flags.values())
            if mentions(text, n)
        ]
        at = body.index("row = tensors_ptr + tensor * ROW") + 1
        whole = [*body[:at], *lines, *body[at:]]
        states = [f"{array}_ptr" for array in self.state_names.values()]
        if self.rule.has_sums:
            states += [f"{n}{end}_ptr" for n in self.held_names.values() for end in ("", "_new")]
        states += ["partials_ptr"] * bool(self.sums) + ["given_ptr"] * bool(self._given())
        head = ["tensors_ptr", work, *states, *self.numbers.values(), *self.flags.values(), "rate"]
        head += ["KIND: tl.constexpr", "REAL: tl.constexpr", "STORED: tl.constexpr", "SIZE: tl.constexpr"]
        head += ["PARTS: tl.constexpr"] * bool(self.sums)
        return "\n".join([*signature(name, head), *(INDENT + line for line in whole)])


def signature(name: str, arguments: Sequence[str]) -> list[str]:
    """The first lines of a kernel."""
    line = f"def {name}({', '.join(arguments)}):"
    if len(line) <= 116:
        return ["@triton.jit", line]
    return ["@triton.jit", f"def {name}(", *(f"{INDENT}{a}," for a in arguments), "):"]
