"""What comes out of training one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor


@dataclass(frozen=True)
class Epoch:
    """One line of a seed's history."""

    seed: int
    epoch: int
    train_loss: float
    valid_mae: float
    valid_corr: float
    best: bool  # the lowest validation MAE so far
    terms: dict[str, float] = field(default_factory=dict)  # of the loss, by name


@dataclass
class Outcome:
    """A trained seed: the weights of its best epoch, its history, and what it predicts."""

    seed: int
    best_epoch: int
    state: dict[str, Tensor]
    history: list[Epoch]
    predictions: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # by split
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)  # by split

    @property
    def valid_mae(self) -> float:
        """The lowest validation MAE of the epochs that count, that of the best."""
        return self.history[self.best_epoch - 1].valid_mae

    def as_plain(self) -> dict[str, Any]:
        """Tensors, numbers and containers alone, as a checkpoint holds them."""
        return {
            "seed": self.seed,
            "best_epoch": self.best_epoch,
            "state": self.state,
            "history": [asdict(epoch) for epoch in self.history],
            "predictions": {k: torch.from_numpy(v) for k, v in self.predictions.items()},
            "metrics": self.metrics,
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> Outcome:
        """The reverse of `as_plain`.

        Raises:
            ValueError: a key or a type is wrong, or a prediction is not a number.
        """
        plain = _Plain(**content)
        for split, scores in plain.predictions.items():
            if scores.ndim != 1 or scores.dtype != torch.float64 or not scores.isfinite().all():
                raise ValueError(f"the predictions of split {split} are not numbers")
        return cls(
            plain.seed,
            plain.best_epoch,
            plain.state,
            plain.history,
            {split: scores.numpy() for split, scores in plain.predictions.items()},
            plain.metrics,
        )


@checked_dataclass(config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class _Plain:
    """What `as_plain` gives, and what a file that anybody wrote must hold."""

    seed: int
    best_epoch: int
    state: dict[str, Tensor]
    history: list[Epoch]
    predictions: dict[str, Tensor]
    metrics: dict[str, dict[str, float]]
