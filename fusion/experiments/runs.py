"""A run: one variant over several seeds, in a folder that holds all there is to know of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import CheckpointError, ConfigError, RunError, TrainingError
from clipmsa.cache.files import sole_writer
from clipmsa.cache.provenance import difference
from clipmsa.fusion.metrics.bootstrap import summary
from clipmsa.fusion.metrics.regression import regression_metrics
from clipmsa.fusion.training.checkpoint import check_progress, load_checkpoint
from clipmsa.fusion.training.config import RunConfig, as_plain, check_seeds, configured
from clipmsa.fusion.training.data import FeatureData, streams_by_role
from clipmsa.fusion.training.folder import RunFolder
from clipmsa.fusion.training.outcome import Epoch, Outcome

from .jobs import Job, run_jobs
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
    overwrite: bool = False,
    on_note: Callable[[str], None] = lambda text: None,
) -> Run:
    """Train every seed that is not finished yet, and write the run folder.

    `run_many` says what the arguments do and what can go wrong.
    """
    results: list[Run] = []
    run_many(
        store,
        [(config, out)],
        seeds,
        device,
        workers=workers,
        overwrite=overwrite,
        on_epoch=lambda _, epoch: on_epoch(epoch),
        on_run=results.append,
        on_note=on_note,
    )
    return results[0]


# By the digest of the data, so that runs on the same streams share them.
References = dict[str, dict[str, dict[str, NDArray[np.float64]]]]


class _Plan(NamedTuple):
    """A run to be made: its data as they were when it began, and a job a seed."""

    config: RunConfig
    out: Path
    data: FeatureData
    jobs: list[Job]

    @property
    def folder(self) -> RunFolder:
        return RunFolder(self.out)


def run_many(
    store: FeatureStore,
    runs: Sequence[tuple[RunConfig, Path]],
    seeds: Sequence[int],
    device: torch.device | str = "cpu",
    *,
    engine: str = "local",
    workers: int = 1,
    overwrite: bool = False,
    on_epoch: Callable[[Path, Epoch], None] = lambda out, epoch: None,
    on_run: Callable[[Run], None] = lambda run: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> None:
    """Train the seeds of many runs, `workers` at a time, and write each folder as it is complete.

    A seed is finished where its checkpoint was made by this configuration from these utterances,
    splits, labels and features; it is then read, not trained. Files that are damaged are told to
    `on_note`, a line each, and made anew. A folder's run of other settings or data is replaced
    where `overwrite` says so. No other process can write to the folders meanwhile.

    Raises:
        ConfigError: the store lacks what a configuration names, or seeds are none.
        RunError: a folder holds another run.
        TrainingError: a split is empty, numbers are not finite, or the store was written anew.
        ClipmsaError: another process writes to a folder.
    """
    check_seeds(seeds)
    references: References = {}
    plans = {out: _planned(store, config, out, seeds, device) for config, out in runs}
    with ExitStack() as folders:
        for out in plans:
            folders.enter_context(sole_writer(out))
        replaced = {out: told for out, plan in plans.items() if (told := _another(plan))}
        for out, told in replaced.items():
            if not overwrite:
                raise RunError(
                    f"{out}: holds another run ({told}); choose another --out, or replace it with "
                    f"--overwrite"
                )
            on_note(f"{out} held another run ({told}); this one replaces it")
            RunFolder(out).clear()
        left = {
            out: [j for j in plan.jobs if _unfinished(j, on_note)] for out, plan in plans.items()
        }
        for out, plan in plans.items():
            if left[out]:
                plan.folder.metrics.unlink(missing_ok=True)
                plan.folder.write_config(plan.config)
            else:
                on_run(_complete(plan, references, fresh=False))

        def on_done(job: Job) -> None:
            left[job.folder].remove(job)
            if not left[job.folder]:
                on_run(_complete(plans[job.folder], references, fresh=True))

        run_jobs(
            [job for jobs in left.values() for job in jobs],
            engine=engine,
            workers=workers,
            on_epoch=lambda job, epoch: on_epoch(job.folder, epoch),
            on_done=on_done,
        )


def _planned(
    store: FeatureStore,
    config: RunConfig,
    out: Path,
    seeds: Sequence[int],
    device: torch.device | str,
) -> _Plan:
    data = FeatureData(store, streams_by_role(store, config.model), torch.device("cpu"))
    for split in ("train", "valid", "test"):
        data.labelled_rows(split)  # refuses an empty one before anything is trained
    jobs = [Job(store.path, config, seed, out, data.digest, str(device)) for seed in seeds]
    return _Plan(config, out, data, jobs)


def _another(plan: _Plan) -> str:
    """How the run that a folder holds differs from the one that is planned; "" where it does not.

    Its seeds may be others: a run can be given more of them.
    """
    written = plan.folder.config
    before: list[RunConfig] = []
    try:
        before += [configured(RunConfig(), written, written=False)] if written.exists() else []
    except ConfigError as error:
        return str(error)
    digests = _digest_of(plan.folder.metrics)
    for file in plan.folder.models:
        try:
            checkpoint = load_checkpoint(file)
        except CheckpointError:  # nobody's loss: `_unfinished` says what becomes of it
            continue
        before.append(checkpoint.config)
        digests.append(checkpoint.data)
    for config in before:
        if config != plan.config:
            return difference(as_plain(config), as_plain(plan.config))
    other = any(digest != plan.data.digest for digest in digests)
    return "of a store with other utterances, splits, labels or features" if other else ""


def _digest_of(path: Path) -> list[str]:
    """The digest of the data that a metrics.json names; of versions before, or damaged: none."""
    try:
        return [str(json.loads(path.read_text(encoding="utf-8"))["features"]["digest"])]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []


def _unfinished(job: Job, on_note: Callable[[str], None]) -> bool:
    """Whether a seed is to be trained; tells of files of it that are damaged."""
    try:
        job.result()
    except CheckpointError as error:
        if job.path.exists():
            on_note(f"{error}; seed {job.seed} is trained anew")
    except TrainingError:
        pass
    else:
        return False
    try:
        check_progress(job.progress)
    except CheckpointError as error:
        on_note(f"{error}; seed {job.seed} begins anew")
        job.progress.unlink()
    return True


def _complete(plan: _Plan, references: References, *, fresh: bool) -> Run:
    """Write a folder's tables from its seeds' checkpoints; metrics.json last, as the end's mark."""
    folder, data = plan.folder, plan.data
    outcomes = [job.result().outcome for job in plan.jobs]
    folder.write_config(plan.config)
    folder.write_history(outcomes)
    folder.write_predictions(data, outcomes)
    if data.digest not in references:
        references[data.digest] = reference_scores(data, ("test",))
    found = {name: scores["test"] for name, scores in references[data.digest].items()}
    truth = data.labels[data.labelled_rows("test")].double().numpy()
    preds = np.stack([outcome.predictions["test"] for outcome in outcomes])
    metrics = {
        "variant": plan.config.variant,
        "features": {
            "path": str(data.store.path),
            "utterances": len(data.store),
            "digest": data.digest,
            "splits_from": data.store.splits_from,
            "fingerprints": {spec.name: spec.fingerprint for spec in data.roles.values()},
            "untrained": [spec.name for spec in data.roles.values() if spec.untrained],
            "empty_in_train": data.empty_in("train"),
        },
        "seeds": [job.seed for job in plan.jobs],
        "best_epochs": [outcome.best_epoch for outcome in outcomes],
        **{split: _summary(data, outcomes, split) for split in ("test", "valid")},
        **{name: regression_metrics(scores, truth) for name, scores in found.items()},
        "against": against_references(preds, found, truth),
    }
    folder.write_metrics(metrics)
    return Run(folder.path, metrics, outcomes, fresh)


def _summary(data: FeatureData, outcomes: Sequence[Outcome], split: str) -> dict[str, Any]:
    truth = data.labels[data.labelled_rows(split)].double().numpy()
    return summary(np.stack([outcome.predictions[split] for outcome in outcomes]), truth)
