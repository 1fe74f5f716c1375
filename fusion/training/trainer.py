"""Train one seed: SmoothL1 (Sec. 2.4), early stopping on validation MAE, test predicted once.

What is judged after each epoch, kept and used is a running average of the weights: the weights
themselves jump from step to step, and validation of the best of them is the luck of a jump.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipmsa.cache.checked import one_line
from clipmsa.cache.errors import CheckpointError, TrainingError
from clipmsa.cache.provenance import fingerprint
from clipmsa.cache.spec import MODALITIES
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.networks.network import Batch, Pass
from clipmsa.fusion.networks.registry import Trainable

from .checkpoint import load_progress, save_progress
from .config import RunConfig
from .data import FeatureData
from .kept import Kept
from .outcome import Epoch, Outcome

_EVAL_BATCH = 256
_PROGRESS_SECONDS = 30.0  # between two writes of what an interrupted seed goes on from


def train_seed(
    data: FeatureData,
    config: RunConfig,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Path | None = None,
    splits: Sequence[str] = ("valid", "test"),
) -> Outcome:
    """Train on split train, choose the epoch on valid, then predict `splits` once.

    The same seed on the same machine with the same number of threads gives the same bits: it sets
    initialisation, dropout and the order of batches. So does a training that is interrupted and
    goes on from the file `progress`.

    Raises:
        TrainingError: a loss or prediction is not a number (the message names the utterance), or
            a split has no labelled utterance.
    """
    rows = {split: data.labelled_rows(split) for split in ("train", "valid", *splits)}
    if len(rows["train"]) < 2:
        raise TrainingError(f"{data.store.path}: BatchNorm needs two training utterances, has one")
    training = _Training(data, config, seed, rows["train"])
    if progress is None or not training.resume(progress):
        training.standardise(rows["train"])
    truth = data.labels[rows["valid"]].numpy()
    saved = time.monotonic()

    while not training.ended:
        loss, terms = training.epoch(rows["train"])
        valid = regression_metrics(predict(training.average, data, rows["valid"]), truth)
        on_epoch(training.judge(loss, terms, valid))
        if progress is not None and time.monotonic() - saved > _PROGRESS_SECONDS:
            training.save(progress)
            saved = time.monotonic()

    training.average.load_state_dict(training.best_state)
    outcome = Outcome(seed, training.best_epoch, training.best_state, training.history)
    for split in splits:
        scores = predict(training.average, data, rows[split])
        outcome.predictions[split] = scores
        outcome.metrics[split] = regression_metrics(scores, data.labels[rows[split]].numpy())
    return outcome


class _Training:
    """All that the next epoch depends on."""

    def __init__(self, data: FeatureData, config: RunConfig, seed: int, rows: Tensor) -> None:
        self.data, self.config, self.seed = data, config, seed
        torch.manual_seed(seed)
        self.order = torch.Generator().manual_seed(seed)
        self.model = Trainable(config.model, data.roles).to(data.device)
        self.network = self.model.network
        self.network.begin(rows, data.labels[rows].to(data.device))
        self.optimisers = self.network.optimisers(config.training)
        self.steps = 0
        self.average = copy.deepcopy(self.model)  # what is judged, kept and predicts
        self.history: list[Epoch] = []
        self.best_epoch, self.best_state = 0, _copy(self.average.state_dict())

    def standardise(self, rows: Tensor) -> None:
        """Fit the standardisation of the inputs to the training utterances."""
        if self.model.inputs is not None:
            for role in self.data.roles:
                self.model.inputs.fit(role, self.data.moments(role, rows))
            self.average.load_state_dict(self.model.state_dict())

    @property
    def ended(self) -> bool:
        schedule, done = self.config.training, len(self.history)
        since = sum(map(self.network.judged, range(self.best_epoch + 1, done + 1)))
        return done >= schedule.epochs or since >= schedule.patience

    def epoch(self, rows: Tensor) -> tuple[float, dict[str, float]]:
        """The passes of one epoch over the training utterances.

        Gives the mean loss of the last pass, and the mean of every term of all of them.
        """
        self.model.train()
        passes = self.network.epoch(len(self.history) + 1)
        loss = 0.0
        terms: dict[str, float] = {}
        for one in passes:
            found = self._pass(one, rows, len(passes))
            loss, terms = sum(found.values()), terms | found
        return loss, terms

    def _pass(self, one: Pass, rows: Tensor, passes: int) -> dict[str, float]:
        schedule, optimiser = self.config.training, self.optimisers[one.optimiser]
        totals: dict[str, Tensor] = {}
        shuffled = rows[torch.randperm(len(rows), generator=self.order)]
        parts = batches(shuffled, schedule.batch_size)
        for batch_rows in parts:
            withheld = withhold_at_random(len(batch_rows), schedule.modality_dropout, self.order)
            batch = self.data.batch(batch_rows, withheld)
            given = self.model.prepared(batch)
            terms = one.losses(given)
            self.model.zero_grad(set_to_none=True)
            torch.stack([*terms.values()]).sum().backward()
            norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), schedule.clip_grad_norm)
            if not norm.isfinite():
                raise TrainingError(
                    f"seed {self.seed}, epoch {len(self.history) + 1}: the loss or its gradient is "
                    f"not a number; {_culprit(self.data, batch)}"
                )
            optimiser.step()
            self.network.after_step(given)
            self._take_into_average(schedule.averaging * len(parts) * passes)
            for name, term in terms.items():
                share = term.detach() * (len(batch_rows) / len(rows))
                totals[name] = totals[name] + share if name in totals else share
        return {name: float(total) for name, total in totals.items()}

    @torch.no_grad()
    def _take_into_average(self, horizon: float) -> None:
        """Move the average of the weights towards them, so that it forgets over `horizon` steps.

        At first it forgets faster, since of the random start nothing is to be left.
        """
        weight = max(1 / max(1.0, horizon), 10 / (10 + self.steps))
        self.steps += 1
        now = self.model.state_dict()
        for key, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[key], weight)
            else:  # the count of batches of a BatchNorm
                value.copy_(now[key])

    def judge(self, loss: float, terms: dict[str, float], valid: Mapping[str, float]) -> Epoch:
        """File an epoch, and keep its weights if validation MAE was never lower."""
        number = len(self.history) + 1
        so_far = self.history[self.best_epoch - 1].valid_mae if self.best_epoch else math.inf
        best = self.network.judged(number) and valid["mae"] < so_far
        if best:
            self.best_epoch, self.best_state = number, _copy(self.average.state_dict())
        epoch = Epoch(self.seed, number, loss, valid["mae"], valid["corr"], best, terms)
        self.history.append(epoch)
        return epoch

    @property
    def _key(self) -> str:
        """Which training this is: what is kept of another must not be gone on from."""
        config = asdict(self.config) | {"seed": self.seed, "data": self.data.digest}
        return fingerprint(config | {"torch": torch.__version__})

    def save(self, path: Path) -> None:
        cuda = self.data.device.type == "cuda"
        kept = Kept(
            model=self.model.state_dict(),
            average=self.average.state_dict(),
            training=self.model.training_state(),
            steps=self.steps,
            optimisers=[optimiser.state_dict() for optimiser in self.optimisers],
            best_state=self.best_state,
            best_epoch=self.best_epoch,
            history=self.history,
            order=self.order.get_state(),
            random=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state(self.data.device) if cuda else None,
        )
        save_progress(path, self._key, kept.as_plain())

    def resume(self, path: Path) -> bool:
        """Go on from where an interrupted training of the same kind was; False if there is none.

        Raises:
            CheckpointError: what is kept is none of this training, though it says so.
        """
        found = load_progress(path, self._key)
        if found is None:
            return False
        try:
            kept = Kept(**found)
            kept.check(self.model, self.optimisers, self.config, self.seed)
            self.order.set_state(kept.order)
            torch.set_rng_state(kept.random)
            if kept.cuda is not None:
                torch.cuda.set_rng_state(kept.cuda, self.data.device)
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path}: not what a training keeps ({one_line(error)}); delete it, and seed "
                f"{self.seed} begins anew"
            ) from None
        self.model.load_state_dict(kept.model)
        self.average.load_state_dict(kept.average)
        for key, value in self.model.training_state().items():
            value.copy_(kept.training[key])
        self.steps = kept.steps
        for optimiser, state in zip(self.optimisers, kept.optimisers, strict=True):
            optimiser.load_state_dict(state)
        self.best_state, self.best_epoch = kept.best_state, kept.best_epoch
        self.history = kept.history
        return True


def batches(rows: Tensor, size: int) -> list[Tensor]:
    """Cut rows into batches of at most `size`, as few and as even as can be.

    A short last batch would be all noise to BatchNorm, and one of a single utterance impossible:
    where `size` is 2 and the rows are odd, one batch has three.
    """
    count = min(math.ceil(len(rows) / size), max(1, len(rows) // 2))
    return list(torch.tensor_split(rows, count))


def withhold_at_random(count: int, share: float, generator: torch.Generator) -> dict[str, Tensor]:
    """Modality dropout: which of `count` utterances lose which modality, (count,) bool each.

    Each modality is lost with probability `share`; an utterance that would lose all keeps all.
    """
    if share == 0:
        return {}
    lost = torch.rand(len(MODALITIES), count, generator=generator) < share
    lost &= ~lost.all(0)
    return dict(zip(MODALITIES, lost, strict=True))


@torch.inference_mode()
def predict(
    model: nn.Module, data: FeatureData, rows: Tensor, without: Sequence[str] = ()
) -> NDArray[np.float64]:
    """Scores of utterances, (n,), by a model put into eval mode.

    The modalities `without` are taken as missing in every utterance.

    Raises:
        TrainingError: a score is not a number; the message names the utterance.
    """
    model.eval()
    scores = []
    for part in torch.split(rows, _EVAL_BATCH):
        withheld = {modality: torch.ones(len(part), dtype=torch.bool) for modality in without}
        batch = data.batch(part, withheld)
        score = model(batch.streams)
        if not score.isfinite().all():
            id_ = data.store.ids[int(part[~score.isfinite().cpu()][0])]
            raise TrainingError(f"the score of '{id_}' is not a number; {_culprit(data, batch)}")
        scores.append(score.double().cpu())
    out: NDArray[np.float64] = torch.cat(scores).numpy()
    return out


def _culprit(data: FeatureData, batch: Batch) -> str:
    return f"not finite: {data.not_finite(batch) or 'no feature: the model diverged'}"


def _copy(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}
