"""The order-2 model against one written with dictionaries, and against what any model of probabilities must satisfy."""

from __future__ import annotations

import math
import zlib
from collections import Counter

import numpy as np
import pytest

from nldsl.train.baselines import CANDIDATES, Order2, Smoothing, _count, fit_order2, zlib_bits_per_byte

TEXT = b"the cat sat on the mat; the dog sat on the log. " * 30
OTHER = b"the cat and the dog sat on a zebra's mat\n"


def by_hand(train: bytes, text: bytes, smoothing: Smoothing) -> list[float]:
    runs = [Counter(train[i : i + n + 1] for i in range(len(train) - n)) for n in range(3)]

    def predict(context: bytes, c: int) -> float:
        lower = predict(context[1:], c) if context else 1 / 256
        table = runs[len(context)]
        followers = {run[-1]: count for run, count in table.items() if run[:-1] == context}
        total, distinct = sum(followers.values()), len(followers)
        if not total:
            return lower
        if smoothing.kind == "witten-bell":
            weight = smoothing.strength * distinct
            return (followers.get(c, 0) + weight * lower) / (total + weight)
        taken = max(followers.get(c, 0) - smoothing.strength, 0)
        return taken / total + smoothing.strength * distinct / total * lower

    return [predict(text[max(0, i - 2) : i], text[i]) for i in range(len(text))]


@pytest.mark.parametrize("smoothing", [CANDIDATES[0], CANDIDATES[3], CANDIDATES[-3]])
def test_agrees_with_dictionaries(smoothing: Smoothing) -> None:
    model = Order2(_count(np.frombuffer(TEXT, np.uint8)), smoothing)
    expected = by_hand(TEXT, OTHER, smoothing)
    assert model.probabilities(np.frombuffer(OTHER, np.uint8)) == pytest.approx(expected, rel=1e-12)
    bits = -sum(map(math.log2, expected)) / len(OTHER)
    assert model.bits_per_byte(np.frombuffer(OTHER, np.uint8)) == pytest.approx(bits)


@pytest.mark.parametrize("smoothing", CANDIDATES)
def test_probabilities_sum_to_one(smoothing: Smoothing) -> None:
    model = Order2(_count(np.frombuffer(TEXT, np.uint8)), smoothing)
    for context in (b"th", b"zz", b"qe", b". "):
        texts = [np.frombuffer(context + bytes([c]), np.uint8) for c in range(256)]
        assert sum(model.probabilities(text)[2] for text in texts) == pytest.approx(1)


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    model, text = fit_order2(TEXT), np.frombuffer(OTHER * 9, np.uint8)
    whole = model.bits_per_byte(text)
    for block in (1, 2, 3, 50):
        monkeypatch.setattr("nldsl.train.baselines._BLOCK", block)
        assert model.bits_per_byte(text) == pytest.approx(whole)


def test_short_texts() -> None:
    for text in (b"", b"a", b"ab", b"abc"):
        assert fit_order2(text).bits_per_byte(np.frombuffer(b"ab", np.uint8)) <= 8.5
    assert fit_order2(TEXT).bits_per_byte(np.frombuffer(b"", np.uint8)) == 0.0


def test_zlib() -> None:
    assert zlib_bits_per_byte(TEXT) == 8 * len(zlib.compress(TEXT, 9)) / len(TEXT)
