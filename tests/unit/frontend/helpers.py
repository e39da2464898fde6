"""Short ways to parse in tests."""

from __future__ import annotations

from nldsl.diagnostics import Diagnostic, DiagnosticBag
from nldsl.diagnostics.render import render
from nldsl.frontend import ast
from nldsl.frontend.parse import parse
from nldsl.limits import Limits
from nldsl.source import SourceFile


def parsed(text: str) -> ast.File:
    bag = DiagnosticBag()
    tree = parse(SourceFile("test.nl", text), bag)
    assert tree is not None, render(bag)
    return tree


def mistakes(text: str, limits: Limits | None = None) -> list[Diagnostic]:
    bag = DiagnosticBag()
    tree = parse(SourceFile("test.nl", text), bag, limits)
    assert (tree is None) == bag.has_errors
    return list(bag)


def codes(text: str, limits: Limits | None = None) -> list[str]:
    return [d.code for d in mistakes(text, limits)]


def expression(text: str) -> ast.Expr:
    (constant,) = parsed(f"x = {text}").declarations
    assert isinstance(constant, ast.Constant)
    return constant.value


def statements(text: str) -> tuple[ast.Statement, ...]:
    (unit,) = parsed(f"memory M {{\n{text}\n}}").declarations
    assert isinstance(unit, ast.Unit)
    return unit.members


def statement(text: str) -> ast.Statement:
    (found,) = statements(text)
    return found


def shape(node: object) -> str:
    """An expression with every operation in parentheses."""
    match node:
        case ast.Binary(op, left, right):
            return f"({shape(left)} {op} {shape(right)})"
        case ast.Unary(op, value):
            return f"({op} {shape(value)})"
        case ast.Name(name):
            return name
        case ast.Number(text):
            return text
        case ast.Anchor(value, period):
            return f"({shape(value)} start {shape(period)})"
        case ast.IfExpr(condition, then, otherwise):
            return f"({shape(condition)} ? {shape(then)} : {shape(otherwise)})"
        case ast.Reduce(kind, value):
            return f"({kind} of {shape(value)})"
        case ast.AtLevel(value, level):
            return f"({shape(value)} at {level})"
        case ast.Transpose(value):
            return f"({shape(value)})'"
        case ast.Call(function, arguments):
            return f"{shape(function)}[{', '.join(shape(a.value) for a in arguments)}]"
        case ast.Member(value, name):
            return f"{shape(value)}.{name}"
        case ast.Index(value, index):
            return f"{shape(value)}[{shape(index)}]"
        case ast.Paren(value):
            return shape(value)
        case _:
            raise TypeError(type(node).__name__)
