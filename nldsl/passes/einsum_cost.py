"""The operations of a contraction."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.dims import Dim
from nldsl.ir import ops


def contraction(spec: str, shapes: Sequence[Sequence[Dim]], lanes: Dim) -> Dim:
    """Multiplications and additions of an einsum in ``lanes`` lanes. Operands are contracted from left to right: each
    step costs the product of the sizes it runs over, twice that if it sums."""
    inputs, output = ops.split_spec(spec)
    sizes: dict[str, Dim] = {}
    for letters, shape in zip(inputs, shapes, strict=True):
        sizes.update(zip(letters, shape, strict=True))

    def volume(letters: set[str]) -> Dim:
        return ops.product(tuple(sizes[x] for x in sorted(letters)))

    left = set(inputs[0])
    if len(inputs) == 1:
        return lanes * volume(left) if left - set(output) else 0
    total: Dim = 0
    for position, letters in enumerate(inputs[1:], 1):
        both = left | set(letters)
        later = set(output).union(*inputs[position + 1 :])
        total = total + lanes * volume(both) * (2 if both - later else 1)
        left = both & later
    return total
