"""What Graphviz drew, cleaned: only shapes and text are left, and colours become classes that a page can restyle."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from nldsl.viz.palette import DARK, FRAME, LIGHT, LINKS, QUIET, Theme, level_colors

__all__ = ["clean_svg", "color_names", "theme_rules"]

_SPACE = "http://www.w3.org/2000/svg"
_TAGS = frozenset("svg g path polygon polyline ellipse text".split())
_KEPT = frozenset(
    "id class d points cx cy rx ry x y viewBox width height transform fill stroke stroke-width stroke-dasharray "
    "fill-opacity stroke-opacity text-anchor font-family font-size font-weight".split()
)
_ID = re.compile(r"[a-z]+\d*\Z")


def color_names(positions: list[float]) -> dict[str, str]:
    """The name of every colour of the light picture; `positions` are those of the lanes."""
    names = {LIGHT.paper: "paper", LIGHT.card: "card", LIGHT.ink: "ink", LIGHT.muted: "muted"}
    names |= {FRAME: "frame", QUIET: "quiet", "white": "card"}
    names |= {style.light: f"link-{key}" for key, style in reversed(LINKS.items())}
    for n, position in enumerate(positions):
        accent, tint = level_colors(position, LIGHT)
        names |= {accent: f"accent{n}", tint: f"tint{n}"}
    return names


def theme_rules(positions: list[float], theme: Theme) -> dict[str, str]:
    """The colour of every name in a theme."""
    dark = theme is DARK
    rules = {"paper": theme.paper, "card": theme.card, "ink": theme.ink, "muted": theme.muted, "line": theme.line}
    rules |= {"frame": "#55606f" if dark else FRAME, "quiet": "#465162" if dark else QUIET}
    rules |= {f"link-{key}": style.dark if dark else style.light for key, style in LINKS.items()}
    for n, position in enumerate(positions):
        accent, tint = level_colors(position, theme)
        rules |= {f"accent{n}": accent, f"tint{n}": tint}
    return rules


def clean_svg(svg: bytes, title: str, names: dict[str, str] | None = None) -> str:
    """SVG text with known elements and attributes only. With `names`, known colours become classes `f-...`, `s-...`.

    No links, scripts, styles, images or titles of Graphviz's survive; `title` is the picture's own.
    """
    root = ElementTree.fromstring(svg)  # noqa: S314  written by our own process, and it refers to nothing outside
    _clean(root, names or {})
    root.set("role", "img")
    label = ElementTree.Element(f"{{{_SPACE}}}title")
    label.text = title
    root.insert(0, label)
    ElementTree.register_namespace("", _SPACE)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(element: ElementTree.Element, names: dict[str, str]) -> None:
    kept = {}
    classes = element.get("class", "").split()
    for key, value in element.attrib.items():
        if key not in _KEPT or (key == "id" and not _ID.match(value)):
            continue
        if key in ("fill", "stroke") and value in names:
            classes.append(f"{key[0]}-{names[value]}")
        elif key != "class":
            kept[key] = value
    element.attrib.clear()
    element.attrib.update(kept)
    if classes:
        element.set("class", " ".join(classes))
    for child in list(element):
        # a comment's tag is a function
        if str(child.tag).removeprefix(f"{{{_SPACE}}}") not in _TAGS:
            element.remove(child)
            continue
        _clean(child, names)
        child.tail = "\n" if child.tag.endswith("}g") else ""
    if element.tag.endswith("}g") or element.tag.endswith("}svg"):
        element.text = ""
