"""The derivatives of the operations over the ticks of a segment (``ir/time_ops.py``): rows of the table of rules.

None divides by a product of decays: with P = segprod(a), what a decay a[r] does to an entry is the product of what
comes before it, P[r-1, s], and of what comes after it, P[t, r]. Decays of zero are exact.
"""

from __future__ import annotations

from collections.abc import Callable

from nldsl.dims import Dim
from nldsl.passes.vjp_site import Site


def _solve_right(s: Site) -> int:
    """A^-T d."""
    return s.emit("solve_triangular", s.arg(0), s.cotangent, lower=True, unit=True, transposed=not _transposed(s))


def _transposed(s: Site) -> bool:
    return any(name == "transposed" and value for name, value in s.instr.attrs)


def _solve_matrix(s: Site) -> int:
    """-(A^-T d) x', of the entries that are read: those below the diagonal."""
    outer = "i,j->ij" if len(s.shape) == 1 else "ik,jk->ij"
    left, right = _solve_right(s), s.out
    if _transposed(s):
        left, right = right, left
    return s.emit("neg", _below(s, s.emit("einsum", left, right, spec=outer)))


def _below(s: Site, matrix: int) -> int:
    """The entries below the diagonal."""
    n = s.builder.type(matrix).shape[0]
    tick = s.emit("iota", n=n)
    rows, columns = s.emit("reshape", tick, shape=(n, 1)), s.emit("reshape", tick, shape=(1, n))
    return s.emit("where", s.emit("gt", rows, columns), matrix, s.const(0.0))


def _before(s: Site, value: int) -> int:
    """The value of the tick before, along the first dim; zero at the first."""
    ticks = s.builder.type(value).shape[0]
    return s.emit("pad", s.emit("slice", value, dim=0, start=0, stop=ticks - 1), dim=0, before=1, after=0)


def _after(s: Site, value: int) -> int:
    """The value of the tick after; zero at the last."""
    ticks = s.builder.type(value).shape[0]
    return s.emit("pad", s.emit("slice", value, dim=0, start=1, stop=ticks), dim=0, before=0, after=1)


def _segprod(s: Site) -> int:
    table, before = s.out, _before(s, s.out)
    if s.attr("matrix"):
        rest = "abcdefgh"[: len(s.shape) - 4]
        moved = s.emit("einsum", table, s.cotangent, spec=f"rtki{rest},rskj{rest}->tsij{rest}")
        return s.emit("einsum", moved, before, spec=f"tsij{rest},tslj{rest}->til{rest}")
    rest = "abcdefgh"[: len(s.shape) - 2]
    moved = s.emit("einsum", table, s.cotangent, spec=f"rt{rest},rs{rest}->ts{rest}")
    return s.emit("einsum", moved, before, spec=f"ts{rest},ts{rest}->t{rest}")


def _cumprod(s: Site) -> int:
    """d a[r] = (product of the factors on one side of r) * (what the entries on the other side pass on to r)."""
    reverse, exclusive = s.attr("reverse"), s.attr("exclusive")
    one_side = s.out if exclusive else s.emit("cumprod", s.arg(0), reverse=reverse, exclusive=True)
    passed = _passed_table(s, reverse, exclusive) if len(s.shape) == 1 else _passed_scan(s, reverse, exclusive)
    return s.mul(one_side, passed)


def _passed_table(s: Site, reverse: bool, exclusive: bool) -> int:
    """Of scalars: by the table of products, which is there anyway."""
    table = s.emit("segprod", s.arg(0), matrix=False)
    if not reverse:
        found = s.emit("einsum", table, s.cotangent, spec="rt,r->t")
        if not exclusive:
            return found
        # entry t > r is a[r+1] .. a[t-1]: one factor less
        return s.emit("einsum", table, _after(s, s.cotangent), spec="rt,r->t")
    if exclusive:
        return _before(s, s.emit("einsum", table, s.cotangent, spec="rt,t->r"))
    scaled = s.mul(s.arg(0), s.cotangent)
    return s.emit("add", s.cotangent, _before(s, s.emit("einsum", table, scaled, spec="rt,t->r")))


def _passed_scan(s: Site, reverse: bool, exclusive: bool) -> int:
    decay = _before(s, s.arg(0)) if reverse else _after(s, s.arg(0))
    arriving = s.cotangent
    if exclusive:
        arriving = _before(s, arriving) if reverse else _after(s, arriving)
    return s.emit("linear_scan", decay, arriving, reverse=not reverse)


def _scan_reverse(s: Site) -> bool:
    return any(name == "reverse" and value for name, value in s.instr.attrs)


def _scan_new(s: Site) -> int:
    reverse = _scan_reverse(s)
    decay = _before(s, s.arg(0)) if reverse else _after(s, s.arg(0))
    return s.emit("linear_scan", decay, s.cotangent, reverse=not reverse)


def _scan_decay(s: Site) -> int:
    passed = _scan_new(s)
    earlier = _after(s, s.out) if _scan_reverse(s) else _before(s, s.out)
    found = s.mul(passed, earlier)
    shape, wanted = s.shape, s.arg_shape(0)
    lead = len(shape) - len(wanted)  # dims between the ticks and the decay's own
    own: tuple[Dim, ...] = (wanted[0], *([1] * lead), *wanted[1:])
    dims = tuple(d for d in range(1, len(shape)) if own[d] == 1 and shape[d] != 1)
    if dims:
        found = s.emit("sum", found, dims=dims)
    return s.reshaped(found, wanted)


def _decay_gram(index: int) -> Callable[[Site], int]:
    def rule(s: Site) -> int:
        every = s.emit("decay_gram_grad", s.cotangent, s.arg(0), s.arg(1), s.arg(2))
        row = s.emit("slice", every, dim=0, start=index, stop=index + 1)
        return s.emit("reshape", row, shape=s.arg_shape(index))

    return rule


def _lane(s: Site) -> int:
    """Put into its lane again, zero in the others."""
    index, size = s.attr("index"), s.attr("size")
    row = s.emit("reshape", s.cotangent, shape=(1, *s.shape))
    if size > 1:
        row = s.emit("pad", row, dim=0, before=index, after=size - 1 - index)
    return s.emit("spread", row, axis=s.attr("axis"))


TIME_RULES: dict[str, tuple[Callable[[Site], int], ...]] = {
    "solve_triangular": (_solve_matrix, _solve_right),
    "segprod": (_segprod,),
    "cumprod": (_cumprod,),
    "linear_scan": (_scan_decay, _scan_new),
    "decay_gram": (_decay_gram(0), _decay_gram(1), _decay_gram(2)),
    "lane": (_lane,),
}
