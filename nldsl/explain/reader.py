"""Reading equations off the SSA graph: which values become lines, what each line says.

A value is a line of its own when it is used several times and is more than a product of two names, when the user
named it and it is long, or when it would make the line it stands in too long. Everything else is written where it
is used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nldsl.explain.hidden import accumulations
from nldsl.explain.identify import fold
from nldsl.explain.naming import Names, short_names
from nldsl.explain.operations import operation, over_time
from nldsl.explain.product import times
from nldsl.explain.recognise import averaged
from nldsl.explain.scope import between, user_name
from nldsl.explain.settle import INLINE_ONCE, Line, settle
from nldsl.explain.terms import Chain, Num, Shape, Sym, Term, parts, scaled
from nldsl.ir.ops import LEAVES
from nldsl.ir.program import Instr, Program
from nldsl.ir.types import Clock

_INLINE_OFTEN = 2  # `keep·S` may be written out wherever it is used
_INLINE_NAMED = 8  # a value that the user named and that is used once


@dataclass(frozen=True)
class _Root:
    kind: str
    target: Sym
    value: int
    guard: Clock | None


class Reader:
    """Turns values of one program's body into lines.

    ``known`` are values that are symbols here: their definition is somebody else's business.
    """

    def __init__(self, program: Program, known: Mapping[int, str] | None = None, beside: Reader | None = None) -> None:
        """``beside``: a reader whose lines stand on the same page, so that its names keep their meaning."""
        self.program = program
        self.beside = beside
        self.after = self._states_after()
        self.hidden = accumulations(program)
        self.between = between(program)
        self.short: dict[str, str] = {}
        self.names = Names([])
        self.known = dict(known or {})
        self._lets: list[Line] = []
        self._bodies: dict[int, Term] = {}

    def _states_after(self) -> dict[int, str]:
        """The values that are states after the tick, with the state's name; a leaf is not one."""
        after: dict[int, str] = {}
        for state, value in self.program.updates:
            written = self._written(state)
            for found in (value, *(written or ())[:1]):
                if not self.program.state(state).hidden and self.program.body[found].op not in LEAVES:
                    after.setdefault(found, state)
        return after

    def equations(self, states: Iterable[str], values: Iterable[tuple[str, str, int]] = ()) -> list[Line]:
        """The lines of the updates of these states and of (kind, name, value) triples, and the lines those need.

        They are in the order of computation. A state that nothing changes has no line.
        """
        states, values = list(states), list(values)
        self._name_leaves(states, values)
        wanted = [self._update(state) for state in states]
        wanted += [_Root(kind, Sym(self._shape(value), name), value, None) for kind, name, value in values]
        roots = [root for root in wanted if root is not None]
        self._read([root.value for root in roots])
        lines = [*self._lets, *(self._line(root) for root in roots)]
        return settle(lines, self.names)

    def _name_leaves(self, states: list[str], values: list[tuple[str, str, int]]) -> None:
        """Short names for the leaves that will be seen, and different names for what is known."""
        roots = {found[0] for s in states if (found := self._written(s))} | {value for _, _, value in values}
        needed = self._needed(roots)
        instrs = [self.program.body[v] for v in needed]
        leaves = [i for i in instrs if i.op in ("input", "param", "state", "anchor")]
        paths = {i.attr("state" if i.op == "anchor" else i.op) for i in leaves}
        paths |= {self.after[v] for v in needed if v in self.after}
        others = self.beside
        self.short = short_names(sorted(paths), first=states if others is None else others.short)
        self.names = Names([*self.short.values(), *(name for _, name, _ in values)])
        fixed: dict[int, str] = {}
        if others is not None:
            self.names.take(others.names)
            fixed = {v: name for v, name in self.known.items() if name in others.names}
        self.known = fixed | {v: self.names.hinted(hint) for v, hint in self.known.items() if v not in fixed}

    def _shape(self, value: int) -> Shape:
        return self.program.body[value].type.shape

    def _written(self, state: str) -> tuple[int, Clock | None] | None:
        """What the state becomes and on which clock; None where nothing changes it."""
        value = dict(self.program.updates).get(state)
        if value is None or self._is_state(value, state):
            return None
        instr, guard = self.program.body[value], None
        while instr.op == "when" and self._is_state(instr.args[1], state):
            guard, value = instr.attr("clock"), instr.args[0]
            instr = self.program.body[value]
        return value, guard

    def _update(self, state: str) -> _Root | None:
        found = self._written(state)
        if found is None:
            return None
        value, guard = found
        return _Root("update", Sym(self._shape(value), self.short[state], "after"), value, guard)

    def _line(self, root: _Root) -> Line:
        instr = self.program.body[root.value]
        body = self._bodies[root.value]
        if root.kind != "update" and root.value in self.after:
            body = self._symbol(root.value, instr.type.shape) or body
        return Line(root.target, body, root.kind, root.value, root.guard or instr.guard, instr.span)

    def _is_state(self, value: int, state: str) -> bool:
        instr = self.program.body[value]
        return instr.op == "state" and instr.attr("state") == state

    def _read(self, roots: list[int]) -> None:
        """Make a term of every value the roots need: what is written where it is used, and the body of each root."""
        terms: dict[int, Term] = {}
        defined = set(roots)
        needed = self._needed(defined)
        uses = Counter(a for value in needed for a in self._args(value, defined))
        for value in sorted(needed):
            instr = self.program.body[value]
            leaf = None if value in self.hidden else self._leaf(instr)
            symbol = leaf or self._symbol(value, instr.type.shape)
            if value in defined or symbol is None:
                body = leaf or self._body(value, terms)
                if value in defined:
                    self._bodies[value] = body
                terms[value] = symbol or self._placed(value, body, uses[value])
            else:
                terms[value] = symbol

    def _body(self, value: int, terms: dict[int, Term]) -> Term:
        instr, hidden = self.program.body[value], self.hidden.get(value)
        if hidden is not None:
            return over_time(instr.type.shape, hidden.function, terms[hidden.of], hidden.options)
        return averaged(fold(operation(instr, [terms[a] for a in instr.args])))

    def _placed(self, value: int, body: Term, uses: int) -> Term:
        """The body itself, or the name of a line made of it."""
        instr = self.program.body[value]
        state = self._state_between(value)
        hidden = value in self.hidden and body.weight <= INLINE_ONCE
        hint = user_name(instr)
        if hidden or not _deserves_line(body, uses, bool(hint), state is not None):
            return body
        coefficient, scalars, core = parts(body)
        if state or hint or core is None or _is_short(core, uses):
            coefficient, scalars, core = 1, (), body
        name = f"?{value}"
        if state or hint:
            name = self.names.primed(state) if state else self.names.hinted(hint)
        target = Sym(core.shape, name)
        self._lets.append(Line(target, core, "let", value, instr.guard, instr.span, name[0] != "?", core is body))
        return times(scaled(coefficient, scalars, None), target)

    def _state_between(self, value: int) -> str | None:
        """The state that this value is an intermediate value of."""
        hint = self.program.body[value].name
        state = self.between.get(value)
        if state is not None and hint in ("", state, state.rpartition(".")[2]):
            return self.short.get(state, state)
        return None

    def _needed(self, roots: set[int]) -> set[int]:
        needed: set[int] = set()
        stack = list(roots)
        while stack:
            value = stack.pop()
            if value not in needed:
                needed.add(value)
                stack.extend(self._args(value, roots))
        return needed

    def _args(self, value: int, defined: set[int]) -> tuple[int, ...]:
        """The operands that a reader must see: none for what is only named here."""
        if value not in defined and (value in self.known or value in self.after):
            return ()
        hidden = self.hidden.get(value)
        return self.program.body[value].args if hidden is None else (hidden.of,)

    def _leaf(self, instr: Instr) -> Sym | None:
        if instr.op in ("input", "param", "state"):
            return Sym(instr.type.shape, self.short[instr.attr(instr.op)], instr.op)
        if instr.op == "anchor":
            return Sym(instr.type.shape, self.short[instr.attr("state")], "anchor", instr.attr("period"))
        return None

    def _symbol(self, value: int, shape: Shape) -> Sym | None:
        if value in self.after:
            return Sym(shape, self.short[self.after[value]], "after")
        return Sym(shape, self.known[value]) if value in self.known else None


def _deserves_line(body: Term, uses: int, named: bool, between: bool) -> bool:
    """``between``: the value of a state between two assignments of a tick."""
    if isinstance(body, Num | Sym):
        return False
    if uses > 1:
        return between or named or not _is_short(body, uses)
    return body.weight > (_INLINE_NAMED if named else INLINE_ONCE)


def _is_short(body: Term, uses: int) -> bool:
    """Whether a value that is used several times may be written out each time."""
    return body.weight <= (1 if isinstance(body, Chain) and uses > 2 else _INLINE_OFTEN)
