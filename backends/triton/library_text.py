"""The source of library functions, read as text: emitting kernels needs no Triton."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from importlib.resources import files


@lru_cache(maxsize=4)
def functions(module: str) -> dict[str, str]:
    """The source of every function of a library module of this package, by name, decorators included."""
    text = files("nldsl.backends.triton").joinpath(f"{module}.py").read_text(encoding="utf-8")
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = "\n".join(lines[first - 1 : node.end_lineno])
    return found


def called(module: str, text: str) -> list[str]:
    """The source of the functions of a library that ``text`` calls, and that those call, in the library's order."""
    known = functions(module)
    needed: set[str] = set()
    stack = [text]
    while stack:
        part = stack.pop()
        for name, source in known.items():
            if name not in needed and re.search(rf"\b{name}\b", part):
                needed.add(name)
                stack.append(source)
    return [source for name, source in known.items() if name in needed]
