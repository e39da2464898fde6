"""Compile the kernels of an optimizer for a GPU: python compile_update.py CALL FILE SHAPE(JSON) TARGET KIND.

KIND is half, tf32 or tf32x3 (the type of products' operands). FILE is one of the standard library's, or empty for a
rule of ``update_rules.py``. Prints the reports as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from nldsl.backends.torch.loader import load
from nldsl.backends.triton.update_cubin import compile_entries, compile_matrices, compile_numbers
from nldsl.backends.triton.update_entries import write_entries
from nldsl.backends.triton.update_matrix import write_matrices
from nldsl.backends.triton.update_numbers import write_numbers_kernel
from nldsl.passes.derive import Derive
from nldsl.passes.entrywise import tensorwise
from nldsl.passes.simplify import Simplify
from tests.triton.update_rules import rule_of


def main() -> None:
    call, file, shape, target, kind = sys.argv[1:]
    sizes = tuple(json.loads(shape))
    program = Simplify().apply(Derive().apply(rule_of(call, file)(sizes)))
    half = kind == "half"
    rule = tensorwise(program, sizes)
    if rule is not None:
        entries = write_entries(rule)
        found = compile_entries(entries, load(entries.source, "kernels").module, int(target), half)
        numbers = load(write_numbers_kernel(rule.shared()), "numbers_kernel")
        found.append(compile_numbers(numbers.module, int(target)))
    else:
        matrices = write_matrices(program, "half" if half else "float32")
        module = load(matrices.source, "kernels").module
        found = compile_matrices(matrices, module, int(target), half, kind == "tf32x3")
    print(json.dumps({report.name: asdict(report) for report in found}))


if __name__ == "__main__":
    main()
