"""One tick of some states: anchors, body, updates, resets. The same for a loop over ticks and for a single step."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from nldsl.backends.torch.body import Writer, count_uses, fires, write_tick
from nldsl.backends.torch.names import short_names
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import ATOM, INDENT, Code, Expr
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchors, init_values

WIDTH = 100


@dataclass(frozen=True)
class Variables:
    """The variables that hold states and, by (state, period), their anchors."""

    states: dict[str, Expr]
    anchors: dict[tuple[str, int], Expr]

    def all(self) -> list[Expr]:
        return [*self.states.values(), *self.anchors.values()]


def variables(scope: Scope, program: Program, names: Sequence[str]) -> Variables:
    """New variables for these states."""
    short = short_names(names)
    states = {n: Expr(scope.names.new(short[n]), program.state(n).type) for n in names}
    kept = {
        (n, period): Expr(scope.names.new(f"{short[n]}_at_{period}"), program.state(n).type)
        for n, period in anchors(program)
        if n in names
    }
    return Variables(states, kept)


def refresh_anchors(scope: Scope, held: Variables) -> None:
    """At the first tick of each period the anchor takes the value of its state."""
    by_period: dict[int, list[str]] = {}
    for (state, period), anchor in held.anchors.items():
        by_period.setdefault(period, []).append(f"{anchor.text} = {held.states[state].text}")
    for period, lines in by_period.items():
        if period > 1:
            scope.code.add(f"if (t - 1) % {period} == 0:")
        for line in lines:
            scope.code.add(f"{INDENT}{line}" if period > 1 else line)


def bind_leaves(scope: Scope, program: Program, held: Variables) -> None:
    """Make the reads of these states and anchors known."""
    for value, instr in enumerate(program.body):
        if instr.op == "state" and instr.attr("state") in held.states:
            scope.env[value] = held.states[instr.attr("state")]
        elif instr.op == "anchor" and (instr.attr("state"), instr.attr("period")) in held.anchors:
            scope.env[value] = held.anchors[instr.attr("state"), instr.attr("period")]


def write_body(
    scope: Scope,
    program: Program,
    held: Variables,
    values: Sequence[int],
    kept: Sequence[int],
    before: Callable[[], object] = lambda: None,
    updates: bool = True,
) -> None:
    """Anchors and the body of the tick; with ``updates``, the new values of the states are then in the scope.

    ``before`` writes what concerns the states as they are before the body.
    """
    refresh_anchors(scope, held)
    bind_leaves(scope, program, held)
    before()
    new = [v for name, v in program.updates if name in held.states] if updates else []
    write_tick(scope, program.body, [v for v in values if v not in scope.env], [*kept, *new])


def write_updates(scope: Scope, program: Program, held: Variables) -> None:
    """Assign the new values to the variables of the states, then reset what is to be reset."""
    updates = dict(program.updates)
    names, texts = [], []
    for name, variable in held.states.items():
        if name not in updates:
            continue
        new = scope.stretched(scope.narrowed(scope.env[updates[name]]), variable.type)
        text = f"{new.at(ATOM)}.to({scope.need('dtype')})" if new.low else new.text
        if text != variable.text:
            names.append(variable.text)
            texts.append(text)
    fold(scope.code, names, texts)
    if names:
        add_assignment(scope.code, names, texts)
    write_resets(scope, program, held)


def add_assignment(code: Code, names: list[str], texts: list[str]) -> None:
    """All variables get their new values together."""
    line = f"{', '.join(names)} = {', '.join(texts)}"
    if len(line) <= WIDTH:
        code.add(line)
        return
    for title, items in (("(", names), (") = (", texts)):
        code.add(title)
        for item in items:
            code.add(f"{INDENT}{item},")
    code.add(")")


def fold(code: Code, names: list[str], texts: list[str]) -> None:
    """``S_1 = ...`` and at the end ``S = S_1`` become ``S = ...`` where the old ``S`` is not read after that line."""
    for position in reversed(range(len(names))):
        old, new = names[position], texts[position]
        if not new.isidentifier() or texts.count(new) > 1 or not new.startswith(old):
            continue
        assigned = [
            i
            for i, line in enumerate(code.lines)
            if re.match(rf"\s*{new} = ", line) and line.strip() != f"{new} = {old}"
        ]
        if not assigned:
            continue
        mentions = re.compile(rf"\b{old}\b")
        others = [t for i, t in enumerate(texts) if i != position]
        if any(mentions.search(_code(line)) for line in [*code.lines[assigned[0] + 1 :], *others]):
            continue
        renamed = [re.sub(rf"\b{new}\b", old, _code(line)) + _comment(line) for line in code.lines]
        code.lines[:] = [line for line in renamed if line.strip() != f"{old} = {old}"]
        del names[position], texts[position]


def _code(line: str) -> str:
    return "" if line.lstrip().startswith("#") else line


def _comment(line: str) -> str:
    return line if line.lstrip().startswith("#") else ""


def write_resets(scope: Scope, program: Program, held: Variables) -> None:
    """Reset the states whose clock fires at the tick ``t``, with their anchors."""
    for name in held.states:  # in the order of declaration: each sees the new values of those before it
        clock = program.state(name).reset.clock
        if clock is None:
            continue
        outside, inside = scope.code, Code()
        scope.code = inside
        initial = write_initial(scope, program, name, held.states)
        variable = held.states[name].text
        inside.add(f"{variable} = {initial.text}")
        for (state, _), anchor in held.anchors.items():
            if state == name:
                inside.add(f"{anchor.text} = {variable}")
        scope.code = outside
        outside.add(f"if {fires(clock)}:")
        outside.extend(inside)


def write_initial(scope: Scope, program: Program, name: str, states: dict[str, Expr]) -> Expr:
    """The initial value of a state; parameters are found in the scope's environment under their names."""
    body = program.init
    values = init_values(program, name)
    saved, scope.env = scope.env, {}
    try:
        for value in values:
            if body[value].op == "state":
                scope.env[value] = states[body[value].attr("state")]
            elif body[value].op == "param":
                scope.env[value] = scope.params[body[value].attr("param")]
        writer = Writer(scope, body, count_uses(body, values, []), at_once=False)
        for value in values:
            writer.value(value)
        state = program.state(name)
        return scope.stretched(scope.env[state.init], replace(state.type))
    finally:
        scope.env = saved
