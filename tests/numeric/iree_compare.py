"""Compares a module of IREE with the reference interpreter: values, states, ticks alone, gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.loader import Loaded, _with_anchors
from nldsl.backends.iree.module import offered
from nldsl.backends.iree.package import limits, whole_module
from nldsl.ir.program import Program
from nldsl.ir.schedule import Schedule, anchor_key, anchors
from nldsl.passes.plan import plan
from nldsl.verify.inputs import KINDS, Sample, is_usable, sample
from nldsl.verify.subject import ModuleSubject, ReferenceSubject, Run, Weights, rounded

CLOSE = 1e-5
# One order of sums differs from another by so much: what amplifies rounding does it in PyTorch's float32 as well.
ORDER_OF_SUMS = 4


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


def training_errors(program: Program, batches: Iterable[Sequence[Any]]) -> Iterator[dict[str, tuple[float, float]]]:
    """After each training step, of the loss and of every parameter: how far the module and the torch backend in float32
    are from the torch backend in float64."""
    import torch

    from nldsl.runtime.build import build_module
    from nldsl.runtime.optimizer import LevelOptimizers

    near = build_module(program, backend="torch")
    exact = build_module(program, backend="torch").double()
    exact.load_state_dict({n: x.double() for n, x in near.state_dict().items()})
    both = [(near, LevelOptimizers(near), torch.float32), (exact, LevelOptimizers(exact), torch.float64)]
    made = whole_module(plan(program), ["init", "train"])
    about = {"ahead": {i.name: i.source for i in program.inputs if i.ahead}, "limits": limits(program)}
    params = {n: x.detach().numpy().copy() for n, x in near.named_parameters()}
    module = Loaded(compile_text(made.text), made.described(), params, "local-sync", about)
    for batch in batches:
        losses = []
        for other, optimizer, dtype in both:
            tensors = [torch.from_numpy(x) for x in batch]
            optimizer.zero_grad()
            loss, _ = other.loss(*(x.to(dtype) if x.is_floating_point() else x for x in tensors))
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        found = {"loss": (error(module.train(*batch), losses[1]), error(losses[0], losses[1]))}
        single = dict(near.named_parameters())
        for name, value in exact.named_parameters():
            wanted = value.detach().numpy()
            found[name] = error(module.params[name], wanted), error(single[name].detach().numpy(), wanted)
        yield found


def compare(program: Program, module: Loaded, drawn: Sample, run: Run) -> None:
    """Every result is close to what the reference interpreter gives in float64."""
    found = errors(program, module, drawn, run)
    wrong = {name: e for name, e in found.items() if not e < CLOSE}
    assert found and not wrong, wrong
