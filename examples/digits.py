"""The digits of scikit-learn: 1,797 images of 8 by 8 pixels (an extra: ``pip install "nldsl-compiler[examples]"``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Digits:
    """Images ``[n, 64]`` between 0 and 1, labels ``[n]``."""

    images: torch.Tensor
    labels: torch.Tensor

    def of(self, classes: tuple[int, ...]) -> Digits:
        """Only these classes."""
        kept = torch.isin(self.labels, torch.tensor(classes))
        return Digits(self.images[kept], self.labels[kept])

    def batch(self, count: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """A random batch; each image is a sequence of one token."""
        rows = torch.randint(len(self.labels), (count,), generator=generator)
        return {"image": self.images[rows, None], "label": self.labels[rows, None]}

    def everything(self) -> dict[str, torch.Tensor]:
        """All images, as a batch."""
        return {"image": self.images[:, None], "label": self.labels[:, None]}


def load(seed: int) -> tuple[Digits, Digits]:
    """Training and test images, 4 to 1, split by the seed."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.data, dtype=torch.float32) / 16
    labels = torch.tensor(found.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    test, rest = order[: len(order) // 5], order[len(order) // 5 :]
    return Digits(images[rest], labels[rest]), Digits(images[test], labels[test])
