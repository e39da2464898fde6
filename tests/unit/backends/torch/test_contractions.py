"""Every way an einsum is written gives what ``torch.einsum`` gives, for any axes of its operands."""

from __future__ import annotations

import random

import pytest
import torch

from nldsl.backends.torch.contractions import einsum
from nldsl.backends.torch.layout import Layout
from nldsl.backends.torch.loader import load
from nldsl.backends.torch.scope import Scope
from nldsl.backends.torch.target_ast import Expr
from nldsl.ir.program import Axis, Program
from nldsl.ir.types import BATCH, TIME, Type

SIZES = {BATCH: 2, TIME: 3, "heads": 4, "i": 5, "j": 6, "k": 7, "l": 2}
LETTER = {BATCH: "B", TIME: "T", "heads": "H"}
AXES = (BATCH, TIME, "heads")
PROGRAM = Program("p", (Axis(BATCH, None), Axis("heads", SIZES["heads"])))


def check(spec: str, axes: list[tuple[str, ...]]) -> str:
    """Write it, run it, compare; the text."""
    layout = Layout(PROGRAM)
    inputs, output = spec.split("->")
    names = "abcd"[: len(axes)]
    operands, args, letters = [], [], []
    for name, text, own in zip(names, inputs.split(","), axes, strict=True):
        own = layout.order(own)
        args.append(Expr(name, Type(tuple(SIZES[x] for x in text), own)))
        operands.append(torch.randn([SIZES[x] for x in (*own, *text)], dtype=torch.float64))
        letters.append("".join(LETTER[a] for a in own) + text)
    out = layout.order(tuple(a for own in axes for a in own))
    found = einsum(Scope("f", layout), spec, args, Type(tuple(SIZES[x] for x in output), out))
    module = load(f"import torch\n\n\ndef f({', '.join(names)}):\n    return {found.text}\n")
    expected = torch.einsum(",".join(letters) + "->" + "".join(LETTER[a] for a in out) + output, *operands)
    result = module.f(*operands)
    assert result.shape == expected.shape, f"{spec} {axes}: {found.text}"
    torch.testing.assert_close(result, expected)
    return found.text


@pytest.mark.parametrize(
    ("spec", "axes", "text"),
    [
        ("ij,j->i", [(), (BATCH, TIME)], "b @ a.mT"),
        ("ij,i->j", [(), (BATCH, TIME)], "b @ a"),
        ("ij,j->i", [(BATCH,), (BATCH,)], "(a @ b[..., None]).squeeze(-1)"),
        ("ij,i->j", [(BATCH,), (BATCH,)], "(a.mT @ b[..., None]).squeeze(-1)"),
        ("ij,j->i", [(BATCH, "heads"), (BATCH, "heads")], "(a @ b[..., None]).squeeze(-1)"),
        ("i,j->ij", [(BATCH,), (BATCH,)], "a[..., None] * b[:, None]"),
        ("i,i->", [(BATCH,), (BATCH,)], "(a * b).sum(-1)"),
        ("ij,ij->", [(BATCH,), (BATCH,)], "(a * b).sum((-1, -2))"),
        ("ij,jk->ik", [(BATCH,), (BATCH,)], "a @ b"),
        ("ij,kj->ik", [(BATCH,), (BATCH,)], "a @ b.mT"),
        ("ij->ji", [(BATCH,)], "a.mT"),
        ("ii->i", [(BATCH,)], "a.diagonal(0, -2, -1)"),
        ("ii->", [(BATCH,)], "a.diagonal(0, -2, -1).sum(-1)"),
        ("ij->i", [(BATCH,)], "a.sum(-1)"),
        (",ij->ij", [(BATCH,), (BATCH,)], "a[..., None, None] * b"),
        ("ij,j->i", [("heads",), (BATCH, TIME)], 'torch.einsum("Hij,BTj->BTHi", a, b)'),
    ],
)
def test_forms(spec: str, axes: list[tuple[str, ...]], text: str) -> None:
    assert check(spec, axes) == text


def test_random_contractions() -> None:
    choose = random.Random(0)
    for _ in range(1500):
        count = choose.choice((1, 2, 2, 2, 3))
        texts = ["".join(choose.choice("ijkl") for _ in range(choose.randint(0, 3))) for _ in range(count)]
        known = sorted(set("".join(texts)))
        output = choose.sample(known, choose.randint(0, len(known)))
        axes = [tuple(a for a in AXES if choose.random() < 0.5) for _ in range(count)]
        check(",".join(texts) + "->" + "".join(output), axes)
