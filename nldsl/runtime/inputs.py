"""What a module is called with: which inputs it has, and that they are as the program says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nldsl.ir.program import InputDecl, Program
from nldsl.ir.row_limits import row_limits
from nldsl.ir.types import BATCH

Tensors = dict[str, torch.Tensor]


class InputError(ValueError):
    """An argument that does not fit the program; the message names the input and its place in the program."""


@dataclass(frozen=True)
class Streams:
    """The inputs of a program. ``limits``: for an integer input that picks rows, how many rows there are."""

    now: tuple[InputDecl, ...]
    ahead: tuple[InputDecl, ...]
    limits: Mapping[str, int]
    batched: bool

    def bind(self, args: Sequence[Any], named: Mapping[str, Any]) -> Tensors:
        """Positional and named arguments by the names of the inputs; ``ahead`` inputs may be given by name."""
        if len(args) > len(self.now):
            raise InputError(f"{len(args)} inputs given, the program has {self._list(self.now)}")
        found: Tensors = {decl.name: value for decl, value in zip(self.now, args, strict=False)}
        known = {decl.name for decl in (*self.now, *self.ahead)}
        for name, value in named.items():
            if name not in known:
                raise InputError(f"the program has no input `{name}`; it has {self._list(self.now)}")
            if name in found:
                raise InputError(f"the input `{name}` is given twice")
            found[name] = value
        return found

    @staticmethod
    def _list(decls: Sequence[InputDecl]) -> str:
        return ", ".join(f"`{d.name}`" for d in decls) or "none"

    def check(self, given: Mapping[str, Any], optional: Sequence[str], time: bool, dtype: torch.dtype) -> Tensors:
        """The inputs as tensors of the right kind; ``time``: with an axis of ticks after that of the batch."""
        missing = [d for d in self.now if d.name not in given and d.name not in optional]
        if missing:
            raise InputError(f"the input `{missing[0].name}` is missing{_place(missing[0])}")
        found: Tensors = {}
        sizes: dict[str, tuple[int, str]] = {}
        for decl in (*self.now, *self.ahead):
            if decl.name not in given:
                continue
            tensor = _kind(decl, given[decl.name], dtype)
            self._check_shape(decl, tensor, time, sizes)
            self._check_range(decl, tensor)
            found[decl.name] = tensor
        return found

    def _check_shape(
        self, decl: InputDecl, tensor: torch.Tensor, time: bool, sizes: dict[str, tuple[int, str]]
    ) -> None:
        lead = (["batch"] if BATCH in decl.type.axes else []) + (["time"] if time else [])
        shape = tuple(decl.type.shape)
        if tensor.dim() != len(lead) + len(shape) or tuple(tensor.shape[len(lead) :]) != shape:
            wanted = ", ".join([*lead, *map(str, shape)])
            raise InputError(f"the input `{decl.name}` is [{wanted}], got {list(tensor.shape)}{_place(decl)}")
        for axis, size in zip(lead, tensor.shape, strict=False):
            known, other = sizes.setdefault(axis, (size, decl.name))
            if known != size:
                raise InputError(f"`{other}` has {axis} {known}, but `{decl.name}` has {axis} {size}{_place(decl)}")
            if size == 0:
                raise InputError(f"the input `{decl.name}` is empty: its {axis} is 0{_place(decl)}")

    def _check_range(self, decl: InputDecl, tensor: torch.Tensor) -> None:
        """On a CPU only: elsewhere looking at the values would wait for the device."""
        limit = self.limits.get(source_of(decl))
        if limit is None or tensor.device.type != "cpu" or torch.compiler.is_compiling():
            return
        low, high = int(tensor.min()), int(tensor.max())
        if low < 0 or high >= limit:
            wrong = low if low < 0 else high
            raise InputError(f"the input `{decl.name}` has the value {wrong}; it picks one of {limit}{_place(decl)}")


def streams_of(program: Program) -> Streams:
    """The inputs of a program."""
    now = tuple(i for i in program.inputs if not i.ahead)
    ahead = tuple(i for i in program.inputs if i.ahead)
    return Streams(now, ahead, row_limits(program), BATCH in program.axis_names())


def source_of(decl: InputDecl) -> str:
    """The name of the stream that an input belongs to."""
    return decl.source if decl.ahead else decl.name


def _kind(decl: InputDecl, value: Any, dtype: torch.dtype) -> torch.Tensor:
    if not isinstance(value, torch.Tensor):
        raise InputError(f"the input `{decl.name}` is not a tensor but {type(value).__name__}{_place(decl)}")
    if decl.type.kind == "int":
        if value.is_floating_point() or value.is_complex():
            raise InputError(f"the input `{decl.name}` takes integers, got {value.dtype}{_place(decl)}")
        return value.long()
    if value.is_complex():
        raise InputError(f"the input `{decl.name}` takes real numbers, got {value.dtype}{_place(decl)}")
    return value.to(dtype)


def _place(decl: InputDecl) -> str:
    return "" if decl.span.is_none else f" (declared at {decl.span})"
