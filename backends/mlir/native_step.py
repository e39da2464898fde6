"""One tick of a module as one native call: what ``module.step`` runs where no gradient is wanted.

Everything that can be known before a call is: a call checks that its tensors are as expected, makes the results, fills
a table of addresses, and jumps. What is not as expected gives None, and the caller goes the usual way.
"""

from __future__ import annotations

import ctypes
import math
import struct
import threading
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nldsl.backends.mlir.assembly import HEADER
from nldsl.backends.mlir.cache import compiled
from nldsl.backends.mlir.engine import Native, vector_bytes
from nldsl.backends.mlir.kernel import Kernel
from nldsl.backends.mlir.launch import call, scratch
from nldsl.backends.mlir.native_loop import BITS
from nldsl.backends.mlir.step_kernel import StepWriter
from nldsl.backends.mlir.views import FallbackWarning, UnsupportedError
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.ir.types import BATCH, TIME, Clock, Type, axis_order

WORTH_THREADS = 1 << 18  # numbers that all lanes read: fewer are read while a thread wakes up


INPUT, PARAM, BEFORE, STATE, OUTPUT = range(5)
KINDS = {"given": INPUT, "param": PARAM, "before": BEFORE, "fixed": BEFORE, "state": STATE, "output": OUTPUT}
Slot = tuple[int, str, tuple[int, ...], bool]  # what a tensor is, its name, its shape, whether it has a batch


@dataclass(frozen=True)
class Form:
    """The compiled function for one dtype. ``slots``: its tensors, with shapes but for the batch. ``clocks``: at the
    ticks of which clock alone a state changes. ``entries``: how many numbers a lane reads."""

    kernel: Kernel
    native: Native
    slots: tuple[Slot, ...]
    clocks: Mapping[str, Clock | None]
    entries: int


class _Table(threading.local):
    """What a function is called with, once for each thread: numbers, addresses of tensors, then the four arguments of
    the function (the table, scratch memory, the lanes) and their addresses."""

    def __init__(self, size: int) -> None:
        self.array = (ctypes.c_int64 * (size + 8))()
        base = ctypes.addressof(self.array)
        first = base + 8 * size
        self.array[size] = base
        self.array[size + 4 :] = [first, first + 8, first + 16, first + 24]
        self.pointers = ctypes.c_void_p(first + 32)


@dataclass(frozen=True)
class Plan:
    """A form for one size of the batch: the tensors that it reads (place, kind, name, shape), the states and outputs
    that it writes (place, name, a tensor of that shape)."""

    form: Form
    read: tuple[tuple[int, int, str, tuple[int, ...]], ...]
    states: tuple[tuple[int, str, Clock | None, Tensor], ...]
    outputs: tuple[tuple[int, str, Tensor], ...]
    example: Tensor
    lanes: int
    threads: bool
    table: _Table
    pack: Any


def _refused(why: str) -> None:
    text = f"`step` has no native form: {why}; it keeps that of the torch backend"
    warnings.warn(text, FallbackWarning, stacklevel=3)


class NoStep:
    """In the place of a ``NativeStep``, for a program that has none: says so when it is first called."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __call__(self, *_given: object) -> None:
        """Nothing: the caller computes the tick in another way."""
        if self.why:
            _refused(self.why)
            self.why = ""


class NativeStep:
    """``NativeStep(tick, program)(params, inputs, states, done, limits)``: one tick of a batch. Raises UnsupportedError
    for a program that has no such form."""

    def __init__(self, tick: ChunkLoop, program: Program) -> None:
        self.tick = tick
        self.program = program
        self.order = axis_order((TIME, *program.axis_names()), program.axis_names())
        self.anchors = tuple((name, period, anchor_key(name, period)) for name, period in anchors(program))
        self.first = program.states[0].name
        self.results = tuple(name for name, _ in program.outputs)
        self.spread = tuple(n for n, v in program.outputs if BATCH not in program.body[v].type.axes)
        self.resets = tuple(s.reset.clock for s in program.states if s.reset.clock is not None)
        self.lead = next((d.name for d in program.inputs if BATCH in d.type.axes and not d.ahead), "")
        self.whole = frozenset(d.name for d in program.inputs if d.type.kind == "int")
        self.forms: dict[torch.dtype, Form | None] = {}
        self.plans: dict[tuple[torch.dtype, int], Plan | None] = {}
        self._refuse_what_is_not_simple()

    def _refuse_what_is_not_simple(self) -> None:
        program = self.program
        names = [name for name, _ in program.outputs]
        if len(set(names)) < len(names):
            raise UnsupportedError("two outputs of one name")
        made = {v for v, _ in self.tick.outputs}
        for name, value in program.outputs:
            if value not in made:
                raise UnsupportedError(f"the output {name} is not computed")
            if program.body[value].type.kind != "real":
                raise UnsupportedError(f"the output {name} is an integer")
        for state in program.states:
            if state.type.kind != "real":
                raise UnsupportedError(f"the state {state.name} is an integer")
            if BATCH in program.axis_names() and BATCH not in state.type.axes:
                raise UnsupportedError(f"the state {state.name} is one for the whole batch")
        if not self.lead:
            raise UnsupportedError("no input has a batch")

    # -- code

    def written(self, real: str) -> StepWriter:
        """The writer of the function, when it has written; raises UnsupportedError."""
        lanes = vector_bytes() // (4 if real == "f32" else 8)
        return StepWriter(self.tick, self.program, 1, real, lanes, name="step")

    def _compiled(self, dtype: torch.dtype) -> Form | None:
        if dtype not in BITS:
            return None
        try:
            writer = self.written(BITS[dtype])
            kernel = writer.write()
        except UnsupportedError as problem:
            _refused(str(problem))
            return None
        slots = tuple((*self._slot(a.kind, a.key), self.shape(a.type), BATCH in a.type.axes) for a in kernel.arguments)
        native = compiled(kernel.text, kernel.name)
        entries = sum(math.prod(shape) for kind, _, shape, _ in slots if kind in (PARAM, BEFORE, STATE))
        return Form(kernel, native, slots, writer.clocks, entries)

    def _slot(self, kind: str, key: Any) -> tuple[int, str]:
        """What a tensor is for the caller, and its name."""
        name = key
        if kind == "given":
            name = self.program.body[key].attr("input")
        elif kind in ("before", "state"):
            name = anchor_key(*key) if key[1] else key[0]
        elif kind == "output":
            name = next(name for name, value in self.program.outputs if value == key)
        return KINDS[kind], name

    def shape(self, type: Type) -> tuple[int, ...]:
        """The shape of a tensor but for its batch."""
        axes = [a for a in self.order if a in type.axes and a not in (BATCH, TIME)]
        return (*(int(str(self.program.axis_size(a))) for a in axes), *(int(str(n)) for n in type.shape))

    def _plan(self, dtype: torch.dtype, batch: int) -> Plan | None:
        if dtype not in self.forms:
            self.forms[dtype] = self._compiled(dtype)
        form = self.forms[dtype]
        if form is None:
            return None
        lanes = batch if form.kernel.batched else 1
        for _, size in form.kernel.axes:
            lanes *= size
        count = HEADER + len(form.slots)
        threads = lanes > 1 and lanes * form.entries > WORTH_THREADS
        example = torch.empty((), dtype=dtype)
        read, states, outputs = [], [], {}
        for place, (kind, name, tail, batched) in enumerate(form.slots):
            shape = (batch, *tail) if batched else tail
            if kind in (STATE, OUTPUT):
                like = example.new_empty(shape)
                if kind == STATE:
                    states.append((place, name, form.clocks[name], like))
                else:
                    outputs[name] = place, name, like
            else:
                read.append((place, kind, name, shape))
        made = tuple(outputs[name] for name in self.results)
        table, pack = _Table(count), struct.Struct(f"={count}q").pack_into
        return Plan(form, tuple(read), tuple(states), made, example, lanes, threads, table, pack)

    # -- calls

    def __call__(
        self,
        params: Mapping[str, tuple[Any, str]],
        inputs: Mapping[str, Tensor],
        states: Mapping[str, Tensor],
        done: int,
        limits: Mapping[str, int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The outputs and the states after tick ``done + 1``, or None: the caller computes them in another way.

        ``params``: by name the module that has a parameter, and its key there; ``limits``: how many rows an integer
        input picks from."""
        dtype, batch = states[self.first].dtype, inputs[self.lead].shape[0]
        plan = self.plans.get((dtype, batch))
        if plan is None and (dtype, batch) not in self.plans:
            plan = self.plans[dtype, batch] = self._plan(dtype, batch)
        if plan is None or (self.resets and any(clock.fires(done + 1) for clock in self.resets)):
            return None
        after = dict(states)
        for name, period, key in self.anchors:
            if done % period == 0:
                after[key] = states[name]
        tensors: list[Tensor] = [plan.example] * len(plan.form.slots)
        for place, kind, name, shape in plan.read:
            if kind == PARAM:
                owner, key = params[name]
                tensor = owner._parameters[key]
            else:
                tensor = (inputs if kind == INPUT else after)[name]
            if not tensor.is_contiguous():
                tensor = tensor.contiguous()
            if tensor.shape != shape or not tensor.is_cpu:
                return None
            if tensor.dtype is not dtype and not (kind == INPUT and self._picks(name, tensor, limits)):
                return None
            tensors[place] = tensor
        changed: dict[str, Tensor] = {}
        for place, name, clock, like in plan.states:
            if clock is None or clock.fires(done + 1):
                changed[name] = tensors[place] = torch.empty_like(like)
            else:
                tensors[place] = after[name]  # not written at this tick
        outputs: dict[str, Tensor] = {}
        for place, name, like in plan.outputs:
            outputs[name] = tensors[place] = torch.empty_like(like)
        try:
            self._run(plan, tensors, done, batch)
        except RuntimeError:  # a tensor without memory: PyTorch traces or transforms
            return None
        after.update(changed)
        for name in self.spread:
            outputs[name] = outputs[name].expand(batch, *outputs[name].shape)
        return outputs, after

    def _picks(self, name: str, tensor: Tensor, limits: Mapping[str, int]) -> bool:
        """Whether an input is integers within their limit."""
        if name not in self.whole or tensor.dtype is not torch.int64:
            return False
        limit = limits.get(name)
        if limit is None:
            return True
        if tensor.numel() == 1:
            return 0 <= int(tensor) < limit
        return int(tensor.min()) >= 0 and int(tensor.max()) < limit

    @staticmethod
    def _run(plan: Plan, tensors: list[Tensor], done: int, batch: int) -> None:
        form = plan.form
        if plan.threads and torch.get_num_threads() > 1:
            call(form.native, form.kernel, tensors, plan.lanes, 1, 1, 0, done, 0, batch)
            return
        array = plan.table.array
        plan.pack(array, 0, 1, 1, 0, done, 0, batch, *[t.data_ptr() for t in tensors])
        array[-7], array[-5] = scratch(form.kernel.scratch), plan.lanes
        form.native.address(plan.table.pointers)
