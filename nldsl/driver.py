"""The compiler's table of contents: the stages in order, each a function of the one before.

text      -> syntax      frontend.parse, frontend.imports    ast.File per file
syntax    -> names       semantics.files                     one scope per file
names     -> program     semantics.assemble                  the per-token IR, ``grad`` still an operation
program   -> derived     passes.derive                       derivatives expanded
derived   -> simplified  passes.simplify                     the same, as a person would write it
simplified -> schedule   passes.schedule                     loops, and what is computed for all tokens at once
schedule  -> source      backends.<name>                     code for a target
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticBag, DiagnosticError
from nldsl.diagnostics.internal import InternalError
from nldsl.frontend import ast
from nldsl.ir.schedule import RECOMPUTE_ABOVE
from nldsl.limits import Limits
from nldsl.semantics.spelling import closest
from nldsl.source import NO_SPAN

if TYPE_CHECKING:
    from nldsl.frontend.imports import LoadedProgram
    from nldsl.ir.program import Program
    from nldsl.semantics.scope import Scope

STAGES = ("syntax", "program", "derived", "simplified", "schedule")


@dataclass(frozen=True)
class Options:
    """What a user may choose about a compilation. ``dims`` are the static arguments of the entry.
    ``recompute_above``: see ``ir.schedule.Schedule``."""

    entry: str | None = None
    dims: tuple[tuple[str, Any], ...] = ()
    disabled: frozenset[str] = frozenset()  # names of passes that are not run
    roots: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    recompute_above: int = RECOMPUTE_ABOVE


@dataclass(frozen=True)
class Names:
    """A program with its files' names resolved."""

    loaded: LoadedProgram
    scopes: dict[str, Scope]
    root: str

    @property
    def file(self) -> ast.File:
        return self.loaded.files[self.root]


@contextlib.contextmanager
def deep_trees(limits: Limits) -> Iterator[None]:
    """Room for trees as deep as the limits allow: elaboration calls itself a few times per level."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 16 * limits.depth))
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def names_of(source: str | Path, options: Options, bag: DiagnosticBag, text: str | None = None) -> Names | None:
    """Parse a file (or a text) and its imports and resolve their names; None after errors in the text."""
    from nldsl.frontend.imports import load, load_text
    from nldsl.semantics.files import file_scopes

    if text is None:
        loaded = load(str(source), bag, options.limits, options.roots)
    else:
        loaded = load_text(text, str(source), bag, options.limits, options.roots)
    if loaded is None or bag.has_errors:
        return None
    with deep_trees(options.limits):
        scopes = file_scopes(loaded, bag, options.limits)
    return Names(loaded, scopes, loaded.order[-1])


def check(names: Names, options: Options, bag: DiagnosticBag) -> None:
    """Check every declaration of the root file, for all sizes."""
    from nldsl.semantics.check import check_declarations

    with deep_trees(options.limits):
        check_declarations(names.file, names.scopes[names.root], bag, options.limits)


def entry_of(names: Names, entry: str | None, bag: DiagnosticBag) -> ast.Unit | None:
    """The declaration to compile: by name, else the last model, else the last block, else the last memory."""
    units = [d for d in names.file.declarations if isinstance(d, ast.Unit)]
    if entry is not None:
        found = next((u for u in units if u.name == entry), None)
        if found is None:
            close = closest(entry, [u.name for u in units])
            bag.error(
                "NL0201",
                names.file.span,
                f"the program has no `{entry}`",
                hints=(f"did you mean `{close}`?",) if close else (),
            )
        return found
    for keyword in ("model", "block", "memory"):
        chosen = [u for u in units if u.keyword == keyword]
        if chosen:
            return chosen[-1]
    bag.error("NL0225", names.file.span, "the program declares no model, block or memory")
    return None


def are_parameters(unit: ast.Unit, given: Iterable[str], bag: DiagnosticBag) -> bool:
    """Whether the entry has parameters of these names; an error for the first one that it has not."""
    known = {p.name for p in unit.params}
    for name in given:
        if name not in known:
            close = closest(name, sorted(known))
            listed = (f"it has {', '.join(f'`{p.name}`' for p in unit.params)}",) if known else ()
            hints = (f"did you mean `{close}`?",) if close else listed
            bag.error("NL0203", unit.name_span, f"`{unit.name}` has no parameter `{name}`", hints=hints)
            return False
    return True


def program_of(names: Names, options: Options, bag: DiagnosticBag) -> Program | None:
    """The per-token IR of the entry."""
    from nldsl.semantics.assemble import unit_program

    unit = entry_of(names, options.entry, bag)
    if unit is None:
        return None
    given = dict(options.dims)
    if not are_parameters(unit, given, bag):
        return None
    with deep_trees(options.limits):
        return unit_program(unit, names.scopes[names.root], given, bag, options.limits)


def derived(program: Program) -> Program:
    """The program without ``grad``; raises DiagnosticError for a gradient that mixes sequences."""
    from nldsl.passes.derive import Derive, DeriveError

    try:
        return Derive().apply(program)
    except DeriveError as problem:
        hints = ("take the gradient of a value that does not depend on the other sequences",)
        raise DiagnosticError(Diagnostic("NL0503", str(problem), problem.span, hints=hints)) from None


def simplified(program: Program) -> Program:
    """The same program, as a person would write it."""
    from nldsl.passes.simplify import Simplify

    return Simplify().apply(program)


def front(source: str | Path, options: Options, text: str | None = None) -> Program:
    """Everything up to the per-token IR; raises DiagnosticError with all findings."""
    bag = DiagnosticBag(options.limits.diagnostics)
    names = names_of(source, options, bag, text)
    program = program_of(names, options, bag) if names is not None else None
    bag.raise_if_errors()
    if program is None:
        raise InternalError("no program and no finding", NO_SPAN)
    _require_sizes(program, bag)
    return program


def _require_sizes(program: Program, bag: DiagnosticBag) -> None:
    """Raises DiagnosticError for an input of a size that only a call would bind."""
    for declared in program.inputs:
        open_sizes = [str(n) for n in declared.type.shape if not isinstance(n, int)]
        if open_sizes:
            hint = f"make it a parameter of the memory: `{open_sizes[0]}: dim`"
            text = f"the size `{open_sizes[0]}` of `{declared.name}` has no value where the program runs by itself"
            bag.error("NL0302", declared.span, text, hints=(hint,))
    bag.raise_if_errors()


def middle(program: Program, options: Options) -> Program:
    """The program a backend gets: derivatives expanded, simplified."""
    program = derived(program)
    return program if "simplify" in options.disabled else simplified(program)
