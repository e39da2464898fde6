"""The part of an entrywise update that all entries share: numbers, computed once per tick in double precision."""

from __future__ import annotations

from nldsl.backends.torch.names import identifier
from nldsl.ir.demand import reachable
from nldsl.ir.entrywise import Entrywise
from nldsl.ir.program import Instr
from nldsl.ir.types import Clock

FUNCTIONS = {
    "arctan": "np.arctan({})",
    "sigmoid": "1.0 / (1.0 + np.exp(-{}))",
    "softplus": "np.logaddexp(0.0, {})",
    "relu": "np.maximum({}, 0.0)",
    "rsqrt": "1.0 / np.sqrt({})",
    "erf": "math.erf({})",
    "neg": "-{}",
    "to_real": "float({})",
    "logical_not": "float(not {})",
    "logical_and": "float(bool({}) and bool({}))",
    "logical_or": "float(bool({}) or bool({}))",
    "where": "({1} if {0} else {2})",
    "pow": "np.power({}, {})",
    "add": "{} + {}",
    "sub": "{} - {}",
    "mul": "{} * {}",
    "div": "np.divide({}, {})",
    "mod": "np.mod({}, {})",
    **{
        op: f"float({{}} {sign} {{}})"
        for op, sign in zip("lt le gt ge eq ne".split(), "< <= > >= == !=".split(), strict=True)
    },
    **{op: f"np.{op}({{}})" for op in "exp log log1p expm1 sqrt abs sign sin cos tanh floor".split()},
    **{op: f"np.{op}({{}}, {{}})" for op in ("maximum", "minimum")},
}


def fires(clock: Clock) -> str:
    """Whether a clock fires at tick ``t``, in Python."""
    return f"(t - 1) % {clock.period} == 0" if clock.start else f"t % {clock.period} == 0"


def write_numbers_module(rule: Entrywise) -> str:
    """A module that has ``numbers`` alone."""
    text = write_numbers(rule)
    imports = ["import math", ""] * any("math." in line for line in text) + ["import numpy as np", "", ""]
    return "\n".join(['"""What all entries of an optimizer share, compiled by nldsl."""', "", *imports, *text, ""])


def write_numbers(rule: Entrywise) -> list[str]:
    """``numbers(t, held)``: the shared values, and the new values of the states that are numbers."""
    lines = [
        "def numbers(t, held):",
        '    """What all entries share at tick t; held: the states that are one number."""',
        '    with np.errstate(all="ignore"):',
    ]
    roots = [*rule.needed_numbers(), *(value for _, _, value in rule.numbers)]
    lines += [f"        x{value} = {_text(rule.body[value])}" for value in sorted(reachable(rule.body, roots))]
    shared = "".join(f"float(x{v}), " for v in rule.needed_numbers())
    shared += "".join(f"float({fires(clock)}), " for clock in rule.needed_clocks())
    new = ", ".join(f"{name!a}: float(x{value})" for name, _, value in rule.numbers)
    return [*lines, f"        return ({shared.rstrip()}), {{{new}}}" if shared else f"        return (), {{{new}}}"]


def name_of(rule: Entrywise, value: int) -> str:
    """A readable name for a value, unique by its number."""
    hint = rule.body[value].name
    return f"{identifier(hint)}_{value}" if hint else f"x{value}"


def _text(instr: Instr) -> str:
    args = [f"x{a}" for a in instr.args]
    if instr.op == "const":
        return python_number(instr.attr("value"))
    if instr.op == "clock":
        text = f"t // {instr.attr('scale')}" if instr.attr("scale") != 1 else "t"
        return f"(({text}) - 1) % {instr.attr('period')} + 1" if instr.attr("period") else text
    if instr.op == "state":
        return f"held[{instr.attr('state')!a}]"
    if instr.op == "when":
        return f"{args[0]} if {fires(instr.attr('clock'))} else {args[1]}"
    return FUNCTIONS[instr.op].format(*args)


def python_number(value: float | int) -> str:
    """A number as Python reads it back."""
    if isinstance(value, int):
        return f"np.int64({value})" if abs(value) < 2**63 else f"float({value})"
    return f"float({str(value)!a})" if value != value or value in (float("inf"), float("-inf")) else repr(value)
