"""The properties that a compiled program must have, each as a check that gives one row of the report."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nldsl.ir.program import Program
from nldsl.verify.compare import NONE, Difference, axes_of, compare, worse
from nldsl.verify.inputs import Arrays, Sample
from nldsl.verify.subject import ModuleSubject, ReferenceSubject, Run, Weights

VALUES = 1e-10
GRADIENTS = 1e-8
SINGLE = 2e-4  # values in float32; gradients are allowed ten times that
_AMPLIFIED = 100  # rounding at every operation, against rounding once a tick
_SAYS_NOTHING = 0.1  # a bound on relative errors beyond which a comparison is none
_EVERY_CUT = 24  # up to this many ticks a sequence is cut at every place


@dataclass(frozen=True)
class Row:
    """``status``: ok, failed or skipped. ``error`` and ``bound`` are relative to the largest entry of a tensor."""

    check: str
    status: str
    error: float = 0.0
    bound: float = 0.0
    detail: str = ""


def row(check: str, difference: Difference, bound: float, detail: str = "") -> Row:
    """A row from the worst difference that a check has found."""
    if difference.error <= bound:
        return Row(check, "ok", difference.error, bound, detail)
    return Row(check, "failed", difference.error, bound, difference.place)


def skipped(check: str, why: str) -> Row:
    """A row of a check that does not apply."""
    return Row(check, "skipped", detail=why)


def compare_runs(program: Program, expected: Run, found: Run, bound: float) -> Difference:
    """Outputs, losses and last states."""
    result = NONE
    for kind, title in (("outputs", "output"), ("losses", "loss"), ("states", "state after the last token")):
        axes = axes_of(program, kind)
        result = worse(result, compare(getattr(expected, kind), getattr(found, kind), bound, title, axes))
    return result


def compare_gradients(program: Program, expected: Run, found: Run, bound: float) -> Difference:
    """Gradients with respect to parameters, inputs and initial states."""
    result = NONE
    for field, kind in (("params", "params"), ("inputs", "inputs"), ("starts", "states")):
        title = {"params": "parameter", "inputs": "input", "starts": "initial state"}[field]
        axes = axes_of(program, kind)
        wanted = getattr(expected, field)
        got = {n: x for n, x in getattr(found, field).items() if n in wanted}
        result = worse(result, compare(wanted, got, bound, f"gradient of {title}", axes))
    return result


# ---------------------------------------------------------------- against the reference


def finite(program: Program, expected: Run) -> Row | None:
    """A row if the program itself gives values that are not finite, so that comparing says nothing."""
    for kind, title in (("outputs", "output"), ("losses", "loss"), ("states", "state")):
        axes = axes_of(program, kind)
        for name, found in getattr(expected, kind).items():
            zeros = {name: np.where(np.isfinite(found), 0.0, 1.0)}
            difference = compare({name: np.zeros_like(found)}, zeros, 0.0, title, axes)
            if difference.error:
                place = difference.place.rpartition(":")[0]
                return Row("finite values", "failed", float("inf"), 0.0, f"{place} is not finite by its definition")
    return None


def values(program: Program, sample: Sample, expected: Run, subject: ModuleSubject) -> Row:
    """Outputs, losses and last states in float64."""
    found = subject.run(sample.inputs, sample.ticks)
    return row("values, float64", compare_runs(program, expected, found, VALUES), VALUES)


def gradients(
    program: Program,
    sample: Sample,
    expected: Run,
    subject: ModuleSubject,
    seed: int,
    title: str = "gradients, float64",
) -> Row:
    """Gradients of a random combination of all results. Where they depend on the last digits of the inputs, as those
    of an iteration that has converged, that much more is allowed."""
    weights = Weights.random(expected, seed)
    wanted = ReferenceSubject(program, sample.params).gradients(sample.inputs, sample.ticks, weights)
    found = subject.gradients(sample.inputs, sample.ticks, weights)
    difference = compare_gradients(program, wanted, found, GRADIENTS)
    if difference.error <= GRADIENTS:
        return row(title, difference, GRADIENTS)
    rng = np.random.default_rng(seed)
    nearby = ReferenceSubject(program, _shaken(sample.params, rng))
    moved = nearby.gradients(_shaken(sample.inputs, rng), sample.ticks, weights)
    sensitive = compare_gradients(program, wanted, moved, 0.0).error
    bound = max(GRADIENTS, _AMPLIFIED * sensitive)
    if not bound <= _SAYS_NOTHING:
        return skipped(title, f"the last digit of the inputs alone changes the gradients by {sensitive:.0e}")
    return row(title, compare_gradients(program, wanted, found, bound), bound)


def recomputed(program: Program, sample: Sample, expected: Run, subject: ModuleSubject, backend: str, seed: int) -> Row:
    """The same by the backward pass that computes again what autograd would keep."""
    title = "gradients, recomputed"
    again = ModuleSubject(backend, program, sample.params, recompute=True)
    if again.source == subject.source:
        return skipped(title, "no loop computes anything again")
    return gradients(program, sample, expected, again, seed, title)


def _shaken(arrays: Arrays, rng: np.random.Generator) -> Arrays:
    """Real numbers with another last digit."""
    return {
        name: x * (1 + 2e-16 * rng.standard_normal(x.shape)) if x.dtype.kind == "f" else x for name, x in arrays.items()
    }


def single(program: Program, sample: Sample, expected: Run, backend: str) -> Row:
    """The same values in float32. A program that rounding its states moves far is allowed as much more."""
    title = "values, float32"
    moved = ReferenceSubject(program, sample.params).run_rounded(sample.inputs, sample.ticks)
    sensitive = compare_runs(program, expected, moved, 0.0).error
    bound = max(SINGLE, _AMPLIFIED * sensitive)
    if not bound <= _SAYS_NOTHING:
        return skipped(title, f"rounding its states to float32 alone changes the values by {sensitive:.0e}")
    found = ModuleSubject(backend, program, sample.params, single=True).run(sample.inputs, sample.ticks)
    return row(title, compare_runs(program, expected, found, bound), bound)


def without_pass(name: str, plain: Program, sample: Sample, expected: Run, backend: str) -> Row:
    """The program with an optional pass left out gives the same values."""
    reference = ReferenceSubject(plain, sample.params).run(sample.inputs, sample.ticks)
    subject = ModuleSubject(backend, plain, sample.params, disabled=frozenset({name}))
    found = subject.run(sample.inputs, sample.ticks)
    difference = worse(compare_runs(plain, expected, reference, VALUES), compare_runs(plain, expected, found, VALUES))
    return row(f"without the pass {name}", difference, VALUES)


# ---------------------------------------------------------------- of the compiled program alone


def cuts(ticks: int, periods: tuple[int, ...]) -> list[int]:
    """The places at which a sequence is cut in two: all, or those around the boundaries of clocks."""
    if ticks <= _EVERY_CUT:
        return list(range(1, ticks))
    wanted = {1, 2, ticks - 1, ticks // 2}
    for period in periods:
        wanted.update(b + d for b in range(period, ticks, period) for d in (-1, 0, 1))
    return sorted(c for c in wanted if 0 < c < ticks)


def splits(program: Program, sample: Sample, subject: ModuleSubject, periods: tuple[int, ...], seed: int) -> Row:
    """Calls one after the other give what one call gives."""
    title = "calls cut anywhere"
    whole, _ = subject.call(sample.inputs, subject.begin(sample.batch), sample.ticks)
    places = cuts(sample.ticks, periods)
    rng = np.random.default_rng(seed)
    several = [sorted({int(c) for c in rng.integers(1, sample.ticks, 3)}) for _ in range(3)] if sample.ticks > 3 else []
    result = NONE
    for cut in [[c] for c in places] + several:
        found = _in_parts(sample, subject, cut)
        difference = compare(
            whole, found, VALUES, f"cut after token {', '.join(map(str, cut))}: output", _axes(program)
        )
        result = worse(result, difference)
        if difference.error > VALUES:
            break
    return row(title, result, VALUES, f"{len(places)} places, {len(several)} times in several")


def _in_parts(sample: Sample, subject: ModuleSubject, cut: list[int]) -> Arrays:
    state = subject.begin(sample.batch)
    parts: list[Arrays] = []
    for start, stop in itertools.pairwise([0, *cut, sample.ticks]):
        outputs, state = subject.call(sample.cut(start, stop), state, stop - start)
        parts.append(outputs)
    return _joined(parts, 1)


def _joined(parts: list[Arrays], axis: int) -> Arrays:
    return {name: np.concatenate([part[name] for part in parts], axis) for name in parts[0]}


def _axes(program: Program) -> dict[str, tuple[str, ...]]:
    return axes_of(program, "outputs")


def decoding(program: Program, sample: Sample, subject: ModuleSubject) -> Row:
    """One token at a time gives what the whole sequence gives."""
    title = "token by token"
    whole, _ = subject.call(sample.inputs, subject.begin(sample.batch), sample.ticks)
    state = subject.begin(sample.batch)
    parts: list[Arrays] = []
    for tick in range(sample.ticks):
        outputs, state = subject.step({n: x[:, tick] for n, x in sample.inputs.items()}, state)
        parts.append({n: x[:, None] for n, x in outputs.items()})
    difference = compare(whole, _joined(parts, 1), VALUES, "output", _axes(program))
    return row(title, difference, VALUES, f"{sample.ticks} steps")


def batch(program: Program, sample: Sample, subject: ModuleSubject) -> Row:
    """A batch gives what its sequences give one by one."""
    title = "a batch is a loop"
    if any(s.shared for s in program.states):
        return skipped(title, "a state is shared by the batch")
    whole, _ = subject.call(sample.inputs, subject.begin(sample.batch), sample.ticks)
    parts = [subject.call(sample.rows(b), subject.begin(1), sample.ticks)[0] for b in range(sample.batch)]
    difference = compare(whole, _joined(parts, 0), VALUES, "output", _axes(program))
    return row(title, difference, VALUES, f"{sample.batch} sequences")


def frozen(program: Program, sample: Sample, subject: ModuleSubject) -> Row:
    """With rates 0 and nothing forgotten the states stay what they are, where that is what the program means."""
    title = "rate 0 is frozen"
    rates = [i.name for i in program.inputs if _is(i.name, "rate")]
    if not rates:
        return skipped(title, "no input named rate")
    if not program.states:
        return skipped(title, "no states")
    keeps = [i.name for i in program.inputs if _is(i.name, "keep")]
    inputs = {
        n: np.zeros_like(x) if n in rates else np.ones_like(x) if n in keeps else x for n, x in sample.inputs.items()
    }
    visible = [s.name for s in program.states if not s.hidden]
    begin = ReferenceSubject(program, sample.params).run({n: x[:, :0] for n, x in inputs.items()}, 0).states
    meant = ReferenceSubject(program, sample.params).run(inputs, sample.ticks).states
    still = [n for n in visible if np.array_equal(np.broadcast_to(begin[n], meant[n].shape), meant[n])]
    if not still:
        return skipped(title, "the program changes its states at rate 0 too")
    found = subject.run(inputs, sample.ticks).states
    axes = axes_of(program, "states")
    difference = compare({n: meant[n] for n in still}, {n: found[n] for n in still}, 0.0, "state", axes)
    return row(title, difference, 0.0, ", ".join(still[:4]))


def _is(name: str, word: str) -> bool:
    return name == word or name.endswith("_" + word)


def deterministic(program: Program, sample: Sample, subject: ModuleSubject) -> Row:
    """The same program gives the same code, and the same inputs the same bits."""
    title = "twice the same"
    again = ModuleSubject(subject.name, program, sample.params)
    if again.source != subject.source:
        return Row(title, "failed", float("inf"), 0.0, "the emitted code differs")
    first, second = (s.run(sample.inputs, sample.ticks) for s in (subject, again))
    difference = compare_runs(program, first, second, 0.0)
    return row(title, difference, 0.0, "code and bits")
