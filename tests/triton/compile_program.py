"""Compile the kernels of a program for a GPU: python compile_program.py FILE ENTRY TARGET PART DIMS(JSON) TYPE.

PART is in the names of the kernels to compile. Prints their reports as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.cubin import compile_jobs
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.passes.plan import plan


def main() -> None:
    path, entry, target, part, dims, dtype = sys.argv[1:]
    schedule = plan(load_program(path, entry, **json.loads(dims)))
    writer = LoopKernelWriter(required=True, capability=int(target))
    backend = TorchBackend("triton", kernels=writer)
    module = backend.load(backend.emit(schedule), schedule).module
    found = compile_jobs(writer.written, module, int(target), part, dtype)
    print(json.dumps({report.name: asdict(report) for report in found}))


if __name__ == "__main__":
    main()
