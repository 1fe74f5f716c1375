"""A run's folder: which files it has, and how each is written.

config.toml  metrics.json  history.csv  predictions.csv  model-<seed>.pt
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.files import publish_text

from .config import RunConfig, as_plain
from .data import FeatureData
from .outcome import Outcome


@dataclass(frozen=True)
class RunFolder:
    """The files of one run, of which `metrics` is written last and marks a run that is complete.

    Files appear whole or not at all.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.json"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    def model(self, seed: int) -> Path:
        """The checkpoint of a seed."""
        return self.path / f"model-{seed}.pt"

    def progress(self, seed: int) -> Path:
        """What an interrupted seed goes on from."""
        return self.path / f".progress-{seed}.pt"

    @property
    def models(self) -> list[Path]:
        """Every checkpoint that is there."""
        return sorted(self.path.glob("model-*.pt"))

    @property
    def tables(self) -> list[Path]:
        return [self.config, self.metrics, self.history, self.predictions]

    def clear(self) -> None:
        """Remove what a run writes, and nothing else."""
        for file in [*self.tables, *self.models, *self.path.glob(".progress-*.pt")]:
            file.unlink(missing_ok=True)

    def write_config(self, config: RunConfig) -> None:
        publish_text(self.config, tomli_w.dumps(as_plain(config)))

    def write_history(self, outcomes: Sequence[Outcome]) -> None:
        """A row an epoch; a column a term of the loss, where there is more than one."""
        epochs = [epoch for outcome in outcomes for epoch in outcome.history]
        terms = list(dict.fromkeys(name for epoch in epochs for name in epoch.terms))
        terms = terms if len(terms) > 1 else []
        rows = [{**asdict(e), **{f"train_{t}": e.terms.get(t) for t in terms}} for e in epochs]
        keys = [key for key in rows[0] if key != "terms"]
        publish_text(self.history, csv_text(keys, ([row[key] for key in keys] for row in rows)))

    def write_predictions(self, data: FeatureData, outcomes: Sequence[Outcome]) -> None:
        """A row an utterance of valid and test: label, mean over seeds, and each seed's."""
        seeds = [f"prediction_{outcome.seed}" for outcome in outcomes]
        lines = []
        for split in ("valid", "test"):
            rows = data.labelled_rows(split).tolist()
            scores = np.stack([outcome.predictions[split] for outcome in outcomes], axis=1)
            for row, score in zip(rows, scores.tolist(), strict=True):
                label = float(data.labels[row])
                lines.append([data.store.ids[row], split, label, sum(score) / len(score), *score])
        header = ["id", "split", "label", "prediction", *seeds]
        publish_text(self.predictions, csv_text(header, lines))

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        publish_text(self.metrics, json_text(metrics))


def json_text(value: Any) -> str:
    """JSON with null for NaN, which JSON has not, and other programs' readers refuse."""
    return json.dumps(_numbers(value), indent=2, allow_nan=False) + "\n"


def _numbers(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
