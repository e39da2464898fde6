"""Syntax tree to text, in any layout: the other direction of the parser, written apart from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import singledispatch

from nldsl.frontend import ast

__all__ = ["BREAK", "OPTIONAL", "tokens", "unparse"]

# Marks among the tokens: a statement ends here; a line may end here.
BREAK = "\n"
OPTIONAL = "\r"

# After these a line may end, whatever is around.
_CONTINUES = frozenset("or and not < <= > >= == != + - * / // % @ ^ , = <- -> then else in with of . ( [".split())


def unparse(tree: ast.File) -> str:
    """Return a text that parses to the tree, laid out as plainly as can be."""
    return layout(tokens(tree), lambda count: 0)


def layout(pieces: list[str], pick: Callable[[int], int]) -> str:
    """Join tokens; `pick(n)` chooses among n ways to put them apart, 0 being the plain one."""
    out: list[str] = []
    depth = 0  # of brackets, in which a line may end anywhere
    for at, piece in enumerate(pieces):
        if piece == BREAK:
            out.append((["\n"] * 5 + ["\n\n", "  # a comment\n", "\n# a comment\n\n", " ;\n", "\n\n\n"])[pick(10)])
            continue
        if piece.startswith("##"):
            out.append(piece + "\n")
            continue
        out.append(piece)
        following = pieces[at + 1] if at + 1 < len(pieces) else BREAK
        if piece in ("(", "[", "{g"):
            depth += 1
        elif piece in (")", "]", "}g"):
            depth -= 1
        if following == BREAK:
            continue
        loose = depth > 0 or piece in _CONTINUES or piece == "{g"
        choice = pick(12)
        if choice > 9 and loose:
            out.append(["\n", "  # inside\n  "][choice - 10])
        elif choice > 7 and not _sticks(piece, following):
            out.append("")
        else:
            out.append("   " if choice == 7 else " ")
    return "".join(out).replace("{g", "{").replace("}g", "}")


def _sticks(left: str, right: str) -> bool:
    """Whether two tokens would be read otherwise without a space between them."""
    a, b = left[-1], right[0]
    if (a.isalnum() or a in '_."') and (b.isalnum() or b in '_."'):
        return True
    return not (a.isalnum() or a in '_")]}' or b.isalnum() or b in '_"([{')


def tokens(node: ast.Node) -> list[str]:
    """Return the tokens of a node; `{g` and `}g` are the braces of groups."""
    return _tokens(node)


@singledispatch
def _tokens(node: ast.Node) -> list[str]:
    raise TypeError(f"no text for {type(node).__name__}")


def _rule(kind: type) -> Callable[[Callable[..., list[str]]], Callable[..., list[str]]]:
    def register(function: Callable[..., list[str]]) -> Callable[..., list[str]]:
        _tokens.register(kind)(function)
        return function

    return register


def _commas(items: Iterable[list[str]]) -> list[str]:
    out: list[str] = []
    for item in items:
        out += [",", *item] if out else item
    return out


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _block(statements: Iterable[ast.Statement]) -> list[str]:
    out = ["{", BREAK]
    for statement in statements:
        out += [*_tokens(statement), BREAK]
    return [*out, "}"]


def _doc(text: str) -> list[str]:
    return [f"## {line}".rstrip() for line in text.split("\n")] if text else []


def _typed(type_: ast.TypeExpr | None) -> list[str]:
    return [":", *_tokens(type_)] if type_ is not None else []


def _valued(value: ast.Expr | None) -> list[str]:
    return ["=", *_tokens(value)] if value is not None else []


# ---------------------------------------------------------------- expressions


@_rule(ast.Number)
def _number(n: ast.Number) -> list[str]:
    return [n.text]


@_rule(ast.Text)
def _text(n: ast.Text) -> list[str]:
    return [_string(n.value)]


@_rule(ast.Bool)
def _bool(n: ast.Bool) -> list[str]:
    return ["true" if n.value else "false"]


@_rule(ast.Name)
def _name(n: ast.Name) -> list[str]:
    return [n.id]


@_rule(ast.Paren)
def _paren(n: ast.Paren) -> list[str]:
    return ["(", *_tokens(n.value), ")"]


@_rule(ast.ListExpr)
def _list(n: ast.ListExpr) -> list[str]:
    return ["[", *_commas(map(_tokens, n.items)), "]"]


@_rule(ast.GroupExpr)
def _group(n: ast.GroupExpr) -> list[str]:
    return ["{g", *_commas(map(_tokens, n.items)), "}g"]


@_rule(ast.Unary)
def _unary(n: ast.Unary) -> list[str]:
    return [n.op, *_tokens(n.value)]


@_rule(ast.Binary)
def _binary(n: ast.Binary) -> list[str]:
    return [*_tokens(n.left), n.op, *_tokens(n.right)]


@_rule(ast.Transpose)
def _transpose(n: ast.Transpose) -> list[str]:
    return [*_tokens(n.value), "'"]


@_rule(ast.Member)
def _member(n: ast.Member) -> list[str]:
    return [*_tokens(n.value), ".", n.name]


@_rule(ast.Index)
def _index(n: ast.Index) -> list[str]:
    return [*_tokens(n.value), "[", *_tokens(n.index), "]"]


@_rule(ast.Slice)
def _slice(n: ast.Slice) -> list[str]:
    start = _tokens(n.start) if n.start is not None else []
    stop = _tokens(n.stop) if n.stop is not None else []
    return [*_tokens(n.value), "[", *start, ":", *stop, "]"]


@_rule(ast.Argument)
def _argument(n: ast.Argument) -> list[str]:
    return [n.name, "=", *_tokens(n.value)] if n.name is not None else _tokens(n.value)


@_rule(ast.Call)
def _call(n: ast.Call) -> list[str]:
    arguments = n.arguments
    if len(arguments) == 1 and isinstance(arguments[0].value, ast.Comprehension) and not arguments[0].value.stack:
        return [*_tokens(n.function), *_tokens(arguments[0].value)]
    return [*_tokens(n.function), "(", *_commas(map(_tokens, arguments)), ")"]


@_rule(ast.Comprehension)
def _comprehension(n: ast.Comprehension) -> list[str]:
    opening, closing = ("[", "]") if n.stack else ("(", ")")
    return [opening, *_tokens(n.value), "for", n.variable, "in", *_tokens(n.over), closing]


@_rule(ast.IfExpr)
def _if_expr(n: ast.IfExpr) -> list[str]:
    return ["if", *_tokens(n.condition), "then", *_tokens(n.then), "else", *_tokens(n.otherwise)]


@_rule(ast.Anchor)
def _anchor(n: ast.Anchor) -> list[str]:
    return [*_tokens(n.value), "at", "start", "of", *_tokens(n.period)]


@_rule(ast.Reduce)
def _reduce(n: ast.Reduce) -> list[str]:
    return [n.kind, "of", *_tokens(n.value)]


@_rule(ast.AtLevel)
def _at_level(n: ast.AtLevel) -> list[str]:
    return [*_tokens(n.value), "at", n.level]


# ---------------------------------------------------------------- types


@_rule(ast.TensorType)
def _tensor_type(n: ast.TensorType) -> list[str]:
    dims = ["..."] if n.any_shape else _commas(map(_tokens, n.dims))
    return [*(["int"] if n.integer else []), "[", *dims, "]"]


@_rule(ast.LikeType)
def _like_type(n: ast.LikeType) -> list[str]:
    return ["like", n.name]


@_rule(ast.NamedType)
def _named_type(n: ast.NamedType) -> list[str]:
    return [n.name]


@_rule(ast.ListType)
def _list_type(n: ast.ListType) -> list[str]:
    return ["list", "[", n.item, "]"]


# ---------------------------------------------------------------- statements


@_rule(ast.Target)
def _target(n: ast.Target) -> list[str]:
    if n.group:
        return ["{g", *_commas([name] for name in n.names), "}g"]
    return [n.names[0], ".", n.names[1]] if len(n.names) == 2 else [n.names[0]]


@_rule(ast.Bind)
def _bind(n: ast.Bind) -> list[str]:
    return [*_tokens(n.target), *_typed(n.type), "=", *_tokens(n.value)]


@_rule(ast.Assign)
def _assign(n: ast.Assign) -> list[str]:
    return [*_tokens(n.target), "<-", *_tokens(n.value)]


@_rule(ast.Return)
def _return(n: ast.Return) -> list[str]:
    return ["return", *_tokens(n.value)]


@_rule(ast.ExprStatement)
def _expression(n: ast.ExprStatement) -> list[str]:
    return _tokens(n.value)


@_rule(ast.Repeat)
def _repeat(n: ast.Repeat) -> list[str]:
    return ["repeat", *_tokens(n.count), *_block(n.body)]


@_rule(ast.Iterate)
def _iterate(n: ast.Iterate) -> list[str]:
    return ["iterate", *_tokens(n.count), *_block(n.body)]


@_rule(ast.For)
def _for(n: ast.For) -> list[str]:
    return ["for", n.variable, "in", *_tokens(n.over), *_block(n.body)]


@_rule(ast.If)
def _if(n: ast.If) -> list[str]:
    out = ["if", *_tokens(n.condition), *_block(n.then)]
    return [*out, "else", *_block(n.otherwise)] if n.has_else else out


@_rule(ast.Clock)
def _clock(n: ast.Clock) -> list[str]:
    return [*(_tokens(n.count) if n.count is not None else []), n.base]


@_rule(ast.Every)
def _every(n: ast.Every) -> list[str]:
    return ["every", *_tokens(n.clock), *_block(n.body)]


@_rule(ast.Expect)
def _expect(n: ast.Expect) -> list[str]:
    return ["expect", *_tokens(n.value)]


# ---------------------------------------------------------------- members


@_rule(ast.Reset)
def _reset(n: ast.Reset) -> list[str]:
    count = _tokens(n.count) if n.count is not None else []
    return ["reset", n.kind, *count, *([n.base] if n.base else [])]


@_rule(ast.State)
def _state(n: ast.State) -> list[str]:
    value = ["=", *(["learned"] if n.learned else []), *_tokens(n.initial)] if n.initial is not None else []
    reset = _tokens(n.reset) if n.reset is not None else []
    names = _commas([name] for name in n.names)
    return [*_doc(n.doc), *(["shared"] if n.shared else []), "state", *names, *_typed(n.type), *value, *reset]


@_rule(ast.Parameter)
def _parameter(n: ast.Parameter) -> list[str]:
    level = ["at", n.level] if n.level is not None else []
    names = _commas([name] for name in n.names)
    return [*_doc(n.doc), "param", *names, *_typed(n.type), *_valued(n.initial), *level]


@_rule(ast.Instance)
def _instance(n: ast.Instance) -> list[str]:
    copies = [*_tokens(n.copies), "of"] if n.copies is not None else []
    return [*_doc(n.doc), n.keyword, *_commas([name] for name in n.names), ":", *copies, *_tokens(n.template)]


@_rule(ast.Input)
def _input(n: ast.Input) -> list[str]:
    return [*_doc(n.doc), "input", n.name, *_typed(n.type)]


@_rule(ast.Level)
def _level(n: ast.Level) -> list[str]:
    clock = ["=", "every", *_tokens(n.clock)] if n.clock is not None else []
    optimizer = ["with", *_tokens(n.optimizer)] if n.optimizer is not None else []
    return [*_doc(n.doc), "level", n.name, *clock, *optimizer]


@_rule(ast.Minimize)
def _minimize(n: ast.Minimize) -> list[str]:
    level = ["at", n.level] if n.level is not None else []
    optimizer = ["with", *_tokens(n.optimizer)] if n.optimizer is not None else []
    return ["minimize", *_tokens(n.value), *level, *optimizer]


@_rule(ast.Param)
def _param(n: ast.Param) -> list[str]:
    return [n.name, *_typed(n.type), *_valued(n.default)]


def _params(params: tuple[ast.Param, ...]) -> list[str]:
    return ["(", *_commas(map(_tokens, params)), ")"]


def _definition(body: tuple[ast.Statement, ...], short: bool) -> list[str]:
    if short:
        assert isinstance(body[0], ast.Return)
        return ["=", *_tokens(body[0].value)]
    return _block(body)


def _result(result: ast.TypeExpr | None) -> list[str]:
    return ["->", *_tokens(result)] if result is not None else []


@_rule(ast.Method)
def _method(n: ast.Method) -> list[str]:
    clock = ["every", *_tokens(n.clock)] if n.clock is not None else []
    return [*_doc(n.doc), n.name, *_params(n.params), *_result(n.result), *clock, *_definition(n.body, n.short)]


# ---------------------------------------------------------------- declarations


@_rule(ast.Function)
def _function(n: ast.Function) -> list[str]:
    return [*_doc(n.doc), n.keyword, n.name, *_params(n.params), *_result(n.result), *_definition(n.body, n.short)]


@_rule(ast.Unit)
def _unit(n: ast.Unit) -> list[str]:
    return [*_doc(n.doc), n.keyword, n.name, *(_params(n.params) if n.params else []), *_block(n.members)]


@_rule(ast.Constant)
def _constant(n: ast.Constant) -> list[str]:
    return [*_doc(n.doc), n.name, "=", *_tokens(n.value)]


@_rule(ast.Example)
def _example(n: ast.Example) -> list[str]:
    return [*_doc(n.doc), "example", _string(n.title), *_block(n.body)]


@_rule(ast.Import)
def _import(n: ast.Import) -> list[str]:
    if n.alias is not None:
        return ["import", _string(n.path), "as", n.alias]
    names = _commas([name] if name == alias else [name, "as", alias] for name, alias in n.names)
    return ["from", _string(n.path), "import", *names]


@_rule(ast.File)
def _file(n: ast.File) -> list[str]:
    out = [*_doc(n.doc), *([BREAK] if n.doc else [])]
    for item in (*n.imports, *n.declarations):
        out += [*_tokens(item), BREAK]
    return out
