"""The derivative of ``matrix_scan`` (``ir/matrix_ops.py``): the same recurrence back, with transposed matrices."""

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


MATRIX_RULES: dict[str, tuple[Callable[[Site], int] | None, ...]] = {"matrix_scan": (_matrices, _new)}
