"""The second derivative of a native loop: the loop in the form of the torch backend, differentiated by autograd.

A derivative that is itself to be differentiated (``create_graph=True``) is computed from the arguments that the
function of the loop was called with, which the call keeps, by the same function in its torch form. What autograd
records there has derivatives of any order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nldsl.backends.mlir.function import FallbackWarning


@dataclass(frozen=True)
class TorchForm:
    """``source`` has the function ``name(t, [T,] arguments..)``; ``counts``: it takes the number of ticks. ``order``:
    of each result of the native loop, its place among those of the function. ``title``: the states, for people."""

    source: str
    name: str
    counts: bool
    order: tuple[int, ...]
    title: str


class Differentiable:
    """The torch form of a loop, written and imported when it is first needed, and said then. ``functions``: imports
    source that the torch backend has written."""

    def __init__(self, make: Callable[[], TorchForm], functions: Callable[[str], Any]) -> None:
        self._make = make
        self._functions = functions
        self._made: tuple[TorchForm, Callable[..., Any]] | None = None

    def form(self) -> TorchForm:
        """As text."""
        return self._make()

    def _function(self) -> tuple[TorchForm, Callable[..., Any]]:
        if self._made is None:
            form = self._make()
            self._made = form, getattr(self._functions(form.source), form.name)
            text = f"a derivative of a derivative of the loop of {form.title} has no native form; it and the first one"
            warnings.warn(f"{text} (`create_graph=True`) keep that of the torch backend", FallbackWarning, stacklevel=2)
        return self._made

    def results(self, arguments: Sequence[Tensor], tick: int, count: int) -> list[Tensor]:
        """States, anchors and streams, as autograd records them."""
        form, function = self._function()
        found = function(tick, *((count,) if form.counts else ()), *arguments)
        given = found if isinstance(found, tuple) else (found,)
        return [given[n] for n in form.order]

    def cotangents(
        self,
        arguments: Sequence[Tensor],
        wanted: Sequence[bool],
        grads: Sequence[Tensor | None],
        tick: int,
        count: int,
    ) -> list[Tensor | None]:
        """Of the arguments, from those of states, anchors and streams; with a graph."""
        # views: what one argument was computed from may be another one, whose part is not meant here
        own = [x.view_as(x) for x in arguments]
        results = self.results(own, tick, count)
        pairs = [(y, g.to(y.dtype)) for y, g in zip(results, grads, strict=True) if g is not None and y.requires_grad]
        inputs = [x for x, w in zip(own, wanted, strict=True) if w]
        if not pairs:
            return [None] * len(own)
        outputs, given = zip(*pairs, strict=True)
        found = iter(torch.autograd.grad(outputs, inputs, given, create_graph=True, allow_unused=True))
        return [next(found) if w else None for w in wanted]
