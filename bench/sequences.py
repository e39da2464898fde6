"""The sequence memories that are measured: each with its streams, our compiled module, and its peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import logsigmoid, normalize, scaled_dot_product_attention

import nldsl
from bench import hand
from bench.peers import (
    Make,
    Run,
    Tensors,
    fla,
    lact,
    nested_block,
    nested_cms,
    nested_self_modifying,
    time_first,
    titans,
    ttt_lm,
)

Tensor = torch.Tensor


@dataclass(frozen=True)
class Shape:
    """Batch, heads, ticks, width of a head."""

    batch: int
    heads: int
    ticks: int
    width: int

    def __str__(self) -> str:
        return f"({self.batch}, {self.heads}, {self.ticks}, {self.width})"


@dataclass(frozen=True)
class Peer:
    """``same``: it computes the same function, so the difference means something. ``goal``: the ratio that is asked
    for at forward + backward. ``compiled``: the first calls take long. ``gradient``: whether it has a backward pass."""

    title: str
    make: Make
    same: bool = True
    goal: float | None = None
    compiled: bool = False
    gradient: bool = True


@dataclass(frozen=True)
class Subject:
    """One program. ``streams`` names what the memory takes, as made by ``data``; ``arguments`` makes its inputs."""

    name: str
    source: str
    entry: str | None
    dims: Callable[[Shape], dict[str, Any]]
    arguments: Callable[[Tensors], Tensors]
    leaves: str
    peers: tuple[Peer, ...]
    whole: bool = False  # takes the heads side by side, as layers do
    longest: int | None = None  # cut to so many ticks

    def path(self) -> str:
        """The file of the program."""
        return str(Path(__file__).parent / "memories.nl" if self.source == "" else files("nldsl.stdlib") / self.source)

    def compile(self, shape: Shape, backend: str) -> Any:
        """Our module."""
        return nldsl.compile(self.path(), self.entry, backend=backend, **self.dims(shape))

    def run(self, module: Any, streams: Tensors) -> Run:
        """Our run: heads are lanes of the batch, which is a view of [B, H, T, ...]."""

        def forward() -> Tensor:
            given = self.arguments(streams)
            y: Tensor
            if self.whole:
                y = module(**{n: x.transpose(1, 2).flatten(2) for n, x in given.items()})
                return y
            y = module(**{n: x.flatten(0, 1) for n, x in given.items()})
            batch, heads = streams["q"].shape[:2]
            return y.reshape(batch, heads, *y.shape[1:])

        return forward


def data(shape: Shape, seed: int = 0) -> Tensors:
    """Streams [B, H, T, ...]: unit keys, rates in (0, 1), retentions near one, as in fla's own tests."""
    generator = torch.Generator().manual_seed(seed)
    wide, thin = (shape.batch, shape.heads, shape.ticks, shape.width), (shape.batch, shape.heads, shape.ticks)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    pair = (*thin, 2, shape.width)
    return {
        "q": normal(*wide),
        "k": normalize(normal(*wide), dim=-1),
        "v": normal(*wide),
        "rate": torch.rand(thin, generator=generator),
        "log_keep": logsigmoid(normal(*thin) + 3),
        "log_keeps": logsigmoid(normal(*wide) + 3),
        "log_beta": logsigmoid(normal(*thin) + 2),
        "size": 0.5 * torch.rand(thin, generator=generator),
        "k2": normalize(normal(*pair), dim=-1),
        "v2": normal(*pair),
        "rate2": torch.rand((*thin, 2), generator=generator),
        "small": torch.full(thin, 1e-2),
        "rates3": torch.full((*thin, 3), 1e-2),
    }


def _head(shape: Shape) -> dict[str, Any]:
    return {"dk": shape.width, "dv": shape.width}


def _qkv(s: Tensors) -> Tensors:
    return {"q": s["q"] * s["q"].shape[-1] ** -0.5, "k": s["k"], "v": s["v"]}


def _fla(op: str, function: str, *names: str, first: bool = True, **options: Any) -> Make:
    """A naive reference of fla: streams by name, time first unless it takes heads first."""

    def build(streams: Tensors) -> Run:
        found = fla(op, function)

        def run() -> Tensor:
            given = [time_first(streams[n]) if first else streams[n] for n in names]
            y = found(*given, **options)
            y = y[0] if isinstance(y, tuple) else y
            return time_first(y) if first else y

        return run

    return build


def _hand(function: Callable[..., Tensor], *names: str, compiled: bool = False) -> Make:
    def build(streams: Tensors) -> Run:
        run = torch.compile(function, dynamic=False) if compiled else function
        return lambda: run(*(streams[n] for n in names))

    return build


def _by_hand(
    function: Callable[..., Tensor], names: str, eager: float | None, compiled: float | None
) -> tuple[Peer, ...]:
    split = names.split()
    return (
        Peer("by hand", _hand(function, *split), goal=eager),
        Peer("by hand, torch.compile", _hand(function, *split, compiled=True), goal=compiled, compiled=True),
    )


def _attention(streams: Tensors) -> Run:
    return lambda: scaled_dot_product_attention(streams["q"], streams["k"], streams["v"], is_causal=True)


def _dplr(streams: Tensors) -> Run:
    found = fla("generalized_delta_rule/dplr", "dplr_chunkwise")

    def run() -> Tensor:
        s = streams
        y: Tensor = found(s["q"], s["k"], s["v"], -s["k"], s["k"] * s["rate"][..., None], s["log_keeps"])[0]
        return y

    return run


def _momentum(function: str) -> Make:
    def build(streams: Tensors) -> Run:
        found = fla("momentum_delta_rule", function)

        def run() -> Tensor:
            s = {n: time_first(x) for n, x in streams.items() if x.dim() < 5}
            y: Tensor = found(
                q=s["q"], k=s["k"], v=s["v"], p=s["k"], log_alpha=s["log_keep"], log_mu=s["log_beta"],
                beta=s["size"], eta=s["rate"],
            )[0]  # fmt: skip
            return time_first(y)

        return run

    return build


def _delta_product(streams: Tensors) -> Run:
    found = fla("gated_delta_product", "naive_recurrent_gated_delta_product")

    def run() -> Tensor:
        s = streams
        k, v, rate = (time_first(s[n].flatten(2, 3)) for n in ("k2", "v2", "rate2"))
        scale = s["q"].shape[-1] ** -0.5
        y = found(time_first(s["q"]), k, v, time_first(s["log_keep"]), rate, scale, num_householder=2)
        return time_first(y[0] if isinstance(y, tuple) else y)

    return run


def _ttt_linear(streams: Tensors) -> Run:
    found = fla("ttt", "chunk_ttt_linear_ref")
    heads, width = streams["q"].shape[1], streams["q"].shape[-1]
    weight, bias = torch.ones(heads, width), torch.zeros(heads, width)

    def run() -> Tensor:
        q, k, v = (time_first(streams[n]) for n in "qkv")
        y: Tensor = found(q * 1.0, k, v, weight, bias, time_first(streams["small"])[..., None], mini_batch_size=16)[0]
        return time_first(y)

    return run


def _product_arguments(s: Tensors) -> Tensors:
    q = s["q"] * s["q"].shape[-1] ** -0.5
    return {"q": q, "k": s["k2"], "v": s["v2"], "rate": s["rate2"], "keep": s["log_keep"].exp()}


def _deep_arguments(s: Tensors) -> Tensors:
    beta, keep = s["log_beta"].exp(), s["log_keep"].exp()
    return {"q": s["q"], "k": s["k"], "v": s["v"], "rate": s["small"], "beta": beta, "keep": keep}


def _low_rank_arguments(s: Tensors) -> Tensors:
    own = {"q": s["q"] * s["q"].shape[-1] ** -0.5, "k": s["k"], "v": s["v"], "keep": s["log_keeps"].exp()}
    return own | {"a": -s["k"], "b": s["k"] * s["rate"][..., None]}


def _momentum_arguments(s: Tensors) -> Tensors:
    keep, beta = s["log_keep"].exp(), s["log_beta"].exp()
    return _qkv(s) | {"rate": s["rate"], "beta": beta, "keep": keep, "size": s["size"]}


SOFTMAX = Peer("causal softmax attention", _attention, same=False, goal=1.0)
LINEAR = "memories/linear_attention.nl"
DELTA = "memories/delta.nl"

SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "linear attention", LINEAR, "LinearAttention", _head, _qkv, "q k v",
        (
            *_by_hand(hand.linear_attention, "q k v", 1.0, 1.0),
            Peer("fla naive chunk", _fla("linear_attn", "naive_chunk_linear_attn", "q", "k", "v")),
            SOFTMAX,
        ),
    ),
    Subject(
        "GLA", "memories/gated_linear.nl", "GatedLinearAttention", _head,
        lambda s: _qkv(s) | {"keep": s["log_keeps"].exp()}, "q k v log_keeps",
        (
            *_by_hand(hand.gated_linear_attention, "q k v log_keeps", None, 1.3),
            Peer("fla naive recurrent", _fla("gla", "naive_recurrent_gla", "q", "k", "v", "log_keeps")),
            SOFTMAX,
        ),
    ),
    Subject(
        "DeltaNet", DELTA, "DeltaNet", _head, lambda s: _qkv(s) | {"rate": s["rate"]}, "q k v rate",
        (
            Peer(
                "fla naive chunk",
                _fla("delta_rule", "delta_rule_chunkwise", "q", "k", "v", "rate", first=False),
                goal=6.0,
            ),
            Peer("by hand", _hand(hand.delta, "q", "k", "v", "rate")),
            SOFTMAX,
        ),
    ),
    Subject(
        "Gated DeltaNet", DELTA, "GatedDelta", _head,
        lambda s: _qkv(s) | {"rate": s["rate"], "keep": s["log_keep"].exp()}, "q k v rate log_keep",
        (
            *_by_hand(hand.gated_delta, "q k v log_keep rate", 3.5, 1.3),
            Peer(
                "fla naive chunk",
                _fla("gated_delta_rule", "naive_chunk_gated_delta_rule", "q", "k", "v", "log_keep", "rate"),
                goal=8.0,
            ),
            SOFTMAX,
        ),
    ),
    Subject(
        "KDA", DELTA, "KimiDelta", _head,
        lambda s: _qkv(s) | {"rate": s["rate"], "keep": s["log_keeps"].exp()}, "q k v rate log_keeps",
        (
            Peer("fla naive chunk", _fla("kda", "naive_chunk_kda", "q", "k", "v", "log_keeps", "rate"), goal=50.0),
            SOFTMAX,
        ),
    ),
    Subject(
        "RWKV-7 (DPLR)", "memories/low_rank.nl", "DiagonalPlusLowRank", _head, _low_rank_arguments,
        "q k v rate log_keeps", (Peer("fla naive chunk", _dplr, goal=15.0), SOFTMAX),
    ),
    Subject(
        "Gated DeltaProduct, 2", DELTA, "GatedDeltaProduct", _head, _product_arguments, "q k2 v2 rate2 log_keep",
        (Peer("fla naive recurrent", _delta_product), SOFTMAX),
    ),
    Subject(
        "delta rule with momentum", "", "MomentumDelta", _head, _momentum_arguments, "q k v rate size",
        (Peer("fla naive chunk", _momentum("chunk_momentum_delta_rule_ref"), goal=6.0), SOFTMAX),
    ),
    Subject(
        "TTT-Linear, 16", "memories/ttt.nl", "TTTLinear", lambda s: {"d": s.width},
        lambda s: {"q": s["q"], "k": s["k"], "v": s["v"], "rate": s["small"]}, "q k v",
        (
            Peer("fla naive", _ttt_linear, same=False, goal=5.0),
            Peer("ttt-lm-pytorch layer", ttt_lm("TTTLinear"), same=False, goal=5.0),
        ),
    ),
    Subject(
        "TTT-MLP, 16", "memories/ttt.nl", "TTTMlp", lambda s: {"d": s.width},
        lambda s: {"q": s["q"], "k": s["k"], "v": s["v"], "rate": s["small"]}, "q k v",
        (Peer("ttt-lm-pytorch layer", ttt_lm("TTTMLP"), same=False, goal=4.0),),
    ),
    Subject(
        "Titans, 2 layers, 64", "memories/titans.nl", "Titans", lambda s: _head(s) | {"chunk": 64}, _deep_arguments,
        "q k v", (Peer("titans-pytorch layer", titans(2, 64), same=False, goal=4.0),),
    ),
    Subject(
        "LaCT, 256", "memories/lact.nl", "LaCT", lambda s: _head(s) | {"hidden": s.width, "chunk": 256},
        lambda s: {"q": s["q"], "k": s["k"], "v": s["v"], "rates": s["rates3"], "beta": s["log_beta"].exp()}, "q k v",
        (Peer("official code", lact(False), same=False, goal=1.2),),
    ),
    Subject(
        "LaCT with Muon, 256", "memories/lact.nl", "LaCT",
        lambda s: _head(s) | {"hidden": s.width, "chunk": 256, "muon": True},
        lambda s: {"q": s["q"], "k": s["k"], "v": s["v"], "rates": s["rates3"], "beta": s["log_beta"].exp()}, "q k v",
        (Peer("official code", lact(True), same=False, goal=2.0),),
    ),
    Subject(
        "self-modifying Titans, 64", "memories/self_modifying.nl", "SelfModifying",
        lambda s: {"d": s.heads * s.width, "hidden": s.heads * s.width, "chunk": 64}, lambda s: {"x": s["q"]}, "q",
        (Peer("nested-learning, with updates", nested_self_modifying, same=False, goal=100.0, gradient=False),),
        whole=True, longest=256,
    ),
    Subject(
        "CMS, 4 networks", "", "FourMlps",
        lambda s: {"d": s.heads * s.width, "hidden": 4 * s.heads * s.width}, lambda s: {"x": s["q"]}, "q",
        (Peer("nested-learning, read only", nested_cms, same=False),), whole=True,
    ),
    Subject(
        "self-modifying Titans (HOPE)", "memories/self_modifying.nl", "SelfModifying",
        lambda s: {"d": s.width, "hidden": s.width, "chunk": 64}, lambda s: {"x": s["q"]}, "q",
        (Peer("nested-learning HOPE block, read only", nested_block, same=False), SOFTMAX),
    ),
)  # fmt: skip
