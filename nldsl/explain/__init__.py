"""What a program does once its derivatives are worked out, for people: equations, loops, costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nldsl.explain.report import Report
    from nldsl.ir.program import Program

__all__ = ["explain_file", "explain_program", "explain_update", "report_of"]

_READS_FIRST = "a memory by itself: read first, then learning; a model decides the order"


def explain_file(
    path: str | Path,
    name: str | None = None,
    latex: bool = False,
    as_json: bool = False,
    dims: Mapping[str, Any] | None = None,
) -> str:
    """The report on a file, or on the memory, block or model ``name`` of it. ``dims`` are its static arguments.

    Raises DiagnosticError with everything wrong about the program.
    """
    from nldsl.explain.page import latex_page, text_page
    from nldsl.explain.report import to_json

    found = report_of(path, name, dims)
    if as_json:
        return json.dumps(to_json(found), indent=2, ensure_ascii=False)
    return latex_page(found) if latex else text_page(found)


def fusion_file(path: str | Path, name: str | None = None, dims: Mapping[str, Any] | None = None) -> str:
    """What each fusion does to the loops of a program. Raises DiagnosticError."""
    from nldsl.explain.fusion import fusion_page
    from nldsl.standalone import Request, load

    loaded = load(Request(path, name, tuple(sorted((dims or {}).items()))))
    return fusion_page(loaded.program, ", ".join(f"{n} = {s}" for n, s in loaded.sizes))


def report_of(path: str | Path, name: str | None = None, dims: Mapping[str, Any] | None = None) -> Report:
    """The report on a file as data."""
    from nldsl.explain.report import report
    from nldsl.standalone import Request, load

    loaded = load(Request(path, name, tuple(sorted((dims or {}).items()))), symbolic=True)
    notes = [_READS_FIRST] if loaded.alone else []
    if loaded.symbolic is None and loaded.sizes:
        notes.append("sizes chosen for this page: " + ", ".join(f"{n} = {s}" for n, s in loaded.sizes))
    if loaded.free:
        notes.append(f"where the caller decides a shape, it is {loaded.free} here")
    return report(loaded.program, loaded.symbolic, loaded.unit.keyword, notes)


def explain_program(program: Program) -> str:
    """The report on a derived and simplified program as text."""
    from nldsl.explain.page import text_page
    from nldsl.explain.report import report

    return text_page(report(program))


def explain_update(program: Program, state_name: str) -> str:
    """The lines that lead to the update of one state, as text; empty for a state that nothing changes."""
    from nldsl.explain.math import equations, text_lines

    return "\n".join(text_lines(equations(program, [state_name], read="nothing")))
