"""What the compiled memories are measured against: peers are imported from their packages."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import nldsl


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


PEERS = {name: _version(name) for name in ("torch", "fla-core", "einops")}


@dataclass(frozen=True)
class Case:
    """``same``: both compute the same function, so their difference means something."""

    name: str
    peer: str
    ours: Callable[[], torch.Tensor]
    theirs: Callable[[], torch.Tensor]
    leaves: list[torch.Tensor]
    same: bool = True


@dataclass(frozen=True)
class Data:
    """[B, T, H, D] streams, as fla's references take most of theirs."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    rate: torch.Tensor
    keep: torch.Tensor  # scalar log retention per head
    keeps: torch.Tensor  # one per key channel


def _data(batch: int, heads: int, ticks: int, width: int) -> Data:
    shape = (batch, ticks, heads, width)
    return Data(
        torch.randn(shape),
        torch.nn.functional.normalize(torch.randn(shape), dim=-1),
        torch.randn(shape),
        torch.rand(batch, ticks, heads),
        torch.nn.functional.logsigmoid(torch.randn(batch, ticks, heads) + 3),
        torch.nn.functional.logsigmoid(torch.randn(shape) + 3),
    )


def _ours(file: str, entry: str, heads: int, backend: str, **dims: Any) -> Callable[..., torch.Tensor]:
    """A memory over [B, T, H, ...] streams: the heads are lanes of the batch."""
    from importlib.resources import files

    module = nldsl.compile(str(files("nldsl.stdlib") / file), entry, backend=backend, **dims)

    def run(**streams: torch.Tensor) -> torch.Tensor:
        batch, ticks = next(iter(streams.values())).shape[:2]
        flat = {n: x.transpose(1, 2).reshape(batch * heads, ticks, *x.shape[3:]) for n, x in streams.items()}
        y = module(**flat)
        return y.reshape(batch, heads, ticks, *y.shape[2:]).transpose(1, 2)

    return run


def _naive(op: str) -> Any:
    """A naive reference by its file: importing the package needs Triton, the references do not."""
    root = importlib.util.find_spec("fla")
    if root is None or not root.submodule_search_locations:
        raise SystemExit('the peers are not installed: pip install "nldsl-compiler[peers]"')
    path = Path(root.submodule_search_locations[0]) / "ops" / op / "naive.py"
    spec = importlib.util.spec_from_file_location(f"bench_peer_{op.replace('/', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(batch: int, heads: int, ticks: int, width: int, backend: str) -> Iterator[Case]:
    """Every comparison that the installed peers allow."""
    delta_rule_chunkwise = _naive("delta_rule").delta_rule_chunkwise
    naive_chunk_gated_delta_rule = _naive("gated_delta_rule").naive_chunk_gated_delta_rule
    dplr_chunkwise = _naive("generalized_delta_rule/dplr").dplr_chunkwise
    naive_recurrent_gla = _naive("gla").naive_recurrent_gla
    naive_chunk_kda = _naive("kda").naive_chunk_kda
    naive_chunk_linear_attn = _naive("linear_attn").naive_chunk_linear_attn

    d, dims = _data(batch, heads, ticks, width), {"dk": width, "dv": width}
    scale = width**-0.5

    def swapped(x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)

    def attention() -> torch.Tensor:
        y = torch.nn.functional.scaled_dot_product_attention(swapped(d.q), swapped(d.k), swapped(d.v), is_causal=True)
        return swapped(y)

    linear = _ours("memories/linear_attention.nl", "LinearAttention", heads, backend, **dims)
    run = lambda: linear(q=d.q * scale, k=d.k, v=d.v)  # noqa: E731
    leaves = [d.q, d.k, d.v]
    chunked = lambda: naive_chunk_linear_attn(d.q, d.k, d.v, scale=scale)  # noqa: E731
    yield Case("linear attention", "fla naive chunk", run, chunked, leaves)
    yield Case("linear attention", "causal softmax attention (sdpa)", run, attention, leaves, same=False)

    gla = _ours("memories/gated_linear.nl", "GatedLinearAttention", heads, backend, **dims)
    yield Case(
        "GLA",
        "fla naive recurrent",
        lambda: gla(q=d.q * scale, k=d.k, v=d.v, keep=d.keeps.exp()),
        lambda: naive_recurrent_gla(d.q, d.k, d.v, d.keeps)[0],
        [d.q, d.k, d.v, d.keeps],
    )
    delta = _ours("memories/delta.nl", "DeltaNet", heads, backend, **dims)
    yield Case(
        "DeltaNet",
        "fla naive chunk",
        lambda: delta(q=d.q * scale, k=d.k, v=d.v, rate=d.rate),
        lambda: swapped(delta_rule_chunkwise(swapped(d.q), swapped(d.k), swapped(d.v), swapped(d.rate))[0]),
        [d.q, d.k, d.v, d.rate],
    )
    gated = _ours("memories/delta.nl", "GatedDelta", heads, backend, **dims)
    run_gated = lambda: gated(q=d.q * scale, k=d.k, v=d.v, rate=d.rate, keep=d.keep.exp())  # noqa: E731
    leaves = [d.q, d.k, d.v, d.rate, d.keep]
    yield Case(
        "Gated DeltaNet",
        "fla naive chunk",
        run_gated,
        lambda: naive_chunk_gated_delta_rule(d.q, d.k, d.v, d.keep, d.rate)[0],
        leaves,
    )
    yield Case("Gated DeltaNet", "causal softmax attention (sdpa)", run_gated, attention, leaves, same=False)
    kda = _ours("memories/delta.nl", "KimiDelta", heads, backend, **dims)
    yield Case(
        "KDA",
        "fla naive chunk",
        lambda: kda(q=d.q * scale, k=d.k, v=d.v, rate=d.rate, keep=d.keeps.exp()),
        lambda: naive_chunk_kda(d.q, d.k, d.v, d.keeps, d.rate)[0],
        [d.q, d.k, d.v, d.rate, d.keeps],
    )
    low_rank = _ours("memories/low_rank.nl", "DiagonalPlusLowRank", heads, backend, **dims)
    a, b = -d.k.detach().clone(), d.k.detach() * torch.rand_like(d.k)
    yield Case(
        "DPLR (RWKV-7)",
        "fla naive chunk",
        lambda: low_rank(q=d.q, k=d.k, v=d.v, a=a, b=b, keep=d.keeps.exp()),
        lambda: swapped(
            dplr_chunkwise(*(swapped(x) for x in (d.q, d.k, d.v, a, b, d.keeps)))[0],
        ),
        [d.q, d.k, d.v, d.keeps],
        same=False,
    )
