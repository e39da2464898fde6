"""The report of ``nldsl explain`` as plain text, and its equations as LaTeX."""

from __future__ import annotations

import textwrap
from fractions import Fraction

from nldsl.dims import Dim
from nldsl.explain.loops import Loop
from nldsl.explain.math import latex_lines, text_lines, where_lines
from nldsl.explain.report import (
    Report,
    Section,
    clock_text,
    dim_text,
    init_text,
    reset_text,
    shape_of,
    shape_text,
    short_states,
)
from nldsl.ir.program import InputDecl, Level
from nldsl.passes.cost_schedule import Work

_WIDTH = 100
_MOST_EQUATIONS = 80
_BYTES = 4  # of a number in float32


def text_page(found: Report) -> str:
    """The whole report."""
    program = found.program
    lines = [f"{found.kind} {program.name}".strip(), *(f"  {note}" for note in found.notes)]
    lines += _listed("inputs", [_input(found, i) for i in found.shapes.inputs])
    lines += _listed("levels", [_level(level) for level in program.levels])
    for section in found.sections:
        lines += ["", *_section(found, section)]
    if program.losses:
        lines += ["", "minimized", *(f"  {line}" for line in text_lines(found.losses))]
    if found.loops:
        lines += ["", "loops", *(line for n, loop in enumerate(found.loops, 1) for line in _loop(n, loop))]
    lines += ["", *_cost(found)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _input(found: Report, declared: InputDecl) -> str:
    name = f"next({declared.source})" if declared.ahead else declared.name
    return f"{name}: {shape_text(found.shapes, declared.type)}"


def _listed(title: str, items: list[str], width: int = 100) -> list[str]:
    """``title   a   b   c``, broken where it is too wide."""
    lines: list[str] = []
    for item in items:
        if lines and len(lines[-1]) + len(item) + 3 <= width:
            lines[-1] += "   " + item
        else:
            lines.append(" " * 12 + item)
    if lines:
        lines[0] = f"  {title.ljust(10)}" + lines[0].lstrip()
    return lines


def _level(level: Level) -> str:
    trained = f", trained by {level.optimizer_name}" if level.optimizer_name else ""
    return f"{level.name} (every {_count(level.period, level.base)}{trained})"


def _count(number: int, noun: str) -> str:
    return noun if number == 1 else f"{number} {noun}s"


def _section(found: Report, section: Section) -> list[str]:
    memory = section.memory
    title = memory.template if not memory.path else f"{memory.path}: {memory.template}"
    if memory.copies is not None:
        title += f", {dim_text(memory.copies)} copies"
    alone = not memory.path and len(found.sections) == 1
    lines = [] if alone else [title + (f"   {memory.span}" if not memory.span.is_none else "")]
    if len(section.paths) > 1:
        lines.append(f"  and the same for {', '.join(section.paths[1:])}")
    names = short_states(section)
    table = [
        (
            f"{names[s.name]}: {shape_text(found.shapes, shape_of(found.shapes, s))}",
            f"= {init_text(found.program, s)}",
            ", ".join([clock_text(found.program, s), reset_text(s), *(["shared by the batch"] if s.shared else [])]),
        )
        for s in section.states
    ]
    if table:
        wide = [max(len(row[i]) for row in table) for i in range(2)]
        lines.append("  states")
        lines += [f"    {a.ljust(wide[0])}  {b.ljust(wide[1])}  {c}" for a, b, c in table]
    lines += ["  equations", *(f"    {line}" for line in _shortened(text_lines(section.math)))]
    where = where_lines(section.math)
    if where:
        lines += ["  where", *(f"    {line}" for line in where)]
    for note in section.math.notes:
        lines += _wrapped(f"({note})", "  ")
    for number in section.loops:
        recurrence = found.loops[number].recurrence
        if recurrence is not None:
            lines.append(f"  recurrence: {recurrence.kind} (loop {number + 1})")
    return lines


def _shortened(lines: list[str]) -> list[str]:
    """Not more than a screen or two of equations."""
    if len(lines) <= _MOST_EQUATIONS:
        return lines
    return [*lines[:_MOST_EQUATIONS], f"... and {len(lines) - _MOST_EQUATIONS} more lines, all in --latex and --json"]


def _loop(number: int, loop: Loop) -> list[str]:
    lines = [f"  {number}. {loop.words}"]
    found = loop.recurrence
    if found is None:
        return lines
    lines += _wrapped(f"{found.kind}: {found.why}", "     ")
    if not found.span.is_none:
        lines.append(f"     at {found.span}: {' '.join(found.span.text.split())[:80]}")
    if found.hint:
        lines += _wrapped(f"to change that: {found.hint}", "     ")
    return lines


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent=indent + " ", break_long_words=False)


def _cost(found: Report) -> list[str]:
    cost = found.cost
    lines = ["cost of a token, for each sequence"]
    for period, operations in cost.operations:
        when = "" if period == 1 else f" every {period} tokens"
        lines.append(f"  operations  {dim_text(operations)}{when}")
    if len(cost.operations) > 1 and all(isinstance(n, int) for _, n in cost.operations):
        mean = sum(n / period for period, n in cost.operations if isinstance(n, int))
        lines.append(f"              {mean:,.0f} on average")
    if found.work is not None:
        lines += _as_run(found.work)
    if cost.state != 0:
        lines.append(f"  state       {_numbers(cost.state)}")
    if cost.hidden != 0:
        lines.append(f"  past        {_numbers(cost.hidden)} that the compiler keeps for past values and sums")
    if cost.anchored != 0:
        lines.append(f"  anchors     {_numbers(cost.anchored)}: copies of states at the start of chunks")
    if cost.parameters != 0:
        lines.append(f"  parameters  {_numbers(cost.parameters)} (for all sequences)")
    return lines


def _as_run(work: Work) -> list[str]:
    """The form that was chosen: more operations than the definition, in fewer steps that wait for each other."""
    if not isinstance(work.operations, int) or not isinstance(work.entries, int):
        return []
    lines = [f"  as it runs  {work.operations:,} operations, {_size(work.entries * _BYTES)} read and written"]
    if work.rounds:
        steps = f"{float(work.steps / work.rounds):.0f} steps that wait for each other"
        lines.append(f"              {_ratio(work.rounds)} of a loop a token, each of {steps}")
    else:
        lines.append("              no loop: all tokens at once")
    return lines


def _ratio(rounds: Fraction) -> str:
    if rounds.denominator == 1:
        return f"{rounds.numerator} round{'s' if rounds.numerator > 1 else ''}"
    return f"{rounds.numerator}/{rounds.denominator} rounds"


def _numbers(count: Dim) -> str:
    if isinstance(count, int):
        return f"{count:,} numbers ({_size(count * _BYTES)} in float32)"
    return f"{dim_text(count)} numbers"


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    size, unit = count / 1024, "KiB"
    for larger in ("MiB", "GiB", "TiB"):
        if size >= 1024:
            size, unit = size / 1024, larger
    return f"{size:,.1f} {unit}"


def latex_page(found: Report) -> str:
    """The equations of each section as LaTeX, with what the signs mean as comments and text."""
    out: list[str] = []
    for section in found.sections:
        title = section.memory.path or section.memory.template
        out += [f"% {title}", "\\[", latex_lines(section.math), "\\]"]
        periods = sorted({a.period for a in section.math.anchors()})
        if len(periods) == 1:
            out.append(rf"where $\xi = {periods[0]}\lfloor (t-1)/{periods[0]} \rfloor$.")
        elif periods:
            out.append(r"where $\xi(C) = C\lfloor (t-1)/C \rfloor$.")
        out.append("")
    return "\n".join(out)
