"""`clipmsa tune`: a search over the configuration -> a file that `train --config` takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from clipmsa.cli.console import warn_untrained
from clipmsa.cli.options import Config, Device, Features, Settings, Trainers, Trust, parse_seeds
from clipmsa.devices import resources
from clipmsa.progress import progress
from clipmsa.terminal import note


def tune(
    features: Features,
    trials: Annotated[int, typer.Option(min=1, help="How many to have in the end.")] = 30,
    search: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with a table search.", show_default="the shipped search.toml"
        ),
    ] = None,
    seeds: Annotated[str, typer.Option(help="A trial is the mean over them.")] = "1111",
    out: Annotated[
        Path | None, typer.Option(help="Where the trials go.", show_default="runs/NAME-tune")
    ] = None,
    config: Config = None,
    settings: Settings = None,
    device: Device = "auto",
    workers: Trainers = None,
    trust: Trust = None,
) -> None:
    """Search settings by validation MAE, with Optuna; the test split is never looked at.

    Writes best.toml, which `train --config` takes, and trials.csv. Called again, it goes on.

    Example: clipmsa tune --features cache/mosi.h5 --trials 30
    """
    from clipmsa.cache import FeatureStore, plugins
    from clipmsa.fusion.experiments.tuning import SEARCH, read_search
    from clipmsa.fusion.experiments.tuning import tune as run_search
    from clipmsa.fusion.training.config import RunConfig, configured

    plugins.trust(trust or ())
    base = configured(RunConfig(), config, settings or [])
    store = FeatureStore(features)
    folder = out or Path("runs") / f"{features.stem}-tune"
    note("{}: {} utterances ({})", store.path, len(store), store.counts_by_split)
    best = float("inf")
    before: int | None = None
    with progress("tune", "trials") as advance:

        def on_trial(number: int, mae: float, params: dict[str, Any]) -> None:
            nonlocal best, before
            best = min(best, mae)
            before = number if before is None else before  # those of earlier calls
            detail = f"valid MAE {mae:.3f}, best {best:.3f}"
            advance(number + 1, max(trials, number + 1), detail, before)

        tuned = run_search(
            store,
            base,
            folder,
            trials=trials,
            search=read_search(search or SEARCH, base),
            seeds=parse_seeds(seeds),
            resources=resources(device, workers=workers),
            on_trial=on_trial,
        )
    warn_untrained(store.untrained_streams)
    for said in tuned.verdicts:
        note("[bold yellow]best trial, on validation:[/] {}", said)
    note("{}", f"{folder}: best.toml (valid MAE {tuned.valid_mae:.3f}), trials.csv")
    note("{}", f"clipmsa train --features {features} --config {folder / 'best.toml'}")
