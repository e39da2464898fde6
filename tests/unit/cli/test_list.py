"""`nldsl list`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import nldsl.stdlib
from nldsl.cli.list import library
from nldsl.cli.main import main


@pytest.fixture
def stdlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "memories").mkdir()
    (tmp_path / "memories" / "delta.nl").write_text(
        "## Delta: one step on the error.\n## More.\nmemory Delta(d: dim) {\n}\nblock DeltaLayer() {\n}\n",
        encoding="utf-8",
    )
    (tmp_path / "objectives.nl").write_text("objective l2(a: [n]) -> [] = sum(a)\n", encoding="utf-8")
    monkeypatch.setattr(nldsl.stdlib, "__path__", [str(tmp_path)])
    return tmp_path


def test_files_and_what_they_declare(stdlib: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "objectives\n"
        "                  l2\n"
        "\n"
        "memories/delta  Delta: one step on the error.\n"
        "                  Delta, DeltaLayer\n"
        "\n"
        'import one with: from "objectives" import l2\n'
    )


def test_search(stdlib: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "STEP", "layer"]) == 0
    assert "memories/delta" in capsys.readouterr().out
    assert main(["list", "nothing"]) == 1


def test_json(stdlib: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json", "delta"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "memories/delta", "summary": "Delta: one step on the error.", "declares": ["Delta", "DeltaLayer"]}
    ]


def test_every_file_of_the_library_says_what_it_is() -> None:
    assert not [entry.name for entry in library() if not entry.summary or not entry.declares]
