"""Optional packages and the message when they are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nldsl.diagnostics import DiagnosticError
from nldsl.diagnostics.render import render
from nldsl.extras import EXTRAS, installed, pip_line, require


def test_require_imports() -> None:
    import torch

    assert require("torch", "torch") is torch


@pytest.mark.parametrize(
    ("module", "extra"),
    [("torch", "torch"), ("tensorboard", "train"), ("pygraphviz", "viz"), ("iree.compiler", "mlir")],
)
def test_missing_package_names_the_pip_line(monkeypatch: pytest.MonkeyPatch, module: str, extra: str) -> None:
    top = module.split(".")[0]
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setitem(sys.modules, top, None)
    with pytest.raises(DiagnosticError) as caught:
        require(module, extra, "to show this")
    text = render(caught.value.diagnostics)
    assert text == (
        f"error[NL0790]: the package `{top}` is not installed\n"
        "  = note: it is needed to show this\n"
        f'  = hint: install it: pip install "nldsl-compiler[{extra}]"\n'
    )


def test_broken_package_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken_extra.py").write_text("raise ImportError('libthing.so.1: cannot open shared object file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DiagnosticError) as caught:
        require("broken_extra", "viz")
    (finding,) = caught.value.diagnostics
    assert finding.code == "NL0791"
    assert "libthing.so.1" in finding.notes[0]


def test_a_package_that_lacks_its_own_dependency_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "half_extra.py").write_text("import no_such_dependency_of_it\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DiagnosticError) as caught:
        require("half_extra", "viz")
    assert caught.value.diagnostics[0].code == "NL0791"


def test_installed() -> None:
    assert installed("lark")
    assert not installed("no_such_package")
    assert not installed("no_such_package.inside")


def test_extras_are_those_of_the_project(repository: Path) -> None:
    project = (repository / "pyproject.toml").read_text(encoding="utf-8")
    for extra in EXTRAS:
        assert f"\n{extra} = [" in project
        assert pip_line(extra) == f'pip install "nldsl-compiler[{extra}]"'
