"""Loads a program: a file and everything it imports, each once, dependencies first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..diagnostics import DiagnosticBag
from ..limits import Limits
from ..source import NO_SPAN, SourceFile, Span
from . import ast
from .locate import Located, Locator, ReadError
from .parse import parse
from .text import decode

__all__ = ["LoadedProgram", "load", "load_text"]


@dataclass(frozen=True)
class LoadedProgram:
    """The files of a program; a key is the path under which a file is shown."""

    files: dict[str, ast.File]
    order: tuple[str, ...]
    """Keys, imported files before those that import them; the root file is last."""
    targets: dict[tuple[str, str], str] = field(repr=False)
    """(key of the importing file, text of the import) -> key."""

    @property
    def root(self) -> str:
        """Key of the file that was asked for."""
        return self.order[-1]

    def resolve(self, key: str, item: ast.Import) -> str | None:
        """Return the key of the file that an import of the file `key` names."""
        return self.targets.get((key, item.path))


def load(
    path: str | Path, bag: DiagnosticBag, limits: Limits | None = None, roots: Sequence[str | Path] = ()
) -> LoadedProgram | None:
    """Load the file at `path` and its imports; None after reporting what is wrong.

    A file may import from the standard library, and relative to itself from the folder of the root file, the folders
    below it and those of `roots`.
    """
    limits = limits or Limits()
    path = str(path)
    locator = Locator(Path(path).parent, roots)
    try:
        data = locator.read_root(path, limits.file_bytes)
    except ReadError as error:
        bag.error(error.code, SourceFile(path, "").span(0, 0), error.message, notes=error.notes, hints=error.hints)
        return None
    source = decode(data, path, bag, limits)
    return None if source is None else _Loader(locator, bag, limits).run(source, locator.root(path))


def load_text(
    text: str,
    name: str = "<text>",
    bag: DiagnosticBag | None = None,
    limits: Limits | None = None,
    roots: Sequence[str | Path] = (),
) -> LoadedProgram | None:
    """Load a program given as text; its relative imports begin at the first of `roots`.

    Without a bag to report to, mistakes are raised as a DiagnosticError.
    """
    found = DiagnosticBag() if bag is None else bag
    locator = Locator(None, roots)
    loaded = _Loader(locator, found, limits or Limits()).run(SourceFile(name, text), locator.text(name))
    if bag is None:
        found.raise_if_errors()
    return loaded


class _Loader:
    """A walk over the imports, depth first, without recursion."""

    def __init__(self, locator: Locator, bag: DiagnosticBag, limits: Limits) -> None:
        self.locator = locator
        self.bag = bag
        self.limits = limits
        self.files: dict[str, ast.File] = {}
        self.order: list[str] = []
        self.targets: dict[tuple[str, str], str] = {}
        self.seen: set[str] = set()
        self.bytes = 0

    def run(self, source: SourceFile, place: Located) -> LoadedProgram | None:
        self.seen.add(place.key)
        tree = self.parse(source)
        # The path from the root to the file being read: its place, its tree, the number of the next import.
        path: list[tuple[Located, ast.File, int]] = [(place, tree, 0)] if tree is not None else []
        while path and not self.bag.is_full:
            place, tree, at = path.pop()
            if at == len(tree.imports):
                self.files[place.key] = tree
                self.order.append(place.key)
                continue
            item = tree.imports[at]
            path.append((place, tree, at + 1))
            target = self.locate(place, item)
            if target is None:
                continue
            self.targets[place.key, item.path] = target.key
            on_path = next((n for n, (p, _, _) in enumerate(path) if p.key == target.key), None)
            if on_path is not None:
                self.cycle(path[on_path:], item)
            elif target.key not in self.seen:
                self.seen.add(target.key)
                inner = self.read(target, item)
                if inner is not None:
                    path.append((target, inner, 0))
        if self.bag.has_errors:
            return None
        return LoadedProgram(self.files, tuple(self.order), self.targets)

    def parse(self, source: SourceFile) -> ast.File | None:
        self.bytes += len(source.text)
        return parse(source, self.bag, self.limits)

    def locate(self, place: Located, item: ast.Import) -> Located | None:
        try:
            return self.locator.find(place, item.path)
        except ReadError as error:
            self.bag.error(error.code, _span(item), error.message, notes=error.notes, hints=error.hints)
            return None

    def read(self, target: Located, item: ast.Import) -> ast.File | None:
        if len(self.seen) > self.limits.files:
            self.bag.error("NL0014", _span(item), f"a program has at most {self.limits.files} files")
            return None
        try:
            data = self.locator.read(target, self.limits.file_bytes)
        except ReadError as error:
            self.bag.error(error.code, _span(item), error.message, notes=error.notes, hints=error.hints)
            return None
        if self.bytes + len(data) > self.limits.total_bytes:
            self.bag.error(
                "NL0014", _span(item), f"the files of a program have at most {self.limits.total_bytes} bytes together"
            )
            return None
        source = decode(data, target.key, self.bag, self.limits)
        return None if source is None else self.parse(source)

    def cycle(self, path: list[tuple[Located, ast.File, int]], item: ast.Import) -> None:
        keys = [place.key for place, _, _ in path]
        imports = [tree.imports[at - 1] for _, tree, at in path]
        text = " -> ".join(f"`{key}`" for key in [*keys, keys[0]])
        related = [
            (_span(inner), f"`{key}` imports `{following}`")
            for key, following, inner in zip(keys[:-1], keys[1:], imports[:-1], strict=True)
        ]
        self.bag.error(
            "NL0013",
            _span(item),
            "a file imports itself" if len(keys) == 1 else "files import one another in a cycle",
            related=tuple(related),
            notes=(f"the cycle: {text}",),
            hints=("move what both need into a file of its own",) if len(keys) > 1 else ("delete the import",),
        )


def _span(item: ast.Import) -> Span:
    return item.path_span if item.path_span is not NO_SPAN else item.span
