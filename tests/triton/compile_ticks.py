"""Compile the kernels of loops over ticks, or of a step: python compile_ticks.py FILE ENTRY TARGET FORM DIMS.

FORM: ``loop`` (all loops as loops over ticks, forward and backward) or ``step``. Prints their reports as JSON.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from nldsl.api import load_program
from nldsl.backends.torch.backend import TorchBackend
from nldsl.backends.triton.cubin import compile_jobs
from nldsl.backends.triton.decode_source import DecodeWriter
from nldsl.backends.triton.provider import LoopKernelWriter
from nldsl.passes.choose_chunk import ChunkOptions
from nldsl.passes.plan import plan


def main() -> None:
    path, entry, target, form, dims = sys.argv[1:]
    schedule = plan(load_program(path, entry, **json.loads(dims)), options=ChunkOptions(enabled=False), ticks=True)
    writer: LoopKernelWriter | DecodeWriter = LoopKernelWriter(required=True)
    if form == "step":
        assert schedule.decode is not None
        writer, schedule = DecodeWriter(), schedule.decode()
    backend = TorchBackend("triton", kernels=writer)
    module = backend.load(backend.emit(schedule), schedule).module
    found = compile_jobs(writer.written, module, int(target))
    print(json.dumps({report.name: asdict(report) for report in found}))


if __name__ == "__main__":
    main()
