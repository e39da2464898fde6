"""What to call the values of a body in kernels: names made of the program's own.

A product over ``q`` and ``k`` is ``q_k``, what is scaled by ``rate`` keeps its name with ``rate`` behind it, products
of the factors ``keep`` since the first tick of the segment are ``keep_since_begin``. A value of which nothing but a
result is made, by sums, is called as the result. Names are for readers: none has a meaning for the compiler.
"""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.backends.triton.apart import INVERSE
from nldsl.backends.triton.job import Job
from nldsl.ir.program import Instr
from nldsl.ir.types import TIME

LONGEST = 28
LIKE_FIRST = frozenset("collect spread reshape broadcast slice pad stop_grad fixed neg to_real lane axis_sum".split())
SUMS = frozenset("add sub neg spread collect reshape stop_grad".split())
DECAYS = ("_between", "_before", "_after", "_begin", "_end")
LEAVES = frozenset("const iota clock".split())


def hints(job: Job) -> list[str]:
    """A name for each value; not unique, empty for numbers."""
    found: list[str] = []
    for value, instr in enumerate(job.body):
        found.append(_hint(job, value, instr, found))
    for source, value in (*job.outputs, *job.sums):
        _downward(job.body, value, _plain(source.name.removesuffix("_parts")), found)
    for (state, period), value in job.carry:
        own = job.variables[state, period].name
        if job.body[value].args:
            _downward(job.body, value, f"{_plain(own)}_next", found)
    return found


def _hint(job: Job, value: int, instr: Instr, known: Sequence[str]) -> str:
    if value in job.sources:
        return _plain(job.sources[value].name)
    if value in job.carried:
        return _plain(job.variables[job.carried[value]].name)
    if instr.op == "boundary":
        return _plain(instr.attr("state").rpartition(".")[2])
    if instr.name:
        return _plain(instr.name)
    if not instr.args:
        return "" if instr.op in LEAVES else instr.op
    names = [known[a] for a in instr.args]
    op = instr.op
    if op in LIKE_FIRST:
        return names[0]
    if op in ("cumprod", "segprod"):
        return f"{_base(names[0])}_{_span_of(instr)}"
    if op == "linear_scan":
        return f"{_base(names[-1])}_so_far"
    if op == INVERSE:
        return "inverse"
    if op in ("sum", "cumsum", "max"):
        return _short(f"{names[0]}_{op}", names[0])
    if op == "decay_gram":
        return _short(f"{names[0]}_{names[2]}_decayed", "gram")
    if op == "decay_gram_grad":
        return "d_gram"
    if op in ("where", "when", "concat"):
        return next((n for n in names[op == "where" :] if n), op)
    if op in ("add", "sub", "mul", "div", "einsum"):
        return _pair(job, instr, names)
    return _short(f"{names[0]}_{op}", names[0]) if len(names) == 1 else op


def _span_of(instr: Instr) -> str:
    if instr.op == "segprod":
        return "between"
    behind = "after" if instr.attr("exclusive") else "until_end"
    before = "before" if instr.attr("exclusive") else "since_begin"
    return behind if instr.attr("reverse") else before


def _pair(job: Job, instr: Instr, names: Sequence[str]) -> str:
    """The name of what two values make: that of the larger, with the smaller one's behind it."""
    named = [n for n in names if n]
    if len(named) < 2 or (named[0] == named[1] and instr.op != "einsum"):
        return named[0] if named else instr.op
    if instr.op == "einsum":
        return _short("_".join(names), f"{_base(names[0])}_{_base(names[-1])}")
    size = [(_rank(job, a), not n.endswith(DECAYS)) for a, n in zip(instr.args, names, strict=True)]
    first, second = names if size[0] >= size[1] else (names[1], names[0])
    if instr.op in ("add", "sub"):
        return first
    more = [w for w in second.split("_") if w not in first.split("_")]
    return _short("_".join([first, *more]), first)


def _rank(job: Job, value: int) -> int:
    type = job.body[value].type
    return sum(size != 1 for size in type.shape) + (TIME in type.axes)


def _base(name: str) -> str:
    """The first word of a name that is made of several."""
    return name if len(name) <= LONGEST // 3 else (name.split("_")[0] or name)


def _short(name: str, otherwise: str) -> str:
    return name if len(name) <= LONGEST else otherwise


def _plain(name: str) -> str:
    return name.replace(".", "_")


def _downward(body: Sequence[Instr], value: int, name: str, found: list[str]) -> None:
    """Name a result, and the sums that it is made of, as long as nothing else has a name of its own."""
    stack = [value]
    while stack:
        at = stack.pop()
        instr = body[at]
        if not instr.args or (instr.name and at != value):
            continue
        found[at] = name
        if instr.op in SUMS:
            stack += [a for a in instr.args if body[a].op in SUMS or body[a].op == "einsum"]
