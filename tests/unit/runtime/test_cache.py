"""The cache of compiled programs: the same module again, never a stale one, never from an unsafe place."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

import nldsl
from nldsl.driver import Options, front, middle
from nldsl.ir.print import print_program
from nldsl.ir.store import from_plain, to_plain
from nldsl.runtime import build, cache

HOPE = str(files("nldsl.stdlib") / "models/hope.nl")
PROGRAMS: list[tuple[str, str | None, dict[str, Any]]] = [
    ("models/hope.nl", None, {"d": 16, "heads": 2, "hidden": 4, "cms_hidden": 8, "vocab": 11}),
    ("memories/titans.nl", "Titans", {"dk": 6, "dv": 6, "chunk": 4}),
    ("memories/delta.nl", "GatedDelta", {"dk": 4, "dv": 3}),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which stores everything."""
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(build, "WORTH_STORING", 0.0)
    return tmp_path / "cache"


@pytest.mark.parametrize("file, entry, dims", PROGRAMS)
def test_stored_programs_are_the_same(file: str, entry: str | None, dims: dict[str, Any]) -> None:
    options = Options(entry, tuple(sorted(dims.items())))
    before = front(str(files("nldsl.stdlib") / file), options)
    after = middle(before, options)
    plain = to_plain(after, before)
    assert plain is not None
    found = from_plain(json.loads(json.dumps(plain)), before)
    assert found == after
    assert print_program(found) == print_program(after)
    assert [i.span for i in found.body] == [i.span for i in after.body]
    assert [i.name for i in found.body] == [i.name for i in after.body]


def small(**more: Any) -> Any:
    return nldsl.compile(HOPE, d=16, heads=2, hidden=4, cms_hidden=8, vocab=11, **more)


def test_the_second_module_is_the_first(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(0, 11, (2, 9), generator=torch.Generator().manual_seed(0))
    first = small()
    assert len(list(place.glob("*.json"))) == 1

    def refuse(*_: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(build, "middle", refuse)
    second = small()
    assert second.emitted.source == first.emitted.source
    assert second.program == first.program
    (a, _), (b, _) = first.loss(tokens), second.loss(tokens)
    assert torch.equal(a, b)
    assert [level.optimizer.name for level in second.program.levels if level.optimizer]  # optimizers are there


def test_other_options_are_other_entries(place: Path) -> None:
    small()
    small(disabled=frozenset({"chunk"}))
    small(layers=1)
    assert len(list(place.glob("*.json"))) == 3


TEXT = """
memory Keep(d: dim = 3) {
  state s: [d] = 0
  step(x: [d]) -> [d] every token {
    s <- 0.5 * s + x
    return s
  }
}
"""


def test_a_changed_text_is_another_entry(place: Path) -> None:
    nldsl.compile("keep", text=TEXT)
    nldsl.compile("keep", text=TEXT)
    assert len(list(place.glob("*.json"))) == 1
    nldsl.compile("keep", text=TEXT.replace("0.5 * s", "0.50 * s"))  # the same computation, another comment in the code
    assert len(list(place.glob("*.json"))) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"program": {}}', '{"program": 3, "source": 4, "loss_inputs": 5}'])
def test_a_broken_entry_is_compiled_again(place: Path, content: str) -> None:
    nldsl.compile("keep", text=TEXT)
    (path,) = place.glob("*.json")
    check, _, good = path.read_text().partition("\n")
    path.write_text(f"{check}\n{content}")
    with pytest.warns(cache.CacheWarning, match="is damaged and compiled again"):
        assert nldsl.compile("keep", text=TEXT)(torch.ones(1, 2, 3)).shape == (1, 2, 3)
    assert json.loads(path.read_text().partition("\n")[2]) == json.loads(good)


def test_a_changed_letter_is_damage(place: Path) -> None:
    nldsl.compile("keep", text=TEXT)
    (path,) = place.glob("*.json")
    path.write_bytes(path.read_bytes().replace(b"0.5 *", b"0.6 *"))
    with pytest.warns(cache.CacheWarning, match="is damaged and compiled again"):
        module = nldsl.compile("keep", text=TEXT)
    assert "0.5 *" in module.emitted.source


def test_an_entry_under_another_name_is_damage(place: Path) -> None:
    nldsl.compile("keep", text=TEXT)
    (first,) = place.glob("*.json")
    other = TEXT.replace("0.5", "0.25")
    nldsl.compile("keep", text=other)
    (second,) = set(place.glob("*.json")) - {first}
    second.write_bytes(first.read_bytes())
    with pytest.warns(cache.CacheWarning, match="is damaged and compiled again"):
        module = nldsl.compile("keep", text=other)
    assert "0.25 *" in module.emitted.source


def test_a_folder_that_others_can_write_is_not_used(place: Path) -> None:
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    assert cache.folder() is None
    nldsl.compile("keep", text=TEXT)
    assert not list(place.iterdir())


def test_switched_off(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLDSL_CACHE", "off")
    nldsl.compile("keep", text=TEXT)
    assert cache.folder() is None
    assert not place.exists()


def test_no_place_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLDSL_CACHE", "/proc/nowhere")
    nldsl.compile("keep", text=TEXT)


def test_the_oldest_entries_go(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST", 2)
    for n in range(4):
        nldsl.compile("keep", text=TEXT.replace("0.5", f"0.{n + 1}"))
    assert len(list(place.glob("*.json"))) == 2


def test_fast_programs_are_not_stored(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "WORTH_STORING", 60.0)
    nldsl.compile("keep", text=TEXT)
    assert not list(place.glob("*.json"))
