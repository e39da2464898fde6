"""The equations of a memory: its updates, what it is read for, what it is given, and the words that go with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nldsl.explain.affine import transition
from nldsl.explain.hidden import accumulations
from nldsl.explain.latex import LatexPrinter
from nldsl.explain.operations import clock_words
from nldsl.explain.reader import Reader
from nldsl.explain.rewrite import occurrences
from nldsl.explain.scope import dependent, frontier, readings
from nldsl.explain.settle import Line
from nldsl.explain.terms import Call, Sym, Term, add, subterms, word
from nldsl.explain.text import TextPrinter
from nldsl.ir.program import Program

_LONGEST_REST = 12  # of what a transition form repeats from the update
_DOTS = word("…")
_MOST_READINGS = 8
_LONGEST_WHERE = 24  # names in the definition of something a memory is given; a longer one is a network of its own


@dataclass(frozen=True)
class Math:
    """``lines`` in order of computation; ``transitions``: updates with the state written once; ``where``: the given."""

    lines: tuple[Line, ...]
    transitions: tuple[tuple[Sym, Term], ...] = ()
    where: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    def anchors(self) -> list[Sym]:
        """The anchored states that occur."""
        return _symbols(self.lines, "anchor")


def equations(program: Program, states: Sequence[str], read: str = "outputs") -> Math:
    """The mathematics of some states of a derived program.

    ``read``: the program's ``outputs``, the first ``names`` for what is read of the states, or ``nothing``.
    """
    own = dependent(program.body, states)
    updates = [(name, value) for name, value in program.updates if name in states]
    results = [(name, value) for name, value in program.outputs if value in own or not states]
    values = [("output", name, value) for name, value in results] if read == "outputs" else []
    if read == "names":
        outputs = {value: name for name, value in program.outputs}
        found = readings(program, states)[:_MOST_READINGS]
        values = [("output", outputs.get(v) or program.body[v].name or "read", v) for v in found]
    roots = [v for _, v in updates] + [v for _, _, v in values]
    given = frontier(program.body, roots, own | set(accumulations(program)) | {v for _, _, v in values})
    reader = Reader(program, {v: program.body[v].name for v in given})
    lines = reader.equations(states, _distinct(values))
    definitions = {line.target: line.value for line in lines if line.kind == "let"}
    found_forms = []
    for line in lines:
        form = (
            transition(replace(line.target, kind="state"), line.value, definitions) if line.kind == "update" else None
        )
        if form is not None:
            product, rest = form
            found_forms.append((line.target, add(product, rest if rest.weight <= _LONGEST_REST else _DOTS)))
    where = _where(program, given, reader, lines) if given else ()
    return Math(tuple(lines), tuple(found_forms), where, tuple(_notes(lines, reader)))


def loss_math(program: Program) -> Math:
    """What is minimized, in terms of the names of the program."""
    values = [("output", f"loss at {level}", value) for level, value in program.losses]
    border = set(accumulations(program)) | {value for _, _, value in values}
    given = frontier(program.body, [value for _, _, value in values], border)
    reader = Reader(program, {v: program.body[v].name for v in given})
    return Math(tuple(reader.equations((), _distinct(values))))


def _distinct(values: list[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Readings that carry the same name are numbered."""
    seen: dict[str, int] = {}
    named = []
    for kind, name, value in values:
        seen[name] = seen.get(name, 0) + 1
        named.append((kind, name if seen[name] == 1 else f"{name}{seen[name]}", value))
    return named


def _where(program: Program, given: list[int], memory: Reader, lines: list[Line]) -> tuple[Line, ...]:
    """One line for each value a memory is given, in terms of the next names outside, and the lines those need."""
    body = program.body
    hints = {body[v].name for v in given}
    named_again = {v for v, instr in enumerate(body) if instr.name in hints}  # an earlier value of the same name
    border = set(accumulations(program)) | named_again
    behind = frontier(body, [a for v in given for a in body[v].args], border)
    known = {v: body[v].name for v in behind}
    known |= {line.number: line.target.name for line in lines if line.kind == "let" and line.whole}
    known |= {v: memory.known[v] for v in given}
    reader = Reader(program, known, memory)
    found = reader.equations([], [("where", memory.known[v], v) for v in given])
    kept = [line for line in found if line.kind == "where" and line.value.weight <= _LONGEST_WHERE]
    while True:
        used = occurrences([line.value for line in kept])
        more = [line for line in found if line.kind == "let" and line not in kept and line.target in used]
        if not more:
            return tuple(sorted(kept, key=lambda line: line.number))
        kept += more


def _symbols(lines: Iterable[Line], kind: str) -> list[Sym]:
    found = {t for line in lines for t in subterms(line.value) if isinstance(t, Sym) and t.kind == kind}
    return sorted(found, key=lambda s: (s.name, s.period))


def _notes(lines: list[Line], reader: Reader) -> list[str]:
    notes = []
    anchored = _symbols(lines, "anchor")
    for period in sorted({a.period for a in anchored}):
        names = [f"{a.name}@{period}" for a in anchored if a.period == period]
        held = "holds" if len(names) == 1 else "hold"
        start = f"{period}·⌊(t−1)/{period}⌋"
        notes.append(
            f"{', '.join(names)} {held} the value at the start of the current {period} ticks (after tick {start})"
        )
    after = sorted({s.name for s in _symbols(lines, "after")})
    if after:
        notes.append(f"{', '.join(s + '⁺' for s in after)}: after this tick's update; without ⁺: before it")
    called = {t.function for line in lines for t in subterms(line.value) if isinstance(t, Call)}
    sums = sorted(f for f in called if f.startswith("Σ_i"))
    notes += [
        f"{f}: over the window, x[{f[2:]}] being the x of that tick; ticks before the beginning are left out"
        for f in sums
    ]
    shown = [hidden for hidden in reader.hidden.values() if hidden.function in called]
    notes += [f"{hidden.function}(x): {hidden.words.format('x')}" for hidden in shown]
    return list(dict.fromkeys(notes))


def text_lines(math: Math, width: int = 100) -> list[str]:
    """The equations as text, their signs aligned, guarded ones under their clock."""
    printer = TextPrinter()
    margin = max((len(line.target.name) for line in math.lines), default=0)
    out: list[str] = []
    forms = dict(math.transitions)
    clocked = any(line.guard is not None for line in math.lines)
    indent, clock = ("  ", "") if clocked else ("", None)
    for line in math.lines:
        heading = clock_words(line.guard)
        if clocked and heading != clock:
            clock = heading
            out.append(heading + ":")
        sign = "←" if line.kind == "update" else "="
        out += _placed(
            indent + line.target.name.ljust(margin) + f" {sign} ", printer.lines(line.value, margin + 5, width)
        )
        if line.kind == "update" and line.target in forms:
            form = printer.lines(forms[line.target], margin + 5, width)
            out += _placed(indent + " " * margin + " = ", form)
    return out


def where_lines(math: Math, width: int = 100) -> list[str]:
    """What the memory is given, one line each."""
    printer = TextPrinter()
    margin = max((len(line.target.name) for line in math.where), default=0)
    out: list[str] = []
    for line in math.where:
        out += _placed(line.target.name.ljust(margin) + " = ", printer.lines(line.value, margin + 3, width))
    return out


def _placed(head: str, pieces: list[str]) -> list[str]:
    return [head + pieces[0], *(" " * len(head) + piece for piece in pieces[1:])]


def latex_lines(math: Math) -> str:
    """The equations as an ``aligned`` environment, the tick as index t, anchors as index xi."""
    printer = LatexPrinter(len({a.period for a in math.anchors()}))
    forms = dict(math.transitions)
    rows = []
    for line in (*math.lines, *math.where):
        suffix = rf" && \text{{{clock_words(line.guard)}}}" if line.guard is not None else ""
        rows.append(f"{printer.symbol(line.target)} &= {printer.term(line.value)}{suffix}")
        if line.kind == "update" and line.target in forms:
            rows.append(f"&= {printer.term(forms[line.target])}")
    body = " \\\\\n  ".join(rows)
    return f"\\begin{{aligned}}\n  {body}\n\\end{{aligned}}"
