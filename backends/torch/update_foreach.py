"""An entrywise update in PyTorch: ``torch._foreach`` operations on lists of tensors, in place where that is safe.

Each operand is a list of flat tensors. The runtime calls ``update`` for lists that fit a cache (or, on a GPU, once), so
that intermediate results never go to memory. An operation works in the memory of an operand that nothing reads later;
the memory of a state is given back to it at the end. Where values are selected by a clock everything is a new list,
for then two values may share memory.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nldsl.backends.torch.names import Names
from nldsl.backends.torch.update_numbers import (
    python_number,
    write_numbers,
)
from nldsl.ir.entrywise import Entrywise

UNARY = {op: op for op in "neg exp log log1p expm1 sqrt rsqrt abs sign sin cos tanh sigmoid erf floor".split()} | {
    "arctan": "atan"
}
SIGNS = dict(zip("lt le gt ge eq ne".split(), "< <= > >= == !=".split(), strict=True))
# what has no foreach form: written for one tensor
SINGLE = {
    "to_real": "{0}",
    "relu": "{0}.clamp_min(0.0)",
    "softplus": "torch.nn.functional.softplus({0}, threshold=40.0)",
    "logical_not": "({0} == 0).to({like}.dtype)",
    "logical_and": "(({0} != 0) & ({1} != 0)).to({like}.dtype)",
    "logical_or": "(({0} != 0) | ({1} != 0)).to({like}.dtype)",
    "mod": "torch.remainder({0}, {1})",
    **{op: f"({{0}} {sign} {{1}}).to({{like}}.dtype)" for op, sign in SIGNS.items()},
}
FIXED = frozenset("np math g w states shared rate like tensor numbers update held a0 a1 a2".split())


def write_update(rule: Entrywise) -> str:
    """The source of a module with ``numbers(t, held)`` and ``update(shared, rate, g, w, states)``."""
    writer = Writer(rule)
    writer.write()
    head = ['"""One tick of an optimizer for all entries of all its parameters, compiled by nldsl."""', ""]
    text = "\n".join(writer.lines)
    imports = ["import numpy as np", "import torch"]
    numbers = write_numbers(rule)
    if any("math." in line for line in numbers):
        imports.insert(0, "import math\n")
    return "\n".join([*head, *imports, "", "", *numbers, "", "", text, ""])


@dataclass
class Writer:
    """Writes ``update``. ``memory`` says whose memory a value is in: a state's name, ``temporary``, None (foreign)."""

    rule: Entrywise
    lines: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    memory: dict[int, str | None] = field(default_factory=dict)
    left: Counter[int] = field(default_factory=Counter)
    uses: Counter[int] = field(default_factory=Counter)
    folded: frozenset[int] = frozenset()  # products that the sum they belong to computes

    def write(self) -> None:
        rule = self.rule
        shared = [f"x{v}" for v in rule.needed_numbers()] + [f"fires{i}" for i in range(len(rule.needed_clocks()))]
        fresh = Names(FIXED.union(shared))
        order = self._order()
        states = [name for name, _, _ in rule.states]
        own = [fresh.new(name.rpartition(".")[2]) for name in states]
        where = dict(zip(states, own, strict=True))
        for value in order:
            self.left.update(a for a in rule.body[value].args)
        kept = [value for _, _, value in rule.states] + [rule.change]
        self.left.update(kept * 2)  # never the last use
        self.uses = Counter(self.left)
        self.lines += [
            "def update(shared, rate, g, w, states):",
            '    """Lists of flat tensors: the weights and the states change in place."""',
        ]
        if shared:
            self._add(f"{', '.join(shared)}{',' if len(shared) == 1 else ''} = shared")
        if own:
            self._add(f"{', '.join(own)}{',' if len(own) == 1 else ''} = states")
        self.folded = frozenset(v for value in order for v in self._terms(value))
        for value in order:
            instr = rule.body[value]
            if value in self.folded:
                continue
            if instr.op == "input":
                self.names[value] = "g" if instr.attr("input") == "g" else "w"
                self.memory[value] = None
            elif instr.op == "state":
                self.names[value] = where[instr.attr("state")]
                self.memory[value] = instr.attr("state")
            else:
                self._value(value, fresh)
        self._finish(where, fresh)

    def _order(self) -> list[int]:
        found: set[int] = set()
        stack = [self.rule.change, *(value for _, _, value in self.rule.states)]
        while stack:
            value = stack.pop()
            if value in self.rule.entries and value not in found:
                found.add(value)
                stack.extend(self.rule.body[value].args)
        return sorted(found)

    def _add(self, line: str) -> None:
        self.lines.append("    " + line)

    def _number(self, value: int) -> str:
        instr = self.rule.body[value]
        return python_number(float(instr.attr("value"))) if instr.op == "const" else f"x{value}"

    def _is_list(self, value: int) -> bool:
        return value in self.rule.entries

    def _value(self, value: int, fresh: Names) -> None:
        instr = self.rule.body[value]
        terms = self._terms(value)
        self.left.subtract(instr.args)
        for term in terms:
            self.left.subtract(self.rule.body[term].args)
        if terms:
            self._sum(value, fresh.new(instr.name or "x"), terms)
            return
        name = fresh.new(instr.name or "x")
        args = [self.names[a] if self._is_list(a) else self._number(a) for a in instr.args]
        lists = [a for a in instr.args if self._is_list(a)]
        if instr.op == "when":
            self._when(value, name, args, lists)
            return
        call, reusable = self._call(instr.op, instr.args, args)
        if call is None:
            self._single(value, name, args, lists)
            return
        target = instr.args[reusable] if reusable is not None else None
        if target is not None and self._is_free(target):
            function, _, rest = call.partition("(")
            self._add(f"{function}_({rest}")
            self.names[value], self.memory[value] = self.names[target], self.memory[target]
            return
        self._add(f"{name} = {call}")
        self.names[value], self.memory[value] = name, "temporary"

    def _terms(self, value: int) -> list[int]:
        """The products that ``a + c y`` or ``a + c y z`` computes on the way, the outermost first."""
        instr = self.rule.body[value]
        if instr.op not in ("add", "sub") or not all(self._is_list(a) for a in instr.args):
            return []
        for term in instr.args[::-1] if instr.op == "add" else instr.args[1:]:
            if not self._is_product(term) or instr.args[0] == instr.args[1]:
                continue
            inner = [a for a in self.rule.body[term].args if self._is_list(a)]
            return [term, *inner] if len(inner) == 1 and self._is_product(inner[0], lists=2) else [term]
        return []

    def _is_product(self, value: int, lists: int = 0) -> bool:
        instr = self.rule.body[value]
        count = sum(self._is_list(a) for a in instr.args)
        return instr.op == "mul" and self.uses[value] == 1 and count >= max(lists, 1)

    def _sum(self, value: int, name: str, terms: list[int]) -> None:
        """``a + c y`` or ``a + c y z`` as one operation."""
        body = self.rule.body
        instr = body[value]
        (start,) = (a for a in instr.args if a != terms[0])
        sign = "-" if instr.op == "sub" else ""
        operands = [a for term in terms for a in body[term].args if a not in terms]
        factors = [self._number(a) for a in operands if not self._is_list(a)]
        lists = [self.names[a] for a in operands if self._is_list(a)]
        scale = sign + (factors[0] if factors else "1.0")
        stem, option = ("add", "alpha") if len(lists) == 1 else ("addcmul", "value")
        rest = f"({self.names[start]}, {', '.join(lists)}, {option}={scale})"
        if self._is_free(start):
            self._add(f"torch._foreach_{stem}_{rest}")
            self.names[value], self.memory[value] = self.names[start], self.memory[start]
        else:
            self._add(f"{name} = torch._foreach_{stem}{rest}")
            self.names[value], self.memory[value] = name, "temporary"

    def _is_free(self, value: int) -> bool:
        """Whether the memory of this value may be written: ours, and nothing reads the value again."""
        free = self.left[value] == 0 and self.memory[value] is not None
        return free and not self.rule.needed_clocks()

    def _call(self, op: str, values: tuple[int, ...], args: list[str]) -> tuple[str | None, int | None]:
        """A foreach call, and the operand in whose memory its in-place form works."""
        lists = [self._is_list(v) for v in values]
        if op in UNARY:
            return f"torch._foreach_{UNARY[op]}({args[0]})", 0
        if op in ("add", "mul", "maximum", "minimum"):
            stem = {
                "maximum": "clamp_min" if not all(lists) else "maximum",
                "minimum": "clamp_max" if not all(lists) else "minimum",
            }
            name = stem.get(op, op)
            if not lists[0] or (lists[1] and not self._is_free(values[0]) and self._is_free(values[1])):
                return f"torch._foreach_{name}({args[1]}, {args[0]})", 1
            return f"torch._foreach_{name}({args[0]}, {args[1]})", 0
        if op in ("sub", "div") and lists[0]:
            return f"torch._foreach_{op}({args[0]}, {args[1]})", 0
        if op == "sub":
            return f"torch._foreach_add(torch._foreach_neg({args[1]}), {args[0]})", None
        if op == "div":
            return f"torch._foreach_mul(torch._foreach_reciprocal({args[1]}), {args[0]})", None
        if op == "pow":
            return f"torch._foreach_pow({args[0]}, {args[1]})", 0 if lists[0] else None
        return None, None

    def _single(self, value: int, name: str, args: list[str], lists: list[int]) -> None:
        """An operation on each tensor, for what has no foreach form."""
        instr = self.rule.body[value]
        loops = list(dict.fromkeys(self.names[v] for v in lists))
        inner = {outer: f"a{i}" for i, outer in enumerate(loops)}
        texts = [inner[a] if self._is_list(v) else a for v, a in zip(instr.args, args, strict=True)]
        like = inner[loops[0]]
        if instr.op == "where":
            pairs = zip(instr.args, texts, strict=True)
            branches = [t if self._is_list(v) else f"torch.full_like({like}, {t})" for v, t in pairs]
            body = f"torch.where({branches[0]} != 0, {branches[1]}, {branches[2]})"
        else:
            body = SINGLE[instr.op].format(*texts, like=like)
        if len(loops) == 1:
            self._add(f"{name} = [{body} for {like} in {loops[0]}]")
        else:
            over = ", ".join(inner.values())
            self._add(f"{name} = [{body} for {over} in zip({', '.join(loops)}, strict=True)]")
        self.names[value] = name
        self.memory[value] = "temporary" if instr.op != "to_real" else None

    def _when(self, value: int, name: str, args: list[str], lists: list[int]) -> None:
        instr = self.rule.body[value]
        flag = f"fires{self.rule.needed_clocks().index(instr.attr('clock'))}"
        like = self.names[lists[0]]
        texts = [
            a if self._is_list(v) else f"[torch.full_like(like, {a}) for like in {like}]"
            for v, a in zip(instr.args, args, strict=True)
        ]
        self._add(f"{name} = {texts[0]} if {flag} else {texts[1]}")
        self.names[value], self.memory[value] = name, None

    def _finish(self, where: dict[str, str], fresh: Names) -> None:
        """The change is added to the weights; states get their new values."""
        rule = self.rule
        moved: list[tuple[str, str]] = []
        for name, _, value in rule.states:
            if not self._is_list(value) or self.memory[value] == name:
                continue
            source = self.names[value]
            if self.memory[value] != "temporary":  # the memory of a gradient, a weight or another state
                copies = fresh.new(f"new_{where[name]}")
                self._add(f"{copies} = [tensor.clone() for tensor in {source}]")
                source = copies
            moved.append((where[name], source))
        if self._is_list(rule.change):
            self._add(f"torch._foreach_add_(w, {self.names[rule.change]}, alpha=rate)")
        else:
            self._add(f"torch._foreach_add_(w, rate * {self._number(rule.change)})")
        for name, _, value in rule.states:
            if not self._is_list(value):
                self._add(f"for tensor in {where[name]}:")
                self._add(f"    tensor.fill_({self._number(value)})")
        for target, source in moved:
            self._add(f"torch._foreach_copy_({target}, {source})")
