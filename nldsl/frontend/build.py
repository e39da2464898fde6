"""Makes the nodes of the syntax tree: one method for each `-> name` (or rule) of `grammar/nl.lark`."""

from __future__ import annotations

import re
from typing import Any

from ..diagnostics import DiagnosticBag
from ..source import SourceFile, Span
from . import ast
from .lexer import Token
from .lr import Action
from .tables import Tables

__all__ = ["Builder", "Comments", "text_of"]

_OPERATORS = {"**": "^"}
_ESCAPES = {'\\"': '"', "\\\\": "\\", "\\n": "\n"}
_ESCAPE = re.compile(r'\\["\\n]')


def text_of(string: Token) -> str:
    """Return the text that a STRING token stands for."""
    return _ESCAPE.sub(lambda m: _ESCAPES[m.group()], string.text[1:-1])


class Comments:
    """Finds the `##` lines that document a declaration."""

    def __init__(self, source: SourceFile, comments: list[Token], first: int) -> None:
        self._source = source
        self._lines: dict[int, str] = {}
        for comment in comments:
            if comment.text.startswith("##"):
                line, column = source.position(comment.start)
                if source.text[comment.start - column + 1 : comment.start].isspace() or column == 1:
                    self._lines[line] = comment.text[2:].removeprefix(" ").rstrip()
        self._first_line = source.position(first)[0] if first < len(source.text) else source.line_count + 1

    def above(self, start: int) -> str:
        """Return the `##` lines that stand directly above what begins at `start`, if it begins its line."""
        if not self._lines:
            return ""
        line, column = self._source.position(start)
        if line - 1 not in self._lines or self._source.text[start - column + 1 : start].strip():
            return ""
        found = []
        while (line := line - 1) in self._lines:
            found.append(self._lines[line])
        return "\n".join(reversed(found))

    def of_file(self, taken: str) -> str:
        """Return the first `##` lines of the file, unless they stand above its first declaration."""
        if not self._lines:
            return ""
        line = next(iter(self._lines))
        if line >= self._first_line:
            return ""
        found = []
        while line in self._lines:
            found.append(self._lines[line])
            line += 1
        text = "\n".join(found)
        return "" if taken and line == self._first_line else text


class Builder:
    """Every method takes the children that the grammar keeps, and the offsets that they cover."""

    def __init__(self, source: SourceFile, comments: Comments, bag: DiagnosticBag) -> None:
        self.source = source
        self.comments = comments
        self.bag = bag

    def actions(self, tables: Tables) -> list[Action | None]:
        """Return the method of each production; None makes a plain list."""
        return [None if p.action in ("", "*") else getattr(self, f"make_{p.action}") for p in tables.productions]

    def span(self, start: int, end: int) -> Span:
        return Span(self.source, start, end)

    def at(self, token: Token) -> Span:
        return Span(self.source, token.start, token.end)

    # ------------------------------------------------------------ files

    def make_start(self, children: list[Any], start: int, end: int) -> ast.File:
        imports = tuple(c for c in children if isinstance(c, ast.Import))
        declarations = tuple(c for c in children if not isinstance(c, ast.Import))
        first = children[0].doc if children and not isinstance(children[0], ast.Import) else ""
        return ast.File(imports, declarations, self.comments.of_file(first), self.span(0, len(self.source.text)))

    def make_import_module(self, children: list[Any], start: int, end: int) -> ast.Import:
        path, alias = children
        return ast.Import(text_of(path), (), alias.text, self.span(start, end), self.at(path))

    def make_import_names(self, children: list[Any], start: int, end: int) -> ast.Import:
        path, *names = children
        return ast.Import(text_of(path), tuple(names), None, self.span(start, end), self.at(path))

    def make_imported(self, children: list[Any], start: int, end: int) -> tuple[str, str]:
        name, alias = children
        return name.text, (alias or name).text

    def make_function(self, children: list[Any], start: int, end: int) -> ast.Function:
        keyword, name, params, result, (short, body) = children
        doc = self.comments.above(start)
        return ast.Function(
            keyword.text, name.text, params, result, body, short, doc, self.span(start, end), self.at(name)
        )

    def make_unit(self, children: list[Any], start: int, end: int) -> ast.Unit:
        keyword, name, params, body = children
        doc = self.comments.above(start)
        return ast.Unit(keyword.text, name.text, params or (), body, doc, self.span(start, end), self.at(name))

    def make_constant(self, children: list[Any], start: int, end: int) -> ast.Constant:
        name, value = children
        return ast.Constant(name.text, value, self.comments.above(start), self.span(start, end))

    def make_example(self, children: list[Any], start: int, end: int) -> ast.Example:
        title, body = children
        return ast.Example(text_of(title), body, self.comments.above(start), self.span(start, end))

    # ------------------------------------------------------------ parameters and types

    def make_params(self, children: list[Any], start: int, end: int) -> tuple[ast.Param, ...]:
        return tuple(children)

    def make_param(self, children: list[Any], start: int, end: int) -> ast.Param:
        name, type_, default = children
        return ast.Param(name.text, type_, default, self.span(start, end))

    def make_short_definition(
        self, children: list[Any], start: int, end: int
    ) -> tuple[bool, tuple[ast.Statement, ...]]:
        value = children[0]
        return True, (ast.Return(value, value.span),)

    def make_long_definition(self, children: list[Any], start: int, end: int) -> tuple[bool, tuple[ast.Statement, ...]]:
        return False, children[0]

    def make_tensor_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        return ast.TensorType(tuple(children), span=self.span(start, end))

    def make_any_tensor_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        return ast.TensorType((), any_shape=True, span=self.span(start, end))

    def make_bracket_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        name, *dims = children
        if name.text == "list" and len(dims) == 1 and isinstance(dims[0], ast.Name):
            return ast.ListType(dims[0].id, self.span(start, end))
        if name.text != "int":
            self.bad_type(name, start, end)
        return ast.TensorType(tuple(dims), integer=True, span=self.span(start, end))

    def make_any_bracket_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        if children[0].text != "int":
            self.bad_type(children[0], start, end)
        return ast.TensorType((), integer=True, any_shape=True, span=self.span(start, end))

    def make_list_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        name, item = children
        if name.text != "list":
            self.bad_type(name, start, end)
        return ast.ListType(item.text, self.span(start, end))

    def bad_type(self, name: Token, start: int, end: int) -> None:
        from .syntax_errors import bad_type

        bad_type(self.bag, self.span(start, end), name.text)

    def make_like_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        return ast.LikeType(children[0].text, self.span(start, end))

    def make_named_type(self, children: list[Any], start: int, end: int) -> ast.TypeExpr:
        return ast.NamedType(children[0].text, self.span(start, end))

    # ------------------------------------------------------------ statements

    def make_body(self, children: list[Any], start: int, end: int) -> tuple[ast.Statement, ...]:
        return tuple(children)

    def make_bind(self, children: list[Any], start: int, end: int) -> ast.Statement:
        target, value = children
        return ast.Bind(target, value, None, self.span(start, end))

    def make_typed_bind(self, children: list[Any], start: int, end: int) -> ast.Statement:
        name, type_, value = children
        return ast.Bind(ast.Target((name.text,), span=self.at(name)), value, type_, self.span(start, end))

    def make_assign(self, children: list[Any], start: int, end: int) -> ast.Statement:
        target, value = children
        return ast.Assign(target, value, self.span(start, end))

    def make_name_target(self, children: list[Any], start: int, end: int) -> ast.Target:
        return ast.Target((children[0].text,), span=self.span(start, end))

    def make_member_target(self, children: list[Any], start: int, end: int) -> ast.Target:
        return ast.Target((children[0].text, children[1].text), span=self.span(start, end))

    def make_group_target(self, children: list[Any], start: int, end: int) -> ast.Target:
        return ast.Target(tuple(c.text for c in children), group=True, span=self.span(start, end))

    def make_return(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.Return(children[0], self.span(start, end))

    def make_expression(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.ExprStatement(children[0], self.span(start, end))

    def make_repeat(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.Repeat(children[0], children[1], self.span(start, end))

    def make_iterate(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.Iterate(children[0], children[1], self.span(start, end))

    def make_for(self, children: list[Any], start: int, end: int) -> ast.Statement:
        variable, over, body = children
        return ast.For(variable.text, over, body, self.span(start, end))

    def make_if(self, children: list[Any], start: int, end: int) -> ast.Statement:
        condition, then, otherwise = children
        has_else = otherwise is not None
        if isinstance(otherwise, ast.If):
            otherwise = (otherwise,)
        return ast.If(condition, then, otherwise or (), has_else, self.span(start, end))

    def make_every(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.Every(children[0], children[1], self.span(start, end))

    def make_expect(self, children: list[Any], start: int, end: int) -> ast.Statement:
        return ast.Expect(children[0], self.span(start, end))

    def make_counted_clock(self, children: list[Any], start: int, end: int) -> ast.Clock:
        return ast.Clock(children[0], children[1].text, self.span(start, end))

    def make_named_clock(self, children: list[Any], start: int, end: int) -> ast.Clock:
        return ast.Clock(None, children[0].text, self.span(start, end))

    # ------------------------------------------------------------ members

    def make_state(self, children: list[Any], start: int, end: int) -> ast.Statement:
        shared, names, type_, initial, reset = children
        learned, value = initial or (None, None)
        doc = self.comments.above(start)
        return ast.State(
            names, type_, value, learned is not None, shared is not None, reset, doc, self.span(start, end)
        )

    def make_names(self, children: list[Any], start: int, end: int) -> tuple[str, ...]:
        return tuple(c.text for c in children)

    def make_initial(self, children: list[Any], start: int, end: int) -> tuple[Token | None, ast.Expr]:
        return children[0], children[1]

    def make_reset_per(self, children: list[Any], start: int, end: int) -> ast.Reset:
        return ast.Reset("per", children[0].text, None, self.span(start, end))

    def make_reset_every(self, children: list[Any], start: int, end: int) -> ast.Reset:
        return ast.Reset("every", children[0].base, children[0].count, self.span(start, end))

    def make_reset_at(self, children: list[Any], start: int, end: int) -> ast.Reset:
        return ast.Reset("at", children[0].text, None, self.span(start, end))

    def make_reset_never(self, children: list[Any], start: int, end: int) -> ast.Reset:
        return ast.Reset("never", "", None, self.span(start, end))

    def make_parameter(self, children: list[Any], start: int, end: int) -> ast.Statement:
        names, type_, initial, level = children
        doc = self.comments.above(start)
        return ast.Parameter(names, type_, initial, level and level.text, doc, self.span(start, end))

    def make_instance(self, children: list[Any], start: int, end: int) -> ast.Statement:
        keyword, names, copies, template = children
        doc = self.comments.above(start)
        return ast.Instance(keyword.text, names, template, copies, doc, self.span(start, end))

    def make_method(self, children: list[Any], start: int, end: int) -> ast.Statement:
        name, params, result, clock, (short, body) = children
        doc = self.comments.above(start)
        return ast.Method(name.text, params, result, clock, body, short, doc, self.span(start, end), self.at(name))

    def make_input(self, children: list[Any], start: int, end: int) -> ast.Statement:
        name, type_ = children
        return ast.Input(name.text, type_, self.comments.above(start), self.span(start, end))

    def make_level(self, children: list[Any], start: int, end: int) -> ast.Statement:
        name, clock, optimizer = children
        return ast.Level(name.text, clock, optimizer, self.comments.above(start), self.span(start, end))

    def make_minimize(self, children: list[Any], start: int, end: int) -> ast.Statement:
        value, level, optimizer = children
        return ast.Minimize(value, level and level.text, optimizer, self.span(start, end))

    # ------------------------------------------------------------ expressions

    def make_anchor(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Anchor(children[0], children[1], self.span(start, end))

    def make_choice(self, children: list[Any], start: int, end: int) -> ast.Expr:
        condition, then, otherwise = children
        return ast.IfExpr(condition, then, otherwise, self.span(start, end))

    def make_binary(self, children: list[Any], start: int, end: int) -> ast.Expr:
        left, op, right = children
        return ast.Binary(_OPERATORS.get(op.text, op.text), left, right, self.span(start, end))

    def make_unary(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Unary(children[0].text, children[1], self.span(start, end))

    def make_reduce(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Reduce(children[0].text, children[1], self.span(start, end))

    def make_call(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Call(children[0], tuple(children[1:]), self.span(start, end))

    def make_call_comprehension(self, children: list[Any], start: int, end: int) -> ast.Expr:
        function, value = children
        return ast.Call(function, (ast.Argument(value, None, value.span),), self.span(start, end))

    def make_index(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Index(children[0], children[1], self.span(start, end))

    def make_slice(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Slice(children[0], children[1], children[2], self.span(start, end))

    def make_member(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Member(children[0], children[1].text, self.span(start, end))

    def make_transpose(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Transpose(children[0], self.span(start, end))

    def make_at_level(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.AtLevel(children[0], children[1].text, self.span(start, end))

    def make_positional(self, children: list[Any], start: int, end: int) -> ast.Argument:
        return ast.Argument(children[0], None, self.span(start, end))

    def make_named(self, children: list[Any], start: int, end: int) -> ast.Argument:
        return ast.Argument(children[1], children[0].text, self.span(start, end))

    def make_comprehension(self, children: list[Any], start: int, end: int) -> ast.Comprehension:
        value, variable, over = children
        return ast.Comprehension(value, variable.text, over, False, self.span(start, end))

    def make_inline_comprehension(self, children: list[Any], start: int, end: int) -> ast.Expr:
        inner: ast.Comprehension = children[0]
        return ast.Comprehension(inner.value, inner.variable, inner.over, False, self.span(start, end))

    def make_stacked_comprehension(self, children: list[Any], start: int, end: int) -> ast.Expr:
        inner: ast.Comprehension = children[0]
        return ast.Comprehension(inner.value, inner.variable, inner.over, True, self.span(start, end))

    def make_number(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Number(children[0].text, self.span(start, end))

    def make_text(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Text(text_of(children[0]), self.span(start, end))

    def make_boolean(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Bool(children[0].text == "true", self.span(start, end))

    def make_name(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Name(children[0].text, self.span(start, end))

    def make_paren(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.Paren(children[0], self.span(start, end))

    def make_list(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.ListExpr(tuple(children), self.span(start, end))

    def make_group(self, children: list[Any], start: int, end: int) -> ast.Expr:
        return ast.GroupExpr(tuple(children), self.span(start, end))
