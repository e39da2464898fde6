"""Terms in LaTeX, with the tick as an index: ``S_{t} = \\mathrm{keep}_{t}\\, S_{t-1} + ...``."""

from __future__ import annotations

import re

from nldsl.explain.printer import Printer
from nldsl.explain.terms import Call, Number, Part, Sym, Term
from nldsl.explain.text import format_number

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
)
_RELATIONS = {"lt": "<", "le": r"\le", "gt": ">", "ge": r"\ge", "eq": "=", "ne": r"\ne"}
_OPERATORS = {"sigmoid": r"\sigma", "exp": r"\exp", "log": r"\log", "tanh": r"\tanh", "sin": r"\sin", "cos": r"\cos"}
_ESCAPES = str.maketrans(
    {c: "\\" + c for c in "_#$%&{}"} | {"′": "'", "^": r"\^{}", "~": r"\~{}", "\\": r"\backslash{}"}
)
_SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈₉"
_OVER_CLOCK = {"Σ": r"\textstyle\sum", "max": r"\max"}
_TIMES = {"state": "t-1", "after": "t", "input": "t", "value": "t"}


def escape(text: str) -> str:
    """Text for ``\\mathrm`` and ``\\text``."""
    return text.translate(_ESCAPES)


def name_parts(name: str) -> tuple[str, list[str]]:
    """The letter (or word) of a name and what becomes its index: ``W1`` is W with index 1."""
    primes = len(name) - len(name.rstrip("′"))
    bare = name.rstrip("′")
    head, *rest = [p for p in re.split(r"[._]", bare) if p] or [bare]
    if len(rest) > 1 or (rest and len(head) > 1 and head not in _GREEK and not rest[0].isdigit()):
        head, rest = bare, []
    found = re.fullmatch(r"([A-Za-z]+)(\d+)", head)
    if found:
        head, rest = found[1], [found[2], *rest]
    if head in _GREEK:
        base = "\\" + head
    elif len(head) == 1:
        base = escape(head)
    else:
        base = rf"\mathrm{{{escape(head)}}}"
    return base + "'" * primes, [escape(r) if len(r) == 1 or r.isdigit() else rf"\mathrm{{{escape(r)}}}" for r in rest]


def _is_stream(term: Term) -> bool:
    return isinstance(term, Sym) and term.kind in ("input", "value")


def _grouped(text: str) -> str:
    return rf"\left({text}\right)" if " " in text else text


class LatexPrinter(Printer):
    """One formula. ``anchors``: how many periods the anchors of the equations have; one needs no mention."""

    dot = r"\, "
    ring = r" \odot "
    space = " "
    minus = "-"
    transposed = r"\top"

    def __init__(self, anchors: int = 1) -> None:
        self.anchors = anchors

    def number(self, value: Number) -> str:
        text = format_number(value).replace("−", "-")
        mantissa, _, exponent = text.partition("e")
        if not exponent:
            return text
        factor = rf"10^{{{int(exponent)}}}"
        return factor if mantissa == "1" else rf"{mantissa} \cdot {factor}"

    def compound(self, term: Term) -> str:
        """Past values and places of a window are indices: ``x_{t-2}``, ``k_{i}``."""
        if isinstance(term, Call) and term.function == "prev" and _is_stream(term.args[0]):
            return self.indexed(term.args[0], f"t-{(*term.options, '1')[0]}")
        if isinstance(term, Part) and not term.by and term.index[:1] == "i" and _is_stream(term.of):
            return self.indexed(term.of, term.index)
        return super().compound(term)

    def indexed(self, term: Term, time: str) -> str:
        """A stream at another tick."""
        assert isinstance(term, Sym)
        base, index = name_parts(term.name)
        return f"{base}_{{{','.join([*index, time])}}}"

    def symbol(self, sym: Sym) -> str:
        if sym.kind == "word":
            if sym.name == "…":
                return r"\cdots"
            return sym.name if len(sym.name) == 1 else rf"\text{{{escape(sym.name)}}}"
        head, bracket, argument = sym.name.partition("(")
        if bracket:
            names = [name_parts(a.strip()) for a in argument.rstrip(")").split(",")]
            given = ", ".join(f"{base}_{{{','.join([*index, 't'])}}}" for base, index in names)
            return rf"\mathrm{{{escape(head)}}}({given})"
        base, index = name_parts(sym.name)
        if sym.kind == "anchor":
            index.append(r"\xi" if self.anchors <= 1 else rf"\xi({sym.period})")
        elif sym.kind in _TIMES:
            index.append(_TIMES[sym.kind])
        return base + (f"_{{{','.join(index)}}}" if index else "")

    def group(self, text: str) -> str:
        return rf"\left({text}\right)"

    def fraction(self, top: str, bottom: str, tight: int) -> tuple[str, int]:
        return rf"\frac{{{top}}}{{{bottom}}}", 2

    def raised(self, base: str, exponent: str) -> str:
        return f"{base}^{{{exponent}}}"

    def root(self, text: str) -> str:
        return rf"\sqrt{{{text}}}"

    def norm(self, text: str) -> str:
        return rf"\lVert {text} \rVert"

    def call(self, function: str, args: list[str]) -> str:
        if function == "inner":
            return rf"\langle {args[0]}, {args[1]} \rangle"
        bare = function.rstrip("′″")
        primes = sum(2 if c == "″" else 1 for c in function[len(bare) :])
        if bare.startswith("Σ_"):
            return rf"\textstyle\sum_{{{escape(bare[2:])}}} {_grouped(args[0])}"
        if not bare:
            return self.group(", ".join(args))
        if bare[-1:] in _SUBSCRIPTS:
            head = bare.rstrip(_SUBSCRIPTS)
            period = "".join(str(_SUBSCRIPTS.index(c)) for c in bare[len(head) :])
            return rf"{_OVER_CLOCK[head]}_{{{period}}} {_grouped(args[0])}"
        name = _OPERATORS.get(bare, rf"\operatorname{{{escape(bare)}}}")
        return rf"{name}{chr(39) * primes}\!\left({', '.join(args)}\right)"

    def compare(self, relation: str, left: str, right: str) -> str:
        return rf"\left[{left} {_RELATIONS[relation]} {right}\right]"

    def cases(self, rows: list[tuple[str, str]]) -> str:
        body = r" \\ ".join(f"{value} & {condition}" for condition, value in rows)
        return rf"\begin{{cases}} {body} \end{{cases}}"

    def condition(self, term: Term) -> str:
        if isinstance(term, Call) and term.function == "if":
            return rf"\text{{if }} {self.term(term.args[0])}"
        return self.term(term)

    def part(self, of: str, index: str) -> str:
        return f"{of}[{index}]"

    def contraction(self, spec: str, args: list[str]) -> str:
        inputs, _, output = spec.partition("->")
        summed = "".join(sorted(set(inputs) - set(output) - {","}))
        factors = r"\, ".join(f"{a}[{','.join(x)}]" if x else a for x, a in zip(inputs.split(","), args, strict=True))
        total = rf"\textstyle\sum_{{{summed}}} {factors}" if summed else factors
        return rf"\left({total}\right)_{{{output}}}" if output else rf"\left({total}\right)"
