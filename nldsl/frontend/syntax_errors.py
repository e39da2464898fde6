"""What is said when the text does not follow the grammar.

The first of these that has something to say says it: a rule for a common mistake (`syntax_rules`), the message that an
example in `grammar/syntax_errors` gives to the state of the parser, the list of what would fit.
"""

from __future__ import annotations

from ..diagnostics import Diagnostic, DiagnosticBag
from ..source import SourceFile, Span
from .lr import Failure
from .place import Place, a_list, quoted
from .syntax_rules import RULES
from .tables import Tables

__all__ = ["bad_type", "describe", "report"]

# More alternatives than this do not help.
_MOST = 6


def report(tables: Tables, source: SourceFile, bag: DiagnosticBag, failure: Failure) -> None:
    """Report one error of syntax."""
    bag.add(describe(Place(tables, source, failure)))


def describe(place: Place) -> Diagnostic:
    """Say what is wrong at a place."""
    for rule in RULES:
        found = rule(place)
        if found is not None:
            return found
    message = place.tables.messages.get(place.state)
    if message is not None:
        return Diagnostic(
            message.code,
            message.text.replace("{found}", place.found),
            place.span,
            label=f"found {place.found}",
            hints=message.hints,
        )
    wanted = place.wanted
    after = f" after {quoted(place.before.text)}" if place.before.text.strip() and not place.is_first else ""
    if wanted and len(wanted) <= _MOST:
        return Diagnostic("NL0101", f"expected {a_list(wanted)}{after}", place.span, label=f"found {place.found}")
    return Diagnostic("NL0101", f"{place.found} does not fit here", place.span)


def bad_type(bag: DiagnosticBag, span: Span, name: str) -> None:
    """Report a type whose brackets follow another word than `int` or `list`."""
    bag.error(
        "NL0121",
        span,
        f"`{name}[...]` is not a type",
        notes=("a tensor is `[d, n]`, a tensor of integers `int[n]`, a list `list[dim]`",),
        hints=(f"write `list[{name}]`",) if name in _LISTED else (),
    )


_LISTED = frozenset("dim int real bool text level fn memory block".split())
