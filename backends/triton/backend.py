"""The Triton backend as a provider of loops; what stands around them is the module of another backend."""

from __future__ import annotations

from nldsl.backends.interface import LoopKernels
from nldsl.backends.triton.provider import LoopKernelWriter


def kernels(required: bool = False) -> LoopKernels:
    """What writes the loops of a module as kernels."""
    return LoopKernelWriter(required)
