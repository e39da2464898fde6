"""Sums over earlier or later ticks as scans, for bodies that run a segment in one piece."""

from __future__ import annotations

from nldsl.ir import ops
from nldsl.passes.simplify_match import Match, Rule, rule


def _scan_of_table(m: Match) -> int | None:
    """``sum over s <= t of P(t, s) x[s]`` is x[t] plus a[t] times the sum before; over t >= s likewise, from the end.

    T steps over the rows of x instead of T products with each."""
    inputs, output = ops.split_spec(m.attrs["spec"])
    if len(inputs) != 2:
        return None
    for side in (0, 1):
        table, letters, rest = m.instr(side), inputs[side], inputs[1 - side]
        if table.op != "segprod" or table.attr("matrix") or len(letters) != 2 or len(rest) < 2:
            continue
        late, early = letters[0], letters[1]
        gone, kept = (early, late) if early not in output else (late, early)
        if rest[0] != gone or kept in rest or len(set(rest)) < len(rest) or output != kept + rest[1:]:
            continue
        decay, other = table.args[0], m.args[1 - side]
        if gone == early:
            return m.emit("linear_scan", decay, other)
        ticks = m.builder.type(decay).shape[0]
        after = m.emit("slice", decay, dim=0, start=1, stop=ticks)
        return m.emit("linear_scan", m.emit("pad", after, dim=0, before=0, after=1), other, reverse=True)
    return None


SCAN_RULES: tuple[Rule, ...] = (
    rule("scan-of-table", "einsum(segprod(a), x) --> linear_scan(a, x)", "einsum", _scan_of_table),
)
