"""Rules for sums of parts: what the derivatives of slices, lanes and joined tensors leave behind."""

from __future__ import annotations

from nldsl.passes.simplify_match import Match, rule


def _sum_of_pads(m: Match) -> int | None:
    """Two parts that lie side by side, or whose neighbours are zero, are one joined part."""
    for left, right in ((0, 1), (1, 0)):
        a, b = m.instr(left), m.instr(right)
        if a.op != "pad" or b.op != "pad" or a.attr("dim") != b.attr("dim"):
            continue
        if not (m.single(m.args[0]) and m.single(m.args[1])):
            continue
        dim = a.attr("dim")
        first, second = (m.builder.type(x.args[0]).shape for x in (a, b))
        if a.type.shape != b.type.shape or len(first) != len(second):
            continue
        if b.attr("before") != a.attr("before") + first[dim]:
            continue
        both = m.emit("concat", a.args[0], b.args[0], dim=dim)
        return m.emit("pad", both, dim=dim, before=a.attr("before"), after=b.attr("after"))
    return None


def _sum_of_spreads(m: Match) -> int | None:
    a, b = m.instr(0), m.instr(1)
    if a.op != "spread" or b.op != "spread" or a.attr("axis") != b.attr("axis"):
        return None
    if not (m.single(m.args[0]) and m.single(m.args[1])):
        return None
    axis, types = a.attr("axis"), [m.builder.type(x.args[0]) for x in (a, b)]
    if types[0].shape != types[1].shape or any(axis in t.axes for t in types):
        return None
    return m.emit("spread", m.emit("add", a.args[0], b.args[0]), axis=axis)


PART_RULES = (
    rule("sum-of-spreads", "spread(x) + spread(y) --> spread(x + y)", "add", _sum_of_spreads),
    rule("sum-of-pads", "pad(x) + pad(y) --> pad(concat(x, y)) for parts side by side", "add", _sum_of_pads),
)
