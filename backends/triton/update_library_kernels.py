"""Functions that the kernels of updates call, copied into the modules that need them."""

# mypy: ignore-errors

import triton
import triton.language as tl

FIRST, PIECES, ALL = (tl.constexpr(n) for n in (5, 6, 8))  # columns of the table of tensors: update_entries.COLUMNS


@triton.jit
def number(x, STORED: tl.constexpr, REAL: tl.constexpr):
    """A number of the host, or one that lies on the device."""
    if STORED:
        x = tl.load(x)
    return tl.full((), 0.0, REAL) + x


@triton.jit
def total(partials_ptr, place, row, PARTS: tl.constexpr):
    """The sum number ``place`` of a tensor, from what its pieces left."""
    piece = tl.arange(0, PARTS)
    at = place * tl.load(row + ALL) + tl.load(row + FIRST) + piece
    return tl.sum(tl.load(partials_ptr + at, mask=piece < tl.load(row + PIECES), other=0.0), 0)


@triton.jit
def largest(partials_ptr, place, row, PARTS: tl.constexpr):
    """The same for a maximum."""
    piece = tl.arange(0, PARTS)
    at = place * tl.load(row + ALL) + tl.load(row + FIRST) + piece
    return tl.max(tl.load(partials_ptr + at, mask=piece < tl.load(row + PIECES), other=float("-inf")), 0)


@triton.jit
def row_of(place_ptr, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Where a tensor begins whose address lies in a table."""
    at = tl.load(place_ptr).to(tl.pointer_type(KIND))
    if ALIGNED:
        at = tl.multiple_of(at, 16)
    return at


@triton.jit
def tile_of(tile, rows: tl.constexpr, columns: tl.constexpr):
    """Tiles in stripes of eight rows: those that run at the same time read the same rows and columns."""
    stripe = tile // (8 * columns)
    height = tl.minimum(rows - stripe * 8, 8)
    inner = tile % (8 * columns)
    return stripe * 8 + inner % height, inner // height
