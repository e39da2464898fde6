"""Writes ``docs/models``: the table of programs and errors, and for each program a page with a picture of its levels.

python -m tests.oracles.catalogue           measures every program against its oracle, and writes everything
python -m tests.oracles.catalogue --pages   writes the pages again, with the errors that were measured last
python -m tests.oracles.catalogue DeltaNet  measures rows whose name contains this, and prints them
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag, DiagnosticError
from nldsl.driver import Options, front
from nldsl.explain.math import latex_lines
from nldsl.explain.page import text_page
from nldsl.explain.report import Report, report
from nldsl.frontend import ast
from nldsl.frontend.parse import parse
from nldsl.ir.program import Program
from nldsl.semantics.level_graph import build_level_graph
from nldsl.source import SourceFile
from nldsl.standalone import Request, load
from nldsl.viz.dot import svg
from tests.oracles.table import GROUPS, LEVELS, OUTSIDE, Row, row, rows

STDLIB = Path(__file__).parents[2] / "stdlib"
OUT = Path(__file__).parents[2] / "docs" / "models"
ERRORS = OUT / "errors.json"
FOLDERS = ("memories", "nested", "blocks", "models", "optimizers", ".")
KINDS = {"memory": "Memory", "block": "Block", "model": "Model"}
_LONGEST = 12_000  # characters of a page's equations
HEAD = """# Programs and their oracles

Written by `python -m tests.oracles.catalogue`. Each program runs in float64 on random inputs and is compared with
an independent implementation: the largest difference of an output, and of the gradient of a random weighting of the
outputs with respect to any input or parameter, each relative to the largest entry of the oracle's (at least 1).
"Reference" is the reference interpreter, "torch" the compiled module differentiated by autograd. A dash: the oracle
cannot be differentiated, or (torch, values) compiling takes too long for a test.
The tests ask for 1e-10 and 1e-8 (1e-12 for `torch.optim`). The second column says how the states depend on their past:
what the compiler found, and what decides whether tokens run in parallel.
"""
LEVELED = """
from "optimizers/sgd" import SGD
model Alone() {{
  level step
  level slow = every 16 token with SGD(rate = 0.1)
  level fast = every 4 token with SGD(rate = 0.1)
  input x: [8]
  input target: [8]
  y = {call}
  minimize sum((y - target)^2) at step with SGD()
  return y
}}
"""
# Programs that need what has no default, around the declaration: all are blocks that are called.
AROUND = {
    "Cms": LEVELED.format(call="Cms(x, [slow, fast], 16)"),
    "NestedCms": LEVELED.format(call="NestedCms(x, [slow, fast], 16)"),
    "IndependentCms": LEVELED.format(call="IndependentCms(x, [slow, fast], 16)"),
    "Chained": LEVELED.format(call="Chained(x, slow, fast, 16)"),
    "GlobalAttention": "block Alone(x: [8]) {\n  return GlobalAttention(x, 2)\n}\n",
    "Attention": "block Alone(x: [8]) {\n  return Attention(x, 2)\n}\n",
    "SelfModifyingTitans": "block Alone(x: [8]) {\n  return SelfModifyingTitans(x, 2, 8, 16)\n}\n",
}


@dataclass(frozen=True)
class Entry:
    """A declaration of the standard library: a unit, or a name for a unit with some arguments."""

    file: str
    name: str
    kind: str
    text: str
    doc: str
    of: str = ""  # the unit that a name stands for

    @property
    def page(self) -> str:
        """Its place, in the folder of its kind: names differ by case alone between folders."""
        return f"{self.file.rpartition('/')[0] or 'parts'}/{self.name}.md"


def entries() -> Iterator[Entry]:
    """Everything with a page, in the order of the folders."""
    files = sorted(STDLIB.rglob("*.nl"), key=lambda p: (FOLDERS.index(p.relative_to(STDLIB).parent.as_posix()), p.name))
    for path in files:
        file = parse(SourceFile(path.name, path.read_text(encoding="utf-8")), DiagnosticBag())
        assert file is not None
        units = {d.name: d for d in file.declarations if isinstance(d, ast.Unit)}
        for found in file.declarations:
            where = path.relative_to(STDLIB).with_suffix("").as_posix()
            if isinstance(found, ast.Unit):
                yield Entry(where, found.name, found.keyword, found.span.text, found.doc)
            elif isinstance(found, ast.Constant) and (unit := units.get(_called(found.value))):
                yield Entry(where, found.name, unit.keyword, found.span.text, found.doc, unit.name)


def _called(value: ast.Expr) -> str:
    return value.function.id if isinstance(value, ast.Call) and isinstance(value.function, ast.Name) else ""


# ---------------------------------------------------------------- what the compiler says


@dataclass(frozen=True)
class Explained:
    """The report on a program, and the program whose levels are drawn."""

    report: Report
    drawn: Program


def explained(entry: Entry) -> Explained:
    """Raises DiagnosticError for a program that cannot stand alone."""
    path = STDLIB / f"{entry.file}.nl"
    text = path.read_text(encoding="utf-8")
    if entry.name in AROUND:
        return _of(Request(path, "Alone", text=text + AROUND[entry.name]), entry)
    if entry.of:
        return _of(Request(path, entry.name, text=_spelled_out(entry, text)), entry)
    return _of(Request(path, entry.name), entry)


def _spelled_out(entry: Entry, text: str) -> str:
    """A name for a unit with arguments as a unit of its own: its declaration with those defaults."""
    (unit,) = (e for e in entries() if e.file == entry.file and e.name == entry.of)
    declared = unit.text
    call = re.search(r"\((.*)\)", entry.text, re.DOTALL)
    assert call is not None
    for name, value in re.findall(r"(\w+) = (\w+)", call[1]):
        declared = re.sub(rf"\b{name}: (\w+)( = \w+)?", rf"{name}: \1 = {value}", declared, count=1)
    declared = declared.replace(f"memory {entry.of}(", f"memory {entry.name}(", 1)
    return text.replace(entry.text, "") + "\n" + declared + "\n"


def _of(request: Request, entry: Entry) -> Explained:
    loaded = load(request, symbolic=True)
    notes = []
    if loaded.alone:
        notes.append("a memory by itself: read first, then learning; a model decides the order")
    if loaded.symbolic is None and loaded.sizes:
        notes.append("sizes chosen for this page: " + ", ".join(f"{n} = {s}" for n, s in loaded.sizes))
    if loaded.free:
        notes.append(f"where the caller decides a shape, it is {loaded.free} here")
    found = report(loaded.program, loaded.symbolic, loaded.unit.keyword, notes)
    given = tuple(sorted(dict(loaded.sizes).items()))
    drawn = loaded.program
    if not loaded.alone and dict(given).keys() <= {p.name for p in loaded.unit.params}:
        roots = (str(Path(request.path).parent),) if request.text is not None else ()
        drawn = front(request.path, Options(loaded.unit.name, given, frozenset(), roots), request.text)
    program = replace(found.program, name=entry.name)
    return Explained(replace(found, program=program), replace(drawn, name=entry.name))


def classes(found: Report) -> str:
    """How the states depend on their past, each class once."""
    kinds = dict.fromkeys(loop.recurrence.kind for loop in found.loops if loop.recurrence is not None)
    return "; ".join(kinds) or "no state"


# ---------------------------------------------------------------- pages


def page(entry: Entry, found: Explained | None, problem: str, errors: list[Row]) -> Iterator[str]:
    """One program."""
    yield f"# {entry.name}\n"
    yield f"{KINDS.get(entry.kind, 'Unit')} of `{entry.file}.nl` · [all programs](../index.md)\n"
    yield f"{file_doc(entry)}\n"
    if entry.doc.strip():
        yield f"{entry.doc.strip()}\n"
    yield f"## Program\n\n```nl\n{entry.text}\n```\n"
    if found is None:
        yield f"It cannot stand alone: {problem}.\n"
    else:
        latex = [latex_lines(s.math) for s in found.report.sections]
        latex = [text for text in latex if text.strip() and len(text) < _LONGEST]
        if latex:
            yield "## Derived update\n"
            yield from (f"```math\n{text}\n```\n" for text in latex)
        yield f"## Recurrence, schedule and cost\n\n{classes(found.report)}\n"
        yield f"```text\n{_cut(text_page(found.report)).rstrip()}\n```\n"
        yield f"## Levels\n\n![levels of {entry.name}]({entry.name}.svg)\n"
    yield "## Oracle and error\n"
    if errors:
        yield "\n".join(table(errors))
    else:
        yield "None of its own: it is a part of programs that have one, or it holds no state and no choice to check."


def file_doc(entry: Entry) -> str:
    """What the file says about itself: its first lines, in italics."""
    lines = (STDLIB / f"{entry.file}.nl").read_text(encoding="utf-8").splitlines()
    head = list(takewhile(lambda line: line.startswith("##"), lines))
    return f"*{' '.join(line.lstrip('# ') for line in head if line.strip('# '))}*"


def _cut(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    return text[:_LONGEST].rpartition("\n")[0] + "\n... (nldsl explain shows all of it)"


def table(found: list[Row], pages: dict[str, str] | None = None, kinds: dict[str, str] | None = None) -> Iterator[str]:
    """Rows of one group, or of one program."""
    wide = max(len(r.numbers) for r in found)
    numbers = ["reference: values", "gradients", "torch: values", "gradients"][:wide] if wide > 1 else ["difference"]
    kind = [] if kinds is None else ["recurrence"]
    head = ["program", *kind, "oracle", *numbers]
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for r in found:
        name = f"[{r.name}]({pages[r.units[0]]})" if pages and r.units[0] in pages else r.name
        own = [] if kinds is None else [kinds.get(r.units[0], "")]
        cells = [*r.numbers, *[""] * (wide - len(r.numbers))]
        yield "| " + " | ".join((name, *own, r.oracle, *cells)) + " |"


def index(found: list[Row], kinds: dict[str, str], all_entries: list[Entry]) -> Iterator[str]:
    """The table of everything."""
    passing = sum(r.passes for r in found)
    yield HEAD
    yield f"{len(all_entries)} programs, {len(found)} comparisons, {passing} of them pass.\n"
    for group in [*GROUPS, OUTSIDE, LEVELS]:
        own = [r for r in found if r.group == group]
        if own:
            yield f"\n## {group}\n"
            yield from table(own, {e.name: e.page for e in all_entries}, kinds)
    shown = {unit for r in found for unit in r.units}
    rest = [e for e in all_entries if e.name not in shown]
    yield "\n## Parts and further programs\n"
    yield "| program | recurrence | file |\n|---|---|---|"
    for entry in rest:
        yield f"| [{entry.name}]({entry.page}) | {kinds.get(entry.name, '')} | {entry.file} |"


def write(found: list[Row]) -> None:
    """The index, a page and a picture for every program; pages of programs that are gone go too."""
    OUT.mkdir(parents=True, exist_ok=True)
    all_entries, kinds = list(entries()), dict[str, str]()
    for old in (*OUT.rglob("*.md"), *OUT.rglob("*.svg")):
        old.unlink()
    for entry in all_entries:
        shown: Explained | None = None
        problem, place = "", OUT / entry.page
        place.parent.mkdir(exist_ok=True)
        try:
            shown = explained(entry)
            kinds[entry.name] = classes(shown.report)
            picture = svg(build_level_graph(shown.drawn))
            place.with_suffix(".svg").write_text(picture, encoding="utf-8")
        except DiagnosticError as error:
            problem = str(error.diagnostics[0].message)
            print(f"{entry.file}: {entry.name}: {problem}")
        own = [r for r in found if entry.name in r.units and r.file == entry.file]
        text = "\n".join(page(entry, shown, problem, own))
        text = text.replace(f"{STDLIB.parent}/", "")  # where this copy lies is nobody's business
        place.write_text(text.rstrip() + "\n", encoding="utf-8")
    (OUT / "index.md").write_text("\n".join(index(found, kinds, all_entries)) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """See the module's text."""
    if arguments == ["--pages"]:
        write(measured())
    elif arguments:
        for group, cases in GROUPS.items():
            for case in cases:
                if any(n in case.shown for n in arguments):
                    print(row(group, case))
    else:
        found = []
        for r in rows():
            found.append(r)
            print(r.name, *r.numbers, flush=True)
        OUT.mkdir(parents=True, exist_ok=True)
        ERRORS.write_text(json.dumps([asdict(r) for r in found], indent=1) + "\n", encoding="utf-8")
        write(found)


def measured() -> list[Row]:
    """The rows as they were measured last."""
    stored: list[dict[str, Any]] = json.loads(ERRORS.read_text(encoding="utf-8"))
    return [Row(**(r | {"units": tuple(r["units"]), "numbers": tuple(r["numbers"])})) for r in stored]


if __name__ == "__main__":
    main(sys.argv[1:])
