"""Modules with native loops from the cache: the same ones, without their code being planned or written again."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

import nldsl
from nldsl.backends.mlir import cache as code
from nldsl.backends.mlir import custom_ops, known
from nldsl.backends.mlir.function import FallbackWarning, UnsupportedError
from nldsl.backends.mlir.kernel import KernelWriter
from nldsl.runtime import build, cache
from nldsl.runtime.module import Module

STDLIB = Path(__file__).parents[3] / "stdlib"
TTT = str(STDLIB / "memories/ttt.nl")
LACT = str(STDLIB / "memories/lact.nl")
DELTA = str(STDLIB / "memories/delta.nl")
TEXT = """
memory Squashed(d: dim = 4) {
  state s: [d] = learned normal(0.5)
  param w: [d, d] = normal(0.4)
  step(x: [d]) -> [d] every token {
    s <- tanh(w @ s + x)
    return s
  }
}
"""  # a loop over ticks
NAMED = """
memory Named(d: dim = 4) {
  state s: [d] = 0
  param w: [d] = normal(0.4)
  step(x: [d], size: [], y: [d]) -> [2, d] {
    s <- s - 0.5 * grad(sum(exp(s * y)), s)
    return stack(sin(w * x), cos(y) + s)
  }
}
"""  # an inner loss and a rate, for logs: nothing else reads them, and in values they come before others


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which stores everything."""
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "WORTH_STORING", 0.0)
    if code.linker() is None:
        pytest.skip("IREE's linker is not installed")
    return tmp_path / "cache"


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("made again")


def another_process(monkeypatch: pytest.MonkeyPatch, writes: bool = False) -> None:
    """As in a new process: no loop is known, and nothing may be planned, or written (unless ``writes``)."""
    monkeypatch.setattr(custom_ops, "LOOPS", {})
    if not writes:
        monkeypatch.setattr(build, "middle", refuse)
        monkeypatch.setattr(build, "planned_for", refuse)
        monkeypatch.setattr(KernelWriter, "write", refuse)
        monkeypatch.setattr(code, "compile_text", refuse)


def made(which: str, **more: Any) -> Module:
    if which == "ticks":
        return nldsl.compile("squashed", text=TEXT, backend="mlir", **more)
    if which == "names":
        return nldsl.compile("named", text=NAMED, backend="mlir", **more)
    if which == "ends":  # the last segments of a call have functions of their own
        return nldsl.compile(LACT, "LaCT", backend="mlir", dk=4, dv=3, hidden=5, chunk=8, **more)
    return nldsl.compile(TTT, "TTTMlp", backend="mlir", d=4, hidden=6, **more)


def inputs(module: Module, ticks: int, dtype: torch.dtype) -> list[Tensor]:
    gen = torch.Generator().manual_seed(0)
    shapes = [(2, ticks, *(int(str(n)) for n in d.type.shape)) for d in module.streams.now]
    return [0.3 * torch.rand(s, generator=gen, dtype=torch.float64).to(dtype) for s in shapes]


def results(module: Module, ticks: int = 19, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Outputs, gradients, and a tick of a module."""
    module.to(dtype)
    given = inputs(module, ticks, dtype)
    module.zero_grad()
    y = module(*given)
    y.square().sum().backward()
    with torch.no_grad():
        one, _ = module.step(*(x[:, 0] for x in given), module.init_state(2))
    return [y.detach(), one, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    return len(found) == len(expected) > 2 and all(map(torch.equal, found, expected))


@pytest.mark.parametrize("which", ["segments", "ticks", "names", pytest.param("ends", marks=pytest.mark.slow)])
def test_nothing_is_made_again(place: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    expected = results(made(which))
    assert len(list(place.glob("*.json"))) == 1
    another_process(monkeypatch)
    module = made(which)
    assert "native.run(" in module.emitted.source
    assert same(results(module), expected)


@pytest.mark.parametrize("which", [pytest.param("segments", marks=pytest.mark.slow), "ticks"])
def test_what_was_never_called_is_made_when_it_is(place: Path, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    """Another length and another dtype, of a program from the cache."""
    first = made(which)
    results(first)
    another_process(monkeypatch, writes=True)
    second = made(which)
    assert same(results(second, 45, torch.float64), results(first, 45, torch.float64))
    y, x = (torch.func.jacrev(lambda s, m=m: m(*(s * v for v in inputs(m, 5, torch.float64))))(torch.ones(()).double())
            for m in (first, second))  # fmt: skip
    assert torch.equal(x, y)


@pytest.mark.slow
def test_a_second_process(place: Path) -> None:
    """Two at once into an empty folder, then one that finds everything; all give the same."""
    script = f"""
import sys, warnings
warnings.simplefilter("error")
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
from nldsl.runtime import build
build.WORTH_STORING = 0.0
from tests.unit.runtime.test_cache_native import made, results
if sys.argv[1:] == ["refuse"]:
    from nldsl.backends.mlir import cache
    from nldsl.backends.mlir.kernel import KernelWriter
    cache.compile_text = KernelWriter.write = build.planned_for = None
print([float(x.double().sum()).hex() for x in results(made("ticks"))])
"""
    first = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found = [process.communicate(timeout=300)[0] for process in first]
    third = subprocess.run([sys.executable, "-c", script, "refuse"], capture_output=True, text=True, check=True)
    assert found[0] and found == [third.stdout] * 2
    assert not [p for p in place.rglob("*") if p.suffix == ".part" or p.name.startswith("new-")]


def test_every_part_of_the_name_matters(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count() -> int:
        made("ticks")
        return len(list(place.glob("*.json")))

    assert count() == count() == 1
    made("ticks", require_backend=True)
    assert count() == 2
    for number, (where, name, value) in enumerate(
        [
            (code, "target", lambda: "another CPU"),
            (code, "_versions", lambda: "other compilers"),
            (code, "PASSES", "builtin.module()"),
            (cache, "_compiler", lambda: b"a changed package"),
        ],
        3,
    ):
        with monkeypatch.context() as changed:
            changed.setattr(where, name, value)
            assert count() == number
    assert count() == 6


def test_a_changed_file_of_the_package_is_another_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "passes" / "some.py"
    file.parent.mkdir()
    (tmp_path / "__init__.py").write_text("")
    file.write_text("x = 1\n")
    monkeypatch.setattr(nldsl, "__file__", str(tmp_path / "__init__.py"))

    def compiler() -> bytes:
        cache._compiler.cache_clear()
        return cache._compiler()

    try:
        first = compiler()
        assert compiler() == first
        times = file.stat()
        file.write_text("x = 2\n")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # of the same size and time
        assert compiler() != first
    finally:
        cache._compiler.cache_clear()


def test_damaged_facts_are_said_and_made_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = results(made("ticks"))
    facts = list((place / "mlir").glob("*.json"))
    assert facts
    for path in facts:
        path.write_bytes(path.read_bytes().replace(b'"scratch"', b'"scrotch"').replace(b'"answer"', b'"onswer"'))
    another_process(monkeypatch, writes=True)
    with pytest.warns(code.CacheWarning, match="is damaged: what it names is made again"):
        assert same(results(made("ticks")), expected)
    another_process(monkeypatch)
    assert same(results(made("ticks")), expected)


def test_what_has_no_native_form_is_said_again(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        with pytest.warns(FallbackWarning, match="the loop of M has no native form"):
            nldsl.compile(DELTA, "DeltaNet", backend="mlir", dk=3, dv=3, disabled=frozenset({"backward"}))
        another_process(monkeypatch)


def test_refusals_are_kept(place: Path) -> None:
    calls = []

    def none() -> Any:
        calls.append(1)
        raise UnsupportedError("never")

    for _ in range(2):
        with pytest.raises(UnsupportedError, match="never"):
            known.function(("program", 0), none)
    assert len(calls) == 1
    assert not known.answer(("program", 1), lambda: False)
    assert not known.answer(("program", 1), refuse)


def test_programs_that_are_not_in_the_cache_have_no_facts(place: Path) -> None:
    """Of two modules of ``build_module`` nothing says that they are of one compiler and one text."""
    from nldsl.api import load_program

    module = build.build_module(load_program("squashed", text=TEXT), "mlir")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results(module)
    assert not list(place.rglob("*.json"))
