"""Nothing that is installed evaluates text or unpickles data: the text may come from a program."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.sources import imports, modules, tree

# Called by bare name.
BUILTINS = {"eval", "exec", "compile", "__import__"}
# Called on something, or imported by name.
NAMES = {"sympify", "parse_expr", "lambdify"}
MODULES_BANNED = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
ATTRIBUTES = {("torch", "load"), ("yaml", "load"), ("np", "load"), ("numpy", "load"), ("builtins", "eval")}
ATTRIBUTES |= {("builtins", "exec"), ("builtins", "compile"), ("os", "system")}

MODULES = modules()


def findings(module: str, path: Path) -> Iterator[str]:
    for name, line in imports(module, path):
        if name.split(".")[0] in MODULES_BANNED or name.rpartition(".")[2] in NAMES:
            yield f"{line}: imports {name}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield from _call(node)
        elif isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield f"{node.lineno}: uses .{node.attr}"


def _call(node: ast.Call) -> Iterator[str]:
    called = node.func
    if isinstance(called, ast.Name) and called.id in BUILTINS | NAMES:
        yield f"{node.lineno}: calls {called.id}"
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        name = (called.value.id, called.attr)
        if name in ATTRIBUTES and not _safe(node):
            yield f"{node.lineno}: calls {'.'.join(name)}"
    if any(keyword.arg == "shell" and ast.unparse(keyword.value) != "False" for keyword in node.keywords):
        yield f"{node.lineno}: runs a shell"


def _safe(node: ast.Call) -> bool:
    """numpy's loader is harmless when it is told not to unpickle."""
    return any(k.arg == "allow_pickle" and ast.unparse(k.value) == "False" for k in node.keywords)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_module_evaluates_nothing(module: str) -> None:
    assert not list(findings(module, MODULES[module]))


@pytest.mark.parametrize(
    "text",
    ["eval(x)", "exec(x)", "compile(x, y, z)", "import pickle", "from sympy import lambdify", "sympy.sympify(x)"]
    + ["torch.load(x)", "yaml.load(x)", "np.load(x)", "subprocess.run(x, shell=True)", "os.system(x)"],
)
def test_the_test_notices(text: str, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)
    assert list(findings("nldsl.module", path))


def test_other_uses_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("re.compile(x)\nnldsl.compile(x)\nmodel.eval()\nnp.load(x, allow_pickle=False)\n")
    assert not list(findings("nldsl.module", path))
