"""Modules of IREE against the reference interpreter: values, states between calls, ticks, gradients, training steps."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.loader import Loaded, LoadError, _with_anchors, load
from nldsl.backends.iree.package import whole_module
from nldsl.cli.compile import command
from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.driver import Options, front, middle
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.passes.plan import plan
from nldsl.standalone import Request
from nldsl.verify.inputs import KINDS, Sample, is_usable, sample
from nldsl.verify.sizes import load_small, ticks_for
from nldsl.verify.subject import ReferenceSubject, Run, Weights
from tests.numeric.iree_programs import CHECKED, GAPS

STDLIB = Path(__file__).parents[2] / "stdlib"
CLOSE = 1e-5
PROGRAM = """
memory Fast(d: dim = 4) {
  state S: [d, d] = learned normal(0.3)
  read(q: [d]) -> [d] = S @ q
  step(q: [d], k: [d], v: [d], keep: []) -> [d] every token {
    y = read(q)
    S <- keep * S - 0.5 * grad(l2(read(k), v), S)
    return y
  }
}
"""


def program_of(text: str, tmp: Path) -> Program:
    path = tmp / "program.nl"
    path.write_text('from "objectives" import l2\n' + text, encoding="utf-8")
    options = Options(roots=(str(STDLIB),))
    return middle(front(path, options), options)


def error(found: Any, expected: Any) -> float:
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected), initial=0.0) / max(np.max(np.abs(expected), initial=0.0), 1e-30))


def usable(program: Program, ticks: int, batch: int = 3) -> tuple[Sample, Run]:
    for kind in KINDS:
        drawn = sample(program, batch, ticks, 0, kind)
        run = ReferenceSubject(program, drawn.params).run(drawn.inputs, ticks)
        if is_usable(run.outputs | run.losses | run.states):
            return drawn, run
    raise AssertionError("no inputs on which the program stays finite")


def loaded(program: Program, params: dict[str, Any]) -> Loaded:
    made = whole_module(plan(program))
    return Loaded(compile_text(made.text), made.described(), params, "local-sync", {})


def compare(program: Program, module: Loaded, drawn: Sample, run: Run) -> None:
    """Forward over the whole sequence, ticks alone, and gradients."""
    reference = ReferenceSubject(program, drawn.params)
    near = reference.run_rounded(drawn.inputs, drawn.ticks)  # how far rounding moves the program itself

    def close(found: Any, expected: Any, rounded: Any, name: str) -> None:
        bound = max(CLOSE, 4 * error(rounded, expected)) if rounded is not None else 10 * slack
        assert error(found, expected) < bound, name

    slack = max([CLOSE, *(error(near.outputs[n], x) for n, x in run.outputs.items())])
    entry = "loss" if "loss" in module.entries else "forward"
    start = module.init_state(drawn.batch)
    found = module.call(entry, {"inputs": drawn.inputs, "state": start, "ticks": {"ticks": drawn.ticks}})
    for group, expected, rounded in (
        ("outputs", run.outputs, near.outputs),
        ("losses", run.losses, near.losses),
        ("state", run.states, near.states),
    ):
        for name, value in expected.items():
            close(found[group][name].to_host(), value, rounded[name], f"{group} {name}")
    state, rows = start, []
    for tick in range(min(5, drawn.ticks)):
        one = module.call("step", {"inputs": {n: x[:, tick] for n, x in drawn.inputs.items()}, "state": state})
        state = one["state"]
        rows.append({n: x.to_host() for n, x in one.get("outputs", {}).items()})
    for name in rows[0]:
        close(
            np.stack([r[name] for r in rows], 1),
            run.outputs[name][:, : len(rows)],
            near.outputs[name][:, : len(rows)],
            name,
        )
    weights = Weights.random(run, 1)
    expected_run = reference.gradients(drawn.inputs, drawn.ticks, weights)
    zeros = {anchor_key(s, p): np.zeros_like(weights.states[s]) for s, p in anchors(program)}
    groups = {"inputs": drawn.inputs, "state": start, "ticks": {"ticks": drawn.ticks}, "d_outputs": weights.outputs}
    back = module.call("backward", {**groups, "d_losses": weights.losses, "d_state": {**weights.states, **zeros}})
    host = {group: {n: x.to_host() for n, x in values.items()} for group, values in back.items()}
    host["d_state"] = _with_anchors(back.get("d_state", {}))
    if "init_backward" in module.entries:
        begun = module.call("init_backward", {"d_state": host["d_state"]})["d_params"]
        host["d_params"] = {n: x + begun[n].to_host() for n, x in host["d_params"].items()}
    for group, wanted in (
        ("d_params", expected_run.params),
        ("d_inputs", expected_run.inputs),
        ("d_state", expected_run.starts),
    ):
        for name, value in wanted.items():
            if name in host.get(group, {}):
                close(host[group][name], value, None, f"{group} {name}")


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Path]:
    """A small program as files, made by the command line."""
    folder = tmp_path_factory.mktemp("iree")
    program = program_of(PROGRAM, folder)
    source = folder / "program.nl"
    shutil.copytree(STDLIB, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    result = CliRunner().invoke(command, [str(source), "--backend", "mlir", "-o", str(folder / "fast.vmfb")])
    assert result.exception is None, result.exception
    return program, folder / "fast.vmfb"


def test_a_small_memory(fast: tuple[Program, Path]) -> None:
    program, path = fast
    drawn, run = usable(program, 70)
    module = load(path)
    module.params = drawn.params
    compare(program, module, drawn, run)


@pytest.mark.parametrize("batch", [1, 3])
def test_calls_hand_over_their_states(fast: tuple[Program, Path], batch: int) -> None:
    program, path = fast
    drawn, run = usable(program, 71, batch)
    module = load(path)
    module.params = drawn.params
    names = [i.name for i in program.inputs]
    state, parts = module.init_state(batch), []
    for start, stop in ((0, 1), (1, 66), (66, 71)):
        y, state = module.forward(*(np.ascontiguousarray(drawn.inputs[n][:, start:stop]) for n in names), state=state)
        parts.append(y)
    (name,) = run.outputs
    assert error(np.concatenate(parts, 1), run.outputs[name]) < CLOSE
    assert error(state["S"].to_host(), run.states["S"]) < CLOSE


def test_the_loader_needs_neither_torch_nor_nldsl(fast: tuple[Program, Path], tmp_path: Path) -> None:
    _, path = fast
    for name in ("fast.vmfb", "fast.json", "fast.safetensors", "fast.py"):
        shutil.copy(path.with_name(name), tmp_path / name)
    code = (
        "import sys, numpy as np, fast\n"
        "m = fast.load('fast.vmfb')\n"
        "x = np.ones((2, 5, 4), np.float32)\n"
        "y, s = m.forward(x, x, x, x[:, :, 0])\n"
        "assert y.shape == (2, 5, 4) and np.isfinite(y).all()\n"
        "assert not {'torch', 'nldsl'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_damaged_or_does_not_fit_is_said(fast: tuple[Program, Path], tmp_path: Path) -> None:
    _, path = fast
    module = load(path)
    x = np.ones((2, 5, 4), np.float32)
    with pytest.raises(LoadError, match=r"`q` must be \[batch, time, 4\]"):
        module.forward(x[..., :3], x, x, x[:, :, 0])
    with pytest.raises(LoadError, match="`forward` needs input `v`"):
        module.forward(x, x, keep=x[:, :, 0])
    with pytest.raises(LoadError, match="no function `train`"):
        module.call("train", {})
    for name in ("fast.json", "fast.safetensors"):
        shutil.copy(path.with_name(name), tmp_path / name)
    (tmp_path / "fast.vmfb").write_bytes(path.read_bytes()[:-100])
    with pytest.raises(LoadError, match="damaged"):
        load(tmp_path / "fast.vmfb")
    about = json.loads(path.with_suffix(".json").read_text())
    with pytest.raises(LoadError, match="no value for the parameter"):
        Loaded(path.read_bytes(), about["entries"], {}, "local-sync", about)


def test_a_torch_tensor_is_taken(fast: tuple[Program, Path]) -> None:
    torch = pytest.importorskip("torch")
    _, path = fast
    module = load(path)
    x = torch.ones(2, 5, 4)
    y, _ = module.forward(x, x, x, x[:, :, 0].contiguous())
    z, _ = module.forward(*[x.numpy()] * 3, x[:, :, 0].numpy())
    assert np.array_equal(y, z)


def test_places_and_errors(fast: tuple[Program, Path]) -> None:
    program, _ = fast
    assert 'loc("program.nl":' in whole_module(plan(program)).text
    with pytest.raises(DiagnosticError, match="NL0797"):
        compile_text("module {}", target="tpu")
    with pytest.raises(DiagnosticError, match="NL0797"):
        compile_text("module {}", cpu="no such; cpu")


def test_a_shared_state_has_no_gradient(tmp_path: Path) -> None:
    text = PROGRAM.replace("state S: [d, d] = learned normal(0.3)", "shared state S: [d, d] = 0")
    text = text.replace("keep * S - 0.5 * grad(l2(read(k), v), S)", "keep * S + outer(v, k)")
    try:
        program = program_of(text, tmp_path)
    except DiagnosticError:
        pytest.skip("the program is not well-formed with a shared state")
    with pytest.raises(DiagnosticError, match=r"NL0796.*`S`"):
        whole_module(plan(program), ["backward"])


@pytest.mark.slow
def test_a_gpu_need_not_be_here(fast: tuple[Program, Path]) -> None:
    program, _ = fast
    data = compile_text(whole_module(plan(program), ["forward", "backward"]).text, target="cuda")
    assert b"nvptx" in data or b"cuda" in data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "entry"),
    [
        *(pytest.param(*p, id=p[1]) for p in CHECKED),
        *(
            pytest.param(
                *p,
                id=p[1],
                marks=pytest.mark.xfail(reason=why, strict=True, raises=(DiagnosticError, LoadError, AssertionError)),
            )
            for p, why in GAPS.items()
        ),
    ],
)
def test_standard_library(file: str, entry: str) -> None:
    program = load_small(Request(STDLIB / file, entry, (), again=True)).program
    drawn, run = usable(program, ticks_for(program))
    compare(program, loaded(program, drawn.params), drawn, run)


MODEL = """
from "blocks/basic" import embed, linear
from "optimizers/momentum" import Momentum
from "memories/delta" import GatedDelta
model Tiny(vocab: dim = 7, d: dim = 6) {
  level fast = every 1 step
  input tokens: int[]
  x = embed(tokens, vocab, d)
  memory m: GatedDelta(d, d)
  m.learn(x, linear(x, d), 0.5, 0.9)
  y = m.read(linear(x, d))
  logits = linear(x + y, vocab)
  minimize cross_entropy(logits, next(tokens)) at fast with Momentum(rate = 1e-1)
  return logits
}
"""


@pytest.mark.slow
def test_training_steps(tmp_path: Path) -> None:
    """The whole step in one function, against autograd and the optimizers of the runtime."""
    torch = pytest.importorskip("torch")
    from nldsl.backends.iree.package import limits
    from nldsl.runtime.build import build_module
    from nldsl.runtime.optimizer import LevelOptimizers

    path = tmp_path / "model.nl"
    path.write_text(MODEL, encoding="utf-8")
    options = Options(roots=(str(STDLIB),))
    program = middle(front(path, options), options)
    schedule = plan(program)
    made = whole_module(schedule, ["init", "train"])
    other = build_module(program, backend="torch")
    optimizer = LevelOptimizers(other)
    about = {"ahead": {i.name: i.source for i in program.inputs if i.ahead}, "limits": limits(program)}
    params = {n: x.detach().numpy().copy() for n, x in other.named_parameters()}
    module = Loaded(compile_text(made.text), made.described(), params, "local-sync", about)
    rng = np.random.default_rng(0)
    for _ in range(3):
        tokens = rng.integers(0, 7, (3, 71))
        optimizer.zero_grad()
        loss, _ = other.loss(torch.from_numpy(tokens))
        torch.autograd.backward(loss)
        optimizer.step()
        assert abs(module.train(tokens) - loss.item()) < CLOSE * abs(loss.item())
        for name, value in other.named_parameters():
            assert error(module.params[name], value.detach().numpy()) < CLOSE, name
    with pytest.raises(LoadError, match="values from 0 to 6"):
        module.train(np.full((1, 9), 7))
