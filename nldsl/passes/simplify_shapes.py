"""Rules for shapes, reductions, contractions and axes."""

from __future__ import annotations

from nldsl.dims import Dim
from nldsl.ir import ops
from nldsl.ir.types import BATCH
from nldsl.passes.simplify_match import Match, rule

LETTERS = "ijklmnopqrstuvwxyzabcdefgh"


# ---------------------------------------------------------------- shapes


def _no_change(m: Match) -> int | None:
    return m.same(m.args[0])


def _reshape_twice(m: Match) -> int | None:
    inner = m.instr(0)
    if inner.op == "reshape":
        return m.emit("reshape", inner.args[0], shape=m.attrs["shape"])
    scalar = m.scalar(m.args[0]) if inner.op == "broadcast" or not inner.type.shape else None
    return None if scalar is None else m.emit("broadcast", scalar, shape=m.attrs["shape"])


def _broadcast_twice(m: Match) -> int | None:
    inner = m.instr(0)
    if inner.op == "broadcast":
        return m.emit("broadcast", inner.args[0], shape=m.attrs["shape"])
    if inner.op == "reshape":
        shape = m.builder.type(inner.args[0]).shape
        lead = len(inner.type.shape) - len(shape)
        if lead >= 0 and inner.type.shape[lead:] == shape and all(s == 1 for s in inner.type.shape[:lead]):
            return m.emit("broadcast", inner.args[0], shape=m.attrs["shape"])
    return None


def _whole_slice(m: Match) -> int | None:
    if m.attrs["start"] == 0 and m.attrs["stop"] == m.builder.type(m.args[0]).shape[m.attrs["dim"]]:
        return m.args[0]
    return None


def _slice_of_concat(m: Match) -> int | None:
    inner, dim = m.instr(0), m.attrs["dim"]
    if inner.op != "concat" or inner.attr("dim") != dim:
        return None
    start: Dim = 0
    for part in inner.args:
        stop = start + m.builder.type(part).shape[dim]
        if (start, stop) == (m.attrs["start"], m.attrs["stop"]):
            return part
        start = stop
    return None


def _no_padding(m: Match) -> int | None:
    return m.args[0] if m.attrs["before"] == 0 and m.attrs["after"] == 0 else None


def _one_part(m: Match) -> int | None:
    return m.args[0] if len(m.args) == 1 else None


def _zero_in(m: Match) -> int | None:
    """An operation that is linear in its first operand (``concat``: in all)."""
    wanted = m.args if m.op == "concat" else m.args[:1]
    return m.full(0) if all(m.number(a) == 0 for a in wanted) else None


# ---------------------------------------------------------------- reductions


def _sum_nothing(m: Match) -> int | None:
    return m.args[0] if not m.attrs["dims"] else None


def _sum_twice(m: Match) -> int | None:
    inner = m.instr(0)
    if inner.op != "sum" or not m.single(m.args[0]):
        return None
    rank = len(m.builder.type(inner.args[0]).shape)
    left = [d for d in range(rank) if d not in inner.attr("dims")]
    dims = sorted((*inner.attr("dims"), *(left[d] for d in m.attrs["dims"])))
    return m.emit("sum", inner.args[0], dims=tuple(dims))


def _sum_scaled(m: Match) -> int | None:
    """A number, or a scalar stretched to a tensor, comes out of the sum."""
    inner = m.instr(0)
    if inner.op == "mul" and m.of(inner.args[0]).op == "const" and m.single(m.args[0]):
        return m.emit("mul", inner.args[0], m.emit("sum", inner.args[1], dims=m.attrs["dims"]))
    scalar = m.scalar(m.args[0]) if inner.op == "broadcast" else None
    count = ops.product(tuple(inner.type.shape[d] for d in m.attrs["dims"]))
    if scalar is None or not isinstance(count, int) or m.type.kind == "int":
        return None
    total = m.emit("mul", m.const(float(count)), scalar)
    return m.emit("broadcast", total, shape=m.type.shape) if m.type.shape else total


def _sum_of_einsum(m: Match) -> int | None:
    inner = m.instr(0)
    if inner.op != "einsum" or not m.single(m.args[0]):
        return None
    inputs, output = ops.split_spec(inner.attr("spec"))
    kept = "".join(x for d, x in enumerate(output) if d not in m.attrs["dims"])
    return m.emit("einsum", *inner.args, spec=",".join(inputs) + "->" + kept)


# ---------------------------------------------------------------- contractions


def _zero_factor(m: Match) -> int | None:
    return m.full(0) if any(m.number(a) == 0 for a in m.args) else None


def _canonical_letters(m: Match) -> int | None:
    spec = m.attrs["spec"]
    names: dict[str, str] = {}
    for letter in spec:
        if letter not in ",->" and letter not in names:
            if len(names) == len(LETTERS):
                return None
            names[letter] = LETTERS[len(names)]
    renamed = "".join(names.get(x, x) for x in spec)
    return None if renamed == spec else m.emit("einsum", *m.args, spec=renamed)


def _idle_einsum(m: Match) -> int | None:
    inputs, output = ops.split_spec(m.attrs["spec"])
    if len(inputs) != 1 or len(set(inputs[0])) != len(inputs[0]):
        return None
    kept = [x for x in inputs[0] if x in output]
    if "".join(kept) != output:
        return None
    dims = tuple(d for d, x in enumerate(inputs[0]) if x not in output)
    return m.emit("sum", m.args[0], dims=dims) if dims else m.same(m.args[0])


def _transposed_operand(m: Match) -> int | None:
    """An operand that only permutes, or takes a diagonal of, another tensor is read from there."""
    inputs, output = ops.split_spec(m.attrs["spec"])
    for i in range(len(inputs)):
        inner = m.instr(i)
        if inner.op != "einsum" or len(inner.args) != 1:
            continue
        (source,), result = ops.split_spec(inner.attr("spec"))
        if set(source) != set(result):
            continue
        letters = dict(zip(result, inputs[i], strict=True))
        renamed = "".join(letters[x] for x in source)
        spec = ",".join([*inputs[:i], renamed, *inputs[i + 1 :]]) + "->" + output
        return m.emit("einsum", *m.args[:i], inner.args[0], *m.args[i + 1 :], spec=spec)
    return None


def _transposed_result(m: Match) -> int | None:
    inputs, output = ops.split_spec(m.attrs["spec"])
    inner = m.instr(0)
    if len(inputs) != 1 or inner.op != "einsum" or not m.single(m.args[0]) or len(set(inputs[0])) != len(inputs[0]):
        return None
    sources, result = ops.split_spec(inner.attr("spec"))
    names = dict(zip(inputs[0], result, strict=True))
    spec = ",".join(sources) + "->" + "".join(names[x] for x in output)
    return m.emit("einsum", *inner.args, spec=spec)


def _scalar_factor(m: Match) -> int | None:
    """An operand that is a scalar, or a scalar stretched, multiplies the result instead."""
    inputs, output = ops.split_spec(m.attrs["spec"])
    if len(inputs) < 2:
        return None
    for i, letters in enumerate(inputs):
        scalar = m.scalar(m.args[i])
        if scalar is None:
            continue
        others = [x for j, x in enumerate(inputs) if j != i]
        size = dict(zip(letters, m.builder.type(m.args[i]).shape, strict=True))
        alone = [x for x in size if not any(x in other for other in others)]
        count = ops.product(tuple(size[x] for x in alone if x not in output))
        if not isinstance(count, int) or (alone and len(set(letters)) != len(letters)):
            continue
        kept = "".join(x for x in output if x not in alone)
        rest = m.emit("einsum", *(a for j, a in enumerate(m.args) if j != i), spec=",".join(others) + "->" + kept)
        factor = scalar if count == 1 else m.emit("mul", m.const(float(count)), scalar)
        if kept != output:
            rest = m.emit("reshape", rest, shape=_with_ones(m, output, kept))
            rest = m.emit("broadcast", rest, shape=m.type.shape)
        return m.emit("mul", factor, rest)
    return None


def _with_ones(m: Match, output: str, kept: str) -> tuple[Dim, ...]:
    return tuple(s if x in kept else 1 for x, s in zip(output, m.type.shape, strict=True))


# ---------------------------------------------------------------- axes


def _spread_of_collect(m: Match) -> int | None:
    inner, axis = m.instr(0), m.attrs["axis"]
    if inner.op == "collect" and inner.attr("axis") == axis and axis in m.builder.type(inner.args[0]).axes:
        return inner.args[0]
    return None


def _collect_of_spread(m: Match) -> int | None:
    inner, axis = m.instr(0), m.attrs["axis"]
    if inner.op == "spread" and inner.attr("axis") == axis and axis not in m.builder.type(inner.args[0]).axes:
        return inner.args[0]
    return None


def _collect_same(m: Match) -> int | None:
    if m.attrs["axis"] in m.builder.type(m.args[0]).axes:
        return None
    return m.emit("broadcast", m.args[0], shape=m.type.shape)


def _spread_same(m: Match) -> int | None:
    """Every lane gets the same row of what was stretched along its first dim."""
    inner = m.instr(0)
    if inner.op != "broadcast" or m.attrs["axis"] in inner.type.axes:
        return None
    source = m.builder.type(inner.args[0]).shape
    if len(source) == len(inner.type.shape) and source[0] == 1 and len(source) > 0:
        return m.emit("broadcast", m.emit("reshape", inner.args[0], shape=source[1:]), shape=m.type.shape)
    if len(source) < len(inner.type.shape):
        return m.emit("broadcast", inner.args[0], shape=m.type.shape)
    return None


def _axis_sum_same(m: Match) -> int | None:
    size = m.emitter.sizes.get(m.attrs["axis"])
    if m.attrs["axis"] in m.builder.type(m.args[0]).axes or not isinstance(size, int) or m.type.kind == "int":
        return None
    return m.emit("mul", m.const(float(size)), m.args[0])


def _axis_sum_of_scaled(m: Match) -> int | None:
    """A factor that is the same in all lanes comes out; a scalar factor goes into a contraction."""
    inner, axis = m.instr(0), m.attrs["axis"]
    if inner.op != "mul" or not m.single(m.args[0]):
        return None
    for side in (0, 1):
        factor, rest = inner.args[side], inner.args[1 - side]
        if axis not in m.builder.type(factor).axes:
            total = m.emit("axis_sum", rest, axis=axis)
            return m.emit("mul", *((factor, total) if side == 0 else (total, factor)))
        if not m.builder.type(factor).shape and m.of(rest).op == "einsum" and m.single(rest):
            first, *others = m.of(rest).args
            scaled = m.emit("einsum", m.emit("mul", factor, first), *others, spec=m.of(rest).attr("spec"))
            return m.emit("axis_sum", scaled, axis=axis)
    return None


def _axis_sum_of_einsum(m: Match) -> int | None:
    """The sum of outer products over lanes is one contraction: no lane's product is ever stored."""
    inner, axis = m.instr(0), m.attrs["axis"]
    size = m.emitter.sizes.get(axis)
    if inner.op != "einsum" or not m.single(m.args[0]) or size is None:
        return None
    inputs, output = ops.split_spec(inner.attr("spec"))
    mapped = [i for i, a in enumerate(inner.args) if axis in m.builder.type(a).axes]
    letter = next((x for x in LETTERS if x not in inner.attr("spec")), None)
    if not mapped or letter is None:
        return None
    args = list(inner.args)
    if len(mapped) == 1:
        args[mapped[0]] = m.emit("axis_sum", args[mapped[0]], axis=axis)
        return m.emit("einsum", *args, spec=inner.attr("spec"))
    for i in mapped:
        args[i] = m.emit("collect", args[i], axis=axis, size=size)
        inputs[i] = letter + inputs[i]
    return m.emit("einsum", *args, spec=",".join(inputs) + "->" + output)


def _mean_same(m: Match) -> int | None:
    return None if BATCH in m.builder.type(m.args[0]).axes else m.args[0]


SHAPE_RULES = (
    rule("same-shape", "reshape(x), broadcast(x) to its own shape --> x", "reshape broadcast", _no_change),
    rule(
        "reshape-twice",
        "reshape(reshape(x)) --> reshape(x), reshape(stretch(c)) --> stretch(c)",
        "reshape",
        _reshape_twice,
    ),
    rule("broadcast-twice", "stretch(stretch(x)) --> stretch(x)", "broadcast", _broadcast_twice),
    rule("whole-slice", "x[0:n] --> x", "slice", _whole_slice),
    rule("slice-of-concat", "concat(.., x, ..)[x's part] --> x", "slice", _slice_of_concat),
    rule("no-padding", "pad(x, 0, 0) --> x", "pad", _no_padding),
    rule("one-part", "concat(x) --> x", "concat", _one_part),
    rule(
        "zero-in",
        "op(0) --> 0 for a linear op",
        "sum slice pad concat cumsum spread collect axis_sum batch_mean take scatter_add",
        _zero_in,
    ),
    rule("sum-nothing", "sum(x, over no dim) --> x", "sum", _sum_nothing),
    rule("sum-twice", "sum(sum(x)) --> sum(x)", "sum", _sum_twice),
    rule("sum-scaled", "sum(c * x) --> c * sum(x), sum(stretch(x)) --> n * x", "sum", _sum_scaled),
    rule("sum-of-einsum", "sum(einsum(..)) --> einsum(..)", "sum", _sum_of_einsum),
    rule("zero-factor", "einsum(0, x) --> 0", "einsum", _zero_factor),
    rule("scalar-factor", "einsum(stretch(c), x) --> c * einsum(x)", "einsum", _scalar_factor),
    rule("idle-einsum", 'einsum("ij->ij", x) --> x, einsum("ij->i", x) --> sum(x)', "einsum", _idle_einsum),
    rule("transposed-operand", "einsum(x', y) --> einsum(x, y)", "einsum", _transposed_operand),
    rule("transposed-result", "einsum(x, y)' --> einsum(x, y)", "einsum", _transposed_result),
    rule("letters", "letters in the order in which they occur", "einsum", _canonical_letters),
    rule("spread-of-collect", "spread(collect(x)) --> x", "spread", _spread_of_collect),
    rule("collect-of-spread", "collect(spread(x)) --> x", "collect", _collect_of_spread),
    rule("collect-same", "collect(x) --> stretch(x) for an x that is the same in all lanes", "collect", _collect_same),
    rule("spread-same", "spread(stretch(x)) --> x", "spread", _spread_same),
    rule("axis-sum-same", "axis_sum(x) --> n * x for an x that is the same in all lanes", "axis_sum", _axis_sum_same),
    rule("axis-sum-of-scaled", "axis_sum(c * x) --> c * axis_sum(x)", "axis_sum", _axis_sum_of_scaled),
    rule(
        "axis-sum-of-einsum",
        "axis_sum(einsum(x, y)) --> einsum(collect(x), collect(y))",
        "axis_sum",
        _axis_sum_of_einsum,
    ),
    rule("mean-same", "batch_mean(x) --> x for an x that is the same in all lanes", "batch_mean", _mean_same),
)
