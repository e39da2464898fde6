"""Functions of the host that launch kernels; emitted modules contain copies of those they call."""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl


@functools.lru_cache(maxsize=64)
def segment_starts(tick: int, ticks: int, most: int, clocks: tuple[tuple[int, int], ...]) -> list[int]:
    """Where segments of the next ``ticks`` ticks begin, and the end: N + 1 numbers. At most ``most`` ticks each, and an
    end at each tick that leaves ``rest`` when divided by ``period``, for (period, rest) in ``clocks``."""
    bounds, at, last = [0], tick, tick + ticks
    while at < last:
        end = min(at + most, last)
        for period, rest in clocks:
            end = min(end, at + 1 + (rest - at - 1) % period)
        bounds.append(end - tick)
        at = end
    return bounds


@functools.lru_cache(maxsize=64)
def segment_bounds(starts: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """The same on a device; kept, so that nothing is copied in later calls, and none can be in a CUDA graph."""
    return torch.tensor(starts, dtype=torch.int64).to(device)


def kernel_types(
    tensors: tuple[torch.Tensor, ...], streams: tuple[torch.Tensor, ...]
) -> tuple[torch.dtype, dict[str, object]]:
    """The type of outputs, and the constants of kernels that say in which types they compute: states and gates in
    float32 (float64 where a tensor is), matrix products in the lowest type of a stream."""
    real = [x.dtype for x in streams if x.is_floating_point()] or [x.dtype for x in tensors if x.is_floating_point()]
    result = functools.reduce(torch.promote_types, real)
    wide = any(x.dtype == torch.float64 for x in tensors)
    base = tl.float64 if wide else tl.float32
    dot = base
    if not wide:
        half = {torch.float16: tl.float16, torch.bfloat16: tl.bfloat16}
        dot = next((half[dtype] for dtype in real if dtype in half), base)
    exact = "ieee" if wide or not torch.backends.cuda.matmul.allow_tf32 else "tf32"
    return result, {"REAL": base, "DOT": dot, "PRECISION": exact, "SOLVE": "ieee" if wide else "tf32x3"}


def sum_of_parts(
    parts: torch.Tensor, lanes: tuple[int, ...], flags: tuple[str, ...], sizes: tuple[int, ...]
) -> torch.Tensor:
    """[rows, N, blocks..] summed over segments and over lanes with the flag ``sum``; of lanes with ``first``, where all
    have the same, the first; without padding."""
    whole = parts.sum(1).reshape(*lanes, *parts.shape[2:])
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
