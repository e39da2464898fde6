"""The parts of the demo that look at the program: check, explain, draw, verify."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nldsl import api
from nldsl.demo.settings import TINY, DemoSettings
from nldsl.diagnostics import DiagnosticError
from nldsl.diagnostics.render import render

__all__ = ["Inspection", "inspect_program"]


@dataclass(frozen=True)
class Inspection:
    """What one part found. `files` are what it wrote; `ok` is False only if the program or the compiler is wrong."""

    name: str
    said: str
    files: tuple[str, ...] = ()
    ok: bool = True


def inspect_program(settings: DemoSettings) -> list[Inspection]:
    """Run every part; what needs an extra that is missing says so and is left out."""
    found: list[Inspection] = []
    for name, part in (("check", _check), ("explain", _explain), ("graph", _graph), ("verify", _verify)):
        try:
            found.append(part(settings))
        except DiagnosticError as error:
            missing = all(d.code in ("NL0790", "NL0791") for d in error.diagnostics)
            found.append(Inspection(name, render(error.diagnostics).strip(), ok=missing))
    return found


def _check(settings: DemoSettings) -> Inspection:
    diagnostics = api.check(settings.program)
    if diagnostics:
        return Inspection("check", render(diagnostics).strip(), ok=not any(d.is_error for d in diagnostics))
    return Inspection("check", "no mistakes found")


def _explain(settings: DemoSettings) -> Inspection:
    from nldsl.explain import explain_file

    text = settings.out / "hope.explain.txt"
    latex = settings.out / "hope.explain.tex"
    dims = dict(settings.dims)
    text.write_text(explain_file(settings.program, dims=dims), encoding="utf-8")
    latex.write_text(explain_file(settings.program, dims=dims, latex=True), encoding="utf-8")
    return Inspection("explain", "the derived updates as text and LaTeX", _names(text, latex))


def _graph(settings: DemoSettings) -> Inspection:
    from nldsl.driver import Options, front
    from nldsl.semantics.level_graph import build_level_graph
    from nldsl.viz.dot import svg
    from nldsl.viz.html import page

    options = Options(None, settings.dims)
    graph = build_level_graph(front(settings.program, options))
    picture = settings.out / "hope.svg"
    html = settings.out / "hope.html"
    picture.write_text(svg(graph), encoding="utf-8")
    html.write_text(page(graph, api.load_program(settings.program, **dict(settings.dims))), encoding="utf-8")
    return Inspection("graph", "the levels as a picture and as a page that works offline", _names(picture, html))


def _verify(settings: DemoSettings) -> Inspection:
    from nldsl.verify import verify_file
    from nldsl.verify.table import text

    dims = {**dict(settings.dims), **TINY}
    backends = () if settings.backend == "auto" else (settings.backend,)
    verdict = verify_file(settings.program, dims=dims, backends=backends)
    table = settings.out / "hope.verify.txt"
    table.write_text(text(verdict) + "\n", encoding="utf-8")
    sizes = ", ".join(f"{name} = {size}" for name, size in TINY.items())
    said = "compiled and reference agree" if verdict.ok else "compiled and reference DIFFER"
    return Inspection("verify", f"{said} ({sizes})", _names(table), verdict.ok)


def _names(*paths: Path) -> tuple[str, ...]:
    return tuple(map(str, paths))
