"""What has a form in a module of IREE: said with its place in the program, before any MLIR is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nldsl.backends.iree.body import SUPPORTED
from nldsl.backends.iree.sequence import loop_forms
from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticError
from nldsl.ir.backward import BackwardLoop
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Instr
from nldsl.ir.schedule import Delay, Parallel, Scan, Schedule
from nldsl.source import NO_SPAN


def check(schedule: Schedule, differentiated: bool) -> None:
    """Raises DiagnosticError that names the first operation, phase or size without a form."""
    program = schedule.program
    for axis in program.axes:
        if axis.size is not None and not isinstance(axis.size, int):
            raise refused(f"the size `{axis.size}` is not a number", None, "give it: `--set name=value`")
    for phase in schedule.all_phases():
        if not isinstance(phase, (Parallel, Delay, Scan, ChunkLoop)):
            raise refused(f"the phase {type(phase).__name__} has no form in a module of IREE", None)
    for body in bodies(schedule):
        for instr in body:
            if instr.op not in SUPPORTED:
                raise refused(f"the operation `{instr.op}` has no form in a module of IREE", instr)
    del differentiated


def bodies(schedule: Schedule) -> Iterator[Sequence[Instr]]:
    """Every list of instructions that may be lowered as it is."""
    yield schedule.program.body
    yield schedule.program.init
    for main, by_tick in loop_forms(schedule).values():
        yield main.body
        yield by_tick.body
    for back in schedule.backwards:
        if isinstance(back, BackwardLoop):
            yield back.body


def refused(message: str, instr: Instr | None, hint: str = "") -> DiagnosticError:
    """What has no form, as an error to raise."""
    hints = (hint,) if hint else ("compile for torch instead: `nldsl compile -o model.py`",)
    return DiagnosticError(Diagnostic("NL0796", message, instr.span if instr is not None else NO_SPAN, hints=hints))
