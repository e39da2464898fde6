"""What kernels move and multiply, counted without a GPU: ours, and fla's for the same memories.

    python -m bench.traffic [--only NAME] [--width 128] [--ticks 128] [--kernels] [--no-peer] [--memory]

Every kernel runs once in Triton's interpreter, in bfloat16, forward and backward, while its loads, stores and dots are
counted. Two numbers of bytes: what programs ask for, and what differs within a launch, the least that memory has to
deliver if caches keep everything else. All figures are for a tick of a head, so that they can be scaled to any shape.
They are counts, not times: how fast a GPU does this is for ``bench.gpu`` to say.

``--memory`` prints instead what each takes of memory, beside inputs and parameters: no kernel runs, so that a sequence
of 2048 ticks takes a second. fla (the package ``fla-core``) runs each kernel with the first of its configurations. KDA
and gated linear attention take some minutes, for the interpreter is slow where there are many small operations.
"""

from __future__ import annotations

import argparse
import builtins
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported

import numpy as np
import torch

BYTES, OPERATIONS = 3.35e12, 0.99e15  # of an H100 SXM: https://www.nvidia.com/en-us/data-center/h100/
SLOWER = {"tf32": 2, "tf32x3": 6, "ieee": 15}  # how much dearer a product of float32 is than one of bfloat16


@dataclass
class Count:
    """Of the launches of one kernel. ``dots``: floating-point operations of products, by the type of operands."""

    name: str
    programs: int = 0
    asked: int = 0
    differ: int = 0
    dots: dict[str, int] = field(default_factory=dict)
    seen: dict[int, list[Any]] = field(default_factory=dict)

    def touch(self, addresses: Any, size: int) -> None:
        """Count the access of entries of ``size`` bytes at these addresses."""
        self.asked += addresses.size * size
        self.seen.setdefault(size, []).append(addresses.reshape(-1))

    def close(self) -> None:
        """The end of a launch: what differs within it."""
        for size, parts in self.seen.items():
            self.differ += np.unique(np.concatenate(parts)).size * size
        self.seen.clear()

    @property
    def products(self) -> float:
        """Operations of products as if all were of bfloat16: dearer types count for more."""
        return sum(n * SLOWER.get(kind, 1) for kind, n in self.dots.items())


class Counter:
    """Counts while it is entered. One launch is counted at a time, in order: ``launches``."""

    def __init__(self) -> None:
        self.launches: list[Count] = []
        self._undo: list[Callable[[], None]] = []

    def __enter__(self) -> Counter:
        from triton.runtime import interpreter

        builder, grid = interpreter.InterpreterBuilder, interpreter.GridExecutor
        self._wrap(grid, "__call__", self._launch)
        self._wrap(builder, "create_masked_load", self._load)
        self._wrap(builder, "create_masked_store", self._store)
        self._wrap(builder, "create_dot", self._dot)
        self._wrap(builder, "set_grid_dim", self._programs)
        return self

    def __exit__(self, *problem: object) -> None:
        for undo in reversed(self._undo):
            undo()

    def _wrap(self, owner: Any, name: str, before: Callable[..., Callable[[], None] | None]) -> None:
        own = getattr(owner, name)

        def wrapped(*given: Any, **more: Any) -> Any:
            after = before(*given, **more)
            try:
                return own(*given, **more)
            finally:
                if after is not None:
                    after()

        setattr(owner, name, wrapped)
        self._undo.append(lambda: setattr(owner, name, own))

    def _launch(self, executor: Any, *_: Any, **__: Any) -> Callable[[], None]:
        self.launches.append(Count(executor.fn.__name__))
        return self.launches[-1].close

    def _programs(self, _: Any, *grid: int) -> None:
        self.launches[-1].programs += int(np.prod(grid))

    def _load(self, _: Any, pointers: Any, mask: Any, *__: Any, **___: Any) -> None:
        self._access(pointers, mask)

    def _store(self, _: Any, pointers: Any, __: Any, mask: Any, *___: Any) -> None:
        self._access(pointers, mask)

    def _access(self, pointers: Any, mask: Any) -> None:
        where = np.broadcast_to(pointers.data, np.broadcast_shapes(pointers.data.shape, mask.data.shape))
        kept = np.broadcast_to(mask.data, where.shape).astype(bool)
        self.launches[-1].touch(where[kept], max(1, pointers.get_element_ty().primitive_bitwidth // 8))

    def _dot(self, _: Any, a: Any, b: Any, d: Any, precision: Any, *__: Any) -> None:
        kind = str(a.dtype.scalar)
        if kind == "fp32":
            kind = precision.name.lower()
        rows, inner, columns = a.data.shape[-2], a.data.shape[-1], b.data.shape[-1]
        batch = int(np.prod(a.data.shape[:-2]))
        dots = self.launches[-1].dots
        dots[kind] = dots.get(kind, 0) + 2 * batch * rows * inner * columns


@dataclass
class Run:
    """A call, and what it takes the gradients of."""

    forward: Callable[[], torch.Tensor]
    inputs: list[torch.Tensor]

    def backward(self, y: torch.Tensor, given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The gradients, from that of the result."""
        return torch.autograd.grad(y, self.inputs, given)

    def __call__(self) -> None:
        y = self.forward()
        self.backward(y, torch.ones_like(y))


def inputs(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Streams in bfloat16 that need gradients, positive and below one, so that any of them may be a rate or a gate."""
    torch.manual_seed(0)
    return {n: torch.rand(s).mul(0.5).add(0.4).to(torch.bfloat16).requires_grad_() for n, s in shapes.items()}


def ours(entry: str, ticks: int, heads: int, width: int, keep_states: bool | None = None) -> Run:
    """Forward and backward of a program of ``bench.gpu.sequence``. ``keep_states``: see ``nldsl.compile``."""
    from bench.gpu.measure import inputs_of
    from bench.gpu.sequence import kernels

    shape = (1, ticks, heads, width)
    module = kernels(entry, shape, keep_states).to(torch.bfloat16)
    x = inputs_of(module, shape, torch.bfloat16, "cpu", torch.bfloat16)
    return Run(lambda: first(module(**x)), list(x.values()))


def first(found: Any) -> torch.Tensor:
    """The result of a call, without the states."""
    result: torch.Tensor = found[0] if isinstance(found, tuple) else found
    return result


def peer(entry: str, ticks: int, heads: int, width: int) -> Run:
    """The same by fla's kernels, each with the first of its configurations."""
    _interpretable()
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule
    from fla.ops.gla import chunk_gla
    from fla.ops.kda import chunk_kda

    _loops()
    wide, narrow = (1, ticks, heads, width), (1, ticks, heads)
    common = {"q": wide, "k": wide, "v": wide}
    calls: dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]]] = {
        "Mixer_GatedDelta": (chunk_gated_delta_rule, {**common, "beta": narrow, "g": narrow}),
        "Mixer_Delta": (chunk_delta_rule, {**common, "beta": narrow}),
        "Mixer_Gla": (chunk_gla, {**common, "g": wide}),
        "Mixer_Kimi": (chunk_kda, {**common, "beta": narrow, "g": wide}),
    }
    function, shapes = calls[entry]
    x = inputs(shapes)

    def forward() -> torch.Tensor:
        given = {n: -v if n == "g" else v for n, v in x.items()}  # gates are logarithms
        return first(function(**given))

    return Run(forward, list(x.values()))


def _interpretable() -> None:
    """Let fla's kernels run where there is no GPU: no choice between configurations by time."""
    from triton.runtime import autotuner

    own = autotuner.Autotuner.__init__
    if own.__name__ == "first":
        return

    def first(self: Any, fn: Any, names: Any, configs: Any, *given: Any, **more: Any) -> None:
        own(self, fn, names, list(configs)[:1], *given, **more)

    autotuner.Autotuner.__init__ = first


class _Number(int):
    """A number of a loop as the interpreter should give it: one that has ``to``."""

    def to(self, *_: Any, **__: Any) -> _Number:
        return self


def _loops() -> None:
    def numbers(*ends: Any) -> Iterator[_Number]:
        return map(_Number, builtins.range(*(int(e) for e in ends)))

    for name, module in list(sys.modules.items()):
        if name.startswith("fla.ops") and module is not None:
            module.__dict__["range"] = numbers


ENTRIES = {
    "Mixer_GatedDelta": "gated delta rule",
    "Mixer_Delta": "delta rule",
    "Mixer_Gla": "gated linear attention",
    "Mixer_Kimi": "Kimi delta attention",
}


def counted(run: Run) -> list[Count]:
    """The launches of a run, in order."""
    with Counter() as counter:
        run()
    return counter.launches


@dataclass(frozen=True)
class Memory:
    """Bytes for a tick of a head, beside the inputs: ``kept`` from forward to backward beside the result, and the most
    at any time of forward and of backward, results and gradients included."""

    kept: float
    forward: float
    backward: float


def memory(run: Run, ticks: int) -> Memory:
    """What a run takes. No kernel runs; whatever PyTorch allocates and frees is counted."""
    from triton.runtime import interpreter

    own = interpreter.GridExecutor.__call__
    interpreter.GridExecutor.__call__ = lambda *_, **__: None
    try:
        given = torch.ones_like(run.forward())  # and what is made once
        y, forward = _allocated(run.forward)
        _, backward = _allocated(lambda: run.backward(y, given))
    finally:
        interpreter.GridExecutor.__call__ = own
    kept = forward[-1] - y.untyped_storage().nbytes()
    return Memory(kept / ticks, max(forward) / ticks, (forward[-1] + max(backward)) / ticks)


def _allocated(call: Callable[[], Any]) -> tuple[Any, list[int]]:
    """What a call gives, and the bytes that it has more than at its begin, after each allocation."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        found = call()
    kineto = profile.profiler.kineto_results.events()
    events = [(e.start_ns(), e.nbytes()) for e in kineto if e.name() == "[memory]"]
    held, total = [0], 0
    for _, size in sorted(events, key=lambda event: event[0]):
        total += size
        held.append(total)
    return found, held


def line(title: str, launches: Sequence[Count], ticks: int) -> str:
    """A row of the table: sums over launches, for a tick of a head."""
    asked, differ = sum(c.asked for c in launches) / ticks, sum(c.differ for c in launches) / ticks
    dots, products = sum(sum(c.dots.values()) for c in launches) / ticks, sum(c.products for c in launches) / ticks
    least = max(differ / BYTES, products / OPERATIONS) * 1e9
    return f"| {title} | {len(launches)} | {asked:,.0f} | {differ:,.0f} | {dots / 1e3:,.0f} | {least:.1f} |"


def makers(alone: bool) -> dict[str, Callable[..., Run]]:
    """Who is counted: ours as it comes, and with states kept, and fla's unless ours are ``alone``."""
    found: dict[str, Callable[..., Run]] = {"": ours, ", states kept": partial(ours, keep_states=True)}
    return found if alone else {**found, ", fla": peer}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.traffic", description=__doc__)
    parser.add_argument("--only", default="", metavar="NAME", help="memories with this in their names")
    parser.add_argument("--width", type=int, default=128, help="width of a head")
    parser.add_argument("--ticks", type=int, default=128, help="ticks of the sequence")
    parser.add_argument("--kernels", action="store_true", help="a line for each launch too")
    parser.add_argument("--no-peer", action="store_true", help="ours alone")
    parser.add_argument("--memory", action="store_true", help="bytes of memory instead; 2048 ticks unless told")
    options = parser.parse_args()
    if options.memory:
        return memories(options)
    print("| memory | launches | bytes asked for | bytes that differ | 1000 operations of dots | least ns on an H100 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for entry, title in ENTRIES.items():
        if options.only.lower() not in title and options.only.lower() not in entry.lower():
            continue
        for who, make in makers(options.no_peer).items():
            launches = counted(make(entry, options.ticks, 1, options.width))
            print(line(title + who, launches, options.ticks), flush=True)
            for n, launch in enumerate(launches if options.kernels else ()):
                print(line(f"{n}: {launch.name} x {launch.programs}", [launch], options.ticks), flush=True)
    return 0


def memories(options: argparse.Namespace) -> int:
    """Print the table of what is kept and of the most at any time."""
    print("| memory | kept for the way back | most forward | most backward |")
    print("| --- | --- | --- | --- |")
    ticks = max(options.ticks, 2048)
    for entry, title in ENTRIES.items():
        if options.only.lower() in title or options.only.lower() in entry.lower():
            for who, make in makers(options.no_peer).items():
                found = memory(make(entry, ticks, 2, options.width), 2 * ticks)
                print(
                    f"| {title}{who} | {found.kept:,.0f} | {found.forward:,.0f} | {found.backward:,.0f} |", flush=True
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
