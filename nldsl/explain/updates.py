"""The kernels of the optimizers of a program, as ``nldsl emit --stage triton`` shows them."""

from __future__ import annotations

from collections.abc import Iterator

from nldsl.backends.triton.tiles import UnsupportedError
from nldsl.backends.triton.update_entries import write_entries
from nldsl.backends.triton.update_matrix import write_matrices
from nldsl.driver import derived, simplified
from nldsl.ir.entrywise import Tensorwise, merged
from nldsl.ir.program import Program
from nldsl.passes.entrywise import Shape, tensorwise

__all__ = ["updates_text"]


def updates_text(program: Program) -> str:
    """What each level of steps is trained with: kernels over all entries, and kernels for each shape."""
    found = []
    for level in program.levels:
        if level.base == "step" and level.optimizer is not None:
            shapes = dict.fromkeys(p.type.shape for p in program.params if p.level == level.name)
            programs = {shape: simplified(derived(level.optimizer(shape))) for shape in shapes}
            head = f"# level {level.name}, with {level.optimizer_name or 'its optimizer'}"
            found += [f"{head}: {text}" for text in _kernels(programs)]
    return "\n\n".join(found)


def _kernels(programs: dict[Shape, Program]) -> Iterator[str]:
    together: dict[Tensorwise, list[tuple[Shape, Tensorwise]]] = {}
    for shape, program in programs.items():
        rule = tensorwise(program, shape)
        if rule is not None:
            key = rule.skeleton() if rule.has_sums or not rule.numbers else rule
            together.setdefault(key, []).append((shape, rule))
            continue
        try:
            yield f"parameters {_shown(shape)}\n{write_matrices(program, 'half').source}"
        except UnsupportedError as reason:
            yield f"no kernels for parameters {_shown(shape)}: {reason}\n"
    for members in together.values():
        names = ", ".join(_shown(shape) for shape, _ in members)
        try:
            yield f"parameters {names}\n{write_entries(merged([rule for _, rule in members])[0]).source}"
        except UnsupportedError as reason:
            yield f"no kernels for parameters {names}: {reason}\n"


def _shown(shape: Shape) -> str:
    return f"[{', '.join(map(str, shape))}]"
