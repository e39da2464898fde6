"""What the MLIR backend does not reach on programs of the standard library: a table, checked strictly.

A gap that closes must leave the table. ``docs/reference/mlir.md`` shows it.
"""

from __future__ import annotations

# Programs whose results in float32 are further than 1e-5 from the reference: they amplify rounding themselves, as much
# in PyTorch; in float64 they agree with it.
AMPLIFIES = {
    "Atlas": "Newton-Schulz of the momentum: directions of small singular values are made as long as all others",
    "Memora": "softmax of sums of logarithms, whose cotangents cancel",
    "Proximal": "sums of thousands of terms of an unrolled iteration (in PyTorch not measured)",
    "Yaad": "a threshold on the error: the gradient jumps where it is met",
    "Shampoo": "fourth roots of a sum of squares near zero",
}
# Loops or steps that keep the torch form.
NO_FORM: dict[str, str] = {}
# The kind of inputs (``nldsl.verify.inputs``) where the first one that stays finite is no test of float32.
INPUTS = {"NormalizedLinearAttention": "positive"}  # signed features: it divides by sums near zero


def rows() -> list[str]:
    """The table of the documentation."""
    found = [f"| `{name}` | float32: {why} |" for name, why in sorted(AMPLIFIES.items())]
    return found + [f"| `{name}` | {why} |" for name, why in sorted(NO_FORM.items())]
