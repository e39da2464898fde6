"""Hostile inputs: random bytes, soups of tokens, programs with pieces deleted, doubled, swapped or put in."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from pathlib import Path

from nldsl.frontend.tables import load
from nldsl.testing.programs import Maker
from nldsl.testing.unparse import layout, tokens

__all__ = ["make"]

ROOT = Path(__file__).parents[2]

_PIECES = re.compile(r"[A-Za-z_]\w*|\d[\w.]*|\s+|<-|->|[<>=!]=|//|\*\*|\.\.\.|.", re.DOTALL)
_ODD = [
    "\t",
    "\r",
    "\0",
    "\u202e",
    "\u200b",
    "\ufeff",
    "é",
    "🂡",
    '"',
    '"\\',
    "\\",
    "\ud800",
    "\x1b[2J",
    "∇",
    "９",
    "\u2028",
]


@lru_cache(maxsize=1)
def seeds() -> list[str]:
    """Real programs, right and wrong."""
    folders = ("stdlib", "tests/programs", "docs", "examples")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.nl"))]
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths]


@lru_cache(maxsize=1)
def vocabulary() -> list[str]:
    """Words and signs of the language, and some others."""
    tables = load()
    words = [
        *tables.keywords,
        *tables.operators,
        "\n",
        "\n",
        " ",
        "  ",
        "# c\n",
        "## d\n",
        '"t"',
        "0",
        "1",
        "64",
        "1e-8",
    ]
    names = "x y S W d dk token tick step sum mean last grad window prev clock int list dim def class lambda elif range"
    numbers = "9" * 30 + " 1e999 2147483647 0.0000001 1e-999"
    return [*words, *names.split(), *numbers.split(), "{", "}", "(", ")", "[", "]", "=", "<-", ":"]


def make(seed: int) -> bytes:
    """Return the input of a number, always the same one."""
    rng = random.Random(seed)
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.choice([10, 100, 3000]))
    if kind == 1:
        text = _soup(rng)
    elif kind == 2:
        text = _nested(rng)
    elif kind == 3:
        tree = Maker(rng.randrange, rng.choice([20, 100, 400])).file()
        text = layout(tokens(tree), rng.randrange)
        if rng.random() < 0.5:
            text = _mutated(rng, text)
    else:
        text = _mutated(rng, rng.choice(seeds()))
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.03:
        data = _damaged(rng, data)
    return data


def _soup(rng: random.Random) -> str:
    words = vocabulary()
    return rng.choice(["", " "]).join(rng.choice(words) for _ in range(rng.choice([5, 50, 500])))


def _nested(rng: random.Random) -> str:
    """One construct inside itself, many times."""
    opening, closing = rng.choice(
        [
            ("(", ")"),
            ("[", "]"),
            ("{", "}"),
            ("-", ""),
            ("not ", ""),
            ("f(", ")"),
            ("x[", "]"),
            ("a ^ ", ""),
            ("{a, ", "}"),
        ]
        + [("if c then a else ", ""), ("sum of ", ""), ("1 + ", ""), ("(x for i in ", ")"), ("grad(", ", S)")]
    )
    count = rng.choice([3, 100, 255, 256, 257, 1000, 5000])
    inner = opening * count + "x" + closing * rng.choice([count, count, 0, count + 1])
    head, tail = rng.choice(
        [("x = ", ""), ("fn f(x: []) -> [] = ", ""), ("memory M(d: dim) {\nstate S: [d] = ", "\n}")]
    )
    if rng.random() < 0.3:
        block = rng.choice(["if x {\n", "repeat 2 {\n", "for i in range(2) {\n", "every 2 token {\n"])
        return f"memory M {{\nlearn(k: []) {{\n{block * (count % 300)}y = 1\n{'}' * (count % 300)}\n}}\n}}"
    return head + inner + tail


def _mutated(rng: random.Random, text: str) -> str:
    pieces = _PIECES.findall(text)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        if not pieces:
            break
        at = rng.randrange(len(pieces))
        end = min(len(pieces), at + rng.choice([1, 1, 1, 3, 10, 50]))
        kind = rng.randrange(8)
        if kind == 0:
            del pieces[at:end]
        elif kind == 1:
            pieces[at:at] = pieces[at:end]
        elif kind == 2:
            pieces[at] = rng.choice(vocabulary())
        elif kind == 3:
            pieces.insert(at, rng.choice(vocabulary()))
        elif kind == 4:
            other = rng.randrange(len(pieces))
            pieces[at], pieces[other] = pieces[other], pieces[at]
        elif kind == 5:
            pieces.insert(at, rng.choice(_ODD))
        elif kind == 6:
            pieces[at] = rng.choice(pieces)
        else:
            del pieces[at:]
    return "".join(pieces)


def _damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)
