"""A program at each stage of the compiler, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from nldsl.backends.interface import Readable
from nldsl.backends.registry import BACKENDS
from nldsl.diagnostics.diagnostic import DiagnosticBag
from nldsl.driver import STAGES as DRIVER_STAGES
from nldsl.driver import Options, derived, names_of, simplified
from nldsl.ir.print import print_instr, print_program
from nldsl.ir.program import Program
from nldsl.ir.schedule import Phase, Schedule
from nldsl.passes.plan import plan
from nldsl.source import Span
from nldsl.standalone import Request, load

STAGES = (*DRIVER_STAGES, "chunk", *BACKENDS, "iree")
ALIASES = {"ast": "syntax", "typed": "program", "ir": "program"}


def stage_text(stage: str, path: str, entry: str | None, dims: Mapping[str, Any]) -> tuple[str, str]:
    """The text of a stage, and a remark about what was chosen for it.

    Raises DiagnosticError with everything wrong about the program.
    """
    if stage == "syntax":
        return _syntax(path), ""
    loaded = load(Request(path, entry, tuple(sorted(dims.items()))), stop="program")
    program = loaded.program
    remarks = [f"{name} = {size}" for name, size in loaded.sizes]
    if loaded.alone:
        remarks.append("a memory by itself: it reads, then learns")
    if stage != "program":
        program = derived(program)
        if stage != "derived":
            program = simplified(program)
    if stage in ("program", "derived", "simplified"):
        return print_program(program), "; ".join(remarks)
    backend = BACKENDS[stage]() if stage in BACKENDS else None
    ticks, serial, fused = (bool(getattr(backend, name, False)) for name in ("ticks", "serial", "fused"))
    disabled = frozenset({"chunk"} if stage == "schedule" else ())
    planned = plan(program, disabled, ticks=ticks, serial=serial, fused=fused)
    if stage == "iree":
        from nldsl.backends.iree.package import whole_module

        return whole_module(planned).text, "; ".join(remarks)
    if backend is None:
        return schedule_text(planned), "; ".join(remarks)
    text = backend.text(planned) if isinstance(backend, Readable) else backend.emit(planned)
    if stage == "triton":
        from nldsl.explain.updates import updates_text

        text = "\n\n".join(filter(None, [text, updates_text(program)]))
    return text, "; ".join(remarks)


def _syntax(path: str) -> str:
    bag = DiagnosticBag()
    names = names_of(path, Options(), bag)
    bag.raise_if_errors()
    assert names is not None
    return "\n".join(tree_lines(names.file)) + "\n"


def tree_lines(node: Any, depth: int = 0, label: str = "") -> list[str]:
    """A syntax tree, a line for each node, with its place in the file."""
    head = "  " * depth + (f"{label}: " if label else "")
    if isinstance(node, tuple):
        inside = depth + 1 if label else depth
        lines = [line for item in node for line in tree_lines(item, inside)]
        return [head.rstrip(), *lines] if label else lines
    if not is_dataclass(node) or isinstance(node, Span):
        return [head + (str(node.value) if isinstance(node, Enum) else repr(node))]
    simple: list[str] = []
    inner: list[str] = []
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Span) or value is False or value in (None, "", ()):
            continue
        if is_dataclass(value) or isinstance(value, tuple):
            inner += tree_lines(value, depth + 1, field.name)
        else:
            simple.append(f"{field.name} = {value!r}")
    span = getattr(node, "span", None)
    place = f"  @ {span.line}:{span.column}" if isinstance(span, Span) and not span.is_none else ""
    line = head + type(node).__name__ + (f" ({', '.join(simple)})" if simple else "") + place
    return [line.rstrip(), *inner]


def schedule_text(planned: Schedule) -> str:
    """The phases with the instructions of each."""
    lines = [f"schedule {planned.program.name}"]
    for title, phases in (("phases", planned.phases), ("loss phases", planned.loss_phases)):
        if phases:
            lines += [f"{title} {{", *(f"  {line}" for phase in phases for line in _phase(planned.program, phase)), "}"]
    if planned.loss_inputs:
        lines.append("loss inputs: " + ", ".join(planned.loss_inputs))
    return "\n".join(lines) + "\n"


def _phase(program: Program, phase: Phase) -> list[str]:
    head, blocks = [], []
    for field in fields(phase):
        value = getattr(phase, field.name)
        if field.name == "values":
            blocks += [f"  {print_instr(v, program.body[v])}" for v in value]
        elif field.name == "body":
            blocks += [f"  {print_instr(n, instr)}" for n, instr in enumerate(value)]
        elif isinstance(value, Phase):
            continue  # the loop that a chunked one replaces
        elif isinstance(value, tuple):
            head.append(f"{field.name} [" + ", ".join(map(_item, value)) + "]")
        else:
            head.append(f"{field.name} {_item(value)}")
    title = f"{type(phase).__name__.lower()} {', '.join(head)}".strip()
    return [f"{title} {{", *blocks, "}"] if blocks else [title]


def _item(value: Any) -> str:
    if isinstance(value, tuple):
        return " = ".join(map(_item, value))
    return f"%{value}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
