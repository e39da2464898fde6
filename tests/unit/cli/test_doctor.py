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


def test_triton_says_where_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    triton = pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda i: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: "H100")
    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    assert doctor._triton() == f"version {triton.__version__}; cuda:0 H100, sm_90; interpreter off"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(triton.knobs.runtime, "interpret", True)
    assert doctor._triton() == f"version {triton.__version__}; no GPU; kernels run in the interpreter"
