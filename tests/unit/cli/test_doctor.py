"""`nldsl doctor`."""

from __future__ import annotations

import pytest

from nldsl.cli import doctor
from nldsl.cli.main import main
from nldsl.extras import EXTRAS, pip_line


def test_everything_installed_works(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["doctor"])
    text = capsys.readouterr().out
    assert "FAILED" not in text
    assert code == 0


def test_missing_extras_are_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda module: False)
    monkeypatch.setattr(doctor, "_checks", lambda: iter(()))
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert all(f"extra {extra}: missing, {pip_line(extra)}" in text for extra in EXTRAS)


def test_failure_is_reported_and_the_rest_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> str:
        raise RuntimeError("no luck")

    monkeypatch.setattr(doctor, "_checks", lambda: iter([("one", fails), ("two", lambda: "fine")]))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "FAILED: RuntimeError: no luck" in text
    assert "fine" in text
