"""What every test shares: goldens, seeds and the number of threads."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Triton reads this when it is imported, by whatever test comes first: kernels run in its interpreter.
os.environ.setdefault("TRITON_INTERPRET", "1")

TESTS = Path(__file__).parent
os.environ["NLDSL_CACHE"] = "off"  # what is tested is compiled; the tests of the cache bring a folder of their own
GOLDEN = TESTS / "golden"

Golden = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what the tests get to tests/golden/")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compare a text with `tests/golden/<path of the test file>/<test>[<parameters>]<suffix>`.

    `golden(text, suffix=".py")`; a test with several goldens names each: `golden(text, name="backward")`.
    """
    file = Path(request.node.path).relative_to(TESTS).with_suffix("")
    test = re.sub(r"[^\w.=,+-]+", "-", request.node.name).strip("-")

    def check(text: str, suffix: str = ".txt", name: str = "") -> None:
        path = GOLDEN / file / f"{test}{'.' + name if name else ''}{suffix}"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        shown = path.relative_to(TESTS.parent)
        if not path.exists():
            pytest.fail(f"{shown} is missing; with --update-golden it would hold:\n{text}", pytrace=False)
        expected = path.read_text(encoding="utf-8")
        assert text == expected, f"differs from {shown}; --update-golden accepts the new text"

    return check


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Give every test the same random numbers, whatever ran before it; torch is not imported for it."""
    random.seed(0)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)
        # One thread each where several workers share the machine.
        torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)


@pytest.fixture
def repository() -> Path:
    """The folder of the repository."""
    return TESTS.parent
