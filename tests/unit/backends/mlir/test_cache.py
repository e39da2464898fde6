"""Compiled modules on disk: found again, never when damaged, never under another key."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path

import pytest

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir import cache, trim
from nldsl.backends.mlir.engine import Native, target

TEXT = """func.func @loop(%table: !llvm.ptr, %memory: !llvm.ptr, %begin: i64, %end: i64) {
  %sum = arith.addi %begin, %end : i64
  llvm.store %sum, %table : i64, !llvm.ptr
  return
}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NLDSL_CACHE", str(tmp_path))
    if cache.linker() is None:
        pytest.skip("IREE's linker is not installed")
    return tmp_path / "mlir"


def run(native: Native) -> int:
    result = ctypes.c_int64()
    numbers = (ctypes.c_int64 * 4)(ctypes.addressof(result), 0, 20, 22)
    first = ctypes.addressof(numbers)
    native.address((ctypes.c_void_p * 4)(*(first + 8 * n for n in range(4))))
    return result.value


def test_an_entry_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(cache.compiled(TEXT, "loop")) == 42
    entries = sorted(p.name for p in folder.iterdir())
    assert entries == [f"{cache.key_of(TEXT)}.so", trim.STAMP]

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(cache, "compile_text", fail)
    assert run(cache.compiled(TEXT, "loop")) == 42


@pytest.mark.parametrize("place", [0, 1000, -100, -3])
def test_a_damaged_entry_is_compiled_again(folder: Path, place: int) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    good = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place:][1:])
    with pytest.warns(cache.CacheWarning, match=rf"{entry.name}, is compiled again: it is damaged"):
        assert run(cache.compiled(TEXT, "loop")) == 42
    assert entry.read_bytes() == good


def test_an_entry_for_another_cpu_is_compiled_again(folder: Path) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    data = entry.read_bytes().rpartition(cache.MARK)[0]
    entry.unlink()
    entry.write_bytes(data + cache.checked(data, "riscv64 rvv"))
    with pytest.warns(cache.CacheWarning, match=r"it is for another CPU \(riscv64 rvv; this one: "):
        assert run(cache.compiled(TEXT, "loop")) == 42
    assert entry.read_bytes() == data + cache.checked(data, target())


def test_an_entry_that_is_no_library_is_compiled_again(folder: Path) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    entry.unlink()
    entry.write_bytes(b"no library" + cache.checked(b"no library", target()))
    with pytest.warns(cache.CacheWarning, match="it cannot be loaded"):
        assert run(cache.compiled(TEXT, "loop")) == 42


@pytest.mark.parametrize("left", [0, 100, -30, -1])
def test_a_part_of_an_entry_is_none(folder: Path, left: int) -> None:
    """A file that was cut off anywhere, as after a crash of the machine."""
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    good = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(good[:left])
    if left == -1:  # the end of the line alone
        assert run(cache.compiled(TEXT, "loop")) == 42
        return
    with pytest.warns(cache.CacheWarning, match="it is damaged"):
        assert run(cache.compiled(TEXT, "loop")) == 42
    assert entry.read_bytes() == good


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    now = time.time()
    for n in range(6):
        (tmp_path / f"{n}.so").write_bytes(bytes(100))
        os.utime(tmp_path / f"{n}.so", (now - 10 * (6 - n), now - 10 * (6 - n)))
    (tmp_path / "new-killed").mkdir()
    (tmp_path / "new-killed" / "loop.o").touch()
    os.utime(tmp_path / "new-killed", (now - 2 * trim.LEFT_OVER,) * 2)
    (tmp_path / "new-at-work").mkdir()
    trim.trim(tmp_path, most=250, recent=35.0)
    assert {p.name for p in tmp_path.iterdir()} == {"3.so", "4.so", "5.so", "new-at-work", trim.STAMP}
    trim.trim(tmp_path, most=0, recent=35.0)
    assert (tmp_path / "5.so").exists()  # not twice within that time
    trim.trim(tmp_path, most=0, recent=0.0)
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".so"]


def test_use_keeps_an_entry_and_running_code_needs_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    native = cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    os.utime(entry, (0.0, 0.0))
    assert cache.kept(cache.key_of(TEXT), "loop") is not None
    assert time.time() - entry.stat().st_mtime < 60
    loaded = cache.kept(cache.key_of(TEXT), "loop")
    os.utime(entry, (0.0, 0.0))
    trim.trim(folder, most=0, recent=0.0)
    assert not entry.exists()
    assert loaded is not None and run(loaded) == run(native) == 42
    assert run(cache.compiled(TEXT, "loop")) == 42
    assert entry.exists()


def test_every_part_of_the_key_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache.key_of(TEXT), cache.key_of(TEXT + "\n")}
    monkeypatch.setattr(cache, "PASSES", "builtin.module()")
    keys.add(cache.key_of(TEXT))
    monkeypatch.setattr(cache, "_versions", lambda: "others")
    keys.add(cache.key_of(TEXT))
    monkeypatch.setattr(cache, "target", lambda: "another CPU")
    keys.add(cache.key_of(TEXT))
    assert len(keys) == 5


def test_a_folder_that_others_can_write_is_not_used(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert cache.directory() is None
    assert run(cache.compiled(TEXT, "loop")) == 42
    assert not list(folder.iterdir())


def test_the_cache_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NLDSL_CACHE", "off")
    assert cache.directory() is None


def test_places_in_a_program_are_no_part_of_the_key() -> None:
    """Equal loops of a program, or of two, are compiled once."""
    marked = "\n".join(f'{line} loc("a.nl":3:4)' if line.strip() == "}" else line for line in TEXT.split("\n"))
    assert marked != TEXT
    assert cache.key_of("// a.nl:3: y = x\n" + marked) == cache.key_of(TEXT)
