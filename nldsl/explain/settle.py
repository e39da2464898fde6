"""The last look at a set of lines: those that turned out not to be needed go, those without a name get one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from nldsl.explain.identify import elementwise_leaves, fold, is_elementwise
from nldsl.explain.naming import Names
from nldsl.explain.recognise import recognised
from nldsl.explain.rewrite import occurrences, remade, substitute, transformed
from nldsl.explain.terms import Sym, Term, subterms
from nldsl.ir.types import Clock
from nldsl.source import NO_SPAN, Span

_LONGEST_ACTIVATION = 160
INLINE_ONCE = 16  # a value that is written once and is no longer than this needs no line


@dataclass(frozen=True)
class Line:
    """``target = value`` (``kind`` let, output, where) or ``target ← value`` (update); ``number`` is its IR value.

    ``named``: the program names it. The target of any other line is provisional until ``settle``.
    ``whole``: the line is its IR value; otherwise it is that up to a scalar factor.
    """

    target: Sym
    value: Term
    kind: str
    number: int
    guard: Clock | None = None
    span: Span = NO_SPAN
    named: bool = True
    whole: bool = True


def settle(lines: list[Line], names: Names) -> list[Line]:
    """The lines in order, short ones that are written once put in their place, the rest named."""
    lines = sorted(lines, key=lambda line: line.number)
    bodies = {line.target: line.value for line in lines if line.kind == "let"}
    lines = [replace(line, value=transformed(line.value, lambda t: recognised(t, bodies))) for line in lines]
    lines = _activations(lines)
    while True:
        seen = occurrences([line.value for line in lines])
        spare = next((line for line in lines if _is_spare(line, seen[line.target])), None)
        if spare is None:
            break
        gone = {spare.target: spare.value}
        lines = [replace(line, value=substitute(line.value, gone)) for line in lines if line is not spare]
    return _named(lines, names)


def _activations(lines: list[Line]) -> list[Line]:
    """Known functions and their derivatives, also where their parts have become lines of their own."""
    parts: dict[Sym, Term] = {}
    done = []
    for line in lines:
        value = transformed(line.value, lambda t: _shorter(t, parts))
        if line.kind == "let" and not line.named and is_elementwise(value):
            leaves = elementwise_leaves(value)
            if leaves & parts.keys() or all(isinstance(t, Sym) for t in leaves):
                parts[line.target] = _expanded(value, parts)
        done.append(replace(line, value=value))
    return done


def _shorter(term: Term, parts: Mapping[Sym, Term]) -> Term:
    if not is_elementwise(term) or not any(t in parts for t in subterms(term) if isinstance(t, Sym)):
        return term
    whole = _expanded(term, parts)
    if whole.weight > _LONGEST_ACTIVATION:
        return term
    folded = fold(whole)
    return folded if folded.weight < term.weight else term


def _expanded(term: Term, parts: Mapping[Sym, Term]) -> Term:
    """The term with these names replaced where it is elementwise; what is inside of matrix products stays."""
    if isinstance(term, Sym):
        return parts.get(term, term)
    if not is_elementwise(term):
        return term
    return remade(term, tuple(_expanded(c, parts) for c in term.children))


def _is_spare(line: Line, uses: int) -> bool:
    return line.kind == "let" and (uses == 0 or (uses == 1 and not line.named and line.value.weight <= INLINE_ONCE))


def _named(lines: list[Line], names: Names) -> list[Line]:
    bodies: dict[Sym, Term] = {}
    done = []
    for line in lines:
        value = substitute(line.value, bodies)
        target = line.target
        if not line.named:
            target = replace(target, name=names.invented(value))
            bodies[line.target] = target
        done.append(replace(line, target=target, value=value))
    return done
