"""Real text that is wherever Python is: the source files of its standard library."""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from nldsl.train.data import DataOptions, TokenStream, list_files, open_stream

__all__ = ["Corpus", "stdlib_corpus"]

# Tests, installed packages and generated tables are left out.
EXCLUDED = (
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "encodings",
)
_ONE_IN = 20


@dataclass(frozen=True)
class Corpus:
    """Two disjoint sets of files."""

    root: Path
    train: tuple[Path, ...]
    heldout: tuple[Path, ...]

    def streams(self, heldout_bytes: int) -> tuple[TokenStream, TokenStream]:
        """Return the text to train on, and the first bytes of the text held out."""
        heldout = open_stream(self.heldout)
        return open_stream(self.train), heldout.slice(0, min(heldout_bytes, heldout.size))


def stdlib_corpus(root: Path | None = None) -> Corpus:
    """Split the files by a hash of their names: the same split on every machine, and no file in both parts.

    The files of each part follow one another in the order of that hash, so that any piece is a mixture.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    files = list_files([root], DataOptions(suffixes=(".py",), exclude=EXCLUDED))
    ordered = sorted(files, key=lambda path: _rank(root, path))
    heldout = tuple(path for path in ordered if _rank(root, path) % _ONE_IN == 0)
    return Corpus(root, tuple(path for path in ordered if path not in set(heldout)), heldout)


def _rank(root: Path, path: Path) -> int:
    return int.from_bytes(hashlib.sha256(path.relative_to(root).as_posix().encode()).digest()[:8], "big")
