"""The statements of a program that a loop comes from, for the readers of its kernels."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.ir.program import Program


def equations(program: Program, states: Sequence[str]) -> tuple[str, ...]:
    """The statements by which states change, with their places, in the order of the files."""
    found: dict[tuple[str, int], str] = {}
    updates = dict(program.updates)
    stack = [updates[state] for state in states if state in updates]
    seen: set[int] = set()
    while stack:
        value = stack.pop()
        if value in seen:
            continue
        seen.add(value)
        instr = program.body[value]
        stack.extend(instr.args)
        if not instr.span.is_none:
            file = instr.span.file
            line = file.position(instr.span.start)[0]
            text = file.line_text(line).strip()
            if "<-" in text:
                found[file.path.rpartition("/")[2], line] = text
    return tuple(f"{text}    ({name}:{line})" for (name, line), text in sorted(found.items()))
