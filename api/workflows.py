"""From clips to trained runs, a function a step; the verbs of the command call these.

Paths may be strings. What happens on the way is logged to `clipmsa`, as information or, where it
may be amiss, as a warning; progress is shown unless `progress` is False. `trust` names modules of
your own that the files of a store or a run may name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipmsa.cache import FeatureStore
from clipmsa.cache.errors import ConfigError
from clipmsa.cache.plugins import trust as trust_modules

from . import progress as bars
from .arguments import Named, Words, log, opened, path_of, words
from .devices import pick_device, resources
from .results import Run, Runs

if TYPE_CHECKING:
    import torch

    from clipmsa.extract.datasets.clips import Manifest
    from clipmsa.extract.engine.ray_cluster import Cluster
    from clipmsa.extract.profiles.profile import Profile
    from clipmsa.fusion.experiments.variants import Variant
    from clipmsa.fusion.training.config import RunConfig
    from clipmsa.fusion.training.outcome import Epoch


SEEDS = (1111, 1112, 1113)
ENGINES = ("local", "ray")
_MOST_LANES = 4  # each keeps a batch of clips in memory, and its activations


def read_dataset(
    dataset: Named,
    root: Named | None = None,
    folds: Named | None = None,
    layout: str | None = None,
) -> Manifest:
    """The clips of a dataset, before anything is encoded.

    Args:
        dataset: `mosi`, `mosei`, a folder, or a CSV table.
        root: where its clips are; else `data/<dataset>`, or the table's folder.
        folds: a JSON file of lists of videos by split, in place of the dataset's.
        layout: how the folder is laid out, by name or import path; else it is recognised.

    Raises:
        TableError: nothing there, a column is missing, or rows are faulty; names file and row.
    """
    from clipmsa.extract.datasets.read import read_dataset as read

    return read(os.fspath(dataset), path_of(root), path_of(folds), layout)


def extract_features(
    dataset: Named | Manifest,
    out: Named | None = None,
    *,
    root: Named | None = None,
    folds: Named | None = None,
    layout: str | None = None,
    profile: Named | Profile = "paper",
    weights: Named | None = None,
    streams: Words = (),
    fps: float | None = None,
    max_frames: int | None = None,
    sequences: bool = False,
    sequence_rate: float = 10.0,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 8,
    workers: int | None = None,
    engine: str | Cluster = "local",
    overwrite: bool = False,
    retry_failed: bool = False,
    trust: Words = (),
    progress: bool = True,
) -> FeatureStore:
    """Encode clips once, with frozen encoders, into a feature store; what is there is kept.

    Args:
        dataset: as `read_dataset` takes it, with `root`, `folds` and `layout`; or what it gives.
        out: the store; else `cache/<dataset>.h5`.
        profile: paper, tiny, audioclip, or a TOML file.
        weights: pretrained, random, or a folder of checkpoints; else as the profile says.
        streams: some of the profile's; else all.
        fps, max_frames: of the pictures; else as the profile says.
        sequences: also keep text tokens and speech frames, `sequence_rate` of these a second.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: fp32, bf16 or fp16.
        batch_size: clips encoded together.
        workers: threads that decode; else one a core.
        engine: `local`, `ray`, or a `Cluster` that says more.
        overwrite: encode the streams anew.
        retry_failed: try clips again that failed before.

    Raises:
        ClipmsaError: `clipmsa.extract.engine.pipeline.extract` says when.
    """
    from clipmsa.extract.datasets.clips import Manifest
    from clipmsa.extract.engine.pipeline import extract
    from clipmsa.extract.engine.plan import Settings
    from clipmsa.extract.engine.ray_cluster import Cluster
    from clipmsa.extract.engine.worker import Worker
    from clipmsa.extract.profiles.profile import Media, Profile, check_precision, load_profile
    from clipmsa.extract.weights.find import weights_mode

    trust_modules(words(trust))
    if isinstance(engine, str) and engine not in ENGINES:
        raise ConfigError(f"`engine={engine!r}`: must be one of {', '.join(ENGINES)}")
    if not isinstance(dataset, Manifest):
        dataset = read_dataset(dataset, root, folds, layout)
    chosen = profile if isinstance(profile, Profile) else load_profile(os.fspath(profile))
    if sequences:
        chosen = chosen.with_sequences(sequence_rate)
    if names := words(streams):
        chosen = chosen.only(names)
    cluster = Cluster() if engine == "ray" else None if isinstance(engine, str) else engine
    where = pick_device(device) if cluster is None else _actors_device(device, cluster.gpus)
    media = Media(fps or chosen.media.fps, max_frames or chosen.media.max_frames)
    settings = Settings(
        profile=replace(chosen, media=media),
        weights=weights_mode(os.fspath(weights or chosen.weights)),
        precision=check_precision(precision),
        device=where,
        batch_clips=batch_size,
        workers=workers or os.cpu_count() or 1,
        lanes=1 if where.type != "cpu" else min(_MOST_LANES, os.cpu_count() or 1),
    )
    if settings.weights == "random":
        log.warning(
            "encoders with random weights are untrained: their features say nothing about "
            "CLIP-MSA and are marked so in the store"
        )
    before: int | None = None
    with bars.progress("extract", "clips", progress) as advance:

        def on_progress(done: int, total: int, failed: int) -> None:
            nonlocal before
            before = done if before is None else before  # the first call tells
            advance(done, total, f"{failed} failed" if failed else "", before)

        report = extract(
            dataset,
            path_of(out) or Path("cache") / f"{dataset.called}.h5",
            settings,
            overwrite=overwrite,
            retry_failed=retry_failed,
            engine=cluster or Worker,
            on_progress=on_progress,
            on_note=log.warning,
        )
    if report.encoded == 0:
        log.info("%s: nothing to do, all %d clips are there", report.path, report.utterances)
    else:
        log.info("%s: %d clips encoded in %.1f s", report.path, report.encoded, report.seconds)
    for failure in report.failures[:10]:
        log.warning("left out %s at %s: %s", failure.id, failure.stage, failure.error)
    if more := report.failures[10:]:
        log.warning("left out %d more; `clipmsa inspect %s` lists them", len(more), report.path)
    return FeatureStore(report.path)


def configure(
    variant: str | None = None,
    model: str | None = None,
    config: Named | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    without: Words = (),
) -> RunConfig:
    """What `train` trains with these arguments.

    Raises:
        ConfigError: a name, a key or a value that there is not; or both a variant and a model.
    """
    from clipmsa.fusion.experiments.variants import find_model, find_variant, left_out
    from clipmsa.fusion.training.config import RunConfig, configured

    if variant is not None and model is not None:
        raise ConfigError(
            "`variant` is one of CLIP-MSA, `model` is another network; give one of the two"
        )
    made = configured(RunConfig(), path_of(config))
    chosen = find_model(model) if model else find_variant(variant) if variant else None
    if chosen is not None:
        if config is not None and chosen.model.network != made.model.network:
            log.info(
                "%s: sizes of '%s' are not taken over; '%s' has its own",
                config,
                made.model.network,
                chosen.model.network,
            )
        made = chosen.applied(made)
    made = configured(made, settings=settings)
    names = words(without)
    return left_out(made, names) if names else made


def train(
    features: Named | FeatureStore,
    out: Named | None = None,
    *,
    variant: str | None = None,
    model: str | None = None,
    config: Named | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    without: Words = (),
    track: str | None = None,
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    trust: Words = (),
    progress: bool = True,
) -> Run:
    """Train CLIP-MSA, or another network, over several seeds; each is tested once.

    Args:
        features: a feature store.
        out: the run's folder; else `runs/<store>`, and the variant's name where it is not `full`.
        variant: a row of the paper's Table 2 by name, `FILE.toml` or `FILE.toml:NAME`; else `full`.
        model: in place of a variant, a network by name or import path (`my_networks:GatedSum`).
        config: a TOML file with tables model and training.
        settings: of the model and of the training, by name.
        seeds: one training each.
        without: modalities to leave out.
        track: show it in tensorboard, wandb or mlflow as it goes.
        device: auto, cpu, cuda, cuda:1, mps.
        workers: seeds trained side by side; else one a core.
        overwrite: replace the folder's run of other settings or data.

    Raises:
        ClipmsaError: `clipmsa.fusion.experiments.runs.run_many` says when.
    """
    from clipmsa.fusion.experiments.runs import run
    from clipmsa.fusion.experiments.tracking import Tracking

    trust_modules(words(trust))
    chosen = configure(variant, model, config, settings, without)
    store = opened(features)
    name = store.path.stem if chosen.variant == "full" else f"{store.path.stem}-{chosen.variant}"
    folder = path_of(out) or Path("runs") / name
    tracking = Tracking(track, folder, chosen) if track else None
    tally = bars.EpochTally(len(seeds), chosen.training.epochs)
    with bars.progress("train", "epochs", progress) as advance:

        def on_epoch(epoch: Epoch) -> None:
            detail = f"seed {epoch.seed}, valid MAE {epoch.valid_mae:.3f}"
            done = tally.count(epoch.seed, epoch.epoch)
            advance(done, tally.total, detail, tally.before)
            if tracking is not None:
                tracking.on_epoch(epoch)

        trained = run(
            store,
            chosen,
            folder,
            seeds,
            resources(device, workers=workers),
            on_epoch=on_epoch,
            overwrite=overwrite,
            on_note=log.warning,
        )
    if tracking is not None:
        tracking.finish(trained)
    return Run(folder, fresh=trained.fresh)


def ablate(
    features: Named | FeatureStore,
    out: Named | None = None,
    *,
    variants: Words = "table2",
    config: Named | None = None,
    settings: Mapping[str, Any] | Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    device: str = "auto",
    engine: str = "local",
    workers: int | None = None,
    overwrite: bool = False,
    paper: str | None = None,
    trust: Words = (),
    progress: bool = True,
) -> Runs:
    """Train many variants over one store, and write table.md, table.csv and table.tex of them.

    Args:
        features: a feature store.
        out: the folder of the runs; else `runs/<store>-ablate`, or `-table1`.
        variants: `table2`, the nine rows of the paper's; `table1`, its baselines and `full`; or
            names and TOML files.
        config, settings: of the training, for all; those of the model for CLIP-MSA alone.
        engine: `local`, or `ray`: a cluster, on CPUs unless `device` says cuda.
        paper: mosi or mosei: also write paper.md and paper.csv, the paper's figures beside these.

    The other arguments are those of `train`; `run_many` says what can go wrong.
    """
    from clipmsa.fusion.experiments.ablations import ablate as run_all
    from clipmsa.fusion.experiments.ablations import choose_variants
    from clipmsa.fusion.experiments.runs import Run as Trained
    from clipmsa.fusion.training.config import RunConfig, configured

    trust_modules(words(trust))
    names = ",".join(words(variants))
    using = resources(device, engine, workers)
    chosen = choose_variants(names)
    store = opened(features)
    kind = "table1" if names == "table1" else "ablate"
    folder = path_of(out) or Path("runs") / f"{store.path.stem}-{kind}"
    epochs = configured(RunConfig(), path_of(config), settings).training.epochs
    tally = bars.EpochTally(len(chosen) * len(seeds), epochs)
    with bars.progress("ablate", "epochs", progress) as advance:

        def on_epoch(variant: Variant, epoch: Epoch) -> None:
            detail = f"{variant.name}, seed {epoch.seed}, valid MAE {epoch.valid_mae:.3f}"
            done = tally.count((variant.name, epoch.seed), epoch.epoch)
            advance(done, tally.total, detail, tally.before)

        def on_variant(variant: Variant, trained: Trained) -> None:
            if not trained.fresh:
                log.info("%s: finished before, not run again", trained.path)
            for seed in seeds:
                tally.ended((variant.name, seed))
            done = sum(tally.done.values())
            advance(done, tally.total, f"{variant.name} finished", tally.before)

        results = run_all(
            store,
            chosen,
            folder,
            seeds=seeds,
            config=path_of(config),
            settings=settings,
            resources=using,
            overwrite=overwrite,
            paper=paper,
            on_variant=on_variant,
            on_epoch=on_epoch,
            on_note=log.warning,
        )
    return Runs([Run(trained.path, fresh=trained.fresh) for _, trained in results], folder)


def _actors_device(name: str, gpus: float) -> torch.device:
    """The device of Ray's actors; what this machine has says nothing about theirs."""
    import torch

    return torch.device(name if name != "auto" else "cuda" if gpus else "cpu")
