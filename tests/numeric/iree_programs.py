"""Programs of the standard library as modules of IREE: those that are compared with the reference, and known gaps."""

from __future__ import annotations

# Each is compared with the reference: outputs, states, one tick at a time, and all gradients.
CHECKED: tuple[tuple[str, str], ...] = (
    ("memories/delta.nl", "GatedDelta"),
    ("memories/gated_linear.nl", "GatedLinearAttention"),
    ("memories/linear_attention.nl", "NormalizedLinearAttention"),
    ("memories/mesa.nl", "Mesa"),
    ("memories/ttt.nl", "TTTLinear"),
    ("memories/titans.nl", "Titans"),
    ("optimizers/adam.nl", "AdamW"),
    ("optimizers/muon.nl", "Muon"),
)
# Why a program has no module, or not the right one: strict, so that what has been mended must leave the table.
GAPS: dict[tuple[str, str], str] = {
    (
        "memories/atlas.nl",
        "Atlas",
    ): "IREE 3.13 cannot compile it: `streamable op expected to be in an execution region`",
}
