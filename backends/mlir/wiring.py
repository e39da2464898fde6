"""Where the tensors of a backward function come from, and which of them hold the cotangents of a loop's inputs.

Found once for a function: a call then goes by positions, and compares no names and types.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nldsl.backends.mlir.function import Argument
from nldsl.ir.types import TIME

OWN = ("output", "sum")  # tensors that a call makes: there is nothing to read them from


@dataclass(frozen=True)
class Wiring:
    """``sources``: for each argument of the function its position among what it is read from (the boundaries, the
    cotangents of states and streams, or the inputs; -1 for ``OWN``). ``parts``: for each input of the loop the
    arguments that hold parts of its cotangent."""

    sources: tuple[int, ...]
    parts: tuple[tuple[int, ...], ...]


def wiring(
    arguments: Sequence[Argument],
    inputs: Sequence[Argument],
    results: Sequence[Argument],
    boundaries: Sequence[Argument],
) -> Wiring:
    """``arguments``: of a backward function; ``inputs``, ``results`` and ``boundaries``: of its loop."""
    given = {(a.kind, a.key): n for n, a in enumerate(inputs)}
    found = {("state" if a.kind == "state" else "cotangent_of", a.key): n for n, a in enumerate(results)}
    saved = {("boundary", a.key): n for n, a in enumerate(boundaries)}
    saved |= {("kept", a.key): len(boundaries) for a in arguments if a.kind == "kept"}  # one tensor behind them
    known = given | found | saved  # a state of the function is a cotangent
    sources = tuple(-1 if a.kind in OWN else known[a.kind, a.key] for a in arguments)
    return Wiring(sources, tuple(tuple(n for n, a in enumerate(arguments) if _is_part(a, x)) for x in inputs))


def _is_part(found: Argument, argument: Argument) -> bool:
    """Whether an argument of the function holds part of the cotangent of an input."""
    if argument.kind == "given" and TIME in argument.type.axes:
        return found.kind == "output" and bool(found.key == argument.key)
    if argument.kind == "state":
        return found.kind == "state" and bool(found.key == argument.key)
    leaf = "state" if argument.kind == "fixed" else argument.kind
    return found.kind == "sum" and bool(found.key[:2] == (leaf, argument.key))
