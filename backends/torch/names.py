"""Names of the emitted module: made from those of the program, and safe whatever these are."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

MOST = 60
FIXED = "torch F params inputs state batch dtype device ticks t n B T outputs losses probes".split()
FUNCTIONS = "init_state forward step peek".split()
LOOP = "scan_"  # how the functions of loops begin, and nothing else
RESERVED = frozenset((*keyword.kwlist, *keyword.softkwlist, *dir(builtins), *FIXED, *FUNCTIONS))


def identifier(name: str) -> str:
    """An ASCII identifier that reminds of ``name``: ``layers.0.mixer.m.W1`` becomes ``layers_0_mixer_m_W1``."""
    text = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    if len(text) > MOST:
        text = text[-MOST:].partition("_")[2].strip("_") or text[-MOST:]
    if not text or not text[0].isalpha():
        text = "x" + text
    return text + "_" if text in RESERVED or text.startswith(LOOP) else text


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Dotted names without the parts that distinguish none of those with the same end.

    ``layers.0.mixer.m.W1`` becomes ``layers.0.W1`` if each layer has one ``W1``, and ``W1`` if there is one layer.
    """
    children: dict[tuple[str, ...], set[str]] = {}
    split = {name: name.split(".") for name in names}
    for parts in split.values():
        for i, part in enumerate(parts[:-1]):
            children.setdefault((parts[-1], *parts[:i]), set()).add(part)
    short = {}
    for name, parts in split.items():
        before = [(parts[-1], *parts[:i]) for i in range(len(parts) - 1)]
        kept = [len(children[path]) > 1 for path in before]
        for i, part in enumerate(parts[:-1]):
            if part.isdigit() and kept[i] and i:
                kept[i - 1] = True
        short[name] = ".".join([part for part, keep in zip(parts, kept, strict=False) if keep] + parts[-1:])
    return short


def comment(text: str) -> str:
    """Text of a program as one line of printable characters."""
    return "".join(c if c.isprintable() else "?" for c in text)


def plain(text: str) -> str:
    """Text of a program that can stand in a docstring."""
    return re.sub(r"[^\w .,:@()-]", "?", text, flags=re.ASCII)


class Names:
    """The names of one function: each asked for is new."""

    def __init__(self, taken: frozenset[str] = frozenset()) -> None:
        self._taken = set(taken)
        self._next: dict[str, int] = {}

    def new(self, hint: str) -> str:
        base = identifier(hint)
        name, number = base, self._next.get(base, 0)
        while name in self._taken or name in RESERVED:
            number += 1
            name = f"{base}_{number}"
        self._next[base] = number
        self._taken.add(name)
        return name
