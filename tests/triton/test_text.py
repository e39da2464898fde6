"""What a person reads of generated kernels: names of the program, a head, nothing twice."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.builder import Builder
from nldsl.backends.triton.ops import Block, Op
from nldsl.backends.triton.pointwise import pointwise
from nldsl.backends.triton.printer import lines
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.backends.triton.tiles import Extent, Moved, Tile
from nldsl.backends.triton.views import reshape, tile_of
from nldsl.passes.plan import plan
from tests.triton.compare import program

Golden = Callable[..., None]


def kernels(path: str, entry: str, **dims: int) -> dict[str, str]:
    writer = LoopKernelWriter(required=True)
    TorchBackend("triton", kernels=writer).emit(plan(program(path, entry, **dims)))
    return {kernel.name: kernel.source for job in writer.written for kernel in job.kernels}


def test_a_scalar_decay_reads_well(golden: Golden) -> None:
    found = kernels("memories/gated_linear.nl", "Mamba2", dk=64, dv=64)
    golden(found["scan_M_fwd_step"] + "\n", suffix=".py", name="step")
    golden(found["scan_M_fwd_finish"] + "\n", suffix=".py", name="finish")


@pytest.mark.parametrize("entry", ["GatedDelta"])
def test_no_name_is_that_of_an_operation(entry: str) -> None:
    text = "\n".join(kernels("memories/delta.nl", entry, dk=64, dv=64).values())
    assert not re.findall(r"^ +((?:mul|add|sub|product|x)\d*(?:_\d+)*) = ", text, re.MULTILINE)
    assert "M <- keep * M    (delta.nl:" in text


def test_a_single_row_is_broadcast() -> None:
    """Triton 3.6 asserts that a gather reads a tile that is not much smaller than its result."""
    b = Builder()
    row = b.tile("load", "tl.load(row_ptr)", (Extent(1), Extent(16)), "row")
    tile_of(b, Moved(row, dim=0, offset=-63, low=63, high=64, size=64))
    texts = [op.text for op in b.top.ops]
    assert "tl.broadcast_to(row, (64, 16))" in texts
    assert not any("gather" in text for text in texts)


def block(*ops: Op) -> Block:
    return Block(ops=list(ops))


def test_what_is_used_once_stands_where_it_is_used() -> None:
    first, second = Op("pointwise", "a + b", "s"), Op("pointwise", "s * c", "p")
    store = Op("store", "tl.store(where, p)", keep=True)
    assert lines(block(first, second, store)) == ["    tl.store(where, (a + b) * c)"]


def test_nothing_moves_behind_a_change_of_what_it_reads() -> None:
    first = Op("pointwise", "a + b", "s")
    change = Op("view", "a * 2", "a", keep=True)
    store = Op("store", "tl.store(where, s)", keep=True)
    assert lines(block(first, change, store)) == ["    s = a + b", "    a = a * 2", "    tl.store(where, s)"]


def test_nothing_moves_into_a_loop() -> None:
    inner = block(Op("store", "tl.store(where, s)", keep=True))
    loop = Op("loop", "for n in range(N):", keep=True, inner=inner)
    found = lines(block(Op("pointwise", "a + b", "s"), loop))
    assert found == ["    s = a + b", "    for n in range(N):", "        tl.store(where, s)"]


def test_what_is_the_same_in_every_round_stands_before_the_loop() -> None:
    inner = block(
        Op("index", "x_ptr + first * 64", "x_at"),
        Op("index", "column + i", "i_v"),
        Op("load", "tl.load(x_at + i_v)", "x"),
        Op("store", "tl.store(y_at + i_v, x * 2)", keep=True),
    )
    loop = Op("loop", "for column in range(0, 64, BV):", keep=True, inner=inner)
    after = [Op("index", "x_ptr + first * 64", "x_at"), Op("store", "tl.store(z_at, tl.load(x_at))", keep=True)]
    assert lines(block(loop, *after)) == [
        "    x_at = x_ptr + first * 64",
        "    for column in range(0, 64, BV):",
        "        i_v = column + i",
        "        x = tl.load(x_at + i_v)",
        "        tl.store(y_at + i_v, x * 2)",
        "    tl.store(z_at, tl.load(x_at))",
    ]


def test_an_address_whose_name_has_another_meaning_behind_the_loop_stays_in_it() -> None:
    inner = block(Op("index", "x_ptr + first", "at"), Op("store", "tl.store(at, tl.load(at))", keep=True))
    loop = Op("loop", "for column in range(0, 64, BV):", keep=True, inner=inner)
    after = [Op("index", "y_ptr + first", "at"), Op("store", "tl.store(at, tl.load(at))", keep=True)]
    assert lines(block(loop, *after)) == [
        "    for column in range(0, 64, BV):",
        "        at = x_ptr + first",
        "        tl.store(at, tl.load(at))",
        "    at = y_ptr + first",
        "    tl.store(at, tl.load(at))",
    ]


def test_what_a_loop_adds_up_is_added_where_it_is_computed() -> None:
    b = Builder(["a", "c"])
    b.effect("pointwise", "tl.zeros((16, 16), REAL)", "total")
    b.open()
    part = b.define("dot", "tl.dot(a, c)", "part")
    b.effect("store", "tl.store(there, 0)")
    b.add_up("total", part)
    other = b.define("dot", "tl.dot(c, a)", "other")
    b.effect("store", f"tl.store(here, {other})")
    b.add_up("sum", other)
    b.close("for column in range(0, 64, BV):")
    assert b.text()[2:] == [
        "        total += tl.dot(a, c)",
        "        tl.store(there, 0)",
        "        other = tl.dot(c, a)",
        "        tl.store(here, other)",
        "        sum += other",
    ]


def test_dims_of_one_entry_are_put_in_by_the_reader() -> None:
    """A column of numbers is computed as a vector."""
    b = Builder()
    time = Extent(64)
    one, two = (Tile(f"{name}[:, None]", (time, Extent(1))) for name in ("a", "c"))
    found = pointwise(b, "add", [one, two], (time, Extent(1)), "sum")
    assert found == Tile("sum[:, None]", (time, Extent(1)))
    assert [op.text for op in b.top.ops] == ["a + c"]
    assert tile_of(b, reshape(b, found, (64,), 0)).name == "sum"
