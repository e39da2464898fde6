"""What all entries of an update share, computed on the device: by one program, in double precision.

For CUDA graphs, where no code of the host runs between steps: the kernel also counts the ticks.
"""

from __future__ import annotations

from nldsl.backends.triton.builder import RESERVED
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.names import Names
from nldsl.backends.triton.printer import INDENT
from nldsl.backends.triton.scalar_text import Lines, Term, literal
from nldsl.ir.demand import reachable
from nldsl.ir.entrywise import Entrywise
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock

NAME = "numbers_kernel"


def write_numbers_kernel(rule: Entrywise) -> str:
    """A module with ``numbers_kernel(step, held, shared)``: one tick more in ``step``, the states that are numbers in
    ``held``, and in ``shared`` the values of ``needed_numbers`` and whether the clocks of ``needed_clocks`` fire.
    Raises UnsupportedError for an operation that has no form in a kernel."""
    lines = Lines(Names({*RESERVED, "step_ptr", "held_ptr", "shared_ptr", "now"}), "tl.float64")
    needed, clocks = rule.needed_numbers(), rule.needed_clocks()
    held = {name: n for n, (name, _, _) in enumerate(rule.numbers)}
    terms: dict[int, Term] = {}
    for value in sorted(reachable(rule.body, [*needed, *(v for _, _, v in rule.numbers)])):
        instr = rule.body[value]
        terms[value] = lines.named(_term(instr, terms, held, lines), instr.name or f"x{value}")
    stores = [f"tl.store(shared_ptr + {n}, {_real(terms[v])})" for n, v in enumerate(needed)]
    for n, clock in enumerate(clocks, start=len(needed)):
        stores.append(f"tl.store(shared_ptr + {n}, ({fires(clock)}).to(tl.float64))")
    stores += [f"tl.store(held_ptr + {held[name]}, {_real(terms[v])})" for name, _, v in rule.numbers]
    body = ["now = tl.load(step_ptr) + 1", *lines.lines, *stores, "tl.store(step_ptr, now)"]
    text = "\n".join(["@triton.jit", f"def {NAME}(step_ptr, held_ptr, shared_ptr):", *(INDENT + line for line in body)])
    head = '"""What all entries of an optimizer share, compiled by nldsl."""\n\nimport triton\n'
    head += "import triton.language as tl"
    return "\n\n\n".join([head, *called("library", text), text]) + "\n"


def fires(clock: Clock) -> str:
    """Whether a clock fires at the tick ``now``."""
    return f"(now - 1) % {clock.period} == 0" if clock.start else f"now % {clock.period} == 0"


def _real(term: Term) -> str:
    if term.kind == "bool":
        return f"({term.text}).to(tl.float64)"
    return term.text if term.number is None else f"tl.full((), {term.text}, tl.float64)"


def _term(instr: Instr, terms: dict[int, Term], held: dict[str, int], lines: Lines) -> Term:
    if instr.op == "const":
        return literal(instr.attr("value"))
    if instr.op == "clock":
        ticks = f"now // {instr.attr('scale')}" if instr.attr("scale") != 1 else "now"
        period = instr.attr("period")
        return Term(f"(({ticks} - 1) % {period} + 1).to(tl.float64)" if period else f"({ticks}).to(tl.float64)")
    if instr.op == "state":
        return Term(f"tl.load(held_ptr + {held[instr.attr('state')]}).to(tl.float64)")
    args = [terms[a] for a in instr.args]
    if instr.op == "when":
        return Term(f"tl.where({fires(instr.attr('clock'))}, {_real(args[0])}, {_real(args[1])})")
    return lines.operation(instr.op, args)
