"""Modules of IREE against the reference interpreter: values, states between calls, ticks, gradients, training steps."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("iree.compiler")
pytest.importorskip("iree.runtime")

from nldsl.backends.iree.compiler import compile_text
from nldsl.backends.iree.loader import Loaded, LoadError, load
from nldsl.backends.iree.package import whole_module
from nldsl.backends.iree.ticks import as_loop
from nldsl.cli.compile import command
from nldsl.diagnostics.diagnostic import DiagnosticError
from nldsl.driver import Options, front, middle
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.passes.plan import plan
from tests.numeric.iree_compare import CLOSE, compare, error, usable

STDLIB = Path(__file__).parents[2] / "stdlib"
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


def test_a_module_for_another_cpu_is_refused(
    fast: tuple[Program, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IREE itself would run it, and the process would end with an illegal instruction."""
    import nldsl.backends.iree.loader as loader
    from nldsl.backends.iree.features import features_of

    _, path = fast
    about = json.loads(path.with_suffix(".json").read_text())
    assert about["features"] == features_of("host")
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nflags : fpu sse4_1 avx\n")
    assert features_of("host", info) == ["avx", "sse4_1"] and features_of("znver4", info) == []
    monkeypatch.setattr(loader, "CPU_INFO", info)
    other = {**about, "features": features_of("x86-64-v3")}
    with pytest.raises(LoadError, match=r"avx2, bmi1, .* which this one has not"):
        Loaded(path.read_bytes(), about["entries"], {}, "local-sync", other)
    info.write_text("processor : 0\nflags : " + " ".join(features_of("x86-64-v3")) + "\n")
    with pytest.raises(LoadError, match="no value for the parameter"):  # it goes on
        Loaded(path.read_bytes(), about["entries"], {}, "local-sync", other)


def test_what_stops_the_compiler_is_said() -> None:
    from nldsl.backends.iree.compiler import _failed

    said = (
        "Error code: -11\nDiagnostics:\n #4 0x00 mlir::(anonymous namespace)::SomePass::runOnOperation() Some.cpp:0:0\n"
    )
    assert "stopped by signal 11 in SomePass" in str(_failed("module {}", "cuda", said))


def test_equal_loops_are_one_function() -> None:
    """The ticks before whole segments and after them, forward and back."""
    path = STDLIB / "memories" / "ttt.nl"
    options = Options("TTTLinear", (("d", 3),), roots=(str(STDLIB),))
    program = middle(front(path, options), options)
    made = whole_module(plan(program), ["forward", "backward"]).text
    parts = set(re.findall(r"util\.func private @(part_\w+)", made))
    calls = re.findall(r"util\.call @(part_\w+)", made)
    assert set(calls) == parts and sorted(calls.count(p) for p in parts) == [1, 1, 1, 2, 2, 2]
    assert made == whole_module(plan(program), ["forward", "backward"]).text


def test_a_loop_over_ticks_reads_states_of_other_loops_as_they_were() -> None:
    """Not as they are at the end: ``slow`` is a stream for the ticks of ``fast`` that are no whole segment."""
    text = """
    memory Two(d: dim = 3) {
      state fast, slow: [d, d] = 1
      step(q: [d], k: [d], v: [d]) -> [d] {
        y = (fast + slow) @ q
        fast <- 0.9 * fast - outer(fast @ k - v, k)
        every 4 token { slow <- 0.8 * slow + mean of outer(v, k) }
        return y
      }
    }
    """
    program = middle(front("two.nl", Options("Two", ()), text), Options("Two", ()))
    (loop,) = [p for p in plan(program).phases if isinstance(p, ChunkLoop) and "fast" in p.states]
    ticks = as_loop(program, loop.scan)
    read = {i.attr("state") for i in ticks.body if i.op == "state"}
    given = {program.body[i.attr("value")].name for i in ticks.body if i.op == "given"}
    assert read == {"fast"}
    assert "slow" in given


def test_a_torch_tensor_is_taken(fast: tuple[Program, Path]) -> None:
    torch = pytest.importorskip("torch")
    _, path = fast
    module = load(path)
    x = torch.ones(2, 5, 4)
    y, _ = module.forward(x, x, x, x[:, :, 0].contiguous())
    z, _ = module.forward(*[x.numpy()] * 3, x[:, :, 0].numpy())
    assert np.array_equal(y, z)


def test_inputs_are_lent_and_never_given_away() -> None:
    """Large inputs are not copied; a result that would be the same memory is."""
    torch = pytest.importorskip("torch")
    text = "module @nldsl { func.func @forward(%a: tensor<?xf32>) -> tensor<?xf32> { return %a : tensor<?xf32> } }"
    slot = {"name": "x", "shape": ["time"], "dtype": "float32"}
    entries = {"forward": {"takes": [{"group": "inputs", **slot}], "gives": [{"group": "outputs", **slot}]}}
    module = Loaded(compile_text(text), entries, {}, "local-sync", {})
    for size in (16, 1 << 20):
        x = torch.arange(size, dtype=torch.float32)
        assert (module._lent(x.numpy()) is not None) == (size > 16)
        found = module.call("forward", {"inputs": {"x": x}})["outputs"]["x"].to_host()
        x.zero_()
        assert np.array_equal(found, np.arange(size, dtype=np.float32)), "what was given may change after the call"


def test_places_and_errors(fast: tuple[Program, Path]) -> None:
    program, _ = fast
    assert 'loc("program.nl":' in whole_module(plan(program)).text
    with pytest.raises(DiagnosticError, match="NL0797"):
        compile_text("module {}", target="tpu")
    with pytest.raises(DiagnosticError, match="NL0797"):
        compile_text("module {}", cpu="no such; cpu")
    nothing = "module { func.func @f(%a: tensor<4xf32>) -> tensor<4xf32> { return %a : tensor<4xf32> } }"
    with pytest.raises(DiagnosticError, match=r"NL0797.*IREE knows no processor `z80` for llvm-cpu"):
        compile_text(nothing, cpu="z80")
    with pytest.raises(DiagnosticError, match=r"NL0797.*IREE knows no processor `z80` for cuda"):
        compile_text(nothing, target="cuda", gpu="z80")
    with pytest.raises(DiagnosticError, match=r"NL0797.*cannot compile the module for llvm-cpu: use of undeclared"):
        compile_text(nothing.replace("return %a", "return %b"))


def test_a_shared_state_has_no_gradient(tmp_path: Path) -> None:
    text = PROGRAM.replace("state S: [d, d] = learned normal(0.3)", "shared state S: [d, d] = 0")
    text = text.replace("keep * S - 0.5 * grad(l2(read(k), v), S)", "keep * S + outer(v, k)")
    try:
        program = program_of(text, tmp_path)
    except DiagnosticError:
        pytest.skip("the program is not well-formed with a shared state")
    with pytest.raises(DiagnosticError, match=r"NL0796.*`S`"):
        whole_module(plan(program), ["backward"])


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
