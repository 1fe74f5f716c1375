"""A run folder, read back from its files alone: metrics, history, test predictions, settings."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipmsa.cache.csvtext import unguarded
from clipmsa.cache.errors import RunError
from clipmsa.cache.store import is_drawn
from clipmsa.fusion.metrics import METRICS
from clipmsa.fusion.reference import REFERENCES, verdicts
from clipmsa.fusion.variants import table2

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
        """One of `METRICS` on the test split."""
        row = self.metrics["test"][key]
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
        if (path / "metrics.json").is_file():
            records.append(read_run(path))
            continue
        inside = [child.parent for child in path.glob("*/metrics.json")]
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
    metrics = _read_metrics(path / "metrics.json")
    config = _text(path / "config.toml")
    ids, labels, scores = _read_test(path / "predictions.csv", metrics["seeds"])
    curves = _read_curves(path / "history.csv")
    return RunRecord(path, metrics, config, curves, ids, labels, scores)


def _read_metrics(path: Path) -> dict[str, Any]:
    try:
        metrics = json.loads(_text(path))
        for key in METRICS:
            _ = [metrics["test"][key][kind] for kind in ("mean", "std", "per_seed")]
        _ = metrics["variant"], metrics["features"]["fingerprints"], metrics["seeds"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: not the metrics of a run ({error!r})") from None
    return dict(metrics)


def _read_test(path: Path, seeds: Sequence[int]) -> tuple[tuple[str, ...], Floats, Floats]:
    rows = [row for row in _table(path) if row.get("split") == "test"]
    try:
        labels = np.array([float(row["label"]) for row in rows])
        scores = np.array([[float(row[f"prediction_{seed}"]) for row in rows] for seed in seeds])
        ids = tuple(unguarded(row["id"]) for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the predictions of a run ({error!r})") from None
    if not ids:
        raise RunError(f"{path}: holds no prediction of split test")
    return ids, labels, scores


def _read_curves(path: Path) -> tuple[Curve, ...]:
    by_seed: dict[int, list[dict[str, str]]] = {}
    try:
        for row in _table(path):
            by_seed.setdefault(int(row["seed"]), []).append(row)
        curves = []
        for seed, rows in by_seed.items():
            maes = np.array([float(row["valid_mae"]) for row in rows])
            losses = np.array([float(row["train_loss"]) for row in rows])
            epochs = tuple(int(row["epoch"]) for row in rows)
            curves.append(Curve(seed, epochs, losses, maes, int(maes.argmin())))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: not the history of a run ({error!r})") from None
    return tuple(curves)


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(_text(path), newline="")))


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
