"""Programs for memories by themselves.

A model says in which order its memories are read and written; a memory alone does not, unless it has a ``step``. To
explain or to verify one, a ``step`` is written for it in the language: it reads, learns, and reads again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag, DiagnosticError
from nldsl.dims import symbol
from nldsl.driver import Names, Options, derived, entry_of, middle, names_of
from nldsl.frontend import ast
from nldsl.ir.program import Instr, Program

_FREE_SHAPE = "[3, 2]"  # of a parameter whose shape the caller of the method decides


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
    bag = DiagnosticBag()
    names = names_of(request.path, request.options(request.entry, {}), bag, request.text)
    unit = entry_of(names, request.entry, bag) if names is not None else None
    bag.raise_if_errors()
    assert unit is not None
    return unit


def load(request: Request, symbolic: bool = False, stop: str = "") -> Loaded:
    """The program of an entry; with ``stop="program"`` as it is before any pass.

    Raises DiagnosticError with everything wrong about it.
    """
    bag = DiagnosticBag()
    names = names_of(request.path, request.options(request.entry, {}), bag, request.text)
    unit = entry_of(names, request.entry, bag) if names is not None else None
    bag.raise_if_errors()
    assert names is not None
    assert unit is not None
    given = dict(request.dims)
    alone = unit.keyword == "memory" and not any(m.name == "step" for m in _methods(unit))
    chosen = _chosen(unit, given, request.sizes)
    if alone:
        text = names.file.span.file.text + "\n" + _with_step(names, unit, _order(unit, request.again))
        request = replace(request, entry=_alone_name(names, unit), text=text)
    else:
        request = replace(request, entry=unit.name)
    given.update(chosen)
    free = _FREE_SHAPE if alone and f": {_FREE_SHAPE}" in (request.text or "") else ""
    program = _program(request, given, generic=False, stop=stop)
    if alone:
        program = without_prefix(_labelled(program, _labels(unit, request.again)), "m")
    symbols = _symbolic(request, names, unit, given) if symbolic else None
    return Loaded(program, unit, symbols, alone, tuple(chosen.items()), request.dims, free)


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
    wrapped = unit.keyword == "memory"
    if wrapped and request.entry == unit.name:  # alone, every method is tried; here only the step is wanted
        step = [m for m in _methods(unit) if m.name == "step"]
        text = names.file.span.file.text + "\n" + _with_step(names, unit, step)
        request = replace(request, entry=_alone_name(names, unit), text=text)
    try:
        program = _program(request, {**given, **symbols}, generic=True)
    except DiagnosticError:
        return None
    return without_prefix(program, "m") if wrapped else program


def _chosen(unit: ast.Unit, given: Mapping[str, Any], sizes: tuple[int, ...]) -> dict[str, int]:
    missing = [p.name for p in unit.params if _is_dim(p) and p.default is None and p.name not in given]
    return {name: sizes[i % len(sizes)] for i, name in enumerate(missing)}


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


def _with_step(names: Names, unit: ast.Unit, methods: list[ast.Method]) -> str:
    """A memory around the memory, with a step that calls these methods and returns what they return."""
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
    header = ", ".join(f"{name}: {type}" for name, type in inputs.items())
    body = "\n".join(lines)
    return (
        f"memory {_alone_name(names, unit)}({params}) {{\n  memory m: {unit.name}({arguments})\n"
        f"  step({header}) {{\n{body}\n  }}\n}}\n"
    )


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
    return f"m.{method.name}({', '.join(arguments)})"


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
