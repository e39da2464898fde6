"""Formal languages (Nested Learning, table 5): which memories learn to count and to keep a parity?

    python -m examples.formal_languages [--quick]

Each network reads strings of a language and says after every symbol which symbols may come next, the end included. A
string counts as right if every answer is. Training strings have up to 16 symbols; the test has those lengths (new
strings where the language has enough of them) and longer ones.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

import nldsl
from examples.picture import Curve, Panel, draw
from examples.training import PROGRAMS, cost, minutes, options_of, read, spread, table, train, write
from nldsl.runtime.module import Module

SHORT, LONG = 16, 32
END = "$"


@dataclass(frozen=True)
class Language:
    """``draw(random, low, high)`` gives a string of a length in the range, ``legal(prefix)`` what may follow."""

    alphabet: str
    draw: Callable[[random.Random, int, int], str]
    legal: Callable[[str], str]


def parity(r: random.Random, low: int, high: int) -> str:
    """Bits with an even number of ones."""
    bits = "".join(r.choice("01") for _ in range(r.randint(low, high) - 1))
    return bits + str(bits.count("1") % 2)


def repeated(word: str) -> Callable[[random.Random, int, int], str]:
    """A word over and over."""
    return lambda r, low, high: word * r.randint(-(-low // len(word)), high // len(word))


def blocks(letters: str) -> Callable[[random.Random, int, int], str]:
    """Equally many of each letter, one kind after the other."""

    def pick(r: random.Random, low: int, high: int) -> str:
        n = r.randint(-(-low // len(letters)), high // len(letters))
        return "".join(letter * n for letter in letters)

    return pick


def after_blocks(letters: str) -> Callable[[str], str]:
    """What may follow a prefix of such a string."""

    def legal(prefix: str) -> str:
        n = prefix.count(letters[0])
        if len(prefix) == n:
            return letters[0] + (letters[1] if n else "")
        for letter, following in zip(letters[1:], letters[2:] + END, strict=True):
            if prefix.count(letter) < n:
                return letter
            if following == END or prefix.count(following) == 0:
                return following
        return END

    return legal


def shuffled(r: random.Random, low: int, high: int) -> str:
    """Two kinds of brackets, each balanced by itself."""
    length, text = 2 * r.randint(-(-low // 2), high // 2), ""
    depth = {"(": 0, "[": 0}
    while len(text) < length:
        left = length - len(text)
        closing = [c for c in "([" if depth[c]]
        if sum(depth.values()) >= left or (closing and r.random() < 0.5):
            kind = r.choice(closing)
            depth[kind] -= 1
            text += ")" if kind == "(" else "]"
        else:
            kind = r.choice("([")
            depth[kind] += 1
            text += kind
    return text


def after_shuffled(prefix: str) -> str:
    """What may follow: an opening bracket, the closing one of a kind that is open, or the end if none is."""
    round_, square = prefix.count("(") - prefix.count(")"), prefix.count("[") - prefix.count("]")
    return "([" + ")" * (round_ > 0) + "]" * (square > 0) + END * (round_ == square == 0)


LANGUAGES = {
    "parity": Language("01", parity, lambda p: "01" + END * (p.count("1") % 2 == 0)),
    "(aa)*": Language("a", repeated("aa"), lambda p: "a" + END * (len(p) % 2 == 0)),
    "(abab)*": Language("ab", repeated("abab"), lambda p: "ab"[len(p) % 2] + END * (len(p) % 4 == 0)),
    "a^n b^n": Language("ab", blocks("ab"), after_blocks("ab")),
    "a^n b^n c^n": Language("abc", blocks("abc"), after_blocks("abc")),
    "shuffle-2": Language("()[]", shuffled, after_shuffled),
}
MODELS = {
    "attention": {"kind": "attention"},
    "linear attention": {"kind": "linear"},
    "DeltaNet": {"kind": "delta"},
    "DeltaNet, rates to 2": {"kind": "delta2"},
    "HOPE, chunks of 4": {"kind": "hope", "chunk": 4},
    "HOPE, every token": {"kind": "hope", "chunk": 1},
}


def batch_of(language: Language, r: random.Random, count: int, low: int, high: int) -> dict[str, torch.Tensor]:
    """Strings behind a start symbol, padded; ``counts`` weighs real positions so that their mean is one."""
    symbols = language.alphabet + END
    strings = [language.draw(r, low, high) for _ in range(count)]
    longest = max(map(len, strings)) + 1
    tokens = torch.full((count, longest), symbols.index(END))
    legal, real = torch.zeros(count, longest, len(symbols)), torch.zeros(count, longest)
    for row, text in enumerate(strings):
        real[row, : len(text) + 1] = 1
        for t in range(len(text) + 1):
            if t:
                tokens[row, t] = symbols.index(text[t - 1])
            for c in language.legal(text[:t]):
                legal[row, t, symbols.index(c)] = 1
    return {"tokens": tokens, "legal": legal, "counts": real * real.numel() / real.sum()}


def accuracy(module: Module, batch: dict[str, torch.Tensor]) -> float:
    """The share of strings all of whose answers are right."""
    with torch.no_grad():
        logits = module(**batch)
    wrong = ((logits > 0) != (batch["legal"] > 0.5)).any(-1) & (batch["counts"] > 0)
    return float((~wrong.any(-1)).float().mean())


def run(language: Language, model: dict[str, object], seed: int, steps: int) -> tuple[float, float]:
    """Accuracies on lengths as in training and on longer strings."""
    torch.manual_seed(seed)
    symbols = len(language.alphabet) + 1
    module = nldsl.compile(
        PROGRAMS / "sequence.nl", "Recognizer", symbols=symbols, d=16, heads=1, seed=seed, rate=1e-2, **model
    )
    r = random.Random(seed)

    def batches() -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(steps):
            yield batch_of(language, r, 64, 2, SHORT)

    train(module, batches())
    fresh = random.Random(1000 + seed)
    return (
        accuracy(module, batch_of(language, fresh, 200, 2, SHORT)),
        accuracy(module, batch_of(language, fresh, 200, SHORT + 1, LONG)),
    )


def main() -> None:
    """Train all networks on all languages, and write the page."""
    options = options_of(__doc__, steps=300, seeds=2)
    if options.page:
        report(read("formal_languages"))
        return
    start = time.perf_counter()
    seeds, steps = (1, 10) if options.quick else (options.seeds, options.steps)
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name, model in MODELS.items():
        if not name.startswith(options.only):
            continue
        for label, language in LANGUAGES.items():
            results = [run(language, model, seed, steps) for seed in range(seeds)]
            found.setdefault(name, {})[label] = results
            print(f"{name:24}{label:14}{results}", flush=True)
    if not options.quick:
        before = read("formal_languages") if options.only else {"found": {}, "minutes": 0.0}
        found, spent = before["found"] | found, before["minutes"] + minutes(start)
        report({"found": found, "steps": steps, "seeds": before.get("seeds", seeds), "minutes": spent})


def report(numbers: dict[str, Any]) -> None:
    """The page and the picture."""
    found, steps, seeds = numbers["found"], numbers["steps"], numbers["seeds"]
    labels = list(LANGUAGES)

    def rows(which: int) -> Iterator[list[str]]:
        for name, by_language in found.items():
            shown = [by_language.get(label, []) for label in labels]
            yield [name, *(spread([r[which] for r in runs]) if runs else "" for runs in shown)]

    at = list(range(len(labels)))
    panels = [
        Panel(
            title, "", "% of strings",
            {
                name: Curve(at, [100 * sum(r[which] for r in by[label]) / len(by[label]) for label in labels])
                for name, by in found.items()
                if len(by) == len(labels)
            },
            ticks=labels,
        )
        for which, title in enumerate([f"lengths as in training (2 to {SHORT})", f"longer ({SHORT + 1} to {LONG})"])
    ]  # fmt: skip
    draw("formal_languages", panels)
    page = f"""# Formal languages

`python -m examples.formal_languages` ([program](../../examples/programs/sequence.nl),
[script](../../examples/formal_languages.py)). One layer, width 16, {steps} steps of 64 strings with up to {SHORT}
symbols, AdamW with rate 1e-2, {seeds} seeds. {cost(numbers["minutes"])}

After every symbol the network says which symbols may come next, the end included; a string is right if all answers are.
Numbers are percent of 200 strings: the mean of the seeds, and the lowest and highest where they differ.

Lengths as in training, 2 to {SHORT}:

{table(["", *labels], rows(0))}

Longer strings, {SHORT + 1} to {LONG}:

{table(["", *labels], rows(1))}

![accuracies](formal_languages.svg)

{NOTES}"""
    write("formal_languages", page, numbers)


NOTES = """## Reading it

The paper (table 5) reports 100 % for HOPE everywhere, and 0 % for linear attention, DeltaNet and the Transformer on
longer strings of the languages that need a state (the first three).

- The zeros agree: attention, linear attention and DeltaNet with rates up to 1 keep neither a parity nor a position.
- DeltaNet with rates up to 2 does: its transitions I - rate k k' have negative eigenvalues, enough for a sign that
  flips (2411.12537). On the counting languages it loses on longer strings, where linear attention, a counter, stays
  right.
- HOPE with chunks of 4 does not learn the first three, nor the counting ones well: keys, values and targets of a
  chunk are made with the weights at its start, so within a chunk nothing can depend on the symbol before but
  through the convolution, and 300 steps of one layer are few for a rule that is itself learned. "HOPE, every token"
  updates after each symbol; it was run on parity only, with one seed, and got no string right after 300 steps, though
  its loss falls at first (1.86 to 0.48 in 45 steps). Whether it diverged later was not looked into.
- So the paper's numbers for HOPE are not reproduced here. Its code, chunk sizes and training length for this table
  are not published; what is shown is what this budget gives.
"""

if __name__ == "__main__":
    main()
