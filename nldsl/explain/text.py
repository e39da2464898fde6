"""Terms as one line of plain text with the usual mathematical signs."""

from __future__ import annotations

from nldsl.explain.printer import CHAIN, POSTFIX, Printer
from nldsl.explain.terms import Call, Num, Number, Sum, Sym, Term

_SUPERSCRIPTS = str.maketrans("0123456789+-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻")
_RELATIONS = {"lt": "<", "le": "≤", "gt": ">", "ge": "≥", "eq": "=", "ne": "≠"}
WIDTH = 100


def format_number(value: Number) -> str:
    """A number as briefly as it can be written without losing what was meant."""
    if isinstance(value, int) and (abs(value) < 1_000_000 or value % 1000):
        return str(value).replace("-", "−")
    short = f"{value:.6g}"
    same = float(short) == value or abs(float(short) - value) < 1e-12 * abs(value)
    mantissa, letter, exponent = (short if same else f"{value:.12g}").partition("e")
    return (mantissa + (f"e{int(exponent)}" if letter else "")).replace("-", "−")


class TextPrinter(Printer):
    """``S ← keep·S − rate·(S k − v) kᵀ``."""

    dot = "·"
    ring = " ⊙ "
    space = " "
    minus = "−"
    transposed = "ᵀ"

    def number(self, value: Number) -> str:
        return format_number(value)

    def symbol(self, sym: Sym) -> str:
        if sym.kind == "anchor":
            return f"{sym.name}@{sym.period}"
        return sym.name + ("⁺" if sym.kind == "after" else "")

    def group(self, text: str) -> str:
        return f"({text})"

    def fraction(self, top: str, bottom: str, tight: int) -> tuple[str, int]:
        return f"{top} / " + (bottom if tight >= POSTFIX else self.group(bottom)), 1

    def raised(self, base: str, exponent: str) -> str:
        if exponent == self.transposed:
            return base + exponent
        if exponent.lstrip("−").isdigit():
            return base + exponent.translate(_SUPERSCRIPTS)
        return f"{base}^" + (exponent if exponent.replace(".", "").isalnum() else self.group(exponent))

    def root(self, text: str) -> str:
        return f"√{text}" if text.isalnum() else f"√({text})"

    def norm(self, text: str) -> str:
        return f"‖{text}‖"

    def call(self, function: str, args: list[str]) -> str:
        return f"{function}({', '.join(args)})"

    def compare(self, relation: str, left: str, right: str) -> str:
        return f"[{left} {_RELATIONS[relation]} {right}]"

    def cases(self, rows: list[tuple[str, str]]) -> str:
        shown = [value + (" otherwise" if c == "otherwise" else f" {c}") for c, value in rows]
        return "{ " + ";  ".join(shown) + " }"

    def condition(self, term: Term) -> str:
        return f"if {self.term(term.args[0])}" if isinstance(term, Call) and term.function == "if" else self.term(term)

    def part(self, of: str, index: str) -> str:
        return f"{of}[{index}]"

    def contraction(self, spec: str, args: list[str]) -> str:
        return f'einsum("{spec}", {", ".join(args)})'

    def lines(self, term: Term, indent: int, width: int = WIDTH) -> list[str]:
        """The text, broken before the signs of its outermost sum where it is too wide."""
        text = self.term(term)
        if len(text) + indent <= width or not isinstance(term, Sum):
            return [text]
        lines = [""]
        for piece in self.summands(term):
            if lines[-1] and len(lines[-1]) + len(piece) + indent > width:
                lines.append(piece.lstrip())
            else:
                lines[-1] += piece
        return lines


def is_plain(term: Term) -> bool:
    """Whether the text of a term needs no parentheses in front of a matrix product."""
    return isinstance(term, Num | Sym) or TextPrinter().show(term)[1] >= CHAIN
