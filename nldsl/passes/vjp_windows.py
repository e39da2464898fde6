"""The derivatives of the operations on windows (``ir/window_ops.py``): ``band`` and ``unband`` are each other's."""

from __future__ import annotations

from collections.abc import Callable

from nldsl.passes.vjp_site import Site


def _unfold(s: Site) -> int:
    """Each row gets what all windows that see it pass on."""
    return s.emit("sum", s.emit("unband", s.cotangent, n=s.attr("n")), dims=(0,))


def _band(s: Site) -> int:
    return s.emit("unband", s.cotangent, n=s.attr("n"))


def _unband(s: Site) -> int:
    return s.emit("band", s.cotangent, n=s.attr("n"))


WINDOW_RULES: dict[str, tuple[Callable[[Site], int] | None, ...]] = {
    "unfold": (_unfold,),
    "band": (_band,),
    "unband": (_unband,),
}
