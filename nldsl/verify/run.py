"""All checks of one program, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nldsl.ir.program import Program
from nldsl.standalone import Loaded, Request
from nldsl.verify import Verdict, checks
from nldsl.verify.checks import Row
from nldsl.verify.inputs import KINDS, Sample, is_usable, sample
from nldsl.verify.sizes import load_small, periods_of, segment_lengths, ticks_for
from nldsl.verify.subject import ModuleSubject, ReferenceSubject, Run

BATCH_SIZE = 3
OPTIONAL_PASSES = ("simplify", "chunk")


@dataclass(frozen=True)
class Plan:
    """What to verify. No ``backends``: all; ``ticks`` 0: chosen from the program's clocks."""

    path: str | Path
    name: str | None = None
    dims: tuple[tuple[str, Any], ...] = ()
    backends: tuple[str, ...] = ()
    ticks: int = 0
    seed: int = 0
    text: str | None = None
    required: bool = False

    def request(self) -> Request:
        return Request(self.path, self.name, self.dims, again=True, text=self.text)


def verify(plan: Plan) -> Verdict:
    """The verdict on a program."""
    from nldsl.backends.registry import VERIFIED
    from nldsl.extras import require

    require("torch", extra="torch")
    loaded = load_small(plan.request())
    program = loaded.program
    ticks = plan.ticks or ticks_for(program)
    drawn, expected = _usable(program, ticks, plan.seed)
    problem = checks.finite(program, expected)
    names = plan.backends or VERIFIED
    results = [(name, (problem,) if problem else _rows(plan, loaded, drawn, expected, name)) for name in names]
    return Verdict(_title(loaded), _notes(loaded, drawn), tuple(results))


def _usable(program: Program, ticks: int, seed: int) -> tuple[Sample, Run]:
    """Inputs on which the reference stays finite, and what it gives."""
    for kind in KINDS:
        drawn = sample(program, BATCH_SIZE, ticks, seed, kind)
        expected = ReferenceSubject(program, drawn.params).run(drawn.inputs, ticks)
        if is_usable(expected.outputs | expected.losses | expected.states):
            return drawn, expected
    drawn = sample(program, BATCH_SIZE, ticks, seed, next(iter(KINDS)))
    return drawn, ReferenceSubject(program, drawn.params).run(drawn.inputs, ticks)


def _rows(plan: Plan, loaded: Loaded, drawn: Sample, expected: Run, backend: str) -> tuple[Row, ...]:
    program = loaded.program
    try:
        subject = ModuleSubject(backend, program, drawn.params, required=plan.required)
    except ImportError as problem:
        return (checks.skipped("everything", f"not installed: {problem}"),)
    periods = tuple(p for p in (*periods_of(program), *segment_lengths(program)) if p > 1)
    steps: list[Callable[[], Row]] = [
        lambda: checks.values(program, drawn, expected, subject),
        lambda: checks.gradients(program, drawn, expected, subject, plan.seed + 1),
        lambda: checks.recomputed(program, drawn, expected, subject, backend, plan.seed + 1),
        lambda: checks.single(program, drawn, expected, backend),
        lambda: checks.splits(program, drawn, subject, periods, plan.seed + 2),
        lambda: checks.decoding(program, drawn, subject),
        lambda: checks.batch(program, drawn, subject),
        lambda: checks.frozen(program, drawn, subject),
        *(
            lambda name=name: checks.without_pass(name, _without(plan, loaded, name), drawn, expected, backend)
            for name in OPTIONAL_PASSES
        ),
        lambda: checks.deterministic(program, drawn, subject),
    ]
    return tuple(step() for step in steps)


def _without(plan: Plan, loaded: Loaded, name: str) -> Program:
    """The same program with the same sizes, compiled without an optional pass."""
    from nldsl.standalone import load

    request = replace(plan.request(), dims=loaded.dims, disabled=frozenset({name}))
    return load(request).program


def _title(loaded: Loaded) -> str:
    return f"{loaded.unit.keyword} {loaded.unit.name}"


def _notes(loaded: Loaded, drawn: Sample) -> tuple[str, ...]:
    period = max(periods_of(loaded.program))
    sizes = ", ".join(f"{name} = {value}" for name, value in (*loaded.dims, *loaded.sizes))
    notes = [f"{drawn.ticks} tokens, batch {drawn.batch}, {drawn.kind} inputs" + (f", {sizes}" if sizes else "")]
    if period > 1:
        notes.append(f"the slowest clock of the sequence ticks {drawn.ticks // period} times (every {period} tokens)")
    if loaded.alone:
        notes.append("a memory by itself: read, learn, read again")
    return tuple(notes)
