"""`nldsl graph`: draw the levels of a program."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nldsl.diagnostics.suggest import did_you_mean

from .output import note

if TYPE_CHECKING:
    from nldsl.ir.program import Program
    from nldsl.semantics.level_data import LevelGraph
    from nldsl.viz.scene import SceneOptions

__all__ = ["FORMATS", "command"]

FORMATS = ("txt", "svg", "png", "html", "dot", "json", "mmd", "model-explorer")


@click.command("graph")
@click.argument("file", metavar="FILE")
@click.option("--entry", metavar="NAME", help="The model, block or memory to draw; by default the last one.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A static argument of the entry.")
@click.option("-o", "--output", metavar="PATH", help="Where to write; by default to the terminal, as text.")
@click.option("--format", "format", type=click.Choice(FORMATS), help="By default from the ending of PATH.")
@click.option("--collapse", multiple=True, metavar="LEVEL", help="Draw this level as one box.")
@click.option("--full", is_flag=True, help="Draw equal layers each, and every block of weights.")
def command(
    file: str,
    entry: str | None,
    settings: tuple[str, ...],
    output: str | None,
    format: str | None,
    collapse: tuple[str, ...],
    full: bool,
) -> int:
    """Draw the levels of a program: what is updated how often, and what flows between.

    The ending of PATH chooses the format: .txt, .svg, .png, .html (one page that works offline), .dot, .json, .mmd.
    """
    from nldsl.semantics.level_graph import build_level_graph
    from nldsl.viz.scene import SceneOptions

    chosen = _format(output, format)
    dims = dict(_setting(text) for text in settings)
    program, explained = _programs(file, entry, dims)
    graph = build_level_graph(program)
    options = SceneOptions(fold=not full, collapsed=frozenset(_levels(collapse, graph)))
    drawn = _draw(chosen, graph, explained, options)
    if output is None:
        sys.stdout.buffer.write(drawn)
        return 0
    Path(output).write_bytes(drawn)
    note(f"wrote {output}")
    return 0


def _draw(format: str, graph: LevelGraph, explained: Program, options: SceneOptions) -> bytes:
    """The picture in one format."""
    if format == "json":
        return _json(graph.to_json())
    if format == "model-explorer":
        from nldsl.viz.model_explorer import model_explorer

        return _json(model_explorer(graph))
    if format == "mmd":
        from nldsl.viz.mermaid import mermaid

        return mermaid(graph, options).encode()
    if format == "html":
        from nldsl.viz.html import page

        return page(graph, explained, options).encode()
    if format == "txt":
        from nldsl.viz.text import text

        encoding = (sys.stdout.encoding or "utf-8").lower()
        return text(graph, options, ascii_only=not encoding.startswith("utf")).encode()
    from nldsl.viz.dot import dot, svg
    from nldsl.viz.render import render

    if format == "dot":
        return dot(graph, options).encode()
    return svg(graph, options).encode() if format == "svg" else render(dot(graph, options), format)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _programs(file: str, entry: str | None, dims: dict[str, Any]) -> tuple[Program, Program]:
    """The program whose graph is drawn, with its derivatives as operations; and the one its updates are read from."""
    from nldsl.driver import Options, front
    from nldsl.standalone import Request, load

    loaded = load(Request(file, entry, tuple(sorted(dims.items()))))
    if loaded.sizes:
        note("sizes chosen for the picture: " + ", ".join(f"{name} = {size}" for name, size in loaded.sizes))
    given = tuple(sorted({**dims, **dict(loaded.sizes)}.items()))
    if loaded.alone or not dict(given).keys() <= {p.name for p in loaded.unit.params}:
        return loaded.program, loaded.program
    return front(file, Options(loaded.unit.name, given)), loaded.program


def _format(output: str | None, format: str | None) -> str:
    if format is not None or output is None:
        return format or "txt"
    ending = Path(output).suffix.removeprefix(".").lower()
    if ending in FORMATS:
        return ending
    shown = ", ".join(f".{f}" for f in FORMATS[:-1])
    raise click.UsageError(f"no format belongs to the ending of {output}; there are {shown}, or use --format")


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE with a number, true, false, or a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise click.UsageError(f"--set wants NAME=VALUE, not {text!r}")
    known: dict[str, Any] = {"true": True, "false": False}
    for read in (int, float):
        try:
            return name.strip(), read(value)
        except ValueError:
            continue
    return name.strip(), known.get(value, value)


def _levels(names: tuple[str, ...], graph: LevelGraph) -> list[str]:
    known = {name: level.id for level in graph.levels for name in (*level.names, level.id, level.cadence)}
    for name in names:
        if name not in known:
            hint = "".join(f"; {text}" for text in did_you_mean(name, sorted(known)))
            raise click.UsageError(f"there is no level {name!r}{hint or '; there are ' + ', '.join(sorted(known))}")
    return [known[name] for name in names]
