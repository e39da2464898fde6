"""Sampling: reproducible, restricted as asked, and safe to show."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

from nldsl.diagnostics import DiagnosticError
from nldsl.train.sample import ByteWriter, SampleOptions, choose, generate
from tests.unit.train.fakes import FakeModule


def test_a_seed_names_a_text() -> None:
    module = FakeModule()
    texts = {seed: list(generate(module, b"def ", SampleOptions(count=40, seed=seed))) for seed in (0, 0, 1)}
    assert texts[0] == list(generate(module, b"def ", SampleOptions(count=40)))
    assert texts[0] != texts[1]
    assert len(texts[0]) == 40
    assert len(list(generate(module, b"", SampleOptions(count=3)))) == 3


def test_greedy_follows_the_whole_sequence() -> None:
    """Decoding step by step gives the tokens that the model ranks first given the whole text so far."""
    module = FakeModule()
    text = list(b"import ")
    for token in generate(module, text, SampleOptions(count=20, temperature=0)):
        with torch.no_grad():
            expected = int(module(torch.tensor([text]))[0, -1].argmax())
        assert token == expected
        text = [*text, token]


def test_top_k_and_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.tensor([0.0, 3.0, 1.0, 2.0])
    drawn = {choose(logits, SampleOptions(top_k=2), generator) for _ in range(200)}
    assert drawn == {1, 3}
    assert {choose(logits, SampleOptions(temperature=0.01), generator) for _ in range(50)} == {1}
    counts = torch.bincount(torch.tensor([choose(logits, SampleOptions(), generator) for _ in range(4000)]))
    assert torch.allclose(counts / 4000, logits.softmax(0), atol=0.03)


def test_mistakes() -> None:
    for options in (SampleOptions(temperature=-1), SampleOptions(temperature=float("nan")), SampleOptions(top_k=-1)):
        with pytest.raises(DiagnosticError):
            next(generate(FakeModule(), b"x", options))
    with pytest.raises(DiagnosticError, match="not finite"):
        choose(torch.tensor([float("nan"), 1.0]), SampleOptions(), torch.Generator())


@pytest.mark.parametrize("output", [None, (), torch.zeros(3), torch.zeros(1, 2, 3), torch.zeros(1, 2, dtype=torch.int)])
def test_a_model_without_scores(output: Any) -> None:
    class Broken(FakeModule):
        def step(self, x: torch.Tensor, state: Any) -> Any:
            return output, state

    module = Broken()
    with pytest.raises(DiagnosticError) as error:
        next(generate(module, b"x", SampleOptions()))
    assert error.value.diagnostics[0].code == "NL0806"


def test_bytes_are_safe_to_show() -> None:
    data = "é\t€\n".encode() + b"\xff\x1b[31m\x07\r\xe2\x82" + b"x" + "\u009b".encode() + b"\xe2"
    text = io.StringIO()
    writer = ByteWriter(text)
    for byte in data:
        writer.write(bytes([byte]))
    writer.finish()
    assert text.getvalue() == "é\t€\n\\xff\\x1b[31m\\x07\\x0d\\xe2\\x82x\\x9b\\xe2"
    raw = io.BytesIO()
    writer = ByteWriter(text, raw)
    writer.write(data)
    writer.finish()
    assert raw.getvalue() == data
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    ByteWriter(ascii_only).write("é".encode())
    assert ascii_only.buffer.getvalue() == b"\\xe9"
