"""Colours and line styles, for light and dark.

Levels take a ramp from warm (fast) to cool (slow) whose lightness falls steadily, so that their order survives colour
blindness and grey print. The kinds of edges use the hues of Okabe and Ito, and differ in their arrow heads too.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DARK", "FRAME", "LIGHT", "LINKS", "QUIET", "LinkStyle", "Theme", "level_colors"]

_RAMP = ((184, 118, 20), (193, 88, 62), (168, 68, 112), (118, 76, 160), (68, 84, 168), (54, 104, 140), (84, 98, 112))


@dataclass(frozen=True)
class Theme:
    """`tint` is how much of a level's colour its lane has, `lift` how much white its text gets."""

    paper: str
    card: str
    ink: str
    muted: str
    line: str
    tint: float
    lift: float


LIGHT = Theme("#fbfbfa", "#ffffff", "#1d2530", "#66717f", "#d5dae0", 0.105, 0.0)
DARK = Theme("#12161c", "#1c222b", "#e7ebf0", "#98a4b3", "#343d4a", 0.17, 0.3)


# The dashes around equal layers, and the border of what has no states.
FRAME, QUIET = "#aab3be", "#c3cad2"


@dataclass(frozen=True)
class LinkStyle:
    """`both`: an arrow at the start too, as the gradient comes back. Dashes are kept for edges without derivative."""

    label: str
    light: str
    dark: str
    head: str
    width: float = 1.3
    both: bool = False
    dotted: bool = False
    explain: str = ""


LINKS: dict[str, LinkStyle] = {
    "context": LinkStyle("context flow", "#8793a1", "#7f8c9b", "normal", 1.2, explain="values within a level"),
    "direct": LinkStyle(
        "direct, parametric",
        "#0f6cae",
        "#5fb2ea",
        "normal",
        explain="a read of one level used in the forward of another",
    ),
    "nonparametric": LinkStyle(
        "direct, non-parametric", "#138a9e", "#56c4d6", "onormal", explain="past values read from a buffer"
    ),
    "backprop": LinkStyle(
        "backpropagation",
        "#9b5a9c",
        "#d39ad4",
        "normal",
        both=True,
        explain="one forward, trained at different frequencies",
    ),
    "initialization": LinkStyle(
        "initialization", "#0c8f68", "#3fc79b", "diamond", explain="a slower level gives the initial value"
    ),
    "generation": LinkStyle(
        "generation", "#c98500", "#f0b429", "vee", 1.5, explain="what one memory returns is what another learns from"
    ),
    "gradient": LinkStyle("gradient", "#cf4a1c", "#ff8a5c", "normal", explain="the derivative of a loss"),
    "reset": LinkStyle(
        "reset", "#8793a1", "#7f8c9b", "tee", 1.1, dotted=True, explain="states return to their initial value"
    ),
}


def _mixed(color: tuple[float, ...], other: str, share: float) -> str:
    """`share` of a colour over another one."""
    base = [int(other[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * c + (1 - share) * b):02x}" for c, b in zip(color, base, strict=True))


def level_colors(position: float, theme: Theme) -> tuple[str, str]:
    """The accent and the tint of a level; `position` is 0 for the fastest and 1 for the slowest."""
    scaled = min(max(position, 0.0), 1.0) * (len(_RAMP) - 1)
    low = min(int(scaled), len(_RAMP) - 2)
    color = tuple(a + (scaled - low) * (b - a) for a, b in zip(_RAMP[low], _RAMP[low + 1], strict=True))
    return _mixed(color, "#ffffff", 1 - theme.lift), _mixed(color, theme.paper, theme.tint)
