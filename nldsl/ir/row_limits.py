"""Which integers an input may have: where they pick rows, or a place in a one-hot vector."""

from __future__ import annotations

from nldsl.ir.program import Program


def row_limits(program: Program) -> dict[str, int]:
    """By the name of a stream, how many values it may have: 0, 1, .., below the limit. An input that is looked ahead at
    counts for the stream that it is the next value of."""
    limits: dict[str, int] = {}
    sources = {i.name: i.source if i.ahead else i.name for i in program.inputs}
    for instr in program.body:
        if instr.op not in ("take", "one_hot", "scatter_add"):
            continue
        index = program.body[instr.args[-1]]
        rows = program.body[instr.args[0]].type.shape[0] if instr.op == "take" else instr.attr("n")
        if index.op == "input" and isinstance(rows, int):
            name = sources[index.attr("input")]
            limits[name] = min(rows, limits.get(name, rows))
    return limits
