"""`nldsl new`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nldsl.cli.main import main
from nldsl.cli.new import starter


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "title"),
    [("my_memory", "MyMemory"), ("Gated-delta.nl", "GatedDelta"), ("3d", "Memory3d"), ("_", "Memory"), ("é", "Memory")],
)
def test_names(name: str, title: str) -> None:
    path = Path(name if name.endswith(".nl") else f"{name}.nl")
    assert f"\nmemory {title}(dk: dim, dv: dim) {{\n" in starter(path)


def test_new_writes_a_program_without_mistakes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine"]) == 0
    assert "wrote mine.nl" in capsys.readouterr().out
    assert main(["check", "mine.nl"]) == 0
    assert capsys.readouterr().out == "mine.nl: no mistakes found\n"


def test_new_overwrites_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine.nl").write_text("mine", encoding="utf-8")
    assert main(["new", "mine"]) == 1
    assert "mine.nl exists; --force overwrites it" in capsys.readouterr().err
    assert (here / "mine.nl").read_text(encoding="utf-8") == "mine"
    assert main(["new", "mine.nl", "--force"]) == 0
    assert (here / "mine.nl").read_text(encoding="utf-8") == starter(Path("mine.nl"))


def test_folder_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "nowhere/mine"]) == 1
    assert "nowhere" in capsys.readouterr().err
