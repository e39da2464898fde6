"""Programs for memories by themselves.

A model says in which order its memories are read and written; a memory alone does not, unless it has a ``step``. To
explain or to verify one, a ``step`` is written for it in the language: it reads, learns, and reads again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.driver import Names, Options, derived, entry_of, middle, names_of
from nldsl.frontend import ast
from nldsl.ir.program import Instr, Program

_FREE_SHAPE = "[3, 2]"  # of a parameter whose shape the caller of the method decides


@dataclass(frozen=True)
class Loaded:
    """``program`` is derived and simplified. ``symbolic`` is the same for sizes as symbols, None where that fails.

    ``alone``: the ``step`` is not the program's own. ``sizes``: what was chosen for parameters that have no default.
    """

    program: Program
    unit: ast.Unit
    symbolic: Program | None = None
    alone: bool = False
    sizes: tuple[tuple[str, int], ...] = ()


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


def load(request: Request, symbolic: bool = False) -> Loaded:
    """The program of an entry; raises DiagnosticError with everything wrong about it."""
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
        text = names.file.span.file.text + "\n" + _with_step(names, unit, request.again)
        request = replace(request, entry=_alone_name(names, unit), text=text)
    else:
        request = replace(request, entry=unit.name)
    given.update(chosen)
    program = _program(request, given, generic=False)
    if alone:
        program = without_prefix(_labelled(program, _labels(unit, request.again)), "m")
    symbols = _symbolic(request, unit, given) if symbolic else None
    if alone and symbols is not None:
        symbols = without_prefix(symbols, "m")
    return Loaded(program, unit, symbols, alone, tuple(chosen.items()))


def _program(request: Request, given: Mapping[str, Any], generic: bool) -> Program:
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
    return derived(found) if generic else middle(found, options)


def _symbolic(request: Request, unit: ast.Unit, given: Mapping[str, Any]) -> Program | None:
    """The program for sizes that are symbols; a program that needs to know a size has none."""
    from nldsl.diagnostics.diagnostic import DiagnosticError
    from nldsl.dims import symbol

    symbols = {p.name: symbol(p.name) for p in unit.params if _is_dim(p)}
    try:
        return _program(request, {**given, **symbols}, generic=True)
    except DiagnosticError:
        return None


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


def _with_step(names: Names, unit: ast.Unit, again: bool) -> str:
    """A memory around the memory, with a step that reads, learns, and reads again."""
    params = ", ".join(p.span.text for p in unit.params)
    arguments = ", ".join(f"{p.name} = {p.name}" for p in unit.params)
    inputs: dict[str, str] = {}
    before = [f"  r{i} = {_call(m, inputs)}" for i, m in enumerate(_readers(unit))]
    learn = [
        f"  l{i} = {_call(m, inputs)}" if _returns(m) else f"  {_call(m, inputs)}" for i, m in enumerate(_writers(unit))
    ]
    after = [f"  s{i} = {_call(m, inputs)}" for i, m in enumerate(_readers(unit))] if again else []
    results = [
        line.split("=", 1)[0].strip() for line in (*before, *learn, *after) if line[2] in "rls" and " = " in line[:8]
    ]
    returned = f"  return {{{', '.join(results)}}}" if len(results) > 1 else f"  return {results[0]}" if results else ""
    header = ", ".join(f"{name}: {type}" for name, type in inputs.items())
    body = "\n".join([*before, *learn, *after, returned])
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

    before = [label(m) for m in _readers(unit)]
    after = [f"{label(m)} after learning" for m in _readers(unit)] if again else []
    return [*before, *(label(m) for m in _writers(unit) if _returns(m)), *after]


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
        return name.removeprefix(path + ".")

    def renamed(instr: Instr) -> Instr:
        key = keys.get(instr.op)
        if key is None:
            return instr
        return replace(instr, attrs=tuple((k, short(v) if k == key else v) for k, v in instr.attrs))

    memories = [
        replace(
            m,
            path="" if m.path == path else short(m.path),
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
