"""Compares a module of IREE with the reference interpreter: values, states, ticks alone, gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.loader import Loaded, _with_anchors
from nldsl.backends.iree.module import offered
from nldsl.backends.iree.package import whole_module
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule, anchor_key, anchors
from nldsl.passes.plan import plan
from nldsl.verify.inputs import KINDS, Sample, is_usable, sample
from nldsl.verify.subject import ModuleSubject, ReferenceSubject, Run, Weights, rounded

CLOSE = 1e-5


def error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected), initial=0.0) / max(np.max(np.abs(expected), initial=0.0), 1e-30))


def usable(program: Program, ticks: int, batch: int = 3, kinds: Iterable[str] = tuple(KINDS)) -> tuple[Sample, Run]:
    """Numbers of float32 on which the program stays finite, and what the reference makes of them."""
    for kind in kinds:
        with np.errstate(all="ignore"):  # inputs on which a program overflows are left for the next kind
            drawn = sample(program, batch, ticks, 0, kind)
            drawn = replace(drawn, inputs=rounded(drawn.inputs), params=rounded(drawn.params))
            run = ReferenceSubject(program, drawn.params).run(drawn.inputs, ticks)
        if is_usable(run.outputs | run.losses | run.states):
            return drawn, run
    raise AssertionError("no inputs on which the program stays finite")


def functions(schedule: Schedule) -> list[str]:
    """All that can be compared; ``loss`` gives what ``forward`` does."""
    return [n for n in offered(schedule) if not (n == "forward" and schedule.program.losses)]


def loaded(program: Program, params: dict[str, Any]) -> Loaded:
    schedule = plan(program)
    made = whole_module(schedule, functions(schedule))
    return Loaded(compile_text(made.text), made.described(), params, "local-sync", {})


def errors(program: Program, module: Loaded, drawn: Sample, run: Run) -> dict[str, float]:
    """Of each result, relative to its largest entry: over a whole sequence, tick by tick, and of gradients."""
    reference, found = ReferenceSubject(program, drawn.params), dict[str, float]()
    start = module.init_state(drawn.batch)
    entry = "loss" if "loss" in module.entries else "forward"
    whole = module.call(entry, {"inputs": drawn.inputs, "state": start, "ticks": {"ticks": drawn.ticks}})
    for group, expected in (("outputs", run.outputs), ("losses", run.losses), ("state", run.states)):
        for name, value in expected.items():
            found[f"{group} {name}"] = error(whole[group][name].to_host(), value)
    state, rows = start, []
    for tick in range(min(5, drawn.ticks)):
        one = module.call("step", {"inputs": {n: x[:, tick] for n, x in drawn.inputs.items()}, "state": state})
        state = one["state"]
        rows.append({n: x.to_host() for n, x in one.get("outputs", {}).items()})
    for name in rows[0]:
        found[f"ticks {name}"] = error(np.stack([r[name] for r in rows], 1), run.outputs[name][:, : len(rows)])
    if "backward" in module.entries:
        found |= _gradients(program, module, drawn, run, reference, start)
    return found


def _gradients(
    program: Program, module: Loaded, drawn: Sample, run: Run, reference: ReferenceSubject, start: dict[str, Any]
) -> dict[str, float]:
    weights = Weights.random(run, 1)
    expected = reference.gradients(drawn.inputs, drawn.ticks, weights)
    zeros = {anchor_key(s, p): np.zeros_like(weights.states[s]) for s, p in anchors(program)}
    groups = {"inputs": drawn.inputs, "state": start, "ticks": {"ticks": drawn.ticks}, "d_outputs": weights.outputs}
    back = module.call("backward", {**groups, "d_losses": weights.losses, "d_state": {**weights.states, **zeros}})
    host = {group: {n: x.to_host() for n, x in values.items()} for group, values in back.items()}
    host["d_state"] = _with_anchors(back.get("d_state", {}))
    if "init_backward" in module.entries:
        begun = module.call("init_backward", {"d_state": host["d_state"]})["d_params"]
        host["d_params"] = {n: x + begun[n].to_host() for n, x in host["d_params"].items()}
    found: dict[str, float] = {}
    for group, wanted in (
        ("d_params", expected.params),
        ("d_inputs", expected.inputs),
        ("d_state", expected.starts),
    ):
        for name, value in wanted.items():
            if name in host.get(group, {}):
                found[f"{group} {name}"] = error(host[group][name], value)
    return found


def errors_of_pytorch(program: Program, drawn: Sample, run: Run) -> dict[str, float]:
    """The same for the torch backend in float32: how far rounding moves the program itself on these numbers."""
    weights = Weights.random(run, 1)
    expected = ReferenceSubject(program, drawn.params).gradients(drawn.inputs, drawn.ticks, weights)
    subject = ModuleSubject("torch", program, drawn.params, single=True)
    values = subject.run(drawn.inputs, drawn.ticks)
    gradients = subject.gradients(drawn.inputs, drawn.ticks, weights)
    pairs = [(run, values, kind) for kind in ("outputs", "losses", "states")]
    pairs += [(expected, gradients, kind) for kind in ("params", "inputs", "starts")]
    return {
        f"{kind} {name}": error(x, getattr(wanted, kind)[name])
        for wanted, got, kind in pairs
        for name, x in getattr(got, kind).items()
        if name in getattr(wanted, kind)
    }


def compare(program: Program, module: Loaded, drawn: Sample, run: Run) -> None:
    """Every result is close to what the reference interpreter gives in float64."""
    found = errors(program, module, drawn, run)
    wrong = {name: e for name, e in found.items() if not e < CLOSE}
    assert found and not wrong, wrong
