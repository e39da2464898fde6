"""An update with products of matrices or sums over dims as kernels, for parameters of one shape: one lane for each.

    program --Values--> what needs a launch --Scheduler--> launches --LaunchWriter--> their text

Workspaces share memory where no two of them are needed at once; launches that do the same share a kernel.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.triton.builder import RESERVED
from nldsl.backends.triton.library_text import called
from nldsl.backends.triton.names import Names
from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_entries import IMPORTS, MOST_VALUES
from nldsl.backends.triton.update_schedule import Schedule, Scheduler
from nldsl.backends.triton.update_text import FIXED, Array, LaunchText, LaunchWriter
from nldsl.backends.triton.update_values import Values
from nldsl.ir.entrywise import Entrywise
from nldsl.ir.program import Program
from nldsl.ir.types import Clock

# rows and columns of a tile of a product, and how much of its sum is taken at once, by the type of its operands
TILES = {"half": (128, 64), "float32": (64, 32), "float64": (32, 16)}


@dataclass(frozen=True)
class Call:
    """A launch: ``tensors`` are places in memory, ("slot", n), ("parts", value) or ("state", name); ``numbers`` places
    in what the runtime gives: the shared values, flags of clocks, the rate."""

    kernel: str
    tensors: tuple[Array, ...]
    numbers: tuple[int, ...]
    constants: tuple[str, ...]
    lanes: bool
    tiles: int
    warps: int
    guard: Clock | None


@dataclass(frozen=True)
class MatrixKernels:
    """The kernels of an update for parameters of one shape. ``slots``: entries per lane of each workspace, and whether
    it is in the type of products' operands; ``parts``: entries per lane of the parts of sums."""

    source: str
    calls: tuple[Call, ...]
    slots: tuple[tuple[int, bool], ...]
    parts: tuple[tuple[int, int], ...]
    shared: Entrywise


def write_matrices(program: Program, kind: str = "float32", title: str = "optimizer") -> MatrixKernels:
    """``kind``: of the operands of products, a key of ``TILES``. Raises UnsupportedError for what has no form."""
    if len(program.body) > MOST_VALUES:
        raise UnsupportedError(f"the update has {len(program.body)} operations")
    values = Values(program)
    edge, depth = TILES[kind]
    schedule = Scheduler(values, edge).run()
    names = Names({*FIXED, *RESERVED})
    shared = values.shared
    numbers: dict[object, str] = {v: names.new(program.body[v].name or f"x{v}") for v in shared.needed_numbers()}
    numbers |= {clock: names.new("fires") for clock in shared.needed_clocks()}
    order = [*numbers.values(), "rate"]
    texts = [
        LaunchWriter(values, schedule, launch, n, depth, numbers).write() for n, launch in enumerate(schedule.launches)
    ]
    kernels: dict[str, str] = {}
    for text in texts:
        kernels.setdefault(text.text, f"{title}_{len(kernels) + 1}")
    slots, where = _slots(values, schedule, texts)
    calls = [
        Call(
            kernels[t.text],
            tuple(("slot", where[int(key)]) if kind == "space" else (kind, key) for kind, key in t.arrays),
            tuple(order.index(n) for n in t.numbers),
            t.constants,
            t.lanes,
            t.tiles,
            t.warps,
            t.guard,
        )
        for t in texts
    ]
    parts = [re.sub(r"\bNAME\b", name, text) for text, name in kernels.items()]
    body = "\n\n\n".join(parts)
    library = called("update_library_kernels", body)
    library = [*called("library", "\n".join([*library, body])), *library]
    head = f'"""The update of {title} for one shape in kernels, compiled by nldsl."""\n\n' + "\n".join(IMPORTS)
    source = "\n\n\n".join([head, *library, *parts]) + "\n"
    return MatrixKernels(source, tuple(calls), slots, _parts(values, schedule), shared)


def _slots(
    values: Values, schedule: Schedule, texts: Sequence[LaunchText]
) -> tuple[tuple[tuple[int, bool], ...], dict[int, int]]:
    """Memory for workspaces: the slot of each value."""
    operands = {a for v in values.products for a in values.body[v].args}
    last = {int(key): n for n, text in enumerate(texts) for kind, key in text.arrays if kind == "space"}
    slots: list[tuple[int, bool]] = []
    where: dict[int, int] = {}
    free: list[int] = []
    for number, launch in enumerate(schedule.launches):
        for value in launch.stores:
            size = 1
            for n in values.shape(value):
                size *= n
            wanted = size, value in operands
            slot = next((s for s in free if slots[s] == wanted), None)
            if slot is None:
                slots.append(wanted)
                slot = len(slots) - 1
            else:
                free.remove(slot)
            where[value] = slot
        free += [slot for value, slot in where.items() if last.get(value) == number]
    return tuple(slots), where


def _parts(values: Values, schedule: Schedule) -> tuple[tuple[int, int], ...]:
    found = []
    for value, launch in schedule.parts.items():
        size = 1
        for n in values.shape(value):
            size *= n
        over, (rows, columns) = values.sums[value].over, launch.tiles
        count = rows * columns if not values.shape(value) else rows if over == {"i"} else columns
        found.append((value, count * size))
    return tuple(found)
