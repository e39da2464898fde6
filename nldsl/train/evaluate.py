"""The loss on held-out tokens, in nats and in bits per token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from nldsl.train import rng
from nldsl.train.data import TokenStream
from nldsl.train.interface import TrainableModule
from nldsl.train.sampler import evaluation_batches

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """The mean loss per predicted token. For bytes and a cross entropy, `bits` is bits per byte."""

    nats: float
    tokens: int

    @property
    def bits(self) -> float:
        """The loss in bits."""
        return self.nats / math.log(2)


def evaluate(
    module: TrainableModule,
    stream: TokenStream,
    *,
    batch: int,
    length: int,
    limit: int = 0,
    stop: Callable[[], bool] = lambda: False,
) -> Evaluation | None:
    """Predict each of the first `limit` tokens once, every window from fresh states; None if `stop` says so."""
    total, count = 0.0, 0
    carried = module.carried_state()
    with torch.no_grad(), rng.preserved():  # whether and when a run is evaluated must not change it
        for tokens in evaluation_batches(stream, batch=batch, length=length, limit=limit):
            if stop():
                break
            loss, _ = module.loss(tokens, state=module.init_state(tokens.shape[0]))
            predicted = tokens.shape[0] * (tokens.shape[1] - 1)
            total += float(loss) * predicted
            count += predicted
    module.set_carried_state(carried)
    return Evaluation(total / count, count) if count and not stop() else None
