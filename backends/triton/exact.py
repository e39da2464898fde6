"""Which operands of products are taken with all of their digits: rounded, and once more what the rounding left.

Where a state goes through one product after the other before it becomes the next one (a network and its gradient), the
rounding errors of all of them add up, and the next segment begins with the sum. Two kinds of operands weigh most, by
measurement and by algebra: the states themselves, for what is rounded of them is the same for all ticks of a segment,
and differences between what a product predicts and what it should, which are smaller than what they are made of.

A product of such an operand takes one more pass (bfloat16 alone: half as many bits again are seven or eight times as
exact in float16). Linear recurrences, whose chain is a read and a write, stay as they are.
"""

from __future__ import annotations

from nldsl.backends.triton.job import Job
from nldsl.ir.ops import split_spec
from nldsl.ir.program import Instr
from nldsl.ir.stages import STEP

CHAIN = 3  # products in a row from a state to the next one, from which on states and differences are exact


def exact_values(job: Job) -> frozenset[int]:
    """The carried values and differences of the loop over segments, where a chain of products is so long; else none."""
    if not has_long_chain(job):
        return frozenset()
    chain = chains(job)
    made = {v for v, instr in enumerate(job.body) if _is_difference(instr, chain) and job.stages[v] == STEP}
    return frozenset(v for v in job.carried if job.stages[v] is not None) | made


def has_long_chain(job: Job) -> bool:
    """Whether a carried value has gone through ``CHAIN`` products when it becomes the next one."""
    chain = chains(job)
    return max((chain.get(value, 0) for _, value in job.carry), default=0) >= CHAIN


def chains(job: Job) -> dict[int, int]:
    """Of each value that depends on carried ones, the most products in a row that it has gone through since."""
    found: dict[int, int] = {}
    for value, instr in enumerate(job.body):
        if job.stages[value] is None:
            continue
        if value in job.carried:
            found[value] = 0
        known = [found[a] for a in instr.args if a in found]
        if known:
            found[value] = max(known) + _is_product(instr)
    return found


def _is_product(instr: Instr) -> bool:
    """Whether an operation multiplies matrices."""
    if instr.op != "einsum" or len(instr.args) != 2:
        return False
    inputs, output = split_spec(instr.attr("spec"))
    shared = set(inputs[0]) & set(inputs[1]) - set(output)
    return bool(shared) and any(set(text) - shared for text in inputs)


def _is_difference(instr: Instr, chain: dict[int, int]) -> bool:
    return instr.op == "sub" and any(chain.get(a, 0) > 0 for a in instr.args)
