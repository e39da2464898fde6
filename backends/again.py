"""Second derivatives of loops that are other code than PyTorch's: the loop in the form of the torch backend,
differentiated by autograd.

A derivative that is itself to be differentiated (``create_graph=True``) is computed from the arguments that the loop
was called with, which the call keeps, by the same function in its torch form. What autograd records there has
derivatives of any order.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nldsl.backends.interface import FallbackWarning

Arrange = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class TorchForm:
    """``source`` has the function ``name(t, [T,] arguments..)``; ``counts``: it takes the number of ticks. ``order``:
    of each result of the other form, its place among those of the function. ``title``: the states, for people."""

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
        return _cotangents(lambda own: self.results(own, tick, count), arguments, wanted, grads)

    def through(
        self, arrange: Arrange, arguments: Sequence[Tensor], grads: Sequence[Tensor | None], *head: Any
    ) -> list[Tensor | None]:
        """The same for a caller that has other arguments and results: ``arrange(results, *head, *arguments)`` gives its
        results by ``results(arguments, tick, count)``."""
        wanted = [x.requires_grad for x in arguments]
        return _cotangents(lambda own: arrange(self.results, *head, *own), arguments, wanted, grads)


def _cotangents(
    run: Callable[[Sequence[Tensor]], Sequence[Tensor]],
    arguments: Sequence[Tensor],
    wanted: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    # views: what one argument was computed from may be another one, whose part is not meant here
    own = [x.view_as(x) for x in arguments]
    pairs = [(y, g.to(y.dtype)) for y, g in zip(run(own), grads, strict=True) if g is not None and y.requires_grad]
    inputs = [x for x, w in zip(own, wanted, strict=True) if w]
    if not pairs or not inputs:
        return [None] * len(own)
    outputs, given = zip(*pairs, strict=True)
    found = iter(torch.autograd.grad(outputs, inputs, given, create_graph=True, allow_unused=True))
    return [next(found) if w else None for w in wanted]
