"""What comes out of training one seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
        """The lowest validation MAE of all epochs, that of the best."""
        return min(epoch.valid_mae for epoch in self.history)

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
        """The reverse of `as_plain`."""
        return cls(
            seed=content["seed"],
            best_epoch=content["best_epoch"],
            state=content["state"],
            history=[Epoch(**epoch) for epoch in content["history"]],
            predictions={k: v.numpy() for k, v in content["predictions"].items()},
            metrics=content["metrics"],
        )
