"""The public API. Everything heavy (torch, the passes) is imported when it is first needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from nldsl.diagnostics.diagnostic import Diagnostic, DiagnosticBag
from nldsl.driver import Options, front, middle, names_of
from nldsl.driver import check as check_stage
from nldsl.ir.schedule import RECOMPUTE_ABOVE

if TYPE_CHECKING:
    from nldsl.ir.program import Program
    from nldsl.runtime.module import Module


def check_text(text: str, name: str = "<text>", options: Options | None = None) -> list[Diagnostic]:
    """All findings about a program given as text; an empty list means it is a program."""
    return _check(name, options or Options(), text)


def check_file(path: str | Path, options: Options | None = None) -> list[Diagnostic]:
    """All findings about a program file and what it imports."""
    return _check(path, options or Options(), None)


check = check_file


def _check(source: str | Path, options: Options, text: str | None) -> list[Diagnostic]:
    bag = DiagnosticBag(options.limits.diagnostics)
    names = names_of(source, options, bag, text)
    if names is not None:
        check_stage(names, options, bag)
    return list(bag.diagnostics)


def load_program(path: str | Path, entry: str | None = None, *, text: str | None = None, **dims: Any) -> Program:
    """The per-token IR of a program, derivatives expanded and simplified: what every backend sees.

    ``path`` is a file, or the name to show for ``text``. ``dims`` are the entry's static arguments.
    Raises DiagnosticError with everything wrong about the program.
    """
    options = Options(entry, tuple(sorted(dims.items())))
    return middle(front(path, options, text), options)


def compile(
    path: str | Path,
    entry: str | None = None,
    *,
    backend: str = "auto",
    seed: int = 0,
    text: str | None = None,
    disabled: frozenset[str] = frozenset(),
    recompute_above: int = RECOMPUTE_ABOVE,
    require_backend: bool = False,
    keep_states: bool | None = None,
    **dims: Any,
) -> Module:
    """Compile a program to an ordinary ``torch.nn.Module``.

    ``backend``: ``auto`` or a name of ``nldsl.backends``. ``seed`` chooses the initial parameters. ``disabled`` names
    optional passes to leave out. ``recompute_above`` trades memory for time in training: a loop over chunks that would
    keep more than this many bytes of intermediate values for its backward pass keeps its inputs and the states at the
    boundaries of the chunks only, and computes the rest again (-1: always); with native loops it bounds what they keep
    besides these. A loop for which the backend has no form
    keeps that of the torch backend, with a warning; with ``require_backend`` it is an error. ``keep_states``, of the
    triton backend: kernels keep the states at the boundaries of segments for the backward pass (True), or it runs those
    that make them again (False); None keeps what is small. Raises DiagnosticError for a program that is wrong, and for
    a missing extra; ValueError for a choice that the backend does not have.
    """
    from nldsl.extras import require

    require("torch", extra="torch")
    from nldsl.runtime.build import build_checked

    options = Options(entry, tuple(sorted(dims.items())), disabled, recompute_above=recompute_above)
    checked = front(path, options, text)
    return build_checked(
        checked, options, backend=backend, seed=seed, required=require_backend, keep_states=keep_states
    )
