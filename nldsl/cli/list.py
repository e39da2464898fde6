"""`nldsl list`: the standard library at a glance."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import click

__all__ = ["Listed", "command", "library"]

_DECLARED = re.compile(r"^(?:memory|block|model|fn|objective|retention)\s+(\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Listed:
    """One file of the standard library."""

    name: str
    """As it is imported: `memories/delta`."""
    summary: str
    declares: tuple[str, ...]


@click.command("list")
@click.argument("words", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(words: tuple[str, ...], as_json: bool) -> int:
    """List the standard library; with WORDS, only the files that mention all of them."""
    found = [entry for entry in library() if all(_mentions(entry, word) for word in words)]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in found], indent=2))
        return 0
    if words and not found:
        raise click.ClickException(f"nothing in the standard library mentions {' and '.join(words)}")
    width = max((len(entry.name) for entry in found), default=0)
    folder = None
    for entry in found:
        here = entry.name.rpartition("/")[0]
        if folder is not None and here != folder:
            click.echo()
        folder = here
        click.echo(f"{entry.name:<{width}}  {entry.summary}".rstrip())
        click.echo(f"{'':<{width}}    {', '.join(entry.declares)}".rstrip())
    click.echo(f'\nimport one with: from "{found[0].name}" import {found[0].declares[0]}' if found else "")
    return 0


def library() -> list[Listed]:
    """Read the first lines of every file of the standard library, without parsing it."""
    import nldsl.stdlib

    (root,) = (Path(folder) for folder in nldsl.stdlib.__path__)
    return [_listed(path, root) for path in sorted(root.rglob("*.nl"), key=lambda p: (p.parent, p.name))]


def _listed(path: Path, root: Path) -> Listed:
    text = path.read_text(encoding="utf-8")
    doc = next((line[2:].strip() for line in text.splitlines() if line.startswith("##") and line[2:].strip()), "")
    declares = tuple(dict.fromkeys(_DECLARED.findall(text)))
    return Listed(path.relative_to(root).with_suffix("").as_posix(), doc, declares)


def _mentions(entry: Listed, word: str) -> bool:
    return word.casefold() in f"{entry.name} {entry.summary} {' '.join(entry.declares)}".casefold()
