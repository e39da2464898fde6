"""Imports point one way: a module may import its own layer and the layers below it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project.sources import ROOT, imports, modules

# Layer -> what it may import besides itself, its own package and the shared base.
BASE = {"nldsl.source", "nldsl.limits", "nldsl.dims", "nldsl.extras", "nldsl.diagnostics"}
FRONT = {"nldsl.frontend", "nldsl.grammar"}
MIDDLE = {"nldsl.ir"}
ALLOWED: dict[str, set[str]] = {
    "nldsl.source": set(),
    "nldsl.limits": set(),
    "nldsl.dims": {"nldsl.source"},
    "nldsl.diagnostics": {"nldsl.source"},
    "nldsl.extras": {"nldsl.source", "nldsl.diagnostics"},
    "nldsl.grammar": set(),
    "nldsl.stdlib": set(),
    "nldsl.frontend": BASE | {"nldsl.grammar"},
    "nldsl.ir": BASE,
    "nldsl.passes": BASE | MIDDLE,
    "nldsl.semantics": BASE | FRONT | MIDDLE | {"nldsl.stdlib"},
    "nldsl.lowering": BASE | FRONT | MIDDLE | {"nldsl.semantics", "nldsl.stdlib"},
    "nldsl.backends": BASE | MIDDLE,
}
# Packages at the top may import everything except these.
TOP = {"nldsl.cli"}

MODULES = modules()


def layer_of(name: str) -> str:
    return ".".join(name.split(".")[:2])


def ours(name: str) -> bool:
    return name == "nldsl" or name.startswith("nldsl.")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_down(module: str) -> None:
    layer = layer_of(module)
    wrong = []
    for name, line in imports(module, MODULES[module]):
        target = layer_of(name)
        if not ours(name) or target in (layer, "nldsl.__version__"):
            continue
        allowed = target in ALLOWED[layer] if layer in ALLOWED else target not in TOP or layer == "nldsl.__main__"
        if not allowed:
            wrong.append(f"{MODULES[module].relative_to(ROOT)}:{line}: imports {name}")
    assert not wrong, "\n".join(wrong)


def test_backends_do_not_see_each_other() -> None:
    wrong = []
    for module, path in MODULES.items():
        parts = module.split(".")
        if parts[:2] != ["nldsl", "backends"] or len(parts) < 4:
            continue
        for name, line in imports(module, path):
            other = name.split(".")
            if other[:2] == parts[:2] and len(other) > 3 and other[2] not in (parts[2], "interface", "again"):
                wrong.append(f"{path.relative_to(ROOT)}:{line}: imports {name}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import nldsl", "torch sympy lark numpy rich click"),
        ("import nldsl.cli.main", "torch sympy lark numpy rich"),
        ("import nldsl.diagnostics", "torch sympy lark numpy rich click"),
    ],
)
def test_import_stays_light(statement: str, absent: str) -> None:
    code = f"{statement}\nimport sys\nprint([m for m in {absent.split()!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"
