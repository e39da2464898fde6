"""Continuing a text through `module.step`: time and memory per token do not depend on the length."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TextIO

import torch

from nldsl.train.errors import problem
from nldsl.train.interface import TrainableModule

__all__ = ["ByteWriter", "SampleOptions", "generate", "logits_of"]

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


@dataclass(frozen=True)
class SampleOptions:
    """`temperature` 0 takes the likeliest token; `top_k` 0 allows every token."""

    count: int = 256
    temperature: float = 1.0
    top_k: int = 0
    seed: int = 0

    def check(self) -> None:
        """Refuse values that mean nothing."""
        if not self.temperature >= 0:
            raise problem("NL0820", f"`--temperature {self.temperature}` must be 0 or more")
        if self.top_k < 0 or self.count < 0:
            raise problem("NL0820", "`--top-k` and `--tokens` must be 0 or more")


def generate(module: TrainableModule, prompt: Sequence[int], options: SampleOptions) -> Iterator[int]:
    """Yield the tokens that follow the prompt as they are drawn. An empty prompt stands for a line feed, 10."""
    options.check()
    generator = torch.Generator().manual_seed(options.seed)
    state = module.init_state(1)
    logits: torch.Tensor | None = None
    with torch.no_grad():
        for token in prompt or (10,):
            logits, state = _step(module, token, state)
        for _ in range(options.count):
            assert logits is not None
            token = choose(logits, options, generator)
            yield token
            logits, state = _step(module, token, state)


def choose(logits: torch.Tensor, options: SampleOptions, generator: torch.Generator) -> int:
    """Draw one token; in float64 on the host, so that a seed means the same everywhere."""
    scores = logits.detach().to("cpu", torch.float64)
    if not torch.isfinite(scores).all():
        raise problem("NL0821", "the output of the model is not finite", hints=("sample from an earlier checkpoint",))
    if options.temperature == 0:
        return int(scores.argmax())
    scores = scores / options.temperature
    if options.top_k and options.top_k < scores.numel():
        kept = torch.topk(scores, options.top_k)
        return int(kept.indices[torch.multinomial(kept.values.softmax(0), 1, generator=generator)])
    return int(torch.multinomial(scores.softmax(0), 1, generator=generator))


def logits_of(module: TrainableModule, output: Any) -> torch.Tensor:
    """Return the scores of the next token from the output of a step with one row."""
    if isinstance(output, dict):
        output = next(iter(output.values()), None)
    if isinstance(output, (tuple, list)):
        output = output[0] if output else None
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or not output.is_floating_point():
        raise problem(
            "NL0806",
            f"`{module.program.name}` does not return a score for each possible next token",
            hints=("end the model with `return logits`",),
        )
    return output[0]


def _step(module: TrainableModule, token: int, state: Any) -> tuple[torch.Tensor, Any]:
    output, state = module.step(torch.tensor([token]), state)
    return logits_of(module, output), state


class ByteWriter:
    """Writes bytes as they come. A terminal gets text: what is not UTF-8 or would control it is shown as an escape."""

    def __init__(self, text: TextIO, raw: BinaryIO | None = None) -> None:
        self._text = text
        self._raw = raw
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def write(self, data: bytes) -> None:
        """Show some bytes now; a character that is not complete yet waits for the rest."""
        if self._raw is not None:
            self._raw.write(data)
            self._raw.flush()
            return
        self._show(self._decoder.decode(data))

    def finish(self) -> None:
        """Show what is left of a character that was cut short."""
        if self._raw is None:
            self._show(self._decoder.decode(b"", final=True))

    def _show(self, text: str) -> None:
        shown = text.translate(_CONTROL)
        encoding = self._text.encoding or "utf-8"
        self._text.write(shown.encode(encoding, errors="backslashreplace").decode(encoding))
        self._text.flush()
