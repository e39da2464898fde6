"""Functions of the host that launch kernels; emitted modules contain copies of those they call."""

from __future__ import annotations

import functools
import itertools
import math

import torch
import triton
import triton.language as tl


@functools.lru_cache(maxsize=1024)
def segment_starts(tick: int, ticks: int, most: int, clocks: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Where segments of the next ``ticks`` ticks begin, and the end: N + 1 numbers. At most ``most`` ticks each, and an
    end at each tick that leaves ``rest`` when divided by ``period``, for (period, rest) in ``clocks``."""
    bounds, at, last = [0], tick, tick + ticks
    while at < last:
        end = min(at + most, last)
        for period, rest in clocks:
            end = min(end, at + 1 + (rest - at - 1) % period)
        bounds.append(end - tick)
        at = end
    return tuple(bounds)


def segment_counts(
    tick: int, ticks: int, rows: int, cuts: tuple[int, ...], most: int, clocks: tuple[tuple[int, int], ...]
) -> list[int]:
    """How many segments each sequence has: ``rows`` sequences of ``ticks`` ticks, or those between ``cuts``."""
    lengths = [after - before for before, after in itertools.pairwise(cuts)] if cuts else [ticks] * rows
    return [len(segment_starts(tick, length, most, clocks)) - 1 for length in lengths]


def segment_count(
    tick: int, ticks: int, rows: int, cuts: tuple[int, ...], most: int, clocks: tuple[tuple[int, int], ...]
) -> int:
    """How many segments all sequences have. Where PyTorch traces ``ticks`` as a symbol, so is this, but with clocks."""
    if not cuts and not clocks:
        return rows * ((ticks + most - 1) // most)
    if not cuts:
        return rows * (len(segment_starts(int(tick), int(ticks), most, clocks)) - 1)
    return sum(segment_counts(tick, ticks, rows, cuts, most, clocks))


@functools.lru_cache(maxsize=64)
def segment_tables(
    tick: int,
    ticks: int,
    rows: int,
    cuts: tuple[int, ...],
    most: int,
    clocks: tuple[tuple[int, int], ...],
    device: torch.device,
) -> tuple[torch.Tensor, ...]:
    """Of all segments, sequence by sequence: where they begin, with the end of the last one; how many ticks of their
    sequence are before them; where they begin in a stream without batch; the sequence; and of the sequences the number
    of their first segment, with the end.

    All ticks lie in one row, ``rows`` sequences of ``ticks`` or those between ``cuts``. A stream without batch is the
    same for all rows, or lies as the packed sequences do. Found by these numbers and not
    by a tensor, which may change; kept, so that nothing is copied in later calls, and none can be in a CUDA graph."""
    ends = cuts or tuple(range(0, (rows + 1) * ticks, ticks))
    starts = [segment_starts(tick, after - before, most, clocks)[:-1] for before, after in itertools.pairwise(ends)]
    since = [at for own in starts for at in own]
    first = [begin + at for begin, own in zip(ends, starts, strict=False) for at in own]
    owner = [sequence for sequence, own in enumerate(starts) for _ in own]
    counts = itertools.accumulate((len(own) for own in starts), initial=0)
    tables = ([*first, ends[-1]], since, first if cuts else since, owner, [*counts])
    return tuple(torch.tensor(x, dtype=torch.int64).to(device) for x in tables)


def kernel_types(
    tensors: tuple[torch.Tensor, ...], streams: tuple[torch.Tensor, ...]
) -> tuple[torch.dtype, dict[str, object]]:
    """The type of outputs, and the constants of kernels that say in which types they compute: states and gates in
    float32 (float64 where a tensor is), matrix products in the lowest type of a stream, those of float32 in three
    passes of TensorFloat-32 unless one is allowed."""
    real = [x.dtype for x in streams if x.is_floating_point()] or [x.dtype for x in tensors if x.is_floating_point()]
    result = functools.reduce(torch.promote_types, real)
    wide = any(x.dtype == torch.float64 for x in tensors)
    base = tl.float64 if wide else tl.float32
    dot = base
    if not wide:
        half = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
        dot = next((half[dtype] for dtype in real if dtype in half), base)
    exact = "ieee" if wide else "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
    return result, {"REAL": base, "DOT": dot, "PRECISION": exact, "SOLVE": "ieee" if wide else "tf32x3"}


def segment_block(types: dict[str, object], half: int, single: int) -> int:
    """How many entries of a tile the ticks of a segment take: ``half`` where products are in half precision."""
    return half if types["DOT"] in (tl.float16, tl.bfloat16) else single


def tile_columns(types: dict[str, object], most: int) -> int:
    """How many columns a kernel goes through at a time: all where products are in half precision, else half."""
    return most if types["DOT"] in (tl.float16, tl.bfloat16) else max(16, most // 2)


def product_type(types: dict[str, object]) -> torch.dtype:
    """The type of matrix products, as tensors have it."""
    named = {tl.float16: torch.float16, tl.bfloat16: torch.bfloat16, tl.float64: torch.float64}
    return named.get(types["DOT"], torch.float32)


def parts_of_sequences(parts: torch.Tensor, segments: tuple[object, ...]) -> torch.Tensor:
    """[N, lanes, blocks..] summed over the segments of each sequence: [sequences, lanes, blocks..]."""
    counts = segment_counts(*segments)  # type: ignore[arg-type]
    if len(set(counts)) == 1:
        return parts.unflatten(0, (len(counts), counts[0])).sum(1)  # type: ignore[no-any-return,no-untyped-call]
    return torch.stack([own.sum(0) for own in torch.split(parts, counts)])


def sum_of_parts(
    parts: torch.Tensor, lanes: tuple[int, ...], flags: tuple[str, ...], sizes: tuple[int, ...]
) -> torch.Tensor:
    """[N, lanes, blocks..] summed over segments and over lanes with the flag ``sum``; of lanes with ``first``, where
    all have the same, the first; without padding. With sequences for segments those are the first lane."""
    whole = (parts if lanes[:1] == (-1,) else parts.sum(0)).reshape((*lanes, *parts.shape[2:]))
    for dim in reversed(range(len(lanes))):
        if flags[dim] == "sum":
            whole = whole.sum(dim)
        elif flags[dim] == "first":
            whole = whole.select(dim, 0)
    for n, size in enumerate(sizes):
        whole = whole.narrow(n - len(sizes), 0, size)
    return whole.contiguous()


def check_device(tensor: torch.Tensor, name: str) -> None:
    """Kernels run on a GPU, or anywhere in Triton's interpreter."""
    if tensor.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise RuntimeError(
            f"the kernels of `{name}` need tensors on a GPU, these are on {tensor.device.type}: move the module "
            "and its inputs, compile with backend='torch', or set TRITON_INTERPRET=1 to run them slowly"
        )


def longest_sequence(ticks: int, cuts: tuple[int, ...]) -> int:
    """The ticks of the longest sequence: ``ticks``, or between two of ``cuts``."""
    return max((after - before for before, after in itertools.pairwise(cuts)), default=ticks)


def ticks_of_block(ticks: int, cuts: tuple[int, ...]) -> int:
    """Ticks between two states that are kept for the way back: with about the root of all, least is held at once."""
    return min(64, max(8, math.isqrt(max(longest_sequence(ticks, cuts) - 1, 0)) + 1))


def blocks_of_ticks(ticks: int, cuts: tuple[int, ...]) -> int:
    """How many such blocks a sequence has at most."""
    return -(-longest_sequence(ticks, cuts) // ticks_of_block(ticks, cuts))


@functools.lru_cache(maxsize=64)
def sequence_table(ticks: int, rows: int, cuts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where sequences begin, with the end of the last one: ``rows`` of ``ticks`` ticks, or at ``cuts``. Kept, so that
    nothing is copied in later calls, and none can be in a CUDA graph."""
    return torch.tensor(cuts or range(0, (rows + 1) * ticks, ticks), dtype=torch.int64).to(device)
