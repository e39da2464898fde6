"""Finds and reads the files that imports name, and no others.

A program is data from anywhere, so a path in it is not trusted: it can name a file of the standard library or a `.nl`
file inside the import roots, reached without leaving them, and nothing else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diagnostics.suggest import suggest

__all__ = ["STDLIB", "Located", "Locator", "ReadError"]

# The standard library is shown as if it were a folder of this name.
STDLIB = "<stdlib>"

_SUFFIX = ".nl"
_LONGEST_PATH = 1024
# Files looked at for "did you mean".
_MOST_LISTED = 500


class ReadError(Exception):
    """A file that cannot be had, and why."""

    def __init__(self, code: str, message: str, notes: tuple[str, ...] = (), hints: tuple[str, ...] = ()) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.notes = notes
        self.hints = hints


@dataclass(frozen=True)
class Located:
    """A file of the program: `key` is what is shown, `real` where it is (None: in the standard library, or a text)."""

    key: str
    real: Path | None = None
    parts: tuple[str, ...] | None = None  # in the standard library


@dataclass(frozen=True)
class _Root:
    shown: Path
    real: Path


class Locator:
    """Knows the import roots of one program."""

    def __init__(self, folder: Path | None, roots: Sequence[str | Path]) -> None:
        """`folder` is that of the root file; None for a text, whose imports begin at the first of `roots`."""
        folders = ([] if folder is None else [folder]) + [Path(root) for root in roots]
        self._roots = [_Root(shown, _real(shown)) for shown in folders]
        self._root: Located | None = None

    # ------------------------------------------------------------ the root file

    def root(self, path: str) -> Located:
        """Return the place of the root file."""
        self._root = Located(path, _real(Path(path)))
        return self._root

    def text(self, name: str) -> Located:
        """Return the place of a text: the first import root."""
        return Located(name, self._roots[0].real / "<text>" if self._roots else None)

    def read_root(self, path: str, limit: int) -> bytes:
        """Read the file that the user named; a link is followed, since the user chose it."""
        if not path or "\0" in path:
            raise ReadError("NL0001", "the name of the file is empty" if not path else "the name contains a NUL")
        try:
            descriptor = os.open(path, os.O_RDONLY | _flag("O_NONBLOCK") | _flag("O_CLOEXEC") | _flag("O_BINARY"))
        except OSError as error:
            raise _unreadable(f"`{path}`", error, Path(path)) from error
        return _read(descriptor, f"`{path}`", limit)

    # ------------------------------------------------------------ imports

    def find(self, importer: Located, path: str) -> Located:
        """Return what an import in the file `importer` names."""
        _check_path(path)
        relative = path.startswith(("./", "../"))
        if importer.parts is not None or not relative:
            return self._find_standard(importer, path, relative)
        if importer.real is None:
            raise ReadError(
                "NL0009",
                "a program without a file cannot import relative to itself",
                hints=("save it as a file", "or name import roots"),
            )
        if not path.endswith(_SUFFIX):
            raise ReadError("NL0009", f"an imported file ends in `{_SUFFIX}`", hints=(f'write "{path}{_SUFFIX}"',))
        # By text first, so that `..` never passes through a folder outside; then by what links really mean.
        wanted = Path(os.path.normpath(importer.real.parent / path))
        if self._root_of(wanted) is None:
            raise self._outside(path)
        real = _real(wanted)
        root = self._root_of(real)
        if root is None:
            raise ReadError(
                "NL0015", f'"{path}" is a link to a file outside the import roots', hints=("copy the file",)
            )
        if self._root is not None and real == self._root.real:
            return self._root
        return Located(str(root.shown / real.relative_to(root.real)), real)

    def _outside(self, path: str) -> ReadError:
        roots = ", ".join(f"`{root.shown}`" for root in self._roots)
        return ReadError(
            "NL0009",
            f'"{path}" is outside the import roots',
            notes=(f"import roots are the folder of the program and those named by the user: {roots}",),
        )

    def _find_standard(self, importer: Located, path: str, relative: bool) -> Located:
        parts = path.split("/")
        if relative:
            assert importer.parts is not None
            parts = [*importer.parts[:-1], *path.removesuffix(_SUFFIX).split("/")]
            kept: list[str] = []
            for part in parts:
                if part == ".." and not kept:
                    raise ReadError("NL0009", f'"{path}" is outside the standard library')
                if part == "..":
                    kept.pop()
                elif part != ".":
                    kept.append(part)
            parts = kept
        if not parts or not all(_is_plain(part) for part in parts):
            raise self._no_module(importer, path)
        place = Located("/".join([STDLIB, *parts]) + _SUFFIX, None, tuple(parts))
        if not _resource(place.parts or ()).is_file():
            raise self._no_module(importer, path)
        return place

    def _no_module(self, importer: Located, path: str) -> ReadError:
        name = path.removesuffix(_SUFFIX)
        hints = tuple(f'did you mean "{found}"?' for found in suggest(name, _modules(), count=1))
        if name != path and name in _modules():
            hints = (f'write "{name}"',)
        elif importer.real is not None:
            beside = importer.real.parent / (name + _SUFFIX)
            if self._root_of(_real(beside)) is not None and beside.is_file():
                hints = (f'for the file beside this one write "./{name}{_SUFFIX}"',)
        return ReadError(
            "NL0008",
            f'the standard library has no "{path}"',
            notes=("a path that begins with `./` or `../` is relative to the file; any other names a standard module",),
            hints=hints,
        )

    def read(self, place: Located, limit: int) -> bytes:
        """Read a file that an import names."""
        if place.parts is not None:
            with _resource(place.parts).open("rb") as file:
                return bytes(file.read(limit + 1))
        assert place.real is not None
        root = self._root_of(place.real)
        assert root is not None
        shown = f"`{place.key}`"
        try:
            descriptor = _open_inside(root.real, place.real.relative_to(root.real))
        except OSError as error:
            raise _unreadable(shown, error, place.real, "NL0008") from error
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise ReadError(
                "NL0015",
                f"{shown} has several hard links",
                notes=("it may be a file from outside the import roots",),
                hints=("copy the file",),
            )
        return _read(descriptor, shown, limit)

    def _root_of(self, real: Path) -> _Root | None:
        return next((root for root in self._roots if real.is_relative_to(root.real)), None)


def _real(path: Path) -> Path:
    """Resolve all links; unlike Path.resolve, links in a circle are left as they are."""
    return Path(os.path.realpath(path))


def _check_path(path: str) -> None:
    if not path:
        raise ReadError("NL0009", "the path of an import is empty")
    if len(path) > _LONGEST_PATH:
        raise ReadError("NL0009", f"the path of an import has at most {_LONGEST_PATH} characters")
    if path.startswith("/") or (len(path) > 1 and path[1] == ":"):
        raise ReadError("NL0009", "an import cannot name a file by an absolute path", hints=("begin it with `./`",))
    bad = next((c for c in path if c in '\\:*?"<>|' or not c.isprintable()), None)
    if bad is not None:
        shown = f"`{bad}`" if bad.isprintable() else f"U+{ord(bad):04X}"
        hints = ("folders are separated by `/`",) if bad == "\\" else ()
        raise ReadError("NL0009", f"the path of an import cannot contain {shown}", hints=hints)
    if path.startswith("~"):
        raise ReadError("NL0009", "`~` means nothing in the path of an import", hints=("begin it with `./`",))


def _is_plain(part: str) -> bool:
    return part.isascii() and part.replace("_", "a").replace("-", "a").isalnum()


# ------------------------------------------------------------ the standard library


def _library() -> Any:
    from importlib import resources  # slow to import, and not every program needs it

    return resources.files("nldsl.stdlib")


def _resource(parts: Iterable[str]) -> Any:
    place = _library()
    *folders, name = parts
    for folder in folders:
        place = place.joinpath(folder)
    return place.joinpath(name + _SUFFIX)


def _modules() -> list[str]:
    """Names of the modules of the standard library."""
    found: list[str] = []
    waiting: list[tuple[str, Any]] = [("", _library())]
    while waiting and len(found) < _MOST_LISTED:
        prefix, folder = waiting.pop()
        for entry in folder.iterdir():
            if entry.is_dir() and _is_plain(entry.name):
                waiting.append((f"{prefix}{entry.name}/", entry))
            elif entry.name.endswith(_SUFFIX):
                found.append(prefix + entry.name.removesuffix(_SUFFIX))
    return sorted(found)


# ------------------------------------------------------------ files


def _flag(name: str) -> int:
    """A flag of os.open, where the system has it."""
    return int(getattr(os, name, 0))


def _open_inside(root: Path, path: Path) -> int:
    """Open a file below `root` for reading, folder by folder, following no link.

    The path was resolved a moment ago; a link that somebody puts there in between is not followed either.
    """
    flags = os.O_RDONLY | _flag("O_NOFOLLOW") | _flag("O_NONBLOCK") | _flag("O_CLOEXEC") | _flag("O_BINARY")
    if os.open not in os.supports_dir_fd:
        return os.open(root / path, flags)
    *folders, name = path.parts
    folder_flags = os.O_RDONLY | _flag("O_DIRECTORY") | _flag("O_CLOEXEC")
    folder = os.open(root, folder_flags)
    try:
        for part in folders:
            inner = os.open(part, folder_flags | _flag("O_NOFOLLOW"), dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, flags, dir_fd=folder)
    finally:
        os.close(folder)


def _read(descriptor: int, shown: str, limit: int) -> bytes:
    """Read at most one byte more than the limit, from a regular file only; close it."""
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        if stat.S_ISDIR(mode):
            raise ReadError("NL0001", f"{shown} is a folder")
        raise ReadError("NL0015", f"{shown} is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit + 1)


def _unreadable(shown: str, error: OSError, path: Path, missing: str = "NL0001") -> ReadError:
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        near = suggest(path.name, _programs(path.parent), count=1)
        hints = tuple(f"the folder has a `{name}`" for name in near)
        return ReadError(missing, f"there is no file {shown}", hints=hints)
    if isinstance(error, PermissionError):
        return ReadError("NL0001", f"{shown} may not be read")
    return ReadError("NL0001", f"{shown} cannot be read: {error.strerror}")


def _programs(folder: Path) -> set[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MOST_LISTED), entries, strict=False)]
    except OSError:
        return set()
    return {name for name in names if name.endswith(_SUFFIX)}
