"""Compiled modules on disk: found again, never when damaged, never under another key."""

from __future__ import annotations

import ctypes
import hashlib
from pathlib import Path

import pytest

pytest.importorskip("torch_mlir", reason="the extra mlir is not installed")

from nldsl.backends.mlir import cache
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
    assert entries == [f"{cache.key_of(TEXT)}.sha256", f"{cache.key_of(TEXT)}.so"]

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(cache, "compile_text", fail)
    assert run(cache.compiled(TEXT, "loop")) == 42


def test_a_damaged_entry_is_compiled_again(folder: Path) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    good = entry.read_bytes()
    entry.unlink()
    entry.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.warns(cache.CacheWarning, match=rf"{entry.name}, is compiled again: it is damaged"):
        assert run(cache.compiled(TEXT, "loop")) == 42
    assert entry.read_bytes() == good


def test_an_entry_for_another_cpu_is_compiled_again(folder: Path) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    check = entry.with_suffix(".sha256")
    check.write_text(check.read_text().partition("\n")[0] + "\nriscv64 rvv\n")
    with pytest.warns(cache.CacheWarning, match=r"it is for another CPU \(riscv64 rvv; this one: "):
        assert run(cache.compiled(TEXT, "loop")) == 42
    assert "riscv" not in check.read_text()


def test_an_entry_that_is_no_library_is_compiled_again(folder: Path) -> None:
    cache.compiled(TEXT, "loop")
    entry = folder / f"{cache.key_of(TEXT)}.so"
    entry.unlink()
    entry.write_bytes(b"no library")
    entry.with_suffix(".sha256").write_text(f"{hashlib.sha256(b'no library').hexdigest()}\n{target()}\n")
    with pytest.warns(cache.CacheWarning, match="it cannot be loaded"):
        assert run(cache.compiled(TEXT, "loop")) == 42


def test_every_part_of_the_key_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {cache.key_of(TEXT), cache.key_of(TEXT + "\n")}
    monkeypatch.setattr(cache, "PIPELINE", "builtin.module()")
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
