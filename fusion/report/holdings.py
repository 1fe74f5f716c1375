"""What the feature store holds for a run: its streams, how often each is there, the faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.spec import SPLITS
from clipmsa.fusion.experiments.run_folder import RunRecord

from .numerals import percent


@dataclass(frozen=True)
class Presence:
    """A stream, and by split the share of utterances that have rows in it, as text."""

    stream: str
    modality: str
    shares: dict[str, str]


def streams_of(record: RunRecord, store: FeatureStore | None) -> list[StreamSpec]:
    """The streams that the run was trained on, as far as they are at hand."""
    names = record.metrics["features"]["fingerprints"]
    return [store.streams[name].spec for name in names] if store else []


def presence(record: RunRecord, store: FeatureStore | None) -> list[Presence]:
    """How often each stream of the run is there."""
    found = []
    for spec in streams_of(record, store):
        assert store is not None
        there = store.streams[spec.name].lengths > 0
        shares = {}
        for split in SPLITS:
            rows = store.rows_of_split(split)
            shares[split] = percent(there[rows].mean()) if len(rows) else "-"
        found.append(Presence(spec.name, spec.modality, shares))
    return found


def face_stream(record: RunRecord, store: FeatureStore | None) -> StreamSpec | None:
    """The stream of the pictures' own branch, where it has as many rows as faces were found."""
    for spec in streams_of(record, store):
        if (spec.modality, spec.branch, spec.level) == ("vision", "own", "sequence"):
            return spec
    return None


def face_rate(record: RunRecord, store: FeatureStore | None) -> str | None:
    """The face-found rate, over utterances and over frames, and what it does to the error."""
    spec = face_stream(record, store)
    if spec is None or store is None:
        return None
    lengths = store.streams[spec.name].lengths
    said = f"A face was found in {(lengths > 0).sum()} of {len(store)} utterances"
    whole = [
        other
        for other in streams_of(record, store)
        if (other.modality, other.branch, other.level) == ("vision", "clip", "sequence")
    ]
    frames = int(store.streams[whole[0].name].lengths.sum()) if whole else 0
    if frames:
        said += f" and {percent(lengths.sum() / frames)} of the frames"
    rows = [store.index[id_] for id_ in record.ids]
    seen = lengths[rows] > 0
    error = np.abs(record.predictions - record.labels)
    if seen.any() and not seen.all():
        said += (
            f"; on the test split MAE is {error[seen].mean():.3f} with a face and "
            f"{error[~seen].mean():.3f} in the {(~seen).sum()} utterances without"
        )
    return f"{said}."
