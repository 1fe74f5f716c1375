"""What a report on runs shows, as plain data and figures; page.py makes HTML of it."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore, StreamSpec
from clipmsa.cache.errors import RunError
from clipmsa.fusion.analysis.explain import (
    attention_maps,
    frame_contributions,
    modality_contributions,
)
from clipmsa.fusion.experiments.paper import PAPER_METRICS, SOURCES, Beside, Published, beside
from clipmsa.fusion.experiments.run_folder import RunRecord
from clipmsa.fusion.metrics.bootstrap import paired_differences
from clipmsa.fusion.metrics.regression import METRICS
from clipmsa.fusion.networks.registry import Trainable
from clipmsa.fusion.training.data import FeatureData

from . import charts_explain, charts_results
from .chart import Chart
from .evidence import Evidence
from .holdings import Presence, face_rate, face_stream, presence, streams_of
from .numerals import fixed

Floats = NDArray[np.float64]
# Pictures of an utterance by id, so many of them evenly over its time, as JPEG; [] if it has none.
Thumbnails = Callable[[str, int], Sequence[bytes]]
HEADLINE = ("mae", "corr", "non0_acc2", "acc7")  # shown large, and compared between runs
_FILMSTRIP = 8  # pictures of an utterance that is taken apart


@dataclass(frozen=True)
class MetricRow:
    """One metric of a run as text."""

    words: str
    mean: str
    std: str
    interval: str
    references: list[str]  # those of `REFERENCES`, in that order
    per_seed: list[str]


@dataclass(frozen=True)
class RunPart:
    """What is shown of each run."""

    name: str
    record: RunRecord
    headline: list[MetricRow]
    metrics: list[MetricRow]
    charts: list[Chart]


@dataclass(frozen=True)
class TestUtterance:
    """A row of the table of test utterances; what is not at hand is None."""

    id: str
    label: float
    prediction: float
    spread: float  # standard deviation over seeds
    text: str | None = None
    duration: float | None = None
    faces: int | None = None
    moved: dict[str, float] = field(default_factory=dict)  # contribution by modality
    thumbnail: str | None = None  # data: address

    @property
    def error(self) -> float:
        return self.prediction - self.label


@dataclass(frozen=True)
class ExplainedUtterance:
    """One utterance taken apart: what moved its score, and which elements attended to which."""

    row: TestUtterance
    pictures: list[str]  # data: addresses, in order of time
    moved: list[Chart]
    maps: list[Chart]


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's tables beside the run that stands for it, as text."""

    words: str
    source: str
    same_features: bool
    cells: list[str]  # by `PAPER_METRICS`: ours, the paper's, the difference; "" where it has none


@dataclass(frozen=True)
class Report:
    """All that the page shows. The first run is the one looked at closely."""

    runs: list[RunPart]
    store: FeatureStore | None
    streams: list[StreamSpec]
    untrained: list[str]
    gaps: list[str]
    comparison: list[Chart]
    paper: list[PaperRow]
    contributions: list[Chart]
    presence: list[Presence]
    faces: str | None  # a sentence on the face-found rate
    utterances: list[TestUtterance]
    explained: list[ExplainedUtterance]


def build_report(
    records: Sequence[RunRecord],
    evidence: Evidence | None = None,
    thumbnails: Thumbnails | None = None,
    utterances: Sequence[str] = (),
    worst: int = 2,
    pictures: int = 200,
    paper: str | None = None,
    on_pass: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compute what a report on some runs shows.

    Args:
        records: the runs, at least one; the first is compared with the others.
        evidence: what is at hand beside the first run.
        thumbnails: gives pictures of an utterance.
        utterances: ids of test utterances to take apart; the `worst` ones where none is named.
        pictures: how many of the worst utterances get a thumbnail.
        paper: mosi or mosei: the paper's figures for it are put beside the runs'.
        on_pass: is told how many passes over the test split are done, of how many; there is one a
            modality and seed, and on a large store they take most of the time.

    Raises:
        RunError: an id of `utterances` is not among the test utterances.
        ConfigError: the paper has no results for the data set `paper`.
    """
    first, evidence = records[0], evidence or Evidence()
    moved: dict[str, Floats] = {}
    if evidence.data is not None:
        index = evidence.data.store.index
        rows = torch.tensor([index[id_] for id_ in first.ids])
        moved = modality_contributions(evidence.models, evidence.data, rows, on_pass)
    table = _table(first, evidence, moved)
    by_id = {row.id: row for row in table}
    for id_ in utterances:
        if id_ not in by_id:
            raise RunError(f"{first.path}: no test utterance '{id_}'; predictions.csv lists them")
    chosen = [by_id[id_] for id_ in utterances] or table[:worst]
    explained = []
    if evidence.data is not None:
        explained = [_explained(r, evidence.data, evidence.models, thumbnails) for r in chosen]
    if thumbnails is not None:
        shown = [replace(row, thumbnail=_first(thumbnails, row.id)) for row in table[:pictures]]
        table[:pictures] = shown
    names = _names(records)
    return Report(
        runs=[_run(record, name, evidence) for record, name in zip(records, names, strict=True)],
        store=evidence.store,
        streams=streams_of(first, evidence.store),
        untrained=sorted({name for record in records for name in record.untrained}),
        gaps=list(evidence.gaps),
        comparison=_comparison(records, names),
        paper=_paper(records, paper, evidence.store) if paper is not None else [],
        contributions=_contributions(first, moved),
        presence=presence(first, evidence.store),
        faces=face_rate(first, evidence.store),
        utterances=table,
        explained=explained,
    )


def _names(records: Sequence[RunRecord]) -> list[str]:
    """Variants where they tell the runs apart, else paths."""
    variants = [record.variant for record in records]
    unique = len(set(variants)) == len(variants) > 1
    return variants if unique else [str(record.path) for record in records]


def _run(record: RunRecord, name: str, evidence: Evidence) -> RunPart:
    rows = {key: _metric_row(record, key) for key in METRICS}
    store = evidence.store
    texts = [store.texts[store.index[i]] if store and i in store.index else "" for i in record.ids]
    labels, predictions = record.labels, record.predictions
    return RunPart(
        name,
        record,
        [rows[key] for key in HEADLINE],
        list(rows.values()),
        [
            *charts_results.learning_curves(record.curves),
            charts_results.predicted_against_true(record.ids, texts, labels, predictions),
            charts_results.residuals(labels, predictions),
            charts_results.confusion(labels, predictions),
            charts_results.calibration(labels, predictions),
        ],
    )


def _metric_row(record: RunRecord, key: str) -> MetricRow:
    score = record.score(key)
    low, high = score.ci95
    return MetricRow(
        METRICS[key],
        fixed(score.mean),
        fixed(score.std),
        "-" if math.isnan(low) else f"{low:.3f} .. {high:.3f}",
        [fixed(value) for value in score.references.values()],
        [fixed(value) for value in score.per_seed],
    )


def _paper(
    records: Sequence[RunRecord], dataset: str, store: FeatureStore | None
) -> list[PaperRow]:
    profile = store.profile if store is not None else ""
    rows: dict[Published, dict[str, Beside]] = {}
    for one in beside({r.variant: r.metrics for r in records}, dataset, profile):
        rows.setdefault(one.published, {})[one.metric] = one
    return [
        PaperRow(
            row.row,
            SOURCES[row.source],
            all(one.same_features for one in cells.values()),
            [cells[key].words if key in cells else "" for key in PAPER_METRICS],
        )
        for row, cells in rows.items()
    ]


def _comparison(records: Sequence[RunRecord], names: Sequence[str]) -> list[Chart]:
    """Bars of each headline metric, and differences from the first run where labels agree."""
    if len(records) < 2:
        return []
    bars = [charts_results.comparison(records, names, key) for key in HEADLINE]
    first, *others = records
    found = {
        name: paired_differences(other.scores, first.scores, first.labels)["mae"]
        for name, other in zip(names[1:], others, strict=True)
        # Tested on something else, no utterance can be paired.
        if other.ids == first.ids and np.array_equal(other.labels, first.labels)
    }
    return [*bars, charts_results.differences(list(found), list(found.values()))] if found else bars


def _contributions(record: RunRecord, moved: dict[str, Floats]) -> list[Chart]:
    if not moved:
        return []
    whole = record.scores
    rises = {
        modality: paired_differences(whole - moves, whole, record.labels, same_models=True)["mae"]
        for modality, moves in moved.items()
    }
    means = {modality: moves.mean(axis=0) for modality, moves in moved.items()}
    return [
        charts_explain.withheld_mae(rises),
        charts_explain.contributions_by_label(record.labels, means),
    ]


def _table(record: RunRecord, evidence: Evidence, moved: dict[str, Floats]) -> list[TestUtterance]:
    """Every test utterance, worst first."""
    store = evidence.store
    faces = face_stream(record, store)
    rows = []
    for n, id_ in enumerate(record.ids):
        known: dict[str, Any] = {}
        if store is not None:
            place = store.index[id_]
            duration = float(store.durations[place])
            known = {
                "text": store.texts[place],
                "duration": None if math.isnan(duration) else duration,
                "faces": int(store.streams[faces.name].lengths[place]) if faces else None,
            }
        rows.append(
            TestUtterance(
                id_,
                float(record.labels[n]),
                float(record.predictions[n]),
                float(record.scores[:, n].std()),
                moved={modality: float(m[:, n].mean()) for modality, m in moved.items()},
                **known,
            )
        )
    return sorted(rows, key=lambda row: -abs(row.error))


def _explained(
    row: TestUtterance,
    data: FeatureData,
    models: Sequence[Trainable],
    thumbnails: Thumbnails | None,
) -> ExplainedUtterance:
    streams = data.batch(torch.tensor([data.store.index[row.id]])).streams
    frames = {
        spec.name: np.mean([frame_contributions(m, streams, role) for m in models], axis=0)
        for role, spec in data.roles.items()
        if spec.level == "sequence" and streams[role].lengths.sum()
    }
    # One scale for all, and none so fine that what moves nothing looks large.
    reach = 1.1 * max([0.05, *(float(np.abs(moves).max()) for moves in frames.values())])
    return ExplainedUtterance(
        row,
        [_jpeg(p) for p in thumbnails(row.id, _FILMSTRIP)] if thumbnails else [],
        [
            charts_explain.utterance_contributions(row.moved),
            *(charts_explain.frame_contributions(s, moves, reach) for s, moves in frames.items()),
        ],
        # Attention is one model's: elements of one seed's vectors have no mates in another's.
        [charts_explain.attention(m) for m in attention_maps(models[0], streams)],
    )


def _first(thumbnails: Thumbnails, id_: str) -> str | None:
    pictures = thumbnails(id_, 1)
    return _jpeg(pictures[0]) if pictures else None


def _jpeg(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
