"""What a model has to beat: an order-2 byte model fitted to the same training text, and `zlib -9`.

The byte model predicts each byte from the two before it. The counts of contexts of two, one and no bytes are
interpolated, `P(c|ab) = seen(c|ab) + escape(ab) * P(c|b)`, down to the uniform distribution. Witten-Bell with a factor
and absolute discounting are tried at several strengths; the one that predicts the last part of the *training* text
best is fitted again to all of it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Order2", "Smoothing", "fit_order2", "zlib_bits_per_byte"]

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float64]

_ALPHABET = 256
_TUNING = 20  # 1/20 of the training text chooses the smoothing
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Smoothing:
    """`witten-bell`: each distinct follower has the weight `strength`; `discount`: each count loses `strength`."""

    kind: str
    strength: float


CANDIDATES = tuple(
    [Smoothing("witten-bell", s) for s in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)]
    + [Smoothing("discount", s) for s in (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)]
)


@dataclass(frozen=True)
class Table:
    """How often each byte follows each context, how often each context is followed, and by how many different bytes."""

    counts: Counts  # [contexts * 256]
    totals: Counts
    distinct: Counts

    @staticmethod
    def of(runs: Counts) -> Table:
        """Sum up the counts of runs: context, then follower."""
        table = runs.reshape(-1, _ALPHABET)
        return Table(runs, table.sum(axis=1), np.count_nonzero(table, axis=1))


@dataclass(frozen=True)
class Order2:
    """The tables for contexts of no, one and two bytes."""

    tables: tuple[Table, ...]
    smoothing: Smoothing

    def bits_per_byte(self, text: Bytes) -> float:
        """Return the mean code length of the bytes of a text; the first two are predicted from what there is."""
        if text.size == 0:
            return 0.0
        total = 0.0
        for start in range(0, text.size, _BLOCK):
            part = text[max(0, start - 2) : start + _BLOCK]
            total += float(-np.log2(self.probabilities(part)[min(start, 2) :]).sum())
        return total / text.size

    def probabilities(self, text: Bytes) -> Probabilities:
        """Return the probability of each byte of a text given the two before it in the text."""
        codes = text.astype(np.int64)
        p = np.full(text.size, 1 / _ALPHABET)
        context = np.zeros(text.size, dtype=np.int64)
        for order in range(3):
            if order:  # a byte without enough bytes before it keeps the prediction of the order below
                context[order:] += codes[:-order] * _ALPHABET ** (order - 1)
            p[order:] = self._interpolate(order, context[order:], codes[order:], p[order:])
        return p

    def _interpolate(self, order: int, context: Counts, follower: Counts, lower: Probabilities) -> Probabilities:
        table = self.tables[order]
        total = table.totals[context].astype(np.float64)
        distinct = table.distinct[context].astype(np.float64)
        count = table.counts[context * _ALPHABET + follower].astype(np.float64)
        strength = self.smoothing.strength
        known = np.maximum(total, 1)
        if self.smoothing.kind == "witten-bell":
            weight = strength * distinct
            mixed = (count + weight * lower) / np.maximum(total + weight, 1e-300)
        else:
            mixed = (np.maximum(count - strength, 0) + strength * distinct * lower) / known
        return np.where(total > 0, mixed, lower)


def fit_order2(text: bytes) -> Order2:
    """Fit the model to a training text, its smoothing included."""
    codes = np.frombuffer(text, dtype=np.uint8)
    tuning = codes.size // _TUNING
    if tuning < 3:
        return Order2(_count(codes), Smoothing("witten-bell", 1.0))
    first = _count(codes[:-tuning])
    best = min(CANDIDATES, key=lambda s: Order2(first, s).bits_per_byte(codes[-tuning:]))
    return Order2(_count(codes), best)


def zlib_bits_per_byte(text: bytes) -> float:
    """Compress a text alone with `zlib -9`: it has seen nothing before, but learns from the text as it goes."""
    return 8 * len(zlib.compress(text, 9)) / len(text) if text else 0.0


def _count(codes: Bytes) -> tuple[Table, ...]:
    wide = codes.astype(np.int64)
    one = np.bincount(wide, minlength=_ALPHABET)
    two = np.bincount(wide[:-1] * 256 + wide[1:], minlength=_ALPHABET**2)
    three = np.bincount((wide[:-2] * 256 + wide[1:-1]) * 256 + wide[2:], minlength=_ALPHABET**3)
    return tuple(map(Table.of, (one, two, three)))
