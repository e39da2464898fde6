"""What the compiled memories are measured against: imported from the packages they come in, never copied.

A peer that is not installed raises ``Missing``; the table then has a line that says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Tensor = torch.Tensor
Tensors = dict[str, Tensor]
Run = Callable[[], Tensor]
Make = Callable[[Tensors], Run]  # from the streams [B, H, T, ...] to a run
NAMES = ("torch", "fla-core", "einops", "titans-pytorch", "nested-learning", "pytorch-optimizer")


class Missing(Exception):  # noqa: N818
    """A peer that is not here; the message says how to get it."""


def versions() -> dict[str, str]:
    """The versions of the peers, for the record."""

    def of(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "missing"

    return {name: of(name) for name in NAMES}


def fla(op: str, function: str) -> Any:
    """A naive reference by its file: importing the package needs Triton, the references do not."""
    root = importlib.util.find_spec("fla")
    if root is None or not root.submodule_search_locations:
        raise Missing('pip install "nldsl-compiler[peers]"')
    path = Path(root.submodule_search_locations[0]) / "ops" / op / "naive.py"
    if not path.is_file():
        raise Missing(f"fla-core has no {op}")
    return getattr(_from_file(f"bench_peer_{op.replace('/', '_')}", path), function)


def package(module: str, hint: str) -> Any:
    """A module of a package that is not among the extras of every day."""
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise Missing(f"{hint} ({problem})") from problem


def checkout(variable: str, file: str, repository: str) -> types.ModuleType:
    """A module of a repository that is no package: ``variable`` of the environment says where it was cloned."""
    folder = os.environ.get(variable, "")
    path = Path(folder) / file
    if not folder or not path.is_file():
        raise Missing(f"clone {repository} and set {variable}")
    try:
        return _from_file(f"bench_peer_{path.stem}", path)
    except ImportError as problem:
        raise Missing(str(problem)) from problem


def _from_file(name: str, path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    module.__dict__["warnings"] = warnings  # LaCT's file uses it without importing it
    spec.loader.exec_module(module)
    return module


def time_first(x: Tensor) -> Tensor:
    """[B, H, T, ...] as fla takes most streams: [B, T, H, ...]."""
    return x.transpose(1, 2)


def layer(make: Callable[[int, int], torch.nn.Module], call: Callable[[Any, Tensor], Any]) -> Make:
    """A whole layer of width H D on an input of its own, projections included."""

    def build(streams: Tensors) -> Run:
        batch, heads, ticks, width = streams["q"].shape
        module = make(heads, width)
        x = torch.randn(batch, ticks, heads * width)

        def run() -> Tensor:
            y = call(module, x.requires_grad_(torch.is_grad_enabled()))
            found: Tensor = y[0] if isinstance(y, tuple) else y
            return found

        return run

    return build


def titans(depth: int, batch_size: int | None) -> Make:
    """titans-pytorch's NeuralMemory; with ``batch_size`` its chunks follow one another, as the definition says."""

    def make(heads: int, width: int) -> torch.nn.Module:
        found = package("titans_pytorch", "pip install titans-pytorch")
        models = package("titans_pytorch.memory_models", "pip install titans-pytorch")
        structure = models.MemoryMLP(width, depth=depth, expansion_factor=4.0 if depth > 1 else 1.0)
        memory: torch.nn.Module = found.NeuralMemory(
            heads * width, chunk_size=64, heads=heads, dim_head=width, batch_size=batch_size, model=structure
        )
        return memory

    return layer(make, lambda m, x: m(x)[0])


def ttt_lm(name: str) -> Make:
    """A layer of ttt-lm-pytorch, mini-batches of 16."""

    def make(heads: int, width: int) -> torch.nn.Module:
        ttt = checkout("TTT_LM_SRC", "ttt.py", "https://github.com/test-time-training/ttt-lm-pytorch")
        dim = heads * width
        config = ttt.TTTConfig(
            hidden_size=dim,
            num_attention_heads=heads,
            mini_batch_size=16,
            num_hidden_layers=1,
            intermediate_size=2 * dim,
        )
        module: torch.nn.Module = getattr(ttt, name)(config, layer_idx=0).eval()
        return module

    return layer(make, lambda m, x: m(x, position_ids=torch.arange(x.shape[1])[None]))


def nested_cms(streams: Tensors) -> Run:
    """nested-learning's continuum memory, reading only."""
    levels = package("nested_learning.levels", "pip install nested-learning")
    cms = package("nested_learning.cms", "pip install nested-learning")
    batch, heads, ticks, width = streams["q"].shape
    periods = (("fast", 16), ("mid", 64), ("slow", 256), ("ultra", 1024))
    module = cms.CMS(dim=heads * width, levels=[levels.LevelSpec(*p) for p in periods])
    x = torch.randn(batch, ticks, heads * width)

    def run() -> Tensor:
        found: Tensor = module(x.requires_grad_(torch.is_grad_enabled()))
        return found

    return run


def nested_block(streams: Tensors) -> Run:
    """nested-learning's HOPE block, reading only: its memories do not learn from the context here."""
    levels = package("nested_learning.levels", "pip install nested-learning")
    block = package("nested_learning.hope.block", "pip install nested-learning")
    batch, heads, ticks, width = streams["q"].shape
    periods = (("fast", 16), ("mid", 64), ("slow", 256), ("ultra", 1024))
    config = block.HOPESelfModBlockConfig(dim=heads * width, cms_levels=[levels.LevelSpec(*p) for p in periods])
    module, x = block.HOPESelfModBlock(config), torch.randn(batch, ticks, heads * width)

    def run() -> Tensor:
        found: Tensor = module(x.requires_grad_(torch.is_grad_enabled()))
        return found

    return run


def nested_self_modifying(streams: Tensors) -> Run:
    """nested-learning's self-modifying Titans with its updates, which have no gradient; forward only."""
    found = package("nested_learning.titan.self_modifying", "pip install nested-learning")
    batch, heads, ticks, width = streams["q"].shape
    config = found.SelfModifyingTitansConfig(dim=heads * width, chunk_size_other=64, chunk_size_memory=64)
    module, x = found.SelfModifyingTitans(config), torch.randn(batch, ticks, heads * width)

    def run() -> Tensor:
        with torch.no_grad():
            y: Tensor = module.forward_with_updates(x, module.init_fast_state())[0]
        return y

    return run


def lact(muon: bool) -> Make:
    """The official large-chunk test-time training, chunks of 256."""

    def build(streams: Tensors) -> Run:
        file = "minimal_implementations/causal_lact_with_sliding_window_attn.py"
        found = checkout("LACT_SRC", file, "https://github.com/a1600012888/LaCT")
        run_of = getattr(found.block_causal_lact_swiglu, "_torchdynamo_orig_callable", found.block_causal_lact_swiglu)
        for name in ("silu_backprop", "l2_norm", "zeropower_via_newtonschulz5"):
            setattr(found, name, getattr(getattr(found, name), "_torchdynamo_orig_callable", getattr(found, name)))
        batch, heads, ticks, width = streams["q"].shape
        lanes = batch * heads
        weights = [torch.randn(lanes, width, width) / width**0.5 for _ in range(3)]
        rates = [torch.full((lanes, ticks, 1), 1e-2) for _ in range(3)]
        momentum = torch.full((lanes, ticks, 1), 0.9)

        def run() -> Tensor:
            q, k, v = (streams[n].flatten(0, 1) for n in "qkv")
            y: Tensor = run_of(*weights, q, k, v, *rates, momentum, muon, chunk_size=256)
            return y

        return run

    return build
