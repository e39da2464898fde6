"""Programs for memories by themselves.

A model says in which order its memories are read and written; a memory alone does not, unless it has a ``step``. To
explain or to verify one, a ``step`` is written for it in the language: it reads, learns, and reads again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag, DiagnosticError
from nldsl.dims import symbol
from nldsl.driver import Names, Options, are_parameters, derived, entry_of, middle, names_of
from nldsl.frontend import ast
from nldsl.ir.program import Instr, Program

_FREE_SHAPE = "[3, 2]"  # of a parameter whose shape the caller of the method decides
_INSTANCE = "_alone_"  # what the step calls the memory


@dataclass(frozen=True)
class Loaded:
    """``program`` is derived and simplified. ``symbolic`` is the same for sizes as symbols, None where that fails.

    ``alone``: the ``step`` is not the program's own. ``sizes``: what was chosen for parameters that have no default;
    ``dims``: what was asked for.
    """

    program: Program
    unit: ast.Unit
    symbolic: Program | None = None
    alone: bool = False
    sizes: tuple[tuple[str, int], ...] = ()
    dims: tuple[tuple[str, Any], ...] = ()
    free: str = ""  # the shape given to parameters whose shape the caller decides, where there are some


@dataclass(frozen=True)
class Request:
    """What to load: a file and an entry, static arguments, and the sizes to try for dims that have no value."""

    path: str | Path
    entry: str | None = None
    dims: tuple[tuple[str, Any], ...] = ()
    sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    again: bool = False  # read after learning as well
    disabled: frozenset[str] = frozenset()
    text: str | None = None

    def options(self, entry: str | None, dims: Mapping[str, Any]) -> Options:
        roots = (str(Path(self.path).parent),) if self.text is not None else ()
        return Options(entry, tuple(sorted(dims.items())), self.disabled, roots)


def unit_of(request: Request) -> ast.Unit:
    """The declaration that a request is about."""
    return _named(request)[1]


def load(request: Request, symbolic: bool = False, stop: str = "") -> Loaded:
    """The program of an entry; with ``stop="program"`` as it is before any pass.

    Raises DiagnosticError with everything wrong about it.
    """
    names, unit = _named(request)
    given = dict(request.dims)
    _require_values(unit, given)
    alone = unit.keyword == "memory" and not any(m.name == "step" for m in _methods(unit))
    free = _free_names(names, unit, request.again)
    missing = [p.name for p in unit.params if _is_dim(p) and p.default is None and p.name not in given]
    sizes = {name: request.sizes[i % len(request.sizes)] for i, name in enumerate([*missing, *free])}
    given.update((name, sizes[name]) for name in missing)
    wrapped = replace(request, entry=unit.name)
    shape = ""
    if alone or free:
        wrapped = _wrapped(request, names, unit, {name: sizes[name] for name in free})
        shape = _FREE_SHAPE if f": {_FREE_SHAPE}" in (wrapped.text or "") else ""
    program = _program(wrapped, given, generic=False, stop=stop)
    if wrapped.text != request.text:
        program = _unwrapped(program, unit)
    if alone:
        program = _labelled(program, _labels(unit, request.again))
    symbols = _symbolic(request, names, unit, given) if symbolic else None
    return Loaded(program, unit, symbols, alone, tuple(sizes.items()), request.dims, shape)


def _named(request: Request) -> tuple[Names, ast.Unit]:
    bag = DiagnosticBag()
    names = names_of(request.path, request.options(request.entry, {}), bag, request.text)
    unit = entry_of(names, request.entry, bag) if names is not None else None
    bag.raise_if_errors()
    assert names is not None
    assert unit is not None
    return names, unit


def _wrapped(request: Request, names: Names, unit: ast.Unit, sizes: Mapping[str, int]) -> Request:
    """The request for a unit around the unit, which says what the unit leaves open."""
    text = _around_block(names, unit, sizes) if unit.keyword == "block" else None
    if text is None:
        steps = [m for m in _methods(unit) if m.name == "step"] or _order(unit, request.again)
        text = _around_memory(names, unit, steps, sizes)
    return replace(request, entry=_alone_name(names, unit), text=names.file.span.file.text + "\n" + text)


def _unwrapped(program: Program, unit: ast.Unit) -> Program:
    inner = next((m.path for m in program.memories if m.path and "." not in m.path), "")
    program = replace(program, name=unit.name)
    return without_prefix(program, inner) if inner else program


def values_needed(unit: ast.Unit, given: Collection[str]) -> tuple[ast.Param, ...]:
    """The parameters without a value that cannot be chosen as sizes can."""
    return tuple(
        p
        for p in unit.params
        if p.default is None
        and p.name not in given
        and not _is_dim(p)
        and not (unit.keyword != "memory" and isinstance(p.type, ast.TensorType))
    )


def _require_values(unit: ast.Unit, given: Collection[str]) -> None:
    """Sizes are chosen where they are missing; anything else must be said. Raises DiagnosticError."""
    bag = DiagnosticBag()
    are_parameters(unit, given, bag)
    for param in values_needed(unit, given):
        hint = f"give it: `--set {param.name}=...`, or a default in the program"
        size = () if param.type else (f"if it is a size, write `{param.name}: dim`",)
        bag.error("NL0203", param.span, f"`{param.name}` of `{unit.name}` has no value", hints=(*size, hint))
    bag.raise_if_errors()


def _program(request: Request, given: Mapping[str, Any], generic: bool, stop: str = "") -> Program:
    from nldsl.semantics.assemble import unit_program

    options = request.options(request.entry, given)
    bag = DiagnosticBag(options.limits.diagnostics)
    names = names_of(request.path, options, bag, request.text)
    unit = entry_of(names, request.entry, bag) if names is not None else None
    bag.raise_if_errors()
    assert names is not None
    assert unit is not None
    found = unit_program(unit, names.scopes[names.root], dict(given), bag, options.limits, generic)
    bag.raise_if_errors()
    assert found is not None
    if stop == "program":
        return found
    return derived(found) if generic else middle(found, options)


def _symbolic(request: Request, names: Names, unit: ast.Unit, given: Mapping[str, Any]) -> Program | None:
    """The program for sizes that are symbols; a program that needs to know a size has none."""
    asked = dict(request.dims)
    symbols = {p.name: symbol(p.name) for p in unit.params if _is_dim(p) and p.name not in asked}
    memory = unit.keyword == "memory"
    wrapped = _wrapped(request, names, unit, {}) if memory else replace(request, entry=unit.name)
    try:
        program = _program(wrapped, {**given, **symbols}, generic=True)
    except DiagnosticError:
        return None
    return _unwrapped(program, unit) if memory else program


def _is_dim(param: ast.Param) -> bool:
    return isinstance(param.type, ast.NamedType) and param.type.name == "dim"


def _methods(unit: ast.Unit) -> list[ast.Method]:
    return [m for m in unit.members if isinstance(m, ast.Method)]


def _writers(unit: ast.Unit) -> list[ast.Method]:
    return [m for m in _methods(unit) if m.name == "learn" or _writes(m.body)]


def _writes(body: tuple[ast.Statement, ...]) -> bool:
    for statement in body:
        if isinstance(statement, ast.Assign):
            return True
        inner = [getattr(statement, field, ()) for field in ("body", "then", "otherwise")]
        if any(_writes(part) for part in inner if isinstance(part, tuple)):
            return True
    return False


def _readers(unit: ast.Unit) -> list[ast.Method]:
    writers = _writers(unit)
    return [m for m in _methods(unit) if m not in writers]


def _alone_name(names: Names, unit: ast.Unit) -> str:
    taken = {getattr(d, "name", "") for d in names.file.declarations}
    name = unit.name[:48] + "_alone"
    while name in taken:
        name += "_"
    return name


def _order(unit: ast.Unit, again: bool) -> list[ast.Method]:
    """Read, learn, and read again."""
    readers = _readers(unit)
    return [*readers, *_writers(unit), *(readers if again else [])]


def _around_memory(names: Names, unit: ast.Unit, methods: list[ast.Method], sizes: Mapping[str, int]) -> str:
    """A memory with a step that calls these methods of the memory and returns what they return."""
    params = ", ".join(p.span.text for p in unit.params)
    arguments = ", ".join(f"{p.name} = {p.name}" for p in unit.params)
    inputs: dict[str, str] = {}
    lines: list[str] = []
    results: list[str] = []
    for method in methods:
        call = _call(method, inputs)
        if _returns(method):
            results.append(f"r{len(results)}")
            call = f"{results[-1]} = {call}"
        lines.append(f"    {call}")
    if results:
        lines.append(f"    return {results[0]}" if len(results) == 1 else f"    return {{{', '.join(results)}}}")
    header = ", ".join(f"{name}: {_sized(type, sizes)}" for name, type in inputs.items())
    body = "\n".join(lines)
    return (
        f"memory {_alone_name(names, unit)}({params}) {{\n  memory {_INSTANCE}: {unit.name}({arguments})\n"
        f"  step({header}) {{\n{body}\n  }}\n}}\n"
    )


def _around_block(names: Names, unit: ast.Unit, sizes: Mapping[str, int]) -> str:
    """A block that applies the block to inputs of these sizes."""
    params = ", ".join(_sized(p.span.text, sizes) for p in unit.params)
    arguments = ", ".join(f"{p.name} = {p.name}" for p in unit.params)
    return f"block {_alone_name(names, unit)}({params}) {{\n  return {unit.name}({arguments})\n}}\n"


def _sized(text: str, sizes: Mapping[str, int]) -> str:
    """A type with numbers for names."""
    for name, size in sizes.items():
        text = re.sub(rf"\b{name}\b(?!\s*:)", str(size), text)
    return text


def _free_names(names: Names, unit: ast.Unit, again: bool) -> list[str]:
    """The sizes in types of inputs that nothing else says."""
    if unit.keyword == "model":
        return []
    if unit.keyword == "block":
        params = [p for p in unit.params if isinstance(p.type, ast.TensorType)]
    else:
        steps = [m for m in _methods(unit) if m.name == "step"] or _order(unit, again)
        params = [p for m in steps for p in m.params]
    known = {p.name for p in unit.params} | set(names.scopes[names.root].names())
    found: dict[str, None] = {}
    for param in params:
        for dim in param.type.dims if isinstance(param.type, ast.TensorType) else ():
            found.update(dict.fromkeys(n for n in _names_in(dim) if n not in known))
    return list(found)


def _names_in(expr: ast.Expr) -> list[str]:
    if isinstance(expr, ast.Name):
        return [expr.id]
    parts = (getattr(expr, field, None) for field in ("left", "right", "value", "operand"))
    return [n for part in parts if isinstance(part, ast.Expr) for n in _names_in(part)]


def _returns(method: ast.Method) -> bool:
    return method.short or method.result is not None or any(isinstance(s, ast.Return) for s in method.body)


def _call(method: ast.Method, inputs: dict[str, str]) -> str:
    """The call of a method; its parameters become inputs of the step, those of one name and type one input."""
    arguments = []
    shapes: dict[str, str] = {}
    for param in method.params:
        shape = _shape(param, shapes)
        if shape is None:
            continue
        shapes[param.name] = shape
        name = param.name if inputs.get(param.name, shape) == shape else f"{method.name}_{param.name}"
        inputs[name] = shape
        arguments.append(f"{param.name} = {name}")
    return f"{_INSTANCE}.{method.name}({', '.join(arguments)})"


def _shape(param: ast.Param, shapes: Mapping[str, str]) -> str | None:
    """The type of an input for a parameter; None if its default serves."""
    match param.type:
        case ast.TensorType(any_shape=False) as type:
            return type.span.text
        case ast.LikeType(name=name) if name in shapes:
            return shapes[name]
        case None | ast.TensorType() | ast.LikeType() if param.default is None:
            return _FREE_SHAPE
    return None


def _labels(unit: ast.Unit, again: bool) -> list[str]:
    def label(method: ast.Method) -> str:
        return f"{method.name}({', '.join(p.name for p in method.params)})"

    first = [label(m) for m in _order(unit, False) if _returns(m)]
    return [*first, *(f"{label(m)} after learning" for m in _readers(unit) if again and _returns(m))]


def _labelled(program: Program, labels: list[str]) -> Program:
    """The outputs named after the methods that gave them; a method that returns a group has several."""
    if len(program.outputs) == len(labels):
        names = labels
    else:
        heads = list(dict.fromkeys(name.partition(".")[0] for name, _ in program.outputs))
        of = dict(zip(heads, labels, strict=False))
        names = []
        for name, _ in program.outputs:
            head, dot, rest = name.partition(".")
            names.append(of.get(head, head) + dot + rest)
    outputs = tuple((name, value) for name, (_, value) in zip(names, program.outputs, strict=True))
    return replace(program, name=program.name.removesuffix("_alone"), outputs=outputs)


def without_prefix(program: Program, path: str) -> Program:
    """The program with what an instance owns named as if it were the program itself."""
    keys = {"state": "state", "anchor": "state", "param": "param"}

    def short(name: str) -> str:
        return "" if name == path else name.removeprefix(path + ".")

    def renamed(instr: Instr) -> Instr:
        key = keys.get(instr.op)
        if key is None:
            return instr
        return replace(instr, attrs=tuple((k, short(v) if k == key else v) for k, v in instr.attrs))

    memories = [
        replace(
            m,
            path=short(m.path),
            states=tuple(map(short, m.states)),
            params=tuple(map(short, m.params)),
        )
        for m in program.memories
        if m.path
    ]
    return replace(
        program,
        params=tuple(replace(p, name=short(p.name), owner=short(p.owner)) for p in program.params),
        states=tuple(replace(s, name=short(s.name), owner=short(s.owner)) for s in program.states),
        body=tuple(map(renamed, program.body)),
        init=tuple(map(renamed, program.init)),
        updates=tuple((short(name), value) for name, value in program.updates),
        memories=tuple(memories),
    )
