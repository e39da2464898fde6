"""The demo from end to end on a small corpus: what it writes, that it goes on, and that its numbers belong together."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from nldsl.demo.corpus import stdlib_corpus
from nldsl.demo.report import markdown
from nldsl.demo.run import run_demo
from nldsl.demo.settings import DemoSettings
from nldsl.demo.training import train
from nldsl.train.checkpoint import load
from tests.unit.train.fakes import write_text

DIMS = {"d": 16, "heads": 2, "hidden": 4, "layers": 1, "cms_hidden": 16, "chunk": 8, "mid_period": 2, "slow_period": 4}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "lib"
    (folder / "test").mkdir(parents=True)
    for index in range(60):
        write_text(folder / f"module{index}.py", 3000)
    write_text(folder / "test" / "test_module.py")
    return folder


def settings(tmp_path: Path, root: Path, minutes: float = 0.06) -> DemoSettings:
    return DemoSettings(
        out=tmp_path / "demo",
        minutes=minutes,
        threads=1,
        batch=4,
        length=32,
        heldout_bytes=2000,
        sample_bytes=30,
        corpus=root,
        dims=tuple(sorted(DIMS.items())),
    )


def test_the_split_is_by_file_and_always_the_same(root: Path) -> None:
    corpus = stdlib_corpus(root)
    assert corpus == stdlib_corpus(root)
    assert len(corpus.train) + len(corpus.heldout) == 60
    assert not set(corpus.train) & set(corpus.heldout)
    assert corpus.heldout
    (root / "module0.py").unlink()
    assert set(stdlib_corpus(root).heldout) <= set(corpus.heldout)


@pytest.mark.slow
def test_the_whole_demo(tmp_path: Path, root: Path) -> None:
    said: list[str] = []
    chosen = settings(tmp_path, root)
    found, page = run_demo(chosen, said.append)
    assert [i["name"] for i in found["inspections"]] == ["check", "explain", "graph", "verify"]
    assert all(i["ok"] for i in found["inspections"])
    for inspection in found["inspections"]:
        assert all(Path(file).stat().st_size > 0 for file in inspection["files"])
    assert "<svg" in (chosen.out / "hope.svg").read_text()
    main, short, frozen = (found["runs"][name] for name in ("main", "all levels", "slow levels frozen"))
    assert main["steps"] >= short["steps"] > 0
    assert main["after"] < main["before"]
    assert frozen["frozen"] == ["mid", "slow"]
    assert frozen["before"] == main["before"]
    text = b"".join(path.read_bytes() for path in stdlib_corpus(root).heldout)[:2000]
    assert found["bits_per_byte"]["zlib9"] == 8 * len(zlib.compress(text, 9)) / 2000
    assert all(level["declared"] == level["observed"] for level in found["levels"])
    assert all(memory["agrees"] for memory in found["memories"])
    assert found["decoding"]["stepped"] == pytest.approx(found["decoding"]["evaluated"], abs=1e-4)
    assert json.loads(json.dumps(found)) == found
    assert page == markdown(found)
    assert f"{found['bits_per_byte']['order2']:.3f}" in page

    again, _ = run_demo(chosen, said.append)  # nothing is left to do
    assert again["runs"] == found["runs"]
    assert again["bits_per_byte"] == found["bits_per_byte"]


def test_a_run_of_other_settings_starts_again(tmp_path: Path, root: Path) -> None:
    said: list[str] = []
    corpus = stdlib_corpus(root)
    size = corpus.streams(2000)[0].size
    first = train(settings(tmp_path, root, 0.002), corpus, "main", 0.002, said.append)
    write_text(root / "module1.py", 2000)
    train(settings(tmp_path, root, 0.002), stdlib_corpus(root), "main", 0.002, said.append)
    assert "starting again" in "".join(said)
    assert load(first.directory).data["size"] == size - 1000
