"""Train one seed: SmoothL1 (Sec. 2.4), early stopping on validation MAE, test predicted once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from clipmsa.cache.errors import TrainingError

from .config import RunConfig
from .data import FeatureData
from .metrics import regression_metrics
from .model import ClipMSA

_EVAL_BATCH = 256


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


def train_seed(
    data: FeatureData,
    config: RunConfig,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Outcome:
    """Train on split train, choose the epoch on valid, predict valid and test once.

    The same seed on the same machine gives the same bits: it sets initialisation, dropout and the
    order of batches.

    Raises:
        TrainingError: a loss or prediction is not a number (the message names the utterance), or
            a split has no labelled utterance.
    """
    schedule = config.training
    rows = {split: data.labelled_rows(split) for split in ("train", "valid", "test")}
    if len(rows["train"]) < 2:
        raise TrainingError(f"{data.store.path}: BatchNorm needs two training utterances, has one")
    torch.manual_seed(seed)
    order = torch.Generator().manual_seed(seed)
    model = ClipMSA(config.model, data.roles).to(data.device)
    optimiser = torch.optim.AdamW(
        model.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    history: list[Epoch] = []
    best_mae, best_epoch, best_state = math.inf, 0, _copy(model.state_dict())
    truth = data.labels[rows["valid"]].numpy()

    for number in range(1, schedule.epochs + 1):
        model.train()
        total = torch.zeros((), device=data.device)
        shuffled = rows["train"][torch.randperm(len(rows["train"]), generator=order)]
        for batch_rows in batches(shuffled, schedule.batch_size):
            batch = data.batch(batch_rows)
            loss = F.smooth_l1_loss(model(batch.streams), batch.labels)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip_grad_norm)
            if not norm.isfinite():
                where = data.not_finite(batch) or "no feature: the model diverged"
                raise TrainingError(
                    f"seed {seed}, epoch {number}: the loss or its gradient is not a number; "
                    f"not finite: {where}"
                )
            optimiser.step()
            total += loss.detach() * len(batch_rows)

        valid = regression_metrics(predict(model, data, rows["valid"]), truth)
        best = valid["mae"] < best_mae
        if best:
            best_mae, best_epoch, best_state = valid["mae"], number, _copy(model.state_dict())
        train_loss = float(total) / len(shuffled)
        history.append(Epoch(seed, number, train_loss, valid["mae"], valid["corr"], best))
        on_epoch(history[-1])
        if number - best_epoch >= schedule.patience:
            break

    model.load_state_dict(best_state)
    outcome = Outcome(seed, best_epoch, best_state, history)
    for split in ("valid", "test"):
        scores = predict(model, data, rows[split])
        outcome.predictions[split] = scores
        outcome.metrics[split] = regression_metrics(scores, data.labels[rows[split]].numpy())
    return outcome


def batches(rows: Tensor, size: int) -> list[Tensor]:
    """Cut rows into batches; a last batch of one joins its neighbour, for BatchNorm's sake."""
    parts = list(torch.split(rows, size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


@torch.inference_mode()
def predict(model: ClipMSA, data: FeatureData, rows: Tensor) -> NDArray[np.float64]:
    """Scores of utterances, (n,), by a model put into eval mode.

    Raises:
        TrainingError: a score is not a number; the message names the utterance.
    """
    model.eval()
    scores = []
    for part in torch.split(rows, _EVAL_BATCH):
        batch = data.batch(part)
        score = model(batch.streams)
        if not score.isfinite().all():
            id_ = data.store.ids[int(part[~score.isfinite().cpu()][0])]
            where = data.not_finite(batch) or "no feature: the model diverged"
            raise TrainingError(f"the score of '{id_}' is not a number; not finite: {where}")
        scores.append(score.double().cpu())
    out: NDArray[np.float64] = torch.cat(scores).numpy()
    return out


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
