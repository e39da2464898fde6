"""What a value was computed from."""

from __future__ import annotations

from collections.abc import Sequence

from nldsl.ir.program import Instr

__all__ = ["ancestors"]


def ancestors(instrs: Sequence[Instr], value: int, first: int = 0) -> set[int]:
    """The values from number ``first`` on that a value was computed from, itself included."""
    found, waiting = {value}, [value]
    while waiting:
        for arg in instrs[waiting.pop()].args:
            if arg >= first and arg not in found:
                found.add(arg)
                waiting.append(arg)
    return found
