"""The steps of a segment as functions of their own: one large function takes LLVM far longer than its parts.

Steps with the same code are one function, which is called with other tensors and positions: the five iterations of
Newton-Schulz, the same product of the matrices of several layers. Also where kernels are compiled together.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from nldsl.backends.mlir.memory import STEP
from nldsl.backends.mlir.text import ATTRIBUTES, MEMREF

LONGEST = 200  # lines of one function: LLVM takes more than twice as long for twice as many
OWN = 60  # lines of a step from which on it is a function even if no other one is like it
SHORTEST = 24  # lines of a step that a function is worth for, where there are several of them
NAME = re.compile(r"%\w+")
DEFINED = re.compile(r"(%\w+)(?::\d+)? = ")
QUOTED = re.compile(r' loc\("[^"]*":\d+:\d+\)')


@dataclass(frozen=True)
class Step:
    """Some lines. ``outside``: the names of tensors and positions they use, in order. ``code``: what they are, with
    all names replaced by numbers and without places in the program: equal for steps that do the same."""

    lines: tuple[str, ...]
    size: int
    defined: frozenset[str]
    outside: tuple[str, ...]
    constants: tuple[tuple[str, str], ...]
    code: str


def plain(lines: Iterable[str]) -> list[str]:
    """Lines without comments and places."""
    return [QUOTED.sub("", line) for line in lines if not line.lstrip().startswith("//")]


@dataclass
class Outlined:
    """``constants``: texts by name; ``tensors``: element of each tensor by name; ``conditions``: names of truth
    values. ``functions`` are those of the steps so far."""

    name: str
    constants: dict[str, str]
    tensors: dict[str, str]
    conditions: Collection[str]
    functions: list[str] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    def calls(self, lines: Sequence[str]) -> list[str]:
        """The lines with steps replaced by calls."""
        steps = [self._step(part) for part in self._parts(lines)]
        times = Counter(step.code for step in steps)
        found: list[str] = []
        block: list[Step] = []
        size = 0
        for step in steps:
            alone = step.size >= (SHORTEST if times[step.code] > 1 else OWN)
            if block and (alone or size + step.size > LONGEST):
                found += self._written(block)
                block, size = [], 0
            block.append(step)
            size += step.size
            if alone:
                found += self._written(block, called=True)
                block, size = [], 0
        return found + self._written(block)

    def _parts(self, lines: Sequence[str]) -> list[list[str]]:
        """The steps. One that needs a name of an earlier one is not parted from it."""
        parts: list[list[str]] = [[]]
        for line in lines:
            if line.strip() == STEP:
                parts.append([])
            else:
                parts[-1].append(line)
        made: dict[str, int] = {}
        joined: list[list[str]] = []
        for part in parts:
            text = "\n".join(plain(part))
            first = min((made[n] for n in set(NAME.findall(text)) if n in made), default=len(joined))
            for later in joined[first + 1 :]:
                joined[first] += later
            del joined[first + 1 :]
            if first < len(joined):
                joined[first] += part
            else:
                joined.append(list(part))
            made = {n: min(at, len(joined) - 1) for n, at in made.items()}
            made |= dict.fromkeys(_defined_at_top(part) - {*self.conditions}, len(joined) - 1)
        return [part for part in joined if part]

    def _step(self, lines: Sequence[str]) -> Step:
        code = [line.strip() for line in plain(lines)]
        text = "\n".join(code)
        defined = frozenset(DEFINED.findall(text))
        names: dict[str, str] = {}
        outside: list[str] = []
        constants: list[tuple[str, str]] = []

        def numbered(match: re.Match[str]) -> str:
            name = match.group()
            if name not in names:
                names[name] = f"%{len(names)}"
                if name in self.constants:
                    constants.append((name, self.constants[name]))
                elif name not in defined:
                    outside.append(name)
            return names[name]

        body = NAME.sub(numbered, text)
        head = [f"{names[n]} = {t}" for n, t in constants] + [f"{names[n]}: {self._type(n)}" for n in outside]
        return Step(tuple(lines), len(code), defined, tuple(outside), tuple(constants), "\n".join([*head, body]))

    def _type(self, name: str) -> str:
        if name in self.tensors:
            return f"!llvm.ptr {self.tensors[name]}"
        return "i1" if name in self.conditions else "index"

    def _written(self, block: Sequence[Step], called: bool = False) -> list[str]:
        """The lines of some steps, or a call of a function that has them."""
        lines = [line for step in block for line in step.lines]
        step = block[0] if len(block) == 1 else self._step(lines)
        if step.defined & {*self.conditions} or not (called or step.size >= SHORTEST):
            return lines
        if step.code not in self.known:
            self.known[step.code] = f"@{self.name}_{len(self.known)}"
            self.functions.append(self._function(self.known[step.code], step))
        given = ", ".join(f"{n}_p" if n in self.tensors else n for n in step.outside)
        types = ", ".join(self._type(n).split()[0] for n in step.outside)
        return [f"        func.call {self.known[step.code]}({given}) : ({types}) -> ()"]

    def _function(self, name: str, step: Step) -> str:
        pairs = [(f"{n}_p" if n in self.tensors else n, self._type(n).split()[0]) for n in step.outside]
        signature = ", ".join(f"{n}: {t}" for n, t in pairs)
        head = [f"func.func private {name}({signature}) attributes {{{ATTRIBUTES}}} {{"]
        head += [memref(n, self.tensors[n]) for n in step.outside if n in self.tensors]
        head += [f"  {n} = {text}" for n, text in step.constants]
        return "\n".join([*head, *step.lines, "  return", "}"])


def memref(name: str, element: str) -> str:
    """The tensor ``name`` at the address of the same name with ``_p``."""
    return f"  {name} = func.call @nl_tensor_{element}({name}_p) : (!llvm.ptr) -> {MEMREF[element]}"


def _defined_at_top(lines: Sequence[str]) -> set[str]:
    """Names that later lines of the segment could use: those that are not inside of a loop or a condition."""
    found: set[str] = set()
    depth = 0
    for line in plain(lines):
        text = line.strip()
        if text.startswith("}"):
            depth -= 1
        if not depth and (match := re.match(r"(%\w+)(?::\d+)? = ", text)):
            found.add(match.group(1))
        if text.endswith("{"):
            depth += 1
    return found
