"""Loops of the standard library (at the sizes that ``nldsl verify`` takes) that have no kernels: a strict table.

A loop that gets kernels must leave it. ``docs/reference/gpu.md`` shows it.
"""

from __future__ import annotations

NO_KERNELS = {
    "memories/proximal:Proximal": "a body of 4760 operations",
    "models/hope_attention:GlobalAttention": "a window of so many ticks: a tile of ticks x ticks + 255 x 4",
}
# What takes long to generate: for the slow run.
LONG = {
    "blocks/titans": "LongTerm MemoryAsContext MemoryAsGate MemoryAsLayer",
    "memories/adaptive": "FullyAdaptive",
    "memories/atlas": "Atlas DLA DeepTransformer Dot Omega OmegaNet SWLA SlidingDeepTransformer",
    "memories/attention": "Hopfield",
    "memories/delta": "DeltaNet GatedDelta GatedDelta2 GatedDeltaProduct KimiDelta",
    "memories/lact": "LaCT",
    "memories/low_rank": "Comba DiagonalPlusLowRank GatedOja Longhorn RWKV7",
    "memories/miras": "Memora Miras Moneta Yaad",
    "memories/self_modifying": "ResidualMlp",
    "memories/titans": "Titans",
    "memories/tnt": "Local TNT",
    "memories/ttt": "TTTMlp",
    "models/hope": "HopeLM SelfModifyingTitans",
    "models/level_stacking": "Pretrained Stacked",
    "optimizers/delta": "DeltaMomentum",
    "optimizers/m3": "M3",
    "optimizers/shampoo": "SOAP Shampoo",
}
# Beside ``native_gaps.AMPLIFIES``: at the few ticks that are interpreted, PyTorch in float32 is off by as much.
CANCELS = {"MemoryAsContext": "gradients of its gates' weights are sums that cancel: 1.1e-5 in PyTorch, 2.3e-5 here"}


def rows() -> list[str]:
    """The table of the documentation."""
    return [f"| `{name.partition(':')[2]}` | {why} |" for name, why in sorted(NO_KERNELS.items())]
