"""A run folder, read back from its files alone: metrics, history, test predictions, settings."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import MinLen
from numpy.typing import NDArray
from pydantic import ConfigDict, StrictInt, TypeAdapter
from pydantic.dataclasses import dataclass as checked_dataclass

from clipmsa.cache.checked import LARGEST, Number, one_line
from clipmsa.cache.csvtext import unguarded
from clipmsa.cache.errors import RunError
from clipmsa.cache.spec import is_drawn
from clipmsa.fusion.training.folder import RunFolder

from .reference import REFERENCES, verdicts
from .variants import table2

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Score:
    """One metric on the test split: over seeds, with its interval over utterances, (low, high)."""

    mean: float
    std: float
    per_seed: tuple[float, ...]
    ci95: tuple[float, float]  # NaN where the run's writer gives none
    references: dict[str, float]  # by name, what those of `REFERENCES` get; NaN where not given


@dataclass(frozen=True)
class Curve:
    """A seed's history, one entry an epoch; `best` counts from 0."""

    seed: int
    epochs: tuple[int, ...]
    train_loss: Floats
    valid_mae: Floats
    best: int


@dataclass(frozen=True)
class RunRecord:
    """What a finished run's folder holds; `labels` (n,) and `scores` (seeds, n) are of test."""

    path: Path
    metrics: dict[str, Any]  # metrics.json as it is
    config: str  # config.toml as it is
    curves: tuple[Curve, ...]
    ids: tuple[str, ...]
    labels: Floats
    scores: Floats

    @property
    def variant(self) -> str:
        return str(self.metrics["variant"])

    @property
    def splits_from(self) -> str:
        return str(self.metrics["features"].get("splits_from", ""))

    @property
    def drawn(self) -> bool:
        return is_drawn(self.splits_from)

    @property
    def seeds(self) -> list[int]:
        return list(self.metrics["seeds"])

    @property
    def predictions(self) -> Floats:
        """The mean over seeds, (n,)."""
        mean: Floats = self.scores.mean(axis=0)
        return mean

    @property
    def untrained(self) -> list[str]:
        """Streams whose encoder had random weights."""
        return list(self.metrics["features"].get("untrained", []))

    def score(self, key: str) -> Score:
        """One of `METRICS` on the test split; NaN where a run of another version has it not."""
        nothing = {"mean": None, "std": None, "per_seed": [None] * len(self.seeds)}
        row = self.metrics["test"].get(key, nothing)
        low, high = row.get("ci95", (None, None))
        return Score(
            _number(row["mean"]),
            _number(row["std"]),
            tuple(map(_number, row["per_seed"])),
            (_number(low), _number(high)),
            {name: _number(self.metrics.get(name, {}).get(key)) for name in REFERENCES},
        )

    @property
    def verdicts(self) -> list[str]:
        """What the run is not better than, beyond chance, a sentence each."""
        return verdicts(self.score("mae").mean, self.metrics, self.metrics.get("against", {}))


def read_runs(paths: Sequence[Path]) -> list[RunRecord]:
    """The runs in some folders: a run's own, or one that holds runs, as `ablate` writes it.

    Runs inside a folder come in the order of the paper's Table 2, then by name.

    Raises:
        RunError: a folder holds no finished run, or a file of one cannot be read.
    """
    records = []
    for path in paths:
        if RunFolder(path).metrics.is_file():
            records.append(read_run(path))
            continue
        inside = [child for child in path.glob("*/") if RunFolder(child).metrics.exists()]
        if not inside:
            raise RunError(
                f"{path}: no finished run, it has no metrics.json and no folder in it has one; "
                f"`clipmsa train` and `clipmsa ablate` write them"
            )
        rows = [variant.name for variant in table2()]
        known = {name: place for place, name in enumerate(rows)}
        inside.sort(key=lambda run: (known.get(run.name, len(known)), run.name))
        records += [read_run(run) for run in inside]
    return records


def read_run(path: Path) -> RunRecord:
    """One finished run.

    Raises:
        RunError: a file is missing or cannot be read; the message names it.
    """
    folder = RunFolder(path)
    metrics = _read_metrics(folder.metrics)
    config = _text(folder.config)
    ids, labels, scores = _read_test(folder.predictions, metrics["seeds"])
    curves = _read_curves(folder.history)
    return RunRecord(path, metrics, config, curves, ids, labels, scores)


@checked_dataclass(config=ConfigDict(extra="ignore"))
class _Metric:
    mean: Number
    std: Number
    per_seed: list[Number]
    ci95: tuple[Number, Number] = (None, None)


@checked_dataclass(config=ConfigDict(extra="ignore"))
class _Features:
    fingerprints: dict[str, str]
    path: str = ""
    untrained: list[str] = field(default_factory=list)
    splits_from: str = ""


@checked_dataclass(config=ConfigDict(extra="ignore"))
class _Metrics:
    """What the report reads of a metrics.json."""

    variant: str
    seeds: Annotated[list[StrictInt], MinLen(1)]
    features: _Features
    test: dict[str, _Metric]
    constant: dict[str, Number] = field(default_factory=dict)
    ridge: dict[str, Number] = field(default_factory=dict)
    # By reference and metric: mean, low, high, p.
    against: dict[str, dict[str, tuple[Number, Number, Number, Number]]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        for name, found in self.against.items():
            mean, low, high, _ = found.get("mae", (None, None, None, None))
            if high is not None and None in (mean, low, getattr(self, name, {}).get("mae")):
                raise ValueError(f"against.{name}.mae must be numbers, as must be {name}.mae")
            if "mae" not in found:
                raise ValueError(f"against.{name} has no 'mae'")
        for key, metric in self.test.items():
            if len(metric.per_seed) != len(self.seeds):
                raise ValueError(f"test.{key}.per_seed must have a value a seed")


_METRICS = TypeAdapter(_Metrics)


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(_text(path))
        _METRICS.validate_python(metrics)
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: not the metrics of a run ({one_line(error)})") from None
    return dict(metrics)


def _read_test(path: Path, seeds: Sequence[int]) -> tuple[tuple[str, ...], Floats, Floats]:
    rows = [row for row in _table(path) if row.get("split") == "test"]
    try:
        labels = _finite([row["label"] for row in rows])
        scores = np.stack([_finite([row[f"prediction_{seed}"] for row in rows]) for seed in seeds])
        ids = tuple(unguarded(row["id"]) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the predictions of a run ({one_line(error)})") from None
    if not ids:
        raise RunError(f"{path}: holds no prediction of split test")
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_, count in Counter(ids).items() if count > 1)
        raise RunError(f"{path}: not the predictions of a run ('{twice}' is there twice)")
    return ids, labels, scores


def _read_curves(path: Path) -> tuple[Curve, ...]:
    by_seed: dict[int, list[dict[str, str]]] = {}
    try:
        for row in _table(path):
            by_seed.setdefault(int(row["seed"]), []).append(row)
        curves = []
        for seed, rows in by_seed.items():
            maes = _finite([row["valid_mae"] for row in rows])
            losses = _finite([row["train_loss"] for row in rows])
            epochs = tuple(int(row["epoch"]) for row in rows)
            kept = [place for place, row in enumerate(rows) if row.get("best") == "True"]
            best = kept[-1] if kept else int(maes.argmin())
            curves.append(Curve(seed, epochs, losses, maes, best))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the history of a run ({one_line(error)})") from None
    return tuple(curves)


def _finite(texts: Sequence[str]) -> Floats:
    numbers = np.array([float(text) for text in texts])
    for text, number in zip(texts, numbers, strict=True):
        if not abs(number) <= LARGEST:
            raise ValueError(f"'{text}' is not a number of at most {LARGEST:g}")
    return numbers


def _table(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(_text(path), newline="")))
    except csv.Error as error:
        raise RunError(f"{path}: not a CSV table ({error})") from None


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # a carriage return in an id stays one
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; train the run again") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not UTF-8 ({error})") from None


def _number(value: float | None) -> float:
    """JSON has no NaN: a run writes null."""
    return math.nan if value is None else float(value)
