"""The names of files: declarations, imports, constants, and the built-ins below them all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.frontend import ast
from nldsl.limits import Limits
from nldsl.semantics import assemble  # noqa: F401  (registers the handlers that evaluate constants)
from nldsl.semantics.builtins import make_builtins
from nldsl.semantics.context import Context, TooMuchError
from nldsl.semantics.dispatch import evaluate
from nldsl.semantics.scope import Scope
from nldsl.semantics.spelling import closest
from nldsl.semantics.values import POISON, FunctionValue, Namespace, Template

if TYPE_CHECKING:
    from nldsl.frontend.imports import LoadedProgram


def root_scope() -> Scope:
    """The built-in names."""
    scope = Scope()
    for name, value in make_builtins().items():
        scope.bind(name, value)
    return scope


def file_scopes(loaded: LoadedProgram, bag: DiagnosticBag, limits: Limits) -> dict[str, Scope]:
    """One scope per file, in the order of the imports."""
    base = root_scope()
    scopes: dict[str, Scope] = {}
    for key in loaded.order:
        scopes[key] = _file_scope(loaded, key, scopes, base, bag, limits)
    return scopes


def _file_scope(
    loaded: LoadedProgram, key: str, scopes: dict[str, Scope], base: Scope, bag: DiagnosticBag, limits: Limits
) -> Scope:
    file = loaded.files[key]
    scope = base.child()
    for item in file.imports:
        target = loaded.resolve(key, item)
        _bind_import(scope, item, scopes.get(target) if target else None, bag)
    for declaration in file.declarations:
        _declare(scope, declaration, base, bag, limits)
    return scope


def _bind_import(scope: Scope, item: ast.Import, source: Scope | None, bag: DiagnosticBag) -> None:
    if item.alias is not None:
        scope.bind(item.alias, Namespace(source, item.alias) if source else POISON, item.span)
    for name, alias in item.names:
        binding = source.bindings.get(name) if source else None
        if source is not None and binding is None:
            close = closest(name, list(source.bindings))
            bag.error(
                "NL0211",
                item.span,
                f'"{item.path}" has no `{name}`',
                hints=(f"did you mean `{close}`?",) if close else (),
            )
        _bind_once(scope, alias, binding.value if binding else POISON, item, bag)


def _bind_once(scope: Scope, name: str, value: object, node: ast.Import | ast.Declaration, bag: DiagnosticBag) -> None:
    span = getattr(node, "name_span", None) or node.span
    before = scope.bindings.get(name)
    if before is not None:
        bag.error(
            "NL0202",
            span,
            f"`{name}` is declared twice",
            related=((before.span, "declared here first"),),
            hints=("use another name, or `as` in an import",),
        )
        return
    scope.bind(name, value, span)


def _declare(scope: Scope, declaration: ast.Declaration, base: Scope, bag: DiagnosticBag, limits: Limits) -> None:
    if isinstance(declaration, ast.Function):
        _bind_once(scope, declaration.name, FunctionValue(declaration, scope), declaration, bag)
    elif isinstance(declaration, ast.Unit):
        _bind_once(scope, declaration.name, Template(declaration, scope), declaration, bag)
        _check_members(declaration, bag)
    elif isinstance(declaration, ast.Constant):
        ctx = Context(bag, limits)
        try:
            value = evaluate(ctx, scope, declaration.value)
        except TooMuchError:
            value = POISON
        _bind_once(scope, declaration.name, value, declaration, bag)


def _check_members(unit: ast.Unit, bag: DiagnosticBag) -> None:
    """Each member name once; parameters too."""
    seen: dict[str, ast.Node] = {}
    places: list[tuple[str, ast.Node]] = [(p.name, p) for p in unit.params]
    for member in unit.members:
        if isinstance(member, (ast.State, ast.Parameter, ast.Instance)):
            places += [(name, member) for name in member.names]
        elif isinstance(member, (ast.Method, ast.Input)):
            places.append((member.name, member))
    for name, node in places:
        if name in seen:
            bag.error(
                "NL0202",
                node.span,
                f"`{name}` is declared twice in `{unit.name}`",
                related=((seen[name].span, "declared here first"),),
            )
        seen.setdefault(name, node)
