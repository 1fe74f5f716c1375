"""What is at hand beside a run's folder: its feature store and its trained models."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import FingerprintError, StoreError
from clipmsa.fusion.experiments.run_folder import RunRecord
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.checkpoint import load_checkpoint
from clipmsa.fusion.training.data import FeatureData
from clipmsa.fusion.training.folder import RunFolder


@dataclass(frozen=True)
class Evidence:
    """A run's store and its models, one a seed; `gaps` says in words what is not at hand.

    `data` is there when both are: the streams that the models take.
    """

    store: FeatureStore | None = None
    models: tuple[Trainable, ...] = ()
    data: FeatureData | None = None
    gaps: list[str] = field(default_factory=list)


def find_evidence(
    record: RunRecord, features: Path | None = None, device: torch.device | str = "cpu"
) -> Evidence:
    """Open the store that the run was trained on, or `features` in its place, and the checkpoints.

    What is missing is a gap. A store that was made anew since is missing too, unless it was named.

    Raises:
        StoreError: `features` is no feature store, or lacks an utterance of the run.
        FingerprintError: `features` holds other features than the run was trained on.
        CheckpointError: a checkpoint is there and cannot be read.
    """
    gaps: list[str] = []
    path = features or Path(record.metrics["features"].get("path", ""))
    store: FeatureStore | None = None
    try:
        store = FeatureStore(path)
        _check(record, store)
    except (StoreError, FingerprintError) as error:
        if features is not None:
            raise
        gaps.append(f"No texts, durations and modality contributions: {error}")
        store = None
    checkpoints = [RunFolder(record.path).model(seed) for seed in record.seeds]
    missing = [path.name for path in checkpoints if not path.is_file()]
    if missing:
        gaps.append(
            f"No modality contributions and attention: {', '.join(missing)} is not in {record.path}"
        )
        return Evidence(store, gaps=gaps)
    loaded = [load_checkpoint(path) for path in checkpoints]
    models = tuple(checkpoint.model(device) for checkpoint in loaded)
    if store is None:
        return Evidence(None, models, gaps=gaps)
    data = FeatureData(store, loaded[0].streams, torch.device(device))
    return Evidence(store, models, data, gaps)


def _check(record: RunRecord, store: FeatureStore) -> None:
    """The store holds the features and the utterances of the run."""
    for name, expected in record.metrics["features"]["fingerprints"].items():
        found = store.streams[name].spec.fingerprint if name in store.streams else "not there"
        if found != expected:
            raise FingerprintError(
                f"{store.path}: stream '{name}' is {found}, the run in {record.path} was trained "
                f"on {expected}; name the store it was trained on with --features"
            )
    for id_ in record.ids:
        if id_ not in store.index:
            raise StoreError(
                f"{store.path}: no utterance '{id_}', which the run in {record.path} was tested on"
            )
