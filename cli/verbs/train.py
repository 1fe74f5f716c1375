"""`clipmsa train`: a feature store -> a run folder and a table of metrics."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipmsa.cli.console import print_metrics, warn_drawn, warn_empty, warn_untrained
from clipmsa.cli.options import (
    SEEDS,
    Config,
    Device,
    Features,
    Model,
    Replace,
    Seeds,
    Settings,
    Trainers,
    Trust,
    parse_seeds,
)
from clipmsa.terminal import note

if TYPE_CHECKING:
    from clipmsa.results import Run


def train(
    features: Features,
    variant: Annotated[
        str | None,
        typer.Option(
            help="A row of Table 2 by name, FILE.toml or FILE.toml:NAME.", show_default="full"
        ),
    ] = None,
    model: Model = None,
    seeds: Seeds = SEEDS,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder.", show_default="runs/NAME")
    ] = None,
    config: Config = None,
    settings: Settings = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many.")] = None,
    without: Annotated[
        str | None, typer.Option(help="Modalities to leave out: text,audio,vision.")
    ] = None,
    track: Annotated[
        str | None, typer.Option(help="Show the run in tensorboard, wandb or mlflow, as it goes.")
    ] = None,
    device: Device = "auto",
    workers: Trainers = None,
    overwrite: Replace = False,
    trust: Trust = None,
) -> None:
    """Train CLIP-MSA, or a baseline, on a feature store over several seeds; test each seed once.

    Writes config.toml, metrics.json, history.csv, predictions.csv and model-SEED.pt.

    Example: clipmsa train --features cache/mosei.h5 --variant full --seeds 1111,1112,1113
    """
    from clipmsa.workflows import train as run

    if variant is not None and model is not None:
        raise typer.BadParameter(
            "a variant is one of CLIP-MSA, a model another network; give one of the two",
            param_hint="--variant, --model",
        )
    show(
        run(
            features,
            out,
            variant=variant,
            model=model,
            config=config,
            settings=[*(settings or []), *([f"epochs={epochs}"] if epochs else [])],
            seeds=parse_seeds(seeds),
            without=without or (),
            track=track,
            device=device,
            workers=workers,
            overwrite=overwrite,
            trust=trust or (),
        )
    )


def show(run: Run) -> None:
    """Print how each seed ended, the table of test metrics, and what to mind."""
    length = run.history.groupby("seed").size()
    for seed, best in zip(run.seeds, run.results["best_epochs"], strict=True):
        found = "" if run.fresh else " (finished before, not trained again)"
        note("{}", f"seed {seed}: stopped after epoch {length[seed]}, best {best}{found}")
    print_metrics(run)
    features = run.results["features"]
    warn_untrained(run.untrained)
    warn_empty(features["empty_in_train"])
    warn_drawn(features["splits_from"])
    note("{}: config.toml, metrics.json, history.csv, predictions.csv, model-*.pt", run.path)
