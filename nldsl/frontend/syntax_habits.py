"""Rules for what people write out of habit with other languages."""

from __future__ import annotations

from ..diagnostics import Diagnostic
from .lexer import Token
from .place import Place

__all__ = ["HABITS"]

_STARTS = {
    "def": "a function is `fn name(x: [d]) -> [] = ...`, a method `name(x: [d]) -> [] = ...`",
    "func": "a function is `fn name(x: [d]) -> [] = ...`",
    "function": "a function is `fn name(x: [d]) -> [] = ...`",
    "class": "a memory is `memory Name(d: dim) { ... }`, a layer without memory is a `block`",
    "struct": "a memory is `memory Name(d: dim) { ... }`",
    "module": "a layer is `block Name(...) { ... }`, the whole a `model`",
    "layer": "a layer is `block Name(...) { ... }`",
    "while": "the number of rounds is known when the program is compiled: `iterate 5 { ... }`",
    "loop": "the number of rounds is known when the program is compiled: `repeat 5 { ... }`",
    "elif": "write `else if`",
    "let": "write `x = e`",
    "var": "write `x = e`; what changes from tick to tick is a `state`",
    "const": "write `x = e`",
    "global": "what changes from tick to tick is a `state`",
    "assert": "in an example write `expect e`",
    "print": "a program has no output besides its results",
    "parameter": "write `param w: [d] = ...`",
    "use": 'write `from "module" import Name`',
    "include": 'write `from "module" import Name`',
    "async": "a program describes one token; there is nothing to wait for",
    "yield": "write `return e`",
    "output": "the results are what is returned: `return y`, or several, `return {y, z}`",
    "outputs": "the results are what is returned: `return y`, or several, `return {y, z}`",
    "loss": "a model is trained on `minimize e`; inside a memory name the value: `loss = e`",
    "pass": "an empty block is `{}`",
}

_AFTER_A_START = frozenset("NAME LPAR NUMBER COLON METHOD STRING LBRACE TRUE FALSE NOT".split())


def _habit(p: Place, first: Token, last: Token, message: str, *hints: str) -> Diagnostic:
    return Diagnostic("NL0115", message, p.span_from(first, last), hints=hints)


def other_words(p: Place) -> Diagnostic | None:
    """`def f(x):`, `class M:`, `let x = 1`, `elif c {`."""
    head = p.head
    if head.type not in ("NAME", "METHOD") or head.text not in _STARTS:
        return None
    if p.is_second and p.token.type in _AFTER_A_START:
        return _habit(p, head, head, f"`{head.text}` is not a word of the language", _STARTS[head.text])
    return None


def elif_word(p: Place) -> Diagnostic | None:
    """`} elif c {`."""
    if p.token.text in ("elif", "elseif", "elsif") and p.before.type == "RBRACE":
        return _habit(p, p.token, p.token, f"`{p.token.text}` is not a word of the language", "write `else if`")
    return None


def colon_block(p: Place) -> Diagnostic | None:
    """`if c:`, `for i in range(3):`, `memory M:`, `else:`."""
    if p.token.type != "COLON":
        return None
    opens = "LBRACE" in p.expected
    after_else = p.before.type == "ELSE"
    if not opens and not after_else:
        return None
    return _habit(
        p,
        p.token,
        p.token,
        "a block stands in braces, not after `:`",
        f"write `{_line_head(p)} {{`, and `}}` at its end",
    )


def _line_head(p: Place) -> str:
    start = max(p.source.text.rfind("\n", 0, p.token.start) + 1, p.token.start - 60)
    return p.source.text[start : p.token.start].strip()


def augmented(p: Place) -> Diagnostic | None:
    """`x += 1`, `x++`."""
    sign, name = p.before, p.look(-2)
    if sign.type in ("PLUS", "MINUS", "STAR", "SLASH", "CARET", "STARSTAR", "FLOORDIV", "PERCENT", "AT_SIGN"):
        if p.token.type == "EQUAL" and p.touches(sign, p.token):
            text = f"{sign.text}="
            return Diagnostic(
                "NL0116",
                f"there is no `{text}`",
                p.span_from(sign),
                hints=(f"write `{name.text} <- {name.text} {sign.text} ...` for a state, with `=` for a name",),
            )
        if sign.type == "PLUS" and p.token.type == "PLUS":
            return Diagnostic(
                "NL0116",
                "there is no `++`" if p.touches(sign, p.token) else "there is no `+` in front of a value",
                p.span_from(sign),
                hints=(f"write `{name.text} + 1`",) if p.touches(sign, p.token) else ("leave it out",),
            )
    if p.token.type == "PLUS" and p.operand_missing and not p.is_first:
        return Diagnostic("NL0116", "there is no `+` in front of a value", p.span, hints=("leave it out",))
    if p.is_second and p.token.type in ("PLUS", "MINUS", "STAR", "SLASH") and p.look(1).type == "EQUAL":
        text = f"{p.token.text}="
        return Diagnostic(
            "NL0116", f"there is no `{text}`", p.span_from(p.token, p.look(1)), hints=("write `x = ...`",)
        )
    return None


def walrus(p: Place) -> Diagnostic | None:
    """`x := e`."""
    colon, equals = (p.before, p.token) if p.token.type == "EQUAL" else (p.token, p.look(1))
    if colon.type == "COLON" and equals.type == "EQUAL" and p.touches(colon, equals):
        return Diagnostic(
            "NL0114",
            "there is no `:=`",
            p.span_from(colon, equals),
            hints=("write `x = e` to name a value, `S <- e` to change the state `S`",),
        )
    return None


def fat_arrow(p: Place) -> Diagnostic | None:
    """`fn f(x) => e`."""
    if p.before.type == "EQUAL" and p.token.type == "GREATER" and p.touches(p.before, p.token):
        return _habit(p, p.before, p.token, "there is no `=>`", "write `-> type` for the result, `= e` for its value")
    return None


def conditional(p: Place) -> Diagnostic | None:
    """`a if c else b`."""
    if p.token.type == "IF" and p.operand_ended:
        return _habit(p, p.token, p.token, "the condition comes first", "write `if c then a else b`")
    return None


def lambda_word(p: Place) -> Diagnostic | None:
    """`lambda x: x + 1`."""
    for word in (p.before, p.look(-2)):
        if word.text == "lambda" and word.type == "NAME" and p.token.type in ("NAME", "COLON", "COMMA"):
            return _habit(p, word, word, "functions have names", "declare it: `fn f(x: []) -> [] = ...`")
    return None


def single_quotes(p: Place) -> Diagnostic | None:
    """`import 'm' as m`."""
    if p.token.type != "PRIME" or p.operand_ended:
        return None
    line_end = p.source.text.find("\n", p.token.start)
    end = p.source.text.find("'", p.token.end, line_end if line_end >= 0 else None)
    if end < 0:
        return None
    text = p.source.text[p.token.end : end]
    return Diagnostic(
        "NL0115",
        "a text stands in double quotes",
        p.source.span(p.token.start, end + 1),
        hints=(f'write `"{text}"`',) if '"' not in text and "\\" not in text else (),
    )


def import_name(p: Place) -> Diagnostic | None:
    """`import memories`, `from objectives import l2`."""
    if p.before.type in ("IMPORT", "FROM") and p.token.type == "NAME" and "STRING" in p.expected:
        return _habit(
            p,
            p.token,
            p.token,
            "an import names its module by a text",
            f'write `{p.before.text} "{p.token.text}" {"as name" if p.before.type == "IMPORT" else "import Name"}`',
        )
    return None


def star_import(p: Place) -> Diagnostic | None:
    """`from "objectives" import *`."""
    if p.head.type == "FROM" and p.before.type == "IMPORT" and p.token.type == "STAR":
        return _habit(p, p.token, p.token, "names are imported one by one", "write them with `,` between")
    return None


def dictionary(p: Place) -> Diagnostic | None:
    """`{a: 1, b: 2}`."""
    if p.token.type == "COLON" and "_RGROUP" in p.expected:
        return _habit(p, p.token, p.token, "the fields of a group have no names", "write `{a, b}`")
    return None


def shape_in_brackets(p: Place) -> Diagnostic | None:
    """`state S[dv, dk] = 0`."""
    if p.token.type == "LSQB" and "COLON" in p.expected and p.before.type == "NAME" and not p.operand_ended:
        return _habit(p, p.token, p.token, "the type comes after a `:`", f"write `{p.before.text}: [...]`")
    return None


def nested_unit(p: Place) -> Diagnostic | None:
    """`memory M(d: dim) { ... }` inside a block."""
    if p.head.type == "MEMORY" and p.token.type in ("LPAR", "LBRACE") and "COLON" in p.expected:
        return Diagnostic(
            "NL0120",
            "a memory is declared at the top level of a file",
            p.span_from(p.head, p.before),
            hints=(f"declare it outside, and write here `memory m: {p.before.text}(...)`",),
        )
    return None


def instance_equals(p: Place) -> Diagnostic | None:
    """`memory m = Delta(8, 8)`."""
    if p.head.type in ("MEMORY", "OPTIMIZER") and p.token.type == "EQUAL" and "COLON" in p.expected:
        return Diagnostic(
            "NL0114",
            "what an instance is made of comes after a `:`",
            p.span,
            hints=(f"write `{p.head.text} {p.before.text}: ...`",),
        )
    return None


def clock_first(p: Place) -> Diagnostic | None:
    """`every token 16 { ... }`."""
    clock = p.before.text
    if (
        p.token.type != "NUMBER"
        or p.look(-2).type != "EVERY"
        or clock not in ("token", "tokens", "step", "steps", "tick")
    ):
        return None
    return _habit(p, p.token, p.token, "the number of a clock comes first", f"write `every {p.token.text} {clock}`")


def comment(p: Place) -> Diagnostic | None:
    """`x = 1 /* note */`."""
    if p.before.type != "SLASH" or p.token.type not in ("STAR", "STARSTAR") or p.before.end != p.token.start:
        return None
    return _habit(p, p.before, p.token, "`/*` begins no comment", "a comment begins with `#` and ends with its line")


HABITS = (
    clock_first,
    comment,
    other_words,
    elif_word,
    lambda_word,
    walrus,
    colon_block,
    augmented,
    fat_arrow,
    conditional,
    single_quotes,
    import_name,
    star_import,
    dictionary,
    shape_in_brackets,
    nested_unit,
    instance_equals,
)
