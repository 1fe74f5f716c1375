"""Trained models on a store: metrics, on subsets too, and what they say of every utterance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.errors import ConfigError, FingerprintError
from clipmsa.cache.frames import Framed
from clipmsa.cache.provenance import difference
from clipmsa.cache.spec import MODALITIES
from clipmsa.fusion.metrics.bootstrap import summary, summary_frame
from clipmsa.fusion.training.checkpoint import Checkpoint
from clipmsa.fusion.training.data import FeatureData
from clipmsa.fusion.training.trainer import predict

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class Evaluation(Framed):
    """What models say of the utterances of a split.

    `rows` (n,) are row numbers of the store, `scores` (models, n), `seeds` those of the models.
    """

    store: FeatureStore
    seeds: list[int]
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    untrained: Sequence[str] = ()  # streams of the models whose encoders had random weights

    @property
    def labels(self) -> NDArray[np.float64]:
        """(n,), NaN where unknown."""
        return self.store.labels[self.rows].astype(np.float64)

    def __repr__(self) -> str:
        models = "1 model" if len(self.seeds) == 1 else f"{len(self.seeds)} models"
        untrained = ", untrained encoders" if self.untrained else ""
        where = f"{len(self.rows)} utterances of {str(self.store.path)!r}"
        return f"Evaluation({models} on {where}{untrained})"

    @property
    def metrics(self) -> pd.DataFrame:
        """A row a metric: mean and deviation over models, 95 % interval, each model's.

        Raises:
            ConfigError: no utterance has a label.
        """
        return summary_frame(self.summary(), self.seeds)

    def to_frame(self) -> pd.DataFrame:
        return self.metrics

    def summary(self, subset: Mask | None = None) -> dict[str, dict[str, Any]]:
        """Mean, deviation, interval and each model's, by metric, over what has a label.

        Raises:
            ConfigError: no utterance has one.
        """
        known = ~np.isnan(self.labels)
        if subset is not None:
            known &= subset
        if not known.any():
            raise ConfigError(f"{self.store.path}: no utterance there has a label to compare with")
        return summary(self.scores[:, known], self.labels[known])

    def subsets(self, by: str) -> dict[str, Mask]:
        """Which of the rows are of which group: `speaker`, `length`, or `face` found or not.

        A speaker is a video, as MOSI and MOSEI have it. Lengths are thirds of the split.

        Raises:
            ConfigError: no such grouping, or the store does not say what it needs.
        """
        if by not in _GROUPS:
            raise ConfigError(f"`by={by!r}`: must be one of {', '.join(_GROUPS)}")
        return _GROUPS[by](self.store, self.rows)

    def metrics_by(self, by: str) -> pd.DataFrame:
        """A row a group of `subsets`: how many utterances with a label, and each metric's mean.

        Raises:
            ConfigError: no such grouping, or the store does not say what it needs.
        """
        import pandas as pd

        known = ~np.isnan(self.labels)
        rows = {}
        for group, mask in self.subsets(by).items():
            if count := int((mask & known).sum()):
                means = {key: row["mean"] for key, row in self.summary(mask).items()}
                rows[group] = {"utterances": count, **means}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(by)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row an utterance: id, text, duration, rows of every stream, label, scores."""
        import pandas as pd

        picked = self.store.utterances.iloc[self.rows].reset_index(drop=True)
        lengths = {
            f"rows_{name}": stream.lengths[self.rows] for name, stream in self.store.streams.items()
        }
        scores = {f"prediction_{seed}": self.scores[i] for i, seed in enumerate(self.seeds)}
        mean = {"prediction": self.scores.mean(0), "error": self.scores.mean(0) - self.labels}
        return pd.concat([picked, pd.DataFrame({**lengths, **mean, **scores})], axis=1)


def evaluate(
    checkpoints: Sequence[Checkpoint],
    store: FeatureStore,
    split: str = "test",
    without: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score every utterance of a split by the models of one run.

    The modalities `without` are taken as missing: the models put their learned vectors there,
    which mean little unless utterances lacked them in training (`modality_dropout`).

    Raises:
        FingerprintError: the store's features were made in another way than those trained on.
        ConfigError: no such modality or split, or the store lacks a stream.
    """
    for modality in without:
        if modality not in MODALITIES:
            raise ConfigError(f"`without={modality!r}`: must be one of {', '.join(MODALITIES)}")
    rows = store.rows_of_split(split)
    if len(rows) == 0:
        raise ConfigError(f"{store.path}: no utterance is of split '{split}'")
    scores = []
    for checkpoint in checkpoints:
        data = FeatureData(store, matching(checkpoint, store), torch.device(device))
        scores.append(predict(checkpoint.model(device), data, torch.from_numpy(rows), without))
    untrained = {spec.name for c in checkpoints for spec in c.streams.values() if spec.untrained}
    return Evaluation(
        store, [c.seed for c in checkpoints], rows, np.stack(scores), sorted(untrained)
    )


def matching(checkpoint: Checkpoint, store: FeatureStore) -> dict[str, StreamSpec]:
    """The store's stream for each role of a model, made as those it was trained on.

    Raises:
        FingerprintError, ConfigError: as `evaluate` says.
    """
    found: dict[str, StreamSpec] = {}
    for role, wanted in checkpoint.streams.items():
        specs = [stream.spec for stream in store.streams.values()]
        candidates = [spec for spec in specs if f"{spec.modality}/{spec.branch}" == role]
        same = [spec for spec in candidates if _made_alike(spec, wanted)]
        if same:
            found[role] = same[0]
        elif not candidates:
            raise ConfigError(
                f"{store.path}: no stream with the role {role}, which the model was trained on "
                f"('{wanted.name}'); extract it too"
            )
        else:
            other = candidates[0]
            changes = difference(wanted.config, other.config) or (
                f"fingerprint {wanted.fingerprint or 'none'} -> {other.fingerprint or 'none'}, "
                f"width {wanted.dim} -> {other.dim}"
            )
            raise FingerprintError(
                f"{store.path}: stream '{other.name}' ({other.fingerprint}) was made in another "
                f"way than the model's '{wanted.name}' ({wanted.fingerprint}): {changes}; "
                f"extract it as the model's was, or train on this store"
            )
    return found


def _made_alike(one: StreamSpec, other: StreamSpec) -> bool:
    return (one.fingerprint, one.dim, one.level) == (other.fingerprint, other.dim, other.level)


def _by_speaker(store: FeatureStore, rows: NDArray[np.int64]) -> dict[str, Mask]:
    videos = np.array([store.video_ids[row] for row in rows])
    return {str(video): videos == video for video in dict.fromkeys(videos.tolist())}


def _by_length(store: FeatureStore, rows: NDArray[np.int64]) -> dict[str, Mask]:
    seconds = store.durations[rows]
    if np.isnan(seconds).all():
        raise ConfigError(
            f"{store.path}: /utterances/duration is unknown, so `by='length'` is, too"
        )
    low, high = np.nanquantile(seconds, [1 / 3, 2 / 3])
    return {
        f"up to {low:.1f} s": seconds <= low,
        f"{low:.1f} to {high:.1f} s": (seconds > low) & (seconds <= high),
        f"over {high:.1f} s": seconds > high,
        "unknown": np.isnan(seconds),
    }


def _by_face(store: FeatureStore, rows: NDArray[np.int64]) -> dict[str, Mask]:
    faces = [
        stream
        for stream in store.streams.values()
        if (stream.spec.modality, stream.spec.branch) == ("vision", "own")
    ]
    if not faces:
        raise ConfigError(f"{store.path}: no stream of vision/own, whose rows are faces")
    found = faces[0].lengths[rows] > 0
    return {"face found": found, "no face": ~found}


_GROUPS: Mapping[str, Callable[[FeatureStore, NDArray[np.int64]], dict[str, Mask]]] = {
    "speaker": _by_speaker,
    "length": _by_length,
    "face": _by_face,
}
