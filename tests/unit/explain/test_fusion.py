"""`nldsl explain --fusion`, and modules with fusions left out."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.api import compile as compile_program
from nldsl.cli.main import main
from nldsl.driver import Options, front, middle
from nldsl.explain.fusion import FUSIONS, fusions

STDLIB = Path(__file__).parents[3] / "stdlib" / "memories"
NAMES = tuple(name for name, _ in FUSIONS)


def test_every_fusion_does_something_somewhere() -> None:
    dims = (("d", 8), ("hidden", 8))
    rows = fusions(middle(front(STDLIB / "self_modifying.nl", Options("SelfModifying", dims)), Options()))
    before = {row.name: (one.counts, row.counts) for one, row in pairwise(rows)}
    assert tuple(before) == NAMES
    assert before["chunk"][1].often < before["chunk"][0].often / 5
    assert before["join"][1].loops < before["join"][0].loops
    for name in ("merge", "pack"):
        assert before[name][1].total < before[name][0].total
    assert before["hoist"][1].inside < before["hoist"][0].inside


def test_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--fusion", str(STDLIB / "delta.nl"), "GatedDelta", "--set", "dk=16", "--set", "dv=8"]) == 0
    page = capsys.readouterr().out.splitlines()
    assert page[0] == "fusions of GatedDelta"
    assert [line.split()[0] for line in page[4:10]] == ["nothing", *NAMES]


SMALL = [("self_modifying", "SelfModifying", {"d": 4, "hidden": 4}), ("titans", "Titans", {"dk": 4, "dv": 3})]


@pytest.mark.parametrize("pairs", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "pairs"])
@pytest.mark.parametrize(("file", "entry", "dims"), SMALL)
def test_any_of_them_can_be_left_out(file: str, entry: str, dims: dict[str, Any], pairs: bool) -> None:
    """Alone, in pairs, and all: values and gradients stay the same."""
    left_out: list[tuple[str, ...]] = [(), *combinations(NAMES[1:], 2 if pairs else 1), NAMES]
    kept: list[torch.Tensor] = []
    for names in left_out:
        module = compile_program(STDLIB / f"{file}.nl", entry, disabled=frozenset(names), seed=1, **dims).double()
        gen = torch.Generator().manual_seed(0)
        inputs = []
        for declared in module.program.inputs:
            x = torch.rand((2, 19, *(int(str(s)) for s in declared.type.shape)), generator=gen, dtype=torch.float64)
            inputs.append((0.5 * x).requires_grad_())
        y = module(*inputs)
        found = [
            y,
            *torch.autograd.grad((y * y.detach().cos()).sum(), inputs, allow_unused=True, materialize_grads=True),
        ]
        kept = kept or [x.detach() for x in found]
        for got, want in zip(found, kept, strict=True):
            torch.testing.assert_close(got.detach(), want, rtol=1e-9, atol=1e-9)
