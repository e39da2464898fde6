"""A job whose segments are single ticks, without an axis of time: what one round of a loop over ticks computes.

The body of such a loop (``nldsl/passes/ticks.py``) takes the only tick of each stream and gives streams of one tick.
Here a stream is a tensor that is read, or written, at one tick; its values have no time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nldsl.backends.triton.job import Job
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.dims import Dim, substitute
from nldsl.ir.chunk import TICKS
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME, Type

SIZES = ("shape", "before", "after", "start", "stop", "size", "n")  # attributes that may count ticks
SAME = frozenset({"lane", "axis_sum"})  # of the only tick: that tick
OVER_TIME = frozenset("cumprod segprod decay_gram decay_gram_grad linear_scan".split())


def timeless(job: Job) -> Job:
    """The same job for segments of one tick. Raises UnsupportedError for a body that cannot be read like that."""
    writer = _Timeless()
    for value, instr in enumerate(job.body):
        writer.where[value] = writer.take(instr, job.stages[value] is not None)
    where = writer.where
    stages: list[int | None] = [None] * len(writer.body)
    for value, stage in enumerate(job.stages):
        stages[where[value]] = stage if stage is not None else stages[where[value]]
    return replace(
        job,
        body=tuple(writer.body),
        stages=tuple(stages),
        sources={where[v]: s for v, s in job.sources.items()},
        carried={where[v]: k for v, k in job.carried.items()},
        boundaries={where[v]: k for v, k in job.boundaries.items()},
        numbers={where[v]: text for v, text in job.numbers.items()},
        carry=tuple((key, where[v]) for key, v in job.carry),
        outputs=tuple((source, where[v]) for source, v in job.outputs),
        sums=tuple((source, where[v]) for source, v in job.sums),
    )


class _Timeless:
    def __init__(self) -> None:
        self.body: list[Instr] = []
        self.where: dict[int, int] = {}

    def add(self, instr: Instr) -> int:
        self.body.append(instr)
        return len(self.body) - 1

    def take(self, old: Instr, needed: bool) -> int:
        """The value of an instruction whose operands have been taken."""
        args = tuple(self.where[a] for a in old.args)
        attrs = tuple((name, _one_tick(x) if name in SIZES else x) for name, x in old.attrs)
        timed = dict(attrs).get("axis") == TIME
        if timed and old.op in SAME:
            return args[0]
        type = _type(old.type)
        if old.op == "reshape" or (timed and old.op in ("collect", "spread")):
            return self._shaped(args[0], type, old)
        if old.op in OVER_TIME and needed:
            raise UnsupportedError(f"`{old.op}` in a loop over ticks")
        instr = replace(old, args=args, attrs=attrs, type=type)
        return self._without_ones(instr) if old.op == "einsum" else self.add(instr)

    def _shaped(self, value: int, type: Type, old: Instr) -> int:
        """A value in another shape; the entries stay in their order."""
        while self.body[value].op == "reshape":
            (value,) = self.body[value].args
        if self.body[value].type == type:
            return value
        if self.body[value].type.axes != type.axes:
            raise UnsupportedError("a stream that is the same at all ticks")
        return self.add(replace(old, op="reshape", args=(value,), attrs=(("shape", type.shape),), type=type))

    def _without_ones(self, instr: Instr) -> int:
        """A contraction over a dim of one entry (a sum over the only tick) loses that label."""
        inputs, output = split_spec(instr.attr("spec"))
        labels = [pair for a, text in zip(instr.args, inputs, strict=True) for pair in self._labels(a, text)]
        wide = {x for x, n in labels if n != 1}
        gone = {x for x, _ in labels if x not in wide and x not in output}
        if not gone:
            return self.add(instr)
        texts, args = [], []
        for arg, text in zip(instr.args, inputs, strict=True):
            type = self.body[arg].type
            shape = tuple(n for n, x in zip(type.shape, text, strict=True) if x not in gone)
            args.append(self._shaped(arg, replace(type, shape=shape), instr) if shape != type.shape else arg)
            texts.append("".join(x for x in text if x not in gone))
        spec = f"{','.join(texts)}->{output}"
        attrs = tuple((name, spec if name == "spec" else x) for name, x in instr.attrs)
        return self.add(replace(instr, args=tuple(args), attrs=attrs))

    def _labels(self, value: int, text: str) -> list[tuple[str, Dim]]:
        return list(zip(text, self.body[value].type.shape, strict=True))


def _type(type: Type) -> Type:
    shape = tuple(_one_tick(n) for n in type.shape)
    return Type(shape, tuple(a for a in type.axes if a != TIME), type.kind)


def _one_tick(size: Any) -> Any:
    """A size where there is one tick."""
    if isinstance(size, tuple):
        return tuple(_one_tick(n) for n in size)
    if isinstance(size, (int, float)):
        return size
    name = str(TICKS)
    return substitute(size, {name: 1})
