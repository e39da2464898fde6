"""Loops as operations that PyTorch knows: with shapes for tracing, and a derivative.

An operation can only name its loop by a text. ``LOOPS`` is that table: it grows with every loop that is compiled in
this process, and an entry never changes, since its name is the hash of what it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from nldsl.backends.mlir.native_loop import NativeLoop

LOOPS: dict[str, NativeLoop] = {}
PLAIN = (Tensor, torch.nn.Parameter)


def register(native: NativeLoop, layout: str) -> str:
    """The name of a loop. ``layout``: which argument of its function is which of its tensors."""
    name = hashlib.sha256((native.text() + layout).encode()).hexdigest()[:16]
    put(native, name)
    return name


def put(native: NativeLoop, name: str) -> None:
    """A loop that had this name when its program was compiled."""
    LOOPS.setdefault(name, native)


# Defined piece by piece: an operation made by ``custom_op`` imports torch._dynamo when it is first called (seconds).
_LIBRARY: Any = torch.library.Library("nldsl_mlir", "DEF")  # type: ignore[no-untyped-call]
_LIBRARY.define("loop(Tensor[] tensors, str name, int tick, int count, bool save, bool ends, bool keep) -> Tensor[]")
_LIBRARY.define(
    "loop_backward(Tensor[] tensors, Tensor[] boundaries, Tensor[] cotangents, str name, int tick, int count,"
    " bool ends) -> Tensor[]"
)


def _loop(
    tensors: list[Tensor], name: str, tick: int, count: int, save: bool, ends: bool = True, keep: bool = False
) -> list[Tensor]:
    """The states after ``count`` ticks, the streams, and what the derivative needs of them, with ``keep`` more of it
    than must be. Without ``ends`` nobody reads the states."""
    return LOOPS[name].forward(tensors, tick, count, save, ends, keep)


def _loop_backward(
    tensors: list[Tensor],
    boundaries: list[Tensor],
    cotangents: list[Tensor],
    name: str,
    tick: int,
    count: int,
    ends: bool = True,
) -> list[Tensor]:
    """The cotangents of ``tensors``."""
    found = LOOPS[name].backpropagate(tensors, boundaries, cotangents, tick, count, ends=ends)
    return [cotangent for cotangent in found if cotangent is not None]  # all of them: nothing was left out


def _loop_shapes(
    tensors: list[Tensor], name: str, tick: int, count: int, save: bool, ends: bool = True, keep: bool = False
) -> list[Tensor]:
    native = LOOPS[name]
    batch = native.batch(tensors)
    like = next(t for t in tensors if t.is_floating_point())
    found = [like.new_empty(native.shape(a.type, batch, count)) for a in (*native.states, *native.streams)]
    if save:
        number = native.saved_number(int(tick), int(count))
        found += [like.new_empty(native.saved_shape(a, batch, number)) for a in native.boundaries]
    if save and keep:
        found.append(like.new_empty([native.kept_layout(native.cut(int(tick), int(count), ends), batch).total]))
    return found


def _loop_backward_shapes(tensors: list[Tensor], *_rest: Any) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, ctx.name, ctx.tick, ctx.count, _, ctx.ends, _ = inputs
    native = LOOPS[ctx.name]
    results = len(native.states) + len(native.streams)
    ctx.number = len(tensors), results
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[results:])
    ctx.shapes = [(x.shape, x.dtype) for x in output[:results]]


def _backward(ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
    given, results = ctx.number
    saved = ctx.saved_tensors
    tensors, boundaries = saved[:given], saved[given:]
    cotangents = [
        torch.zeros(shape, dtype=dtype) if grad is None else grad.contiguous()
        for grad, (shape, dtype) in zip(grads[:results], ctx.shapes, strict=True)
    ]
    call = ctx.name, ctx.tick, ctx.count, ctx.ends
    found = torch.ops.nldsl_mlir.loop_backward(tensors, boundaries, cotangents, *call)
    wanted = [g if t.is_floating_point() and t.requires_grad else None for g, t in zip(found, tensors, strict=True)]
    return wanted, None, None, None, None, None, None


def _no_second(*_arguments: Any) -> None:
    """PyTorch would take a derivative that is not there for zero."""
    raise RuntimeError(
        "a native loop has no second derivative here (`require_backend`, or PyTorch traces it): take it with "
        "torch.func (hessian, grad of grad), or compile the module without that, or with the torch backend"
    )


_LIBRARY.impl("loop", _loop, "CPU")
_LIBRARY.impl("loop_backward", _loop_backward, "CPU")
torch.library.register_fake("nldsl_mlir::loop", _loop_shapes, lib=_LIBRARY)
torch.library.register_fake("nldsl_mlir::loop_backward", _loop_backward_shapes, lib=_LIBRARY)
torch.library.register_autograd("nldsl_mlir::loop", _backward, setup_context=_setup, lib=_LIBRARY)
torch.library.register_autograd("nldsl_mlir::loop_backward", _no_second, lib=_LIBRARY)


def _traced(tensors: Sequence[Tensor]) -> bool:
    """Whether something looks at the operations instead of their results alone: a compiler, a mode, another class."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() or torch._C._is_tracing():
        return True
    return any(type(t) not in PLAIN for t in tensors)


class _Direct(torch.autograd.Function):
    """The operation and its derivative without the dispatcher, which spends a millisecond on lists of tensors."""

    @staticmethod
    def forward(
        ctx: Any, name: str, tick: int, count: int, ends: bool, keep: bool, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """``tensors``: of the loop, then the arguments of its function, which only second derivatives need."""
        native = LOOPS[name]
        found = native.forward(tensors[: len(native.inputs)], tick, count, True, ends, keep)
        results = len(native.states) + len(native.streams)
        ctx.call, ctx.results = (name, tick, count, ends), results
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *found[results:])
        return tuple(found[:results])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        name, tick, count, ends = ctx.call
        native = LOOPS[name]
        given, all_given = len(native.inputs), len(ctx.needs_input_grad) - 5
        saved = ctx.saved_tensors
        tensors, arguments, boundaries = saved[:given], saved[given:all_given], saved[all_given:]
        wanted, rest = ctx.needs_input_grad[5 : 5 + given], ctx.needs_input_grad[5 + given :]
        found: Sequence[Tensor | None]
        if torch.is_grad_enabled() and native.second is not None and arguments:  # with create_graph
            cotangents = native.second.cotangents(arguments, rest, grads, tick, count)
            return *[None] * (5 + given), *cotangents
        if torch.is_grad_enabled():  # what comes out knows that it has no derivative
            batch, real = native.batch(tensors), next(t.dtype for t in tensors if t.is_floating_point())
            results = [*native.states, *native.streams]
            cotangents = [
                torch.zeros(native.shape(a.type, batch, count), dtype=real) if grad is None else grad.contiguous()
                for grad, a in zip(grads, results, strict=True)
            ]
            lists = list(tensors), list(boundaries), cotangents
            found = torch.ops.nldsl_mlir.loop_backward(*lists, name, tick, count, ends)
        else:
            found = native.backpropagate(tensors, boundaries, grads, tick, count, wanted, ends)
        own = (g if w else None for g, w in zip(found, wanted, strict=True))
        return *[None] * 5, *own, *[None] * len(arguments)


def number(value: float, rank: int, like: Tensor) -> Tensor:
    """A number as a tensor that stretches to any shape of that rank."""
    return torch.full((1,) * rank, float(value), dtype=like.dtype, device=like.device)


def run(
    name: str,
    tensors: list[Tensor],
    tick: int,
    count: int,
    arguments: Sequence[Tensor] = (),
    ends: bool = True,
) -> list[Tensor]:
    """States and streams of a loop; keeps what the derivative needs only where there will be one. ``arguments``: of the
    function of the loop, for second derivatives. Without ``ends`` nobody reads the states, which hold anything.

    The loop computes in float64 where its states have it, else in float32; states keep their dtype.
    """
    native = LOOPS[name]
    if any(t.device.type != "cpu" for t in tensors):
        raise RuntimeError(
            "this module was compiled for the CPU (backend mlir): move it back, or compile it with torch"
        )
    kinds = [t.dtype for a, t in zip(native.inputs, tensors, strict=True) if a.kind == "state"]
    streams = kinds or [t.dtype for t in tensors if t.is_floating_point()]
    real = torch.float64 if torch.float64 in streams else torch.float32
    given = [t if t.dtype is real else t.to(real if t.is_floating_point() else torch.int64) for t in tensors]
    save = torch.is_grad_enabled() and any(t.requires_grad for t in given)
    if save and not native.facts.derived:
        raise RuntimeError("this loop has no derivative of its own: compile the module with the torch backend")
    # an exported program has no limit to its batch
    keep = save and not torch.compiler.is_exporting() and native.keeps(native.batch(given), count, real.itemsize)
    if _traced(given):
        found = torch.ops.nldsl_mlir.loop(given, name, tick, count, save, ends, keep)
    elif save:
        found = _Direct.apply(name, tick, count, ends, keep, *given, *arguments)  # type: ignore[no-untyped-call]
    else:
        found = native.forward(given, tick, count, False, ends)
    states = [t.to(kind) for t, kind in zip(found, kinds, strict=False)]
    results = list(found[len(states) : len(states) + len(native.streams)])
    if kinds:
        return states + results
    kind = reduce(torch.promote_types, streams)  # without states the results are what PyTorch would make of the streams
    return results if kind is real else [x.to(kind) for x in results]
