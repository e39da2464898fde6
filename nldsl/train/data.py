"""Text and token files as one long stream of integers, memory-mapped file by file.

A stream is the concatenation of its files in a fixed order: the order of the arguments, and inside a directory the
order of the paths. Nothing is put between two files.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nldsl.train.errors import problem

__all__ = ["DataOptions", "Part", "TokenStream", "list_files", "open_data", "open_stream"]

Tokens = npt.NDArray[np.int64]

TOKEN_DTYPES = ("uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")
# Open maps cost a file descriptor each; directories of text have more files than a process may have descriptors.
_OPEN_MAPS = 64
_SCAN = 1 << 22  # tokens looked at per round when a stream is searched for ids that do not exist
_SAMPLE = 4096  # bytes of each end of a file that enter the fingerprint


@dataclass(frozen=True)
class DataOptions:
    """How files are chosen and read. `suffixes` and `exclude` (names) apply to the inside of directories."""

    suffixes: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    token_dtype: str = ""  # of .bin files
    as_bytes: bool = False  # read .npy and .bin files as plain bytes too


@dataclass(frozen=True)
class Part:
    """A run of `count` tokens of one file, from its token `first` on."""

    path: Path
    kind: str  # bytes | npy | bin
    dtype: str
    count: int
    first: int = 0


@dataclass(frozen=True)
class TokenStream:
    """Integers that are read by position; `starts[i]` is the position of part `i`."""

    parts: tuple[Part, ...]
    starts: tuple[int, ...]
    size: int
    _maps: OrderedDict[Path, npt.NDArray[np.generic]] = field(default_factory=OrderedDict, compare=False, repr=False)

    @staticmethod
    def of(parts: Iterable[Part]) -> TokenStream:
        """Concatenate parts."""
        kept = tuple(part for part in parts if part.count)
        starts = np.cumsum([0, *(part.count for part in kept)]).tolist()
        return TokenStream(kept, tuple(starts[:-1]), starts[-1])

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, count: int) -> Tokens:
        """Return the tokens `start .. start+count`."""
        if start < 0 or start + count > self.size:
            raise IndexError(f"tokens {start}..{start + count} of a stream of {self.size}")
        out = np.empty(count, dtype=np.int64)
        done = 0
        index = int(np.searchsorted(self.starts, start, side="right")) - 1
        while done < count:
            part = self.parts[index]
            inside = start + done - self.starts[index]
            take = min(part.count - inside, count - done)
            out[done : done + take] = self._map(part)[part.first + inside : part.first + inside + take]
            done += take
            index += 1
        return out

    def slice(self, start: int, stop: int) -> TokenStream:
        """Return the stream of the tokens `start .. stop`."""
        cut: list[Part] = []
        for part, begin in zip(self.parts, self.starts, strict=True):
            low, high = max(start, begin), min(stop, begin + part.count)
            if low < high:
                cut.append(Part(part.path, part.kind, part.dtype, high - low, part.first + low - begin))
        return TokenStream.of(cut)

    def raw_bytes(self) -> bytes:
        """Return the whole stream as text; only for streams of bytes."""
        return self.read(0, self.size).astype(np.uint8).tobytes()

    @property
    def is_bytes(self) -> bool:
        """Whether every token is one byte of text."""
        return all(part.kind == "bytes" for part in self.parts)

    def check_vocabulary(self, vocabulary: int) -> None:
        """Refuse ids outside `0 .. vocabulary`, and name the first."""
        for part in self.parts:
            info = np.iinfo(part.dtype)
            if info.min >= 0 and info.max < vocabulary:
                continue
            tokens = self._map(part)[part.first : part.first + part.count]
            for begin in range(0, part.count, _SCAN):
                chunk = tokens[begin : begin + _SCAN].astype(np.int64)
                bad = np.flatnonzero((chunk < 0) | (chunk >= vocabulary))
                if bad.size:
                    at = int(bad[0])
                    raise problem(
                        "NL0804",
                        f"token id {int(chunk[at])} is outside the vocabulary of the program, 0 to {vocabulary - 1}",
                        notes=(f"found in `{part.path}` at token {part.first + begin + at}",),
                        hints=(f"use a program with a vocabulary of at least {int(chunk.max()) + 1}, or other tokens",),
                    )

    def fingerprint(self) -> str:
        """Return a hash of the order, the sizes and both ends of each file: enough to notice other data."""
        digest = hashlib.sha256()
        for part in self.parts:
            digest.update(f"{part.path.name}\0{part.kind}\0{part.dtype}\0{part.first}\0{part.count}\0".encode())
            tokens = self._map(part)[part.first : part.first + part.count]
            digest.update(tokens[:_SAMPLE].tobytes())
            digest.update(tokens[-_SAMPLE:].tobytes())
        return digest.hexdigest()

    def _map(self, part: Part) -> npt.NDArray[np.generic]:
        found = self._maps.get(part.path)
        if found is not None:
            self._maps.move_to_end(part.path)
            return found
        tokens = _map_file(part.path, part.kind, part.dtype)
        if tokens.size < part.first + part.count:
            raise problem(
                "NL0803",
                f"`{part.path}` became shorter while it was being used",
                notes=(f"it had {part.first + part.count} tokens, now it has {tokens.size}",),
            )
        self._maps[part.path] = tokens
        if len(self._maps) > _OPEN_MAPS:
            self._maps.popitem(last=False)
        return tokens


def list_files(paths: Sequence[Path], options: DataOptions = DataOptions()) -> list[Path]:
    """Return the files that the arguments stand for, directories searched recursively, each file once."""
    found: dict[Path, None] = {}
    for path in paths:
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise problem(
                "NL0801",
                f"cannot read the data `{path}`: {error.strerror or error}",
                hints=(f"paths are taken from the current directory, `{Path.cwd()}`",),
            ) from None
        if stat.S_ISDIR(mode):
            inside = sorted(_walk(path, options), key=lambda p: p.relative_to(path).as_posix())
            if not inside:
                wanted = f" with the suffix {' or '.join(options.suffixes)}" if options.suffixes else ""
                raise problem("NL0802", f"the directory `{path}` holds no file{wanted} that is not empty")
            found.update(dict.fromkeys(inside))
        elif stat.S_ISREG(mode):
            if path.stat().st_size == 0:
                raise problem("NL0802", f"the data file `{path}` is empty")
            found[path] = None
        else:
            raise problem("NL0801", f"`{path}` is neither a file nor a directory")
    return list(found)


def open_stream(paths: Sequence[Path], options: DataOptions = DataOptions()) -> TokenStream:
    """Open every file the arguments stand for as one stream."""
    if not paths:
        raise problem("NL0801", "no data was named", hints=("say `--data PATH...`: files or directories",))
    parts = [_part(path, options) for path in list_files(paths, options)]
    kinds = {part.kind == "bytes" for part in parts}
    if len(kinds) > 1:
        text = next(part.path for part in parts if part.kind == "bytes")
        tokens = next(part.path for part in parts if part.kind != "bytes")
        raise problem(
            "NL0805",
            f"the data mixes text (`{text}`) and token files (`{tokens}`)",
            hints=("name one kind only, choose by `--suffix`, or say `--bytes` to read everything as bytes",),
        )
    return TokenStream.of(parts)


def open_data(
    train: Sequence[Path],
    heldout: Sequence[Path] = (),
    fraction: float = 0.05,
    options: DataOptions = DataOptions(),
) -> tuple[TokenStream, TokenStream]:
    """Return what to train on and what to evaluate on: other files, or the last `fraction` of the stream."""
    stream = open_stream(train, options)
    if heldout:
        return stream, open_stream(heldout, options)
    if not 0 <= fraction < 1:
        raise problem("NL0820", f"`--holdout {fraction}` is not a fraction: it must be at least 0 and less than 1")
    kept = stream.size - int(stream.size * fraction)
    return stream.slice(0, kept), stream.slice(kept, stream.size)


def _walk(root: Path, options: DataOptions) -> Iterator[Path]:
    skipped = {"__pycache__", *options.exclude}
    suffixes = tuple(s if s.startswith(".") else f".{s}" for s in options.suffixes)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in skipped and not f.startswith("."))
        for name in names:
            path = Path(folder) / name
            if name.startswith(".") or name in skipped or (suffixes and not name.endswith(suffixes)):
                continue
            try:
                info = path.stat()
            except OSError:  # a dangling link
                continue
            if stat.S_ISREG(info.st_mode) and info.st_size:
                yield path


def _part(path: Path, options: DataOptions) -> Part:
    suffix = path.suffix.lower()
    kind = {".npy": "npy", ".bin": "bin"}.get(suffix, "bytes")
    if options.as_bytes or kind == "bytes":
        return Part(path, "bytes", "uint8", path.stat().st_size)
    if kind == "bin" and options.token_dtype not in TOKEN_DTYPES:
        said = (
            f"`--token-dtype {options.token_dtype}` is not a type of integers"
            if options.token_dtype
            else (f"`{path}` does not say how its tokens are stored")
        )
        raise problem(
            "NL0805",
            said,
            hints=(f"say `--token-dtype` with one of {', '.join(TOKEN_DTYPES)}; or `--bytes` to read it as bytes",),
        )
    tokens = _map_file(path, kind, options.token_dtype)
    return Part(path, kind, str(tokens.dtype), int(tokens.size))


def _map_file(path: Path, kind: str, dtype: str) -> npt.NDArray[np.generic]:
    try:
        if kind == "npy":
            return _map_npy(path)
        width = np.dtype(dtype).itemsize
        if path.stat().st_size % width:
            raise problem(
                "NL0805",
                f"`{path}` has {path.stat().st_size} bytes, which is not a whole number of {dtype} tokens",
                hints=("check `--token-dtype`",),
            )
        return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")
    except OSError as error:
        raise problem("NL0801", f"cannot read the data `{path}`: {error.strerror or error}") from None


def _map_npy(path: Path) -> npt.NDArray[np.generic]:
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise problem("NL0805", f"`{path}` is not a .npy file of integers: {error}") from None
    if not isinstance(tokens, np.ndarray) or tokens.dtype.kind not in "iu" or tokens.ndim != 1:
        shown = f"{tokens.dtype} of shape {list(tokens.shape)}" if isinstance(tokens, np.ndarray) else "an archive"
        raise problem(
            "NL0805",
            f"`{path}` holds {shown}; tokens are a one-dimensional array of integers",
            hints=("write it with `np.save(path, ids.astype(np.uint16).ravel())`",),
        )
    return tokens
