"""Reads of a state between its decay and the writes of the tick, told from reads before the decay.

    k . (a(t) Z(t-1))        a read before the tick, scaled by a: P(t-1, s) and a(t)
                      -->    a read behind the decay: P(t, s) for s < t

A memory that forgets before it compares its prediction with the value reads so (Gated DeltaNet, arXiv:2412.06464,
eq. 10). The products of the decays since each earlier tick are then those that reads at the end of the tick need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nldsl.passes.affine import Factor, Source, Term

DECAYED = "decayed"


def behind_decay(read: Term, coefficient: Sequence[Term]) -> Term:
    """The read of a state before the tick as one behind the decay, if all of the decay is among its factors.

    ``coefficient``: the terms by which the state enters itself."""
    if read.source is None or read.source.kind != "before" or len(coefficient) != 1:
        return read
    (decay,) = coefficient
    if not decay.factors or decay.scale != 1.0:
        return read
    names = dict(zip(decay.letters, read.letters, strict=True))
    rest = list(read.factors)
    for factor in decay.factors:
        if any(x is not None and names.get(x) is None for x in factor.letters):
            return read
        own = Factor(factor.value, tuple(x if x is None else names[x] for x in factor.letters))
        if own not in rest:
            return read
        rest.remove(own)
    return replace(read, factors=tuple(rest), source=Source(DECAYED, read.source.key))
