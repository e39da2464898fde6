"""Checkpoints are complete or ignored, whatever fails while they are written, and hostile ones are refused."""

from __future__ import annotations

import errno
import hashlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from nldsl.diagnostics import DiagnosticError
from nldsl.train import checkpoint as checkpoints
from nldsl.train.checkpoint import FILES, Checkpoint, Spec, complete_checkpoints, latest_complete, load, save
from nldsl.train.disk import Disk
from nldsl.train.restore import check_parameters, check_spec

SPEC = Spec("model A() {}\n", "A", (("d", 4),))


def make(step: int, **fields: Any) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weight = torch.randn(4, 4, generator=generator)
    return Checkpoint(
        step=step,
        spec=SPEC,
        params={"w": weight, "t": weight.t(), "n": torch.arange(3)},
        optimizers={"slow": {"clock": step, "m": [weight * 2, (weight.half(), None)], 3: True}},
        carried={"S": torch.zeros(0, 2, dtype=torch.float64)},
        rng={"torch": torch.get_rng_state()},
        data={"cursor": 7},
        trainer={"progress": {"seconds": 1.5}},
        **fields,
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def test_round_trip(tmp_path: Path) -> None:
    before = make(12)
    assert save(tmp_path / "run", before) == tmp_path / "run" / "step-000012"
    after = load(tmp_path / "run")
    for name in ("step", "spec", "params", "optimizers", "carried", "rng", "data", "trainer", "compiler"):
        assert same(getattr(before, name), getattr(after, name)), name
    assert sorted(p.name for p in (tmp_path / "run" / "step-000012").iterdir()) == sorted([*FILES, "COMPLETE"])


def test_only_the_last_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".tmp-step-000001-9").mkdir()
    (tmp_path / "step-000002").mkdir()  # of a run that was killed
    (tmp_path / "other").mkdir()
    for step in (1, 2, 3, 5):
        save(tmp_path, make(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other", "step-000003", "step-000005"]
    assert latest_complete(tmp_path) == tmp_path / "step-000005"


class FailingDisk(Disk):
    """Fails at one operation; a write fails after a part of the file."""

    def __init__(self, fail_at: int, number: int) -> None:
        self.left = fail_at
        self.number = number

    def _count(self, path: Path) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, "injected", str(path))

    def make_directory(self, path: Path) -> None:
        self._count(path)
        super().make_directory(path)

    def write(self, path: Path, data: bytes) -> None:
        if self.left == 1:
            path.write_bytes(data[: len(data) // 2])
        self._count(path)
        super().write(path, data)

    def sync_directory(self, path: Path) -> None:
        self._count(path)
        super().sync_directory(path)

    def rename(self, old: Path, new: Path) -> None:
        self._count(old)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        self._count(path)
        super().remove(path)

    def remove_tree(self, path: Path) -> None:
        self._count(path)
        super().remove_tree(path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failure_at_any_operation_leaves_whole_checkpoints(tmp_path: Path, number: int) -> None:
    failures = 0
    disk = FailingDisk(0, number)
    for fail_at in range(1, 100):
        run = tmp_path / str(fail_at)
        save(run, make(1), keep=1)
        disk = FailingDisk(fail_at, number)
        written = True
        try:
            save(run, make(2), keep=1, disk=disk)
        except DiagnosticError as error:
            written = False
            failures += 1
            assert error.diagnostics[0].code == "NL0813"
        assert not list(run.glob(".tmp*"))
        assert not list(run.glob("step-*/.*"))
        newest = load(run)
        assert newest.step in ((2,) if written else (1, 2))
        assert same(newest.params, make(newest.step).params)
        save(run, make(3), keep=1)  # and the next save works
        assert [p.name for p in complete_checkpoints(run)] == ["step-000003"]
        if disk.left > 0:
            break
    assert disk.left > 0
    assert failures >= 14


def test_damage_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, make(1))
    for name in [*FILES, "COMPLETE"]:
        whole = (path / name).read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for content in (whole[:-1], flipped, b"", None):
            (path / name).unlink()
            if content is not None:
                (path / name).write_bytes(content)
            with pytest.raises(DiagnosticError) as error:
                load(path)
            assert error.value.diagnostics[0].code in ("NL0811", "NL0810"), name
            (path / name).write_bytes(whole)
    assert load(path).step == 1


def _sign(path: Path) -> None:
    """Make the marker agree with the files, as somebody who wants to be believed would."""
    marker = json.loads((path / "COMPLETE").read_text())
    for name in FILES:
        data = (path / name).read_bytes()
        marker["files"][name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "COMPLETE").write_text(json.dumps(marker))


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, make(1))
    originals = {name: (path / name).read_bytes() for name in FILES}
    meta = json.loads(originals["meta.json"])
    payloads: list[tuple[str, bytes]] = [
        ("meta.json", b"[" * 100_000),
        ("meta.json", b"{}"),
        ("meta.json", b"\xff"),
        ("meta.json", json.dumps({**meta, "version": 2}).encode()),
        ("meta.json", json.dumps({**meta, "step": "1"}).encode()),
        ("meta.json", json.dumps({**meta, "step": True}).encode()),
        ("meta.json", json.dumps({**meta, "spec": []}).encode()),
        ("meta.json", json.dumps({**meta, "trees": {**meta["trees"], "params": {"$tensor": "nothing"}}}).encode()),
        ("meta.json", json.dumps({**meta, "trees": {**meta["trees"], "rng": {"$pairs": [[[], 1]]}}}).encode()),
        ("meta.json", json.dumps({**meta, "trees": {**meta["trees"], "rng": {"$tuple": 3}}}).encode()),
        ("program.nl", b"model B() {}"),
        ("params.safetensors", b"\x80\x04\x95"),
        ("params.safetensors", b"\xff" * 8 + b"{}"),
        ("params.safetensors", (50).to_bytes(8, "little") + b'{"w":{"dtype":"F32","shape":[1000000000000]}}'.ljust(50)),
    ]
    for name, content in payloads:
        (path / name).write_bytes(content)
        _sign(path)
        with pytest.raises(DiagnosticError) as error:
            load(path)
        assert error.value.diagnostics[0].code == "NL0811", content[:40]
        (path / name).write_bytes(originals[name])
    _sign(path)
    assert load(path).step == 1


def test_random_mutations_never_escape(tmp_path: Path) -> None:
    path = save(tmp_path, make(1))
    originals = {name: (path / name).read_bytes() for name in FILES}
    rng = random.Random(1)
    refused = 0
    for _ in range(1000):
        name = rng.choice(FILES)
        data = bytearray(originals[name])
        for _ in range(rng.choice((1, 1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        (path / name).write_bytes(data)
        _sign(path)
        try:
            load(path)
        except DiagnosticError as error:
            refused += 1
            assert error.diagnostics[0].code == "NL0811"
        (path / name).write_bytes(originals[name])
    assert refused > 200  # the rest changed numbers only


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x80\x02}")
    (tmp_path / "b.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "c.pt").write_bytes(b"")
    (tmp_path / "d.safetensors").write_bytes(b"12345678")
    (tmp_path / "run" / "step-000007").mkdir(parents=True)
    cases = {
        "a.bin": "NL0814",
        "b.zip": "NL0814",
        "c.pt": "NL0814",
        "d.safetensors": "NL0810",
        "missing": "NL0810",
        "run": "NL0810",
        "run/step-000007": "NL0810",
    }
    for name, code in cases.items():
        with pytest.raises(DiagnosticError) as error:
            load(tmp_path / name)
        assert error.value.diagnostics[0].code == code, name


def test_another_program_is_refused_and_the_difference_shown() -> None:
    other = Spec("model A() {}\nlevel slow = every 4 step\n", "A", (("d", 8), ("heads", 2)))
    with pytest.raises(DiagnosticError) as error:
        check_spec(make(1), other)
    found = error.value.diagnostics[0]
    assert found.code == "NL0812"
    assert found.notes == (
        "`d` was 4, now it is 8",
        "`heads` was the default, now it is 2",
        "@@ -1,0 +2 @@",
        "+level slow = every 4 step",
    )
    with pytest.raises(DiagnosticError, match="another program"):
        check_spec(make(1), Spec(SPEC.text, SPEC.entry, SPEC.dims, "imports"))
    check_spec(make(1), SPEC)


def test_parameters_that_do_not_fit_are_listed() -> None:
    found = {"a.w": torch.zeros(2, 3), "b": torch.zeros(4), "c": torch.zeros(4, dtype=torch.float64)}
    expected = {"a.weight": torch.zeros(2, 3), "b": torch.zeros(5), "c": torch.zeros(4)}
    with pytest.raises(DiagnosticError) as error:
        check_parameters(found, expected, "parameters")
    assert error.value.diagnostics[0].notes == (
        "missing: `a.weight` [2, 3] float32 (renamed from `a.w`?)",
        "different: `b` is [4] float32 there, [5] float32 in the program",
        "different: `c` is [4] float64 there, [4] float32 in the program",
        "unknown: `a.w` [2, 3] float32",
    )
    many = {f"p{i}": torch.zeros(1) for i in range(50)}
    with pytest.raises(DiagnosticError) as error:
        check_parameters({}, many, "parameters")
    assert len(error.value.diagnostics[0].notes) == 21


def test_only_data_can_be_stored(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"optimizers|rng|value|f"):
        save(tmp_path, Checkpoint(1, SPEC, {}, optimizers={"f": object()}))
    assert checkpoints.latest_complete(tmp_path) is None
