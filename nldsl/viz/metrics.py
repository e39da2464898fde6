"""How wide a text is, closely enough to give a box its size before anything is rendered."""

from __future__ import annotations

__all__ = ["text_width"]

# Advance widths of Helvetica, in thousandths of the size, for the characters from space to tilde.
_WIDTHS = (
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556,
    556, 556, 556, 556, 556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278,
    500, 667, 556, 833, 722, 778, 667, 778, 722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469,
    556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222, 500, 222, 833, 556, 556, 556, 556, 333, 500,
    278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
)  # fmt: skip


def text_width(text: str, size: float, bold: bool = False) -> float:
    """In points; characters outside ASCII count as wide ones."""
    total = sum(_WIDTHS[ord(c) - 32] if " " <= c <= "~" else 620 if ord(c) < 0x2E80 else 1000 for c in text)
    return total * size / 1000 * (1.07 if bold else 1.0)
