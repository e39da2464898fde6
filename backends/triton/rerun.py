"""Which kernels of the forward run the way back runs again, for what the forward run does not keep.

A stack of many layers holds what each keeps until its turn comes on the way back. The states at the beginning of each
segment are most of that, and the kernels that make them are a fifth of the bytes that forward and way back move: so
they run again, unless the states are small (ADR 0023).
"""

from __future__ import annotations

import math

from nldsl.backends.triton.describe import writes
from nldsl.backends.triton.host import Rerun, Written
from nldsl.backends.triton.kernel import Kernel
from nldsl.backends.triton.tiles import block_size
from nldsl.backends.triton.workspaces import Slot

KEPT_BYTES = 64  # for a tick of a lane: half of a triangular matrix of 64 ticks in bfloat16, which others keep


def kept_bytes(forward: Written) -> float:
    """What the states at the beginnings of segments take, for a tick of a lane: of full segments, in bfloat16 what
    products take."""
    total = 0
    for slot in forward.left:
        entries = math.prod(block_size(size, forward.frame.block) for size in slot.sizes)
        total += entries * (2 if slot.narrow else 4)
    return total / forward.frame.size


def kernels_for(kernels: list[Kernel], wanted: list[Slot]) -> list[Kernel]:
    """The kernels, in order, that make these workspaces, and those that make what they read."""
    missing = {slot.name for slot in wanted}
    found: list[Kernel] = []
    made: set[str] = set()
    for kernel in reversed(kernels):
        own = {name for name in kernel.workspaces if writes(kernel, name)}
        if own & missing:
            found.insert(0, kernel)
            missing |= set(kernel.workspaces)
            made |= own
    assert not missing - made, f"nothing writes {missing - made}"
    return found


def read_of(slots: list[Slot], written: Written) -> list[Slot]:
    """Those workspaces that kernels of a run read or write."""
    names = {name for kernel in written.kernels for name in kernel.workspaces}
    return [slot for slot in slots if slot.name in names]


def rerun_of(forward: Written, slots: list[Slot], name: str) -> Rerun:
    """What makes these workspaces of the forward run again, as the function ``name``."""
    return Rerun(name, forward, kernels_for(forward.kernels, slots), slots)
