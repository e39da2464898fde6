"""The derivatives of the scans of matrices (``ir/matrix_ops.py``): the same back, with transposed matrices."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.passes.vjp_site import Site


def _moved(s: Site, value: int, back: bool) -> int:
    """The value of the tick before (``back``) or after, zero where there is none."""
    ticks = s.builder.type(value).shape[0]
    start, stop = (0, ticks - 1) if back else (1, ticks)
    kept = s.emit("slice", value, dim=0, start=start, stop=stop)
    return s.emit("pad", kept, dim=0, before=1 if back else 0, after=0 if back else 1)


def _new(s: Site) -> int:
    """d b[t] = d[t] + a[t+1]' d b[t+1]."""
    reverse = s.attr("reverse")
    turned = s.emit("einsum", s.arg(0), spec="tij->tji")
    return s.emit("matrix_scan", _moved(s, turned, reverse), s.cotangent, reverse=not reverse)


def _matrices(s: Site) -> int:
    """d a[t] = d b[t] x[t-1]'."""
    before = _moved(s, s.out, not s.attr("reverse"))
    return s.emit("einsum", _new(s), before, spec="tim,tjm->tij")


def _passed(s: Site) -> int:
    """d w[t] = d[t] + a[t+1]' d w[t+1] b[t+1]'."""
    reverse = s.attr("reverse")
    left, right = (_moved(s, s.emit("einsum", s.arg(i), spec="tij->tji"), reverse) for i in (0, 2))
    return s.emit("two_sided_scan", left, s.cotangent, right, reverse=not reverse)


def _left(s: Site) -> int:
    """d a[t] = d w[t] (x[t-1] b[t])'."""
    before = _moved(s, s.out, not s.attr("reverse"))
    return s.emit("einsum", _passed(s), s.emit("einsum", before, s.arg(2), spec="tjk,tkm->tjm"), spec="tim,tjm->tij")


def _right(s: Site) -> int:
    """d b[t] = (a[t] x[t-1])' d w[t]."""
    before = _moved(s, s.out, not s.attr("reverse"))
    return s.emit("einsum", s.emit("einsum", s.arg(0), before, spec="tij,tjk->tik"), _passed(s), spec="tik,tim->tkm")


MATRIX_RULES: dict[str, tuple[Callable[[Site], int] | None, ...]] = {
    "matrix_scan": (_matrices, _new),
    "two_sided_scan": (_left, _passed, _right),
}
