"""A program as text, one declaration or instruction a line; ``parse.py`` reads it back.

    program "delta"
    axis batch
    input k : [dk]{batch}
    state S : [dv, dk]{batch} = %0
    init {
      %0 = broadcast(shape=[dv, dk]) %1 : [dv, dk]
    }
    body {
      %0:k = input(k) : [dk]{batch}
      %2 = einsum("ij,j->i") %1, %0 : [dv]{batch} @16
    }
    update S = %9

``%12:S`` is value 12, with a name from the program; ``@16`` says that it is needed every 16 ticks (``@16 start``: at
the first of 16). Numbers keep their kind: ``1`` is an integer, ``1.0`` is not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from nldsl.dims import Poly
from nldsl.ir.program import (
    InputDecl,
    Instr,
    Level,
    MemoryInfo,
    ParamDecl,
    Program,
    StateDecl,
)
from nldsl.ir.types import Clock

PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
RESERVED = frozenset({"true", "false", "every", "inf", "nan"})
# The attribute of an operation that is written without its name.
MAIN = {"einsum": "spec", "const": "value", "input": "input", "param": "param", "state": "state", "given": "value"}


def print_program(program: Program) -> str:
    """The whole program; equal programs print the same text, names of values and spans aside."""
    lines = [f"program {text(program.name)}"]
    lines += [f"axis {name(a.name)}" + ("" if a.size is None else f" = {value(a.size)}") for a in program.axes]
    lines += [_level(level) for level in program.levels]
    lines += [_input(i) for i in program.inputs]
    lines += [_param(p) for p in program.params]
    lines += [_state(s) for s in program.states]
    lines += [_memory(m) for m in program.memories]
    lines += ["init {", *print_body(program.init), "}", "body {", *print_body(program.body), "}"]
    for kind, pairs in (
        ("update", program.updates),
        ("output", program.outputs),
        ("loss", program.losses),
        ("probe", program.probes),
    ):
        lines += [f"{kind} {name(label)} = %{v}" for label, v in pairs]
    return "\n".join(lines) + "\n"


def print_body(body: Iterable[Instr]) -> list[str]:
    """A body, a line for each instruction."""
    return [f"  {print_instr(n, instr)}" for n, instr in enumerate(body)]


def print_instr(number: int, instr: Instr) -> str:
    """One instruction as it defines value ``number``."""
    label = f"%{number}" + (f":{name(instr.name)}" if instr.name else "")
    guard = "" if instr.guard is None else f" @{instr.guard.period}" + (" start" if instr.guard.start else "")
    args = " " + ", ".join(f"%{a}" for a in instr.args) if instr.args else ""
    return f"{label} = {instr.op}{_attrs(instr)}{args} : {instr.type}{guard}"


def _attrs(instr: Instr) -> str:
    if not instr.attrs:
        return ""
    main = MAIN.get(instr.op)
    first = [value(v) for k, v in instr.attrs if k == main]
    return "(" + ", ".join(first + [f"{k}={value(v)}" for k, v in instr.attrs if k != main]) + ")"


def text(string: str) -> str:
    """A quoted string."""
    return json.dumps(string)


def name(string: str) -> str:
    """A name, quoted if it would not read as one."""
    return string if PLAIN.fullmatch(string) and string not in RESERVED else text(string)


def value(item: Any) -> str:
    """The value of an attribute."""
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, float):
        return repr(item) if math.isfinite(item) else f"#{item}"
    if isinstance(item, int | Poly):
        return str(item)
    if isinstance(item, str):
        return text(item)
    if isinstance(item, Clock):
        return str(item)
    if isinstance(item, tuple):
        return "[" + ", ".join(value(x) for x in item) + "]"
    raise TypeError(f"no text for an attribute of type {item.__class__.__name__}")


def _clauses(*clauses: str) -> str:
    return "".join(f", {c}" for c in clauses if c)


def _named(key: str, string: str) -> str:
    return f"{key} {name(string)}" if string else ""


def _names(key: str, strings: tuple[str, ...]) -> str:
    return f"{key} [" + ", ".join(name(s) for s in strings) + "]" if strings else ""


def _level(level: Level) -> str:
    return f"level {name(level.name)} = every {level.period} {name(level.base)}" + _clauses(
        _named("optimizer", level.optimizer_name)
    )


def _input(decl: InputDecl) -> str:
    return f"input {name(decl.name)} : {decl.type}" + _clauses(
        _named("source", decl.source), f"ahead {decl.ahead}" if decl.ahead else ""
    )


def _param(decl: ParamDecl) -> str:
    rule = decl.initializer
    initial = rule.kind + "(" + ", ".join(value(v) for v in rule.values) + ")"
    clauses = _clauses(_named("level", decl.level), _named("owner", decl.owner))
    return f"param {name(decl.name)} : {decl.type} = {initial}{clauses}"


def _state(decl: StateDecl) -> str:
    reset = "" if decl.reset.clock is None else f" {value(decl.reset.clock)}"
    return f"state {name(decl.name)} : {decl.type} = %{decl.init}" + _clauses(
        f"reset {name(decl.reset.kind)}{reset}" if decl.reset.kind != "sequence" or reset else "",
        _named("owner", decl.owner),
        "shared" if decl.shared else "",
        "hidden" if decl.hidden else "",
        f"clock {value(decl.clock)}" if decl.clock is not None else "",
    )


def _memory(info: MemoryInfo) -> str:
    return f"memory {text(info.path)} = {name(info.kind)} {name(info.template)}" + _clauses(
        _names("states", info.states),
        _names("params", info.params),
        _named("level", info.level),
        f"copies {value(info.copies)}" if info.copies is not None else "",
    )
