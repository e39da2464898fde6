"""The project's own source files, as the tests of this folder see them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The real folders behind the symlinks in nldsl/.
PACKAGES = {"backends": "nldsl.backends", "grammar": "nldsl.grammar", "stdlib": "nldsl.stdlib"}


def modules() -> dict[str, Path]:
    """Module name -> file, for everything that is installed."""
    found: dict[str, Path] = {}
    for top in ("nldsl", *PACKAGES):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            if top == "nldsl" and len(parts) > 1 and parts[1] in PACKAGES:
                continue
            name = ".".join(parts if top == "nldsl" else ("nldsl", *parts))
            found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(module: str, path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names that a module imports at run time, each with its line; `from a import b` gives `a.b` and `a`."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in _run_time_nodes(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)


def _run_time_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        yield child
        yield from _run_time_nodes(child)
