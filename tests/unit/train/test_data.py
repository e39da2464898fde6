"""Streams of bytes and of tokens, how they are split, and the batches drawn from them."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nldsl.diagnostics import DiagnosticError
from nldsl.train.data import DataOptions, open_data, open_stream
from nldsl.train.sampler import Sampler, evaluation_batches


def code_of(error: pytest.ExceptionInfo[DiagnosticError]) -> str:
    return error.value.diagnostics[0].code


def test_directory_is_read_in_the_order_of_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.py").write_bytes(b"bx")
    (tmp_path / "a.py").write_bytes(b"a")
    (tmp_path / "b.py").write_bytes(b"b")
    (tmp_path / "c.txt").write_bytes(b"no")
    (tmp_path / "empty.py").write_bytes(b"")
    (tmp_path / ".hidden.py").write_bytes(b"no")
    (tmp_path / "skipped").mkdir()
    (tmp_path / "skipped" / "y.py").write_bytes(b"no")
    (tmp_path / "dangling.py").symlink_to(tmp_path / "missing")
    stream = open_stream([tmp_path], DataOptions(suffixes=("py",), exclude=("skipped",)))
    assert stream.raw_bytes() == b"a" + b"b" + b"bx"
    assert stream.is_bytes


def test_more_files_than_open_maps(tmp_path: Path) -> None:
    for index in range(200):
        (tmp_path / f"{index:03}.txt").write_bytes(bytes([index]) * 3)
    stream = open_stream([tmp_path])
    assert stream.read(0, 600).tolist() == [i for i in range(200) for _ in range(3)]
    assert stream.read(298, 4).tolist() == [99, 99, 100, 100]
    assert stream.slice(299, 301).read(0, 2).tolist() == [99, 100]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64", ">u2"])
def test_token_files(tmp_path: Path, dtype: str) -> None:
    ids = np.arange(100, dtype=dtype)
    np.save(tmp_path / "ids.npy", ids)
    assert open_stream([tmp_path / "ids.npy"]).read(10, 5).tolist() == [10, 11, 12, 13, 14]
    if dtype[0] != ">":
        ids.tofile(tmp_path / "ids.bin")
        stream = open_stream([tmp_path / "ids.bin"], DataOptions(token_dtype=dtype))
        assert stream.read(10, 5).tolist() == [10, 11, 12, 13, 14]
        assert not stream.is_bytes


def test_heldout_is_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    train, heldout = open_data([tmp_path / "a"], fraction=0.1)
    assert train.read(0, 90).tolist() == list(range(90))
    assert heldout.read(0, 10).tolist() == list(range(90, 100))
    (tmp_path / "b").write_bytes(b"zz")
    assert open_data([tmp_path / "a"], [tmp_path / "b"])[1].raw_bytes() == b"zz"


def test_mistakes_are_diagnostics(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "odd.bin").write_bytes(b"123")
    (tmp_path / "text.txt").write_bytes(b"123")
    (tmp_path / "broken.npy").write_bytes(b"\x80\x04not an array")
    np.save(tmp_path / "floats.npy", np.ones(3))
    np.save(tmp_path / "matrix.npy", np.ones((3, 3), dtype=np.int32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "ids.npy", np.array([1, 300], dtype=np.uint16))
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    cases = [
        ([], "NL0801"),
        (["missing"], "NL0801"),
        (["pipe"], "NL0801"),
        (["empty"], "NL0802"),
        (["folder"], "NL0802"),
        (["odd.bin"], "NL0805"),
        (["broken.npy"], "NL0805"),
        (["floats.npy"], "NL0805"),
        (["matrix.npy"], "NL0805"),
        (["objects.npy"], "NL0805"),
        (["ids.npy", "text.txt"], "NL0805"),
    ]
    for names, code in cases:
        with pytest.raises(DiagnosticError) as error:
            open_stream([tmp_path / name for name in names])
        assert code_of(error) == code, names
    with pytest.raises(DiagnosticError, match="not a whole number") as error:
        open_stream([tmp_path / "odd.bin"], DataOptions(token_dtype="uint16"))
    with pytest.raises(DiagnosticError, match="not a type of integers") as error:
        open_stream([tmp_path / "odd.bin"], DataOptions(token_dtype="float32"))


def test_ids_outside_the_vocabulary_are_found(tmp_path: Path) -> None:
    np.save(tmp_path / "ids.npy", np.array([1, 2, 300, 2], dtype=np.int32))
    stream = open_stream([tmp_path / "ids.npy"])
    stream.check_vocabulary(301)
    with pytest.raises(DiagnosticError, match="token id 300 is outside") as error:
        stream.check_vocabulary(300)
    assert "at token 2" in error.value.diagnostics[0].notes[0]
    np.save(tmp_path / "negative.npy", np.array([1, -2], dtype=np.int32))
    with pytest.raises(DiagnosticError, match="token id -2"):
        open_stream([tmp_path / "negative.npy"]).check_vocabulary(300)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    stream = open_stream([tmp_path / "a"])
    (tmp_path / "a").write_bytes(b"x" * 10)
    with pytest.raises(DiagnosticError, match="became shorter"):
        stream.read(0, 100)


def test_random_batches_depend_on_the_cursor_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(256)) * 4)
    stream = open_stream([tmp_path / "a"])
    first = Sampler(stream, batch=3, length=7, seed=5)
    drawn = [first.next().tokens for _ in range(6)]
    second = Sampler(stream, batch=3, length=7, seed=5)
    second.load_state_dict({**first.state_dict(), "cursor": 4})
    assert torch.equal(second.next().tokens, drawn[4])
    assert drawn[0].shape == (3, 8)
    assert not torch.equal(drawn[0], drawn[1])
    other = Sampler(stream, batch=3, length=7, seed=6)
    assert not torch.equal(other.next().tokens, drawn[0])
    with pytest.raises(DiagnosticError, match="--seed"):
        other.load_state_dict(first.state_dict())


def test_every_window_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(6)))
    sampler = Sampler(open_stream([tmp_path / "a"]), batch=64, length=4)
    assert sorted(set(sampler.next().tokens[:, 0].tolist())) == [0, 1]


def test_streaming_segments_follow_one_another(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(range(100)))
    sampler = Sampler(open_stream([tmp_path / "a"]), batch=2, length=10, streaming=True)
    batches = [sampler.next() for _ in range(sampler.batches_per_epoch + 1)]
    assert [batch.continues for batch in batches] == [False, True, True, True, False]
    assert batches[0].tokens[:, 0].tolist() == [0, 50]
    for before, after in pairwise(batches[:4]):
        assert torch.equal(before.tokens[:, -1], after.tokens[:, 0])
    assert torch.equal(batches[4].tokens, batches[0].tokens)


def test_too_little_data(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 16)
    stream = open_stream([tmp_path / "a"])
    for streaming, length in ((False, 16), (True, 8)):
        with pytest.raises(DiagnosticError, match="too few") as error:
            Sampler(stream, batch=2, length=length, streaming=streaming)
        assert code_of(error) == "NL0803"


@pytest.mark.parametrize("limit", [0, 1, 10, 37, 1000])
def test_evaluation_predicts_each_token_once(tmp_path: Path, limit: int) -> None:
    (tmp_path / "a").write_bytes(bytes(range(64)))
    stream = open_stream([tmp_path / "a"])
    predicted = [
        token
        for tokens in evaluation_batches(stream, batch=3, length=5, limit=limit)
        for row in tokens.tolist()
        for token in row[1:]
    ]
    assert predicted == list(range(1, 1 + min(limit or 63, 63)))
