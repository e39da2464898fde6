"""The commands that the documents promise exist."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.project.sources import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_target_is_documented(target: str) -> None:
    assert re.search(rf"^{target}:.*## \S", MAKEFILE, re.MULTILINE)


def test_targets_are_there() -> None:
    assert {"help", "env", "demo", "test", "test-all", "lint", "fmt", "bench", "clean"} <= TARGETS


def test_phony_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(phony[1].split()) == TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_documents_name_real_targets(document: Path) -> None:
    named = re.findall(r"(?:^|`)make ([a-z-]+)", document.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= TARGETS


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:|#)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert not [link for link in links if not (document.parent / link).exists()]


def test_ci_runs_the_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "make test" in script.read_text(encoding="utf-8")


def test_help_lists_the_targets() -> None:
    result = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"make {target}" in result.stdout for target in TARGETS)


@pytest.mark.parametrize("name", ["backends", "grammar", "stdlib"])
def test_packages_are_symlinks(name: str) -> None:
    link = ROOT / "nldsl" / name
    assert link.is_symlink()
    assert link.readlink() == Path(f"../{name}")


def test_pins_cover_the_extras() -> None:
    """Every requirement that `make env` installs has a tested version."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table = project[project.index("dependencies = [") : project.index("[project.scripts]")]
    wanted = set(re.findall(r'"([a-zA-Z][\w-]*)(?:[>=<;"\[])', table)) - {"nldsl-compiler"}
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = {name.lower() for name in re.findall(r"^([\w.-]+)==", pins, re.MULTILINE)}
    # triton's version is torch's business, see the head of the file.
    assert {w.lower() for w in wanted} - pinned <= {"triton"}
