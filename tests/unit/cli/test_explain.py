"""`nldsl explain CODE`."""

from __future__ import annotations

import pytest

from nldsl.cli.main import main
from tests.conftest import Golden


def test_code(capsys: pytest.CaptureFixture[str], golden: Golden) -> None:
    assert main(["explain", "nl0790"]) == 0
    golden(capsys.readouterr().out)


def test_no_such_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "NL0780"]) == 1
    assert "there is no code NL0780; did you mean `NL0" in capsys.readouterr().err
