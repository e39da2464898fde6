"""Programs of the standard library, inputs on which the reference interpreter is finite, and what it makes of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from nldsl.ir.program import Program
from nldsl.standalone import Request
from nldsl.verify.inputs import KINDS, Arrays, Sample, is_usable, sample
from nldsl.verify.sizes import load_small
from nldsl.verify.subject import ReferenceSubject, Run, Weights, rounded
from tests.oracles.catalogue import AROUND, STDLIB, Entry, _spelled_out, entries
from tests.stdlib.native_gaps import INPUTS

TICKS, BATCH_SIZE = 21, 2
EVERY = {f"{e.file}:{e.name}": e for e in entries()}


@dataclass(frozen=True)
class Case:
    """A program, what it is given, and what the reference makes of it."""

    program: Program
    drawn: Sample
    values: Run
    weights: Weights
    gradients: Run


@lru_cache(maxsize=1)
def case(name: str, ticks: int = TICKS) -> Case:
    """Inputs and parameters are numbers of float32."""
    entry = EVERY[name]
    program = load_small(request(entry)).program
    kinds = [INPUTS[entry.name]] if entry.name in INPUTS else list(KINDS)
    for kind in kinds:
        with np.errstate(all="ignore"):  # inputs on which a program overflows are left for the next kind
            found = ran(program, kind, ticks)
        if is_usable(found.values.outputs | found.values.losses | found.values.states) and finite(found.gradients):
            return found
    raise AssertionError(f"{name}: no inputs on which the reference is finite")


def finite(gradients: Run) -> bool:
    return all(np.isfinite(x).all() for k in ("params", "inputs", "starts") for x in getattr(gradients, k).values())


def ran(program: Program, kind: str, ticks: int = TICKS) -> Case:
    drawn = sample(program, BATCH_SIZE, ticks, 0, kind)
    drawn = replace(drawn, inputs=rounded(drawn.inputs), params=rounded(drawn.params))
    reference = ReferenceSubject(program, drawn.params)
    values = reference.run(drawn.inputs, ticks)
    weights = Weights.random(values, 1)
    return Case(program, drawn, values, weights, reference.gradients(drawn.inputs, ticks, weights))


def request(entry: Entry) -> Request:
    path = STDLIB / f"{entry.file}.nl"
    text = path.read_text(encoding="utf-8")
    if entry.name in AROUND:
        slower = AROUND[entry.name].replace("rate = 0.1)", "rate = 0.002)")  # at 0.1 some of them diverge
        return Request(path, "Alone", text=text + slower)
    return Request(path, entry.name, text=_spelled_out(entry, text)) if entry.of else Request(path, entry.name)


def worst(expected: Arrays, found: Arrays) -> float:
    """The largest error, relative to the largest entry of its tensor."""
    errors = [0.0]
    for name, value in expected.items():
        if value.dtype.kind == "f" and value.size:
            scale = float(np.abs(value).max())
            assert np.isfinite(found[name]).all(), name
            errors.append(float(np.abs(found[name] - value).max()) / (scale or 1.0))
    return max(errors)
