"""The built wheel holds the data files, not only the modules."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.project.sources import ROOT, modules

DATA = {".lark", ".nl", ".toml", ".html", ".js", ".css", ".json", ".md", ".typed"}
# The front matter of a data folder for people who read the repository; not needed at run time, and harmless if shipped.
NOT_NEEDED = {"README.md"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # Built from a copy: setuptools leaves a build folder behind, and an old one would hide a missing file.
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in ("nldsl", "grammar", "backends", "stdlib"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(source)], check=True, capture_output=True, text=True)
    (path,) = out.glob("nldsl_compiler-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_holds_every_module_and_data_file(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    expected = {name.replace(".", "/") for name in modules()}
    missing = [m for m in expected if f"{m}.py" not in inside and f"{m}/__init__.py" not in inside]
    for top in ("nldsl", "grammar", "backends", "stdlib"):
        for path in (ROOT / top).rglob("*"):
            if path.is_file() and path.suffix in DATA and path.name not in NOT_NEEDED:
                at = path.relative_to(ROOT)
                name = at.as_posix() if top == "nldsl" else (Path("nldsl") / at).as_posix()
                if name not in inside:
                    missing.append(name)
    assert not missing


def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"nldsl"}
    assert not [n for n in wheel.namelist() if "__pycache__" in n or n.startswith("nldsl/tests")]


def test_wheel_runs(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path)
    command = [sys.executable, "-m", "nldsl", "--version"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "nldsl" in result.stdout
