"""Compiled modules on disk: found again, never when damaged, never under another key."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nldsl.driver import Options, front
from nldsl.ir.program import Program
from nldsl.runtime import module_store as store

STDLIB = Path(__file__).parents[3] / "stdlib"
TEXT = """
from "blocks/basic" import linear
from "optimizers/momentum" import Momentum
model Tiny(d: dim = 4, rate: real = 0.1) {
  level fast = every 1 step
  input x: [d]
  y = linear(x, d)
  minimize sum(y^2) at fast with Momentum(rate = rate)
  return y
}
"""


def program_of(text: str, folder: Path) -> Program:
    path = folder / "tiny.nl"
    path.write_text(text, encoding="utf-8")
    return front(path, Options(roots=(str(STDLIB),)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_an_entry_is_found_again(folder: Path) -> None:
    assert store.read("a") is None
    store.write("a", {"n": 1}, b"\n\0module\n")
    assert store.read("a") == ({"n": 1}, b"\n\0module\n")
    assert store.read("b") is None
    assert [p.name for p in folder.iterdir()] == ["a.module"], "nothing else is left behind"


@pytest.mark.parametrize("place", [0, 20, 60, -1])
def test_a_damaged_entry_is_said_and_removed(folder: Path, place: int) -> None:
    store.write("a", {"n": 1}, b"module" * 20)
    path = folder / "a.module"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.warns(store.StoreWarning, match=r"a\.module is damaged"):
        assert store.read("a") is None
    assert not path.exists()


def test_an_entry_is_not_taken_for_another_one(folder: Path) -> None:
    store.write("a", {}, b"module")
    (folder / "a.module").rename(folder / "b.module")
    with pytest.warns(store.StoreWarning):
        assert store.read("b") is None


def test_a_cache_that_is_off_or_not_private_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.write("a", {}, b"module")
    folder.chmod(0o777)
    assert store.read("a") is None
    folder.chmod(0o700)
    assert store.read("a") is not None
    monkeypatch.setenv("NLDSL_CACHE", "off")
    assert store.read("a") is None


def test_every_part_of_the_key_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(TEXT, tmp_path)

    def key(
        program: Program = program, options: tuple[str, ...] = ("target llvm-cpu", "forward"), host: bool = True
    ) -> str:
        return store.module_key(program, options, host)

    keys = [key(), key(options=("llvm-cpu", "step")), key(options=("cuda", "forward")), key(host=False)]
    keys.append(key(program_of(TEXT.replace("y^2", "y^4"), tmp_path)))
    keys.append(key(program_of(TEXT.replace("real = 0.1", "real = 0.2"), tmp_path)))  # of the optimizer alone
    keys.append(key(program_of(TEXT.replace("every 1 step", "every 2 step"), tmp_path)))
    monkeypatch.setattr(store, "version", lambda name: f"another {name}")
    keys.append(key())
    monkeypatch.setattr(store, "processor", lambda: "another processor")
    keys.append(key())
    assert len(set(keys)) == len(keys)
    monkeypatch.undo()
    assert key(program_of(TEXT, tmp_path)) == keys[0], "and nothing else does"
    assert key(replace(program, name="Other")) != keys[0]


WRITER = """
import sys
from nldsl.runtime import module_store as store
mine = sys.argv[1]
for n in range(60):
    store.write("both", {"by": mine}, mine.encode() * 200_000)
    found = store.read("both")
    assert found is not None and set(found[1]) == {ord(found[0]["by"])}, "two modules are mixed"
"""


def test_two_processes_at_once_do_not_mix(folder: Path) -> None:
    environment = {**os.environ, "NLDSL_CACHE": str(folder), "PYTHONWARNINGS": "error"}
    runs = [
        subprocess.Popen([sys.executable, "-c", WRITER, name], env=environment, stderr=subprocess.PIPE, text=True)
        for name in "ab"
    ]
    for run in runs:
        _, said = run.communicate(timeout=120)
        assert run.returncode == 0, said
