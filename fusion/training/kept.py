"""What a training keeps to go on from, as a file says it: compared with the training before use.

The file's sums find accidents. Whoever writes one on purpose writes right sums, and could make a
training go on with weights of another shape, a history that never was, or what torch stumbles over.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ConfigDict, NonNegativeInt
from pydantic.dataclasses import dataclass
from torch import Tensor

from clipmsa.fusion.networks.registry import Trainable

from .checkpoint import check_weights
from .config import RunConfig
from .outcome import Epoch


@dataclass(config=ConfigDict(extra="forbid", arbitrary_types_allowed=True))
class Kept:
    """All that the next epoch depends on.

    Raises:
        ValueError: a key or a type is wrong.
    """

    model: dict[str, Tensor]
    average: dict[str, Tensor]
    training: dict[str, Tensor]  # what the network needs for training alone
    steps: NonNegativeInt
    optimisers: list[dict[str, Any]]
    best_state: dict[str, Tensor]
    best_epoch: NonNegativeInt  # 0 while epochs only prepare
    history: list[Epoch]
    order: Tensor
    random: Tensor
    cuda: Tensor | None

    def as_plain(self) -> dict[str, Any]:
        """Tensors, numbers and containers alone, as a file holds them."""
        return {**vars(self), "history": [asdict(epoch) for epoch in self.history]}

    def check(
        self,
        model: Trainable,
        optimisers: Sequence[torch.optim.Optimizer],
        config: RunConfig,
        seed: int,
    ) -> None:
        """Compare with the training that is to go on.

        Raises:
            ValueError: something is not of it.
        """
        expected = model.state_dict()
        for state in (self.model, self.average, self.best_state):
            check_weights(state, expected)
        check_weights(self.training, model.training_state())
        if len(self.optimisers) != len(optimisers):
            raise ValueError(f"{len(self.optimisers)} optimisers, must be {len(optimisers)}")
        for kept, optimiser in zip(self.optimisers, optimisers, strict=True):
            _check_optimiser(kept, optimiser)
        found = [(epoch.seed, epoch.epoch) for epoch in self.history]
        if found != [(seed, number + 1) for number in range(len(found))]:
            raise ValueError("the history is not one epoch of this seed after another")
        if not all(math.isfinite(epoch.valid_mae) for epoch in self.history):
            raise ValueError("a valid_mae of the history is not a number")
        if not self.best_epoch <= len(found) <= config.training.epochs:
            raise ValueError(
                f"{len(found)} epochs, of which the best is {self.best_epoch}, are not of a "
                f"training of {config.training.epochs}"
            )


def _check_optimiser(kept: dict[str, Any], optimiser: torch.optim.Optimizer) -> None:
    """Its settings are those of the training, and its averages have the shapes of the weights."""
    if kept.keys() != {"state", "param_groups"}:
        raise ValueError("the optimiser has other parts than a state and groups")
    if kept["param_groups"] != optimiser.state_dict()["param_groups"]:
        raise ValueError("the optimiser has other settings")
    weights = [weight for group in optimiser.param_groups for weight in group["params"]]
    for index, averages in kept["state"].items():
        if index not in range(len(weights)):
            raise ValueError(f"the optimiser has a state of weights {index}, which there are not")
        weight = weights[index].detach()
        if not isinstance(optimiser, torch.optim.Adam):  # a network's own choice
            check_weights(averages, {k: weight if v.dim() else v for k, v in averages.items()})
            continue
        expected = {"step": torch.zeros(()), "exp_avg": weight, "exp_avg_sq": weight}
        check_weights(averages, expected)
        if averages["step"] < 0 or (averages["exp_avg_sq"] < 0).any():
            raise ValueError("the optimiser counts below zero")
