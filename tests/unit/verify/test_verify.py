"""Verification holds for what is right and finds what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from nldsl.backends.registry import BACKENDS, backend_named
from nldsl.ir.schedule import Schedule
from nldsl.verify import Verdict, verify_file
from nldsl.verify.table import text, to_json

FILE = Path(__file__).parents[1] / "explain" / "memories.nl"
NAMES = ("GatedDelta", "Deep", "Slow", "Window", "Exponentiated", "Small", "Siblings", "Gate")


def statuses(verdict: Verdict) -> dict[str, str]:
    return {row.check: row.status for _, rows in verdict.backends for row in rows}


@pytest.mark.parametrize("name", NAMES)
def test_every_backend_agrees(name: str) -> None:
    verdict = verify_file(FILE, name)
    assert verdict.ok, text(verdict)
    assert {"values, float64", "gradients, float64", "calls cut anywhere"} <= set(statuses(verdict))


def test_rate_zero_applies_where_it_means_something() -> None:
    assert statuses(verify_file(FILE, "GatedDelta"))["rate 0 is frozen"] == "ok"
    assert statuses(verify_file(FILE, "Exponentiated"))["rate 0 is frozen"] == "skipped"
    assert statuses(verify_file(FILE, "Slow"))["rate 0 is frozen"] == "skipped"


def test_a_program_that_is_not_finite_is_told_so() -> None:
    verdict = verify_file(FILE, "Broken")
    assert not verdict.ok
    assert "is not finite by its definition" in text(verdict)


def test_programs_that_amplify_rounding_are_not_blamed(tmp_path: Path) -> None:
    """The logistic map loses a bit at every tick: in float32 nothing is left to compare."""
    file = tmp_path / "chaos.nl"
    file.write_text(
        "memory Chaos() {\n  state x: [] = 0.3\n  step(a: []) -> [] {\n"
        "    x <- (3.9 + 0.01 * a) * x * (1 - x)\n    return x\n  }\n}\n"
    )
    verdict = verify_file(file, ticks=60)
    assert verdict.ok, text(verdict)
    assert statuses(verdict)["values, float32"] == "skipped"


@dataclass(frozen=True)
class Miscompiling:
    """The torch backend with a mistake: one text of the emitted code replaced by another."""

    old: str
    new: str
    name: str = "miscompiling"

    def emit(self, schedule: Schedule) -> str:
        source = backend_named("torch").emit(schedule)
        assert self.old in source, source
        return source.replace(self.old, self.new)

    def load(self, source: str, schedule: Schedule) -> Any:
        return backend_named("torch").load(source, schedule)


Install = Callable[[str, str], None]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def put(old: str, new: str) -> None:
        monkeypatch.setitem(BACKENDS, "miscompiling", lambda: Miscompiling(old, new))

    return put


def failures(name: str) -> dict[str, str]:
    verdict = verify_file(FILE, name, backends=["miscompiling"])
    assert not verdict.ok
    return {row.check: row.detail for _, rows in verdict.backends for row in rows if row.status == "failed"}


def test_a_wrong_value_is_named(install: Install) -> None:
    install("torch.log(W) - rate", "torch.log(W) + rate")
    found = failures("Exponentiated")
    assert found["values, float64"].startswith("output `read(q)`: sequence 0, token 2, entry [0]: ")
    assert "token by token" not in found  # wrong, but wrong everywhere


def test_a_tick_that_is_not_carried_breaks_cuts(install: Install) -> None:
    install('"@tick": t + T', '"@tick": 0')
    found = failures("Slow")
    assert set(found) == {"calls cut anywhere"}
    assert found["calls cut anywhere"].startswith("cut after token")


def test_a_lost_gradient_is_found(install: Install) -> None:
    install('rate = inputs["rate"]', 'rate = inputs["rate"].detach()')
    found = failures("GatedDelta")
    assert set(found) == {"gradients, float64", "gradients, recomputed"}
    assert found["gradients, float64"].startswith("gradient of input `rate`: ")


def test_a_batch_that_mixes_is_found(install: Install) -> None:
    install('k = inputs["k"]', 'k = inputs["k"] + 1e-3 * inputs["k"].mean(0)')
    assert "a batch is a loop" in failures("GatedDelta")


def test_a_wrong_step_is_found(install: Install) -> None:
    install('t = state["@tick"] + 1', 't = state["@tick"] + 2')
    assert set(failures("Slow")) == {"token by token"}


def test_json() -> None:
    found = to_json(verify_file(FILE, "GatedDelta", dims={"dk": 2, "dv": 3}, ticks=5))
    assert found["ok"] is True
    assert found["notes"][0].startswith("5 tokens, batch 3")
    assert {row["check"] for row in found["backends"]["torch"]} >= {"values, float32", "twice the same"}
