"""From features to scores: trained models over new utterances, and what each modality gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clipmsa.cache import StreamSpec
from clipmsa.fusion.networks.network import roles_by_modality
from clipmsa.fusion.networks.ragged import Ragged
from clipmsa.fusion.training.checkpoint import Checkpoint, load_run

from .explain import without

CLASSES = (
    "strongly negative",
    "negative",
    "weakly negative",
    "neutral",
    "weakly positive",
    "positive",
    "strongly positive",
)


@dataclass(frozen=True)
class Prediction:
    """What models say of one utterance.

    A modality's contribution is the score minus the score with that modality withheld: with no
    rows in its streams, so that the model puts its learned vector there. Modalities interact, so
    contributions do not add up to the score. That of a missing modality is 0.
    """

    scores: Mapping[int, float]  # by the seed of the model; trained on [-3, 3] and not clipped
    contributions: Mapping[str, float]  # by modality, of those that the model uses
    missing: tuple[str, ...]  # modalities that the model uses and the utterance lacks

    @property
    def finite(self) -> bool:
        """Whether all that is said is numbers; weights or features may be too large for that."""
        return bool(np.isfinite([*self.scores.values(), *self.contributions.values()]).all())

    @property
    def score(self) -> float:
        """The mean over the models."""
        return float(np.mean(list(self.scores.values())))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the models (population, as in metrics.json); None of one."""
        return float(np.std(list(self.scores.values()))) if len(self.scores) > 1 else None

    @property
    def word(self) -> str:
        """The class of Acc-7 that the score falls into, in words."""
        return seven_class_word(self.score)


def seven_class_word(score: float) -> str:
    """The nearest of the seven classes, as Acc-7 has them: beyond [-3, 3] the outermost.

    >>> seven_class_word(-3.4), seven_class_word(0.2), seven_class_word(1.6)
    ('strongly negative', 'neutral', 'positive')
    """
    return CLASSES[int(np.round(np.clip(score, -3, 3))) + 3]


class Models:
    """The models of a run, one a seed, that score together.

    `checkpoints` are of one run, as `load_run` gives them.
    """

    def __init__(
        self, checkpoints: Sequence[Checkpoint], path: Path, device: torch.device | str = "cpu"
    ) -> None:
        first = checkpoints[0]
        self.path = path
        self.streams: Mapping[str, StreamSpec] = first.streams  # by role
        self._models = {checkpoint.seed: checkpoint.model(device) for checkpoint in checkpoints}
        self._device = torch.device(device)
        self.modalities = tuple(roles_by_modality(self.streams))

    @property
    def seeds(self) -> list[int]:
        return list(self._models)

    @property
    def untrained(self) -> list[str]:
        """Streams whose encoders had random weights: scores from them say nothing."""
        return [spec.name for spec in self.streams.values() if spec.untrained]

    @torch.inference_mode()
    @np.errstate(invalid="ignore")  # `finite` says what came of it
    def predict(self, utterances: Sequence[Mapping[str, NDArray[Any]]]) -> list[Prediction]:
        """Score utterances, each given as the (T, D) rows of its streams by name.

        A stream that is left out, or has no rows, is missing. The result of an utterance does not
        depend on the others.
        """
        if not utterances:
            return []
        streams = {
            role: self._ragged(spec, [rows.get(spec.name) for rows in utterances])
            for role, spec in self.streams.items()
        }
        whole = self._scores(streams)  # (models, B)
        less = {modality: self._scores(without(streams, modality)) for modality in self.modalities}
        missing = [
            tuple(m for m in self.modalities if not _lengths(streams, m)[i])
            for i in range(len(utterances))
        ]
        return [
            Prediction(
                dict(zip(self._models, whole[:, i].tolist(), strict=True)),
                {
                    modality: 0.0
                    if modality in missing[i]
                    else float((whole[:, i] - scores[:, i]).mean())
                    for modality, scores in less.items()
                },
                missing[i],
            )
            for i in range(len(utterances))
        ]

    def _scores(self, streams: Mapping[str, Ragged]) -> NDArray[np.float64]:
        """(models, B)."""
        return np.stack([model(streams).double().cpu() for model in self._models.values()])

    def _ragged(self, spec: StreamSpec, rows: Sequence[NDArray[Any] | None]) -> Ragged:
        parts = [np.empty((0, spec.dim), np.float32) if part is None else part for part in rows]
        for part in parts:
            if part.ndim != 2 or part.shape[1] != spec.dim:
                raise ValueError(
                    f"stream '{spec.name}': rows of shape {part.shape}, must be (T, {spec.dim})"
                )
        joined = torch.from_numpy(np.concatenate(parts).astype(np.float32))
        return Ragged(joined.to(self._device), torch.tensor([len(part) for part in parts]))


def load_models(path: str | Path, device: torch.device | str = "cpu") -> Models:
    """The models of a finished run's folder, or of one `model-<seed>.pt`.

    Raises:
        CheckpointError: nothing there, not checkpoints of clipmsa, or not of one run.
    """
    path = Path(path)
    return Models(load_run(path), path, device)


def _lengths(streams: Mapping[str, Ragged], modality: str) -> Tensor:
    """How many rows each utterance has in the streams of a modality, (B,)."""
    counts = [s.lengths for role, s in streams.items() if role.startswith(f"{modality}/")]
    return torch.stack(counts).sum(0)
