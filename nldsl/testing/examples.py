"""Runs the examples of a program file on the reference interpreter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.driver import Options, derived, names_of
from nldsl.frontend import ast
from nldsl.source import Span


@dataclass(frozen=True)
class Failure:
    """An expectation that does not hold."""

    span: Span

    def __str__(self) -> str:
        return f"{self.span}: {self.span.text.strip()}"


@dataclass(frozen=True)
class ExampleResult:
    """What became of one example; ``expectations`` counts those it has."""

    title: str
    expectations: int
    failures: tuple[Failure, ...]


def run_examples(path: str | Path, seed: int = 0) -> list[ExampleResult]:
    """Every example of the file, in order. Raises DiagnosticError when the file is not a program."""
    options = Options()
    bag = DiagnosticBag(options.limits.diagnostics)
    names = names_of(path, options, bag)
    bag.raise_if_errors()
    assert names is not None
    scope = names.scopes[names.root]
    return [
        _run(declaration, scope, options, seed)
        for declaration in names.file.declarations
        if isinstance(declaration, ast.Example)
    ]


def _run(declaration: ast.Example, scope: object, options: Options, seed: int) -> ExampleResult:
    from nldsl.backends.reference.interpreter import Reference
    from nldsl.runtime.initialize import initialize
    from nldsl.semantics.assemble import collect
    from nldsl.semantics.check import elaborate_example

    bag = DiagnosticBag(options.limits.diagnostics)
    context = elaborate_example(declaration, scope, bag, options.limits)  # type: ignore[arg-type]
    bag.raise_if_errors()
    assert context is not None
    program = derived(collect(context, "example", None))
    reference = Reference(program, initialize(program, seed))
    outputs, _, _ = reference.run({}, ticks=1)
    held = [bool((outputs[name] != 0).all()) for name, _ in context.outputs]
    failures = [Failure(e.span) for e, ok in zip(context.expectations, held, strict=True) if not ok]
    return ExampleResult(declaration.title, len(held), tuple(failures))
