"""A run: one variant over several seeds, in a folder that holds all there is to know of it.

config.toml  metrics.json  history.csv  predictions.csv  model-<seed>.pt
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore
from clipmsa.cache.csvtext import csv_text
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.files import publish_text
from clipmsa.cache.provenance import difference

from .checkpoint import load_checkpoint
from .config import RunConfig, as_plain, configured
from .data import FeatureData, streams_by_role
from .jobs import Job, run_jobs
from .metrics import regression_metrics, summary
from .outcome import Epoch, Outcome
from .reference import against_references, reference_scores

SEEDS = (1111, 1112, 1113)


@dataclass(frozen=True)
class Run:
    """A finished run: where it is, the content of its metrics.json, and its seeds' outcomes."""

    path: Path
    metrics: dict[str, Any]
    outcomes: list[Outcome]
    fresh: bool  # whether any seed was trained now, rather than found


def run(
    store: FeatureStore,
    config: RunConfig,
    out: Path,
    seeds: Sequence[int] = SEEDS,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    *,
    workers: int = 1,
) -> Run:
    """Train every seed that is not finished yet, and write the run folder.

    Raises:
        ConfigError: the store lacks what the configuration names.
        TrainingError: a split is empty, or numbers are not finite.
    """
    results: list[Run] = []
    run_many(
        store,
        [(config, out)],
        seeds,
        device,
        workers=workers,
        on_epoch=lambda _, epoch: on_epoch(epoch),
        on_run=results.append,
    )
    return results[0]


def held_before(out: Path, config: RunConfig) -> str:
    """How a folder's run differs from one with this configuration; "" where it does not."""
    try:
        before = configured(RunConfig(), out / "config.toml")
    except ConfigError:  # none is there, or another version's
        return ""
    return difference(as_plain(before), as_plain(config))


def run_many(
    store: FeatureStore,
    runs: Sequence[tuple[RunConfig, Path]],
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    *,
    engine: str = "local",
    workers: int = 1,
    on_epoch: Callable[[Path, Epoch], None] = lambda out, epoch: None,
    on_run: Callable[[Run], None] = lambda run: None,
) -> None:
    """Train the seeds of many runs, `workers` at a time, and write each folder as it is complete.

    A seed is finished where its checkpoint was made by this configuration from these utterances,
    splits, labels and features; it is then read, not trained.
    """
    references: References = {}
    left: dict[Path, set[int]] = {}
    todo: list[Job] = []
    for config, out in runs:
        data = FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))
        for split in ("train", "valid", "test"):
            data.labelled_rows(split)  # refuses an empty one before anything is trained
        jobs = [Job(store.path, config, seed, out, str(device)) for seed in seeds]
        missing = [job for job in jobs if job.finished(data.digest) is None]
        left[out] = {job.seed for job in missing}
        todo += missing
        if missing:
            out.mkdir(parents=True, exist_ok=True)
            (out / "metrics.json").unlink(missing_ok=True)  # it marks a run that is complete
            publish_text(out / "config.toml", tomli_w.dumps(as_plain(config)))
        else:
            on_run(_complete(store, config, out, seeds, references, fresh=False))

    configs = {out: config for config, out in runs}

    def on_done(job: Job) -> None:
        left[job.folder].discard(job.seed)
        if not left[job.folder]:
            config = configs[job.folder]
            on_run(_complete(store, config, job.folder, seeds, references, fresh=True))

    run_jobs(
        todo,
        engine=engine,
        workers=workers,
        on_epoch=lambda job, epoch: on_epoch(job.folder, epoch),
        on_done=on_done,
    )


# By the digest of the data, so that runs on the same streams share them.
References = dict[str, dict[str, dict[str, NDArray[np.float64]]]]


def _complete(
    store: FeatureStore,
    config: RunConfig,
    out: Path,
    seeds: Sequence[int],
    references: References,
    *,
    fresh: bool,
) -> Run:
    """Write a folder's tables from its seeds' checkpoints; metrics.json last, as the end's mark."""
    streams = streams_by_role(store, config.model)
    data = FeatureData(store, streams, torch.device("cpu"))
    outcomes = [load_checkpoint(out / f"model-{seed}.pt").outcome for seed in seeds]
    _write_history(out / "history.csv", outcomes)
    _write_predictions(out / "predictions.csv", data, outcomes)
    if data.digest not in references:
        references[data.digest] = reference_scores(data, ("test",))
    found = {name: scores["test"] for name, scores in references[data.digest].items()}
    truth = data.labels[data.labelled_rows("test")].double().numpy()
    preds = np.stack([outcome.predictions["test"] for outcome in outcomes])
    metrics = {
        "variant": config.variant,
        "features": {
            "path": str(store.path),
            "utterances": len(store),
            "splits_from": store.splits_from,
            "fingerprints": {spec.name: spec.fingerprint for spec in streams.values()},
            "untrained": [spec.name for spec in streams.values() if spec.untrained],
            "empty_in_train": data.empty_in("train"),
        },
        "seeds": list(seeds),
        "best_epochs": [outcome.best_epoch for outcome in outcomes],
        **{split: _summary(data, outcomes, split) for split in ("test", "valid")},
        **{name: regression_metrics(scores, truth) for name, scores in found.items()},
        "against": against_references(preds, found, truth),
    }
    publish_text(out / "metrics.json", json.dumps(_json_numbers(metrics), indent=2) + "\n")
    return Run(out, metrics, outcomes, fresh)


def _summary(data: FeatureData, outcomes: Sequence[Outcome], split: str) -> dict[str, Any]:
    truth = data.labels[data.labelled_rows(split)].double().numpy()
    return summary(np.stack([outcome.predictions[split] for outcome in outcomes]), truth)


def _write_history(path: Path, outcomes: Sequence[Outcome]) -> None:
    rows = [asdict(epoch) for outcome in outcomes for epoch in outcome.history]
    publish_text(path, csv_text(rows[0].keys(), (row.values() for row in rows)))


def _write_predictions(path: Path, data: FeatureData, outcomes: Sequence[Outcome]) -> None:
    seeds = [f"prediction_{outcome.seed}" for outcome in outcomes]
    lines = []
    for split in ("valid", "test"):
        rows = data.labelled_rows(split).tolist()
        scores = np.stack([outcome.predictions[split] for outcome in outcomes], axis=1)
        for row, score in zip(rows, scores.tolist(), strict=True):
            label = float(data.labels[row])
            lines.append([data.store.ids[row], split, label, sum(score) / len(score), *score])
    publish_text(path, csv_text(["id", "split", "label", "prediction", *seeds], lines))


def _json_numbers(value: Any) -> Any:
    """NaN as null: JSON has no NaN, and other programs' readers refuse it."""
    if isinstance(value, Mapping):
        return {key: _json_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_numbers(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
