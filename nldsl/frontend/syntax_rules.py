"""Rules for common mistakes of syntax: each looks at a place and says what is wrong there, or nothing.

A rule's docstring begins with the mistake it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

from ..diagnostics import Diagnostic
from ..diagnostics.suggest import suggest
from .place import Place
from .syntax_habits import HABITS
from .tables import END

__all__ = ["RULES"]

Rule = Callable[[Place], Diagnostic | None]

# `evry` is meant to be `every`, but `n` is not meant to be `in`.
_LIKENESS = 0.74

_COMPARISONS = frozenset("LESS LE GREATER GE EQ NE".split())
_INFIX = _COMPARISONS | frozenset("OR AND PLUS STAR SLASH FLOORDIV PERCENT AT_SIGN CARET STARSTAR".split())
_MEMBERS = frozenset(
    "STATE SHARED PARAM INPUT LEVEL MINIMIZE RETURN REPEAT ITERATE FOR EVERY EXPECT IF OPTIMIZER".split()
)
_INSIDE = {
    "STATE": "a memory, block or model",
    "SHARED": "a memory, block or model",
    "PARAM": "a memory, block or model",
    "OPTIMIZER": "a memory",
    "INPUT": "a model",
    "LEVEL": "a model",
    "MINIMIZE": "a model",
    "EXPECT": "an example",
}


def missing_operand(p: Place) -> Diagnostic | None:
    """`x =` and then a new statement, or the end."""
    if not p.operand_missing or p.is_first or p.before.type in ("LPAR", "LSQB", "_LGROUP"):
        return None
    last = p.before.text
    keyword = p.token.text in p.tables.keywords
    if p.ends or (p.is_on_new_line and keyword and p.token.type not in p.expected):
        return Diagnostic(
            "NL0101",
            f"an expression is missing after `{last}`",
            p.source.span(p.before.end, p.before.end),
            notes=(f"a line that ends with `{last}` goes on in the next one",) if not p.ends else (),
        )
    return None


def continued(p: Place) -> Diagnostic | None:
    """`x =` and then `y = 3` in the next line, which is read as `x = y = 3`."""
    if p.token.type not in ("EQUAL", "ASSIGN") or p.before.type != "NAME":
        return None
    earlier = p.look(-2)
    between = p.source.text[earlier.end : p.before.start]
    if "\n" in between and earlier.text and p.look(-2).type not in ("_SEP", "LBRACE", "RBRACE"):
        return Diagnostic(
            "NL0101",
            f"an expression is missing after `{earlier.text}`",
            p.source.span(earlier.end, earlier.end),
            notes=(f"a line that ends with `{earlier.text}` goes on in the next one",),
        )
    return None


def keyword_as_name(p: Place) -> Diagnostic | None:
    """`param level: [d]`, `step(input: [d])`."""
    word = p.token.text
    if word not in p.tables.keywords or "NAME" not in p.expected or p.is_first:
        return None
    first_parameter = p.before.type == "LPAR" and p.look(1).type == "COLON"  # the parser took the method for a call
    if not first_parameter and not p.fits_as("NAME"):
        return None
    return Diagnostic(
        "NL0110",
        f"`{word}` is a keyword and cannot be a name",
        p.span,
        hints=(f"write for example `{word}_`",),
    )


def keyword_bound(p: Place) -> Diagnostic | None:
    """`level = 3`."""
    following = p.look(1) if p.is_first else p.token
    if (
        (p.is_first or p.is_second)
        and p.head.text in p.tables.keywords
        and following.type in ("EQUAL", "ASSIGN", "DOT")
    ):
        return Diagnostic(
            "NL0110",
            f"`{p.head.text}` is a keyword and cannot be a name",
            p.span_from(p.head, p.head),
            hints=(f"write for example `{p.head.text}_`",),
        )
    return None


def misspelt_keyword(p: Place) -> Diagnostic | None:
    """`stat S: [d] = 0`, `import "m" az m`."""
    fits = {text: kind for text, kind in p.tables.keywords.items() if kind in p.expected}
    if p.token.type == "NAME" and not p.is_first and not p.operand_missing:
        close = _close(p.token.text, fits)
        if close:
            return _misspelt(p, p.token.text, close[0], here=True)
    if p.before.type == "NAME" and p.token.type in ("NAME", "NUMBER", "STRING", "LBRACE", "COLON", "LSQB", "IF"):
        begins = p.is_second
        known = [text for text, kind in p.tables.keywords.items() if not begins or _begins(p, kind)]
        close = _close(p.before.text, known)
        if close and (begins or p.token.type in ("NAME", "NUMBER", "STRING")):
            return _misspelt(p, p.before.text, close[0], here=False)
    return None


_TOP_WORDS = frozenset("IMPORT FROM FN OBJECTIVE RETENTION MEMORY BLOCK MODEL EXAMPLE".split())


def _begins(p: Place, kind: str) -> bool:
    """Whether a statement (or at the top level a declaration) may begin with a token."""
    if p.failure.blocks == 0:
        return kind in _TOP_WORDS
    return kind in _MEMBERS or kind in ("MEMORY", "OPTIMIZER")


def _close(word: str, known: Iterable[str]) -> list[str]:
    """The keyword that a word is most like, if it is much like it."""
    return [found for found in suggest(word, known, count=1) if SequenceMatcher(None, word, found).ratio() > _LIKENESS]


def _misspelt(p: Place, word: str, meant: str, *, here: bool) -> Diagnostic:
    token = p.token if here else p.before
    return Diagnostic(
        "NL0118", f"`{word}` is not a keyword", p.span_from(token, token), hints=(f"did you mean `{meant}`?",)
    )


def target(p: Place) -> Diagnostic | None:
    """`S[0] <- e`, `f(x) = e` where no name is bound."""
    if p.token.type not in ("EQUAL", "ASSIGN") or not p.operand_ended or "_SEP" not in p.expected:
        return None
    first = p.tokens[p.failure.statement]
    if first.type in ("NAME", "OWNER", "_LTARGET", "LPAR", "NUMBER", "LSQB") and not _assigned(p):
        return Diagnostic(
            "NL0119",
            "this cannot be assigned to",
            p.span_from(first, p.before),
            notes=(f"left of `{p.token.text}` stands a name, a state of an instance (`m.S`) or a group of names",),
            hints=("compute the new value of the whole state",) if p.before.type == "RSQB" else (),
        )
    return None


def _assigned(p: Place) -> bool:
    inside = p.tokens[p.failure.statement : p.failure.at]
    return any(token.type in ("EQUAL", "ASSIGN", "COLON") for token in inside)


def wrong_equals(p: Place) -> Diagnostic | None:
    """`if x = 3 {`, `x = y = 3`, `state S: [d] <- 0`, `level L: every 4 token`."""
    kind = p.token.type
    if kind == "ASSIGN" and "EQUAL" in p.expected:
        return Diagnostic(
            "NL0114",
            "`<-` changes a state where the program runs; here `=` is meant",
            p.span,
            hints=("write `=`",),
        )
    if kind == "EQ" and "EQUAL" in p.expected and not p.operand_ended:
        return Diagnostic("NL0114", "`==` compares; here `=` is meant", p.span, hints=("write `=`",))
    if kind == "EQUAL" and "EQ" in p.expected:
        notes = ()
        if p.head.type in ("IF", "EXPECT") or "LBRACE" in p.expected or "THEN" in p.expected:
            return Diagnostic("NL0114", "`=` gives a name to a value; to compare write `==`", p.span, notes=notes)
        if "COMMA" in p.expected:
            return Diagnostic("NL0114", "left of `=` in a call stands the name of a parameter", p.span)
        return Diagnostic(
            "NL0114",
            "a second `=` in one statement",
            p.span,
            notes=("a statement binds one name; to compare write `==`",),
        )
    if kind == "ASSIGN" and p.operand_ended:
        return Diagnostic(
            "NL0114",
            "`<-` assigns a state and stands only once in a statement",
            p.span,
            hints=("for `less than minus` put a space between: `< -`",),
        )
    return None


def chained(p: Place) -> Diagnostic | None:
    """`a < b < c`."""
    if p.token.type in _COMPARISONS and p.operand_ended:
        return Diagnostic(
            "NL0117",
            "comparisons cannot be chained",
            p.span,
            hints=("write `a < b and b < c`, or put parentheses around one comparison",),
        )
    return None


def needs_parentheses(p: Place) -> Diagnostic | None:
    """`a + if c then x else y`, `a == not b`."""
    if p.token.type in ("IF", "NOT") and p.operand_missing and not p.is_first:
        return Diagnostic(
            "NL0101",
            f"`{p.token.text}` after `{p.before.text}` needs parentheses",
            p.span,
            hints=(f"write `{p.before.text} ({p.token.text} ...)`",),
        )
    return None


def comma(p: Place) -> Diagnostic | None:
    """`a, b = f(x)`, `return a, b`, `(a, b)`, `x[0, 1]`."""
    if p.token.type != "COMMA" or "COMMA" in p.expected:
        return None
    if "RSQB" in p.expected and ("COLON" in p.expected or p.before.type == "COLON"):
        hint = "`x'[i]` is a column of a matrix" if p.before.type == "COLON" else "write `x[i][j]` for two indices"
        return Diagnostic("NL0101", "an index is one expression", p.span, hints=(hint,))
    if p.operand_ended or p.before.type == "NAME":
        return Diagnostic(
            "NL0101",
            "values stand together in braces",
            p.span,
            label="found `,`",
            hints=("write a group: `{a, b}`",),
        )
    return None


def anchor_with_clock(p: Place) -> Diagnostic | None:
    """`e at start of 16 token`."""
    if p.token.text not in ("token", "tokens", "tick", "ticks") or p.look(-3).type != "START":
        return None
    return Diagnostic(
        "NL0123",
        "an anchor is a number of ticks, or a level, without a clock",
        p.span,
        hints=(f"write `at start of {p.before.text}`",),
    )


def juxtaposed(p: Place) -> Diagnostic | None:
    """`x = 1 y = 2`, `f(a b)`, `x = 2 y`."""
    begins = p.token.type in ("NAME", "NUMBER", "STRING", "TRUE", "FALSE", "METHOD", "OWNER", "LPAR")
    if not begins or not p.operand_ended or p.before.type in ("OWNER", "METHOD"):
        return None
    hints = []
    if p.before.type == "NUMBER" and p.token.type == "NAME" and "COMMA" not in p.expected:
        hints.append(f"for the product write `{p.before.text} * {p.token.text}`")
    if "COMMA" in p.expected:
        return Diagnostic("NL0101", f"expected `,` or an operator before {p.found}", p.span, hints=tuple(hints))
    if "_SEP" in p.expected:
        if p.head.type in ("MEMORY", "OPTIMIZER") and p.token.type == "NAME":
            hints = [f"for copies write `{p.before.text} of {p.token.text}(...)`"]
        else:
            hints.append("put statements on lines of their own, or `;` between them")
        return Diagnostic(
            "NL0123", f"expected an operator or the end of the line before {p.found}", p.span, hints=tuple(hints)
        )
    return None


def second_statement(p: Place) -> Diagnostic | None:
    """`S <- 1 return S`, `} x = 1`."""
    if "_SEP" in p.expected and not p.is_first and (p.token.text in p.tables.keywords or p.before.type == "RBRACE"):
        if (
            p.token.type in ("AT", "WITH", "RESET", "EVERY", "OF", "IN", "THEN", "ELSE", "FOR")
            and p.before.type != "RBRACE"
        ):
            return None
        return Diagnostic(
            "NL0123",
            f"expected the end of the line before {p.found}",
            p.span,
            hints=("put statements on lines of their own, or `;` between them",),
        )
    return None


def not_at_top(p: Place) -> Diagnostic | None:
    """`state S: [d]`, `x <- 1` or `f(x)` outside of every block."""
    if p.top_level and p.token.type in _MEMBERS:
        where = _INSIDE.get(p.token.type, "the body of a function, memory, block or model")
        return Diagnostic(
            "NL0120",
            f"`{p.token.text}` belongs inside {where}",
            p.span,
            notes=("the top level of a file holds imports, constants and declarations",),
        )
    if p.is_second and p.head.type == "NAME" and p.expected == {"EQUAL"} and p.token.type != "NAME":
        if p.token.type == "EQ" or p.token.text in (":", "+", "-", "*", "/"):
            return None
        return Diagnostic(
            "NL0120",
            "a statement outside of every block",
            p.span_from(p.head),
            notes=("the top level of a file holds imports, constants (`name = value`) and declarations",),
        )
    return None


def not_inside(p: Place) -> Diagnostic | None:
    """`fn f(x) = x` inside a memory."""
    if not p.is_first or p.failure.blocks == 0 or p.token.type not in _TOP_WORDS - {"MEMORY"}:
        return None
    hint = "declare it outside of the block"
    if p.token.type == "FN":
        hint = "a method is written without `fn`: `name(x: [d]) -> [d] = ...`"
    elif p.token.type in ("IMPORT", "FROM"):
        hint = "put it at the top of the file"
    return Diagnostic(
        "NL0120", f"`{p.token.text}` belongs at the top level of a file, outside of all blocks", p.span, hints=(hint,)
    )


def leading_operator(p: Place) -> Diagnostic | None:
    """`+ b` in a line of its own."""
    if not p.is_first or p.token.type not in _INFIX:
        return None
    sign = p.token.text
    return Diagnostic(
        "NL0101",
        f"a statement cannot begin with `{sign}`",
        p.span,
        hints=("a comment begins with `#`",) if sign == "//" else (f"to go on with a line, end it with `{sign}`",),
    )


def else_alone(p: Place) -> Diagnostic | None:
    """`else` where no `if` ended just before."""
    if p.token.type == "ELSE" and (p.is_first or "_SEP" in p.expected):
        return Diagnostic("NL0101", "an `else` without its `if`", p.span)
    return None


def reduction(p: Place) -> Diagnostic | None:
    """`m.sum of g`."""
    if p.token.type == "OF" and p.operand_ended:
        return Diagnostic(
            "NL0101",
            "before `of` stands one name",
            p.span,
            hints=("write `sum of x`, `mean of x`, `last of x` or `max of x`",),
        )
    return None


def clause_order(p: Place) -> Diagnostic | None:
    """`minimize loss with SGD() at step`."""
    if p.token.type == "_CLAUSE_AT" and p.head.type == "MINIMIZE":
        return Diagnostic("NL0101", "`at` goes before `with`", p.span, hints=("write `minimize e at step with ...`",))
    return None


def learned_elsewhere(p: Place) -> Diagnostic | None:
    """`param w: [d] = learned normal(1)`."""
    if p.token.type == "LEARNED":
        what = "a `param` is always learned" if p.head.type == "PARAM" else "it marks the first value of a `state`"
        return Diagnostic("NL0101", "`learned` does not fit here", p.span, notes=(what,))
    return None


def ended(p: Place) -> Diagnostic | None:
    """A head without its body."""
    if p.ends and "LBRACE" in p.expected and p.token.type != END and p.operand_ended:
        return Diagnostic("NL0101", "a `{` is missing: the statement needs a body", p.span)
    return None


RULES: tuple[Rule, ...] = (
    *HABITS,
    missing_operand,
    continued,
    not_at_top,
    not_inside,
    keyword_bound,
    clause_order,
    learned_elsewhere,
    needs_parentheses,
    keyword_as_name,
    else_alone,
    leading_operator,
    misspelt_keyword,
    target,
    wrong_equals,
    chained,
    comma,
    reduction,
    anchor_with_clock,
    juxtaposed,
    second_statement,
    ended,
)
