"""Programs of the standard library as modules of IREE: a table that is checked strictly.

Every program that the catalogue lists is expected to compile for the CPU and to agree with the reference, and to
compile for CUDA, unless it is in a table of gaps with its reason. What has been mended must leave the table.
"""

from __future__ import annotations

# In the default tests; the others take minutes each on a busy machine.
QUICK = ("optimizers/adagrad:AdaGrad", "blocks/basic:rmsnorm")
# Results in float32 that are further than 1e-5 from the reference, as much as the program itself moves them on the
# numbers of the test: the error of PyTorch in float32 is given beside it, and the test holds the ratio below 4.
AMPLIFIES: dict[str, str] = {
    "memories/atlas:Atlas": "6.0e-4, PyTorch 7.2e-4: Newton-Schulz lengthens directions of small singular values",
    "memories/gated_linear:Mamba2": "2.3e-5, PyTorch 0.9e-5: the cotangents of a bias add up to 1/460 of their size",
    "memories/low_rank:Longhorn": "5.1e-5, PyTorch 5.9e-5: a negative rate takes the memory near a pole",
    "memories/proximal:Proximal": "7.5e-5, PyTorch 7.0e-5: sums of thousands of terms of an unrolled iteration",
    "memories/miras:Memora": "2.9e-4, PyTorch 1.0e-3: softmax of sums of logarithms, whose cotangents cancel",
    "memories/miras:Yaad": "3.0e-4, PyTorch 2.6e-3: a threshold on the error, where the gradient jumps",
    "models/hope_attention:HopeAttentionLM": "2.9e-5, PyTorch 1.3e-5: cotangents of keys behind unit vectors",
    "nested/maml:LearningToOptimize": "1.3e-5, PyTorch 1.0e-5: roots of second moments near zero",
    "optimizers/shampoo:Shampoo": "1.4e-3, PyTorch 1.9e-3: fourth roots of a sum of squares near zero",
    "optimizers/adam:AMSGrad": "1.2e-5, PyTorch 1.3e-5: roots of second moments near zero",
    "optimizers/adam:Adam": "1.2e-5, PyTorch 1.2e-5: roots of second moments near zero",
    "optimizers/adam:AdamW": "1.2e-5, PyTorch 1.2e-5: roots of second moments near zero",
}
# Why a program has no module for the CPU, or not the right one.
GAPS: dict[str, str] = {}
# The same for CUDA.
CUDA_GAPS: dict[str, str] = {}


def rows() -> list[str]:
    """The table of the documentation."""
    return [f"| `{name.partition(':')[2]}` | {why} |" for name, why in sorted(AMPLIFIES.items())]
