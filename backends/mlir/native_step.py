"""One tick of a module as one native call: what ``module.step`` runs where no gradient is wanted.

Everything that can be known before a call is: a call checks that its tensors are as expected, makes the results, fills
a table of addresses, and jumps. What is not as expected gives None, and the caller goes the usual way.
"""

from __future__ import annotations

import ctypes
import math
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from nldsl.backends.mlir.engine import Native, vector_bytes
from nldsl.backends.mlir.function import HEADER, NUMBERS, FallbackWarning, Kernel, UnsupportedError
from nldsl.backends.mlir.known import Made, Parts, function
from nldsl.backends.mlir.launch import spread
from nldsl.backends.mlir.native_loop import BITS, over_sequences
from nldsl.backends.mlir.sliding import slid
from nldsl.backends.mlir.tick_loop import rows_of
from nldsl.ir.chunk import ChunkLoop
from nldsl.ir.program import Program
from nldsl.ir.schedule import anchor_key, anchors
from nldsl.ir.store import plain, restored
from nldsl.ir.types import BATCH, TIME, Clock, Type, axis_order

if TYPE_CHECKING:
    from nldsl.backends.mlir.step_kernel import StepWriter

WORTH_THREADS = 1 << 18  # numbers that all lanes read: fewer are read while a thread wakes up
TICK = NUMBERS.index("tick0")

INPUT, PARAM, BEFORE, STATE, OUTPUT = range(5)
KINDS = {"given": INPUT, "param": PARAM, "before": BEFORE, "fixed": BEFORE, "state": STATE, "output": OUTPUT}
Shape = tuple[int, ...]
Slot = tuple[int, str, tuple[int, ...], bool]  # what a tensor is, its name, its shape, whether it has a batch


@dataclass(frozen=True)
class Form:
    """The compiled function for one dtype and number of sequences in a lane.

    ``slots``: its tensors, with shapes but for the batch. ``clocks``: at the
    ticks of which clock alone a state changes. ``entries``: how many numbers a lane reads. ``windows``: states that are
    views of buffers, with the rows that they keep and get, and those of a buffer."""

    kernel: Kernel
    native: Native
    slots: tuple[Slot, ...]
    clocks: Mapping[str, Clock | None]
    entries: int
    windows: Mapping[str, tuple[int, int, int]]


def strides(shape: Sequence[int]) -> Shape:
    """Of a tensor in one piece."""
    return tuple(math.prod(shape[n + 1 :]) for n in range(len(shape)))


class _Table(threading.local):
    """What a function is called with, once for each thread: numbers, addresses of tensors, then the four arguments of
    the function (the table, scratch memory, the lanes) and their addresses."""

    def __init__(self, size: int, lanes: int, batch: int, memory: int) -> None:
        self.array = array = (ctypes.c_int64 * (size + 8))()
        base = ctypes.addressof(array)
        first = base + 8 * size
        self.base = base
        array[:HEADER] = [1, 1, 0, 0, 0, batch, batch]
        array[size] = base
        self.memory = ctypes.create_string_buffer(memory + 64)  # of its own: that of all calls may move
        array[size + 1] = (ctypes.addressof(self.memory) + 63) // 64 * 64
        array[size + 3] = lanes
        array[size + 4 :] = [first, first + 8, first + 16, first + 24]
        self.pointers = ctypes.c_void_p(first + 32)


@dataclass(frozen=True)
class Plan:
    """A form for one size of the batch: the tensors that it reads (place in the table; position, or name; shape), the
    states and outputs that it writes (place, name, shape, strides). ``whole``: inputs that are integers. ``windows``:
    see ``sliding.slid`` for the last three."""

    form: Form
    dtype: torch.dtype
    inputs: tuple[tuple[int, int, torch.Size], ...]
    whole: tuple[tuple[int, int, torch.Size, str], ...]
    params: tuple[tuple[int, str, torch.Size], ...]
    before: tuple[tuple[int, str, torch.Size], ...]
    windows: tuple[tuple[int, str, torch.Size, int, int, int], ...]
    states: tuple[tuple[int, str, Clock | None, Shape, Shape], ...]
    outputs: tuple[tuple[int, str, Shape, Shape], ...]
    batch: int
    lanes: int
    threads: bool
    table: _Table


def _traced() -> int:
    """How many modes of PyTorch look at each operation: a tracer would take the results for constants."""
    return 0


_traced = getattr(torch._C, "_len_torch_dispatch_stack", _traced)


def _empty(shape: Sequence[int], strides: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor whose entries are not set."""
    return torch.empty_strided(shape, strides, dtype=dtype)


# what the code of Inductor makes its tensors with, in half the time; not public, so that it may be missing
_empty = getattr(getattr(torch._C._dynamo, "guards", None), "_empty_strided_cpu", _empty)


def _refused(why: str) -> None:
    text = f"`step` has no native form: {why}; it keeps that of the torch backend"
    warnings.warn(text, FallbackWarning, stacklevel=3)


class NoStep:
    """In the place of a ``NativeStep``, for a program that has none: says so when it is first called."""

    def __init__(self, why: str) -> None:
        self.why = why

    def stored(self) -> dict[str, Any]:
        """What a cache keeps, as JSON."""
        return {"refused": self.why}

    def __call__(self, *_given: object) -> None:
        """Nothing: the caller computes the tick in another way."""
        if self.why:
            _refused(self.why)
            self.why = ""


def _refuse_what_is_not_simple(tick: ChunkLoop, program: Program) -> None:
    names = [name for name, _ in program.outputs]
    if len(set(names)) < len(names):
        raise UnsupportedError("two outputs of one name")
    made = {v for v, _ in tick.outputs}
    for name, value in program.outputs:
        if value not in made:
            raise UnsupportedError(f"the output {name} is not computed")
        if program.body[value].type.kind != "real":
            raise UnsupportedError(f"the output {name} is an integer")
    for state in program.states:
        if state.type.kind != "real":
            raise UnsupportedError(f"the state {state.name} is an integer")
    if not any(BATCH in d.type.axes for d in program.inputs if not d.ahead):
        raise UnsupportedError("no input has a batch")


class NativeStep:
    """``step(params, inputs, states, done, limits)``: one tick of a batch."""

    def __init__(self, program: Program, whole: bool, tick: Callable[[], ChunkLoop], origin: Parts = ("",)) -> None:
        """``whole``: the tick looks over the sequences of a batch. ``tick`` gives it where a function is to be written.
        ``origin``: the entry of the program in the cache."""
        self.tick = tick
        self.origin = origin
        self.program = program
        self.order = axis_order((TIME, *program.axis_names()), program.axis_names())
        self.anchors = tuple((name, period, anchor_key(name, period)) for name, period in anchors(program))
        self.first = program.states[0].name
        self.results = tuple(name for name, _ in program.outputs)
        self.spread = tuple(n for n, v in program.outputs if BATCH not in program.body[v].type.axes)
        self.resets = tuple(s.reset.clock for s in program.states if s.reset.clock is not None)
        now = [d for d in program.inputs if not d.ahead]
        self.positions = {d.name: n for n, d in enumerate(now)}
        self.lead = next((n for n, d in enumerate(now) if BATCH in d.type.axes), -1)
        self.whole = frozenset(d.name for d in program.inputs if d.type.kind == "int")
        self.all = whole
        self.forms: dict[tuple[torch.dtype, int], Form | None] = {}
        self.plans: dict[tuple[torch.dtype, int], Plan | None] = {}
        self.last: Plan | None = None

    @staticmethod
    def of(tick: ChunkLoop, program: Program, origin: Parts = ("",)) -> NativeStep:
        """Raises UnsupportedError for a program that has no such form."""
        _refuse_what_is_not_simple(tick, program)
        return NativeStep(program, over_sequences(tick, program), lambda: tick, origin)

    def stored(self) -> dict[str, Any]:
        """What a cache keeps, as JSON."""
        return {"whole": self.all}

    # -- code

    def written(self, real: str, rows: int = 0) -> StepWriter:
        """The writer of the function; raises UnsupportedError. ``rows``: see ``KernelWriter``."""
        lanes = vector_bytes() // (4 if real == "f32" else 8)
        rows = max(rows, 1) if self.all else rows
        from nldsl.backends.mlir.step_kernel import StepWriter

        return StepWriter(self.tick(), self.program, 1, real, lanes, name="step", rows=rows, several=False)

    def _rows(self, batch: int) -> int:
        """How many sequences a lane has: all where the tick looks over them, several where the weights of the program
        are larger than its states."""
        if self.all:
            return batch
        weights = sum(math.prod(self.shape(p.type)) for p in self.program.params)
        states = sum(math.prod(self.shape(s.type)) for s in self.program.states)
        return rows_of(batch, 1) if weights > states else 0

    def _compiled(self, dtype: torch.dtype, rows: int) -> Form | None:
        if dtype not in BITS:
            return None

        def make() -> Made:
            writer = self.written(BITS[dtype], rows)
            kernel = writer.write()
            windows = tuple((s.name, (s.kept, s.rows, s.room)) for s in writer.slides.values())
            return kernel, plain((tuple(writer.clocks.items()), windows))

        try:
            kernel, native, more = function((*self.origin, "step", BITS[dtype], rows), make)
        except UnsupportedError as problem:
            if self.all or not rows:
                _refused(str(problem))
            return None
        slots = tuple((*self._slot(a.kind, a.key), self.shape(a.type), BATCH in a.type.axes) for a in kernel.arguments)
        entries = sum(math.prod(shape) for kind, _, shape, _ in slots if kind in (PARAM, BEFORE, STATE))
        clocks, windows = restored(more)
        return Form(kernel, native, slots, dict(clocks), entries, dict(windows))

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
        rows = self._rows(batch)
        if (dtype, rows) not in self.forms:
            self.forms[dtype, rows] = self._compiled(dtype, rows)
        form = self.forms[dtype, rows]
        if form is None and rows and not self.all:
            form = self.forms[dtype, 0] = self._compiled(dtype, 0)
        if form is None:
            return None
        lanes = form.kernel.count(batch)
        threads = lanes > 1 and lanes * form.entries > WORTH_THREADS
        inputs, whole, params, before, windows, states, outputs = [], [], [], [], [], [], {}
        for number, (kind, name, tail, batched) in enumerate(form.slots):
            place = HEADER + number
            shape = torch.Size((batch, *tail) if batched else tail)
            if kind == STATE:
                states.append((place, name, form.clocks[name], tuple(shape), strides(shape)))
            elif kind == OUTPUT:
                outputs[name] = place, name, tuple(shape), strides(shape)
            elif kind == PARAM:
                params.append((place, name, shape))
            elif kind == BEFORE and name in form.windows:
                kept, rows, room = form.windows[name]
                dim = len(shape) - len(self.program.state(name).type.shape)
                windows.append((place, name, torch.Size((*shape[:dim], kept, *shape[dim + 1 :])), dim, rows, room))
            elif kind == BEFORE:
                before.append((place, name, shape))
            elif name not in self.positions:
                return None  # one tick ahead: nobody asks for such a tick
            elif name in self.whole:
                whole.append((place, self.positions[name], shape, name))
            else:
                inputs.append((place, self.positions[name], shape))
        made = tuple(outputs[name] for name in self.results)
        table = _Table(HEADER + len(form.slots), lanes, batch, form.kernel.scratch)
        return Plan(
            form, dtype, tuple(inputs), tuple(whole), tuple(params), tuple(before), tuple(windows), tuple(states),
            made, batch, lanes, threads, table,
        )  # fmt: skip

    # -- calls

    def __call__(
        self,
        params: Mapping[str, tuple[Any, str]],
        inputs: Sequence[Tensor],
        states: Mapping[str, Tensor],
        done: int,
        limits: Mapping[str, int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """The outputs and the states after tick ``done + 1``, or None: the caller computes them in another way.

        ``params``: by name the module that has a parameter, and its key there; ``inputs``: in the order of the program,
        without those that are one tick ahead; ``limits``: how many rows an integer input picks from."""
        plan = self.last
        found = None if plan is None else self._called(plan, params, inputs, states, done, limits)
        if found is None:
            other = self._plan_of(states[self.first].dtype, inputs[self.lead].shape[0])
            if other is not None and other is not plan:
                self.last = other
                found = self._called(other, params, inputs, states, done, limits)
        return found

    def _plan_of(self, dtype: torch.dtype, batch: int) -> Plan | None:
        key = dtype, batch
        if key not in self.plans:
            self.plans[key] = self._plan(dtype, batch)
        return self.plans[key]

    def _called(
        self,
        plan: Plan,
        params: Mapping[str, tuple[Any, str]],
        inputs: Sequence[Tensor],
        states: Mapping[str, Tensor],
        done: int,
        limits: Mapping[str, int],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        """One tick if all is as the plan has it, else None. Written out: each line is some percent of a small tick."""
        if (
            _traced()
            or forward_ad._current_level >= 0
            or (self.resets and any(clock.fires(done + 1) for clock in self.resets))
        ):
            return None
        after = dict(states)
        for name, period, key in self.anchors:
            if done % period == 0:
                after[key] = states[name]
        table, dtype = plan.table, plan.dtype
        array = table.array
        copies = []  # kept until the call has ended
        try:
            for place, position, shape in plan.inputs:
                tensor = inputs[position]
                if tensor.__class__ is not Tensor or tensor.dtype is not dtype or not tensor.is_cpu:
                    return None
                if tensor.shape != shape:
                    return None
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    copies.append(tensor)
                array[place] = tensor.data_ptr()
            for place, name, shape in plan.before:
                tensor = after[name]
                if tensor.__class__ is not Tensor or tensor.dtype is not dtype or not tensor.is_cpu:
                    return None
                if tensor.shape != shape:
                    return None
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    copies.append(tensor)
                array[place] = tensor.data_ptr()
            for place, name, shape in plan.params:
                owner, key = params[name]
                tensor = owner._parameters[key]
                if tensor.dtype is not dtype or tensor.shape != shape or not tensor.is_cpu:
                    return None
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    copies.append(tensor)
                array[place] = tensor.data_ptr()
            for place, position, shape, name in plan.whole:
                tensor = inputs[position]
                if tensor.__class__ is not Tensor or tensor.shape != shape or not tensor.is_cpu:
                    return None
                if not _picks(tensor, limits.get(name)):
                    return None
                if not tensor.is_contiguous():
                    tensor = tensor.contiguous()
                    copies.append(tensor)
                array[place] = tensor.data_ptr()
            for _, name, shape, *_ in plan.windows:
                tensor = after[name]
                if tensor.__class__ is not Tensor or tensor.dtype is not dtype or not tensor.is_cpu:
                    return None
                if tensor.shape != shape:
                    return None
            for place, name, _, dim, added, room in plan.windows:
                array[place], after[name] = slid(after[name], dim, added, room)
        except RuntimeError:  # a tensor without memory: PyTorch traces or transforms
            return None
        for place, name, clock, size, steps in plan.states:
            if clock is None or clock.fires(done + 1):
                after[name] = tensor = _empty(size, steps, dtype)
                array[place] = tensor.data_ptr()  # at other ticks it is not written
        outputs = {}
        for place, name, size, steps in plan.outputs:
            outputs[name] = tensor = _empty(size, steps, dtype)
            array[place] = tensor.data_ptr()
        array[TICK] = done
        if plan.threads and torch.get_num_threads() > 1:
            spread(plan.form.native, plan.form.kernel, table.base, plan.lanes)
        else:
            plan.form.native.address(table.pointers)
        for name in self.spread:
            outputs[name] = outputs[name].expand(plan.batch, *outputs[name].shape)
        return outputs, after


def _picks(tensor: Tensor, limit: int | None) -> bool:
    """Whether an input is integers below their limit."""
    if tensor.dtype is not torch.int64:
        return False
    if limit is None:
        return True
    if tensor.numel() == 1:
        return 0 <= int(tensor) < limit
    return int(tensor.min()) >= 0 and int(tensor.max()) < limit
